//! A model that answers while it is downloaded.
//!
//! Its experts that routers never choose are held back until the first word of the answer is there:
//! the file is not complete before.
#![allow(clippy::unwrap_used)] // what fails here is a test

mod common;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use cachalot_gguf::write::Writer;
use cachalot_gguf::{Gguf, TensorInfo};
use common::registry::Registry;
use common::{Ran, calf, command, run, succeeds};

const NAME: &str = "o/r:Q8_0";
/// Experts of each layer, and of calf.
const EXPERTS: u64 = 160;
const CHOSEN: u64 = 16;
const CHUNK: u64 = 2 << 20;
const QUESTION: [&str; 8] = [
    "What is 2 + 2?",
    "--temp=0",
    "--seed=1",
    "--stream=always",
    "--max-tokens=60",
    "--ctx=512",
    "--threads=2",
    "--memory=1GiB",
];

/// Calf with more experts, which its routers never choose; and the header that describes it.
fn model() -> &'static (Arc<Vec<u8>>, Gguf) {
    static MODEL: OnceLock<(Arc<Vec<u8>>, Gguf)> = OnceLock::new();
    MODEL.get_or_init(|| {
        let (gguf, bytes) = (Gguf::open(&calf()).unwrap(), fs::read(calf()).unwrap());
        let mut writer = Writer::default();
        writer.metadata = gguf.metadata.clone();
        writer.metadata.insert("deepseek2.expert_count", EXPERTS as u32);
        writer.metadata.insert("deepseek2.expert_group_count", EXPERTS as u32 / 4);
        let is_widened = |info: &TensorInfo| {
            info.name.contains("_exps") || info.name.contains("probs") || info.name.contains("inp")
        };
        for info in &gguf.tensors {
            let mut shape = info.shape.clone();
            if is_widened(info) {
                *shape.last_mut().unwrap() = EXPERTS;
            }
            writer.tensor(&info.name, info.ty, &shape).unwrap();
        }
        let mut data = writer.start(Vec::new()).unwrap();
        for info in &gguf.tensors {
            let own = &bytes[info.offset as usize..info.end() as usize];
            let mut all = own.to_vec();
            if info.name.contains("probs") {
                let never = (-1e9_f32).to_le_bytes();
                (CHOSEN..EXPERTS).for_each(|_| all.extend(never));
            } else if is_widened(info) {
                all.resize(own.len() * (EXPERTS / CHOSEN) as usize, 0);
            }
            data.append(&all).unwrap();
        }
        let bytes = data.finish().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, &bytes).unwrap();
        (Arc::new(bytes), Gguf::open(&path).unwrap())
    })
}

/// A registry that has the model and holds a few chunks of it back, in which there is nothing but
/// experts that are never chosen.
fn registry() -> Registry {
    let (bytes, gguf) = model();
    let registry = Registry::of(bytes.clone());
    let stacks = gguf.tensors.iter().filter(|info| info.name.contains("_exps"));
    let chunks = stacks.map(|info| {
        let start = info.offset + info.size / EXPERTS * CHOSEN;
        let chunk = start.next_multiple_of(CHUNK);
        assert!(chunk + CHUNK <= info.end(), "{}", info.name);
        chunk..chunk + CHUNK
    });
    registry.hold(chunks.take(3).collect());
    registry
}

