//! Some rows of one matrix times some inputs: the unit of work of a task, and the choice of path.

use crate::buffer::Aligned;
use crate::cpu::Tier;
use crate::inputs::{BLOCK, Inputs};
use crate::isa::{
    BlockRange, Blocks, Column, FloatGemv, Gemv, Kernels256, Kernels512, NATURAL, Order, Rows,
};
#[cfg(target_arch = "x86_64")]
use crate::isa::{
    avx2::{self, words},
    avx512::{bytes, panel},
    floats::{self, Strided},
};
use crate::matrix::Matrix;
use crate::ops;
use crate::pool::Scratch;
use crate::product::Cpu;

/// Columns up to which a matrix is read in place, without unpacking it first; of a coarse one on AVX-512, one less
/// (Zen 5: 4 columns of Q4_K go 1.7 times as fast in bytes).
const FEW: usize = 4;
/// Columns of coarse matrices up to which bytes are faster than bf16 tiles.
#[cfg(target_arch = "x86_64")]
const COARSE_TILES: usize = 256;
/// Rows of a task with few columns.
const FEW_ROWS: usize = 64;
/// Most rows of a task with many columns.
const MANY_ROWS: usize = 256;
/// Rows, and weights of each, that are widened to f32 at a time: 64 KiB.
#[cfg(target_arch = "x86_64")]
const DENSE_ROWS: usize = 32;
#[cfg(target_arch = "x86_64")]
const DENSE_COLS: usize = 512;
/// Columns that pass at a time: some blocks of them stay in the second-level cache for all rows of a task.
#[cfg(target_arch = "x86_64")]
const BYTES_COLUMNS: usize = 512;
/// Rows, and blocks of 256 weights, that are unpacked to words at a time: 16 KiB.
#[cfg(target_arch = "x86_64")]
const PANEL_ROWS: usize = 8;
#[cfg(target_arch = "x86_64")]
const PANEL_BLOCKS: usize = 4;
/// Blocks that are unpacked to tiles at a time: 32 rows of them are 32 KiB of bf16, which stay in the
/// first-level cache while all columns pass.
#[cfg(target_arch = "x86_64")]
const TILE_BLOCKS: usize = 2;

/// Which of the inputs take part.
#[derive(Clone, Copy, Debug)]
pub enum Columns<'a> {
    /// `len` inputs from `start` on.
    Range {
        /// The first.
        start: usize,
        /// How many.
        len: usize,
    },
    /// These, in this order.
    List(&'a [u32]),
}

impl Columns<'_> {
    /// The single input `index`.
    pub fn one(index: usize) -> Self {
        Self::Range { start: index, len: 1 }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Range { len, .. } => *len,
            Self::List(list) => list.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, i: usize) -> usize {
        match self {
            Self::Range { start, .. } => start + i,
            Self::List(list) => list[i] as usize,
        }
    }
}

