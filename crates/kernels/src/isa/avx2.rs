//! The AVX2 driver: gemv, products of up to four tokens, straight from the file's layout.
//!
//! A format's [`Codes256`] turns 256 weights into eight registers of codes, always in the order of
//! [`ORDER`]: the four registers of a half hold, lane by lane, the same 16 weights. So their
//! products with the inputs are summed as integers, scales are applied once per 128 weights, and
//! vectors quantized for one format serve all others.
//!
//! Codes become words once for all tokens, the even and the odd bytes of a register apart, so that
//! words stay in their lanes. `vpmaddwd` multiplies them with activations of 16 bits and adds pairs
//! to 32 bits, which hold the products of 128 weights whatever the codes are.

use std::arch::x86_64::{
    __m256, __m256i, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps,
    _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps, _mm256_and_si256, _mm256_castps256_ps128,
    _mm256_cvtepi32_ps, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mul_ps, _mm256_set1_epi16, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_slli_epi16,
    _mm256_srai_epi16, _mm256_srli_epi16,
};

use super::{AHEAD, Blocks, I16Row, Kernels256, Order, Row, Rows, Sums, TailBlock, prefetch};

pub(crate) mod i14;
pub(crate) mod i8;
pub(crate) mod shuffle256;

/// The order of all codes on this tier. Register `4h + r`, lane `l`:
/// weights `32·(4h + l mod 4) + 16·(l div 4) + 4r` and the next three.
///
/// Shifting lanes by different counts and pairing registers brings most formats into it for one
/// shuffle a register ([`shuffle256`]).
pub(crate) static ORDER: Order = Order { quads: quads(), chain: 2 };

const fn quads() -> [u8; 64] {
    let mut quads = [0; 64];
    let mut i = 0;
    while i < 64 {
        let (half, register, lane) = (i / 32, i / 8 % 4, i % 8);
        quads[i] = ((half * 4 + lane % 4) * 8 + lane / 4 * 4 + register) as u8;
        i += 1;
    }
    quads
}

/// 256 weights, unpacked: `weight = scale · code + min`, or `scale · sign · code`.
#[derive(Clone, Copy)]
pub(crate) struct Unpacked256 {
    /// Unsigned codes in [`ORDER`].
    pub(crate) codes: [__m256i; 8],
    /// If [`Codes256::SIGNED`], bytes with the signs of the weights, of any magnitude but zero
    /// unless the code is zero.
    pub(crate) signs: [__m256i; 8],
    /// Scales by lane of each half.
    pub(crate) scale: [__m256; 2],
    /// Unless [`Codes256::SIGNED`], minima by group of 16 weights, in natural order.
    pub(crate) min: [__m256; 2],
}

/// How 256 weights of a format come out of their bytes.
///
/// # Safety
/// `unpack` must not read outside `at..at + BYTES` nor give codes above `LARGEST`.
pub(crate) unsafe trait Codes256 {
    /// Bytes of 256 weights.
    const BYTES: usize;
    /// The largest code: at most 127, or 128 if `SIGNED`.
    const LARGEST: u8;
    /// Weights that share scale and minimum, at least: 16 or 32.
    const GROUP: usize;
    /// Whether signs stand apart; then there are no minima.
    const SIGNED: bool = false;

    /// Unpacks the 256 weights at `at`.
    ///
    /// # Safety
    /// `BYTES` bytes at `at` are readable; the CPU has this tier's instructions.
    unsafe fn unpack(at: *const u8) -> Unpacked256;
}

/// The kernels of a format, for its `SPEC`.
pub(crate) const fn kernels<F: Codes256>() -> Kernels256 {
    const { assert!(F::BYTES <= size_of::<TailBlock>()) };
    assert!(F::LARGEST <= 127 || F::SIGNED && F::LARGEST == 128, "signed codes exceed a byte");
    Kernels256 {
        gemv: gemv::<F>,
        group: F::GROUP,
        unpack_i14: i14::unpack::<F>,
        unpack_i8: i8::unpack::<F>,
        largest_byte: i8::largest::<F>(),
    }
}

/// Which scales and minima of a row's last block are of weights that the row has; codes of others
/// are multiplied with activations that are zero.
struct Tail {
    scale: [__m256; 2],
    min: [__m256; 2],
}

