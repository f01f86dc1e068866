//! The command line as typed. `settings.rs` turns it into settings; nothing here reads files or the
//! environment.

use std::ffi::OsString;
use std::path::PathBuf;

use cachalot_gguf::KvType;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command::bench::BenchArgs;
use crate::command::cp::CpArgs;
use crate::command::import::ImportArgs;
use crate::command::list::ListArgs;
use crate::command::perplexity::PerplexityArgs;
use crate::command::plan::PlanArgs;
use crate::command::prune::PruneArgs;
use crate::command::ps::PsArgs;
use crate::command::pull::PullArgs;
use crate::command::rm::RmArgs;
use crate::command::serve::ServeArgs;
use crate::command::show::ShowArgs;
use crate::command::stop::StopArgs;
use crate::command::verify::VerifyArgs;
use crate::values::{self, GroupsArg, Limit, Seed};

/// Runs the full DeepSeek-R1 671B and related models on the machine you have.
#[derive(Debug, Parser)]
#[command(
    name = "cachalot",
    version,
    long_version = VERSION,
    arg_required_else_help = true,
    args_override_self = true,
    after_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The version, with the commit where it is known (`build.rs`).
const VERSION: &str = match option_env!("CACHALOT_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 failure, with a message that says why; 2 usage error; 130 interrupted by
Ctrl-C.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer a prompt, or chat
    Run(RunArgs),
    /// Serve a model to many clients, over the APIs of OpenAI, Anthropic, Ollama and llama-server
    Serve(Box<ServeArgs>),
    /// Show what a running server is doing
    Ps(PsArgs),
    /// Shut a running server down; answers in flight finish
    Stop(StopArgs),
    /// Predict whether a model runs, and how fast: on this machine or any other
    Plan(PlanArgs),
    /// Describe a GGUF file of any architecture
    Show(ShowArgs),
    /// Download a model, resuming where an earlier download ended, and verify it
    Pull(PullArgs),
    /// List the models on this machine, and downloads that have not finished
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Remove a model, or what an unfinished download left
    Rm(RmArgs),
    /// Give a model another name; nothing is copied
    Cp(CpArgs),
    /// Give a GGUF file a name; the file stays where it is
    Import(ImportArgs),
    /// Check that the files of models are those that were downloaded
    Verify(VerifyArgs),
    /// Remove files that no model needs
    Prune(PruneArgs),
    /// Convert text to token ids
    Tokenize(TokenizeArgs),
    /// Convert token ids to text
    Detokenize(DetokenizeArgs),
    /// Write the logits of given tokens to a file, for comparison with other runtimes
    Logits(LogitsArgs),
    /// Measure prefill and decode speed, and compare them with this machine's limits
    Bench(BenchArgs),
    /// Measure the perplexity of a text, and the KL divergence from a reference model
    Perplexity(PerplexityArgs),
    /// Print a script for completing commands and options in a shell
    Completions(CompletionsArgs),
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man(ManArgs),
}

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// A model (its name, or a .gguf file; any part of a split one) and a prompt. Without a model,
    /// the embedded calf answers; without a prompt, a chat starts
    #[arg(value_name = "MODEL] [PROMPT")]
    pub(crate) words: Vec<OsString>,

    /// Think before answering: as the model's chat template says (auto), always (force), or never
    /// (off)
    #[arg(long, value_enum, default_value_t = ThinkArg::Auto, value_name = "WHEN")]
    pub(crate) think: ThinkArg,
    /// Think, but do not show the thinking
    #[arg(long)]
    pub(crate) hide_thinking: bool,
    /// System prompt
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Use the Jinja chat template in this file instead of the model's
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Print the prompt as the chat template renders it, without loading the model
    #[arg(long)]
    pub(crate) show_prompt: bool,
    /// Context window, in tokens [default: the model's, at most 32768; less if memory is short]
    #[arg(long, value_name = "TOKENS", value_parser = values::tokens)]
    pub(crate) ctx: Option<usize>,
    /// Print timings, speed and memory use afterwards
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Print one JSON object with the thinking, the answer, token counts and timings
    #[arg(long, conflicts_with_all = ["hide_thinking", "verbose"])]
    pub(crate) json: bool,

    /// Load the model here, even if a server on this machine has it loaded
    #[arg(long)]
    pub(crate) standalone: bool,
    /// Download a model that is not here, and answer the prompt before it is complete if its
    /// experts are streamed: those that are chosen are fetched first
    #[arg(long, conflicts_with_all = ["show_prompt", "trace"])]
    pub(crate) while_pulling: bool,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

