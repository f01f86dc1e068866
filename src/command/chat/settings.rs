//! `/show`, `/set` and `/unset`: what they print and change.

use cachalot_engine::request::PARAMETERS;
use cachalot_plan::units;
use cachalot_text::Think;

use super::line::{Set, Show, Unset, nearest};
use crate::conversation::Conversation;
use crate::terminal::{self, list, prose, table};
use crate::values::{Limit, Seed, decimal};

/// No fixed seed.
const RANDOM: &str = "random";
/// No limit, no stop texts.
const NONE: &str = "none";

/// The text for `/show`.
pub(super) fn show(conversation: &Conversation, what: Show) -> String {
    let vocab = &conversation.info().vocab;
    match what {
        Show::Info => info(conversation),
        Show::Parameters => parameters(conversation),
        Show::System => match &conversation.system {
            Some(text) => text.clone(),
            None => prose("No system prompt (the original R1 expects none)."),
        },
        Show::Template => match vocab.chat_template() {
            Some(template) => terminal::without_controls(template).into_owned(),
            None => prose("The file has no chat template; DeepSeek-R1's is used."),
        },
    }
}

fn info(conversation: &Conversation) -> String {
    let info = conversation.info();
    let mut rows = vec![("weights", units::bytes(info.weights.size()))];
    rows.extend(info.weights.files().iter().map(|path| ("", path.display().to_string())));
    let context = info.context;
    rows.push((
        "context",
        format!(
            "{} of the model's {} tokens, {} in use; {} when full",
            units::grouped(context.tokens as u64),
            units::grouped(context.model as u64),
            units::grouped(conversation.used() as u64),
            units::bytes(context.bytes)
        ),
    ));
    if let Some(streaming) = &info.streaming {
        let stats = streaming.stats();
        rows.push(("experts", terminal::streaming(streaming)));
        rows.push((
            "",
            format!(
                "cache hit rate {:.1} %, {} read at {}/s",
                100.0 * stats.hit_rate(),
                units::bytes(stats.bytes),
                terminal::gigabytes(stats.read_rate()),
            ),
        ));
    }
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, value)| vec![format!("  {name}"), value]).collect();
    let facts = terminal::without_controls(&table("ll", &rows)).trim_end().to_owned();
    format!("{}\n{facts}", prose(&conversation.verdict()))
}

fn parameters(conversation: &Conversation) -> String {
    let answering = &conversation.answering;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String, help: &str| {
        rows.push(vec![format!("  {name}"), value, help.to_owned()]);
    };
    for parameter in &PARAMETERS {
        row(parameter.name, parameter.get(&answering.sampling), parameter.help);
    }
    let seed = answering.seed.map_or(RANDOM.to_owned(), |seed| seed.to_string());
    row("seed", seed, "the same seed gives the same answer");
    let max = answering.max_tokens.map_or(NONE.to_owned(), |max| max.to_string());
    row("max_tokens", max, "maximum length of an answer, in tokens");
    let stop: Vec<String> = answering.stop.iter().map(|text| format!("{text:?}")).collect();
    let stop = if stop.is_empty() { NONE.to_owned() } else { stop.join(", ") };
    row("stop", stop, "texts that stop an answer");
    list("lll", &rows).trim_end().to_owned()
}

/// Carries out `/set`; `think` is the mode of the command line. Returns the reply.
pub(super) fn set(conversation: &mut Conversation, what: Set, think: Think) -> String {
    let Conversation { system, answering, verbose, .. } = conversation;
    let reply = match what {
        Set::Parameter { name, value } => {
            return match set_parameter(conversation, &name, &value) {
                Ok(()) => format!("{name} is now {}.", value_of(conversation, &name)),
                Err(message) => message,
            };
        }
        Set::System(text) if text.is_empty() => {
            *system = None;
            "System prompt removed."
        }
        Set::System(text) => {
            *system = Some(text);
            "System prompt set."
        }
        Set::Think(true) => {
            answering.think = if think == Think::Off { Think::Auto } else { think };
            "Thinking enabled."
        }
        Set::Think(false) => {
            answering.think = Think::Off;
            "Thinking disabled."
        }
        Set::Verbose(on) => {
            *verbose = on;
            if on { "Statistics on." } else { "Statistics off." }
        }
        Set::History(_) => "", // the editor's
    };
    reply.to_owned()
}

