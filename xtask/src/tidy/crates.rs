//! Rules for crates: no dead files, and `unsafe` forbidden by the compiler where it has no place.

use super::Finding;
use super::rust::ISLANDS;
use super::source::is_root;
use super::tree::Tree;

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    dead_modules(tree, findings);
    unsafe_forbidden(tree, findings);
}

fn dead_modules(tree: &Tree, findings: &mut Vec<Finding>) {
    for source in tree.sources.iter().filter(|source| !is_root(&source.path)) {
        let name = source.name();
        let declared = tree.sources.iter().any(|parent| {
            source.may_be_child_of(&parent.path) && parent.modules().any(|m| m.name == name)
        });
        if !declared {
            let what = format!("no `mod {name};` names this file: it is never compiled");
            findings.push(Finding::new(&source.path, 1, what));
        }
    }
}

fn unsafe_forbidden(tree: &Tree, findings: &mut Vec<Finding>) {
    let folders = tree.texts.iter().filter_map(|(path, _)| path.strip_suffix("Cargo.toml"));
    for folder in folders.filter(|folder| !ISLANDS.contains(&folder.trim_end_matches('/'))) {
        for root in ["lib.rs", "main.rs"] {
            let root = format!("{folder}src/{root}");
            let Some(source) = tree.source(&root) else { continue };
            if !source.code.contains("#![forbid(unsafe_code)]") {
                findings.push(Finding::new(&root, 1, "add `#![forbid(unsafe_code)]`"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let mut findings = Vec::new();
        check(&Tree::of(files), &mut findings);
        findings.into_iter().map(|finding| finding.path).collect()
    }

    #[test]
    fn files_that_nothing_names_are_dead() {
        let files = [
            ("crates/a/src/lib.rs", "mod b;\n// mod d;\n"),
            ("crates/a/src/b/mod.rs", "mod c;"),
            ("crates/a/src/b/c.rs", ""),
            ("crates/a/src/d.rs", ""),
            ("crates/a/tests/all.rs", "mod common;"),
            ("crates/a/tests/common/mod.rs", ""),
            ("crates/a/tests/other/mod.rs", ""),
            ("crates/b/src/c.rs", ""),
        ];
        let dead = ["crates/a/src/d.rs", "crates/a/tests/other/mod.rs", "crates/b/src/c.rs"];
        assert_eq!(found(&files), dead);
    }

    #[test]
    fn crates_other_than_islands_forbid_unsafe() {
        let files = [
            ("Cargo.toml", ""),
            ("src/main.rs", "#![forbid(unsafe_code)]"),
            ("crates/store/Cargo.toml", ""),
            ("crates/store/src/lib.rs", ""),
            ("crates/text/Cargo.toml", ""),
            ("crates/text/src/lib.rs", "// #![forbid(unsafe_code)]"),
        ];
        assert_eq!(found(&files), ["crates/text/src/lib.rs"]);
    }
}
