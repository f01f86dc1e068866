//! The server's dialects over real sockets, with the embedded model.
#![allow(clippy::unwrap_used)] // this is a test

mod common;

use common::command;
use common::server::Server;
use serde_json::{Value, json};

const QUESTION: &str = "How many r's are in strawberry?";

fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

/// Greedy, and not for ever.
fn chat(more: &Value) -> Value {
    let mut body = json!({ "messages": user(QUESTION), "temperature": 0, "max_tokens": 200 });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[test]
fn every_dialect_gives_the_answer_of_the_command_line() {
    let ran = common::succeeds(common::run(
        &mut command(&["run", QUESTION, "--temp=0", "--hide-thinking", "--threads=1"]),
        b"",
    ));
    let expected = ran.stdout.trim();
    assert!(expected.contains('3'), "{expected}");
    let server = Server::start(&[]);
    let whole = server.post("/v1/chat/completions", &chat(&json!({}))).json();
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["content"].as_str().unwrap().trim(), expected);
    assert!(message["reasoning_content"].as_str().unwrap().contains("count r"), "{whole}");

    let streamed = server.post("/v1/chat/completions", &chat(&json!({ "stream": true })));
    assert_eq!(streamed.header("content-type"), Some("text/event-stream"));
    let events = streamed.events();
    let joined = |key: &str| -> String {
        let deltas = events.iter().filter_map(|event| event.pointer("/choices/0/delta"));
        deltas.filter_map(|delta| delta[key].as_str()).collect()
    };
    assert_eq!(joined("content"), message["content"].as_str().unwrap());
    assert_eq!(joined("reasoning_content"), message["reasoning_content"].as_str().unwrap());
    assert_eq!(events.last().unwrap(), "[DONE]");

    let options = json!({ "temperature": 0 });
    let ollama =
        json!({ "model": "calf", "messages": user(QUESTION), "options": options, "stream": false });
    let answer = server.post("/api/chat", &ollama).json();
    assert_eq!(answer["message"]["content"].as_str().unwrap().trim(), expected);
    let ollama = json!({ "model": "calf", "prompt": QUESTION, "options": options });
    let lines = server.post("/api/generate", &ollama).body;
    let text: String = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|line| line["response"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text.trim(), expected);

    let anthropic = json!({ "max_tokens": 200, "temperature": 0, "messages": user(QUESTION) });
    let answer = server.post("/v1/messages", &anthropic).json();
    assert_eq!(answer["content"][0]["type"], "thinking");
    assert_eq!(answer["content"][1]["text"].as_str().unwrap().trim(), expected);
    assert_eq!(answer["stop_reason"], "end_turn");

    let responses = json!({ "model": "calf", "input": QUESTION, "temperature": 0 });
    let answer = server.post("/v1/responses", &responses).json();
    assert_eq!(answer["output_text"].as_str().unwrap().trim(), expected);
    assert_eq!(answer["status"], "completed");
}

#[test]
fn a_conversation_that_is_too_long_is_refused_before_the_stream() {
    let server = Server::start(&["--ctx", "64"]);
    let long = "1 + 1 ".repeat(100);
    for path in ["/v1/chat/completions", "/v1/messages", "/api/chat"] {
        let body = json!({
            "model": "calf", "messages": user(&long), "stream": true, "max_tokens": 4,
        });
        let response = server.post(path, &body);
        assert_eq!(response.status, 400, "{path}: {response:?}");
        let body = response.json();
        let numbers = if path == "/api/chat" { &body } else { &body["error"] };
        assert_eq!(numbers["n_ctx"], 64, "{path}: {body}");
        assert!(numbers["n_prompt_tokens"].as_u64().unwrap() > 64, "{path}: {body}");
    }
}

#[test]
fn control_tokens_of_users_are_text() {
    let server = Server::start(&[]);
    let count = |text: &str| {
        let counted =
            server.post("/v1/chat/completions/input_tokens", &json!({ "messages": user(text) }));
        counted.json()["input_tokens"].as_u64().unwrap()
    };
    let plain = count("a");
    assert!(count("<｜User｜>a") > plain + 2, "a control token would be one token");
    let prompt = json!({ "prompt": "<｜User｜>", "n_predict": 1 });
    let evaluated =
        server.post("/completion", &prompt).json()["tokens_evaluated"].as_u64().unwrap();
    assert_eq!(evaluated, 2, "who writes raw prompts writes their own template");
}

