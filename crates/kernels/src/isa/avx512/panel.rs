//! Blocks of rows, unpacked and transposed so that sixteen rows are side by side.
//!
//! ```text
//! codes    [groups of 16 rows][2 blocks][64 quads of weights][16 rows][4]  u8, as in the format
//! factors  [groups of 16 rows][2 blocks][scales, then minima][groups of weights][16 rows]   f32
//! ```
//! Of formats whose minima are a multiple of their scales, minima are not written.
//!
//! Sums of products then need no adding up across lanes, and one instruction applies the scales of
//! sixteen rows ([`super::int`]).

use std::arch::x86_64::{
    __m512, __m512i, __mmask16, _mm_loadu_si128, _mm_setr_epi16, _mm256_loadu_si256,
    _mm256_set_m128i, _mm512_castps_si512, _mm512_castsi128_si512, _mm512_castsi512_ps,
    _mm512_inserti32x4, _mm512_loadu_si512, _mm512_mask_blend_ps, _mm512_maskz_cvtph_ps,
    _mm512_permutex2var_epi64, _mm512_permutex2var_ps, _mm512_permutexvar_ps, _mm512_setr_epi64,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_store_ps, _mm512_store_si512,
};

use super::{Codes512, Indices, Unpacked512, find_indices};
use crate::isa::shuffle512::{join, transpose, transpose_4x4};
use crate::isa::{BLOCK, BlockRange, Blocks, Order, Rows, TailBlock, prefetch};

/// Rows side by side.
pub(crate) const LANES: usize = 16;
/// Groups of rows.
pub(crate) const GROUPS: usize = 2;
/// Blocks of 256 weights of each row: at most 24 KiB with their factors, which stay in the
/// first-level cache while all tokens pass.
pub(crate) const BLOCKS: usize = 2;
/// Rows of a panel.
pub(crate) const ROWS: usize = GROUPS * LANES;

/// Where unpacked rows are, drawn above; both aligned to 64 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel16 {
    pub(crate) codes: *mut u8,
    pub(crate) factors: *mut f32,
}

impl Panel16 {
    /// Writes the codes of sixteen rows' weights `4 · quad..4 · quad + 4`.
    ///
    /// # Safety
    /// A block begins here; the CPU has the tier's instructions.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn set_codes(&self, quad: usize, codes: __m512i) {
        // SAFETY: a block has 64 quads of 64 bytes.
        unsafe { _mm512_store_si512(self.codes.add(quad * 64).cast(), codes) };
    }

    /// Writes factor `index` of sixteen rows.
    ///
    /// # Safety
    /// As for `set_codes`, and the format has as many factors.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn set_factors(&self, index: usize, factors: __m512) {
        // SAFETY: by contract.
        unsafe { _mm512_store_ps(self.factors.add(index * LANES), factors) };
    }
}

/// Numbers of factors of a block of sixteen rows.
pub(crate) const fn factors(group: usize) -> usize {
    2 * BLOCK / group * LANES
}

/// A block of sixteen rows.
pub(crate) struct Rows16 {
    /// Where each begins; of rows that are missing, where some other does.
    rows: [*const u8; LANES],
    /// Rows that are not missing: the others' factors are to be zero.
    pub(crate) present: __mmask16,
}

impl Rows16 {
    /// The bytes from `offset` on of the first `present` of `rows`; there is at least one.
    fn new(rows: Rows, present: usize, offset: usize) -> Self {
        let at = |r: usize| rows.start.wrapping_add(r.min(rows.count - 1) * rows.stride + offset);
        Self { rows: std::array::from_fn(at), present: ((1u32 << present) - 1) as u16 }
    }

