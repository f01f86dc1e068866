//! The byte-level alphabet of GPT-2: every byte is written as one printable character, so that
//! token tables are text. Printable Latin-1 bytes stand for themselves, the other 68 are mapped to
//! U+0100 and up.

const FIRST_SUBSTITUTE: u32 = 0x100;

const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let (mut byte, mut substitute) = (0, FIRST_SUBSTITUTE);
    while byte < 256 {
        chars[byte] = if is_printable(byte as u8) {
            byte as u8 as char
        } else {
            substitute += 1;
            match char::from_u32(substitute - 1) {
                Some(char) => char,
                None => panic!("U+0100 to U+0143 are characters"), // at compile time
            }
        };
        byte += 1;
    }
    chars
};

/// The 68 bytes that are written as U+0100 and up, in that order.
const SUBSTITUTED: [u8; 68] = {
    let mut bytes = [0; 68];
    let (mut byte, mut count) = (0, 0);
    while byte < 256 {
        if !is_printable(byte as u8) {
            bytes[count] = byte as u8;
            count += 1;
        }
        byte += 1;
    }
    bytes
};

/// The character that stands for a byte.
pub(crate) fn char_of(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// The byte that a character stands for, if it belongs to the alphabet.
pub(crate) fn byte_of(char: char) -> Option<u8> {
    match u8::try_from(char) {
        Ok(byte) => is_printable(byte).then_some(byte),
        Err(_) => {
            let substitute = u32::from(char).checked_sub(FIRST_SUBSTITUTE)?;
            SUBSTITUTED.get(usize::try_from(substitute).ok()?).copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        for byte in 0..=255 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!((char_of(b' '), char_of(b'\n'), char_of(b'a')), ('Ġ', 'Ċ', 'a'));
        assert_eq!((char_of(0), char_of(0xAD), char_of(0xFF)), ('Ā', 'Ń', 'ÿ'));
        for foreign in [' ', '\u{7f}', '\u{ad}', 'ń', '▁', '｜'] {
            assert_eq!(byte_of(foreign), None, "{foreign:?}");
        }
    }
}
