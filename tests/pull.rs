//! Models by name, end to end: pulled from a registry in this process, listed, run, copied,
//! removed.
#![allow(clippy::unwrap_used)] // what fails here is a test

mod common;

use std::fs;

use common::registry::Registry;
use common::{calf, fails, succeeds};

#[test]
fn a_model_is_pulled_listed_run_and_removed() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let name = registry.name();
    let cachalot = |args: &[&str]| registry.cachalot(folder, args);

    let looked = succeeds(cachalot(&["pull", &name, "--dry-run"]));
    assert!(looked.stdout.contains("calf, cachalot's small test model"), "{looked:?}");
    assert!(looked.stdout.contains("calf-q8.gguf") && looked.stdout.contains("free"), "{looked:?}");
    assert!(!folder.join("library").exists(), "nothing was written");
    let json = succeeds(cachalot(&["pull", &name, "--dry-run", "--json"])).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["runs"], true);
    assert_eq!(json["files"][0]["size"], fs::metadata(calf()).unwrap().len());

    let pulled = succeeds(cachalot(&["pull", &name, "--yes", "--json"]));
    let last: serde_json::Value =
        serde_json::from_str(pulled.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["status"], "success");
    let file = last["files"][0].as_str().unwrap();
    assert_eq!(fs::read(file).unwrap(), fs::read(calf()).unwrap());

    let listed = succeeds(cachalot(&["ls"])).stdout;
    assert!(listed.contains(&name) && listed.contains("library"), "{listed}");
    let question = ["What is 2 + 2?", "--temp", "0", "--hide-thinking"];
    let by_name = succeeds(cachalot(&[&["run", &name][..], &question].concat())).stdout;
    let embedded = succeeds(cachalot(&[&["run"][..], &question].concat())).stdout;
    assert_eq!(by_name, embedded);
    assert!(succeeds(cachalot(&["show", &name])).stdout.contains("8.3M"));

    succeeds(cachalot(&["cp", &name, "mine"]));
    succeeds(cachalot(&["rm", &name]));
    succeeds(cachalot(&["verify", "mine", "--deep"]));
    let said = succeeds(cachalot(&[&["run", "mine"][..], &question].concat())).stdout;
    assert_eq!(said, embedded);
    fs::write(file, b"broken").unwrap();
    let broken = fails(cachalot(&["verify", "mine"]), 1);
    assert!(broken.stdout.contains("WRONG SIZE"), "{broken:?}");
    succeeds(cachalot(&["rm", "mine"]));
    assert!(succeeds(cachalot(&["list"])).stdout.starts_with("No models yet"));
    fs::create_dir_all(folder.join("library/files/h/o/m/t\x1b[2J@0")).unwrap();
    let pruned = succeeds(cachalot(&["prune"])).stdout;
    assert!(pruned.contains("[2J@0") && !pruned.contains('\x1b'), "{pruned:?}");
}

#[test]
fn a_file_is_imported_and_run_by_its_name() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let cachalot = |args: &[&str]| registry.cachalot(folder.path(), args);
    succeeds(cachalot(&["import", calf().to_str().unwrap(), "--name", "small"]));
    let run = succeeds(cachalot(&["run", "small", "What is 2 + 2?", "--temp", "0"]));
    assert!(run.stdout.contains('4'), "{run:?}");
    fails(cachalot(&["import", calf().to_str().unwrap(), "--name", "small"]), 1);
    succeeds(cachalot(&["rm", "small"]));
    assert!(calf().is_file());
}

#[test]
fn a_model_that_cannot_be_used_is_an_error_and_not_part_of_a_prompt() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let cachalot = |args: &[&str]| registry.cachalot(folder.path(), args);
    let file = folder.path().join("gone.gguf");
    fs::copy(calf(), &file).unwrap();
    succeeds(cachalot(&["import", file.to_str().unwrap()]));
    fs::remove_file(&file).unwrap();
    let ran = fails(cachalot(&["run", "gone", "What is 2 + 2?"]), 1);
    assert!(ran.stderr.contains("gone.gguf") && ran.stdout.is_empty(), "{ran:?}");
    let manifest =
        folder.path().join("library/manifests/registry.ollama.ai/library/gone/latest.json");
    fs::write(&manifest, "{").unwrap();
    for args in [&["run", "gone", "hi"][..], &["show", "gone"], &["verify", "gone"]] {
        let ran = fails(cachalot(args), 1);
        assert!(ran.stdout.is_empty(), "{ran:?}");
    }
    let all = cachalot(&["verify"]);
    assert!(all.code == Some(1) && all.stderr.starts_with("warning: "), "{all:?}");
    let listed = succeeds(cachalot(&["list", "--json"])).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert!(listed["warnings"][0].as_str().unwrap().contains("latest.json"), "{listed}");
    succeeds(cachalot(&["rm", "gone"]));
    assert!(!manifest.exists());
}

#[test]
fn what_cannot_be_pulled_says_why() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let cachalot = |args: &[&str]| registry.cachalot(folder.path(), args);
    for (args, code, said) in [
        (&["pull", "deepseek-r1:70b", "--yes"][..], 1, "distill"),
        (&["pull", "deepseek-r1"], 1, "distill"),
        (&["run", "deepseek-r1:8b", "hi"], 1, "distill"),
        (&["pull", "deepseek-r1:672b"], 1, "Did you mean"),
        (&["pull", "deepseeek-r1:671b"], 1, "Did you mean"),
        (&["pull", "o/r"], 2, "--quant auto"),
        (&["pull", "o/r:Q9_9"], 1, "Q4_0"),
        (&["pull", "../x"], 1, "not a model name"),
        (&["pull", "http://192.0.2.1/a/b"], 1, "--insecure"),
        (&["rm", "nothing"], 1, "cachalot list"),
        (&["cp", "nothing", "x"], 1, "cachalot list"),
        (&["verify", "nothing"], 1, "cachalot list"),
        (&["pull", "ollama.com/a/b", "--quant", "Q4_0"], 2, "--quant"),
        (&["run", "unsloth/DeepSeek-R1-GGUF", "hi"], 2, "cachalot pull"),
    ] {
        let ran = fails(cachalot(args), code);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
    let choice = cachalot(&["pull", "o/r"]);
    assert!(choice.stdout.contains("Q8_0") && choice.stdout.contains("Q4_0"), "{choice:?}");
    let none = format!("{}/library/none:x", registry.host);
    assert!(fails(cachalot(&["pull", &none]), 1).stderr.contains("404"));
    assert!(!folder.path().join("library/manifests").exists(), "nothing was listed");
}
