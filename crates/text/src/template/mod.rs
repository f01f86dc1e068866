//! Messages to a prompt: the chat template of a file, rendered as Hugging Face's `transformers`
//! does.
//!
//! A template is a program that came with the model, so it is not trusted. `source` bounds what
//! compiling takes, fuel the work and the memory of a rendering and with it the output. Values that
//! a template assigns have a bounded depth, so both steps need a stack of constant size, which is
//! that of a thread of their own. A panic there becomes an error.
//!
//! Messages are not trusted either: see `provenance`.
//!
//! A limit: the engine counts the cost of turning a list into text (`x ~ ''`, `x | string`) or of
//! comparing it only afterwards. A list whose parts are shared, built by nested `with` blocks, can
//! be small and print longer than any memory. `{{ x }}`, `tojson` and assignments count as they go.

mod clock;
mod fallback;
mod filters;
mod input;
mod json;
mod methods;
mod provenance;
mod repr;
mod source;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};
use crate::message::{Message, Tool};
use crate::prompt::{Prompt, Tail};
use crate::reasoning::{CLOSE, OPEN, Think};
use crate::specials::Specials;
use crate::tools::{Section, ToolFormat};
use crate::{Vocab, strip_reasoning};
use input::{Form, Input};
pub(crate) use provenance::Traced;
use provenance::{Disguise, Marked};

/// Fuel of a rendering: about one unit for an instruction or 64 bytes of new data.
const FUEL_BASE: u64 = 250_000;
/// Further fuel for each byte of the conversation: it may be copied 16 times.
const FUEL_PER_BYTE: f64 = 0.25;
/// Stack of a rendering. Values are at most 64 deep when assigned, and one tag in each of 64 nested
/// blocks can add about 100 levels; printing takes below 1 kB a level.
const STACK_BYTES: usize = 8 << 20;
/// Nesting of blocks, and of macros at five a call.
const FRAMES_MAX: usize = 64;
const NAME: &str = "chat_template";

/// How to render a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderOptions {
    /// Whether the model is to think.
    pub think: Think,
    /// The tools that the model may call; none for `tool_choice: none`.
    pub tools: Vec<Tool>,
    /// Whether the prompt ends where the assistant's next message begins.
    pub add_generation_prompt: bool,
    /// Whether the prompt ends within the last message, which the model continues.
    pub continue_final_message: bool,
    /// Further variables of the template (`chat_template_kwargs`). `enable_thinking`, `thinking`,
    /// `add_generation_prompt` and `continue_final_message` override the fields of these names.
    pub kwargs: Map<String, Json>,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            think: Think::Auto,
            tools: Vec::new(),
            add_generation_prompt: true,
            continue_final_message: false,
            kwargs: Map::new(),
        }
    }
}

impl RenderOptions {
    fn flag(&self, key: &str) -> Option<bool> {
        self.kwargs.get(key).and_then(Json::as_bool)
    }

    fn think(&self) -> Think {
        match self.flag("enable_thinking").or(self.flag("thinking")) {
            Some(false) => Think::Off,
            Some(true) if self.think == Think::Off => Think::Auto,
            _ => self.think,
        }
    }

    fn continues(&self) -> bool {
        self.flag("continue_final_message").unwrap_or(self.continue_final_message)
    }

    fn generates(&self) -> bool {
        let asked = self.flag("add_generation_prompt").unwrap_or(self.add_generation_prompt);
        asked && !self.continues()
    }
}

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    /// Nothing if neither the file nor this program has a template: rendering says so.
    compiled: Option<Compiled>,
    warning: Option<String>,
}

#[derive(Debug, Clone)]
struct Compiled {
    environment: Environment<'static>,
    source: String,
    /// What messages must not be able to write: special tokens, and the tags of thoughts.
    tags: Specials,
    /// The tags that are tokens.
    control: BTreeSet<String>,
    bos: String,
    eos: String,
    tool_format: ToolFormat,
}

