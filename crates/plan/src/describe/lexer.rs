//! A description as lexemes: numbers with their units, counts, and words.
//!
//! A lexeme has one form here and no meaning yet: `6000` is a number, whatever it will turn out to
//! be.

use super::vocabulary::{COUNTS, SYNONYMS};
use crate::units;

/// The most of one thing that is a count; larger numbers are parts of names.
pub(super) const COUNT_MAX: u32 = 64;

/// The form of a lexeme.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form {
    /// `2x`, `dual`, `two`: how many of what follows.
    Count(u32),
    /// `x8`: how many of what came before.
    CountAfter(u32),
    /// `128GB`
    Size(u64),
    /// `7GB/s`
    Rate(f64),
    /// `4800 MT/s`
    Speed(u32),
    /// `8 channels`
    Channels(u32),
    /// `64 cores`
    Cores(u32),
    /// `128 threads`
    Threads,
    /// `2 sockets`
    Sockets(u32),
    /// `10GbE`, in bits per second.
    Network(u64),
    /// `DDR5`: the generation.
    Ddr(u32),
    /// Digits and nothing else.
    Number(u32),
    /// Anything else.
    Word,
}

/// A lexeme.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexeme {
    /// As written, in small letters.
    pub(super) text: String,
    pub(super) form: Form,
}

/// Splits a description.
pub(super) fn lexemes(text: &str) -> Vec<Lexeme> {
    let mut text = text.to_lowercase().replace(['×', '*', '✕'], "x");
    for (long, short) in [("(r)", ""), ("(tm)", ""), ("mt/s", "mts"), ("mb/sec", "mb/s")] {
        text = text.replace(long, short);
    }
    for generation in ['3', '4', '5'] {
        for long in ["pcie gen", "pcie ", "gen "] {
            text = text.replace(&format!("{long}{generation}.0"), &format!("gen{generation}"));
            text = text.replace(&format!("{long}{generation}"), &format!("gen{generation}"));
        }
    }
    for spaced in ["e5", "e7"] {
        text = text.replace(&format!("{spaced} "), &format!("{spaced}-"));
    }
    let text = decimal_points(&without_inches(&text));
    let text =
        text.replace("gb/sec", "gb/s").replace("gbit/s", "gbe").replace("gb ethernet", "gbe");
    let mut found = Vec::new();
    for piece in text.split(|c: char| c.is_whitespace() || ",;()[]|&@=\"'~".contains(c)) {
        // `24GB:1008GB/s` is one card.
        pieces(piece, &mut found);
    }
    let mut joined: Vec<Lexeme> = Vec::new();
    for piece in found {
        join(&mut joined, &piece);
    }
    joined
}

/// `1,5 TB` and `7,4 GB/s`, as most of Europe writes them, with points. A list (`4090,64GB`) stays
/// one: a whole number before the comma has one or two digits, and gigabytes have one after it.
fn decimal_points(text: &str) -> String {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut found = text.to_owned();
    for (at, _) in text.match_indices(',') {
        let before = (0..at).rev().take_while(|i| is_digit(*i)).count();
        let after = (at + 1..bytes.len()).take_while(|i| is_digit(*i)).count();
        let starts = at == before || !(bytes[at - before - 1].is_ascii_alphanumeric());
        let unit = text[at + 1 + after..].trim_start();
        let is_large = ["tb", "to", "gb/s", "go/s"].iter().any(|large| unit.starts_with(large));
        let is_size = ["gb", "go"].iter().any(|size| unit.starts_with(size));
        if (1..=2).contains(&before)
            && starts
            && ((is_large && (1..=2).contains(&after)) || (is_size && after == 1))
        {
            found.replace_range(at..=at, ".");
        }
    }
    found
}

/// Sizes of screens say nothing here: `16"`, `14-inch`, `16 inch`.
fn without_inches(text: &str) -> String {
    let mut found = text.to_owned();
    for inches in 10..=18 {
        for unit in ["\"", "''", "-inch", " inch", "inch", " zoll", "-zoll"] {
            found = found.replace(&format!(" {inches}{unit}"), " ");
        }
    }
    found
}

