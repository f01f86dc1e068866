//! The history of the chat, in a file that all chats share.
//!
//! One entry per line; a newline within an entry is written as `\n` and a backslash as `\\`.

use std::path::Path;

use crate::state;

/// First line of the file: the version of the format, which is rustyline's.
const VERSION: &str = "#V2";
/// Only this much of the end of a larger file is read.
const BYTES_MAX: u64 = 4 << 20;

/// The entries, oldest first.
pub(super) fn load(path: &Path) -> Vec<String> {
    let text = state::read(path, BYTES_MAX).unwrap_or_default();
    text.lines().filter(|line| *line != VERSION).map(unescaped).collect()
}

/// Adds an entry, after those that other chats have added meanwhile, and keeps the last `max`.
pub(super) fn append(path: &Path, entry: &str, max: usize) {
    let text = state::read(path, BYTES_MAX).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().filter(|line| *line != VERSION).collect();
    let entry = escaped(entry);
    lines.push(&entry);
    let recent = &lines[lines.len().saturating_sub(max)..];
    state::write(path, &format!("{VERSION}\n{}\n", recent.join("\n")));
}

fn escaped(entry: &str) -> String {
    entry.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "")
}

fn unescaped(line: &str) -> String {
    let mut entry = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (c, characters.clone().next()) {
            ('\\', Some('n')) => entry.push('\n'),
            ('\\', Some('\\')) => entry.push('\\'),
            _ => {
                entry.push(c);
                continue;
            }
        }
        characters.next();
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn entries_come_back_in_order_and_the_oldest_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cachalot/history");
        let entries = ["one", "two\nlines", r"C:\new \\ folder", "\"quoted\""];
        for entry in entries {
            append(&path, entry, 4);
        }
        assert_eq!(load(&path), entries);
        append(&path, "last", 4);
        assert_eq!(load(&path)[..], [&entries[1..], &["last"]].concat());
    }

    #[test]
    fn a_damaged_file_loses_only_its_damaged_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        fs::write(&path, b"#V2\ngood\n\xff\xfe\nalso good\n").unwrap();
        append(&path, "new", 10);
        assert_eq!(load(&path)[0], "good");
        assert_eq!(load(&path)[2..], ["also good", "new"]);
    }
}
