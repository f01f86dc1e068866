//! Requests to calf through a handle: what is cached, what is computed, and how answers end.
#![allow(clippy::unwrap_used)] // what fails here is a test

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cachalot_engine::event::{FinishReason, Finished, Kind};
use cachalot_engine::handle::Limits;
use cachalot_engine::layout::{Engine, Options, Source};
use cachalot_engine::request::{Sampling, SubmitError, ThoughtState};
use cachalot_engine::{Error, Event, Handle, Request};
use cachalot_text::{Message, Think};

fn engine(context: usize) -> Handle {
    let calf = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/calf.gguf");
    let options = Options { threads: Some(1), context: Some(context), ..Options::default() };
    let engine = Engine::load(&Source::File(PathBuf::from(calf)), &options, &mut |_, _| {});
    engine.unwrap().start(Limits { parallel: 1, queue: 2 }).unwrap()
}

fn asking(engine: &Handle, messages: &[Message]) -> Request {
    Request {
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        max_tokens: Some(200),
        ..engine.info().chat(messages, Think::Auto).unwrap()
    }
}

/// Thoughts, answer and how they came about.
#[derive(Debug, Default)]
struct Told {
    thoughts: String,
    answer: String,
    tokens: Vec<u32>,
    progress: Vec<(usize, usize)>,
}

