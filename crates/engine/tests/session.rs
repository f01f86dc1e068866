//! Conversations with calf: what is cached, what is computed, and how answers end.
#![allow(clippy::unwrap_used)] // what fails here is a test

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use cachalot_engine::{
    Ending, Engine, Error, Event, Message, Options, Request, Sampling, Session, Source, Stats,
};

fn engine(context: usize) -> Engine {
    let calf = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/calf.gguf");
    let options = Options { threads: Some(1), context: Some(context), ..Options::default() };
    Engine::load(&Source::File(PathBuf::from(calf)), &options, &mut |_, _| {}).unwrap()
}

fn greedy() -> Request {
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    Request { sampling, max_tokens: Some(200), ..Request::default() }
}

/// Thoughts, answer and how they came about.
#[derive(Debug, Default)]
struct Told {
    thoughts: String,
    answer: String,
    progress: Vec<(usize, usize)>,
}

/// Answers; cancels after so many events.
fn answer(
    session: &mut Session,
    engine: &mut Engine,
    messages: &[Message],
    request: &Request,
    events_max: usize,
) -> Result<(Ending, Stats, Told), Error> {
    let mut told = Told::default();
    let cancel = AtomicBool::new(events_max == 0);
    let mut events = 0;
    let ended = session.answer(engine, messages, request, &cancel, &mut |event| {
        match event {
            Event::Progress { done, total } => told.progress.push((done, total)),
            Event::Reasoning(text) => told.thoughts.push_str(text),
            Event::Answer(text) => told.answer.push_str(text),
        }
        events += 1;
        if events >= events_max {
            cancel.store(true, Ordering::Relaxed);
        }
    });
    ended.map(|(ending, stats)| (ending, stats, told))
}

#[test]
fn a_turn_computes_only_what_is_new_and_answers_as_if_it_had_not() {
    let mut engine = engine(1024);
    let mut session = engine.session().unwrap();
    let request = greedy();
    let mut messages = vec![Message::new("user", "What is 12 + 30?")];
    let (ending, first, told) =
        answer(&mut session, &mut engine, &messages, &request, usize::MAX).unwrap();
    assert_eq!((ending, first.prompt_cached), (Ending::Stop, 0));
    assert!(told.thoughts.contains("carry") && told.answer.contains("42"), "{told:?}");
    let total = first.prompt_computed;
    assert!(told.progress.is_sorted() && told.progress.last() == Some(&(total, total)));

    // The answer goes back with its thoughts, which must not reach the prompt.
    let with_thoughts = format!("<think>\n{}</think>\n\n{}", told.thoughts, told.answer);
    messages.push(Message::new("assistant", &with_thoughts));
    messages.push(Message::new("user", "What is 5 + 6?"));
    let (_, second, cached) =
        answer(&mut session, &mut engine, &messages, &request, usize::MAX).unwrap();
    assert!(second.prompt_cached + 2 >= total, "only <think> and its newline are not in common");
    assert!(second.prompt_computed < 40, "thoughts would be more");

    let mut fresh = engine.session().unwrap();
    messages[1] = Message::new("assistant", &told.answer);
    let (_, anew, computed) =
        answer(&mut fresh, &mut engine, &messages, &request, usize::MAX).unwrap();
    assert_eq!(anew.prompt_computed, second.prompt_cached + second.prompt_computed);
    assert_eq!((cached.thoughts, cached.answer), (computed.thoughts, computed.answer));

    // The same question once more: all but the token whose logits are needed is there.
    let (_, again, _) = answer(&mut fresh, &mut engine, &messages, &request, usize::MAX).unwrap();
    assert_eq!(again.prompt_computed, 1);
}

#[test]
fn whatever_was_cancelled_the_next_answer_is_right() {
    let mut engine = engine(1024);
    let mut session = engine.session().unwrap();
    let question = [Message::new("user", "How many r's are in strawberry?")];
    let request = greedy();
    let (_, _, expected) =
        answer(&mut session, &mut engine, &question, &request, usize::MAX).unwrap();
    for events_max in [0, 1, 3, 6, 20] {
        let mut session = engine.session().unwrap();
        let (ending, _, _) =
            answer(&mut session, &mut engine, &question, &request, events_max).unwrap();
        assert_eq!(ending, Ending::Cancelled);
        let (ending, _, told) =
            answer(&mut session, &mut engine, &question, &request, usize::MAX).unwrap();
        assert_eq!((ending, told.answer), (Ending::Stop, expected.answer.clone()));
    }
}

#[test]
fn limits_end_an_answer() {
    let mut engine = engine(40);
    let mut session = engine.session().unwrap();
    let question = [Message::new("user", "How many r's are in strawberry?")];
    let (ending, stats, told) =
        answer(&mut session, &mut engine, &question, &greedy(), usize::MAX).unwrap();
    assert_eq!((ending, stats.cache_used, stats.cache_capacity), (Ending::ContextFull, 40, 40));
    // The token after the last that fits is still chosen and shown; it needs no room.
    assert_eq!(stats.prompt_computed + stats.answer_tokens, 41);
    assert!(!told.thoughts.is_empty());

    for max in [0, 1, 4] {
        let request = Request { max_tokens: Some(max), ..greedy() };
        let (ending, stats, _) =
            answer(&mut session, &mut engine, &question, &request, usize::MAX).unwrap();
        assert_eq!((ending, stats.answer_tokens), (Ending::Length, max));
    }

    let long = [Message::new("user", &"12 + 30 ".repeat(20))];
    let error = answer(&mut session, &mut engine, &long, &greedy(), usize::MAX).unwrap_err();
    assert!(matches!(error, Error::PromptTooLong { context: 40, prompt } if prompt > 40));
}

#[test]
fn seeds_are_reported_and_repeat() {
    let mut engine = engine(512);
    let question = [Message::new("user", "Tell me a story.")];
    let sampling = Sampling { temperature: 2.0, top_p: 1.0, ..Sampling::default() };
    let mut told = |seed| {
        let mut session = engine.session().unwrap();
        let request =
            Request { sampling: sampling.clone(), seed, max_tokens: Some(60), ..greedy() };
        let (_, stats, told) =
            answer(&mut session, &mut engine, &question, &request, usize::MAX).unwrap();
        (stats.seed, told.thoughts + &told.answer)
    };
    let (seed, text) = told(None);
    assert_eq!(told(Some(seed)), (seed, text.clone()));
    assert_ne!(told(Some(seed ^ 1)).1, text);
}
