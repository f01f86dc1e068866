//! A server of ours that has loaded the model already: `run` asks it instead of loading 400 GB
//! again.
//!
//! It is used only if it gives the same answers: the fingerprints of the models and of all options
//! that change results are equal. It speaks the server's HTTP API, as any client does.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cachalot_engine::Event;
use cachalot_engine::event::{FinishReason, Finished, Kind, Timings, TokenEvent, Usage};
use cachalot_engine::request::{PARAMETERS, SubmitError};
use cachalot_engine::status::{Context, Fingerprint, ModelInfo, describe};
use cachalot_gguf::KvType;
use cachalot_plan::fit::CONTEXT_DEFAULT_MAX;
use cachalot_text::{Message, Think};
use serde_json::{Value, json};

use crate::client::{Address, Connection, ServerArgs, refusal};
use crate::settings::{Answering, Environment, Run};

/// How long a server may take to say what it serves.
const STATUS_TIME: Duration = Duration::from_secs(1);
/// How often a reader looks whether the answer is still wanted.
const PAUSE: Duration = Duration::from_millis(50);
/// A server says something every 15 s; one that does not has died.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The longest line of a stream.
const LINE_MAX: usize = 16 << 20;

/// A running server with the model that is wanted.
#[derive(Debug)]
pub(crate) struct Remote {
    address: Address,
    pub(crate) info: ModelInfo,
}

/// The server did not answer; the conversation can go on.
#[derive(Debug)]
pub(crate) struct ServerError {
    address: String,
    what: String,
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server on {}: {}", self.address, self.what)
    }
}

impl std::error::Error for ServerError {}

impl Remote {
    /// A server on this machine that answers as this program would, if there is one.
    pub(crate) fn find(run: &Run, environment: &Environment) -> Option<Self> {
        let address = Address::of(&ServerArgs::default(), environment);
        // Prompts go to no other machine; and an API has no larger numbers.
        let sends = address.is_local() && run.answering.seed.is_none_or(|seed| seed < 1 << 53);
        if run.loads_here() || !sends {
            return None;
        }
        let status = address.ask("GET", "/api/cachalot/status", STATUS_TIME).ok()?;
        let model = status.get("model").filter(|_| status["state"] == "ready")?;
        let kv_type = run.options.kv_type.unwrap_or(KvType::F16);
        let own = Fingerprint::of(&run.source, &run.options, kv_type).ok()?;
        let tokens = usize::try_from(model["context"].as_u64()?).ok()?;
        let trained = usize::try_from(model["context_trained"].as_u64()?).ok()?;
        let default = trained.min(CONTEXT_DEFAULT_MAX as usize);
        let has_context = run.options.context.map_or(tokens >= default, |asked| asked == tokens);
        let is_same = model["fingerprint"] == own.to_string().as_str()
            && model["template_replaced"] == false
            && model["max_tokens"].is_null();
        if !is_same || !has_context {
            return None;
        }
        let context = Context { tokens, model: trained, bytes: 0, reduced: false };
        let info = describe(&run.source, &run.options, context, kv_type).ok()?;
        Some(Self { address, info })
    }

    /// Where the server is.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Answers a conversation. Setting `cancel` ends it soon.
    ///
    /// # Errors
    /// If the server refuses or stops answering, and the first error of `take`.
    pub(crate) fn answer(
        &self,
        messages: &[Message],
        answering: &Answering,
        cancel: &AtomicBool,
        take: &mut dyn FnMut(Event) -> anyhow::Result<()>,
    ) -> anyhow::Result<Finished> {
        let body = body(messages, answering).to_string();
        let request = self.address.request("POST", "/v1/chat/completions", &body);
        let begun = || -> io::Result<Box<dyn Connection>> {
            let mut stream = self.address.connect(STATUS_TIME)?;
            stream.write_all(request.as_bytes())?;
            stream.set_patience(PAUSE)?;
            Ok(stream)
        };
        let stream = begun().map_err(|error| self.failed(error.to_string()))?;
        let mut lines = Lines { stream, bytes: Vec::new(), cancel };
        let status = match lines.next().map_err(|error| self.failed(error.to_string()))? {
            Some(line) => line.split(' ').nth(1).unwrap_or_default().to_owned(),
            None => return Ok(finished(FinishReason::Cancelled, &Stream::default())),
        };
        let mut stream = Stream::default();
        let (mut in_body, mut refused) = (false, String::new());
        loop {
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(finished(FinishReason::Cancelled, &stream)),
                Err(error) if status != "200" && error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.refused(&refused));
                }
                Err(error) => return Err(self.failed(error.to_string())),
            };
            if !in_body {
                in_body = line.is_empty();
            } else if status != "200" {
                refused += &line;
            } else if line == "data: [DONE]" {
                let context = self.info.context.tokens;
                return Ok(finished(stream.reason(context), &stream));
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).context("the server's stream")?;
                if data.get("error").is_some() {
                    return Err(self.failed(refusal(&data).to_owned()));
                }
                stream.take(&data, take)?;
            }
        }
    }

    fn failed(&self, what: String) -> anyhow::Error {
        ServerError { address: self.address.to_string(), what }.into()
    }

    fn refused(&self, body: &str) -> anyhow::Error {
        // A connection may end in the middle of a line.
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let number = |key: &str| {
            let number = body["error"][key].as_u64()?;
            usize::try_from(number).ok()
        };
        match number("n_prompt_tokens").zip(number("n_ctx")) {
            Some((n_prompt, n_ctx)) => SubmitError::PromptTooLong { n_prompt, n_ctx }.into(),
            None => self.failed(refusal(&body).to_owned()),
        }
    }
}

