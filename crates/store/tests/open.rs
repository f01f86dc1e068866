//! Opening models: whole, split, mapped, resident, embedded, and everything that goes wrong.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::fs;
use std::path::Path;

use cachalot_gguf::TensorType;
use cachalot_gguf::write::Writer;
use cachalot_store::{Error, Placement, Weights};

/// A file with tensors `names`, each of 64 bytes that are `fill`, as part `number` of `count`.
fn part(names: &[&str], fill: u8, number: u16, count: u16) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.metadata.insert("general.architecture", "deepseek2");
    if count > 1 {
        writer.metadata.insert("split.no", number);
        writer.metadata.insert("split.count", count);
    }
    for name in names {
        writer.tensor(name, TensorType::F32, &[4, 4]).unwrap();
    }
    let mut data = writer.start(Vec::new()).unwrap();
    for _ in names {
        data.append(&[fill; 64]).unwrap();
    }
    data.finish().unwrap()
}

fn fails(path: &Path) -> String {
    Weights::open(path, Placement::Mapped).unwrap_err().to_string()
}

#[test]
fn any_part_opens_the_whole_set_in_either_placement() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n: u16| dir.path().join(format!("m-{n:05}-of-00002.gguf"));
    fs::write(path(1), part(&["a", "b"], 1, 0, 2)).unwrap();
    fs::write(path(2), part(&["c"], 2, 1, 2)).unwrap();
    for placement in [Placement::Mapped, Placement::Resident] {
        let mut seen = (0, 0);
        let weights = Weights::open_with(path(2), placement, &mut |done, total| {
            seen = (done, total);
            true
        });
        let weights = weights.unwrap();
        assert_eq!(weights.metadata().arch().unwrap(), "deepseek2");
        assert_eq!(weights.files().len(), 2);
        assert_eq!(weights.size(), 192);
        let tensor = weights.tensor("c").unwrap();
        assert_eq!((tensor.file, &*tensor.bytes), (1, &[2; 64][..]));
        assert_eq!(&*weights.tensor("b").unwrap().bytes, &[1; 64]);
        assert!(weights.tensor("d").is_none());
        let kept = tensor.bytes.clone();
        drop(weights);
        assert_eq!(kept[63], 2, "a handle outlives the list of tensors");
        assert_eq!(seen.0, seen.1, "progress ends at the total");
        assert_eq!(seen.1 > 0, placement == Placement::Resident);
    }
}

#[test]
fn a_large_file_is_read_in_pieces_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.gguf");
    let mut writer = Writer::default();
    writer.metadata.insert("general.architecture", "deepseek2");
    writer.tensor("t", TensorType::F32, &[1024, 5000]).unwrap();
    let mut data = writer.start(Vec::new()).unwrap();
    let bytes: Vec<u8> = (0..1024 * 5000u32).flat_map(u32::to_le_bytes).collect();
    data.append(&bytes).unwrap();
    fs::write(&path, data.finish().unwrap()).unwrap();
    let weights = Weights::open(&path, Placement::Resident).unwrap();
    assert!(*weights.tensor("t").unwrap().bytes == *bytes);
    let stopped = Weights::open_with(&path, Placement::Resident, &mut |_, _| false);
    assert!(matches!(stopped, Err(Error::Stopped)));
}

#[test]
fn embedded_bytes_are_used_in_place() {
    let bytes: &'static [u8] = part(&["a"], 7, 0, 1).leak();
    let weights = Weights::from_static(bytes).unwrap();
    let tensor = weights.tensor("a").unwrap();
    assert!(bytes.as_ptr_range().contains(&tensor.bytes.as_ptr()));
    assert!(Weights::from_bytes(bytes[..bytes.len() - 1].to_vec()).is_err());
}

#[test]
fn errors_name_the_path_and_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(fails(&at("none.gguf")).ends_with("none.gguf: no such file"));
    assert!(fails(dir.path()).contains("is a folder; name"));
    fs::write(at("m-00001-of-00002.gguf"), part(&["a"], 1, 0, 2)).unwrap();
    let error = fails(&at("m-00001-of-00002.gguf"));
    assert!(error.contains("m-00002-of-00002.gguf: missing: the model is split into 2"), "{error}");
    fs::write(at("empty.gguf"), []).unwrap();
    assert!(fails(&at("empty.gguf")).contains("empty.gguf: not a GGUF file: it is empty"));
    let whole = part(&["a"], 1, 0, 1);
    fs::write(at("cut.gguf"), &whole[..whole.len() - 10]).unwrap();
    assert!(fails(&at("cut.gguf")).contains("Is the download complete?"));
}
