//! Multi-head latent attention over a cache of latents (DeepSeek-V2, arXiv 2405.04434, section
//! 2.1).
//!
//! Two forms of the same sum:
//!
//! - *absorbed*: the key projection has been multiplied into the query, so all heads share one key
//!   row, latent and rotated part, and the value is the latent itself. Little memory, much
//!   arithmetic: for decoding and short prompts.
//! - *expanded*: keys and values of every head, some rows of the cache at a time. A third of the
//!   arithmetic: for long prompts.
//!
//! The rows of a sequence are in pages of [`PAGE_ROWS`], which are read in place.
//!
//! A query row's output depends on its own position and on its own sequence alone: not on the
//! number of threads, nor on the other tokens of its segment, nor on other segments. Softmax runs
//! along the cache (`online`), in runs whose length follows from the position (`absorbed`).

mod absorbed;
mod expanded;
mod online;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::ops::Range;

use crate::buffer::Aligned;
use crate::cpu::Tier;
use crate::format::Format;
use crate::formats;
use crate::isa::floats::{
    Shape, Strided, StridedF16, StridedMut, transpose, transpose_f16, widen_f16,
};
use crate::ops::simd;
use absorbed::WorkList;

pub use expanded::{EXPANDED_ROWS, Expanded, ExpandedShape, Expansion, expanded};

/// Rows of a page.
pub const PAGE_ROWS: usize = 64;

/// The latents of one sequence in one layer, rows `0..len`, found through a list of pages. A row is
/// the latent (`values` numbers) and then the shared rotated key.
#[derive(Clone, Copy, Debug)]
pub struct Latent<'a> {
    /// F32, F16 or Q8_0.
    pub format: Format,
    /// All pages of the layer: `[pages, PAGE_ROWS, row bytes]`.
    pub bytes: &'a [u8],
    /// The sequence's pages, in order.
    pub pages: &'a [u32],
    /// Rows of the sequence.
    pub len: usize,
    /// Numbers in a row.
    pub width: usize,
    /// Numbers of it that are the value.
    pub values: usize,
}

/// Rows of the packed queries that belong to one sequence: token `rows.start + t` is at position
/// `past + t`, and sees the first `past + t + 1` rows of `latent`.
#[derive(Clone, Debug)]
pub struct AttentionSegment<'a> {
    /// Which rows.
    pub rows: Range<usize>,
    /// Cache rows before the first of them.
    pub past: usize,
    /// The sequence's cache, with the rows of these tokens.
    pub latent: Latent<'a>,
}

impl AttentionSegment<'_> {
    /// The cache rows that the last row sees.
    fn seen(&self) -> usize {
        self.past + self.rows.len()
    }
}

/// Panics unless segments are rows of `rows`, in order, and their caches have one shape and all
/// that is seen.
fn check_segments(segments: &[AttentionSegment<'_>], rows: usize) {
    let mut end = 0;
    for segment in segments {
        let AttentionSegment { rows: range, latent, .. } = segment;
        let first = &segments[0].latent;
        assert!(end <= range.start && range.start <= range.end, "segments are in order: {range:?}");
        end = range.end;
        assert!(end <= rows, "segment {range:?} of {rows} rows");
        let shape = (first.width, first.values);
        assert_eq!((latent.width, latent.values), shape, "latents of one shape");
        assert!(segment.seen() <= latent.len, "{} cache rows for {range:?}", latent.len);
        latent.check();
    }
}

/// The heads of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// How many.
    pub count: usize,
    /// Factor on the scores.
    pub scale: f32,
}

/// The memory of the absorbed form, kept from call to call.
#[derive(Debug, Default)]
pub struct Attention {
    list: WorkList,
    // Partial results of the work list's blocks.
    maxima: Aligned<f32>,  // [rows]
    sums: Aligned<f32>,    // [rows]
    outputs: Aligned<f32>, // [rows, values]
}

impl Attention {
    /// No memory yet.
    pub fn new() -> Self {
        Self::default()
    }
}

