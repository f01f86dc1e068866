//! `bench --parallel`: several users at once, through the engine as a server uses it.
//!
//! Each user sends a prompt of random tokens, all at the same moment. What the batches read is
//! beside the rates: users share the weights that all tokens need, but each brings experts of its
//! own, and the memory's bandwidth bounds what batching can gain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cachalot_engine::event::Finished;
use cachalot_engine::handle::{Generation, Limits};
use cachalot_engine::layout::{Engine, Options, Source};
use cachalot_engine::request::{Sampling, ThoughtState};
use cachalot_engine::status::ExpertUse;
use cachalot_engine::{Event, Handle, Request};
use cachalot_plan::units;
use serde_json::{Value, json};

use super::{BenchArgs, random_tokens};
use crate::terminal::{self, Progress, loading};

/// One number of users.
pub(super) struct Measured {
    users: usize,
    /// Tokens per second of all users, from when all of them generate.
    total: f64,
    /// Tokens per second of one user, on average.
    each: f64,
    /// From submission to the first token.
    first: [Duration; 2], // mean, longest
    /// Different experts in a layer of a batch, if the model has experts.
    distinct: Option<f64>,
}

/// Weights that a batch reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reads {
    /// Bytes that every batch reads.
    pub(super) shared: f64,
    /// Bytes of one expert in every layer that has them.
    pub(super) expert: f64,
    /// Bytes per second of this machine's memory.
    pub(super) bandwidth: f64,
}

/// Measures each number of users in `args`.
pub(super) fn measure(args: &BenchArgs, options: &Options) -> anyhow::Result<Vec<Measured>> {
    let counts: Vec<usize> = args.parallel.iter().map(|users| usize::from(*users)).collect();
    let Some(&most) = counts.iter().max() else { return Ok(Vec::new()) };
    let used = Arc::new(ExpertUse::default());
    let prompt = args.prompt.max(1);
    let options = Options {
        context: Some(prompt + args.decode + 1),
        parallel: most,
        count_experts: Some(Arc::clone(&used)),
        ..options.clone()
    };
    let source = args.file.clone().map_or(crate::embedded::SOURCE, Source::File);
    let engine = loading(|progress| Engine::load(&source, &options, progress))?;
    let handle = engine.start(Limits { parallel: most, queue: most })?;
    run(&handle, 1, args, 0)?; // threads start, buffers are made
    let mut progress = Progress::new("users");
    let mut measured = Vec::new();
    for (done, &users) in counts.iter().enumerate() {
        progress.set(done as u64, counts.len() as u64);
        used.take_distinct();
        let (begun, ends) = run(&handle, users, args, 1 + done)?;
        measured.push(summary(users, begun, &ends, used.take_distinct()));
    }
    progress.clear();
    handle.shutdown(Duration::ZERO);
    Ok(measured)
}

/// One user's answer: when it was submitted is the same for all.
struct End {
    first: Instant,
    last: Instant,
    finished: Finished,
}

fn run(
    handle: &Handle,
    users: usize,
    args: &BenchArgs,
    round: usize,
) -> anyhow::Result<(Instant, Vec<End>)> {
    let prompt = args.prompt.max(1);
    let vocabulary = handle.info().vocab.len();
    let tokens = random_tokens((round * 64 + users) * prompt, vocabulary);
    let begun = Instant::now();
    let generations = tokens.chunks(prompt).rev().take(users).map(|prompt| {
        Ok(handle.submit(Request {
            prompt: prompt.to_vec(),
            thought: ThoughtState::Ignored,
            sampling: Sampling { temperature: 1.0, top_p: 1.0, ..Sampling::default() },
            seed: Some(671),
            max_tokens: Some(args.decode.max(2)),
            ignore_eos: true,
            cache_prompt: false,
            ..Request::default()
        })?)
    });
    let user = |generation: anyhow::Result<Generation>| {
        anyhow::Ok(User { generation: generation?, first: None })
    };
    let users = generations.map(user);
    Ok((begun, receive(users.collect::<anyhow::Result<_>>()?)?))
}

/// A user whose answer is received.
struct User {
    generation: Generation,
    first: Option<Instant>,
}

