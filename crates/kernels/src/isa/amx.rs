//! AMX tiles: gemm by way of bf16.
//!
//! A tile multiply does 16 x 16 x 32 products in 16 cycles, some eight times what AVX-512 does, so
//! prefill unpacks weights to bf16 once per batch and lets the tiles do the rest. Sums are f32,
//! over the whole row, in one fixed order. Rounding a weight and an input to bf16 costs about a
//! quarter of the error of 8-bit inputs.
//!
//! ```text
//! panel   [row groups of 16][steps of 32 weights][16 pairs][16 rows][2]   bf16, 1 KiB a step
//! inputs  [tokens][steps of 32 weights][32]                              bf16, row by row
//! out     [tokens][rows]                                                 f32
//! ```
//! The compiler knows no tiles yet, so they are spelled in assembly; it never uses them itself, and
//! every function here leaves them released.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m512, __m512bh, __m512i, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32,
    _mm512_cvtne2ps_pbh, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_permutexvar_ps,
    _mm512_setzero_si512, _mm512_storeu_si512,
};

use super::TailBlock;
use super::avx512::{Codes512, Indices, Unpacked512, find_indices};
use super::shuffle512::transpose;
use super::{BlockRange, Blocks, Order, Rows, Sums};

/// Weights that one tile multiply consumes of each row.
pub(crate) const STEP: usize = 32;
/// Rows and tokens of a tile.
pub(crate) const TILE: usize = 16;
/// bf16 numbers in a tile.
const TILE_LEN: usize = TILE * STEP;
/// Tiles in 256 weights of 16 rows.
const STEPS: usize = 256 / STEP;

/// Unpacks blocks `range` of `rows` into a panel; missing rows of the last group become zero.
///
/// # Safety
/// The CPU has AVX-512 with BF16; `rows` are as `blocks` says; `panel` has room for
/// `rows.count` rounded up to 16, times `range.len() * 256` numbers.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2,avx512bf16"
)]
pub(crate) unsafe fn tiles<F: Codes512>(
    rows: Rows,
    blocks: Blocks,
    range: BlockRange,
    panel: *mut u16,
) {
    let mut rowwise = Tiles([0; STEPS * TILE_LEN]);
    let mut padded = TailBlock::new();
    let mut indices = [Indices::NONE; TILE];
    for group in 0..rows.count.div_ceil(TILE) {
        let present = (rows.count - group * TILE).min(TILE);
        rowwise.0[..].fill(0);
        let start = rows.start.wrapping_add(group * TILE * rows.stride);
        let rows = Rows { start, count: present, ..rows };
        for (i, block) in range.clone().enumerate() {
            // SAFETY: rows and block are in bounds by contract.
            unsafe { find_indices::<F>(&mut indices, rows, block, blocks, &mut padded) };
            for (r, indices) in indices.iter().enumerate().take(present) {
                // SAFETY: row and block are in bounds by contract.
                unsafe {
                    let at = rows.start.add(r * rows.stride + block * F::BYTES);
                    let at = padded.pad(at, block, blocks);
                    bf16::<F>(&F::unpack(at, indices), r, &mut rowwise);
                }
            }
            for step in 0..STEPS {
                let to = (group * range.len() + i) * STEPS + step;
                // SAFETY: the block has this tile, and the panel by contract.
                unsafe {
                    pack_vnni_pairs(
                        rowwise.0.as_ptr().add(step * TILE_LEN),
                        STEP,
                        panel.add(to * TILE_LEN),
                    )
                };
            }
        }
    }
}

/// `[steps][16 rows][32]` bf16 numbers of one block of 16 rows.
#[repr(align(64))]
struct Tiles([u16; STEPS * TILE_LEN]);

