//! Rules of style that a program can check, as a test: a rule that nobody has to remember.
//!
//! It reads source as text with comments and literals blanked out (`source.rs`), which is enough
//! for these rules and needs no parser. Where a rule must give way, a comment says why:
//! `// tidy: long because ...` before a function, or before the first item of a file, and
//! `// tidy: unsafe because ...` before the first item of a file.

mod crates;
mod formats;
mod rust;
mod source;
mod tree;
mod words;

use std::fmt;
use std::io;
use std::path::Path;

use self::tree::Tree;

/// Something to put right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Everything in the repository at `root` that breaks a rule, by place.
///
/// # Errors
/// If a folder or file cannot be read.
pub(crate) fn check(root: &Path) -> io::Result<Vec<Finding>> {
    Ok(check_tree(&Tree::read(root)?))
}

fn check_tree(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    rust::check(tree, &mut findings);
    crates::check(tree, &mut findings);
    formats::check(tree, &mut findings);
    words::check(tree, &mut findings);
    findings.sort();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let findings = check(&crate::root()).unwrap();
        let list: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
        assert!(findings.is_empty(), "\n{list}");
    }

    #[test]
    fn findings_say_where_and_what_to_do() {
        let tree = Tree::of(&[("src/main.rs", "#![forbid(unsafe_code)]\nfn main() {}\n")]);
        let findings: Vec<String> = check_tree(&tree).iter().map(ToString::to_string).collect();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("src/main.rs:1: open with `//!`"), "{findings:?}");
    }
}
