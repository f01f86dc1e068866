//! What the kernels of one CPU tier share: the drivers that walk rows and tokens.
//!
//! A format says only how 256 weights come out of its bytes (`formats/*/avx2.rs`,
//! `formats/*/avx512.rs`); the drivers here do the rest, once for all formats.

/// An array with an element for each of some others. `map` does the same, but the compiler does not
/// always inline a closure with instructions of a tier into it, and a call costs more than a block.
#[cfg(target_arch = "x86_64")]
macro_rules! map_lanes {
    ([$($x:expr),+], |$name:ident| $element:expr) => {
        [$({
            let $name = $x;
            $element
        }),+]
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use map_lanes;

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod floats;
pub(crate) mod i8;
#[cfg(target_arch = "x86_64")]
pub(crate) mod shuffle512;

/// Weights, and activations, in a block of every kernel.
pub(crate) const BLOCK: usize = 256;

/// The order in which a kernel takes the activations: for each quad of weights, in the order in
/// which the kernel's registers and lanes hold them, its place among the 64 quads of a block.
///
/// Formats scatter their weights over their bytes. Bringing the codes back into order would cost
/// shuffles for every row; arranging the activations once per vector costs nothing.
#[derive(Debug)]
pub(crate) struct Order {
    /// `quads[register * 16 + lane]` = index of the quad of weights there.
    pub(crate) quads: [u8; 64],
    /// Registers that share one scale per lane: 1, 2 or 4.
    pub(crate) chain: usize,
}

impl Order {
    /// Vectors of scales per 256 weights.
    pub(crate) const fn streams(&self) -> usize {
        4 / self.chain
    }

    /// Whether activations arranged for `other` are arranged for this order.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.quads == other.quads
    }
}

/// Weights as they are in the row.
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

/// A row of activations of 16 bits, arranged for kernels of one [`Order`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitI16Row {
    /// High bytes `[blocks, 256]`, in order.
    pub(crate) high: *const i8,
    /// Low bytes `[blocks, 256]`, in order.
    pub(crate) low: *const i8,
    /// Scales `[blocks]`: activation = scale · (256·high + low).
    pub(crate) scale: *const f32,
    /// Sums of 16 neighbouring activations `[blocks, 16]`.
    pub(crate) sums: *const f32,
}

// SAFETY: four addresses; reading through them is unsafe and has its own reasons.
unsafe impl Send for SplitI16Row {}

impl SplitI16Row {
    /// The row from a block on.
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

/// A row of activations of 16 bits as words, for gemv on AVX2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I16Row {
    /// Words `[blocks, 8, 2, 16]`: of each register of codes in the tier's order, what is
    /// multiplied with the even ones and then what is with the odd ones.
    pub(crate) words: *const i16,
    /// Scales `[blocks]`: activation = scale · word.
    pub(crate) scale: *const f32,
    /// Sums of 16 neighbouring activations `[blocks, 16]`.
    pub(crate) sums: *const f32,
}

