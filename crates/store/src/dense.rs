//! Loads the weights that every token reads into anonymous memory, with the reader that will stream
//! experts.
//!
//! The page cache would evict mapped pages under the pressure of expert traffic, and read them
//! again for every token. Loading also calibrates the reader: it tries several queue depths on
//! consecutive parts of the data and keeps the smallest depth that is about as fast as the fastest.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachalot_gguf::split::PartTensor;

use crate::io::{Priority, Read, ReadFile, Reader, skipped};
use crate::region::Region;
use crate::slab::{ALIGNMENT, Slot};
use crate::{Bytes, Error, ReadRate, TensorUse};

/// Bytes read at a time: about an expert's slice.
const PIECE: usize = 4 << 20;
/// Reads in flight at a time, enough for any depth.
const IN_FLIGHT_MAX: usize = 128;
/// Tensors with smaller gaps between them are read as one.
const GAP_MAX: u64 = 64 << 10;
/// The depths to try, and the bytes to read with each.
const DEPTHS: [usize; 4] = [2, 4, 8, 16];
const TRIAL: usize = 96 << 20;
/// The share of the fastest rate that counts as equally fast.
const ABOUT_AS_FAST: f64 = 0.97;
/// How long a drive may deliver nothing before a read is an error.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A range of a file that is read as a whole.
struct Run {
    part: usize,
    start: u64,
    end: u64,
    tensors: Vec<usize>,
}

/// Reads those `tensors` that are used and not streamed: the bytes of each, and how fast that was.
pub(crate) fn read(
    tensors: &[PartTensor],
    tensor_use: &dyn Fn(&str) -> TensorUse,
    sources: &[Arc<ReadFile>],
    reader: &mut Reader,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<(Vec<Bytes>, ReadRate), Error> {
    let runs = runs(tensors, tensor_use);
    let room = |run: &Run| Read::slot_bytes((run.end - run.start) as usize);
    let size: usize = runs.iter().map(room).sum();
    let memory = |source| {
        let path = sources.first().map(|file| file.path().to_owned()).unwrap_or_default();
        Error::Memory { path, size: size as u64, source }
    };
    let mut rest = Slot::new(size).map_err(memory)?;
    let _what_is_not_locked_may_be_swapped = rest.lock();
    let mut pieces = Vec::new();
    for run in &runs {
        let (mut slot, others) = rest.split(room(run));
        rest = others;
        let mut at = run.start - skipped(run.start) as u64;
        while at < run.end {
            let len = PIECE.min((run.end - at) as usize);
            let room = len.next_multiple_of(ALIGNMENT);
            let (own, others) = slot.split(room);
            slot = others;
            pieces.push(Piece { part: run.part, offset: at, len, slot: Some(own) });
            at += PIECE as u64;
        }
        // The rest of a run's slot joins its last piece.
        if let Some(last) = pieces.last_mut() {
            last.slot = last.slot.take().map(|own| own.join(slot));
        }
    }
    let rate = read_pieces(&mut pieces, sources, reader, progress)?;
    let direct = sources.iter().all(|file| file.is_direct());
    let rate = ReadRate { bytes_per_second: rate, direct, reader: reader.name() };
    Ok((bytes(tensors, &runs, pieces), rate))
}

struct Piece {
    part: usize,
    offset: u64,
    len: usize,
    slot: Option<Slot>,
}

fn runs(tensors: &[PartTensor], tensor_use: &dyn Fn(&str) -> TensorUse) -> Vec<Run> {
    let dense = tensors.iter().enumerate();
    let dense = dense.filter(|(_, tensor)| tensor_use(&tensor.info.name) == TensorUse::Loaded);
    let ordered: BTreeMap<(usize, u64), usize> =
        dense.map(|(index, tensor)| ((tensor.part, tensor.info.offset), index)).collect();
    let mut runs: Vec<Run> = Vec::new();
    for ((part, start), index) in ordered {
        let end = tensors[index].info.end();
        match runs.last_mut() {
            Some(run) if run.part == part && start <= run.end + GAP_MAX => {
                run.end = run.end.max(end);
                run.tensors.push(index);
            }
            _ => runs.push(Run { part, start, end, tensors: vec![index] }),
        }
    }
    runs
}

/// Fills all pieces; returns the bytes per second at the depth that was chosen.
fn read_pieces(
    pieces: &mut [Piece],
    sources: &[Arc<ReadFile>],
    reader: &mut Reader,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<f64, Error> {
    let total: usize = pieces.iter().map(|piece| piece.len).sum();
    let mut trials = Trials::new(total);
    let (mut next, mut done) = (0, 0);
    reader.set_depth(trials.depth());
    while next < pieces.len() || reader.in_flight() > 0 {
        // No more than the depth, so that the drive is measured and not the queue in front of it.
        while next < pieces.len() && reader.in_flight() < trials.depth().min(IN_FLIGHT_MAX) {
            let Piece { part, offset, len, slot } = &mut pieces[next];
            if let Some(slot) = slot.take() {
                reader.submit(
                    Priority::Demand,
                    Read::covering(next as u64, &sources[*part], *offset, *len, slot),
                );
            }
            next += 1;
        }
        let completed =
            reader.next(STALL_TIMEOUT).map_err(|e| Error::unreadable(sources[0].path(), e))?;
        let Some(completed) = completed else {
            return Err(Error::stalled(sources[0].path(), "its weights", STALL_TIMEOUT));
        };
        let path = completed.read.file.path().to_owned();
        completed.result.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::Shrunk { path },
            _ => Error::Unreadable { path, source },
        })?;
        let piece = &mut pieces[completed.read.tag as usize];
        piece.slot = Some(completed.read.slot);
        done += piece.len;
        if trials.completed(piece.len, completed.ended) {
            reader.set_depth(trials.depth());
        }
        if !progress(done as u64, total as u64) {
            return Err(Error::Stopped);
        }
    }
    reader.set_depth(trials.depth());
    Ok(trials.rate())
}

