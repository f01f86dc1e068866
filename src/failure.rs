//! How errors end the program: one message on standard error, one exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::terminal::{note, without_controls};

/// Exit codes, as documented by `cachalot --help`.
mod code {
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const INTERRUPTED: u8 = 130; // 128 + SIGINT, as in shells
}

/// Why the program exits early; every other error is a plain failure.
#[derive(Debug)]
pub(crate) enum Exit {
    /// The command line or an environment variable is invalid.
    Usage(String),
    /// Ctrl-C.
    Interrupted,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) => f.write_str(message),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Exit {}

/// A usage error with this message.
pub(crate) fn usage(message: impl fmt::Display) -> anyhow::Error {
    Exit::Usage(message.to_string()).into()
}

/// Prints the error and returns its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS; // the reader, such as `head`, has exited
    }
    match error.downcast_ref() {
        Some(Exit::Interrupted) => code::INTERRUPTED.into(),
        Some(Exit::Usage(message)) => {
            note(&format!("error: {message}\n\nFor more information, try '--help'."));
            code::USAGE.into()
        }
        None => {
            // Messages quote names and keys from files, which are untrusted.
            note(&format!("error: {}", without_controls(&message(error))));
            code::FAILED.into()
        }
    }
}

/// The error and its causes, without those that the message already quotes.
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
    fn causes_are_printed_once() {
        let error = anyhow::anyhow!("b").context("a: b").context("cannot");
        assert_eq!(message(&error), "cannot: a: b");
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let error = Err::<(), _>(gone()).context("writing").unwrap_err();
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&usage("x")));
    }
}