impl I16Row {
    /// The row from a block on.
    #[inline(always)]
    pub(crate) fn from(self, block: usize) -> Self {
        Self {
            words: self.words.wrapping_add(block * 256),
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

/// Sums of one token after the other, `[tokens][stride]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    pub(crate) first: *mut f32,
    /// Numbers from token to token.
    pub(crate) stride: usize,
}

impl Sums {
    /// The sums from token `token` on.
    #[inline(always)]
    pub(crate) fn from(self, token: usize) -> Self {
        Self { first: self.first.wrapping_add(token * self.stride), ..self }
    }
}

/// The AVX2 kernels of one format; all take their activations in the tier's one order.
///
/// Unsafe as [`Kernels512`].
pub(crate) struct Kernels256 {
    /// Products of up to four tokens.
    pub(crate) gemv: Gemv<I16Row>,
    /// Weights that share scale and minimum, at least: 16 or 32.
    pub(crate) group: usize,
    /// Unpacks some blocks of all rows to 14 bits; see [`avx2::i14`].
    #[cfg(target_arch = "x86_64")]
    pub(crate) unpack_i14: unsafe fn(Rows, Blocks, BlockRange, avx2::i14::I14Panel),
    /// Unpacks some blocks of up to [`avx2::i8::ROWS`] rows to bytes; see [`avx2::i8`].
    #[cfg(target_arch = "x86_64")]
    pub(crate) unpack_i8: unsafe fn(Rows, Blocks, BlockRange, avx2::i8::I8Panel),
    /// The largest of those bytes, unless they are too large for their products.
    pub(crate) largest_byte: Option<u8>,
}

/// The AVX-512 kernels of one format.
///
/// All are unsafe: the CPU must have the tier's instructions, and rows, tokens and outputs must be
/// as long as the arguments say.
pub(crate) struct Kernels512 {
    /// The order its codes come out in.
    pub(crate) order: &'static Order,
    /// Weights that share scale and minimum.
    pub(crate) group: usize,
    /// If all minima are one multiple of the negative scale: that multiple, as a power of two.
    pub(crate) offset: Option<u32>,
    /// Whether a block has a single scale.
    pub(crate) is_uniform: bool,
    /// Whether sixteen rows are unpacked at once.
    pub(crate) has_x16: bool,
    /// Products of one or two tokens.
    pub(crate) gemv: Gemv<SplitI16Row>,
    /// Unpacks some blocks of up to [`avx512::panel::ROWS`] rows; see [`avx512::panel`].
    #[cfg(target_arch = "x86_64")]
    pub(crate) unpack: unsafe fn(Rows, Blocks, BlockRange, avx512::panel::Panel16),
    /// Blocks `from..to` of up to any number of rows as bf16 tiles for AMX; see [`amx`].
    pub(crate) tiles: unsafe fn(rows: Rows, blocks: Blocks, range: BlockRange, panel: *mut u16),
}

/// `out[t * rows.count + r] = rows[r] · tokens[t]`, for a few quantized tokens.
///
/// Unsafe as [`Kernels512`].
pub(crate) type Gemv<R> = unsafe fn(rows: Rows, blocks: Blocks, tokens: &[R], out: *mut f32);

/// `out[t * rows.count + r] = rows[r] · tokens[t]`, for 1 to 4 tokens of `cols` f32 activations and
/// weights that are floats.
///
/// Unsafe as [`Kernels512`].
pub(crate) type FloatGemv = unsafe fn(rows: Rows, cols: usize, tokens: &[&[f32]], out: *mut f32);

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

/// A row of a matrix, as gemv walks along it.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// Its first block.
    pub(crate) whole: *const u8,
    /// Where the first block would be if the incomplete last one were in place: that may be a copy.
    pub(crate) tail: *const u8,
}

/// An incomplete block with zeros after it. The tails of all rows are equally long, so zeros stay.
#[cfg(target_arch = "x86_64")]
#[repr(align(64))]
pub(crate) struct TailBlock([u8; 1024]);

#[cfg(target_arch = "x86_64")]
impl TailBlock {
    pub(crate) const fn new() -> Self {
        Self([0; 1024])
    }

    /// Row `r`, of blocks of `bytes` bytes. What follows the row may be read, too, as far as it is
    /// of the next rows: a copy of the last block would have to be waited for.
    ///
    /// # Safety
    /// The row, as far as `blocks` says, is readable, and a block takes no more than this.
    #[inline]
    pub(crate) unsafe fn row(&mut self, rows: Rows, r: usize, blocks: Blocks, bytes: usize) -> Row {
        let whole = rows.start.wrapping_add(r * rows.stride);
        let mut tail = whole.wrapping_add(blocks.whole * bytes);
        if blocks.tail > 0 && (rows.count - r) * rows.stride < blocks.count() * bytes {
            // SAFETY: by contract.
            tail = unsafe { self.pad(tail, blocks.whole, blocks) };
        }
        Row { whole, tail: tail.wrapping_sub(blocks.whole * bytes) }
    }

    /// Block `block` of a row, at `at`: of an incomplete one, a copy as if zero bytes followed,
    /// whose weights are multiplied with activations that are zero.
    ///
    /// # Safety
    /// The block, as far as the row has it, is readable, and takes no more than this.
    #[inline]
    pub(crate) unsafe fn pad(&mut self, at: *const u8, block: usize, blocks: Blocks) -> *const u8 {
        if block < blocks.whole {
            return at;
        }
        // SAFETY: by contract.
        unsafe { at.copy_to_nonoverlapping(self.0.as_mut_ptr(), blocks.tail) };
        self.0.as_ptr()
    }
}

/// Bytes ahead of the reader that are prefetched: two pages, at whose ends the hardware's own
/// prefetch stops.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 8192;

/// Prefetches `len` bytes to the second-level cache. In the first they would push out the
/// activations of long rows, or the panel.
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
