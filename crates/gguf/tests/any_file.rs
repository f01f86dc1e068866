//! Properties of all files: what is written is read back, files of other writers are read, and no
//! bytes make the parser panic.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::io::{Read, Result as IoResult};

use cachalot_gguf::write::Writer;
use cachalot_gguf::{Array, Error, Gguf, TensorType, Value};
use proptest::collection::vec;
use proptest::prelude::*;

/// Written by gguf-py 0.19: every type of value, alignment 64, three tensors.
const REFERENCE: &[u8] = include_bytes!("fixtures/reference.gguf");

fn array() -> impl Strategy<Value = Array> {
    let flat = prop_oneof![
        vec(any::<u8>(), 0..20).prop_map(Array::U8),
        vec(any::<i16>(), 0..20).prop_map(Array::I16),
        vec(any::<u32>(), 0..20).prop_map(Array::U32),
        vec(-1e9_f32..1e9, 0..20).prop_map(Array::F32),
        vec(any::<i64>(), 0..20).prop_map(Array::I64),
        vec(any::<bool>(), 0..20).prop_map(Array::Bool),
        vec(".{0,8}", 0..20).prop_map(Array::String),
    ];
    flat.prop_recursive(3, 20, 4, |inner| vec(inner, 0..4).prop_map(Array::Array))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        (-1e300_f64..1e300).prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        ".{0,30}".prop_map(Value::String),
        array().prop_map(Value::Array),
    ]
}

/// A type, and a shape whose rows are whole blocks of it.
fn tensor() -> impl Strategy<Value = (TensorType, Vec<u64>)> {
    let ty = (0..TensorType::ALL.len()).prop_map(|index| TensorType::ALL[index]);
    (ty, 1..3_u64, vec(1..4_u64, 0..=3)).prop_map(|(ty, blocks, rest)| {
        let shape = [vec![blocks * ty.block_len()], rest].concat();
        (ty, shape)
    })
}

fn writer() -> impl Strategy<Value = Writer> {
    let keys = vec(("[a-z.]{1,12}", value()), 0..8);
    let alignment = prop_oneof![Just(None), (3..12_u32).prop_map(|power| Some(1_u32 << power))];
    (keys, alignment, vec(tensor(), 0..6)).prop_map(|(keys, alignment, tensors)| {
        let mut writer = Writer::default();
        for (key, value) in keys {
            writer.metadata.insert(&key, value);
        }
        if let Some(alignment) = alignment {
            writer.metadata.insert("general.alignment", alignment);
        }
        for (number, (ty, shape)) in tensors.iter().enumerate() {
            writer.tensor(&format!("blk.{number}.weight"), *ty, shape).unwrap();
        }
        writer
    })
}

/// The file, each tensor filled with its number.
fn file(writer: &Writer) -> Vec<u8> {
    let mut data = writer.start(Vec::new()).unwrap();
    let mut number = 0;
    while let Some(size) = data.due().map(|tensor| tensor.size) {
        data.append(&vec![number; size as usize]).unwrap();
        number += 1;
    }
    data.finish().unwrap()
}

