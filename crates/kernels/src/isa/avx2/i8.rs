//! Gemm on AVX2: weights and activations as bytes, rows side by side.
//!
//! ```text
//! codes    [groups of 8 rows][2 blocks][64 quads of weights][8 rows][4]  u8, biased
//! factors  [groups of 8 rows][2 blocks][scales, then minima][16 groups of weights][8 rows]   f32
//! ```
//! `vpmaddubsw` multiplies 32 bytes and adds them by twos to 16 bits. Each 32 bits are a row, and
//! the four inputs are the same for all rows. Half as many instructions as words take
//! ([`super::i14`]); inputs have 8 bits and a scale for 32 of them ([`crate::ActBits::Eight`]). How
//! many products 16 bits can hold depends on the largest code, and formats whose codes fill a byte
//! have none of this.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_fnmadd_ps, _mm256_load_ps, _mm256_load_si256, _mm256_loadu_ps, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_permute2x128_si256, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_sign_epi8, _mm256_store_ps, _mm256_store_si256, _mm256_storeu_ps, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use super::{Codes256, ORDER, Unpacked256};
use crate::isa::i8::{FACTORS, I8Row, SCALED, sum_at};
use crate::isa::{BLOCK, BlockRange, Blocks, Rows, Sums, TailBlock};

/// Rows side by side.
const LANES: usize = 8;
/// Groups of rows.
pub(crate) const GROUPS: usize = 2;
/// Rows of a panel.
pub(crate) const ROWS: usize = GROUPS * LANES;
/// Blocks of 256 weights of each row: 12 KiB with their factors, which stay in the first-level
/// cache while all tokens pass.
pub(crate) const BLOCKS: usize = 2;
/// Groups of weights in a block that have factors of their own.
const PER_BLOCK: usize = BLOCK / 16;
/// Numbers of factors of a block of eight rows.
pub(crate) const OF_BLOCK: usize = 2 * PER_BLOCK * LANES;

/// Where unpacked rows are, drawn above; both aligned to 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I8Panel {
    pub(crate) codes: *mut u8,
    pub(crate) factors: *mut f32,
}

/// The rows that a product is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I8Weights {
    pub(crate) panel: I8Panel,
    /// I8Weights that share factors: 16 or 32.
    pub(crate) group: usize,
    /// The largest code.
    pub(crate) largest: u8,
    /// Blocks in the panel, and the first one's number in the rows.
    pub(crate) blocks: usize,
    pub(crate) from: usize,
    /// Rows that exist.
    pub(crate) rows: usize,
}

/// The largest code that a format's bytes have here, if 16 bits hold a sum of two products.
pub(crate) const fn largest<F: Codes256>() -> Option<u8> {
    let largest = if F::SIGNED { 2 * F::LARGEST as u32 } else { F::LARGEST as u32 };
    if run(largest) > 0 { Some(largest as u8) } else { None }
}

/// How many sums of two products with codes up to `largest` fit into 16 bits: up to 8, a power of
/// two.
const fn run(largest: u32) -> usize {
    match i16::MAX as u32 / (2 * 127 * largest) {
        0 => 0,
        1 => 1,
        2..=3 => 2,
        4..=7 => 4,
        _ => 8,
    }
}

/// Unpacks blocks `range`, up to [`BLOCKS`], of up to [`ROWS`] rows; missing rows have zeros for
/// factors.
///
/// # Safety
/// As for [`crate::isa::Kernels256`]; the panel has room for two groups of rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn unpack<F: Codes256>(
    rows: Rows,
    blocks: Blocks,
    range: BlockRange,
    panel: I8Panel,
) {
    let zero = _mm256_setzero_si256();
    let mut padded = TailBlock::new();
    let mut rowwise = Rowwise { codes: [[zero; LANES]; 8], factors: [[[zero; LANES]; 2]; 2] };
    for group in 0..GROUPS {
        let present = rows.count.saturating_sub(group * LANES).min(LANES);
        if present < LANES {
            rowwise.factors = [[[zero; LANES]; 2]; 2];
        }
        for (i, block) in range.clone().enumerate() {
            for r in 0..present {
                // SAFETY: row and block are in bounds by contract.
                let unpacked = unsafe {
                    let row = rows.start.add((group * LANES + r) * rows.stride);
                    let at = padded.pad(row.add(block * F::BYTES), block, blocks);
                    F::unpack(at) // Once, or it would not be inlined.
                };
                rowwise.set_row::<F>(r, &unpacked);
            }
            let to = group * BLOCKS + i;
            // SAFETY: the panel has room by contract.
            unsafe {
                let codes = panel.codes.add(to * BLOCK * LANES);
                rowwise.transpose::<F>(codes, panel.factors.add(to * OF_BLOCK));
            }
        }
    }
}

/// A block of eight rows, row by row.
struct Rowwise {
    codes: [[__m256i; LANES]; 8],
    /// The bits of scales and minima of both halves.
    factors: [[[__m256i; LANES]; 2]; 2],
}

