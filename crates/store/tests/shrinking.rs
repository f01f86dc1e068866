//! A mapped file that becomes shorter while it is used ends the program with its name, and files
//! that are not regular are refused at once.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use cachalot_gguf::TensorType;
use cachalot_gguf::write::Writer;
use cachalot_store::{Placement, Weights};

/// Names the file for the child process.
const FILE: &str = "CACHALOT_TEST_SHRINKING";

fn model(path: &Path) {
    let mut writer = Writer::default();
    writer.metadata.insert("general.architecture", "deepseek2");
    writer.tensor("t", TensorType::F32, &[1024, 1024]).unwrap();
    let mut data = writer.start(File::create(path).unwrap()).unwrap();
    data.append(&vec![1; 4 << 20]).unwrap();
    data.finish().unwrap();
}

/// Runs one of the ignored tests below in a process of its own.
fn child(name: &str, path: &Path) -> Output {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(FILE, path).output().unwrap()
}

#[test]
#[ignore = "ends its process: run by the test below"]
fn touch_what_is_gone() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let weights = Weights::open(&path, Placement::Mapped).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(64 << 10).unwrap();
    let sum: u64 = weights.tensor("t").unwrap().bytes.iter().map(|&byte| u64::from(byte)).sum();
    panic!("all of it was read: {sum}");
}

#[test]
#[ignore = "ends its process: run by the test below"]
fn raise_it_elsewhere() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let _weights = Weights::open(&path, Placement::Mapped).unwrap();
    // The standard library's handler restores the default action for what is not its own and
    // returns: the second signal ends the process.
    for _ in 0..2 {
        let status = Command::new("kill").args(["-BUS", &std::process::id().to_string()]).status();
        assert!(status.unwrap().success());
    }
    panic!("the signal was ignored");
}

#[test]
fn a_mapped_file_that_becomes_shorter_ends_the_program_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    model(&path);
    let output = child("touch_what_is_gone", &path);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{:?}: {text}", output.status);
    let named = format!("error: {}: cannot be read any more", path.display());
    assert!(text.contains(&named), "{text}");
    model(&path);
    let output = child("raise_it_elsewhere", &path);
    assert_eq!(output.status.signal(), Some(7), "the signal of others keeps its meaning");
}

#[test]
fn pipes_sockets_and_devices_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.gguf");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let socket = folder.path().join("socket.gguf");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let link = folder.path().join("link.gguf");
    std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
    for path in [&pipe, &socket, &link, Path::new("/dev/null")] {
        for placement in [Placement::Mapped, Placement::Resident] {
            let error = Weights::open(path, placement).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{error}");
        }
        assert!(cachalot_store::read_rate(path, std::time::Duration::ZERO).is_err());
    }
    assert!(fs::metadata(&pipe).is_ok());
}
