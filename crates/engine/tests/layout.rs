//! What a layout says is what the engine takes, in bytes.
// tidy: unsafe because a counting allocator cannot be written otherwise
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cachalot_engine::handle::Limits;
use cachalot_engine::layout::{LoadPlan, Options, Source};
use cachalot_engine::request::ThoughtState;
use cachalot_engine::{Event, Request};
use cachalot_gguf::KvType;
use cachalot_plan::{Stream, units};

struct Counting;

static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

fn took(bytes: usize) {
    PEAK.fetch_max(LIVE.fetch_add(bytes as u64, Relaxed) + bytes as u64, Relaxed);
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
        took(size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const CALF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/calf.gguf");

/// Events, texts and tables of requests and of sampling.
const SMALL: u64 = 3 << 20;

fn check(options: &Options) {
    let plan = LoadPlan::of(&Source::File(PathBuf::from(CALF)), options).unwrap();
    let layout = plan.layout().clone();
    let printed = layout.to_string();
    let is_routed = |name: &str| name.ends_with("_exps.weight");
    let sizes = |of: bool| {
        let tensors = plan.weights().tensors().iter();
        tensors.filter(|t| is_routed(&t.info.name) == of).map(|t| t.info.size).sum::<u64>()
    };
    let (dense, routed) = (sizes(false), sizes(true));
    let says = |bytes: u64| assert!(printed.contains(&units::bytes(bytes)), "{bytes}: {printed}");

    let engine = plan.load(&mut |_, _| {}).unwrap();
    let info = engine.info();
    assert_eq!(info.layout, layout, "{options:?}");
    assert_eq!(layout.stages.iter().map(|stage| stage.weights).sum::<u64>(), dense);
    assert_eq!(layout.experts.iter().map(|experts| experts.bytes).sum::<u64>(), routed);
    let in_memory: u64 = info.weights.tensors().iter().map(|t| t.bytes.len() as u64).sum();
    let streamed = layout.experts.iter().any(|experts| experts.cache.is_some());
    assert_eq!(in_memory, if streamed { dense } else { dense + routed }, "{options:?}");
    let cache: u64 = layout.experts.iter().filter_map(|experts| experts.cache).sum();
    assert_eq!(info.streaming.as_ref().map_or(0, |s| s.cache_bytes()), cache, "{options:?}");
    [dense, routed, layout.kv.bytes, layout.buffers].into_iter().for_each(says);
    if streamed {
        says(cache);
    }

    let before = LIVE.load(Relaxed);
    let handle = engine.start(Limits { parallel: options.parallel, queue: 64 }).unwrap();
    let pages = LIVE.load(Relaxed) - before;
    assert!((layout.kv.bytes..layout.kv.bytes + SMALL).contains(&pages), "{pages}: {printed}");
    PEAK.store(LIVE.load(Relaxed), Relaxed);
    let before = LIVE.load(Relaxed);
    // Micro-batches as long as they get, then all sequences decode.
    let prompt = layout.kv.context as u32 - 40;
    let generations: Vec<_> = (0..options.parallel as u32)
        .map(|user| {
            let request = Request {
                prompt: (0..prompt).map(|i| (i * 13 + user * 7) % 500 + 3).collect(),
                thought: ThoughtState::Ignored,
                max_tokens: Some(30),
                ignore_eos: true,
                ..Request::default()
            };
            handle.submit(request).unwrap()
        })
        .collect();
    for mut generation in generations {
        while let Some(event) = generation.recv() {
            assert!(!matches!(event, Event::Failed(_)), "{event:?}");
        }
    }
    let taken = PEAK.load(Relaxed) - before;
    let most = layout.buffers + SMALL;
    assert!(taken <= most, "{taken} of {most}: {options:?}\n{printed}");
    let least = layout.buffers / 4;
    assert!(taken >= least, "{taken}, planned {most}: {options:?}\n{printed}");
}

/// One test, since memory is counted for all.
#[test]
fn what_a_layout_says_is_what_the_engine_takes() {
    let options = Options { context: Some(1000), threads: Some(2), ..Options::default() };
    let always = Stream::Always;
    for options in [
        options.clone(),
        Options { parallel: 3, kv_type: Some(KvType::Q8_0), ..options.clone() },
        Options { reproducible: true, kv_type: Some(KvType::F32), ..options.clone() },
        Options { stream: always, ..options.clone() },
        Options { stream: always, memory: Some(64 << 20), parallel: 2, ..options.clone() },
        Options { stream: always, memory: Some(40 << 20), context: Some(200), ..options },
    ] {
        check(&options);
    }
}
