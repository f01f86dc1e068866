//! What the kernels of one CPU tier share: the drivers that walk rows and columns.
//!
//! A format says only how 256 weights come out of its bytes (`formats/*/avx2.rs`,
//! `formats/*/avx512.rs`); the drivers here do the rest, once for all formats.

/// An array with an element for each of some others. `map` does the same, but the compiler does not
/// always inline a closure with instructions of a tier into it, and a call costs more than a block.
#[cfg(target_arch = "x86_64")]
macro_rules! each {
    ([$($x:expr),+], |$name:ident| $element:expr) => {
        [$({
            let $name = $x;
            $element
        }),+]
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use each;

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod coarse;
pub(crate) mod floats;
#[cfg(target_arch = "x86_64")]
pub(crate) mod moves512;

/// The order in which a kernel takes the inputs: for each group of 4 weights, in the order in which
/// the kernel's registers and lanes hold them, its place among the 64 such groups of 256 weights.
///
/// Formats scatter their weights over their bytes. Bringing the codes back into order would cost
/// shuffles for every row; arranging the inputs once per vector costs nothing.
#[derive(Debug)]
pub(crate) struct Order {
    /// `quads[register * 16 + lane]` = index of the group of 4 weights there.
    pub(crate) quads: [u8; 64],
    /// Registers that share one scale per lane: 1, 2 or 4.
    pub(crate) chain: usize,
}

impl Order {
    /// Vectors of scales per 256 weights.
    pub(crate) const fn streams(&self) -> usize {
        4 / self.chain
    }
}

/// Weights as they lie in the row. Orders are told apart by their places, so there is one of it.
pub(crate) static NATURAL: Order = Order { quads: natural(), chain: 1 };

const fn natural() -> [u8; 64] {
    let mut quads = [0; 64];
    let mut i = 0;
    while i < 64 {
        quads[i] = i as u8;
        i += 1;
    }
    quads
}

/// One vector of inputs, quantized and arranged for kernels of one [`Order`]; see
/// [`crate::inputs`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// High bytes `[blocks, 256]`, in order.
    pub(crate) high: *const i8,
    /// Low bytes `[blocks, 256]`, in order.
    pub(crate) low: *const i8,
    /// Scales `[blocks]`: input = scale · (256·high + low).
    pub(crate) scale: *const f32,
    /// Sums of 16 neighbouring inputs `[blocks, 16]`.
    pub(crate) sums: *const f32,
}

impl Column {
    /// The column from a block on.
    #[inline(always)]
    pub(crate) fn from(self, block: usize) -> Self {
        Self {
            high: self.high.wrapping_add(block * 256),
            low: self.low.wrapping_add(block * 256),
            scale: self.scale.wrapping_add(block),
            sums: self.sums.wrapping_add(block * 16),
        }
    }
}

/// Rows of one matrix for the drivers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// First byte of the first row.
    pub(crate) start: *const u8,
    /// Bytes from row to row.
    pub(crate) stride: usize,
    /// How many.
    pub(crate) count: usize,
}

/// The AVX2 kernels of one format; all take their inputs in the tier's one order.
///
/// Unsafe as [`Kernels512`].
pub(crate) struct Kernels256 {
    /// Products of few columns.
    pub(crate) gemv: Gemv,
    /// Unpacks some blocks of all rows; see [`avx2::words`].
    #[cfg(target_arch = "x86_64")]
    pub(crate) to_words: unsafe fn(Rows, Blocks, BlockRange, avx2::words::Panel),
    /// Unpacks some blocks of up to [`avx2::bytes::ROWS`] rows; see [`avx2::bytes`].
    #[cfg(target_arch = "x86_64")]
    pub(crate) to_bytes: unsafe fn(Rows, Blocks, BlockRange, avx2::bytes::Panel),
    /// The largest of those bytes, unless they are too large for their products.
    pub(crate) largest_byte: Option<u8>,
}

/// The AVX-512 kernels of one format.
///
/// All are unsafe: the CPU must have the tier's instructions, and rows, columns and outputs must be
/// as long as the arguments say.
pub(crate) struct Kernels512 {
    /// The order its codes come out in.
    pub(crate) order: &'static Order,
    /// Weights that share scale and minimum.
    pub(crate) group: usize,
    /// Where all minima are as many times the negative scale: the power of two.
    pub(crate) offset: Option<u32>,
    /// Whether a block has but one scale.
    pub(crate) is_uniform: bool,
    /// Products of few columns.
    pub(crate) gemv: Gemv,
    /// Unpacks some blocks of up to [`avx512::panel::ROWS`] rows; see [`avx512::panel`].
    #[cfg(target_arch = "x86_64")]
    pub(crate) unpack: unsafe fn(Rows, Blocks, BlockRange, avx512::panel::Panel),
    /// Blocks `from..to` of up to any number of rows as bf16 tiles for AMX; see [`amx`].
    pub(crate) tiles: unsafe fn(rows: Rows, blocks: Blocks, range: BlockRange, panel: *mut u16),
}

/// `out[c * rows.count + r] = rows[r] · columns[c]`, for 1 to 4 quantized columns.
///
/// Unsafe as [`Kernels512`].
pub(crate) type Gemv = unsafe fn(rows: Rows, blocks: Blocks, columns: &[Column], out: *mut f32);

/// `out[c * rows.count + r] = rows[r] · columns[c]`, for 1 to 4 columns of `cols` f32 inputs and
/// weights that are floats.
///
/// Unsafe as [`Kernels512`].
pub(crate) type FloatGemv = unsafe fn(rows: Rows, cols: usize, columns: &[&[f32]], out: *mut f32);

/// How a row divides into runs of 256 weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    /// Complete runs.
    pub(crate) whole: usize,
    /// Bytes of the incomplete last run; 0 if there is none.
    pub(crate) tail: usize,
}

impl Blocks {
    /// Runs in all.
    pub(crate) fn count(self) -> usize {
        self.whole + usize::from(self.tail > 0)
    }
}

/// An incomplete block, and zeros after it. The tails of all rows are equally long, so zeros stay.
#[cfg(target_arch = "x86_64")]
#[repr(align(64))]
pub(crate) struct Padded([u8; 1024]);

#[cfg(target_arch = "x86_64")]
impl Padded {
    pub(crate) const fn new() -> Self {
        Self([0; 1024])
    }

    /// Block `block` of a row, at `at`: of an incomplete one, a copy as if zero bytes followed, whose weights
    /// meet inputs that are zero.
    ///
    /// # Safety
    /// The block, as far as the row has it, is readable, and takes no more than this.
    #[inline]
    pub(crate) unsafe fn complete(
        &mut self,
        at: *const u8,
        block: usize,
        blocks: Blocks,
    ) -> *const u8 {
        if block < blocks.whole {
            return at;
        }
        // SAFETY: by contract.
        unsafe { at.copy_to_nonoverlapping(self.0.as_mut_ptr(), blocks.tail) };
        self.0.as_ptr()
    }
}

/// Bytes ahead of the reader that are asked for early: two pages, at whose ends the hardware's own prefetch stops.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 8192;

/// Asks for `len` bytes early, for the second-level cache. In the first they would push out the inputs (at 16384
/// columns half the rate, Zen 4) or the panel.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch(at: *const u8, len: usize) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

    for line in (0..len).step_by(64) {
        // SAFETY: a prefetch may point anywhere.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(line).cast()) };
    }
}

/// Some of the blocks of each row.
pub(crate) type BlockRange = std::ops::Range<usize>;
