//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
//!
//! A layer remembers one latent and one rotated key per token, for all heads. Decoding and short
//! batches multiply the key projection into the queries and attend to the latents themselves; long
//! batches expand latents to keys and values of every head, a run of the cache at a time, which is a
//! third of the arithmetic per pair of tokens. Both read the cache as it is stored.

use cachalot_kernels::attention::{
    Attention, AttentionSegment, ExpandedQueries, ExpandedRun, ExpandedShape, Heads,
};
use cachalot_kernels::{ActBits, Activations, Cpu, Product, Tokens, Weighted, ops};

use super::config::Config;
use super::weights::KeysValues;
use crate::Error;
use crate::bind::{Binder, Weight};
use crate::kv::LatentRows;
use crate::rope::{Rope, rotate};
use crate::rows::norm_rows;
use crate::scratch::{AllRows, ensure_len, recycle};

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

/// What attention works with; the first fields are set for a batch, the others used within a layer.
#[derive(Debug, Default)]
pub(crate) struct MlaScratch {
    past: usize,
    tokens: usize,
    angles: Vec<f32>,     // [tokens, rope]: cosines and sines in turn
    rows: Vec<u32>,       // [heads, tokens]: t · heads + h, the rows of one head after the other
    x: Activations,       // [tokens, hidden]
    low: Vec<f32>,        // [tokens, q_rank], then [tokens, latent + rope]
    q_low: Activations,   // [tokens, q_rank]
    q: Vec<f32>,          // [tokens, heads, nope + rope]
    q_nope: Activations,  // [tokens · heads, nope]
    by_head: Vec<f32>,    // [heads, tokens, latent], then [heads, tokens, value]
    queries: Vec<f32>,    // [tokens, heads, latent + rope]
    latents: Activations, // [tokens · heads, latent], or [cache rows, latent]
    row: Vec<f32>,        // [latent + rope]
    derived: Vec<u8>,     // a layer's `attn_kv_b`, where the file has none
    kv: Vec<f32>,         // [cache rows, heads, nope + value]
    k_rope: Vec<f32>,     // [cache rows, rope]
    values: Activations,  // [tokens, heads · value]
    attention: Attention,
    products: Vec<Product<'static>>,
    all_rows: AllRows,
}

