//! Activations of 16 bits as a high and a low byte, one scale for 256: for products of bytes.

use super::{Parts, round_to_ints, write_in_order};
use crate::buffer::Aligned;
use crate::cpu::Tier;
#[cfg(target_arch = "x86_64")]
use crate::isa::NATURAL;
use crate::isa::{BLOCK, Order, SplitI16Row};
use crate::ops::simd;

/// Largest magnitude: the high byte stays within ±127. One scale for a block of 256 is still 128
/// times finer than 8 bits would be, and a product's sum needs it only once.
const LARGEST: f32 = 127.0 * 256.0;
/// Sums of neighbouring activations in a block.
pub(super) const SUMS: usize = 16;

/// 16-bit activations in one order; see [`SplitI16Row`] for the fields.
#[derive(Debug, Default)]
pub(super) struct SplitI16 {
    high: Aligned<i8>,   // [rows, blocks, 256]
    low: Aligned<i8>,    // [rows, blocks, 256]
    scale: Aligned<f32>, // [rows, blocks]
    sums: Aligned<f32>,  // [rows, blocks, 16]
}

/// Where one block of 256 goes.
struct Block<'a> {
    high: &'a mut [i8],
    low: &'a mut [i8],
    scale: &'a mut f32,
    sums: &'a mut [f32],
}

/// All blocks of an encoding.
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    high: Parts<'a, i8>,
    low: Parts<'a, i8>,
    scale: Parts<'a, f32>,
    sums: Parts<'a, f32>,
}

impl Blocks<'_> {
    /// # Safety
    /// No block is encoded by two workers at a time.
    pub(super) unsafe fn encode(&self, tier: Tier, block: usize, floats: &[f32], order: &Order) {
        let Self { high, low, scale, sums } = self;
        // SAFETY: by contract.
        let (high, low, scale, sums) =
            unsafe { (high.of(block), low.of(block), scale.of(block), sums.of(block)) };
        let mut out = Block { high, low, scale: &mut scale[0], sums };
        #[cfg(target_arch = "x86_64")]
        if tier.has_avx512() && order.is_same(&NATURAL) {
            // SAFETY: the tier has the instructions.
            return unsafe { avx512::quantize(floats, &mut out) };
        }
        quantize(tier, floats, order, &mut out);
    }
}

impl SplitI16 {
    /// Room for `count` blocks.
    pub(super) fn blocks(&mut self, count: usize) -> Blocks<'_> {
        Blocks {
            high: Parts::new(&mut self.high, count, BLOCK),
            low: Parts::new(&mut self.low, count, BLOCK),
            scale: Parts::new(&mut self.scale, count, 1),
            sums: Parts::new(&mut self.sums, count, SUMS),
        }
    }

    /// The first row.
    pub(super) fn first(&self) -> SplitI16Row {
        SplitI16Row {
            high: self.high.as_ptr(),
            low: self.low.as_ptr(),
            scale: self.scale.as_ptr(),
            sums: self.sums.as_ptr(),
        }
    }
}

simd! {
    /// Quantizes up to 256 numbers.
    fn quantize(Tier, floats: &[f32], order: &Order, out: &mut Block<'_>) {
        let (integers, scale) = integers_and_sums(floats, out.sums);
        *out.scale = scale;
        let mut high = [[0i8; 4]; BLOCK / 4];
        let mut low = high;
        let outputs = high.as_flattened_mut().iter_mut().zip(low.as_flattened_mut());
        for ((high, low), &i) in outputs.zip(&integers) {
            *high = ((i + 128) >> 8) as i8;
            *low = i as i8;
        }
        write_in_order(&high, order, out.high);
        write_in_order(&low, order, out.low);
    }
}

/// The same with registers of 512 bits, in natural order; every bit is that of [`quantize`].
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, __m512i, __mmask16, _mm_storeu_si128, _mm512_add_epi32, _mm512_and_si512,
        _mm512_castps_si512, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtps_epi32,
        _mm512_maskz_loadu_ps, _mm512_max_epu32, _mm512_mul_ps, _mm512_reduce_max_epu32,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
        _mm512_srai_epi32, _mm512_storeu_ps,
    };

    use super::super::scale_for;
    use super::{BLOCK, Block, LARGEST, SUMS};
    use crate::isa::shuffle512::sums_of_lanes;

    const LANES: usize = 16;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn quantize(floats: &[f32], out: &mut Block<'_>) {
        let (high, low) = (&mut out.high[..BLOCK], &mut out.low[..BLOCK]);
        let sums = &mut out.sums[..SUMS];
        let mut numbers = [_mm512_setzero_ps(); BLOCK / LANES];
        let mut largest = _mm512_setzero_si512();
        for (numbers, floats) in numbers.iter_mut().zip(floats.chunks(LANES)) {
            *numbers = load(floats);
            let magnitude =
                _mm512_and_si512(_mm512_castps_si512(*numbers), _mm512_set1_epi32(0x7FFF_FFFF));
            largest = _mm512_max_epu32(largest, magnitude);
        }
        let (scale, inverse) = scale_for(_mm512_reduce_max_epu32(largest), LARGEST);
        *out.scale = scale;
        let inverse = _mm512_set1_ps(inverse);
        let used = floats.len().div_ceil(LANES);
        high[used * LANES..].fill(0);
        low[used * LANES..].fill(0);
        let mut integers = [_mm512_setzero_si512(); BLOCK / LANES];
        if !scale.is_nan() {
            for (integers, numbers) in integers.iter_mut().zip(numbers).take(used) {
                *integers = _mm512_cvtps_epi32(_mm512_mul_ps(numbers, inverse));
            }
        }
        let to = high.as_chunks_mut::<LANES>().0.iter_mut().zip(low.as_chunks_mut::<LANES>().0);
        for ((high, low), integers) in to.zip(integers).take(used) {
            let rounded = _mm512_add_epi32(integers, _mm512_set1_epi32(128));
            store(_mm512_srai_epi32::<8>(rounded), high);
            store(integers, low);
        }
        let sum = _mm512_cvtepi32_ps(sums_of_lanes(integers));
        // SAFETY: there are sixteen sums.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), _mm512_mul_ps(sum, _mm512_set1_ps(scale))) };
    }

    /// Up to sixteen numbers, and zeros.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(floats: &[f32]) -> __m512 {
        let mask = ((1u32 << floats.len().min(LANES)) - 1) as __mmask16;
        // SAFETY: what is not masked is there.
        unsafe { _mm512_maskz_loadu_ps(mask, floats.as_ptr()) }
    }

    /// The low bytes of sixteen integers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(integers: __m512i, to: &mut [i8; LANES]) {
        // SAFETY: there are sixteen bytes.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(integers)) };
    }
}

