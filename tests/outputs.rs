//! Output files end to end: what a command reads is never overwritten, nothing but regular files is
//! replaced, and nothing is left of a failure.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // what fails here is a test

mod common;

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{cachalot, fails, succeeds};

/// A copy of calf that a test may lose.
fn model(folder: &Path) -> PathBuf {
    let path = folder.join("model.gguf");
    fs::copy(common::calf(), &path).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The commands that write a file, writing to `out`.
fn commands(model: &Path, corpus: &Path, out: &Path) -> Vec<Vec<String>> {
    let [model, corpus, out] = [model, corpus, out].map(text);
    [
        vec!["logits", model, "--tokens", "1,2", "--out", out],
        vec!["run", model, "hi", "--max-tokens", "2", "--trace", out],
        vec!["logits", model, "--tokens", "1", "--out", "/dev/null/x", "--trace", out],
        vec!["perplexity", model, corpus, "--ctx", "8", "--chunks", "1", "--trace", out],
    ]
    .map(|args| args.into_iter().map(str::to_owned).collect())
    .into()
}

fn run(args: &[String], force: bool) -> common::Ran {
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    if force {
        args.push("--force");
    }
    cachalot(&args)
}

#[test]
fn inputs_survive_under_every_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let corpus = folder.path().join("text.txt");
    fs::write(&corpus, "1 + 1 = 2, 2 + 2 = 4, 3 + 3 = 6, 4 + 4 = 8, 5 + 5 = 10.").unwrap();
    let [hard, soft] = ["hard.gguf", "soft.gguf"].map(|name| folder.path().join(name));
    fs::hard_link(&model, &hard).unwrap();
    symlink(&model, &soft).unwrap();
    let before = fs::read(&model).unwrap();
    for out in [&model, &hard, &soft] {
        for args in commands(&model, &corpus, out) {
            let ran = fails(run(&args, true), 1);
            assert!(ran.stderr.contains("cannot write"), "{args:?}: {}", ran.stderr);
            assert!(fs::read(&model).unwrap() == before, "{args:?} changed the model");
        }
    }
    let args = ["perplexity", text(&model), text(&corpus), "--trace", text(&corpus), "--force"];
    assert!(fails(cachalot(&args), 1).stderr.contains("it is the input"));
    assert!(fs::read_to_string(&corpus).unwrap().starts_with("1 + 1"));
    let names = fs::read_dir(folder.path()).unwrap();
    assert_eq!(names.count(), 4, "nothing else is left");
}

#[test]
fn only_regular_files_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let corpus = folder.path().join("text.txt");
    fs::write(&corpus, "1 + 1 = 2, 2 + 2 = 4, 3 + 3 = 6, 4 + 4 = 8, 5 + 5 = 10.").unwrap();
    let [pipe, link] = ["pipe", "link"].map(|name| folder.path().join(name));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink("nowhere", &link).unwrap();
    for out in [Path::new("/dev/full"), &pipe, &link, folder.path()] {
        for args in commands(&model, &corpus, out) {
            fails(run(&args, true), 1);
        }
    }
    assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
}

#[test]
fn files_of_another_kind_need_force() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let letter = folder.path().join("letter");
    fs::write(&letter, "Dear whale,").unwrap();
    let logits = ["logits", text(&model), "--tokens", "1", "--out", text(&letter)];
    let ran = fails(cachalot(&logits), 1);
    assert!(ran.stderr.contains("not a safetensors file; --force"), "{}", ran.stderr);
    assert_eq!(fs::read(&letter).unwrap(), b"Dear whale,");
    succeeds(cachalot(&[&logits[..], &["--force"]].concat()));
    succeeds(cachalot(&logits)); // now it is of the same kind
    assert!(fs::read(&letter).unwrap().len() > 640 * 4);

    let picture = folder.path().join("a.svg");
    fs::write(&picture, "Dear whale,").unwrap();
    let plan = ["plan", "UD-Q2_K_XL", "--on", "desktop-96", "--plot", text(&picture)];
    assert!(fails(cachalot(&plan), 1).stderr.contains("not an SVG picture; --force"));
    succeeds(cachalot(&[&plan[..], &["--force"]].concat()));
    assert!(fs::read(&picture).unwrap().starts_with(b"<svg"));
    let onto_model = ["plan", text(&model), "--on", "desktop-96", "--plot", text(&model)];
    fails(cachalot(&onto_model), 2);
}

#[test]
fn a_model_that_does_not_load_leaves_an_old_trace_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (broken, trace) = (folder.path().join("broken.gguf"), folder.path().join("trace"));
    fs::write(&broken, "no model").unwrap();
    fs::write(&trace, "cachrout, of yesterday").unwrap();
    fails(cachalot(&["run", text(&broken), "hi", "--trace", text(&trace)]), 1);
    assert_eq!(fs::read(&trace).unwrap(), b"cachrout, of yesterday");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_signal_leaves_no_temporary_file() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.safetensors");
        let tokens = vec!["1"; 4000].join(",");
        let calf = common::calf();
        let args = ["logits", text(&calf), "--tokens", &tokens, "--out", text(&out)];
        let mut child = common::command(&args).stderr(Stdio::null()).spawn().unwrap();
        // Whether it is loading or computing by then, does not matter.
        while fs::read_dir(folder.path()).unwrap().count() == 0 {
            assert!(child.try_wait().unwrap().is_none(), "it ended without an output");
            std::thread::sleep(Duration::from_millis(1));
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{signal}");
    }
}
