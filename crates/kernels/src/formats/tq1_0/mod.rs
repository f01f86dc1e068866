//! TQ1_0: 256 weights in 54 bytes, 1.6875 bits a weight.
//!
//! ```text
//! byte    0          32         48        52       54
//!         | A, 32 B  | B, 16 B  | C, 4 B  | d: f16 |
//! ```
//! `weight = d·(trit - 1)`, trit 0..2. A byte of `A` and `B` holds five trits and one of `C` four:
//! with `n` bytes in the part, byte `i` holds the weights `i`, `n + i`, `2n + i`, ... of the part.
//! A byte is the fraction `0.t0 t1 t2 t3 t4` in base 3, scaled to 256 and rounded up: multiply by
//! 3, and the first trit is carried out of the byte.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 54;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Tq10>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Tq10>()),
    ..Spec::new(Layout {
        format: Format::TQ1_0,
        name: "TQ1_0",
        id: 34,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