impl ChatTemplate {
    /// Compiles the template `source`, or else the file's own. Where that is missing, empty or only
    /// a name, the template of the family whose tags the vocabulary has, with a
    /// [`warning`](Self::warning) unless the file has none at all.
    ///
    /// # Errors
    /// [`Error::TemplateTooLarge`] beyond the size of any real template, [`Error::TemplateSyntax`].
    pub fn new(source: Option<&str>, vocab: &Vocab) -> Result<Self> {
        let given = source.or(vocab.chat_template());
        let usable = given.filter(|source| source::has_tags(source));
        let fallback = || fallback::of(vocab);
        let warning = match given {
            Some(given) if usable.is_none() => {
                let fault = if given.trim().is_empty() {
                    "the chat template is empty".to_owned()
                } else {
                    format!("the chat template `{:.40}` is only a name", printable(given))
                };
                let instead = fallback().map(|_| "the template of its model family is used");
                Some(match instead {
                    Some(instead) => format!("{fault}: {instead}"),
                    None => format!("{fault}: give one with --chat-template FILE"),
                })
            }
            _ => None,
        };
        let compiled = usable.or_else(fallback).map(|source| Compiled::new(source, vocab));
        Ok(Self { compiled: compiled.transpose()?, warning })
    }

    /// What to tell the user about the file's template.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The source that is rendered, if there is one.
    pub fn source(&self) -> Option<&str> {
        self.compiled.as_ref().map(|compiled| compiled.source.as_str())
    }

    /// How the model writes tool calls.
    pub fn tool_format(&self) -> ToolFormat {
        self.compiled.as_ref().map_or(ToolFormat::R1, |compiled| compiled.tool_format)
    }

    /// Whether the template knows of thoughts: it names one of their tags.
    pub fn thinks(&self) -> bool {
        self.source().is_some_and(|source| source.contains(OPEN) || source.contains(CLOSE))
    }

    /// The prompt of a conversation.
    ///
    /// # Errors
    /// [`Error::NoTemplate`], [`Error::Refused`] if the template rejects the conversation,
    /// [`Error::TemplateRender`] if it fails.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<Prompt> {
        let compiled = self.compiled.as_ref().ok_or(Error::NoTemplate)?;
        let mut messages = messages.to_vec();
        if !compiled.source.contains(CLOSE) {
            // Templates that do not know of thoughts would repeat those of earlier answers.
            for message in messages.iter_mut().filter(|message| message.role == "assistant") {
                message.content = message.content.as_deref().map(|t| strip_reasoning(t).to_owned());
            }
        }
        let resumed = (options.continues() && self.thinks())
            .then(|| messages.pop_if(|last| last.is_unfinished()))
            .flatten();
        let tools: Vec<Json> = options.tools.iter().map(Tool::definition).collect();
        // Templates without a section for tools get one of ours, at this mark.
        let mark = (!tools.is_empty() && !compiled.source.contains("tools"))
            .then(|| offer_tools(&mut messages))
            .transpose()?;
        // Templates drop thoughts, so an unfinished one is written behind the generation prompt.
        let options = &RenderOptions {
            add_generation_prompt: options.generates() || resumed.is_some(),
            continue_final_message: options.continues() && resumed.is_none(),
            kwargs: without_turn_flags(&options.kwargs),
            ..options.clone()
        };
        let input = Input { messages: &messages, options, tools };
        let mut traced = compiled.trace(&input)?;
        if let Some(mark) = mark {
            let offer = compiled.tool_format.offer(&options.tools);
            traced = compiled.insert(&traced, mark, &offer)?;
        }
        if options.continues() {
            let last = messages.last().and_then(|message| message.content.as_deref());
            let last = last.map(str::trim).unwrap_or_default();
            let end = traced.text.rfind(last).map(|at| at + last.len());
            let end = end.filter(|_| !last.is_empty()).ok_or_else(|| {
                Error::TemplateRender("the last message has no text to continue".to_owned())
            })?;
            traced.truncate(end);
        } else if options.generates() && self.thinks() {
            options.think().shape(&mut traced, &compiled.tags);
        }
        let tail = match resumed {
            Some(message) => compiled.resume(&mut traced, &message),
            None => tail_of(&traced),
        };
        Ok(compiled.prompt(traced, tail))
    }
}

