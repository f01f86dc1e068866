//! Synthetic models: random weights at a published model's true shapes, with fewer layers.
//!
//! What a runtime does with a layer of DeepSeek-R1 depends on its shapes, its formats and how
//! evenly its experts are picked, not on what the weights mean. So speed can be measured on any
//! machine with a file of a few layers, which takes seconds to write instead of a day to download.
//! The weights are scaled so that activations keep their size from layer to layer, and tokens stay
//! distinct.

mod family;
mod random;
mod recipe;
#[cfg(test)]
mod tests;
mod vocabulary;
mod weights;

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cachalot_gguf::write::Writer;
use cachalot_gguf::{Gguf, Metadata, TensorInfo};
use cachalot_plan::units;
use clap::Parser;

use family::{Family, Name};
pub(crate) use random::Random;
use recipe::Recipe;
pub(crate) use weights::ROUTER_DEVIATION;
use weights::Weights;

/// Where the tokens come from, from the root of the repository.
const VOCABULARY: &str = "crates/text/tests/fixtures/deepseek-r1-vocab.gguf";

/// Write a GGUF with random weights at a published model's true shapes per layer.
///
/// It is for measuring speed: llama.cpp and cachalot load it like the real one, and say nonsense.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask synth", bin_name = "cargo xtask synth")]
struct Args {
    /// The file to write
    out: PathBuf,
    /// Whose layers
    #[arg(long, value_enum)]
    shape: Name,
    /// Layers with experts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    moe_layers: u64,
    /// Layers without, before them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1000))]
    dense_layers: u64,
    /// Which formats, as published files have them
    #[arg(long, value_enum)]
    recipe: Recipe,
    /// Tokens of the vocabulary: the first of DeepSeek-R1's, its special ones moved to the end
    /// [default: as many as the model has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1024..=1 << 20))]
    vocab: Option<u64>,
    /// Standard deviation of the router's selection bias, the more the unevener the experts' load
    /// (0.075 is as measured on the published model; v2-lite has no such bias)
    #[arg(long, value_name = "S", default_value_t = 0.075)]
    skew: f32,
    /// The same seed gives the same file
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// What to write, once the arguments are understood.
#[derive(Debug, Clone)]
struct Synth {
    family: Family,
    recipe: Recipe,
    skew: f32,
    seed: u64,
    /// Weights encoded per format and scale; the files' blocks are drawn from these.
    pool_len: usize,
}

/// Runs `cargo xtask synth` with these arguments, the first of which is the program's name.
pub(crate) fn run(args: impl IntoIterator<Item = String>) -> Result<()> {
    let args = Args::parse_from(args);
    let mut family = Family::named(args.shape);
    family.shape.dense_layers = args.dense_layers;
    family.shape.layers = args.dense_layers + args.moe_layers;
    family.shape.vocab = args.vocab.unwrap_or(family.shape.vocab);
    if !(0.0..=10.0).contains(&args.skew) {
        bail!("--skew {}: a standard deviation from 0 to 10", args.skew);
    }
    if matches!(family.shape.layers, 26 | 27) && family.shape.q_lora > 0 {
        bail!("llama.cpp takes any model of 26 or 27 layers for V2-Lite: choose another number");
    }
    let (recipe, skew, seed) = (args.recipe, args.skew, args.seed);
    let synth = Synth { family, recipe, skew, seed, pool_len: weights::POOL_LEN };
    let vocabulary = crate::root().join(VOCABULARY);
    synth.write_file(&vocabulary, &args.out, args.force)
}

impl Synth {
    /// Writes beside `out` and renames at the end, so that `out` is never half a model.
    fn write_file(&self, vocabulary: &Path, out: &Path, force: bool) -> Result<()> {
        if out.exists() && !force {
            bail!("{} exists: give another name, or --force to replace it", out.display());
        }
        let writer = self.describe(&tokenizer_source(vocabulary)?)?;
        let part = PathBuf::from(format!("{}.part", out.display()));
        let file = File::create(&part).with_context(|| format!("writing {}", part.display()))?;
        let mut progress = Progress::new();
        let written = self
            .write(&writer, file, &mut progress)
            .and_then(|file| Ok(file.sync_all()?))
            .and_then(|()| Ok(std::fs::rename(&part, out)?));
        progress.finish(written.is_ok());
        if written.is_err() {
            // The error to report is the first one.
            let _ = std::fs::remove_file(&part);
        }
        written.with_context(|| format!("writing {}", out.display()))
    }

    /// The keys and tensors of the file.
    fn describe(&self, tokenizer: &Metadata) -> Result<Writer> {
        let (family, recipe) = (&self.family, self.recipe);
        let mut writer = Writer::default();
        writer.metadata = family.metadata(recipe);
        vocabulary::copy(tokenizer, family.shape.vocab as usize, &mut writer.metadata)?;
        for tensor in family.tensors()? {
            let ty = recipe.type_of(&tensor, family.shape.layers);
            writer.tensor(&tensor.name, ty, &tensor.shape)?;
        }
        Ok(writer)
    }

    fn write<W: Write>(&self, writer: &Writer, out: W, progress: &mut Progress) -> Result<W> {
        let (_, tensors) = writer.header()?;
        progress.total = tensors.last().map_or(0, TensorInfo::end);
        progress.parameters = tensors.iter().map(TensorInfo::elements).sum();
        let mut weights = Weights::new(self.seed, self.pool_len, self.skew);
        let mut data = writer.start(out)?;
        for (number, tensor) in (0..).zip(&tensors) {
            weights.write(number, tensor, &mut |bytes| {
                progress.add(bytes.len());
                Ok(data.append(bytes)?)
            })?;
        }
        Ok(data.finish()?)
    }
}

/// The keys of the file that tokens are taken from.
fn tokenizer_source(path: &Path) -> Result<Metadata> {
    let from = || format!("reading the vocabulary {}", path.display());
    let bytes = std::fs::read(path).with_context(from)?;
    Ok(Gguf::parse(&bytes, bytes.len() as u64).with_context(from)?.metadata)
}

/// Bytes written so far, on a terminal's last line, a few times a second.
struct Progress {
    parameters: u64,
    total: u64,
    done: u64,
    start: Instant,
    shown: Instant,
    is_terminal: bool,
}

impl Progress {
    fn new() -> Self {
        let (now, is_terminal) = (Instant::now(), io::stderr().is_terminal());
        Self { parameters: 0, total: 0, done: 0, start: now, shown: now, is_terminal }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.is_terminal && self.shown.elapsed() > Duration::from_millis(200) {
            self.shown = Instant::now();
            let (done, total) = (units::bytes(self.done), units::bytes(self.total));
            eprint!("\r{done} of {total}, {} MB/s \x1b[K", self.megabytes_per_second());
        }
    }

    fn megabytes_per_second(&self) -> u64 {
        (self.done as f64 / 1e6 / self.start.elapsed().as_secs_f64()) as u64
    }

    /// Clears the line, and sums up what was done if it was.
    fn finish(&self, done: bool) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
        if done {
            let parameters = units::parameters(self.parameters);
            let (size, speed) = (units::bytes(self.total), self.megabytes_per_second());
            eprintln!("{parameters} parameters, {size}, written at {speed} MB/s");
        }
    }
}