simd! {
    fn widen_q8_0(Tier, bytes: &[u8], out: &mut [f32]) {
        formats::q8_0::scalar::decode(bytes, out);
    }

    fn widen_f32(Tier, bytes: &[u8], out: &mut [f32]) {
        formats::f32::scalar::decode(bytes, out);
    }
}

impl Latent<'_> {
    fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.width).unwrap_or(0)
    }

    /// Panics unless there are pages for all rows, and bytes for all pages.
    fn check(&self) {
        assert!(self.values <= self.width, "{} values of {}", self.values, self.width);
        let page_bytes = PAGE_ROWS * self.row_bytes();
        assert!(page_bytes > 0, "{} numbers in {}", self.width, self.format);
        let (needed, exist) = (self.len.div_ceil(PAGE_ROWS), self.bytes.len() / page_bytes);
        assert!(needed <= self.pages.len(), "{} rows in {} pages", self.len, self.pages.len());
        let used = &self.pages[..needed];
        assert!(used.iter().all(|&page| (page as usize) < exist), "pages of {exist}");
    }

    /// The bytes of rows `start..start + n`, all in one page, and of those of the page after them.
    fn in_page(&self, start: usize, n: usize) -> &[u8] {
        let (row_bytes, at) = (self.row_bytes(), start % PAGE_ROWS);
        debug_assert!(at + n <= PAGE_ROWS, "rows {start}..{} are in two pages", start + n);
        let first = self.pages[start / PAGE_ROWS] as usize * PAGE_ROWS + at;
        &self.bytes[first * row_bytes..][..(PAGE_ROWS - at) * row_bytes]
    }

    /// Decodes rows `start..start + n`, all in one page, into `out`, `[n, width]`.
    fn decode(&self, tier: Tier, start: usize, n: usize, out: &mut [f32]) {
        let bytes = &self.in_page(start, n)[..n * self.row_bytes()];
        self.widen(tier, bytes, out);
    }

    fn widen(&self, tier: Tier, bytes: &[u8], out: &mut [f32]) {
        match self.format {
            Format::F16 => widen_f16(tier, bytes, out),
            Format::Q8_0 => widen_q8_0(tier, bytes, out),
            Format::F32 => widen_f32(tier, bytes, out),
            _ => self.format.decode(bytes, out),
        }
    }

    /// Decodes rows as [`Latent::decode`] does, and writes them transposed to `keys`
    /// `[width, PAGE_ROWS]`. What `keys` has in columns of other rows is of any content, and so is
    /// what `out` has of the rotated keys.
    fn decode_transposed(
        &self,
        tier: Tier,
        start: usize,
        n: usize,
        out: &mut [f32],
        keys: &mut [f32],
    ) {
        let (width, values) = (self.width, self.values);
        if self.format == Format::F16 && start.is_multiple_of(PAGE_ROWS) {
            // Other rows of the page are there as well.
            let page = StridedF16 { bytes: self.in_page(start, PAGE_ROWS), stride: width };
            let shape = Shape { rows: n.next_multiple_of(16), cols: width };
            let to = StridedMut { numbers: &mut *keys, stride: PAGE_ROWS };
            if transpose_f16(tier, page, shape, to) {
                for (row, out) in out.chunks_exact_mut(width).enumerate().take(n) {
                    widen_f16(
                        tier,
                        &page.bytes[2 * row * width..][..2 * values],
                        &mut out[..values],
                    );
                }
                return;
            }
        }
        self.decode(tier, start, n, &mut out[..n * width]);
        let from = Strided { numbers: out, stride: width };
        let to = StridedMut { numbers: keys, stride: PAGE_ROWS };
        transpose(tier, from, Shape { rows: n, cols: width }, to);
    }

    /// Decodes a row: the latent, then the rotated key.
    ///
    /// # Panics
    /// If there is no such row, or `out` has another length.
    pub fn row(&self, tier: Tier, row: usize, out: &mut [f32]) {
        assert!(row < self.len, "row {row} of {}", self.len);
        assert_eq!(out.len(), self.width, "numbers of a row");
        self.decode(tier, row, 1, out);
    }
}

#[cfg(test)]
mod tests;
