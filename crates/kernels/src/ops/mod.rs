//! The small operations between products: norms, activations, rotations, choices.
//!
//! Plain loops over slices. Where a loop is hot enough to show, it is compiled for each tier by
//! `simd`.

use crate::cpu::Tier;

/// Defines functions whose bodies are compiled for the registers of each tier; the first argument
/// chooses. A closure that is passed to a function with these registers would not do: it is
/// compiled for them only if it is inlined there.
macro_rules! simd {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident(Tier $(, $arg:ident: $type:ty)* $(,)?) $(-> $out:ty)? $body:block
    )+) => {$(
        $(#[$meta])*
        $vis fn $name(tier: $crate::cpu::Tier, $($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
                fn avx512($($arg: $type),*) $(-> $out)? $body
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $out)? $body
                if tier.has_avx512() {
                    // SAFETY: the tier has the instructions.
                    return unsafe { avx512($($arg),*) };
                }
                if tier.has_avx2() {
                    // SAFETY: the tier has the instructions.
                    return unsafe { avx2($($arg),*) };
                }
            }
            let _ = tier;
            $body
        }
    )+};
}
pub(crate) use simd;

/// `a · b` in f32, summed in sixteen lanes.
#[inline(always)] // it takes the width of its caller
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (mut a16, mut b16) = (a.chunks_exact(16), b.chunks_exact(16));
    for (a, b) in a16.by_ref().zip(b16.by_ref()) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a16.remainder().iter().zip(b16.remainder()).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

/// `out = x / sqrt(mean(x²) + epsilon) * weight`, all of one length (Zhang and Sennrich 2019).
#[inline(always)] // it takes the width of its caller
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt();
    for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * w;
    }
}

/// `gate = silu(gate) * up`, with `silu(x) = x / (1 + exp(-x))`.
pub fn silu_mul(tier: Tier, gate: &mut [f32], up: &[f32]) {
    if tier.is_scalar() {
        for (g, u) in gate.iter_mut().zip(up) {
            *g = *g / (1.0 + (-*g).exp()) * u;
        }
        return;
    }
    fast_silu_mul(tier, gate, up);
}

simd! {
    fn fast_silu_mul(Tier, gate: &mut [f32], up: &[f32]) {
        for (g, u) in gate.iter_mut().zip(up) {
            *g = *g / (1.0 + exp(-*g)) * u;
        }
    }

    /// [`rms_norm`] of one row.
    pub(crate) fn rms_norm_row(Tier, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        rms_norm(x, weight, epsilon, out);
    }

    /// `out += weight * x`.
    pub(crate) fn add_scaled(Tier, out: &mut [f32], x: &[f32], weight: f32) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out += weight * x);
    }
}

/// Replaces `x` by `exp(x - max) / sum` (in place).
pub fn softmax(x: &mut [f32]) {
    let max = x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let mut sum = 0.0;
    for x in x.iter_mut() {
        *x = (*x - max).exp();
        sum += *x;
    }
    x.iter_mut().for_each(|x| *x /= sum);
}

/// `1 / (1 + exp(-x))`.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `exp(x)` to about 2 units in the last place, by a polynomial that vectorizes.
///
/// Range reduction by `ln 2` in two parts and a Taylor polynomial of degree 7 on ±`ln 2 / 2`;
/// results outside the normal range are clamped to its ends.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    // Plain products and sums: `mul_add` is a call wherever the instruction is not enabled.
    let r = x - n * 0.693_145_75 - n * 1.428_606_8e-6;
    let p = r * (1.0 / 5040.0) + 1.0 / 720.0;
    let p = r * p + 1.0 / 120.0;
    let p = r * p + 1.0 / 24.0;
    let p = r * p + 1.0 / 6.0;
    let p = r * p + 0.5;
    let p = r * p + 1.0;
    let p = r * p + 1.0;
    p * f32::from_bits(((shifted.to_bits().wrapping_sub(0x4B40_0000) as i32 + 127) << 23) as u32)
}

/// The bits of the bf16 nearest to `x`, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> u16 {
    half::bf16::from_f32(x).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_a_millionth() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let (fast, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((fast / exact - 1.0).abs() < 1e-6, "exp({x}) = {exact}, not {fast}");
        }
        assert!(exp(-1e30) < 1e-37 && exp(1e30) > 1e38);
    }

    #[test]
    fn norm_softmax_and_silu_are_what_they_say() {
        let mut out = [0.0; 4];
        rms_norm(&[1.0, -1.0, 3.0, 5.0], &[1.0, 2.0, 1.0, 1.0], 0.0, &mut out);
        for (o, e) in out.iter().zip([1.0f32 / 3.0, -2.0 / 3.0, 1.0, 5.0 / 3.0]) {
            assert!((o - e).abs() < 1e-6, "{o} for {e}");
        }
        let mut p = [1000.0, 1000.0];
        softmax(&mut p);
        assert_eq!(p, [0.5, 0.5]);
        for tier in Tier::available() {
            let mut gate = [-2.0, 0.0, 3.0];
            silu_mul(tier, &mut gate, &[1.0, 1.0, 2.0]);
            for (g, e) in gate.iter().zip([-0.238_405_84, 0.0, 5.715_445]) {
                assert!((g - e).abs() < 1e-6, "{tier}");
            }
        }
    }
}
