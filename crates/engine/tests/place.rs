//! Where a model is put: what memory does not hold is streamed, and what is memory already is left
//! there.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cachalot_engine::Error;
use cachalot_engine::layout::{LoadPlan, Options, Source};
use cachalot_plan::Stream;

const CALF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/calf.gguf");
/// Less than calf has, with the program and its buffers.
const LITTLE: u64 = 16 << 20;

fn options() -> Options {
    Options { memory: Some(LITTLE), context: Some(128), threads: Some(1), ..Options::default() }
}

/// Whether experts are streamed, and the logits of some tokens.
fn placed(path: PathBuf, options: &Options) -> (bool, Vec<f32>) {
    let plan = LoadPlan::of(&Source::File(path), options).unwrap();
    let streamed = plan.layout().experts.iter().any(|experts| experts.cache.is_some());
    let mut engine = plan.load(&mut |_, _| {}).unwrap();
    assert_eq!(streamed, engine.info().streaming.is_some());
    let tokens: Vec<u32> = (0..40).map(|i| i * 13 % 500).collect();
    let mut logits = Vec::new();
    let sink = |rows: &[f32]| -> Result<(), Error> {
        logits.extend_from_slice(rows);
        Ok(())
    };
    engine.logits(&tokens, &AtomicBool::new(false), sink).unwrap();
    (streamed, logits)
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_in_memory_is_used_in_place_and_not_counted_again() {
    // Another system may have no such folder, or no room in it.
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return };
    let path = folder.path().join("calf.gguf");
    std::fs::copy(CALF, &path).unwrap();
    let (on_drive, expected) = placed(Path::new(CALF).to_owned(), &options());
    assert!(on_drive, "on a drive, it does not fit");
    let (in_memory, logits) = placed(path.clone(), &options());
    assert!(
        !in_memory,
        "its pages are memory already: there is nothing to cache, and no budget to pass"
    );
    assert!(logits == expected);
    let asked = Options { stream: Stream::Always, ..options() };
    let (streamed, logits) = placed(path, &asked);
    assert!(streamed, "unless somebody wants it");
    assert!(logits == expected);
}

#[test]
fn a_copy_in_huge_pages_computes_the_same() {
    let options = Options { memory: None, ..options() };
    let (_, expected) = placed(CALF.into(), &options);
    let source = Source::File(CALF.into());
    let options = Options { huge_pages: true, ..options };
    let (mut read, mut all) = (0, 0);
    let plan = LoadPlan::of(&source, &options).unwrap();
    plan.load(&mut |done, of| (read, all) = (done, of)).unwrap();
    assert_eq!((read, all), (std::fs::metadata(CALF).unwrap().len(), read), "read as a whole");
    let (streamed, logits) = placed(CALF.into(), &options);
    assert!(!streamed && logits == expected);
}

#[test]
fn prefetching_and_any_budget_give_the_same_logits() {
    let (_, expected) = placed(CALF.into(), &Options { memory: None, ..options() });
    for prefetch in [false, true] {
        let options = Options { prefetch, stream: Stream::Always, ..options() };
        let (streamed, logits) = placed(CALF.into(), &options);
        assert!(streamed && logits == expected, "prefetch: {prefetch}");
    }
}
