//! Prewarming: experts that were popular in earlier runs are read before they are chosen.
//!
//! They are read in the background, a few at a time, from the moment a model is loaded, and only
//! into free frames.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{ExpertCache, SLICES_MAX};
use crate::io::Priority;
use crate::residency::Place;

/// Experts that are queued at a time: reading continues while the cache is not polled, as between
/// loading a model and the first request.
const WAITING_MAX: usize = 48;
/// How often the popularity of experts is saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// The share of all frames that may be queued.
const WAITING_SHARE: usize = 8;

impl ExpertCache {
    /// Loads the popularity of experts that an earlier run saved in the file `path`, and saves this
    /// run's there. Popular experts are read in the background as long as frames are free. A file
    /// that is missing or belongs to another model is ignored.
    pub fn load_expert_stats(&mut self, path: PathBuf) {
        let size = self.layers.len() * self.experts * size_of::<f32>();
        // Neither a pipe, which would block, nor a file of another model.
        let is_ours =
            |metadata: std::fs::Metadata| metadata.is_file() && metadata.len() == size as u64;
        let exists = std::fs::metadata(&path).is_ok_and(is_ours);
        let bytes = if exists { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
        let known: Vec<f32> = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        if known.len() == self.layers.len() * self.experts {
            self.residency.policy().set_popularity(&known);
            let popular = (0..known.len() as u32).filter(|&number| known[number as usize] > 0.0);
            self.wanted = popular.collect();
            self.wanted.sort_by(|&a, &b| known[a as usize].total_cmp(&known[b as usize]));
        }
        self.stats_file = Some(path);
        self.idle();
    }

    /// Queues background reads of popular experts.
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
            if is_there || !self.residency.has_free(layer) || !self.has_arrived(layer, expert) {
                continue;
            }
            if let Place::Assigned(frame) = self.residency.place_free(number as usize) {
                self.read(Priority::Background, layer, expert, frame);
            }
        }
    }
}

impl ExpertCache {
    /// Saves the popularity of experts for the next run, if it was not saved for a while.
    pub(super) fn save_stats_in_time(&mut self) {
        if self.stats_file.is_some() && self.saved_at.elapsed() >= SAVE_INTERVAL {
            self.saved_at = Instant::now();
            self.save_stats();
        }
    }

    /// Replaces the file as a whole, so that a program that is killed never leaves a part of one.
    fn save_stats(&mut self) {
        let Some(path) = &self.stats_file else { return };
        let popularity = self.residency.policy().popularity();
        let bytes: Vec<u8> = popularity.iter().flat_map(|count| count.to_le_bytes()).collect();
        let new = path.with_extension(format!("{}.tmp", std::process::id()));
        // Only an optimization: without the file, the next run starts without statistics.
        let _ = path.parent().map(std::fs::create_dir_all);
        let is_other = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        if !is_other
            && std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, path)).is_err()
        {
            let _ = std::fs::remove_file(&new);
        }
    }
}

impl Drop for ExpertCache {
    fn drop(&mut self) {
        self.save_stats();
    }
}
