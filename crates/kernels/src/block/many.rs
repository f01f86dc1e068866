//! Many columns: some blocks of some rows are unpacked, as many as stay in a cache, and all columns pass.

use super::{Columns, blocks_of, rows_of};
use crate::buffer::Aligned;
use crate::cpu::Tier;
use crate::inputs::{BLOCK, Inputs};
use crate::isa::avx2::words;
use crate::isa::avx512::{bytes, panel};
use crate::isa::floats::{self, Strided};
use crate::isa::{BlockRange, Kernels256, Kernels512, NATURAL};
use crate::matrix::Matrix;
use crate::pool::Scratch;

/// Rows, and weights of each, that are widened to f32 at a time: 64 KiB.
const DENSE_ROWS: usize = 32;
const DENSE_COLS: usize = 512;
/// Columns that pass at a time: some blocks of them stay in the second-level cache for all rows of a task. It is half
/// as large on processors without AVX-512.
const BYTES_COLUMNS: usize = 512;
const BYTES_COLUMNS_256: usize = BYTES_COLUMNS / 2;
/// Rows, and blocks of 256 weights, that are unpacked to words at a time: 16 KiB.
const PANEL_ROWS: usize = 8;
const PANEL_BLOCKS: usize = 4;
/// Blocks that are unpacked to tiles at a time: 32 rows of them are 32 KiB of bf16, which stay in the
/// first-level cache while all columns pass.
const TILE_BLOCKS: usize = 2;

/// Widens some weights of some rows, turns them, and multiplies them with all columns.
pub(super) fn dense(
    tier: Tier,
    matrix: &Matrix<'_>,
    inputs: &Inputs,
    columns: Columns<'_>,
    scratch: &mut Scratch,
) {
    let (rows, cols, n) = (matrix.rows(), matrix.cols(), columns.len());
    let weight = matrix.format().block_bytes(); // a block of floats is one
    let values = scratch.values.resize(n * rows);
    values.fill(0.0);
    let wide = scratch.row.resize(DENSE_ROWS * DENSE_COLS);
    let turned = scratch.turned.resize(DENSE_ROWS * DENSE_COLS);
    for start in (0..rows).step_by(DENSE_ROWS) {
        let count = DENSE_ROWS.min(rows - start);
        for from in (0..cols).step_by(DENSE_COLS) {
            let len = DENSE_COLS.min(cols - from);
            for (r, wide) in wide.chunks_exact_mut(DENSE_COLS).enumerate().take(count) {
                let row = matrix.slice(start + r, 1);
                matrix
                    .format()
                    .decode(&row.bytes()[from * weight..][..len * weight], &mut wide[..len]);
            }
            let wide = Strided { numbers: wide, stride: DENSE_COLS };
            floats::transpose(tier, wide, (count, len), (turned, DENSE_ROWS));
            let turned = Strided { numbers: turned, stride: DENSE_ROWS };
            let mut multiply = |first: usize, group: Strided<'_>, m: usize| {
                let out = &mut values[first * rows + start..];
                floats::product(tier, group, turned, (m, count, len), (out, rows));
            };
            match columns {
                Columns::Range { start, len: n } => {
                    let numbers = &inputs.rows_from(start)[from..];
                    multiply(0, Strided { numbers, stride: cols }, n);
                }
                Columns::List(list) => {
                    for (c, &column) in list.iter().enumerate() {
                        let numbers = &inputs.row(column as usize)[from..];
                        multiply(c, Strided { numbers, stride: cols }, 1);
                    }
                }
            }
        }
    }
}

