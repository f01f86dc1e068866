//! What a bench has found: a page for people, an object for programs.
//!
//! Rates of memory and bytes per token are in GB of 10^9 bytes, as memory's bandwidth is given
//! everywhere.

use std::time::Duration;

use cachalot_engine::status::Streaming;
use cachalot_gguf::KvType;
use cachalot_kernels::Tier;
use cachalot_model::Config;
use cachalot_plan::{Demand, TensorGroup, units};
use cachalot_probe::system;
use cachalot_store::{CacheStats, Weights};
use serde_json::{Value, json};

use super::parallel::Reads;
use crate::terminal;

/// Everything that was found.
pub(super) struct Report {
    pub(super) name: String,
    pub(super) work: Work,
    pub(super) threads: usize,
    pub(super) tier: Tier,
    pub(super) kv_type: KvType,
    pub(super) cache_bytes_per_token: usize,
    pub(super) load_time: Duration,
    pub(super) prefill: Option<Measured>,
    pub(super) decode: Option<Measured>,
    /// Parallel regions of all decoding.
    pub(super) joins: u64,
    pub(super) memory: Memory,
    /// If experts are streamed, and what that took.
    pub(super) streaming: Option<Streaming>,
    pub(super) prefill_streamed: Option<CacheStats>,
    pub(super) decode_streamed: Option<CacheStats>,
    /// Bytes per second.
    pub(super) read_bandwidth: f64,
    /// Per second.
    pub(super) product_rate: f64,
}

/// What a token costs, whatever computes it.
pub(super) struct Work {
    size: u64,
    parameters: u64,
    bits_per_weight: f64,
    layers: usize,
    experts: Option<usize>,
    /// Bytes of weights that decoding one token reads.
    bytes_per_token: u64,
    /// Bytes of those that belong to routed experts.
    routed_per_token: u64,
    /// Products of weights that one token of a prompt takes: no head, and attention not counted.
    products_per_token: u64,
}

impl Work {
    pub(super) fn of(weights: &Weights, config: &Config) -> Self {
        let tensors = weights.tensors().iter().map(|tensor| &tensor.info);
        let demand = Demand::of(weights.metadata(), tensors);
        let routed = demand.group(TensorGroup::RoutedExperts);
        // The file's number of active experts may have been overridden.
        let experts = config.experts.as_ref().map(|experts| experts.used);
        let said = demand.experts.map_or(1, |experts| experts.used.max(1));
        let asked = experts.map_or(said, |used| used as u64);
        let change = |all: u64, routed: u64| all - routed + routed / said * asked;
        let lookup = [TensorGroup::Embedding, TensorGroup::Head].map(|group| demand.group(group));
        let lookup: u64 = lookup.iter().map(|usage| usage.active_parameters).sum();
        Self {
            size: demand.total.bytes,
            parameters: demand.parameters(),
            bits_per_weight: demand.bits_per_weight(),
            layers: config.layers,
            experts,
            bytes_per_token: change(demand.total.bytes_per_token, routed.bytes_per_token),
            routed_per_token: routed.bytes_per_token / said * asked,
            products_per_token: change(
                demand.total.active_parameters - lookup,
                routed.active_parameters,
            ),
        }
    }
}

/// Memory that this process takes, in bytes, as far as the system says so.
pub(super) struct Memory {
    /// The most so far; a mapped file counts as far as it was touched.
    pub(super) peak: Option<u64>,
    /// What is not a mapped file: cache, buffers, weights in another form. It never shrinks.
    anonymous: Option<u64>,
    /// What of it is in huge pages.
    huge: Option<u64>,
}

impl Memory {
    pub(super) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib =
            line.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        Self {
            peak: system::memory_peak(),
            anonymous: kib.map(|kib| kib * 1024),
            huge: system::huge_pages(),
        }
    }
}

/// The runs of one part.
pub(super) struct Measured {
    tokens: usize,
    depth: usize,
    /// Tokens per second of each run, in their order.
    rates: Vec<f64>,
}

impl Measured {
    /// Of runs that took these `seconds`; at least one.
    pub(super) fn new(tokens: usize, depth: usize, seconds: Vec<f64>) -> Self {
        let rate = |seconds: f64| tokens as f64 / seconds.max(1e-9);
        Self { tokens, depth, rates: seconds.into_iter().map(rate).collect() }
    }

    fn min(&self) -> f64 {
        self.rates.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn max(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn median(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        let middle = rates.len() / 2;
        if rates.len().is_multiple_of(2) {
            (rates[middle - 1] + rates[middle]) / 2.0
        } else {
            rates[middle]
        }
    }

    fn json(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "depth": self.depth,
            "tokens_per_second": self.median(),
            "tokens_per_second_min": self.min(),
            "tokens_per_second_max": self.max(),
            "runs": self.rates,
        })
    }

