//! SHA-256: the name of a file's content in both services and in the library.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The hash of all that `reader` gives; `seen` is told the bytes read so far.
    ///
    /// # Errors
    /// Those of `reader`, and [`io::ErrorKind::Interrupted`] once `seen` returns false.
    pub fn of_reader(mut reader: impl Read, mut seen: impl FnMut(u64) -> bool) -> io::Result<Self> {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0;
        loop {
            let read = reader.read(&mut buffer)?;
            if read == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buffer[..read]);
            total += read as u64;
            if !seen(total) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    /// The 32 bytes.
    pub(crate) fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("64 hexadecimal digits were expected")]
pub struct NotHex;

impl FromStr for Sha256 {
    type Err = NotHex;

    /// 64 hexadecimal digits, with or without `sha256:` or `sha256-` before them.
    fn from_str(text: &str) -> Result<Self, NotHex> {
        let hex = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256-"));
        let hex = hex.unwrap_or(text).as_bytes();
        let mut bytes = [0; 32];
        if hex.len() != 64 {
            return Err(NotHex);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(NotHex);
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a [`Sha256`] piece by piece. Its state can be kept and taken up again.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// Bytes of [`Hasher::state`].
    pub const STATE_BYTES: usize = 8 * 4 + 8 + 64;

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes added.
    pub fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }

    /// What [`Hasher::from_state`] continues from.
    pub fn state(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// Continues from a kept state; `None` if these bytes are none.
    pub fn from_state(state: &[u8]) -> Option<Self> {
        let state = SerializedState::<sha2::Sha256>::try_from(state).ok()?;
        sha2::Sha256::deserialize(&state).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-4

    #[test]
    fn the_standard_example_is_hashed() {
        assert_eq!(Sha256::of(b"abc").to_string(), ABC);
        assert_eq!(Sha256::of_reader(&b"abc"[..], |_| true).unwrap(), Sha256::of(b"abc"));
        assert!(Sha256::of_reader(&b"abc"[..], |_| false).is_err());
    }

    #[test]
    fn hexadecimal_digits_are_read() {
        let abc = Sha256::of(b"abc");
        for text in [ABC, &format!("sha256:{ABC}"), &format!("sha256-{}", ABC.to_uppercase())] {
            assert_eq!(text.parse(), Ok(abc), "{text}");
        }
        for bad in ["", "sha256:", &ABC[1..], &ABC.replace('b', "g"), &format!("md5:{ABC}"), "é"] {
            assert!(bad.parse::<Sha256>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<Sha256>(&format!("\"{ABC}\"")).unwrap(), abc);
        assert_eq!(abc.short(), &ABC[..12]);
    }

    #[test]
    fn a_kept_state_continues() {
        for cut in [0, 1, 63, 64, 65, 1000] {
            let bytes: Vec<u8> = (0..1000).map(|i| i as u8).collect();
            let mut hasher = Hasher::default();
            hasher.update(&bytes[..cut]);
            let state = hasher.state();
            assert_eq!(state.len(), Hasher::STATE_BYTES);
            let mut hasher = Hasher::from_state(&state).unwrap();
            hasher.update(&bytes[cut..]);
            assert_eq!(hasher.finish(), Sha256::of(&bytes), "{cut}");
        }
        assert!(Hasher::from_state(&[1; 3]).is_none());
        assert!(Hasher::from_state(&[0xff; Hasher::STATE_BYTES]).is_none());
    }
}
