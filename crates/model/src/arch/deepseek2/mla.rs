//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
//!
//! A layer keeps one latent and one rotated key per token, for all heads. In the absorbed form the
//! key projection is multiplied into the queries, which attend to the latents themselves; in the
//! expanded form latents are expanded to keys and values of every head, some rows of the cache at a
//! time, which is a third of the arithmetic per pair of tokens, for long chunks of prompts. Both
//! read the cache as it is stored.

use std::ops::Range;

use cachalot_kernels::attention::{
    Attention, AttentionSegment, ExpandedQueries, ExpandedRun, ExpandedShape, Heads,
};
use cachalot_kernels::{Activations, Cpu, Product, Tokens, Weighted, ops};

use super::config::Config;
use super::weights::KeysValues;
use crate::Error;
use crate::bind::{Binder, Weight};
use crate::kv::KvPages;
use crate::precision::Precision;
use crate::rope::{Rope, rotate};
use crate::scratch::{AllRows, ensure_len, recycle, resize};
use crate::seam::{Batch, Phase, Segment};

/// Cache rows that are expanded at a time: 64 MiB of keys and values on R1.
const CHUNK: usize = 512;

/// The attention of one layer.
#[derive(Debug)]
pub(crate) struct Mla {
    norm: Vec<f32>, // [hidden]
    query: Query,
    kv_a: Weight,      // [latent + rope, hidden]
    kv_norm: Vec<f32>, // [latent]
    keys_values: KeysValues,
    output: Weight, // [hidden, heads · value]
}

/// The query projection: one matrix in V2-Lite, two of low rank in the others.
#[derive(Debug)]
enum Query {
    Full(Weight), // [heads · (nope + rope), hidden]
    LowRank {
        a: Weight,      // [q_rank, hidden]
        norm: Vec<f32>, // [q_rank]
        b: Weight,      // [heads · (nope + rope), q_rank]
    },
}

/// What a layer's attention needs besides its weights.
pub(crate) struct MlaStep<'a> {
    pub(crate) cpu: &'a Cpu,
    pub(crate) config: &'a Config,
    pub(crate) batch: &'a Batch<'a>,
    pub(crate) precision: Precision,
    pub(crate) kv: &'a mut KvPages,
    /// The layer, as the pages count it.
    pub(crate) layer: usize,
}

/// When a segment attends in the expanded form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FormChoice {
    /// Rows of a prompt's chunk from which on it does.
    pub(crate) expanded_from: usize,
}

impl FormChoice {
    fn is_expanded(self, segment: &Segment<'_>, precision: Precision) -> bool {
        segment.phase == Phase::Prefill
            && segment.rows.len() >= self.expanded_from
            && !precision.reproducible
    }
}

/// The memory of attention. The first fields are set for a batch, the others within a layer.
#[derive(Debug, Default)]
pub(crate) struct MlaScratch {
    angles: Vec<f32>,              // [rows, rope]: cosines and sines in turn
    temperatures: Vec<f32>,        // [rows], or empty: factors on queries
    absorbed: Vec<u32>,            // rows that attend in the absorbed form
    absorbed_at: Vec<Option<u32>>, // [rows]: the index in `absorbed`
    is_expanded: Vec<bool>,        // [segments]
    head_rows: Vec<u32>, // [heads, absorbed]: a · heads + h, the rows of one head after the other
    x: Activations,      // [rows, hidden]
    low: Vec<f32>,       // [rows, q_rank], then [rows, latent + rope]
    q_low: Activations,  // [rows, q_rank]
    q: Vec<f32>,         // [rows, heads, nope + rope]
    q_nope: Activations, // [absorbed · heads, nope]
    by_head: Vec<f32>,   // [heads, absorbed, latent], then [heads, absorbed, value]
    queries: Vec<f32>,   // [absorbed, heads, latent + rope]
    latents: Activations, // [absorbed · heads, latent], or [cache rows, latent]
    cache_rows: Vec<f32>, // [rows, latent + rope]
    encoded: Vec<u8>,    // [rows, bytes of a cache row]
    derived: Vec<u8>,    // a layer's `attn_kv_b`, where the file has none
    kv: Vec<f32>,        // [cache rows, heads, nope + value]
    k_rope: Vec<f32>,    // [cache rows, rope]
    values: Activations, // [rows, heads · value]
    attention: Attention,
    segments: Vec<AttentionSegment<'static>>,
    products: Vec<Product<'static>>,
    all_rows: AllRows,
}

