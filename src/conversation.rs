//! A conversation with the model: `cachalot run` sends one prompt, the chat many.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use cachalot_engine::{Ending, Engine, Event, Message, Request, Session, Stats, host};
use cachalot_plan::units;

use crate::forecast::Forecast;
use crate::interrupt::Interrupt;
use crate::settings::{Environment, Run};
use crate::terminal::{self, AnswerWriter, Progress, Style, time};

/// A loaded model, the messages so far, and the settings of the next request.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) engine: Engine,
    session: Session,
    /// User and assistant messages, without the system prompt.
    turns: Vec<Message>,
    pub(crate) system: Option<String>,
    pub(crate) request: Request,
    out: Style,
    err: Style,
    pub(crate) verbose: bool,
    hide_thinking: bool,
    interrupt: Interrupt,
    forecast: Option<Forecast>,
    environment: Environment,
}

impl Conversation {
    /// Plans the placement of the model and loads it.
    ///
    /// # Errors
    /// If the model does not fit, or cannot be loaded with these settings.
    pub(crate) fn begin(
        run: Run,
        environment: &Environment,
        interrupt: Interrupt,
    ) -> anyhow::Result<Self> {
        let err = Style::of(&io::stderr(), environment.colour);
        let forecast = Forecast::of(&run.source, &run.options, environment)?;
        if let Some(forecast) = &forecast
            && (run.verbose || forecast.is_worth_a_line())
        {
            eprintln!("{}", err.dim(&forecast.line()));
        }
        let mut progress = Progress::new("loading");
        let engine =
            Engine::load(&run.source, &run.options, &mut |done, all| progress.set(done, all));
        progress.clear();
        let engine = engine?;
        let mut request = run.request;
        request.sampling = engine.recommended().clone();
        for (name, value) in run.given {
            request.sampling.set(name, value)?;
        }
        let context = engine.context();
        if context.reduced {
            let (tokens, model) = (context.tokens as u64, context.model as u64);
            eprintln!(
                "{}",
                err.dim(&format!(
                    "Context window: {} of the model's {} tokens ({} of memory when full); \
                     --ctx N changes it.",
                    units::grouped(tokens),
                    units::grouped(model),
                    units::bytes(context.bytes)
                ))
            );
        }
        Ok(Self {
            session: engine.session()?,
            engine,
            turns: Vec::new(),
            system: run.system,
            request,
            out: Style::of(&io::stdout(), environment.colour),
            err,
            verbose: run.verbose,
            hide_thinking: run.hide_thinking,
            interrupt,
            forecast,
            environment: environment.clone(),
        })
    }

    /// Drops all messages.
    pub(crate) fn clear(&mut self) {
        self.turns.clear();
    }

    /// Number of tokens in the KV cache.
    pub(crate) fn used(&self) -> usize {
        self.session.len()
    }

    /// Sends `text` to the model and shows its answer. A question that got no answer is dropped.
    ///
    /// # Errors
    /// If the prompt is too long, or the answer cannot be written.
    pub(crate) fn say(&mut self, text: &str) -> anyhow::Result<Ending> {
        self.turns.push(Message::new("user", text));
        let answered = self.answer();
        match answered {
            Ok((ending, answer, stats)) => {
                if answer.is_empty() && ending == Ending::Cancelled {
                    self.turns.pop();
                } else {
                    self.turns.push(Message::new("assistant", &answer));
                }
                self.explain(ending, &stats);
                Ok(ending)
            }
            Err(error) => {
                self.turns.pop();
                Err(error)
            }
        }
    }