/// Writes 256 unpacked weights as row `r` of eight tiles.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2,avx512bf16"
)]
unsafe fn bf16<F: Codes512>(weights: &Unpacked512, r: usize, tiles: &mut Tiles) {
    let codes: [[__m128i; 4]; 4] =
        // SAFETY: a register is four quarters; all bit patterns are values.
        unsafe { std::mem::transmute::<[__m512i; 4], [[__m128i; 4]; 4]>(weights.codes) };
    for (i, quarters) in codes.into_iter().enumerate() {
        let scale = weights.scale[i / F::ORDER.chain];
        let quarter = |q: usize| -> __m512 {
            // SAFETY: the tables have 16 entries each.
            let (lane, group) =
                unsafe { (load(&Expand::<F>::LANE[q]), load(&Expand::<F>::GROUP[i * 4 + q])) };
            let code = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(quarters[q]));
            let min = _mm512_permutexvar_ps(group, weights.min);
            _mm512_fmadd_ps(code, _mm512_permutexvar_ps(lane, scale), min)
        };
        for half in 0..2 {
            let pair = _mm512_cvtne2ps_pbh(quarter(half * 2 + 1), quarter(half * 2));
            let to = &mut tiles.0[(i * 2 + half) * TILE_LEN + r * STEP..][..STEP];
            // SAFETY: 32 numbers are 64 bytes; all bit patterns are values.
            unsafe {
                _mm512_storeu_si512(
                    to.as_mut_ptr().cast(),
                    std::mem::transmute::<__m512bh, __m512i>(pair),
                );
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(table: &[i32; 16]) -> __m512i {
    // SAFETY: 16 numbers are 64 bytes.
    unsafe { _mm512_loadu_si512(table.as_ptr().cast()) }
}

/// Which lane of the scales and which group's minimum each of 16 neighbouring codes takes.
struct Expand<F>(std::marker::PhantomData<F>);

impl<F: Codes512> Expand<F> {
    /// `[quarter][code]`: four codes to a lane.
    const LANE: [[i32; 16]; 4] = lanes();
    /// `[register * 4 + quarter][code]`: sixteen weights to a group.
    const GROUP: [[i32; 16]; 16] = groups(F::ORDER);
}

const fn lanes() -> [[i32; 16]; 4] {
    let mut table = [[0; 16]; 4];
    let mut i = 0;
    while i < 64 {
        table[i / 16][i % 16] = (i / 4) as i32;
        i += 1;
    }
    table
}

const fn groups(order: &Order) -> [[i32; 16]; 16] {
    let mut table = [[0; 16]; 16];
    let mut i = 0;
    while i < 256 {
        table[i / 16][i % 16] = (order.quads[i / 4] / 4) as i32;
        i += 1;
    }
    table
}

/// Turns a tile `[16 rows][16 pairs]` into `[16 pairs][16 rows]`.
///
/// # Safety
/// The CPU has AVX-512 F; `rows` are 16 of 32 numbers, `stride` apart; `to` has room for a tile.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn pack_vnni_pairs(rows: *const u16, stride: usize, to: *mut u16) {
    let mut a = [_mm512_setzero_si512(); 16];
    for (r, a) in a.iter_mut().enumerate() {
        // SAFETY: row `r` has 32 numbers by contract.
        *a = unsafe { _mm512_loadu_si512(rows.add(r * stride).cast()) };
    }
    for (pair, rows) in transpose(a).into_iter().enumerate() {
        // SAFETY: `to` has 16 rows of 32 numbers.
        unsafe { _mm512_storeu_si512(to.add(pair * STEP).cast(), rows) };
    }
}

/// Activations of a tile product: `[tokens][stride]` bf16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileInputs {
    /// First number of the first token.
    pub(crate) first: *const u16,
    /// Numbers from token to token.
    pub(crate) stride: usize,
}

/// How many tiles a product has: groups of 16 rows and of 16 tokens, and steps of 32 weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileShape {
    pub(crate) row_groups: usize,
    pub(crate) token_groups: usize,
    pub(crate) steps: usize,
}

