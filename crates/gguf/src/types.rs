//! The tensor types of GGUF: id, name and block size.
//!
//! One line per type, because that is all that reading a file needs: only the kernels know what
//! the bits inside a block mean. Types without kernels are listed too, so that any file can be
//! described. Sizes: ggml's `type_traits` and, from id 133, those of `ik_llama.cpp`, some of which
//! store a scale before each row.

use std::fmt;

/// A storage type of tensors: blocks of [`block_len`](Self::block_len) weights in
/// [`block_bytes`](Self::block_bytes) bytes.
///
/// Only known types can be constructed, so a `TensorType` always has a size. The constants can be
/// used as patterns.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorType {
    id: u32,
    name: &'static str,
    block_len: u32,
    block_bytes: u32,
    row_header: u32,
}

/// `NAME = id, weights per block, bytes per block, bytes before each row;`
macro_rules! tensor_types {
    ($($name:ident = $id:literal, $len:literal, $bytes:literal, $header:literal;)*) => {
        #[allow(missing_docs)] // each constant is the type of that name
        impl TensorType {
            $(pub const $name: Self = Self {
                id: $id,
                name: stringify!($name),
                block_len: $len,
                block_bytes: $bytes,
                row_header: $header,
            };)*

            /// Every known type, by ascending id.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

tensor_types! {
    F32 = 0, 1, 4, 0;
    F16 = 1, 1, 2, 0;
    Q4_0 = 2, 32, 18, 0;
    Q4_1 = 3, 32, 20, 0;
    Q5_0 = 6, 32, 22, 0;
    Q5_1 = 7, 32, 24, 0;
    Q8_0 = 8, 32, 34, 0;
    Q8_1 = 9, 32, 36, 0;
    Q2_K = 10, 256, 84, 0;
    Q3_K = 11, 256, 110, 0;
    Q4_K = 12, 256, 144, 0;
    Q5_K = 13, 256, 176, 0;
    Q6_K = 14, 256, 210, 0;
    Q8_K = 15, 256, 292, 0;
    IQ2_XXS = 16, 256, 66, 0;
    IQ2_XS = 17, 256, 74, 0;
    IQ3_XXS = 18, 256, 98, 0;
    IQ1_S = 19, 256, 50, 0;
    IQ4_NL = 20, 32, 18, 0;
    IQ3_S = 21, 256, 110, 0;
    IQ2_S = 22, 256, 82, 0;
    IQ4_XS = 23, 256, 136, 0;
    I8 = 24, 1, 1, 0;
    I16 = 25, 1, 2, 0;
    I32 = 26, 1, 4, 0;
    I64 = 27, 1, 8, 0;
    F64 = 28, 1, 8, 0;
    IQ1_M = 29, 256, 56, 0;
    BF16 = 30, 1, 2, 0;
    TQ1_0 = 34, 256, 54, 0;
    TQ2_0 = 35, 256, 66, 0;
    MXFP4 = 39, 32, 17, 0;
    NVFP4 = 40, 64, 36, 0;
    Q1_0 = 41, 128, 18, 0;
    Q2_0 = 42, 64, 18, 0;
    Q6_0 = 133, 32, 26, 0;
    IQ2_K = 137, 256, 76, 0;
    IQ3_K = 138, 256, 110, 0;
    IQ4_K = 139, 256, 144, 0;
    IQ5_K = 140, 256, 176, 0;
    IQ6_K = 141, 256, 212, 0;
    IQ4_KS = 144, 256, 136, 4;
    IQ2_KS = 145, 256, 70, 2;
    IQ4_KSS = 146, 256, 128, 4;
    IQ5_KS = 152, 256, 168, 4;
    IQ2_KT = 153, 256, 68, 4;
    IQ3_KT = 154, 256, 100, 4;
    IQ4_KT = 155, 256, 128, 4;
    IQ3_KS = 156, 256, 102, 2;
    IQ2_KL = 157, 256, 86, 2;
    IQ1_KT = 158, 256, 56, 4;
    Q4_0_R8 = 202, 32, 18, 0;
    Q5_0_R4 = 206, 32, 22, 0;
    Q8_0_R8 = 208, 32, 34, 0;
    Q2_K_R4 = 210, 256, 84, 0;
    Q3_K_R4 = 211, 256, 110, 0;
    Q4_K_R4 = 212, 256, 144, 0;
    Q5_K_R4 = 213, 256, 176, 0;
    Q6_K_R4 = 214, 256, 210, 0;
    IQ2_XXS_R4 = 216, 256, 66, 0;
    IQ2_XS_R4 = 217, 256, 74, 0;
    IQ3_XXS_R4 = 218, 256, 98, 0;
    IQ1_S_R4 = 219, 32, 6, 2;
    IQ4_NL_R4 = 220, 32, 18, 0;
    IQ3_S_R4 = 221, 256, 110, 0;
    IQ2_S_R4 = 222, 256, 82, 0;
    IQ4_XS_R8 = 223, 256, 136, 0;
    IQ1_M_R4 = 229, 32, 7, 2;
    BF16_R16 = 230, 1, 2, 0;
    Q6_0_R4 = 233, 32, 26, 0;
    IQ2_K_R4 = 337, 256, 76, 0;
    IQ3_K_R4 = 338, 256, 110, 0;
    IQ4_K_R4 = 339, 256, 144, 0;
    IQ5_K_R4 = 340, 256, 176, 0;
    IQ4_KS_R4 = 344, 256, 136, 4;
    IQ5_KS_R4 = 352, 256, 168, 4;
    Q8_K_R8 = 399, 256, 258, 0;
}

impl TensorType {
    /// The type with this id in a file's tensor list, if it is known.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|ty| ty.id == id)
    }

    /// The type of this name, in any case: `q4_k`, `IQ1_S`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|ty| ty.name.eq_ignore_ascii_case(name))
    }

    /// The id used in files.
    pub fn id(self) -> u32 {
        self.id
    }

    /// The usual name, in capitals: `Q4_K`.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Weights in a block; the length of a row is a multiple of it.
    pub fn block_len(self) -> u64 {
        u64::from(self.block_len)
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> u64 {
        u64::from(self.block_bytes)
    }

    /// Bytes before the blocks of each row: 0 but for some types of `ik_llama.cpp`.
    pub fn row_header(self) -> u64 {
        u64::from(self.row_header)
    }

    /// Bytes of a row of `cols` weights; `None` if `cols` is not a multiple of the block length or
    /// the size overflows.
    pub fn row_bytes(self, cols: u64) -> Option<u64> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())?.checked_add(self.row_header())
    }

    /// Bits per weight in long rows.
    pub fn bits_per_weight(self) -> f64 {
        f64::from(self.block_bytes) * 8.0 / f64::from(self.block_len)
    }

    /// Whether only `ik_llama.cpp` and its forks read and write this type.
    pub fn is_ik_only(self) -> bool {
        self.id >= 100
    }
}