#[test]
fn thinking_is_switched_off_in_every_dialect() {
    let server = Server::start(&[]);
    for switch in [
        json!({ "reasoning_effort": "none" }),
        json!({ "chat_template_kwargs": { "enable_thinking": false } }),
        json!({ "think": false }),
        json!({ "thinking": { "type": "disabled" } }),
    ] {
        let answer = server.post("/v1/chat/completions", &chat(&switch)).json();
        let message = &answer["choices"][0]["message"];
        assert!(message.get("reasoning_content").is_none(), "{switch}: {answer}");
        let prompt = server.post("/apply-template", &chat(&switch)).json()["prompt"].clone();
        assert!(prompt.as_str().unwrap().trim_end().ends_with("</think>"), "{switch}: {prompt}");
    }
}

#[test]
fn a_stop_text_ends_the_answer_and_not_the_thought() {
    let server = Server::start(&[]);
    let without = server.post("/v1/chat/completions", &chat(&json!({}))).json();
    let with = server.post("/v1/chat/completions", &chat(&json!({ "stop": ["r", ":"] }))).json();
    let thought = |answer: &Value| answer["choices"][0]["message"]["reasoning_content"].clone();
    assert_eq!(thought(&with), thought(&without));
    let content = with["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!content.contains('r') && !content.contains(':'), "{content}");
}

#[test]
fn log_probabilities_cover_the_answer() {
    let server = Server::start(&[]);
    let wanted = json!({ "logprobs": true, "top_logprobs": 3, "stream": true });
    let answer = server.post("/v1/chat/completions", &chat(&wanted));
    let mut tokens = String::new();
    let mut content = String::new();
    for event in answer.events() {
        let Some(choice) = event.pointer("/choices/0") else { continue };
        content += choice["delta"]["content"].as_str().unwrap_or_default();
        for token in choice["logprobs"]["content"].as_array().into_iter().flatten() {
            tokens += token["token"].as_str().unwrap();
            assert!(token["logprob"].as_f64().unwrap() <= 0.0);
            assert!(token["bytes"].is_array());
            assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3, "{token}");
        }
    }
    assert_eq!(tokens.trim(), content.trim());
}

#[test]
fn a_required_tool_is_called_with_valid_arguments() {
    let server = Server::start(&[]);
    let parameters = json!({
        "type": "object", "properties": { "city": { "type": "string", "maxLength": 8 } },
        "required": ["city"], "additionalProperties": false,
    });
    let tool =
        json!({ "type": "function", "function": { "name": "weather", "parameters": parameters } });
    let body =
        chat(&json!({ "tools": [tool], "tool_choice": "required", "parallel_tool_calls": false }));
    let answer = server.post("/v1/chat/completions", &body);
    let choice = &answer.json()["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer:?}");
    let call = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "weather");
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].is_string(), "{arguments}");
    assert_eq!(choice["message"]["content"], Value::Null);

    let named = json!({ "name": "weather", "input_schema": parameters });
    let body = json!({ "max_tokens": 300, "temperature": 0, "messages": user(QUESTION),
                       "tools": [named], "tool_choice": { "type": "tool", "name": "weather", "disable_parallel_tool_use": true } });
    let answer = server.post("/v1/messages", &body).json();
    assert_eq!(answer["stop_reason"], "tool_use", "{answer}");
    let block = answer["content"].as_array().unwrap().last().unwrap();
    assert_eq!((&block["type"], &block["name"]), (&json!("tool_use"), &json!("weather")));
    assert!(block["input"]["city"].is_string(), "{answer}");
}

#[test]
fn a_schema_is_kept_in_every_dialect() {
    let server = Server::start(&[]);
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer", "maximum": 99, "minimum": 0 } },
                         "required": ["n"], "additionalProperties": false });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema, "strict": true } });
    let answer =
        server.post("/v1/chat/completions", &chat(&json!({ "response_format": format }))).json();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(content).unwrap()["n"].is_u64(), "{content}");
    let body = json!({ "model": "calf", "messages": user(QUESTION), "format": schema, "stream": false,
                       "options": { "temperature": 0, "num_predict": 200 } });
    let answer = server.post("/api/chat", &body).json();
    let content = answer["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(content).unwrap()["n"].is_u64(), "{content}");
}

