//! Attention against the formula in f64, and against itself in other company.

use super::*;
use crate::cpu::Tier;
use crate::kernel_tests::Random;
use crate::matrix::Matrix;
use crate::product::Cpu;

/// Numbers between -1 and 1 that look random.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..n).map(|_| random.float()).collect()
}

/// softmax(scale · q · keysᵀ) · values, over all rows.
fn formula(q: &[f32], keys: &[&[f32]], values: &[&[f32]], scale: f32) -> Vec<f64> {
    let score = |k: &&[f32]| {
        q.iter().zip(*k).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() * f64::from(scale)
    };
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut out = vec![0.0; values[0].len()];
    for (w, v) in weights.iter().zip(values) {
        out.iter_mut().zip(*v).for_each(|(o, &v)| *o += w / sum * f64::from(v));
    }
    out
}

fn close(a: &[f32], b: &[f64], bound: f64) {
    for (a, b) in a.iter().zip(b) {
        assert!((f64::from(*a) - b).abs() <= bound, "{a} and {b}");
    }
}

const WIDTH: usize = 96;
const VALUES: usize = 64;
const SCALE: f32 = 0.3;

/// The cache of a sequence, and the queries of all its tokens.
struct Sequence {
    rows: Vec<f32>,    // [len, WIDTH], as the cache has them
    queries: Vec<f32>, // [len, heads, WIDTH]
    pages: Vec<u32>,
    len: usize,
}

/// Some sequences whose pages are mixed.
struct Cache {
    format: Format,
    bytes: Vec<u8>,
    sequences: Vec<Sequence>,
    heads: usize,
}

impl Cache {
    fn new(format: Format, heads: usize, lens: &[usize]) -> Self {
        let counts: Vec<usize> = lens.iter().map(|len| len.div_ceil(PAGE_ROWS)).collect();
        let total = counts.iter().sum::<usize>() + 1;
        let row_bytes = format.row_bytes(WIDTH).unwrap();
        let mut bytes = vec![0xff; total * PAGE_ROWS * row_bytes]; // NaN, where nothing is written
        let mut free: Vec<u32> = (0..total as u32).map(|i| i * 7 % total as u32).collect();
        if (0..total as u32).any(|page| !free.contains(&page)) {
            free = (0..total as u32).rev().collect();
        }
        let sequences = lens.iter().zip(counts).enumerate().map(|(seed, (&len, count))| {
            let pages: Vec<u32> = free.drain(..count).collect();
            let mut rows = numbers(len * WIDTH, 7 + seed as u64);
            for (i, row) in rows.chunks_mut(WIDTH).enumerate() {
                let at = (pages[i / PAGE_ROWS] as usize * PAGE_ROWS + i % PAGE_ROWS) * row_bytes;
                let to = &mut bytes[at..at + row_bytes];
                assert!(format.encode(row, to));
                format.decode(to, row);
            }
            let queries = numbers(len * heads * WIDTH, 90 + seed as u64);
            Sequence { rows, queries, pages, len }
        });
        let sequences = sequences.collect();
        Self { format, bytes, sequences, heads }
    }

    /// Outputs `[tokens, heads, VALUES]` of some tokens of some sequences, packed.
    fn run(&self, cpu: &Cpu, tokens: &[(usize, Range<usize>)]) -> Vec<f32> {
        let (mut queries, mut segments, mut at) = (Vec::new(), Vec::new(), 0);
        for (sequence, range) in tokens {
            let Sequence { pages, len, queries: all, .. } = &self.sequences[*sequence];
            let width = self.heads * WIDTH;
            queries.extend_from_slice(&all[range.start * width..range.end * width]);
            let (format, bytes) = (self.format, &*self.bytes);
            let latent = Latent { format, bytes, pages, len: *len, width: WIDTH, values: VALUES };
            let rows = at..at + range.len();
            at = rows.end;
            segments.push(AttentionSegment { rows, past: range.start, latent });
        }
        let mut out = vec![f32::NAN; at * self.heads * VALUES];
        let heads = Heads { count: self.heads, scale: SCALE };
        Attention::new().absorbed(cpu, &queries, heads, &segments, &mut out);
        out
    }

    fn check(&self, sequence: usize, token: usize, out: &[f32]) {
        let Sequence { rows, queries, .. } = &self.sequences[sequence];
        let keys: Vec<&[f32]> = rows.chunks(WIDTH).take(token + 1).collect();
        let values: Vec<&[f32]> = keys.iter().map(|row| &row[..VALUES]).collect();
        for (h, out) in out.chunks(VALUES).enumerate() {
            let q = &queries[(token * self.heads + h) * WIDTH..][..WIDTH];
            close(out, &formula(q, &keys, &values, SCALE), 3e-5);
        }
    }
}

