//! After the first tokens, decoding allocates nothing.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use cachalot_kernels::Tier;
use cachalot_model::{KvType, Logits, Model, ModelOptions};

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
    for (tier, kind) in [(Tier::SCALAR, KvType::Q8_0), (Tier::detect(), KvType::F16)] {
        let cpu = common::cpu(2, tier);
        let weights = common::open("nano-iq-mix.gguf");
        let mut model = Model::load(&weights, &cpu, &ModelOptions::default()).unwrap();
        let mut cache = model.cache(100, kind).unwrap();
        let mut decode = |token: u32| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            model.forward(&mut cache, &[token], Logits::Last, &mut |_| true).unwrap();
            ALLOCATIONS.load(Ordering::Relaxed) - before
        };
        // The first token of a model; the workers' own memory may take another few to be all there,
        // because a worker that was late had nothing to do.
        (0..20).for_each(|token| _ = decode(token * 30));
        let counts: Vec<usize> = (0..40).map(|token| decode(token * 16)).collect();
        assert!(counts.iter().all(|&count| count == 0), "{tier}: {counts:?}");
    }
}
