//! Recorded routing, replayed with caches of other sizes and other policies.
//!
//! The bookkeeping is the cache's own ([`Residency`]), so that what is found here is what a run
//! will do. The optimum, which knows the future, tells how much there is to gain at all.

mod generate;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use cachalot_store::policy::{Belady, Frequency, Lru, Policy};
use cachalot_store::trace::Trace;
use cachalot_store::{Frames, Place, Residency};
use clap::{Parser, ValueEnum};

pub(crate) use generate::run as run_generate;

/// Replay a trace of routing (`cachalot run --trace FILE`) and print hit rates.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask replay", bin_name = "cargo xtask replay")]
struct Args {
    /// The trace
    file: PathBuf,
    /// Sizes of the cache, as shares of all experts or as numbers of them
    #[arg(long, value_delimiter = ',', default_value = "5%,10%,15%,20%,25%,30%,40%,50%,75%")]
    cache: Vec<String>,
    /// Policies to compare
    #[arg(long, value_enum, value_delimiter = ',', default_value = "lru,frequency,optimum")]
    policy: Vec<Name>,
}

/// A policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The expert that was not picked for the longest time leaves first
    Lru,
    /// Decayed frequency and recency: the one in use
    Frequency,
    /// The expert that is needed again last leaves first (Belady): no policy can do better
    Optimum,
}

impl Name {
    fn title(self) -> &'static str {
        match self {
            Self::Lru => "LRU",
            Self::Frequency => "frequency",
            Self::Optimum => "optimum",
        }
    }

    fn policy(self, experts: usize, trace: &Trace) -> Box<dyn Policy> {
        match self {
            Self::Lru => Box::new(Lru::new(experts)),
            Self::Frequency => Box::new(Frequency::new(experts)),
            Self::Optimum => Box::new(Belady::new(experts, numbers(trace).into_iter())),
        }
    }
}

/// Runs `cargo xtask replay` with these arguments, the first of which is the program's name.
pub(crate) fn run(args: impl IntoIterator<Item = String>) -> Result<()> {
    let args = Args::parse_from(args);
    let bytes = std::fs::read(&args.file).with_context(|| args.file.display().to_string())?;
    let trace = Trace::read(&bytes).with_context(|| args.file.display().to_string())?;
    let all = experts(&trace);
    let sizes = args.cache.iter().map(|text| size(text, all)).collect::<Result<Vec<_>>>()?;
    print!("{}", table(&trace, &sizes, &args.policy));
    Ok(())
}

/// Experts of all layers.
fn experts(trace: &Trace) -> usize {
    usize::from(trace.header.layers) * usize::from(trace.header.experts)
}

/// `25%` of `all`, or `300`.
fn size(text: &str, all: usize) -> Result<usize> {
    let size = match text.trim().strip_suffix('%') {
        Some(share) => share.trim().parse::<f64>().ok().map(|share| all as f64 * share / 100.0),
        None => text.trim().parse().ok(),
    };
    match size {
        Some(size) if size >= 1.0 && size <= all as f64 => Ok(size as usize),
        _ => bail!("`{text}`: a share such as 25%, or a number of experts from 1 to {all}"),
    }
}

/// The picks of all tokens, as numbers of experts, in order.
fn numbers(trace: &Trace) -> Vec<usize> {
    let (used, experts) = (usize::from(trace.header.used), usize::from(trace.header.experts));
    let token = |picks: &[u16]| -> Vec<usize> {
        let picks = picks.iter().enumerate();
        picks.map(|(at, &pick)| at / used * experts + usize::from(pick)).collect()
    };
    trace.tokens().flat_map(token).collect()
}

/// The share of picks that find their expert in a cache of `size` experts.
fn hit_rate<P: Policy>(trace: &Trace, size: usize, policy: P) -> f64 {
    let header = trace.header;
    let (layers, used) = (usize::from(header.layers), usize::from(header.used));
    let frames = Frames::of_one_class(layers, usize::from(header.experts), used, size);
    let mut residency = Residency::new(&frames, policy);
    let (mut hits, mut all) = (0_u64, 0_u64);
    for token in trace.tokens() {
        residency.policy().advance(1);
        for (layer, picks) in token.chunks_exact(used).enumerate() {
            let number = |&pick: &u16| layer * frames.experts + usize::from(pick);
            picks.iter().for_each(|pick| residency.policy().touch(number(pick), 0));
            residency.rank_again();
            // What is there stays while the others come.
            let there: Vec<usize> =
                picks.iter().filter_map(|pick| residency.frame(number(pick))).collect();
            there.iter().for_each(|&frame| residency.pin(frame));
            hits += there.len() as u64;
            all += picks.len() as u64;
            for pick in picks {
                if residency.place(number(pick)) == Place::Full {
                    break; // so small a cache computes them one after the other
                }
            }
            there.iter().for_each(|&frame| residency.unpin(frame));
        }
    }
    if all == 0 { 0.0 } else { hits as f64 / all as f64 }
}

