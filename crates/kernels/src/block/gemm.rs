//! Many tokens: some blocks of some rows are unpacked, as many as stay in a cache, and multiplied
//! with all tokens.

use super::{Task, Tokens, blocks_of, rows_of};
use crate::buffer::Aligned;
use crate::cpu::Tier;
use crate::isa::avx2::i14;
use crate::isa::avx512::{int, panel};
use crate::isa::floats::{self, Gemm, Shape, Strided, StridedMut};
use crate::isa::{BLOCK, BlockRange, Kernels256, Kernels512, NATURAL, Sums};
use crate::matrix::{ActBits, Matrix};
use crate::pool::Scratch;

/// Rows, and weights of each, that are widened to f32 at a time: 64 KiB.
const FLOAT_ROWS: usize = 32;
const FLOAT_COLS: usize = 512;
/// Tokens that are multiplied at a time: some blocks of them stay in the second-level cache for all
/// rows of a task. It is half as large on processors without AVX-512.
const TOKENS_512: usize = 512;
const TOKENS_256: usize = TOKENS_512 / 2;
/// What is unpacked to 14 bits at a time: 16 KiB.
const I14_PANEL: PanelSize = PanelSize { rows: 8, blocks: 4 };
/// Tokens whose activations stay in the second-level cache whole: the rows' blocks are then read
/// one after the other, as memory delivers them best.
const FEW_TOKENS: usize = 16;
/// Blocks that are unpacked to tiles at a time: 32 rows of them are 32 KiB of bf16, which stay in
/// the first-level cache while all tokens pass.
const TILE_BLOCKS: usize = 2;

/// Rows, and blocks of each, that are unpacked at a time.
#[derive(Clone, Copy)]
struct PanelSize {
    rows: usize,
    blocks: usize,
}

/// Some blocks of some rows of a task.
struct Piece<'a> {
    matrix: &'a Matrix<'a>,
    /// The first row's number in the task.
    start: usize,
    range: BlockRange,
}