    fn line(&self, name: &str) -> String {
        let rates = [self.median(), self.min(), self.max()].map(|rate| format!("{rate:>10.2}"));
        let ms = 1e3 / self.median();
        format!("{name:<8}{:>8}{:>8}{}{ms:>12.3}\n", self.tokens, self.depth, rates.concat())
    }
}

impl Report {
    /// Tokens that were decoded at a time, and the median of their rates.
    pub(super) fn decoded(&self) -> Option<(usize, f64)> {
        self.decode.as_ref().map(|decode| (decode.tokens, decode.median()))
    }

    /// Bytes of weights read per second while decoding.
    fn bytes_per_second(&self) -> Option<f64> {
        Some(self.decode.as_ref()?.median() * self.work.bytes_per_token as f64)
    }

    /// Products made per second while reading a prompt.
    fn products_per_second(&self) -> Option<f64> {
        Some(self.prefill.as_ref()?.median() * self.work.products_per_token as f64)
    }

    fn joins_per_token(&self) -> Option<f64> {
        let decode = self.decode.as_ref()?;
        Some(self.joins as f64 / (decode.tokens * decode.rates.len()) as f64)
    }

    /// What streaming took in a part, in plain units.
    fn streamed_json(part: Option<&Measured>, stats: Option<CacheStats>) -> Option<Value> {
        let (part, stats) = (part?, stats?);
        let tokens = (part.tokens * part.rates.len()) as f64;
        let seconds: f64 = part.rates.iter().map(|rate| part.tokens as f64 / rate).sum();
        Some(json!({
            "hit_rate": stats.hit_rate(),
            "misses_per_token": stats.misses as f64 / tokens,
            "bytes_per_token": stats.bytes as f64 / tokens,
            "read_bytes_per_second": stats.read_rate(),
            "foreseen_per_token": stats.prefetch_hits as f64 / tokens,
            "wasted_per_token": stats.prefetch_unused as f64 / tokens,
            "router_agreement": stats.agreement(),
            "waited_fraction": stats.waited.as_secs_f64() / seconds,
        }))
    }

    /// What batches of decoding read.
    pub(super) fn reads(&self) -> Reads {
        let work = &self.work;
        let routed = work.routed_per_token as f64;
        Reads {
            shared: work.bytes_per_token as f64 - routed,
            expert: routed / work.experts.unwrap_or(1).max(1) as f64,
            bandwidth: self.read_bandwidth,
        }
    }

    /// Everything, in plain units: bytes, seconds, tokens.
    pub(super) fn json(&self) -> Value {
        let work = &self.work;
        let part = |part: &Option<Measured>| part.iter().map(Measured::json).collect::<Vec<_>>();
        let layers = work.layers.max(1) as f64;
        json!({
            "machine": crate::hardware::identity(),
            "model": {
                "name": self.name,
                "bytes": work.size,
                "parameters": work.parameters,
                "bits_per_weight": work.bits_per_weight,
                "layers": work.layers,
                "experts_used": work.experts,
            },
            "threads": self.threads,
            "tier": self.tier.to_string(),
            "kv_type": self.kv_type.to_string(),
            "cache_bytes_per_token": self.cache_bytes_per_token,
            "load_seconds": self.load_time.as_secs_f64(),
            "prefill": part(&self.prefill),
            "decode": part(&self.decode),
            "streaming": self.streaming.as_ref().map(|streaming| json!({
                "cache_bytes": streaming.cache_bytes(),
                "reader": streaming.rate.reader,
                "direct": streaming.rate.direct,
                "drive_bytes_per_second": streaming.rate.bytes_per_second,
                "prefill": Self::streamed_json(self.prefill.as_ref(), self.prefill_streamed),
                "decode": Self::streamed_json(self.decode.as_ref(), self.decode_streamed),
            })),
            "weight_bytes_per_token": work.bytes_per_token,
            "weight_bytes_per_second": self.bytes_per_second(),
            "read_bandwidth_bytes_per_second": self.read_bandwidth,
            "read_bandwidth_fraction": self.bytes_per_second().map(|b| b / self.read_bandwidth),
            "products_per_token": work.products_per_token,
            "products_per_second": self.products_per_second(),
            "product_rate_per_second": self.product_rate,
            "product_rate_fraction": self.products_per_second().map(|p| p / self.product_rate),
            "joins_per_token": self.joins_per_token(),
            "joins_per_layer": self.joins_per_token().map(|joins| joins / layers),
            "peak_memory_bytes": self.memory.peak,
            "anonymous_memory_bytes": self.memory.anonymous,
            "huge_page_bytes": self.memory.huge,
        })
    }

