//! A page of keys and values as bytes: in a file of its own in the prefix cache, or one after
//! another in a saved sequence.
//!
//! | bytes | content |
//! |---|---|
//! | 16 | the magic |
//! | 32 | the fingerprint of the computation, see [`Fingerprint`] |
//! | 16 | the name of the page before it |
//! | 4 | the number of tokens, 1 to 64 |
//! | 8 | the number of bytes of keys and values |
//! | 4 each | the tokens |
//! | that many | keys and values, layer by layer |
//! | 32 | SHA-256 of everything before |
//!
//! Numbers are little-endian. Nothing is allocated before the numbers are those of this engine.

use std::io::{self, Read};

use cachalot_model::PAGE_ROWS;
use sha2::{Digest, Sha256};

use crate::blocks::PageKey;
use crate::status::Fingerprint;

const MAGIC: &[u8; 16] = b"cachalot kv v1\r\n";
const HEAD_BYTES: usize = 16 + 32 + 16 + 4 + 8;
const SUM_BYTES: usize = 32;

/// A page of keys and values, with the tokens that they belong to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PageData {
    /// The page before it.
    pub(crate) parent: PageKey,
    /// 1 to [`PAGE_ROWS`] tokens.
    pub(crate) tokens: Vec<u32>,
    /// The whole page in all layers; rows beyond the tokens mean nothing.
    pub(crate) bytes: Vec<u8>,
}

impl PageData {
    /// The page's name, if it is full.
    pub(crate) fn key(&self) -> PageKey {
        self.parent.then(&self.tokens)
    }

    /// Bytes of [`PageData::encode`].
    pub(crate) fn encode_len(&self) -> u64 {
        record_bytes(self.tokens.len(), self.bytes.len()) as u64
    }

    /// The page as bytes.
    pub(crate) fn encode(&self, fingerprint: &Fingerprint) -> Vec<u8> {
        let mut out = Vec::with_capacity(record_bytes(self.tokens.len(), self.bytes.len()));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&fingerprint.0);
        out.extend_from_slice(&self.parent.0);
        out.extend_from_slice(&(self.tokens.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        self.tokens.iter().for_each(|token| out.extend_from_slice(&token.to_le_bytes()));
        out.extend_from_slice(&self.bytes);
        let sum = Sha256::digest(&out);
        out.extend_from_slice(&sum);
        out
    }

    /// Reads a page of `page_bytes` bytes of keys and values; `None` at the end of the input.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for anything that is not such a page of this computation.
    pub(crate) fn decode(
        from: &mut impl Read,
        fingerprint: &Fingerprint,
        page_bytes: u64,
    ) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD_BYTES];
        if from.read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut head[1..])?;
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let (magic, rest) = head.split_at(16);
        let (theirs, rest) = rest.split_at(32);
        let (parent, rest) = rest.split_at(16);
        let (count, len) = rest.split_at(4);
        let count = u32::from_le_bytes(count.try_into().expect("4 bytes")) as usize;
        let len = u64::from_le_bytes(len.try_into().expect("8 bytes"));
        if magic != MAGIC {
            return Err(wrong("it is not a page of keys and values"));
        }
        if theirs != fingerprint.0 {
            return Err(wrong("it belongs to another model, or to other options of computation"));
        }
        if !(1..=PAGE_ROWS).contains(&count) || len != page_bytes {
            return Err(wrong("its size is impossible"));
        }
        let mut body = vec![0; count * 4 + len as usize];
        from.read_exact(&mut body)?;
        let mut sum = [0; SUM_BYTES];
        from.read_exact(&mut sum)?;
        if sum[..] != Sha256::new_with_prefix(head).chain_update(&body).finalize()[..] {
            return Err(wrong("its checksum is wrong"));
        }
        let bytes = body.split_off(count * 4);
        let tokens = body.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let parent = PageKey(parent.try_into().expect("16 bytes"));
        Ok(Some(Self { parent, tokens: tokens.collect(), bytes }))
    }
}

/// Bytes of a record.
pub(crate) fn record_bytes(tokens: usize, page_bytes: usize) -> usize {
    HEAD_BYTES + tokens * 4 + page_bytes + SUM_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> PageData {
        let parent = PageKey::default().then(&[1, 2, 3]);
        PageData { parent, tokens: (0..64).collect(), bytes: (0..=255).collect() }
    }

    #[test]
    fn pages_come_back_one_after_another() {
        let own = Fingerprint([5; 32]);
        let last = PageData { tokens: vec![9], ..page() };
        let bytes = [page().encode(&own), last.encode(&own)].concat();
        assert_eq!(bytes.len(), record_bytes(64, 256) + record_bytes(1, 256));
        let mut from = bytes.as_slice();
        assert_eq!(PageData::decode(&mut from, &own, 256).unwrap(), Some(page()));
        assert_eq!(PageData::decode(&mut from, &own, 256).unwrap(), Some(last));
        assert_eq!(PageData::decode(&mut from, &own, 256).unwrap(), None);
    }

    #[test]
    fn damage_of_every_byte_is_noticed() {
        let own = Fingerprint([5; 32]);
        let good = page().encode(&own);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(PageData::decode(&mut bad.as_slice(), &own, 256).is_err(), "byte {at}");
            let cut = PageData::decode(&mut &good[..at], &own, 256);
            assert!(!matches!(cut, Ok(Some(_))), "{at} bytes");
        }
        assert!(PageData::decode(&mut good.as_slice(), &Fingerprint([6; 32]), 256).is_err());
        assert!(PageData::decode(&mut good.as_slice(), &own, 255).is_err());
    }
}