/// The program, with the registry for Hugging Face.
fn start(registry: &Registry, folder: &Path, options: &[&str]) -> Child {
    let mut command = asked(registry, folder, options);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn asked(registry: &Registry, folder: &Path, options: &[&str]) -> Command {
    let mut command = command(&[&["run", NAME][..], &QUESTION, options].concat());
    registry.environment(&mut command, folder);
    command
}

/// What a complete model answers.
fn expected(registry: &Registry, folder: &Path) -> String {
    let answer = succeeds(run(&mut asked(registry, folder, &[]), b"")).stdout;
    assert!(answer.contains('4'), "{answer}");
    answer
}

fn ended(child: Child, begun: Vec<u8>) -> Ran {
    let output = child.wait_with_output().unwrap();
    let stdout = [begun, output.stdout].concat();
    Ran {
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code(),
    }
}

/// Models and unfinished downloads that are listed.
fn listed(registry: &Registry, folder: &Path) -> (usize, usize) {
    let json = succeeds(registry.cachalot(folder, &["list", "--json"])).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let count = |key: &str| json[key].as_array().unwrap().len();
    (count("models"), count("unfinished"))
}

/// The first byte of the answer.
fn first(child: &mut Child) -> Vec<u8> {
    let mut first = vec![0];
    let read = child.stdout.as_mut().unwrap().read_exact(&mut first);
    if read.is_err() {
        let mut said = String::new();
        child.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
        panic!("no answer: {said}");
    }
    first
}

#[test]
fn an_answer_begins_before_the_model_is_complete() {
    let (registry, folder) = (registry(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let mut child = start(&registry, folder, &["--while-pulling"]);
    let begun = first(&mut child);
    assert_eq!(listed(&registry, folder), (0, 1), "it is not complete");
    registry.release();
    let ran = succeeds(ended(child, begun));
    assert!(ran.stderr.contains("not verified"), "{ran:?}");
    assert!(ran.stderr.contains("complete and verified"), "{ran:?}");
    assert_eq!(listed(&registry, folder), (1, 0));
    succeeds(registry.cachalot(folder, &["verify", NAME, "--deep"]));
    assert_eq!(ran.stdout, expected(&registry, folder));
    // It is here now.
    let again = succeeds(run(&mut asked(&registry, folder, &["--while-pulling"]), b""));
    assert_eq!(again.stdout, ran.stdout);
    assert!(!again.stderr.contains("Downloading"), "{again:?}");
}

#[test]
fn a_model_in_memory_waits_until_it_is_complete() {
    let (registry, folder) = (registry(), tempfile::tempdir().unwrap());
    registry.release();
    let options = ["--while-pulling", "--stream=never"];
    let ran = succeeds(run(&mut asked(&registry, folder.path(), &options), b""));
    assert!(ran.stderr.contains("once it is complete"), "{ran:?}");
    assert_eq!(listed(&registry, folder.path()), (1, 0));
    assert_eq!(ran.stdout, expected(&registry, folder.path()));
}

#[test]
fn wrong_bytes_end_the_run() {
    let (registry, folder) = (registry(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    // In an expert that is never chosen: the answer is right, the file is not.
    let wrong = model().1.tensors.iter().find(|info| info.name.contains("_exps")).unwrap();
    registry.spoil(wrong.end() as usize - 1);
    let mut child = start(&registry, folder, &["--while-pulling"]);
    let begun = first(&mut child);
    registry.release();
    let ran = ended(child, begun);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("error: ") && ran.stderr.contains("wrong"), "{ran:?}");
    assert!(ran.stderr.contains("calf-Q8_0.gguf"), "{ran:?}");
    assert_eq!(listed(&registry, folder), (0, 1));
    // What was wrong is fetched again.
    registry.mend();
    succeeds(registry.cachalot(folder, &["pull", NAME]));
    succeeds(registry.cachalot(folder, &["verify", NAME, "--deep"]));
}

#[test]
fn a_download_that_fails_ends_the_run() {
    let (registry, folder) = (registry(), tempfile::tempdir().unwrap());
    let mut child = start(&registry, folder.path(), &["--while-pulling"]);
    let begun = first(&mut child);
    registry.vanish();
    registry.release();
    let ran = ended(child, begun);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("404"), "{ran:?}");
    assert_eq!(listed(&registry, folder.path()), (0, 1));
}

#[test]
fn after_an_interrupt_the_download_can_be_continued() {
    let (registry, folder) = (registry(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let mut child = start(&registry, folder, &["--while-pulling"]);
    let begun = first(&mut child);
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let ran = ended(child, begun);
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert_eq!(listed(&registry, folder), (0, 1));
    registry.release();
    succeeds(registry.cachalot(folder, &["pull", NAME]));
    assert_eq!(listed(&registry, folder), (1, 0));
    expected(&registry, folder);
}

#[test]
fn what_cannot_run_while_it_arrives_says_why() {
    let (registry, folder) = (registry(), tempfile::tempdir().unwrap());
    for (args, code, said) in [
        (&["run", "--while-pulling", "--show-prompt", NAME, "hi"][..], 2, "--show-prompt"),
        (&["run", "--while-pulling", "o/r:Q9_9", "hi"], 1, "Q4_0"),
        (&["run", "--while-pulling", "deepseek-r1:8b", "hi"], 1, "distill"),
        (&["run", "--while-pulling", "../x", "hi"], 2, "not a model name"),
        (&["run", "--while-pulling"], 2, "name a model"),
    ] {
        let ran = common::fails(registry.cachalot(folder.path(), args), code);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
}
