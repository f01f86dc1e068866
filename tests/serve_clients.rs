//! The server by the Rust clients that others wrote: what they refuse to read is wrong.
#![allow(clippy::unwrap_used)] // this is a test

mod common;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::ChatCompletionMessageToolCalls;
use async_openai::types::responses::{OutputItem, ResponseStreamEvent};
use common::server::Server;
use futures_util::StreamExt as _;
use ollama_rs::Ollama;
use ollama_rs::generation::chat::{ChatMessage, request::ChatMessageRequest};
use ollama_rs::generation::completion::request::GenerationRequest;
use ollama_rs::generation::parameters::ThinkType;
use ollama_rs::generation::tools::ToolInfo;
use ollama_rs::models::ModelOptions;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const QUESTION: &str = "How many r's are in strawberry?";

/// A client's request from what it is on the wire.
fn read<T: DeserializeOwned>(request: Value) -> T {
    serde_json::from_value(request).unwrap()
}

fn openai(server: &Server) -> Client<OpenAIConfig> {
    // Its HTTP library wants one, also where nothing is encrypted. Only the first test installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let base = format!("http://127.0.0.1:{}/v1", server.port);
    Client::with_config(OpenAIConfig::new().with_api_base(base).with_api_key("none"))
}

fn ollama(server: &Server) -> Ollama {
    Ollama::builder().host("http://127.0.0.1").port(server.port).build()
}

