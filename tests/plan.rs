//! `cachalot plan`, end to end: answers for machines in words, and what is said to bad ones.

mod common;

use common::{cachalot, calf, command, run, succeeds};

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
    assert!(page.contains("change") && page.contains("non-expert weights"), "{page}");
}

#[test]
fn a_model_of_several_quantizations_is_answered_by_a_table() {
    let on = ["--on", "2x epyc 9654 384gb"];
    let kimi = page(&[&["kimi-k2"], &on[..]].concat());
    assert!(kimi.starts_with("Kimi-K2 1026B on ") && kimi.contains("\nYes: "), "{kimi}");
    assert!(kimi.contains("Kimi-K2-Instruct-GGUF:UD-Q2_K_XL"), "{kimi}");
    assert!(!kimi.contains("DeepSeek-R1"), "of no other model: {kimi}");
    let first = |experts: &[&str]| {
        let page = page(&[&["r1-0528", "--json"], &on[..], experts].concat());
        let json: serde_json::Value = serde_json::from_str(&page).unwrap();
        let choices = json["choices"].as_array().unwrap().clone();
        let one =
            choices.iter().find(|choice| choice["name"].as_str().unwrap().ends_with("Q2_K_XL"));
        one.unwrap()["decode"]["likely"].as_f64().unwrap()
    };
    assert!(first(&["--experts", "4"]) > 1.1 * first(&[]), "fewer experts are faster");
    assert!(error(&[&["kimi-k2", "--explain"], &on[..]].concat(), 1).contains("choose one"));
    assert!(error(&[&["--experts", "300"], &on[..]].concat(), 2).contains("1 to 256"));
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
        changed.contains("graphics memory") && changed.contains("cachalot itself runs on the CPU"),
        "{changed}"
    );
    assert!(page(&[&on[..], &["--explain"]].concat()).contains("Every number:"));
}

#[test]
fn all_quantizations_are_listed_best_first() {
    let page = page(&["--on", "desktop-128"]);
    assert!(page.lines().any(|line| line.starts_with("Yes: ")), "{page}");
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
        error(&["UD-IQ1_S", "--on", "desktop-96", "--ram", "12 parsecs"], 2).contains("not a size")
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
    assert!(error(&["--on", "epyc-9654 12x4800 384QB"], 2).contains("384qb"));
    assert!(error(&["--on", "epyc-9654 12x4800 8 channels"], 2).contains("twice"));
    assert!(error(&["UD-IQ1_S", "--on", "desktop-96", "--disk", "7 GB"], 2).contains("not a rate"));
}

#[test]
fn calf_runs_anywhere_and_its_file_is_enough() {
    let page = page(&["models/calf.gguf", "--on", "raspberry-pi"]);
    assert!(page.contains("Yes: about "), "{page}");
}

#[test]
fn machines_in_everyday_words_are_understood() {
    for words in [
        "HP Z840, dual Xeon E5-2699 v4, 8 channels DDR4-2400, 512 GB RAM, 2TB NVMe",
        "AMD EPYC 7532 32-Core Processor, 8x 32GB DDR4-3200, 2x RTX 3090, Samsung 990 Pro",
        "2x EPYC 7R13 16x3200 512GB nvme",
        "Framework Desktop 128GB nvme",
        "Core Ultra 9 285K 192GB DDR5-6400 RTX 5090 PCIe 5.0 NVMe",
        "2x3090 256GB threadripper pro 3945wx 8x3200 nvme",
    ] {
        let page = page(&["UD-IQ1_S", "--on", words]);
        assert!(page.contains("Yes"), "{words}: {page}");
    }
}

#[test]
fn what_past_runs_reached_is_counted_in() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("cachalot/runs.jsonl");
    std::fs::create_dir_all(record.parent().unwrap()).unwrap();
    let size = 8_898_048; // of calf's tensors
    let line = |model: &str| {
        format!(
            r#"{{"model":"{model}","size":{size},"threads":1,"streamed":false,"predicted":10.0,"measured":5.0}}"#
        )
    };
    std::fs::write(&record, line("calf.gguf") + "\n").unwrap();
    let calf = calf().display().to_string();
    let plan = |words: &[&str], kept: &str| {
        let mut command = command(&[&["plan", &calf, "--threads", "1"], words].concat());
        command.env("XDG_STATE_HOME", folder.path()).env("CACHALOT_RECORD", kept);
        succeeds(run(&mut command, b"")).stdout
    };
    let counted = plan(&["--explain"], "on");
    assert!(counted.contains("runs of this model on this machine were 0.50 times"), "{counted}");
    assert!(counted.contains("measured / predicted"), "{counted}");
    assert!(!plan(&[], "off").contains("runs of this model"));
    assert!(!plan(&["--on", "desktop-96"], "on").contains("runs of this model"), "of that machine");
}

#[test]
fn a_download_under_way_is_planned_by_its_header() {
    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join("half.gguf");
    let whole = std::fs::read(calf()).unwrap();
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let page = page(&[half.to_str().unwrap(), "--on", "desktop-96"]);
    assert!(page.contains("Yes: about ") && page.contains("not complete"), "{page}");
}

#[test]
fn measured_rows_of_identical_hardware_are_counted_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    let row = |processor: &str| {
        format!(
            r#"{{"machine":{{"processor":"{processor}","sockets":1,"cores":96,"memory_bytes":824633720832}},"model":{{"bytes":404400000000}},"decode":[{{"depth":0,"tokens_per_second":5.0}}],"streaming":null}}"#
        )
    };
    let write = |processor: &str| std::fs::write(&file, row(processor) + "\n").unwrap();
    let asked =
        ["q4_k_m", "--on", "epyc-9654 12x4800 768GB nvme", "--import", file.to_str().unwrap()];
    write("AMD EPYC 9654 96-Core Processor");
    let page = page(&asked);
    assert!(page.contains("Yes: about 5.0 tok/s"), "{page}");
    assert!(page.contains("1 measured runs of this model on identical hardware"), "{page}");
    write("AMD EPYC 9554 64-Core Processor");
    assert!(!self::page(&asked).contains("identical hardware"));
    std::fs::write(&file, "nonsense").unwrap();
    assert!(error(&asked, 1).contains("bench --json"));
}

#[test]
fn a_machine_without_on_is_told_where_it_belongs() {
    let two = error(&["7950x3d", "192gb", "4090"], 2);
    assert!(two.contains("`cachalot plan --on \"7950x3d 192gb 4090\"`"), "{two}");
    let with_model = error(&["kimi-k2", "epyc", "9654", "768gb"], 2);
    assert!(
        with_model.contains("`cachalot plan kimi-k2 --on \"epyc 9654 768gb\"`"),
        "{with_model}"
    );
    let one = error(&["gh200"], 1);
    assert!(one.contains("`cachalot plan --on \"gh200\"`"), "{one}");
}
