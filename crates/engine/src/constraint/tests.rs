//! Constraints driven by random logits over the vocabulary of R1, and over single bytes.

use std::sync::OnceLock;

use cachalot_gguf::Gguf;
use cachalot_text::VocabParts;

use super::*;
use crate::random::SplitMix64;
use crate::request::Sampling;
use crate::sampler::{Sampler, Scratch};

/// The tokens of DeepSeek-R1, 129,280 of them.
fn vocab() -> &'static Vocab {
    static VOCAB: OnceLock<Vocab> = OnceLock::new();
    VOCAB.get_or_init(|| {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../text/tests/fixtures/deepseek-r1-vocab.gguf");
        let gguf = Gguf::open(std::path::Path::new(path)).unwrap();
        Vocab::new(&VocabParts::from_metadata(&gguf.metadata).unwrap()).unwrap()
    })
}

fn constraints() -> &'static Constraints {
    static CONSTRAINTS: OnceLock<Constraints> = OnceLock::new();
    CONSTRAINTS.get_or_init(|| Constraints::new(vocab()).unwrap())
}

/// Which of these texts a GBNF grammar allows, byte by byte.
pub(super) fn accepted<'a>(gbnf: &str, texts: &[&'a str]) -> Vec<&'a str> {
    static BYTES: OnceLock<Constraints> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut factory = ParserFactory::new_simple(&ApproximateTokEnv::single_byte_env()).unwrap();
        factory.quiet();
        Constraints { factory }
    });
    let Ok(constrained) = bytes.compile(&Constraint::Gbnf(gbnf.to_owned())) else {
        return Vec::new();
    };
    let is_accepted = |text: &&&str| {
        let mut matcher = constrained.matcher.deep_clone();
        let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
        matcher.try_consume_tokens(&tokens).is_ok_and(|count| count == tokens.len())
            && matcher.is_accepting().unwrap_or(false)
    };
    texts.iter().filter(is_accepted).copied().collect()
}

/// What a model of random logits writes at temperature 2.
fn written(constraint: &Constraint, seed: u64) -> String {
    let mut constrained = constraints().compile(constraint).unwrap();
    let mut random = SplitMix64::new(seed);
    // Tokens that end things are more likely, or random texts would never end.
    let bonus: Vec<f32> = (0..vocab().len() as u32)
        .map(|id| match vocab().token_bytes(id) {
            b"\"" | b"}" | b"]" | b"," | b":" => 24.0,
            _ if vocab().is_end(id) => 30.0,
            bytes if bytes.len() < 3 => 6.0,
            _ => 0.0,
        })
        .collect();
    let sampling = Sampling { temperature: 2.0, top_p: 1.0, ..Sampling::default() };
    let (mut sampler, mut scratch) = (Sampler::new(sampling, seed, Vec::new()), Scratch::default());
    let mut text = Vec::new();
    let mut logits = vec![0.0_f32; vocab().len()];
    for _ in 0..2000 {
        let (slope, shift) = (random.next_unit() as f32, random.next_u64() as usize);
        for (i, logit) in logits.iter_mut().enumerate() {
            // Cheap, and different at every step.
            *logit = bonus[i] + 8.0 * (((i + shift) % 1009) as f32 / 1009.0 - slope);
        }
        let mask = constrained.mask().unwrap();
        let sampled = sampler.sample(&mut scratch, &logits, Some(&mask), None).unwrap();
        if vocab().is_end(sampled.id) {
            return String::from_utf8(text).expect("whole characters");
        }
        text.extend_from_slice(vocab().token_bytes(sampled.id));
        if constrained.accept(sampled.id).unwrap() {
            return String::from_utf8(text).expect("whole characters");
        }
    }
    panic!("no end: {}", String::from_utf8_lossy(&text));
}

