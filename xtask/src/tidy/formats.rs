//! Rules for the formats of weights: each has its specification, and README.md tells the truth
//! about what runs fast.
//!
//! README.md lists them in a table whose first columns are `format` and `id`, and which has a
//! column for each kind of fast kernel, with `yes` where a format's folder has such a file.

use std::collections::BTreeMap;

use super::Finding;
use super::source::Source;
use super::tree::Tree;

const FORMATS: &str = "crates/kernels/src/formats/";
const README: &str = "README.md";
/// Columns of the table, and the files that they stand for.
const TIERS: [(&str, &str); 2] = [("AVX2", "avx2.rs"), ("AVX-512", "avx512.rs")];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new(); // by id
    let table = Table::of(tree.text(README).unwrap_or_default());
    for folder in folders(tree) {
        for file in ["mod.rs", "scalar.rs"] {
            if tree.source(&format!("{FORMATS}{folder}/{file}")).is_none() {
                let what = format!("a format needs a {file}, as the others have it");
                findings.push(Finding::new(&format!("{FORMATS}{folder}/"), 1, what));
            }
        }
        let path = format!("{FORMATS}{folder}/mod.rs");
        let Some(source) = tree.source(&path) else { continue };
        let (Some(name), Some(id)) = (field(source, "name"), field(source, "id")) else {
            findings.push(Finding::new(&path, 1, "its `Spec` needs a `name` and an `id`"));
            continue;
        };
        if let Some(other) = names.insert(id, name) {
            let what = format!("id {id} is {other}'s: the ids are those of ggml's list of types");
            findings.push(Finding::new(&path, 1, what));
        }
        for what in table
            .wrong(name, id, |file| tree.source(&format!("{FORMATS}{folder}/{file}")).is_some())
        {
            findings.push(Finding::new(README, table.line, what));
        }
    }
}

/// The folders of formats.
fn folders(tree: &Tree) -> Vec<&str> {
    let inside = tree.sources.iter().filter_map(|source| source.path.strip_prefix(FORMATS));
    let mut folders: Vec<&str> = inside.filter_map(|path| Some(path.split_once('/')?.0)).collect();
    folders.sort_unstable();
    folders.dedup();
    // A folder with neither specification is code that formats share.
    folders.retain(|folder| {
        let source = |file: &str| tree.source(&format!("{FORMATS}{folder}/{file}"));
        let is_shared = source("mod.rs").is_some_and(|source| !source.code.contains(": Spec = "));
        !is_shared || source("scalar.rs").is_some()
    });
    folders
}

/// The value of `name: value,` in a format's `Spec`, without quotes.
fn field<'a>(source: &'a Source, name: &str) -> Option<&'a str> {
    let spec = source.code.find(": Spec = ")?;
    let label = format!(" {name}: ");
    let start = spec + source.code[spec..].find(&label)? + label.len();
    let value = &source.text[start..];
    Some(value[..value.find([',', '\n'])?].trim_matches('"'))
}

/// README.md's table of formats.
struct Table<'a> {
    /// The line of its header.
    line: usize,
    header: Vec<&'a str>,
    rows: Vec<Vec<&'a str>>,
}

impl<'a> Table<'a> {
    fn of(text: &'a str) -> Self {
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, cells(line)));
        let is_header = |(_, cells): &(usize, Vec<&str>)| cells.starts_with(&["format", "id"]);
        let (line, header) = lines.find(is_header).unwrap_or((1, Vec::new()));
        let rows = lines.map(|(_, cells)| cells).take_while(|cells| !cells.is_empty()).collect();
        Self { line, header, rows }
    }

    /// What is wrong about one format; `has` tells whether its folder has a file.
    fn wrong(&self, name: &str, id: &str, has: impl Fn(&str) -> bool) -> Vec<String> {
        let Some(row) = self.rows.iter().find(|row| row[0] == name) else {
            return vec![format!("the table of formats has no row `| {name} | {id} | ...`")];
        };
        let mut wrong = Vec::new();
        if row.get(1) != Some(&id) {
            wrong.push(format!("the id of {name} is {id}"));
        }
        for (tier, file) in TIERS {
            let column = self.header.iter().position(|cell| *cell == tier);
            let said = column.and_then(|column| row.get(column)) == Some(&"yes");
            if said != has(file) {
                let yes = if has(file) { "yes" } else { "nothing" };
                wrong.push(format!("the row of {name} must say {yes} under {tier}"));
            }
        }
        wrong
    }
}

/// The cells of a line of a table; none if it is not such a line.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|'));
    inner.map_or_else(Vec::new, |inner| inner.split('|').map(str::trim).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q8: &str =
        "static SPEC: Spec = Spec {\n    name: \"Q8_0\",\n    id: 8,\n    ..Spec::BASE\n};\n";
    const README_Q8: &str =
        "| format | id | AVX2 | AVX-512 |\n|---|---|---|---|\n| Q8_0 | 8 | | yes |\n";

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<(String, &str)> =
            files.iter().map(|(path, text)| (path.replace("F/", FORMATS), *text)).collect();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let mut findings = Vec::new();
        check(&Tree::of(&files), &mut findings);
        findings.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_complete_format_is_fine() {
        let files = [
            ("F/mod.rs", ""),
            ("F/q8_0/mod.rs", Q8),
            ("F/q8_0/scalar.rs", ""),
            ("F/q8_0/avx512.rs", ""),
            (README, README_Q8),
        ];
        assert_eq!(found(&files), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let one = |files: &[(&str, &str)], said: &str| {
            let found = found(files);
            assert!(found.len() == 1 && found[0].contains(said), "{said}: {found:?}");
        };
        let (format, scalar, avx512) =
            (("F/q8_0/mod.rs", Q8), ("F/q8_0/scalar.rs", ""), ("F/q8_0/avx512.rs", ""));
        one(&[format, avx512, (README, README_Q8)], "needs a scalar.rs");
        one(&[scalar], "needs a mod.rs");
        one(&[("F/q8_0/mod.rs", "//! A."), scalar, (README, README_Q8)], "`name` and an `id`");
        one(&[format, scalar, avx512], "no row `| Q8_0 | 8 |");
        one(&[format, scalar, avx512, (README, &README_Q8.replace("| 8 |", "| 9 |"))], "is 8");
        one(&[format, scalar, (README, README_Q8)], "nothing under AVX-512");
        let files = [format, scalar, avx512, ("F/q8_0/avx2.rs", ""), (README, README_Q8)];
        one(&files, "yes under AVX2");
    }

    #[test]
    fn ids_are_unique() {
        let other = Q8.replace("Q8_0", "Q9_0");
        let readme = format!("{README_Q8}| Q9_0 | 8 | | |\n");
        let files = [
            ("F/q8_0/mod.rs", Q8),
            ("F/q8_0/scalar.rs", ""),
            ("F/q8_0/avx512.rs", ""),
            ("F/q9_0/mod.rs", &other),
            ("F/q9_0/scalar.rs", ""),
            (README, &readme),
        ];
        assert!(found(&files)[0].contains("id 8 is Q8_0's"), "{:?}", found(&files));
    }
}
