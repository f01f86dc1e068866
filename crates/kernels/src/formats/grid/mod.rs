//! What the formats with codebooks share: their grids unpacked, their signs applied.
//!
//! IQ1, IQ2 and IQ3 write not weights but indices of short vectors. The vectors (each format's
//! `tables.rs`) hold magnitudes, at least 1, and signs stand apart; IQ1 alone has signed vectors.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;

/// Vectors of eight bytes from 2-bit codes, the first weight in the lowest bits of both.
pub(crate) const fn expand8<const N: usize>(packed: &[u16; N], levels: [u8; 4]) -> [u64; N] {
    let mut grid = [0; N];
    let mut i = 0;
    while i < N * 8 {
        let level = levels[(packed[i / 8] >> (i % 8 * 2) & 3) as usize];
        grid[i / 8] |= (level as u64) << (i % 8 * 8);
        i += 1;
    }
    grid
}

/// The magnitudes of the IQ2 formats by 2-bit code.
pub(crate) const IQ2_LEVELS: [u8; 4] = [8, 25, 43, 0];

/// Vectors of four bytes from 3-bit codes, the first weight in the lowest bits of both.
pub(crate) const fn expand4<const N: usize>(packed: &[u16; N], levels: [u8; 8]) -> [u32; N] {
    let mut grid = [0; N];
    let mut i = 0;
    while i < N * 4 {
        let level = levels[(packed[i / 4] >> (i % 4 * 3) & 7) as usize];
        grid[i / 4] |= (level as u32) << (i % 4 * 8);
        i += 1;
    }
    grid
}

/// The signs of eight weights, a set bit for a negative one, of which seven are written: the number
/// of negative weights is even, so the highest bit is the parity of the others.
pub(crate) const fn even_signs(seven: u8) -> u8 {
    seven & 127 | ((seven & 127).count_ones() as u8 & 1) << 7
}

/// `scale · magnitude`, negative where the weight's bit in `signs` is set.
pub(crate) fn signed(out: &mut [f32], scale: f32, magnitudes: &[u8], signs: u8) {
    for (j, (w, &magnitude)) in out.iter_mut().zip(magnitudes).enumerate() {
        let magnitude = scale * f32::from(magnitude);
        *w = if signs >> j & 1 == 1 { -magnitude } else { magnitude };
    }
}
