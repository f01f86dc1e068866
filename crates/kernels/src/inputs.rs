//! What products multiply: activations, whose rows may be made in the same region.
//!
//! Norms, rotations and copies take little time, but as regions of their own they would be most of
//! what a decoded token waits for. So they are the first phase of the region that needs them: a
//! task makes some rows and derives their encodings while they are in its cache, and the products
//! are the second phase.

use std::ops::Range;

use crate::activations::{Activations, Encoder};
use crate::buffer::Shared;
use crate::isa::BLOCK;
use crate::pool::Scratch;
use crate::product::Cpu;

/// Fewest numbers of a task of the first phase.
const TASK_MIN: usize = 1024;
/// Tasks of each thread, if there are enough rows.
const TASKS_PER_THREAD: usize = 4;

/// Fills row `r` of an output `[rows, width]`: `task(r, row)`, with `row` of `width` elements.
pub type RowTask<'a, T = f32> = dyn Fn(usize, &mut [T]) + Sync + 'a;

/// Activations to multiply, and how they are made.
#[derive(Debug)]
pub struct Inputs<'a> {
    pub(crate) activations: &'a mut Activations,
    making: Option<Making<'a>>,
}

/// How rows are made: some of them, a group, at a time.
struct Making<'a> {
    groups: usize,
    rows: &'a RowTask<'a>,
    beside: Option<Beside<'a>>,
}

/// Rows of another output, as many as there are groups.
struct Beside<'a> {
    out: Shared<'a, u8>,
    width: usize,
    task: &'a RowTask<'a, u8>,
}

impl std::fmt::Debug for Making<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Making").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl<'a> From<&'a mut Activations> for Inputs<'a> {
    fn from(activations: &'a mut Activations) -> Self {
        Self { activations, making: None }
    }
}

impl<'a> Inputs<'a> {
    /// `rows` x `cols` numbers in place of those that `activations` has: `make(r, row)` writes each
    /// row, whose content is any before.
    pub fn made(
        activations: &'a mut Activations,
        [rows, cols]: [usize; 2],
        make: &'a RowTask<'a>,
    ) -> Self {
        Self::made_in_groups(activations, rows, [rows, cols], make)
    }

    /// As [`Inputs::made`], for `groups` groups of neighbouring rows of one size:
    /// `make(g, rows)` writes each group.
    ///
    /// # Panics
    /// If groups are not whole rows.
    pub(crate) fn made_in_groups(
        activations: &'a mut Activations,
        groups: usize,
        [rows, cols]: [usize; 2],
        make: &'a RowTask<'a>,
    ) -> Self {
        assert_eq!(rows, rows.checked_div(groups).unwrap_or(0) * groups, "rows of {groups} groups");
        activations.reset(rows, cols);
        Self { activations, making: Some(Making { groups, rows: make, beside: None }) }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.activations.rows()
    }

    /// Numbers in each.
    pub fn cols(&self) -> usize {
        self.activations.cols()
    }

    /// Writes each row of `out` `[rows, width]` as well, by the tasks that make the rows.
    ///
    /// # Panics
    /// If rows are not made, or there are more or fewer of them.
    #[must_use]
    pub fn beside(mut self, out: &'a mut [u8], width: usize, task: &'a RowTask<'a, u8>) -> Self {
        let Some(making) = &mut self.making else { panic!("nothing is made to be beside") };
        assert_eq!(out.len(), making.groups * width, "rows of {width} bytes");
        making.beside = Some(Beside { out: Shared::new(out), width, task });
        self
    }

    /// Makes the rows and derives the encodings that are wanted of them, then calls
    /// `task(scratch, activations, i)` for every `i` below `count`.
    pub(crate) fn then(
        self,
        cpu: &Cpu,
        count: usize,
        task: &(dyn Fn(&mut Scratch, &Activations, usize) + Sync),
    ) {
        let activations = SharedActivations(self.activations);
        // SAFETY: `self` borrows the activations; only what is below uses them.
        let first =
            FirstPhase::new(cpu, unsafe { (*activations.0).encoder() }, self.making.as_ref());
        cpu.pool().run_phases(&[first.tasks(), count], &|scratch, phase, i| match phase {
            0 => first.run(i),
            // SAFETY: all tasks that write to the activations have ended, and none that reads them
            // has begun.
            _ => task(scratch, unsafe { activations.get() }, i),
        });
        let memory = first.encoder.into();
        // SAFETY: as above, and the region has ended.
        unsafe { (*activations.0).encoded(memory) };
    }
}

