//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
//!
//! A layer keeps one latent and one rotated key per token, for all heads. In the absorbed form the
//! key projection is multiplied into the queries, which attend to the latents themselves; in the
//! expanded form latents are expanded to keys and values of every head, some rows of the cache at a
//! time, which is a third of the arithmetic per pair of tokens, for long chunks of prompts. Both
//! read the cache as it is stored.

use cachalot_kernels::attention::{
    Attention, AttentionSegment, Expanded, ExpandedShape, Expansion, Heads, expanded,
};
use cachalot_kernels::{
    Activations, Cpu, Heads as HeadOutputs, Inputs, Product, Tokens, Weighted, recycle,
};

use super::config::Config;
use super::weights::KeysValues;
use crate::Error;
use crate::bind::{Binder, Weight};
use crate::kv::KvPages;
use crate::precision::Precision;
use crate::rope::{Rope, rotate};
use crate::scratch::{AllRows, ensure_len, resize};
use crate::seam::{Batch, Phase, Segment};

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
    low: Vec<f32>, // [rows, q_rank], or [rows, heads, nope + rope]; then [rows, latent + rope]
    q_low: Activations, // [rows, q_rank]
    q: Vec<f32>,   // [rows, heads, nope + rope], unless they are in `low`
    q_nope: Activations, // [absorbed · heads, nope]
    queries: Vec<f32>, // [absorbed, heads, latent + rope]
    latents: Activations, // [absorbed · heads, latent]
    encoded: Vec<u8>, // [rows, bytes of a cache row]
    derived: Vec<u8>, // a layer's `attn_kv_b`, where the file has none
    expansion: Expansion,
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
        if s.is_expanded.contains(&true) {
            self.expanded(step, s, values);
        }
        let (targets, weights) = s.all_rows.of(rows);
        let matrix = step.precision.tolerant(self.output.matrix());
        let tokens = Tokens::Range { start: 0, len: rows };
        let output = Weighted { matrix, tokens, targets, weights };
        step.cpu.add_weighted(&mut inputs, &[output], hidden);
        s.values = inputs;
    }

    /// Queries, not yet rotated, to `s.q` or the first part of `s.low`; the rows of the cache to
    /// `s.encoded`.
    fn project(&self, step: &MlaStep<'_>, s: &mut MlaScratch, hidden: &[f32]) {
        let &MlaStep { cpu, config, precision, ref kv, .. } = step;
        let &Config { heads, nope, rope, latent, epsilon, .. } = config;
        let rows = step.batch.rows();
        let (wide, row_bytes) = (latent + rope, kv.row_bytes());
        let tokens = Tokens::Range { start: 0, len: rows };
        let (Query::Full(first) | Query::LowRank { a: first, .. }) = &self.query;
        let (first, kv_a) = (first.matrix(), self.kv_a.matrix());
        let product = |matrix| Product { matrix: precision.exacting(matrix), tokens };
        let norm = |row: usize, out: &mut [f32]| {
            cpu.rms_norm(&hidden[row * config.hidden..][..out.len()], &self.norm, epsilon, out);
        };
        let inputs = Inputs::made(&mut s.x, [rows, config.hidden], &norm);
        let low = ensure_len(&mut s.low, rows * (first.rows() + wide));
        cpu.multiply(inputs, &[product(first), product(kv_a)], low);

        let (first_low, kv_low) = low.split_at(rows * first.rows());
        let angles = &s.angles;
        let cache_row = |row: usize, out: &mut [u8]| {
            let low = &kv_low[row * wide..][..wide];
            kv.encode(out, |numbers| {
                cpu.rms_norm(&low[..latent], &self.kv_norm, epsilon, &mut numbers[..latent]);
                numbers[latent..].copy_from_slice(&low[latent..]);
                rotate(&mut numbers[latent..], &angles[row * rope..][..rope]);
            });
        };
        let encoded = &mut s.encoded;
        resize(encoded, rows * row_bytes);
        match &self.query {
            Query::Full(_) => cpu.for_costly_rows(encoded, row_bytes, wide, cache_row),
            Query::LowRank { norm, b, .. } => {
                let normed = |row: usize, out: &mut [f32]| {
                    cpu.rms_norm(&first_low[row * out.len()..][..out.len()], norm, epsilon, out);
                };
                let inputs = Inputs::made(&mut s.q_low, [rows, norm.len()], &normed);
                let inputs = inputs.beside(encoded, row_bytes, &cache_row);
                let q = ensure_len(&mut s.q, rows * heads * (nope + rope));
                cpu.multiply(inputs, &[product(b.matrix())], q);
            }
        }
    }

    /// Copies the rows of the cache to their pages.
    fn store(&self, step: &mut MlaStep<'_>, s: &MlaScratch) {
        let row_bytes = step.kv.row_bytes();
        for Segment { start, rows, pages, .. } in step.batch.segments {
            let bytes = &s.encoded[rows.start * row_bytes..rows.end * row_bytes];
            step.kv.store(step.layer, pages, *start, bytes);
        }
    }

    /// The queries of all rows, as they were projected.
    fn projected<'s>(&self, low: &'s mut [f32], q: &'s mut [f32]) -> &'s mut [f32] {
        if matches!(self.query, Query::Full(_)) { low } else { q }
    }

    /// Heads attend to latents: from the queries to `values` `[rows, heads · value]`.
    fn absorbed(&self, step: &MlaStep<'_>, s: &mut MlaScratch, values: &mut [f32]) {
        let &MlaStep { cpu, config, precision, .. } = step;
        let &Config { heads, nope, rope, latent, value, .. } = config;
        let (key, width) = (nope + rope, latent + rope);
        let count = s.absorbed.len();

        let mut products: Vec<Product<'_>> = recycle(std::mem::take(&mut s.products));
        for (h, rows) in s.head_rows.chunks_exact(count).enumerate() {
            let matrix = precision.exacting(self.keys_values.keys(h));
            products.push(Product { matrix, tokens: Tokens::List(rows) });
        }
        let q = &*self.projected(&mut s.low, &mut s.q);
        let (absorbed, angles, temperatures) = (&s.absorbed, &s.angles, &s.temperatures);
        let make = |a: usize, inputs: &mut [f32], out: &mut [f32]| {
            let row = absorbed[a] as usize;
            let angles = &angles[row * rope..][..rope];
            let q = q[row * heads * key..][..heads * key].chunks_exact(key);
            let to = inputs.chunks_exact_mut(nope).zip(out.chunks_exact_mut(width));
            for (q, (inputs, out)) in q.zip(to) {
                let rotated = &mut out[latent..];
                inputs.copy_from_slice(&q[..nope]);
                rotated.copy_from_slice(&q[nope..]);
                rotate(rotated, angles);
                if let Some(factor) = temperatures.get(row) {
                    inputs.iter_mut().chain(rotated).for_each(|number| *number *= factor);
                }
            }
        };
        s.q_nope.reset(count * heads, nope);
        let queries = ensure_len(&mut s.queries, count * heads * width);
        let to = HeadOutputs { numbers: queries, width, rows: s.all_rows.of(count).0 };
        cpu.multiply_heads(&mut s.q_nope, Some(&make), &products, to);
        s.products = recycle(products);

        self.attend(step, s);

        let mut products: Vec<Product<'_>> = recycle(std::mem::take(&mut s.products));
        for (h, rows) in s.head_rows.chunks_exact(count).enumerate() {
            let matrix = precision.exacting(self.keys_values.values(h));
            products.push(Product { matrix, tokens: Tokens::List(rows) });
        }
        let to = HeadOutputs { numbers: values, width: value, rows: &s.absorbed };
        cpu.multiply_heads(&mut s.latents, None, &products, to);
        s.products = recycle(products);
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

    /// Heads attend to their own keys and values: from the queries to `values`
    /// `[rows, heads · value]` of the segments in this form.
    fn expanded(&self, step: &MlaStep<'_>, s: &mut MlaScratch, values: &mut [f32]) {
        let &MlaStep { cpu, config, batch, .. } = step;
        let &Config { heads, nope, rope, value, .. } = config;
        let mut segments: Vec<AttentionSegment<'_>> = recycle(std::mem::take(&mut s.segments));
        for (segment, _) in batch.segments.iter().zip(&s.is_expanded).filter(|(_, is)| **is) {
            let (rows, past) = (segment.rows.clone(), segment.start);
            let latent = step.kv.rows(step.layer, segment.pages, past + rows.len());
            segments.push(AttentionSegment { rows, past, latent });
        }
        let (angles, temperatures) = (&s.angles, &s.temperatures);
        let rotated = |row: usize, q: &mut [f32]| {
            let angles = &angles[row * rope..][..rope];
            q.chunks_exact_mut(nope + rope).for_each(|head| rotate(&mut head[nope..], angles));
            if let Some(factor) = temperatures.get(row) {
                q.iter_mut().for_each(|number| *number *= factor);
            }
        };
        let queries = self.projected(&mut s.low, &mut s.q);
        let what = Expanded {
            queries: &mut queries[..batch.rows() * heads * (nope + rope)],
            rotate: &rotated,
            heads: Heads { count: heads, scale: config.attention_scale },
            shape: ExpandedShape { nope, rope, value },
            matrix: step.precision.exacting(self.keys_values.both(cpu, &mut s.derived)),
            segments: &segments,
        };
        expanded(cpu, what, &mut s.expansion, values);
        s.segments = recycle(segments);
    }
}
