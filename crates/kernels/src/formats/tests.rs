//! Every encoder with blocks of all kinds: what comes back is finite and close.

use proptest::prelude::*;

use crate::format::Format;

/// Decoded weights of the encoding of `weights`.
fn there_and_back(format: Format, weights: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0xaa; format.row_bytes(weights.len()).unwrap()];
    assert!(format.encode(weights, &mut bytes), "{format} has no encoder");
    let mut decoded = vec![f32::NAN; weights.len()];
    format.decode(&bytes, &mut decoded);
    decoded
}

/// Root mean square error over root mean square.
fn relative_error(weights: &[f32], decoded: &[f32]) -> f32 {
    let error: f32 = weights.iter().zip(decoded).map(|(w, d)| (w - d) * (w - d)).sum();
    (error / weights.iter().map(|w| w * w).sum::<f32>()).sqrt()
}

/// What [`relative_error`] may be for weights spread evenly around zero: one more bit halves it.
fn bound(format: Format) -> f32 {
    let bits = 8.0 * format.block_bytes() as f32 / format.block_len() as f32;
    match format {
        Format::F16 => 0.0003,
        Format::BF16 => 0.0023,
        Format::MXFP4 => 0.2, // its scales are powers of two
        _ => (2.5 * 0.5f32.powf(bits)).min(0.5),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn weights_of_common_magnitudes_come_back_close(
        weights in prop::collection::vec(-1f32..1.0, 256),
        exponent in -1f32..3.0,
    ) {
        let weights: Vec<_> = weights.iter().map(|w| w * 10f32.powf(exponent)).collect();
        for format in Format::all() {
            let error = relative_error(&weights, &there_and_back(format, &weights));
            prop_assert!(error <= bound(format), "{format}: {error} > {}", bound(format));
        }
    }

    #[test]
    fn whatever_is_finite_comes_back_finite(
        bits in prop::collection::vec(any::<u32>(), 256),
        exponents in 0u32..255,
    ) {
        // Any bits but exponents of at most a given one, so that blocks are also tiny or moderate.
        let weight = |bits: u32| {
            let exponent = (bits >> 23 & 255).min(exponents).min(254);
            f32::from_bits(bits & !(255 << 23) | exponent << 23)
        };
        let weights: Vec<_> = bits.into_iter().map(weight).collect();
        // These two round as IEEE says: what exceeds their range becomes infinite.
        let formats = Format::all().filter(|f| ![Format::F16, Format::BF16].contains(f));
        for format in formats {
            let decoded = there_and_back(format, &weights);
            prop_assert!(decoded.iter().all(|w| w.is_finite()), "{format}: {decoded:?}");
        }
    }
}

#[test]
fn zeros_stay_zero() {
    for format in Format::all() {
        assert!(there_and_back(format, &[0.0; 512]).iter().all(|&w| w == 0.0), "{format}");
    }
}

#[test]
fn constant_blocks_come_back_close() {
    for format in Format::all() {
        for constant in [1.0, -1.0, 0.02, -300.0] {
            let error = relative_error(&[constant; 256], &there_and_back(format, &[constant; 256]));
            assert!(error <= bound(format).max(0.0003), "{format}, {constant}: {error}");
        }
    }
}

#[test]
fn a_block_beyond_the_range_is_cut_off_and_one_below_vanishes() {
    for format in Format::all().filter(|f| ![Format::F32, Format::F16, Format::BF16].contains(f)) {
        let huge = there_and_back(format, &[f32::MAX, -f32::MAX].repeat(128));
        assert!(huge.iter().all(|w| w.is_finite() && w.abs() > 1000.0), "{format}: {huge:?}");
        let tiny = there_and_back(format, &[1e-40, -1e-40].repeat(128));
        assert!(tiny.iter().all(|w| w.abs() < 1e-6), "{format}: {tiny:?}");
    }
}

#[test]
fn ternary_weights_survive_ternary_formats() {
    let weights: Vec<f32> = (0..256).map(|i| [-0.5, 0.0, 0.5][i * 7 % 3]).collect();
    for format in [Format::TQ1_0, Format::TQ2_0] {
        assert_eq!(there_and_back(format, &weights), weights, "{format}");
    }
}
