//! The seams: packed batches, stages that take them through some layers, and routed experts.
//!
//! A [`Batch`] packs rows of several sequences: one row of each that decodes, chunks of prompts of
//! others. Every weight is read once for all of them. A failure belongs to the sequences that it
//! concerns; the others of the batch are computed as if nothing had happened.

use std::ops::Range;
use std::sync::Arc;

use cachalot_gguf::KvType;
use cachalot_kernels::Activations;

use crate::{Error, Precision, Routing};

/// Tokens whose keys and values a page of the KV cache holds, in all layers.
pub use cachalot_kernels::attention::PAGE_ROWS;

/// A page of the KV cache, from 0 to the number that was reserved.
pub type PageId = u32;

/// A sequence, as the caller numbers it.
pub type SeqId = u64;

/// What a segment's rows are for. Precision and kernels follow it, and never the size of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Tokens of a prompt.
    Prefill,
    /// Tokens that were sampled.
    Decode,
}

/// The results that are wanted of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: its prompt continues.
    None,
    /// The logits of the last row.
    Last,
    /// The logits of every row.
    All,
    /// The hidden state of every row after the last layer, not normalized.
    Hidden,
}

/// Consecutive tokens of one sequence in a batch.
#[derive(Clone, Debug)]
pub struct Segment<'a> {
    /// The sequence; it has one segment in a batch.
    pub seq: SeqId,
    /// The position of the first token in its sequence.
    pub start: usize,
    /// The rows of the batch.
    pub rows: Range<usize>,
    /// The pages of the sequence, in order: position `p` is in page `p / PAGE_ROWS`. The positions
    /// before `start` have been computed; those of the segment are written.
    pub pages: &'a [PageId],
    /// What the rows are for.
    pub phase: Phase,
    /// The results that are wanted.
    pub want: Wanted,
}

impl Segment<'_> {
    /// The number of rows whose logits are wanted.
    pub fn logit_rows(&self) -> usize {
        match self.want {
            Wanted::None | Wanted::Hidden => 0,
            Wanted::Last => self.rows.len().min(1),
            Wanted::All => self.rows.len(),
        }
    }
}

/// Rows that pass through the layers together.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// One token for each row.
    pub tokens: &'a [u32],
    /// The sequences. Their rows follow each other and are all rows.
    pub segments: &'a [Segment<'a>],
}

impl Batch<'_> {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// The phase that decides the precision of products that all rows share.
    pub fn phase(&self) -> Phase {
        let is_prefill = |segment: &Segment<'_>| segment.phase == Phase::Prefill;
        if self.segments.iter().any(is_prefill) { Phase::Prefill } else { Phase::Decode }
    }

    /// # Panics
    /// If the segments are not consecutive, or a page is missing or was not reserved.
    pub(crate) fn check(&self, reserved: usize) {
        let mut next = 0;
        for Segment { seq, start, rows, pages, .. } in self.segments {
            assert_eq!(rows.start, next, "rows of sequence {seq} follow those before");
            assert!(rows.end >= rows.start, "rows {rows:?} of sequence {seq}");
            next = rows.end;
            let end = start + rows.len();
            let needed = end.div_ceil(PAGE_ROWS);
            assert!(pages.len() >= needed, "{} pages for {end} rows of {seq}", pages.len());
            let known = pages[..needed].iter().all(|&page| (page as usize) < reserved);
            assert!(known, "pages {pages:?} of sequence {seq}: {reserved} are reserved");
        }
        assert_eq!(next, self.tokens.len(), "every row belongs to a segment");
    }
}

/// The rows of a batch between stages.
#[derive(Debug, Default)]
pub struct Rows {
    /// Hidden states `[rows, hidden]`: written by the first stage, changed by every stage.
    pub hidden: Vec<f32>,
    /// Logits `[wanted rows, vocabulary]`, in the order of segments: written by the last stage.
    pub logits: Vec<f32>,
    failed: Vec<bool>, // [segments]
    failures: Vec<Failure>,
}

/// A sequence whose rows could not be computed, and why.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The sequence.
    pub seq: SeqId,
    /// The reason; one reason may concern several sequences.
    pub error: Arc<Error>,
}

impl Rows {
    /// Starts a batch: no sequence has failed.
    pub(crate) fn begin(&mut self, batch: &Batch<'_>) {
        self.failed.clear();
        self.failed.resize(batch.segments.len(), false);
        self.failures.clear();
    }

    /// Notes that the segments with any of `rows` have failed.
    pub fn fail(
        &mut self,
        batch: &Batch<'_>,
        rows: impl IntoIterator<Item = usize>,
        error: &Arc<Error>,
    ) {
        for row in rows {
            let index = batch.segments.partition_point(|segment| segment.rows.end <= row);
            let Some(segment) = batch.segments.get(index) else { continue };
            if !std::mem::replace(&mut self.failed[index], true) {
                self.failures.push(Failure { seq: segment.seq, error: Arc::clone(error) });
            }
        }
    }

    /// Whether segment `index` has failed.
    pub fn has_failed(&self, index: usize) -> bool {
        self.failed[index]
    }