    /// Bytes `offset..offset + 64` of the rows: number `i` has their `i`th four bytes.
    ///
    /// # Safety
    /// They are readable; the CPU has the tier's instructions.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn quads_of_64(&self, offset: usize) -> [__m512i; 16] {
        let mut rows = [_mm512_setzero_si512(); 16];
        for (row, at) in rows.iter_mut().zip(self.rows) {
            // SAFETY: by contract.
            *row = unsafe { _mm512_loadu_si512(at.add(offset).cast()) };
        }
        transpose(rows)
    }

    /// As [`Rows16::quads_of_64`], of 32 bytes.
    ///
    /// # Safety
    /// As for `quads_of_64`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    pub(crate) unsafe fn quads_of_32(&self, offset: usize) -> [__m512i; 8] {
        // Rows `r` and `r + 8`.
        let rows = |r: usize| {
            // SAFETY: by contract.
            let row = |r: usize| unsafe { _mm256_loadu_si256(self.rows[r].add(offset).cast()) };
            join(row(r), row(r + 8))
        };
        let first = transpose_4x4(map_lanes!([0, 1, 2, 3], |r| rows(r)));
        let second = transpose_4x4(map_lanes!([4, 5, 6, 7], |r| rows(r)));
        // Number c has, in its 128-bit lanes, quads c and 4 + c of four rows, then of those eight
        // rows on.
        let even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
        let odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
        let mut quads = [_mm512_setzero_si512(); 8];
        for (c, (first, second)) in first.into_iter().zip(second).enumerate() {
            quads[c] = _mm512_permutex2var_epi64(first, even, second);
            quads[4 + c] = _mm512_permutex2var_epi64(first, odd, second);
        }
        quads
    }

    /// The f16 at `offset` of the rows, as f32; of missing rows zero.
    ///
    /// # Safety
    /// As for `quads_of_64`, of 2 bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx2")]
    pub(crate) unsafe fn f16(&self, offset: usize) -> __m512 {
        // SAFETY: by contract.
        let bits = |r: usize| unsafe { self.rows[r].add(offset).cast::<i16>().read_unaligned() };
        let eight = |r: usize| {
            let [a, b, c, d] = [bits(r), bits(r + 1), bits(r + 2), bits(r + 3)];
            _mm_setr_epi16(a, b, c, d, bits(r + 4), bits(r + 5), bits(r + 6), bits(r + 7))
        };
        _mm512_maskz_cvtph_ps(self.present, _mm256_set_m128i(eight(8), eight(0)))
    }

    /// As [`Rows16::quads_of_64`], of 16 bytes.
    ///
    /// # Safety
    /// As for `quads_of_64`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    pub(crate) unsafe fn quads_of_16(&self, offset: usize) -> [__m512i; 4] {
        // Rows `r`, `r + 4`, `r + 8` and `r + 12`.
        let rows = |r: usize| {
            // SAFETY: by contract.
            let row = |r: usize| unsafe { _mm_loadu_si128(self.rows[r].add(offset).cast()) };
            let first = _mm512_castsi128_si512(row(r));
            let second = _mm512_inserti32x4::<1>(first, row(r + 4));
            _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(second, row(r + 8)), row(r + 12))
        };
        transpose_4x4(map_lanes!([0, 1, 2, 3], |r| rows(r)))
    }
}

/// A block of sixteen rows, row by row.
struct Rowwise {
    codes: [[__m512i; LANES]; 4],
    factors: [[__m512; LANES]; 2],
}

/// Unpacks blocks `range`, up to [`BLOCKS`], of up to [`ROWS`] rows; missing rows have zeros for
/// factors. What follows the last weight of a row is of any content.
///
/// # Safety
/// As for [`crate::isa::Kernels512`]; the panel has room for two groups of rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
pub(crate) unsafe fn unpack<F: Codes512>(
    rows: Rows,
    blocks: Blocks,
    range: BlockRange,
    panel: Panel16,
) {
    let zero = (_mm512_setzero_si512(), _mm512_setzero_ps());
    let mut rowwise = Rowwise { codes: [[zero.0; LANES]; 4], factors: [[zero.1; LANES]; 2] };
    let mut padded = TailBlock::new();
    let mut indices = [Indices::NONE; LANES];
    for group in 0..GROUPS {
        let present = rows.count.saturating_sub(group * LANES).min(LANES);
        for r in present..LANES {
            rowwise.factors.iter_mut().for_each(|factors| factors[r] = zero.1);
        }
        let start = rows.start.wrapping_add(group * LANES * rows.stride);
        // A group without rows has zeros for factors, and for codes whatever rows of the other
        // give.
        let some = if present == 0 { rows } else { Rows { start, count: present, ..rows } };
        for (i, block) in range.clone().enumerate() {
            let to = group * BLOCKS + i;
            // SAFETY: rows and block are in bounds by contract, and the panel has room.
            unsafe {
                let to = Panel16 {
                    codes: panel.codes.add(to * BLOCK * LANES),
                    factors: panel.factors.add(to * factors(F::GROUP)),
                };
                // The blocks that are unpacked next, of these rows or of those after them, for the
                // second-level cache: the first is full of this panel.
                let is_last = range.end == blocks.count();
                let ahead = if is_last {
                    (ROWS * rows.stride).wrapping_sub((block - i) * F::BYTES)
                } else {
                    range.len() * F::BYTES
                };
                if F::HAS_X16 {
                    let rows = Rows16::new(some, present, block * F::BYTES);
                    for row in rows.rows {
                        prefetch(row.wrapping_add(ahead), F::BYTES);
                    }
                    let bytes = if block < blocks.whole { F::BYTES } else { blocks.tail };
                    F::unpack_x16(&rows, bytes, to);
                    continue;
                }
                find_indices::<F>(
                    &mut indices,
                    Rows { count: present, ..some },
                    block,
                    blocks,
                    &mut padded,
                );
                for (r, indices) in indices.iter().enumerate().take(present) {
                    let at = some.start.add(r * rows.stride + block * F::BYTES);
                    prefetch(at.wrapping_add(ahead), F::BYTES);
                    let at = padded.pad(at, block, blocks);
                    rowwise.set_row::<F>(r, &F::with_offset(at, F::unpack(at, indices)));
                }
                rowwise.transpose::<F>(to);
            }
        }
    }
}

