//! The matrix of kernel tests: every format x tier x precision x kernel x shape x number of tokens.
//!
//! Fast kernels are compared with the reference kernel's weights, multiplied in f64; those with
//! 8-bit activations with exactly those activations, rounded here once more, so that a single wrong
//! weight shows. Weights are random bytes, so scales are extreme as often as not; blocks that
//! decode to infinities or NaN are drawn again, because no encoder writes them.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::block::{GEMV_256_MAX, GEMV_512_MAX, SHORT_COLS_512};
use crate::{ActBits, Activations, Cpu, Format, Kernel, Matrix, Product, Tier, Tokens};

/// Random numbers, the same in every run.
pub(crate) struct Random(fastrand::Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// Between -1 and 1.
    pub(crate) fn float(&mut self) -> f32 {
        self.0.f32() * 2.0 - 1.0
    }

    /// Random blocks that decode to finite weights.
    pub(crate) fn blocks(&mut self, format: Format, rows: usize, cols: usize) -> Vec<u8> {
        self.blocks_below(1e20, format, rows, cols)
    }

    fn blocks_below(&mut self, most: f32, format: Format, rows: usize, cols: usize) -> Vec<u8> {
        let mut bytes = vec![0; rows * format.row_bytes(cols).unwrap()];
        let mut weights = vec![0.0; format.block_len()];
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            loop {
                self.0.fill(block);
                format.decode(block, &mut weights);
                if weights.iter().all(|w| w.is_finite() && w.abs() < most) {
                    break;
                }
            }
        }
        bytes
    }
}

/// Says that something is not tested here, and how much that is so far.
pub(crate) fn skipped(what: &str) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    eprintln!("skipped ({count} so far): {what}");
}

/// The tiers of this machine; says which ones it lacks.
pub(crate) fn tiers() -> Vec<Tier> {
    let tiers: Vec<Tier> = Tier::available().collect();
    for name in ["avx2", "avx512", "amx"] {
        if tiers.iter().all(|tier| tier.to_string() != name) {
            skipped(&format!("no {name} on this machine"));
        }
    }
    tiers
}

/// All ways to choose a kernel.
const CHOICES: [(ActBits, Kernel); 6] = [
    (ActBits::Sixteen, Kernel::Fastest),
    (ActBits::Fourteen, Kernel::Fastest),
    (ActBits::Eight, Kernel::Fastest),
    (ActBits::Sixteen, Kernel::Gemv),
    (ActBits::Fourteen, Kernel::Gemm),
    (ActBits::Eight, Kernel::Gemm),
];

/// A product to test: `[rows, cols]` with `tokens` activations.
#[derive(Clone, Copy, Debug)]
struct Case {
    format: Format,
    tier: Tier,
    rows: usize,
    cols: usize,
    tokens: usize,
    bits: ActBits,
    kernel: Kernel,
}