/// What to do about an unknown id, for the error.
pub(crate) fn about_unknown(id: u32) -> &'static str {
    match id {
        4 | 5 | 31..=33 | 36..=38 => {
            "ggml has withdrawn this type: convert the model again with a current converter"
        }
        _ => "a newer cachalot may support it; otherwise get the model in another quantization",
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_so_none_is_listed_twice() {
        assert!(TensorType::ALL.windows(2).all(|pair| pair[0].id < pair[1].id));
    }

    #[test]
    fn ids_and_names_lead_back_to_the_type() {
        for &ty in TensorType::ALL {
            assert_eq!(TensorType::from_id(ty.id()), Some(ty));
            assert_eq!(TensorType::from_name(&ty.name().to_lowercase()), Some(ty));
        }
        assert_eq!(TensorType::from_id(31), None);
        assert!(about_unknown(31).contains("withdrawn"));
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(TensorType::Q4_K.row_bytes(7168), Some(7168 / 256 * 144));
        assert_eq!(TensorType::Q4_K.row_bytes(128), None);
        assert_eq!(TensorType::Q8_0.row_bytes(128), Some(136));
        assert_eq!(TensorType::IQ4_KS.row_bytes(512), Some(2 * 136 + 4));
        assert_eq!(TensorType::F64.row_bytes(u64::MAX / 2), None);
        assert_eq!(TensorType::IQ1_S.bits_per_weight(), 1.5625);
    }
}