/// Some rows of a matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowRange {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// How a matrix meets its inputs.
#[derive(Clone, Copy)]
enum Path {
    /// Scalar twin: decoded rows, f32 inputs.
    Decoded,
    /// f32 inputs with weights that are floats, in place.
    #[cfg(target_arch = "x86_64")]
    Floats(FloatGemv),
    /// f32 inputs with weights that are floats, widened once for all columns.
    #[cfg(target_arch = "x86_64")]
    Dense,
    /// Quantized inputs in this order, weights in place.
    #[cfg(target_arch = "x86_64")]
    Gemv(Gemv, &'static Order),
    /// Weights unpacked to bytes once for all columns.
    #[cfg(target_arch = "x86_64")]
    Bytes(&'static Kernels512),
    /// The same on AVX2, and the largest byte.
    #[cfg(target_arch = "x86_64")]
    Bytes256(&'static Kernels256, u8),
    /// Weights unpacked to words once for all columns.
    #[cfg(target_arch = "x86_64")]
    Words(&'static Kernels256),
    /// bf16 tiles.
    #[cfg(target_arch = "x86_64")]
    Tiles(&'static Kernels512),
}

fn path(tier: Tier, matrix: &Matrix<'_>, columns: usize) -> Path {
    let spec = matrix.format().spec();
    #[cfg(target_arch = "x86_64")]
    if tier.has_avx512() {
        if let Some(gemv) = spec.floats512 {
            return if columns > FEW { Path::Dense } else { Path::Floats(gemv) };
        }
        if let Some(kernels) = &spec.avx512 {
            let few = if matrix.is_coarse() { FEW - 1 } else { FEW };
            if columns <= few {
                return Path::Gemv(kernels.gemv, kernels.order);
            }
            // Below these, unpacking is most of the work, and bytes are less of it than bf16 (measured on a Xeon
            // with AMX: 16 columns go 1.1 to 1.5 times as fast, but of Q6_K 0.94; a prompt of 2048, whose experts
            // have 64 columns and more, 1.15 times).
            let few_for_tiles = if matrix.is_coarse() { COARSE_TILES } else { 2 * kernels.group };
            let tiles = tier.has_amx() && columns > few_for_tiles;
            return if tiles { Path::Tiles(kernels) } else { Path::Bytes(kernels) };
        }
    }
    #[cfg(target_arch = "x86_64")]
    if tier.has_avx2() {
        if let Some(gemv) = spec.floats256 {
            return if columns > FEW { Path::Dense } else { Path::Floats(gemv) };
        }
        if let Some(kernels) = &spec.avx2 {
            if columns <= FEW {
                return Path::Gemv(kernels.gemv, &avx2::ORDER);
            }
            return match kernels.largest {
                Some(largest) if matrix.is_coarse() => Path::Bytes256(kernels, largest),
                _ => Path::Words(kernels),
            };
        }
    }
    let _ = (tier, spec, columns);
    Path::Decoded
}

/// Derives from the inputs what the product of `matrix` with `columns` will read.
///
/// # Panics
/// If shapes do not agree or a column does not exist.
pub(crate) fn prepare(cpu: &Cpu, inputs: &mut Inputs, matrix: &Matrix<'_>, columns: Columns<'_>) {
    assert_eq!(matrix.cols(), inputs.cols(), "{} matrix and inputs", matrix.format());
    let rows = inputs.rows();
    let exist = match columns {
        Columns::Range { start, len } => start <= rows && len <= rows - start,
        Columns::List(list) => list.iter().all(|&c| (c as usize) < rows),
    };
    assert!(exist, "{columns:?} of {rows} inputs");
    match path(cpu.tier(), matrix, columns.len()) {
        Path::Decoded => {}
        #[cfg(target_arch = "x86_64")]
        Path::Floats(_) | Path::Dense => {}
        #[cfg(target_arch = "x86_64")]
        Path::Gemv(_, order) => inputs.quantize(cpu.pool(), order),
        #[cfg(target_arch = "x86_64")]
        Path::Bytes256(..) => inputs.put_in_bytes(cpu.pool()),
        #[cfg(target_arch = "x86_64")]
        Path::Bytes(_) if matrix.is_coarse() => inputs.put_in_bytes(cpu.pool()),
        #[cfg(target_arch = "x86_64")]
        Path::Bytes(_) => inputs.quantize(cpu.pool(), &NATURAL),
        #[cfg(target_arch = "x86_64")]
        Path::Words(_) => inputs.put_in_words(cpu.pool()),
        #[cfg(target_arch = "x86_64")]
        Path::Tiles(kernels) => inputs.halve(cpu.pool(), kernels.order),
    }
}

/// Rows of one task, so that every thread has some and none waits long for the last.
pub(crate) fn run_rows(cpu: &Cpu, rows: usize, columns: usize) -> usize {
    if columns <= FEW {
        return FEW_ROWS;
    }
    let share = rows.div_ceil(cpu.pool().threads() * 4);
    share.next_multiple_of(32).clamp(32, MANY_ROWS)
}

/// Rows `run` of `matrix` times `columns`: `[columns, run.len]`, in the worker's own memory.
pub(crate) fn compute<'s>(
    tier: Tier,
    matrix: &Matrix<'_>,
    run: RowRange,
    inputs: &Inputs,
    columns: Columns<'_>,
    scratch: &'s mut Scratch,
) -> &'s [f32] {
    let rows = matrix.slice(run.start, run.len);
    let n = columns.len() * run.len;
    match path(tier, matrix, columns.len()) {
        Path::Decoded => decoded(&rows, inputs, columns, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Floats(gemv) => in_place(gemv, &rows, inputs, columns, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Dense => dense(tier, &rows, inputs, columns, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Gemv(gemv, order) => few(gemv, order, &rows, inputs, columns, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Bytes(kernels) => in_bytes(kernels, &rows, inputs, columns, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Bytes256(kernels, largest) => {
            in_bytes_256(kernels, largest, &rows, inputs, columns, scratch);
        }
        #[cfg(target_arch = "x86_64")]
        Path::Words(kernels) => in_words(kernels, &rows, inputs, columns, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Tiles(kernels) => many(kernels, &rows, inputs, columns, scratch),
    }
    let values = &mut scratch.values[..n];
    if matrix.scale() != 1.0 {
        values.iter_mut().for_each(|v| *v *= matrix.scale());
    }
    values
}

/// The scalar twin: every row decoded once, then f32 dot products.
fn decoded(matrix: &Matrix<'_>, inputs: &Inputs, columns: Columns<'_>, scratch: &mut Scratch) {
    let row = scratch.row.resize(matrix.cols());
    let values = scratch.values.resize(columns.len() * matrix.rows());
    for r in 0..matrix.rows() {
        matrix.format().decode(matrix.slice(r, 1).bytes(), row);
        for c in 0..columns.len() {
            values[c * matrix.rows() + r] = ops::dot(row, inputs.row(columns.get(c)));
        }
    }
}

fn rows_of(matrix: &Matrix<'_>) -> Rows {
    let stride = matrix.bytes().len().checked_div(matrix.rows()).unwrap_or(0);
    Rows { start: matrix.bytes().as_ptr(), stride, count: matrix.rows() }
}

fn blocks_of(matrix: &Matrix<'_>) -> Blocks {
    let whole = matrix.cols() / BLOCK;
    let format = matrix.format();
    let tail = matrix.cols() % BLOCK / format.block_len() * format.block_bytes();
    Blocks { whole, tail }
}

#[cfg(target_arch = "x86_64")]
fn in_place(
    gemv: FloatGemv,
    matrix: &Matrix<'_>,
    inputs: &Inputs,
    columns: Columns<'_>,
    scratch: &mut Scratch,
) {
    let values = scratch.values.resize(columns.len() * matrix.rows());
    for c in (0..columns.len()).step_by(FEW) {
        let n = FEW.min(columns.len() - c);
        let mut group = [inputs.row(columns.get(c)); FEW];
        for (i, column) in group.iter_mut().enumerate().take(n) {
            *column = inputs.row(columns.get(c + i));
        }
        let out = &mut values[c * matrix.rows()..][..n * matrix.rows()];
        // SAFETY: the path was chosen for the tier of its kernel; columns are as long as rows
        // (`prepare`), and `out` has `n` columns of `rows`.
        unsafe { gemv(rows_of(matrix), matrix.cols(), &group[..n], out.as_mut_ptr()) };
    }
}

/// Widens some weights of some rows, turns them, and multiplies them with all columns.
#[cfg(target_arch = "x86_64")]
fn dense(
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

#[cfg(target_arch = "x86_64")]
fn few(
    gemv: Gemv,
    order: &'static Order,
    matrix: &Matrix<'_>,
    inputs: &Inputs,
    columns: Columns<'_>,
    scratch: &mut Scratch,
) {
    let values = scratch.values.resize(columns.len() * matrix.rows());
    let input = inputs.columns(order);
    for c in (0..columns.len()).step_by(FEW) {
        let n = FEW.min(columns.len() - c);
        let mut group: [Column; FEW] = [input(columns.get(c)); FEW];
        for (i, column) in group.iter_mut().enumerate().take(n) {
            *column = input(columns.get(c + i));
        }
        let out = &mut values[c * matrix.rows()..][..n * matrix.rows()];
        // SAFETY: as in `in_place`; the columns have the matrix's blocks.
        unsafe { gemv(rows_of(matrix), blocks_of(matrix), &group[..n], out.as_mut_ptr()) };
    }
}

/// Unpacks some blocks of some rows to bytes and multiplies them with all columns.
#[cfg(target_arch = "x86_64")]
fn in_bytes(
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
    let numbers: Vec<usize> = (0..n).map(|c| columns.get(c)).collect();
    for (i, numbers) in numbers.chunks(BYTES_COLUMNS).enumerate() {
        let (coarse, fine): (Vec<_>, Vec<_>) = if matrix.is_coarse() {
            (numbers.iter().copied().map(inputs.bytes()).collect(), Vec::new())
        } else {
            (Vec::new(), numbers.iter().copied().map(inputs.columns(&NATURAL)).collect())
        };
        for_each_panel(matrix, (panel::ROWS, panel::BLOCKS), |slice, start, range| {
            let (from, blocks_here) = (range.start, range.len());
            let weights =
                bytes::Weights { panel, kind, blocks: blocks_here, from, rows: slice.rows() };
            let out = values[i * BYTES_COLUMNS * rows + start..].as_mut_ptr();
            let out = bytes::Sums { first: out, stride: rows };
            // SAFETY: the path was chosen for the tier of its kernels; the panel has room, columns have
            // the matrix's blocks, and `values` their products.
            unsafe {
                (kernels.unpack)(rows_of(slice), blocks, range, panel);
                bytes::coarse(weights, &coarse, out);
                bytes::fine(weights, &fine, out);
            }
        });
    }
}

/// [`in_bytes`] on AVX2.
#[cfg(target_arch = "x86_64")]
fn in_bytes_256(
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
    for (i, columns) in all.chunks(BYTES_COLUMNS / 2).enumerate() {
        for_each_panel(matrix, (ROWS, BLOCKS), |slice, start, range| {
            let (from, blocks_here, rows_here) = (range.start, range.len(), slice.rows());
            let weights =
                Weights { panel, group, largest, blocks: blocks_here, from, rows: rows_here };
            let out = values[i * BYTES_COLUMNS / 2 * rows + start..].as_mut_ptr();
            // SAFETY: as in `in_bytes`.
            unsafe {
                (kernels.bytes)(rows_of(slice), blocks, range, panel);
                product(weights, columns, out, rows);
            }
        });
    }
}

/// Calls `task` with some rows of `matrix` at a time, the first one's number, and some blocks of theirs.
#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
fn in_words(
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
        unsafe { (kernels.unpack)(rows_of(slice), blocks, range, panel) };
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

/// Unpacks the rows piece by piece and multiplies each piece with all columns.
#[cfg(target_arch = "x86_64")]
fn many(
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
#[cfg(target_arch = "x86_64")]
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
