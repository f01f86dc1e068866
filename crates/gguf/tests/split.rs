//! Split models: any part leads to the whole set, and a set that is not whole is named as such.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::fs;
use std::path::{Path, PathBuf};

use cachalot_gguf::TensorType;
use cachalot_gguf::split::{PartName, Set, part_paths};
use cachalot_gguf::write::Writer;

/// Part `no` (from 0) of three, with the tensors `a0, b0`, `a1, b1` and so on.
fn part(no: u16) -> Writer {
    let mut writer = Writer::default();
    if no == 0 {
        writer.metadata.insert("general.architecture", "deepseek2");
        writer.metadata.insert("general.name", "Whale");
    }
    writer.metadata.insert("split.no", no);
    writer.metadata.insert("split.count", 3_u16);
    writer.metadata.insert("split.tensors.count", 6_i32);
    writer.tensor(&format!("a{no}"), TensorType::F32, &[4]).unwrap();
    writer.tensor(&format!("b{no}"), TensorType::F32, &[4]).unwrap();
    writer
}

fn name(no: u16) -> String {
    format!("whale-Q8_0-{:05}-of-00003.gguf", no + 1)
}

fn write(writer: &Writer, path: &Path) {
    let mut data = writer.start(fs::File::create(path).unwrap()).unwrap();
    while let Some(size) = data.due().map(|tensor| tensor.size) {
        data.append(&vec![0; size as usize]).unwrap();
    }
    data.finish().unwrap();
}

/// A folder with all three parts, part `changed` as `change` makes it.
fn folder(changed: u16, change: impl Fn(&mut Writer)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for no in 0..3 {
        let mut writer = part(no);
        if no == changed {
            change(&mut writer);
        }
        write(&writer, &folder.path().join(name(no)));
    }
    folder
}

fn fault(changed: u16, change: impl Fn(&mut Writer)) -> String {
    let folder = folder(changed, change);
    Set::open(&folder.path().join(name(0))).unwrap_err().to_string()
}

#[test]
fn names_are_taken_apart_and_put_together() {
    let part = PartName::parse("DeepSeek-R1-UD-IQ1_S-00002-of-00003.gguf").unwrap();
    assert_eq!((part.stem.as_str(), part.number, part.count), ("DeepSeek-R1-UD-IQ1_S", 2, 3));
    assert_eq!(part.file_name(3), "DeepSeek-R1-UD-IQ1_S-00003-of-00003.gguf");
    for other in [
        "a.gguf",
        "a-2-of-3.gguf",
        "a-00004-of-00003.gguf",
        "a-00000-of-00003.gguf",
        "a-00001-of-00003",
    ] {
        assert_eq!(PartName::parse(other), None, "{other}");
    }
    let second = Path::new("/models/m-00002-of-00002.gguf");
    let both = ["/models/m-00001-of-00002.gguf", "/models/m-00002-of-00002.gguf"];
    assert_eq!(part_paths(second), both.map(PathBuf::from));
    assert_eq!(part_paths(Path::new("m.gguf")), [PathBuf::from("m.gguf")]);
}

#[test]
fn any_part_leads_to_the_whole() {
    let folder = folder(9, |_| ());
    for no in 0..3 {
        let set = Set::open(&folder.path().join(name(no))).unwrap();
        assert_eq!(set.metadata.str("general.name").unwrap(), "Whale");
        let tensors: Vec<(&str, usize)> =
            set.tensors.iter().map(|tensor| (tensor.info.name.as_str(), tensor.part)).collect();
        assert_eq!(tensors, [("a0", 0), ("b0", 0), ("a1", 1), ("b1", 1), ("a2", 2), ("b2", 2)]);
        let b2 = set.tensor("b2").unwrap();
        assert_eq!(set.parts[b2.part].path, folder.path().join(name(2)));
        assert_eq!(b2.info.offset, set.parts[2].data_offset + 32);
    }
}