impl MlaScratch {
    /// Prepares for a batch, in any layer.
    pub(crate) fn begin(
        &mut self,
        config: &Config,
        rope: &Rope,
        batch: &Batch<'_>,
        form: FormChoice,
        precision: Precision,
    ) {
        let angles = ensure_len(&mut self.angles, batch.rows() * config.rope);
        let mut angles = angles.chunks_exact_mut(config.rope);
        self.absorbed.clear();
        self.absorbed_at.clear();
        self.temperatures.clear();
        self.is_expanded.clear();
        for segment in batch.segments {
            for (position, angles) in
                (segment.start..).zip(angles.by_ref().take(segment.rows.len()))
            {
                rope.angles(position, angles);
                self.temperatures.extend(config.temperature.map(|t| t.at(position)));
            }
            let is_expanded = form.is_expanded(segment, precision);
            self.is_expanded.push(is_expanded);
            for row in segment.rows.clone() {
                self.absorbed_at.push((!is_expanded).then_some(self.absorbed.len() as u32));
                self.absorbed.extend((!is_expanded).then_some(row as u32));
            }
        }
        let (heads, rows) = (config.heads as u32, self.absorbed.len() as u32);
        self.head_rows.clear();
        self.head_rows.extend((0..heads).flat_map(|h| (0..rows).map(move |a| a * heads + h)));
    }
}

impl Mla {
    pub(crate) fn bind(
        binder: Binder<'_>,
        cpu: &Cpu,
        layer: usize,
        config: &Config,
    ) -> Result<Self, Error> {
        let &Config { hidden, heads, nope, rope, value, latent, .. } = config;
        let name = |part: &str| format!("blk.{layer}.attn_{part}.weight");
        let queries = heads * (nope + rope);
        let query = match config.q_rank {
            None => Query::Full(binder.matrix(&name("q"), queries, hidden)?),
            Some(rank) => Query::LowRank {
                a: binder.matrix(&name("q_a"), rank, hidden)?,
                norm: binder.vector(&name("q_a_norm"), rank)?,
                b: binder.matrix(&name("q_b"), queries, rank)?,
            },
        };
        Ok(Self {
            norm: binder.vector(&name("norm"), hidden)?,
            query,
            kv_a: binder.matrix(&name("kv_a_mqa"), latent + rope, hidden)?,
            kv_norm: binder.vector(&name("kv_a_norm"), latent)?,
            keys_values: KeysValues::bind(binder, cpu, layer, config)?,
            output: binder.matrix(&name("output"), hidden, heads * value)?,
        })
    }

    /// Adds attention's output to `hidden` `[rows, hidden]`, and stores the batch in its pages.
    pub(crate) fn forward(&self, step: &mut MlaStep<'_>, s: &mut MlaScratch, hidden: &mut [f32]) {
        self.project(step, s, hidden);
        self.store(step, s);
        let rows = step.batch.rows();
        let width = step.config.heads * step.config.value;
        let mut inputs = std::mem::take(&mut s.values);
        let values = inputs.reset(rows, width);
        if !s.absorbed.is_empty() {
            self.absorbed(step, s, values);
        }
        for (index, segment) in step.batch.segments.iter().enumerate() {
            if s.is_expanded[index] {
                let Range { start, end } = segment.rows;
                self.expanded(step, segment, s, &mut values[start * width..end * width]);
            }
        }
        let (targets, weights) = s.all_rows.of(rows);
        let matrix = step.precision.tolerant(self.output.matrix());
        let tokens = Tokens::Range { start: 0, len: rows };
        let output = Weighted { matrix, tokens, targets, weights };
        step.cpu.add_weighted(&mut inputs, &[output], hidden);
        s.values = inputs;
    }

