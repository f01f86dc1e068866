//! Traces with the skew and the locality that were published for models like R1, of which no trace
//! was: popularity as the synthetic models have it, and picks that the previous token had as well.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use cachalot_store::trace::{Header, TraceWriter};
use clap::Parser;

use crate::synth::{ROUTER_DEVIATION, Random};

/// Write a trace of routing as models of R1's kind have it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask trace", bin_name = "cargo xtask trace")]
struct Args {
    /// The file to write
    out: PathBuf,
    /// Tokens
    #[arg(long, default_value_t = 2000)]
    tokens: usize,
    /// Layers with experts
    #[arg(long, default_value_t = Routing::R1.layers,
          value_parser = clap::value_parser!(u16).range(1..))]
    layers: u16,
    /// Standard deviation of the selection bias, the more the unevener
    #[arg(long, default_value_t = Routing::R1.skew)]
    skew: f32,
    /// Share of picks that repeat one of the previous token's
    #[arg(long, default_value_t = Routing::R1.repeats)]
    repeats: f32,
    /// The same seed gives the same trace
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// How tokens are routed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routing {
    pub(super) layers: u16,
    experts: u16,
    used: u16,
    groups: u16,
    groups_used: usize,
    skew: f32,
    repeats: f32,
}

/// Runs `cargo xtask trace` with these arguments, the first of which is the program's name.
pub(crate) fn run(args: impl IntoIterator<Item = String>) -> Result<()> {
    let args = Args::parse_from(args);
    let place = || args.out.display().to_string();
    let routing =
        Routing { layers: args.layers, skew: args.skew, repeats: args.repeats, ..Routing::R1 };
    let out = BufWriter::new(File::create(&args.out).with_context(place)?);
    routing.write(args.tokens, args.seed, out).with_context(place)
}

impl Routing {
    /// Repeats: 29 to 36 % were measured on models of 256 experts with 8 picks.
    pub(super) const R1: Self = Self {
        layers: 58,
        experts: 256,
        used: 8,
        groups: 8,
        groups_used: 4,
        skew: 0.075,
        repeats: 0.3,
    };

    pub(super) fn write(&self, tokens: usize, seed: u64, out: impl Write) -> Result<()> {
        let &Self { layers, experts, used, .. } = self;
        let mut writer = TraceWriter::new(out, Header { layers, experts, used })?;
        let mut bias = vec![vec![0.0; usize::from(experts)]; usize::from(layers)];
        for (layer, bias) in bias.iter_mut().enumerate() {
            Random::new(seed, layer as u64).fill_normal(bias);
            bias.iter_mut().for_each(|b| *b *= self.skew);
        }
        let mut random = Random::new(seed, u64::MAX);
        let mut picks = vec![0; usize::from(layers) * usize::from(used)];
        for token in 0..tokens {
            for (bias, picks) in bias.iter().zip(picks.chunks_exact_mut(usize::from(used))) {
                let before: Vec<u16> = if token > 0 { picks.to_vec() } else { Vec::new() };
                self.pick(bias, &before, &mut random, picks);
            }
            writer.token(&picks)?;
        }
        writer.finish()?;
        Ok(())
    }

    /// Routing for one token in one layer, after those of the token before.
    fn pick(&self, bias: &[f32], before: &[u16], random: &mut Random, picks: &mut [u16]) {
        let mut scores = vec![0.0; bias.len()];
        random.fill_normal(&mut scores);
        for (score, bias) in scores.iter_mut().zip(bias) {
            *score = 1.0 / (1.0 + (-ROUTER_DEVIATION * *score).exp()) + bias;
        }
        let fresh = self.best(&scores);
        let mut fresh = fresh.into_iter();
        let mut taken: Vec<u16> = Vec::with_capacity(picks.len());
        let repeated =
            |random: &mut Random| random.below(1 << 20) < (self.repeats * 1048576.0) as usize;
        for &old in before {
            if repeated(random) {
                taken.push(old);
            }
        }
        while taken.len() < picks.len() {
            match fresh.next() {
                Some(pick) if !taken.contains(&pick) => taken.push(pick),
                Some(_) => {}
                None => break,
            }
        }
        picks.copy_from_slice(&taken);
    }

    /// The best experts of the best groups, twice as many as are picked: some may be taken.
    fn best(&self, scores: &[f32]) -> Vec<u16> {
        let size = scores.len() / usize::from(self.groups);
        let mut groups: Vec<(f32, usize)> = scores
            .chunks_exact(size)
            .enumerate()
            .map(|(group, scores)| {
                let mut sorted = scores.to_vec();
                sorted.sort_by(|a, b| b.total_cmp(a));
                (sorted[0] + sorted[1], group)
            })
            .collect();
        groups.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut best: Vec<usize> = groups[..self.groups_used]
            .iter()
            .flat_map(|(_, group)| group * size..(group + 1) * size)
            .collect();
        best.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        best.iter().take(2 * usize::from(self.used)).map(|&expert| expert as u16).collect()
    }
}

#[cfg(test)]
mod tests {
    use cachalot_store::trace::Trace;

    use super::*;

    #[test]
    fn skew_and_repeats_are_as_published() {
        let mut bytes = Vec::new();
        Routing { layers: 2, ..Routing::R1 }.write(3000, 1, &mut bytes).unwrap();
        let trace = Trace::read(&bytes).unwrap();
        let tokens: Vec<&[u16]> = trace.tokens().collect();
        let (mut counts, mut repeats, mut pairs) = ([0_usize; 256], 0, 0);
        for pair in tokens.windows(2) {
            for pick in &pair[1][..8] {
                counts[usize::from(*pick)] += 1;
                repeats += usize::from(pair[0][..8].contains(pick));
                pairs += 1;
            }
        }
        let repeats = repeats as f64 / pairs as f64;
        assert!((0.3..0.42).contains(&repeats), "{repeats} of the picks are repeats");
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let hottest = counts[..64].iter().sum::<usize>() as f64 / pairs as f64;
        assert!((0.62..0.78).contains(&hottest), "the hottest quarter gets {hottest}");
        assert!(tokens.iter().all(|token| (0..8).all(|i| !token[..i].contains(&token[i]))));
    }
}