    fn answer(&mut self) -> anyhow::Result<(Ending, String, Stats)> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        let messages: Vec<Message> = system.chain(self.turns.iter().cloned()).collect();
        let mut renderer = Renderer {
            writer: AnswerWriter::new(io::stdout().lock(), self.out, self.hide_thinking),
            progress: Progress::new("processing prompt"),
            thinking: Progress::new("thinking"),
            hide_thinking: self.hide_thinking,
            answer: String::new(),
            failure: None,
        };
        let Self { engine, session, request, .. } = self;
        let answered = self.interrupt.during(|cancel| {
            session.answer(engine, &messages, request, cancel, &mut |event| {
                renderer.take(event, cancel);
            })
        });
        let answer = renderer.end()?;
        let (ending, stats) = answered?;
        Ok((ending, answer, stats))
    }

    /// Prints the finish reason, unless the model ended its answer, and statistics, if wanted.
    fn explain(&self, ending: Ending, stats: &Stats) {
        let style = self.err;
        let used = units::grouped(stats.cache_used as u64);
        match ending {
            Ending::ContextFull => eprintln!(
                "(context window full: {used} tokens; --ctx N sets a larger one, /clear starts over)"
            ),
            Ending::Length => {
                let max = units::grouped(self.request.max_tokens.unwrap_or_default() as u64);
                eprintln!("{}", style.dim(&format!("(--max-tokens reached: {max})")));
            }
            Ending::Cancelled => eprintln!("{}", style.dim("(stopped)")),
            Ending::Stop | Ending::StopString => {}
        }
        // The first token comes from prefill, so a single token has no decode speed.
        let timed = self.forecast.as_ref().filter(|_| stats.answer_rate() > 0.0);
        let compared = timed.and_then(|forecast| {
            let depth = stats.cache_used.saturating_sub(stats.answer_tokens / 2);
            forecast.compare(depth, stats.answer_tokens, stats.answer_rate(), &self.environment)
        });
        if self.verbose {
            eprintln!("{}", style.dim(&self.statistics(stats)));
            if let Some(compared) = compared {
                eprintln!("{}", style.dim(&format!("planner:  {compared}")));
            }
        }
        let slow = self.engine.streaming().zip(stats.answer_streamed);
        if let Some(line) = slow.and_then(|(of, stats)| terminal::slow_drive(of, &stats)) {
            eprintln!("{line}");
        }
    }

    fn statistics(&self, stats: &Stats) -> String {
        let load = time(self.engine.load_time());
        let peak = host::memory_peak().map_or("unknown".to_owned(), units::bytes);
        let count = |tokens: usize| units::grouped(tokens as u64);
        format!(
            "\n\
             load:     {load}\n\
             prompt:   {} computed, {} cached; {}, {:.1} tokens/s\n\
             answer:   {}; {}, {:.1} tokens/s, seed {}\n\
             KV cache: {} of {} tokens, {} when full\n\
             memory:   {peak} at peak",
            tokens(stats.prompt_computed),
            count(stats.prompt_cached),
            time(stats.prompt_time),
            stats.prompt_rate(),
            tokens(stats.answer_tokens),
            time(stats.answer_time),
            stats.answer_rate(),
            stats.seed,
            count(stats.cache_used),
            count(stats.cache_capacity),
            units::bytes(stats.cache_bytes),
        ) + &self.streaming(stats)
    }

    /// Statistics of streamed experts, if experts are streamed.
    fn streaming(&self, stats: &Stats) -> String {
        let Some(streaming) = self.engine.streaming() else { return String::new() };
        let mut text = format!("\nexperts:  {}", terminal::streaming(streaming));
        let parts = [
            ("prompt", stats.prompt_streamed, stats.prompt_computed, stats.prompt_time),
            ("answer", stats.answer_streamed, stats.answer_tokens, stats.answer_time),
        ];
        for (name, streamed, tokens, time) in parts {
            if let Some(streamed) = streamed.filter(|_| tokens > 0) {
                let part = terminal::streamed(streaming, &streamed, tokens, time);
                text += &format!("\n          {name}: {part}");
            }
        }
        text
    }
}

/// `1 token`, `2,048 tokens`.
fn tokens(count: usize) -> String {
    format!("{} token{}", units::grouped(count as u64), if count == 1 { "" } else { "s" })
}

/// Shows the events of an answer.
struct Renderer<W: io::Write> {
    writer: AnswerWriter<W>,
    progress: Progress,
    /// Spinner while hidden thinking goes on.
    thinking: Progress,
    hide_thinking: bool,
    answer: String,
    failure: Option<io::Error>,
}

impl<W: io::Write> Renderer<W> {
    /// Shows an event; sets `cancel` if the output is closed.
    fn take(&mut self, event: Event<'_>, cancel: &AtomicBool) {
        let written = match event {
            Event::Progress { done, total } => {
                self.progress.set(done as u64, total as u64);
                Ok(())
            }
            Event::Reasoning(_) if self.hide_thinking => {
                self.progress.clear();
                self.thinking.pulse();
                Ok(())
            }
            Event::Reasoning(text) => {
                self.progress.clear();
                self.writer.reasoning(text)
            }
            Event::Answer(text) => {
                self.progress.clear();
                self.thinking.clear();
                self.answer.push_str(text);
                self.writer.answer(text)
            }
        };
        if let Err(error) = written {
            self.failure.get_or_insert(error);
            cancel.store(true, Ordering::SeqCst);
        }
    }

    fn end(mut self) -> anyhow::Result<String> {
        self.progress.clear();
        self.thinking.clear();
        match self.failure {
            Some(error) => Err(error),
            None => self.writer.finish(),
        }
        .context("cannot write the answer")?;
        Ok(self.answer)
    }
}

/// The whole of standard input, unless it is a terminal.
///
/// # Errors
/// If it cannot be read, or is not UTF-8.
pub(crate) fn piped_input() -> anyhow::Result<Option<String>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok(None);
    }
    // A pipe that stays open would block without any output.
    let (finished, waiting) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let delay = std::time::Duration::from_secs(2);
        if waiting.recv_timeout(delay) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("Waiting for the end of standard input; use `< /dev/null` if there is none.");
        }
    });
    let text = io::read_to_string(stdin.lock());
    drop(finished);
    text.map(Some).context("cannot read standard input as UTF-8 text")
}
