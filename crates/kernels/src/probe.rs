//! What this machine can do at best: the rates that bound everything else.
//!
//! Decoding is bound by the bytes that are read per second, or by unpacking them where that is
//! slower; prompts by the products that are made per second; both, after many tokens, by attention.
//! All are measured with the threads and the instructions that a model would use, and the best of
//! some short rounds counts: whatever else runs here only makes a round slower.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::activations::Activations;
use crate::attention::{Attention, AttentionSegment, Heads, Latent, PAGE_ROWS};
use crate::block::Tokens;
use crate::buffer::Shared;
use crate::format::Format;
use crate::matrix::{ActBits, Matrix};
use crate::ops::simd;
use crate::product::{Cpu, Product};

/// Far more than the caches of most CPUs hold.
const BUFFER_BYTES: usize = 1 << 30;
/// Numbers that a task reads: 1 MiB.
const PIECE: usize = 1 << 17;
/// Numbers summed side by side: eight registers of 64 bytes.
const LANES: usize = 64;
/// The shape that is multiplied: several tasks for each thread, so that none waits long for
/// another.
const ROWS_PER_THREAD: usize = 1024;
const COLS: usize = 4096;
const INPUTS: usize = 256;
/// Matrices in the list of a token, as a layer of experts has it, and the rows of each.
const LIST: usize = 8;
const LIST_ROWS: usize = 2048;
/// Tokens that attend, in the shape of R1.
const TOKENS: usize = 4;
const HEADS: usize = 128;
const LATENT: usize = 512;
const ROTATED: usize = 64;
/// Parallel regions of a round that measures what they cost, and pieces of work of each thread in
/// them: about a microsecond each.
const JOINS: usize = 200;
const TASKS_PER_THREAD: usize = 8;
const JOIN_ROUNDS: usize = 9;
/// Rounds go on for this long, but at least three.
const ROUNDS_TIME: Duration = Duration::from_millis(400);
/// The same where much is measured.
const ROUNDS_TIME_SHORT: Duration = Duration::from_millis(60);
const ROUNDS_MIN: usize = 3;

/// Bytes per second that all threads together read from memory.
pub fn read_bandwidth(cpu: &Cpu) -> f64 {
    read_bandwidth_over(cpu, BUFFER_BYTES)
}

/// As [`read_bandwidth`], over about `bytes`, at most 1 GiB, where memory is short. A buffer that
/// fits the caches measures those.
pub fn read_bandwidth_over(cpu: &Cpu, bytes: usize) -> f64 {
    let pieces = (bytes.min(BUFFER_BYTES) / (PIECE * size_of::<u64>())).max(1);
    let mut buffer = vec![0u64; pieces * PIECE];
    // Written by all threads, so that pages are near the threads that read them. Pages never
    // written would all be one and the same page of zeros, in the caches.
    let shared = Shared::new(&mut buffer);
    cpu.pool().run(pieces, &|_, i| {
        // SAFETY: each task has a piece of its own.
        unsafe { shared.slice(i * PIECE, PIECE) }.fill(1);
    });
    let best = best_time(ROUNDS_TIME, || {
        cpu.pool().run(pieces, &|_, i| {
            black_box(sum(cpu.tier(), &buffer[i * PIECE..][..PIECE]));
        });
    });
    size_of_val(&buffer[..]) as f64 / best
}

/// Products per second (multiplications, each with its addition) that all threads together make of
/// Q8_0 weights and many activations: what a prompt is read with.
pub fn product_rate(cpu: &Cpu) -> f64 {
    let rows = ROWS_PER_THREAD * cpu.pool().threads();
    // Blocks of a scale in f16, here 1, and 32 numbers of 8 bits.
    let block = |_| [0x00, 0x3C].into_iter().chain(0..32u8);
    let weights: Vec<u8> = (0..rows * COLS / 32).flat_map(block).collect();
    let Ok(matrix) =
        Matrix::new(Format::Q8_0, rows, COLS, &weights).map(|m| m.with_activations(ActBits::Eight))
    else {
        return 0.0; // not reached: the bytes were made to fit the shape
    };
    let mut activations = Activations::new();
    let numbers = activations.reset(INPUTS, COLS).iter_mut().enumerate();
    numbers.for_each(|(i, number)| *number = (i % 13) as f32 - 6.0);
    let mut out = vec![0.0; rows * INPUTS];
    let columns = Tokens::Range { start: 0, len: INPUTS };
    let best = best_time(ROUNDS_TIME, || {
        cpu.multiply(&mut activations, &[Product { matrix, tokens: columns }], &mut out)
    });
    (rows * COLS * INPUTS) as f64 / best
}

