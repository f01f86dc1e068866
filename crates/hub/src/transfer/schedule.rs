//! Which connection fetches what next: ranges of the first unfinished files, in order, so that
//! hashes can follow closely behind.

use std::ops::Range;

use super::intervals::Intervals;

/// Chunks of one request: 64 MiB. Signed addresses serve many requests, so that more gain nothing.
const JOB_CHUNKS: u64 = 32;
/// Files that are fetched at a time.
pub(crate) const WIDTH: usize = 2;

/// A range of a file, for one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) file: usize,
    /// Counts how often the file was begun again: what belongs to an earlier time is dropped.
    pub(crate) epoch: u32,
    pub(crate) chunks: Range<u64>,
}

#[derive(Debug)]
struct Work {
    chunks: u64,
    epoch: u32,
    /// Chunks that are here, or that a connection is fetching.
    taken: Intervals,
    /// Chunks that are written.
    there: Intervals,
}

/// All files of a pull.
#[derive(Debug)]
pub(crate) struct Schedule {
    files: Vec<Work>,
    connections: u64,
    turn: usize,
    /// Ranges that someone waits for, the last ones first.
    wanted: Vec<(usize, Range<u64>)>,
    /// One chunk at a time: a range that is wanted does not wait behind a long one.
    singly: bool,
}

impl Schedule {
    /// Of each file, how many chunks it has, and those that are here already.
    pub(crate) fn new(files: Vec<(u64, Intervals)>, connections: usize) -> Self {
        let work = |(chunks, there): (u64, Intervals)| Work {
            chunks,
            epoch: 0,
            taken: there.clone(),
            there,
        };
        let files = files.into_iter().map(work).collect();
        Self {
            files,
            connections: connections.max(1) as u64,
            turn: 0,
            wanted: Vec::new(),
            singly: false,
        }
    }

    /// From now on, connections take one chunk at a time.
    pub(crate) fn fetch_singly(&mut self) {
        self.singly = true;
    }

    /// Someone waits for these chunks: they are fetched next.
    pub(crate) fn want(&mut self, file: usize, chunks: Range<u64>) {
        if !self.files[file].taken.contains(chunks.clone()) {
            self.wanted.push((file, chunks));
        }
    }

    /// Whether these chunks are written.
    pub(crate) fn has(&self, file: usize, chunks: Range<u64>) -> bool {
        self.files[file].there.contains(chunks)
    }

    /// A chunk that someone waits for.
    fn next_wanted(&mut self) -> Option<Job> {
        while let Some((file, range)) = self.wanted.last().cloned() {
            let work = &mut self.files[file];
            let end = range.end.min(work.chunks);
            if let Some(gap) = work.taken.gap(range.start, end) {
                let chunks = gap.start..gap.start + 1;
                work.taken.insert(chunks.clone());
                return Some(Job { file, epoch: work.epoch, chunks });
            }
            self.wanted.pop();
        }
        None
    }

    /// Takes a range that no connection fetches yet. `None` if there is none, for now or for good.
    pub(crate) fn next(&mut self) -> Option<Job> {
        if let Some(job) = self.next_wanted() {
            return Some(job);
        }
        let left: u64 = self.files.iter().map(|file| file.chunks - file.taken.count()).sum();
        // Near the end, shares get smaller, so that all connections end together.
        let most = if self.singly { 1 } else { JOB_CHUNKS };
        let most = (left / (2 * self.connections)).clamp(1, most);
        let is_open = |file: &Work| file.taken.count() < file.chunks;
        let open: Vec<usize> = (0..self.files.len())
            .filter(|index| is_open(&self.files[*index]))
            .take(WIDTH)
            .collect();
        let file = *open.get(self.turn % open.len().max(1))?;
        self.turn = self.turn.wrapping_add(1);
        let work = &mut self.files[file];
        let gap = work.taken.gap(0, work.chunks)?;
        let chunks = gap.start..gap.end.min(gap.start + most);
        work.taken.insert(chunks.clone());
        Some(Job { file, epoch: work.epoch, chunks })
    }

    /// A chunk has been written. False if it belongs to an earlier epoch.
    pub(crate) fn arrived(&mut self, file: usize, epoch: u32, chunk: u64) -> bool {
        let work = &mut self.files[file];
        if work.epoch != epoch {
            return false;
        }
        work.there.insert(chunk..chunk + 1);
        true
    }

    /// Chunks have to be fetched after all, or again.
    pub(crate) fn release(&mut self, file: usize, epoch: u32, chunks: Range<u64>) {
        let work = &mut self.files[file];
        if work.epoch == epoch {
            work.taken.remove(chunks.clone());
            work.there.remove(chunks);
        }
    }

    /// A file begins again.
    pub(crate) fn reset(&mut self, file: usize) {
        let work = &mut self.files[file];
        work.epoch += 1;
        work.taken = Intervals::default();
        work.there = Intervals::default();
    }

    pub(crate) fn epoch(&self, file: usize) -> u32 {
        self.files[file].epoch
    }

    /// How many chunks from the beginning on are written.
    pub(crate) fn frontier(&self, file: usize) -> u64 {
        let work = &self.files[file];
        work.there.gap(0, work.chunks).map_or(work.chunks, |gap| gap.start)
    }

    /// Whether every chunk of every file is written.
    #[cfg(test)]
    fn is_complete(&self) -> bool {
        self.files.iter().all(|file| file.there.count() == file.chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_fetched_once_and_the_first_files_first() {
        let mut there = Intervals::default();
        there.insert(3..5);
        let files = vec![(100, there), (7, Intervals::default()), (40, Intervals::default())];
        let mut schedule = Schedule::new(files, 4);
        let first = schedule.next().unwrap();
        assert_eq!((first.file, first.chunks.clone()), (0, 0..3), "up to what is there");
        schedule.release(0, 0, 1..3);
        for chunk in first.chunks.start..1 {
            assert!(schedule.arrived(0, 0, chunk));
        }
        let mut fetched = 1;
        let mut last = [0; 3];
        while let Some(job) = schedule.next() {
            assert!(job.file < 2 || last[1] == 7, "two files at a time");
            last[job.file] = job.chunks.end;
            for chunk in job.chunks {
                assert!(schedule.arrived(job.file, job.epoch, chunk));
                fetched += 1;
            }
        }
        assert_eq!(fetched, 98 + 7 + 40);
        assert!(schedule.is_complete());
        schedule.reset(1);
        assert!(!schedule.arrived(1, 0, 0), "of an earlier epoch");
        assert_eq!((schedule.frontier(0), schedule.frontier(1), schedule.epoch(1)), (100, 0, 1));
    }

    #[test]
    fn shares_get_smaller_near_the_end() {
        let mut schedule = Schedule::new(vec![(64, Intervals::default())], 8);
        let sizes: Vec<u64> = std::iter::from_fn(|| schedule.next())
            .map(|job| job.chunks.end - job.chunks.start)
            .collect();
        assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes.last() == Some(&1), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<u64>(), 64);
    }
}