/// Receives all answers on one thread, as the clients of a server share its threads: with a thread
/// for each user, every token would wake one, in time that the engine has on few cores.
fn receive(mut users: Vec<User>) -> anyhow::Result<Vec<End>> {
    let mut ends = Vec::new();
    while let Some(first) = users.first_mut() {
        let mut event = first.generation.recv();
        anyhow::ensure!(event.is_some(), "the engine has stopped");
        let mut at = 0;
        while let Some(user) = users.get_mut(at) {
            let mut end = None;
            while let Some(next) = event.take().or_else(|| user.generation.try_recv()) {
                end = user.take(next)?;
                if end.is_some() {
                    break;
                }
            }
            match end {
                Some(end) => {
                    ends.push(end);
                    users.remove(at);
                }
                None => at += 1,
            }
        }
    }
    Ok(ends)
}

impl User {
    /// What an event says; the end, if it is one.
    fn take(&mut self, event: Event) -> anyhow::Result<Option<End>> {
        match event {
            Event::Token(_) => _ = self.first.get_or_insert_with(Instant::now),
            Event::Finished(finished) => {
                let last = Instant::now();
                let first = self.first.unwrap_or(last);
                return Ok(Some(End { first, last, finished: *finished }));
            }
            Event::Failed(error) => return Err(error.into()),
            _ => {}
        }
        Ok(None)
    }
}

fn summary(users: usize, begun: Instant, ends: &[End], distinct: Option<f64>) -> Measured {
    // Prompts end one after the other; their tokens count once all users generate.
    let all = ends.iter().map(|end| end.first).max().unwrap_or(begun);
    let rate = |end: &End| end.finished.timings.decode_rate(&end.finished.usage);
    let since = |end: &End| {
        let share = end.last.saturating_duration_since(all).as_secs_f64();
        let whole = end.last.saturating_duration_since(end.first).as_secs_f64();
        let generated = end.finished.usage.generated.saturating_sub(1) as f64;
        if whole > 0.0 { generated * share / whole } else { 0.0 }
    };
    let last = ends.iter().map(|end| end.last).max().unwrap_or(begun);
    let time = last.saturating_duration_since(all).as_secs_f64();
    let tokens: f64 = ends.iter().map(since).sum();
    let firsts = ends.iter().map(|end| end.first.saturating_duration_since(begun));
    let count = u32::try_from(users).unwrap_or(u32::MAX).max(1);
    Measured {
        users,
        total: if time > 0.0 { tokens / time } else { 0.0 },
        each: ends.iter().map(rate).sum::<f64>() / users.max(1) as f64,
        first: [firsts.clone().sum::<Duration>() / count, firsts.max().unwrap_or_default()],
        distinct,
    }
}

impl Measured {
    /// Bytes of weights that a batch reads, and the tokens per second that the bandwidth allows.
    fn bound(&self, reads: Reads) -> (f64, f64) {
        let bytes = reads.shared + reads.expert * self.distinct.unwrap_or(0.0);
        (bytes, self.users as f64 * reads.bandwidth / bytes.max(1.0))
    }

    pub(super) fn json(&self, reads: Reads) -> Value {
        let (bytes, bound) = self.bound(reads);
        json!({
            "users": self.users,
            "tokens_per_second": self.total,
            "tokens_per_second_per_user": self.each,
            "first_token_seconds": self.first[0].as_secs_f64(),
            "first_token_seconds_max": self.first[1].as_secs_f64(),
            "distinct_experts_per_layer": self.distinct,
            "weight_bytes_per_step": bytes,
            "bandwidth_bound_tokens_per_second": bound,
        })
    }
}

/// The table for people.
pub(super) fn table(measured: &[Measured], reads: Reads) -> String {
    let head = ["users", "tok/s", "each", "first", "experts", "GB/step", "bound"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for one in measured {
        let (bytes, bound) = one.bound(reads);
        rows.push(vec![
            one.users.to_string(),
            format!("{:.1}", one.total),
            format!("{:.1}", one.each),
            units::seconds(one.first[0].as_secs_f64()),
            one.distinct.map_or("-".to_owned(), |distinct| format!("{distinct:.1}")),
            format!("{:.3}", bytes / 1e9),
            format!("{bound:.1}"),
        ]);
    }
    terminal::table("rrrrrrr", &rows)
}