/// Schemas of the shapes that JSON-Schema-Test-Suite has, nested into each other.
fn schemas() -> Vec<Value> {
    let name = json!({ "type": "string", "minLength": 1, "maxLength": 6 });
    let point = json!({
        "type": "object",
        "properties": { "x": { "type": "integer", "minimum": -5, "maximum": 5 }, "y": { "type": "number" } },
        "required": ["x", "y"], "additionalProperties": false
    });
    let choice = json!({ "enum": ["red", "green", 1, null, true, { "a": [] }] });
    let list =
        |items: &Value| json!({ "type": "array", "items": items, "minItems": 1, "maxItems": 3 });
    let object = |key: &str, value: &Value| {
        json!({ "type": "object", "properties": { key: value }, "required": [key],
                "additionalProperties": false })
    };
    vec![
        json!({ "const": { "a": [1, 2, "three"] } }),
        json!({ "type": "boolean" }),
        json!({ "type": ["integer", "null"] }),
        json!({ "type": "integer", "minimum": 10, "maximum": 99 }),
        json!({ "type": "string", "pattern": "^[a-c]{2,4}$" }),
        json!({ "type": "string", "maxLength": 10 }),
        name.clone(),
        choice.clone(),
        point.clone(),
        list(&point),
        list(&list(&choice)),
        object("name", &name),
        object("deep", &object("deeper", &list(&object("deepest", &point)))),
        json!({ "anyOf": [point, name, { "type": "null" }] }),
        json!({ "oneOf": [{ "type": "integer" }, { "const": "none" }] }),
        json!({ "$defs": { "leaf": name }, "type": "array", "items": { "$ref": "#/$defs/leaf" },
                "maxItems": 4 }),
        json!({ "type": "array", "prefixItems": [{ "type": "integer" }, { "type": "boolean" }],
                "items": false, "minItems": 2 }),
        json!({ "type": "object", "properties": { "a": { "type": "integer" }, "b": choice },
                "required": ["a"], "additionalProperties": false }),
        json!({ "type": "object", "additionalProperties": { "type": "boolean" }, "maxProperties": 0 }),
        object(
            "a/b ~\"ü",
            &json!({ "type": "object", "properties": { "list": list(&name) },
                                     "required": ["list"], "additionalProperties": false }),
        ),
    ]
}

/// Whether a value is valid, by the keywords that [`schemas`] uses.
fn is_valid(value: &Value, schema: &Value, root: &Value) -> bool {
    let Value::Object(keywords) = schema else { return schema != &Value::Bool(false) };
    let sub = |value: &Value, schema: &Value| is_valid(value, schema, root);
    let count = |schema: &Value| schema.as_u64().unwrap() as usize;
    let is_type = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|x| x.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    let length = value.as_str().map(|text| text.chars().count());
    keywords.iter().all(|(key, expected)| match key.as_str() {
        "type" => {
            expected.as_array().map_or_else(|| is_type(expected), |all| all.iter().any(is_type))
        }
        "const" => value == expected,
        "enum" => expected.as_array().unwrap().contains(value),
        "minimum" => value.as_f64().is_none_or(|x| x >= expected.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|x| x <= expected.as_f64().unwrap()),
        "minLength" => length.is_none_or(|length| length >= count(expected)),
        "maxLength" => length.is_none_or(|length| length <= count(expected)),
        "minItems" => value.as_array().is_none_or(|items| items.len() >= count(expected)),
        "maxItems" => value.as_array().is_none_or(|items| items.len() <= count(expected)),
        "maxProperties" => value.as_object().is_none_or(|all| all.len() <= count(expected)),
        "pattern" => value.as_str().is_none_or(|text| {
            (2..=4).contains(&text.len()) && text.bytes().all(|b| (b'a'..=b'c').contains(&b))
        }),
        "prefixItems" => value.as_array().is_none_or(|items| {
            items.iter().zip(expected.as_array().unwrap()).all(|(item, schema)| sub(item, schema))
        }),
        "items" => value.as_array().is_none_or(|items| {
            let first = keywords.get("prefixItems").map_or(0, |all| all.as_array().unwrap().len());
            items.iter().skip(first).all(|item| sub(item, expected))
        }),
        "properties" => value.as_object().is_none_or(|object| {
            let known = expected.as_object().unwrap().iter();
            known
                .filter_map(|(key, schema)| Some((object.get(key)?, schema)))
                .all(|(v, s)| sub(v, s))
        }),
        "required" => value.as_object().is_none_or(|object| {
            expected
                .as_array()
                .unwrap()
                .iter()
                .all(|key| object.contains_key(key.as_str().unwrap()))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let known = keywords.get("properties").and_then(Value::as_object);
            let others =
                object.iter().filter(|(key, _)| known.is_none_or(|k| !k.contains_key(*key)));
            others.into_iter().all(|(_, value)| sub(value, expected))
        }),
        "anyOf" => expected.as_array().unwrap().iter().any(|schema| sub(value, schema)),
        "oneOf" => {
            expected.as_array().unwrap().iter().filter(|schema| sub(value, schema)).count() == 1
        }
        "$ref" => sub(value, root.pointer(&expected.as_str().unwrap()[1..]).unwrap()),
        "$defs" => true,
        other => panic!("{other}"),
    })
}

