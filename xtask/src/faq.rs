//! `cargo xtask faq`: writes `docs/faq.md`, whose answers are what the program prints.
//!
//! `tests/faq.rs` runs every command again, so that the page cannot differ from the program.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

/// A question with the commands that answer it, and what to make of their output.
struct Question {
    question: &'static str,
    commands: &'static [&'static str],
    explanation: &'static str,
    /// The first line of the output that is left out.
    until: &'static str,
}

const fn question(
    question: &'static str,
    commands: &'static [&'static str],
    explanation: &'static str,
) -> Question {
    Question { question, commands, explanation, until: "what " }
}

/// Columns of prose.
const COLUMNS: usize = 100;

const QUESTIONS: &[Question] = &[
    question(
        "Can my Raspberry Pi, my phone or my RTX 4090 run R1, and what is it that videos show?",
        &[
            "plan UD-IQ1_S --on raspberry-pi",
            "plan UD-IQ1_S --on \"phone 12GB\"",
            "plan UD-Q2_K_XL --on desktop-4090",
            "plan deepseek-r1:8b",
        ],
        "Boards and phones are limited by the drive: they read most of a token's experts from it. With an RTX \
         4090, main memory and the drive still decide, since 24 GB hold a tenth of the model at best. Videos that \
         show R1 on such hardware show a distill: a small model of another architecture.",
    ),
    question(
        "How do I run it, the simple way and as a server?",
        &["plan deepseek-r1:671b --on \"epyc 9354 12x4800 512GB nvme\""],
        "`cachalot pull deepseek-r1:671b` downloads and verifies it, `cachalot run deepseek-r1:671b` chats with \
         it, and `cachalot serve` answers programs and a browser over HTTP. `cachalot plan deepseek-r1:671b`, \
         without `--on`, says beforehand what this machine would make of it; here, a server.",
    ),
    question(
        "I have 96 or 128 GB of RAM: can I run it, at what quality, with which drive?",
        &["plan --on desktop-96", "plan --on desktop-128", "plan --on desktop-128-4nvme"],
        "Yes. Experts that do not fit into memory are streamed from the drive, so the drive's rate decides: an \
         NVMe drive is needed, and a SATA SSD is ten times slower. The quantization listed first is the best one \
         that is still reasonably fast; smaller ones are faster and worse.",
    ),
    question(
        "Are the distilled models R1?",
        &["plan deepseek-r1:70b", "plan deepseek-r1:32b --quant Q4_K_M"],
        "No. They are Qwen and Llama models trained on answers of R1. Only files with 671 billion parameters are R1.",
    ),
    question(
        "What does 671B need: VRAM, RAM, and for the context?",
        &[
            "plan deepseek-r1:671b --on 8xh100",
            "plan UD-IQ1_S --on \"2x rtx pro 6000\"",
            "plan deepseek-r1:671b --on \"epyc 9654 12x4800 512GB\"",
            "plan --kv",
        ],
        "All on GPUs takes the size of the file and a few GB: 140 GB for the smallest quantization, 640 GB of \
         8 x H100 for Q4_K_M. On a processor it takes as much main memory, or less with experts streamed from a drive.",
    ),
    question(
        "How many tokens per second on 8, 12 and 24 channels, a 2,000-dollar EPYC, 8 H100s, 8 H200s?",
        &[
            "plan Q4_K_M --on \"epyc 7702 8x3200 512GB\"",
            "plan Q4_K_M --on \"epyc 9354 8x4800 512GB\"",
            "plan Q4_K_M --on epyc-ddr5",
            "plan Q4_K_M --on \"2x epyc 9654 24x4800 768GB\"",
            "plan Q4_K_M --on epyc-ddr4",
            "plan Q4_K_M --on 8xh100",
            "plan Q8_0 --on 8xh200",
        ],
        "Memory bandwidth decides. Two sockets are not twice one: the links between them carry less than their \
         memory. Figures of 30 to 40 tok/s for 8 x H100 are of software of early 2025.",
    ),
    question(
        "What raises throughput, and what does each cost in quality?",
        &[
            "plan UD-Q2_K_XL --on desktop-96 --experts 6",
            "plan UD-Q2_K_XL --on desktop-96 --kv-type q8_0",
            "plan UD-IQ1_S --on desktop-96",
        ],
        "Six of eight experts cost about 2 % of perplexity, a KV cache in q8_0 next to nothing, a smaller \
         quantization the most. Without these options, `cachalot plan UD-Q2_K_XL --on desktop-96` ends with a \
         table of such changes and of hardware, by gain.",
    ),
    Question {
        until: "Layout:",
        ..question(
            "Why are prompts slow, and what helps?",
            &["plan Q4_K_M --on epyc-ddr5"],
            "A prompt is bound by arithmetic, not by bandwidth: each of its tokens costs as many multiply-adds as \
             one of the answer, and its attention grows with its length, as the last table shows. Cores with AMX \
             or AVX-512, or a GPU, help; repeated prefixes are computed once. `--explain` adds the formulas.",
        )
    },
    question(
        "A laptop, or four of them?",
        &["plan UD-IQ1_S --on \"laptop 32GB\"", "plan UD-IQ1_S --on \"4 laptops 64GB over 1GbE\""],
        "One laptop streams nearly all experts from its drive. Four together hold the smallest quantization, and \
         the network costs less than the drive would; cachalot itself runs on one machine so far.",
    ),
    question(
        "Four or eight RTX 4090?",
        &["plan UD-IQ1_S --on server-4x4090", "plan UD-IQ1_S --on server-8x4090"],
        "Eight hold the smallest quantization whole, and then per-layer overhead limits them; four hold attention \
         and more than half of the experts, and the rest stays in main memory, which limits them.",
    ),
    question(
        "Not enough disk space: can I put it into shared memory?",
        &["plan UD-IQ1_S --on \"epyc 7702 8x3200 256GB\""],
        "Yes: a file in /dev/shm is memory already. cachalot uses it in place, without a copy, and does not count it \
         against its budget.",
    ),
    question(
        "Why is the KV cache so large elsewhere, and not here?",
        &["plan --kv"],
        "R1's attention needs one latent vector per token and layer. Runtimes that cached keys and values of all \
         heads, as most did until spring 2025, take 71 times as much.",
    ),
    question(
        "Why does it not think in its tags?",
        &[],
        "R1 thinks between `<think>` and `</think>`, and its chat template opens the first of these for the model. \
         A program with another template, or none, does not, and the model may then answer without thinking. \
         `cachalot run --think force` opens the thought in any case, and `--show-prompt` prints the prompt that is \
         computed.",
    ),
];

