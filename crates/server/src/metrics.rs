//! `/metrics` in Prometheus' text format: llama-server's names, for dashboards that exist, and
//! ours.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cachalot_engine::Status;

use crate::app::{App, Served, unix};
use crate::generate::Live;

/// Sums since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: AtomicU64,
    refused: AtomicU64,
    answers: AtomicU64,
    prompt: AtomicU64,
    cached: AtomicU64,
    generated: AtomicU64,
    prefill_us: AtomicU64,
    decode_us: AtomicU64,
    tokens_max: AtomicU64,
}

/// Sums of answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    pub(crate) generated: u64,
    pub(crate) prefill: Duration,
    pub(crate) decode: Duration,
}

impl Metrics {
    pub(crate) fn request(&self, is_error: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.refused.fetch_add(u64::from(is_error), Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, live: &Live) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (prompt, cached) = (live.prompt as u64, live.cached as u64);
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.prompt.fetch_add(prompt.saturating_sub(cached), Ordering::Relaxed);
        self.cached.fetch_add(cached, Ordering::Relaxed);
        self.generated.fetch_add(live.generated as u64, Ordering::Relaxed);
        self.prefill_us.fetch_add(micros(live.prefill), Ordering::Relaxed);
        self.decode_us.fetch_add(micros(live.decode), Ordering::Relaxed);
        let tokens = (live.prompt + live.generated) as u64;
        self.tokens_max.fetch_max(tokens, Ordering::Relaxed);
    }

    pub(crate) fn sums(&self) -> Sums {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Sums {
            prompt: get(&self.prompt),
            cached: get(&self.cached),
            generated: get(&self.generated),
            prefill: Duration::from_micros(get(&self.prefill_us)),
            decode: Duration::from_micros(get(&self.decode_us)),
        }
    }
}

/// A page of metrics.
#[derive(Default)]
struct Page(String);

impl Page {
    fn add(&mut self, kind: &str, name: &str, help: &str, value: f64) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.add("counter", name, help, value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.add("gauge", name, help, value);
    }
}

/// The whole page.
pub(crate) fn page(app: &App, served: &Served) -> String {
    let (status, sums) = (served.handle.status(), app.metrics.sums());
    let mut page = Page::default();
    llama_server(&mut page, app, &status, &sums);
    own(&mut page, app, &status);
    experts(&mut page, served, &status);
    page.0
}

fn llama_server(page: &mut Page, app: &App, status: &Status, sums: &Sums) {
    let rate = |tokens: u64, time: Duration| {
        if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
    };
    let (prompt, generated) = (sums.prompt as f64, sums.generated as f64);
    let counters = [
        ("prompt_tokens_total", "Prompt tokens computed.", prompt),
        ("prompt_tokens_cached_total", "Prompt tokens found in the cache.", sums.cached as f64),
        ("prompt_seconds_total", "Time for prompts.", sums.prefill.as_secs_f64()),
        ("tokens_predicted_total", "Tokens generated.", generated),
        ("tokens_predicted_seconds_total", "Time for generation.", sums.decode.as_secs_f64()),
        ("n_decode_total", "Tokens computed one by one.", generated),
        (
            "n_tokens_max",
            "Tokens of the longest sequence.",
            app.metrics.tokens_max.load(Ordering::Relaxed) as f64,
        ),
        ("spec_decode_num_draft_tokens_total", "Tokens drafted.", 0.0),
        ("spec_decode_num_accepted_tokens_total", "Drafted tokens accepted.", 0.0),
        ("spec_decode_num_drafts_total", "Drafts.", 0.0),
    ];
    for (name, help, value) in counters {
        page.counter(&format!("llamacpp:{name}"), help, value);
    }
    let running = status.sequences.len().saturating_sub(status.queued) as f64;
    let used = share(status.kv.used, status.kv.pages);
    let gauges = [
        ("prompt_tokens_seconds", "Prompt tokens per second.", rate(sums.prompt, sums.prefill)),
        (
            "predicted_tokens_seconds",
            "Tokens generated per second.",
            rate(sums.generated, sums.decode),
        ),
        ("kv_cache_usage_ratio", "Share of the KV cache in use.", used),
        ("requests_processing", "Requests being answered.", running),
        ("requests_deferred", "Requests waiting.", status.queued as f64),
        ("n_busy_slots_per_decode", "Sequences in a step.", running.max(1.0)),
    ];
    for (name, help, value) in gauges {
        page.gauge(&format!("llamacpp:{name}"), help, value);
    }
}

fn own(page: &mut Page, app: &App, status: &Status) {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let kv = &status.kv;
    let totals = &status.totals;
    page.gauge("cachalot_start_time_seconds", "When it started.", unix(app.started) as f64);
    let counters = [
        ("cachalot_http_requests_total", "Requests over HTTP.", get(&app.metrics.requests)),
        ("cachalot_http_errors_total", "Requests with an error.", get(&app.metrics.refused)),
        ("cachalot_answers_total", "Complete answers.", get(&app.metrics.answers)),
        ("cachalot_cancelled_total", "Requests cancelled.", totals.cancelled as f64),
        ("cachalot_failed_total", "Requests that failed.", totals.failed as f64),
        ("cachalot_preempted_total", "Sequences computed again.", totals.preempted as f64),
        (
            "cachalot_prefix_tokens_total",
            "Prompt tokens found in the cache.",
            totals.prompt_cached as f64,
        ),
        ("cachalot_prompt_tokens_total", "Prompt tokens computed.", totals.prompt_computed as f64),
        ("cachalot_tokens_total", "Tokens generated.", totals.generated as f64),
    ];
    for (name, help, value) in counters {
        page.counter(name, help, value);
    }
    let hits = totals.prompt_cached + totals.prompt_computed;
    let gauges = [
        ("cachalot_queue", "Requests waiting.", status.queued as f64),
        ("cachalot_queue_limit", "Requests that may wait.", status.limits.queue as f64),
        ("cachalot_parallel", "Requests answered at once.", status.limits.parallel as f64),
        ("cachalot_kv_pages", "Pages of the KV cache.", kv.pages as f64),
        ("cachalot_kv_pages_used", "Pages of running requests.", kv.used as f64),
        ("cachalot_kv_pages_cached", "Pages kept for prefixes.", kv.cached as f64),
        (
            "cachalot_prefix_hit_ratio",
            "Share of prompt tokens found in the cache.",
            if hits == 0 { 0.0 } else { totals.prompt_cached as f64 / hits as f64 },
        ),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, value);
    }
}

fn experts(page: &mut Page, served: &Served, status: &Status) {
    let (Some(stats), Some(streaming)) = (&status.experts, &served.info().streaming) else {
        return;
    };
    page.gauge("cachalot_expert_hit_ratio", "Share of experts found in memory.", stats.hit_rate());
    page.gauge("cachalot_drive_bytes_per_second", "Rate of reads.", stats.read_rate());
    let limit = streaming.rate.bytes_per_second;
    page.gauge("cachalot_drive_limit_bytes_per_second", "Rate of the drive.", limit);
    page.counter("cachalot_drive_bytes_total", "Bytes of experts read.", stats.bytes as f64);
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