/// Unpacks some blocks of some rows to bytes and multiplies them with all columns.
pub(super) fn in_bytes(
    kernels: &Kernels512,
    matrix: &Matrix<'_>,
    inputs: &Inputs,
    columns: Columns<'_>,
    scratch: &mut Scratch,
) {
    let (rows, n, blocks) = (matrix.rows(), columns.len(), blocks_of(matrix));
    let values = scratch.values.resize(n * rows);
    values.fill(0.0);
    let codes = scratch.codes.resize(panel::ROWS * panel::BLOCKS * BLOCK);
    let factors = panel::GROUPS * panel::BLOCKS * panel::factors(kernels.group);
    let factors = scratch.scales.resize(factors);
    let panel = panel::Panel { codes: codes.as_mut_ptr(), factors: factors.as_mut_ptr() };
    let kind = bytes::Kind::of(kernels);
    let unpacked = |slice: &Matrix<'_>, range: BlockRange| {
        let (from, count) = (range.start, range.len());
        // SAFETY: the path was chosen for the tier of its kernels; the panel has room.
        unsafe { (kernels.unpack)(rows_of(slice), blocks, range, panel) };
        bytes::Weights { panel, kind, blocks: count, from, rows: slice.rows() }
    };
    let size = (panel::ROWS, panel::BLOCKS);
    let all = (0..n).map(|c| columns.get(c));
    if matrix.is_coarse() {
        let all: Vec<_> = all.map(inputs.bytes()).collect();
        for_each_pass(matrix, size, (&all, BYTES_COLUMNS), values, |slice, range, some, first| {
            let weights = unpacked(slice, range);
            // SAFETY: as above; columns have the matrix's blocks, and `values` their products.
            unsafe { bytes::coarse(weights, some, bytes::Sums { first, stride: rows }) };
        });
    } else {
        let all: Vec<_> = all.map(inputs.columns(&NATURAL)).collect();
        for_each_pass(matrix, size, (&all, BYTES_COLUMNS), values, |slice, range, some, first| {
            let weights = unpacked(slice, range);
            // SAFETY: as above; columns have the matrix's blocks, and `values` their products.
            unsafe { bytes::fine(weights, some, bytes::Sums { first, stride: rows }) };
        });
    }
}

/// [`in_bytes`] on AVX2.
pub(super) fn in_bytes_256(
    kernels: &Kernels256,
    largest: u8,
    matrix: &Matrix<'_>,
    inputs: &Inputs,
    columns: Columns<'_>,
    scratch: &mut Scratch,
) {
    use crate::isa::avx2::bytes::{BLOCKS, GROUPS, OF_BLOCK, Panel, ROWS, Weights, product};

    let (rows, n, blocks) = (matrix.rows(), columns.len(), blocks_of(matrix));
    let values = scratch.values.resize(n * rows);
    values.fill(0.0);
    let codes = scratch.codes.resize(ROWS * BLOCKS * BLOCK);
    let factors = scratch.scales.resize(GROUPS * BLOCKS * OF_BLOCK);
    let panel = Panel { codes: codes.as_mut_ptr(), factors: factors.as_mut_ptr() };
    let group = matrix.format().spec().avx512.as_ref().map_or(16, |kernels| kernels.group);
    let all: Vec<_> = (0..n).map(|c| columns.get(c)).map(inputs.bytes()).collect();
    let (size, all) = ((ROWS, BLOCKS), (&all[..], BYTES_COLUMNS_256));
    for_each_pass(matrix, size, all, values, |slice, range, some, first| {
        let (from, count) = (range.start, range.len());
        let weights = Weights { panel, group, largest, blocks: count, from, rows: slice.rows() };
        // SAFETY: as in `in_bytes`.
        unsafe {
            (kernels.to_bytes)(rows_of(slice), blocks, range, panel);
            product(weights, some, first, rows);
        }
    });
}