/// Lines of a page that answer: those before one that starts with `until`.
fn answer(output: &str, until: &str) -> String {
    let end = output.lines().position(|line| line.starts_with(until));
    let lines: Vec<&str> = output.lines().take(end.unwrap_or(usize::MAX)).collect();
    lines.join("\n").trim_end().to_owned()
}

/// Writes the page.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let build = Command::new("cargo").current_dir(root).args(["build", "--quiet"]).status();
    anyhow::ensure!(build.context("cargo build")?.success(), "the program does not build");
    let mut page = "# Questions about R1, answered by the program\n\n".to_owned();
    page += &wrapped(
        "Written by `cargo xtask faq`; a test runs every command again. Of long pages the answer \
         alone is shown.",
    );
    for Question { question, commands, explanation, until } in QUESTIONS {
        write!(page, "\n## {question}\n\n{}", wrapped(explanation))?;
        for command in *commands {
            let output = output(root, command)?;
            write!(page, "\n```\n$ cachalot {command}\n{}\n```\n", answer(&output, until))?;
        }
    }
    std::fs::create_dir_all(root.join("docs"))?;
    std::fs::write(root.join("docs/faq.md"), page).context("docs/faq.md")
}

/// The text in lines of at most [`COLUMNS`].
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= COLUMNS {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n") + "\n"
}

/// What the program prints, errors included.
fn output(root: &Path, command: &str) -> anyhow::Result<String> {
    let mut run = Command::new(root.join("target/debug/cachalot"));
    let output = run.current_dir(root).args(words(command)).output().context("cachalot")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr))
}

/// Words of a command, of which some are in quotes.
fn words(command: &str) -> Vec<String> {
    let parts = command.split('"').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}
