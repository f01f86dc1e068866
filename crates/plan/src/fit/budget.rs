//! How much memory a model may use: what is free or allowed, less what the program, the system and
//! the drivers of cards need.

use serde::Serialize;

use crate::machine::Machine;
use crate::units;

/// Memory that may be used, in bytes: free memory minus [`headroom`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoryBudget {
    /// Of all graphics cards together.
    pub vram: u64,
    /// Main memory.
    pub ram: u64,
    /// Whether there is a drive to stream from.
    pub drive: bool,
    /// Threads that compute, each with buffers of its own.
    pub threads: u64,
    /// Where the number for main memory comes from.
    pub origin: BudgetOrigin,
}

/// Where a budget comes from, so that errors can say what was kept back and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetOrigin {
    /// A plain number.
    #[default]
    Stated,
    /// The user's limit.
    Asked {
        /// The limit.
        asked: u64,
        /// Kept for the program itself.
        reserved: u64,
        /// Graphics memory besides.
        vram: u64,
    },
    /// What is free now.
    Free {
        /// Free bytes.
        available: u64,
        /// Left free for the system.
        headroom: u64,
        /// Graphics memory besides.
        vram: u64,
    },
}

impl std::fmt::Display for BudgetOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let vram = match *self {
            Self::Stated => return Ok(()),
            Self::Asked { asked, reserved, vram } => {
                let [asked, reserved] = [asked, reserved].map(units::bytes);
                write!(f, " (of the {asked} asked for, {reserved} are reserved for the program ")?;
                write!(f, "itself: code, vocabulary, stacks")?;
                vram
            }
            Self::Free { available, headroom, vram } => {
                let [available, headroom] = [available, headroom].map(units::bytes);
                write!(f, " (of {available} available, {headroom} are left for the system")?;
                vram
            }
        };
        if vram > 0 {
            write!(f, "; {} are graphics memory", units::bytes(vram))?;
        }
        f.write_str(")")
    }
}

/// Memory of the program itself, with a vocabulary of 129,280 tokens and stacks of threads.
const PROGRAM_BYTES: u64 = 96 << 20;

/// Bytes of a limit of `memory` that are reserved for the program itself: less where the limit is
/// small, since only small models, with small vocabularies, are run so.
pub fn program_bytes(memory: u64) -> u64 {
    PROGRAM_BYTES.min(memory / 2)
}

/// Bytes of a card taken by its driver and by scratch buffers, and the usable percentage of the
/// card (the rest is lost to fragmentation).
const CARD_OWN: u64 = 3 << 29;
const CARD_SHARE: (u64, u64) = (95, 100);
/// The part of unified memory that the GPU may use.
const UNIFIED_SHARE: (u64, u64) = (7, 8);

impl MemoryBudget {
    /// The main memory of a machine of which `available` bytes are free, without graphics cards.
    pub fn free(available: u64) -> Self {
        let headroom = headroom(available);
        let origin = BudgetOrigin::Free { available, headroom, vram: 0 };
        Self { ram: available - headroom, vram: 0, drive: true, threads: 0, origin }
    }

    /// A limit that the user set, without graphics cards.
    pub fn limited(asked: u64) -> Self {
        let reserved = program_bytes(asked);
        let origin = BudgetOrigin::Asked { asked, reserved, vram: 0 };
        Self { ram: asked - reserved, vram: 0, drive: true, threads: 0, origin }
    }

    /// What `machine` offers, with the user's limit if there is one.
    pub fn of(machine: &Machine, limit: Option<u64>) -> Self {
        // A drive of unknown rate is a drive: prediction asks for its rate.
        let drive = !machine.drives.is_empty();
        let threads = machine.processor.cores().unwrap_or(0).into();
        let share = |bytes: u64, (part, whole): (u64, u64)| bytes / whole * part;
        if let Some(gpu) = machine.unified() {
            let all = gpu.memory_bytes.saturating_mul(gpu.count.into());
            let vram = share(all, UNIFIED_SHARE).min(limit.unwrap_or(u64::MAX));
            return Self { vram, ram: 0, drive, threads, ..Self::default() };
        }
        let card = |memory| share(memory, CARD_SHARE).saturating_sub(CARD_OWN);
        let cards =
            machine.gpus.iter().map(|gpu| card(gpu.memory_bytes).saturating_mul(gpu.count.into()));
        let vram = cards.fold(0, u64::saturating_add);
        let mut main = match limit {
            Some(limit) => Self::limited(limit),
            None => Self::free(machine.memory.usable().unwrap_or(0)),
        };
        if let BudgetOrigin::Free { vram: of, .. } | BudgetOrigin::Asked { vram: of, .. } =
            &mut main.origin
        {
            *of = vram;
        }
        Self { vram, drive, threads, ..main }
    }
}

/// Bytes of `available` memory to leave free. Close to the limit the kernel reclaims pages of this
/// process, and everything slows down several times; streaming engines leave about 6 %. Small
/// containers, which hold small models, need less than a desktop with its other programs.
pub fn headroom(available: u64) -> u64 {
    (available / 16).clamp((available / 8).min(256 << 20), 8 << 30)
}
