//! Every fault of a file gives an error that names it: a valid file is written, one thing in it is
//! damaged, and the message is read.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use cachalot_gguf::write::Writer;
use cachalot_gguf::{Error, Gguf, TensorType, Value};

/// Two tensors and four keys.
fn valid() -> Vec<u8> {
    let mut writer = Writer::default();
    writer.metadata.insert("general.architecture", "deepseek2");
    writer.metadata.insert("deepseek2.block_count", 61_u32);
    writer.metadata.insert("flag", true);
    writer.metadata.insert("tokens", vec!["a".to_owned(), "whale".to_owned()]);
    writer.tensor("alpha", TensorType::Q4_K, &[256, 3]).unwrap();
    writer.tensor("betas", TensorType::F32, &[5, 2, 2]).unwrap();
    finished(&writer)
}

/// The file of `writer` with zeros for weights.
fn finished(writer: &Writer) -> Vec<u8> {
    let mut data = writer.start(Vec::new()).unwrap();
    while let Some(size) = data.due().map(|tensor| tensor.size) {
        data.append(&vec![0; size as usize]).unwrap();
    }
    data.finish().unwrap()
}

fn parse(bytes: &[u8]) -> Result<Gguf, Error> {
    Gguf::parse(bytes, bytes.len() as u64)
}

fn message(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err().to_string()
}

/// Where the bytes that follow `name` begin.
fn after(bytes: &[u8], name: &str) -> usize {
    let at = bytes.windows(name.len()).position(|window| window == name.as_bytes());
    at.unwrap() + name.len()
}