impl Rowwise {
    /// Makes `weights` row `r`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn set_row<F: Codes256>(&mut self, r: usize, weights: &Unpacked256) {
        for (i, codes) in self.codes.iter_mut().enumerate() {
            codes[r] = weights.codes[i];
            if F::SIGNED {
                let biased = _mm256_set1_epi8(F::LARGEST.cast_signed());
                codes[r] = _mm256_add_epi8(_mm256_sign_epi8(codes[r], weights.signs[i]), biased);
            }
        }
        let [scales, minima] = &mut self.factors;
        for half in 0..2 {
            scales[half][r] = _mm256_castps_si256(weights.scale[half]);
            minima[half][r] = _mm256_castps_si256(weights.min[half]);
        }
    }

    /// Turns rows to lanes.
    ///
    /// # Safety
    /// There is room for a block of codes, and for its factors, both aligned to 32 bytes.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn transpose<F: Codes256>(&self, codes: *mut u8, factors: *mut f32) {
        for (register, rows) in self.codes.iter().enumerate() {
            for (lane, transposed) in transpose(*rows).into_iter().enumerate() {
                let quad = usize::from(ORDER.quads[register * 8 + lane]);
                // SAFETY: a block has 64 quads of 32 bytes.
                unsafe { _mm256_store_si256(codes.add(quad * 4 * LANES).cast(), transposed) };
            }
        }
        let [scales, minima] = &self.factors;
        for half in 0..2 {
            for (lane, transposed) in transpose(scales[half]).into_iter().enumerate() {
                // Lanes of scales are in the order of codes.
                let group = usize::from(ORDER.quads[half * 32 + lane]) / 4;
                let transposed = _mm256_castsi256_ps(transposed);
                // SAFETY: scales and minima of 16 groups have room.
                unsafe {
                    _mm256_store_ps(factors.add(group * LANES), transposed);
                    if F::SIGNED {
                        let biased = _mm256_set1_ps(-f32::from(F::LARGEST));
                        let min = _mm256_mul_ps(transposed, biased);
                        _mm256_store_ps(factors.add((PER_BLOCK + group) * LANES), min);
                    }
                }
            }
            if F::SIGNED {
                continue;
            }
            for (lane, transposed) in transpose(minima[half]).into_iter().enumerate() {
                let at = (PER_BLOCK + half * 8 + lane) * LANES;
                // SAFETY: as above.
                unsafe { _mm256_store_ps(factors.add(at), _mm256_castsi256_ps(transposed)) };
            }
        }
    }
}

/// Turns 8 rows of 8 numbers of 32 bits into 8 tokens.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(a: [__m256i; LANES]) -> [__m256i; LANES] {
    let (mut b, mut c) = (a, a);
    for i in 0..4 {
        b[2 * i] = _mm256_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm256_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for i in 0..2 {
        c[4 * i] = _mm256_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
        c[4 * i + 1] = _mm256_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
        c[4 * i + 2] = _mm256_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
        c[4 * i + 3] = _mm256_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
    }
    for i in 0..4 {
        b[i] = _mm256_permute2x128_si256::<0x20>(c[i], c[i + 4]);
        b[i + 4] = _mm256_permute2x128_si256::<0x31>(c[i], c[i + 4]);
    }
    b
}

/// `out[c][r] += weights[r] · tokens[c]`, tokens of `out` one after the other.
///
/// # Safety
/// The CPU has the tier. The panel holds what `weights` says, tokens have as many blocks from its
/// first one on, and `out` has as many numbers in each token as there are rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn gemm(weights: I8Weights, tokens: &[I8Row], out: Sums) {
    let mut done = 0;
    while done < tokens.len() {
        let left = tokens.len() - done;
        let n = left.div_ceil(left.div_ceil(3));
        let tile = &tokens[done..done + n];
        let out = out.from(done);
        // SAFETY: by contract.
        unsafe {
            match *tile {
                [a] => one_tile([a], weights, out),
                [a, b] => one_tile([a, b], weights, out),
                [a, b, c] => one_tile([a, b, c], weights, out),
                [a, b, c, d] => one_tile([a, b, c, d], weights, out),
                _ => unreachable!("1 to 4 tokens"),
            }
        }
        done += n;
    }
}

/// [`gemm`] with `C` tokens.
///
/// # Safety
/// As for [`gemm`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn one_tile<const C: usize>(tokens: [I8Row; C], weights: I8Weights, out: Sums) {
    // SAFETY: by contract.
    unsafe {
        match (weights.group, run(weights.largest.into())) {
            (32, 8) => tile::<C, 32, 8>(tokens, weights, out),
            (32, 4) => tile::<C, 32, 4>(tokens, weights, out),
            (32, 2) => tile::<C, 32, 2>(tokens, weights, out),
            (32, _) => tile::<C, 32, 1>(tokens, weights, out),
            (_, 4..) => tile::<C, 16, 4>(tokens, weights, out),
            (_, 2) => tile::<C, 16, 2>(tokens, weights, out),
            (_, _) => tile::<C, 16, 1>(tokens, weights, out),
        }
    }
}

