//! Attention against the formula in f64.

use super::*;
use crate::cpu::Tier;

/// Numbers between -1 and 1 that look random.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_761).max(1);
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as f32 / u32::MAX as f32 * 2.0 - 1.0
        })
        .collect()
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

#[test]
fn absorbed_is_the_formula_at_every_tier_thread_count_and_length() {
    for heads in [5, 16] {
        absorbed_is_the_formula(heads);
    }
}

fn absorbed_is_the_formula(heads: usize) {
    let (width, values, scale) = (96, 64, 0.3);
    for (past, tokens) in [(0, 1), (300, 1), (511, 3), (5, 40), (700, 12)] {
        let rows = numbers((past + tokens) * width, 7);
        let q = numbers(tokens * heads * width, 3);
        let bytes: Vec<u8> = rows.iter().flat_map(|x| x.to_le_bytes()).collect();
        let cache = Latent { format: Format::F32, bytes: &bytes, width, values };
        let cache_rows: Vec<&[f32]> = rows.chunks(width).collect();
        let cache_values: Vec<&[f32]> = cache_rows.iter().map(|r| &r[..values]).collect();
        for tier in Tier::available() {
            let run = |threads| {
                let mut out = vec![0.0; tokens * heads * values];
                let cpu = Cpu::new(threads, tier);
                let queries = Queries { heads, past, scale };
                Attention::new().absorbed(&cpu, &q, queries, cache, &mut out);
                out
            };
            let out = run(1);
            assert_eq!(out, run(3), "threads change nothing");
            for (i, out) in out.chunks(values).enumerate() {
                let seen = past + i / heads + 1;
                let q = &q[i * width..][..width];
                let expected = formula(q, &cache_rows[..seen], &cache_values[..seen], scale);
                close(out, &expected, 3e-5);
            }
        }
    }
}

#[test]
fn expanded_in_chunks_is_the_formula() {
    let shape = ExpandedShape { nope: 24, rope: 8, value: 16 };
    let (heads, past, tokens, scale) = (3, 37, 21, 0.4);
    let (key, wide, len) = (shape.nope + shape.rope, shape.nope + shape.value, past + tokens);
    let q = numbers(tokens * heads * key, 1);
    let kv = numbers(len * heads * wide, 2);
    let k_rope = numbers(len * shape.rope, 9);
    for tier in Tier::available() {
        let cpu = Cpu::new(2, tier);
        let mut attention = Attention::new();
        attention.begin(tokens, heads, shape.value);
        for first in (0..len).step_by(13) {
            let n = 13.min(len - first);
            let kv = &kv[first * heads * wide..][..n * heads * wide];
            let k_rope = &k_rope[first * shape.rope..][..n * shape.rope];
            attention.accumulate(
                &cpu,
                &q,
                (kv, k_rope),
                shape,
                first,
                Queries { heads, past, scale },
            );
        }
        let mut out = vec![0.0; tokens * heads * shape.value];
        attention.normalize(&cpu, &mut out);
        for (i, out) in out.chunks(shape.value).enumerate() {
            let (t, h) = (i / heads, i % heads);
            let keys: Vec<Vec<f32>> = (0..past + t + 1)
                .map(|j| {
                    let nope = &kv[(j * heads + h) * wide..][..shape.nope];
                    [nope, &k_rope[j * shape.rope..][..shape.rope]].concat()
                })
                .collect();
            let keys: Vec<&[f32]> = keys.iter().map(Vec::as_slice).collect();
            let values: Vec<&[f32]> = (0..past + t + 1)
                .map(|j| &kv[(j * heads + h) * wide + shape.nope..][..shape.value])
                .collect();
            let expected = formula(&q[i * key..][..key], &keys, &values, scale);
            close(out, &expected, 2e-5);
        }
    }
}