/// Activations that tasks of one phase write and those of the next read.
pub(crate) struct SharedActivations(pub(crate) *mut Activations);

// SAFETY: access is by `get`, whose callers promise that nothing is written.
unsafe impl Sync for SharedActivations {}

impl SharedActivations {
    /// # Safety
    /// The activations live, and are not written meanwhile.
    pub(crate) unsafe fn get(&self) -> &Activations {
        // SAFETY: by contract.
        unsafe { &*self.0 }
    }
}

/// What the tasks of a region's first phase do.
struct FirstPhase<'a> {
    cpu: &'a Cpu,
    encoder: Encoder<'a>,
    making: Option<&'a Making<'a>>,
    /// Groups of rows that are made, or blocks that are encoded: of all tasks, and of one.
    units: usize,
    size: usize,
}

impl<'a> FirstPhase<'a> {
    fn new(cpu: &'a Cpu, encoder: Encoder<'a>, making: Option<&'a Making<'a>>) -> Self {
        let (rows, of_row) = (encoder.rows, encoder.blocks_of_row());
        let units = match making {
            Some(making) => making.groups,
            None if encoder.derives() => rows * of_row,
            None => 0,
        };
        // A block takes the same time whether it is complete or not.
        let of_row = if encoder.derives() { of_row * BLOCK } else { encoder.cols };
        let numbers = rows * of_row;
        let beside = making.and_then(|making| making.beside.as_ref());
        let cost = numbers.checked_div(units).unwrap_or(0) + beside.map_or(0, |b| b.width);
        let share = units.div_ceil(cpu.pool().threads() * TASKS_PER_THREAD);
        let size = share.max(TASK_MIN.div_ceil(cost.max(1)));
        Self { cpu, encoder, making, units, size }
    }

    fn tasks(&self) -> usize {
        self.units.div_ceil(self.size)
    }

    fn run(&self, task: usize) {
        let units = task * self.size..self.units.min((task + 1) * self.size);
        let Some(Making { groups, rows, beside }) = self.making else { return self.encode(units) };
        let (of_group, of_row) = (self.encoder.rows / groups, self.encoder.blocks_of_row());
        for group in units {
            if let Some(Beside { out, width, task }) = beside {
                // SAFETY: each row is handed to one task.
                task(group, unsafe { out.slice(group * width, *width) });
            }
            let first = group * of_group;
            // SAFETY: each group is handed to one task, which encodes it afterwards.
            rows(group, unsafe { self.encoder.rows(first, of_group) });
            self.encode(first * of_row..(first + of_group) * of_row);
        }
    }

