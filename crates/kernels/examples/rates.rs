//! Rates of every format and tier on this machine, for writing kernels:
//! `cargo run --release -p cachalot-kernels --example rates [FORMAT] [COLUMNS...]`.
//!
//! Prints, per format, tier and number of columns, the bytes of weights read per second and the
//! multiplications per second, best of several rounds: over matrices too large for the caches, and
//! over one of 512 KiB a thread that stays there. Where the two are far apart, memory is the limit.
//! Up to eight columns are decoded tokens, with activations of 16 bits; more are a prompt, with 8.

use std::time::Instant;

use cachalot_kernels::{ActBits, Activations, Cpu, Format, Matrix, Product, Tier, Tokens};

const COLS: usize = 7168;
/// Columns up to which they are taken for decoded tokens.
const DECODED: usize = 8;

fn main() {
    let mut args = std::env::args().skip(1);
    let wanted = args.next().unwrap_or_default();
    let columns: Vec<usize> = args.filter_map(|a| a.parse().ok()).collect();
    let columns = if columns.is_empty() { vec![1, 4, 16, 512] } else { columns };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for format in Format::all().filter(|f| wanted.is_empty() || f.name() == wanted) {
        for tier in Tier::available().skip(1) {
            for &n in &columns {
                let cpu = Cpu::new(threads, tier);
                let large = rate(format, &cpu, n, if n <= DECODED { 400 << 20 } else { 20 << 20 });
                let small = rate(format, &cpu, n, threads << 19);
                println!(
                    "{:8} {:7} {n:4} columns  {:7.2} GB/s  {:8.1} G products/s   in cache {:8.1}",
                    format.name(),
                    tier.to_string(),
                    large * bits(format) / 8.0 / n as f64,
                    large,
                    small
                );
            }
        }
    }
}

/// Bits of a weight.
fn bits(format: Format) -> f64 {
    (format.block_bytes() * 8) as f64 / format.block_len() as f64
}

/// G products/s over a matrix of about `target` bytes.
fn rate(format: Format, cpu: &Cpu, n: usize, target: usize) -> f64 {
    let Some(row_bytes) = format.row_bytes(COLS) else { return 0.0 };
    let rows = (target / row_bytes).next_multiple_of(64);
    let mut x = 1u32;
    let mut bytes = vec![0u8; rows * row_bytes];
    for b in &mut bytes {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *b = (x >> 24) as u8;
    }
    let bits = if n <= DECODED { ActBits::Sixteen } else { ActBits::Eight };
    let Ok(matrix) = Matrix::new(format, rows, COLS, &bytes) else { return 0.0 };
    let matrix = matrix.with_activations(bits);
    let mut inputs = Activations::new();
    inputs.reset(n, COLS).iter_mut().enumerate().for_each(|(i, v)| *v = (i % 13) as f32 - 6.0);
    let mut out = vec![0.0; rows * n];
    let columns = Tokens::Range { start: 0, len: n };
    let products = (rows * COLS * n) as f64;
    let rounds = (4e9 / products).clamp(4.0, 200.0) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let t = Instant::now();
        cpu.multiply(&mut inputs, &[Product { matrix, tokens: columns }], &mut out);
        best = best.min(t.elapsed().as_secs_f64());
    }
    products / best / 1e9
}
