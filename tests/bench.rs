//! The measuring commands end to end. Tests cannot check speeds, but they check that the numbers
//! exist and mean what their names say.
#![allow(clippy::unwrap_used)] // what fails here is a test

mod common;

use std::fs;

use common::{cachalot, calf, fails, succeeds};
use serde_json::Value;

/// Runs the program, and reads the JSON that it prints.
#[track_caller]
fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(cachalot(args)).stdout).unwrap()
}

#[track_caller]
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is a number"))
}

#[test]
fn filling_the_cache_is_not_counted_as_decoding() {
    let joins = |depth: &str| {
        let found = json(&["bench", "-p", "0", "-n", "3", "-d", depth, "-r", "1", "--json"]);
        number(&found["joins_per_token"])
    };
    assert_eq!(joins("0"), joins("40"));
}

#[test]
fn several_users_share_batches() {
    let args = ["bench", "-p", "8", "-n", "8", "-r", "1", "--parallel", "1,3", "--json"];
    let found = json(&args);
    let users = found["parallel"].as_array().unwrap();
    assert_eq!(users.iter().map(|one| number(&one["users"])).collect::<Vec<_>>(), [1.0, 3.0]);
    for one in users {
        for key in [
            "tokens_per_second",
            "tokens_per_second_per_user",
            "first_token_seconds",
            "weight_bytes_per_step",
            "bandwidth_bound_tokens_per_second",
        ] {
            assert!(number(&one[key]) > 0.0, "{key}: {one}");
        }
    }
    let [one, three] = [0, 1].map(|i| number(&users[i]["distinct_experts_per_layer"]));
    assert_eq!(one, number(&found["model"]["experts_used"]));
    assert!(one < three && three <= 3.0 * one, "{one} experts, {three} for three users");
}

#[test]
fn a_bench_without_a_model_measures_calf() {
    let found = json(&["bench", "-p", "24", "-n", "3", "-d", "5", "-r", "2", "-t", "2", "--json"]);
    let (prefill, decode) = (&found["prefill"][0], &found["decode"][0]);
    assert_eq!((&prefill["tokens"], &decode["tokens"]), (&24.into(), &3.into()));
    assert_eq!((&decode["depth"], &found["threads"]), (&5.into(), &2.into()));
    for part in [prefill, decode] {
        let [min, median, max] =
            ["tokens_per_second_min", "tokens_per_second", "tokens_per_second_max"]
                .map(|key| number(&part[key]));
        assert!(0.0 < min && min <= median && median <= max, "{part}");
        assert_eq!(part["runs"].as_array().unwrap().len(), 2);
    }
    for key in [
        "weight_bytes_per_second",
        "read_bandwidth_bytes_per_second",
        "read_bandwidth_fraction",
        "products_per_token",
        "product_rate_fraction",
        "peak_memory_bytes",
    ] {
        assert!(number(&found[key]) > 0.0, "{key}");
    }
    let layers = number(&found["model"]["layers"]);
    let joins = number(&found["joins_per_token"]);
    assert_eq!(number(&found["joins_per_layer"]), joins / layers);
    assert!(joins >= layers, "a layer cannot be computed without a join: {joins}");
}

#[test]
fn fewer_experts_read_fewer_bytes() {
    let bytes = |experts| {
        let found =
            json(&["bench", "-p", "0", "-n", "1", "-r", "1", "--experts", experts, "--json"]);
        assert_eq!(found["prefill"], Value::Array(Vec::new()), "left out");
        number(&found["weight_bytes_per_token"])
    };
    let [one, two, three] = ["1", "2", "3"].map(bytes);
    assert!(one < two, "{one} {two}");
    assert_eq!(two - one, three - two, "each expert has as many");
}

#[test]
fn bench_prints_text_for_people() {
    let path = calf();
    let ran = succeeds(cachalot(&[
        "bench",
        "-m",
        path.to_str().unwrap(),
        "-p",
        "8",
        "-n",
        "2",
        "-r",
        "1",
    ]));
    for word in ["calf.gguf", "tok/s", "prefill", "decode", "GB/s", "joins", "memory"] {
        assert!(ran.stdout.contains(word), "{word} in:\n{}", ran.stdout);
    }
    assert_eq!(ran.stderr, "", "no bars where there is no terminal");
}

