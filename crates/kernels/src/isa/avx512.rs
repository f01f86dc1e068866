//! The AVX-512 driver: gemv, products of one or two tokens, straight from the file's layout.
//!
//! A format's [`Codes512`] turns 256 weights into four registers of unsigned bytes with scales and
//! minima: `weight = scale · code + min`. One `vpdpbusd` then multiplies 64 codes with 64 inputs;
//! inputs have 16 bits as two bytes, so that quantizing them costs no accuracy to speak of and the
//! unpacking, which is the larger part, is paid once. Registers that share their scales are summed
//! as integers first ([`Order::chain`]).

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_epi32, _mm512_add_ps, _mm512_cmplt_epu8_mask, _mm512_cvtepi32_ps,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_mov_ps,
    _mm512_reduce_add_ps, _mm512_set1_epi8, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_slli_epi32,
};

use super::{
    AHEAD, Blocks, Kernels512, NATURAL, Order, Row, Rows, SplitI16Row, Sums, TailBlock, amx,
    prefetch,
};

pub(crate) mod int;
pub(crate) mod panel;

/// Blocks whose indices are found at once.
const RUN: usize = 8;

/// 256 weights, unpacked: `weight = scale · code + min`.
#[derive(Clone, Copy)]
pub(crate) struct Unpacked512 {
    /// Unsigned codes in the format's order.
    pub(crate) codes: [__m512i; 4],
    /// Scales by lane; only the first [`Order::streams`] count.
    pub(crate) scale: [__m512; 4],
    /// Minima by group of 16 weights, in natural order.
    pub(crate) min: __m512,
}

/// How 256 weights of a format come out of their bytes.
///
/// # Safety
/// `unpack` must not read outside `at..at + BYTES`.
pub(crate) unsafe trait Codes512 {
    /// Bytes of 256 weights.
    const BYTES: usize;
    /// The order of the codes.
    const ORDER: &'static Order;
    /// Weights that share scale and minimum, at least: 16 or 32.
    const GROUP: usize;
    /// Where all minima are as many times the negative scale: the power of two.
    const OFFSET: Option<u32>;
    /// Whether the codes contain what scales differ by, so that a block has but one.
    const IS_UNIFORM: bool = false;

    /// Whether vectors are looked up one by one.
    const LOOKS_UP: bool = false;

    /// Where the vectors of the 256 weights at `at` are, if they are looked up.
    ///
    /// # Safety
    /// `BYTES` bytes at `at` are readable; the CPU has this tier's instructions.
    unsafe fn indices(_at: *const u8) -> Indices {
        Indices::NONE
    }

    /// Unpacks the 256 weights at `at`.
    ///
    /// # Safety
    /// As for `indices`, which are those of these weights if `LOOKS_UP`.
    unsafe fn unpack(at: *const u8, indices: &Indices) -> Unpacked512;

    /// Whether [`Codes512::unpack_x16`] is there.
    const HAS_X16: bool = false;

    /// Unpacks the first `bytes` of a block of sixteen rows at once, which takes fewer moves than
    /// row by row. What the rows do not have is left as it is in the panel.
    ///
    /// # Safety
    /// `bytes` bytes at each of `rows` are readable, up to `BYTES`, `to` has room for a block; the
    /// CPU has this tier's instructions.
    unsafe fn unpack_x16(_rows: &panel::Rows16, _bytes: usize, _to: panel::Panel16) {
        unreachable!("only if HAS_X16")
    }

    /// What was unpacked from `at`, with minima as `OFFSET` has it if they were others.
    ///
    /// # Safety
    /// As for `indices`.
    unsafe fn with_offset(_at: *const u8, weights: Unpacked512) -> Unpacked512 {
        weights
    }
}

/// Places of 32 vectors, four to a number, the first lowest. They come from a vector register by
/// way of memory: read at once they would have to wait until they are written, so those of several
/// blocks are found before the first is used.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Indices(pub(crate) [u64; 8]);

impl Indices {
    /// Those of a format that looks nothing up, and of blocks to come.
    pub(crate) const NONE: Self = Self([0; 8]);
}

/// The kernels of a format, for its `SPEC`.
pub(crate) const fn kernels<F: Codes512>() -> Kernels512 {
    const { assert!(F::BYTES <= size_of::<TailBlock>()) };
    Kernels512 {
        order: F::ORDER,
        group: F::GROUP,
        offset: F::OFFSET,
        is_uniform: F::IS_UNIFORM,
        has_x16: F::HAS_X16,
        gemv: gemv::<F>,
        unpack: panel::unpack::<F>,
        tiles: amx::tiles::<F>,
    }
}