impl Rowwise {
    /// Makes `weights` row `r`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn set_row<F: Codes512>(&mut self, r: usize, weights: &Unpacked512) {
        for (codes, of_row) in self.codes.iter_mut().zip(weights.codes) {
            codes[r] = of_row;
        }
        // SAFETY: the tables are 64 bytes each.
        let (low, high, both) = unsafe {
            let table = |t: &[i32; 16]| _mm512_loadu_si512(t.as_ptr().cast());
            let natural = &const { natural(F::ORDER, F::GROUP) };
            (table(&natural[0]), table(&natural[1]), table(&SCALES_AND_MINIMA))
        };
        let [a, b, c, d] = weights.scale;
        let scale = match F::ORDER.streams() {
            1 => _mm512_permutexvar_ps(low, a),
            2 => _mm512_permutex2var_ps(a, low, b),
            _ => _mm512_mask_blend_ps(
                const { above(F::ORDER, F::GROUP) },
                _mm512_permutex2var_ps(a, low, b),
                _mm512_permutex2var_ps(c, high, d),
            ),
        };
        if F::GROUP == 32 {
            self.factors[0][r] = _mm512_permutex2var_ps(scale, both, weights.min);
        } else {
            (self.factors[0][r], self.factors[1][r]) = (scale, weights.min);
        }
    }

    /// Turns rows to lanes.
    ///
    /// # Safety
    /// There is room for a block of codes, and for its factors, both aligned to 64 bytes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn transpose<F: Codes512>(&self, to: Panel16) {
        for (register, rows) in self.codes.iter().enumerate() {
            for (lane, transposed) in transpose(*rows).into_iter().enumerate() {
                let quad = usize::from(F::ORDER.quads[register * 16 + lane]);
                // SAFETY: by contract.
                unsafe { to.set_codes(quad, transposed) };
            }
        }
        let parts = if F::GROUP == 16 && F::OFFSET.is_none() { 2 } else { 1 };
        for (part, rows) in self.factors.iter().enumerate().take(parts) {
            let rows = rows.map(|row| _mm512_castps_si512(row));
            for (lane, transposed) in transpose(rows).into_iter().enumerate() {
                // SAFETY: sixteen vectors are the factors of groups of 32, and half those of groups
                // of 16.
                unsafe { to.set_factors(part * 16 + lane, _mm512_castsi512_ps(transposed)) };
            }
        }
    }
}

/// The scales of eight groups, then the minima of as many, which come as sixteen.
const SCALES_AND_MINIMA: [i32; 16] = {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 8 {
        table[i] = i as i32;
        table[8 + i] = 16 + 2 * i as i32;
        i += 1;
    }
    table
};

/// Where in the registers of scales the scale of each group of `group` weights is: 16 times the
/// register, and the lane. For registers two and three, counted from two, in the second table.
const fn natural(order: &Order, group: usize) -> [[i32; 16]; 2] {
    let mut table = [[0; 16]; 2];
    let mut position = 0;
    while position < 64 {
        let stream = position / 16 / order.chain;
        let of = order.quads[position] as usize * 4 / group;
        table[stream / 2][of] = (stream % 2 * 16 + position % 16) as i32;
        position += 1;
    }
    table
}

/// Which groups have their scale in registers two and three.
const fn above(order: &Order, group: usize) -> u16 {
    let mut mask = 0;
    let mut position = 0;
    while position < 64 {
        if position / 16 / order.chain >= 2 {
            mask |= 1 << (order.quads[position] as usize * 4 / group);
        }
        position += 1;
    }
    mask
}
