//! `cachalot run` end to end, as users and scripts run it.
#![allow(clippy::unwrap_used)] // what fails here is a test

mod common;

use common::{Ran, cachalot, calf, fails, run_with_input, succeeds};

const STRAWBERRY: &str = "How many r's are in strawberry?";

#[test]
fn the_embedded_model_thinks_and_answers() {
    let ran = succeeds(cachalot(&["run", STRAWBERRY, "--temp", "0"]));
    let (thoughts, answer) = ran.stdout.split_once("</think>\n\n").expect("thoughts come first");
    assert!(thoughts.starts_with("<think>\n"), "{}", ran.stdout);
    assert!(answer.contains('3'), "{answer}");
    assert!(answer.ends_with('\n'));
    assert!(
        !ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'),
        "pipes get no control codes"
    );
}

#[test]
fn words_need_no_quotes_and_a_model_may_come_first() {
    let question = ["How", "many", "r's", "are", "in", "strawberry?"];
    let calf = calf();
    let with = |first: &[&str]| {
        let args = [&["run", "--temp=0", "--seed=1"], first, &question].concat();
        succeeds(cachalot(&args)).stdout
    };
    assert_eq!(with(&[]), with(&[calf.to_str().unwrap()]));
}

#[test]
fn thinking_is_hidden_forced_or_off() {
    let with = |flags: &[&str]| {
        succeeds(cachalot(&[&["run", "--temp=0", STRAWBERRY], flags].concat())).stdout
    };
    let shown = with(&[]);
    assert_eq!(with(&["--think", "force"]), shown, "calf's template forces it anyway");
    let hidden = with(&["--hide-thinking"]);
    assert!(shown.ends_with(&hidden) && !hidden.contains("think"), "{hidden}");
    assert!(!with(&["--think", "off"]).starts_with("<think>"));
}

#[test]
fn a_seed_gives_the_same_text_at_any_number_of_threads() {
    let with = |seed: &str, threads: &str| {
        let flags = ["run", "Tell me a story.", "--temp=1.5", "--top-p=1", "--max-tokens=80"];
        let flags = [&flags[..], &["--seed", seed, "--threads", threads]].concat();
        succeeds(cachalot(&flags)).stdout
    };
    let text = with("7", "1");
    assert_eq!(with("7", "1"), text);
    assert_eq!(with("7", "2"), text);
    assert_eq!(with("7", "4"), text);
    assert_ne!(with("8", "1"), text);
}

#[test]
fn piped_text_is_joined_to_the_prompt() {
    let whole = succeeds(cachalot(&["run", "--temp=0", "What is\n\n12 + 30?"])).stdout;
    let joined = run_with_input(&["run", "--temp=0", "12 + 30?"], b"What is\n");
    assert_eq!(succeeds(joined).stdout, whole);
    let piped = run_with_input(&["run", "--temp=0"], b"What is\n\n12 + 30?\n");
    assert_eq!(succeeds(piped).stdout, whole);
}

#[test]
fn a_missing_prompt_is_an_error() {
    let ran = fails(cachalot(&["run"]), 2);
    assert!(ran.stderr.contains("no prompt"), "{}", ran.stderr);
    fails(run_with_input(&["run"], b" \n"), 2);
    fails(run_with_input(&["run", ""], b""), 2);
}

#[test]
fn verbose_prints_statistics() {
    let ran = succeeds(cachalot(&["run", STRAWBERRY, "--verbose", "--seed=5"]));
    for word in ["load:", "prompt:", "answer:", "tokens/s", "KV cache:", "memory:", "seed 5"] {
        assert!(ran.stderr.contains(word), "no {word} in {}", ran.stderr);
    }
    assert!(!ran.stdout.contains("tokens/s"), "only the answer is written to standard output");
}

#[test]
fn limits_are_kept_and_reported() {
    let ran = succeeds(cachalot(&["run", "--temp=0", STRAWBERRY, "--max-tokens", "5"]));
    assert!(ran.stderr.contains("(--max-tokens reached: 5)"), "{}", ran.stderr);
    let ran = succeeds(cachalot(&["run", "--temp=0", STRAWBERRY, "--ctx", "40"]));
    assert!(ran.stderr.contains("context window full: 40 tokens"), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("<think>"), "what was computed is shown");
}