/// Products of `rows` with one or two tokens: `out[c * rows.count + r]`.
///
/// # Safety
/// As for [`Kernels512::gemv`]: the CPU has the tier; `rows`, `tokens` and `out` are as long as
/// `blocks` says.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
unsafe fn gemv<F: Codes512>(rows: Rows, blocks: Blocks, tokens: &[SplitI16Row], out: *mut f32) {
    let mut padded = TailBlock::new();
    let tail = Tail::of::<F>(blocks);
    for r in 0..rows.count {
        // SAFETY: rows and outputs are in bounds by this function's contract; `tokens` has the
        // length that each arm asks for.
        unsafe {
            let row = padded.row(rows, r, blocks, F::BYTES);
            let out = Sums { first: out.add(r), stride: rows.count };
            match tokens {
                [a] => dot::<F, 1>(row, blocks, [a], &tail, out),
                [a, b] => dot::<F, 2>(row, blocks, [a, b], &tail, out),
                _ => unreachable!("one or two tokens"),
            }
        }
    }
}

/// Which scales and minima of a row's last block are of weights that the row has; codes of others
/// are multiplied with activations that are zero.
struct Tail {
    scale: [u16; 4],
    min: u16,
    /// Registers of codes that have such weights.
    registers: usize,
}

impl Tail {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn of<F: Codes512>(blocks: Blocks) -> Self {
        let weights = blocks.tail * 256 / F::BYTES;
        // SAFETY: there are 64 places.
        let places = unsafe { _mm512_loadu_si512(F::ORDER.quads.as_ptr().cast()) };
        let exist = _mm512_cmplt_epu8_mask(places, _mm512_set1_epi8((weights / 4) as i8));
        let scale = std::array::from_fn(|s| (exist >> (s * F::ORDER.chain % 4 * 16)) as u16);
        let registers = match F::ORDER.chain {
            1 if F::ORDER.is_same(&NATURAL) => weights.div_ceil(64),
            _ => 4,
        };
        Self { scale, min: ((1u32 << (weights / 16)) - 1) as u16, registers }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn cut(&self, weights: &mut Unpacked512) {
        for (scale, mask) in weights.scale.iter_mut().zip(self.scale) {
            *scale = _mm512_maskz_mov_ps(mask, *scale);
        }
        weights.min = _mm512_maskz_mov_ps(self.min, weights.min);
    }
}

/// Indices of block `block` of rows that are unpacked together, if the format looks them up.
///
/// # Safety
/// The block, as far as the rows have it, is readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
pub(crate) unsafe fn find_indices<F: Codes512>(
    indices: &mut [Indices],
    rows: Rows,
    block: usize,
    blocks: Blocks,
    padded: &mut TailBlock,
) {
    if F::LOOKS_UP {
        for (r, indices) in indices.iter_mut().enumerate().take(rows.count) {
            // SAFETY: by contract.
            *indices = unsafe {
                let at = rows.start.add(r * rows.stride + block * F::BYTES);
                F::indices(padded.pad(at, block, blocks))
            };
        }
    }
}

/// One row with `C` tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
unsafe fn dot<F: Codes512, const C: usize>(
    row: Row,
    blocks: Blocks,
    tokens: [&SplitI16Row; C],
    kept: &Tail,
    out: Sums,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; C];
    let mut indices = [Indices::NONE; RUN];
    for (from, all) in [(row.whole, 0..blocks.whole), (row.tail, blocks.whole..blocks.count())] {
        let length = if F::LOOKS_UP { RUN } else { usize::MAX };
        for first in all.clone().step_by(length) {
            let run = first..all.end.min(first.saturating_add(length));
            // SAFETY: all these blocks of the row and of every token are in bounds.
            unsafe {
                if F::LOOKS_UP {
                    for (b, indices) in run.clone().zip(&mut indices) {
                        *indices = F::indices(from.wrapping_add(b * F::BYTES));
                    }
                }
                for b in run {
                    prefetch(row.whole.wrapping_add(b * F::BYTES + AHEAD), F::BYTES);
                    let at = from.wrapping_add(b * F::BYTES);
                    // Longer runs are of formats that look nothing up.
                    let mut weights = F::unpack(at, &indices[(b - first) % RUN]);
                    if b < blocks.whole {
                        add_block::<F, C, 4>(&weights, b, tokens, &mut sums);
                        continue;
                    }
                    kept.cut(&mut weights);
                    match kept.registers {
                        1 => add_block::<F, C, 1>(&weights, b, tokens, &mut sums),
                        2 => add_block::<F, C, 2>(&weights, b, tokens, &mut sums),
                        _ => add_block::<F, C, 4>(&weights, b, tokens, &mut sums),
                    }
                }
            }
        }
    }
    for (c, [products, minima]) in sums.into_iter().enumerate() {
        // SAFETY: `out` has `C` tokens from here on.
        unsafe { *out.from(c).first = _mm512_reduce_add_ps(_mm512_add_ps(products, minima)) };
    }
}

