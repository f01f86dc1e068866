//! Bytes in, whole characters out: a token is often only part of a character, which must never be
//! shown.

/// Joins the bytes of tokens to text. The text does not depend on how the bytes are cut, and equals
/// `String::from_utf8_lossy` of all of them.
#[derive(Debug, Default, Clone)]
pub struct Utf8Stream {
    /// The first bytes of an incomplete character: at most 3.
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// Takes the next bytes; returns the text they complete, which may be empty.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut from = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            from += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() || is_incomplete(&self.pending[from..]) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            from += invalid.len();
        }
        self.pending.drain(..from);
        text
    }

    /// Bytes that are held back: the beginning of a character.
    pub fn held_len(&self) -> usize {
        self.pending.len()
    }

    /// Ends the stream: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Whether all of `rest` may be the first bytes of one character.
fn is_incomplete(rest: &[u8]) -> bool {
    let error = std::str::from_utf8(rest).err();
    error.is_some_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn incomplete_characters_are_held_back() {
        let mut stream = Utf8Stream::default();
        let whale = "🐋".as_bytes();
        assert_eq!(stream.push(&[b"a", &whale[..1]].concat()), "a");
        assert_eq!(stream.push(&whale[1..3]), "");
        assert_eq!(stream.push(&whale[3..]), "🐋");
        assert_eq!(stream.push(&whale[..2]), "");
        assert_eq!(stream.finish(), "\u{FFFD}");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn invalid_bytes_are_not_held_back() {
        let mut stream = Utf8Stream::default();
        assert_eq!(stream.push(b"\xFFa\xC3(\xE2\x82"), "\u{FFFD}a\u{FFFD}(");
        assert_eq!(stream.push(b"x"), "\u{FFFD}x");
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_lossy_text(
            pieces in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..6),
                any::<String>().prop_map(String::into_bytes),
                Just("日🐋é".as_bytes()[2..6].to_vec()),
            ], 0..8),
            size in 1_usize..5,
        ) {
            let bytes = pieces.concat();
            let whole = String::from_utf8_lossy(&bytes).into_owned();
            for size in [size, 1] {
                let mut stream = Utf8Stream::default();
                let mut text: String = bytes.chunks(size).map(|chunk| stream.push(chunk)).collect();
                prop_assert!(stream.pending.len() < 4);
                text.push_str(&stream.finish());
                prop_assert_eq!(&text, &whole);
            }
        }
    }
}
