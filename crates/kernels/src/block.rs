//! Some rows of one matrix times some activations: the unit of work of a task, and the choice of
//! the kernel.

#[cfg(target_arch = "x86_64")]
mod gemm;

use crate::activations::Activations;
use crate::cpu::Tier;
use crate::isa::{
    BLOCK, Blocks, FloatGemv, Gemv, I16Row, Kernels256, Kernels512, NATURAL, Order, Rows,
    SplitI16Row,
};
use crate::matrix::{ActBits, Kernel, Matrix};
use crate::ops;
use crate::pool::Scratch;
use std::ops::Range;

/// Tokens up to which gemv reads a matrix in place, without unpacking it first, and which it takes
/// at a time. On AVX-512, the activations of more do not stay in the first-level cache while a row
/// of 7168 columns passes, and unpacking many rows side by side costs less.
#[cfg(target_arch = "x86_64")]
pub(crate) const GEMV_512_MAX: usize = 2;
#[cfg(target_arch = "x86_64")]
pub(crate) const GEMV_256_MAX: usize = 4;
/// Columns for each token up to which unpacking sixteen rows at once takes less time than going
/// along one row after the other, with what begins and ends a row.
#[cfg(target_arch = "x86_64")]
pub(crate) const SHORT_COLS_512: usize = 256;
/// Tokens of a gemv over weights that are floats, at a time, and tokens up to which it is used:
/// unpacking such weights means transposing them.
#[cfg(target_arch = "x86_64")]
const FLOAT_GEMV: usize = 4;
const FLOAT_GEMV_MAX: usize = 16;
/// Tokens up to which 8-bit integers are faster than bf16 tiles.
#[cfg(target_arch = "x86_64")]
const I8_MAX: usize = 256;
/// Most rows of a gemv task.
const GEMV_ROWS: usize = 64;
/// Fewest and most rows of a gemm task, and fewest tokens unless there are fewer.
const GEMM_ROWS_MIN: usize = 32;
const GEMM_ROWS: usize = 256;
const GEMM_TOKENS_MIN: usize = 4;
/// Tasks that a thread has where there are enough rows.
const TASKS_PER_THREAD: usize = 4;

/// Which rows of the activations take part.
#[derive(Clone, Copy, Debug)]
pub enum Tokens<'a> {
    /// `len` rows from `start` on.
    Range {
        /// The first.
        start: usize,
        /// How many.
        len: usize,
    },
    /// These, in this order.
    List(&'a [u32]),
}

impl Tokens<'_> {
    /// The single row `index`.
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

    /// Some of them.
    fn slice(self, range: Range<usize>) -> Self {
        match self {
            Self::Range { start, len } => {
                assert!(range.end <= len, "tokens {range:?} of {len}");
                Self::Range { start: start + range.start, len: range.len() }
            }
            Self::List(list) => Self::List(&list[range]),
        }
    }

    fn get(&self, i: usize) -> usize {
        match self {
            Self::Range { start, .. } => start + i,
            Self::List(list) => list[i] as usize,
        }
    }
}

/// What a task computes of a list entry: some rows of the matrix times some of the entry's tokens.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) rows: Range<usize>,
    pub(crate) tokens: Range<usize>,
}

/// How many rows and tokens a task has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) rows: usize,
    pub(crate) tokens: usize,
}

impl Division {
    /// So that each of `threads` threads has several tasks of a list whose matrices have `rows`
    /// rows in all, and none waits long for the last. Tokens are divided only where rows are too
    /// few, because each task unpacks its rows. Outputs do not depend on it.
    pub(crate) fn of(threads: usize, rows: usize, tokens: usize, is_gemv: bool) -> Self {
        let share = rows.div_ceil(threads * TASKS_PER_THREAD).max(1);
        if is_gemv {
            return Self { rows: share.min(GEMV_ROWS), tokens: tokens.max(1) };
        }
        let of_rows = share.next_multiple_of(GEMM_ROWS_MIN).min(GEMM_ROWS);
        let row_tasks = rows.div_ceil(of_rows).max(1);
        let groups = (threads * 2).div_ceil(row_tasks);
        let of_tokens = tokens.div_ceil(groups).max(GEMM_TOKENS_MIN);
        Self { rows: of_rows, tokens: of_tokens }
    }

