//! The formats of weights: one line each in [`FORMATS`], everything else in the format's own
//! folder.
//!
//! A format is a name, the id that GGUF files use, the size of its blocks and a handful of
//! functions. Nothing outside `formats/` matches on a [`Format`]; who needs to know asks its
//! [`Spec`].

use crate::formats;
pub use crate::formats::spec::Format;
use crate::formats::spec::Spec;

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

impl Format {
    /// All formats.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS.iter().map(|spec| spec.layout.format)
    }

    /// The format with this id in GGUF files, if its arithmetic is supported.
    pub fn from_id(id: u32) -> Option<Self> {
        FORMATS.iter().find(|spec| spec.layout.id == id).map(|spec| spec.layout.format)
    }

    pub(crate) fn spec(self) -> &'static Spec {
        FORMATS[self as usize]
    }

    /// Id in GGUF files.
    pub fn id(self) -> u32 {
        self.spec().layout.id
    }

    /// Name as files and people write it, for example `Q4_K`.
    pub fn name(self) -> &'static str {
        self.spec().layout.name
    }

    /// Weights in one block.
    pub fn block_len(self) -> usize {
        self.spec().layout.block_len
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        self.spec().layout.block_bytes
    }

    /// Bytes of a row of `cols` weights; `None` if rows of that length cannot be in this format.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let spec = &self.spec().layout;
        (cols.is_multiple_of(spec.block_len)).then(|| cols / spec.block_len * spec.block_bytes)
    }

    /// Decodes whole blocks with the reference kernel.
    ///
    /// # Panics
    /// If `bytes` is not exactly the encoding of `out.len()` weights.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(Some(bytes.len()), self.row_bytes(out.len()), "{self:?}: {} weights", out.len());
        (self.spec().layout.decode)(bytes, out);
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
            assert_eq!(spec.layout.format as usize, i, "{}", spec.layout.name);
            assert_eq!(spec.layout.name, format!("{:?}", spec.layout.format));
            assert_eq!(FORMATS.iter().filter(|other| other.layout.id == spec.layout.id).count(), 1);
            assert_eq!(Format::from_id(spec.layout.id), Some(spec.layout.format));
        }
    }
}
