//! After the first tokens, a step allocates for the text that it sends, and for nothing else.
// tidy: unsafe because a counting allocator cannot be written otherwise
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cachalot_engine::Request;
use cachalot_engine::handle::Limits;
use cachalot_engine::layout::{Engine, Options, Source};
use cachalot_engine::request::{Sampling, ThoughtState};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The test itself is not counted.
    static IS_TEST: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: usize) {
    if !IS_TEST.with(Cell::get) {
        ALLOCATIONS.fetch_add(1, Relaxed);
        BYTES.fetch_add(bytes as u64, Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations and bytes of each token while `users` decode.
fn per_token(users: usize) -> (f64, f64) {
    let calf = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/calf.gguf");
    let options =
        Options { threads: Some(1), context: Some(700), parallel: users, ..Options::default() };
    let source = Source::File(PathBuf::from(calf));
    let engine = Engine::load(&source, &options, &mut |_, _| {}).unwrap();
    let handle = engine.start(Limits { parallel: users, queue: 8 }).unwrap();
    let generations: Vec<_> = (0..users as u32)
        .map(|user| {
            let request = Request {
                prompt: (0..9).map(|i| i * 31 + user + 3).collect(),
                thought: ThoughtState::Ignored,
                sampling: Sampling { temperature: 1.0, ..Sampling::default() },
                seed: Some(user.into()),
                ignore_eos: true,
                max_tokens: Some(600),
                ..Request::default()
            };
            handle.submit(request).unwrap()
        })
        .collect();
    let generated = |least: usize| loop {
        let status = handle.status();
        let counts = status.sequences.iter().map(|sequence| sequence.generated);
        if counts.len() == users && counts.clone().all(|count| count >= least) {
            return counts.sum::<usize>() as f64;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let numbers = || [ALLOCATIONS.load(Relaxed) as f64, BYTES.load(Relaxed) as f64];
    let (first, before) = (generated(100), numbers());
    let (last, after) = (generated(400), numbers());
    drop(generations);
    let tokens = last - first;
    ((after[0] - before[0]) / tokens, (after[1] - before[1]) / tokens)
}

#[test]
fn a_step_allocates_for_its_text_alone() {
    IS_TEST.with(|is_test| is_test.set(true));
    for users in [1, 4, 8] {
        let (allocations, bytes) = per_token(users);
        println!("{users} users: {allocations:.2} allocations, {bytes:.0} bytes per token");
        // The text and the list of tokens of an event, its place in the channel, and what the text
        // was cut from.
        assert!(allocations < 12.0 && bytes < 1024.0, "{users}: {allocations}, {bytes}");
    }
}
