//! Text from standard input and from files: UTF-8, without a byte order mark, and of a limited
//! length.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use cachalot_plan::units;

use crate::terminal::note;

/// Longest token of the vocabularies in use, generously, in bytes.
const TOKEN_BYTES_MAX: u64 = 256;
/// Limit for texts that are not computed, or computed piece by piece.
pub(crate) const TEXT_BYTES_MAX: u64 = 1 << 30;

/// Upper bound for the bytes of a text of this many tokens.
pub(crate) fn bytes_of(tokens: usize) -> u64 {
    (tokens as u64).saturating_mul(TOKEN_BYTES_MAX)
}

/// The whole of standard input, at most `max` bytes; `None` if it is a terminal.
///
/// # Errors
/// If it cannot be read, is longer, or is not UTF-8.
pub(crate) fn piped(max: u64) -> anyhow::Result<Option<String>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok(None);
    }
    // A pipe that stays open would block without any output.
    let (finished, waiting) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if waiting.recv_timeout(Duration::from_secs(2)) == Err(RecvTimeoutError::Timeout) {
            note("Waiting for the end of standard input; use `< /dev/null` if there is none.");
        }
    });
    let text = limited(stdin.lock(), "standard input", max);
    drop(finished);
    text.map(Some).map_err(|error| match error.downcast::<TooLong>() {
        Ok(long) => anyhow!("{long}, which the context window (--ctx) cannot hold"),
        Err(error) => error,
    })
}

/// The whole of standard input, at most [`TEXT_BYTES_MAX`].
///
/// # Errors
/// If it cannot be read, is longer, or is not UTF-8.
pub(crate) fn standard() -> anyhow::Result<String> {
    limited(io::stdin().lock(), "standard input", TEXT_BYTES_MAX)
}

/// The text of a file, at most [`TEXT_BYTES_MAX`].
///
/// # Errors
/// If it cannot be read, is longer, or is not UTF-8.
pub(crate) fn file(path: &Path) -> anyhow::Result<String> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    limited(file, &name, TEXT_BYTES_MAX)
}

fn limited(input: impl Read, name: &str, max: u64) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = input.take(max.saturating_add(1)).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > max {
        return Err(TooLong { name: name.to_owned(), max }.into());
    }
    let text =
        String::from_utf8(bytes).with_context(|| format!("cannot read {name} as UTF-8 text"))?;
    match text.strip_prefix('\u{feff}') {
        Some(rest) => Ok(rest.to_owned()),
        None => Ok(text),
    }
}

/// A text is longer than allowed.
#[derive(Debug)]
struct TooLong {
    name: String,
    /// In bytes.
    max: u64,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, max } = self;
        write!(f, "{name} is too long: it has more than {} bytes", units::grouped(*max))
    }
}

impl std::error::Error for TooLong {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_input_is_refused_at_once() {
        let error = limited(io::repeat(b'a'), "standard input", 1000).unwrap_err().to_string();
        assert!(error.contains("more than 1,000 bytes"), "{error}");
        assert_eq!(limited(&b"12345"[..], "x", 5).unwrap(), "12345");
    }

    #[test]
    fn a_byte_order_mark_is_not_text() {
        assert_eq!(limited(&b"\xef\xbb\xbfhi"[..], "x", 100).unwrap(), "hi");
        assert_eq!(limited("h\u{feff}i".as_bytes(), "x", 100).unwrap(), "h\u{feff}i");
        assert!(limited(&b"\xff\xfe"[..], "x", 100).is_err());
    }
}
