//! A conversation with the model: `cachalot run` sends one prompt, the chat many.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cachalot_engine::event::{FinishReason, Finished, Kind};
use cachalot_engine::handle::Limits;
use cachalot_engine::layout::{LoadPlan, Source};
use cachalot_engine::status::ModelInfo;
use cachalot_engine::{Event, Handle, Request};
use cachalot_gguf::split::part_paths;
use cachalot_plan::{Demand, identity, units};
use cachalot_probe::system;
use cachalot_text::Message;

use crate::embedded;
use crate::forecast::Forecast;
use crate::interrupt::Interrupt;
use crate::output::{self, Output};
use crate::remote::Remote;
use crate::settings::{Answering, Environment, Run};
use crate::terminal::{self, AnswerWriter, Progress, Style, note};

/// A loaded model, the messages so far, and the settings of the next request.
#[derive(Debug)]
pub(crate) struct Conversation {
    answerer: Answerer,
    /// User and assistant messages, without the system prompt.
    turns: Vec<Message>,
    /// Tokens that the last turn left in the context.
    used: usize,
    pub(crate) system: Option<String>,
    pub(crate) answering: Answering,
    out: Style,
    err: Style,
    pub(crate) verbose: bool,
    hide_thinking: bool,
    /// Print one JSON object instead of text.
    json: bool,
    interrupt: Interrupt,
    forecast: Option<Forecast>,
    environment: Environment,
    trace: Option<Output>,
}

impl Conversation {
    /// Finds a server that has loaded the model, or plans its placement and loads it.
    ///
    /// # Errors
    /// If the model does not fit, or cannot be loaded with these settings.
    pub(crate) fn begin(
        mut run: Run,
        environment: &Environment,
        interrupt: Interrupt,
    ) -> anyhow::Result<Self> {
        let err = Style::of(&io::stderr(), environment.colour);
        if let Some(remote) = Remote::find(&run, environment) {
            let address = remote.address();
            note(&err.dim(&format!(
                "Answered by the server on {address}; --standalone loads the model here."
            )));
            let answerer = Answerer::Remote(Box::new(remote));
            return Self::with(answerer, run, environment, interrupt, None, None);
        }
        let inputs = match &run.source {
            Source::File(path) => part_paths(path),
            Source::Embedded(_) => Vec::new(),
        };
        let trace = output::trace(&run.output, &inputs, &mut run.options)?;
        let plan = LoadPlan::of(&run.source, &run.options)?;
        // Speeds of a file that is not there yet say nothing, and are not remembered.
        let is_here = run.options.arriving.is_none();
        let forecast = is_here.then(|| Forecast::of(&plan, environment)).flatten();
        if !is_here && !plan.is_streamed() {
            note(&err.dim("The model fits into memory: it starts once it is complete."));
        }
        if let Some(forecast) = &forecast
            && (forecast.is_worth_a_line() || run.verbose && run.source != embedded::SOURCE)
        {
            note(&err.dim(&forecast.line()));
        }
        if run.verbose && run.source != embedded::SOURCE {
            note(&err.dim(plan.layout().to_string().trim_end()));
        }
        let engine = terminal::loading(|progress| plan.load(progress))?;
        if engine.info().threads_missing > 0 {
            note(&err.dim(&format!(
                "The system refused to start {} threads: {} compute (see `ulimit -u`, or the pids limit of \
                 the container).",
                engine.info().threads_missing,
                engine.info().threads
            )));
        }
        for warning in &engine.info().warnings {
            note(&err.dim(&format!("{warning}.")));
        }
        let context = engine.info().context;
        if context.reduced {
            let (tokens, model) = (context.tokens as u64, context.model as u64);
            note(&err.dim(&format!(
                "Context window: {} of the model's {} tokens ({} of memory when full); \
                     --ctx N changes it.",
                units::grouped(tokens),
                units::grouped(model),
                units::bytes(context.bytes)
            )));
        }
        let answerer = Answerer::Loaded(engine.start(Limits::default())?);
        Self::with(answerer, run, environment, interrupt, forecast, trace)
    }

    fn with(
        answerer: Answerer,
        run: Run,
        environment: &Environment,
        interrupt: Interrupt,
        forecast: Option<Forecast>,
        trace: Option<Output>,
    ) -> anyhow::Result<Self> {
        let mut answering = run.answering;
        answering.sampling = answerer.info().recommended.clone();
        for (name, value) in run.given {
            answering.sampling.set(name, value)?;
        }
        Ok(Self {
            answerer,
            turns: Vec::new(),
            used: 0,
            system: run.system,
            answering,
            out: Style::of(&io::stdout(), environment.colour),
            err: Style::of(&io::stderr(), environment.colour),
            verbose: run.verbose,
            hide_thinking: run.hide_thinking,
            json: run.json,
            interrupt,
            forecast,
            environment: environment.clone(),
            trace,
        })
    }

