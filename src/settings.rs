//! Turns the command line and the environment into settings. Nothing else in the program reads the
//! environment.
//!
//! | variable | meaning |
//! |---|---|
//! | `CACHALOT_CPU` | highest instruction set to use: `scalar`, `avx2`, `avx512` or `amx` |
//! | `CACHALOT_THREADS` | number of compute threads, unless `--threads` is given |
//! | `NO_COLOR`, `TERM=dumb` | no colour |
//! | `XDG_STATE_HOME`, `HOME` | folder of the chat history, the speeds of past runs and expert statistics |
//! | `XDG_CACHE_HOME`, `HOME` | folder of this machine's measured bandwidths |
//! | `CACHALOT_RECORD=off` | do not record past runs, nor use them for predictions |
//! | `CACHALOT_MODELS`, `XDG_DATA_HOME`, `HOME` | folder of the model library |
//! | `OLLAMA_MODELS` | folder of Ollama's models, which are used in place |
//! | `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` | folder of Hugging Face's cache, used in place |
//! | `HF_ENDPOINT` | mirror of Hugging Face to download from |
//! | `HF_TOKEN`, `HF_TOKEN_PATH` | token for private and gated repositories, or the file that has it |
//! | `HF_HUB_OFFLINE=1` | do not use the network for models |
//! | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | proxies of downloads, also in lower case |
//! | `CACHALOT_HOST`, `OLLAMA_HOST` | address of `cachalot serve`, unless `--host` is given |
//! | `OLLAMA_ORIGINS` | further origins of pages that may ask `cachalot serve` |
//! | `LLAMA_API_KEY` | key that `cachalot serve` asks for, unless `--api-key` is given |
//! | `NOTIFY_SOCKET` | where systemd is told that `cachalot serve` is ready |
//! | `LISTEN_FDS`, `LISTEN_PID` | sockets that systemd has opened for `cachalot serve` |

use std::ffi::OsString;
use std::path::PathBuf;

use cachalot_engine::layout::{Options, Source};
use cachalot_engine::request::Sampling;
use cachalot_engine::status::ModelInfo;
use cachalot_engine::{Error, Request};
use cachalot_gguf::KvType;
use cachalot_kernels::{Pinning, Tier, TierName};
use cachalot_model::{ExpertGroups, Groups};
use cachalot_plan::Stream;
use cachalot_text::{Message, Think};

use crate::args::{
    ModelArgs, NumaArg, OutputArgs, PinArg, RunArgs, SamplingArgs, StreamArg, ThinkArg,
};
use crate::arriving::Arriving;
use crate::embedded;
use crate::failure::usage;
use crate::subject::{model_and_prompt, prompt_of};
use crate::terminal::note;
use crate::values::{self, GroupsArg};

/// Settings from the environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    tier: Option<TierName>,
    threads: Option<usize>,
    /// Whether terminals may get colour.
    pub(crate) colour: bool,
    /// File of the chat history, if there is a home folder.
    pub(crate) history: Option<PathBuf>,
    /// File of this machine's measured bandwidths.
    pub(crate) rates: Option<PathBuf>,
    /// File of past runs' speeds, unless turned off.
    pub(crate) runs: Option<PathBuf>,
    /// Folder of expert statistics of streamed models.
    pub(crate) expert_stats: Option<PathBuf>,
    /// Where the server listens.
    pub(crate) host: Option<String>,
    /// Origins of pages that may ask the server.
    pub(crate) origins: Vec<String>,
    /// Keys that the server asks for.
    pub(crate) api_keys: Vec<String>,
    /// Where systemd is told about the server.
    pub(crate) notify_socket: Option<String>,
    /// Where models are and come from; `None` without a home folder.
    pub(crate) models: Option<ModelPlaces>,
}

