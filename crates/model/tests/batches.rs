//! Batches of several sequences: what each computes, and what becomes of failures.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use cachalot_gguf::KvType;
use cachalot_kernels::Tier;
use cachalot_model::{
    Batch, Model, ModelOptions, Output, PAGE_ROWS, PageId, Phase, Segment, Wanted,
};

const FILE: &str = "nano-ud-q2_k_xl.gguf";
const VOCABULARY: usize = 640;

/// The tokens of a sequence.
fn tokens(seq: u64, len: usize) -> Vec<u32> {
    (0..len as u64).map(|i| ((i * 61 + seq * 97 + 7) % VOCABULARY as u64) as u32).collect()
}

fn model(tier: Tier, reproducible: bool) -> Model {
    let options = ModelOptions { reproducible, ..ModelOptions::default() };
    let mut model = Model::load(&common::open(FILE), &common::cpu(2, tier), &options).unwrap();
    model.reserve_pages(64, KvType::F16).unwrap();
    model
}

/// A sequence that is computed in pieces.
struct Sequence {
    seq: u64,
    tokens: Vec<u32>,
    pages: Vec<PageId>,
    done: usize,
    logits: Vec<Vec<f32>>, // of every token
}

/// Some tokens of a sequence, by its index.
#[derive(Clone, Copy)]
struct Piece {
    index: usize,
    len: usize,
    phase: Phase,
}

fn prefill(index: usize, len: usize) -> Piece {
    Piece { index, len, phase: Phase::Prefill }
}

fn decode(index: usize) -> Piece {
    Piece { index, len: 1, phase: Phase::Decode }
}

impl Sequence {
    fn new(seq: u64, len: usize, pages: &[PageId]) -> Self {
        let pages = pages.to_vec();
        assert!(pages.len() * PAGE_ROWS >= len);
        Self { seq, tokens: tokens(seq, len), pages, done: 0, logits: Vec::new() }
    }
}

/// Computes one batch of these pieces, with the logits of all rows.
fn step(model: &mut Model, sequences: &mut [Sequence], pieces: &[Piece]) {
    let (mut rows, mut all) = (0, Vec::new());
    let mut segments = Vec::new();
    for &Piece { index, len, phase } in pieces {
        let Sequence { seq, tokens, pages, done, .. } = &sequences[index];
        all.extend_from_slice(&tokens[*done..done + len]);
        let rows_of = rows..rows + len;
        rows += len;
        let (start, want) = (*done, Wanted::All);
        segments.push(Segment { seq: *seq, start, rows: rows_of, pages, phase, want });
    }
    let batch = Batch { tokens: &all, segments: &segments };
    let output = model.forward(&batch, &mut |_| true).unwrap();
    assert!(output.failures().is_empty(), "{:?}", output.failures());
    let logits: Vec<Vec<f32>> = (0..pieces.len()).map(|at| output.logits(at).to_vec()).collect();
    for (piece, logits) in pieces.iter().zip(logits) {
        let sequence = &mut sequences[piece.index];
        sequence.done += piece.len;
        sequence.logits.extend(logits.chunks(VOCABULARY).map(<[f32]>::to_vec));
    }
}

/// The logits of one sequence, computed alone: its prompt at once, then token by token.
fn alone(tier: Tier, reproducible: bool, seq: u64, prompt: usize, len: usize) -> Vec<Vec<f32>> {
    let mut model = model(tier, reproducible);
    let mut sequences = [Sequence::new(seq, len, &[0, 1, 2, 3])];
    step(&mut model, &mut sequences, &[prefill(0, prompt)]);
    (prompt..len).for_each(|_| step(&mut model, &mut sequences, &[decode(0)]));
    let [sequence] = sequences;
    sequence.logits
}

/// Three sequences in mixed batches: their pages are interleaved, prompts are cut, one decodes
/// while others are prompts, and one continues a copy of another's pages.
fn mixed(tier: Tier, reproducible: bool) -> [Sequence; 3] {
    let mut model = model(tier, reproducible);
    let mut sequences = [
        Sequence::new(1, 150, &[9, 4, 17]),
        Sequence::new(2, 80, &[3, 60]),
        Sequence::new(3, 40, &[5]),
    ];
    step(&mut model, &mut sequences, &[prefill(0, 10), prefill(1, 33)]);
    step(&mut model, &mut sequences, &[prefill(1, 1), prefill(0, 130), prefill(2, 5)]);
    for _ in 0..10 {
        step(&mut model, &mut sequences, &[decode(0), prefill(2, 3), decode(1)]);
    }
    sequences
}