/// Splits at `/` and `+` within a piece, but not at the slash of a rate, nor at a final `+`
/// (`8480+`).
fn pieces(piece: &str, found: &mut Vec<String>) {
    if let Some((before, after)) = piece.split_once(':') {
        let size = counted(before).map_or(before, |(_, size)| size);
        let is_card = units::parse_size(size).is_ok() && units::parse_rate(after).is_ok();
        pieces(before, found);
        return if is_card { found.push(format!(":{after}")) } else { pieces(after, found) };
    }
    let mut rest = piece.trim_matches(['.', '-', '/', '~', '!', '?']);
    while let Some(at) = rest.find(['/', '+']) {
        let after = &rest[at + 1..];
        let is_rate =
            rest[at..].starts_with("/s") && !after[1..].starts_with(char::is_alphanumeric);
        let is_last_plus = after.is_empty();
        if is_rate {
            found.push(rest[..at + 2].to_owned());
            rest = &after[1..];
        } else if is_last_plus {
            break;
        } else {
            found.push(rest[..at].to_owned());
            rest = after;
        }
    }
    if rest != "+" && !rest.is_empty() {
        found.push(rest.to_owned());
    }
    found.retain(|piece| !piece.is_empty());
}

/// Adds a piece, joined to the number before it if it is a unit, or to the count before it if it is
/// `x`.
fn join(lexemes: &mut Vec<Lexeme>, piece: &str) {
    let word = SYNONYMS.iter().find(|(long, _)| *long == piece).map_or(piece, |(_, short)| *short);
    let last = lexemes.last();
    if last.is_some_and(|last| last.text == "x")
        && let Some(count) = count(word)
    {
        // `MI50 x 8`
        lexemes.pop();
        return push(lexemes, &format!("x{count}"), Form::CountAfter(count));
    }
    let number = last.filter(|last| is_decimal(&last.text)).map(|last| last.text.clone());
    if let Some(number) = number {
        if word == "x"
            && let Some(count) = count(&number)
        {
            lexemes.pop();
            return push(lexemes, &format!("{count}x"), Form::Count(count));
        }
        let with_unit = format!("{number}{word}");
        if !word.starts_with(|c: char| c.is_ascii_digit())
            && is_unit(word)
            && let Some(form) = quantity(&with_unit)
        {
            lexemes.pop();
            return push(lexemes, &with_unit, form);
        }
    }
    if let (Some(Form::Count(count)), "ch" | "socket" | "c") = (last.map(|last| &last.form), word) {
        let (count, form): (u32, fn(u32) -> Form) = match word {
            "ch" => (*count, Form::Channels),
            "c" => (*count, Form::Cores),
            _ => (*count, Form::Sockets),
        };
        lexemes.pop();
        return push(lexemes, &format!("{count} {word}"), form(count));
    }
    // `4 x 48`: the count and its number.
    if let Some((count, rest)) = counted(word) {
        push(lexemes, &format!("{count}x"), Form::Count(count));
        return join(lexemes, rest);
    }
    let form = form(word);
    push(lexemes, word, form);
}

fn push(lexemes: &mut Vec<Lexeme>, text: &str, form: Form) {
    lexemes.push(Lexeme { text: text.to_owned(), form });
}

fn form(word: &str) -> Form {
    if let Some((_, count)) = COUNTS.iter().find(|(name, _)| *name == word) {
        return Form::Count(*count);
    }
    if let Some(count) = word.strip_suffix('x').and_then(count) {
        return Form::Count(count);
    }
    if let Some(count) = word.strip_prefix('x').and_then(count) {
        return Form::CountAfter(count);
    }
    if let Some(form) = quantity(word) {
        return form;
    }
    match word.parse() {
        Ok(number) => Form::Number(number),
        Err(_) => Form::Word,
    }
}

