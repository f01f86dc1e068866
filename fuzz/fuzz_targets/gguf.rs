//! Any bytes give an error or a sound description, and a file's beginning never contradicts the
//! file.

#![no_main]

use cachalot_gguf::{Error, Gguf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file_len = bytes.len() as u64;
    let whole = Gguf::parse(bytes, file_len);
    assert!(!matches!(whole, Err(Error::NeedMore { .. })), "all bytes are there");
    if let Ok(gguf) = &whole {
        for tensor in &gguf.tensors {
            assert!(tensor.end() <= file_len);
            assert!(tensor.offset.is_multiple_of(gguf.alignment) && tensor.size > 0);
        }
    }
    // A reader who has half of it is either told to read on or gets the same description.
    let half = Gguf::parse(&bytes[..bytes.len() / 2], file_len);
    match (half, whole) {
        (Err(Error::NeedMore { at_least }), _) => assert!(at_least <= file_len),
        (Ok(half), Ok(whole)) => assert_eq!(half.tensors, whole.tensors),
        (Err(_), Err(_)) => {}
        (half, whole) => panic!("{half:?} but {whole:?}"),
    }
    // Much of a header is only looked at if the file is large enough for it.
    let _ = Gguf::parse(bytes, 1 << 40);
});
