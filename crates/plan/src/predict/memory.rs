//! What decoding reads from main memory per second: the least of what channels, measurements,
//! chiplets and unpacking allow.

use super::attention::instructions;
use super::{Part, RuntimeProfile, Unknown, What};
use crate::classes;
use crate::constants::Constants;
use crate::machine::Machine;
use crate::model::{Encoded, ModelFacts, UnpackCost};
use crate::{processors, units};

/// Memory channels of a machine of which only the speed of its memory is known.
pub(super) const CHANNELS_ASSUMED: u32 = 2;
/// The most memory that a desktop has.
const DESKTOP_MAX: u64 = 256 << 30;

/// Bytes per second, and where the number comes from.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    pub(super) bytes_per_second: f64,
    pub(super) formula: String,
}

impl Rate {
    pub(super) fn share(share: f64, of: f64, what: &str) -> Self {
        let formula = format!("{share:.2} of {} {what}", units::rate(of));
        Self { bytes_per_second: share * of, formula }
    }

    pub(super) fn at_most(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.bytes_per_second < self.bytes_per_second => other,
            _ => self,
        }
    }

    pub(super) fn part(&self, what: What, bytes: u64) -> Part {
        let formula = format!("{} / ({})", units::gigabytes(bytes as f64), self.formula);
        Part { what, bytes, seconds: bytes as f64 / self.bytes_per_second, formula }
    }
}

/// What decoding reads from main memory: the least of what channels, measurements and chiplets
/// allow.
pub(super) fn ram(
    machine: &Machine,
    hybrid: bool,
    profile: RuntimeProfile,
    constants: &Constants,
    assumed: &mut Vec<String>,
) -> Result<Rate, Unknown> {
    let (memory, processor) = (&machine.memory, &machine.processor);
    if let Some(measured) = memory.read_bytes_per_second.filter(|_| memory.measured_here) {
        return Ok(Rate::share(classes::SHARE_MEASURED, measured, "as measured here"));
    }
    let sockets = f64::from(processor.sockets());
    let best = channels(machine, assumed).map(|channels| of_channels(channels, hybrid, constants));
    let reported = memory
        .read_bytes_per_second
        .map(|rate| Rate::share(constants.share_reported, rate, "as reported"));
    let name = processor.name.as_deref().unwrap_or_default();
    let per_chiplet = processor.platform().and_then(|platform| platform.chiplet_rate);
    let chiplets = processors::chiplet_count(name).zip(per_chiplet);
    let chiplets = chiplets.map(|(count, rate)| {
        let all = f64::from(count) * rate * sockets;
        Rate::share(constants.share_reported, all, &format!("({count} chiplets per socket)"))
    });
    let first = best.or_else(|| reported.clone()).ok_or(Unknown::Bandwidth)?;
    let cores = processor.cores().map(|cores| {
        let each = units::rate(classes::CORE_READS);
        Rate {
            bytes_per_second: f64::from(cores) * classes::CORE_READS,
            formula: format!("{cores} cores x {each} at best"),
        }
    });
    let first = first.at_most(cores);
    Ok(over_sockets(first.at_most(reported).at_most(chiplets), sockets, profile, constants))
}

/// Memory channels of all sockets.
#[derive(Clone, Copy)]
pub(crate) struct Channels {
    pub(crate) count: u32,
    /// Transfers of 8 bytes in a second, in millions.
    pub(crate) mts: u32,
    /// Whether one of the two was not stated.
    pub(crate) is_assumed: bool,
}

/// The channels that are stated; or those of the platform; or two where only the speed is stated,
/// as desktops and laptops have.
pub(super) fn channels(machine: &Machine, assumed: &mut Vec<String>) -> Option<Channels> {
    let (memory, processor) = (&machine.memory, &machine.processor);
    if let (Some(channels), Some(mts)) = (memory.channels, memory.speed_mts) {
        return Some(Channels { count: channels, mts, is_assumed: false });
    }
    if let Some(platform) = processor.platform() {
        let channels = memory.channels.unwrap_or(platform.channels * processor.sockets());
        let mts = memory.speed_mts.unwrap_or(platform.speed_mts);
        let name = platform.name;
        assumed.push(format!("{channels} memory channels at {mts} MT/s, as {name} has at best"));
        return Some(Channels { count: channels, mts, is_assumed: true });
    }
    // A rate that somebody measured says more than a guess.
    let is_desktop = memory.total_bytes.is_none_or(|bytes| bytes <= DESKTOP_MAX);
    let mts = memory.speed_mts.filter(|_| memory.read_bytes_per_second.is_none() && is_desktop)?;
    assumed.push(format!("{CHANNELS_ASSUMED} memory channels, as desktops have"));
    Some(Channels { count: CHANNELS_ASSUMED, mts, is_assumed: true })
}