    fn encode(&self, blocks: Range<usize>) {
        if self.encoder.derives() {
            for block in blocks {
                // SAFETY: each block is in one task, which has made its numbers.
                unsafe { self.encoder.encode(self.cpu.tier(), block) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActBits, Format, Heads, Kernel, Matrix, Product, Tier, Tokens};

    const COLS: usize = 288;
    const HEADS: usize = 3;

    fn number(i: usize) -> f32 {
        ((i * 37) % 101) as f32 / 50.0 - 1.0
    }

    fn matrices(bytes: &[u8]) -> Vec<Matrix<'_>> {
        let of_head = bytes.len() / HEADS;
        let head = |bytes| Matrix::new(Format::Q8_0, 40, COLS, bytes).unwrap();
        let heads = bytes.chunks(of_head).map(head);
        heads.map(|m| m.with_activations(ActBits::Sixteen).with_kernel(Kernel::Gemv)).collect()
    }

    fn weights() -> Vec<u8> {
        let mut bytes = vec![0; HEADS * 40 * Format::Q8_0.row_bytes(COLS).unwrap()];
        let numbers: Vec<f32> = (0..HEADS * 40 * COLS).map(|i| number(i * 7)).collect();
        assert!(Format::Q8_0.encode(&numbers, &mut bytes));
        bytes
    }

    #[test]
    fn rows_made_in_the_region_are_those_made_before() {
        let bytes = weights();
        let matrix = matrices(&bytes)[0];
        for tier in Tier::available() {
            for (rows, threads) in [(1, 1), (2, 4), (50, 3)] {
                let cpu = Cpu::new(threads, tier);
                let product = Product { matrix, tokens: Tokens::Range { start: 0, len: rows } };
                let make = |r: usize, row: &mut [f32]| {
                    row.iter_mut().enumerate().for_each(|(i, x)| *x = number(r * 1000 + i));
                };
                let mut before = Activations::new();
                let filled = before.reset(rows, COLS).chunks_mut(COLS).enumerate();
                filled.for_each(|(r, row)| make(r, row));
                let mut expected = vec![0.0; rows * 40];
                cpu.multiply(&mut before, &[product], &mut expected);

                let (mut x, mut out) = (Activations::new(), vec![0.0; rows * 40]);
                let mut beside = vec![0u8; rows * 5];
                for _ in 0..2 {
                    let regions = cpu.pool().regions();
                    let count = |r: usize, row: &mut [u8]| row.fill(r as u8);
                    let inputs = Inputs::made(&mut x, [rows, COLS], &make);
                    let inputs = inputs.beside(&mut beside, 5, &count);
                    cpu.multiply(inputs, &[product], &mut out);
                    assert_eq!(cpu.pool().regions(), regions + 1);
                    assert_eq!(out, expected, "{tier}, {rows} rows");
                }
                assert!(beside.iter().enumerate().all(|(i, &b)| usize::from(b) == i / 5));
                assert_eq!(x.row(rows - 1), before.row(rows - 1));
                out.fill(0.0);
                cpu.multiply(&mut x, &[product], &mut out);
                assert_eq!(out, expected, "the same rows again");
            }
        }
    }

    #[test]
    fn rows_are_made_even_if_nothing_is_multiplied() {
        let cpu = Cpu::new(2, Tier::detect());
        let (mut x, mut beside) = (Activations::new(), [0; 3]);
        let make = |r: usize, row: &mut [f32]| row.fill(r as f32);
        let count = |_: usize, row: &mut [u8]| row.fill(1);
        let inputs = Inputs::made(&mut x, [3, COLS], &make).beside(&mut beside, 1, &count);
        cpu.add_weighted(inputs, &[], &mut []);
        assert_eq!((x.row(2), beside), (&[2.0; COLS][..], [1; 3]));
        cpu.multiply(Inputs::made(&mut x, [2, COLS], &|_, row| row.fill(7.0)), &[], &mut []);
        assert_eq!(x.row(1), [7.0; COLS]);
    }

    #[test]
    #[should_panic(expected = "nothing is made")]
    fn rows_beside_rows_that_are_there_are_refused() {
        let mut x = Activations::new();
        _ = Inputs::from(&mut x).beside(&mut [0; 3], 1, &|_, _| {});
    }

    #[test]
    fn products_of_heads_go_to_their_rows() {
        let bytes = weights();
        let matrices = matrices(&bytes);
        let rows = [0, 3, 4];
        let lists: Vec<Vec<u32>> =
            (0..HEADS as u32).map(|h| (0..3).map(|t| t * HEADS as u32 + h).collect()).collect();
        for tier in Tier::available() {
            let cpu = Cpu::new(3, tier);
            let list = matrices.iter().zip(&lists);
            let list = list.map(|(&matrix, list)| Product { matrix, tokens: Tokens::List(list) });
            let list: Vec<_> = list.collect();
            let mut x = Activations::new();
            x.reset(3 * HEADS, COLS);
            let make = |t: usize, inputs: &mut [f32], row: &mut [f32]| {
                inputs.iter_mut().enumerate().for_each(|(i, x)| *x = number(t * 999 + i));
                row.chunks_mut(44).for_each(|head| head[40..].fill(t as f32));
            };
            let mut out = vec![-1.0; 6 * HEADS * 44];
            let to = Heads { numbers: &mut out, width: 44, rows: &rows };
            cpu.multiply_heads(&mut x, Some(&make), &list, to);
            let mut expected = vec![0.0; 3 * HEADS * 40];
            cpu.multiply(&mut x, &list, &mut expected);
            for (r, row) in out.chunks(HEADS * 44).enumerate() {
                let Some(t) = rows.iter().position(|&row| row as usize == r) else {
                    assert!(row.iter().all(|&x| x == -1.0), "row {r} has no token");
                    continue;
                };
                for (h, head) in row.chunks(44).enumerate() {
                    assert_eq!(head[..40], expected[(h * 3 + t) * 40..][..40], "{tier}");
                    assert_eq!(head[40..], [t as f32; 4]);
                }
            }
        }
    }
}