/// A line for each size, a column for each policy, and how far ours is from the optimum.
fn table(trace: &Trace, sizes: &[usize], policies: &[Name]) -> String {
    let header = trace.header;
    let mut text = format!(
        "{} tokens, {} layers of {} experts, {} picked in each\n\n{:>8}{:>9}",
        trace.tokens().len(),
        header.layers,
        header.experts,
        header.used,
        "experts",
        "share"
    );
    policies.iter().for_each(|name| _ = write!(text, "{:>11}", name.title()));
    let of = |name: Name| policies.iter().position(|&other| other == name);
    let compared = of(Name::Frequency).zip(of(Name::Optimum));
    text += if compared.is_some() { "   left to gain\n" } else { "\n" };
    for &size in sizes {
        let share = 100.0 * size as f64 / experts(trace) as f64;
        _ = write!(text, "{size:>8}{share:>7.1} %");
        let rate = |name: &Name| 100.0 * hit_rate(trace, size, name.policy(experts(trace), trace));
        let rates: Vec<f64> = policies.iter().map(rate).collect();
        rates.iter().for_each(|rate| _ = write!(text, "{rate:>9.2} %"));
        if let Some((frequency, optimum)) = compared {
            _ = write!(text, "{:>8.2} points", rates[optimum] - rates[frequency]);
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(tokens: usize) -> Trace {
        let mut bytes = Vec::new();
        let mut routing = generate::Routing::R1;
        routing.layers = 4;
        routing.write(tokens, 7, &mut bytes).unwrap();
        Trace::read(&bytes).unwrap()
    }

    /// What the policy is for: popularity as the synthetic models have it, 30 % repeats.
    #[test]
    fn frequency_beats_lru_by_three_points_and_nothing_beats_the_optimum() {
        let trace = generated(1200);
        for share in [0.15, 0.25, 0.4] {
            let size = (experts(&trace) as f64 * share) as usize;
            let rate = |name: Name| hit_rate(&trace, size, name.policy(experts(&trace), &trace));
            let [lru, frequency, optimum] = [Name::Lru, Name::Frequency, Name::Optimum].map(rate);
            assert!(frequency > lru + 0.03, "at {share}: {frequency} over {lru}");
            assert!(optimum > frequency, "at {share}: {optimum} over {frequency}");
        }
    }

    #[test]
    fn a_cache_that_holds_all_misses_each_expert_once() {
        let trace = generated(50);
        let mut distinct = numbers(&trace);
        let all = distinct.len();
        distinct.sort_unstable();
        distinct.dedup();
        let rate = hit_rate(&trace, experts(&trace), Lru::new(experts(&trace)));
        assert!((rate - (1.0 - distinct.len() as f64 / all as f64)).abs() < 1e-12);
    }

    #[test]
    fn below_one_cycle_a_layer_finds_half_of_its_experts() {
        // Two layers, each of which picks the same two experts with every token: four in turn. With
        // room for three, one of each layer's survives, for what is there is kept before others
        // enter.
        let header = cachalot_store::trace::Header { layers: 2, experts: 8, used: 2 };
        let mut writer = cachalot_store::trace::TraceWriter::new(Vec::new(), header).unwrap();
        (0..20).for_each(|_| writer.token(&[0, 1, 2, 3]).unwrap());
        let trace = Trace::read(&writer.finish().unwrap()).unwrap();
        assert!(hit_rate(&trace, 4, Lru::new(16)) > 0.9);
        let lru = hit_rate(&trace, 3, Lru::new(16));
        let optimum = hit_rate(&trace, 3, Name::Optimum.policy(16, &trace));
        assert!((0.4..0.5).contains(&lru) && optimum > lru, "{lru} and {optimum}");
    }

    #[test]
    fn sizes_are_shares_or_numbers() {
        assert_eq!(size("25%", 1000).unwrap(), 250);
        assert_eq!(size(" 17 ", 1000).unwrap(), 17);
        for bad in ["0", "1001", "101%", "x", "-5%", "NaN"] {
            assert!(size(bad, 1000).is_err(), "{bad}");
        }
    }
}