/// What decoding reaches of the bandwidth of `channels` at a rate in MT/s. A few fast cores use two
/// channels better than many cores use eight; but three channels are never slower than two.
fn of_channels(channels: Channels, hybrid: bool, constants: &Constants) -> Rate {
    let Channels { count: channels, mts, is_assumed } = channels;
    let assumed = if is_assumed { ", assumed" } else { "" };
    let rate = |share: f64, channels: u32| {
        let all = f64::from(channels) * f64::from(mts) * 8e6;
        Rate::share(share, all, &format!("({channels} channels x {mts} MT/s x 8 bytes{assumed})"))
    };
    let of_two = rate(constants.share_desktop, channels.min(2));
    let share = if hybrid { constants.share_hybrid } else { constants.share_processor };
    let of_all = rate(share, channels);
    if channels > 2 && of_all.bytes_per_second > of_two.bytes_per_second { of_all } else { of_two }
}

/// Several sockets do not add up: their links carry less than their memory delivers.
fn over_sockets(all: Rate, sockets: f64, profile: RuntimeProfile, constants: &Constants) -> Rate {
    if sockets < 2.0 {
        return all;
    }
    let one = all.bytes_per_second / sockets;
    // Where the links keep up, and where they do not: faster sockets are never slower together.
    let slow = constants.sockets_slow * one.min(classes::SOCKET_SLOW * constants.share_processor);
    let spread = constants.sockets_spread * one;
    let (rate, how) = if profile.copies_per_socket {
        (constants.sockets_own * one, "each reading its own memory")
    } else if slow > spread {
        (slow, "links that keep up")
    } else {
        (spread, "weights spread over all")
    };
    let formula =
        format!("{:.1} sockets' worth ({how}) of {sockets:.0} with {}", rate / one, all.formula);
    Rate { bytes_per_second: rate, formula }
}

/// What unpacking allows, where it and not memory is the limit.
pub(super) fn kernel_rate(
    machine: &Machine,
    model: &ModelFacts,
    constants: &Constants,
) -> Option<Rate> {
    instructions(machine)?;
    let cores = f64::from(machine.processor.cores()?);
    let (per_core, what) = match model.decoding {
        UnpackCost::Plain => return None,
        UnpackCost::Codebook => (constants.codebook, "codebook"),
        UnpackCost::Trellis => (constants.trellis, "trellis"),
    };
    let all = cores * per_core;
    let formula = if all < constants.unpacked_max {
        format!("{cores:.0} cores x {} of unpacking a {what} format", units::rate(per_core))
    } else {
        format!("{} of unpacking a {what} format", units::rate(constants.unpacked_max))
    };
    Some(Rate { bytes_per_second: all.min(constants.unpacked_max), formula })
}

/// Time of `bytes` that are shared out over formats, each at the rate at which this machine was
/// measured to multiply it, which memory or unpacking limits; `None` if no such rates or shares are
/// known.
pub(super) fn by_format(
    machine: &Machine,
    what: What,
    bytes: u64,
    formats: &[Encoded],
    memory: &Rate,
) -> Option<Part> {
    let rates = &machine.processor.decode_bytes_per_second;
    if !machine.memory.measured_here || rates.is_empty() || formats.is_empty() {
        return None;
    }
    let all: u64 = formats.iter().map(|encoded| encoded.per_token).sum();
    let (mut seconds, mut formulas) = (0.0, Vec::new());
    for Encoded { format, per_token } in formats {
        let bytes = bytes as f64 * *per_token as f64 / all.max(1) as f64;
        let measured = rates.get(format).filter(|rate| **rate > 0.0);
        let rate = match measured {
            Some(rate) => Rate::share(classes::SHARE_KERNELS, *rate, "as measured here"),
            None => memory.clone(),
        };
        seconds += bytes / rate.bytes_per_second;
        formulas.push(format!("{} of {format} / ({})", units::gigabytes(bytes), rate.formula));
    }
    Some(Part { what, bytes, seconds, formula: formulas.join(" + ") })
}