    /// Unloads the model and completes the trace, if there is one.
    ///
    /// # Errors
    /// If the trace cannot be written.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        drop(self.answerer);
        self.trace.map_or(Ok(()), Output::commit)
    }

    /// Drops all messages.
    pub(crate) fn clear(&mut self) {
        self.turns.clear();
    }

    /// One sentence about the model.
    pub(crate) fn verdict(&self) -> String {
        let weights = &self.info().weights;
        let demand = Demand::of(weights.metadata(), weights.tensors().iter().map(|t| &t.info));
        let file = weights.files().first().and_then(|path| path.file_name()?.to_str());
        let identity = identity::identify(weights.metadata(), &demand, file.unwrap_or_default());
        terminal::without_controls(&identity.verdict).into_owned()
    }

    /// The messages, without the system prompt.
    pub(crate) fn turns(&self) -> &[Message] {
        &self.turns
    }

    /// Replaces the messages.
    pub(crate) fn set_turns(&mut self, turns: Vec<Message>) {
        self.turns = turns;
    }

    /// The model.
    pub(crate) fn info(&self) -> &ModelInfo {
        self.answerer.info()
    }

    /// Number of tokens that the last turn left in the context.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Sends `text` to the model and shows its answer. A question that got no answer is dropped.
    ///
    /// # Errors
    /// If the prompt is too long, or the answer cannot be written.
    pub(crate) fn say(&mut self, text: &str) -> anyhow::Result<FinishReason> {
        self.turns.push(Message::new("user", text));
        let answered = self.answer();
        match answered {
            Ok((finished, Said { thinking, answer })) => {
                if self.json {
                    let object = self.object(&finished, &thinking, &answer);
                    writeln!(io::stdout(), "{object}").context("cannot write the answer")?;
                }
                if answer.is_empty() && finished.reason == FinishReason::Cancelled {
                    self.turns.pop();
                } else {
                    self.turns.push(Message::new("assistant", &answer));
                }
                self.used = finished.usage.prompt + finished.usage.generated;
                self.explain(&finished);
                Ok(finished.reason)
            }
            Err(error) => {
                self.turns.pop();
                Err(error)
            }
        }
    }

    fn answer(&mut self) -> anyhow::Result<(Finished, Said)> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        let messages: Vec<Message> = system.chain(self.turns.iter().cloned()).collect();
        let mut renderer = Renderer {
            writer: AnswerWriter::new(io::stdout().lock(), self.out, self.hide_thinking),
            progress: Progress::new("processing prompt"),
            thinking: Progress::new("thinking"),
            hide_thinking: self.hide_thinking,
            json: self.json,
            said: Said::default(),
        };
        let mut take = |event| renderer.take(event).context("cannot write the answer");
        let answered = self.interrupt.during(|cancel| match &self.answerer {
            Answerer::Loaded(engine) => {
                let mut request = self.answering.request(engine.info(), &messages)?;
                request.cancel = Some(Arc::clone(cancel));
                answer(engine, request, &mut take)
            }
            Answerer::Remote(remote) => {
                remote.answer(&messages, &self.answering, cancel, &mut take)
            }
        });
        let said = renderer.end(answered.is_ok())?;
        Ok((answered?, said))
    }

    /// Prints the finish reason, unless the model ended its answer, and statistics, if wanted.
    fn explain(&self, finished: &Finished) {
        let style = self.err;
        let (usage, timings) = (&finished.usage, &finished.timings);
        // The last token of a full context is shown, but takes no room in it.
        let held = (usage.prompt + usage.generated).min(self.info().context.tokens);
        let used = units::grouped(held as u64);
        match finished.reason {
            FinishReason::ContextFull => note(&format!(
                "(context window full: {used} tokens; --ctx N sets a larger one, /clear starts over)"
            )),
            FinishReason::Length => {
                let max = units::grouped(self.answering.max_tokens.unwrap_or_default() as u64);
                note(&style.dim(&format!("(--max-tokens reached: {max})")));
            }
            FinishReason::Cancelled => note(&style.dim("(stopped)")),
            _ => {}
        }
        // The first token comes from prefill, so a single token has no decode speed.
        let rate = timings.decode_rate(usage);
        let timed = self.forecast.as_ref().filter(|_| rate > 0.0);
        let compared = timed.and_then(|forecast| {
            let depth = held.saturating_sub(usage.generated / 2);
            forecast.compare(depth, usage.generated, rate, &self.environment)
        });
        if self.verbose {
            note(&style.dim(&self.statistics(finished)));
            if let Some(compared) = compared {
                note(&style.dim(&format!("planner:  {compared}")));
            }
        }
        let slow = self.info().streaming.as_ref().zip(finished.experts);
        if let Some(line) = slow.and_then(|(of, reads)| terminal::slow_drive(of, &reads.decode)) {
            note(&line);
        }
    }

    fn statistics(&self, finished: &Finished) -> String {
        let Finished { usage, timings, seed, .. } = finished;
        let context = self.info().context;
        let time = |time: Duration| units::seconds(time.as_secs_f64());
        let load = time(self.info().load_time);
        let peak = system::memory_peak().map_or("unknown".to_owned(), units::bytes);
        let count = |tokens: usize| units::grouped(tokens as u64);
        format!(
            "\n\
             load:     {load}\n\
             prompt:   {} computed, {} cached; {}, {:.1} tokens/s\n\
             answer:   {}; {}, {:.1} tokens/s, seed {seed}\n\
             KV cache: {} of {} tokens, {} when full\n\
             memory:   {peak} at peak",
            tokens(usage.computed()),
            count(usage.cached),
            time(timings.prefill),
            timings.prefill_rate(usage),
            tokens(usage.generated),
            time(timings.decode),
            timings.decode_rate(usage),
            count((usage.prompt + usage.generated).min(context.tokens)),
            count(context.tokens),
            units::bytes(context.bytes),
        ) + &self.streaming(finished)
    }

    /// The answer for programs. Rates are tokens per second, `null` where nothing was computed.
    fn object(&self, finished: &Finished, thinking: &str, answer: &str) -> serde_json::Value {
        let Finished { usage, timings, seed, .. } = finished;
        let rate = |rate: f64| Some(rate).filter(|rate| *rate > 0.0);
        serde_json::json!({
            "model": self.info().name,
            "thought": thinking,
            "answer": answer,
            "finish_reason": match finished.reason {
                FinishReason::Stop | FinishReason::StopText => "stop",
                FinishReason::Length => "length",
                FinishReason::ContextFull => "context_full",
                FinishReason::Cancelled => "cancelled",
                _ => "other",
            },
            "stop_text": finished.stop_text,
            "seed": seed,
            "usage": {
                "prompt_tokens": usage.prompt,
                "cached_tokens": usage.cached,
                "generated_tokens": usage.generated,
                "thought_tokens": usage.reasoning,
            },
            "timings": {
                "load_seconds": self.info().load_time.as_secs_f64(),
                "prefill_seconds": timings.prefill.as_secs_f64(),
                "prefill_tokens_per_second": rate(timings.prefill_rate(usage)),
                "decode_seconds": timings.decode.as_secs_f64(),
                "decode_tokens_per_second": rate(timings.decode_rate(usage)),
            },
        })
    }

    /// Statistics of streamed experts, if experts are streamed.
    fn streaming(&self, finished: &Finished) -> String {
        let Finished { usage, timings, experts, .. } = finished;
        let (Some(streaming), Some(reads)) = (&self.info().streaming, experts) else {
            return String::new();
        };
        let mut text = format!("\nexperts:  {}", terminal::streaming(streaming));
        let mut add = |name, reads, tokens: usize, time| {
            if tokens > 0 {
                let part = terminal::streamed(streaming, reads, tokens, time);
                text += &format!("\n          {name}: {part}");
            }
        };
        add("prompt", &reads.prefill, usage.computed(), timings.prefill);
        add("answer", &reads.decode, usage.generated, timings.decode);
        text
    }
}

