//! calf's accuracy, held against an independent runtime's.
//!
//! 300 questions that calf was not trained on, each with its one right answer and whether llama.cpp
//! got it right on the same file (greedy sampling, prompt ending in `<think>\n`). An engine that is
//! subtly wrong still talks fluently, but it no longer calculates as well.
#![allow(clippy::unwrap_used)] // what fails here is a test

use std::collections::BTreeMap;
use std::sync::Mutex;

use cachalot_engine::event::Kind;
use cachalot_engine::handle::Limits;
use cachalot_engine::layout::{Engine, Options, Source};
use cachalot_engine::request::Sampling;
use cachalot_engine::{Event, Handle, Request};
use cachalot_text::{Message, Think};
use serde::Deserialize;

static CALF: &[u8] = include_bytes!("../models/calf.gguf");
const QUESTIONS: &str = include_str!("fixtures/calf-questions.jsonl");
/// Points of 100 that may be lost, to rounding that makes one likely token a bit less likely.
const TOLERANCE: f64 = 2.0;

#[derive(Deserialize)]
struct Question {
    kind: String,
    question: String,
    answer: String,
    reference_is_right: bool,
}

#[derive(Default)]
struct Score {
    asked: u32,
    right: u32,
    reference_right: u32,
}

#[test]
fn calf_answers_as_well_as_in_an_independent_runtime() {
    let questions: Vec<Question> =
        QUESTIONS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(questions.len() >= 200);
    let remaining = Mutex::new(questions.iter());
    let scores: Mutex<BTreeMap<&str, Score>> = Mutex::default();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut calf = Calf::new();
                loop {
                    let Some(question) = remaining.lock().unwrap().next() else { return };
                    let answer = calf.answer(&question.question);
                    let mut scores = scores.lock().unwrap();
                    let score = scores.entry(&question.kind).or_default();
                    score.asked += 1;
                    score.right += u32::from(answer == question.answer);
                    score.reference_right += u32::from(question.reference_is_right);
                }
            });
        }
    });
    let mut all = Score::default();
    for (kind, score) in scores.into_inner().unwrap() {
        print(kind, &score);
        all.asked += score.asked;
        all.right += score.right;
        all.reference_right += score.reference_right;
    }
    print("all", &all);
    let points = |right: u32| 100.0 * f64::from(right) / f64::from(all.asked);
    let (ours, reference) = (points(all.right), points(all.reference_right));
    assert!(ours >= reference - TOLERANCE, "{ours:.1} % right, the reference has {reference:.1} %");
}

fn print(kind: &str, score: &Score) {
    let Score { asked, right, reference_right } = score;
    println!("{kind:<9} {right:>3} of {asked:>3} right; reference {reference_right:>3}");
}

/// One engine with one thread: questions run in parallel instead.
struct Calf(Handle);

impl Calf {
    fn new() -> Self {
        let options = Options { threads: Some(1), context: Some(512), ..Options::default() };
        let engine = Engine::load(&Source::Embedded(CALF), &options, &mut |_, _| {}).unwrap();
        Self(engine.start(Limits::default()).unwrap())
    }

    fn answer(&mut self, question: &str) -> String {
        let request = self.0.info().chat(&[Message::new("user", question)], Think::Auto).unwrap();
        let request = Request {
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            max_tokens: Some(300),
            ..request
        };
        let mut generation = self.0.submit(request).unwrap();
        let mut answer = String::new();
        while let Some(event) = generation.recv() {
            match event {
                Event::Token(token) if token.kind == Kind::Answer => answer.push_str(&token.text),
                Event::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        answer.trim().to_owned()
    }
}