/// Where models are and come from.
#[derive(Clone, Debug)]
pub(crate) struct ModelPlaces {
    /// Library, other programs' stores, proxies and so on.
    pub(crate) hub: cachalot_hub::Settings,
    /// The file of Hugging Face's token, unless the token itself is given.
    pub(crate) token_file: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// A usage error if one of our variables is invalid.
    pub(crate) fn read() -> anyhow::Result<Self> {
        Self::from(&|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from(variable: &dyn Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
        let tier = text("CACHALOT_CPU").map(|name| name.parse()).transpose();
        let tier = tier.map_err(|error| usage(format!("CACHALOT_CPU: {error}")))?;
        let threads = match text("CACHALOT_THREADS") {
            None => None,
            Some(count) => match values::threads(&count) {
                Ok(count) => Some(count),
                Err(expected) => {
                    return Err(usage(format!("CACHALOT_THREADS is `{count}`: {expected}")));
                }
            },
        };
        let folder = |name, in_home| {
            variable(name)
                .map(PathBuf::from)
                // the XDG base directory specification ignores relative paths
                .filter(|path| path.is_absolute())
                .or_else(|| Some(PathBuf::from(variable("HOME")?).join(in_home)))
                .map(|folder| folder.join("cachalot"))
        };
        let list = |name| {
            let all = text(name).unwrap_or_default();
            let items = all.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(str::to_owned).collect()
        };
        let state = folder("XDG_STATE_HOME", ".local/state");
        let record = match text("CACHALOT_RECORD").as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(other) => {
                return Err(usage(format!("CACHALOT_RECORD is `{other}`: expected on or off")));
            }
        };
        Ok(Self {
            tier,
            threads,
            colour: variable("NO_COLOR").is_none() && text("TERM").as_deref() != Some("dumb"),
            runs: state.as_ref().filter(|_| record).map(|state| state.join("runs.jsonl")),
            history: state.as_ref().map(|state| state.join("history")),
            rates: folder("XDG_CACHE_HOME", ".cache").map(|cache| cache.join("rates.json")),
            expert_stats: state.map(|state| state.join("experts")),
            models: model_places(variable),
            host: text("CACHALOT_HOST").or_else(|| text("OLLAMA_HOST")),
            origins: list("OLLAMA_ORIGINS"),
            api_keys: list("LLAMA_API_KEY"),
            notify_socket: text("NOTIFY_SOCKET"),
        })
    }
}

/// Where models are and come from, as the environment says.
fn model_places(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<ModelPlaces> {
    let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
    let path = |name: &str| variable(name).map(PathBuf::from);
    let home = path("HOME");
    let in_home = |folder: &str| home.as_ref().map(|home| home.join(folder));
    let absolute = |name: &str| path(name).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| in_home(".local/share"));
    let library = path("CACHALOT_MODELS").or_else(|| Some(data?.join("cachalot")))?;
    let mut hub = cachalot_hub::Settings::new(std::path::absolute(library).ok()?);
    // Ollama's service on Linux has a home of its own.
    let service = PathBuf::from("/usr/share/ollama/.ollama/models");
    let own = in_home(".ollama/models").filter(|folder| folder.is_dir());
    hub.ollama = path("OLLAMA_MODELS").or(own).or(Some(service)).filter(|folder| folder.is_dir());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| in_home(".cache"));
    let hf_home = path("HF_HOME").or_else(|| Some(cache?.join("huggingface")));
    let hf_cache = path("HF_HUB_CACHE").or_else(|| Some(hf_home.as_ref()?.join("hub")));
    hub.hugging_face = hf_cache.filter(|folder| folder.is_dir());
    if let Some(endpoint) = text("HF_ENDPOINT") {
        hub.endpoint = endpoint.trim_end_matches('/').to_owned();
    }
    hub.token = text("HF_TOKEN").map(|token| token.trim().to_owned());
    hub.token = hub.token.filter(|token| !token.is_empty());
    let yes = |value: String| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase());
    hub.offline = text("HF_HUB_OFFLINE").is_some_and(yes);
    let either = |name: &str| text(&name.to_lowercase()).or_else(|| text(name));
    hub.proxies = cachalot_hub::Proxies {
        http: either("HTTP_PROXY"),
        https: either("HTTPS_PROXY"),
        all: either("ALL_PROXY"),
        none: either("NO_PROXY"),
    };
    let token_file = path("HF_TOKEN_PATH").or_else(|| Some(hf_home?.join("token")));
    Some(ModelPlaces { token_file: token_file.filter(|_| hub.token.is_none()), hub })
}

impl Environment {
    /// Default options for computation on this machine, with `threads` if it is given.
    pub(crate) fn options(&self, threads: Option<usize>) -> Options {
        Options {
            threads: threads.or(self.threads),
            tier: self.tier.map_or_else(Tier::detect, Tier::at_most),
            ..Options::default()
        }
    }
}

/// Settings of `cachalot run`.
#[derive(Debug)]
pub(crate) struct Run {
    /// The download of its files, if they are not here.
    pub(crate) arriving: Option<Arriving>,
    pub(crate) source: Source,
    pub(crate) options: Options,
    /// The prompt from the command line.
    pub(crate) prompt: Option<String>,
    pub(crate) system: Option<String>,
    /// Sampling parameters that were given; they override the file's recommendations.
    pub(crate) given: Vec<(&'static str, f64)>,
    pub(crate) answering: Answering,
    pub(crate) hide_thinking: bool,
    pub(crate) verbose: bool,
    pub(crate) json: bool,
    pub(crate) show_prompt: bool,
    /// Load the model here, whatever servers there are.
    pub(crate) standalone: bool,
    pub(crate) output: OutputArgs,
}

/// How to answer prompts.
#[derive(Clone, Debug)]
pub(crate) struct Answering {
    pub(crate) sampling: Sampling,
    pub(crate) seed: Option<u64>,
    pub(crate) stop: Vec<String>,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) think: Think,
}

