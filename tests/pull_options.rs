//! Where a model comes from and goes to, as options, environment and terminal say, end to end.
#![allow(clippy::unwrap_used)] // what fails here is a test

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::registry::Registry;
use common::{Ran, calf, command, fails, run, succeeds};
use rexpect::session::spawn_command;

/// The program with variables beside those of the registry.
fn with(registry: &Registry, folder: &Path, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = command(args);
    registry.environment(&mut command, folder);
    command.envs(variables.iter().copied());
    run(&mut command, b"")
}

/// The files of a pull that was told in JSON.
fn files(ran: &Ran) -> Vec<PathBuf> {
    let last: serde_json::Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    let files = last["files"].as_array().unwrap();
    files.iter().map(|file| PathBuf::from(file.as_str().unwrap())).collect()
}

#[test]
fn auto_takes_the_largest_quantization_that_fits() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let cachalot = |args: &[&str]| registry.cachalot(folder.path(), args);
    let looked = succeeds(cachalot(&["pull", "o/r", "--quant", "auto", "--dry-run"]));
    assert!(looked.stdout.contains("calf-Q8_0.gguf"), "{looked:?}");
    assert!(!looked.stdout.contains("Q4_0") && !looked.stdout.contains("BF16"), "{looked:?}");
    let pulled = succeeds(cachalot(&["pull", "o/r", "--quant", "auto", "--json"]));
    assert!(files(&pulled)[0].ends_with("calf-Q8_0.gguf"), "{pulled:?}");
    let listed = succeeds(cachalot(&["list"])).stdout;
    assert!(listed.contains("o/r:Q8_0"), "{listed}");
    fails(cachalot(&["pull", &registry.name(), "--quant", "auto"]), 2);
}

#[test]
fn a_model_is_pulled_to_memory_and_goes_with_its_name() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let cachalot = |args: &[&str]| registry.cachalot(folder.path(), args);
    let name = registry.name();
    let memory = Path::new("/dev/shm/cachalot/calf-q8.gguf");
    if !Path::new("/dev/shm").is_dir() || memory.exists() {
        eprintln!("skipped: /dev/shm is not there, or in use");
        return;
    }
    let pulled = succeeds(cachalot(&["pull", &name, "--to", "ram", "--json"]));
    let file = fs::canonicalize(&files(&pulled)[0]).unwrap();
    assert!(file.file_name().is_some_and(|name| name == "calf-q8.gguf"), "{file:?}");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, kind) = (words.next()?, words.next()?);
        (kind == "tmpfs").then_some(path)
    });
    assert!(mounts.into_iter().any(|mount| file.starts_with(mount)), "{file:?}");
    assert_eq!(fs::read(&file).unwrap(), fs::read(calf()).unwrap());
    let answer = succeeds(cachalot(&["run", &name, "What is 2 + 2?", "--temp", "0"]));
    assert!(answer.stdout.contains('4'), "{answer:?}");
    succeeds(cachalot(&["rm", &name]));
    assert!(!file.exists(), "memory is freed");
    let to = folder.path().to_str().unwrap();
    fails(cachalot(&["pull", &name, "--to", "ram", "--to", to]), 2);
}

#[test]
fn files_that_are_there_are_neither_taken_nor_written_over() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let cachalot = |args: &[&str]| registry.cachalot(folder.path(), args);
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let args = ["pull", "o/r:Q8_0", "--to", target.to_str().unwrap()];
    let size = fs::metadata(calf()).unwrap().len() as usize;
    for bytes in [vec![0; size], b"mine".to_vec()] {
        let mine = target.join("calf-Q8_0.gguf");
        fs::write(&mine, &bytes).unwrap();
        let refused = fails(cachalot(&args), 1);
        assert!(refused.stderr.contains("another folder"), "{refused:?}");
        assert_eq!(fs::read(&mine).unwrap(), bytes);
        assert!(!succeeds(cachalot(&["list"])).stdout.contains("o/r"));
        fs::remove_file(&mine).unwrap();
    }
    succeeds(cachalot(&args));
    // What is missing is fetched again, into the same folder.
    fs::remove_file(target.join("calf-Q8_0.gguf")).unwrap();
    succeeds(cachalot(&args));
    succeeds(cachalot(&["verify", "o/r:Q8_0", "--deep"]));
}

#[test]
fn a_token_is_found_where_hugging_face_keeps_it() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let (home, path) = (folder.join("hf"), folder.join("elsewhere"));
    fs::create_dir(&home).unwrap();
    fs::write(home.join("token"), "hf_home\n").unwrap();
    fs::write(&path, " hf_path\n").unwrap();
    let (home, path) = (home.to_str().unwrap(), path.to_str().unwrap());
    let missing = format!("{path}-missing");
    let looked = ["pull", "o/r:Q8_0", "--dry-run"];
    for (variables, token) in [
        (&[][..], None),
        (&[("HF_HOME", home)], Some("bearer hf_home")),
        (&[("HF_TOKEN_PATH", path)], Some("bearer hf_path")),
        (&[("HF_HOME", home), ("HF_TOKEN_PATH", path)], Some("bearer hf_path")),
        (&[("HF_TOKEN", "hf_given"), ("HF_TOKEN_PATH", path)], Some("bearer hf_given")),
        (&[("HF_TOKEN", " "), ("HF_TOKEN_PATH", path)], Some("bearer hf_path")),
        (&[("HF_TOKEN_PATH", &missing)], None),
    ] {
        succeeds(with(&registry, folder, variables, &looked));
        let token = token.map(str::to_owned);
        assert_eq!(registry.tokens("/"), [token], "{variables:?}");
    }
    // Another registry gets none.
    let other = Registry::start();
    succeeds(with(&registry, folder, &[("HF_HOME", home)], &["pull", &other.name()]));
    assert_eq!(other.tokens("/"), [None]);
    let unreadable = with(&registry, folder, &[("HF_TOKEN_PATH", "/")], &looked);
    assert!(fails(unreadable, 1).stderr.contains("token of Hugging Face"));
    fs::write(path, "two\nlines").unwrap();
    let wrong = with(&registry, folder, &[("HF_TOKEN_PATH", path)], &looked);
    let wrong = fails(wrong, 1).stderr;
    assert!(wrong.contains(path) && !wrong.contains("lines"), "{wrong}");
}

