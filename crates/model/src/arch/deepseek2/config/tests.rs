//! Keys as the family's published files have them, old and new.

use cachalot_gguf::write::Writer;
use cachalot_gguf::{Metadata, TensorType, Value};

use super::*;

/// Keys of DeepSeek-R1 as today's converters write them, without the prefix.
fn r1() -> Vec<(&'static str, Value)> {
    vec![
        ("block_count", 61u32.into()),
        ("context_length", 163_840u32.into()),
        ("embedding_length", 7168u32.into()),
        ("feed_forward_length", 18_432u32.into()),
        ("attention.head_count", 128u32.into()),
        ("attention.head_count_kv", 1u32.into()),
        ("attention.key_length", 576u32.into()),
        ("attention.value_length", 512u32.into()),
        ("attention.key_length_mla", 192u32.into()),
        ("attention.value_length_mla", 128u32.into()),
        ("attention.q_lora_rank", 1536u32.into()),
        ("attention.kv_lora_rank", 512u32.into()),
        ("attention.layer_norm_rms_epsilon", 1e-6f32.into()),
        ("leading_dense_block_count", 3u32.into()),
        ("expert_count", 256u32.into()),
        ("expert_used_count", 8u32.into()),
        ("expert_shared_count", 1u32.into()),
        ("expert_feed_forward_length", 2048u32.into()),
        ("expert_gating_func", 2u32.into()),
        ("expert_weights_scale", 2.5f32.into()),
        ("expert_weights_norm", true.into()),
        ("expert_group_count", 8u32.into()),
        ("expert_group_used_count", 4u32.into()),
        ("rope.dimension_count", 64u32.into()),
        ("rope.freq_base", 10_000f32.into()),
        ("rope.scaling.type", "yarn".into()),
        ("rope.scaling.factor", 40f32.into()),
        ("rope.scaling.original_context_length", 4096u32.into()),
        ("rope.scaling.yarn_log_multiplier", 0.1f32.into()),
    ]
}

fn weights(keys: &[(&str, Value)], bias: bool) -> Weights {
    let mut metadata = Metadata::default();
    metadata.insert("general.architecture", "deepseek2");
    metadata.insert("general.name", "Test");
    for (key, value) in keys {
        metadata.insert(&format!("deepseek2.{key}"), value.clone());
    }
    let mut writer = Writer::default();
    writer.metadata = metadata;
    if bias {
        writer.tensor("blk.3.exp_probs_b.bias", TensorType::F32, &[256]).unwrap();
    }
    let mut data = writer.start(Vec::new()).unwrap();
    if bias {
        data.append(&[0; 1024]).unwrap();
    }
    Weights::from_bytes(data.finish().unwrap()).unwrap()
}

fn read(keys: &[(&str, Value)]) -> Result<Config, Error> {
    Config::new(&weights(keys, false), ExpertGroups::Auto, None)
}

fn changed(without: &[&str], with: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let dropped = |key: &str| without.contains(&key) || with.iter().any(|(k, _)| *k == key);
    r1().into_iter().filter(|(key, _)| !dropped(key)).chain(with.iter().cloned()).collect()
}

#[test]
fn r1_as_published_today() {
    let config = read(&r1()).unwrap();
    assert_eq!((config.nope, config.rope, config.value), (128, 64, 128));
    assert_eq!((config.layers, config.dense_layers, config.q_rank), (61, 3, Some(1536)));
    assert_eq!(config.cache_width(), 576);
    assert!((config.attention_scale - 0.135_234).abs() < 1e-6);
    let experts = config.experts.unwrap();
    assert_eq!((experts.gate, experts.normalize, experts.scale), (Gate::Sigmoid, true, 2.5));
    assert_eq!(experts.groups, Some(Groups { count: 8, used: 4 }));
}

#[test]
fn r1_as_published_first_means_the_same_model() {
    let old = [
        ("attention.head_count_kv", 128u32.into()),
        ("attention.key_length", 192u32.into()),
        ("attention.value_length", 128u32.into()),
    ];
    let without = [
        "attention.key_length_mla",
        "attention.value_length_mla",
        "expert_group_count",
        "expert_group_used_count",
        "expert_gating_func",
        "expert_weights_norm",
        "rope.scaling.yarn_log_multiplier",
    ];
    let weights = weights(&changed(&without, &old), true);
    let config = Config::new(&weights, ExpertGroups::Auto, None).unwrap();
    assert_eq!(config, Config { name: "Test".into(), ..read(&r1()).unwrap() });
    let off = Config::new(&weights, ExpertGroups::Off, Some(6)).unwrap().experts.unwrap();
    assert_eq!((off.groups, off.used), (None, 6));
}

#[test]
fn kimi_k2_has_one_dense_layer_and_no_groups() {
    let keys = [
        ("attention.head_count", 64u32.into()),
        ("expert_count", 384u32.into()),
        ("leading_dense_block_count", 1u32.into()),
        ("expert_group_count", 1u32.into()),
        ("expert_group_used_count", 1u32.into()),
        ("expert_weights_scale", 2.827f32.into()),
        ("rope.freq_base", 50_000f32.into()),
        ("rope.scaling.factor", 32f32.into()),
    ];
    let config = read(&changed(&[], &keys)).unwrap();
    assert!((config.attention_scale - 0.130_861).abs() < 1e-6);
    assert_eq!((config.heads, config.dense_layers), (64, 1));
    assert_eq!(config.experts.unwrap().groups, None);
    let config = read(&changed(&["expert_group_count"], &keys[..2])).unwrap();
    assert_eq!(config.experts.unwrap().groups, None, "only V3's shape implies groups");
}

