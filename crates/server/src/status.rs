//! `/api/cachalot/status`: all that the page shows about the server, in one answer.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cachalot_engine::request::RequestId;
use cachalot_engine::status::{SequencePhase, SequenceStatus};
use cachalot_text::Think;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::{App, Served};

/// What is known of the model and the machine from the start.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The model's name.
    pub id: String,
    /// The file.
    pub path: String,
    /// What the model is, in a sentence.
    pub identity: String,
    /// The architecture that the file names.
    pub architecture: String,
    /// Weights.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// The format of most weights.
    pub quantization: String,
    /// The model that is part of the program.
    pub embedded: bool,
    /// Where the weights are.
    pub layout: Vec<Place>,
    /// Routed experts, if it has any.
    pub experts: Option<ExpertCounts>,
    /// This machine's memory.
    pub memory: MemoryFacts,
    /// What the planner expects; `None` for a machine that was never measured.
    pub prediction: Option<Prediction>,
    /// What would make it faster, the least costly first.
    pub advice: Vec<Advice>,
}

/// Routed experts of a layer.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct ExpertCounts {
    /// All of them.
    pub total: u64,
    /// How many a token uses.
    pub used: u64,
}

/// What is known of the machine's memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryFacts {
    /// Bytes of it.
    pub total_bytes: Option<u64>,
    /// Bytes per second that all cores together read, if that was measured.
    pub limit_per_s: Option<f64>,
    /// Bytes of weights that a generated token reads.
    pub bytes_per_token: Option<u64>,
}

/// A change that would make it faster.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Advice {
    /// In a few words.
    pub what: String,
    /// Predicted tokens per second with it.
    pub tokens_per_s: f64,
    /// How many times as fast as now.
    pub gain: Option<f64>,
    /// What it costs in quality, or what else is needed.
    pub note: Option<String>,
    /// Whether cachalot makes use of it so far.
    pub supported: bool,
}

impl Facts {
    /// Ollama's words for what a model can do.
    pub(crate) fn capabilities(&self) -> Vec<&'static str> {
        vec!["completion", "tools", "thinking"]
    }
}

/// A part of the model.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Place {
    /// What it is.
    pub what: String,
    /// Where it is: `memory`, `drive` or a device.
    #[serde(rename = "where")]
    pub place: String,
    /// Its size.
    pub bytes: u64,
}

/// What the planner expects of this machine.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Prediction {
    /// Tokens generated per second.
    pub tokens_per_s: f64,
    /// The low end of the range.
    pub low: f64,
    /// The high end of the range.
    pub high: f64,
    /// Tokens of a prompt per second.
    pub prompt_tokens_per_s: f64,
    /// What bounds it.
    pub bound: String,
}

/// The whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Report {
    version: &'static str,
    /// `loading`, `ready`, `draining` or `failed`
    state: &'static str,
    uptime_s: f64,
    load: Load,
    model: Option<ModelReport>,
    layout: Vec<Place>,
    parallel: usize,
    queue: Queue,
    sequences: Vec<Sequence>,
    kv: Option<Kv>,
    experts: Option<Experts>,
    drive: Option<Drive>,
    memory: Memory,
    prediction: Option<Prediction>,
    measured: Measured,
    advice: Vec<Advice>,
}

/// How far loading has come.
#[derive(Debug, Serialize, ToSchema)]
struct Load {
    what: &'static str,
    done: u64,
    total: u64,
    unit: &'static str,
    fraction: f64,
    error: Option<String>,
}

/// The model.
#[derive(Debug, Serialize, ToSchema)]
struct ModelReport {
    id: String,
    identity: String,
    architecture: String,
    parameters: u64,
    bytes: u64,
    quantization: String,
    context: usize,
    context_trained: usize,
    /// The same for everything that gives the same answers: a hash of the model and its options.
    fingerprint: String,
    /// The chat template is not the model's own, or is used with thinking switched by default.
    template_replaced: bool,
    /// The most tokens of an answer, whatever a request says.
    max_tokens: Option<usize>,
    embedded: bool,
    experts: Option<ExpertCounts>,
    capabilities: Vec<&'static str>,
    sampling: HashMap<&'static str, f64>,
}

/// Requests that wait.
#[derive(Debug, Serialize, ToSchema)]
struct Queue {
    waiting: usize,
    limit: usize,
}