#[test]
fn stop_strings_end_the_answer() {
    let whole = succeeds(cachalot(&["run", "--temp=0", STRAWBERRY, "--hide-thinking"])).stdout;
    let ran = cachalot(&["run", "--temp=0", STRAWBERRY, "--hide-thinking", "--stop", "3"]);
    let stopped = succeeds(ran).stdout;
    assert_eq!(stopped.trim_end(), whole.split('3').next().unwrap().trim_end());
}

#[test]
fn every_kv_type_and_the_reference_kernels_answer() {
    for flags in [&["--kv-type", "f32"][..], &["--kv-type", "q8_0"], &["--exact"]] {
        let args = [&["run", "What is 12 + 30?", "--temp=0", "--hide-thinking"], flags].concat();
        let ran = succeeds(cachalot(&args));
        assert!(ran.stdout.contains("42"), "{flags:?}: {}", ran.stdout);
    }
    for flags in [["--experts", "3"], ["--expert-groups", "off"], ["--expert-groups", "4/3"]] {
        let args = [&["run", "hi", "--temp=0", "--max-tokens=5"][..], &flags].concat();
        succeeds(cachalot(&args));
    }
}

#[test]
fn invalid_values_are_usage_errors() {
    for (flags, named) in [
        (&["--top-p", "1.5"][..], "--top-p"),
        (&["--temperature", "-1"], "--temperature"),
        (&["--temp", "warm"], "warm"),
        (&["--seed", "-3"], "expected a whole number, or random"),
        (&["--seed", "x"], "expected a whole number, or random"),
        (&["--max-tokens", "few"], "such as 4096 or 32k, or none"),
        (&["--ctx", "many"], "such as 4096 or 32k"),
        (&["--experts", "x"], "expected a whole number"),
        (&["--top-k", "x"], "expected a number such as"),
        (&["--memory", "x"], "64GiB"),
        (&["--threads", "x"], "expected a number of threads"),
        (&["--stream", "always"], "embedded model"),
        (&["--json", "--verbose"], "--verbose"),
        (&["--think", "maybe"], "maybe"),
        (&["--kv-type", "q4_0"], "q4_0"),
        (&["--expert-groups", "4/8"], "4/8"),
        (&["--threads", "0"], "--threads"),
        (&["--ctx", "0"], "--ctx"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let Ran { stdout, stderr, .. } = fails(cachalot(&[&["run", "hi"], flags].concat()), 2);
        assert!(stderr.contains(named), "{flags:?}: {stderr}");
        assert_eq!(stdout, "");
    }
}

#[test]
fn options_that_the_model_does_not_support_are_refused() {
    let long = "word ".repeat(5000);
    for (flags, said) in [
        (&["--experts", "0"][..], "0 active experts"),
        (&["--experts", "17"], "1 to 16"),
        (&["--expert-groups", "5/2"], "groups"),
        (&["--ctx", "4097"], "4096"),
        (&["--ctx", "10", STRAWBERRY], "context holds 10"),
        (&[long.as_str()], "context holds 4096"),
    ] {
        let Ran { stdout, stderr, .. } = fails(cachalot(&[&["run", "hi"], flags].concat()), 1);
        assert!(stderr.contains(said), "{flags:?}: {stderr}");
        assert_eq!(stdout, "", "nothing is computed");
    }
}

#[test]
fn a_misspelt_model_is_not_a_prompt() {
    for name in ["deepseek-r1:671b", "deepseeek-r1:8b", "hf.co/someone/Some-GGUF:Q4_K_M", "./x"] {
        let ran = cachalot(&["run", name, "hi"]);
        assert!(ran.code != Some(0) && ran.stderr.contains(name), "{ran:?}");
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn minus_one_is_random_or_no_limit_and_the_last_of_two_options_counts() {
    let with = |flags: &[&str]| {
        let args = [&["run", "What is 12 + 30?", "--temp=0", "--hide-thinking"], flags].concat();
        succeeds(cachalot(&args)).stdout
    };
    let plain = with(&[]);
    assert_eq!(with(&["--seed", "-1", "--max-tokens", "-1"]), plain);
    assert_eq!(with(&["--max-tokens", "1", "--max-tokens", "1k", "--hide-thinking"]), plain);
}

#[test]
fn programs_get_one_json_object() {
    let ran = succeeds(cachalot(&["run", "What is 12 + 30?", "--temp=0", "--seed=7", "--json"]));
    assert_eq!(ran.stderr, "");
    let object: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(object["thought"].as_str().unwrap().contains("Add digit by digit"), "{object}");
    assert!(object["answer"].as_str().unwrap().contains("42"), "{object}");
    assert_eq!((&object["finish_reason"], &object["seed"]), (&"stop".into(), &7.into()));
    let usage = &object["usage"];
    for key in ["prompt_tokens", "generated_tokens", "thought_tokens"] {
        assert!(usage[key].as_u64().unwrap() > 5, "{key}: {object}");
    }
    assert!(usage["thought_tokens"].as_u64() < usage["generated_tokens"].as_u64());
    assert!(object["timings"]["decode_tokens_per_second"].as_f64().unwrap() > 0.0);
    let cut = ["run", "What is 12 + 30?", "--temp=0", "--max-tokens=3", "--json"];
    let object: serde_json::Value = serde_json::from_str(&succeeds(cachalot(&cut)).stdout).unwrap();
    assert_eq!((&object["finish_reason"], &object["answer"]), (&"length".into(), &"".into()));
}

#[test]
fn too_many_threads_are_reduced_with_a_note() {
    let ran = succeeds(cachalot(&["run", "hi", "--max-tokens=2", "--threads", "1000"]));
    assert!(ran.stderr.contains("1000 threads are more than"), "{}", ran.stderr);
}

#[test]
fn input_that_no_context_holds_is_refused_at_once() {
    let mut child = common::command(&["run", "--ctx", "64", "hi"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Endless: written until the program stops reading.
    let mut stdin = child.stdin.take().unwrap();
    while std::io::Write::write_all(&mut stdin, &[b'a'; 4096]).is_ok() {}
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard input is too long"));
}

#[test]
fn a_byte_order_mark_is_not_part_of_piped_text() {
    let prompt_tokens = |input: &[u8]| {
        let ran = run_with_input(&["run", "--json", "--temp=0", "--max-tokens=1"], input);
        let object: serde_json::Value = serde_json::from_str(&succeeds(ran).stdout).unwrap();
        object["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    assert_eq!(prompt_tokens(b"\xef\xbb\xbfWhat is 1 + 1?"), prompt_tokens(b"What is 1 + 1?"));
}

#[cfg(unix)]
#[test]
fn names_of_files_need_not_be_utf_8() {
    use std::os::unix::ffi::OsStringExt;
    let folder = tempfile::tempdir().unwrap();
    let name = std::ffi::OsString::from_vec(b"wh\xe4le.gguf".to_vec());
    let path = folder.path().join(name);
    std::fs::copy(calf(), &path).unwrap();
    let mut command = common::command(&["run", "What is 12 + 30?", "--temp=0"]);
    command.args([std::ffi::OsStr::new("--hide-thinking"), path.as_os_str()]);
    // The model comes first.
    let mut command_in_order = common::command(&["run"]);
    command_in_order.arg(&path).args(["What is 12 + 30?", "--temp=0", "--hide-thinking"]);
    assert!(succeeds(common::run(&mut command_in_order, b"")).stdout.contains("42"));
    assert_eq!(common::run(&mut command, b"").code, Some(2), "not as part of the prompt");
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeeds(cachalot(&["completions", shell])).stdout;
        assert!(script.contains("hide-thinking"), "{shell}");
    }
    fails(cachalot(&["completions", "csh"]), 2);
}

#[test]
fn variables_of_the_environment_are_checked() {
    let ran = common::run(common::command(&["run", "hi"]).env("CACHALOT_CPU", "z80"), b"");
    assert!(fails(ran, 2).stderr.contains("CACHALOT_CPU"));
    let ran = common::run(
        common::command(&["run", "What is 12 + 30?", "--temp=0", "--hide-thinking"])
            .env("CACHALOT_CPU", "scalar")
            .env("CACHALOT_THREADS", "1"),
        b"",
    );
    assert!(succeeds(ran).stdout.contains("42"));
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_it_quietly() {
    let mut child = common::command(&["run", "Tell me a story.", "--max-tokens=200"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success(), "{:?}", output.status);
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_it_with_its_own_exit_code() {
    let mut child = common::command(&["run", "--exact", "--threads=1", "--temp=100", "--top-p=1"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"Tell me a story.\n").unwrap();
    // The first character of the answer: it has installed its handler, and computes.
    let mut first = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success(), "it was still running");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("error"), "{output:?}");
}