impl Tail {
    #[target_feature(enable = "avx2")]
    fn of<F: Codes256>(blocks: Blocks) -> Self {
        let weights = blocks.tail * 256 / F::BYTES;
        let mask = |first: &dyn Fn(usize) -> usize| {
            let bits: [u32; 8] =
                std::array::from_fn(|l| if first(l) < weights { u32::MAX } else { 0 });
            // SAFETY: there are eight.
            unsafe { _mm256_loadu_ps(bits.as_ptr().cast()) }
        };
        Self {
            scale: [0, 1].map(|half| mask(&|l| usize::from(ORDER.quads[half * 32 + l]) * 4)),
            min: [0, 1].map(|half| mask(&|l| (half * 8 + l) * 16)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn cut(&self, weights: &mut Unpacked256) {
        for half in 0..2 {
            weights.scale[half] = _mm256_and_ps(weights.scale[half], self.scale[half]);
            weights.min[half] = _mm256_and_ps(weights.min[half], self.min[half]);
        }
    }
}

/// Products of `rows` with 1 to 4 tokens: `out[c * rows.count + r]`.
///
/// # Safety
/// As for [`Kernels256::gemv`]: the CPU has the tier; `rows`, `tokens` and `out` are as long as
/// `blocks` says.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn gemv<F: Codes256>(rows: Rows, blocks: Blocks, tokens: &[I16Row], out: *mut f32) {
    let mut padded = TailBlock::new();
    let kept = Tail::of::<F>(blocks);
    for r in 0..rows.count {
        // SAFETY: rows and outputs are in bounds by this function's contract; `tokens` has the
        // length that each arm asks for.
        unsafe {
            let row = padded.row(rows, r, blocks, F::BYTES);
            let out = Sums { first: out.add(r), stride: rows.count };
            match tokens {
                [a] => dot::<F, 1>(row, blocks, [a], &kept, out),
                [a, b] => dot::<F, 2>(row, blocks, [a, b], &kept, out),
                [a, b, c] => dot::<F, 3>(row, blocks, [a, b, c], &kept, out),
                [a, b, c, d] => dot::<F, 4>(row, blocks, [a, b, c, d], &kept, out),
                _ => unreachable!("1 to 4 tokens"),
            }
        }
    }
}

/// One row with `C` tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot<F: Codes256, const C: usize>(
    row: Row,
    blocks: Blocks,
    tokens: [&I16Row; C],
    kept: &Tail,
    out: Sums,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; C];
    for (from, all) in [(row.whole, 0..blocks.whole), (row.tail, blocks.whole..blocks.count())] {
        for b in all {
            let at = from.wrapping_add(b * F::BYTES);
            prefetch(row.whole.wrapping_add(b * F::BYTES + AHEAD), F::BYTES);
            // SAFETY: block `b` of the row and of every token is in bounds.
            unsafe {
                let mut weights = F::unpack(at); // Once, or it would not be inlined.
                if b == blocks.whole {
                    kept.cut(&mut weights);
                }
                add_block::<F, C>(&weights, b, tokens, &mut sums);
            }
        }
    }
    for (c, [products, minima]) in sums.into_iter().enumerate() {
        // SAFETY: `out` has `C` tokens from here on.
        unsafe { *out.from(c).first = total(_mm256_add_ps(products, minima)) };
    }
}

/// Adds the products of one block of 256 weights with `C` tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_block<F: Codes256, const C: usize>(
    weights: &Unpacked256,
    block: usize,
    tokens: [&I16Row; C],
    sums: &mut [[__m256; 2]; C],
) {
    let words = words::<F>(weights);
    for (token, [products, minima]) in tokens.into_iter().zip(sums) {
        // SAFETY: every array of a token has this block, by the contract of `gemv`.
        let (inputs, input_scale) =
            unsafe { (token.words.add(block * 256), _mm256_set1_ps(*token.scale.add(block))) };
        for (half, words) in words.iter().enumerate() {
            let mut sum = _mm256_setzero_si256();
            for (i, &word) in words.iter().enumerate() {
                // SAFETY: as above.
                let input = unsafe { _mm256_loadu_si256(inputs.add((half * 8 + i) * 16).cast()) };
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(word, input));
            }
            let scale = _mm256_mul_ps(weights.scale[half], input_scale);
            *products = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, *products);
            if !F::SIGNED {
                // SAFETY: as above.
                let inputs = unsafe { _mm256_loadu_ps(token.sums.add(block * 16 + half * 8)) };
                *minima = _mm256_fmadd_ps(weights.min[half], inputs, *minima);
            }
        }
    }
}