impl Answering {
    /// The request that answers `messages`. A terminal or pipe that reads slowly is waited for.
    ///
    /// # Errors
    /// If the model's template rejects the messages.
    pub(crate) fn request(&self, info: &ModelInfo, messages: &[Message]) -> Result<Request, Error> {
        Ok(Request {
            sampling: self.sampling.clone(),
            seed: self.seed,
            stop: self.stop.clone(),
            max_tokens: self.max_tokens,
            reader_timeout: None,
            ..info.chat(messages, self.think)?
        })
    }
}

impl Run {
    /// # Errors
    /// A usage error for values out of range.
    pub(crate) fn new(args: RunArgs, environment: &Environment) -> anyhow::Result<Self> {
        let begun = match args.while_pulling {
            true => Arriving::begin(&args.words, environment)?,
            false => None,
        };
        let (arriving, (source, prompt)) = match begun {
            Some((arriving, file)) => {
                let prompt = prompt_of(&args.words[1..])?;
                (Some(arriving), (Source::File(file), prompt))
            }
            None => (None, model_and_prompt(args.words, environment)?),
        };
        let mut options = model_options(&args.model, environment);
        options.arriving = arriving.as_ref().map(Arriving::ranges);
        options.context = args.ctx;
        options.chat_template =
            args.chat_template.as_deref().map(crate::input::file).transpose()?;
        options.expert_stats.clone_from(&environment.expert_stats);
        if source == embedded::SOURCE && args.model.stream == StreamArg::Always {
            return Err(usage(
                "--stream always: the embedded model is part of the program, in memory; name a file",
            ));
        }
        if args.ctx == Some(0) {
            return Err(usage("--ctx is 0: the context must hold at least one token"));
        }
        Ok(Self {
            source,
            options,
            arriving,
            prompt,
            system: args.system,
            given: checked(&args.sampling)?,
            answering: Answering {
                sampling: Sampling::default(),
                seed: args.sampling.seed.and_then(|seed| seed.0),
                stop: args.sampling.stop,
                max_tokens: args.sampling.max_tokens.and_then(|limit| limit.0),
                think: args.think.into(),
            },
            hide_thinking: args.hide_thinking,
            verbose: args.verbose,
            json: args.json,
            show_prompt: args.show_prompt,
            standalone: args.standalone,
            output: args.output,
        })
    }
}

impl Run {
    /// Whether the model is to be loaded by this process: it was said so, or said how.
    pub(crate) fn loads_here(&self) -> bool {
        let options = &self.options;
        self.standalone
            || self.output.trace.is_some()
            || options.chat_template.is_some()
            || options.arriving.is_some()
            || options.memory.is_some()
            || options.stream != Stream::Auto
            || options.huge_pages
            || options.prefetch
    }
}

impl From<ThinkArg> for Think {
    fn from(arg: ThinkArg) -> Self {
        match arg {
            ThinkArg::Auto => Self::Auto,
            ThinkArg::Force => Self::Force,
            ThinkArg::Off => Self::Off,
        }
    }
}

/// How to load and run a model.
pub(crate) fn model_options(args: &ModelArgs, environment: &Environment) -> Options {
    let best = environment.tier.map_or_else(Tier::detect, Tier::at_most);
    Options {
        threads: args.threads.or(environment.threads).map(available),
        tier: if args.exact { Tier::SCALAR } else { best },
        kv_type: match args.kv_type {
            Some(ty) => Some(ty.into()),
            None if args.exact => Some(KvType::F32),
            None => None,
        },
        context: None,
        parallel: 1,
        experts: args.experts,
        groups: match args.expert_groups {
            GroupsArg::Auto => ExpertGroups::Auto,
            GroupsArg::Off => ExpertGroups::Off,
            GroupsArg::Of { groups, used } => ExpertGroups::Of(Groups { count: groups, used }),
        },
        memory: args.memory,
        stream: match args.stream {
            StreamArg::Auto => Stream::Auto,
            StreamArg::Always => Stream::Always,
            StreamArg::Never => Stream::Never,
        },
        huge_pages: args.huge_pages,
        interleave: args.numa == NumaArg::Interleave,
        pinning: match args.pin {
            PinArg::Auto => Pinning::Auto,
            PinArg::Off => Pinning::Off,
        },
        prefetch: args.guess_experts,
        prefer_cached: args.prefer_cached,
        reproducible: args.reproducible,
        count_experts: None,
        devices: crate::devices::DEVICES,
        chat_template: None,
        trace: None,
        expert_stats: None,
        prefix_cache: None,
        arriving: None,
    }
}