#[test]
fn absorbed_is_the_formula_at_every_tier_thread_count_format_and_length() {
    for (format, heads) in [(Format::F32, 5), (Format::F16, 16), (Format::Q8_0, 2)] {
        let cache = Cache::new(format, heads, &[712]);
        for (past, tokens) in [(0, 1), (63, 2), (300, 1), (511, 3), (5, 40), (700, 12)] {
            for tier in Tier::available() {
                let run =
                    |threads| cache.run(&Cpu::new(threads, tier), &[(0, past..past + tokens)]);
                let out = run(1);
                for threads in [2, 3, 24] {
                    assert_eq!(out, run(threads), "{threads} threads change nothing");
                }
                for (t, out) in out.chunks(heads * VALUES).enumerate() {
                    cache.check(0, past + t, out);
                }
            }
        }
    }
}

/// Positions past all borders between lengths of runs, as deep as is quick.
#[test]
fn a_row_alone_is_the_row_in_any_chunk_and_company() {
    let heads = 16;
    let cache = Cache::new(Format::F16, heads, &[2500, 700, 65, 16_400]);
    let rows = [(0, 505..520), (1, 60..70), (0, 1020..1030), (2, 64..65), (3, 16_380..16_390)];
    for tier in Tier::available().skip(1) {
        for threads in [1, 2, 40] {
            let cpu = Cpu::new(threads, tier);
            let together = cache.run(&cpu, &rows);
            let mut all = together.chunks(heads * VALUES);
            for (sequence, range) in rows.clone() {
                for token in range {
                    let alone = cache.run(&cpu, &[(sequence, token..token + 1)]);
                    assert_eq!(alone, all.next().unwrap(), "{tier}: {sequence} {token}");
                }
            }
            cache.check(3, 16_385, &cache.run(&cpu, &[(3, 16_385..16_386)]));
        }
    }
}

#[test]
fn a_nan_in_a_query_or_in_a_row_it_sees_is_in_the_output() {
    for tier in Tier::available() {
        for (heads, threads) in [(3, 1), (16, 8)] {
            for bad in [f32::NAN, f32::INFINITY] {
                let cpu = Cpu::new(threads, tier);
                let mut cache = Cache::new(Format::F32, heads, &[650, 100]);
                cache.sequences[0].queries[640 * heads * WIDTH] = bad;
                let out = cache.run(&cpu, &[(0, 640..642), (1, 90..91)]);
                assert!(out[..VALUES].iter().all(|x| !x.is_finite()), "{tier} {bad}: query");
                assert!(out[VALUES..].iter().all(|x| x.is_finite()), "{tier} {bad}: others");
                let page = cache.sequences[1].pages[0] as usize;
                let at = (page * PAGE_ROWS + 9) * WIDTH * 4;
                cache.bytes[at..at + 4].copy_from_slice(&bad.to_le_bytes());
                let out = cache.run(&cpu, &[(0, 641..642), (1, 90..91)]);
                let (first, second) = out.split_at(heads * VALUES);
                assert!(first.iter().all(|x| x.is_finite()), "{tier} {bad}: another sequence");
                let is_bad = |head: &[f32]| head.iter().any(|x| !x.is_finite());
                assert!(second.chunks(VALUES).all(is_bad), "{tier} {bad}: a key and value");
            }
        }
    }
}

#[test]
fn rows_are_read_through_their_pages() {
    let cache = Cache::new(Format::Q8_0, 1, &[130, 70]);
    for (sequence, range) in [(0, 0..130), (1, 60..70), (0, 3..3)] {
        let Sequence { rows, pages, len, .. } = &cache.sequences[sequence];
        let (format, bytes) = (cache.format, &*cache.bytes);
        let latent = Latent { format, bytes, pages, len: *len, width: WIDTH, values: VALUES };
        for (i, expected) in rows.chunks(WIDTH).enumerate().skip(range.start).take(range.len()) {
            let mut row = [0.0; WIDTH];
            latent.row(Tier::detect(), i, &mut row);
            assert_eq!(row, expected);
        }
    }
}

#[test]
#[should_panic(expected = "numbers of a row")]
fn a_row_is_read_whole() {
    let (format, pages) = (Format::Q8_0, &[0][..]);
    let bytes = &[0; PAGE_ROWS * 34];
    let latent = Latent { format, bytes, pages, len: 1, width: 32, values: 32 };
    latent.row(Tier::SCALAR, 0, &mut [0.0; 31]);
}

#[test]
#[should_panic(expected = "cache rows")]
fn a_segment_beyond_its_cache_is_refused() {
    let cache = Cache::new(Format::F32, 1, &[10]);
    let segment = [(0, 9..10)];
    let mut short = cache;
    short.sequences[0].len = 9;
    short.run(&Cpu::new(1, Tier::SCALAR), &segment);
}