/// The trials of several depths, and their rates.
struct Trials {
    trial: usize,
    rates: Vec<f64>,
    bytes: usize,
    skip: usize,
    begun: Instant,
    start: Instant,
    all: usize,
    is_short: bool,
}

impl Trials {
    fn new(total: usize) -> Self {
        let now = Instant::now();
        let is_short = total < DEPTHS.len() * TRIAL;
        Self {
            trial: 0,
            rates: Vec::new(),
            bytes: 0,
            skip: 1,
            begun: now,
            start: now,
            all: 0,
            is_short,
        }
    }

    /// The depth of the current trial; after the last, the smallest that is about as fast as any.
    fn depth(&self) -> usize {
        if self.is_short {
            return DEPTHS[2];
        }
        let best = self.rates.iter().fold(0.0, |a: f64, &b| a.max(b));
        let good = || self.rates.iter().position(|&rate| rate >= ABOUT_AS_FAST * best);
        DEPTHS[if self.trial < DEPTHS.len() { self.trial } else { good().unwrap_or(2) }]
    }

    /// Counts a piece; returns whether the depth has changed.
    fn completed(&mut self, bytes: usize, at: Instant) -> bool {
        self.all += bytes;
        if self.is_short || self.trial == DEPTHS.len() {
            return false;
        }
        // Reads submitted at the previous depth do not count.
        if self.skip > 0 {
            self.skip -= 1;
            self.begun = at;
            return false;
        }
        self.bytes += bytes;
        if self.bytes < TRIAL {
            return false;
        }
        let seconds = at.saturating_duration_since(self.begun).as_secs_f64();
        self.rates.push(self.bytes as f64 / seconds.max(1e-9));
        self.skip = DEPTHS[self.trial];
        self.trial += 1;
        self.bytes = 0;
        true
    }

    /// Bytes per second at the depth that was chosen, or of all.
    fn rate(&self) -> f64 {
        let chosen = DEPTHS.iter().position(|&depth| depth == self.depth());
        let rate = chosen.and_then(|at| self.rates.get(at)).copied();
        rate.unwrap_or_else(|| self.all as f64 / self.start.elapsed().as_secs_f64().max(1e-9))
    }
}

/// Joins the pieces, and gives each tensor its part.
fn bytes(tensors: &[PartTensor], runs: &[Run], pieces: Vec<Piece>) -> Vec<Bytes> {
    let mut all: Vec<Bytes> = tensors.iter().map(|_| Bytes::from(Vec::new())).collect();
    let mut pieces = pieces.into_iter().peekable();
    for run in runs {
        let mut whole: Option<Slot> = None;
        let begins = run.start - skipped(run.start) as u64;
        while let Some(piece) =
            pieces.next_if(|piece| piece.part == run.part && piece.offset < run.end)
        {
            whole = match (whole, piece.slot) {
                (Some(whole), Some(part)) => Some(whole.join(part)),
                (whole, part) => whole.or(part),
            };
        }
        let Some(whole) = whole else { continue };
        let region = Arc::new(Region::Slot(whole));
        for &index in &run.tensors {
            let info = &tensors[index].info;
            let start = (info.offset - begins) as usize;
            all[index] = Bytes::new(&region, start..start + info.size as usize);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_reads_that_are_fast_enough_are_chosen() {
        let mut trials = Trials::new(DEPTHS.len() * TRIAL);
        let mut now = Instant::now();
        // MB/s: 4 is nearly as good as 8, 16 is worse.
        let rate = |depth| match depth {
            2 => 500,
            4 => 990,
            8 => 1000,
            _ => 900,
        };
        while trials.trial < DEPTHS.len() {
            now += Duration::from_micros(PIECE as u64 / rate(trials.depth()));
            trials.completed(PIECE, now);
        }
        assert_eq!(trials.depth(), 4);
        assert!((9.8e8..1.0e9).contains(&trials.rate()), "{}", trials.rate());
        assert_eq!(Trials::new(5000).depth(), 8, "too little to try");
    }
}
