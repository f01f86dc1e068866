//! The cache against a file whose bytes are known, and everything that can go wrong with a read.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use proptest::prelude::*;

use super::*;

const LAYERS: usize = 3;
const EXPERTS: usize = 16;
/// Bytes of slices: no multiple of a page, and the last layer's are larger.
const SLICES: [[usize; 3]; LAYERS] = [[5000, 5000, 6000], [5000, 5000, 6000], [5000, 5000, 9000]];

struct Model {
    _folder: tempfile::TempDir,
    path: PathBuf,
    layers: Vec<Vec<StackedExperts>>,
    bytes: Vec<u8>,
}

fn model() -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("experts");
    let size = 777 + SLICES.iter().flatten().sum::<usize>() * EXPERTS;
    let bytes: Vec<u8> = (0..size).map(|i| (i / 13 * 7 + i) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    let file = Arc::new(ReadFile::open(&path).unwrap());
    let mut offset = 777;
    let mut stack = |&len: &usize| {
        offset += len * EXPERTS;
        StackedExperts { file: Arc::clone(&file), offset: (offset - len * EXPERTS) as u64, len }
    };
    let layers = SLICES.iter().map(|slices| slices.iter().map(&mut stack).collect()).collect();
    Model { _folder: folder, path, layers, bytes }
}

fn options(frames: usize) -> CacheOptions {
    let total: usize =
        SLICES.iter().flatten().map(|&len| Read::slot_bytes(len)).sum::<usize>() * EXPERTS;
    let budget = (total * frames / (LAYERS * EXPERTS)) as u64;
    CacheOptions {
        stall_timeout: Duration::from_secs(20),
        ..CacheOptions::new(budget, 3, EXPERTS, 2)
    }
}

fn cache(model: &Model, frames: usize, reader: Reader) -> ExpertCache {
    ExpertCache::new(model.layers.clone(), reader, &options(frames)).unwrap()
}

/// A reader that does what `fault` says before it reads.
fn faulty(fault: impl Fn(u64) -> io::Result<()> + Send + Sync + 'static) -> Reader {
    let read = move |file: &File, bytes: &mut [u8], offset: u64| {
        fault(offset)?;
        file.read_at(bytes, offset)
    };
    let read: crate::ReadFunction = Arc::new(read);
    Reader::pool(2, "faulty", &read).unwrap()
}

fn expect(model: &Model, cache: &ExpertCache, layer: usize, expert: usize) {
    for (slice, stack) in cache.slices(layer, expert).iter().zip(&model.layers[layer]) {
        let at = stack.offset as usize + expert * stack.len;
        assert!(*slice == &model.bytes[at..at + stack.len], "expert {expert} of layer {layer}");
    }
}

/// A cache that prefetches, whose reader waits at each read until the test lets it go on.
fn guessing(model: &Model, frames: usize) -> (ExpertCache, Arc<AtomicBool>, Arc<AtomicU64>) {
    let (open, reads) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (gate, count) = (Arc::clone(&open), Arc::clone(&reads));
    let read: crate::ReadFunction = Arc::new(move |file: &File, bytes: &mut [u8], offset| {
        count.fetch_add(1, Ordering::Relaxed);
        while !gate.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_micros(100));
        }
        file.read_at(bytes, offset)
    });
    let reader = Reader::pool(4, "gate", &read).unwrap();
    let options = CacheOptions { prefetch: true, ..options(frames) };
    (ExpertCache::new(model.layers.clone(), reader, &options).unwrap(), open, reads)
}

/// Waits until all that was asked for has completed, without asking for anything.
fn settle(cache: &mut ExpertCache) {
    while cache.reader.in_flight() > 0 {
        cache.poll();
        std::thread::yield_now();
    }
}

/// Requests and awaits the picks of one layer.
fn pick(cache: &mut ExpertCache, layer: usize, picks: &[usize]) -> Result<(), Error> {
    picks.iter().for_each(|&expert| cache.touch(layer, expert, 0));
    cache.begin_layer();
    for &expert in picks {
        assert!(cache.request(layer, expert), "there is room");
    }
    cache.end_prefetch(layer);
    picks.iter().try_for_each(|&expert| cache.wait(layer, expert))
}

