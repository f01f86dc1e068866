//! `cachalot plan`, end to end: answers for machines in words, and what is said to bad ones.

mod common;

use common::{cachalot, succeeds};

/// What `cachalot plan WORDS` prints, which must go well.
fn page(words: &[&str]) -> String {
    succeeds(cachalot(&[&["plan"], words].concat())).stdout
}

/// What it says is wrong, with the exit code of the command line (2) or of the facts (1).
fn error(words: &[&str], code: i32) -> String {
    let ran = cachalot(&[&["plan"], words].concat());
    assert_eq!(ran.code, Some(code), "{words:?}: {ran:?}");
    assert!(ran.stdout.is_empty(), "nothing else is written: {ran:?}");
    ran.stderr
}

#[test]
fn a_machine_in_words_is_planned_for() {
    let page = page(&["deepseek-r1:671b", "--on", "epyc-9654 12x4800 768GB nvme 7GB/s"]);
    assert!(page.contains("Yes: about "), "{page}");
    assert!(page.contains("what would help") && page.contains("read by every token"), "{page}");
}

#[test]
fn flags_change_single_facts() {
    let on = ["UD-Q2_K_XL", "--on", "desktop-96"];
    let changed = page(
        &[
            &on[..],
            &[
                "--ram",
                "256GB",
                "--gpu",
                "24GB:1008GB/s",
                "--bandwidth",
                "80GB/s",
                "--disk",
                "14GB/s",
            ],
        ]
        .concat(),
    );
    assert!(
        changed.contains("graphics memory") && changed.contains("cachalot computes on processors"),
        "{changed}"
    );
    assert!(page(&[&on[..], &["--explain"]].concat()).contains("Every number:"));
}

#[test]
fn all_quantizations_are_listed_best_first() {
    let page = page(&["--on", "desktop-128"]);
    assert!(page.lines().nth(2).unwrap().starts_with("Yes: "), "{page}");
    assert!(page.matches("unsloth/DeepSeek-R1").count() > 5, "{page}");
}

#[test]
fn what_one_machine_prints_another_plans_for() {
    let folder = tempfile::tempdir().unwrap();
    let facts = folder.path().join("rig.json");
    std::fs::write(&facts, page(&["--machine", "--json", "--on", "epyc-ddr4"])).unwrap();
    let by_file = page(&["q4_k_m", "--on", facts.to_str().unwrap(), "--json"]);
    let by_name = page(&["q4_k_m", "--on", "epyc-ddr4", "--json"]);
    assert_eq!(by_file, by_name);
    let object: serde_json::Value = serde_json::from_str(&by_name).unwrap();
    assert_eq!(object["runs"], true);
    assert_eq!(object["rates"].as_array().unwrap().len(), 3);
}

#[test]
fn presets_and_caches_are_listed() {
    let presets = page(&["--presets"]);
    for preset in [
        "raspberry-pi",
        "laptop-32",
        "desktop-96-4nvme",
        "server-8x4090",
        "mac-studio-512",
        "8xh200",
    ] {
        assert!(presets.contains(preset), "{presets}");
    }
    let kv = page(&["--kv"]);
    assert!(
        kv.contains("9760 MiB") && kv.contains("762.5 GiB") && kv.contains("10.72 GiB"),
        "{kv}"
    );
}

#[test]
fn a_picture_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r1.svg");
    let page = page(&["UD-IQ1_S", "--on", "desktop-96", "--plot", file.to_str().unwrap()]);
    assert!(page.contains("96 GiB here") && file.exists(), "{page}");
}

#[test]
fn bad_input_is_answered_clearly() {
    assert!(error(&["--on", "desktop-69"], 2).contains("desktop-96"));
    assert!(
        error(&["UD-IQ1_S", "--on", "desktop-96", "--ram", "12 parsecs"], 2).contains("no size")
    );
    assert!(
        error(&["UD-IQ1_S", "--on", "desktop-96", "--bandwidth", "900GB/s"], 2).contains("at best")
    );
    assert!(
        error(&["UD-IQ1_S", "--on", "desktop-96", "--gpu", "none", "--gpu", "4090"], 2)
            .contains("contradict")
    );
    assert!(error(&["UD-IQ1_S", "--on", "desktop-96", "--ctx", "0"], 2).contains("--ctx"));
    assert!(error(&["UD-IQ1_S", "--on", "desktop-96", "--plot", "a.gif"], 2).contains(".svg"));
    assert!(error(&["deepseek-r2", "--on", "desktop-96"], 1).contains("neither a file nor"));
    assert!(error(&["missing.gguf", "--on", "desktop-96"], 1).contains("missing.gguf"));
    assert!(error(&["--on", "missing.json"], 1).contains("missing.json"));
    assert!(error(&["--presets", "--json"], 2).contains("--presets"));
}

#[test]
fn calf_runs_anywhere_and_its_file_is_enough() {
    let page = page(&["models/calf.gguf", "--on", "raspberry-pi"]);
    assert!(page.contains("Yes: about "), "{page}");
}
