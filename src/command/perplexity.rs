//! `cachalot perplexity`: perplexity of a text, and KL divergence from a reference model.
//!
//! Fewer bits, fewer experts and a smaller KV cache make a model faster but cost quality; this
//! command measures how much. The text is split and scored as by llama.cpp's `perplexity`, so that
//! numbers are comparable: chunks of equal length that start with BOS; the second half of each is
//! scored, so that every scored token has at least half a chunk of context.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::bail;
use cachalot_engine::Error;
use cachalot_engine::layout::{Engine, Options, Source};
use cachalot_gguf::split::part_paths;
use cachalot_text::Vocab;
use serde_json::{Value, json};

use crate::args::{ModelArgs, OutputArgs};
use crate::failure::usage;
use crate::input;
use crate::interrupt::Interrupt;
use crate::output::{self, Output};
use crate::settings::{Environment, model_options};
use crate::terminal::{self, Progress};
use crate::values::{self, GroupsArg};

/// Arguments of `cachalot perplexity`.
#[derive(clap::Args, Debug)]
pub(crate) struct PerplexityArgs {
    /// A .gguf file (any part of a split model), or the name of a model in the library
    pub(crate) model: PathBuf,
    /// The text: a plain file in UTF-8
    #[arg(value_name = "TEXT_FILE")]
    pub(crate) text: PathBuf,
    /// Tokens per chunk; the second half of each is scored
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = values::tokens)]
    pub(crate) ctx: usize,
    /// Score only the first N chunks [default: all]
    #[arg(long, value_name = "N", value_parser = values::whole::<usize>)]
    pub(crate) chunks: Option<usize>,
    /// Reference model with the same vocabulary; it may be the same file. --experts,
    /// --expert-groups,
    /// --kv-type and --exact do not apply to it
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
    /// Print everything as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) computation: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Scores the text and prints the results.
pub(crate) fn run(
    args: &PerplexityArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if args.ctx < 4 {
        return Err(usage("--ctx must be at least 4: half of each chunk is scored"));
    }
    Interrupt::install()?;
    let text = input::file(&args.text)?;
    let mut options = model_options(&args.computation, environment);
    let mut inputs = part_paths(&args.model);
    inputs.extend(args.against.iter().flat_map(|path| part_paths(path)));
    inputs.push(args.text.clone());
    let trace = output::trace(&args.output, &inputs, &mut options)?;
    let mut model = load(&args.model, &options)?;
    let mut other = match &args.against {
        None => None,
        Some(path) => {
            let other = load(path, &reference_options(args, environment))?;
            same_vocabulary(model.vocab(), other.vocab())?;
            Some(other)
        }
    };
    let chunks = chunks(&text, model.vocab(), args)?;
    let scores = score(&mut model, other.as_mut(), &chunks)?;
    drop(model); // which writes the rest of the trace
    trace.map(Output::commit).transpose()?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &scores.json(args, chunks.len()))?;
        writeln!(out)?;
    } else {
        out.write_all(scores.text(args, chunks.len()).as_bytes())?;
    }
    Ok(out.flush()?)
}

fn load(path: &Path, options: &Options) -> anyhow::Result<Engine> {
    let source = Source::File(path.to_owned());
    Ok(terminal::loading(|progress| Engine::load(&source, options, progress))?)
}

/// The reference is computed with the file's settings, by the same threads.
fn reference_options(args: &PerplexityArgs, environment: &Environment) -> Options {
    let with_file_settings = ModelArgs {
        threads: args.computation.threads,
        experts: None,
        expert_groups: GroupsArg::Auto,
        kv_type: None,
        memory: args.computation.memory,
        stream: args.computation.stream,
        huge_pages: false,
        numa: args.computation.numa,
        pin: args.computation.pin,
        guess_experts: false,
        prefer_cached: false,
        reproducible: false,
        exact: false,
    };
    model_options(&with_file_settings, environment)
}

/// # Errors
/// If the tokens differ.
fn same_vocabulary(one: &Vocab, other: &Vocab) -> anyhow::Result<()> {
    if one.len() != other.len() {
        bail!("the models have vocabularies of {} and {} tokens", one.len(), other.len());
    }
    let differ = |id: &u32| one.token_bytes(*id) != other.token_bytes(*id);
    if let Some(id) = (0..one.len() as u32).find(differ) {
        let [one, other] = [one, other].map(|vocab| vocab.token_text(Some(id)));
        bail!("the models have different vocabularies: token {id} is {one:?} and {other:?}");
    }
    Ok(())
}

