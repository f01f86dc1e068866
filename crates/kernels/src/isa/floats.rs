//! Products of f32 matrices: what attention is made of, and gemm with weights that are floats.
//!
//! A tile of sums stays in registers while it goes along `k`; the right factor has its rows one
//! after the other, so that lanes are neighbouring columns and no sum crosses them. An output is
//! summed in the order of `k`, whatever the other outputs are.

use crate::cpu::Tier;

/// Rows `stride` numbers apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strided<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) stride: usize,
}

/// Rows `stride` numbers apart, to be written.
#[derive(Debug)]
pub(crate) struct StridedMut<'a> {
    pub(crate) numbers: &'a mut [f32],
    pub(crate) stride: usize,
}

/// The sizes of a product of matrices: `[m][k]` times `[k][n]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gemm {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// The shape of a matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// `out[i][j] += Σ a[i][l] · b[l][j]`: `a` is `[m][k]`, `b` `[k][n]`, `out` `[m][n]`.
///
/// # Panics
/// If a row is missing.
pub(crate) fn gemm(tier: Tier, a: Strided<'_>, b: Strided<'_>, size: Gemm, out: StridedMut<'_>) {
    let (Gemm { m, n, k }, StridedMut { numbers: out, stride }) = (size, out);
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let end = |rows: usize, stride: usize, len: usize| (rows - 1) * stride + len;
    assert!(end(m, a.stride, k) <= a.numbers.len(), "left factor");
    assert!(end(k, b.stride, n) <= b.numbers.len(), "right factor");
    assert!(n <= stride && end(m, stride, n) <= out.len(), "sums");
    let mut done = 0; // columns
    #[cfg(target_arch = "x86_64")]
    {
        let a = RowsOf { start: a.numbers.as_ptr(), stride: a.stride };
        let b = RowsOf { start: b.numbers.as_ptr(), stride: b.stride };
        let out = RowsOf { start: out.as_mut_ptr(), stride };
        if tier.has_avx512() {
            // SAFETY: the tier has the instructions; factors and sums are as long as `size` says,
            // by the assertions.
            unsafe { avx512::gemm(a, b, size, out) };
            done = n / avx512::LANES * avx512::LANES;
        } else if tier.has_avx2() {
            // SAFETY: as for AVX-512.
            unsafe { avx2::gemm(a, b, size, out) };
            done = n / avx2::LANES * avx2::LANES;
        }
    }
    let _ = tier;
    if done == n {
        return;
    }
    for (a, out) in a.numbers.chunks(a.stride).zip(out.chunks_mut(stride)).take(m) {
        for (&a, b) in a[..k].iter().zip(b.numbers.chunks(b.stride)) {
            for (out, b) in out[done..n].iter_mut().zip(&b[done..n]) {
                *out += a * b;
            }
        }
    }
}

/// Writes the transpose of `from` `[rows][cols]` to `to` `[cols][rows]`.
///
/// # Panics
/// If a row is missing, or the stride of `to` is below `rows`.
pub(crate) fn transpose(tier: Tier, from: Strided<'_>, shape: Shape, to: StridedMut<'_>) {
    let (Shape { rows, cols }, StridedMut { numbers: to, stride }) = (shape, to);
    if rows == 0 || cols == 0 {
        return;
    }
    assert!((rows - 1) * from.stride + cols <= from.numbers.len(), "rows");
    assert!(rows <= stride && (cols - 1) * stride + rows <= to.len(), "columns");
    let mut done = (0, 0); // rows, cols in whole tiles
    #[cfg(target_arch = "x86_64")]
    if let Some((lanes, tile)) = avx512::transpose_tile(tier).or_else(|| avx2::transpose_tile(tier))
    {
        done = (rows / lanes * lanes, cols / lanes * lanes);
        for r in (0..done.0).step_by(lanes) {
            for c in (0..done.1).step_by(lanes) {
                // SAFETY: the tier has the instructions; the tile is inside of both, by the
                // assertions.
                unsafe {
                    let start = from.numbers.as_ptr().add(r * from.stride + c);
                    let from = RowsOf { start, stride: from.stride };
                    tile(from, RowsOf { start: to.as_mut_ptr().add(c * stride + r), stride });
                }
            }
        }
    }
    let _ = tier;
    for r in 0..rows {
        let row = &from.numbers[r * from.stride..][..cols];
        let first = if r < done.0 { done.1 } else { 0 };
        for (c, &number) in row.iter().enumerate().skip(first) {
            to[c * stride + r] = number;
        }
    }
}

