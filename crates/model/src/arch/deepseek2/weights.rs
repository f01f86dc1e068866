//! The key and value projections, in whichever of two layouts the file has, and what it lacks.
//!
//! Per head, the latent's projection to key (`nope` rows) and value (`value` rows) is one matrix of
//! `latent` tokens, and the absorbed form wants the key half transposed:
//!
//! | tensor | matrices | absorbed form | expanded form |
//! |---|---|---|---|
//! | `attn_kv_b` | `[nope + value, latent]` per head | value half | whole |
//! | `attn_k_b` | `[latent, nope]` per head | keys | |
//! | `attn_v_b` | `[value, latent]` per head | values | |
//!
//! Files have the first, the other two, or all three. What is lacking is derived, exactly in f32
//! when the scalar tier asks for the specification, and otherwise:
//!
//! - transposed keys at load, as Q8_0, because every token reads them;
//! - `attn_kv_b` layer by layer as long prompts pass, as F16: kept, it would take two gigabytes for
//!   R1. With all threads that is some hundredths of the work on the 128 tokens or more that it is
//!   derived for. (As Q8_0 it would double the distance of a Q4_K file from its exact logits.)

use std::thread;

use cachalot_kernels::{Cpu, Format, Matrix};
use cachalot_store::Bytes;

use super::config::Config;
use crate::Error;
use crate::bind::{Binder, Weight};

/// Key and value projections of all heads of one layer.
#[derive(Debug)]
pub(crate) struct KeysValues {
    keys: Weight, // [heads][latent, nope]
    values: Values,
    both: Option<Weight>, // [heads][nope + value, latent]
    nope: usize,
    heads: usize,
}

/// Where the value projections lie.
#[derive(Debug)]
enum Values {
    Own(Weight), // [heads][value, latent]
    /// The second part of every matrix of `both`.
    InBoth,
}

impl KeysValues {
    pub(crate) fn bind(
        binder: Binder<'_>,
        cpu: &Cpu,
        layer: usize,
        config: &Config,
    ) -> Result<Self, Error> {
        let &Config { heads, nope, value, latent, .. } = config;
        let name = |part: &str| format!("blk.{layer}.attn_{part}.weight");
        let stack = |part: &str, rows: usize, cols: usize| {
            let name = name(part);
            binder.has(&name).then(|| binder.stack(&name, heads, rows, cols)).transpose()
        };
        let both = stack("kv_b", nope + value, latent)?;
        // With neither, what is missed is the tensor of today's layout.
        let keys = match (stack("k_b", latent, nope)?, &both) {
            (Some(keys), _) => keys,
            (None, Some(both)) => transposed_keys(cpu, both, heads, nope),
            (None, None) => binder.stack(&name("k_b"), heads, latent, nope)?,
        };
        let values = match (stack("v_b", value, latent)?, &both) {
            (Some(values), _) => Values::Own(values),
            (None, Some(_)) => Values::InBoth,
            (None, None) => Values::Own(binder.stack(&name("v_b"), heads, value, latent)?),
        };
        Ok(Self { keys, values, both, nope, heads })
    }

    /// Keys of head `h`, transposed: `[latent, nope]`.
    pub(crate) fn keys(&self, h: usize) -> Matrix<'_> {
        self.keys.get(h)
    }

    /// Values of head `h`: `[value, latent]`.
    pub(crate) fn values(&self, h: usize) -> Matrix<'_> {
        match (&self.values, &self.both) {
            (Values::Own(values), _) => values.get(h),
            (Values::InBoth, Some(both)) => {
                let both = both.get(h);
                both.slice(self.nope, both.rows() - self.nope)
            }
            (Values::InBoth, None) => unreachable!("bound with `both`"),
        }
    }

    /// Keys and values of all heads, `[heads · (nope + value), latent]`: from the file, or derived
    /// into `derived`.
    pub(crate) fn both<'a>(&'a self, cpu: &Cpu, derived: &'a mut Vec<u8>) -> Matrix<'a> {
        if let Some(both) = &self.both {
            return both.matrix();
        }
        let (keys, values) = (self.keys(0), self.values(0));
        let (latent, nope, value) = (keys.rows(), keys.cols(), values.rows());
        let format = derived_format(cpu, &[keys.format(), values.format()], Format::F16, latent);
        let row_bytes = row_bytes(format, latent);
        let head_bytes = (nope + value) * row_bytes;
        derived.resize(self.heads * head_bytes, 0);
        each_head(cpu, derived, head_bytes, &|h, out| {
            let (keys, values) = out.split_at_mut(nope * row_bytes);
            transpose(self.keys(h), format, keys);
            copy(self.values(h), format, values);
        });
        Matrix::new(format, self.heads * (nope + value), latent, derived)
            .unwrap_or_else(|error| unreachable!("made to this shape: {error}"))
    }
}