/// Receives a whole answer; cancels after some events.
fn receive(engine: &Handle, request: Request, events_max: usize) -> (Finished, Told) {
    let mut generation = engine.submit(request).unwrap();
    let mut told = Told::default();
    let mut events = 0;
    loop {
        if events == events_max {
            generation.cancel();
        }
        events += 1;
        match generation.recv().unwrap() {
            Event::Prefill { done, total, .. } => told.progress.push((done, total)),
            Event::Token(token) => {
                told.tokens.extend(token.tokens.iter().map(|token| token.id));
                match token.kind {
                    Kind::Reasoning => told.thoughts.push_str(&token.text),
                    Kind::Answer => told.answer.push_str(&token.text),
                }
            }
            Event::Finished(finished) => return (*finished, told),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

fn answer(engine: &Handle, request: Request) -> (Finished, Told) {
    receive(engine, request, usize::MAX)
}

#[test]
fn a_limit_of_no_tokens_caches_the_prompt() {
    let handle = engine(1024);
    let asked = asking(&handle, &[Message::new("user", "What is 12 + 30?")]);
    let (warmed, told) = answer(&handle, Request { max_tokens: Some(0), ..asked.clone() });
    assert_eq!((warmed.reason, warmed.usage.generated), (FinishReason::Length, 0));
    assert!(told.tokens.is_empty() && warmed.usage.computed() == asked.prompt.len());
    let (again, told) = answer(&handle, asked);
    assert_eq!(again.usage.computed(), 1, "its last token alone, whose logits are needed");
    assert!(told.answer.contains("42"), "{told:?}");
}

#[test]
fn a_turn_computes_only_what_is_new_and_answers_as_if_it_had_not() {
    let handle = engine(1024);
    let mut messages = vec![Message::new("user", "What is 12 + 30?")];
    let (first, told) = answer(&handle, asking(&handle, &messages));
    assert_eq!((first.reason, first.usage.cached), (FinishReason::Stop, 0));
    assert!(told.thoughts.contains("carry") && told.answer.contains("42"), "{told:?}");
    assert_eq!(told.tokens.len(), first.usage.generated);
    let total = first.usage.prompt;
    assert!(told.progress.is_sorted() && told.progress.last() == Some(&(total, total)));

    // The answer goes back with its thoughts, which must not reach the prompt.
    let with_thoughts = format!("<think>\n{}</think>\n\n{}", told.thoughts, told.answer);
    messages.push(Message::new("assistant", &with_thoughts));
    messages.push(Message::new("user", "What is 5 + 6?"));
    let (second, cached) = answer(&handle, asking(&handle, &messages));
    assert!(second.usage.cached + 2 >= total, "only <think> and its newline are not in common");
    assert!(second.usage.computed() < 40, "thoughts would be more");

    let fresh = engine(1024);
    messages[1] = Message::new("assistant", &told.answer);
    let (anew, computed) = answer(&fresh, asking(&fresh, &messages));
    assert_eq!((anew.usage.computed(), anew.usage.cached), (second.usage.prompt, 0));
    assert_eq!((cached.thoughts, cached.answer), (computed.thoughts, computed.answer));

    // The same question once more: all but the token whose logits are needed is there.
    let (again, _) = answer(&fresh, asking(&fresh, &messages));
    assert_eq!(again.usage.computed(), 1);
    let request = Request { cache_prompt: false, ..asking(&fresh, &messages) };
    assert_eq!(answer(&fresh, request).0.usage.cached, 0, "unless the caller does not want that");
}

#[test]
fn whatever_was_cancelled_the_next_answer_is_right() {
    let handle = engine(1024);
    let question = [Message::new("user", "How many r's are in strawberry?")];
    let (_, expected) = answer(&handle, asking(&handle, &question));
    for events_max in [0, 1, 3, 6, 20] {
        let handle = engine(1024);
        let (finished, _) = receive(&handle, asking(&handle, &question), events_max);
        assert_eq!(finished.reason, FinishReason::Cancelled);
        let (finished, told) = answer(&handle, asking(&handle, &question));
        assert_eq!((finished.reason, &told.answer), (FinishReason::Stop, &expected.answer));
    }
    // Neither does a receiver that is dropped disturb the next one, nor a flag that was set.
    drop(handle.submit(asking(&handle, &question)).unwrap());
    let flag = Some(Arc::new(AtomicBool::new(true)));
    let request = Request { cancel: flag, ..asking(&handle, &question) };
    assert_eq!(answer(&handle, request).0.reason, FinishReason::Cancelled);
    assert_eq!(answer(&handle, asking(&handle, &question)).1.answer, expected.answer);
}

#[test]
fn limits_end_an_answer() {
    let handle = engine(40);
    let question = [Message::new("user", "How many r's are in strawberry?")];
    let (finished, told) = answer(&handle, asking(&handle, &question));
    // The token after the last that fits is still chosen and shown; it needs no room.
    assert_eq!(finished.reason, FinishReason::ContextFull);
    assert_eq!(finished.usage.prompt + finished.usage.generated, 41);
    assert!(!told.thoughts.is_empty());

    for max in [0, 1, 4] {
        let request = Request { max_tokens: Some(max), ..asking(&handle, &question) };
        let (finished, _) = answer(&handle, request);
        assert_eq!((finished.reason, finished.usage.generated), (FinishReason::Length, max));
    }

    let long = [Message::new("user", &"12 + 30 ".repeat(20))];
    let error = handle.submit(asking(&handle, &long)).unwrap_err();
    assert!(matches!(error, SubmitError::PromptTooLong { n_ctx: 40, n_prompt } if n_prompt > 40));
}

#[test]
fn what_makes_no_sense_is_refused_before_it_starts() {
    let handle = engine(64);
    let refused = |request| match handle.submit(request) {
        Err(SubmitError::Invalid(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(Request::default()), Error::PromptEmpty));
    let request = Request { prompt: vec![1, 1 << 30], ..Request::default() };
    assert!(matches!(refused(request), Error::Token { .. }));
    let request =
        Request { prompt: vec![1], logit_bias: vec![(1 << 30, 1.0)], ..Request::default() };
    assert!(matches!(refused(request), Error::Token { .. }));
}

#[test]
fn seeds_are_reported_and_repeat() {
    let handle = engine(512);
    let question = [Message::new("user", "Tell me a story.")];
    let sampling = Sampling { temperature: 2.0, top_p: 1.0, ..Sampling::default() };
    let told = |seed| {
        let request = Request {
            sampling: sampling.clone(),
            seed,
            max_tokens: Some(60),
            // A prompt that is computed in other pieces has other roundings.
            cache_prompt: false,
            ..asking(&handle, &question)
        };
        let (finished, told) = answer(&handle, request);
        (finished.seed, told.thoughts + &told.answer)
    };
    let (seed, text) = told(None);
    assert_eq!(told(Some(seed)), (seed, text.clone()));
    assert_ne!(told(Some(seed ^ 1)).1, text);
}

#[test]
fn a_full_queue_says_so_and_shutdown_ends_what_waits() {
    let handle = engine(1024);
    let story = || Request {
        sampling: Sampling { temperature: 1.5, ..Sampling::default() },
        max_tokens: None,
        ignore_eos: true,
        ..asking(&handle, &[Message::new("user", "Tell me a story.")])
    };
    let mut running = handle.submit(story()).unwrap();
    while !matches!(running.recv(), Some(Event::Token(_))) {}
    let mut waiting: Vec<_> = (0..2).map(|_| handle.submit(story()).unwrap()).collect();
    let error = handle.submit(story()).unwrap_err();
    assert!(matches!(error, SubmitError::QueueFull { position: 2, .. }), "{error}");
    // A place is free as soon as one that waited is cancelled.
    let mut cancelled = waiting.remove(0);
    handle.cancel(cancelled.id());
    let reason = |generation: &mut cachalot_engine::handle::Generation| loop {
        if let Event::Finished(finished) = generation.recv().unwrap() {
            return finished.reason;
        }
    };
    assert_eq!(reason(&mut cancelled), FinishReason::Cancelled);
    waiting.push(handle.submit(story()).unwrap());
    assert_eq!(handle.status().queued, 2);
    handle.shutdown(Duration::ZERO);
    assert!(matches!(handle.submit(story()), Err(SubmitError::ShuttingDown)));
    for mut generation in waiting.into_iter().chain([running]) {
        assert_eq!(reason(&mut generation), FinishReason::Cancelled);
        assert!(generation.recv().is_none(), "nothing follows the end");
    }
}

#[test]
fn a_thought_ends_when_its_budget_is_used_up_or_the_caller_says_so() {
    let handle = engine(1024);
    let question = [Message::new("user", "How many r's are in strawberry?")];
    let (whole, full) = answer(&handle, asking(&handle, &question));
    assert!(whole.usage.reasoning > 20, "{whole:?}");
    for budget in [0, 5] {
        let request = Request { thinking_budget: Some(budget), ..asking(&handle, &question) };
        let (finished, told) = answer(&handle, request);
        assert!(full.thoughts.starts_with(told.thoughts.trim_end()), "{told:?}");
        let tag = handle.info().vocab.encode("\n</think>\n\n", true).unwrap().len();
        assert_eq!(finished.usage.reasoning, budget + tag, "{told:?}");
        assert_eq!(finished.reason, FinishReason::Stop);
        assert!(!told.answer.is_empty());
    }
    let mut generation = handle.submit(asking(&handle, &question)).unwrap();
    let mut answered = String::new();
    while let Some(event) = generation.recv() {
        match event {
            Event::Token(token) if token.kind == Kind::Reasoning => {
                handle.end_thinking(generation.id());
            }
            Event::Token(token) => answered.push_str(&token.text),
            Event::Finished(finished) => assert!(finished.usage.reasoning < whole.usage.reasoning),
            _ => {}
        }
    }
    assert!(!answered.is_empty());
    assert!(!handle.end_thinking(generation.id()), "it is over");
}

/// Several answers at once, in the order of their requests.
fn together(engine: &Handle, requests: Vec<Request>) -> Vec<(Finished, Vec<u32>)> {
    let generations: Vec<_> =
        requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    let receive = |mut generation: cachalot_engine::handle::Generation| {
        let mut tokens = Vec::new();
        loop {
            match generation.recv().unwrap() {
                Event::Token(token) => tokens.extend(token.tokens.iter().map(|token| token.id)),
                Event::Finished(finished) => return (*finished, tokens),
                Event::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
    };
    generations.into_iter().map(receive).collect()
}

fn parallel(context: usize, parallel: usize, reproducible: bool) -> Handle {
    let calf = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/calf.gguf");
    let context = Some(context);
    let options =
        Options { threads: Some(2), context, parallel, reproducible, ..Options::default() };
    let engine = Engine::load(&Source::File(PathBuf::from(calf)), &options, &mut |_, _| {});
    engine.unwrap().start(Limits { parallel, queue: 32 }).unwrap()
}

#[test]
fn reproducible_answers_are_the_same_alone_together_and_from_the_cache() {
    let questions =
        ["What is 12 + 30?", "Spell cat backwards.", "What is 7 * 8?", "Tell me a story."];
    let request = |handle: &Handle, question: &str| Request {
        sampling: Sampling { temperature: 1.0, top_p: 1.0, ..Sampling::default() },
        seed: Some(11),
        max_tokens: Some(60),
        ..asking(handle, &[Message::new("user", question)])
    };
    let alone: Vec<Vec<u32>> = questions
        .iter()
        .map(|question| {
            let handle = parallel(256, 1, true);
            together(&handle, vec![request(&handle, question)]).remove(0).1
        })
        .collect();
    let handle = parallel(256, 4, true);
    for round in 0..2 {
        let requests = questions.iter().map(|question| request(&handle, question)).collect();
        let answers = together(&handle, requests);
        for (question, ((finished, tokens), alone)) in
            questions.iter().zip(answers.iter().zip(&alone))
        {
            assert_eq!(tokens, alone, "{question}");
            let usage = finished.usage;
            assert!(round == 0 || usage.cached + 1 == usage.prompt, "{usage:?}");
        }
    }
}

#[test]
fn a_system_prompt_of_two_thousand_tokens_is_computed_once() {
    let handle = parallel(4096, 3, false);
    let system: Vec<u32> = (0..2000).map(|i| i * 7 % 400).collect();
    let ask = |question: u32| Request {
        prompt: [system.clone(), vec![question; 5]].concat(),
        max_tokens: Some(4),
        ignore_eos: true,
        ..Request::default()
    };
    together(&handle, vec![ask(1)]);
    let computed = |handle: &Handle| handle.status().totals.prompt_computed;
    assert_eq!(computed(&handle), 2005);
    for (finished, _) in together(&handle, vec![ask(2), ask(3)]) {
        assert_eq!((finished.usage.cached, finished.usage.computed()), (2000, 5));
    }
    assert_eq!(computed(&handle), 2015);
    let status = handle.status();
    assert_eq!((status.kv.used, status.sequences.len()), (0, 0), "nothing is left behind");
    assert!(status.kv.cached >= 2000 / status.kv.page_tokens);
}

#[test]
fn a_constraint_begins_after_the_thought_and_log_probabilities_cover_the_answer() {
    let handle = engine(1024);
    let schema = serde_json::json!({
        "type": "object",
        "properties": { "sum": { "type": "integer", "minimum": 0, "maximum": 999 } },
        "required": ["sum"], "additionalProperties": false
    });
    let question = [Message::new("user", "What is 12 + 30?")];
    let request = Request {
        constraint: Some(cachalot_engine::request::Constraint::JsonSchema(schema)),
        logprobs: Some(3),
        ..asking(&handle, &question)
    };
    let mut generation = handle.submit(request).unwrap();
    let (mut thought, mut answer, mut bytes) = (String::new(), String::new(), Vec::new());
    while let Some(event) = generation.recv() {
        match event {
            Event::Token(event) if event.kind == Kind::Reasoning => thought += &event.text,
            Event::Token(event) => {
                answer += &event.text;
                for token in event.tokens {
                    bytes.extend_from_slice(handle.info().vocab.token_bytes(token.id));
                    assert!(token.logprob.unwrap() <= 0.0 && token.top.len() == 3);
                    assert!(token.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
                }
            }
            Event::Finished(finished) => assert_eq!(finished.reason, FinishReason::Stop),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert!(thought.contains("carry"), "the thought is free: {thought}");
    let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert!(value["sum"].is_u64(), "{answer}");
    assert_eq!(String::from_utf8(bytes).unwrap(), answer, "the answer's tokens, and only those");
}

#[test]
fn a_constrained_answer_does_not_begin_with_a_thought_that_may_have_no_tokens() {
    let handle = engine(256);
    let open = handle.info().vocab.special_id("<think>").unwrap();
    let request = |thinking_budget| Request {
        prompt: vec![5, 6, 7],
        thought: ThoughtState::Undecided,
        constraint: Some(cachalot_engine::request::Constraint::Regex("[0-9]{3}".to_owned())),
        logit_bias: vec![(open, 1000.0)],
        thinking_budget,
        max_tokens: Some(60),
        ..Request::default()
    };
    let (finished, told) = receive(&handle, request(Some(0)), usize::MAX);
    assert_eq!((finished.usage.reasoning, told.answer.len()), (0, 3), "{told:?}");
    assert!(!told.tokens.contains(&open));
    let (finished, _) = receive(&handle, request(Some(4)), usize::MAX);
    assert!(finished.usage.reasoning > 0, "with a budget, it may think");
}
