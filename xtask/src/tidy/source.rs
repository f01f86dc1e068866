//! Rust source with comments and literals blanked out, so that what is left can be searched.

use std::ops::Range;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One file.
#[derive(Debug)]
pub(super) struct Source {
    /// From the root of the repository, with `/` between folders.
    pub(super) path: String,
    /// As it was written.
    pub(super) text: String,
    /// Of the same length: comments are blanks, literals are `"`; line breaks are kept.
    pub(super) code: String,
    /// The whole file is a test.
    pub(super) is_test: bool,
    /// Parts that are tests.
    tests: Vec<Range<usize>>,
}

/// `mod name;`
#[derive(Debug)]
pub(super) struct Module<'a> {
    pub(super) name: &'a str,
    /// It stands under `#[cfg(test)]`.
    pub(super) test: bool,
}

/// A function with a body.
#[derive(Debug)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    /// From `fn` to the closing brace.
    pub(super) range: Range<usize>,
}

impl Source {
    pub(super) fn new(path: String, text: String) -> Self {
        let code = blanked(&text);
        let attribute = "#[cfg(test)]";
        let starts = code.match_indices(attribute).map(|(start, _)| start);
        let tests = starts.map(|start| start..item_end(&code, start + attribute.len()).1).collect();
        Self { path, text, code, is_test: false, tests }
    }

    /// The line that holds this byte, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    /// Whether this byte is part of a test.
    pub(super) fn is_test_at(&self, offset: usize) -> bool {
        self.is_test || self.tests.iter().any(|test| test.contains(&offset))
    }

    /// String literals, with their places.
    pub(super) fn literals(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut rest = 0;
        std::iter::from_fn(move || {
            let start = rest + self.code[rest..].find('"')?;
            let other = |c: char| c != '"' && c != '\n';
            rest = self.code[start..].find(other).map_or(self.code.len(), |end| start + end);
            Some((start, &self.text[start..rest]))
        })
    }

    /// Identifiers and keywords, with their places.
    pub(super) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let mut rest = 0;
        std::iter::from_fn(move || {
            let start = rest + self.code[rest..].find(is_part)?;
            let word = &self.code[start..];
            let word = &word[..word.find(|c| !is_part(c)).unwrap_or(word.len())];
            rest = start + word.len();
            Some((start, word))
        })
    }

    /// Every function that has a body, nested ones too.
    pub(super) fn functions(&self) -> Vec<Function<'_>> {
        let mut words = self.words().peekable();
        let mut functions = Vec::new();
        while let Some((start, word)) = words.next() {
            let Some(&(at, name)) = words.peek() else { break };
            let between = &self.code[start + word.len()..at];
            if word != "fn" || !between.chars().all(char::is_whitespace) {
                continue; // `fn(u32)` is a type
            }
            if let (true, end) = item_end(&self.code, at) {
                functions.push(Function { name, range: start..end });
            }
        }
        functions
    }

    /// The modules that this file declares to be in files of their own.
    pub(super) fn modules(&self) -> impl Iterator<Item = Module<'_>> {
        let mut words = self.words().peekable();
        std::iter::from_fn(move || {
            while let Some((start, word)) = words.next() {
                let Some(&(at, name)) = words.peek() else { break };
                if word == "mod" && self.code[at + name.len()..].trim_start().starts_with(';') {
                    return Some(Module { name, test: self.is_test_at(start) });
                }
            }
            None
        })
    }

    /// Whether a comment in `range` says `tidy: NAME because ...`.
    pub(super) fn has_marker(&self, range: Range<usize>, name: &str) -> bool {
        let marker = format!("// tidy: {name} because ");
        let lines = self.text[range].lines();
        lines.filter_map(|line| line.trim().strip_prefix(&marker)).any(|reason| !reason.is_empty())
    }

    /// Everything before the first item.
    pub(super) fn head(&self) -> Range<usize> {
        0..self.code.find(|c: char| !c.is_whitespace()).unwrap_or(self.code.len())
    }

    /// What stands directly before the line of this byte: comments and attributes.
    pub(super) fn introduction(&self, offset: usize) -> Range<usize> {
        let end = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let mut start = end;
        for line in self.text[..end].split_inclusive('\n').rev() {
            let line_code = line.trim_start();
            if !(line_code.starts_with("//") || line_code.starts_with("#[")) {
                break;
            }
            start -= line.len();
        }
        start..end
    }

    /// The module's name: that of its file, or of its folder.
    pub(super) fn name(&self) -> &str {
        let (folder, file) = split(&self.path);
        if file == "mod.rs" { split(folder).1 } else { file.trim_end_matches(".rs") }
    }

    /// Whether the file at `parent` is where Rust would look for this module's declaration.
    pub(super) fn may_be_child_of(&self, parent: &str) -> bool {
        let (mut folder, file) = split(&self.path);
        if file == "mod.rs" {
            folder = split(folder).0;
        }
        let (parent_folder, parent_file) = split(parent);
        if parent_folder == folder {
            return matches!(parent_file, "mod.rs" | "lib.rs" | "main.rs") || is_root(parent);
        }
        parent.strip_suffix(".rs") == Some(folder)
    }
}

/// Whether cargo compiles this file by itself: no module declares it.
pub(super) fn is_root(path: &str) -> bool {
    const FOLDERS: [&str; 5] = ["tests", "examples", "benches", "bin", "fuzz_targets"];
    let (folder, file) = split(path);
    file == "build.rs"
        || (matches!(file, "lib.rs" | "main.rs") && split(folder).1 == "src")
        || (file != "mod.rs" && FOLDERS.contains(&split(folder).1))
}

