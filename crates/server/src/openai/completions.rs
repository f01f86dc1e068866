//! `/v1/completions`: a raw prompt, continued, in OpenAI's older shape.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use cachalot_engine::Request;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::chat::StreamOptions;
use super::chat_stream::fingerprint;
use super::wire::{Logprob, Timings, Usage, logprobs};
use crate::app::{App, Served, fresh_id, unix};
use crate::ask::Continuation;
use crate::error::{ApiError, ApiResult, Family};
use crate::generate::{Answer, Live, Piece, Probed};
use crate::http::body::typed;
use crate::native::completion::probs;
use crate::options::{Options, whole};
use crate::respond::{Dialect, Job, Run, SSE, comment, event};
use crate::routes::{Asked, blocking, check_model};

/// A prompt to continue.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct TextBody {
    model: Option<String>,
    /// A text, tokens, both mixed, or a list of prompts.
    #[schema(value_type = Object)]
    prompt: Option<Value>,
    #[serde(default, deserialize_with = "whole")]
    max_tokens: Option<i64>,
    #[serde(default, deserialize_with = "whole")]
    n_predict: Option<i64>,
    #[serde(default, deserialize_with = "whole")]
    n: Option<i64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// Begin the answer with the prompt.
    echo: Option<bool>,
    /// The number of most likely tokens to report.
    #[schema(value_type = Option<u32>)]
    logprobs: Option<Value>,
    suffix: Option<String>,
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
}

/// All that a completion asks for; only for the document.
#[derive(ToSchema)]
#[expect(dead_code)]
pub(crate) struct TextRequest {
    #[serde(flatten)]
    body: TextBody,
    #[serde(flatten)]
    options: Options,
}

/// A whole answer, or an event of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextCompletion {
    id: String,
    /// `text_completion`
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: Vec<TextChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

/// One answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextChoice {
    text: String,
    index: usize,
    logprobs: Option<TextLogprobs>,
    finish_reason: Option<&'static str>,
}

/// Log probabilities, in the older shape and in that of chats.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    #[schema(value_type = Vec<Object>)]
    top_logprobs: Vec<Map<String, Value>>,
    text_offset: Vec<usize>,
    content: Vec<Logprob>,
}

impl TextLogprobs {
    fn of(tokens: &[Probed], mut offset: usize) -> Self {
        let mut all = Self { content: logprobs(tokens), ..Self::default() };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let finite = |logprob: f32| if logprob.is_finite() { logprob } else { -9999.0 };
        for token in tokens {
            let top = token.top.iter();
            let top = top.map(|(_, bytes, logprob)| (text(bytes), json!(finite(*logprob))));
            all.top_logprobs.push(top.collect());
            all.token_logprobs.push(finite(token.logprob.unwrap_or_default()));
            all.text_offset.push(offset);
            let token = text(&token.bytes);
            offset += token.chars().count();
            all.tokens.push(token);
        }
        all
    }
}

fn prepare(app: &App, served: &Served, object: &Map<String, Value>) -> ApiResult<Vec<Request>> {
    let (body, options): (TextBody, Options) = (typed(object)?, typed(object)?);
    if body.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        let message = "this model cannot fill in: `suffix` is not supported";
        return Err(ApiError::field("suffix", message));
    }
    let logprobs = match &body.logprobs {
        None | Some(Value::Null | Value::Bool(false)) => probs(options.n_probs)?,
        Some(Value::Bool(true)) => Some(probs(options.n_probs)?.unwrap_or(0)),
        Some(count) => {
            let wrong = || ApiError::field("logprobs", "`logprobs` must be from 0 to 20");
            let count = count.as_u64().filter(|count| *count <= 20).ok_or_else(wrong)?;
            Some(count as usize)
        }
    };
    let asked = Continuation {
        prompt: body.prompt.as_ref(),
        options: &options,
        max_tokens: body.max_tokens.or(body.n_predict),
        format: body.response_format.as_ref(),
        logprobs,
        n: body.n,
    };
    Ok(asked.requests(app, served)?.requests)
}