/// Calls `task` with some rows of `matrix`, some blocks of theirs, some of the columns, up to `.1` at a time, and where
/// in `values` `[columns, rows]` the sums of both begin.
fn for_each_pass<C>(
    matrix: &Matrix<'_>,
    size: (usize, usize),
    (columns, at_a_time): (&[C], usize),
    values: &mut [f32],
    mut task: impl FnMut(&Matrix<'_>, BlockRange, &[C], *mut f32),
) {
    let sums = values.chunks_mut(at_a_time * matrix.rows());
    for (columns, sums) in columns.chunks(at_a_time).zip(sums) {
        for_each_panel(matrix, size, |slice, start, range| {
            task(slice, range, columns, sums[start..].as_mut_ptr());
        });
    }
}

/// Calls `task` with some rows of `matrix` at a time, the first one's number, and some blocks of theirs: all rows
/// before the next blocks, so that those of the columns stay in a cache.
fn for_each_panel(
    matrix: &Matrix<'_>,
    (rows, blocks): (usize, usize),
    mut task: impl FnMut(&Matrix<'_>, usize, BlockRange),
) {
    let count = blocks_of(matrix).count();
    for from in (0..count).step_by(blocks) {
        for start in (0..matrix.rows()).step_by(rows) {
            let slice = matrix.slice(start, rows.min(matrix.rows() - start));
            task(&slice, start, from..count.min(from + blocks));
        }
    }
}

/// Unpacks some blocks of some rows to words, as many as stay in the first-level cache, and multiplies
/// them with all columns.
pub(super) fn in_words(
    kernels: &Kernels256,
    matrix: &Matrix<'_>,
    inputs: &Inputs,
    columns: Columns<'_>,
    scratch: &mut Scratch,
) {
    let (rows, n, blocks) = (matrix.rows(), columns.len(), blocks_of(matrix));
    let values = scratch.values.resize(n * rows);
    values.fill(0.0);
    let words = scratch.words.resize(PANEL_ROWS * PANEL_BLOCKS * words::RUN);
    let scales = scratch.scales.resize(PANEL_ROWS * PANEL_BLOCKS);
    for_each_panel(matrix, (PANEL_ROWS, PANEL_BLOCKS), |slice, start, range| {
        let (from, runs) = (range.start, range.len());
        let panel = words::Panel { words: words.as_mut_ptr(), scales: scales.as_mut_ptr() };
        // SAFETY: the path was chosen for the tier of its kernels; the panel has room.
        unsafe { (kernels.to_words)(rows_of(slice), blocks, range, panel) };
        let first = words::Vector { words: panel.words, scales: panel.scales };
        let left = words::Vectors { first, stride: runs * words::RUN, runs };
        let input = inputs.words(from);
        let column = |c: usize| input(columns.get(c));
        let steps = words::RUN / words::STEP;
        let out = values[start..].as_mut_ptr();
        // SAFETY: as above; columns have the matrix's blocks, and `values` their products.
        unsafe { words::product(left, column, (slice.rows(), n), (runs, steps), out, rows) };
    });
}

/// Unpacks the rows piece by piece to bf16 tiles and multiplies each piece with all columns.
pub(super) fn in_tiles(
    kernels: &Kernels512,
    matrix: &Matrix<'_>,
    inputs: &Inputs,
    columns: Columns<'_>,
    scratch: &mut Scratch,
) {
    use crate::isa::amx::{STEP, TILE, TileInputs, product};

    let (n, blocks) = (columns.len(), blocks_of(matrix));
    let width = blocks.count() * BLOCK;
    let padded_rows = matrix.rows().next_multiple_of(TILE);
    let padded_columns = n.next_multiple_of(TILE);
    let sums = scratch.sums.resize(padded_columns * padded_rows);
    sums.fill(0.0);
    let all = inputs.half(kernels.order);
    // Columns 0.. lie there ready; others are brought together.
    let high = match columns {
        Columns::Range { start: 0, .. } => all,
        _ => gather(all, width, columns, &mut scratch.gathered),
    };
    assert!(high.len() >= padded_columns * width, "columns come in tiles of {TILE}");
    for from in (0..blocks.count()).step_by(TILE_BLOCKS) {
        let range = from..blocks.count().min(from + TILE_BLOCKS);
        let steps = range.len() * BLOCK / STEP;
        let panel = scratch.panel.resize(padded_rows * range.len() * BLOCK);
        let tile_inputs = TileInputs { first: high[from * BLOCK..].as_ptr(), stride: width };
        let shape = (padded_rows / TILE, padded_columns / TILE, steps);
        // SAFETY: the path was chosen for a tier with AMX; panel, inputs and sums have the padded
        // shapes, by the lines above.
        unsafe {
            (kernels.tiles)(rows_of(matrix), blocks, range, panel.as_mut_ptr());
            product(panel.as_ptr(), tile_inputs, shape, sums.as_mut_ptr(), padded_rows);
        }
    }
    let values = scratch.values.resize(n * matrix.rows());
    for (out, sums) in values.chunks_exact_mut(matrix.rows()).zip(sums.chunks_exact(padded_rows)) {
        out.copy_from_slice(&sums[..matrix.rows()]);
    }
}

/// Copies the chosen rows of `all` (each `width` long) one after the other, padded to whole tiles.
fn gather<'s>(
    all: &[u16],
    width: usize,
    columns: Columns<'_>,
    gathered: &'s mut Aligned<u16>,
) -> &'s [u16] {
    let rows = columns.len().next_multiple_of(crate::isa::amx::TILE);
    let gathered = gathered.resize(rows * width);
    for (c, row) in gathered.chunks_exact_mut(width).take(columns.len()).enumerate() {
        row.copy_from_slice(&all[columns.get(c) * width..][..width]);
    }
    gathered
}
