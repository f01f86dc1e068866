//! `cachalot plan`: can I run R1, how, and how fast?
//!
//! The answer in plain words comes first, the table behind it next, and with `--explain` the
//! formula behind every number. Facts and arithmetic are `cachalot-plan`'s; here are flags and
//! pages.

mod answer;
mod choices;
mod import;
mod json;
mod kv;
mod plot;
mod subject;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use cachalot_engine::layout::Options;
use cachalot_gguf::split::part_paths;
use cachalot_plan::{
    Constraints, Machine, MemoryTier, Mode, ModelFacts, RoutingSkew, RuntimeProfile, Stream,
    describe, plan, presets, units,
};

use self::choices::Choices;
use self::subject::Subject;
use crate::args::{KvArg, StreamArg};
use crate::failure::usage;
use crate::hardware::{self, DriveProbe, Measure};
use crate::input;
use crate::models;
use crate::record::{self, Run};
use crate::settings::Environment;
use crate::terminal::{prose, table};
use crate::values;

/// What `cachalot plan` takes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PlanArgs {
    /// A .gguf file, or a name such as deepseek-r1:671b, kimi-k2 (all its quantizations) or
    /// unsloth/DeepSeek-R1-GGUF:UD-IQ1_S [default: every quantization of R1 that makes sense]
    #[arg(value_name = "MODEL")]
    model: Option<OsString>,
    /// Words of a machine that belong after `--on`.
    #[arg(value_name = "WORDS", hide = true)]
    words: Vec<String>,
    /// A preset, a description, or a JSON file that `plan --machine --json` wrote [default: this
    /// machine]
    #[arg(long, value_name = "HARDWARE")]
    on: Option<String>,
    /// Tokens of context [default: 32768 if they fit, else as many as do]
    #[arg(long, value_name = "TOKENS", value_parser = values::tokens)]
    ctx: Option<usize>,
    /// The quantization, of a MODEL that comes in several
    #[arg(long, value_name = "NAME")]
    quant: Option<String>,

    /// As if the machine had this much memory: 128GB
    #[arg(long, value_name = "SIZE")]
    ram: Option<String>,
    /// As if its memory delivered this: 80GB/s
    #[arg(long, value_name = "RATE")]
    bandwidth: Option<String>,
    /// As if its drive delivered this: 7GB/s
    #[arg(long, value_name = "RATE")]
    disk: Option<String>,
    /// As if it had this graphics card: 4090, 2x3090, 24GB:1008GB/s, or none; may be given several
    /// times
    #[arg(long, value_name = "CARD")]
    gpu: Vec<String>,

    /// Show the formula behind every number
    #[arg(long)]
    explain: bool,
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
    /// Draw tokens per second against memory, as a small chart and, with a name, as FILE.svg or
    /// FILE.png
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = false)]
    plot: Option<Option<PathBuf>>,
    /// Replace an existing file with the picture, whatever it contains
    #[arg(long, requires = "plot")]
    force: bool,
    /// Compare what keys and values take: of all heads, and the latent
    #[arg(long, conflicts_with_all = ["on", "plot", "explain"])]
    kv: bool,
    /// Only say what the machine is
    #[arg(long, conflicts_with_all = ["model", "plot", "explain", "kv"])]
    machine: bool,
    /// List the machines that `--on` knows by name
    #[arg(long, exclusive = true)]
    presets: bool,
    /// Correct predictions by measured rows of identical hardware, as `bench --json` writes them
    #[arg(long, value_name = "FILE.jsonl")]
    import: Option<PathBuf>,
    /// Measure this machine again
    #[arg(long, conflicts_with = "on")]
    fresh: bool,

    /// Memory that the model may use, as `run --memory` has it [default: what is free, less
    /// headroom]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    memory: Option<u64>,
    /// Whether experts are streamed from the drive: if the model does not fit (auto), always, or
    /// never
    #[arg(long, value_enum, default_value_t = StreamArg::Auto, value_name = "WHEN")]
    stream: StreamArg,
    /// Active experts per token [default: what the model was trained with]
    #[arg(long, value_name = "N", value_parser = values::whole::<u64>)]
    experts: Option<u64>,
    /// KV-cache data type [default: f16, or q8_0 where the model fits only so]
    #[arg(long, value_enum, value_name = "TYPE")]
    kv_type: Option<KvArg>,
    /// Users at a time: the total rate, and what each of them gets
    #[arg(long, value_name = "N", value_parser = values::within::<u16>(1..=1024))]
    parallel: Option<u16>,
    /// Threads to measure and predict for [default: the physical cores of the machine]
    #[arg(short, long, value_name = "N", value_parser = values::within::<u16>(1..=1024))]
    threads: Option<u16>,
}

impl PlanArgs {
    /// How this machine is measured: with as many threads as the model would be computed with.
    fn options(&self, environment: &Environment) -> Options {
        environment.options(self.threads.map(usize::from))
    }
}