/// The chunks of the text, each `ctx` tokens long; a shorter rest is not scored.
fn chunks(text: &str, vocab: &Vocab, args: &PerplexityArgs) -> anyhow::Result<Vec<Vec<u32>>> {
    let bos = vocab.bos().filter(|_| vocab.add_bos());
    let mut tokens: Vec<u32> = bos.into_iter().collect();
    tokens.extend(vocab.encode(text, false)?);
    let begin_with_bos = |chunk: &[u32]| {
        let mut chunk = chunk.to_vec();
        chunk[0] = bos.unwrap_or(chunk[0]); // replaces a token, as in llama.cpp
        chunk
    };
    let most = args.chunks.unwrap_or(usize::MAX);
    let chunks: Vec<_> = tokens.chunks_exact(args.ctx).take(most).map(begin_with_bos).collect();
    if chunks.is_empty() {
        bail!(
            "{} has {} tokens, fewer than one chunk of {}: use a longer text or a smaller --ctx, and \
             --chunks of at least 1",
            args.text.display(),
            tokens.len(),
            args.ctx
        );
    }
    Ok(chunks)
}

/// Runs every chunk through the model, and then through the reference.
fn score(
    model: &mut Engine,
    mut other: Option<&mut Engine>,
    chunks: &[Vec<u32>],
) -> anyhow::Result<Scores> {
    let models = 1 + u64::from(other.is_some());
    let all = chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>() * models;
    let mut progress = Progress::new("computing");
    let mut done = 0;
    let mut advance = |tokens: usize| {
        done += tokens as u64;
        progress.set(done, all);
    };
    let mut scores = Scores::default();
    for chunk in chunks {
        let logits = second_half(model, chunk, &mut advance)?;
        let reference = match &mut other {
            None => None,
            Some(other) => Some(second_half(other, chunk, &mut advance)?),
        };
        // Each row predicts the next token.
        let nexts = &chunk[chunk.len() / 2 + 1..];
        scores.add(nexts, &logits, reference.as_deref())?;
    }
    Ok(scores)
}

/// The logits from the middle of a chunk to its second last token, `[rows, vocabulary]`.
fn second_half(
    engine: &mut Engine,
    chunk: &[u32],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f32>, Error> {
    let vocabulary = engine.vocab().len();
    let wanted = chunk.len() / 2 * vocabulary..(chunk.len() - 1) * vocabulary;
    let mut kept = Vec::with_capacity(wanted.len());
    let mut start = 0;
    engine.logits(chunk, &AtomicBool::new(false), |logits| -> Result<(), Error> {
        let end = start + logits.len();
        let [from, to] = [wanted.start, wanted.end].map(|at| at.clamp(start, end) - start);
        kept.extend_from_slice(&logits[from..to]);
        start = end;
        progress(logits.len() / vocabulary);
        Ok(())
    })?;
    Ok(kept)
}

/// The logits of one token, and their normalization.
struct Row<'a> {
    logits: &'a [f32],
    /// Logarithm of the sum of the exponentials.
    log_sum: f64,
}

impl<'a> Row<'a> {
    /// # Errors
    /// [`Error::NotFinite`] if any logit is NaN or infinite.
    fn new(logits: &'a [f32]) -> Result<Self, Error> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
        let log_sum = f64::from(max) + sum.ln();
        if log_sum.is_finite() { Ok(Self { logits, log_sum }) } else { Err(Error::NotFinite) }
    }

    /// Negative log-likelihood of this token, in nats.
    fn loss(&self, token: u32) -> f64 {
        self.log_sum - f64::from(self.logits[token as usize])
    }

    /// The Kullback-Leibler divergence of `other` from this distribution, in nats:
    /// the sum of `p (ln p - ln q)`, p being ours and q theirs.
    fn divergence(&self, other: &Row<'_>) -> f64 {
        let logs = self
            .logits
            .iter()
            .zip(other.logits)
            .map(|(&p, &q)| (f64::from(p) - self.log_sum, f64::from(q) - other.log_sum));
        logs.map(|(p, q)| p.exp() * (p - q)).sum()
    }

    /// The most likely token.
    fn best(&self) -> Option<usize> {
        let by_logit = |a: &(usize, &f32), b: &(usize, &f32)| a.1.total_cmp(b.1);
        self.logits.iter().enumerate().max_by(by_logit).map(|(id, _)| id)
    }
}