/// A number with its unit in one word.
fn quantity(word: &str) -> Option<Form> {
    let word = word.trim_start_matches(':');
    let memory = word.trim_start_matches("lp").strip_prefix("ddr");
    if let Some(rest) = memory {
        let (generation, speed) = rest.split_once('-').unwrap_or((rest, ""));
        if let Ok(mts) = speed.parse() {
            return Some(Form::Speed(mts));
        }
        let digits = generation.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        return digits.parse().ok().filter(|n| (2..=6).contains(n)).map(Form::Ddr);
    }
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &word[..word.len() - unit.len()];
    if !is_decimal(number) {
        return None;
    }
    // `5700G` is a processor: no size of one letter has four digits.
    if unit.len() == 1 && number.len() > 3 {
        return None;
    }
    let whole = || number.parse::<u32>().ok().filter(|n| *n > 0);
    match unit.trim_start_matches('-') {
        // A capital K in a name is not a unit: `285K` is a processor.
        "m" | "mb" | "mib" | "g" | "gb" | "gib" | "tb" | "tib" | "gigs" | "gig" | "go" | "to" => {
            let unit = unit.trim_end_matches("igs").trim_end_matches("ig");
            let unit = unit.replace('o', "b");
            units::parse_size(&format!("{number}{unit}")).ok().map(Form::Size)
        }
        "t" if whole().is_none_or(|n| n <= 16) => units::parse_size(word).ok().map(Form::Size),
        "t" => Some(Form::Threads),
        "mts" | "mhz" | "mt" => whole().map(Form::Speed),
        "ch" | "channel" | "channels" => whole().map(Form::Channels),
        "c" | "core" => whole().map(Form::Cores),
        // `2P`, `4S`: processors, sockets.
        "p" if number == "2" => Some(Form::Sockets(2)),
        "s" if matches!(number, "2" | "4" | "8") => whole().map(Form::Sockets),
        "socket" => whole().map(Form::Sockets),
        "gbe" | "gbps" => number.parse::<f64>().ok().map(|n| Form::Network((n * 1e9) as u64)),
        _ => units::parse_rate(word).ok().map(Form::Rate),
    }
}

fn is_unit(word: &str) -> bool {
    quantity(&format!("8{word}")).is_some() || quantity(&format!("64{word}")).is_some()
}

/// `2x48gb` -> 2 and `48gb`.
fn counted(word: &str) -> Option<(u32, &str)> {
    let (number, rest) = word.split_once('x')?;
    let count = count(number)?;
    rest.starts_with(|c: char| c.is_ascii_alphanumeric()).then_some((count, rest))
}

fn count(number: &str) -> Option<u32> {
    number.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count))
}

fn is_decimal(text: &str) -> bool {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    digits && text.chars().all(|c| c.is_ascii_digit() || c == '.') && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(text: &str) -> Vec<Form> {
        lexemes(text).into_iter().map(|lexeme| lexeme.form).collect()
    }

    #[test]
    fn many_ways_to_write_a_thing_are_one() {
        use Form::{
            Channels, Cores, Count, CountAfter, Ddr, Network, Number, Rate, Size, Speed, Word,
        };
        for (text, expected) in [
            ("12 channels of DDR5-4800", vec![Channels(12), Word, Speed(4800)]),
            ("8-channel DDR5 4800 MT/s", vec![Channels(8), Ddr(5), Speed(4800)]),
            ("quad channel 3200MHz", vec![Channels(4), Speed(3200)]),
            ("dual EPYC", vec![Count(2), Word]),
            ("2 x 4090, 3× RTX", vec![Count(2), Number(4090), Count(3), Word]),
            ("H200 x8", vec![Word, CountAfter(8)]),
            ("24x6400 1.5TB", vec![Count(24), Number(6400), Size(3 << 39)]),
            ("4 x 48 GB", vec![Count(4), Size(48 << 30)]),
            ("64-core/128t", vec![Cores(64), Form::Threads]),
            ("NVMe @ 7 GB/sec", vec![Word, Rate(7e9)]),
            ("10 GbE 2.5gbe", vec![Network(10_000_000_000), Network(2_500_000_000)]),
            ("8480+ 285K", vec![Word, Word]),
            ("512GB+24GB", vec![Size(512 << 30), Size(24 << 30)]),
        ] {
            assert_eq!(forms(text), expected, "{text}");
        }
    }
}
