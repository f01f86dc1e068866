//! Answers that must have a form: which tokens may come next, by llguidance.
//!
//! A grammar is compiled when its request is submitted, in the caller's thread, so that one that
//! makes no sense is refused before anything is computed, and compiling delays no other request.

mod gbnf;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use cachalot_text::Vocab;
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory, panic_utils};
use serde_json::{Value, json};
use toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};

use crate::Error;
use crate::request::Constraint;

pub use gbnf::fuzz_gbnf;

/// The longest grammar or schema, in bytes.
const SOURCE_MAX: usize = 1 << 20;
/// How deeply a grammar or schema may be nested: the compiler recurses into it.
const NESTING_MAX: usize = 64;
/// The stack for that, whatever thread submits the request.
const STACK_BYTES: usize = 16 << 20;
/// White space between the parts of JSON: as printers write it, but never without end.
const WHITESPACE: &str = r"(\n[ \t]{0,32}|[ ]{0,2})";

/// What all constraints of a vocabulary share.
pub(crate) struct Constraints {
    factory: ParserFactory,
}

/// A constraint in use.
pub(crate) struct Constrained {
    matcher: Matcher,
}

impl Constraints {
    /// # Errors
    /// If the vocabulary has no token that ends an answer.
    pub(crate) fn new(vocab: &Vocab) -> Result<Self, String> {
        let count = vocab.len() as u32;
        let ends: Vec<u32> = (0..count).filter(|id| vocab.is_end(*id)).collect();
        let end = *ends.first().ok_or("the vocabulary has no end of text")?;
        let mut words: Vec<Vec<u8>> = (0..count).map(|id| vocab.token_bytes(id).to_vec()).collect();
        // A marker that no text contains keeps special tokens out of it.
        for id in vocab.special_ids() {
            words[id as usize].insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
        }
        let trie = TokTrie::from(&TokRxInfo::new(count, end), &words).with_eos_tokens(&ends);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|error| error.to_string())?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self { factory })
    }

    /// Compiles a constraint.
    ///
    /// # Errors
    /// [`Error::Constraint`] if it makes no sense, or takes too much.
    pub(crate) fn compile(&self, constraint: &Constraint) -> Result<Constrained, Error> {
        let grammar = grammar(constraint)?;
        let factory = std::panic::AssertUnwindSafe(&self.factory);
        let build = || {
            let parser = panic_utils::catch_unwind(move || factory.create_parser(grammar));
            Matcher::new(parser)
        };
        let matcher = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("grammar".to_owned());
            let thread = thread.stack_size(STACK_BYTES).spawn_scoped(scope, build);
            let thread = thread.map_err(|source| Error::Thread { source })?;
            thread.join().map_err(|_| invalid("its compilation panicked"))
        });
        let mut matcher = matcher?;
        match matcher.get_error() {
            Some(error) => Err(invalid(first_line(&error))),
            None if is_impossible(&mut matcher) => Err(invalid("nothing satisfies it")),
            None => Ok(Constrained { matcher }),
        }
    }
}

fn is_impossible(matcher: &mut Matcher) -> bool {
    matcher.compute_mask().map_or(true, |mask| mask.is_zero())
}

impl Constrained {
    /// The tokens that may come next.
    ///
    /// # Errors
    /// [`Error::ConstraintStuck`] if the grammar became too complex.
    pub(crate) fn mask(&mut self) -> Result<SimpleVob, Error> {
        self.matcher.compute_mask_or_eos().map_err(|error| stuck(&error))
    }

    /// Takes the next token; returns whether nothing can follow it.
    ///
    /// # Errors
    /// [`Error::ConstraintStuck`] if the grammar does not allow it.
    pub(crate) fn accept(&mut self, token: u32) -> Result<bool, Error> {
        self.matcher.consume_token(token).map_err(|error| stuck(&error))?;
        Ok(self.matcher.is_stopped())
    }
}

fn grammar(constraint: &Constraint) -> Result<TopLevelGrammar, Error> {
    let text = match constraint {
        Constraint::JsonSchema(schema) => return json_grammar(schema.clone()),
        Constraint::JsonObject => return json_grammar(json!({ "type": "object" })),
        Constraint::Regex(text) | Constraint::Lark(text) | Constraint::Gbnf(text) => text,
    };
    if text.len() > SOURCE_MAX {
        return Err(invalid(format!("it has {} bytes, more than {SOURCE_MAX}", text.len())));
    }
    if nesting(text) > NESTING_MAX {
        return Err(invalid(format!("it is nested more than {NESTING_MAX} deep")));
    }
    match constraint {
        Constraint::Regex(regex) => Ok(TopLevelGrammar::from_regex(regex)),
        Constraint::Gbnf(_) => match gbnf::translate(text).map_err(invalid)? {
            gbnf::Translated::Regex(regex) => Ok(TopLevelGrammar::from_regex(&regex)),
            gbnf::Translated::Lark(lark) => Ok(TopLevelGrammar::from_lark(lark)),
        },
        _ => Ok(TopLevelGrammar::from_lark(text.clone())),
    }
}

fn json_grammar(mut schema: Value) -> Result<TopLevelGrammar, Error> {
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    if nesting(&schema.to_string()) > NESTING_MAX {
        return Err(invalid(format!("it is nested more than {NESTING_MAX} deep")));
    }
    let Value::Object(object) = &mut schema else {
        return Err(invalid("a JSON schema is an object"));
    };
    let options = json!({ "whitespace_flexible": true, "whitespace_pattern": WHITESPACE });
    object.insert("x-guidance".to_owned(), options);
    Ok(TopLevelGrammar::from_json_schema(schema))
}

/// The most brackets that are open at a time. Those in literals count as well: better too many.
fn nesting(text: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

fn invalid(fault: impl Into<String>) -> Error {
    Error::Constraint { fault: fault.into() }
}

fn stuck(error: &impl ToString) -> Error {
    Error::ConstraintStuck { fault: first_line(&error.to_string()).to_owned() }
}

fn first_line(text: &str) -> &str {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or(text)
}
