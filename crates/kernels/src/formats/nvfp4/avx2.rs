//! NVFP4 on AVX2: the codes of MXFP4 with nibbles eight weights apart and scales for 16.

use std::arch::x86_64::{_mm256_loadu_ps, _mm256_setzero_si256};

use super::{BYTES, half_scale};
use crate::formats::mxfp4::avx2::BIASED;
use crate::isa::avx2::shuffle256::{across, by_16, fields, levels, runs, times};
use crate::isa::avx2::{Codes256, Unpacked256};
use crate::isa::map_lanes;

/// NVFP4's codes.
pub(super) struct Nvfp4;

// SAFETY: reads 4 blocks of 36 bytes; the levels end at 24.
unsafe impl Codes256 for Nvfp4 {
    const BYTES: usize = 4 * BYTES;
    const LARGEST: u8 = 24;
    const GROUP: usize = 16;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        let mut scales = [0.0; 16];
        for (i, scale) in scales.iter_mut().enumerate() {
            // SAFETY: four scales start each of the 4 blocks.
            *scale = half_scale(unsafe { *at.add(i / 4 * BYTES + i % 4) });
        }
        // SAFETY: 16 floats; two runs of 16 bytes of codes after the scales of each block.
        let (scales, words) = unsafe {
            let scales = map_lanes!([0, 8], |i| _mm256_loadu_ps(scales.as_ptr().add(i)));
            (scales, runs(|i| at.add(i / 2 * BYTES + 4 + i % 2 * 16)))
        };
        // Words 0 and 1 are the first 16 weights of a group, 2 and 3 the last.
        let [p, q, r, s] = fields(words, [0; 4], 15);
        let [t, u, v, w] = fields(words, [4; 4], 15);
        let codes = across([p, q, t, u], [r, s, v, w]);
        Unpacked256 {
            codes: levels(codes, &BIASED),
            signs: [_mm256_setzero_si256(); 8],
            scale: by_16(scales),
            min: times(scales, -12.0),
        }
    }
}
