//! Rules for all text: nothing left over, nothing about somebody's own machine, nothing huge.

use super::Finding;
use super::rust;
use super::tree::Tree;

/// Bytes of the largest file that the repository should carry.
const FILE_BYTES_MAX: u64 = 10_000_000;

/// Notes to oneself. (Written in halves, or this file would be the first to be found.)
const LEFTOVERS: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

/// Beginnings of paths that exist on one machine only.
const FOLDERS: [&str; 5] = [
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
];
/// What may follow such a beginning: names that stand for anybody's.
const ANYBODY: [&str; 3] = ["a", "you", "user"];

/// Words about where somebody works.
const PLACES: [&str; 2] = [concat!("work", "place"), concat!("work", "station of")];

/// Text that is data: it says what it says.
const DATA: [&str; 5] = ["/fixtures/", "/corpus/", "/snapshots/", "/page/assets/", "Cargo.lock"];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let sources = tree.sources.iter().map(|source| (&source.path, &source.text));
    let texts = tree.texts.iter().map(|(path, text)| (path, text));
    for (path, text) in sources.chain(texts).filter(|(path, _)| !is_data(path)) {
        for (i, line) in text.lines().enumerate() {
            if let Some(what) = wrong(line) {
                findings.push(Finding::new(path, i + 1, what));
            }
        }
    }
    for (path, text) in tree.texts.iter().filter(|(path, _)| path.ends_with(".md")) {
        prose(path, text, findings);
    }
    for (path, bytes) in tree.sizes.iter().filter(|(_, bytes)| *bytes > FILE_BYTES_MAX) {
        let (size, max) = (bytes / 1_000_000, FILE_BYTES_MAX / 1_000_000);
        let what = format!("{size} MB, at most {max}: make it smaller, or make it when needed");
        findings.push(Finding::new(path, 1, what));
    }
}

/// Measurements, written down as they were made.
const RECORDS: &str = "bench/";

/// Documents: plain words, lines that fit. Tables and examples are as wide as they are.
fn prose(path: &str, text: &str, findings: &mut Vec<Finding>) {
    if is_data(path) {
        return;
    }
    let mut is_example = false;
    for (i, line) in text.lines().enumerate() {
        is_example ^= line.starts_with("```");
        if is_example {
            continue;
        }
        findings.extend(rust::wording(line).map(|what| Finding::new(path, i + 1, what)));
        let columns = line.chars().count();
        if columns > rust::COLUMNS_MAX
            && !path.starts_with(RECORDS)
            && !line.starts_with('|')
            && !line.contains("](")
        {
            let what = format!("{columns} columns, {} at most", rust::COLUMNS_MAX);
            findings.push(Finding::new(path, i + 1, what));
        }
    }
}

fn is_data(path: &str) -> bool {
    DATA.iter().any(|part| path.contains(part))
}

fn wrong(line: &str) -> Option<String> {
    if let Some(word) = LEFTOVERS.iter().find(|word| has_word(line, word)) {
        return Some(format!("`{word}`: do it now, or open an issue"));
    }
    if let Some(folder) = FOLDERS.iter().find(|folder| has_path(line, folder)) {
        return Some(format!("a path under {folder} exists on one machine only"));
    }
    let lower = line.to_lowercase();
    let place = PLACES.iter().find(|place| lower.contains(*place))?;
    Some(format!("`{place}`: the repository says nothing about where it is made"))
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

/// Whether an absolute path begins like this, and goes on with a name that is not just anybody's.
fn has_path(line: &str, folder: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || "_-.~})>".contains(c);
    line.match_indices(folder).any(|(at, _)| {
        let name = &line[at + folder.len()..];
        let name = &name[..name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len())];
        !line[..at].ends_with(inside) && !ANYBODY.contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_judged() {
        for bad in [
            format!("// {}: later", LEFTOVERS[0]),
            format!("{} here", LEFTOVERS[1]),
            format!("see {}notes.md", FOLDERS[3]),
            format!("\"{}jane/models\"", FOLDERS[0]),
            format!("({}.cache)", FOLDERS[2]),
            format!("our {}", PLACES[0].to_uppercase()),
        ] {
            assert!(wrong(&bad).is_some(), "{bad}");
        }
        for good in [
            "IQ2_XXS and XXL".to_owned(),
            format!("https://example.org{}x", FOLDERS[3]),
            format!("\"{}a\"", FOLDERS[0]),
            format!("~{}", FOLDERS[2]),
            format!("{{folder}}{}x", FOLDERS[3]),
        ] {
            assert_eq!(wrong(&good), None, "{good}");
        }
    }

    #[test]
    fn data_may_say_anything_but_not_be_huge() {
        let text = format!("{}\n", LEFTOVERS[0]);
        let mut tree =
            Tree::of(&[("a/fixtures/b.txt", &text), ("CHANGELOG.md", &format!("\n{text}"))]);
        tree.sizes = vec![("models/small".into(), 10_000_000), ("models/large".into(), 10_000_001)];
        let mut findings = Vec::new();
        check(&tree, &mut findings);
        let places: Vec<_> = findings.iter().map(|f| (f.path.as_str(), f.line)).collect();
        assert_eq!(places, [("CHANGELOG.md", 2), ("models/large", 1)]);
    }
}
