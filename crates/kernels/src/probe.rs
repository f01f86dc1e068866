//! What this machine can do at best: the two rates that bound everything else.
//!
//! Decoding is bound by the bytes that are read per second, prompts by the products that are made
//! per second. Both are measured with the threads and the instructions that the model would use,
//! and the best of some short rounds counts: whatever else runs here only makes a round slower.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::block::Columns;
use crate::buffer::Shared;
use crate::cpu::Tier;
use crate::format::Format;
use crate::inputs::Inputs;
use crate::matrix::Matrix;
use crate::ops::wide;
use crate::product::{Cpu, Product};

/// Far more than the caches of any CPU hold.
const BUFFER_BYTES: usize = 1 << 30;
/// Numbers that a task reads: 1 MiB.
const PIECE: usize = 1 << 17;
/// Numbers summed side by side: eight registers of 64 bytes.
const LANES: usize = 64;
/// A row of the matrix that is multiplied, a hidden vector of R1, and how many inputs it meets.
const COLS: usize = 7168;
const INPUTS: usize = 256;
/// Rows for each thread: four tasks, so that no thread waits long for another.
const ROWS_PER_THREAD: usize = 1024;
/// Rounds go on for this long, however many that are, but there are at least [`ROUNDS_MIN`].
const ROUNDS_TIME: Duration = Duration::from_millis(400);
const ROUNDS_MIN: usize = 3;

/// Bytes per second that all threads together read from memory.
pub fn read_bandwidth(cpu: &Cpu) -> f64 {
    read_bandwidth_over(cpu, BUFFER_BYTES)
}

/// As [`read_bandwidth`], with a buffer of at most `bytes`, where memory is short. What fits the
/// caches measures the caches.
pub fn read_bandwidth_over(cpu: &Cpu, bytes: usize) -> f64 {
    let mut buffer = buffer(bytes.min(BUFFER_BYTES));
    let pieces = buffer.len().div_ceil(PIECE);
    let piece = |i: usize| i * PIECE..buffer_len_min(buffer.len(), (i + 1) * PIECE);
    let ranges: Vec<_> = (0..pieces).map(piece).collect();
    // Written by all threads, so that pages lie on the nodes of those who read them. Pages that were
    // never written would all be one page of zeros, in the caches.
    let shared = Shared::new(&mut buffer[..]);
    cpu.pool().run(pieces, &|_, i| {
        // SAFETY: each task has a range of its own.
        unsafe { shared.slice(ranges[i].start, ranges[i].len()) }.fill(1);
    });
    let best = best_time(|| {
        cpu.pool().run(pieces, &|_, i| {
            black_box(sum(cpu.tier(), &buffer[ranges[i].clone()]));
        });
    });
    size_of_val(&buffer[..]) as f64 / best
}