const RUN_EXAMPLES: &str = "\
Examples:
  cachalot run                                        chat with the embedded calf
  cachalot run \"How many r's are in strawberry?\"
  cachalot run deepseek-r1:671b \"Prove that 2 is prime.\"
  cachalot run DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf \"Prove that 2 is prime.\"
  cat report.txt | cachalot run R1.gguf \"Summarize this:\"";

/// How a model is loaded and run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Computation")]
pub(crate) struct ModelArgs {
    /// Number of compute threads [default: the physical cores available to this process]
    #[arg(short, long, value_name = "N", value_parser = values::threads)]
    pub(crate) threads: Option<usize>,
    /// Active experts per token [default: the file's]
    #[arg(long, value_name = "N", value_parser = values::whole::<usize>)]
    pub(crate) experts: Option<usize>,
    /// Expert groups for routing: the model's own (auto), none (off), or K of N groups
    #[arg(long, value_name = "auto|off|N/K", default_value = "auto")]
    pub(crate) expert_groups: GroupsArg,
    /// KV-cache data type [default: f16; q8_0 if memory is short; f32 with --exact]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) kv_type: Option<KvArg>,
    /// Memory limit, such as 64GiB [default: free memory, less some headroom]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) memory: Option<u64>,
    /// Stream experts from the drive: if the model does not fit into memory (auto), always, or
    /// never
    #[arg(long, value_enum, default_value_t = StreamArg::Auto, value_name = "WHEN")]
    pub(crate) stream: StreamArg,
    /// Copy a model that fits into private huge pages: a few percent faster, but it loads as slowly
    /// as the file can be read, and no other process shares the memory
    #[arg(long)]
    pub(crate) huge_pages: bool,
    /// Memory placement on NUMA machines: interleaved over all nodes, or first touch (off); no
    /// effect on single-node machines
    #[arg(long, value_enum, default_value_t = NumaArg::Interleave, value_name = "HOW")]
    pub(crate) numa: NumaArg,
    /// Keep each thread on a CPU of its own, where there is a thread for every core (auto), or
    /// leave that to the system (off)
    #[arg(long, value_enum, default_value_t = PinArg::Auto, value_name = "WHEN")]
    pub(crate) pin: PinArg,
    /// Prefetch experts that the next layer will probably need, while the drive is idle; results do
    /// not change
    #[arg(long)]
    pub(crate) guess_experts: bool,
    /// Cache-aware routing: prefer experts in memory when the router scores them almost as high.
    /// Faster, but CHANGES RESULTS; --verbose shows the share of unchanged routing decisions
    #[arg(long)]
    pub(crate) prefer_cached: bool,
    /// Make each answer independent of other requests and of caching; prompts become slow
    #[arg(long)]
    pub(crate) reproducible: bool,
    /// Compute with the scalar f32 reference kernels: slow, and the reference for all others
    #[arg(long)]
    pub(crate) exact: bool,
}

/// Files to write besides the answer.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Output files")]
pub(crate) struct OutputArgs {
    /// Record which experts are used, for `cargo xtask replay`
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Replace existing output files, whatever they contain; never links, devices or inputs
    #[arg(long)]
    pub(crate) force: bool,
}

