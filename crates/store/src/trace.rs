//! Recorded routing: the experts of each token, to be replayed with other caches and policies.
//!
//! A file is a header of 16 bytes followed by tokens, in the order in which they were computed. All
//! numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `cachrout` |
//! | 2 | version: 1 |
//! | 2 | layers with experts |
//! | 2 | experts of each layer |
//! | 2 | experts that a token uses in each layer |
//! | layers x used | a token: its experts by layer, best first; one byte each, two if a layer has more than 256 |
//!
//! A last record that is incomplete is ignored.

use std::io::{self, Write};

use crate::Error;

const MAGIC: &[u8; 8] = b"cachrout";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;

/// The sizes of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Layers with experts.
    pub layers: u16,
    /// Experts of each.
    pub experts: u16,
    /// Experts that a token uses in each.
    pub used: u16,
}

impl Header {
    /// Experts of a token in all layers.
    pub fn picks(&self) -> usize {
        usize::from(self.layers) * usize::from(self.used)
    }

    /// Bytes of an expert's number.
    fn width(&self) -> usize {
        if self.experts > 256 { 2 } else { 1 }
    }
}

/// Writes a trace.
#[derive(Debug)]
pub struct TraceWriter<W: Write> {
    out: W,
    header: Header,
}

impl<W: Write> TraceWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W, header: Header) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        for number in [VERSION, header.layers, header.experts, header.used] {
            out.write_all(&number.to_le_bytes())?;
        }
        Ok(Self { out, header })
    }

    /// Adds a token's experts `[layers, used]`.
    ///
    /// # Errors
    /// Those of the output.
    pub fn token(&mut self, picks: &[u16]) -> io::Result<()> {
        for pick in picks {
            self.out.write_all(&pick.to_le_bytes()[..self.header.width()])?;
        }
        Ok(())
    }

    /// Flushes and returns the output.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// A trace in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The sizes.
    pub header: Header,
    picks: Vec<u16>, // [tokens, layers, used]
}

impl Trace {
    /// Parses a trace.
    ///
    /// # Errors
    /// If the bytes are not a trace, or an expert is out of range.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let broken = |what: String| Error::Trace { what };
        let (magic, rest) =
            bytes.split_first_chunk().ok_or_else(|| broken("it is too short".to_owned()))?;
        if magic != MAGIC || bytes.len() < HEADER_BYTES {
            return Err(broken("the magic number is wrong".to_owned()));
        }
        let numbers = rest.as_chunks().0;
        let [version, layers, experts, used] =
            [0, 1, 2, 3].map(|at| numbers.get(at).map_or(0, |&bytes| u16::from_le_bytes(bytes)));
        let header = Header { layers, experts, used };
        if version != VERSION {
            return Err(broken(format!("version {version} is unknown; expected {VERSION}")));
        }
        if layers == 0 || used == 0 || used > experts {
            return Err(broken(format!("{used} of {experts} experts in {layers} layers")));
        }
        let records = &bytes[HEADER_BYTES..];
        let record = header.picks() * header.width();
        let records = &records[..records.len() - records.len() % record];
        let picks: Vec<u16> = match header.width() {
            1 => records.iter().map(|&pick| u16::from(pick)).collect(),
            _ => records.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect(),
        };
        match picks.iter().position(|&pick| pick >= experts) {
            Some(at) => {
                let (token, expert) = (at / header.picks(), picks[at]);
                Err(broken(format!("token {token} uses expert {expert} of {experts}")))
            }
            None => Ok(Self { header, picks }),
        }
    }

    /// The experts of each token `[layers, used]`.
    pub fn tokens(&self) -> std::slice::ChunksExact<'_, u16> {
        self.picks.chunks_exact(self.header.picks())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(header: Header, tokens: &[Vec<u16>]) -> Vec<u8> {
        let mut writer = TraceWriter::new(Vec::new(), header).unwrap();
        tokens.iter().for_each(|token| writer.token(token).unwrap());
        writer.finish().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            layers in 1u16..4,
            used in 1u16..4,
            experts in prop_oneof![Just(4u16), Just(256), Just(257), Just(u16::MAX)],
            numbers in prop::collection::vec(any::<u16>(), 0..100),
        ) {
            let header = Header { layers, experts, used };
            let tokens = numbers.chunks_exact(header.picks());
            let tokens: Vec<Vec<u16>> =
                tokens.map(|token| token.iter().map(|n| n % experts).collect()).collect();
            let bytes = written(header, &tokens);
            let trace = Trace::read(&bytes).unwrap();
            prop_assert_eq!(trace.header, header);
            prop_assert_eq!(trace.tokens().collect::<Vec<_>>(), &tokens[..]);
            if let Some(cut) = bytes.len().checked_sub(1).filter(|_| !tokens.is_empty()) {
                let trace = Trace::read(&bytes[..cut]).unwrap();
                prop_assert_eq!(trace.tokens().len(), tokens.len() - 1);
            }
        }

        #[test]
        fn any_bytes_are_a_trace_or_an_error(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            magic: bool,
        ) {
            if magic && bytes.len() >= 10 {
                bytes[..10].copy_from_slice(b"cachrout\x01\x00");
            }
            let _ = Trace::read(&bytes);
        }
    }

    #[test]
    fn what_is_no_trace_is_refused_with_a_reason() {
        let header = Header { layers: 1, experts: 4, used: 2 };
        let mut bytes = written(header, &[vec![3, 4]]);
        let fails = |bytes: &[u8]| Trace::read(bytes).unwrap_err().to_string();
        assert!(fails(&bytes).contains("token 0 uses expert 4 of 4"));
        bytes[8] = 9;
        assert!(fails(&bytes).contains("version 9 is unknown"));
        assert!(fails(b"GGUF").contains("too short"));
        assert!(fails(b"GGUF, and so on and so on").contains("magic number"));
        assert!(fails(&written(Header { used: 5, ..header }, &[])).contains("5 of 4"));
    }
}