/// Adds the products of one block of 256 weights, of which the first `R` registers count, with `C`
/// tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
unsafe fn add_block<F: Codes512, const C: usize, const R: usize>(
    weights: &Unpacked512,
    block: usize,
    tokens: [&SplitI16Row; C],
    sums: &mut [[__m512; 2]; C],
) {
    let streams = R / F::ORDER.chain;
    for (token, [products, minima]) in tokens.into_iter().zip(sums) {
        // SAFETY: every array of a token has this block, by the contract of `gemv`.
        unsafe {
            let input = |plane: *const i8, i: usize| {
                _mm512_loadu_si512(plane.add(block * 256 + i * 64).cast())
            };
            let mut sum = _mm512_setzero_ps();
            for s in 0..streams {
                let registers = s * F::ORDER.chain..(s + 1) * F::ORDER.chain;
                let (mut high, mut low) = (_mm512_setzero_si512(), _mm512_setzero_si512());
                for i in registers.clone() {
                    high = _mm512_dpbusd_epi32(high, weights.codes[i], input(token.high, i));
                }
                high = _mm512_slli_epi32::<8>(high);
                // Going on from it saves an addition, but of longer chains the latency would be
                // waited for.
                if F::ORDER.chain == 1 {
                    std::mem::swap(&mut high, &mut low);
                }
                for i in registers {
                    low = _mm512_dpbusd_epi32(low, weights.codes[i], input(token.low, i));
                }
                let t = if F::ORDER.chain == 1 { low } else { _mm512_add_epi32(high, low) };
                sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(t), weights.scale[s], sum);
            }
            let input_scale = _mm512_set1_ps(*token.scale.add(block));
            *products = _mm512_fmadd_ps(sum, input_scale, *products);
            let inputs = _mm512_loadu_ps(token.sums.add(block * 16));
            *minima = _mm512_fmadd_ps(weights.min, inputs, *minima);
        }
    }
}

/// Weights that are floats, sixteen at a time.
///
/// # Safety
/// `sixteen` must not read outside `at..at + 16 * BYTES`.
pub(crate) unsafe trait Floats512 {
    /// Bytes of one weight.
    const BYTES: usize;

    /// The 16 weights at `at`.
    ///
    /// # Safety
    /// They are readable; the CPU has this tier's instructions.
    unsafe fn sixteen(at: *const u8) -> __m512;
}

/// Products of rows of floats with 1 to 4 tokens.
///
/// # Safety
/// As for [`super::FloatGemv`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn float_gemv<F: Floats512>(
    rows: Rows,
    cols: usize,
    tokens: &[&[f32]],
    out: *mut f32,
) {
    for r in 0..rows.count {
        // SAFETY: rows and outputs are in bounds by this function's contract.
        unsafe {
            let row = rows.start.add(r * rows.stride);
            let mut sums = [[_mm512_setzero_ps(); 2]; 4];
            let mut i = 0;
            while i + 32 <= cols {
                prefetch(row.wrapping_add(i * F::BYTES + AHEAD), 32 * F::BYTES);
                let first = F::sixteen(row.add(i * F::BYTES));
                let second = F::sixteen(row.add((i + 16) * F::BYTES));
                for (token, sums) in tokens.iter().zip(&mut sums) {
                    let x = token.as_ptr().add(i);
                    sums[0] = _mm512_fmadd_ps(first, _mm512_loadu_ps(x), sums[0]);
                    sums[1] = _mm512_fmadd_ps(second, _mm512_loadu_ps(x.add(16)), sums[1]);
                }
                i += 32;
            }
            let rest = cols - i;
            if rest > 0 {
                let mut weights = [0u8; 128];
                let tail = row.add(i * F::BYTES);
                tail.copy_to_nonoverlapping(weights.as_mut_ptr(), rest * F::BYTES);
                for (token, sums) in tokens.iter().zip(&mut sums) {
                    let mut inputs = [0.0f32; 32];
                    inputs[..rest].copy_from_slice(&token[i..]);
                    for (half, sum) in sums.iter_mut().enumerate() {
                        let w = F::sixteen(weights.as_ptr().add(half * 16 * F::BYTES));
                        let x = _mm512_loadu_ps(inputs.as_ptr().add(half * 16));
                        *sum = _mm512_fmadd_ps(w, x, *sum);
                    }
                }
            }
            for (c, [first, second]) in sums.into_iter().enumerate().take(tokens.len()) {
                *out.add(c * rows.count + r) = _mm512_reduce_add_ps(_mm512_add_ps(first, second));
            }
        }
    }
}
