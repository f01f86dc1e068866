//! What was typed. What it means is in `settings.rs`; nothing here reads files or the environment.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command::bench::BenchArgs;
use crate::command::perplexity::PerplexityArgs;
use crate::command::plan::PlanArgs;
use crate::command::show::ShowArgs;

/// Runs the full DeepSeek-R1 671B, and its kin, on the machine you have.
#[derive(Debug, Parser)]
#[command(name = "cachalot", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 all went well; 1 it failed, and a message says why; 2 the command line was wrong;
130 it was stopped by Ctrl-C.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer a prompt, or chat
    Run(RunArgs),
    /// Say whether a model runs, how, and how fast: here, or on any machine
    Plan(PlanArgs),
    /// Say what a GGUF file is, of whatever architecture
    Show(ShowArgs),
    /// Turn text into token ids
    Tokenize(TokenizeArgs),
    /// Turn token ids into text
    Detokenize(DetokenizeArgs),
    /// Write the logits of given tokens to a file, to compare with other runtimes
    Logits(LogitsArgs),
    /// Measure how fast a model is here, and how near to what this machine can do
    Bench(BenchArgs),
    /// Measure how well a model foresees a text, and how far it strays from another
    Perplexity(PerplexityArgs),
}

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// A model (a .gguf file; of a split one, any part) and a prompt, either of them or none:
    /// without a model the embedded calf answers, without a prompt there is a chat
    #[arg(value_name = "FILE.gguf] [PROMPT")]
    pub(crate) words: Vec<String>,

    /// Whether to think first: as the model's template says, always, or not at all
    #[arg(long, value_enum, default_value_t = ThinkArg::Auto, value_name = "WHEN")]
    pub(crate) think: ThinkArg,
    /// Think, but do not show the thoughts
    #[arg(long)]
    pub(crate) hide_thinking: bool,
    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Tokens to hold in the conversation [default: what the model was made for, at most 32768]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) ctx: Option<usize>,
    /// Afterwards, print times, rates and memory
    #[arg(long)]
    pub(crate) verbose: bool,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

const RUN_EXAMPLES: &str = "\
Examples:
  cachalot run                                        chat with the embedded calf
  cachalot run \"How many r's are in strawberry?\"
  cachalot run DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf \"Prove that 2 is prime.\"
  cat report.txt | cachalot run R1.gguf \"Sum this up:\"";

/// How a model is loaded and computed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Computation")]
pub(crate) struct ModelArgs {
    /// Threads that compute [default: the physical cores that this process may use]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Active experts per token [default: what the file says]
    #[arg(long, value_name = "N")]
    pub(crate) experts: Option<usize>,
    /// Groups that experts are picked from: as the file and R1 say (auto), none (off), or K of N
    #[arg(long, value_name = "auto|off|N/K", default_value = "auto")]
    pub(crate) expert_groups: GroupsArg,
    /// How the cache of the conversation stores numbers [default: f16; f32 with --exact]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) kv_type: Option<KvArg>,
    /// Memory to use, such as 64GiB [default: what is free, less some headroom]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// Whether to read experts from the drive as they are needed: if the model does not fit into
    /// memory (auto), always, or never
    #[arg(long, value_enum, default_value_t = StreamArg::Auto, value_name = "WHEN")]
    pub(crate) stream: StreamArg,
    /// Copy a model that fits into memory of its own, in huge pages: some hundredths faster, but it
    /// starts as slowly as the file is read, and no other process shares it
    #[arg(long)]
    pub(crate) huge_pages: bool,
    /// Where memory lies on a machine with several NUMA nodes: on all in turn (interleave), or where
    /// the threads are that touch it first (off); of one node, both are the same
    #[arg(long, value_enum, default_value_t = NumaArg::Interleave, value_name = "HOW")]
    pub(crate) numa: NumaArg,
    /// Read experts that the next layer will probably pick, while the drive is idle: the same results
    #[arg(long)]
    pub(crate) guess_experts: bool,
    /// Prefer experts that are in memory to others that the router likes little better: faster, and
    /// OTHER RESULTS than the model's; --verbose says how many picks were the router's own
    #[arg(long)]
    pub(crate) prefer_cached: bool,
    /// Write down which experts are picked, for `cargo xtask replay`
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Compute everything with the scalar f32 twins of the kernels: slow, and the reference
    #[arg(long)]
    pub(crate) exact: bool,
}

