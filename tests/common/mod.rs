//! Runs the built program and checks its output.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses a part of it

pub(crate) mod registry;
pub(crate) mod scripted;
pub(crate) mod server;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cachalot_gguf::write::Writer;
use cachalot_gguf::{Gguf, Value};

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

/// The program with arguments, without environment variables that would change its behaviour.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cachalot"));
    command.args(args);
    for variable in ["CACHALOT_CPU", "CACHALOT_THREADS", "NO_COLOR"] {
        command.env_remove(variable);
    }
    // Tests write nothing into the user's home.
    command.env("CACHALOT_RECORD", "off");
    command.env("CACHALOT_MODELS", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-models"));
    // nor do they ask a server that happens to run
    command.env("CACHALOT_HOST", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-server.sock"));
    // bandwidths, measured once for all tests
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// Runs a command with this standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is built");
    // A command that fails early does not read its input.
    let _ = child.stdin.take().expect("it is piped").write_all(input);
    let output = child.wait_with_output().expect("the program runs");
    Ran {
        stdout: String::from_utf8(output.stdout).expect("text is printed"),
        stderr: String::from_utf8(output.stderr).expect("text is printed"),
        code: output.status.code(),
    }
}

/// Runs the program without input.
pub(crate) fn cachalot(args: &[&str]) -> Ran {
    run(&mut command(args), b"")
}

/// Runs the program with this standard input.
pub(crate) fn run_with_input(args: &[&str], input: &[u8]) -> Ran {
    run(&mut command(args), input)
}

/// Asserts that the run succeeded.
#[track_caller]
pub(crate) fn succeeds(ran: Ran) -> Ran {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}

/// Asserts that the run failed with this code, a message and no panic.
#[track_caller]
pub(crate) fn fails(ran: Ran, code: i32) -> Ran {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    ran
}

/// The embedded model, as a file.
pub(crate) fn calf() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/models/calf.gguf"))
}

/// A copy of calf in `folder` with one metadata key changed.
pub(crate) fn calf_with(folder: &Path, key: &str, value: impl Into<Value>) -> PathBuf {
    let mut writer = Writer::default();
    writer.metadata = Gguf::open(&calf()).unwrap().metadata;
    writer.metadata.insert(key, value);
    write_calf(folder, writer, &fs::read(calf()).unwrap())
}

/// A copy of calf in `folder` with weights that are not numbers.
pub(crate) fn calf_with_nan(folder: &Path, tensor: &str) -> PathBuf {
    let (gguf, mut bytes) = (Gguf::open(&calf()).unwrap(), fs::read(calf()).unwrap());
    let tensor = gguf.tensors.iter().find(|found| found.name == tensor).unwrap();
    for number in bytes[tensor.offset as usize..tensor.end() as usize].chunks_exact_mut(4) {
        number.copy_from_slice(&f32::NAN.to_le_bytes()); // of an F32 tensor
    }
    let mut writer = Writer::default();
    writer.metadata = gguf.metadata;
    write_calf(folder, writer, &bytes)
}

/// Writes calf with other metadata and bytes.
fn write_calf(folder: &Path, mut writer: Writer, bytes: &[u8]) -> PathBuf {
    let gguf = Gguf::open(&calf()).unwrap();
    for tensor in &gguf.tensors {
        writer.tensor(&tensor.name, tensor.ty, &tensor.shape).unwrap();
    }
    let mut data = writer.start(Vec::new()).unwrap();
    for tensor in &gguf.tensors {
        data.append(&bytes[tensor.offset as usize..tensor.end() as usize]).unwrap();
    }
    let path = folder.join("calf.gguf");
    fs::write(&path, data.finish().unwrap()).unwrap();
    path
}