const EXAMPLES: &str = "\
Examples:
  cachalot plan                                        what runs here, best first
  cachalot plan deepseek-r1:671b --on desktop-96
  cachalot plan UD-Q2_K_XL --on \"epyc-9654 12x4800 384GB rtx4090 nvme 7GB/s\"
  cachalot plan DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf --ram 64GB --explain
  cachalot plan --machine --json > mine.json           for `--on mine.json`, anywhere";

/// Answers.
pub(crate) fn run(
    args: &PlanArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if !args.words.is_empty() {
        return Err(usage(subject::several_words(args.model.as_deref(), &args.words)));
    }
    if args.presets {
        out.write_all(preset_list().as_bytes())?;
        return Ok(out.flush()?);
    }
    let page = if args.kv {
        kv::page(&Subject::of_kv(args.model.as_deref(), args.quant.as_deref())?, args.json)?
    } else if args.machine {
        let machine = machine(args, None, environment)?;
        if args.json {
            serde_json::to_string_pretty(&machine)? + "\n"
        } else {
            answer::machine(&machine)
        }
    } else if let Some(name) = &args.model {
        let here = name.to_str().and_then(|name| models::here(name, environment));
        let here = here.filter(|_| args.quant.is_none());
        let name = here.as_deref().map_or(name.as_os_str(), Path::as_os_str);
        let is_page = args.quant.is_none() && !args.explain && args.plot.is_none();
        let several = subject::several(name).filter(|_| is_page);
        if let Some(choices) = several.and_then(Choices::of) {
            choose(args, &choices, environment)?
        } else {
            let subject = Subject::find(name, args.quant.as_deref())?;
            let machine = machine(args, Some(&subject), environment)?;
            one(args, &subject, &machine, environment)?
        }
    } else {
        if args.plot.is_some() {
            return Err(usage(
                "--plot draws one model: name it, as in `cachalot plan UD-Q2_K_XL --plot r1.svg`",
            ));
        }
        choose(args, &Choices::of_r1(args.quant.as_deref())?, environment)?
    };
    // Lines of JSON stay whole.
    let page = if args.json { page } else { prose(&page) };
    out.write_all(page.as_bytes())?;
    Ok(out.flush()?)
}

/// The model with as many active experts as `--experts` says.
fn with_experts(model: ModelFacts, experts: Option<u64>) -> anyhow::Result<ModelFacts> {
    match experts {
        Some(used) if used > model.experts || used == 0 => {
            Err(usage(format!("--experts is {used}: the model has 1 to {}", model.experts)))
        }
        Some(used) => Ok(model.with_experts_used(used)),
        None => Ok(model),
    }
}

/// The quantizations of a model on one machine.
fn choose(args: &PlanArgs, choices: &Choices, environment: &Environment) -> anyhow::Result<String> {
    let machine = machine(args, None, environment)?;
    let profile = |model: &ModelFacts| {
        profile(args, &machine, (model, None), RoutingSkew::Measured, environment)
    };
    let adapt = |model| with_experts(model, args.experts);
    let how = choices::How { adapt: &adapt, profile: &profile };
    choices::page(&machine, constraints(args)?, choices, args.json, &how)
}

/// Everything about one model on one machine.
fn one(
    args: &PlanArgs,
    subject: &Subject,
    machine: &Machine,
    environment: &Environment,
) -> anyhow::Result<String> {
    let model = with_experts(subject.model.clone(), args.experts)?;
    let named = (&model, subject.file.as_deref());
    let profile = profile(args, machine, named, subject.skew, environment)?;
    let threads = args.threads.map(u32::from);
    let question = answer::Question {
        machine,
        model: &model,
        subject,
        constraints: constraints(args)?,
        profile,
        threads,
    };
    let mut page =
        if args.json { json::text(&question)? } else { answer::page(&question, args.explain) };
    if let Some(file) = &args.plot {
        let curve = plot::curve(&question);
        if !args.json {
            page += &plot::chart(&curve);
        }
        if let Some(file) = file {
            let inputs = subject.file.as_deref().map(part_paths).unwrap_or_default();
            plot::draw(&curve, file, &inputs, args.force)?;
            if !args.json {
                page += &format!("\nThe chart is in {}.\n", file.display());
            }
        }
    }
    Ok(page)
}