/// How tokens are chosen. Ranges are checked where all names and values meet, in the engine.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// 0 always takes the likeliest token [default: what the file recommends, or 0.6]
    #[arg(long, alias = "temp", value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Only the likeliest tokens that have this probability together [default: the file's, or 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f64>,
    /// Only this many of the likeliest tokens; 0 is off
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub(crate) top_k: Option<f64>,
    /// Only tokens this likely, as a share of the likeliest; 0 is off
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) min_p: Option<f64>,
    /// Makes recent tokens less likely by a factor; 1 is off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) repeat_penalty: Option<f64>,
    /// Makes recent tokens less likely, once
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f64>,
    /// Makes recent tokens less likely, for each time they occurred
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f64>,
    /// How many tokens count as recent [default: the file's, or 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) repeat_last_n: Option<f64>,
    /// The same seed gives the same text [default: another one each time]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// End the answer after this many tokens, thoughts included
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
}

impl SamplingArgs {
    /// What was given of the numbers that steer sampling, by name.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("top_k", self.top_k),
            ("min_p", self.min_p),
            ("repeat_penalty", self.repeat_penalty),
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
            ("repeat_last_n", self.repeat_last_n),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    /// A GGUF file; one with only a vocabulary will do
    pub(crate) model: PathBuf,
    /// The text; `-` reads it from standard input
    pub(crate) text: String,
    /// Print a JSON object: {"tokens": [ids], "pieces": [texts, or bytes of part of a character]}
    #[arg(long)]
    pub(crate) json: bool,
    /// Take the names of special tokens in the text for ordinary text
    #[arg(long)]
    pub(crate) no_special: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DetokenizeArgs {
    /// A GGUF file; one with only a vocabulary will do
    pub(crate) model: PathBuf,
    /// Token ids, separated by blanks or commas
    #[arg(required = true, value_delimiter = ',')]
    pub(crate) ids: Vec<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct LogitsArgs {
    /// A GGUF file; of a split one, any part
    pub(crate) file: PathBuf,
    /// Token ids, separated by commas; nothing is added to them
    #[arg(long, required = true, value_delimiter = ',', value_name = "IDS")]
    pub(crate) tokens: Vec<u32>,
    /// Where to write: safetensors with one tensor, `logits`, f32 [tokens, vocabulary]
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ThinkArg {
    Auto,
    Force,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvArg {
    F32,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamArg {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NumaArg {
    Interleave,
    Off,
}

/// `64GiB`, `64 GB`, `64g` or a number of bytes.
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err("use a size such as 64GiB, 64GB or 65536MiB".to_owned()),
    };
    let bytes = number.parse::<f64>().map_err(|_| "a number was expected".to_owned())? * factor;
    if bytes >= 1.0 && bytes < u64::MAX as f64 {
        Ok(bytes as u64)
    } else {
        Err("more than nothing was expected".to_owned())
    }
}

/// `auto`, `off` or `N/K`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupsArg {
    Auto,
    Off,
    Of { groups: usize, used: usize },
}

impl std::str::FromStr for GroupsArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Self::Auto),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        let numbers = text.split_once('/').and_then(|(groups, used)| {
            Some((groups.trim().parse().ok()?, used.trim().parse().ok()?))
        });
        match numbers {
            Some((groups, used)) if 0 < used && used <= groups => Ok(Self::Of { groups, used }),
            Some(_) => Err("of N groups, at least 1 and at most N can be used".to_owned()),
            None => Err("use auto, off, or two numbers such as 8/4".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("64GiB", 64 << 30), ("1.5 g", 3 << 29), ("2GB", 2_000_000_000), ("7", 7)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "0", "GiB", "1..2GB", "5 parsecs", "1e9", "-1", "99999999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expert_groups_are_read() {
        assert_eq!("8/4".parse(), Ok(GroupsArg::Of { groups: 8, used: 4 }));
        assert_eq!("off".parse(), Ok(GroupsArg::Off));
        for bad in ["8", "4/8", "8/0", "x/y", ""] {
            assert!(bad.parse::<GroupsArg>().is_err(), "{bad}");
        }
    }
}
