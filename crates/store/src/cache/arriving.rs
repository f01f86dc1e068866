//! Experts of files that are still being written.

use super::ExpertCache;
use crate::{Error, FileRange};

impl ExpertCache {
    /// Waits until an expert is in its files, before a read is queued: a queued read never waits
    /// for anything but its drive.
    pub(super) fn wait_for_arrival(&self, layer: usize, expert: usize) -> Result<(), Error> {
        let Some(arriving) = self.layers[layer][0].file.ranges() else { return Ok(()) };
        let waited = arriving.wait(&self.ranges(layer, expert));
        waited.map_err(|source| self.unreadable(layer, expert, 0, source))
    }

    /// Whether an expert is in its files.
    pub(super) fn has_arrived(&self, layer: usize, expert: usize) -> bool {
        let arriving = self.layers[layer][0].file.ranges();
        arriving.is_none_or(|arriving| arriving.has(&self.ranges(layer, expert)))
    }

    fn ranges(&self, layer: usize, expert: usize) -> Vec<FileRange<'_>> {
        let stacks = self.layers[layer].iter();
        let ranges = stacks.map(|stack| {
            let start = stack.offset + (expert * stack.len) as u64;
            (stack.file.path(), start..start + stack.len as u64)
        });
        ranges.collect()
    }
}