#[test]
fn a_missing_part_is_named() {
    let folder = folder(9, |_| ());
    fs::remove_file(folder.path().join(name(1))).unwrap();
    let missing = Set::open(&folder.path().join(name(2))).unwrap_err().to_string();
    assert!(missing.contains("whale-Q8_0-00002-of-00003.gguf is missing"), "{missing}");
    assert!(missing.contains("split into 3 files"), "{missing}");
}

#[test]
fn a_part_of_another_set_is_named() {
    let count = fault(1, |writer| drop(writer.metadata.insert("split.count", 4_u16)));
    assert!(count.contains("00002-of-00003.gguf: not a part of this set"), "{count}");
    assert!(count.contains("`split.count` 4"), "{count}");
    let number = fault(2, |writer| drop(writer.metadata.insert("split.no", 1_u16)));
    assert!(number.contains("00003-of-00003.gguf: not a part of this set"), "{number}");
    assert!(number.contains("it says it is part 2 of 3, its name part 3"), "{number}");
    let name = fault(1, |writer| drop(writer.metadata.insert("general.name", "Shark")));
    assert!(name.contains("its `general.name` differs"), "{name}");
    let tensors = fault(1, |writer| drop(writer.metadata.insert("split.tensors.count", 9_i32)));
    assert!(tensors.contains("its `split.tensors.count` differs"), "{tensors}");
    let twice = fault(2, |writer| {
        writer.tensor("a0", TensorType::F32, &[1]).unwrap();
    });
    assert!(
        twice.contains("00003-of-00003.gguf") && twice.contains("tensor `a0` is also in"),
        "{twice}"
    );
    let extra = fault(1, |writer| {
        writer.tensor("c1", TensorType::F32, &[1]).unwrap();
    });
    assert!(extra.contains("should have 6 tensors, its parts have 7"), "{extra}");
}

#[test]
fn a_renamed_part_says_what_its_name_should_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("renamed.gguf");
    write(&part(1), &path);
    let renamed = Set::open(&path).unwrap_err().to_string();
    assert!(
        renamed.contains("part 2 of 3") && renamed.contains("-00002-of-00003.gguf"),
        "{renamed}"
    );
}

#[test]
fn keys_decide_whether_a_file_is_a_part() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whale-00002-of-00009.gguf");
    let mut whole = part(0);
    whole.metadata.insert("split.count", 0_u16);
    write(&whole, &path);
    assert_eq!(part_paths(&path), std::slice::from_ref(&path));
    assert_eq!(Set::open(&path).unwrap().tensors.len(), 2);
}

#[test]
fn joined_parts_and_pieces_are_told_apart() {
    let folder = folder(9, |_| ());
    let bytes: Vec<Vec<u8>> =
        (0..3).map(|no| fs::read(folder.path().join(name(no))).unwrap()).collect();
    let fault = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = Set::open(&path).unwrap_err();
        format!(
            "{error} {}",
            std::error::Error::source(&error).map_or(String::new(), |e| e.to_string())
        )
    };
    let joined = fault("whale.gguf", &bytes.concat());
    assert!(joined.contains("3 parts of a split model were joined by `cat`"), "{joined}");
    let whole = &bytes[0];
    for (name, bytes) in [
        ("m.gguf.part1of2", &whole[..100]),
        ("m.gguf.part2of2", &whole[100..]),
        ("m.gguf.part-01", &whole[..100]),
        ("m.gguf.001", &whole[..100]),
        ("m.gguf.ab", &whole[100..]),
        ("m.gguf-split-a", &whole[..100]),
    ] {
        let said = fault(name, bytes);
        assert!(said.contains("`cat m.gguf.* > m.gguf`"), "{name}: {said}");
    }
    assert!(!fault("m.gguf", &whole[..100]).contains("cat "));
    assert!(!fault("m.gguf.backup", &whole[..100]).contains("cat "));
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket.gguf");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, kind) in [
        (socket.as_path(), "a socket"),
        (folder.path(), "a folder"),
        (Path::new("/dev/zero"), "a device"),
    ] {
        let error = Set::open(path).unwrap_err().to_string();
        assert!(error.contains(kind), "{error}");
    }
}