fn chat(more: &Value) -> Value {
    let mut body = json!({
        "model": "calf", "temperature": 0, "max_completion_tokens": 200,
        "messages": [{ "role": "user", "content": QUESTION }],
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// A function whose arguments calf can be made to write.
fn function() -> Value {
    let digit = json!({ "type": "integer", "enum": [1, 2, 3] });
    json!({
        "name": "count", "description": "counts letters",
        "parameters": { "type": "object", "properties": { "n": digit }, "required": ["n"],
                        "additionalProperties": false },
    })
}

fn check_arguments(arguments: &Value) {
    assert!(arguments["n"].as_u64().is_some_and(|n| (1..=3).contains(&n)), "{arguments}");
}

#[tokio::test]
async fn openais_client_chats() {
    let server = Server::start(&[]);
    let client = openai(&server);
    let whole = client.chat().create(read(chat(&json!({ "n": 2, "logprobs": true })))).await;
    let whole = whole.unwrap();
    let expected = whole.choices[0].message.content.clone().unwrap();
    assert!(whole.choices.len() == 2 && expected.contains('3'), "{whole:?}");
    let logprobs = whole.choices[0].logprobs.as_ref().unwrap().content.as_ref().unwrap();
    let text: String = logprobs.iter().map(|token| token.token.as_str()).collect();
    assert!(text.starts_with(&expected), "{text:?}");
    let usage = whole.usage.unwrap();
    assert_eq!(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
    assert!(usage.completion_tokens_details.unwrap().reasoning_tokens.unwrap() > 0);

    let streamed = chat(&json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let mut stream = client.chat().create_stream(read(streamed)).await.unwrap();
    let (mut content, mut usage) = (String::new(), None);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.unwrap();
        let deltas = chunk.choices.iter().filter_map(|choice| choice.delta.content.as_deref());
        content.extend(deltas);
        usage = chunk.usage.or(usage);
    }
    assert_eq!(content, expected);
    assert!(usage.unwrap().completion_tokens > 0);

    let wrong = client.chat().create(read(chat(&json!({ "temperature": -1 })))).await;
    assert!(wrong.unwrap_err().to_string().contains("temperature"));
}

#[tokio::test]
async fn openais_client_calls_tools() {
    let server = Server::start(&[]);
    let client = openai(&server);
    let tools = json!([{ "type": "function", "function": function() }]);
    let asked = json!({ "tools": tools, "tool_choice": "required" });
    let answer = client.chat().create(read(chat(&asked))).await.unwrap();
    let message = &answer.choices[0].message;
    let calls = message.tool_calls.as_ref().unwrap();
    let [ChatCompletionMessageToolCalls::Function(call)] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(call.function.name, "count");
    check_arguments(&read(serde_json::from_str(&call.function.arguments).unwrap()));

    let streamed = chat(&json!({ "stream": true, "tools": tools, "tool_choice": "required" }));
    let mut stream = client.chat().create_stream(read(streamed)).await.unwrap();
    let (mut name, mut arguments) = (String::new(), String::new());
    while let Some(chunk) = stream.next().await {
        let chunks = chunk.unwrap().choices.remove(0).delta.tool_calls.unwrap_or_default();
        for function in chunks.into_iter().filter_map(|chunk| chunk.function) {
            name.extend(function.name);
            arguments.extend(function.arguments);
        }
    }
    assert_eq!(name, "count");
    check_arguments(&read(serde_json::from_str(&arguments).unwrap()));
}

#[tokio::test]
async fn openais_client_completes_and_lists() {
    let server = Server::start(&[]);
    let client = openai(&server);
    let models = client.models().list().await.unwrap();
    assert_eq!(models.data.len(), 1);
    let id = &models.data[0].id;
    assert_eq!(client.models().retrieve(id).await.unwrap().id, *id);
    assert!(client.models().retrieve("nothing").await.is_err());

    let prompt = json!({ "model": id, "prompt": ["1 + 1 = ", "2 + 2 = "], "max_tokens": 5 });
    let answer = client.completions().create(read(prompt)).await.unwrap();
    assert_eq!(answer.choices.len(), 2);
    let prompt = json!({ "model": id, "prompt": "1 + 1 = ", "max_tokens": 5, "stream": true });
    let mut stream = client.completions().create_stream(read(prompt)).await.unwrap();
    let mut chunks = 0;
    while let Some(chunk) = stream.next().await {
        chunks += chunk.unwrap().choices.len();
    }
    assert!(chunks > 0);
}

#[tokio::test]
async fn openais_client_reads_responses() {
    let server = Server::start(&[]);
    let client = openai(&server);
    let asked = |more: &Value| {
        let mut body = json!({ "model": "calf", "input": QUESTION, "temperature": 0.0 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let whole = client.responses().create(read(asked(&json!({})))).await.unwrap();
    let expected = whole.output_text().unwrap();
    assert!(expected.contains('3'), "{whole:?}");

    let body = asked(&json!({ "stream": true }));
    let mut stream = client.responses().create_stream(read(body)).await.unwrap();
    let (mut text, mut completed) = (String::new(), None);
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            ResponseStreamEvent::ResponseOutputTextDelta(event) => text += &event.delta,
            ResponseStreamEvent::ResponseCompleted(event) => {
                completed = event.response.output_text();
            }
            _ => {}
        }
    }
    assert_eq!((&text, completed.as_ref()), (&expected, Some(&expected)));

    let mut tool = function();
    tool["type"] = "function".into();
    tool["strict"] = true.into();
    let body = asked(&json!({ "tools": [tool], "tool_choice": "required" }));
    let answer = client.responses().create(read(body)).await.unwrap();
    let mut items = answer.output.iter();
    let call = items.find_map(|item| match item {
        OutputItem::FunctionCall(call) => Some(call),
        _ => None,
    });
    check_arguments(&read(serde_json::from_str(&call.unwrap().arguments).unwrap()));

    let counted = client.responses().get_input_token_counts(read(asked(&json!({})))).await;
    assert_eq!(counted.unwrap().input_tokens, whole.usage.unwrap().input_tokens);
}

#[tokio::test]
async fn ollamas_client_generates_and_lists() {
    let server = Server::start(&[]);
    let client = ollama(&server);
    let models = client.list_local_models().await.unwrap();
    let name = models[0].name.clone();
    assert!(models.len() == 1 && models[0].size > 0, "{models:?}");
    let shown = client.show_model_info(name.clone()).await.unwrap();
    assert!(!shown.template.is_empty(), "{shown:?}");
    assert!(client.show_model_info("nothing".to_owned()).await.is_err());

    let greedy = || ModelOptions::default().temperature(0.0).num_predict(200);
    let asked = || GenerationRequest::new(name.clone(), QUESTION).options(greedy());
    let whole = client.generate(asked()).await.unwrap();
    assert!(whole.done && whole.response.contains('3'), "{whole:?}");
    let mut stream = client.generate_stream(asked()).await.unwrap();
    let (mut text, mut done) = (String::new(), false);
    while let Some(parts) = stream.next().await {
        for part in parts.unwrap() {
            text += &part.response;
            done |= part.done && part.eval_count.is_some_and(|count| count > 0);
        }
    }
    assert!(done);
    assert_eq!(text, whole.response);
}

#[tokio::test]
async fn ollamas_client_chats() {
    let server = Server::start(&[]);
    let client = ollama(&server);
    let greedy = || ModelOptions::default().temperature(0.0).num_predict(200);
    let asked = || {
        let messages = vec![ChatMessage::user(QUESTION.to_owned())];
        ChatMessageRequest::new("calf".to_owned(), messages).options(greedy())
    };
    let whole = client.send_chat_messages(asked().think(ThinkType::True)).await.unwrap();
    assert!(whole.message.content.contains('3'), "{whole:?}");
    assert!(whole.message.thinking.is_some_and(|thought| !thought.is_empty()));
    assert!(whole.final_data.unwrap().eval_count > 0);

    let mut stream = client.send_chat_messages_stream(asked()).await.unwrap();
    let (mut text, mut done) = (String::new(), false);
    while let Some(part) = stream.next().await {
        let part = part.unwrap();
        text += &part.message.content;
        done |= part.done && part.final_data.is_some();
    }
    assert!(done && text.contains('3'), "{text}");

    // Ollama has no `tool_choice`: the model may call the tool, or not.
    let tool: ToolInfo = read(json!({ "type": "function", "function": function() }));
    let answer = client.send_chat_messages(asked().tools(vec![tool])).await.unwrap();
    assert!(answer.done);
    assert_eq!(server.get("/api/ps").json()["models"][0]["name"], "calf");
}
