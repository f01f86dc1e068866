//! Some rows of one matrix times some inputs: the unit of work of a task, and the choice of path.

#[cfg(target_arch = "x86_64")]
mod many;

use crate::cpu::Tier;
use crate::inputs::{BLOCK, Inputs};
#[cfg(target_arch = "x86_64")]
use crate::isa::avx2;
use crate::isa::{Blocks, Column, FloatGemv, Gemv, Kernels256, Kernels512, NATURAL, Order, Rows};
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
            return match kernels.largest_byte {
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
        Path::Dense => many::dense(tier, &rows, inputs, columns, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Gemv(gemv, order) => few(gemv, order, &rows, inputs, columns, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Bytes(kernels) => many::in_bytes(kernels, &rows, inputs, columns, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Bytes256(kernels, largest) => {
            many::in_bytes_256(kernels, largest, &rows, inputs, columns, scratch);
        }
        #[cfg(target_arch = "x86_64")]
        Path::Words(kernels) => many::in_words(kernels, &rows, inputs, columns, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Tiles(kernels) => many::in_tiles(kernels, &rows, inputs, columns, scratch),
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
