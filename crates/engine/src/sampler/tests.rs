//! The sampler against slow definitions, and what each setting must do.

use proptest::prelude::*;

use super::*;

fn plain() -> Sampling {
    Sampling { temperature: 1.0, top_p: 1.0, ..Sampling::default() }
}

fn sample_many(sampling: &Sampling, seed: u64, logits: &[f32], count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(sampling.clone(), seed, Vec::new());
    (0..count).map(|_| sample(&mut sampler, logits).unwrap()).collect()
}

fn sample(sampler: &mut Sampler, logits: &[f32]) -> Result<u32, Unsampled> {
    sampler.sample(&mut Scratch::default(), logits, None, None).map(|sampled| sampled.id)
}

/// Probabilities after the temperature, the straightforward way.
fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let weights: Vec<f64> =
        logits.iter().map(|l| f64::from((l - max) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

#[test]
fn greedy_takes_the_highest_logit_and_of_equals_the_first() {
    let greedy = Sampling { temperature: 0.0, ..plain() };
    assert_eq!(sample_many(&greedy, 1, &[0.0, 3.0, 3.0, -1.0], 2), [1, 1]);
}

#[test]
fn what_is_not_a_number_never_becomes_one() {
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in 0..3 {
            let mut logits = [1.0, 2.0, 3.0];
            logits[place] = bad;
            for sampling in [plain(), Sampling { temperature: 0.0, ..plain() }] {
                let mut sampler = Sampler::new(sampling, 1, Vec::new());
                assert_eq!(sample(&mut sampler, &logits), Err(Unsampled::NotFinite));
            }
        }
    }
    let mut sampler = Sampler::new(plain(), 1, Vec::new());
    assert_eq!(sample(&mut sampler, &[]), Err(Unsampled::NotFinite));
}

#[test]
fn masks_and_bias_forbid_and_prefer() {
    let greedy = Sampling { temperature: 0.0, ..plain() };
    let logits = [1.0, 3.0, 2.0, 0.0];
    let mut mask = SimpleVob::alloc(4);
    mask.allow_token(0);
    mask.allow_token(3);
    let mut scratch = Scratch::default();
    for sampling in [greedy.clone(), plain()] {
        let mut sampler = Sampler::new(sampling, 1, Vec::new());
        for _ in 0..20 {
            let sampled = sampler.sample(&mut scratch, &logits, Some(&mask), None).unwrap();
            assert!([0, 3].contains(&sampled.id));
        }
        let none = SimpleVob::alloc(4);
        let nothing = sampler.sample(&mut scratch, &logits, Some(&none), None);
        assert_eq!(nothing, Err(Unsampled::Nothing));
    }
    let mut biased = Sampler::new(greedy, 1, vec![(3, 10.0), (1, f32::NEG_INFINITY)]);
    assert_eq!(sample(&mut biased, &logits), Ok(3));
    let mut forbidden =
        Sampler::new(plain(), 1, (0..4).map(|id| (id, f32::NEG_INFINITY)).collect());
    assert_eq!(sample(&mut forbidden, &logits), Err(Unsampled::Nothing));
}

#[test]
fn log_probabilities_are_the_models_own() {
    let logits = [2.0, 1.0, 0.0, -1.0];
    let all = softmax(&logits, 1.0);
    let sampling = Sampling { temperature: 0.3, top_k: 1, ..plain() };
    let mut sampler = Sampler::new(sampling, 1, vec![(2, 100.0)]);
    let sampled = sampler.sample(&mut Scratch::default(), &logits, None, Some(2)).unwrap();
    assert_eq!(sampled.id, 2);
    let near = |logprob: f32, id: usize| (f64::from(logprob) - all[id].ln()).abs() < 1e-5;
    assert!(near(sampled.logprob.unwrap(), 2));
    assert_eq!(sampled.top.iter().map(|top| top.id).collect::<Vec<_>>(), [0, 1]);
    assert!(near(sampled.top[0].logprob, 0) && near(sampled.top[1].logprob, 1));
}

#[test]
fn xtc_leaves_the_least_likely_of_the_likely_tokens() {
    let logits = [3.0, 2.9, 2.8, -5.0];
    let xtc = |xtc_probability| Sampling { xtc_probability, xtc_threshold: 0.1, ..plain() };
    assert!(sample_many(&xtc(1.0), 1, &logits, 50).iter().all(|id| [2, 3].contains(id)));
    let half = sample_many(&xtc(0.5), 1, &logits, 400);
    let top = half.iter().filter(|id| **id < 2).count();
    assert!((80..200).contains(&top), "{top}");
    let single = [9.0, 0.0, 0.0];
    assert!(sample_many(&xtc(1.0), 1, &single, 20).contains(&0), "one likely token stays");
}

#[test]
fn typical_p_keeps_what_is_about_as_surprising_as_expected() {
    // One token of 0.5 and 50 of 0.01: the entropy is 2.65, near to neither.
    let mut logits = vec![0.01_f32.ln(); 51];
    logits[0] = 0.5_f32.ln();
    let typical = Sampling { typical_p: 0.3, ..plain() };
    let drawn = sample_many(&typical, 1, &logits, 200);
    assert!(drawn.iter().all(|id| *id == 0 || *id <= 31), "{drawn:?}");
    assert_eq!(sample_many(&Sampling { typical_p: 1.0, ..plain() }, 1, &[9.0, 0.0], 1), [0]);
}

proptest! {
    /// As llama.cpp says it: sorted by probability, what is before the last one that reaches the
    /// threshold is removed.
    #[test]
    fn xtc_removes_what_the_definition_removes(
        weights in prop::collection::vec(0.001_f32..1.0, 1..20),
        threshold in 0.0_f32..0.6,
    ) {
        let sampling =
            Sampling { xtc_probability: 1.0, xtc_threshold: threshold, ..plain() };
        let candidate = |(id, &weight)| Candidate { id, weight };
        let mut fast: Vec<Candidate> = (0..).zip(&weights).map(candidate).collect();
        Sampler::new(sampling, 1, Vec::new()).exclude_top_choices(&mut fast);
        let mut slow: Vec<Candidate> = (0..).zip(&weights).map(candidate).collect();
        slow.sort_by(heavier);
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        let reaches = |c: &Candidate| f64::from(c.weight) / total >= f64::from(threshold);
        let kept = slow.iter().take_while(|c| reaches(c)).count();
        let removed = if threshold > 0.5 || slow.len() < 2 { 0 } else { kept.saturating_sub(1) };
        let mut expected: Vec<u32> = slow[removed..].iter().map(|c| c.id).collect();
        expected.sort_unstable();
        let left = fast.iter().filter(|c| c.weight > 0.0).map(|c| c.id);
        prop_assert_eq!(left.collect::<Vec<u32>>(), expected);
    }
}

#[test]
fn dry_penalizes_what_would_continue_a_repetition() {
    let dry = Sampling { dry_multiplier: 1.0, temperature: 0.0, ..plain() };
    let next = |tokens: &[u32], sampling: &Sampling| {
        let mut sampler = Sampler::new(sampling.clone(), 1, Vec::new());
        for &id in tokens {
            sampler.accept(id, if id == 9 { b".\n" } else { b"x" });
        }
        let mut logits = [0.0; 10];
        (logits[3], logits[4]) = (1.5, 0.4);
        sample(&mut sampler, &logits).unwrap()
    };
    // `1 2` was followed by 3: the penalty is 1 * 1.75^(2 - 2) = 1, and 1.5 - 1 > 0.4.
    assert_eq!(next(&[1, 2, 3, 5, 1, 2], &dry), 3);
    // `0 1 2` was: 1.75.
    assert_eq!(next(&[0, 1, 2, 3, 5, 0, 1, 2], &dry), 4);
    assert_eq!(
        next(&[0, 1, 2, 3, 5, 0, 1, 2], &Sampling { dry_multiplier: 0.0, ..dry.clone() }),
        3
    );
    assert_eq!(next(&[0, 1, 2, 3, 5, 0, 9, 1, 2], &dry), 3, "a breaker ends a repetition");
    assert_eq!(next(&[0, 9, 2, 3, 5, 0, 9, 2], &dry), 3);
    let short = Sampling { dry_penalty_last_n: 4, ..dry };
    assert_eq!(next(&[0, 1, 2, 3, 5, 0, 1, 2], &short), 3, "too long ago");
}

#[test]
fn frequencies_follow_the_probabilities() {
    let logits = [2.0, 1.0, 0.0, -1.0, -2.0];
    for temperature in [0.6, 1.0, 2.0] {
        let sampling = Sampling { temperature, ..plain() };
        let mut counts = [0.0; 5];
        for id in sample_many(&sampling, 42, &logits, 20_000) {
            counts[id as usize] += 1.0 / 20_000.0;
        }
        for (count, probability) in counts.iter().zip(softmax(&logits, temperature)) {
            assert!((count - probability).abs() < 0.015, "{count} for {probability}");
        }
    }
}

#[test]
fn the_head_need_not_be_short() {
    // Nearly flat: top-p 0.9 has to go far beyond the part that is sorted first.
    let logits: Vec<f32> = (0..5000).map(|i| i as f32 * 1e-6).collect();
    let sampling = Sampling { top_p: 0.9, ..plain() };
    let drawn = sample_many(&sampling, 3, &logits, 500);
    assert!(drawn.iter().all(|&id| id >= 490), "the least likely tenth is out");
    assert!(drawn.iter().any(|&id| id < 1000), "but what is next to it is not");
}

#[test]
fn penalties_push_recent_tokens_down_and_forget_old_ones() {
    let penalized = |sampling: Sampling, recent: &[u32]| {
        let sampling = Sampling { temperature: 0.0, ..sampling };
        let mut sampler = Sampler::new(sampling, 0, Vec::new());
        recent.iter().for_each(|&id| sampler.accept(id, b""));
        sample(&mut sampler, &[2.0, 1.5, -1.0]).unwrap()
    };
    let with = |repeat, presence, frequency, window| Sampling {
        repeat_penalty: repeat,
        presence_penalty: presence,
        frequency_penalty: frequency,
        repeat_last_n: window,
        ..plain()
    };
    assert_eq!(penalized(with(1.0, 0.0, 0.0, 64), &[0, 0]), 0);
    assert_eq!(penalized(with(1.5, 0.0, 0.0, 64), &[0]), 1, "2 / 1.5 < 1.5");
    assert_eq!(penalized(with(1.0, 0.6, 0.0, 64), &[0, 0]), 1);
    assert_eq!(penalized(with(1.0, 0.0, 0.3, 64), &[0]), 0, "2 - 0.3 > 1.5");
    assert_eq!(penalized(with(1.0, 0.0, 0.3, 64), &[0, 0]), 1, "2 - 0.6 < 1.5");
    assert_eq!(penalized(with(1.5, 0.0, 0.0, 2), &[0, 2, 2]), 0, "out of the window");
    assert_eq!(penalized(with(1.5, 0.0, 0.0, 0), &[0]), 0, "no window");
    assert_eq!(penalized(with(3.0, 0.0, 0.0, 64), &[0, 1, 2]), 0, "negative logits sink too");
}

#[test]
fn a_seed_gives_the_same_tokens_and_another_seed_others() {
    let logits: Vec<f32> = (0..300).map(|i| ((i * 37) % 101) as f32 / 40.0).collect();
    let default = Sampling::default();
    assert_eq!(sample_many(&default, 5, &logits, 9), sample_many(&default, 5, &logits, 9));
    assert_ne!(sample_many(&default, 5, &logits, 9), sample_many(&default, 6, &logits, 9));
    // A promise to users: these change only with a major version.
    assert_eq!(sample_many(&default, 5, &logits, 5), [229, 92, 281, 90, 150]);
}

proptest! {
    #[test]
    fn nothing_outside_of_the_filters_is_ever_drawn(
        logits in prop::collection::vec(-8.0f32..8.0, 1..200),
        temperature in 0.1f32..3.0,
        top_p in 0.0f32..1.0,
        top_k in 0usize..50,
        min_p in 0.0f32..1.0,
        seed in any::<u64>(),
    ) {
        let sampling = Sampling { temperature, top_p, top_k, min_p, ..plain() };
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if top_k > 0 {
            order.truncate(top_k);
        }
        let all = softmax(&logits, temperature);
        let total: f64 = order.iter().map(|&id| all[id]).sum();
        let highest = all[order[0]];
        for id in sample_many(&sampling, seed, &logits, 20) {
            let rank = order.iter().position(|&o| o == id as usize);
            prop_assert!(rank.is_some(), "{id} is not among the top k");
            let before: f64 = order[..rank.unwrap()].iter().map(|&o| all[o]).sum();
            let is_first = rank == Some(0);
            prop_assert!(is_first || before / total < f64::from(top_p) + 1e-5);
            prop_assert!(is_first || all[id as usize] / highest > f64::from(min_p) - 1e-5);
        }
    }

    #[test]
    fn finite_logits_give_a_token_of_the_vocabulary_and_others_an_error(
        logits in prop::collection::vec(any::<f32>(), 0..50),
        temperature in prop_oneof![Just(0.0f32), 1e-6f32..100.0],
        recent in prop::collection::vec(0u32..60, 0..30),
    ) {
        let sampling = Sampling { temperature, repeat_penalty: 1.1, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling, 1, Vec::new());
        recent.iter().for_each(|&id| sampler.accept(id, b""));
        match sample(&mut sampler, &logits) {
            Ok(id) => prop_assert!((id as usize) < logits.len()),
            Err(error) => prop_assert_eq!(error, Unsampled::NotFinite),
        }
        let finite = !logits.is_empty() && logits.iter().all(|logit| logit.is_finite());
        prop_assert_eq!(sample(&mut sampler, &logits).is_ok(), finite);
    }
}