/// Widens f16 numbers, little-endian.
///
/// # Panics
/// If `out` has another length.
pub(crate) fn widen_f16(tier: Tier, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), 2 * out.len(), "two bytes a number");
    #[cfg(target_arch = "x86_64")]
    if tier.has_avx512() {
        // SAFETY: the tier has the instructions; the lengths agree.
        return unsafe { avx512::widen_f16(bytes.as_ptr(), out) };
    }
    #[cfg(target_arch = "x86_64")]
    if tier.has_avx2() {
        // SAFETY: the tier has the instructions; the lengths agree.
        return unsafe { avx2::widen_f16(bytes.as_ptr(), out) };
    }
    let _ = tier;
    for (bytes, out) in bytes.chunks_exact(2).zip(out) {
        *out = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
    }
}

/// f16 numbers, `stride` apart from row to row.
#[derive(Clone, Copy)]
pub(crate) struct StridedF16<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) stride: usize,
}

/// As [`transpose`], of f16 that are widened on the way. Returns `false`, and does nothing, where
/// widening first is as fast.
///
/// # Panics
/// As for [`transpose`].
pub(crate) fn transpose_f16(
    tier: Tier,
    from: StridedF16<'_>,
    shape: Shape,
    to: StridedMut<'_>,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    let is_whole = |count: usize| count.is_multiple_of(avx512::LANES);
    #[cfg(target_arch = "x86_64")]
    if tier.has_avx512() && is_whole(shape.rows) && is_whole(shape.cols) {
        let (Shape { rows, cols }, StridedMut { numbers: to, stride }) = (shape, to);
        if rows > 0 && cols > 0 {
            assert!(2 * ((rows - 1) * from.stride + cols) <= from.bytes.len(), "rows");
            assert!(rows <= stride && (cols - 1) * stride + rows <= to.len(), "columns");
        }
        for r in (0..rows).step_by(avx512::LANES) {
            for c in (0..cols).step_by(avx512::LANES) {
                // SAFETY: the tier has the instructions; the tile is inside of both, by the
                // assertions.
                unsafe {
                    let start = from.bytes.as_ptr().add(2 * (r * from.stride + c));
                    let from = RowsOf { start, stride: 2 * from.stride };
                    let to = RowsOf { start: to.as_mut_ptr().add(c * stride + r), stride };
                    avx512::transpose_f16(from, to);
                }
            }
        }
        return true;
    }
    let _ = (tier, from, shape, to);
    false
}

/// Rows from an address on, `stride` numbers apart.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct RowsOf<P> {
    start: P,
    stride: usize,
}

/// Writes the transpose of a square tile.
#[cfg(target_arch = "x86_64")]
type TransposeTile = unsafe fn(from: RowsOf<*const f32>, to: RowsOf<*mut f32>);

