//! Files that cannot be loaded say why.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use cachalot_gguf::{KvType, TensorInfo, TensorType, Value};
use cachalot_kernels::Tier;
use cachalot_model::{Model, ModelOptions, Phase, Wanted};
use cachalot_store::Weights;
use common::{File, Sequence};
use proptest::prelude::*;

fn error(change: impl FnOnce(&mut File)) -> String {
    let mut file = File::of(&common::open("nano-iq-mix.gguf"));
    change(&mut file);
    let cpu = common::cpu(1, Tier::SCALAR);
    Model::load(&file.weights(), &cpu, &ModelOptions::default()).unwrap_err().to_string()
}

#[test]
fn other_architectures_are_named() {
    let text = error(|file| file.set("general.architecture", "gemma3"));
    assert_eq!(text, "the file holds a model of architecture `gemma3`; supported: deepseek2");
}

#[test]
fn distilled_models_are_told_from_r1() {
    for (arch, name) in
        [("qwen2", "DeepSeek R1 Distill Qwen 32B"), ("qwen3", "DeepSeek-R1-0528-Qwen3-8B")]
    {
        let text = error(|file| {
            file.set("general.architecture", arch);
            file.set("general.name", name);
        });
        let start =
            format!("`{name}` is a distilled model: a {arch} trained on DeepSeek-R1's answers");
        assert!(text.starts_with(&start), "{text}");
    }
    let text = error(|file| {
        file.set("general.architecture", "llama");
        file.set("general.name", "Llama 3.1");
    });
    assert!(text.contains("architecture `llama`"), "{text}");
}

#[test]
fn missing_tensors_are_named() {
    let names = [
        "token_embd.weight",
        "output_norm.weight",
        "blk.0.attn_q_a.weight",
        "blk.1.attn_k_b.weight",
        "blk.2.attn_v_b.weight",
        "blk.2.ffn_down_exps.weight",
        "blk.1.ffn_gate_shexp.weight",
    ];
    for name in names {
        let text = error(|file| file.remove(name));
        let expected =
            format!("the tensor `{name}` is missing: is this a complete deepseek2 model?");
        assert_eq!(text, expected);
    }
}

#[test]
fn wrong_shapes_are_shown_with_the_right_ones() {
    let text = error(|file| file.put("blk.1.attn_q_b.weight", &[256, 769], &[0.0; 256 * 769]));
    assert_eq!(
        text,
        "tensor `blk.1.attn_q_b.weight` has the shape [256, 769]; [256, 768] was expected"
    );
    let text = error(|file| file.put("blk.1.attn_norm.weight", &[8], &[0.0; 8]));
    assert_eq!(text, "tensor `blk.1.attn_norm.weight` has the shape [8]; [256] was expected");
    let name = "blk.2.ffn_up_exps.weight";
    let text = error(|file| file.put(name, &[32, 256, 15], &[0.0; 32 * 256 * 15]));
    assert_eq!(
        text,
        format!("tensor `{name}` has the shape [32, 256, 15]; [256, 256, 16] was expected")
    );
}

#[test]
fn formats_without_kernels_are_named() {
    let text = error(|file| {
        let name = "blk.0.ffn_up.weight";
        file.remove(name);
        let info = TensorInfo::new(name, TensorType::from_name("IQ2_K").unwrap(), &[256, 512]);
        let info = info.unwrap();
        let bytes = vec![0; info.size as usize];
        file.tensors.push((info, bytes));
    });
    assert_eq!(
        text,
        "tensor `blk.0.ffn_up.weight` has the type IQ2_K, which is not supported: only \
         ik_llama.cpp knows this form; get the model in another quantization"
    );
}

#[test]
fn too_many_active_experts_are_refused() {
    let cpu = common::cpu(1, Tier::SCALAR);
    let options = ModelOptions { experts: Some(17), ..ModelOptions::default() };
    let error = Model::load(&common::open("nano-iq-mix.gguf"), &cpu, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "17 active experts per token were requested; this model supports 1 to 16"
    );
}

/// A value that a key might have, of the type that it has or of another.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0u32..20).prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::from("none")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_change_of_keys_gives_an_error_or_a_model_that_works(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..3),
    ) {
        let mut file = File::of(&common::open("nano-iq-mix.gguf"));
        let keys: Vec<String> = file.keys.iter().map(|(key, _)| key.clone()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).filter(|key| key.starts_with("deepseek2.")).collect();
        for (index, value) in changes {
            file.set(keys[index.index(keys.len())], value);
        }
        let cpu = common::cpu(1, Tier::SCALAR);
        let Ok(mut model) = Model::load(&file.weights(), &cpu, &ModelOptions::default()) else {
            return Ok(());
        };
        let mut sequence = Sequence::new(&mut model, 2, KvType::F16);
        let logits = sequence.forward(&mut model, &[1, 2], Phase::Prefill, Wanted::Last).unwrap();
        prop_assert_eq!(logits.len(), 640);
    }

    /// As the fuzz target `load`, with a file that is nearly right.
    #[test]
    fn any_change_of_bytes_gives_an_error_or_a_model_that_computes(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<bool>(), any::<u8>()), 1..6
        ),
    ) {
        let mut bytes = std::fs::read(common::fixture("nano-iq-mix.gguf")).unwrap();
        // Half of the changes are in the header, which is a small part of the file.
        let header = Weights::from_bytes(bytes.clone()).unwrap().tensors()[0].info.offset as usize;
        for (index, in_header, byte) in changes {
            let at = index.index(if in_header { header } else { bytes.len() });
            bytes[at] = byte;
        }
        let Ok(weights) = Weights::from_bytes(bytes) else { return Ok(()) };
        let cpu = common::cpu(1, Tier::SCALAR);
        let Ok(mut model) = Model::load(&weights, &cpu, &ModelOptions::default()) else {
            return Ok(());
        };
        let mut sequence = Sequence::new(&mut model, 2, KvType::F16);
        match sequence.forward(&mut model, &[1, 2], Phase::Prefill, Wanted::Last) {
            Ok(logits) => prop_assert_eq!(logits.len(), model.vocab_size()),
            Err(error) => {
                let is_known = error.contains("not finite") || error.contains("not in the vocabulary");
                prop_assert!(is_known, "{}", error);
            }
        }
    }
}