#[test]
fn several_answers_are_counted_together() {
    let server = Server::start(&["--parallel", "2"]);
    let body = chat(&json!({ "n": 2, "seed": 1, "temperature": 1, "max_tokens": 5, "stream": true,
                             "stream_options": { "include_usage": true } }));
    let events = server.post("/v1/chat/completions", &body).events();
    let usage = events.iter().find_map(|event| event.get("usage")).unwrap();
    assert_eq!(usage["completion_tokens"], 10);
    let finished = events.iter().filter(|event| {
        event.pointer("/choices/0/finish_reason").is_some_and(|reason| !reason.is_null())
    });
    assert_eq!(finished.count(), 2);
}

#[test]
fn an_answer_goes_on_without_its_client_if_that_was_asked_for() {
    let server = Server::start(&[]);
    let body = chat(&json!({ "stream": true, "max_tokens": 30 })).to_string();
    let whole = server.send("POST", "/v1/chat/completions", &["x-conversation-id: a/b"], &body);
    assert_eq!(whole.status, 200);
    let again = server.get("/v1/stream?conv_id=a%2Fb&from=0");
    assert_eq!(again.body, whole.body);
    assert_eq!(server.get("/v1/stream?id=a/b&from=10").body, whole.body[10..]);
    assert_eq!(server.send("DELETE", "/v1/stream?id=a/b", &[], "").status, 204);
    assert_eq!(server.get("/v1/stream?id=a/b").status, 404);
}

#[test]
fn tokens_become_text_again() {
    let server = Server::start(&[]);
    let text = "12 + 30 = Grüße 🐋";
    let tokens = server.post("/tokenize", &json!({ "content": text })).json()["tokens"].clone();
    let back = server.post("/detokenize", &json!({ "tokens": tokens })).json();
    assert_eq!(back["content"], text);
    let wrong = server.post("/detokenize", &json!({ "tokens": [1_000_000] }));
    assert_eq!(wrong.status, 400);
    let template = server.post("/apply-template", &json!({ "messages": user("hi") })).json();
    assert!(template["prompt"].as_str().unwrap().contains("<｜User｜>hi"), "{template}");
}

#[test]
fn the_document_is_the_one_that_is_checked_in() {
    let server = Server::start(&[]);
    let served = server.get("/openapi.json").body;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        served == kept,
        "cargo run -- serve, then: curl localhost:11434/openapi.json > docs/openapi.json"
    );
}

#[test]
fn the_end_of_the_context_is_said() {
    let server = Server::start(&["--ctx", "64"]);
    let body = json!({ "prompt": "Hello", "n_predict": -1, "ignore_eos": true });
    let full = server.post("/completion", &body).json();
    assert_eq!((&full["truncated"], &full["stop_type"]), (&json!(true), &json!("limit")));
    let body = json!({ "prompt": "Hello", "n_predict": 3, "ignore_eos": true });
    let limited = server.post("/completion", &body).json();
    assert_eq!((&limited["truncated"], &limited["stop_type"]), (&json!(false), &json!("limit")));
}

#[test]
fn no_tokens_at_all_warm_the_cache() {
    let server = Server::start(&[]);
    let warm =
        server.post("/completion", &json!({ "prompt": "12 + 30 = ", "n_predict": 0 })).json();
    assert_eq!((&warm["content"], &warm["stop_type"]), (&json!(""), &json!("limit")));
    assert_eq!(warm["timings"]["prompt_n"], warm["tokens_evaluated"]);
    let next =
        server.post("/completion", &json!({ "prompt": "12 + 30 = ", "n_predict": 1 })).json();
    assert_eq!(next["timings"]["prompt_n"], 1);
    let body = chat(&json!({ "max_tokens": 0 }));
    let answer = server.post("/v1/chat/completions", &body).json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

#[test]
fn lists_of_models_have_its_names_and_tags() {
    let server = Server::start(&["--alias", "r1,r2", "--tags", "small,local"]);
    let model = &server.get("/v1/models").json()["data"][0];
    assert_eq!(model["id"], "r1");
    assert_eq!(
        (&model["aliases"], &model["tags"]),
        (&json!(["r1", "r2"]), &json!(["small", "local"]))
    );
}