/// Bytes that look like weights of any format: all of them differ, so that codebooks are looked up
/// all over.
pub fn noise(cpu: &Cpu, bytes: usize) -> Vec<u8> {
    let piece = PIECE * size_of::<u64>();
    let pieces = (bytes / piece).max(1);
    let mut noise = vec![0u8; pieces * piece];
    cpu.for_rows(&mut noise, piece, |i, piece| {
        fastrand::Rng::with_seed(671 + i as u64).fill(piece);
        // One bit of each 16 is 0, so that none is an infinite f16.
        piece.iter_mut().skip(1).step_by(2).for_each(|byte| *byte &= 0xBF);
    });
    noise
}

/// Bytes per second of weights in `format` that all threads together multiply with one input: what
/// decoding does all the time. `bytes` are any, and should be more than the caches hold. 0 if they
/// are too few for a matrix.
pub fn decode_rate(cpu: &Cpu, format: Format, bytes: &[u8]) -> f64 {
    let size = format.row_bytes(COLS).map_or(0, |row| row * LIST_ROWS);
    let matrix = |bytes| Matrix::new(format, LIST_ROWS, COLS, bytes).ok();
    let matrices: Vec<Matrix<'_>> = bytes.chunks_exact(size.max(1)).filter_map(matrix).collect();
    let lists: Vec<Vec<Product<'_>>> = matrices
        .chunks(LIST)
        .map(|list| list.iter().map(|&matrix| Product { matrix, tokens: Tokens::one(0) }).collect())
        .collect();
    let Some(longest) = lists.first().map(Vec::len).filter(|_| size > 0) else { return 0.0 };
    let lists: Vec<_> = lists.into_iter().filter(|list| list.len() == longest).collect();
    let mut activations = Activations::new();
    let numbers = activations.reset(1, COLS).iter_mut().enumerate();
    numbers.for_each(|(i, number)| *number = (i % 13) as f32 - 6.0);
    let mut out = vec![0.0; longest * LIST_ROWS];
    let mut next = lists.iter().cycle();
    let best = best_time(ROUNDS_TIME_SHORT, || {
        if let Some(list) = next.next() {
            cpu.multiply(&mut activations, list, &mut out);
        }
    });
    black_box(&out);
    (longest * size) as f64 / best
}