/// A request that runs or waits.
#[derive(Debug, Serialize, ToSchema)]
struct Sequence {
    /// The id of the answer.
    id: String,
    /// `queued`, `prefill`, `thinking`, `answering` or `paused`
    phase: &'static str,
    position: Option<usize>,
    prompt_tokens: usize,
    cached_tokens: usize,
    prefill_done: usize,
    prefill_total: usize,
    tokens: usize,
    tokens_per_s: f64,
    elapsed_s: f64,
}

/// The KV cache.
#[derive(Debug, Serialize, ToSchema)]
struct Kv {
    #[serde(rename = "type")]
    kind: String,
    page_tokens: usize,
    pages: usize,
    pages_used: usize,
    pages_cached: usize,
    bytes: u64,
}

/// The cache of experts that are streamed.
#[derive(Debug, Serialize, ToSchema)]
struct Experts {
    cache_bytes: u64,
    routed_bytes: u64,
    /// Experts that were needed and in the cache, since the start.
    hits: u64,
    /// Experts that were needed and had to be read.
    misses: u64,
    /// The share of hits; `null` before any expert was needed.
    hit_rate: Option<f64>,
}

/// The drive that experts are read from.
#[derive(Debug, Serialize, ToSchema)]
struct Drive {
    /// Bytes read since the start.
    read_bytes: u64,
    /// Bytes per second while reads were in flight; `null` before the first.
    read_per_s: Option<f64>,
    /// Bytes per second that were measured while the model was loaded.
    limit_per_s: f64,
}

/// Memory.
#[derive(Debug, Serialize, ToSchema)]
struct Memory {
    total_bytes: Option<u64>,
    /// Bytes of weights that a generated token reads.
    bytes_per_token: Option<u64>,
    /// Bytes per second that decoding reads: those of a token, times the rate of the fastest
    /// sequence. Others read the same weights at the same time, apart from experts.
    read_per_s: Option<f64>,
    /// Bytes per second that all cores together can read; `null` if it was never measured.
    limit_per_s: Option<f64>,
    peak_bytes: Option<u64>,
}

/// Rates since the start.
#[derive(Debug, Serialize, ToSchema)]
struct Measured {
    tokens_per_s: Option<f64>,
    prompt_tokens_per_s: Option<f64>,
    tokens: u64,
    prompt_tokens: u64,
}

/// What the server is doing, for the page.
#[utoipa::path(
    get, path = "/api/cachalot/status", tag = "cachalot",
    responses((status = 200, description = "The state of the server", body = Report),
              (status = 401, description = "A key is needed", body = crate::openapi::ErrorBody),
              (status = 403, description = "A foreign origin", body = crate::openapi::ErrorBody))
)]
pub(crate) async fn status(State(app): State<Arc<App>>) -> Response {
    axum::Json(report(&app)).into_response()
}

fn report(app: &App) -> Report {
    let served = app.ready().ok();
    let loading = app.loading();
    let state = match &served {
        _ if app.is_draining() => "draining",
        Some(_) => "ready",
        None if loading.error.is_some() => "failed",
        None => "loading",
    };
    let share = |done: u64, total: u64| if total == 0 { 0.0 } else { done as f64 / total as f64 };
    let facts = served.as_ref().map(|served| served.facts.clone()).unwrap_or_default();
    let live = served.as_deref().map(|served| live(app, served));
    let (queue, sequences, kv, experts, drive) = live.unwrap_or_else(|| {
        (Queue { waiting: 0, limit: app.config.queue }, Vec::new(), None, None, None)
    });
    let mut layout = facts.layout;
    if let Some(kv) = kv.as_ref().filter(|kv| kv.bytes > 0) {
        let (what, place) = ("KV cache".to_owned(), "memory".to_owned());
        layout.push(Place { what, place, bytes: kv.bytes });
    }
    let memory = Memory {
        total_bytes: facts.memory.total_bytes,
        bytes_per_token: facts.memory.bytes_per_token,
        read_per_s: facts.memory.bytes_per_token.map(|bytes| bytes as f64 * fastest(&sequences)),
        limit_per_s: facts.memory.limit_per_s,
        peak_bytes: cachalot_probe::system::memory_peak(),
    };
    Report {
        version: app.config.version,
        state,
        uptime_s: app.begun.elapsed().as_secs_f64(),
        load: Load {
            what: "reading weights",
            done: loading.done,
            total: loading.total,
            unit: "bytes",
            fraction: if served.is_some() { 1.0 } else { share(loading.done, loading.total) },
            error: loading.error,
        },
        model: served.as_deref().map(|served| model(app, served)),
        layout,
        parallel: app.config.parallel,
        queue,
        sequences,
        kv,
        experts,
        drive,
        memory,
        prediction: facts.prediction,
        measured: measured(app),
        advice: facts.advice,
    }
}