/// Puts a mark into the system message where the tools are to be described; returns it.
fn offer_tools(messages: &mut Vec<Message>) -> Result<char> {
    let used = |mark: char| {
        let text = |text: &Option<String>| text.as_deref().is_some_and(|t| t.contains(mark));
        messages.iter().any(|message| text(&message.content) || text(&message.reasoning))
    };
    let mark = ('\u{f0000}'..='\u{ffffd}').find(|mark| !used(*mark)).ok_or_else(|| {
        Error::TemplateRender("the messages use all private-use characters".to_owned())
    })?;
    // R1's template keeps the last system message.
    match messages.iter_mut().rev().find(|message| message.role == "system") {
        Some(system) => {
            let text = system.content.take().unwrap_or_default();
            let separator = if text.is_empty() { "" } else { "\n\n" };
            system.content = Some(format!("{text}{separator}{mark}"));
        }
        None => messages.insert(0, Message::new("system", &mark.to_string())),
    }
    Ok(mark)
}

impl Compiled {
    fn new(source: &str, vocab: &Vocab) -> Result<Self> {
        let prepared = source::prepare(source)?;
        let environment = on_own_stack(move || {
            let compile = || {
                let mut environment = environment()?;
                environment.add_template_owned(NAME, prepared)?;
                Ok(environment)
            };
            compile().map_err(|error| Error::TemplateSyntax(described(&error)))
        })?;
        // Tokens of white space only are text that everybody writes.
        let specials = vocab.specials().iter().filter(|(text, _)| !text.trim().is_empty());
        let control: BTreeSet<String> = specials.map(|(text, _)| text.to_owned()).collect();
        let think = [OPEN, CLOSE].map(str::to_owned);
        let texts: BTreeSet<String> = control.iter().cloned().chain(think).collect();
        let tags = Specials::new(texts.into_iter().map(|text| (text, None)))?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            tags,
            control,
            bos: vocab.token_text(vocab.bos()),
            eos: vocab.token_text(vocab.eos()),
            tool_format: ToolFormat::of_source(source, vocab),
        })
    }

    /// Renders, and finds the template's own tags.
    fn trace(&self, input: &Input<'_>) -> Result<Traced> {
        let (form, plain) = self.render_any_form(input)?;
        let texts = input.texts();
        if !texts.iter().any(|text| self.tags.may_be_in(text)) {
            return Ok(Traced::all(&self.tags, plain));
        }
        let plain = Traced::all(&self.tags, plain);
        let taken = || texts.iter().copied().chain([self.source.as_str(), plain.text.as_str()]);
        let all = self.disguised(input, form, &[], Marked::Around, taken())?;
        if all.tag_texts().eq(plain.tag_texts()) {
            return Ok(plain);
        }
        if all.text == plain.text {
            return Ok(all);
        }
        let literals = source::literals(&self.source);
        let searched = self.tags.iter().map(|(tag, _)| tag);
        let searched: Vec<&str> = searched.filter(|tag| literals.contains(tag)).collect();
        let mut safe = None;
        for marked in Marked::ALL {
            let traced = self.disguised(input, form, &searched, marked, taken())?;
            if traced.text == plain.text {
                return Ok(traced);
            }
            safe.get_or_insert(traced);
        }
        Ok(safe.unwrap_or(all))
    }

    fn disguised<'t>(
        &self,
        input: &Input<'_>,
        form: Form,
        searched: &[&str],
        marked: Marked,
        taken: impl Iterator<Item = &'t str>,
    ) -> Result<Traced> {
        let disguise = Disguise::new(&self.tags, searched, marked, taken);
        let mut disguise = disguise.ok_or_else(|| {
            Error::TemplateRender("the messages use all private-use characters".to_owned())
        })?;
        let variables = Variables::new(self, input, form, &mut |text| disguise.put_on(text));
        let rendered = self.run(input, variables, disguise.stand_ins())?;
        Ok(disguise.take_off(&rendered.text))
    }

    /// The plain rendering, in the first form of messages that the template can process.
    fn render_any_form(&self, input: &Input<'_>) -> Result<(Form, String)> {
        let mut fallback = None;
        let mut first_error = None;
        for form in Form::ALL {
            let variables = Variables::new(self, input, form, &mut str::to_owned);
            match self.run(input, variables, BTreeSet::new()) {
                Ok(rendered) if !rendered.printed_none => return Ok((form, rendered.text)),
                Ok(rendered) => {
                    fallback.get_or_insert((form, rendered.text));
                }
                Err(Error::Refused(reason)) => return Err(Error::Refused(reason)),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        let unknown = || Error::TemplateRender("it failed".to_owned());
        fallback.ok_or_else(|| first_error.unwrap_or_else(unknown))
    }

    fn run(
        &self,
        input: &Input<'_>,
        variables: Variables,
        stand_ins: BTreeSet<char>,
    ) -> Result<Rendered> {
        let fuel = FUEL_BASE + (input.bytes() as f64 * FUEL_PER_BYTE) as u64;
        let mut environment = self.environment.clone();
        let printed_none = Arc::new(AtomicBool::new(false));
        let text = on_own_stack(|| {
            environment.set_fuel(Some(fuel));
            if !stand_ins.is_empty() {
                add_tojson(&mut environment, stand_ins);
            }
            let printed_none = Arc::clone(&printed_none);
            environment.set_formatter(move |out, state, value| {
                if value.is_none() {
                    printed_none.store(true, Ordering::Relaxed);
                }
                repr::print(out, state, value)
            });
            let context = Value::from_pairs(variables.0);
            let template = environment.get_template(NAME);
            template.and_then(|template| template.render(context)).map_err(|error| failed(&error))
        })?;
        Ok(Rendered { text, printed_none: printed_none.load(Ordering::Relaxed) })
    }

    /// Replaces a mark by the description of tools.
    fn insert(&self, traced: &Traced, mark: char, offer: &[Section]) -> Result<Traced> {
        let at = traced.text.find(mark).ok_or_else(|| {
            Error::TemplateRender("it has no place for a description of tools".to_owned())
        })?;
        let mut whole = traced.clone();
        whole.truncate(at);
        for section in offer {
            match section {
                Section::Ours(text) => whole.push(&self.tags, text),
                Section::Text(text) => whole.text.push_str(text),
            }
        }
        let (from, to) = (at + mark.len_utf8(), whole.text.len());
        whole.text.push_str(&traced.text[from..]);
        let after = traced.tags.iter().filter(|tag| tag.start >= from);
        whole.tags.extend(after.map(|tag| tag.start - from + to..tag.end - from + to));
        Ok(whole)
    }

    /// Writes the thought and the text of an unfinished message behind the beginning of an answer.
    fn resume(&self, prompt: &mut Traced, message: &Message) -> Tail {
        let thought = message.reasoning.as_deref().unwrap_or_default();
        let answer = message.content.as_deref().unwrap_or_default();
        if thought.is_empty() {
            return tail_of(prompt);
        }
        Think::Force.shape(prompt, &self.tags);
        prompt.text.push_str(thought);
        if answer.is_empty() {
            return Tail::OpenThought;
        }
        prompt.push(&self.tags, "\n</think>\n\n");
        prompt.text.push_str(answer);
        Tail::ClosedThought
    }

    fn prompt(&self, traced: Traced, tail: Tail) -> Prompt {
        let Traced { text, mut tags } = traced;
        tags.retain(|tag| self.control.contains(&text[tag.clone()]));
        Prompt { text, control: tags, tail }
    }
}

/// How a prompt ends that nothing was added to.
fn tail_of(traced: &Traced) -> Tail {
    if traced.ends_with(OPEN) {
        Tail::OpenThought
    } else if traced.ends_with(CLOSE) {
        Tail::ClosedThought
    } else {
        Tail::Plain
    }
}

/// Variables of the template without those that fields of [`RenderOptions`] stand for by now.
fn without_turn_flags(kwargs: &Map<String, Json>) -> Map<String, Json> {
    let mut kwargs = kwargs.clone();
    kwargs.retain(|key, _| {
        !["add_generation_prompt", "continue_final_message"].contains(&key.as_str())
    });
    kwargs
}

struct Rendered {
    text: String,
    /// Whether `None` was printed, which no template intends.
    printed_none: bool,
}

/// The variables of a rendering.
struct Variables(Vec<(String, Value)>);

impl Variables {
    fn new(
        compiled: &Compiled,
        input: &Input<'_>,
        form: Form,
        map: &mut dyn FnMut(&str) -> String,
    ) -> Self {
        let thinking = input.options.think().is_wanted();
        let own = [
            ("messages", input.messages(form, map)),
            ("tools", input.tools(map)),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(input.options.generates())),
            ("bos_token", Value::from(compiled.bos.as_str())),
            ("eos_token", Value::from(compiled.eos.as_str())),
            ("enable_thinking", Value::from(thinking)),
            ("thinking", Value::from(thinking)),
        ];
        let mut variables: Vec<(String, Value)> =
            own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let kwargs = input.kwargs(map).into_iter();
        variables.extend(kwargs.filter(|(key, _)| !own_keys().contains(&key.as_str())));
        Self(variables)
    }
}

