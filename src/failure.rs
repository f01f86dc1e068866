//! How the program ends when something goes wrong: one message on standard error, one exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::terminal::without_controls;

/// The exit codes, as `cachalot --help` documents them.
mod code {
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const INTERRUPTED: u8 = 130; // 128 + SIGINT, as shells have it
}

/// The exit code after a Ctrl-C.
pub(crate) const INTERRUPTED: i32 = code::INTERRUPTED as i32;

/// An end that is no plain failure; anything else that goes wrong is one.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The command line, or a variable of the environment, makes no sense.
    Usage(String),
    /// Ctrl-C.
    Interrupted,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) => f.write_str(message),
            Self::Interrupted => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for Ended {}

/// A usage error with this message.
pub(crate) fn usage(message: impl fmt::Display) -> anyhow::Error {
    Ended::Usage(message.to_string()).into()
}

/// Says what went wrong, and gives the exit code for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS; // the reader, `head` perhaps, has had enough
    }
    match error.downcast_ref() {
        Some(Ended::Interrupted) => code::INTERRUPTED.into(),
        Some(Ended::Usage(message)) => {
            eprintln!("error: {message}\n\nFor more information, try '--help'.");
            code::USAGE.into()
        }
        None => {
            // Messages quote names and keys of files, which strangers wrote.
            eprintln!("error: {}", without_controls(&message(error)));
            code::FAILED.into()
        }
    }
}

/// The error and its causes; one that its predecessor already quotes is not said again.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_are_said_once() {
        let error = anyhow::anyhow!("b").context("a: b").context("cannot");
        assert_eq!(message(&error), "cannot: a: b");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let error = Err::<(), _>(gone()).context("writing").unwrap_err();
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&usage("x")));
    }
}