/// The software, with what past runs on this machine tell about the model, if it is this machine
/// that is asked about, as it is.
fn profile(
    args: &PlanArgs,
    machine: &Machine,
    (model, file): (&ModelFacts, Option<&Path>),
    skew: RoutingSkew,
    environment: &Environment,
) -> anyhow::Result<RuntimeProfile> {
    let profile = RuntimeProfile { skew, ..RuntimeProfile::default() };
    let is_changed = args.on.is_some() || args.bandwidth.is_some() || args.disk.is_some();
    let Ok(planned) = plan(machine, model, constraints(args)?, profile) else { return Ok(profile) };
    if let Some(file) = &args.import {
        let rows = import::rows(file)?;
        let calibration = import::calibration(&rows, machine, model, &planned.prediction);
        if calibration.is_some() {
            return Ok(RuntimeProfile { calibration, ..profile });
        }
    }
    if is_changed || planned.fit.dense_in == MemoryTier::Vram {
        return Ok(profile);
    }
    let file = file.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let options = args.options(environment);
    let like = Run {
        model: file.unwrap_or_else(|| model.name.clone()),
        size: model.size,
        threads: options.threads.unwrap_or_else(cachalot_probe::system::physical_cores),
        streamed: planned.fit.mode != Mode::Resident,
        random: skew == RoutingSkew::Uniform,
        predicted: 0.0,
        measured: 0.0,
    };
    let calibration = record::calibration(environment.runs.as_deref(), &like);
    Ok(RuntimeProfile { calibration, ..profile })
}

fn constraints(args: &PlanArgs) -> anyhow::Result<Constraints> {
    if args.ctx == Some(0) {
        return Err(usage("--ctx is 0: a conversation needs room for at least one token"));
    }
    let cache_type = args.kv_type.map(Into::into);
    let stream = match args.stream {
        StreamArg::Auto => Stream::Auto,
        StreamArg::Always => Stream::Always,
        StreamArg::Never => Stream::Never,
    };
    let parallel = u64::from(args.parallel.unwrap_or(1));
    Ok(Constraints {
        context: args.ctx.map(|tokens| tokens as u64),
        cache_type,
        stream,
        memory: args.memory,
        parallel,
        reproducible: false,
    })
}

/// The machine that is asked about: this one, or another, with what flags say instead.
fn machine(
    args: &PlanArgs,
    subject: Option<&Subject>,
    environment: &Environment,
) -> anyhow::Result<Machine> {
    let wrong = |error: describe::DescribeError| usage(error.to_string());
    let mut machine = match &args.on {
        Some(text) if is_json(text) => read_json(text)?,
        Some(text) => presets::machine(text).map_err(wrong)?,
        None => {
            let options = args.options(environment);
            let measure = if args.fresh { Measure::Fresh } else { Measure::Missing };
            let file = subject.and_then(|subject| subject.file.as_deref());
            let drive = file.map_or(DriveProbe::Anywhere, DriveProbe::File);
            hardware::this_machine(environment, &options, drive, measure)
        }
    };
    if let Some(size) = &args.ram {
        let total = units::parse_size(size).map_err(|error| usage(error.to_string()))?;
        (machine.memory.total_bytes, machine.memory.available_bytes) = (Some(total), None);
    }
    if let (Some(threads), Some(_)) = (args.threads, &args.on) {
        let cores = machine.processor.cores();
        machine.processor.cores = Some(cores.unwrap_or(u32::MAX).min(u32::from(threads)));
    }
    if let Some(rate) = &args.bandwidth {
        machine.memory.read_bytes_per_second =
            Some(units::parse_rate(rate).map_err(|error| usage(error.to_string()))?);
        machine.memory.measured_here = false;
    }
    if let Some(rate) = &args.disk {
        machine.drives = vec![describe::drive(
            units::parse_rate(rate).map_err(|error| usage(error.to_string()))?,
        )];
    }
    if !args.gpu.is_empty() {
        if args.gpu.len() > 1 && args.gpu.iter().any(|gpu| gpu == "none") {
            return Err(usage("--gpu none and other cards contradict each other"));
        }
        let cards = args.gpu.iter().filter(|gpu| *gpu != "none");
        machine.gpus =
            cards.map(|gpu| describe::gpu(gpu)).collect::<Result<_, _>>().map_err(wrong)?;
    }
    describe::consistent(&machine).map_err(wrong)?;
    Ok(machine)
}

fn is_json(text: &str) -> bool {
    let path = Path::new(text);
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

fn read_json(path: &str) -> anyhow::Result<Machine> {
    let text = input::file(Path::new(path))?;
    match serde_json::from_str::<Machine>(&text) {
        Ok(machine) => match machine.check() {
            Ok(()) => Ok(machine),
            Err(error) => bail!("{path}: {error}"),
        },
        Err(error) => bail!(
            "{path} does not describe a machine as `cachalot plan --machine --json` does: {error}"
        ),
    }
}

fn preset_list() -> String {
    let mut rows = vec![["preset", "what it is", "as a description"].map(str::to_owned).to_vec()];
    rows.extend(
        presets::PRESETS.iter().map(|preset| {
            [preset.name, preset.what, preset.description].map(str::to_owned).to_vec()
        }),
    );
    table("lll", &rows)
}

/// `about 2.9 tok/s (2.0-3.9)`.
fn rate(range: cachalot_plan::RateRange) -> String {
    let [low, likely, high] = [range.low, range.likely, range.high].map(units::significant);
    format!("{likely} tok/s ({low}-{high})")
}
