//! After the first tokens, decoding allocates nothing.
// tidy: unsafe because a counting allocator cannot be written otherwise
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use cachalot_gguf::KvType;
use cachalot_kernels::Tier;
use cachalot_model::{Logits, Model, ModelOptions};

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

#[test]
fn decoding_allocates_nothing() {
    let best = Tier::detect();
    let runs = [(1, Tier::SCALAR, KvType::Q8_0), (1, best, KvType::F16), (2, best, KvType::F16)];
    for (threads, tier, kind) in runs {
        let cpu = common::cpu(threads, tier);
        let weights = common::open("nano-iq-mix.gguf");
        let mut model = Model::load(&weights, &cpu, &ModelOptions::default()).unwrap();
        let mut cache = model.cache(100, kind).unwrap();
        let mut decode = |token: u32| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            model.forward(&mut cache, &[token], Logits::Last, &mut |_| true).unwrap();
            ALLOCATIONS.load(Ordering::Relaxed) - before
        };
        decode(0);
        let mut counts: Vec<usize> = (1..60).map(|token| decode(token * 10)).collect();
        // A worker gets its memory with its first task of a kind, which may come late: a few tokens
        // are forgiven when there are workers.
        counts.sort_unstable();
        let checked = if threads == 1 { counts.len() } else { counts.len() / 2 };
        assert!(counts[..checked].iter().all(|&count| count == 0), "{tier}: {counts:?}");
    }
}
