//! Streamed experts end to end: the same text as without streaming, statistics, and refusals.

mod common;

use common::{calf, fails, succeeds};

const PROMPT: &str = "How many r's are in strawberry?";

fn run(more: &[&str]) -> common::Ran {
    let calf = calf();
    let file = calf.to_str().expect("a path in UTF-8");
    let mut args = vec!["run", file, PROMPT, "--seed", "1", "--max-tokens", "60", "--ctx", "256"];
    args.extend(more);
    let folder = tempfile::tempdir().expect("a folder");
    common::run(common::command(&args).env("XDG_STATE_HOME", folder.path()), b"")
}

#[test]
fn an_answer_is_the_same_with_experts_that_are_streamed() {
    let resident = succeeds(run(&["--stream", "never"]));
    let streamed = succeeds(run(&["--stream", "always", "--verbose"]));
    assert_eq!(streamed.stdout, resident.stdout);
    for part in ["experts:", "in memory; others read", "expert cache hit rate", "bound by"] {
        assert!(streamed.stderr.contains(part), "`{part}` in {}", streamed.stderr);
    }
    assert_eq!(succeeds(run(&[])).stdout, resident.stdout);
}

#[test]
fn memory_that_is_too_small_is_refused_with_the_numbers() {
    let refused = fails(run(&["--stream", "always", "--memory", "2MiB"]), 1);
    assert!(refused.stderr.contains("of non-expert weights"), "{refused:?}");
    let wrong = fails(run(&["--memory", "much"]), 2);
    assert!(wrong.stderr.contains("64GiB"), "{wrong:?}");
}

#[test]
fn routing_is_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace");
    let path = path.to_str().expect("a path in UTF-8");
    succeeds(run(&["--trace", path, "--stream", "always"]));
    let bytes = std::fs::read(path).expect("a trace");
    assert!(bytes.starts_with(b"cachrout") && bytes.len() > 100, "{} bytes", bytes.len());
    let refused = fails(run(&["--trace", "/no/such/folder/trace"]), 1);
    assert!(refused.stderr.contains("/no/such/folder/trace"), "{refused:?}");
}