/// Carries out `/unset`; returns the reply.
pub(super) fn unset(conversation: &mut Conversation, what: &Unset) -> String {
    let recommended = conversation.info().recommended.clone();
    let answering = &mut conversation.answering;
    let name = match what {
        Unset::System => {
            conversation.system = None;
            return "System prompt removed.".to_owned();
        }
        Unset::Parameter { name, value: Some(text) } if name == "stop" => {
            let before = answering.stop.len();
            answering.stop.retain(|stop| stop != text);
            if answering.stop.len() == before {
                return format!("{text:?} is not a stop text; /show parameters lists them");
            }
            name
        }
        Unset::Parameter { name, value: Some(_) } => {
            return format!("usage: /unset parameter {name}");
        }
        Unset::Parameter { name, value: None } => {
            match name.as_str() {
                "seed" => answering.seed = None,
                "max_tokens" | "num_predict" => answering.max_tokens = None,
                "stop" => answering.stop.clear(),
                _ => {
                    let Some(parameter) = PARAMETERS.iter().find(|known| known.name == name) else {
                        return unknown_parameter(name);
                    };
                    let default = decimal(&parameter.get(&recommended)).unwrap_or_default();
                    if let Err(error) = answering.sampling.set(name, default) {
                        return error.to_string();
                    }
                }
            }
            name
        }
    };
    format!("{name} is now {}.", value_of(conversation, name))
}

/// A parameter's value, as `/set parameter` takes it.
fn value_of(conversation: &Conversation, name: &str) -> String {
    let answering = &conversation.answering;
    match name {
        "seed" => answering.seed.map_or(RANDOM.to_owned(), |seed| seed.to_string()),
        "max_tokens" | "num_predict" => {
            answering.max_tokens.map_or(NONE.to_owned(), |max| max.to_string())
        }
        "stop" if answering.stop.is_empty() => NONE.to_owned(),
        "stop" => answering.stop.join(", "),
        _ => {
            let known = name.replace('-', "_");
            let found = PARAMETERS.iter().find(|parameter| parameter.name == known);
            found.map_or_else(String::new, |parameter| parameter.get(&answering.sampling))
        }
    }
}

fn set_parameter(conversation: &mut Conversation, name: &str, value: &str) -> Result<(), String> {
    let answering = &mut conversation.answering;
    let named = |error: String| format!("{name}: {error}");
    match name {
        "seed" => answering.seed = value.parse::<Seed>().map_err(named)?.0,
        "max_tokens" | "num_predict" => {
            answering.max_tokens = value.parse::<Limit>().map_err(named)?.0;
        }
        "stop" if value == NONE => answering.stop.clear(),
        "stop" => {
            let text = value.trim_matches('"').to_owned();
            if !text.is_empty() && !answering.stop.contains(&text) {
                answering.stop.push(text);
            }
        }
        "num_ctx" | "ctx" => {
            return Err("the context window is set when the program starts: --ctx N".to_owned());
        }
        _ if !PARAMETERS.iter().any(|known| known.name == name.replace('-', "_")) => {
            return Err(unknown_parameter(name));
        }
        _ => {
            let number = decimal(value)
                .map_err(|error| format!("`{value}` is not a number; {name}: {error}"))?;
            answering.sampling.set(name, number).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn unknown_parameter(name: &str) -> String {
    let known = PARAMETERS.iter().map(|parameter| parameter.name);
    let known: Vec<&str> = known.chain(["seed", "max_tokens", "stop"]).collect();
    match nearest(name, &known) {
        Some(known) => format!("unknown parameter `{name}`; did you mean `{known}`?"),
        None => format!("unknown parameter `{name}`; /show parameters lists them"),
    }
}
