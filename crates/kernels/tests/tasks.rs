//! Work is divided so that many threads have some, at the shape of DeepSeek-R1: tasks are counted,
//! not timed, and nothing is computed.

use cachalot_kernels::attention::{
    Attention, AttentionSegment, EXPANDED_ROWS, Expanded, ExpandedShape, Expansion, Heads, Latent,
    PAGE_ROWS, expanded,
};
use cachalot_kernels::{
    ActBits, Activations, Cpu, Format, GateUp, Matrix, Product, Tier, Tokens, Weighted,
};

const HIDDEN: usize = 7168;
const HEADS: usize = 128;
const LATENT: usize = 512;
const ROPE: usize = 64;
const NOPE: usize = 128;
const VALUE: usize = 128;
const QUERY_RANK: usize = 1536;
const EXPERT: usize = 2048;
const EXPERTS: usize = 256;
const PICKED: usize = 8;

/// What one thread does in a microsecond: an upper bound, so that no region counts as short that is
/// not. Weights are read, activations multiplied (8 bits), attention's sums made, numbers moved.
const BYTES_PER_US: f64 = 20e3;
const PRODUCTS_PER_US: f64 = 250e3;
const ATTENTION_PER_US: f64 = 60e3;
const NUMBERS_PER_US: f64 = 4e3;
/// Regions that take one thread so long need work for all.
const LONG_US: f64 = 50.0;

/// A processor that counts, and zeros for all weights.
struct Counter {
    cpu: Cpu,
    zeros: Vec<u8>,
}

/// As the model has it: one token is decoded, more are a prompt.
fn bits_of(tokens: usize) -> ActBits {
    if tokens == 1 { ActBits::Sixteen } else { ActBits::Eight }
}