#[test]
fn a_reproducible_batch_gives_what_each_sequence_gives_alone_bit_for_bit() {
    for tier in Tier::available() {
        for (sequence, prompt) in mixed(tier, true).iter().zip([140, 34, 35]) {
            let expected = alone(tier, true, sequence.seq, prompt, sequence.done);
            for (at, (a, b)) in sequence.logits.iter().zip(&expected).enumerate() {
                assert!(a == b, "{tier}: token {at} of sequence {}", sequence.seq);
            }
        }
    }
}

#[test]
fn by_default_a_batch_gives_what_each_sequence_gives_alone_to_rounding() {
    for tier in Tier::available() {
        for (sequence, prompt) in mixed(tier, false).iter().zip([140, 34, 35]) {
            let expected = alone(tier, false, sequence.seq, prompt, sequence.done).concat();
            let distance = common::distance(&expected, &sequence.logits.concat(), VOCABULARY);
            let limit = if tier.is_scalar() { 1e-6 } else { 2e-3 };
            assert!(distance.kl_median < limit, "{tier}, {}: {distance:?}", sequence.seq);
        }
    }
}

#[test]
fn a_cached_prefix_changes_no_bit_of_reproducible_results() {
    let tier = Tier::detect();
    let expected = alone(tier, true, 7, 100, 110);
    let mut model = model(tier, true);
    let mut sequences = [Sequence::new(7, 110, &[8, 2]), Sequence::new(7, 110, &[8, 30])];
    step(&mut model, &mut sequences, &[prefill(0, 100)]);
    // The second one shares the full page, and copies the other.
    model.copy_page(2, 30);
    sequences[1].done = 90;
    step(&mut model, &mut sequences, &[prefill(1, 10), decode(0)]);
    for _ in 0..9 {
        step(&mut model, &mut sequences, &[decode(0), decode(1)]);
    }
    assert!(sequences[0].logits == expected);
    step(&mut model, &mut sequences, &[decode(1)]);
    assert!(sequences[1].logits[..] == expected[90..]);
}

#[test]
fn only_the_rows_that_are_wanted_have_results() {
    let mut model = model(Tier::detect(), false);
    let all = [tokens(1, 8), tokens(2, 5), tokens(3, 1), tokens(4, 6)].concat();
    let segment = |seq, rows: std::ops::Range<usize>, pages, want| Segment {
        seq,
        start: 0,
        rows,
        pages,
        phase: Phase::Prefill,
        want,
    };
    let wants = [Wanted::Last, Wanted::Hidden, Wanted::None, Wanted::All];
    let segments = [
        segment(1, 0..8, &[0][..], wants[0]),
        segment(2, 8..13, &[1], wants[1]),
        segment(3, 13..14, &[2], wants[2]),
        segment(4, 14..20, &[3], wants[3]),
    ];
    let batch = Batch { tokens: &all, segments: &segments };
    let sizes = |output: &Output<'_>| -> Vec<(usize, usize)> {
        (0..4).map(|at| (output.logits(at).len(), output.hidden(at).len())).collect()
    };
    let output = model.forward(&batch, &mut |_| true).unwrap();
    let expected = [(VOCABULARY, 0), (0, 5 * 256), (0, 0), (6 * VOCABULARY, 0)];
    assert_eq!(sizes(&output), expected);
    assert!(output.hidden(1).iter().all(|x| x.is_finite()));
    let (last, all) = (output.logits(0).to_vec(), output.logits(3).to_vec());
    let everything = segments.clone().map(|segment| Segment { want: Wanted::All, ..segment });
    let batch = Batch { segments: &everything, ..batch };
    let output = model.forward(&batch, &mut |_| true).unwrap();
    let distance = common::distance(&output.logits(0)[7 * VOCABULARY..], &last, VOCABULARY);
    assert!(distance.kl_mean < 1e-3, "{distance:?}");
    let distance = common::distance(output.logits(3), &all, VOCABULARY);
    assert!(distance.kl_mean < 1e-3, "{distance:?}");
}