/// Variables that a request cannot replace.
fn own_keys() -> [&'static str; 8] {
    [
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
        "enable_thinking",
        "thinking",
    ]
}

/// Jinja2 as `transformers` sets it up.
fn environment() -> Outcome<Environment<'static>> {
    let mut environment = Environment::new(); // without a loader: a template reaches no files
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_recursion_limit(FRAMES_MAX);
    environment.set_unknown_method_callback(methods::call);
    filters::add_to(&mut environment);
    add_tojson(&mut environment, BTreeSet::new());
    environment.add_function("raise_exception", |message: String| -> Outcome<String> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, "refused")
            .with_source(Refusal(message)))
    });
    environment.add_function("strftime_now", |format: &str| clock::strftime_now(format));
    Ok(environment)
}

fn add_tojson(environment: &mut Environment<'_>, unescaped: BTreeSet<char>) {
    environment.add_filter(
        "tojson",
        move |state: &minijinja::State<'_, '_>,
              value: &Value,
              options: minijinja::value::Kwargs| {
            json::tojson(state, value, options, &unescaped)
        },
    );
}

type Outcome<T> = std::result::Result<T, minijinja::Error>;

fn invalid(message: &'static str) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, message)
}

/// What a template passed to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn printable(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).collect()
}

/// What is wrong, with the line in the template.
fn described(error: &minijinja::Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("line {line}: {detail}"),
        None => detail,
    }
}

fn failed(error: &minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Refusal(message)) = error.downcast_ref() {
            return Error::Refused(message.clone());
        }
        cause = error.source();
    }
    Error::TemplateRender(described(error))
}

/// Runs `work` on a stack that holds the deepest template that `source` and `filters` let pass,
/// however small the stack of the caller is.
fn on_own_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat-template".to_owned());
        let thread = thread.stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| {
            Error::TemplateRender(format!("a thread could not be started: {error}"))
        })?;
        thread.join().unwrap_or_else(|_| Err(Error::TemplateRender("it panicked".to_owned())))
    })
}