#[test]
fn invalid_measurements_are_refused() {
    for (args, code, said) in [
        (&["bench", "-p", "0", "-n", "0"][..], 2, "nothing to measure"),
        (&["bench", "-p", "5000"], 1, "at most 4096 tokens"),
        (&["bench", "-d", "4090", "-n", "7"], 1, "at most 4096 tokens"),
        (&["bench", "-d", "18446744073709551615"], 1, "at most 4096 tokens"),
        (&["bench", "--experts", "17"], 1, "17 active experts"),
        (&["bench", "-r", "0"], 2, "0"),
        (&["bench", "-m", "missing.gguf"], 1, "missing.gguf"),
        (&["perplexity", "missing.gguf", "Cargo.toml"], 1, "missing.gguf"),
        (&["perplexity", "missing.gguf", "missing.txt"], 1, "missing.txt"),
    ] {
        let ran = fails(cachalot(args), code);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
}

/// Text in the style that calf was trained on, and random characters.
fn texts() -> [String; 2] {
    let questions = fs::read_to_string("tests/fixtures/calf-questions.jsonl").unwrap();
    let questions = questions.lines().take(40).map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        format!("{} {}\n", line["question"].as_str().unwrap(), line["answer"].as_str().unwrap())
    });
    let mut random = fastrand::Rng::with_seed(1);
    let noise = std::iter::repeat_with(|| char::from(random.u8(b' '..=b'~')));
    [questions.collect(), noise.take(1500).collect()]
}

#[test]
fn perplexity_is_lower_for_familiar_text() {
    let folder = tempfile::tempdir().unwrap();
    let calf = calf();
    let [known, noise] = texts().map(|text| {
        let path = folder.path().join("text.txt");
        fs::write(&path, text).unwrap();
        let args = ["perplexity", calf.to_str().unwrap(), path.to_str().unwrap()];
        json(&[&args[..], &["--ctx", "64", "--chunks", "8", "--json"]].concat())
    });
    for found in [&known, &noise] {
        assert_eq!(number(&found["scored_tokens"]), 8.0 * 31.0, "31 of 64 tokens");
        assert!(number(&found["perplexity_error"]) > 0.0);
        assert_eq!(found["against"], Value::Null);
    }
    let [known, noise] = [known, noise].map(|found| number(&found["perplexity"]));
    assert!(1.0 < known && known < noise / 2.0 && noise.is_finite(), "{known} and {noise}");
}

#[test]
fn divergence_is_zero_from_itself_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    fs::write(&path, &texts()[0]).unwrap();
    let (calf, path) = (calf(), path.to_str().unwrap().to_owned());
    let calf = calf.to_str().unwrap();
    let args = ["perplexity", calf, &path, "--ctx", "64", "--chunks", "4", "--against", calf];
    let itself = json(&[&args[..], &["--json"]].concat());
    let against = &itself["against"];
    assert_eq!(number(&against["mean_kl_divergence"]), 0.0);
    assert_eq!(number(&against["top_1_agreement"]), 1.0);
    assert_eq!(against["perplexity"], itself["perplexity"]);

    let fewer = json(&[&args[..], &["--experts", "1", "--json"]].concat());
    assert!(number(&fewer["against"]["mean_kl_divergence"]) > 0.001, "{fewer}");
    assert!(number(&fewer["against"]["top_1_agreement"]) < 1.0);
    assert_eq!(fewer["against"]["perplexity"], itself["perplexity"], "the reference is the file's");

    let page = succeeds(cachalot(&args)).stdout;
    for word in ["124 tokens scored", "perplexity", "0.000000 ±", "100.00 ±"] {
        assert!(page.contains(word), "{word} in:\n{page}");
    }
}

#[test]
fn a_short_text_is_not_scored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    fs::write(&path, "2 + 2 = 4").unwrap();
    let calf = calf();
    let args = ["perplexity", calf.to_str().unwrap(), path.to_str().unwrap()];
    assert!(fails(cachalot(&args), 1).stderr.contains("fewer than one chunk of 512"));
    fs::write(&path, b"\xff\xfe").unwrap();
    assert!(fails(cachalot(&args), 1).stderr.contains("as UTF-8 text"));
}