/// Tokens per second of the sequence that is decoded fastest; 0 if none is.
fn fastest(sequences: &[Sequence]) -> f64 {
    let decoded = sequences.iter().filter(|s| matches!(s.phase, "thinking" | "answering"));
    decoded.map(|sequence| sequence.tokens_per_s).fold(0.0, f64::max)
}

type Live = (Queue, Vec<Sequence>, Option<Kv>, Option<Experts>, Option<Drive>);

fn live(app: &App, served: &Served) -> Live {
    let status = served.handle.status();
    let mut names: HashMap<RequestId, (String, f64)> = HashMap::new();
    for (name, running) in app.running().iter() {
        let since = running.since.elapsed().as_secs_f64();
        names.extend(running.ids.iter().map(|id| (*id, (name.clone(), since))));
    }
    let sequences = status.sequences.iter().map(|sequence| {
        let name = names.remove(&sequence.id);
        let (name, since) = name.unwrap_or_else(|| (sequence.id.to_string(), 0.0));
        sequence_of(name, since, sequence)
    });
    let kv = Kv {
        kind: served.info().kv_type.to_string(),
        page_tokens: status.kv.page_tokens,
        pages: status.kv.pages,
        pages_used: status.kv.used,
        pages_cached: status.kv.cached,
        bytes: status.kv.page_bytes * status.kv.pages as u64,
    };
    let streamed = served.info().streaming.as_ref().zip(status.experts);
    let experts = streamed.map(|(streaming, stats)| Experts {
        cache_bytes: streaming.cache_bytes(),
        routed_bytes: streaming.routed,
        hits: stats.hits,
        misses: stats.misses,
        hit_rate: (stats.hits + stats.misses > 0).then(|| stats.hit_rate()),
    });
    let drive = streamed.map(|(streaming, stats)| Drive {
        read_bytes: stats.bytes,
        read_per_s: (stats.bytes > 0).then(|| stats.read_rate()),
        limit_per_s: streaming.rate.bytes_per_second,
    });
    let queue = Queue { waiting: status.queued, limit: status.limits.queue };
    (queue, sequences.collect(), Some(kv), experts, drive)
}

fn sequence_of(id: String, elapsed_s: f64, sequence: &SequenceStatus) -> Sequence {
    let (phase, position, done) = match sequence.phase {
        SequencePhase::Queued { position } => ("queued", Some(position), 0),
        SequencePhase::Prefill { done } => ("prefill", None, done),
        SequencePhase::Reasoning => ("thinking", None, sequence.prompt),
        SequencePhase::Answer => ("answering", None, sequence.prompt),
        SequencePhase::Paused => ("paused", None, sequence.prompt),
    };
    Sequence {
        id,
        phase,
        position,
        prompt_tokens: sequence.prompt,
        cached_tokens: sequence.cached,
        prefill_done: done,
        prefill_total: sequence.prompt,
        tokens: sequence.generated,
        tokens_per_s: sequence.rate,
        elapsed_s,
    }
}

fn model(app: &App, served: &Served) -> ModelReport {
    let (info, facts) = (served.info(), &served.facts);
    let value = |parameter: &cachalot_engine::request::Parameter| {
        (parameter.name, parameter.get(&info.recommended).parse().unwrap_or_default())
    };
    ModelReport {
        id: app.model_id(served),
        identity: facts.identity.clone(),
        architecture: facts.architecture.clone(),
        parameters: facts.parameters,
        bytes: facts.bytes,
        quantization: facts.quantization.clone(),
        context: info.context.tokens,
        context_trained: info.context.model,
        fingerprint: info.fingerprint.to_string(),
        template_replaced: app.config.template.is_some() || served.think != Think::Auto,
        max_tokens: app.config.defaults.max_tokens,
        embedded: facts.embedded,
        experts: facts.experts,
        capabilities: facts.capabilities(),
        sampling: cachalot_engine::request::PARAMETERS.iter().map(value).collect(),
    }
}

fn measured(app: &App) -> Measured {
    let sums = app.metrics.sums();
    let rate = |tokens: u64, time: std::time::Duration| {
        (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
    };
    Measured {
        tokens_per_s: rate(sums.generated, sums.decode),
        prompt_tokens_per_s: rate(sums.prompt, sums.prefill),
        tokens: sums.generated,
        prompt_tokens: sums.prompt,
    }
}
