//! What `{{ value }}` prints: Python's `str` of it.

use minijinja::value::ValueKind;
use minijinja::{Output, State, Value};

use super::{Outcome, invalid, json};

/// Nesting beyond this is refused.
const DEPTH_MAX: usize = 200;
/// Bytes that one unit of fuel pays for.
const BYTES_PER_FUEL: usize = 64;

/// Prints a value as Python would; what it writes costs fuel.
pub(super) fn print(out: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Outcome<()> {
    if let Some(text) = value.as_str() {
        return Ok(out.write_str(text)?);
    }
    if value.downcast_object_ref::<super::input::Arguments>().is_some() {
        return Ok(out.write_str(&value.to_string())?);
    }
    let mut printer = Printer { state, text: String::new(), charged: 0 };
    match value.kind() {
        ValueKind::Undefined => return Ok(()),
        ValueKind::Plain => printer.text = value.to_string(),
        _ => printer.repr(value, 0)?,
    }
    Ok(out.write_str(&printer.text)?)
}

struct Printer<'a> {
    state: &'a State<'a, 'a>,
    text: String,
    charged: usize,
}

impl Printer<'_> {
    fn repr(&mut self, value: &Value, depth: usize) -> Outcome<()> {
        if depth > DEPTH_MAX {
            return Err(invalid("the value is nested too deeply to be printed"));
        }
        let written = self.text.len() - self.charged;
        self.charged = self.text.len();
        self.state.consume_fuel(1 + (written / BYTES_PER_FUEL) as u64)?;
        match value.kind() {
            ValueKind::None => self.text.push_str("None"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "True" } else { "False" }),
            ValueKind::Number if value.is_integer() => self.text.push_str(&value.to_string()),
            ValueKind::Number => {
                self.text.push_str(&json::python_float(f64::try_from(value.clone())?));
            }
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Map => {
                self.text.push('{');
                for (index, key) in value.try_iter()?.enumerate() {
                    self.text.push_str(if index > 0 { ", " } else { "" });
                    self.repr(&key, depth + 1)?;
                    self.text.push_str(": ");
                    self.repr(&value.get_item(&key).unwrap_or_default(), depth + 1)?;
                }
                self.text.push('}');
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let brackets = if value.is_tuple() { ['(', ')'] } else { ['[', ']'] };
                self.text.push(brackets[0]);
                let mut count = 0;
                for item in value.try_iter()? {
                    self.text.push_str(if count > 0 { ", " } else { "" });
                    self.repr(&item, depth + 1)?;
                    count += 1;
                }
                self.text.push_str(if value.is_tuple() && count == 1 { "," } else { "" });
                self.text.push(brackets[1]);
            }
            _ => self.text.push_str(&value.to_string()),
        }
        Ok(())
    }

    /// Single quotes unless the text has them and no double ones.
    fn string(&mut self, string: &str) {
        let quote = if string.contains('\'') && !string.contains('"') { '"' } else { '\'' };
        self.text.push(quote);
        for char in string.chars() {
            match char {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                _ if char == quote => self.text.extend(['\\', quote]),
                '\0'..' ' | '\x7f' => self.text.push_str(&format!("\\x{:02x}", u32::from(char))),
                _ => self.text.push(char),
            }
        }
        self.text.push(quote);
    }
}
