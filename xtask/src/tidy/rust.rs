//! Rules for each Rust file by itself.

use super::Finding;
use super::source::Source;
use super::tree::Tree;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;
pub(super) const COLUMNS_MAX: usize = 100;

/// Crates that may hold `unsafe`; each block there has a `SAFETY:` reason, which clippy checks.
pub(super) const ISLANDS: [&str; 2] = ["crates/kernels", "crates/store"];

/// The only file that reads the environment.
const SETTINGS: &str = "src/settings.rs";

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for source in &tree.sources {
        let mut found = |offset: usize, what: String| {
            findings.push(Finding::new(&source.path, source.line(offset), what));
        };
        if !source.text.starts_with("//!") {
            found(0, "open with `//!`: what this file is, and why this way".to_owned());
        }
        lengths(source, &mut found);
        texts(source, &mut found);
        places(source, &mut found);
    }
}

/// Words of our own making, or of another century. (Compared in lower case, as whole words;
/// written in parts, or this file would be the first to be found.)
const BANNED: [&str; 9] = [
    concat!("sha", "ll"),
    concat!("who", "ever"),
    concat!("no", "body"),
    concat!("so ", "many"),
    concat!("as ", "good as"),
    concat!("lies ", "in"),
    concat!("lies ", "on"),
    concat!("lies ", "at"),
    concat!("mee", "ts"),
];

/// What to say instead of a banned word in this text, if it has one.
pub(super) fn wording(text: &str) -> Option<String> {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let lower = text.to_lowercase();
    let found = BANNED.iter().find(|word| {
        lower.match_indices(**word).any(|(at, _)| {
            !lower[..at].ends_with(is_letter) && !lower[at + word.len()..].starts_with(is_letter)
        })
    })?;
    Some(format!("`{found}`: use plain English, as CONTRIBUTING asks"))
}

/// Messages in plain words, and lines that fit.
fn texts(source: &Source, found: &mut dyn FnMut(usize, String)) {
    for (at, literal) in source.literals().filter(|(at, _)| !source.is_test_at(*at)) {
        if let Some(what) = wording(literal) {
            found(at, what);
        }
    }
    if source.name() == "tables" {
        return;
    }
    let mut offset = 0;
    for line in source.text.split_inclusive('\n') {
        let columns = line.trim_end_matches('\n').chars().count();
        let code = source.code.get(offset..offset + line.len()).unwrap_or_default();
        // A row of a table in a comment, an address, or a literal cannot be broken.
        let comment = line.trim_start().trim_start_matches(['/', '!']).trim_start();
        let is_whole = comment.starts_with('|') || line.contains("://") || code.contains('"');
        if columns > COLUMNS_MAX && !is_whole {
            found(offset, format!("{columns} columns, {COLUMNS_MAX} at most: break the line"));
        }
        offset += line.len();
    }
}

fn lengths(source: &Source, found: &mut dyn FnMut(usize, String)) {
    const OR: &str = "or say why not: `// tidy: long because ...`";
    for function in source.functions() {
        let start = function.range.start;
        let lines = source.text[function.range].lines().count();
        let excused =
            source.is_test_at(start) || source.has_marker(source.introduction(start), "long");
        if lines > FUNCTION_LINES_MAX && !excused {
            let (name, max) = (function.name, FUNCTION_LINES_MAX);
            found(start, format!("`{name}` has {lines} lines, {max} at most: divide it, {OR}"));
        }
    }
    // Comments and tests count: who looks for something scrolls past them, too.
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX && !source.has_marker(source.head(), "long") {
        let max = FILE_LINES_MAX;
        found(0, format!("{lines} lines, {max} at most: divide the file, {OR}"));
    }
}

