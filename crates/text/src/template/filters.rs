//! Filters of Jinja2 that the engine lacks, and those that `source` adds to a template.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, State, Value};

use super::{Outcome, invalid, methods};

/// Nesting of values that a template may assign.
const ASSIGNED_DEPTH_MAX: usize = 64;

/// Adds them.
pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("bounded", bounded);
    environment.add_filter("percent", percent);
    environment.add_filter("wordcount", |text: &str| wordcount(text));
    environment.add_filter("trim", |text: &Value, chars: Option<&str>| match text.as_str() {
        Some(text) => methods::trim(text, chars).to_owned(),
        None => methods::trim(&text.to_string(), chars).to_owned(),
    });
    environment.add_filter("center", |state: &State<'_, '_>, text: &str, width: Option<usize>| {
        methods::justify(state, text, width.unwrap_or(80), ' ', methods::Side::Both)
    });
    environment.add_filter("truncate", truncate);
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    environment.add_function("namespace", namespace);
}

/// The engine's `namespace`, for values that may be assigned.
fn namespace(state: &State<'_, '_>, values: Option<ValueOrKwargs>) -> Outcome<Value> {
    if let Some(values) = values.clone() {
        check(state, &values.into_value(), ASSIGNED_DEPTH_MAX, true)?;
    }
    minijinja::functions::namespace(values)
}

/// The value of an assignment, unless it is nested too deeply: dropping and printing values needs
/// stack for every level. `to_attribute`: it goes into a namespace, which must not hold another.
fn bounded(state: &State<'_, '_>, value: Value, to_attribute: Option<bool>) -> Outcome<Value> {
    check(state, &value, ASSIGNED_DEPTH_MAX, to_attribute.unwrap_or(false))?;
    if value.kind() == ValueKind::Iterable {
        // Lazy values could hold one another.
        return Ok(value.try_iter()?.collect());
    }
    Ok(value)
}

fn check(state: &State<'_, '_>, value: &Value, depth: usize, inside: bool) -> Outcome<()> {
    let Some(object) = value.as_object() else { return Ok(()) };
    let ty = object.type_name();
    let is_namespace = ty.contains("Namespace");
    if inside && (is_namespace || ty.contains("Macro")) {
        return Err(invalid("namespaces and macros cannot be stored in a value"));
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map)
        || is_namespace
        || ty.contains("Loop")
    {
        return Ok(());
    }
    if depth == 0 {
        return Err(invalid("a value is nested more than 64 deep"));
    }
    for item in value.try_iter()? {
        state.consume_fuel(1)?;
        if value.kind() == ValueKind::Map {
            check(state, &value.get_item(&item).unwrap_or_default(), depth - 1, true)?;
        } else {
            check(state, &item, depth - 1, true)?;
        }
    }
    Ok(())
}

/// Python's `text % values`.
fn percent(text: &str, values: &Value) -> Outcome<String> {
    if values.is_tuple() {
        let values: Vec<Value> = values.try_iter()?.collect();
        return format(FormatStyle::Printf, text, &values);
    }
    format(FormatStyle::Printf, text, std::slice::from_ref(values))
}

/// Words of letters, digits and `_`, as Jinja2 counts them.
fn wordcount(text: &str) -> usize {
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    text.split(|char| !is_word(char)).filter(|word| !word.is_empty()).count()
}

/// Jinja2's `truncate(length=255, killwords=False, end='...', leeway=5)`.
#[allow(clippy::needless_pass_by_value)] // the engine passes these by value
fn truncate(text: &str, args: Rest<Value>, options: Kwargs) -> Outcome<String> {
    let given = |index: usize, name: &str| -> Outcome<Option<Value>> {
        Ok(args.get(index).cloned().or(options.get(name)?))
    };
    let length = given(0, "length")?.map_or(Ok(255), usize::try_from)?;
    let kill = given(1, "killwords")?.is_some_and(|value| value.is_true());
    let end = given(2, "end")?.map_or_else(|| "...".to_owned(), |value| value.to_string());
    let leeway = given(3, "leeway")?.map_or(Ok(5), usize::try_from)?;
    options.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept = length.saturating_sub(end.chars().count());
    let cut: String = text.chars().take(kept).collect();
    let cut = if kill { &cut } else { cut.rsplit_once(' ').map_or(cut.as_str(), |(head, _)| head) };
    Ok(format!("{cut}{end}"))
}