impl Case {
    fn matrix(self, bytes: &[u8]) -> Matrix<'_> {
        let matrix = Matrix::new(self.format, self.rows, self.cols, bytes).unwrap();
        matrix.with_activations(self.bits).with_kernel(self.kernel)
    }

    /// `[tokens, rows]`.
    fn run(self, cpu: &Cpu, bytes: &[u8], x: &[f32]) -> Vec<f32> {
        assert_eq!(cpu.tier(), self.tier);
        let mut activations = Activations::new();
        activations.reset(self.tokens, self.cols).copy_from_slice(x);
        let mut out = vec![f32::NAN; self.rows * self.tokens];
        let tokens = Tokens::Range { start: 0, len: self.tokens };
        let product = Product { matrix: self.matrix(bytes), tokens };
        cpu.multiply(&mut activations, &[product], &mut out);
        out
    }

    fn is_float(self) -> bool {
        matches!(self.format, Format::F32 | Format::F16 | Format::BF16)
    }

    /// Whether activations are multiplied as 8-bit integers.
    fn is_i8(self) -> bool {
        let Self { tier, tokens: n, .. } = self;
        let gemv_max = if tier.has_avx512() { GEMV_512_MAX } else { GEMV_256_MAX };
        let wide = self.format.spec().avx512.as_ref().filter(|_| tier.has_avx512());
        let is_short = self.kernel == Kernel::Fastest
            && wide.is_some_and(|kernels| kernels.has_x16 && self.cols <= SHORT_COLS_512 * n);
        let is_gemm = n > gemv_max || is_short || self.kernel == Kernel::Gemm;
        let fits = tier.has_avx512()
            || self
                .format
                .spec()
                .avx2
                .as_ref()
                .is_some_and(|kernels| kernels.largest_byte.is_some());
        let tiles = tier.has_amx() && n > 256 && self.kernel == Kernel::Fastest;
        self.bits == ActBits::Eight && is_gemm && tier.has_avx2() && fits && !tiles
    }

    /// How far from the exact product, as a share of the sum of magnitudes.
    fn bound(self) -> f64 {
        let Self { tier, tokens: n, .. } = self;
        match self.kernel {
            _ if self.is_float() || tier.is_scalar() => 1e-6,
            _ if self.is_i8() => 1e-5,
            Kernel::Gemv => 3e-5,
            Kernel::Fastest if self.bits == ActBits::Sixteen || n <= GEMV_512_MAX => 3e-5,
            _ if tier.has_amx() && (n > 32 || self.kernel == Kernel::Gemm) => 1.0 / 256.0,
            _ if tier.has_avx512() => 3e-5,
            _ => 1.0 / 8192.0,
        }
    }

    fn check(self, cpu: &Cpu, bytes: &[u8], x: &[f32]) {
        let Self { rows, cols, tokens, .. } = self;
        let rounded =
            if self.is_i8() && !self.is_float() { round_to_i8(x, cols) } else { x.into() };
        let (out, bound) = (self.run(cpu, bytes, x), self.bound());
        let (matrix, mut row) = (self.matrix(bytes), vec![0.0; cols]);
        for r in 0..rows {
            matrix.row(r, &mut row);
            for t in 0..tokens {
                let (sum, magnitude) = expected(&row, &rounded[t * cols..][..cols]);
                let out = out[t * rows + r];
                let error = (f64::from(out) - sum).abs();
                assert!(
                    error <= magnitude * bound + 1e-30,
                    "{self:?} row {r} token {t}: {out} for {sum}, off by {:.2e} of the magnitude",
                    error / magnitude
                );
            }
        }
    }
}

/// What a product is, and the sum of magnitudes, counting each weight as large as the largest of
/// its 256 (codes have offsets that cancel).
fn expected(row: &[f32], x: &[f32]) -> (f64, f64) {
    let product = |(&w, &x): (&f32, &f32)| f64::from(w) * f64::from(x);
    let sum = row.iter().zip(x).map(product).sum();
    let magnitude = row.chunks(256).zip(x.chunks(256)).map(|(w, x)| {
        let largest = w.iter().fold(0.0f32, |a, w| a.max(w.abs()));
        f64::from(largest) * x.iter().map(|x| f64::from(x.abs())).sum::<f64>()
    });
    (sum, magnitude.sum())
}

/// Rows of `cols` activations as 8-bit integers with a scale for 32 represent them.
fn round_to_i8(x: &[f32], cols: usize) -> Vec<f32> {
    let round = |group: &[f32]| {
        let scale = group.iter().fold(0.0f32, |a, x| a.max(x.abs())) / 127.0;
        let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
        group.iter().map(|x| scale * (x * inverse).round_ties_even()).collect::<Vec<f32>>()
    };
    x.chunks(cols).flat_map(|row| row.chunks(32).flat_map(round)).collect()
}

#[test]
fn every_kernel_agrees_with_the_reference_kernel() {
    let mut random = Random::new(1);
    let cpus: Vec<Cpu> = tiers().into_iter().map(|tier| Cpu::new(2, tier)).collect();
    for format in Format::all() {
        let b = format.block_len().max(32);
        for (rows, cols) in [(1, b), (3, b * 3), (67, 512), (33, 768 + b % 256), (2, 2304)] {
            let bytes = random.blocks(format, rows, cols);
            for tokens in [1, 2, 3, 4, 5, 17, 40, 70] {
                let scale = [1.0, 1e-12, 1e10][random.next() as usize % 3];
                let x: Vec<f32> = (0..tokens * cols).map(|_| random.float() * scale).collect();
                for cpu in &cpus {
                    let tier = cpu.tier();
                    for (bits, kernel) in CHOICES {
                        if kernel != Kernel::Fastest && (tier.is_scalar() || tokens % 5 != 0) {
                            continue;
                        }
                        let case = Case { format, tier, rows, cols, tokens, bits, kernel };
                        case.check(cpu, &bytes, &x);
                    }
                }
            }
        }
    }
}

