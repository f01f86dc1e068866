//! Parallel loops over rows, for whatever is not a product: norms, rotations, gathers, choices.
//!
//! Safe to use from crates that forbid `unsafe`: every row is handed to one task, as a slice of its
//! own. Loops that are too short for a parallel region run on the caller's thread, and count none.
//! Which thread computes a row never changes it.

use crate::buffer::Shared;
use crate::ops;
use crate::product::Cpu;

/// Numbers below which a loop takes less time than a parallel region costs.
const PARALLEL_MIN: usize = 32 * 1024;
/// Fewest numbers of a task.
const TASK_MIN: usize = 4 * 1024;
/// Tasks of each thread, if there are enough rows.
const TASKS_PER_THREAD: usize = 4;

impl Cpu {
    /// Calls `task(r, row)` for every row of `out` `[rows, width]`, in parallel if there are enough
    /// of them. Loops in `task` may be compiled with the tier's registers.
    ///
    /// # Panics
    /// If `out` is not whole rows.
    pub fn for_rows<T: Send>(
        &self,
        out: &mut [T],
        width: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        self.for_costly_rows(out, width, width, task);
    }

    /// As [`Cpu::for_rows`], where a row takes about as long as copying `cost` numbers.
    ///
    /// # Panics
    /// If `out` is not whole rows.
    pub fn for_costly_rows<T: Send>(
        &self,
        out: &mut [T],
        width: usize,
        cost: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let rows = out.len().checked_div(width).unwrap_or(0);
        assert_eq!(out.len(), rows * width, "rows of {width}");
        let out = Shared::new(out);
        let size = if rows * cost < PARALLEL_MIN {
            rows.max(1) // one task, which the caller's thread runs
        } else {
            let share = rows.div_ceil(self.pool().threads() * TASKS_PER_THREAD);
            share.max(TASK_MIN.div_ceil(cost.max(1)))
        };
        let some = |i: usize| {
            for r in i * size..rows.min((i + 1) * size) {
                // SAFETY: each row is handed to one task.
                task(r, unsafe { out.slice(r * width, width) });
            }
        };
        match rows.div_ceil(size) {
            0 => {}
            1 => some(0),
            tasks => self.pool().run(tasks, &|_, i| some(i)),
        }
    }

    /// [`ops::rms_norm`] with the tier's registers; `x`, `weight` and `out` are `[n]`.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        ops::rms_norm_row(self.tier(), x, weight, epsilon, out);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Cpu, Tier, ops};

    #[test]
    fn every_row_is_visited_once_whatever_the_threads() {
        for threads in [1, 3, 64] {
            let cpu = Cpu::new(threads, Tier::detect());
            for (rows, width) in [(0, 5), (1, 5), (7, 3), (900, 64), (3, 40_000)] {
                let mut out = vec![0u32; rows * width];
                cpu.for_rows(&mut out, width, |r, row| {
                    row.iter_mut().enumerate().for_each(|(i, x)| *x += (r * width + i) as u32);
                });
                assert!(out.iter().enumerate().all(|(i, &x)| x == i as u32), "{rows} {width}");
            }
        }
    }

    #[test]
    fn short_loops_take_no_parallel_region() {
        let cpu = Cpu::new(2, Tier::detect());
        cpu.for_rows(&mut [0.0; 100], 10, |_, row| row.fill(1.0));
        assert_eq!(cpu.pool().regions(), 0);
        cpu.for_costly_rows(&mut [0.0; 100], 10, 1 << 20, |_, row| row.fill(1.0));
        assert_eq!(cpu.pool().regions(), 1);
    }

    #[test]
    fn all_tiers_normalize_alike() {
        let x: Vec<f32> = (0..300).map(|i| (i % 97) as f32 - 40.0).collect();
        let weight: Vec<f32> = (0..300).map(|i| i as f32 / 100.0).collect();
        let mut expected = vec![0.0; x.len()];
        ops::rms_norm(&x, &weight, 1e-6, &mut expected);
        for tier in Tier::available() {
            let mut out = vec![0.0; x.len()];
            Cpu::new(1, tier).rms_norm(&x, &weight, 1e-6, &mut out);
            assert_eq!(out, expected, "{tier}");
        }
    }
}