/// At most as many threads as this process may run at once: more only wait for each other.
fn available(threads: usize) -> usize {
    let cpus = std::thread::available_parallelism().map_or(threads, usize::from);
    if threads > cpus {
        note(&format!("{threads} threads are more than this process has CPUs: using {cpus}"));
    }
    threads.min(cpus)
}

/// The sampling parameters that were given, checked.
pub(crate) fn checked(args: &SamplingArgs) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let given: Vec<_> = args.given().collect();
    let mut sampling = Sampling::default();
    for &(name, value) in &given {
        sampling.set(name, value).map_err(|error| {
            usage(error.to_string().replacen(name, &format!("--{}", name.replace('_', "-")), 1))
        })?;
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn environment(variables: &[(&str, &str)]) -> anyhow::Result<Environment> {
        Environment::from(&|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name)?;
            Some(OsString::from(found.1))
        })
    }

    fn settings(words: &[&str], environment: &Environment) -> anyhow::Result<Run> {
        let words = ["cachalot", "run"].iter().chain(words);
        let Command::Run(args) = Cli::try_parse_from(words)?.command else {
            panic!("the command is run")
        };
        Run::new(args, environment)
    }

    fn plain(words: &[&str]) -> Run {
        settings(words, &environment(&[]).unwrap()).unwrap()
    }

    #[test]
    fn flags_override_the_environment() {
        let environment =
            environment(&[("CACHALOT_THREADS", "3"), ("CACHALOT_CPU", "scalar")]).unwrap();
        let run = settings(&["x"], &environment).unwrap();
        let most = std::thread::available_parallelism().unwrap().get();
        assert_eq!(run.options.threads, Some(3.min(most)));
        assert!(run.options.tier.is_scalar());
        assert_eq!(settings(&["--threads", "1"], &environment).unwrap().options.threads, Some(1));
        assert!(plain(&["--exact"]).options.tier.is_scalar());
    }

    #[test]
    fn the_last_of_repeated_options_counts() {
        let run = plain(&[
            "--seed",
            "1",
            "--seed",
            "-1",
            "--ctx",
            "1k",
            "--ctx=2k",
            "--verbose",
            "--verbose",
            "--max-tokens=5",
            "--max-tokens",
            "-1",
            "--temp",
            "1",
            "--temperature=0",
        ]);
        assert_eq!((run.answering.seed, run.answering.max_tokens), (None, None));
        assert_eq!(run.options.context, Some(2048));
        assert_eq!(run.given, [("temperature", 0.0)]);
        let most = std::thread::available_parallelism().unwrap().get();
        assert_eq!(plain(&["--threads", "1000"]).options.threads, Some(most));
    }

    #[test]
    fn the_environment_is_checked() {
        for bad in
            [("CACHALOT_THREADS", "many"), ("CACHALOT_THREADS", "0"), ("CACHALOT_CPU", "z80")]
        {
            let error = environment(&[bad]).unwrap_err().to_string();
            assert!(error.contains(bad.0) && error.contains(bad.1), "{error}");
        }
        let colour = |variables| environment(variables).unwrap().colour;
        assert!(colour(&[("TERM", "xterm")]));
        assert!(!colour(&[("TERM", "dumb")]));
        assert!(!colour(&[("NO_COLOR", "1")]));
    }

    #[test]
    fn history_is_in_the_state_folder() {
        let history = |variables| environment(variables).unwrap().history;
        let expected = Some(PathBuf::from("/home/a/.local/state/cachalot/history"));
        assert_eq!(history(&[("HOME", "/home/a")]), expected);
        assert_eq!(history(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "relative")]), expected);
        let state = history(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "/s")]);
        assert_eq!(state, Some(PathBuf::from("/s/cachalot/history")));
        assert_eq!(history(&[]), None);
    }

    #[test]
    fn sampling_is_checked_before_a_model_is_loaded() {
        let run = plain(&["--temp", "0", "--top-k", "40", "--stop", "a", "--stop", "b"]);
        assert_eq!(run.given, [("temperature", 0.0), ("top_k", 40.0)]);
        assert_eq!(run.answering.stop, ["a", "b"]);
        for bad in ["--top-p=1.5", "--temperature=-1", "--top-k=1.5", "--ctx=0"] {
            let error = settings(&[bad], &environment(&[]).unwrap()).unwrap_err().to_string();
            let flag = bad.split('=').next().unwrap();
            assert!(error.contains(flag), "{bad}: {error}");
        }
    }
}