/// Continues prompts.
#[utoipa::path(
    post, path = "/v1/completions", tag = "OpenAI", request_body = TextRequest,
    responses(
        (status = 200, description = "The text, or with `stream` events of the same shape",
         content((TextCompletion = "application/json"), (TextCompletion = "text/event-stream"))),
        crate::openapi::Errors,
    )
)]
pub(crate) async fn completions(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let served = app.model()?;
    let body: TextBody = typed(&asked.object)?;
    check_model(&app, &served, body.model.as_deref())?;
    let slot = typed::<Options>(&asked.object)?.slot();
    let (app_of, served_of, object) = (Arc::clone(&app), Arc::clone(&served), asked.object);
    let requests = blocking(move || prepare(&app_of, &served_of, &object)).await?;
    let vocab = &served.info().vocab;
    let echo = |request: &Request| match body.echo {
        Some(true) => vocab.decode(&request.prompt),
        _ => String::new(),
    };
    let id = fresh_id("cmpl-");
    let dialect = TextStream {
        id: id.clone(),
        model: app.model_id(&served),
        created: unix(SystemTime::now()),
        usage: body.stream_options.is_some_and(|options| options.include_usage == Some(true)),
        probs: requests.first().is_some_and(|request| request.logprobs.is_some()),
        echo: requests.iter().map(echo).collect(),
        offsets: vec![0; requests.len()],
        lives: vec![Live::default(); requests.len()],
    };
    let job = Job { id, requests, calls: None, slot };
    let run = Run::submit(&app, &served, job, asked.context.caller)?;
    run.respond(&app, dialect, body.stream == Some(true), &asked.context).await
}

/// Writes completions.
struct TextStream {
    id: String,
    model: String,
    created: u64,
    usage: bool,
    probs: bool,
    /// What each answer begins with.
    echo: Vec<String>,
    /// Characters so far, per answer.
    offsets: Vec<usize>,
    lives: Vec<Live>,
}

impl TextStream {
    fn completion(&self, choices: Vec<TextChoice>) -> TextCompletion {
        TextCompletion {
            id: self.id.clone(),
            object: "text_completion",
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: fingerprint(),
            choices,
            usage: None,
            timings: None,
        }
    }

    fn text(&mut self, n: usize, text: &str, tokens: &[Probed], out: &mut Vec<u8>) {
        let echo = std::mem::take(&mut self.echo[n]);
        // The prompt has no probabilities, but takes room.
        self.offsets[n] += echo.chars().count();
        let logprobs = self.probs.then(|| TextLogprobs::of(tokens, self.offsets[n]));
        self.offsets[n] += text.chars().count();
        let text = echo + text;
        let choice = TextChoice { text, index: n, logprobs, finish_reason: None };
        event(out, None, &self.completion(vec![choice]));
    }
}

impl Dialect for TextStream {
    const MEDIA: &'static str = SSE;

    fn piece(&mut self, n: usize, piece: &Piece, _: &Live, out: &mut Vec<u8>) {
        match piece {
            Piece::Reasoning(text) | Piece::Content(text)
                if !text.text.is_empty() || (self.probs && !text.tokens.is_empty()) =>
            {
                self.text(n, &text.text, &text.tokens, out);
            }
            Piece::Done(outcome) => {
                self.lives[n] = outcome.live;
                if !self.echo[n].is_empty() {
                    self.text(n, "", &[], out);
                }
                let finish_reason = Some(outcome.end.word());
                let text = String::new();
                let choice = TextChoice { text, index: n, logprobs: None, finish_reason };
                let mut last = self.completion(vec![choice]);
                last.timings = Some(Timings::of(&outcome.live));
                event(out, None, &last);
            }
            _ => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.usage {
            let mut usage = self.completion(Vec::new());
            usage.usage = Some(Usage::of(&self.lives));
            event(out, None, &usage);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        event(out, None, &error.body(Family::OpenAi));
    }

    fn ping(&self, out: &mut Vec<u8>) {
        comment(out);
    }

    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let lives: Vec<Live> = answers.iter().map(Answer::live).collect();
        let choices = answers.iter().enumerate().map(|(n, answer)| TextChoice {
            text: format!("{}{}", self.echo[n], answer.content),
            index: n,
            logprobs: self
                .probs
                .then(|| TextLogprobs::of(&answer.tokens, self.echo[n].chars().count())),
            finish_reason: Some(answer.end().word()),
        });
        let mut completion = self.completion(choices.collect());
        completion.usage = Some(Usage::of(&lives));
        completion.timings = lives.first().map(Timings::of);
        json!(completion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_characters() {
        let token = |text: &str| Probed {
            id: 0,
            bytes: text.as_bytes().to_vec(),
            logprob: Some(-1.0),
            top: vec![(1, b"x".to_vec(), -2.0)],
        };
        let probs = TextLogprobs::of(&[token("é"), token("bc"), token("d")], 3);
        assert_eq!(probs.text_offset, [3, 4, 6]);
        assert_eq!(probs.tokens, ["é", "bc", "d"]);
        assert_eq!(probs.top_logprobs[0]["x"], -2.0);
    }
}
