//! The formats of weights: one line each in [`FORMATS`], everything else in the format's own folder.
//!
//! A format is a name, the id that GGUF files use, the size of its blocks and a handful of
//! functions. Nothing outside `formats/` matches on a [`Format`]; who needs to know asks its
//! [`Spec`].

use crate::formats;
use crate::isa::{FloatGemv, Kernels256, Kernels512};

/// How the weights of a tensor are encoded.
///
/// The discriminant indexes [`FORMATS`]; the id in files is [`Format::id`].
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

/// Every format, in the order of [`Format`].
pub(crate) static FORMATS: [&Spec; 26] = [
    &formats::f32::SPEC,
    &formats::f16::SPEC,
    &formats::bf16::SPEC,
    &formats::q4_0::SPEC,
    &formats::q4_1::SPEC,
    &formats::q5_0::SPEC,
    &formats::q5_1::SPEC,
    &formats::q8_0::SPEC,
    &formats::q2_k::SPEC,
    &formats::q3_k::SPEC,
    &formats::q4_k::SPEC,
    &formats::q5_k::SPEC,
    &formats::q6_k::SPEC,
    &formats::iq1_s::SPEC,
    &formats::iq1_m::SPEC,
    &formats::iq2_xxs::SPEC,
    &formats::iq2_xs::SPEC,
    &formats::iq2_s::SPEC,
    &formats::iq3_xxs::SPEC,
    &formats::iq3_s::SPEC,
    &formats::iq4_nl::SPEC,
    &formats::iq4_xs::SPEC,
    &formats::tq1_0::SPEC,
    &formats::tq2_0::SPEC,
    &formats::mxfp4::SPEC,
    &formats::nvfp4::SPEC,
];

/// f32 weights to whole blocks.
pub(crate) type Encode = fn(&[f32], &mut [u8]);

/// What a format's folder tells the rest of the crate.
pub(crate) struct Spec {
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
    /// The scalar twin: whole blocks to f32, the specification of the format.
    pub(crate) decode: fn(&[u8], &mut [f32]),
    /// f32 to whole blocks; `None` where nobody needs to write the format.
    pub(crate) encode: Option<Encode>,
    /// AVX2 kernels; `None` falls back to the scalar twin.
    pub(crate) avx2: Option<Kernels256>,
    /// AVX2 kernels of a format whose weights are floats.
    pub(crate) floats256: Option<FloatGemv>,
    /// AVX-512 kernels; `None` falls back to AVX2.
    pub(crate) avx512: Option<Kernels512>,
    /// AVX-512 kernels of a format whose weights are floats.
    pub(crate) floats512: Option<FloatGemv>,
}

impl Spec {
    /// What most formats leave out.
    pub(crate) const BASE: Self = Self {
        format: Format::F32,
        name: "",
        id: 0,
        block_len: 1,
        block_bytes: 4,
        decode: |_, _| {},
        encode: None,
        avx2: None,
        floats256: None,
        avx512: None,
        floats512: None,
    };
}

impl Format {
    /// All formats.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS.iter().map(|spec| spec.format)
    }

    /// The format with this id in GGUF files, if its arithmetic is supported.
    pub fn from_id(id: u32) -> Option<Self> {
        FORMATS.iter().find(|spec| spec.id == id).map(|spec| spec.format)
    }

    pub(crate) fn spec(self) -> &'static Spec {
        FORMATS[self as usize]
    }

    /// Id in GGUF files.
    pub fn id(self) -> u32 {
        self.spec().id
    }

    /// Name as files and people write it, for example `Q4_K`.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// Weights in one block.
    pub fn block_len(self) -> usize {
        self.spec().block_len
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        self.spec().block_bytes
    }

    /// Bytes of a row of `cols` weights; `None` if rows of that length cannot be in this format.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let spec = self.spec();
        (cols.is_multiple_of(spec.block_len)).then(|| cols / spec.block_len * spec.block_bytes)
    }

    /// Decodes whole blocks with the scalar twin.
    ///
    /// # Panics
    /// If `bytes` is not exactly the encoding of `out.len()` weights.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(Some(bytes.len()), self.row_bytes(out.len()), "{self:?}: {} weights", out.len());
        (self.spec().decode)(bytes, out);
    }

    /// Encodes whole blocks; `false` if this format has no encoder.
    ///
    /// # Panics
    /// If `bytes` is not exactly the room for `weights.len()` weights.
    #[must_use]
    pub fn encode(self, weights: &[f32], bytes: &mut [u8]) -> bool {
        assert_eq!(Some(bytes.len()), self.row_bytes(weights.len()), "{self:?}");
        self.spec().encode.inspect(|encode| encode(weights, bytes)).is_some()
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_enum_and_ids_are_unique() {
        for (i, spec) in FORMATS.iter().enumerate() {
            assert_eq!(spec.format as usize, i, "{}", spec.name);
            assert_eq!(spec.name, format!("{:?}", spec.format));
            assert_eq!(FORMATS.iter().filter(|other| other.id == spec.id).count(), 1);
            assert_eq!(Format::from_id(spec.id), Some(spec.format));
        }
    }
}