/// The codes of both halves of 256 weights as words, with their signs: of each register the even
/// bytes, then the odd ones.
#[inline]
#[target_feature(enable = "avx2")]
fn words<F: Codes256>(weights: &Unpacked256) -> [[__m256i; 8]; 2] {
    let mut words = [[_mm256_setzero_si256(); 8]; 2];
    for (i, words) in words.as_flattened_mut().chunks_exact_mut(2).enumerate() {
        let codes = weights.codes[i];
        if F::SIGNED {
            let codes = _mm256_sign_epi8(codes, weights.signs[i]);
            words[0] = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(codes));
            words[1] = _mm256_srai_epi16::<8>(codes);
        } else {
            words[0] = _mm256_and_si256(codes, _mm256_set1_epi16(0xFF));
            words[1] = _mm256_srli_epi16::<8>(codes);
        }
    }
    words
}

/// The sum of all lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn total(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Weights that are floats, eight at a time.
///
/// # Safety
/// `eight` must not read outside `at..at + 8 * BYTES`.
pub(crate) unsafe trait Floats256 {
    /// Bytes of one weight.
    const BYTES: usize;

    /// The 8 weights at `at`.
    ///
    /// # Safety
    /// They are readable; the CPU has this tier's instructions.
    unsafe fn eight(at: *const u8) -> __m256;
}

/// Products of rows of floats with 1 to 4 tokens.
///
/// # Safety
/// As for [`super::FloatGemv`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn float_gemv<F: Floats256>(
    rows: Rows,
    cols: usize,
    tokens: &[&[f32]],
    out: *mut f32,
) {
    for r in 0..rows.count {
        // SAFETY: rows and outputs are in bounds by this function's contract.
        unsafe {
            let row = rows.start.add(r * rows.stride);
            let out = out.add(r);
            match *tokens {
                [a] => float_dot::<F, 1>(row, cols, [a], out, rows.count),
                [a, b] => float_dot::<F, 2>(row, cols, [a, b], out, rows.count),
                [a, b, c] => float_dot::<F, 3>(row, cols, [a, b, c], out, rows.count),
                [a, b, c, d] => float_dot::<F, 4>(row, cols, [a, b, c, d], out, rows.count),
                _ => unreachable!("1 to 4 tokens"),
            }
        }
    }
}

/// One row of floats with `C` tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn float_dot<F: Floats256, const C: usize>(
    row: *const u8,
    cols: usize,
    tokens: [&[f32]; C],
    out: *mut f32,
    stride: usize,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; C];
    let mut i = 0;
    while i + 16 <= cols {
        prefetch(row.wrapping_add(i * F::BYTES + AHEAD), 16 * F::BYTES);
        // SAFETY: 16 weights and inputs from `i` on are in bounds.
        unsafe {
            let weights = [F::eight(row.add(i * F::BYTES)), F::eight(row.add((i + 8) * F::BYTES))];
            for (token, sums) in tokens.iter().zip(&mut sums) {
                let x = token.as_ptr().add(i);
                sums[0] = _mm256_fmadd_ps(weights[0], _mm256_loadu_ps(x), sums[0]);
                sums[1] = _mm256_fmadd_ps(weights[1], _mm256_loadu_ps(x.add(8)), sums[1]);
            }
        }
        i += 16;
    }
    let rest = cols - i;
    if rest > 0 {
        let mut weights = [0u8; 64];
        // SAFETY: the rest of the row is in bounds and shorter than 16 weights of at most 4 bytes.
        unsafe {
            row.add(i * F::BYTES).copy_to_nonoverlapping(weights.as_mut_ptr(), rest * F::BYTES);
        }
        for (token, sums) in tokens.iter().zip(&mut sums) {
            let mut inputs = [0.0f32; 16];
            inputs[..rest].copy_from_slice(&token[i..cols]);
            for (half, sum) in sums.iter_mut().enumerate() {
                // SAFETY: both arrays have 16 elements.
                unsafe {
                    let w = F::eight(weights.as_ptr().add(half * 8 * F::BYTES));
                    *sum = _mm256_fmadd_ps(w, _mm256_loadu_ps(inputs.as_ptr().add(half * 8)), *sum);
                }
            }
        }
    }
    for (c, [first, second]) in sums.into_iter().enumerate() {
        // SAFETY: `out` has `C` tokens of `stride` elements from here on.
        unsafe { *out.add(c * stride) = total(_mm256_add_ps(first, second)) };
    }
}
