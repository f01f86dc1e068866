//! Every decoder against the reference decoder's values, bit for bit, and every encoder against the
//! reference encoder's error.
//!
//! `fixtures/quants.safetensors` holds 12 rows of 512 weights (normal, tiny, huge, constant,
//! skewed, heavy-tailed, zero, with an outlier, a ramp, ...) as `source`, and per format the
//! reference encoder's `NAME.bytes` and the reference decoder's `NAME.values` of them.

use cachalot_kernels::Format;

const ROWS: usize = 12;
const COLS: usize = 512;

/// The bytes of one tensor of the fixture; `None` if there is none of that name.
fn tensor(name: &str) -> Option<&'static [u8]> {
    static FILE: &[u8] = include_bytes!("fixtures/quants.safetensors");
    let (len, rest) = FILE.split_first_chunk()?;
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    // The header is JSON without blanks: {"NAME":{...,"data_offsets":[BEGIN,END]},...}
    let header = std::str::from_utf8(header).ok()?;
    let (_, entry) = header.split_once(&format!("\"{name}\":{{"))?;
    let (_, offsets) = entry.split_once("\"data_offsets\":[")?;
    let (begin, end) = offsets.split_once(']')?.0.split_once(',')?;
    Some(&data[begin.parse().ok()?..end.parse().ok()?])
}

/// A tensor of `ROWS * COLS` f32.
fn values(name: &str) -> Option<Vec<f32>> {
    let values: Vec<f32> =
        tensor(name)?.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    (values.len() == ROWS * COLS).then_some(values)
}

/// What all formats encode.
fn source() -> Vec<f32> {
    values("source").expect("the fixture has the source")
}

/// The reference's encoding of `source` and its values; F32 is its own.
fn reference(format: Format) -> (&'static [u8], Vec<f32>) {
    let (bytes, decoded) = match format {
        Format::F32 => ("source".into(), "source".into()),
        _ => (format!("{format}.bytes"), format!("{format}.values")),
    };
    tensor(&bytes).zip(values(&decoded)).unwrap_or_else(|| panic!("the fixture lacks {format}"))
}

/// Bytes of a row of `cols` weights.
fn row_bytes(format: Format, cols: usize) -> usize {
    format.row_bytes(cols).expect("rows are whole blocks of every format")
}

#[test]
fn decoders_equal_the_reference_bit_for_bit() {
    for format in Format::all() {
        let (bytes, expected) = reference(format);
        let mut decoded = vec![f32::NAN; ROWS * COLS];
        let row_bytes = row_bytes(format, COLS);
        assert_eq!(bytes.len(), ROWS * row_bytes, "{format}");
        for (bytes, out) in bytes.chunks_exact(row_bytes).zip(decoded.chunks_exact_mut(COLS)) {
            format.decode(bytes, out);
        }
        for (i, (is, should)) in decoded.iter().zip(&expected).enumerate() {
            let (row, column) = (i / COLS, i % COLS);
            assert!(
                is.to_bits() == should.to_bits(),
                "{format}, row {row}, column {column}: {is} instead of {should}"
            );
        }
    }
}

fn encode(format: Format, weights: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0xaa; row_bytes(format, weights.len())];
    assert!(format.encode(weights, &mut bytes), "{format} has no encoder");
    let mut decoded = vec![f32::NAN; weights.len()];
    format.decode(&bytes, &mut decoded);
    decoded
}

/// Root of the mean square of the differences.
fn rmse(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

#[test]
fn encoders_err_no_more_than_the_reference() {
    let source = source();
    println!("format       ours  reference  ratio  geometric mean of the rows' ratios");
    for format in Format::all() {
        let (ours, theirs) = (encode(format, &source), reference(format).1);
        let (ours_rmse, theirs_rmse) = (rmse(&ours, &source), rmse(&theirs, &source));
        // The rows' magnitudes differ by 10^6; so that the small ones count, also compare row by
        // row.
        let rows = ours.chunks(COLS).zip(theirs.chunks(COLS)).zip(source.chunks(COLS));
        let ratios: Vec<f64> = rows
            .map(|((ours, theirs), source)| (rmse(ours, source), rmse(theirs, source)))
            .filter(|&(_, theirs)| theirs > 0.0)
            .map(|(ours, theirs)| (ours / theirs).max(0.01))
            .collect();
        let logarithms: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
        let mean = (logarithms / ratios.len().max(1) as f64).exp();
        let ratio = ours_rmse / theirs_rmse;
        println!(
            "{:<8} {ours_rmse:>8.5} {theirs_rmse:>10.5} {ratio:>6.3} {mean:>7.3} {ratios:.2?}",
            format.name()
        );
        assert!(
            ours_rmse <= 1.02 * theirs_rmse,
            "{format}: RMSE {ours_rmse} instead of {theirs_rmse}"
        );
        assert!(mean <= 1.02, "{format}: relative to the reference, rows err by {ratios:.3?}");
    }
}