/// `valid()` with `patch` written `skip` bytes after the end of `name`.
fn patched(name: &str, skip: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = valid();
    let at = after(&bytes, name) + skip;
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

// Offsets in a tensor's description, from the end of its name: number of dimensions, dimensions,
// and for the 2-dimensional `alpha` the type and the offset.
const DIMENSIONS: usize = 0;
const SHAPE: usize = 4;
const ALPHA_TYPE: usize = 4 + 2 * 8;
const ALPHA_OFFSET: usize = ALPHA_TYPE + 4;
const BETAS_OFFSET: usize = ALPHA_OFFSET + 8;

#[test]
fn the_undamaged_file_is_described() {
    let gguf = parse(&valid()).unwrap();
    assert_eq!(gguf.tensor("alpha").unwrap().size, 3 * 144);
    assert_eq!(gguf.tensor("betas").unwrap().shape, [5, 2, 2]);
}

#[test]
fn other_files_are_recognized() {
    let cases: [(&[u8], &str); 10] = [
        (b"", "it is empty"),
        (&[0; 100], "space was only reserved"),
        (b"PK\x03\x04abcdefghijklmnop", "zip archive"),
        (b"\x80\x12\x00\x00\x00\x00\x00\x00{\"__metadata__\"", "safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "git lfs pull"),
        (b"\n <!DOCTYPE html><html lang=en>", "web page"),
        (b"{\"error\":\"Invalid username or password.\"}", "JSON"),
        (b"lmgg\x01\x00\x00\x00............", "older than GGUF"),
        (b"tjgg\x03\x00\x00\x00............", "older than GGUF"),
        (b"once upon a time there was", "does not begin with"),
    ];
    for (bytes, expected) in cases {
        assert!(message(bytes).contains(expected), "{} lacks {expected:?}", message(bytes));
    }
}

#[test]
fn versions_and_byte_order_are_refused_by_name() {
    let version = |bytes: [u8; 4]| message(&[&b"GGUF"[..], &bytes, &[0; 16]].concat());
    assert!(version([1, 0, 0, 0]).contains("version 1 is not supported"));
    assert!(version([4, 0, 0, 0]).contains("version 4 is newer"));
    assert!(version([0, 0, 0, 3]).contains("big-endian"));
    let mut two = valid();
    two[4] = 2;
    assert_eq!(parse(&two).unwrap().version, 2);
}

#[test]
fn a_cut_header_says_whether_more_would_help() {
    let bytes = valid();
    let header = parse(&bytes).unwrap().data_offset as usize;
    for cut in 0..header - 32 {
        let full = Gguf::parse(&bytes[..cut], bytes.len() as u64);
        let Err(Error::NeedMore { at_least }) = full else { panic!("at {cut}: {full:?}") };
        assert!(at_least > cut as u64 && at_least <= bytes.len() as u64);
        assert!(!matches!(parse(&bytes[..cut]), Ok(_) | Err(Error::NeedMore { .. })), "at {cut}");
    }
    let in_value = message(&bytes[..after(&bytes, "deepseek2.block_count") + 5]);
    assert!(in_value.contains("ends inside the value of `deepseek2.block_count`"), "{in_value}");
    assert!(in_value.contains("Is the download complete?"));
}

#[test]
fn cut_data_names_the_tensor() {
    let bytes = valid();
    let cut = message(&bytes[..bytes.len() - 1]);
    assert!(cut.contains("tensor `betas` has 80 bytes") && cut.contains("download"), "{cut}");
    let header = parse(&bytes).unwrap().data_offset as usize;
    let none = message(&bytes[..header]);
    assert!(
        none.contains("tensor `alpha` starts at byte") && none.contains("past the end"),
        "{none}"
    );
}

#[test]
fn counts_are_compared_with_the_file() {
    let mut bytes = valid();
    bytes[8..16].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    assert!(message(&bytes).contains("the header claims 1152921504606846976 elements"));
    let mut bytes = valid();
    bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(parse(&bytes), Err(Error::Count { offset: 16, .. })));
    // An array of more strings than the rest of the file could hold; also if only its beginning was
    // passed.
    let bytes = patched("tokens", 8, &(1_u64 << 58).to_le_bytes());
    assert!(message(&bytes).contains("the value of `tokens` claims"));
    assert!(matches!(Gguf::parse(&bytes, 1 << 62), Err(Error::NeedMore { .. })));
}

#[test]
fn string_past_the_end() {
    let bytes = patched("general.architecture", 4, &(1_u64 << 40).to_le_bytes());
    assert!(message(&bytes).contains("the file ends inside the value of `general.architecture`"));
    let bytes = patched("general.architecture", 4, &u64::MAX.to_le_bytes());
    assert!(matches!(parse(&bytes), Err(Error::Truncated { needed: u64::MAX, .. })));
}

#[test]
fn damaged_values() {
    assert!(message(&patched("flag", 4, &[2])).contains("`flag` is a boolean of value 2"));
    assert!(message(&patched("flag", 0, &[99])).contains("`flag` has the unknown value type 99"));
    assert!(
        message(&patched("tokens", 4, &[77])).contains("`tokens` has the unknown value type 77")
    );
    assert!(message(&patched("whal", 0, &[0xff])).contains("`tokens` is not UTF-8"));
    let mut bytes = valid();
    let key = after(&bytes, "flag") - 4;
    bytes[key..key + 4].copy_from_slice(b"\xc3\x28..");
    assert!(message(&bytes).contains("the name of key number 2 is not UTF-8"));
}

#[test]
fn names_stand_once_and_are_not_empty() {
    let mut writer = Writer::default();
    writer.metadata.insert("key.a", 1_u8);
    writer.metadata.insert("key.b", 2_u8);
    let mut bytes = finished(&writer);
    let at = after(&bytes, "key.b");
    bytes[at - 1] = b'a';
    assert!(message(&bytes).contains("the key `key.a` appears twice"));
    let mut bytes = valid();
    let at = after(&bytes, "betas");
    bytes[at - 5..at].copy_from_slice(b"alpha");
    assert!(message(&bytes).contains("the tensor `alpha` appears twice"));
    let mut nameless = Writer::default();
    nameless.metadata.insert("", 1_u64);
    assert!(message(&finished(&nameless)).contains("the name of key number 0 is empty"));
}

#[test]
fn nested_arrays_have_a_limit() {
    let nested = |depth| {
        let flat = Value::from(vec![1_u8]);
        (0..depth).fold(flat, |value, _| match value {
            Value::Array(array) => Value::Array(cachalot_gguf::Array::Array(vec![array])),
            other => other,
        })
    };
    let file = |depth| {
        let mut writer = Writer::default();
        writer.metadata.insert("nested", nested(depth));
        finished(&writer)
    };
    assert_eq!(parse(&file(3)).unwrap().metadata.get("nested"), Some(&nested(3)));
    assert!(message(&file(4)).contains("`nested` nests arrays"));
    assert!(message(&file(5000)).contains("`nested` nests arrays"));
}

#[test]
fn shapes() {
    let dimensions = |count: u32| message(&patched("alpha", DIMENSIONS, &count.to_le_bytes()));
    assert!(dimensions(0).contains("`alpha` has 0 dimensions"));
    assert!(dimensions(5).contains("`alpha` has 5 dimensions"));
    assert!(dimensions(u32::MAX).contains("dimensions"));
    let columns = |cols: u64| message(&patched("alpha", SHAPE, &cols.to_le_bytes()));
    assert!(columns(0).contains("`alpha` has the shape [0, 3]: no dimension may be 0"));
    assert!(
        columns(255)
            .contains("`alpha` has rows of 255 weights, not a multiple of Q4_K's block length")
    );
    assert!(columns(1 << 63).contains("its size overflows"));
    let rows = message(&patched("alpha", SHAPE + 8, &(1_u64 << 57).to_le_bytes()));
    assert!(rows.contains("its size overflows"), "{rows}");
    let large = message(&patched("alpha", SHAPE + 8, &(1_u64 << 40).to_le_bytes()));
    assert!(large.contains("tensor `alpha` has 158329674399744 bytes"), "{large}");
}

#[test]
fn types() {
    let with = |id: u32| message(&patched("alpha", ALPHA_TYPE, &id.to_le_bytes()));
    assert!(with(12345).contains("tensor `alpha` has the unknown type id 12345"));
    assert!(with(31).contains("withdrawn"));
}

#[test]
fn places() {
    let alpha = |offset: u64| message(&patched("alpha", ALPHA_OFFSET, &offset.to_le_bytes()));
    let betas = |offset: u64| message(&patched("betas", BETAS_OFFSET, &offset.to_le_bytes()));
    assert!(alpha(1).contains("`alpha` starts at data offset 1, not a multiple of 32"));
    assert!(alpha(1 << 20).contains("`alpha` starts at byte 1048"));
    assert!(alpha(u64::MAX - 31).contains("past the end"));
    assert!(betas(32).contains("tensors `alpha` and `betas` overlap"));
    assert!(betas(0).contains("overlap"));
}

#[test]
fn alignment_is_a_sensible_power_of_two() {
    for alignment in [0_u32, 1, 4, 24, 48, 1 << 31] {
        let mut writer = Writer::default();
        writer.metadata.insert("general.alignmenX", alignment);
        let mut bytes = finished(&writer);
        let at = after(&bytes, "general.alignmenX");
        bytes[at - 1] = b't';
        assert!(message(&bytes).contains(&format!("general.alignment is {alignment}")));
        writer.metadata.insert("general.alignment", alignment);
        assert!(matches!(writer.header(), Err(Error::Alignment { .. })));
    }
}

#[test]
fn the_writer_keeps_to_what_was_declared() {
    let mut writer = Writer::default();
    writer.tensor("a", TensorType::F32, &[3]).unwrap();
    writer.tensor("b", TensorType::Q8_0, &[32]).unwrap();
    let mut data = writer.start(Vec::new()).unwrap();
    assert!(matches!(data.append(&[0; 13]), Err(Error::WrittenSize { size: 12, written: 13, .. })));
    data.append(&[1; 5]).unwrap();
    data.append(&[2; 7]).unwrap();
    assert_eq!(data.due().unwrap().name, "b");
    data.append(&[3; 34]).unwrap();
    assert!(matches!(data.append(&[0]), Err(Error::WrittenTooMuch)));
    let bytes = data.finish().unwrap();
    let tensors = parse(&bytes).unwrap().tensors;
    assert_eq!(tensors[1].offset, tensors[0].offset + 32);
    assert_eq!(bytes[tensors[1].offset as usize..], [3; 34]);
    let unfinished = writer.start(Vec::new()).unwrap().finish();
    assert!(matches!(unfinished, Err(Error::WrittenSize { written: 0, .. })));
    writer.tensor("a", TensorType::F32, &[3]).unwrap();
    assert!(matches!(writer.header(), Err(Error::DuplicateTensor { .. })));
}
