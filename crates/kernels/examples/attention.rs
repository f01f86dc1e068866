//! Time of absorbed attention while decoding:
//! `cargo run --release -p cachalot-kernels --example attention [HEADS LATENT ROPE] [DEPTHS...]`.
//!
//! Prints, for each depth of the cache, the microseconds of one layer's attention for one decoded
//! token, with one thread and with all, best of several rounds. Without arguments, the heads are
//! those of calf; of R1 they are `128 512 64`.

use std::time::Instant;

use cachalot_kernels::attention::{Attention, AttentionSegment, Heads, Latent, PAGE_ROWS};
use cachalot_kernels::{Cpu, Format, Tier};

fn main() {
    let mut args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    if args.len() < 3 {
        args = vec![8, 64, 32];
    }
    let depths = if args.len() > 3 { args.split_off(3) } else { vec![64, 256, 1024, 4096] };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for tier in Tier::available().skip(1) {
        for &depth in &depths {
            let times = [1, threads].map(|threads| time(&Cpu::new(threads, tier), &args, depth));
            println!("{tier:8} depth {depth:6}  {:8.2} us  {:8.2} us", times[0], times[1]);
        }
    }
}

/// Microseconds of one call.
fn time(cpu: &Cpu, sizes: &[usize], depth: usize) -> f64 {
    let (heads, values, width) = (sizes[0], sizes[1], sizes[1] + sizes[2]);
    let pages: Vec<u32> = (0..depth.div_ceil(PAGE_ROWS) as u32).collect();
    let row_bytes = Format::F16.row_bytes(width).unwrap_or(0);
    let mut bytes = vec![0u8; pages.len() * PAGE_ROWS * row_bytes];
    let numbers: Vec<f32> = (0..width).map(|i| (i % 13) as f32 / 13.0 - 0.5).collect();
    for row in bytes.chunks_exact_mut(row_bytes) {
        assert!(Format::F16.encode(&numbers, row), "f16 can be written");
    }
    let (format, bytes, pages) = (Format::F16, &bytes[..], &pages[..]);
    let latent = Latent { format, bytes, pages, len: depth, width, values };
    let segments = [AttentionSegment { rows: 0..1, past: depth - 1, latent }];
    let queries: Vec<f32> = (0..heads * width).map(|i| (i % 7) as f32 / 7.0 - 0.5).collect();
    let mut out = vec![0.0; heads * values];
    let mut attention = Attention::new();
    let heads = Heads { count: heads, scale: 0.1 };
    let mut best = f64::INFINITY;
    for _ in 0..30 {
        let begun = Instant::now();
        for _ in 0..20 {
            attention.absorbed(cpu, &queries, heads, &segments, &mut out);
        }
        best = best.min(begun.elapsed().as_secs_f64() * 1e6 / 20.0);
    }
    best
}
