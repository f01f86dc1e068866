//! After the first tokens, decoding allocates nothing.
// tidy: unsafe because a counting allocator cannot be written otherwise
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use cachalot_gguf::KvType;
use cachalot_kernels::Tier;
use cachalot_model::{Batch, Model, ModelOptions, PageId, Phase, Segment, Wanted};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Sequences that decode together, and where each begins.
const STARTS: [usize; 5] = [0, 3, 63, 40, 17];

#[test]
fn decoding_allocates_nothing() {
    let best = Tier::detect();
    let runs = [(1, Tier::SCALAR, KvType::Q8_0), (1, best, KvType::F16), (2, best, KvType::F16)];
    for (threads, tier, kv) in runs {
        for sequences in [1, STARTS.len()] {
            let counts = counts(threads, tier, kv, &STARTS[..sequences]);
            // A worker gets its memory with its first task of a kind, which may come late: a few
            // tokens are forgiven when there are workers.
            let checked = if threads == 1 { counts.len() } else { counts.len() / 2 };
            let nothing = counts[..checked].iter().all(|&count| count == 0);
            assert!(nothing, "{tier}, {sequences} sequences: {counts:?}");
        }
    }
}

/// Batches in which buffers grow to what the routing of this many sequences takes.
const WARM_UP: usize = 20;

/// Allocations of each of 40 batches, one token of every sequence, in ascending order.
fn counts(threads: usize, tier: Tier, kv: KvType, starts: &[usize]) -> Vec<usize> {
    let weights = common::open("nano-iq-mix.gguf");
    let cpu = common::cpu(threads, tier);
    let mut model = Model::load(&weights, &cpu, &ModelOptions::default()).unwrap();
    model.reserve_pages(2 * starts.len(), kv).unwrap();
    let pages: Vec<[PageId; 2]> = (0..starts.len() as PageId).map(|i| [2 * i, 2 * i + 1]).collect();
    let decode = |step: usize| {
        let token = |at: usize| ((step * 10 + at * 37) % 600) as u32;
        let tokens: Vec<u32> = (0..starts.len()).map(token).collect();
        let segment = |at: usize| Segment {
            seq: at as u64,
            start: starts[at] + step,
            rows: at..at + 1,
            pages: &pages[at],
            phase: Phase::Decode,
            want: Wanted::Last,
        };
        let segments: Vec<_> = (0..starts.len()).map(segment).collect();
        let batch = Batch { tokens: &tokens, segments: &segments };
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        model.forward(&batch, &mut |_| true).unwrap();
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    let mut counts: Vec<usize> = (0..60).map(decode).skip(WARM_UP).collect();
    counts.sort_unstable();
    counts
}