#[test]
fn the_cache_of_hugging_face_is_found_below_its_home() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let home = folder.join("hf");
    let repository = home.join("hub/models--o--r");
    let (snapshot, blobs) = (repository.join("snapshots").join("a".repeat(40)), "blobs");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join(blobs)).unwrap();
    fs::copy(calf(), repository.join(blobs).join("b".repeat(64))).unwrap();
    symlink(format!("../../blobs/{}", "b".repeat(64)), snapshot.join("calf-Q8_0.gguf")).unwrap();
    let home = home.to_str().unwrap();
    let there = |args: &[&str]| with(&registry, folder, &[("HF_HOME", home)], args);
    let listed = succeeds(there(&["list"])).stdout;
    assert!(listed.contains("o/r:Q8_0"), "{listed}");
    let answer = succeeds(there(&["run", "o/r", "What is 2 + 2?", "--temp", "0"]));
    assert!(answer.stdout.contains('4'), "{answer:?}");
    let removed = fails(there(&["rm", "o/r:Q8_0"]), 1);
    assert!(removed.stderr.contains("hf cache rm"), "{removed:?}");
    assert!(registry.tokens("/").is_empty(), "nothing was asked");
    let cache = format!("{home}/hub");
    let listed = with(&registry, folder, &[("HF_HUB_CACHE", &cache)], &["list"]);
    assert!(succeeds(listed).stdout.contains("o/r:Q8_0"));
    assert!(!succeeds(with(&registry, folder, &[], &["list"])).stdout.contains("o/r"));
}

#[test]
fn offline_what_is_here_is_enough() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let offline = |args: &[&str]| with(&registry, folder.path(), &[("HF_HUB_OFFLINE", "1")], args);
    let refused = fails(offline(&["pull", "o/r:Q8_0"]), 1);
    assert!(refused.stderr.contains("HF_HUB_OFFLINE"), "{refused:?}");
    succeeds(registry.cachalot(folder.path(), &["pull", "o/r:Q8_0"]));
    let pulled = succeeds(offline(&["pull", "o/r:Q8_0", "--json"]));
    assert!(files(&pulled)[0].is_file(), "{pulled:?}");
    let endpoint = &[("HF_ENDPOINT", "nonsense")];
    let wrong = with(&registry, folder.path(), endpoint, &["pull", "o/r:Q8_0"]);
    assert!(fails(wrong, 1).stderr.contains("HF_ENDPOINT"));
}

#[test]
fn several_models_are_removed_together_or_not_at_all() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let cachalot = |args: &[&str]| registry.cachalot(folder.path(), args);
    let file = calf();
    for name in ["a", "b"] {
        succeeds(cachalot(&["import", file.to_str().unwrap(), "--name", name]));
    }
    let refused = fails(cachalot(&["rm", "a", "missing", "b"]), 1);
    assert!(refused.stderr.contains("missing") && refused.stdout.is_empty(), "{refused:?}");
    fails(cachalot(&["rm", "a", "../x"]), 1);
    let listed = succeeds(cachalot(&["list", "--json"])).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["models"].as_array().unwrap().len(), 2, "{listed}");
    let removed = succeeds(cachalot(&["rm", "a", "b", "a"])).stdout;
    assert_eq!(removed.lines().count(), 2, "{removed}");
    assert!(succeeds(cachalot(&["list"])).stdout.starts_with("No models yet"));
}

#[test]
fn progress_does_not_wrap_on_a_narrow_terminal() {
    const COLUMNS: usize = 40;
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let sized = format!("stty cols {COLUMNS} rows 24; exec \"$0\" \"$@\" > /dev/null");
    let program = env!("CARGO_BIN_EXE_cachalot");
    let name = registry.name();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &sized, program, "pull", &name, "--yes", "--limit", "8MB/s"]);
    registry.environment(&mut shell, folder.path());
    shell.env("TERM", "xterm").env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    let mut terminal = spawn_command(shell, Some(60_000)).unwrap();
    let shown = terminal.exp_eof().unwrap();
    let shown = console_text(&shown);
    let lines: Vec<&str> = shown.split(['\r', '\n']).filter(|line| line.contains(" %")).collect();
    assert!(lines.iter().any(|line| line.contains("left")), "{lines:?}");
    // Rows follow each other without a line feed where they fill the terminal.
    let rows = lines.iter().flat_map(|line| {
        let chars: Vec<char> = line.chars().collect();
        chars.chunks(COLUMNS).map(|row| row.iter().collect::<String>()).collect::<Vec<_>>()
    });
    let wrapped: Vec<String> = rows.filter(|row| !row.ends_with(" %")).collect();
    assert!(wrapped.is_empty(), "{wrapped:?}");
}

/// A terminal's input without what moves the cursor; each such movement begins a line.
fn console_text(shown: &str) -> String {
    let mut parts = shown.split("\x1b[");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |end| end + 1);
        let (code, rest) = part.split_at(end);
        text += if code.ends_with('m') { "" } else { "\n" };
        text += rest;
    }
    text
}