/// The key halves of `attn_kv_b`, transposed.
fn transposed_keys(cpu: &Cpu, both: &Weight, heads: usize, nope: usize) -> Weight {
    let latent = both.cols();
    let format = derived_format(cpu, &[both.get(0).format()], Format::Q8_0, nope);
    let head_bytes = latent * row_bytes(format, nope);
    let mut bytes = vec![0; heads * head_bytes];
    each_head(cpu, &mut bytes, head_bytes, &|h, out| {
        transpose(both.get(h).slice(0, nope), format, out);
    });
    Weight::new(format, (heads, latent, nope), Bytes::from(bytes), Vec::new())
        .unwrap_or_else(|error| unreachable!("made to this shape: {error}"))
}

/// The format of rows of `cols` numbers derived from `sources`: floats stay what they are, anything
/// else becomes `close`, unless the specification wants no rounding.
fn derived_format(cpu: &Cpu, sources: &[Format], close: Format, cols: usize) -> Format {
    let is_one_float = sources.iter().all(|s| *s == sources[0] && s.block_len() == 1);
    if is_one_float {
        sources[0]
    } else if cpu.tier().is_scalar() || close.row_bytes(cols).is_none() {
        Format::F32
    } else {
        close
    }
}

fn row_bytes(format: Format, cols: usize) -> usize {
    format.row_bytes(cols).unwrap_or_else(|| unreachable!("`derived_format` has seen that it fits"))
}

/// Calls `fill` with each head and its part of `bytes`, on as many threads as the processor has.
fn each_head(
    cpu: &Cpu,
    bytes: &mut [u8],
    head_bytes: usize,
    fill: &(dyn Fn(usize, &mut [u8]) + Sync),
) {
    let heads = bytes.len() / head_bytes;
    let share = heads.div_ceil(cpu.pool().threads());
    thread::scope(|scope| {
        for (i, bytes) in bytes.chunks_mut(share * head_bytes).enumerate() {
            scope.spawn(move || {
                for (h, bytes) in bytes.chunks_mut(head_bytes).enumerate() {
                    fill(i * share + h, bytes);
                }
            });
        }
    });
}

/// Writes `from` `[rows, cols]` as `[cols, rows]`.
fn transpose(from: Matrix<'_>, format: Format, out: &mut [u8]) {
    let (rows, cols) = (from.rows(), from.cols());
    let mut numbers = vec![0.0; rows * cols];
    for (r, row) in numbers.chunks_exact_mut(cols).enumerate() {
        from.row(r, row);
    }
    let mut column = vec![0.0; rows];
    for (c, out) in out.chunks_exact_mut(row_bytes(format, rows)).enumerate() {
        for (r, number) in column.iter_mut().enumerate() {
            *number = numbers[r * cols + c];
        }
        encode(format, &column, out);
    }
}

/// Writes `from` in another format.
fn copy(from: Matrix<'_>, format: Format, out: &mut [u8]) {
    if from.format() == format && from.scale() == 1.0 {
        return out.copy_from_slice(from.bytes());
    }
    let mut row = vec![0.0; from.cols()];
    for (r, out) in out.chunks_exact_mut(row_bytes(format, from.cols())).enumerate() {
        from.row(r, &mut row);
        encode(format, &row, out);
    }
}

fn encode(format: Format, numbers: &[f32], out: &mut [u8]) {
    let encoded = format.encode(numbers, out);
    debug_assert!(encoded, "{format} can be written");
}
