//! `cachalot run` without a prompt: a chat on the terminal.

mod editor;
mod history;
mod line;

use cachalot_engine::{PARAMETERS, SubmitError, Think};
use cachalot_plan::{Demand, identity, units};

use self::editor::{Editor, Typed};
use self::line::{HELP, Line, Set, Show};
use crate::conversation::Conversation;
use crate::embedded;
use crate::interrupt::Interrupt;
use crate::settings::{Environment, Run};
use crate::terminal;

/// Chats until the user leaves.
pub(super) fn run(run: Run, environment: &Environment, interrupt: Interrupt) -> anyhow::Result<()> {
    let is_calf = run.source == embedded::SOURCE;
    let think = run.answering.think;
    let conversation = Conversation::begin(run, environment, interrupt)?;
    let editor = Editor::new(environment.history.clone())?;
    let mut chat = Chat { conversation, editor, think };
    if is_calf {
        println!("{}", embedded::INTRODUCTION);
    } else {
        println!("{}", chat.verdict());
    }
    println!("/? for help, Ctrl-D to exit.\n");
    while let Some(text) = chat.editor.read()? {
        match text {
            Typed::Interrupted => println!("Press Ctrl-D or type /bye to exit."),
            Typed::Text(text) => {
                if chat.take(&text)? {
                    break;
                }
            }
        }
    }
    chat.conversation.finish()
}

/// No fixed seed, in `/show parameters` and `/set parameter`.
const RANDOM: &str = "random";
/// No limit, no stop strings.
const NONE: &str = "none";

struct Chat {
    conversation: Conversation,
    editor: Editor,
    /// Thinking mode from the command line.
    think: Think,
}

impl Chat {
    /// Handles one input; returns whether the chat is over.
    fn take(&mut self, text: &str) -> anyhow::Result<bool> {
        match line::parse(text) {
            Ok(Line::Empty) => {}
            Ok(Line::Message(text)) => self.say(&text)?,
            Ok(Line::Help) => println!("{HELP}"),
            Ok(Line::Bye) => return Ok(true),
            Ok(Line::Clear) => {
                self.conversation.clear();
                println!("Conversation cleared.");
            }
            Ok(Line::Show(what)) => self.show(what),
            Ok(Line::Set(what)) => self.set(what),
            Err(message) => println!("{message}"),
        }
        Ok(false)
    }

    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        match self.conversation.say(text) {
            Ok(_) => println!(),
            // A failed question does not end the chat; a closed terminal does.
            Err(error) if error.is::<cachalot_engine::Error>() || error.is::<SubmitError>() => {
                println!("{error}");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// One sentence about the model.
    fn verdict(&self) -> String {
        let weights = &self.conversation.info().weights;
        let demand = Demand::of(weights.metadata(), weights.tensors().iter().map(|t| &t.info));
        let file = weights.files().first().and_then(|path| path.file_name()?.to_str());
        let identity = identity::identify(weights.metadata(), &demand, file.unwrap_or_default());
        terminal::without_controls(&identity.verdict).into_owned()
    }

    fn show(&self, what: Show) {
        let Conversation { system, answering, .. } = &self.conversation;
        let info = self.conversation.info();
        match what {
            Show::Info => {
                let context = info.context;
                let (bytes, size) = (units::bytes(context.bytes), info.weights.size());
                println!("{}", self.verdict());
                println!("  weights   {}", units::bytes(size));
                for path in info.weights.files() {
                    println!("            {}", path.display());
                }
                println!(
                    "  context   {} of the model's {} tokens, {} in use; {bytes} when full",
                    units::grouped(context.tokens as u64),
                    units::grouped(context.model as u64),
                    units::grouped(self.conversation.used() as u64),
                );
                if let Some(streaming) = &info.streaming {
                    let stats = streaming.stats();
                    println!("  experts   {}", terminal::streaming(streaming));
                    println!(
                        "            expert cache hit rate {:.1} %, {} read at {}/s",
                        100.0 * stats.hit_rate(),
                        units::bytes(stats.bytes),
                        terminal::gigabytes(stats.read_rate()),
                    );
                }
            }
            Show::Parameters => {
                let row = |name: &str, value: &str, help: &str| {
                    println!("  {name:<17}  {value:<7}  {help}");
                };
                for parameter in &PARAMETERS {
                    row(parameter.name, &parameter.get(&answering.sampling), parameter.help);
                }
                let seed = answering.seed.map_or(RANDOM.to_owned(), |seed| seed.to_string());
                row("seed", &seed, "the same seed gives the same answer");
                let max = answering.max_tokens.map_or(NONE.to_owned(), |max| max.to_string());
                row("max_tokens", &max, "maximum length of an answer, in tokens");
                let stop: Vec<String> = answering.stop.iter().map(|s| format!("{s:?}")).collect();
                let stop = if stop.is_empty() { NONE.to_owned() } else { stop.join(", ") };
                row("stop", &stop, "texts that stop an answer");
            }
            Show::System => match system {
                Some(text) => println!("{text}"),
                None => println!("No system prompt (the original R1 expects none)."),
            },
            Show::Template => match info.vocab.chat_template() {
                Some(template) => println!("{}", terminal::without_controls(template)),
                None => println!("The file has no chat template; DeepSeek-R1's is used."),
            },
        }
    }

    fn set(&mut self, what: Set) {
        let Conversation { system, answering, verbose, .. } = &mut self.conversation;
        match what {
            Set::Parameter { name, value } => match self.set_parameter(&name, &value) {
                Ok(()) => println!("{name} is now {value}."),
                Err(message) => println!("{message}"),
            },
            Set::System(text) => {
                let is_empty = text.is_empty();
                *system = (!is_empty).then_some(text);
                println!(
                    "{}",
                    if is_empty { "System prompt removed." } else { "System prompt set." }
                );
            }
            Set::Think(true) => {
                answering.think = if self.think == Think::Off { Think::Auto } else { self.think };
                println!("Thinking enabled.");
            }
            Set::Think(false) => {
                answering.think = Think::Off;
                println!("Thinking disabled.");
            }
            Set::Verbose(on) => {
                *verbose = on;
                println!("{}", if on { "Statistics on." } else { "Statistics off." });
            }
            Set::History(on) => {
                self.editor.set_history(on);
                println!("{}", if on { "History on." } else { "History off." });
            }
        }
    }

    fn set_parameter(&mut self, name: &str, value: &str) -> Result<(), String> {
        let answering = &mut self.conversation.answering;
        let whole = |nothing| match value {
            _ if value == nothing => Ok(None),
            _ => value.parse().map(Some).map_err(|_| format!("{name} must be a whole number")),
        };
        match name {
            "seed" => answering.seed = whole(RANDOM)?,
            "max_tokens" | "num_predict" => {
                answering.max_tokens =
                    whole(NONE)?.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
            }
            "stop" if value == NONE => answering.stop.clear(),
            "stop" => answering.stop.push(value.trim_matches('"').to_owned()),
            "num_ctx" | "ctx" => {
                return Err("the context window is set when the program starts: --ctx N".to_owned());
            }
            _ => {
                let number = value.parse().map_err(|_| format!("`{value}` is not a number"))?;
                answering.sampling.set(name, number).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}