    /// Tasks of an entry with `rows` rows and `tokens` tokens.
    pub(crate) fn tasks(self, rows: usize, tokens: usize) -> usize {
        rows.div_ceil(self.rows) * tokens.div_ceil(self.tokens)
    }

    /// Task `i` of an entry with `rows` rows and `tokens` tokens: neighbouring tasks have
    /// neighbouring rows.
    pub(crate) fn part(self, i: usize, rows: usize, tokens: usize) -> Part {
        let groups = tokens.div_ceil(self.tokens);
        let (row, token) = (i / groups * self.rows, i % groups * self.tokens);
        Part {
            rows: row..rows.min(row + self.rows),
            tokens: token..tokens.min(token + self.tokens),
        }
    }
}

/// The kernel that multiplies a matrix with its activations.
#[derive(Clone, Copy)]
enum Path {
    /// The reference kernel: decoded rows, f32 activations.
    Reference,
    /// f32 activations with weights that are floats, in place.
    #[cfg(target_arch = "x86_64")]
    FloatGemv(FloatGemv),
    /// f32 activations with weights that are floats, widened once for all tokens.
    #[cfg(target_arch = "x86_64")]
    FloatGemm,
    /// 16-bit activations as two bytes in this order, weights in place.
    #[cfg(target_arch = "x86_64")]
    Gemv512(Gemv<SplitI16Row>, &'static Order),
    /// 16-bit activations as words, weights in place.
    #[cfg(target_arch = "x86_64")]
    Gemv256(Gemv<I16Row>),
    /// Weights unpacked to bytes once for all tokens.
    #[cfg(target_arch = "x86_64")]
    Int512(&'static Kernels512),
    /// The same on AVX2, with 8-bit activations, and the largest byte.
    #[cfg(target_arch = "x86_64")]
    I8(&'static Kernels256, u8),
    /// Weights unpacked to 14 bits once for all tokens.
    #[cfg(target_arch = "x86_64")]
    I14(&'static Kernels256),
    /// bf16 tiles.
    #[cfg(target_arch = "x86_64")]
    Tiles(&'static Kernels512),
}

fn path(tier: Tier, matrix: &Matrix<'_>, tokens: usize) -> Path {
    let spec = matrix.format().spec();
    let bits = matrix.act_bits();
    let is_gemv = |most: usize| match matrix.kernel() {
        Kernel::Fastest => tokens <= most,
        Kernel::Gemv => true,
        Kernel::Gemm => false,
    };
    #[cfg(target_arch = "x86_64")]
    if tier.has_avx512() {
        if let Some(gemv) = spec.floats512 {
            return if is_gemv(FLOAT_GEMV_MAX) { Path::FloatGemv(gemv) } else { Path::FloatGemm };
        }
        if let Some(kernels) = &spec.avx512 {
            let is_short = kernels.has_x16 && matrix.cols() <= SHORT_COLS_512 * tokens;
            if is_gemv(if is_short { 0 } else { GEMV_512_MAX }) {
                return Path::Gemv512(kernels.gemv, kernels.order);
            }
            // With fewer tokens, unpacking is most of the work, and bytes are less of it than bf16.
            let tiles_from = match (bits, matrix.kernel()) {
                (ActBits::Sixteen, _) => usize::MAX,
                (ActBits::Fourteen, Kernel::Fastest) => 2 * kernels.group + 1,
                (ActBits::Fourteen, _) => 0,
                (ActBits::Eight, Kernel::Fastest) => I8_MAX + 1,
                (ActBits::Eight, _) => usize::MAX,
            };
            let is_tiles = tier.has_amx() && tokens >= tiles_from;
            return if is_tiles { Path::Tiles(kernels) } else { Path::Int512(kernels) };
        }
    }
    #[cfg(target_arch = "x86_64")]
    if tier.has_avx2() {
        if let Some(gemv) = spec.floats256 {
            return if is_gemv(FLOAT_GEMV_MAX) { Path::FloatGemv(gemv) } else { Path::FloatGemm };
        }
        if let Some(kernels) = &spec.avx2 {
            return match (bits, kernels.largest_byte) {
                // No other kernel has 16 bits.
                (ActBits::Sixteen, _) => Path::Gemv256(kernels.gemv),
                _ if is_gemv(GEMV_256_MAX) => Path::Gemv256(kernels.gemv),
                (ActBits::Eight, Some(largest)) => Path::I8(kernels, largest),
                _ => Path::I14(kernels),
            };
        }
    }
    let _ = (tier, spec, bits, is_gemv(tokens));
    Path::Reference
}

/// Whether `matrix` is read in place.
pub(crate) fn is_gemv(tier: Tier, matrix: &Matrix<'_>, tokens: usize) -> bool {
    match path(tier, matrix, tokens) {
        Path::Reference => true,
        #[cfg(target_arch = "x86_64")]
        Path::FloatGemv(_) | Path::Gemv512(..) | Path::Gemv256(_) => true,
        #[cfg(target_arch = "x86_64")]
        _ => false,
    }
}

/// Says which encoding of the activations the product of `matrix` with `tokens` will read.
///
/// # Panics
/// If shapes do not agree or a token does not exist.
pub(crate) fn want(
    tier: Tier,
    activations: &mut Activations,
    matrix: &Matrix<'_>,
    tokens: Tokens<'_>,
) {
    assert_eq!(matrix.cols(), activations.cols(), "{} matrix and activations", matrix.format());
    let rows = activations.rows();
    let exist = match tokens {
        Tokens::Range { start, len } => start <= rows && len <= rows - start,
        Tokens::List(list) => list.iter().all(|&t| (t as usize) < rows),
    };
    assert!(exist, "{tokens:?} of {rows} activations");
    match path(tier, matrix, tokens.len()) {
        Path::Reference => {}
        #[cfg(target_arch = "x86_64")]
        Path::FloatGemv(_) | Path::FloatGemm => {}
        #[cfg(target_arch = "x86_64")]
        Path::Gemv512(_, order) => activations.want_split_i16(order),
        #[cfg(target_arch = "x86_64")]
        Path::Gemv256(_) => activations.want_i16(),
        #[cfg(target_arch = "x86_64")]
        Path::I8(..) => activations.want_i8(),
        #[cfg(target_arch = "x86_64")]
        Path::Int512(_) if matrix.act_bits() == ActBits::Eight => activations.want_i8(),
        #[cfg(target_arch = "x86_64")]
        Path::Int512(_) => activations.want_split_i16(&NATURAL),
        #[cfg(target_arch = "x86_64")]
        Path::I14(_) => activations.want_i14(),
        #[cfg(target_arch = "x86_64")]
        Path::Tiles(kernels) => activations.want_bf16(kernels.order),
    }
}

/// `part` of `matrix` times `tokens`: `[part.tokens, part.rows]`, in the worker's own memory. The
/// kernel is chosen by all tokens, whatever the part.
///
/// # Panics
/// If [`want`] did not precede with the same matrix and tokens.
pub(crate) fn compute<'s>(
    tier: Tier,
    matrix: &Matrix<'_>,
    activations: &Activations,
    tokens: Tokens<'_>,
    part: &Part,
    scratch: &'s mut Scratch,
) -> &'s [f32] {
    assert_eq!(matrix.cols(), activations.cols(), "{} matrix and activations", matrix.format());
    let rows = matrix.slice(part.rows.start, part.rows.len());
    let task = Task { matrix: &rows, activations, tokens: tokens.slice(part.tokens.clone()) };
    match path(tier, matrix, tokens.len()) {
        Path::Reference => task.reference(scratch),
        #[cfg(target_arch = "x86_64")]
        Path::FloatGemv(gemv) => task.float_gemv(gemv, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::FloatGemm => task.float_gemm(tier, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Gemv512(gemv, order) => {
            task.gemv::<GEMV_512_MAX, _>(gemv, activations.split_i16(order), scratch);
        }
        #[cfg(target_arch = "x86_64")]
        Path::Gemv256(gemv) => {
            task.gemv::<GEMV_256_MAX, _>(gemv, activations.i16(), scratch);
        }
        #[cfg(target_arch = "x86_64")]
        Path::Int512(kernels) => task.int_gemm_512(kernels, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::I8(kernels, largest) => task.i8_gemm_256(kernels, largest, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::I14(kernels) => task.i14_gemm(kernels, scratch),
        #[cfg(target_arch = "x86_64")]
        Path::Tiles(kernels) => task.tile_gemm(kernels, scratch),
    }
    let values = &mut scratch.values[..part.tokens.len() * part.rows.len()];
    if matrix.scale() != 1.0 {
        values.iter_mut().for_each(|v| *v *= matrix.scale());
    }
    values
}

/// A matrix and the activations that a task multiplies it with; products go to
/// [`Scratch::values`], `[tokens, rows]`.
#[derive(Clone, Copy)]
struct Task<'a> {
    matrix: &'a Matrix<'a>,
    activations: &'a Activations,
    tokens: Tokens<'a>,
}

impl Task<'_> {
    /// The reference kernel: every row decoded once, then f32 dot products.
    fn reference(self, scratch: &mut Scratch) {
        let Self { matrix, activations, tokens } = self;
        let row = scratch.row.resize(matrix.cols());
        let values = scratch.values.resize(tokens.len() * matrix.rows());
        for r in 0..matrix.rows() {
            matrix.format().decode(matrix.slice(r, 1).bytes(), row);
            for t in 0..tokens.len() {
                values[t * matrix.rows() + r] = ops::dot(row, activations.row(tokens.get(t)));
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn float_gemv(self, gemv: FloatGemv, scratch: &mut Scratch) {
        let Self { matrix, activations, tokens } = self;
        let values = scratch.values.resize(tokens.len() * matrix.rows());
        for t in (0..tokens.len()).step_by(FLOAT_GEMV) {
            let n = FLOAT_GEMV.min(tokens.len() - t);
            let mut group = [activations.row(tokens.get(t)); FLOAT_GEMV];
            for (i, token) in group.iter_mut().enumerate().take(n) {
                *token = activations.row(tokens.get(t + i));
            }
            let out = &mut values[t * matrix.rows()..][..n * matrix.rows()];
            // SAFETY: the path was chosen for the tier of its kernel; activations are as long as
            // rows (`compute`), and `out` has `n` times as many numbers as there are rows.
            unsafe { gemv(rows_of(matrix), matrix.cols(), &group[..n], out.as_mut_ptr()) };
        }
    }

    /// Weights in place, with up to `MOST` tokens at a time.
    #[cfg(target_arch = "x86_64")]
    fn gemv<const MOST: usize, R: Copy>(
        self,
        gemv: Gemv<R>,
        row: impl Fn(usize) -> R,
        scratch: &mut Scratch,
    ) {
        let Self { matrix, tokens, .. } = self;
        let values = scratch.values.resize(tokens.len() * matrix.rows());
        for t in (0..tokens.len()).step_by(MOST) {
            let n = MOST.min(tokens.len() - t);
            let mut group = [row(tokens.get(t)); MOST];
            for (i, token) in group.iter_mut().enumerate().take(n) {
                *token = row(tokens.get(t + i));
            }
            let out = &mut values[t * matrix.rows()..][..n * matrix.rows()];
            // SAFETY: the path was chosen for the tier of its kernel; activations have the matrix's
            // blocks (`compute`), and `out` has `n` times as many numbers as there are rows.
            unsafe { gemv(rows_of(matrix), blocks_of(matrix), &group[..n], out.as_mut_ptr()) };
        }
    }
}

/// The rows' bytes, for the kernels.
fn rows_of(matrix: &Matrix<'_>) -> Rows {
    let (bytes, count) = (matrix.bytes(), matrix.rows());
    Rows { start: bytes.as_ptr(), stride: bytes.len().checked_div(count).unwrap_or(0), count }
}

/// How the rows divide into blocks.
fn blocks_of(matrix: &Matrix<'_>) -> Blocks {
    let whole = matrix.cols() / BLOCK;
    let format = matrix.format();
    let tail = matrix.cols() % BLOCK / format.block_len() * format.block_bytes();
    Blocks { whole, tail }
}
