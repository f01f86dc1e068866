//! One kernel_tests for every format, tier, shape and number of columns: fast paths against the scalar
//! twin's weights, multiplied in f64.
//!
//! Weights are random bytes, so scales are extreme as often as not; blocks that decode to infinities
//! or NaN are drawn again, because no encoder writes them.

use crate::{ActBits, Activations, Cpu, Format, Matrix, Product, Tier, Tokens};

/// Xorshift: the tests must not depend on anything that changes.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Between -1 and 1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Random blocks that decode to finite weights.
    pub(crate) fn blocks(&mut self, format: Format, rows: usize, cols: usize) -> Vec<u8> {
        let mut bytes = vec![0; rows * format.row_bytes(cols).unwrap()];
        let mut weights = vec![0.0; format.block_len()];
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            loop {
                block.iter_mut().for_each(|b| *b = self.next() as u8);
                format.decode(block, &mut weights);
                if weights.iter().all(|w| w.is_finite() && w.abs() < 1e20) {
                    break;
                }
            }
        }
        bytes
    }
}

/// What a product is, and how far a tier may be from it: a share of the sum of magnitudes, counting
/// each weight as large as the largest of its 256 (codes have offsets that cancel).
fn expected(row: &[f32], x: &[f32]) -> (f64, f64) {
    let product = |(&w, &x): (&f32, &f32)| f64::from(w) * f64::from(x);
    let sum = row.iter().zip(x).map(product).sum();
    let magnitude = row.chunks(256).zip(x.chunks(256)).map(|(w, x)| {
        let largest = w.iter().fold(0.0f32, |a, w| a.max(w.abs()));
        f64::from(largest) * x.iter().map(|x| f64::from(x.abs())).sum::<f64>()
    });
    (sum, magnitude.sum())
}

fn check(format: Format, tier: Tier, (rows, cols, n): (usize, usize, usize), bytes: &[u8]) {
    let mut random = Random::new((rows * 31 + cols * 7 + n) as u64);
    let cpu = Cpu::new(2, tier);
    let mut inputs = Activations::new();
    let scale = [1.0, 1e-12, 1e10][random.next() as usize % 3];
    let x: Vec<f32> = (0..n * cols).map(|_| random.float() * scale).collect();
    inputs.reset(n, cols).copy_from_slice(&x);
    let plain = Matrix::new(format, rows, cols, bytes).unwrap();
    for matrix in [plain, plain.with_activations(ActBits::Eight)] {
        let mut out = vec![f32::NAN; rows * n];
        let columns = Tokens::Range { start: 0, len: n };
        cpu.multiply(&mut inputs, &[Product { matrix, tokens: columns }], &mut out);
        // Few columns meet inputs of 16 bits; many, bf16 on tiles, 8 bits where that will do, 16 with AVX-512,
        // or words of 14.
        let few = if tier.has_avx512() && (matrix.act_bits() == ActBits::Eight) { 3 } else { 4 };
        let bound = match n {
            _ if n <= few => 3e-5,
            _ if tier.has_amx() && n > 32 => 1.0 / 256.0,
            _ if tier.has_avx2() && (matrix.act_bits() == ActBits::Eight) => 1.0 / 256.0,
            _ if tier.has_avx512() => 3e-5,
            _ => 1.0 / 8192.0,
        };
        let mut row = vec![0.0; cols];
        for r in 0..rows {
            matrix.row(r, &mut row);
            for c in 0..n {
                let (sum, magnitude) = expected(&row, &x[c * cols..][..cols]);
                let error = (f64::from(out[c * rows + r]) - sum).abs();
                assert!(
                    error <= magnitude * bound + 1e-30,
                    "{format} {tier} [{rows} x {cols}] row {r} column {c} of {n}: {} for {sum}, \
                     off by {:.2e} of the magnitude",
                    out[c * rows + r],
                    error / magnitude
                );
            }
        }
    }
}

#[test]
fn every_format_tier_and_shape_agrees_with_the_scalar_twin() {
    let mut random = Random::new(1);
    for format in Format::all() {
        let b = format.block_len().max(32);
        for (rows, cols) in [(1, b), (3, b * 3), (67, 512), (33, 768 + b % 256), (2, 2304)] {
            let bytes = random.blocks(format, rows, cols);
            for tier in Tier::available() {
                for n in [1, 2, 3, 4, 5, 17, 40, 70] {
                    check(format, tier, (rows, cols, n), &bytes);
                }
            }
        }
    }
}

