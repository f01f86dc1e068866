//! A description as small words, each one thing: `DDR5-4800` and `4800 MT/s` become `4800mts`, `12 channels`
//! becomes `12ch`, `dual EPYC` becomes `2xepyc`.

use super::vocabulary::DRIVES;
use super::{COUNT_MAX, parse_rate, parse_size};
use crate::gpus;

/// Counts that people write out.
const COUNTS: [(&str, u32); 13] = [
    ("single", 1),
    ("one", 1),
    ("dual", 2),
    ("two", 2),
    ("triple", 3),
    ("three", 3),
    ("quad", 4),
    ("four", 4),
    ("hexa", 6),
    ("six", 6),
    ("octa", 8),
    ("eight", 8),
    ("twelve", 12),
];
/// Other ways to write what is looked up, as parts of words and as whole ones.
const PARTS: [(&str, &str); 11] = [
    ("-core", " core"),
    ("-channel", " channel"),
    ("-socket", " socket"),
    ("-way", ""),
    ("(r)", ""),
    ("(tm)", ""),
    ("/sec", "/s"),
    ("pcie ", "pcie"),
    ("gen ", "gen"),
    ("m.2", "nvme"),
    ("u.2", "nvme"),
];
const SYNONYMS: [(&str, &str); 20] = [
    ("pcie3", "gen3"),
    ("pcie3.0", "gen3"),
    ("pcie4", "gen4"),
    ("pcie4.0", "gen4"),
    ("pcie5", "gen5"),
    ("pcie5.0", "gen5"),
    ("channel", "ch"),
    ("channels", "ch"),
    ("chan", "ch"),
    ("sockets", "socket"),
    ("cores", "c"),
    ("core", "c"),
    ("threads", "t"),
    ("thread", "t"),
    ("nvmes", "nvme"),
    ("ssds", "ssd"),
    ("gigabit", "gbe"),
    ("gbit", "gbe"),
    ("gbit/s", "gbe"),
    ("gbps", "gbe"),
];
/// Stands for the slash of a unit while words are split at others, as in `64c/128t`.
const PER: char = '\u{1}';

/// Splits a description.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut text = text.to_lowercase().replace(['×', '*'], "x");
    for (long, short) in PARTS {
        text = text.replace(long, short);
    }
    let text = text.replace("/s", &PER.to_string());
    let mut words = Vec::new();
    for piece in text.split(|c: char| c.is_whitespace() || ",;+()[]|&@=/".contains(c)) {
        let piece = piece.replace(PER, "/s");
        let piece = piece.trim_matches(['.', ':', '~', '"', '\'', '-']);
        if !piece.is_empty() {
            join(&mut words, piece);
        }
    }
    words
}

/// Adds a word, or joins it to the number or the count before it.
fn join(words: &mut Vec<String>, piece: &str) {
    let synonym = SYNONYMS.iter().find(|(long, _)| *long == piece).map(|(_, short)| *short);
    let last = words.last_mut();
    let after_number = last.as_ref().is_some_and(|last| last.parse::<f64>().is_ok());
    let after_count = last.as_ref().is_some_and(|last| is_count(last));
    let after_times =
        last.as_ref().is_some_and(|last| last.strip_suffix('x').is_some_and(is_count));
    let after_memory =
        last.as_ref().is_some_and(|last| last.trim_start_matches("lp").starts_with("ddr"));
    // `core` is a unit after a number, and else the beginning of a name.
    let word = match synonym {
        Some("c") if !after_number => piece,
        Some(short) => short,
        None => piece,
    };
    match last {
        // `2 x 4090`, `2x 4090`; but `9950x` is a name
        Some(last) if after_count && word == "x" => last.push('x'),
        Some(last) if after_times && word == "ch" => *last = last.replace('x', "ch"),
        Some(last) if after_times => last.push_str(word),
        Some(last) if after_number && is_speed(last) && is_unit_of_speed(word) => {
            *last = format!("{last}mts");
        }
        // `DDR5-4800 MT/s`
        Some(last) if last.ends_with("mts") && is_unit_of_speed(word) => {}
        Some(last) if after_number && is_unit(word) => last.push_str(word),
        // `4 NVMe`, `2 3090`
        Some(last) if after_count && is_countable(word) => *last = format!("{last}x{word}"),
        Some(last) if after_memory && is_speed(word) => *last = format!("{word}mts"),
        _ => match COUNTS.iter().find(|(name, _)| *name == word) {
            Some((_, count)) => words.push(format!("{count}x")),
            None => words.push(speed(word).unwrap_or_else(|| word.to_owned())),
        },
    }
}

/// `ddr5-4800`, `4800mt/s` -> `4800mts`.
fn speed(word: &str) -> Option<String> {
    let memory = word.trim_start_matches("lp").strip_prefix("ddr");
    let after_dash = memory.and_then(|rest| rest.split_once('-')).map(|(_, speed)| speed);
    let digits = word.trim_end_matches(|c: char| !c.is_ascii_digit());
    let before_unit = Some(digits).filter(|digits| is_unit_of_speed(&word[digits.len()..]));
    let speed = after_dash.or(before_unit).filter(|speed| is_speed(speed))?;
    Some(format!("{speed}mts"))
}

/// Millions of transfers per second that memory has had since DDR3.
pub(super) fn is_speed(word: &str) -> bool {
    word.parse().is_ok_and(|mts: u32| (800..=20_000).contains(&mts))
}

fn is_unit_of_speed(word: &str) -> bool {
    matches!(word, "mt/s" | "mts" | "mhz" | "mt")
}

fn is_unit(word: &str) -> bool {
    let of_size = |word| parse_size(&format!("1{word}")).is_some();
    let of_rate = |word| parse_rate(&format!("1{word}")).is_some();
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && (of_size(word) || of_rate(word) || matches!(word, "ch" | "c" | "t" | "gbe"))
}

fn is_countable(word: &str) -> bool {
    let drive = DRIVES.iter().any(|(name, _)| *name == word);
    drive || matches!(word, "rtx" | "socket" | "nvidia") || (word.len() > 3 && gpus::is_name(word))
}

pub(super) fn is_count(word: &str) -> bool {
    word.parse().is_ok_and(|count: u32| (1..=COUNT_MAX).contains(&count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ways_to_write_a_thing_are_one() {
        let joined = |text| words(text).join(" ");
        assert_eq!(joined("12 channels of DDR5-4800"), "12ch of 4800mts");
        assert_eq!(joined("DDR5 4800 MT/s, 8-channel"), "4800mts 8ch");
        assert_eq!(joined("quad channel 3200MHz"), "4ch 3200mts");
        assert_eq!(
            joined("dual EPYC 7R13, 2 x 4090, 3× RTX 3090"),
            "2xepyc 7r13 2x4090 3xrtx 3090"
        );
        assert_eq!(joined("64-core/128t 32 cores"), "64c 128t 32c");
        assert_eq!(joined("4 NVMe drives @ 7 GB/sec (PCIe 4.0)"), "4xnvme drives 7gb/s gen4");
        assert_eq!(joined("Core i7-14700, Ryzen 9 9950X"), "core i7-14700 ryzen 9 9950x");
        assert_eq!(joined("25 GbE 2.5gbe"), "25gbe 2.5gbe");
    }
}