/// How tokens are sampled. The engine checks ranges, since it knows all parameters.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Sampling temperature; 0 always takes the most likely token [default: the file's, or 0.6]
    #[arg(long, alias = "temp", value_name = "T", value_parser = values::decimal, allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Sample from the most likely tokens with cumulative probability P [default: the file's, or
    /// 0.95]
    #[arg(long, value_name = "P", value_parser = values::decimal, allow_negative_numbers = true)]
    pub(crate) top_p: Option<f64>,
    /// Sample from the K most likely tokens; 0 is off
    #[arg(long, value_name = "K", value_parser = values::decimal, allow_negative_numbers = true)]
    pub(crate) top_k: Option<f64>,
    /// Drop tokens less likely than P times the most likely one; 0 is off
    #[arg(long, value_name = "P", value_parser = values::decimal, allow_negative_numbers = true)]
    pub(crate) min_p: Option<f64>,
    /// Make recent tokens less likely, by this factor; 1 is off
    #[arg(long, value_name = "X", value_parser = values::decimal, allow_negative_numbers = true)]
    pub(crate) repeat_penalty: Option<f64>,
    /// Make tokens that occurred recently less likely, however often they occurred; 0 is off
    #[arg(long, value_name = "X", value_parser = values::decimal, allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f64>,
    /// Make recent tokens less likely, for each time they occurred; 0 is off
    #[arg(long, value_name = "X", value_parser = values::decimal, allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f64>,
    /// Number of tokens that count as recent [default: the file's, or 64]
    #[arg(long, value_name = "N", value_parser = values::decimal, allow_negative_numbers = true)]
    pub(crate) repeat_last_n: Option<f64>,
    /// Random seed: the same seed gives the same text [default: random]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<Seed>,
    /// Stop the answer before this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Stop the answer after this many tokens, thinking included [default: no limit]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) max_tokens: Option<Limit>,
}

impl SamplingArgs {
    /// The sampling parameters that were given, by name.
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
    /// A GGUF file, or the name of a model in the library; a vocabulary without weights is enough
    pub(crate) model: PathBuf,
    /// The text; `-` reads it from standard input
    pub(crate) text: String,
    /// Print a JSON object: {"tokens": [ids], "pieces": [text, or the bytes of an incomplete
    /// character]}
    #[arg(long)]
    pub(crate) json: bool,
    /// Treat the names of special tokens as ordinary text
    #[arg(long)]
    pub(crate) no_special: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DetokenizeArgs {
    /// A GGUF file; a vocabulary without weights is enough
    pub(crate) model: PathBuf,
    /// Token ids, separated by spaces or commas
    #[arg(required = true, value_delimiter = ',', value_parser = values::whole::<u32>)]
    pub(crate) ids: Vec<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct LogitsArgs {
    /// A GGUF file, any part of a split one, or the name of a model in the library
    pub(crate) file: PathBuf,
    /// Token ids, separated by commas; nothing is added to them
    #[arg(long, required = true, value_delimiter = ',', value_name = "IDS",
          value_parser = values::whole::<u32>)]
    pub(crate) tokens: Vec<u32>,
    /// Output file: safetensors with one tensor, `logits`, f32 [tokens, vocabulary]
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
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

impl From<KvArg> for KvType {
    fn from(arg: KvArg) -> Self {
        match arg {
            KvArg::F32 => Self::F32,
            KvArg::F16 => Self::F16,
            KvArg::Q8_0 => Self::Q8_0,
        }
    }
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PinArg {
    Auto,
    Off,
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
    fn wrong_values_are_told_what_is_accepted() {
        let program = Cli::command();
        let mut tried = 0;
        for command in program.get_subcommands() {
            let options = command.get_arguments().filter(|arg| arg.get_action().takes_values());
            for long in options.filter_map(|arg| arg.get_long()) {
                let words = ["cachalot", command.get_name(), &format!("--{long}"), "12 parsecs"];
                let Err(error) = Cli::command().try_get_matches_from(words) else { continue };
                let error = error.to_string();
                let is_of_library = ["invalid digit", "invalid float", "cannot parse", "too large"]
                    .iter()
                    .any(|words| error.contains(words));
                assert!(!is_of_library, "{} --{long}: {error}", command.get_name());
                tried += 1;
            }
        }
        assert!(tried > 50, "{tried} options");
    }
}
