//! The filter `tojson` as `transformers` defines it: Python's `json.dumps` with
//! `ensure_ascii=False`, its separators `", "` and `": "`, its format of floats, and no escaping
//! for HTML. Models were trained on exactly these bytes.

use std::collections::BTreeSet;

use super::{Outcome, invalid};
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{State, Value};

/// Nesting beyond this is refused, as Python does at about 1000.
const DEPTH_MAX: usize = 500;
/// Bytes written for one unit of fuel, as the engine itself counts.
const BYTES_PER_FUEL: usize = 4;

/// `value | tojson(ensure_ascii, indent, separators, sort_keys)`, all by keyword. Characters in
/// `unescaped` stay as they are even in ASCII.
#[allow(clippy::needless_pass_by_value)] // the engine passes keywords by value
pub(super) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    options: Kwargs,
    unescaped: &BTreeSet<char>,
) -> Outcome<Value> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (comma, colon) = match (separators.as_deref(), indent) {
        (Some([comma, colon]), _) => (comma.clone(), colon.clone()),
        (Some(_), _) => return Err(invalid("separators must be a pair")),
        (None, Some(_)) => (",".to_owned(), ": ".to_owned()),
        (None, None) => (", ".to_owned(), ": ".to_owned()),
    };
    let mut writer = Writer {
        state,
        text: String::new(),
        charged: 0,
        depth: 0,
        indent,
        comma,
        colon,
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        unescaped,
    };
    options.assert_all_used()?;
    writer.value(value)?;
    Ok(Value::from(writer.text))
}

struct Writer<'a> {
    state: &'a State<'a, 'a>,
    text: String,
    /// Bytes of `text` that are charged.
    charged: usize,
    depth: usize,
    indent: Option<usize>,
    comma: String,
    colon: String,
    sort_keys: bool,
    ensure_ascii: bool,
    unescaped: &'a BTreeSet<char>,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) -> Outcome<()> {
        self.charge()?;
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.text.push_str(&value.to_string()),
            ValueKind::Number => self.text.push_str(&python_float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item));
                self.container(['[', ']'], items)?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                let items = keys.into_iter().map(|key| {
                    let item = value.get_item(&key).unwrap_or_default();
                    (Some(key), item)
                });
                self.container(['{', '}'], items)?;
            }
            _ => return Err(invalid("this value cannot be written as JSON")),
        }
        Ok(())
    }

    fn container(
        &mut self,
        brackets: [char; 2],
        items: impl Iterator<Item = (Option<Value>, Value)>,
    ) -> Outcome<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(invalid("the value is nested too deeply for JSON"));
        }
        self.text.push(brackets[0]);
        let mut is_empty = true;
        for (key, item) in items {
            if !is_empty {
                self.text.push_str(&self.comma);
            }
            is_empty = false;
            self.line()?;
            if let Some(key) = key {
                match key.as_str() {
                    Some(key) => self.string(key),
                    None => self.string(&key_text(&key)?),
                }
                self.text.push_str(&self.colon);
            }
            self.value(&item)?;
        }
        self.depth -= 1;
        if !is_empty {
            self.line()?;
        }
        self.text.push(brackets[1]);
        Ok(())
    }

    /// A new line with its indentation, if there is any.
    fn line(&mut self) -> Outcome<()> {
        if let Some(indent) = self.indent {
            let spaces = indent.saturating_mul(self.depth);
            self.state.consume_fuel((spaces / BYTES_PER_FUEL) as u64)?;
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', spaces));
        }
        Ok(())
    }

    fn string(&mut self, string: &str) {
        self.text.push('"');
        for char in string.chars() {
            match char {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '\0'..'\u{20}' => self.escape(char),
                _ if self.ensure_ascii
                    && !matches!(char, ' '..='~')
                    && !self.unescaped.contains(&char) =>
                {
                    self.escape(char);
                }
                _ => self.text.push(char),
            }
        }
        self.text.push('"');
    }

    fn escape(&mut self, char: char) {
        for unit in char.encode_utf16(&mut [0; 2]) {
            self.text.push_str(&format!("\\u{unit:04x}"));
        }
    }

    /// Charges what was written since the last call: values that share parts print much larger than
    /// they are.
    fn charge(&mut self) -> Outcome<()> {
        let written = self.text.len() - self.charged;
        self.charged = self.text.len();
        self.state.consume_fuel(1 + (written / BYTES_PER_FUEL) as u64)
    }
}

/// A key that is not a string, as Python converts it.
fn key_text(key: &Value) -> Outcome<String> {
    Ok(match key.kind() {
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
        ValueKind::Number if key.is_integer() => key.to_string(),
        ValueKind::Number => python_float(f64::try_from(key.clone())?),
        _ => return Err(invalid("keys of JSON objects must be strings or numbers")),
    })
}

/// A float as Python's `repr` writes it: the shortest digits that round to it, in scientific
/// notation below 1e-4 and from 1e16.
pub(super) fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    } else if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1.2e-5, "1.2e-05"),
            (-1e-100, "-1e-100"),
            (f64::INFINITY, "Infinity"),
        ] {
            assert_eq!(python_float(value), text);
        }
    }
}