    /// Whether the segment of a row has failed.
    pub(crate) fn has_row_failed(&self, batch: &Batch<'_>, row: usize) -> bool {
        self.failed[batch.segments.partition_point(|segment| segment.rows.end <= row)]
    }

    /// Whether every segment has failed.
    pub fn all_failed(&self) -> bool {
        !self.failed.is_empty() && self.failures.len() == self.failed.len()
    }

    /// The failures so far.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Fails the sequences with hidden states, of `width` numbers each, that are not finite.
    pub fn check_finite(&mut self, batch: &Batch<'_>, width: usize) {
        for (index, segment) in batch.segments.iter().enumerate() {
            let hidden = &self.hidden[segment.rows.start * width..segment.rows.end * width];
            // Any product of infinity or not-a-number with zero is not a number.
            let sum = hidden.chunks(width).map(|row| row.iter().map(|x| x * 0.0).sum::<f32>());
            if !self.failed[index] && sum.sum::<f32>() != 0.0 {
                self.fail(batch, [segment.rows.start], &Arc::new(Error::NotFinite));
            }
        }
    }
}

/// What a stage computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSpec {
    /// The layers, counted from the model's first.
    pub layers: Range<usize>,
    /// Whether it turns tokens into hidden states, as the first stage does.
    pub embeds: bool,
    /// Whether it computes logits, as the last stage does.
    pub has_head: bool,
}

/// Some layers of a model on one device: this processor, a GPU, another machine.
pub trait Stage: Send {
    /// What it computes.
    fn spec(&self) -> StageSpec;

    /// Bytes of a page of the KV cache in these layers.
    fn page_bytes(&self, kv: KvType) -> usize;

    /// Reserves all pages of the KV cache, in place of those reserved before. Memory is used from
    /// when a page is first written; nothing is reserved later.
    ///
    /// # Errors
    /// If there is no memory, or rows of this model cannot be stored in this type.
    fn reserve_pages(&mut self, pages: usize, kv: KvType) -> Result<(), Error>;

    /// Copies a page, so that a shared one can be continued.
    fn copy_page(&mut self, from: PageId, to: PageId);

    /// Appends the keys and values of a page to `out`: [`Stage::page_bytes`] bytes.
    fn read_page(&self, page: PageId, out: &mut Vec<u8>);

    /// Replaces a page by bytes that [`Stage::read_page`] gave for the same layers and type.
    fn write_page(&mut self, page: PageId, bytes: &[u8]);

    /// Takes the rows of a batch through the layers, and their keys and values into their pages.
    ///
    /// `keep_going` is called after every layer; the stage stops once it returns `false`. Failures
    /// of some sequences are noted in `rows`.
    ///
    /// # Errors
    /// [`Error::Stopped`], or what concerns all sequences. The pages of the batch's rows are
    /// unfinished then, and all others unchanged.
    fn forward(
        &mut self,
        batch: &Batch<'_>,
        rows: &mut Rows,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error>;
}

/// The routed experts of one layer for one batch.
#[derive(Clone, Copy, Debug)]
pub struct ExpertCall<'a> {
    /// The layer, counted from the model's first.
    pub layer: usize,
    /// How precisely they are computed.
    pub precision: Precision,
    /// The experts of each row.
    pub routing: &'a Routing,
}

/// Rows whose experts are not available, and why.
#[derive(Debug)]
pub struct FailedRows {
    /// The rows.
    pub rows: Vec<u32>,
    /// The reason.
    pub error: Arc<Error>,
}

/// Where the routed experts of some layers are: in memory, in a cache over drives, on other
/// devices.
pub trait Experts: Send {
    /// Starts whatever takes time, as soon as the router has chosen: reads, transfers, kernels. `x`
    /// are the normalized rows `[rows, hidden]`.
    ///
    /// # Errors
    /// What concerns all rows.
    fn begin(&mut self, call: &ExpertCall<'_>, x: &Activations) -> Result<(), Error>;

    /// Adds to each row of `out` `[rows, hidden]` the weighted outputs of its experts, in ascending
    /// order of experts, for the call and the rows that [`Experts::begin`] got. Returns the rows
    /// that have failed, whose outputs are unfinished.
    ///
    /// # Errors
    /// What concerns all rows.
    fn finish(
        &mut self,
        call: &ExpertCall<'_>,
        x: &mut Activations,
        out: &mut [f32],
    ) -> Result<Vec<FailedRows>, Error>;

    /// Whether [`Experts::finish`] adds the output of the shared expert as well, after the others.
    /// If not, the stage computes it between the two calls.
    fn includes_shared(&self) -> bool {
        false
    }

    /// Tells the experts that `layer`, the next one, will probably need. Others come first.
    fn prefetch(&mut self, layer: usize, guess: &Routing) {
        let _ = (layer, guess);
    }

    /// Which experts are resident, if not all are.
    fn residency(&self) -> Option<&dyn Residency> {
        None
    }
}

/// Which experts can be computed without reading.
pub trait Residency {
    /// Whether an expert is resident, or will be before it could be computed.
    fn is_resident(&self, layer: usize, expert: usize) -> bool;

    /// Whether [`Experts::prefetch`] is of use now.
    fn wants_prefetch(&self) -> bool;

    /// Whether routers prefer resident experts, which changes results.
    fn is_preferred(&self) -> bool;
}
