//! The output for programs: one JSON object, sizes in bytes.

use cachalot_gguf::{Array, Value};
use cachalot_plan::KvType;
use serde_json::{Map, Value as Json, json};

use super::Shown;

/// Longer arrays are described by type and length: vocabularies have 10^5 elements.
const ARRAY_LEN_MAX: usize = 64;

/// Everything on the page, the metadata, and with `tensors` each tensor.
pub(super) fn object(shown: &Shown, tensors: bool) -> Json {
    let Shown { set, size, demand, identity, verdict } = shown;
    let files = set.parts.iter().map(|part| part.path.to_string_lossy()).collect::<Vec<_>>();
    let cache = demand.cache.as_ref().map(|cache| {
        let of = |ty| cache.bytes_per_token(ty);
        json!({
            "latent": cache.latent,
            "bytes_per_token": {
                "f32": of(KvType::F32), "f16": of(KvType::F16), "q8_0": of(KvType::Q8_0),
            },
        })
    });
    let metadata = set.metadata.iter().map(|(key, value)| (key.to_owned(), of_value(value)));
    let mut object = json!({
        "files": files,
        "size": size,
        "kind": identity.kind,
        "verdict": identity.verdict,
        "runs": shown.runs(),
        "refused": verdict.as_ref().err(),
        "warnings": verdict.as_ref().map_or(&[][..], |verdict| &verdict.warnings),
        "types_without_kernel": shown.types_without_kernel(),
        "parameters": demand.parameters(),
        "active_parameters": demand.total.active_parameters,
        "bits_per_weight": demand.bits_per_weight(),
        "demand": demand,
        "metadata": metadata.collect::<Map<_, _>>(),
    });
    object["demand"]["cache"] = json!(cache);
    if tensors {
        let tensor = |tensor: &cachalot_gguf::split::PartTensor| {
            let info = &tensor.info;
            json!({
                "name": info.name, "type": info.ty.name(), "shape": info.shape,
                "size": info.size, "offset": info.offset, "file": tensor.part,
            })
        };
        object["tensors"] = set.tensors.iter().map(tensor).collect();
    }
    object
}

fn of_value(value: &Value) -> Json {
    match value {
        Value::U8(number) => json!(number),
        Value::I8(number) => json!(number),
        Value::U16(number) => json!(number),
        Value::I16(number) => json!(number),
        Value::U32(number) => json!(number),
        Value::I32(number) => json!(number),
        Value::U64(number) => json!(number),
        Value::I64(number) => json!(number),
        Value::F32(number) => json!(number),
        Value::F64(number) => json!(number),
        Value::Bool(bool) => json!(bool),
        Value::String(string) => json!(string),
        Value::Array(array) => of_array(array),
    }
}

fn of_array(array: &Array) -> Json {
    if array.len() > ARRAY_LEN_MAX {
        return json!({ "type": array.type_name(), "length": array.len() });
    }
    match array {
        Array::U8(elements) => json!(elements),
        Array::I8(elements) => json!(elements),
        Array::U16(elements) => json!(elements),
        Array::I16(elements) => json!(elements),
        Array::U32(elements) => json!(elements),
        Array::I32(elements) => json!(elements),
        Array::U64(elements) => json!(elements),
        Array::I64(elements) => json!(elements),
        Array::F32(elements) => json!(elements),
        Array::F64(elements) => json!(elements),
        Array::Bool(elements) => json!(elements),
        Array::String(elements) => json!(elements),
        Array::Array(arrays) => arrays.iter().map(of_array).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cachalot_gguf::TensorType;
    use cachalot_gguf::write::Writer;
    use serde_json::Value as Json;

    use super::super::{ShowArgs, run};

    /// What `show --json --tensors` prints about any part of a split model of two files.
    fn shown() -> Json {
        let folder = tempfile::tempdir().unwrap();
        for no in 0..2_u16 {
            let mut writer = Writer::default();
            if no == 0 {
                writer.metadata.insert("general.architecture", "llama");
                writer.metadata.insert("tokenizer.ggml.tokens", vec!["a".to_owned(); 100]);
                writer.metadata.insert("llama.block_count", 2_u32);
                writer.metadata.insert("llama.embedding_length", 64_u32);
                writer.metadata.insert("llama.attention.head_count", 2_u32);
            }
            writer.metadata.insert("split.no", no);
            writer.metadata.insert("split.count", 2_u16);
            let name = format!("blk.{no}.ffn_up.weight");
            writer.tensor(&name, TensorType::Q8_0, &[64, 4]).unwrap();
            let path = folder.path().join(format!("m-{:05}-of-00002.gguf", no + 1));
            let mut data = writer.start(fs::File::create(path).unwrap()).unwrap();
            data.append(&[0; 4 * 68]).unwrap();
            data.finish().unwrap();
        }
        let file = folder.path().join("m-00002-of-00002.gguf");
        let mut out = Vec::new();
        run(
            &ShowArgs { file, json: true, tensors: true },
            &crate::settings::Environment::default(),
            &mut out,
        )
        .unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn programs_get_everything() {
        let shown = shown();
        assert_eq!(shown["kind"], "other");
        assert_eq!(shown["runs"], false);
        assert_eq!(shown["files"].as_array().unwrap().len(), 2);
        assert_eq!(shown["parameters"], 512);
        assert_eq!(shown["demand"]["layers"]["total"], 2);
        assert_eq!(shown["demand"]["groups"]["dense_ffn"]["bytes_per_token"], 2 * 4 * 68);
        assert_eq!(shown["demand"]["types"]["Q8_0"]["tensors"], 2);
        assert_eq!(shown["demand"]["cache"]["bytes_per_token"]["f16"], 2 * 2 * 64 * 2);
        assert_eq!(shown["metadata"]["tokenizer.ggml.tokens"]["length"], 100);
        assert_eq!(shown["tensors"][1]["file"], 1);
        assert_eq!(shown["tensors"][1]["shape"], serde_json::json!([64, 4]));
    }
}