impl Task<'_> {
    /// Calls `task` with some rows at a time, and some blocks of theirs: all rows before the next
    /// blocks, so that those of the activations stay in a cache, unless there are few of these.
    fn for_each_piece(self, size: PanelSize, mut task: impl FnMut(Piece<'_>)) {
        let (count, all) = (blocks_of(self.matrix).count(), self.matrix.rows());
        let mut piece = |start: usize, from: usize| {
            let rows = size.rows.min(all - start);
            let matrix = &self.matrix.slice(start, rows);
            task(Piece { matrix, start, range: from..count.min(from + size.blocks) });
        };
        let (starts, froms) = ((0..all).step_by(size.rows), (0..count).step_by(size.blocks));
        if self.tokens.len() <= FEW_TOKENS {
            starts.for_each(|start| froms.clone().for_each(|from| piece(start, from)));
        } else {
            froms.for_each(|from| starts.clone().for_each(|start| piece(start, from)));
        }
    }

    /// Widens some weights of some rows, transposes them, and multiplies them with all tokens.
    pub(super) fn float_gemm(self, tier: Tier, scratch: &mut Scratch) {
        let Self { matrix, activations, tokens } = self;
        let (rows, cols, n) = (matrix.rows(), matrix.cols(), tokens.len());
        let weight = matrix.format().block_bytes(); // a block of floats is one
        let values = scratch.values.resize(n * rows);
        values.fill(0.0);
        let wide = scratch.row.resize(FLOAT_ROWS * FLOAT_COLS);
        let transposed = scratch.transposed.resize(FLOAT_ROWS * FLOAT_COLS);
        for from in (0..cols).step_by(FLOAT_COLS) {
            let len = FLOAT_COLS.min(cols - from);
            let left = match tokens {
                Tokens::Range { start, .. } => {
                    Strided { numbers: &activations.rows_from(start)[from..], stride: cols }
                }
                Tokens::List(list) => {
                    let gathered = scratch.gathered_floats.resize(n * len);
                    for (to, &token) in gathered.chunks_exact_mut(len).zip(list) {
                        to.copy_from_slice(&activations.row(token as usize)[from..][..len]);
                    }
                    Strided { numbers: gathered, stride: len }
                }
            };
            for start in (0..rows).step_by(FLOAT_ROWS) {
                let count = FLOAT_ROWS.min(rows - start);
                for (r, wide) in wide.chunks_exact_mut(FLOAT_COLS).enumerate().take(count) {
                    let bytes = &matrix.slice(start + r, 1).bytes()[from * weight..];
                    matrix.format().decode(&bytes[..len * weight], &mut wide[..len]);
                }
                let wide = Strided { numbers: wide, stride: FLOAT_COLS };
                let to = StridedMut { numbers: transposed, stride: FLOAT_ROWS };
                floats::transpose(tier, wide, Shape { rows: count, cols: len }, to);
                let right = Strided { numbers: transposed, stride: FLOAT_ROWS };
                let out = StridedMut { numbers: &mut values[start..], stride: rows };
                floats::gemm(tier, left, right, Gemm { m: n, n: count, k: len }, out);
            }
        }
    }

    /// Unpacks some blocks of some rows to bytes and multiplies them with all tokens, on AVX-512.
    pub(super) fn int_gemm_512(self, kernels: &Kernels512, scratch: &mut Scratch) {
        let Self { matrix, activations, tokens } = self;
        let (rows, n, blocks) = (matrix.rows(), tokens.len(), blocks_of(matrix));
        let values = scratch.values.resize(n * rows);
        values.fill(0.0);
        let codes = scratch.codes.resize(panel::ROWS * panel::BLOCKS * BLOCK);
        let factors = panel::GROUPS * panel::BLOCKS * panel::factors(kernels.group);
        let factors = scratch.scales.resize(factors);
        let panel = panel::Panel16 { codes: codes.as_mut_ptr(), factors: factors.as_mut_ptr() };
        let kind = int::Kind::of(kernels);
        let unpacked = |piece: &Piece<'_>| {
            let (range, from) = (piece.range.clone(), piece.range.start);
            let count = matrix.cols().min(range.end * BLOCK) - from * BLOCK;
            // SAFETY: the path was chosen for the tier of its kernels; the panel has room.
            unsafe { (kernels.unpack)(rows_of(piece.matrix), blocks, range, panel) };
            int::PanelWeights { panel, kind, count, from, rows: piece.matrix.rows() }
        };
        let size = PanelSize { rows: panel::ROWS, blocks: panel::BLOCKS };
        let all = (0..n).map(|t| tokens.get(t));
        if matrix.act_bits() == ActBits::Eight {
            scratch.i8_rows.clear();
            scratch.i8_rows.extend(all.map(activations.i8()));
            for (some, sums) in in_passes(&scratch.i8_rows, TOKENS_512, values, rows) {
                self.for_each_piece(size, |piece| {
                    let weights = unpacked(&piece);
                    let first = sums[piece.start..].as_mut_ptr();
                    // SAFETY: as for `unpacked`; activations have the matrix's blocks, and `sums`
                    // a number for each row and token.
                    unsafe { int::gemm_i8(weights, some, Sums { first, stride: rows }) };
                });
            }
        } else {
            scratch.split_i16_rows.clear();
            scratch.split_i16_rows.extend(all.map(activations.split_i16(&NATURAL)));
            for (some, sums) in in_passes(&scratch.split_i16_rows, TOKENS_512, values, rows) {
                self.for_each_piece(size, |piece| {
                    let weights = unpacked(&piece);
                    let sums = Sums { first: sums[piece.start..].as_mut_ptr(), stride: rows };
                    // SAFETY: as for 8 bits.
                    unsafe { int::gemm_split_i16(weights, some, sums) };
                });
            }
        }
    }

    /// The same on AVX2, for activations of 8 bits.
    pub(super) fn i8_gemm_256(self, kernels: &Kernels256, largest: u8, scratch: &mut Scratch) {
        use crate::isa::avx2::i8::{BLOCKS, GROUPS, I8Panel, I8Weights, OF_BLOCK, ROWS, gemm};

        let Self { matrix, activations, tokens } = self;
        let (rows, n, blocks) = (matrix.rows(), tokens.len(), blocks_of(matrix));
        let values = scratch.values.resize(n * rows);
        values.fill(0.0);
        let codes = scratch.codes.resize(ROWS * BLOCKS * BLOCK);
        let factors = scratch.scales.resize(GROUPS * BLOCKS * OF_BLOCK);
        let panel = I8Panel { codes: codes.as_mut_ptr(), factors: factors.as_mut_ptr() };
        scratch.i8_rows.clear();
        scratch.i8_rows.extend((0..n).map(|t| tokens.get(t)).map(activations.i8()));
        let size = PanelSize { rows: ROWS, blocks: BLOCKS };
        for (some, sums) in in_passes(&scratch.i8_rows, TOKENS_256, values, rows) {
            self.for_each_piece(size, |piece| {
                let weights = I8Weights {
                    panel,
                    group: kernels.group,
                    largest,
                    blocks: piece.range.len(),
                    from: piece.range.start,
                    rows: piece.matrix.rows(),
                };
                let sums = Sums { first: sums[piece.start..].as_mut_ptr(), stride: rows };
                // SAFETY: the path was chosen for the tier of its kernels; the panel has room,
                // activations have the matrix's blocks, and `sums` a number for each row and token.
                unsafe {
                    (kernels.unpack_i8)(rows_of(piece.matrix), blocks, piece.range, panel);
                    gemm(weights, some, sums);
                }
            });
        }
    }

    /// Unpacks some blocks of some rows to 14 bits, as many as stay in the first-level cache, and
    /// multiplies them with all tokens, on AVX2.
    pub(super) fn i14_gemm(self, kernels: &Kernels256, scratch: &mut Scratch) {
        let Self { matrix, activations, tokens } = self;
        let (rows, n, blocks) = (matrix.rows(), tokens.len(), blocks_of(matrix));
        let values = scratch.values.resize(n * rows);
        values.fill(0.0);
        let words = scratch.words.resize(I14_PANEL.rows * I14_PANEL.blocks * BLOCK);
        let scales = scratch.scales.resize(I14_PANEL.rows * I14_PANEL.blocks);
        self.for_each_piece(I14_PANEL, |piece| {
            let runs = piece.range.len();
            let panel = i14::I14Panel { words: words.as_mut_ptr(), scales: scales.as_mut_ptr() };
            let input = activations.i14(piece.range.start);
            // SAFETY: the path was chosen for the tier of its kernels; the panel has room.
            unsafe { (kernels.unpack_i14)(rows_of(piece.matrix), blocks, piece.range, panel) };
            let first = i14::I14Row { words: panel.words, scales: panel.scales };
            let left = i14::I14Rows { first, runs, count: piece.matrix.rows() };
            let right = i14::I14Tokens { row: |t: usize| input(tokens.get(t)), count: n };
            let sums = Sums { first: values[piece.start..].as_mut_ptr(), stride: rows };
            // SAFETY: as for unpacking; activations have the matrix's blocks, and `values` a number
            // for each row and token.
            unsafe { i14::gemm(left, right, sums) };
        });
    }

    /// Unpacks the rows piece by piece to bf16 tiles and multiplies each piece with all tokens.
    pub(super) fn tile_gemm(self, kernels: &Kernels512, scratch: &mut Scratch) {
        use crate::isa::amx::{STEP, TILE, TileInputs, TileShape, gemm};

        let Self { matrix, activations, tokens } = self;
        let (n, blocks) = (tokens.len(), blocks_of(matrix));
        let width = blocks.count() * BLOCK;
        let padded_rows = matrix.rows().next_multiple_of(TILE);
        let padded_tokens = n.next_multiple_of(TILE);
        let sums = scratch.sums.resize(padded_tokens * padded_rows);
        sums.fill(0.0);
        let all = activations.bf16(kernels.order);
        // Tokens from the first on are in place; others are gathered.
        let inputs = match tokens {
            Tokens::Range { start: 0, .. } => all,
            _ => gather(all, width, tokens, &mut scratch.gathered),
        };
        assert!(inputs.len() >= padded_tokens * width, "tokens come in tiles of {TILE}");
        for from in (0..blocks.count()).step_by(TILE_BLOCKS) {
            let range = from..blocks.count().min(from + TILE_BLOCKS);
            let steps = range.len() * BLOCK / STEP;
            let panel = scratch.panel.resize(padded_rows * range.len() * BLOCK);
            let inputs = TileInputs { first: inputs[from * BLOCK..].as_ptr(), stride: width };
            let (row_groups, token_groups) = (padded_rows / TILE, padded_tokens / TILE);
            let shape = TileShape { row_groups, token_groups, steps };
            let sums = Sums { first: sums.as_mut_ptr(), stride: padded_rows };
            // SAFETY: the path was chosen for a tier with AMX; panel, inputs and sums have the
            // padded shapes, by the lines above.
            unsafe {
                (kernels.tiles)(rows_of(matrix), blocks, range, panel.as_mut_ptr());
                gemm(panel.as_ptr(), inputs, shape, sums);
            }
        }
        let values = scratch.values.resize(n * matrix.rows());
        let padded = sums.chunks_exact(padded_rows);
        for (out, sums) in values.chunks_exact_mut(matrix.rows()).zip(padded) {
            out.copy_from_slice(&sums[..matrix.rows()]);
        }
    }
}

/// Up to `at_a_time` tokens, and their part of `values` `[tokens, rows]`, at a time.
fn in_passes<'a, T>(
    tokens: &'a [T],
    at_a_time: usize,
    values: &'a mut [f32],
    rows: usize,
) -> impl Iterator<Item = (&'a [T], &'a mut [f32])> {
    tokens.chunks(at_a_time).zip(values.chunks_mut(at_a_time * rows))
}

/// Copies the chosen rows of `all` (each `width` long) one after the other, padded to whole tiles.
fn gather<'s>(
    all: &[u16],
    width: usize,
    tokens: Tokens<'_>,
    gathered: &'s mut Aligned<u16>,
) -> &'s [u16] {
    let rows = tokens.len().next_multiple_of(crate::isa::amx::TILE);
    let gathered = gathered.resize(rows * width);
    for (t, row) in gathered.chunks_exact_mut(width).take(tokens.len()).enumerate() {
        row.copy_from_slice(&all[tokens.get(t) * width..][..width]);
    }
    gathered
}