#[test]
fn a_sequence_that_is_not_finite_fails_alone() {
    let mut file = common::File::of(&common::open(FILE));
    let name = "token_embd.weight";
    let mut embedding = file.numbers(name);
    let width = embedding.len() / VOCABULARY;
    embedding[5 * width] = f32::NAN;
    embedding[6 * width] = f32::INFINITY;
    file.put(name, &[width as u64, VOCABULARY as u64], &embedding);
    for tier in Tier::available() {
        let options = ModelOptions { reproducible: true, ..ModelOptions::default() };
        let mut model = Model::load(&file.weights(), &common::cpu(2, tier), &options).unwrap();
        model.reserve_pages(8, KvType::F16).unwrap();
        let mut logits = Vec::new();
        for damaged in [[9, 10], [5, 10], [9, 6]] {
            let all = [1, 2, damaged[0], damaged[1], 3, 4, 7];
            let segment = |seq, rows, pages| Segment {
                seq,
                start: 0,
                rows,
                pages,
                phase: Phase::Prefill,
                want: Wanted::Last,
            };
            let segments =
                [segment(11, 0..2, &[0][..]), segment(12, 2..4, &[1]), segment(13, 4..7, &[2])];
            let batch = Batch { tokens: &all, segments: &segments };
            let output = model.forward(&batch, &mut |_| true).unwrap();
            let failed: Vec<u64> = output.failures().iter().map(|failure| failure.seq).collect();
            let expected = if damaged == [9, 10] { vec![] } else { vec![12] };
            assert_eq!(failed, expected, "{tier}, {damaged:?}");
            for failure in output.failures() {
                assert!(failure.error.to_string().contains("not finite"), "{}", failure.error);
            }
            logits.push([output.logits(0), output.logits(2)].concat());
        }
        assert!(logits[0] == logits[1] && logits[0] == logits[2], "{tier}: others are unharmed");
    }
}

/// The logits of the last 8 tokens of 1,208, whose prompt is computed in these chunks.
fn deep(options: &ModelOptions, chunks: &[usize]) -> Vec<f32> {
    let cpu = common::cpu(2, Tier::detect());
    let mut model = Model::load(&common::open(FILE), &cpu, options).unwrap();
    model.reserve_pages(40, KvType::F16).unwrap();
    let pages: Vec<PageId> = (0..20).map(|page| (page * 7 + 3) % 40).collect();
    let mut sequences = [Sequence::new(5, 1208, &pages)];
    assert_eq!(chunks.iter().sum::<usize>(), 1200);
    chunks.iter().for_each(|&len| step(&mut model, &mut sequences, &[prefill(0, len)]));
    (0..8).for_each(|_| step(&mut model, &mut sequences, &[decode(0)]));
    sequences[0].logits[1200..].concat()
}

#[test]
fn deep_caches_agree_in_both_forms_and_in_any_chunks() {
    let chunks: [&[usize]; 2] = [&[1024, 9, 127, 40], &[600, 64, 536]];
    let absorbed = ModelOptions { expanded_from: Some(usize::MAX), ..ModelOptions::default() };
    let reproducible = ModelOptions { reproducible: true, ..ModelOptions::default() };
    let expected = deep(&reproducible, &[1200]);
    for chunks in chunks {
        assert!(deep(&reproducible, chunks) == expected, "reproducible, {chunks:?}");
        for options in [ModelOptions::default(), absorbed.clone()] {
            let distance = common::distance(&expected, &deep(&options, chunks), VOCABULARY);
            assert!(distance.kl_median < 2e-3, "{chunks:?}: {distance:?}");
        }
    }
}

#[test]
fn batches_of_any_size_at_depth_give_what_each_sequence_gives_alone() {
    let (tier, depth) = (Tier::detect(), 1100);
    for rows in [9, 127] {
        let mut logits = Vec::new();
        for reproducible in [true, false] {
            for together in [true, false] {
                let mut model = model(tier, reproducible);
                let pages = [0, 20].map(|first| (first..first + 20).collect::<Vec<PageId>>());
                let mut sequences = [0, 1].map(|at| Sequence::new(at, 1240, &pages[at as usize]));
                (0..2).for_each(|at| step(&mut model, &mut sequences, &[prefill(at, depth)]));
                let batches: &[&[Piece]] = match together {
                    true => &[&[prefill(0, rows), decode(1)]],
                    false => &[&[prefill(0, rows)], &[decode(1)]],
                };
                batches.iter().for_each(|pieces| step(&mut model, &mut sequences, pieces));
                let last = sequences.each_ref().map(|sequence| sequence.logits[depth..].concat());
                logits.push(last.concat());
            }
        }
        assert!(logits[0] == logits[1], "{rows} rows, reproducible");
        let distance = common::distance(&logits[3], &logits[2], VOCABULARY);
        assert!(distance.kl_median < 2e-3, "{rows} rows: {distance:?}");
    }
}
