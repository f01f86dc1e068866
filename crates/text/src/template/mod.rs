//! Messages to a prompt: the chat template of a file, run as Hugging Face's `transformers` runs it.
//!
//! A template is a program that came with the model, so it is distrusted. `guard` refuses sources whose
//! compilation would take for ever; fuel bounds the work and the memory of a rendering, and with it the
//! output; and since fuel buys nesting too, both steps run on a thread whose stack is large enough for all
//! the nesting that the fuel can buy. A panic there, should a library have one left, becomes an error.
//!
//! What remains: minijinja counts the cost of printing a list (`{{ x }}`, `x ~ ''`, `x | string` and whatever else
//! turns it into text) and of comparing or hashing one only afterwards, or by its own length. A list whose
//! parts are shared (`[x, x]` of `[x, x]` of ..., sixty times over, or a few times `[x] * 1000`) is small, built
//! with little fuel, and longer than any memory when it is printed. Lists and operators offer no hook to bound
//! that, so such a file can still fill the memory of whoever runs it. Our own filter `tojson` counts as it writes.

mod clock;
mod guard;
mod json;

use crate::error::{Error, Result};
use crate::reasoning::Think;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::{Map, Value as Json, json};

/// The template of the R1 family, for files without one. Published with the model under the MIT licence,
/// Copyright (c) 2023 DeepSeek.
const R1: &str = include_str!("r1.jinja");

/// Fuel of a rendering: about one unit for an instruction or 64 bytes of new data.
const FUEL_BASE: u64 = 250_000;
/// Further fuel for each byte of the conversation: it may be copied 16 times.
const FUEL_PER_BYTE: f64 = 0.25;
/// Stack that one unit of fuel can need: a list in a list costs at least one, and printing it takes about
/// 600 bytes a level.
const STACK_BYTES_PER_FUEL: usize = 640;

/// One turn of a conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`; a template may know others.
    pub role: String,
    /// The text; an assistant that only calls tools has none.
    pub content: Option<String>,
    /// The thought before the text, for templates that ask for it. Most drop earlier thoughts.
    pub reasoning: Option<String>,
    /// The tools that an assistant calls.
    pub tool_calls: Vec<ToolCall>,
    /// On a tool's result: the name of the tool.
    pub name: Option<String>,
    /// On a tool's result: the call that it answers.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message of text only.
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: Some(content.to_owned()), ..Self::default() }
    }
}

/// An assistant's call of a function.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolCall {
    /// Identifies the call to its result.
    pub id: Option<String>,
    /// The function.
    pub name: String,
    /// Its arguments: an object. A string that holds an object is taken apart, since templates print it.
    pub arguments: Json,
}

/// How to render.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderOptions {
    /// Whether the model shall think.
    pub think: Think,
    /// Whether the prompt ends where the assistant's next message begins.
    pub add_generation_prompt: bool,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self { think: Think::Auto, add_generation_prompt: true }
    }
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a file's template, or R1's if it has none. `bos` and `eos` are the texts of those tokens.
    ///
    /// # Errors
    /// [`Error::TemplateTooLarge`] beyond any real template's size, [`Error::TemplateSyntax`].
    pub fn new(source: Option<&str>, bos: &str, eos: &str) -> Result<Self> {
        let source = source.unwrap_or(R1);
        guard::check(source)?;
        let environment = on_deep_stack(FUEL_BASE, || {
            let compile = || {
                let mut environment = environment()?;
                environment.add_template_owned(NAME, source.to_owned())?;
                Ok(environment)
            };
            compile().map_err(|error| Error::TemplateSyntax(described(&error)))
        })?;
        Ok(Self { environment, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The prompt of a conversation. `tools` are the definitions as an API gives them
    /// (`{"type": "function", "function": {...}}`).
    ///
    /// # Errors
    /// [`Error::Refused`] if the template refuses the conversation, [`Error::TemplateRender`] if it fails.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&[Json]>,
        options: RenderOptions,
    ) -> Result<String> {
        let messages = Json::from(messages.iter().map(message).collect::<Vec<_>>());
        let length = |json: &Json| json.to_string().len();
        let bytes = length(&messages) + tools.unwrap_or(&[]).iter().map(length).sum::<usize>();
        let fuel = FUEL_BASE + (bytes as f64 * FUEL_PER_BYTE) as u64;

        let mut prompt = on_deep_stack(fuel, || {
            let mut environment = self.environment.clone();
            environment.set_fuel(Some(fuel));
            let thinking = options.think.is_wanted();
            let variables = context! {
                messages => Value::from(Serde(&messages)),
                tools => tools.map(|tools| Value::from(Serde(tools))),
                documents => (),
                add_generation_prompt => options.add_generation_prompt,
                bos_token => self.bos.as_str(),
                eos_token => self.eos.as_str(),
                enable_thinking => thinking,
                thinking => thinking,
            };
            let template = environment.get_template(NAME);
            template.and_then(|template| template.render(variables)).map_err(|error| failed(&error))
        })?;
        if options.add_generation_prompt {
            options.think.shape(&mut prompt);
        }
        Ok(prompt)
    }
}

/// Jinja2 as `transformers` sets it up.
fn environment() -> Outcome<Environment<'static>> {
    let mut environment = Environment::new(); // without a loader: a template reaches no files
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_recursion_limit(100);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", json::tojson);
    environment.add_function("raise_exception", |message: String| -> Outcome<String> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, "refused")
            .with_source(Refusal(message)))
    });
    environment.add_function("strftime_now", |format: &str| clock::strftime_now(format));
    Ok(environment)
}

type Outcome<T> = std::result::Result<T, minijinja::Error>;

/// What a template gave to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

/// A message as templates expect it: as Hugging Face and the OpenAI API write it.
fn message(message: &Message) -> Json {
    let mut object = Map::new();
    object.insert("role".to_owned(), json!(message.role));
    object.insert("content".to_owned(), json!(message.content));
    let optional = [
        ("reasoning_content", &message.reasoning),
        ("name", &message.name),
        ("tool_call_id", &message.tool_call_id),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            object.insert(key.to_owned(), json!(value));
        }
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let parsed = call.arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
            let arguments: Json = parsed.unwrap_or_else(|| call.arguments.clone());
            let function = json!({ "name": call.name, "arguments": arguments });
            match &call.id {
                Some(id) => json!({ "id": id, "type": "function", "function": function }),
                None => json!({ "type": "function", "function": function }),
            }
        });
        object.insert("tool_calls".to_owned(), calls.collect());
    }
    Json::Object(object)
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

/// Runs `work` with the stack that templates can need at most with so much fuel.
fn on_deep_stack<T: Send>(fuel: u64, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let stack_bytes =
        usize::try_from(fuel).unwrap_or(usize::MAX).saturating_mul(STACK_BYTES_PER_FUEL);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat-template".to_owned());
        let thread = thread.stack_size(stack_bytes).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| {
            Error::TemplateRender(format!("no thread with {stack_bytes} bytes of stack: {error}"))
        })?;
        thread.join().unwrap_or_else(|_| Err(Error::TemplateRender("it panicked".to_owned())))
    })
}
