//! What names refer to, as people write them.

use super::*;

const GIB: f64 = (1_u64 << 30) as f64;

fn one(name: &str) -> Option<String> {
    match resolve(name, None) {
        Resolved::Files(files) if files.len() == 1 => Some(files[0].name()),
        _ => None,
    }
}

#[test]
fn sizes_and_shares_are_those_reported() {
    let q2 = find("unsloth/DeepSeek-R1-GGUF:UD-Q2_K_XL")[0].model();
    assert_eq!((q2.size as f64 / 1e8).round(), 2266.0, "226.6 GB");
    // A loader's log: 200.9 GiB of experts; the rest, without its embedding, 9.9 GiB on the card.
    assert!((q2.routed as f64 / GIB - 200.9).abs() < 0.6, "{}", q2.routed);
    assert!((q2.dense as f64 / GIB - 10.1).abs() < 0.6, "{}", q2.dense);
    assert_eq!(q2.name, "DeepSeek-R1 671B UD-Q2_K_XL");
    let q8 = find("q8_0")[0].model();
    let gb = |bytes: u64| (bytes as f64 / 1e8).round() / 10.0;
    assert_eq!((gb(q8.routed_per_token), gb(q8.dense_per_token)), (21.7, 17.3));
    let q4 = find("deepseek-r1:671b")[0].size() as f64;
    assert!((q4 / 1e9 - 404.4).abs() < 0.3, "{q4}");
    let k2 = resolve("kimi-k2", Some("q8_0"));
    let Resolved::Files(files) = k2 else { panic!("{k2:?}") };
    assert!((files[0].size() as f64 / 1e9 - 1090.0).abs() < 5.0, "1.09 TB, {}", files[0].size());
}

#[test]
fn every_model_goes_by_the_names_that_people_use() {
    for (name, model) in [
        ("R1", "DeepSeek-R1"),
        ("deepseek-r1", "DeepSeek-R1"),
        ("deepseek-ai/DeepSeek-R1-0528", "DeepSeek-R1-0528"),
        ("r1_0528", "DeepSeek-R1-0528"),
        ("v3", "DeepSeek-V3"),
        ("DeepSeek-V3-0324", "DeepSeek-V3-0324"),
        ("deepseek v3.1", "DeepSeek-V3.1"),
        ("kimi-k2", "Kimi-K2"),
        ("moonshotai/Kimi-K2-Instruct", "Kimi-K2"),
        ("kimi-k2-thinking", "Kimi-K2-Thinking"),
        ("kimi-k2.5", "Kimi-K2.5"),
        ("Kimi-K2.6", "Kimi-K2.6"),
        ("deepseek-v2-lite", "DeepSeek-V2-Lite"),
    ] {
        let files = find(name);
        assert!(files.len() > 4, "{name}");
        assert!(files.iter().all(|file| file.base.name == model), "{name}: {files:?}");
    }
}

#[test]
fn names_are_found_as_people_write_them() {
    for (name, found) in [
        ("deepseek-r1:671b", "deepseek-r1:671b"),
        ("deepseek-r1:671b-q8_0", "deepseek-r1:671b-q8_0"),
        ("deepseek-r1:671b-0528-q4_K_M", "deepseek-r1:671b-0528-q4_k_m"),
        ("library/deepseek-r1:671b-fp16", "deepseek-r1:671b-fp16"),
        ("UD-IQ1_S", "unsloth/DeepSeek-R1-GGUF:UD-IQ1_S"),
        ("q4_k_m", "unsloth/DeepSeek-R1-GGUF:Q4_K_M"),
        ("hf.co/unsloth/DeepSeek-R1-GGUF:UD-IQ1_S", "unsloth/DeepSeek-R1-GGUF:UD-IQ1_S"),
        (
            "https://huggingface.co/unsloth/Kimi-K2-Instruct-GGUF:q4_k_m",
            "unsloth/Kimi-K2-Instruct-GGUF:Q4_K_M",
        ),
        ("r1:Q2_K_XL", "unsloth/DeepSeek-R1-GGUF:UD-Q2_K_XL"),
    ] {
        assert_eq!(one(name).as_deref(), Some(found), "{name}");
    }
    assert!(find("unsloth/DeepSeek-R1-GGUF").len() > 4);
}

#[test]
fn a_quantization_never_stands_for_another_model() {
    let Resolved::Files(files) = resolve("kimi-k2", Some("Q4_K_M")) else { panic!() };
    assert_eq!(files[0].base.name, "Kimi-K2");
    let Resolved::NoSuchQuant { known, .. } = resolve("kimi-k2", Some("Q9")) else { panic!() };
    assert!(known.contains(&"UD-TQ1_0"), "{known:?}");
    for (name, quant) in
        [("llama-3", Some("Q4_K_M")), ("deepseek-r2", None), ("", None), ("llama", None)]
    {
        assert!(matches!(resolve(name, quant), Resolved::Unknown { .. }), "{name}");
    }
    let Resolved::Unknown { nearest } = resolve("deepseeek-r1:671b", None) else { panic!() };
    assert!(nearest.iter().any(|name| name == "deepseek-r1:671b"), "{nearest:?}");
}

#[test]
fn every_distill_is_called_one_with_and_without_a_quantization() {
    for (name, base) in [
        ("deepseek-r1:latest", "Qwen3 8B"),
        ("deepseek-r1:8b", "Qwen3 8B"),
        ("deepseek-r1:8b-0528-qwen3-q8_0", "Qwen3 8B"),
        ("deepseek-r1:1.5b", "Qwen2.5-Math 1.5B"),
        ("deepseek-r1:7b-qwen-distill-fp16", "Qwen2.5-Math 7B"),
        ("deepseek-r1:8b-llama-distill-q4_K_M", "Llama 3.1 8B"),
        ("deepseek-r1:14b", "Qwen2.5 14B"),
        ("deepseek-r1:32b", "Qwen2.5 32B"),
        ("deepseek-r1:70b", "Llama 3.3 70B Instruct"),
        ("unsloth/DeepSeek-R1-Distill-Qwen-32B-GGUF", "Qwen2.5 32B"),
        ("bartowski/DeepSeek-R1-Distill-Llama-70B-GGUF:Q4_K_M", "Llama 3.3 70B Instruct"),
        ("r1-70b", "Llama 3.3 70B Instruct"),
        ("DeepSeek-R1-0528-Qwen3-8B", "Qwen3 8B"),
    ] {
        for quant in [None, Some("Q4_K_M")] {
            let Resolved::Distill(found) = resolve(name, quant) else { panic!("{name} {quant:?}") };
            assert_eq!(found.base, base, "{name}");
            assert!(found.verdict().contains("a distill, not R1"), "{}", found.verdict());
        }
    }
    assert!(matches!(resolve("deepseek-r1:671b-q8_0", None), Resolved::Files(_)));
}

#[test]
fn every_entry_says_where_its_size_is_from_and_makes_sense() {
    for published in CATALOGUE.iter() {
        let model = published.model();
        let name = published.name();
        assert!(!published.source.is_empty());
        assert_eq!(model.routed + model.dense, model.size, "{name}");
        assert!(model.routed > 4 * model.dense, "{name}");
        assert_eq!(one(&name).as_deref(), Some(&*name), "every name finds itself");
    }
}
