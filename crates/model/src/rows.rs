//! Work on the rows of a batch, one by one.

use cachalot_kernels::{Activations, ops};

/// Normalizes the rows of `x` `[rows, weight.len()]` into `out`.
pub(crate) fn norm_rows(x: &[f32], weight: &[f32], epsilon: f32, out: &mut Activations) {
    let width = weight.len();
    let out = out.reset(x.len() / width, width);
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        ops::rms_norm(x, weight, epsilon, out);
    }
}