impl Counter {
    fn matrix(&self, rows: usize, cols: usize) -> Matrix<'_> {
        let format = Format::Q4_K;
        let format = if cols.is_multiple_of(256) { format } else { Format::Q8_0 };
        let bytes = rows * format.row_bytes(cols).expect("whole blocks");
        Matrix::new(format, rows, cols, &self.zeros[..bytes]).expect("bytes of this shape")
    }

    /// Panics if a region of those since the last call that is long has work for too few threads.
    /// The last one is what was called, and takes `us`; before it, `numbers` are brought into form.
    fn check(&self, what: &str, us: f64, numbers: usize) {
        let counts = self.cpu.pool().take_counts();
        let threads = self.cpu.pool().threads();
        assert!(!counts.is_empty(), "{what}: nothing ran");
        for (i, &tasks) in counts.iter().enumerate() {
            let is_last = i + 1 == counts.len();
            let us = if is_last { us } else { numbers as f64 / NUMBERS_PER_US };
            assert!(
                us < LONG_US || tasks * 10 >= threads * 9,
                "{what}, region {i} of {us:.0} us: {tasks} tasks for {threads} threads"
            );
        }
    }

    fn product_us(&self, matrices: &[Matrix<'_>], tokens: usize) -> f64 {
        let bytes: usize = matrices.iter().map(|matrix| matrix.bytes().len()).sum();
        let weights: usize = matrices.iter().map(|matrix| matrix.rows() * matrix.cols()).sum();
        (bytes as f64 / BYTES_PER_US).max((weights * tokens) as f64 / PRODUCTS_PER_US)
    }

    fn multiply(&self, what: &str, matrices: &[Matrix<'_>], tokens: usize) {
        let cols = matrices[0].cols();
        let mut activations = Activations::new();
        activations.reset(tokens, cols);
        let all = Tokens::Range { start: 0, len: tokens };
        let products: Vec<_> =
            matrices.iter().map(|&matrix| Product { matrix, tokens: all }).collect();
        let rows: usize = matrices.iter().map(Matrix::rows).sum();
        self.cpu.multiply(&mut activations, &products, &mut vec![0.0; rows * tokens]);
        self.check(what, self.product_us(matrices, tokens), tokens * cols);
    }

    /// The products of attention around the softmax.
    fn projections(&self, tokens: usize) {
        let low = [self.matrix(QUERY_RANK, HIDDEN), self.matrix(LATENT + ROPE, HIDDEN)];
        self.multiply("low ranks", &low, tokens);
        let queries = self.matrix(HEADS * (NOPE + ROPE), QUERY_RANK);
        self.multiply("queries", &[queries], tokens);
        let output = self.matrix(HIDDEN, HEADS * VALUE);
        self.add("output", &[output], tokens, &[0]);
    }

    fn add(&self, what: &str, matrices: &[Matrix<'_>], tokens: usize, target: &[u32]) {
        let cols = matrices[0].cols();
        let mut activations = Activations::new();
        activations.reset(tokens, cols);
        let (targets, weights) = (target.repeat(tokens), vec![1.0; tokens]);
        let list = matrices.iter().map(|&matrix| Weighted {
            matrix,
            tokens: Tokens::Range { start: 0, len: tokens },
            targets: &targets,
            weights: &weights,
        });
        let list: Vec<_> = list.collect();
        self.cpu.add_weighted(&mut activations, &list, &mut vec![0.0; HIDDEN * tokens]);
        self.check(what, self.product_us(matrices, tokens), tokens * cols);
    }

    /// The router, and the experts that it picks: with many tokens, all of them.
    fn experts(&self, tokens: usize) {
        let row_bytes = Format::F32.row_bytes(HIDDEN).expect("whole blocks");
        let router = Matrix::new(Format::F32, EXPERTS, HIDDEN, &self.zeros[..EXPERTS * row_bytes])
            .expect("bytes of this shape");
        self.multiply("router", &[router], tokens);
        let experts = EXPERTS.min(PICKED * tokens);
        let each = (PICKED * tokens).div_ceil(experts);
        let list: Vec<u32> = (0..each as u32).collect();
        let gate = self.matrix(EXPERT, HIDDEN).with_activations(bits_of(tokens));
        let entry = GateUp { gate, up: gate, tokens: Tokens::List(&list) };
        let mut activations = Activations::new();
        activations.reset(tokens.max(each), HIDDEN);
        let entries = vec![entry; experts];
        let mut out = vec![0.0; experts * each * EXPERT];
        self.cpu.gate_up(&mut activations, &entries, &mut out);
        let us = self.product_us(&vec![gate; 2 * experts], each);
        self.check("gate and up", us, tokens * HIDDEN);
        let down = self.matrix(HIDDEN, EXPERT).with_activations(bits_of(tokens));
        self.add("down", &vec![down; experts], each, &[0]);
    }

    fn absorbed(&self, past: usize, tokens: usize) {
        let (width, len) = (LATENT + ROPE, past + tokens);
        let pages: Vec<u32> = (0..len.div_ceil(PAGE_ROWS) as u32).collect();
        let bytes = vec![0u8; pages.len() * PAGE_ROWS * width * 2];
        let (format, bytes, pages) = (Format::F16, &bytes[..], &pages[..]);
        let latent = Latent { format, bytes, pages, len, width, values: LATENT };
        let segment = [AttentionSegment { rows: 0..tokens, past, latent }];
        let queries = vec![0.0; tokens * HEADS * width];
        let mut out = vec![0.0; tokens * HEADS * LATENT];
        let heads = Heads { count: HEADS, scale: 1.0 };
        Attention::new().absorbed(&self.cpu, &queries, heads, &segment, &mut out);
        let counts = self.cpu.pool().take_counts();
        let pairs = tokens as f64 * (past as f64 + tokens as f64 / 2.0);
        let us = pairs * HEADS as f64 * (width + LATENT) as f64 / ATTENTION_PER_US;
        let threads = self.cpu.pool().threads();
        for (region, tasks) in counts.into_iter().enumerate() {
            assert!(
                us < LONG_US || tasks * 10 >= threads * 9,
                "absorbed, region {region}: {tasks} tasks for {threads} threads, {past} {tokens}"
            );
        }
    }

    fn expanded(&self, past: usize, tokens: usize) {
        let (width, len) = (LATENT + ROPE, past + tokens);
        let pages = vec![0; len.div_ceil(PAGE_ROWS)];
        let bytes = vec![0u8; PAGE_ROWS * width * 2];
        let (format, bytes, pages) = (Format::F16, &bytes[..], &pages[..]);
        let latent = Latent { format, bytes, pages, len, width, values: LATENT };
        let what = Expanded {
            queries: &mut vec![0.0; tokens * HEADS * (NOPE + ROPE)],
            rotate: &|_, _| {},
            heads: Heads { count: HEADS, scale: 1.0 },
            shape: ExpandedShape { nope: NOPE, rope: ROPE, value: VALUE },
            matrix: self.matrix(HEADS * (NOPE + VALUE), LATENT),
            segments: &[AttentionSegment { rows: 0..tokens, past, latent }],
        };
        let mut out = vec![0.0; tokens * HEADS * VALUE];
        expanded(&self.cpu, what, &mut Expansion::default(), &mut out);
        // Of each piece of the cache, rows are read, expanded and attended to.
        let (counts, threads) = (self.cpu.pool().take_counts(), self.cpu.pool().threads());
        assert_eq!(counts.len(), 3 * len.div_ceil(EXPANDED_ROWS) + 1);
        for (phase, &tasks) in counts.iter().enumerate() {
            let rows = EXPANDED_ROWS.min(len.saturating_sub(phase / 3 * EXPANDED_ROWS));
            let is_read = phase % 3 == 0 && rows > 0;
            let us = if is_read { (rows * width) as f64 / NUMBERS_PER_US } else { f64::INFINITY };
            assert!(
                us < LONG_US || tasks * 10 >= threads * 9,
                "expanded, phase {phase} of {us:.0} us: {tasks} tasks for {threads} threads"
            );
        }
    }
}

fn counters() -> impl Iterator<Item = Counter> {
    let tiers: Vec<Tier> = Tier::available().skip(1).collect();
    tiers.into_iter().flat_map(|tier| {
        [64, 192]
            .map(|threads| Counter { cpu: Cpu::counting(threads, tier), zeros: vec![0; 1 << 27] })
    })
}

#[test]
fn in_decoding_nine_of_ten_threads_have_work() {
    for counter in counters() {
        for tokens in [1, 2] {
            counter.projections(tokens);
            counter.experts(tokens);
        }
        for depth in [16, 256, 32 << 10] {
            counter.absorbed(depth, 1);
        }
    }
}

#[test]
fn in_prompts_nine_of_ten_threads_have_work() {
    for counter in counters() {
        for tokens in [16, 512, 2048] {
            counter.projections(tokens);
            counter.experts(tokens);
            for past in [0, 4096] {
                counter.expanded(past, tokens.max(128));
            }
        }
        counter.absorbed(0, 16);
        counter.absorbed(32 << 10, 16);
        counter.absorbed(0, 127);
    }
}