#[test]
fn v2_lite_has_softmax_and_one_query_matrix() {
    let keys = [
        ("block_count", 27u32.into()),
        ("embedding_length", 2048u32.into()),
        ("attention.head_count", 16u32.into()),
        ("leading_dense_block_count", 1u32.into()),
        ("expert_count", 64u32.into()),
        ("expert_used_count", 6u32.into()),
        ("expert_shared_count", 2u32.into()),
        ("expert_weights_scale", 1f32.into()),
        ("rope.scaling.yarn_log_multiplier", 0.0707f32.into()),
    ];
    let without = [
        "attention.q_lora_rank",
        "expert_gating_func",
        "expert_weights_norm",
        "expert_group_count",
        "expert_group_used_count",
    ];
    let config = read(&changed(&without, &keys)).unwrap();
    assert!((config.attention_scale - 0.114_721).abs() < 1e-6);
    assert_eq!(config.q_rank, None);
    let experts = config.experts.unwrap();
    assert_eq!((experts.gate, experts.normalize, experts.scale), (Gate::Softmax, false, 1.0));
    assert_eq!((experts.groups, experts.shared), (None, 2));
}

#[test]
fn layers_that_predict_further_tokens_do_not_count() {
    // Their tensors tell, whatever the keys say.
    let layers = |keys: &[(&'static str, Value)], nextn: &str| {
        let weights = weights(&changed(&[], keys), false);
        let has = |name: &str| name == nextn;
        Config::of_header(weights.metadata(), &has, ExpertGroups::Auto, None).map(|c| c.layers)
    };
    let more = [("block_count", 62u32.into()), ("nextn_predict_layers", 1u32.into())];
    assert_eq!(layers(&more, "blk.61.nextn.eh_proj.weight").unwrap(), 61);
    assert_eq!(layers(&more[..1], "blk.61.nextn.enorm.weight").unwrap(), 61);
    assert_eq!(layers(&more[1..], "").unwrap(), 61, "the key counts a layer that is not there");
    assert!(layers(&more, "blk.0.nextn.enorm.weight").is_err());
}

#[test]
fn attention_temperature_grows_with_the_position() {
    let keys = [
        ("attention.temperature_scale", 0.1f32.into()),
        ("attention.temperature_length", 8192u32.into()),
    ];
    let temperature = read(&changed(&[], &keys)).unwrap().temperature.unwrap();
    assert_eq!((temperature.at(0), temperature.at(8191)), (1.0, 1.0));
    assert!((temperature.at(8192) - (1.0 + 0.1 * 2f32.ln())).abs() < 1e-6);
    assert!((temperature.at(40_000) - (1.0 + 0.1 * 5f32.ln())).abs() < 1e-6);
    // The length is that before YaRN if the key is missing.
    let temperature = read(&changed(&[], &keys[..1])).unwrap().temperature.unwrap();
    assert_eq!(temperature.length, 4096);
    let off = [("attention.temperature_scale", 0f32.into())];
    assert_eq!(read(&changed(&[], &off)).unwrap().temperature, None);
}

#[test]
fn errors_name_the_key_and_what_was_expected() {
    let fails = |without: &[&str], with: &[(&'static str, Value)], expected: &str| {
        let error = read(&changed(without, with)).unwrap_err().to_string();
        assert_eq!(error, expected);
    };
    fails(&["block_count"], &[], "the file has no key `deepseek2.block_count`");
    fails(
        &[],
        &[("embedding_length", 0u32.into())],
        "the key `deepseek2.embedding_length` is 0; a size from 1 to 2^28 was expected",
    );
    fails(
        &[],
        &[("attention.key_length_mla", 64u32.into())],
        "the key `deepseek2.attention.key_length_mla` is 64; more than rope.dimension_count was \
         expected",
    );
    fails(
        &[],
        &[("expert_gating_func", 3u32.into())],
        "the key `deepseek2.expert_gating_func` is 3; 1 (softmax) or 2 (sigmoid) was expected",
    );
    fails(
        &[],
        &[("rope.scaling.type", "longrope".into())],
        "the key `deepseek2.rope.scaling.type` is longrope; none, linear or yarn was expected",
    );
    fails(
        &[],
        &[("expert_group_count", 7u32.into())],
        "4 of 7 expert groups were requested; 256 experts, 8 of them active, need groups of equal \
         size, and in the groups used at least 8 experts; --expert-groups off chooses among all \
         experts",
    );
}

#[test]
fn active_experts_and_groups_are_checked() {
    let weights = weights(&r1(), false);
    let read = |groups, active| Config::new(&weights, groups, active);
    for asked in [0, 257] {
        let error = read(ExpertGroups::Auto, Some(asked)).unwrap_err().to_string();
        let start = format!("{asked} active experts per token were requested");
        assert_eq!(error, format!("{start}; this model supports 1 to 256"));
    }
    let few = ExpertGroups::Of(Groups { count: 64, used: 1 });
    assert!(matches!(read(few, None), Err(Error::ExpertGroups { .. })));
    assert_eq!(read(few, Some(4)).unwrap().experts.unwrap().used, 4);
}