    /// Rotated queries to `s.q`, latents and keys to the second part of `s.low`.
    fn project(&self, step: &MlaStep<'_>, s: &mut MlaScratch, hidden: &[f32]) {
        let &MlaStep { cpu, config, precision, .. } = step;
        let &Config { heads, nope, rope, latent, epsilon, .. } = config;
        let (rows, key) = (step.batch.rows(), nope + rope);
        let all = Tokens::Range { start: 0, len: rows };
        cpu.rms_norm_rows(hidden, &self.norm, epsilon, s.x.reset(rows, config.hidden));
        let (Query::Full(first) | Query::LowRank { a: first, .. }) = &self.query;
        let (first, kv_a) = (first.matrix(), self.kv_a.matrix());
        let q_len = rows * first.rows();
        let low = ensure_len(&mut s.low, q_len + rows * (latent + rope));
        let product = |matrix| Product { matrix: precision.exacting(matrix), tokens: all };
        cpu.multiply(&mut s.x, &[product(first), product(kv_a)], low);
        let q = ensure_len(&mut s.q, rows * heads * key);
        match &self.query {
            Query::Full(_) => cpu.for_rows(q, heads * key, |row, q| {
                q.copy_from_slice(&low[row * q.len()..][..q.len()]);
            }),
            Query::LowRank { norm, b, .. } => {
                let q_low = s.q_low.reset(rows, norm.len());
                cpu.rms_norm_rows(&low[..q_len], norm, epsilon, q_low);
                cpu.multiply(&mut s.q_low, &[product(b.matrix())], q);
            }
        }
        let (angles, temperatures) = (&s.angles, &s.temperatures);
        cpu.for_rows(q, heads * key, |row, q| {
            let angles = &angles[row * rope..][..rope];
            q.chunks_exact_mut(key).for_each(|head| rotate(&mut head[nope..], angles));
            if let Some(factor) = temperatures.get(row) {
                q.iter_mut().for_each(|number| *number *= factor);
            }
        });
    }

    /// Normalized latents and rotated keys to the pages.
    fn store(&self, step: &mut MlaStep<'_>, s: &mut MlaScratch) {
        let &mut MlaStep { cpu, config, ref mut kv, .. } = step;
        let &Config { rope, latent, epsilon, .. } = config;
        let (width, row_bytes) = (latent + rope, kv.row_bytes());
        let rows = step.batch.rows();
        let (Query::Full(first) | Query::LowRank { a: first, .. }) = &self.query;
        let low = &s.low[rows * first.rows()..][..rows * width];
        let angles = &s.angles;
        let cache_rows = ensure_len(&mut s.cache_rows, rows * width);
        cpu.for_rows(cache_rows, width, |row, out| {
            let low = &low[row * width..][..width];
            ops::rms_norm(&low[..latent], &self.kv_norm, epsilon, &mut out[..latent]);
            out[latent..].copy_from_slice(&low[latent..]);
            rotate(&mut out[latent..], &angles[row * rope..][..rope]);
        });
        let cache_rows = &*cache_rows;
        resize(&mut s.encoded, rows * row_bytes);
        cpu.for_rows(&mut s.encoded, row_bytes, |row, out| {
            kv.encode(&cache_rows[row * width..][..width], out);
        });
        for Segment { start, rows, pages, .. } in step.batch.segments {
            let bytes = &s.encoded[rows.start * row_bytes..rows.end * row_bytes];
            kv.store(step.layer, pages, *start, bytes);
        }
    }