#[test]
fn nested_schemas_give_only_valid_json_at_temperature_two() {
    for schema in schemas() {
        for seed in 0..3 {
            let text = written(&Constraint::JsonSchema(schema.clone()), seed);
            let value: Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{schema}: {text:?}: {error}"));
            assert!(is_valid(&value, &schema, &schema), "{schema}: {text}");
        }
    }
}

#[test]
fn any_object_any_regex_and_any_grammar_are_followed() {
    let text = written(&Constraint::JsonObject, 1);
    assert!(serde_json::from_str::<Value>(&text).unwrap().is_object(), "{text}");
    let text = written(&Constraint::Regex("[0-9]{3}-[a-f]{2}".to_owned()), 2);
    assert!(text.len() == 6 && text.as_bytes()[3] == b'-', "{text}");
    let lark = "start: \"yes\" | \"no\" \"!\"+".to_owned();
    let text = written(&Constraint::Lark(lark), 3);
    assert!(text == "yes" || text.trim_end_matches('!') == "no", "{text}");
    let gbnf = "root ::= \"(\" root \")\" | [0-9]{2}".to_owned();
    let text = written(&Constraint::Gbnf(gbnf), 4);
    let digits = text.trim_start_matches('(').trim_end_matches(')');
    assert!(digits.len() == 2 && digits.parse::<u8>().is_ok(), "{text}");
}

#[test]
fn white_space_between_the_parts_of_json_ends() {
    let schema = json!({ "type": "array", "items": { "type": "boolean" } });
    let mut constrained = constraints().compile(&Constraint::JsonSchema(schema)).unwrap();
    let token = |text: &str| vocab().id_of(text).unwrap();
    constrained.accept(token("[")).unwrap();
    let newline = token("\n");
    let breaks = (0..200).take_while(|_| {
        constrained.mask().unwrap().is_allowed(newline) && constrained.accept(newline).is_ok()
    });
    assert!(breaks.count() <= 2);
    let blank = token(" ");
    let blanks = (0..200).take_while(|_| {
        constrained.mask().unwrap().is_allowed(blank) && constrained.accept(blank).is_ok()
    });
    assert!(blanks.count() <= 40);
    assert!(constrained.mask().unwrap().is_allowed(token("true")));
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let fault = |constraint| match constraints().compile(&constraint) {
        Err(Error::Constraint { fault }) => fault,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{constraint:?} was compiled"),
    };
    fault(Constraint::Regex("(".to_owned()));
    fault(Constraint::Lark("start: nothing".to_owned()));
    fault(Constraint::Gbnf("root ::= nothing".to_owned()));
    fault(Constraint::JsonSchema(json!({ "type": "nonsense" })));
    fault(Constraint::JsonSchema(json!([1])));
    fault(Constraint::JsonSchema(json!({ "type": "integer", "minimum": 3, "maximum": 2 })));
    fault(Constraint::Gbnf("a".repeat(SOURCE_MAX + 1)));
    let nested = |depth| (0..depth).fold(json!({}), |inner, _| json!({ "items": inner }));
    assert!(fault(Constraint::JsonSchema(nested(500))).contains("nested"));
    assert!(constraints().compile(&Constraint::JsonSchema(nested(30))).is_ok());
    let deep = format!("start: {}\"a\"{}", "(".repeat(5000), ")".repeat(5000));
    assert!(fault(Constraint::Lark(deep)).contains("nested"));
}