#[test]
fn zero_bytes_are_zero_weights() {
    for format in Format::all() {
        let cols = format.block_len().max(32) * 2;
        let bytes = vec![0; 5 * format.row_bytes(cols).unwrap()];
        for tier in Tier::available() {
            for n in [1, 20] {
                check(format, tier, (5, cols, n), &bytes);
            }
        }
    }
}

/// The last block of a narrow row is read together with what follows it, which must not matter.
#[test]
fn a_row_of_nan_spoils_no_other() {
    let mut random = Random::new(3);
    for format in Format::all().filter(|f| f.block_len() < 256) {
        for cols in [format.block_len().max(32), 128, 448] {
            let width = format.row_bytes(cols).unwrap();
            let mut bytes = random.blocks(format, 5, cols);
            for row in [1, 3] {
                bytes[row * width..][..width].fill(0xff);
            }
            let mut row = vec![0.0; cols];
            for tier in Tier::available() {
                let cpu = Cpu::new(1, tier);
                let mut inputs = Activations::new();
                inputs.reset(1, cols).fill(1.0);
                let matrix = Matrix::new(format, 5, cols, &bytes).unwrap();
                let mut out = [0.0; 5];
                let columns = Tokens::one(0);
                cpu.multiply(&mut inputs, &[Product { matrix, tokens: columns }], &mut out);
                for r in [0, 2, 4] {
                    matrix.row(r, &mut row);
                    let (sum, magnitude) = expected(&row, &vec![1.0; cols]);
                    let error = (f64::from(out[r]) - sum).abs();
                    assert!(
                        error <= magnitude * 3e-5,
                        "{format} {tier} {cols}: {} for {sum}",
                        out[r]
                    );
                }
            }
        }
    }
}

#[test]
fn lists_gather_scatter_and_fuse_as_said() {
    let (rows, cols, n) = (70, 512, 24);
    let mut random = Random::new(5);
    let bytes: Vec<Vec<u8>> = (0..4).map(|_| random.blocks(Format::Q8_0, rows, cols)).collect();
    let matrix = |i: usize| Matrix::new(Format::Q8_0, rows, cols, &bytes[i]).unwrap();
    let x: Vec<f32> = (0..n * cols).map(|_| random.float() * 1e-4).collect();
    let picks: Vec<u32> = vec![3, 3, 0, 23, 7, 11, 12];
    let exact = Cpu::new(1, Tier::SCALAR);
    for tier in Tier::available() {
        let cpu = Cpu::new(3, tier);
        let run = |cpu: &Cpu| {
            let mut inputs = Activations::new();
            inputs.reset(n, cols).copy_from_slice(&x);
            let columns = Tokens::List(&picks);
            let mut hidden = vec![0.0; (picks.len() + 2) * rows];
            let list = [
                crate::GateUp { gate: matrix(0), up: matrix(1), tokens: columns },
                crate::GateUp {
                    gate: matrix(2),
                    up: matrix(3),
                    tokens: Tokens::Range { start: 5, len: 2 },
                },
            ];
            cpu.gate_up(&mut inputs, &list, &mut hidden);
            let mut out = vec![1.0; 3 * rows];
            let (targets, weights) = ([2, 0, 0, 1, 2, 1, 0], [0.5, 1.0, -1.0, 2.0, 3.0, 0.0, 1.0]);
            let list = [
                crate::Weighted {
                    matrix: matrix(1),
                    tokens: columns,
                    targets: &targets,
                    weights: &weights,
                },
                crate::Weighted {
                    matrix: matrix(2),
                    tokens: Tokens::one(9),
                    targets: &[1],
                    weights: &[1.0],
                },
            ];
            cpu.add_weighted(&mut inputs, &list, &mut out);
            (hidden, out)
        };
        let ((h, o), (h1, o1)) = (run(&cpu), run(&exact));
        for (a, b) in [(&h, &h1), (&o, &o1)] {
            let largest = b.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            for (a, b) in a.iter().zip(b) {
                assert!((a - b).abs() <= largest * 0.03, "{tier}: {a} for {b}");
            }
        }
    }
}