/// Seconds that a parallel region costs besides its work, as decoding has them: short ones, with
/// something for one thread alone to do in between. What waking a thread costs is the better part
/// of it, where the system or a hypervisor takes its time.
pub fn region_time(cpu: &Cpu) -> f64 {
    let numbers = vec![1u64; LANES * 64];
    let alone = || black_box(sum(cpu.tier(), &numbers));
    let tasks = cpu.pool().threads() * TASKS_PER_THREAD;
    let mut times: Vec<f64> = (0..JOIN_ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..JOINS {
                (0..TASKS_PER_THREAD).for_each(|_| _ = alone());
                cpu.pool().run(tasks, &|_, _| _ = alone());
            }
            let all = begun.elapsed().as_secs_f64();
            let begun = Instant::now();
            (0..JOINS * 2 * TASKS_PER_THREAD).for_each(|_| _ = alone());
            (all - begun.elapsed().as_secs_f64()).max(0.0) / JOINS as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[JOIN_ROUNDS / 2]
}

/// Operations per second of attention in decoding, over latents in f16 as R1 has them: 2 for each
/// number of a key and of a value, head, token and cache row. The cache is so deep, and there are
/// as many tokens as give each thread several tasks, all alike.
pub fn attention_rate(cpu: &Cpu) -> f64 {
    let width = LATENT + ROTATED;
    let len = attention_depth(cpu.pool().threads());
    let numbers = (0..TOKENS * HEADS * width).map(|i| (i % 7) as f32 * 0.01);
    let queries: Vec<f32> = numbers.collect();
    let bytes: Vec<u8> = (0..len * width).flat_map(|_| [0x00, 0x34]).collect(); // 0.25
    let pages: Vec<u32> = (0..(len / PAGE_ROWS) as u32).collect();
    let (format, values) = (Format::F16, LATENT);
    let latent = Latent { format, bytes: &bytes, pages: &pages, len, width, values };
    let segment = [AttentionSegment { rows: 0..TOKENS, past: len - TOKENS, latent }];
    let heads = Heads { count: HEADS, scale: 0.1 };
    let (mut attention, mut out) = (Attention::new(), vec![0.0; TOKENS * HEADS * LATENT]);
    let best = best_time(ROUNDS_TIME_SHORT, || {
        attention.absorbed(cpu, &queries, heads, &segment, &mut out);
    });
    black_box(&out);
    2.0 * (TOKENS * len * HEADS * (width + LATENT)) as f64 / best
}

/// Cache rows of which each of `threads` threads has some.
fn attention_depth(threads: usize) -> usize {
    (threads * 256).clamp(1024, 12 << 10)
}

simd! {
    /// Adding up is the least that can be done with what was read.
    fn sum(Tier, numbers: &[u64]) -> u64 {
        let mut lanes = [0u64; LANES];
        for numbers in numbers.chunks_exact(LANES) {
            for (lane, number) in lanes.iter_mut().zip(numbers) {
                *lane = lane.wrapping_add(*number);
            }
        }
        lanes.iter().fold(0, |sum: u64, lane| sum.wrapping_add(*lane))
    }
}

/// Seconds of the fastest round.
fn best_time(time: Duration, mut round: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut best = f64::INFINITY;
    let mut rounds = 0;
    while rounds < ROUNDS_MIN || begun.elapsed() < time {
        let round_begun = Instant::now();
        round();
        best = best.min(round_begun.elapsed().as_secs_f64());
        rounds += 1;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Tier;

    #[test]
    fn every_number_is_read() {
        let numbers: Vec<u64> = (0..PIECE as u64).collect();
        for tier in Tier::available() {
            assert_eq!(sum(tier, &numbers), numbers.iter().sum(), "{tier}");
        }
    }

    #[test]
    fn rates_are_those_of_a_computer() {
        let cpu = Cpu::new(2, Tier::detect());
        let noise = noise(&cpu, 40 << 20);
        let decode = [Format::Q4_K, Format::IQ1_S].map(|format| decode_rate(&cpu, format, &noise));
        assert_eq!(decode_rate(&cpu, Format::Q8_0, &noise[..100]), 0.0, "too few bytes");
        let [q4, iq1] = decode;
        let (read, products) = (read_bandwidth_over(&cpu, 8 << 20), product_rate(&cpu));
        assert!((0.0..1.0).contains(&region_time(&cpu)));
        for rate in [read, products, q4, iq1, attention_rate(&cpu)] {
            assert!((1e6..1e16).contains(&rate), "{rate} per second");
        }
    }

    #[test]
    fn attention_is_probed_with_several_tasks_a_thread() {
        for (threads, least) in [(2, 4), (16, 4), (64, 4), (96, 4), (192, 2)] {
            let cpu = Cpu::counting(threads, Tier::detect());
            attention_rate(&cpu);
            let tasks = cpu.pool().take_counts()[0];
            assert!(tasks >= least * threads, "{tasks} tasks for {threads} threads");
        }
    }

    #[test]
    fn the_fastest_round_counts_and_there_are_enough() {
        let mut rounds = 0;
        let best = best_time(ROUNDS_TIME, || {
            rounds += 1;
            std::thread::sleep(Duration::from_millis(if rounds == 2 { 1 } else { 200 }));
        });
        assert!(rounds >= ROUNDS_MIN && best < 0.2, "{rounds} rounds, the best of {best} s");
    }
}