/// What may stand in some places only.
fn places(source: &Source, found: &mut dyn FnMut(usize, String)) {
    let island = ISLANDS.iter().any(|island| source.path.starts_with(&format!("{island}/")));
    let mut unsafe_allowed = island || source.has_marker(source.head(), "unsafe");
    for (at, word) in source.words() {
        let after = &source.code[at + word.len()..];
        match word {
            "unsafe" if !unsafe_allowed => {
                const OR: &str = "or say why here: `// tidy: unsafe because ...`";
                found(at, format!("`unsafe` belongs in {} only, {OR}", ISLANDS.join(" and ")));
                unsafe_allowed = true; // one finding a file is enough
            }
            "todo" | "dbg" if after.starts_with('!') => {
                found(at, format!("`{word}!` is for a moment, not for the repository"));
            }
            "env"
                if after.starts_with("::var")
                    && source.path != SETTINGS
                    && source.name() != "build" // cargo's own variables
                    && !source.is_test_at(at) =>
            {
                found(at, format!("only {SETTINGS} reads the environment: pass the value on"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in one file.
    fn found(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(&Tree::of(&[(path, text)]), &mut findings);
        findings.iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
    }

    fn lines(count: usize) -> String {
        "x();\n".repeat(count)
    }

    #[test]
    fn files_say_what_they_are() {
        assert!(found("src/a.rs", "//! A.\n").is_empty());
        assert_eq!(found("src/a.rs", "// A.\n").len(), 1);
        assert_eq!(found("tests/a.rs", "\n//! A.\n").len(), 1);
    }

    #[test]
    fn messages_are_in_plain_words_and_lines_fit() {
        let text = "//! A.\n// it shall stay\nfn f() { g(\"it shall\\nstay\"); }\n";
        let found_in = found("src/a.rs", text);
        assert!(found_in.len() == 1 && found_in[0].starts_with("3: `shall`"), "{found_in:?}");
        assert!(found("tests/a.rs", text).is_empty(), "tests may quote");
        assert!(
            wording("marshall so many-fold lies inside")
                .is_some_and(|what| what.contains("so many"))
        );
        assert_eq!(wording("marshalled; what lies inside"), None);
        let long = format!("//! A.\n// {}\n", "word ".repeat(20));
        assert!(found("src/a.rs", &long)[0].starts_with("2: 103 columns"));
        let table = format!("//! A.\n//! | {} |\n", "word ".repeat(20));
        assert!(found("src/a.rs", &table).is_empty());
    }

    #[test]
    fn long_functions_are_found_unless_excused() {
        let function = |inner| format!("fn f() {{\n{}}}\n", lines(inner));
        assert!(found("src/a.rs", &format!("//! A.\n{}", function(68))).is_empty());
        let long = found("src/a.rs", &format!("//! A.\n\n{}", function(69)));
        assert!(long[0].starts_with("3: `f` has 71 lines"), "{long:?}");
        let excuse = "// tidy: long because it is a list\n#[inline]\n";
        assert!(found("src/a.rs", &format!("//! A.\n{excuse}{}", function(69))).is_empty());
        let test = format!("//! A.\n#[cfg(test)]\nmod tests {{\n{}}}\n", function(69));
        assert!(found("src/a.rs", &test).is_empty());
        assert!(found("tests/a.rs", &format!("//! A.\n{}", function(69))).is_empty());
    }

    #[test]
    fn long_files_are_found_unless_excused() {
        let file = |lines: usize| format!("//! A.\n{}", "static X: u8 = 0;\n".repeat(lines - 1));
        for path in
            ["src/a.rs", "crates/a/src/b/tables.rs", "crates/a/tests/b.rs", "xtask/src/a.rs"]
        {
            assert!(found(path, &file(600)).is_empty(), "{path}");
            let long = found(path, &file(601));
            assert!(long.len() == 1 && long[0].starts_with("1: 601 lines"), "{path}: {long:?}");
        }
        let comments = format!("{}{}", file(500), "\n// why\n".repeat(51));
        assert_eq!(found("src/a.rs", &comments).len(), 1, "comments count");
        let tests = file(598) + "#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(found("src/a.rs", &tests).len(), 1, "and so do tests");
        let excused = file(601).replacen('\n', "\n// tidy: long because generated\n", 1);
        assert!(found("src/a.rs", &excused).is_empty());
    }

    #[test]
    fn unsafe_stays_on_its_islands() {
        let text = "//! A.\n#![forbid(unsafe_code)]\n// unsafe\nfn f() { unsafe { g() } }\n";
        assert!(found("crates/kernels/src/a.rs", text).is_empty());
        let elsewhere = found("crates/kernels_more/src/a.rs", text);
        assert!(elsewhere.len() == 1 && elsewhere[0].starts_with("4: "), "{elsewhere:?}");
        let excused = text.replacen('\n', "\n// tidy: unsafe because of the allocator\n", 1);
        assert!(found("tests/a.rs", &excused).is_empty());
    }

    #[test]
    fn leftovers_are_found() {
        assert_eq!(found("src/a.rs", "//! A.\nfn f() { todo!() }").len(), 1);
        assert_eq!(found("src/a.rs", "//! A.\nfn f() { dbg!(1); }").len(), 1);
        assert!(found("src/a.rs", "//! A.\nfn todo() { \"dbg!\"; }").is_empty());
    }

    #[test]
    fn the_environment_is_read_in_one_place() {
        let text = "//! A.\nfn f() { std::env::var_os(\"X\"); }";
        assert_eq!(found("src/a.rs", text).len(), 1);
        assert!(found("src/settings.rs", text).is_empty());
        assert!(found("crates/a/tests/b.rs", text).is_empty());
        assert!(found("src/a.rs", "//! A.\nfn f() { env!(\"X\"); std::env::args(); }").is_empty());
    }
}
