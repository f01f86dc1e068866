//! What a format's folder tells the rest of the crate.

use crate::isa::{FloatGemv, Kernels256, Kernels512};

/// How the weights of a tensor are encoded.
///
/// The discriminant indexes `FORMATS`; the id in files is [`Format::id`].
#[allow(non_camel_case_types, missing_docs, reason = "the field's own names")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    IQ4_NL,
    IQ4_XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
}

/// f32 weights to whole blocks.
pub(crate) type Encode = fn(&[f32], &mut [u8]);

/// What every format has.
pub(crate) struct Layout {
    /// The format this describes.
    pub(crate) format: Format,
    /// Its name as files and people write it.
    pub(crate) name: &'static str,
    /// Its id in GGUF files.
    pub(crate) id: u32,
    /// Weights in one block.
    pub(crate) block_len: usize,
    /// Bytes of one block.
    pub(crate) block_bytes: usize,
    /// The reference kernel: whole blocks to f32, the specification of the format.
    pub(crate) decode: fn(&[u8], &mut [f32]),
}

/// What a format's folder tells the rest of the crate.
pub(crate) struct Spec {
    /// What every format has.
    pub(crate) layout: Layout,
    /// f32 to whole blocks; `None` where nothing needs to write the format.
    pub(crate) encode: Option<Encode>,
    /// AVX2 kernels; `None` falls back to the reference kernel.
    pub(crate) avx2: Option<Kernels256>,
    /// AVX2 kernels of a format whose weights are floats.
    pub(crate) floats256: Option<FloatGemv>,
    /// AVX-512 kernels; `None` falls back to AVX2.
    pub(crate) avx512: Option<Kernels512>,
    /// AVX-512 kernels of a format whose weights are floats.
    pub(crate) floats512: Option<FloatGemv>,
}

impl Spec {
    /// A format without an encoder and fast kernels.
    pub(crate) const fn new(layout: Layout) -> Self {
        Self { layout, encode: None, avx2: None, floats256: None, avx512: None, floats512: None }
    }
}
