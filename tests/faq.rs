//! `docs/faq.md` shows what the program prints: every command on it is run again.

mod common;

use common::cachalot;

/// Words of a command, of which some are in quotes.
fn words(command: &str) -> Vec<&str> {
    let parts = command.split('"').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().collect::<Vec<_>>(),
        _ => vec![part],
    });
    words.collect()
}

#[test]
fn answers_are_what_the_program_prints() {
    let page = std::fs::read_to_string("docs/faq.md").unwrap();
    let blocks: Vec<&str> = page.split("```\n$ cachalot ").skip(1).collect();
    assert!(blocks.len() > 20, "{}", blocks.len());
    for block in blocks {
        let (command, rest) = block.split_once('\n').unwrap();
        let expected = rest.split("\n```").next().unwrap();
        let ran = cachalot(&words(command));
        let printed = ran.stdout + &ran.stderr;
        assert!(
            printed.starts_with(expected),
            "{command}: run `cargo xtask faq`\n\n{expected}\n\nis now\n\n{printed}"
        );
    }
}