#[test]
fn very_large_and_very_small_activations_keep_their_precision() {
    let mut random = Random::new(2);
    let (rows, cols, tokens) = (5, 512, 6);
    let cpus: Vec<Cpu> = Tier::available().map(|tier| Cpu::new(2, tier)).collect();
    for format in [Format::Q8_0, Format::Q4_K, Format::IQ1_S, Format::Q6_K, Format::F16] {
        let bytes = random.blocks_below(1e3, format, rows, cols);
        for scale in [1e32f32, 1e-28, 3e-36, 1e-44, 0.0] {
            let x: Vec<f32> = (0..tokens * cols).map(|_| random.float() * scale).collect();
            for cpu in &cpus {
                let tier = cpu.tier();
                for (bits, kernel) in CHOICES {
                    let case = Case { format, tier, rows, cols, tokens, bits, kernel };
                    case.check(cpu, &bytes, &x);
                }
            }
        }
    }
}

/// With a kernel chosen by the caller, that is; and as long as the number of tokens chooses the
/// same.
#[test]
fn outputs_of_a_token_depend_neither_on_other_tokens_nor_on_threads() {
    let mut random = Random::new(8);
    let (rows, cols) = (75, 512 + 32);
    let cpus = Tier::available().map(|tier| [1, 2, 40].map(|threads| Cpu::new(threads, tier)));
    let cpus: Vec<[Cpu; 3]> = cpus.collect();
    for format in Format::all() {
        let cols = cols / format.block_len() * format.block_len();
        let bytes = random.blocks(format, rows, cols);
        let x: Vec<f32> = (0..67 * cols).map(|_| random.float()).collect();
        for [one, others @ ..] in &cpus {
            let tier = one.tier();
            for (bits, kernel) in CHOICES {
                if kernel == Kernel::Fastest {
                    continue;
                }
                let case = |tokens| Case { format, tier, rows, cols, tokens, bits, kernel };
                let all = case(67).run(one, &bytes, &x);
                for cpu in others {
                    assert_eq!(all, case(67).run(cpu, &bytes, &x), "{:?}", case(67));
                }
                for (first, tokens) in [(0, 1), (5, 2), (11, 5), (30, 37)] {
                    let some = case(tokens).run(one, &bytes, &x[first * cols..][..tokens * cols]);
                    let expected = &all[first * rows..][..tokens * rows];
                    assert_eq!(some, expected, "{:?} from {first}", case(tokens));
                }
            }
        }
    }
}

#[test]
fn a_nan_or_an_infinity_reaches_all_outputs_of_its_token_and_no_other() {
    let mut random = Random::new(9);
    let rows = 37;
    let cpus: Vec<Cpu> = Tier::available().map(|tier| Cpu::new(2, tier)).collect();
    for format in Format::all() {
        let cols = 768 / format.block_len().max(32) * format.block_len().max(32);
        let bytes = random.blocks(format, rows, cols);
        for cpu in &cpus {
            let tier = cpu.tier();
            for (bits, kernel) in CHOICES {
                for tokens in [1, 3, 6, 35] {
                    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                        let mut x: Vec<f32> = (0..tokens * cols).map(|_| random.float()).collect();
                        let (token, at) = (tokens / 2, random.next() as usize % cols);
                        x[token * cols + at] = bad;
                        let case = Case { format, tier, rows, cols, tokens, bits, kernel };
                        let out = case.run(cpu, &bytes, &x);
                        for (t, out) in out.chunks(rows).enumerate() {
                            let is_bad = |x: &f32| !x.is_finite();
                            let all = if t == token { out.iter().all(is_bad) } else { false };
                            let none = !out.iter().any(is_bad);
                            assert!(all || t != token && none, "{case:?} {bad} at {at}: {out:?}");
                        }
                    }
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
            for tokens in [1, 20] {
                let (bits, kernel) = (ActBits::Fourteen, Kernel::Fastest);
                let case = Case { format, tier, rows: 5, cols, tokens, bits, kernel };
                case.check(&Cpu::new(2, tier), &bytes, &vec![0.5; tokens * cols]);
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