    /// Heads attend to latents: from `s.q` to `values` `[rows, heads · value]`.
    fn absorbed(&self, step: &MlaStep<'_>, s: &mut MlaScratch, values: &mut [f32]) {
        let &MlaStep { cpu, config, precision, .. } = step;
        let &Config { heads, nope, rope, latent, value, .. } = config;
        let (key, width) = (nope + rope, latent + rope);
        let count = s.absorbed.len();
        let (q, absorbed) = (&s.q, &s.absorbed);
        let q_of = |a: usize| &q[absorbed[a] as usize * heads * key..][..heads * key];

        cpu.for_rows(s.q_nope.reset(count * heads, nope), heads * nope, |a, to| {
            for (to, from) in to.chunks_exact_mut(nope).zip(q_of(a).chunks_exact(key)) {
                to.copy_from_slice(&from[..nope]);
            }
        });
        let mut products: Vec<Product<'_>> = recycle(std::mem::take(&mut s.products));
        for (h, rows) in s.head_rows.chunks_exact(count).enumerate() {
            let matrix = precision.exacting(self.keys_values.keys(h));
            products.push(Product { matrix, tokens: Tokens::List(rows) });
        }
        let by_head = ensure_len(&mut s.by_head, count * heads * latent);
        cpu.multiply(&mut s.q_nope, &products, by_head);
        s.products = recycle(products);
        let by_head = &*by_head;
        let queries = ensure_len(&mut s.queries, count * heads * width);
        cpu.for_rows(queries, heads * width, |a, to| {
            let heads = to.chunks_exact_mut(width).zip(q_of(a).chunks_exact(key)).enumerate();
            for (h, (to, q)) in heads {
                to[..latent].copy_from_slice(&by_head[(h * count + a) * latent..][..latent]);
                to[latent..].copy_from_slice(&q[nope..]);
            }
        });

        self.attend(step, s);

        let mut products: Vec<Product<'_>> = recycle(std::mem::take(&mut s.products));
        for (h, rows) in s.head_rows.chunks_exact(count).enumerate() {
            let matrix = precision.exacting(self.keys_values.values(h));
            products.push(Product { matrix, tokens: Tokens::List(rows) });
        }
        let by_head = ensure_len(&mut s.by_head, count * heads * value);
        cpu.multiply(&mut s.latents, &products, by_head);
        s.products = recycle(products);
        let (by_head, absorbed_at) = (&*by_head, &s.absorbed_at);
        cpu.for_rows(values, heads * value, |row, to| {
            let Some(a) = absorbed_at[row] else { return };
            for (h, to) in to.chunks_exact_mut(value).enumerate() {
                let from = (h * count + a as usize) * value;
                to.copy_from_slice(&by_head[from..][..value]);
            }
        });
    }

    /// From `s.queries` to `s.latents`.
    fn attend(&self, step: &MlaStep<'_>, s: &mut MlaScratch) {
        let &MlaStep { cpu, config, .. } = step;
        let &Config { heads, rope, latent, .. } = config;
        let count = s.absorbed.len() * heads;
        let mut segments: Vec<AttentionSegment<'_>> = recycle(std::mem::take(&mut s.segments));
        let mut first = 0;
        for (segment, is_expanded) in step.batch.segments.iter().zip(&s.is_expanded) {
            if *is_expanded || segment.rows.is_empty() {
                continue;
            }
            let (past, len) = (segment.start, segment.rows.len());
            let latent = step.kv.rows(step.layer, segment.pages, past + len);
            segments.push(AttentionSegment { rows: first..first + len, past, latent });
            first += len;
        }
        let heads = Heads { count: heads, scale: config.attention_scale };
        let queries = &s.queries[..count * (latent + rope)];
        let latents = s.latents.reset(count, latent);
        s.attention.absorbed(cpu, queries, heads, &segments, latents);
        s.segments = recycle(segments);
    }

    /// Heads attend to their own keys and values: from `s.q` to `values` `[rows, heads · value]` of
    /// one segment.
    fn expanded(
        &self,
        step: &MlaStep<'_>,
        segment: &Segment<'_>,
        s: &mut MlaScratch,
        values: &mut [f32],
    ) {
        let &MlaStep { cpu, config, .. } = step;
        let &Config { heads, nope, rope, latent, value, .. } = config;
        let (tokens, past) = (segment.rows.len(), segment.start);
        let seen = past + tokens;
        let shape = ExpandedShape { nope, rope, value };
        let matrix = step.precision.exacting(self.keys_values.both(cpu, &mut s.derived));
        let key = heads * (nope + rope);
        let q = &s.q[segment.rows.start * key..segment.rows.end * key];
        let cache = step.kv.rows(step.layer, segment.pages, seen);
        s.attention.begin(tokens, heads, value);
        let heads = Heads { count: heads, scale: config.attention_scale };
        let queries = ExpandedQueries { q, heads, past, shape };
        for first in (0..seen).step_by(CHUNK) {
            let n = CHUNK.min(seen - first);
            let k_rope = ensure_len(&mut s.k_rope, n * rope);
            cache.read(cpu, first..first + n, s.latents.reset(n, latent), k_rope);
            let kv = ensure_len(&mut s.kv, n * heads.count * (nope + value));
            let tokens = Tokens::Range { start: 0, len: n };
            cpu.multiply(&mut s.latents, &[Product { matrix, tokens }], kv);
            s.attention.accumulate(cpu, &queries, ExpandedRun { first, kv, k_rope });
        }
        s.attention.normalize(cpu, values);
    }
}