impl MlaScratch {
    /// Prepares for `tokens` tokens from position `past` on, in any layer.
    pub(crate) fn begin(&mut self, config: &Config, rope: &Rope, past: usize, tokens: usize) {
        (self.past, self.tokens) = (past, tokens);
        let angles = ensure_len(&mut self.angles, tokens * config.rope);
        for (t, angles) in angles.chunks_exact_mut(config.rope).enumerate() {
            rope.angles(past + t, angles);
        }
        let heads = config.heads;
        self.rows.clear();
        self.rows.extend((0..heads).flat_map(|h| (0..tokens).map(move |t| (t * heads + h) as u32)));
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

    /// Adds attention's output to `hidden` `[tokens, hidden]`, and stores the batch in the cache.
    /// `layer` is the cache's.
    pub(crate) fn forward(
        &self,
        cpu: &Cpu,
        config: &Config,
        (cache, layer): (&mut LatentRows, usize),
        expand: bool,
        s: &mut MlaScratch,
        hidden: &mut [f32],
    ) {
        self.project(cpu, config, (cache, layer), s, hidden);
        if expand {
            self.expanded(cpu, config, (cache, layer), s);
        } else {
            self.absorbed(cpu, config, (cache, layer), s);
        }
        let columns = Tokens::Range { start: 0, len: s.tokens };
        let (targets, weights) = s.all_rows.of(s.tokens);
        let output = Weighted {
            matrix: self.output.matrix().with_activations(ActBits::for_batch(s.tokens)),
            tokens: columns,
            targets,
            weights,
        };
        cpu.add_weighted(&mut s.values, &[output], hidden);
    }

    /// Rotated queries to `s.q`, latents and rotated keys to the cache.
    fn project(
        &self,
        cpu: &Cpu,
        config: &Config,
        (cache, layer): (&mut LatentRows, usize),
        s: &mut MlaScratch,
        hidden: &[f32],
    ) {
        let &Config { heads, nope, rope, latent, epsilon, .. } = config;
        let (tokens, key, width) = (s.tokens, nope + rope, latent + rope);
        let columns = Tokens::Range { start: 0, len: tokens };
        norm_rows(hidden, &self.norm, epsilon, &mut s.x);
        let (Query::Full(first) | Query::LowRank { a: first, .. }) = &self.query;
        let (first, kv_a) = (first.matrix(), self.kv_a.matrix());
        let q_len = tokens * first.rows();
        let low = ensure_len(&mut s.low, q_len + tokens * width);
        let products =
            [Product { matrix: first, tokens: columns }, Product { matrix: kv_a, tokens: columns }];
        cpu.multiply(&mut s.x, &products, low);
        let (q_low, kv) = low.split_at(q_len);
        let q = ensure_len(&mut s.q, tokens * heads * key);
        match &self.query {
            Query::Full(_) => q.copy_from_slice(q_low),
            Query::LowRank { norm, b, .. } => {
                norm_rows(q_low, norm, epsilon, &mut s.q_low);
                cpu.multiply(&mut s.q_low, &[Product { matrix: b.matrix(), tokens: columns }], q);
            }
        }
        let angles = s.angles.chunks_exact(rope);
        let row = ensure_len(&mut s.row, width);
        let per_token = q.chunks_exact_mut(heads * key).zip(kv.chunks_exact(width)).zip(angles);
        for (t, ((q, kv), angles)) in per_token.enumerate() {
            q.chunks_exact_mut(key).for_each(|head| rotate(&mut head[nope..], angles));
            ops::rms_norm(&kv[..latent], &self.kv_norm, epsilon, &mut row[..latent]);
            row[latent..].copy_from_slice(&kv[latent..]);
            rotate(&mut row[latent..], angles);
            cache.store(layer, s.past + t, row);
        }
    }

    /// Heads attend to latents: `s.q` to `s.values`.
    fn absorbed(
        &self,
        cpu: &Cpu,
        config: &Config,
        (cache, layer): (&LatentRows, usize),
        s: &mut MlaScratch,
    ) {
        let &Config { heads, nope, rope, latent, value, .. } = config;
        let (tokens, key, width) = (s.tokens, nope + rope, latent + rope);
        let rows = tokens * heads;
        let head_rows = |h: usize| h * tokens..(h + 1) * tokens;

        let q = &s.q[..rows * key];
        let q_nope = s.q_nope.reset(rows, nope);
        for (to, from) in q_nope.chunks_exact_mut(nope).zip(q.chunks_exact(key)) {
            to.copy_from_slice(&from[..nope]);
        }
        let mut products: Vec<Product<'_>> = std::mem::take(&mut s.products);
        products.extend((0..heads).map(|h| Product {
            matrix: self.keys_values.keys(h),
            tokens: Tokens::List(&s.rows[head_rows(h)]),
        }));
        let by_head = ensure_len(&mut s.by_head, rows * latent);
        cpu.multiply(&mut s.q_nope, &products, by_head);
        let queries = ensure_len(&mut s.queries, rows * width);
        for (&row, from) in s.rows.iter().zip(by_head.chunks_exact(latent)) {
            let row = row as usize;
            let to = &mut queries[row * width..][..width];
            to[..latent].copy_from_slice(from);
            to[latent..].copy_from_slice(&q[row * key + nope..][..rope]);
        }

        let latent_rows = cache.rows(layer, s.past + tokens);
        let latents = s.latents.reset(rows, latent);
        let segment = [AttentionSegment { rows: 0..tokens, past: s.past, latent: latent_rows }];
        let shape = Heads { count: heads, scale: config.attention_scale };
        s.attention.absorbed(cpu, queries, shape, &segment, latents);

        products = recycle(products);
        products.extend((0..heads).map(|h| Product {
            matrix: self.keys_values.values(h),
            tokens: Tokens::List(&s.rows[head_rows(h)]),
        }));
        let by_head = ensure_len(&mut s.by_head, rows * value);
        cpu.multiply(&mut s.latents, &products, by_head);
        s.products = recycle(products);
        let values = s.values.reset(tokens, heads * value);
        for (&row, from) in s.rows.iter().zip(by_head.chunks_exact(value)) {
            values[row as usize * value..][..value].copy_from_slice(from);
        }
    }

    /// Heads attend to their own keys and values: `s.q` to `s.values`.
    fn expanded(
        &self,
        cpu: &Cpu,
        config: &Config,
        (cache, layer): (&LatentRows, usize),
        s: &mut MlaScratch,
    ) {
        let &Config { heads, nope, rope, latent, value, .. } = config;
        let (tokens, seen) = (s.tokens, s.past + s.tokens);
        let shape = ExpandedShape { nope, rope, value };
        let matrix = self.keys_values.both(cpu, &mut s.derived);
        let q = &s.q[..tokens * heads * (nope + rope)];
        s.attention.begin(tokens, heads, value);
        let heads = Heads { count: heads, scale: config.attention_scale };
        let queries = ExpandedQueries { q, heads, past: s.past, shape };
        for first in (0..seen).step_by(CHUNK) {
            let n = CHUNK.min(seen - first);
            let k_rope = ensure_len(&mut s.k_rope, n * rope);
            let latents = s.latents.reset(n, latent);
            cache.rows(layer, seen).read(cpu, first..first + n, latents, k_rope);
            let kv = ensure_len(&mut s.kv, n * heads.count * (nope + value));
            let tokens = Tokens::Range { start: 0, len: n };
            cpu.multiply(&mut s.latents, &[Product { matrix, tokens }], kv);
            s.attention.accumulate(cpu, &queries, ExpandedRun { first, kv, k_rope });
        }
        s.attention.normalize(cpu, s.values.reset(tokens, heads.count * value));
    }
}