/// The integers of up to 256 numbers and their scale; sums of neighbours go to `sums`.
#[inline(always)]
pub(super) fn integers_and_sums(floats: &[f32], sums: &mut [f32]) -> ([i32; BLOCK], f32) {
    let (integers, scale) = round_to_ints::<BLOCK>(floats, LARGEST);
    for (sum, group) in sums.iter_mut().zip(integers.chunks_exact(BLOCK / SUMS)) {
        *sum = scale * group.iter().sum::<i32>() as f32;
    }
    (integers, scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::NATURAL;
    use crate::kernel_tests::Random;
    use proptest::prelude::*;

    fn derived(row: &[f32]) -> SplitI16 {
        let mut encoding = SplitI16::default();
        let blocks = encoding.blocks(row.len().div_ceil(BLOCK));
        for (block, floats) in row.chunks(BLOCK).enumerate() {
            // SAFETY: this thread alone encodes.
            unsafe { blocks.encode(Tier::detect(), block, floats, &NATURAL) };
        }
        encoding
    }

    proptest! {
        #[test]
        fn a_quantized_row_is_the_row_to_15_bits(
            row in prop::collection::vec(-1e3f32..1e3, 1..600),
            exponent in -30i32..30,
        ) {
            let row: Vec<f32> = row.iter().map(|x| x * 2f32.powi(exponent)).collect();
            let split = derived(&row);
            for (i, group) in row.chunks(BLOCK).enumerate() {
                let largest = group.iter().fold(0.0f32, |a, x| a.max(x.abs()));
                let mut sums = [0.0; SUMS];
                for (j, &x) in group.iter().enumerate() {
                    let at = i * BLOCK + j;
                    let q = i32::from(split.high[at]) * 256 + i32::from(split.low[at]);
                    let y = split.scale[i] * q as f32;
                    sums[j / 16] += y;
                    prop_assert!((x - y).abs() <= largest / 60_000.0, "{x} became {y}");
                }
                for (sum, ready) in sums.iter().zip(&split.sums[i * SUMS..]) {
                    prop_assert!((sum - ready).abs() <= largest * 1e-4);
                }
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn wide_registers_change_no_bit() {
        if !Tier::detect().has_avx512() {
            return eprintln!("skipped: no AVX-512");
        }
        let mut random = Random::new(5);
        for len in [1, 15, 16, 17, 32, 64, 100, 128, 255, 256] {
            for exponent in [-140, -126, -20, 0, 15, 120] {
                for bad in [0.0, f32::NAN, f32::INFINITY] {
                    let mut floats: Vec<f32> =
                        (0..len).map(|_| random.float() * 2f32.powi(exponent)).collect();
                    floats[len / 2] += bad;
                    let encoded = |tier: Tier| {
                        let mut encoding = SplitI16::default();
                        // SAFETY: this thread alone encodes.
                        unsafe { encoding.blocks(1).encode(tier, 0, &floats, &NATURAL) };
                        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        let SplitI16 { high, low, scale, sums } = &encoding;
                        let bytes = [&high[..], &low[..]].concat();
                        (bytes, scale[0].is_nan(), if bad == 0.0 { bits(sums) } else { vec![] })
                    };
                    assert_eq!(encoded(Tier::detect()), encoded(Tier::SCALAR), "{len} {exponent}");
                }
            }
        }
    }

    #[test]
    fn a_nan_reaches_scale_and_sums_of_its_block_alone() {
        let mut row = [1.0; 512];
        row[300] = f32::NAN;
        let split = derived(&row);
        assert!(split.scale[0].is_finite() && split.scale[1].is_nan());
        assert!(split.sums[..SUMS].iter().all(|sum| *sum == 16.0));
        assert!(split.sums[SUMS..].iter().all(|sum| sum.is_nan()));
    }
}