#[test]
fn expanded_is_the_formula() {
    let shape = ExpandedShape { nope: 24, rope: 32, value: 16 };
    let (count, key, wide) = (3, shape.nope + shape.rope, shape.nope + shape.value);
    let weights = numbers(count * wide * VALUES, 2);
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let matrix = Matrix::new(Format::F32, count * wide, VALUES, &bytes).unwrap();
    let lens = [118, 40, EXPANDED_ROWS + 2, 2 * EXPANDED_ROWS + 70];
    let cache = Cache::new(Format::F32, 1, &lens);
    // Rows before, between and after them belong to no sequence.
    let ranges = [3..84, 84..124, 124..126, 130..220];
    let projected = numbers(225 * count * key, 1);
    let segments = cache.sequences.iter().zip(&ranges).map(|(sequence, rows)| {
        let Sequence { pages, len, .. } = sequence;
        let (format, bytes) = (cache.format, &*cache.bytes);
        let latent = Latent { format, bytes, pages, len: *len, width: WIDTH, values: VALUES };
        AttentionSegment { rows: rows.clone(), past: len - rows.len(), latent }
    });
    let segments: Vec<_> = segments.collect();
    for tier in Tier::available() {
        let run = |threads, segments: &[AttentionSegment<'_>]| {
            let what = Expanded {
                queries: &mut projected.clone(),
                rotate: &|_, q| q.iter_mut().for_each(|x| *x *= 0.5),
                heads: Heads { count, scale: SCALE },
                shape,
                matrix,
                segments,
            };
            let mut out = vec![f32::NAN; 225 * count * shape.value];
            let cpu = Cpu::new(threads, tier);
            expanded(&cpu, what, &mut Expansion::default(), &mut out);
            assert_eq!(cpu.pool().regions(), 1);
            out
        };
        let out = run(2, &segments);
        let bits = |out: &[f32]| out.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out), bits(&run(16, &segments)), "threads change nothing");
        let of_row = count * shape.value;
        for (segment, sequence) in segments.iter().zip(&cache.sequences) {
            let at = segment.rows.start * of_row..segment.rows.end * of_row;
            let alone = run(3, std::slice::from_ref(segment));
            assert_eq!(out[at.clone()], alone[at], "others change nothing");
            let kv = |j: usize, h: usize| -> Vec<f32> {
                let row = &sequence.rows[j * WIDTH..][..VALUES];
                let of_head = weights[h * wide * VALUES..].chunks(VALUES).take(wide);
                of_head.map(|w| w.iter().zip(row).map(|(w, x)| w * x).sum()).collect()
            };
            for (t, row) in segment.rows.clone().enumerate().step_by(13) {
                let (h, seen) = (t % count, segment.past + t + 1);
                let rows: Vec<Vec<f32>> = (0..seen).map(|j| kv(j, h)).collect();
                let rope = |j: usize| &sequence.rows[j * WIDTH + VALUES..][..shape.rope];
                let keys = rows.iter().enumerate();
                let keys = keys.map(|(j, kv)| [&kv[..shape.nope], rope(j)].concat());
                let keys: Vec<Vec<f32>> = keys.collect();
                let keys: Vec<&[f32]> = keys.iter().map(Vec::as_slice).collect();
                let values: Vec<&[f32]> = rows.iter().map(|kv| &kv[shape.nope..]).collect();
                let q = &projected[(row * count + h) * key..][..key];
                let q: Vec<f32> = q.iter().map(|x| x * 0.5).collect();
                let out = &out[(row * count + h) * shape.value..][..shape.value];
                close(out, &formula(&q, &keys, &values, SCALE), 2e-4);
            }
        }
        assert!(out[..3 * of_row].iter().all(|x| x.is_nan()), "no sequence, no output");
    }
}

/// Small enough for Miri: latents are written, read and written again, by several threads.
#[test]
fn pieces_of_several_sequences_follow_each_other() {
    let shape = ExpandedShape { nope: 3, rope: WIDTH - VALUES, value: 2 };
    let (count, key, wide) = (2, shape.nope + shape.rope, shape.nope + shape.value);
    let weights = numbers(count * wide * VALUES, 2);
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let matrix = Matrix::new(Format::F32, count * wide, VALUES, &bytes).unwrap();
    let cache = Cache::new(Format::F32, 1, &[3, 4]);
    let segments = cache.sequences.iter().zip([0..2, 2..5]).map(|(sequence, rows)| {
        let Sequence { pages, len, .. } = sequence;
        let (format, bytes) = (cache.format, &*cache.bytes);
        let latent = Latent { format, bytes, pages, len: *len, width: WIDTH, values: VALUES };
        AttentionSegment { past: len - rows.len(), rows, latent }
    });
    let segments: Vec<_> = segments.collect();
    let run = |threads| {
        let what = Expanded {
            queries: &mut numbers(5 * count * key, 1),
            rotate: &|_, _| {},
            heads: Heads { count, scale: SCALE },
            shape,
            matrix,
            segments: &segments,
        };
        let mut out = vec![f32::NAN; 5 * count * shape.value];
        expanded(&Cpu::new(threads, Tier::detect()), what, &mut Expansion::default(), &mut out);
        out
    };
    let alone: Vec<f64> = run(1).into_iter().map(f64::from).collect();
    close(&run(3), &alone, 1e-5); // Miri's `exp` is never twice the same
}