/// What answers.
#[derive(Debug)]
enum Answerer {
    /// The model, loaded here.
    Loaded(Handle),
    /// A server that has loaded the same model.
    Remote(Box<Remote>),
}

impl Answerer {
    fn info(&self) -> &ModelInfo {
        match self {
            Self::Loaded(engine) => engine.info(),
            Self::Remote(remote) => &remote.info,
        }
    }
}

fn answer(
    engine: &Handle,
    request: Request,
    take: &mut dyn FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<Finished> {
    let mut generation = engine.submit(request)?;
    loop {
        match generation.recv() {
            Some(Event::Finished(finished)) => return Ok(*finished),
            Some(Event::Failed(error)) => return Err(error.into()),
            Some(event) => take(event)?,
            None => anyhow::bail!("the engine has stopped"),
        }
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
    json: bool,
    said: Said,
}

/// The text of an answer.
#[derive(Debug, Default)]
struct Said {
    thinking: String,
    answer: String,
}

impl<W: io::Write> Renderer<W> {
    /// Shows an event.
    fn take(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Prefill { done, total, .. } => self.progress.set(done as u64, total as u64),
            Event::Token(token) => {
                self.progress.clear();
                let is_thinking = token.kind == Kind::Reasoning;
                let Said { thinking, answer } = &mut self.said;
                if is_thinking { thinking } else { answer }.push_str(&token.text);
                match (self.json || is_thinking && self.hide_thinking, is_thinking) {
                    (true, _) => self.thinking.pulse(),
                    (_, true) => self.writer.reasoning(&token.text)?,
                    (_, false) => {
                        self.thinking.clear();
                        self.writer.answer(&token.text)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends the output, and returns the text. After an error (`!is_written`) a second one of the
    /// output does not matter.
    fn end(mut self, is_written: bool) -> anyhow::Result<Said> {
        self.progress.clear();
        self.thinking.clear();
        let ended = self.writer.finish();
        if is_written {
            ended.context("cannot write the answer")?;
        }
        Ok(self.said)
    }
}