#[test]
fn every_expert_is_what_its_file_says_at_any_size() {
    let model = model();
    for frames in [1, 7, 20, 48, 1000] {
        let mut cache = cache(&model, frames, Reader::start().unwrap());
        for round in 0..3 {
            for layer in 0..LAYERS {
                for expert in (0..EXPERTS).step_by(2) {
                    let picks = [expert, (expert + 1 + round * 4) % EXPERTS];
                    pick(&mut cache, layer, &picks).unwrap();
                    picks.iter().for_each(|&expert| expect(&model, &cache, layer, expert));
                }
            }
            cache.advance(1);
        }
        let stats = cache.monitor().stats();
        assert_eq!(stats.hits + stats.misses, (3 * LAYERS * EXPERTS) as u64);
        if frames >= LAYERS * EXPERTS {
            assert_eq!(stats.misses, (LAYERS * EXPERTS) as u64, "each is read once");
        }
        let slices: usize = SLICES.iter().flatten().map(|&len| Read::slot_bytes(len)).sum();
        let most = stats.misses * slices as u64;
        assert!(stats.bytes <= most, "{} bytes, at most {most}", stats.bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is asked for in whatever order, what is ready is right.
    #[test]
    fn any_sequence_of_picks_gives_right_bytes(
        frames in 6usize..48,
        steps in prop::collection::vec(
            (0..LAYERS, prop::collection::btree_set(0..EXPERTS, 1..3), 0u8..8), 1..40
        ),
    ) {
        let model = model();
        let options = CacheOptions { prefetch: true, ..options(frames) };
        let reader = Reader::start().unwrap();
        let mut cache = ExpertCache::new(model.layers.clone(), reader, &options).unwrap();
        for (layer, picks, what) in steps {
            let picks: Vec<usize> = picks.into_iter().collect();
            match what {
                0 => cache.advance(1),
                1 => cache.idle(),
                4 => (picks[0]..EXPERTS).for_each(|expert| cache.prefetch(layer, expert)),
                5 => cache.prefetch((layer + 1) % LAYERS, picks[0]),
                2 => cache.monitor().release(20_000),
                7 => cache.monitor().allow(30_000),
                6 => {
                    cache.begin_layer();
                    cache.keep(layer, picks[0]);
                    cache.end_prefetch(layer);
                }
                // Asked for, and never awaited.
                3 => {
                    cache.begin_layer();
                    cache.request(layer, picks[0]);
                }
                _ => {}
            }
            pick(&mut cache, layer, &picks).unwrap();
            for &expert in &picks {
                expect(&model, &cache, layer, expert);
            }
        }
    }
}

#[test]
fn a_guess_that_is_picked_is_not_read_again_and_one_that_is_not_makes_nobody_leave() {
    let model = model();
    let (mut cache, _, reads) = guessing(&model, 48 * 3 / 4);
    // Full, as far as picks can fill it.
    for layer in 0..LAYERS {
        (0..EXPERTS).for_each(|expert| pick(&mut cache, layer, &[expert]).unwrap());
    }
    let there = |cache: &ExpertCache| -> Vec<usize> {
        (0..LAYERS * EXPERTS).filter(|&number| cache.residency.frame(number).is_some()).collect()
    };
    let before = there(&cache);
    let missing: Vec<usize> =
        (0..EXPERTS).filter(|expert| !before.contains(&(EXPERTS + expert))).collect();
    let [right, wrong] = missing[..2] else { panic!("two are missing of {before:?}") };
    let done = reads.load(Ordering::Relaxed);
    cache.prefetch(1, right);
    cache.prefetch(1, wrong);
    settle(&mut cache);
    assert_eq!(reads.load(Ordering::Relaxed) - done, 6, "both are read meanwhile");
    assert!(before.iter().all(|number| there(&cache).contains(number)), "nobody has left");
    let stats = cache.monitor().stats();
    pick(&mut cache, 1, &[right]).unwrap();
    expect(&model, &cache, 1, right);
    let stats = cache.monitor().stats().since(&stats);
    assert_eq!(
        (stats.hits, stats.misses, stats.prefetch_hits, stats.prefetch_unused),
        (0, 1, 1, 1)
    );
    assert_eq!(reads.load(Ordering::Relaxed) - done, 6, "and not again");
    assert!(!there(&cache).contains(&(EXPERTS + wrong)), "it is forgotten");
    assert_eq!(there(&cache).len(), before.len(), "one has come, and one has left for it");
}

#[test]
fn demand_overtakes_guesses_and_what_they_have_not_read_is_not_read() {
    let model = model();
    let (mut cache, open, reads) = guessing(&model, 40);
    open.store(false, Ordering::Relaxed);
    (0..2).for_each(|expert| cache.prefetch(0, expert));
    while reads.load(Ordering::Relaxed) < 2 {
        std::thread::yield_now();
    }
    cache.begin_layer();
    assert!(cache.request(0, 9), "there is room");
    // One prefetch was right: of it, what was not begun is demand as well.
    assert!(cache.request(0, 1), "it is there");
    cache.end_prefetch(0);
    open.store(true, Ordering::Relaxed);
    for expert in [9, 1] {
        cache.wait(0, expert).unwrap();
        expect(&model, &cache, 0, expert);
    }
    settle(&mut cache);
    // Two slices of the first prefetch had been begun; its third was not read.
    assert_eq!(reads.load(Ordering::Relaxed), 2 + 3 + 3);
    let stats = cache.monitor().stats();
    assert_eq!((stats.misses, stats.prefetch_hits, stats.prefetch_unused), (2, 1, 1));
    assert_eq!(cache.residency.frame(0), None, "what is wrong is not kept");
    pick(&mut cache, 0, &[0]).unwrap();
    expect(&model, &cache, 0, 0);
}

#[test]
fn a_guess_that_was_given_up_half_read_and_is_picked_before_it_has_landed_is_read_to_its_end() {
    let model = model();
    let (mut cache, open, reads) = guessing(&model, 40);
    open.store(false, Ordering::Relaxed);
    cache.prefetch(0, 0);
    while reads.load(Ordering::Relaxed) < 2 {
        std::thread::yield_now();
    }
    // Its third slice waits, and is taken back.
    cache.begin_layer();
    cache.end_prefetch(0);
    cache.begin_layer();
    assert!(cache.request(0, 0), "it is on its way");
    open.store(true, Ordering::Relaxed);
    cache.wait(0, 0).unwrap();
    expect(&model, &cache, 0, 0);
    assert_eq!(reads.load(Ordering::Relaxed), 3, "and no slice twice");
}

#[test]
fn wrong_guesses_come_to_rest() {
    let model = model();
    let (mut cache, _, reads) = guessing(&model, 40);
    for _ in 0..200 {
        // Always wrong: the layer that is guessed picks another.
        (0..4).for_each(|expert| cache.prefetch(1, expert));
        settle(&mut cache);
        pick(&mut cache, 1, &[8]).unwrap();
    }
    let stats = cache.monitor().stats();
    assert_eq!(stats.misses, 1);
    let prefetch_unused = reads.load(Ordering::Relaxed) / 3 - stats.misses;
    assert!(
        (1..=8).contains(&prefetch_unused),
        "{prefetch_unused} experts were read in vain: {stats:?}"
    );
    assert!(!cache.wants_prefetch());
}

#[test]
fn a_guess_that_cannot_be_read_harms_nobody() {
    let model = model();
    let broken = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&broken);
    let fault = move |_| match seen.load(Ordering::Relaxed) {
        true => Err(io::Error::from_raw_os_error(5)), // EIO
        false => Ok(()),
    };
    let options = CacheOptions { prefetch: true, ..options(40) };
    let mut cache = ExpertCache::new(model.layers.clone(), faulty(fault), &options).unwrap();
    cache.prefetch(2, 3);
    settle(&mut cache);
    broken.store(false, Ordering::Relaxed);
    pick(&mut cache, 2, &[3]).unwrap();
    expect(&model, &cache, 2, 3);
    assert_eq!(cache.monitor().stats().prefetch_hits, 0, "what failed was no prefetch any more");
}

#[test]
fn a_read_error_names_the_expert_and_the_next_request_lives() {
    let model = model();
    let broken = Arc::new(AtomicI64::new(-1));
    let seen = Arc::clone(&broken);
    let first = model.layers[1][2].offset + 5 * 6000;
    let fault = move |offset: u64| {
        let hit = offset <= first && first < offset + 4096;
        if hit && seen.load(Ordering::Relaxed) != 0 {
            return Err(io::Error::from_raw_os_error(5)); // EIO
        }
        Ok(())
    };
    let mut cache = cache(&model, 12, faulty(fault));
    for _ in 0..2 {
        let error = pick(&mut cache, 1, &[4, 5]).unwrap_err().to_string();
        let file = model.path.display().to_string();
        assert!(error.starts_with(&file) && error.contains("expert 5 of layer 4"), "{error}");
        expect(&model, &cache, 1, 4);
    }
    broken.store(0, Ordering::Relaxed);
    pick(&mut cache, 1, &[4, 5]).unwrap();
    expect(&model, &cache, 1, 5);
}

#[test]
fn a_truncated_file_is_an_error_of_the_experts_it_lacks() {
    let model = model();
    let mut cache = cache(&model, 12, Reader::start().unwrap());
    pick(&mut cache, 0, &[1]).unwrap();
    File::options().write(true).open(&model.path).unwrap().set_len(520_000).unwrap();
    let error = pick(&mut cache, 2, &[3]).unwrap_err().to_string();
    assert!(error.contains("expert 3 of layer 5") && error.contains("truncated"), "{error}");
    let error = pick(&mut cache, 0, &[2]).unwrap_err().to_string();
    let named = error.contains("expert 2 of layer 3");
    assert!(
        error.contains("changed since") && named,
        "what is still there is not trusted: {error}"
    );
    pick(&mut cache, 0, &[1]).expect("what was read before is in memory");
}

#[test]
fn a_drive_that_stalls_is_an_error_in_time_and_may_come_back() {
    let model = model();
    let stalled = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&stalled);
    let fault = move |_| {
        while seen.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    let options = CacheOptions { stall_timeout: Duration::from_millis(20), ..options(12) };
    let mut cache = ExpertCache::new(model.layers.clone(), faulty(fault), &options).unwrap();
    let error = pick(&mut cache, 0, &[7]).unwrap_err().to_string();
    assert!(
        error.contains("expert 7 of layer 3") && error.contains("not responding for 0.02"),
        "{error}"
    );
    stalled.store(false, Ordering::Relaxed);
    cache.stall_timeout = Duration::from_secs(20);
    pick(&mut cache, 0, &[7]).expect("it was on its way all the time");
    expect(&model, &cache, 0, 7);
}

#[test]
fn memory_is_given_back_when_asked_for() {
    let model = model();
    let mut cache = cache(&model, 40, Reader::start().unwrap());
    (0..8).for_each(|expert| pick(&mut cache, 0, &[expert]).unwrap());
    let monitor = cache.monitor();
    let (before, capacity) = (monitor.capacity(), cache.capacity());
    monitor.release(before / 2);
    cache.advance(1);
    assert!(monitor.capacity() <= before / 2 && cache.capacity() < capacity);
    monitor.release(u64::MAX);
    cache.advance(1);
    assert_eq!(cache.capacity(), 2 * 2, "a token's picks in a layer of each class");
    for layer in 0..LAYERS {
        pick(&mut cache, layer, &[3, 9]).unwrap();
        expect(&model, &cache, layer, 3);
        expect(&model, &cache, layer, 9);
    }
}

#[test]
fn memory_that_was_released_is_taken_back_when_it_is_available() {
    let model = model();
    let mut cache = cache(&model, 40, Reader::start().unwrap());
    (0..8).for_each(|expert| pick(&mut cache, 0, &[expert]).unwrap());
    let monitor = cache.monitor();
    let (bytes, capacity) = (monitor.capacity(), cache.capacity());
    for _ in 0..3 {
        monitor.release(u64::MAX);
        cache.advance(1);
        assert!(cache.capacity() < capacity / 4);
        monitor.allow(bytes / 2);
        cache.advance(1);
        assert!((bytes / 3..bytes * 9 / 10).contains(&monitor.capacity()), "a part of it");
        monitor.allow(u64::MAX);
        cache.advance(1);
        assert_eq!((monitor.capacity(), cache.capacity()), (bytes, capacity), "and no more");
        for layer in 0..LAYERS {
            for expert in 0..EXPERTS {
                pick(&mut cache, layer, &[expert]).unwrap();
                expect(&model, &cache, layer, expert);
            }
        }
        let resident = (0..LAYERS * EXPERTS).filter(|&n| cache.residency.frame(n).is_some());
        assert_eq!(resident.count(), capacity, "every frame is in use again");
    }
}

#[test]
fn what_was_popular_is_read_when_there_is_nothing_else_to_do() {
    let model = model();
    let mut first = cache(&model, 48, Reader::start().unwrap());
    let memory = model.path.with_extension("popular");
    fs::write(&memory, b"of another model").unwrap();
    fs::create_dir(model.path.with_extension("folder")).unwrap();
    first.load_expert_stats(model.path.with_extension("folder")); // ignored, and not replaced
    first.load_expert_stats(memory.clone());
    for _ in 0..3 {
        pick(&mut first, 1, &[6, 11]).unwrap();
    }
    drop(first);
    let reads = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&reads);
    let count = move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let mut second = cache(&model, 48, faulty(count));
    second.load_expert_stats(memory);
    while !(second.is_ready(1, 6) && second.is_ready(1, 11)) {
        second.idle();
        second.poll();
    }
    assert_eq!(reads.load(Ordering::Relaxed), 6);
    pick(&mut second, 1, &[6, 11]).unwrap();
    assert_eq!(second.monitor().stats().misses, 0);
    expect(&model, &second, 1, 11);
}

#[test]
fn reading_time_counts_once_however_many_reads_overlap() {
    let model = model();
    let slow = |_| {
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    };
    let mut cache = cache(&model, 48, faulty(slow));
    let begun = Instant::now();
    pick(&mut cache, 0, &[1, 2]).unwrap();
    let (all, stats) = (begun.elapsed(), cache.monitor().stats());
    assert!(stats.busy >= Duration::from_millis(15), "six reads, two at a time: {stats:?}");
    assert!(stats.busy <= all && stats.waited <= all, "{stats:?} of {all:?}");
}