/// What a description promises to those who use it.
fn assert_sound(gguf: &Gguf, file_len: u64) {
    let mut places: Vec<(u64, u64)> = gguf.tensors.iter().map(|t| (t.offset, t.end())).collect();
    places.sort_unstable();
    assert!(places.iter().all(|(start, end)| start < end && *end <= file_len));
    assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    for tensor in &gguf.tensors {
        assert!((tensor.offset - gguf.data_offset).is_multiple_of(gguf.alignment));
        assert_eq!(tensor.size, tensor.ty.row_bytes(tensor.cols()).unwrap() * tensor.rows());
        assert_eq!(tensor.elements(), tensor.cols() * tensor.rows());
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(writer in writer()) {
        let bytes = file(&writer);
        let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
        let (header, tensors) = writer.header().unwrap();
        prop_assert_eq!(&gguf.metadata, &writer.metadata);
        prop_assert_eq!(&gguf.tensors, &tensors);
        prop_assert_eq!(gguf.data_offset, header.len() as u64);
        assert_sound(&gguf, bytes.len() as u64);
        for (number, tensor) in gguf.tensors.iter().enumerate() {
            let place = &bytes[tensor.offset as usize..tensor.end() as usize];
            prop_assert!(place.iter().all(|byte| *byte as usize == number));
        }
    }

    #[test]
    fn damage_never_panics(
        writer in writer(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        more in 0..1_u64 << 40,
    ) {
        let mut bytes = file(&writer);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for len in [bytes.len(), cut.index(bytes.len())] {
            let file_len = len as u64 + more;
            if let Ok(gguf) = Gguf::parse(&bytes[..len], file_len) {
                assert_sound(&gguf, file_len);
            }
        }
    }

    #[test]
    fn noise_after_the_magic_never_panics(noise in vec(any::<u8>(), 0..300)) {
        let bytes = [b"GGUF\x03\0\0\0".to_vec(), noise].concat();
        let _ = Gguf::parse(&bytes, bytes.len() as u64);
    }
}

#[test]
fn reads_what_the_reference_library_writes() {
    let gguf = Gguf::parse(REFERENCE, REFERENCE.len() as u64).unwrap();
    let strings = ["a", "", "ß"].map(str::to_owned).to_vec();
    let expected: [(&str, Value); 19] = [
        ("general.architecture", "tiny".into()),
        ("t.u8", 200_u8.into()),
        ("t.i8", (-5_i8).into()),
        ("t.u16", 60000_u16.into()),
        ("t.i16", (-300_i16).into()),
        ("t.u32", 4_000_000_000_u32.into()),
        ("t.i32", (-7_i32).into()),
        ("t.f32", 1.5_f32.into()),
        ("t.u64", (1_u64 << 40).into()),
        ("t.i64", (-1_i64 << 40).into()),
        ("t.f64", 0.1_f64.into()),
        ("t.yes", true.into()),
        ("t.no", false.into()),
        ("t.text", "Wal: 🐋".into()),
        ("t.words", strings.into()),
        ("t.ints", vec![1_i32, -2, 3].into()),
        ("t.floats", vec![0.5_f32, -0.25].into()),
        ("t.bools", Value::Array(Array::Bool(vec![true, false]))),
        ("general.alignment", 64_u32.into()),
    ];
    let found: Vec<(&str, Value)> = gguf.metadata.iter().map(|(k, v)| (k, v.clone())).collect();
    assert_eq!(found, expected);
    let tensor = |name: &str| gguf.tensor(name).unwrap();
    let floats = tensor("weight.f32");
    assert_eq!((floats.ty, floats.shape.as_slice()), (TensorType::F32, &[3, 2][..]));
    let place = &REFERENCE[floats.offset as usize..floats.end() as usize];
    let values: Vec<f32> =
        place.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(tensor("weight.q8").shape, [64, 4, 2]);
    assert_eq!(tensor("weight.q8").size, 2 * 4 * 68);
    assert_eq!(tensor("bias").offset % 64, 0);
}

/// Counts what is taken from it.
struct Counting<R>(R, u64);

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let read = self.0.read(buffer)?;
        self.1 += read as u64;
        Ok(read)
    }
}

#[test]
fn only_the_header_is_read() {
    let mut writer = Writer::default();
    writer.metadata.insert("words", vec!["x".repeat(1000); 3000]);
    writer.tensor("weight", TensorType::F32, &[1 << 24]).unwrap();
    let (header, _) = writer.header().unwrap();
    let file_len = header.len() as u64 + (4 << 24);
    let mut reader = Counting(header.as_slice().chain(std::io::repeat(0)), 0);
    let gguf = Gguf::read(&mut reader, file_len).unwrap();
    assert_eq!(gguf.data_offset, header.len() as u64);
    assert!(reader.1 <= 2 * header.len() as u64, "read {} of {}", reader.1, header.len());
    // A reader that ends early makes the file truncated, not the call endless.
    let short = Gguf::read(&header[..header.len() / 2], file_len).unwrap_err();
    assert!(matches!(short, Error::Truncated { .. }), "{short}");
}

#[test]
fn opening_names_the_file() {
    let missing = Gguf::open("/no/such/whale.gguf".as_ref()).unwrap_err().to_string();
    assert!(missing.starts_with("/no/such/whale.gguf: "), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.gguf");
    std::fs::write(&path, "<html>Not found").unwrap();
    let page = Gguf::open(&path).unwrap_err().to_string();
    assert!(page.contains("page.gguf: not a GGUF file: it is a web page"), "{page}");
}