    /// The page for people.
    pub(super) fn text(&self) -> String {
        let work = &self.work;
        let runs = self.prefill.iter().chain(&self.decode).map(|part| part.rates.len()).max();
        let runs = match runs {
            None | Some(1) => "one run".to_owned(),
            Some(runs) => format!("medians of {runs} runs"),
        };
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        let mut page = format!(
            "{}\n{} parameters, {:.2} bits each, {}; {} layers{}\n",
            self.name,
            units::parameters(work.parameters),
            work.bits_per_weight,
            gb(work.size as f64),
            work.layers,
            work.experts.map(|used| format!(", {used} experts per token")).unwrap_or_default(),
        );
        page += &format!(
            "{} {threads}, {}, cache in {}; loaded in {}; {runs}\n\n",
            self.threads,
            self.tier,
            self.kv_type,
            units::seconds(self.load_time.as_secs_f64()),
        );
        page += &format!(
            "{:<8}{:>8}{:>8}{:>10}{:>10}{:>10}{:>12}\n",
            "", "tokens", "depth", "tok/s", "slowest", "fastest", "ms/token"
        );
        page.extend(self.prefill.as_ref().map(|part| part.line("prefill")));
        page.extend(self.decode.as_ref().map(|part| part.line("decode")));
        page + "\n" + &self.bounds()
    }

    /// How near to the machine's limits it came, and what it took.
    fn bounds(&self) -> String {
        let mut lines = String::new();
        let mut line = |name: &str, text: String| lines += &format!("{name:<10}{text}\n");
        if let Some(rate) = self.bytes_per_second() {
            let (token, all) = (self.work.bytes_per_token as f64, self.read_bandwidth);
            let caches = if rate > all { "; it fits the caches" } else { "" };
            line(
                "weights",
                format!(
                    "{} read per decoded token: {}/s, {:.0} % of the {}/s that this memory delivers{caches}",
                    gb(token),
                    gb(rate),
                    100.0 * rate / all,
                    gb(all)
                ),
            );
        }
        if let Some(rate) = self.products_per_second() {
            let (token, all) = (self.work.products_per_token as f64, self.product_rate);
            line(
                "products",
                format!(
                    "{} made per token of the prompt: {}/s, {:.0} % of the {}/s of a plain Q8_0 product",
                    giga(token),
                    giga(rate),
                    100.0 * rate / all,
                    giga(all)
                ),
            );
        }
        if let Some(joins) = self.joins_per_token() {
            let layer = joins / self.work.layers.max(1) as f64;
            line("joins", format!("{joins:.0} per decoded token, {layer:.1} per layer"));
        }
        if let Some(streaming) = &self.streaming {
            line("experts", terminal::streaming(streaming));
            let parts = [
                ("prefill", self.prefill.as_ref(), self.prefill_streamed),
                ("decode", self.decode.as_ref(), self.decode_streamed),
            ];
            for (name, part, stats) in parts {
                if let (Some(part), Some(stats)) = (part, stats) {
                    let tokens = part.tokens * part.rates.len();
                    let seconds: f64 = part.rates.iter().map(|r| part.tokens as f64 / r).sum();
                    let time = Duration::from_secs_f64(seconds);
                    let text = terminal::streamed(streaming, &stats, tokens, time);
                    line("", format!("{name}: {text}"));
                    terminal::slow_drive(streaming, &stats)
                        .into_iter()
                        .for_each(|text| line("", text));
                }
            }
        }
        if let Some(peak) = self.memory.peak {
            let own = self.memory.anonymous;
            let own = own.map(|own| format!(", {} of it besides the file", gb(own as f64)));
            let huge = self.memory.huge.filter(|&bytes| bytes > 0);
            let huge = huge.map(|bytes| format!(", {} in huge pages", gb(bytes as f64)));
            let (own, huge) = (own.unwrap_or_default(), huge.unwrap_or_default());
            line("memory", format!("{} at most{own}{huge}", gb(peak as f64)));
        }
        lines
    }
}

/// `14.23 GB`, `8.9 MB`: decimal, unlike sizes elsewhere.
fn gb(bytes: f64) -> String {
    if bytes >= 1e9 { format!("{:.2} GB", bytes / 1e9) } else { format!("{:.1} MB", bytes / 1e6) }
}

/// `1.23 T`, `37.1 G`, `2.4 M`.
fn giga(count: f64) -> String {
    match count {
        1e12.. => format!("{:.2} T", count / 1e12),
        1e9.. => format!("{:.1} G", count / 1e9),
        _ => format!("{:.1} M", count / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let median = |seconds: &[f64]| Measured::new(12, 0, seconds.to_vec()).median();
        assert_eq!(median(&[4.0]), 3.0);
        assert_eq!(median(&[6.0, 2.0, 4.0]), 3.0);
        assert_eq!(median(&[2.0, 6.0, 3.0, 4.0]), 3.5);
    }

    #[test]
    fn numbers_choose_their_unit() {
        assert_eq!((gb(14.2e9), gb(8.9e6)), ("14.20 GB".to_owned(), "8.9 MB".to_owned()));
        assert_eq!((giga(1.2e12), giga(2.4e6)), ("1.20 T".to_owned(), "2.4 M".to_owned()));
    }
}