/// [`gemm`] with `C` tokens, factors for `GROUP` weights, and `RUN` products of quads in 16 bits.
///
/// # Safety
/// As for [`gemm`].
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const C: usize, const GROUP: usize, const RUN: usize>(
    tokens: [I8Row; C],
    weights: I8Weights,
    out: Sums,
) {
    let mut sums = [[_mm256_setzero_ps(); GROUPS]; C];
    for i in 0..weights.blocks * BLOCK / SCALED {
        let (block, part) = (i * SCALED / BLOCK, i % (BLOCK / SCALED));
        let mut scaled = [[_mm256_setzero_ps(); GROUPS]; C];
        for k in 0..SCALED / GROUP {
            let group = part * SCALED / GROUP + k;
            // SAFETY: panel and tokens have this group, by contract.
            unsafe {
                let products = products::<C, GROUP, RUN>(
                    weights.panel.codes.add((i * SCALED + k * GROUP) * LANES),
                    tokens.map(|c| c.numbers.add(weights.from * BLOCK + i * SCALED + k * GROUP)),
                );
                let factors =
                    weights.panel.factors.add(block * OF_BLOCK + group * GROUP / 16 * LANES);
                let mut input_sums = [_mm256_setzero_ps(); C];
                for (sum, token) in input_sums.iter_mut().zip(tokens) {
                    let of_block = token.factors.add((weights.from + block) * FACTORS);
                    let integer = *of_block.add(sum_at(GROUP, group));
                    *sum = _mm256_cvtepi32_ps(_mm256_set1_epi32(integer));
                }
                for g in 0..GROUPS {
                    let factors = factors.add(g * BLOCKS * OF_BLOCK);
                    let scale = _mm256_load_ps(factors);
                    let min = _mm256_load_ps(factors.add(PER_BLOCK * LANES));
                    for c in 0..C {
                        let product = _mm256_cvtepi32_ps(products[c][g]);
                        scaled[c][g] = _mm256_fmadd_ps(product, scale, scaled[c][g]);
                        scaled[c][g] = _mm256_fnmadd_ps(min, input_sums[c], scaled[c][g]);
                    }
                }
            }
        }
        for c in 0..C {
            // SAFETY: tokens have this block, by contract.
            let bits = unsafe { *tokens[c].factors.add((weights.from + block) * FACTORS + part) };
            let scale = _mm256_set1_ps(f32::from_bits(bits.cast_unsigned()));
            for g in 0..GROUPS {
                sums[c][g] = _mm256_fmadd_ps(scaled[c][g], scale, sums[c][g]);
            }
        }
    }
    for (c, sums) in sums.into_iter().enumerate() {
        // SAFETY: `out` has the rows, by contract.
        unsafe { add(sums, out.from(c).first, weights.rows) };
    }
}

/// Products of a group of codes with the same inputs for all rows.
///
/// # Safety
/// There are `GROUP` codes of all rows, and inputs in each token; the CPU has the tier's
/// instructions.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn products<const C: usize, const GROUP: usize, const RUN: usize>(
    codes: *const u8,
    tokens: [*const i8; C],
) -> [[__m256i; GROUPS]; C] {
    let mut totals = [[_mm256_setzero_si256(); GROUPS]; C];
    for first in (0..GROUP / 4).step_by(RUN) {
        let mut words = [[_mm256_setzero_si256(); GROUPS]; C];
        for quad in first..first + RUN {
            // SAFETY: by contract.
            unsafe {
                let codes = codes.add(quad * 4 * LANES);
                let codes = [
                    _mm256_load_si256(codes.cast()),
                    _mm256_load_si256(codes.add(BLOCKS * BLOCK * LANES).cast()),
                ];
                for (words, token) in words.iter_mut().zip(tokens) {
                    let inputs = token.add(quad * 4).cast::<i32>().read_unaligned();
                    let inputs = _mm256_set1_epi32(inputs);
                    for (words, codes) in words.iter_mut().zip(codes) {
                        let products = _mm256_maddubs_epi16(codes, inputs);
                        *words = _mm256_add_epi16(*words, products);
                    }
                }
            }
        }
        for (totals, words) in totals.iter_mut().zip(words) {
            for (total, words) in totals.iter_mut().zip(words) {
                let wide = _mm256_madd_epi16(words, _mm256_set1_epi16(1));
                *total = _mm256_add_epi32(*total, wide);
            }
        }
    }
    totals
}

/// Adds the sums of the first `rows` rows to `out`.
///
/// # Safety
/// There is room for as many; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add(sums: [__m256; GROUPS], out: *mut f32, rows: usize) {
    for (g, sums) in sums.into_iter().enumerate() {
        let count = rows.saturating_sub(g * LANES).min(LANES);
        // SAFETY: eight numbers if there are eight rows, otherwise one by one.
        unsafe {
            let out = out.wrapping_add(g * LANES);
            if count == LANES {
                _mm256_storeu_ps(out, _mm256_add_ps(sums, _mm256_loadu_ps(out)));
                continue;
            }
            let mut numbers = [0.0; LANES];
            _mm256_storeu_ps(numbers.as_mut_ptr(), sums);
            for (r, number) in numbers.into_iter().enumerate().take(count) {
                *out.add(r) += number;
            }
        }
    }
}