/// The request, with every parameter, so that the server's own defaults do not count.
fn body(messages: &[Message], answering: &Answering) -> Value {
    let messages = messages.iter().map(|message| {
        json!({ "role": message.role, "content": message.content.as_deref().unwrap_or_default() })
    });
    let mut body = json!({
        "messages": messages.collect::<Vec<_>>(), "stream": true, "verbose": true,
        "stream_options": { "include_usage": true }, "return_progress": true,
        "stop": answering.stop, "seed": answering.seed.map_or(json!(-1), Value::from),
        "max_tokens": answering.max_tokens.map_or(json!(-1), Value::from),
    });
    for parameter in &PARAMETERS {
        let value: f64 = parameter.get(&answering.sampling).parse().unwrap_or_default();
        body[parameter.name] = value.into();
    }
    match answering.think {
        Think::Auto => {}
        Think::Force => body["think"] = true.into(),
        Think::Off => body["think"] = false.into(),
    }
    body
}

/// Lines of a response, until the answer is not wanted any more.
struct Lines<'a> {
    stream: Box<dyn Connection>,
    bytes: Vec<u8>,
    cancel: &'a AtomicBool,
}

impl Lines<'_> {
    /// The next line, without its end; `None` if it was cancelled.
    fn next(&mut self) -> io::Result<Option<String>> {
        let mut heard = Instant::now();
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()));
            }
            if self.cancel.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let mut buffer = [0; 8192];
            match self.stream.read(&mut buffer) {
                // What is left without an end of line is the last line.
                Ok(0) if !self.bytes.is_empty() => self.bytes.push(b'\n'),
                Ok(0) => {
                    let what = "it closed the connection";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
                Ok(count) => {
                    heard = Instant::now();
                    self.bytes.extend_from_slice(&buffer[..count]);
                }
                Err(error) if is_pause(&error) && heard.elapsed() < SILENCE_MAX => {}
                Err(error) if is_pause(&error) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it is silent"));
                }
                Err(error) => return Err(error),
            }
            if self.bytes.len() > LINE_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end"));
            }
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// What a stream has said so far.
#[derive(Debug, Default)]
struct Stream {
    finish_reason: String,
    verbose: Value,
    usage: Value,
    timings: Value,
}

impl Stream {
    fn take(
        &mut self,
        data: &Value,
        take: &mut dyn FnMut(Event) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let count = |value: &Value| value.as_u64().unwrap_or(0) as usize;
        if let Some(progress) = data.get("prompt_progress") {
            let (done, total) = (count(&progress["processed"]), count(&progress["total"]));
            take(Event::Prefill { done, total, cached: count(&progress["cache"]) })?;
        }
        let choice = &data["choices"][0];
        let delta = &choice["delta"];
        for (key, kind) in [("reasoning_content", Kind::Reasoning), ("content", Kind::Answer)] {
            if let Some(text) = delta[key].as_str() {
                let text = text.to_owned();
                take(Event::Token(TokenEvent { kind, text, tokens: Vec::new() }))?;
            }
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            reason.clone_into(&mut self.finish_reason);
        }
        for (key, kept) in [
            ("__verbose", &mut self.verbose),
            ("usage", &mut self.usage),
            ("timings", &mut self.timings),
        ] {
            if let Some(value) = data.get(key) {
                *kept = value.clone();
            }
        }
        Ok(())
    }

    fn usage(&self) -> Usage {
        let count = |path| self.usage.pointer(path).and_then(Value::as_u64).unwrap_or(0) as usize;
        Usage {
            prompt: count("/prompt_tokens"),
            cached: count("/prompt_tokens_details/cached_tokens"),
            generated: count("/completion_tokens"),
            reasoning: count("/completion_tokens_details/reasoning_tokens"),
        }
    }

    fn reason(&self, context: usize) -> FinishReason {
        let usage = self.usage();
        match self.finish_reason.as_str() {
            // The last token of a full context is shown, but takes no room in it.
            "length" if usage.prompt + usage.generated > context => FinishReason::ContextFull,
            "length" => FinishReason::Length,
            _ if self.verbose["stop_type"] == "word" => FinishReason::StopText,
            _ => FinishReason::Stop,
        }
    }
}

fn finished(reason: FinishReason, stream: &Stream) -> Finished {
    let time = |key: &str| {
        Duration::try_from_secs_f64(stream.timings[key].as_f64().unwrap_or(0.0) / 1e3)
            .unwrap_or_default()
    };
    let word = stream.verbose["stopping_word"].as_str().unwrap_or_default();
    Finished {
        reason,
        stop_text: Some(word.to_owned()).filter(|word| !word.is_empty()),
        usage: stream.usage(),
        timings: Timings {
            queued: Duration::ZERO,
            prefill: time("prompt_ms"),
            decode: time("predicted_ms"),
        },
        seed: stream.verbose["generation_settings"]["seed"].as_u64().unwrap_or(0),
        experts: None,
    }
}