/// The kernel of one tier: `$rows` rows by `$vectors` vectors of sums in registers.
#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($features:literal, $lanes:literal, [$rows:literal, $vectors:literal],
     $zero:ident, $load:ident, $store:ident, $set:ident, $fmadd:ident) => {
        /// Numbers in a register.
        pub(super) const LANES: usize = $lanes;
        const ROWS: usize = $rows;
        const VECTORS: usize = $vectors;

        /// [`super::gemm`] for as many columns as fill vectors.
        ///
        /// # Safety
        /// The CPU has the instructions; factors and sums have the rows that `size` says.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn gemm(
            a: RowsOf<*const f32>,
            b: RowsOf<*const f32>,
            size: Gemm,
            out: RowsOf<*mut f32>,
        ) {
            let Gemm { m, n, k } = size;
            let mut column = 0;
            while column + LANES <= n {
                let wide = column + VECTORS * LANES <= n;
                let mut row = 0;
                while row < m {
                    // SAFETY: rows and columns are below their counts.
                    unsafe {
                        let a = RowsOf { start: a.start.add(row * a.stride), ..a };
                        let b = RowsOf { start: b.start.add(column), ..b };
                        let out = RowsOf { start: out.start.add(row * out.stride + column), ..out };
                        row += match (m - row, wide) {
                            (ROWS.., true) => tile::<ROWS, VECTORS>(a, b, k, out),
                            (ROWS.., false) => tile::<ROWS, 1>(a, b, k, out),
                            (4.., true) => tile::<4, VECTORS>(a, b, k, out),
                            (4.., false) => tile::<4, 1>(a, b, k, out),
                            (2.., true) => tile::<2, VECTORS>(a, b, k, out),
                            (2.., false) => tile::<2, 1>(a, b, k, out),
                            (_, true) => tile::<1, VECTORS>(a, b, k, out),
                            (_, false) => tile::<1, 1>(a, b, k, out),
                        };
                    }
                }
                column += if wide { VECTORS * LANES } else { LANES };
            }
        }

        /// A tile of sums; how many rows it has.
        ///
        /// # Safety
        /// As for [`gemm`]; factors and sums have the tile.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn tile<const R: usize, const V: usize>(
            a: RowsOf<*const f32>,
            b: RowsOf<*const f32>,
            k: usize,
            out: RowsOf<*mut f32>,
        ) -> usize {
            let mut sums = [[$zero(); V]; R];
            // SAFETY: by contract.
            unsafe {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = $load(out.start.add(r * out.stride + v * LANES));
                    }
                }
                for l in 0..k {
                    let mut right = [$zero(); V];
                    for (v, right) in right.iter_mut().enumerate() {
                        *right = $load(b.start.add(l * b.stride + v * LANES));
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let left = $set(*a.start.add(r * a.stride + l));
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = $fmadd(left, right, *sum);
                        }
                    }
                }
                for (r, sums) in sums.into_iter().enumerate() {
                    for (v, sum) in sums.into_iter().enumerate() {
                        $store(out.start.add(r * out.stride + v * LANES), sum);
                    }
                }
            }
            R
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Gemm, RowsOf, TransposeTile};
    use crate::cpu::Tier;
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_permute2f128_ps,
        _mm256_set1_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps,
        _mm256_unpacklo_ps,
    };

    kernel!(
        "avx2,fma",
        8,
        [6, 2],
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps
    );

    /// The rows and columns of a tile, and what transposes it, if the CPU can.
    pub(super) fn transpose_tile(tier: Tier) -> Option<(usize, TransposeTile)> {
        tier.has_avx2().then_some((LANES, transpose_8 as TransposeTile))
    }

    /// Writes the transpose of 8 rows of 8 numbers.
    ///
    /// # Safety
    /// The CPU has AVX2; both have the rows, as far apart as they say.
    #[target_feature(enable = "avx2")]
    unsafe fn transpose_8(from: RowsOf<*const f32>, to: RowsOf<*mut f32>) {
        let mut rows = [_mm256_setzero_ps(); 8];
        for (r, row) in rows.iter_mut().enumerate() {
            // SAFETY: by contract.
            *row = unsafe { _mm256_loadu_ps(from.start.add(r * from.stride)) };
        }
        // In each half of a register: numbers of two rows, then of four.
        let mut fours = rows;
        for quad in [0, 4] {
            let [a, b, c, d] = [rows[quad], rows[quad + 1], rows[quad + 2], rows[quad + 3]];
            let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (low_2, high_2) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            fours[quad] = _mm256_shuffle_ps::<0b0100_0100>(low, low_2);
            fours[quad + 1] = _mm256_shuffle_ps::<0b1110_1110>(low, low_2);
            fours[quad + 2] = _mm256_shuffle_ps::<0b0100_0100>(high, high_2);
            fours[quad + 3] = _mm256_shuffle_ps::<0b1110_1110>(high, high_2);
        }
        for c in 0..4 {
            let first = _mm256_permute2f128_ps::<0x20>(fours[c], fours[c + 4]);
            let second = _mm256_permute2f128_ps::<0x31>(fours[c], fours[c + 4]);
            // SAFETY: by contract.
            unsafe {
                _mm256_storeu_ps(to.start.add(c * to.stride), first);
                _mm256_storeu_ps(to.start.add((c + 4) * to.stride), second);
            }
        }
    }

    /// Widens f16 numbers.
    ///
    /// # Safety
    /// The CPU has F16C; there are two bytes for each number.
    #[target_feature(enable = "avx2,f16c")]
    pub(super) unsafe fn widen_f16(bytes: *const u8, out: &mut [f32]) {
        for (i, eight) in out.chunks_mut(8).enumerate() {
            // SAFETY: by contract; the last numbers are copied to where there is room for eight.
            unsafe {
                let at = bytes.add(i * 16);
                if eight.len() == 8 {
                    let wide = _mm256_cvtph_ps(_mm_loadu_si128(at.cast()));
                    _mm256_storeu_ps(eight.as_mut_ptr(), wide);
                } else {
                    let (mut narrow, mut wide) = ([0u8; 16], [0.0f32; 8]);
                    at.copy_to_nonoverlapping(narrow.as_mut_ptr(), 2 * eight.len());
                    let numbers = _mm256_cvtph_ps(_mm_loadu_si128(narrow.as_ptr().cast()));
                    _mm256_storeu_ps(wide.as_mut_ptr(), numbers);
                    eight.copy_from_slice(&wide[..eight.len()]);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Gemm, RowsOf, TransposeTile};
    use crate::cpu::Tier;
    use std::arch::x86_64::{
        __mmask16, _mm256_loadu_si256, _mm256_maskz_loadu_epi16, _mm512_castps_si512,
        _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_mask_storeu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
        _mm512_storeu_ps, _mm512_storeu_si512,
    };

    use crate::isa::shuffle512::transpose;

    kernel!(
        "avx512f,fma",
        16,
        [12, 2],
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps
    );

    /// The rows and columns of a tile, and what transposes it, if the CPU can.
    pub(super) fn transpose_tile(tier: Tier) -> Option<(usize, TransposeTile)> {
        tier.has_avx512().then_some((LANES, transpose_16 as TransposeTile))
    }

    /// Writes the transpose of 16 rows of 16 numbers.
    ///
    /// # Safety
    /// The CPU has AVX-512 F; both have the rows, as far apart as they say.
    #[target_feature(enable = "avx512f")]
    unsafe fn transpose_16(from: RowsOf<*const f32>, to: RowsOf<*mut f32>) {
        let mut rows = [_mm512_setzero_si512(); 16];
        for (r, row) in rows.iter_mut().enumerate() {
            // SAFETY: by contract.
            *row = unsafe { _mm512_loadu_si512(from.start.add(r * from.stride).cast()) };
        }
        for (c, column) in transpose(rows).into_iter().enumerate() {
            // SAFETY: by contract.
            unsafe { _mm512_storeu_si512(to.start.add(c * to.stride).cast(), column) };
        }
    }

    /// As [`transpose_16`], of f16 in rows `from.stride` bytes apart.
    ///
    /// # Safety
    /// As for [`transpose_16`].
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn transpose_f16(from: RowsOf<*const u8>, to: RowsOf<*mut f32>) {
        let mut rows = [_mm512_setzero_si512(); 16];
        for (r, row) in rows.iter_mut().enumerate() {
            // SAFETY: by contract.
            let narrow = unsafe { _mm256_loadu_si256(from.start.add(r * from.stride).cast()) };
            *row = _mm512_castps_si512(_mm512_cvtph_ps(narrow));
        }
        for (c, column) in transpose(rows).into_iter().enumerate() {
            // SAFETY: by contract.
            unsafe { _mm512_storeu_si512(to.start.add(c * to.stride).cast(), column) };
        }
    }

    /// # Safety
    /// The CPU has AVX-512 F; there are two bytes for each number.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn widen_f16(bytes: *const u8, out: &mut [f32]) {
        let (whole, rest) = out.as_chunks_mut::<LANES>();
        let tail = bytes.wrapping_add(2 * LANES * whole.len());
        for (i, some) in whole.iter_mut().enumerate() {
            // SAFETY: by contract.
            unsafe {
                let narrow = _mm256_loadu_si256(bytes.add(2 * LANES * i).cast());
                _mm512_storeu_ps(some.as_mut_ptr(), _mm512_cvtph_ps(narrow));
            }
        }
        if !rest.is_empty() {
            let mask = ((1u32 << rest.len()) - 1) as __mmask16;
            // SAFETY: by contract; what is masked is neither read nor written.
            unsafe {
                let narrow = _mm256_maskz_loadu_epi16(mask, tail.cast());
                _mm512_mask_storeu_ps(rest.as_mut_ptr(), mask, _mm512_cvtph_ps(narrow));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_tests::Random;

    #[test]
    fn f16_is_widened_while_it_is_transposed() {
        let mut random = Random::new(8);
        for (rows, cols) in [(16, 16), (64, 96), (16, 48), (0, 16)] {
            let stride = cols + 3;
            let narrow: Vec<half::f16> =
                (0..rows * stride).map(|_| half::f16::from_f32(random.float())).collect();
            let bytes: Vec<u8> = narrow.iter().flat_map(|x| x.to_le_bytes()).collect();
            for tier in Tier::available() {
                let mut out = vec![7.0; cols * 64];
                let from = StridedF16 { bytes: &bytes, stride };
                let to = StridedMut { numbers: &mut out, stride: 64 };
                if !transpose_f16(tier, from, Shape { rows, cols }, to) {
                    assert!(!tier.has_avx512());
                    continue;
                }
                for (at, &x) in out.iter().enumerate() {
                    let (c, r) = (at / 64, at % 64);
                    let expected = if r < rows { narrow[r * stride + c].to_f32() } else { 7.0 };
                    assert_eq!(x, expected, "{tier} {rows} {cols}");
                }
            }
        }
    }

    #[test]
    fn products_of_all_shapes_are_the_sums_they_should_be() {
        let mut random = Random::new(3);
        for (m, n, k) in [(1, 1, 1), (2, 16, 3), (7, 64, 33), (13, 75, 20), (6, 100, 64), (0, 5, 5)]
        {
            let (a_stride, b_stride, stride) = (k + 3, n + 5, n + 1);
            let mut numbers =
                |count: usize| -> Vec<f32> { (0..count).map(|_| random.float()).collect() };
            let (a, b) = (numbers(m * a_stride), numbers(k * b_stride));
            let begun = numbers(m * stride);
            for tier in Tier::available() {
                let mut out = begun.clone();
                let left = Strided { numbers: &a, stride: a_stride };
                let right = Strided { numbers: &b, stride: b_stride };
                let sums = StridedMut { numbers: &mut out, stride };
                gemm(tier, left, right, Gemm { m, n, k }, sums);
                for (at, (out, begun)) in out.iter().zip(&begun).enumerate() {
                    let (i, j) = (at / stride, at % stride);
                    let sum: f32 = (0..k)
                        .map(|l| a[i * a_stride + l] * b.get(l * b_stride + j).unwrap_or(&0.0))
                        .sum();
                    let expected = if j < n { begun + sum } else { *begun };
                    assert!(
                        (out - expected).abs() < 1e-5,
                        "{tier} {m} {n} {k}: {out} for {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_transpose_has_rows_for_columns() {
        let mut random = Random::new(4);
        for (rows, cols) in [(1, 1), (16, 16), (33, 50), (64, 7), (8, 24)] {
            let (stride, apart) = (cols + 2, rows + 3);
            let from: Vec<f32> = (0..rows * stride).map(|_| random.float()).collect();
            for tier in Tier::available() {
                let mut to = vec![9.0; cols * apart];
                let rows_of = Strided { numbers: &from, stride };
                let columns = StridedMut { numbers: &mut to, stride: apart };
                transpose(tier, rows_of, Shape { rows, cols }, columns);
                for (at, &number) in to.iter().enumerate() {
                    let (c, r) = (at / apart, at % apart);
                    let expected = if r < rows { from[r * stride + c] } else { 9.0 };
                    assert_eq!(number, expected, "{tier} {rows} {cols}");
                }
            }
        }
    }

    #[test]
    fn every_f16_widens_to_itself() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for tier in Tier::available() {
            // All in whole vectors, and some in none.
            for range in [0..bytes.len(), 2 * 0x3C00..2 * 0x3C07] {
                let bytes = &bytes[range];
                let mut out = vec![0.0; bytes.len() / 2];
                widen_f16(tier, bytes, &mut out);
                for (bytes, out) in bytes.chunks_exact(2).zip(out) {
                    let number = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
                    assert!(out == number || out.is_nan() && number.is_nan(), "{out} for {number}");
                }
            }
        }
    }
}