/// Folder and last part of a path.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The end of the item whose code goes on at `from`, and whether it has a body in braces.
fn item_end(code: &str, from: usize) -> (bool, usize) {
    let mut depth = 0usize; // of brackets around the body or semicolon
    let mut braces = 0usize;
    for (i, c) in code[from..].char_indices() {
        match c {
            '(' | '[' if braces == 0 => depth += 1,
            ')' | ']' if braces == 0 => depth = depth.saturating_sub(1),
            ';' if braces == 0 && depth == 0 => return (false, from + i + 1),
            '{' if depth == 0 => braces += 1,
            '}' if depth == 0 => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return (true, from + i + 1);
                }
            }
            _ => {}
        }
    }
    (false, code.len())
}

/// The text with comments and literals blanked, byte for byte; blank if it is not Rust.
fn blanked(text: &str) -> String {
    let blank = |byte: u8| if byte == b'\n' { b'\n' } else { b' ' };
    let mut code: Vec<u8> = text.bytes().map(blank).collect();
    if let Ok(tokens) = text.parse::<TokenStream>() {
        copy(tokens, text, &mut code);
    }
    // The parser keeps all text for its spans.
    proc_macro2::extra::invalidate_current_thread_spans();
    String::from_utf8(code).unwrap_or_default()
}

/// Copies the code of `tokens` from `text`, with literals as `"`.
fn copy(tokens: TokenStream, text: &str, code: &mut [u8]) {
    for token in tokens {
        let range = token.span().byte_range();
        let written = &text[range.clone()];
        // To the parser, comments of documentation are attributes.
        if written.starts_with("//") || written.starts_with("/*") {
            continue;
        }
        match token {
            TokenTree::Group(group) => {
                if group.delimiter() != Delimiter::None {
                    for range in [group.span_open().byte_range(), group.span_close().byte_range()] {
                        code[range.clone()].copy_from_slice(text[range].as_bytes());
                    }
                }
                copy(group.stream(), text, code);
            }
            TokenTree::Literal(_) if !written.starts_with(|c: char| c.is_ascii_digit()) => {
                code[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b'"');
            }
            _ => code[range].copy_from_slice(written.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("src/a.rs".to_owned(), text.to_owned())
    }

    #[test]
    fn comments_and_literals_are_blanked() {
        for (text, code) in [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("un\"safe") g"#, r#"f("""""""""") g"#),
            ("r\"\\\" x", "\"\"\"\" x"),
            (r##"br#"a"b"# c"##, r#"""""""""" c"#),
            (r"['\'', '{', '\u{7d}']", r#"["""", """, """"""""]"#),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("'é' 'x", "\"\"\"\" 'x"),
            ("attr\"x\"", "attr\"\"\""),
            ("r#fn", "r#fn"),
        ] {
            assert_eq!(blanked(text), code, "{text}");
            assert_eq!(code.len(), text.len(), "{text}");
        }
    }

    #[test]
    fn functions_end_where_their_braces_close() {
        let text = "trait T { fn none(&self, a: [u8; 2]); }\nconst F: fn(u8) = f;\n\
                    fn f(a: [u8; 2]) -> u8\nwhere u8: Sized {\n  fn g() {}\n  \"}\"; '}'\n}\nfn h() {}";
        let source = source(text);
        let functions: Vec<_> = source
            .functions()
            .iter()
            .map(|f| (f.name, source.line(f.range.start), source.line(f.range.end - 1)))
            .collect();
        assert_eq!(functions, [("f", 3, 7), ("g", 5, 5), ("h", 8, 8)]);
    }

    #[test]
    fn tests_are_told_from_code() {
        let source =
            source("//! A.\n\nfn a() {}\n// b\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\n");
        assert!(source.is_test_at(source.text.find("fn b").unwrap()));
        assert!(!source.is_test_at(source.text.find("fn a").unwrap()));
    }

    #[test]
    fn modules_are_found_where_rust_finds_them() {
        let source =
            Source::new("crates/a/src/x/y.rs".into(), "pub(crate) mod z;\nmod w {}".into());
        let modules: Vec<_> = source.modules().map(|module| module.name.to_owned()).collect();
        assert_eq!(modules, ["z"]);
        for parent in ["crates/a/src/x/mod.rs", "crates/a/src/x.rs"] {
            assert!(source.may_be_child_of(parent), "{parent}");
        }
        for other in ["crates/a/src/lib.rs", "crates/a/src/x/z.rs", "crates/b/src/x.rs"] {
            assert!(!source.may_be_child_of(other), "{other}");
        }
        let folder = Source::new("tests/common/mod.rs".into(), String::new());
        assert!(folder.may_be_child_of("tests/run.rs"));
        assert_eq!(folder.name(), "common");
    }

    #[test]
    fn roots_are_what_cargo_compiles_by_itself() {
        for path in ["src/main.rs", "crates/a/src/lib.rs", "tests/a.rs", "a/examples/b.rs"] {
            assert!(is_root(path), "{path}");
        }
        for path in ["src/args.rs", "src/command/main.rs", "tests/common/mod.rs", "tests/x/a.rs"] {
            assert!(!is_root(path), "{path}");
        }
    }

    #[test]
    fn markers_need_a_reason() {
        let source = source("//! A.\n// tidy: long because it is a table\nfn f() {}\n");
        assert!(source.has_marker(source.head(), "long"));
        assert!(!source.has_marker(source.head(), "unsafe"));
        let fn_at = source.text.find("fn f").unwrap();
        assert!(source.has_marker(source.introduction(fn_at), "long"));
        let without = self::source("// tidy: long because \nfn f() {}\n");
        assert!(!without.has_marker(without.head(), "long"));
    }
}