/// A mean and its standard error.
#[derive(Debug, Default)]
struct Mean {
    count: f64,
    mean: f64,
    /// Sum of squared distances from the mean (Welford 1962).
    squares: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        let distance = value - self.mean;
        self.count += 1.0;
        self.mean += distance / self.count;
        self.squares += distance * (value - self.mean);
    }

    /// Standard error of the mean; 0 for a single value.
    fn error(&self) -> f64 {
        let variance = self.squares / (self.count - 1.0).max(1.0);
        (variance / self.count.max(1.0)).sqrt()
    }

    /// Perplexity of a mean loss, and its standard error to first order.
    fn perplexity(&self) -> (f64, f64) {
        let perplexity = self.mean.exp();
        (perplexity, perplexity * self.error())
    }
}

/// Sums over all scored tokens.
#[derive(Debug, Default)]
struct Scores {
    loss: Mean,
    against: Option<Against>,
}

#[derive(Debug, Default)]
struct Against {
    loss: Mean,
    divergence: Mean,
    /// 1 where both models have the same most likely token, else 0.
    agreement: Mean,
}

impl Scores {
    /// Scores tokens by the logits `[nexts, vocabulary]` that predict them.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if any logit is NaN or infinite.
    fn add(
        &mut self,
        nexts: &[u32],
        logits: &[f32],
        reference: Option<&[f32]>, // [nexts, vocabulary]
    ) -> Result<(), Error> {
        let vocabulary = logits.len() / nexts.len();
        for (i, &next) in nexts.iter().enumerate() {
            let at = i * vocabulary..(i + 1) * vocabulary;
            let row = Row::new(&logits[at.clone()])?;
            self.loss.add(row.loss(next));
            if let Some(reference) = reference {
                let reference = Row::new(&reference[at])?;
                let against = self.against.get_or_insert_default();
                against.loss.add(reference.loss(next));
                against.divergence.add(reference.divergence(&row));
                against.agreement.add(f64::from(reference.best() == row.best()));
            }
        }
        Ok(())
    }

    fn json(&self, args: &PerplexityArgs, chunks: usize) -> Value {
        let (perplexity, error) = self.loss.perplexity();
        let against = self.against.as_ref().map(|against| {
            let (perplexity, error) = against.loss.perplexity();
            json!({
                "model": args.against,
                "perplexity": perplexity,
                "perplexity_error": error,
                "mean_kl_divergence": against.divergence.mean,
                "mean_kl_divergence_error": against.divergence.error(),
                "top_1_agreement": against.agreement.mean,
                "top_1_agreement_error": against.agreement.error(),
            })
        });
        json!({
            "model": args.model,
            "text": args.text,
            "chunks": chunks,
            "chunk_tokens": args.ctx,
            "scored_tokens": self.loss.count as u64,
            "perplexity": perplexity,
            "perplexity_error": error,
            "against": against,
        })
    }

    fn text(&self, args: &PerplexityArgs, chunks: usize) -> String {
        let mut page = format!(
            "{} tokens scored: the second half of {chunks} {} of {} tokens, as llama.cpp does\n\n",
            self.loss.count,
            if chunks == 1 { "chunk" } else { "chunks" },
            args.ctx
        );
        let mut line = |name: &str, (value, error): (f64, f64), digits: usize, unit: &str| {
            page += &format!("{name:<28}{value:>12.digits$} ± {error:.digits$}{unit}\n");
        };
        line("perplexity", self.loss.perplexity(), 4, "");
        if let Some(Against { loss, divergence, agreement }) = &self.against {
            line("perplexity of the reference", loss.perplexity(), 4, "");
            line("KL divergence from it", (divergence.mean, divergence.error()), 6, " nats");
            let percent = (100.0 * agreement.mean, 100.0 * agreement.error());
            line("same most likely token", percent, 2, " %");
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_losses_and_divergences() {
        let even = Row::new(&[5.0, 5.0, 5.0, 5.0]).unwrap();
        assert!((even.loss(2) - 4f64.ln()).abs() < 1e-12);
        let (p, q) = ([3f32.ln(), 0.0], [0.0, 0.0]); // 3/4 and 1/4; 1/2 and 1/2
        let (p, q) = (Row::new(&p).unwrap(), Row::new(&q).unwrap());
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((p.divergence(&q) - expected).abs() < 1e-7);
        assert_eq!(p.divergence(&p), 0.0);
        assert_eq!(p.best(), Some(0));
        assert!(Row::new(&[0.0, f32::NAN]).is_err());
        assert!(Row::new(&[f32::NEG_INFINITY; 2]).is_err());
    }

    #[test]
    fn the_standard_error_of_a_mean() {
        let mut mean = Mean::default();
        [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].iter().for_each(|&value| mean.add(value));
        assert_eq!(mean.mean, 5.0);
        assert!((mean.error() - (32f64 / 7.0 / 8.0).sqrt()).abs() < 1e-12);
    }
}