/// `out[t][r] += panel[r] · inputs[t]`.
///
/// # Safety
/// The tier is AMX. `panel` holds `row_groups` groups of `steps` tiles, `inputs`
/// `token_groups * 16` tokens of `steps * 32` numbers, `out` as many tokens of at least
/// `row_groups * 16` sums.
pub(crate) unsafe fn gemm(panel: *const u16, inputs: TileInputs, shape: TileShape, out: Sums) {
    let TileShape { row_groups, token_groups, steps } = shape;
    let config = Config::new();
    // SAFETY: loads a valid configuration: palette 1, eight tiles of 16 rows and 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
    let group = steps * TILE_LEN;
    // Two row groups of a panel fit the first-level cache; the inputs stream past them.
    for r in (0..row_groups).step_by(2) {
        // An odd last group is computed twice rather than by a second kernel; the second of the
        // pair is then the same memory, and written with the same values.
        let r1 = (r + 1).min(row_groups - 1);
        for c in (0..token_groups).step_by(2) {
            let c1 = (c + 1).min(token_groups - 1);
            // SAFETY: all groups are below their counts, so panel, inputs and out are in bounds.
            unsafe {
                let at = |c: usize| inputs.first.add(c * TILE * inputs.stride);
                let tile = |c: usize, r: usize| out.from(c * TILE).first.add(r * TILE);
                let tiles = [tile(c, r), tile(c, r1), tile(c1, r), tile(c1, r1)];
                load_sums(tiles, out.stride);
                let weights = [panel.add(r * group), panel.add(r1 * group)];
                multiply([at(c), at(c1)], inputs.stride, weights, steps);
                store_sums(tiles, out.stride);
            }
        }
    }
    // SAFETY: releases the tiles.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Loads four tiles of sums.
///
/// # Safety
/// Each pointer has 16 rows of 16 f32, `stride` f32 apart; tiles are configured.
#[inline]
unsafe fn load_sums(tiles: [*mut f32; 4], stride: usize) {
    // SAFETY: reads the four tiles.
    unsafe {
        asm!("tileloadd tmm0, [{0} + {4}*1]", "tileloadd tmm1, [{1} + {4}*1]",
             "tileloadd tmm2, [{2} + {4}*1]", "tileloadd tmm3, [{3} + {4}*1]",
             in(reg) tiles[0], in(reg) tiles[1], in(reg) tiles[2], in(reg) tiles[3],
             in(reg) stride * 4, options(nostack, readonly));
    }
}

/// Stores four tiles of sums; two that are the same memory hold the same values.
///
/// # Safety
/// As for [`load_sums`], writable.
#[inline]
unsafe fn store_sums(tiles: [*mut f32; 4], stride: usize) {
    // SAFETY: writes the four tiles.
    unsafe {
        asm!("tilestored [{0} + {4}*1], tmm0", "tilestored [{1} + {4}*1], tmm1",
             "tilestored [{2} + {4}*1], tmm2", "tilestored [{3} + {4}*1], tmm3",
             in(reg) tiles[0], in(reg) tiles[1], in(reg) tiles[2], in(reg) tiles[3],
             in(reg) stride * 4, options(nostack));
    }
}

/// Two token groups times two row groups, added to the four tiles of sums.
///
/// # Safety
/// `tokens` have 16 rows of `steps * 32` numbers, `stride` apart; `weights` have `steps` tiles.
#[inline]
unsafe fn multiply(tokens: [*const u16; 2], stride: usize, weights: [*const u16; 2], steps: usize) {
    for step in 0..steps {
        // SAFETY: reads tile `step` of each operand; tile registers belong to this module.
        unsafe {
            asm!("tileloadd tmm4, [{0} + {4}*1]", "tileloadd tmm6, [{2} + {5}*1]",
                 "tdpbf16ps tmm0, tmm4, tmm6",
                 "tileloadd tmm7, [{3} + {5}*1]",
                 "tdpbf16ps tmm1, tmm4, tmm7",
                 "tileloadd tmm5, [{1} + {4}*1]",
                 "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                 in(reg) tokens[0].add(step * STEP), in(reg) tokens[1].add(step * STEP),
                 in(reg) weights[0].add(step * TILE_LEN), in(reg) weights[1].add(step * TILE_LEN),
                 in(reg) stride * 2, in(reg) 64usize, options(nostack, readonly));
        }
    }
}

/// The memory form of the tile configuration (Intel SDM, volume 1, chapter "Programming with AMX").
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    fn new() -> Self {
        let mut config = Self {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            bytes_per_row: [0; 16],
            rows: [0; 16],
        };
        config.bytes_per_row[..8].fill(64);
        config.rows[..8].fill(16);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;
    use crate::kernel_tests::Random;

    /// Unpacking needs no tiles, only bf16: processors without AMX test it, too.
    #[test]
    fn panels_hold_the_scalar_twins_weights_as_bf16() {
        if !(crate::Tier::detect().has_avx512() && is_x86_feature_detected!("avx512bf16")) {
            crate::kernel_tests::skipped("no AVX-512 with bf16 on this machine");
            return;
        }
        let mut random = Random::new(3);
        for format in Format::all() {
            let Some(kernels) = &format.spec().avx512 else { continue };
            let (rows, cols) = (19, 512 + 96 / format.block_len() * format.block_len());
            let bytes = random.blocks(format, rows, cols);
            let stride = bytes.len() / rows;
            let tail = cols % 256 / format.block_len() * format.block_bytes();
            let blocks = Blocks { whole: 2, tail };
            let count = blocks.count();
            let mut panel = vec![u16::MAX; 2 * count * STEPS * TILE_LEN];
            let all = Rows { start: bytes.as_ptr(), stride, count: rows };
            // SAFETY: the CPU has bf16; the panel has room for two groups of rows.
            unsafe { (kernels.tiles)(all, blocks, 0..count, panel.as_mut_ptr()) };
            for r in 0..2 * TILE {
                let mut row = vec![0.0; count * 256];
                if r < rows {
                    format.decode(&bytes[r * stride..][..stride], &mut row[..cols]);
                }
                for (at, weights) in row.chunks(256).enumerate() {
                    let largest = weights.iter().fold(0.0f32, |a, w| a.max(w.abs()));
                    for position in 0..256 {
                        let natural = usize::from(kernels.order.quads[position / 4]) * 4;
                        let weight = weights[natural + position % 4];
                        let tile = (r / TILE * count + at) * STEPS + position / STEP;
                        let pair = position % STEP / 2 * STEP + r % TILE * 2 + position % 2;
                        let bits = panel[tile * TILE_LEN + pair];
                        let found = f32::from_bits(u32::from(bits) << 16);
                        assert!(
                            (found - weight).abs() <= largest / 256.0,
                            "{format} row {r} block {at} position {position}: {found} for {weight}"
                        );
                    }
                }
            }
        }
    }
}
