//! What is worth having in memory before anybody picks it: what was popular in earlier runs.
//!
//! It is read when nothing else is, a few experts at a time, from the moment at which a model is loaded,
//! and only into memory that nobody has needed yet.

use std::path::PathBuf;

use super::{ExpertCache, SLICES_MAX};
use crate::io::Urgency;
use crate::residency::Place;

/// Experts that wait for their turn: reading goes on while nobody looks after the cache, as between
/// loading a model and the first question.
const WAITING_MAX: usize = 48;
/// The share of all memory that may wait.
const WAITING_SHARE: usize = 8;

impl ExpertCache {
    /// Begins with what an earlier run left in the file `path`, and leaves there what this one finds out:
    /// how popular each expert is. What was popular is read when there is nothing else to read, as
    /// long as there is free memory. A file that is missing or of another model is ignored.
    pub fn remember(&mut self, path: PathBuf) {
        let bytes = std::fs::read(&path).unwrap_or_default();
        let known: Vec<f32> = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        if known.len() == self.layers.len() * self.experts {
            self.residency.policy().set_popularity(&known);
            let popular = (0..known.len() as u32).filter(|&number| known[number as usize] > 0.0);
            self.wanted = popular.collect();
            self.wanted.sort_by(|&a, &b| known[a as usize].total_cmp(&known[b as usize]));
        }
        self.memory = Some(path);
        self.idle();
    }

    /// Asks for what is known to be popular, for whenever nothing else is read.
    pub fn idle(&mut self) {
        if self.wanted.is_empty() {
            return;
        }
        self.poll();
        let most = WAITING_MAX.min(self.capacity() / WAITING_SHARE).max(1) * SLICES_MAX;
        while self.reader.in_flight() + SLICES_MAX <= most
            && let Some(number) = self.wanted.pop()
        {
            let (layer, expert) = (number as usize / self.experts, number as usize % self.experts);
            let is_there = self.residency.frame(number as usize).is_some();
            if is_there || !self.residency.has_free(layer) {
                continue;
            }
            if let Place::Given(frame) = self.residency.place_free(number as usize) {
                self.read(Urgency::Warmth, layer, expert, frame);
            }
        }
    }
}

impl Drop for ExpertCache {
    /// Leaves what was found out to the next run, if there is a place for it.
    fn drop(&mut self) {
        let Some(path) = self.memory.take() else { return };
        let popularity = self.residency.policy().popularity();
        let bytes: Vec<u8> = popularity.iter().flat_map(|count| count.to_le_bytes()).collect();
        // It is a help, not a need: the next run learns by itself.
        let _ = path.parent().map(std::fs::create_dir_all);
        let _ = std::fs::write(path, bytes);
    }
}
