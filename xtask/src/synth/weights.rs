//! Random weights, encoded as fast as a disk takes them.
//!
//! Real encoders search for scales and take microseconds per block; a file of 13 GB would need
//! hours. So for each format and scale one pool of Gaussian weights is encoded, and the rows of a
//! tensor are runs of whole blocks from random places in it. Every block is a true encoding, no two
//! rows are alike, and the bytes of a file are read from memory once each, whatever they hold.

use std::collections::HashMap;
use std::thread;

use anyhow::{Context as _, Result};
use cachalot_gguf::{TensorInfo, TensorType};
use cachalot_kernels::Format;

use super::random::Random;

/// Weights in a pool: 4096 blocks of 256. The slowest encoder takes seconds for these.
pub(super) const POOL_LEN: usize = 1 << 20;
/// Weights taken from one place in the pool.
const RUN_LEN: usize = 2048;
/// Bytes handed over at once.
const PIECE: usize = 4 << 20;
/// Standard deviation of the router's products. With a selection bias of standard deviation 0.075,
/// sigmoid, 8 groups of which 4 are used and 8 picks, the hottest 10/18/25/45 % of 256 experts get
/// 42/60/70/89 % of the picks.
pub(crate) const ROUTER_DEVIATION: f32 = 0.64;
/// How far the weights of norms are from 1.
const NORM_DEVIATION: f32 = 0.02;

/// The source of all weights of a file.
pub(super) struct Weights {
    seed: u64,
    skew: f32,
    gaussian: Vec<f32>, // [pool_len], standard deviation 1
    pools: HashMap<(TensorType, u32), Vec<u8>>,
}

impl Weights {
    /// `pool_len` is a multiple of [`RUN_LEN`].
    pub(super) fn new(seed: u64, pool_len: usize, skew: f32) -> Self {
        let mut gaussian = vec![0.0; pool_len];
        Random::new(seed, u64::MAX).fill_normal(&mut gaussian);
        Self { seed, skew, gaussian, pools: HashMap::new() }
    }

    /// Hands the bytes of the file's tensor `number` to `append`, piece by piece.
    ///
    /// # Errors
    /// Those of `append`, or if no encoder exists for the tensor's type.
    pub(super) fn write(
        &mut self,
        number: u64,
        tensor: &TensorInfo,
        append: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut random = Random::new(self.seed, number);
        if let [len] = *tensor.shape {
            let mut vector = vec![0.0; len as usize];
            random.fill_normal(&mut vector);
            let is_bias = tensor.name.ends_with(".bias");
            let (mean, deviation) = if is_bias { (0.0, self.skew) } else { (1.0, NORM_DEVIATION) };
            let bytes = vector.iter().flat_map(|x| (mean + deviation * x).to_le_bytes());
            return append(&bytes.collect::<Vec<_>>());
        }
        let pool = self.pool(tensor.ty, deviation(tensor))?;
        let row_bytes = tensor.size / (tensor.elements() / tensor.shape[0]);
        let run_bytes =
            tensor.ty.row_bytes(RUN_LEN as u64).context("a run is not a whole number of blocks")?;
        let block_bytes = tensor.ty.block_bytes() as usize;
        let mut piece = Vec::with_capacity(PIECE + run_bytes as usize);
        let mut left = tensor.size;
        while left > 0 {
            // A row ends with a shorter run.
            let run = run_bytes.min((left - 1) % row_bytes + 1);
            left -= run;
            let run = run as usize;
            let start = random.below((pool.len() - run) / block_bytes + 1) * block_bytes;
            piece.extend_from_slice(&pool[start..start + run]);
            if piece.len() >= PIECE || left == 0 {
                append(&piece)?;
                piece.clear();
            }
        }
        Ok(())
    }

    /// The encoded weights of a type and standard deviation.
    fn pool(&mut self, ty: TensorType, deviation: f32) -> Result<&[u8]> {
        let key = (ty, deviation.to_bits());
        if !self.pools.contains_key(&key) {
            self.pools.insert(key, encode(ty, deviation, &self.gaussian)?);
        }
        Ok(&self.pools[&key])
    }
}

/// Standard deviation of a matrix's weights: products keep the size of what is multiplied.
fn deviation(tensor: &TensorInfo) -> f32 {
    let part = tensor.name.rsplit('.').nth(1).unwrap_or_default();
    let by_width = 1.0 / (tensor.shape[0] as f32).sqrt();
    match part {
        // What attention adds is an average over tokens. It stays small beside what sets a token
        // apart, or routers would come to see, layer by layer, the same in all of them.
        "token_embd" => 1.0,
        "attn_output" => by_width / 4.0,
        "ffn_gate_inp" => ROUTER_DEVIATION * by_width,
        // Stored transposed: it makes keys from the latent, whose width is its second dimension.
        "attn_k_b" => 1.0 / (tensor.shape[1] as f32).sqrt(),
        _ => by_width,
    }
}

/// Encodes all of `gaussian`, scaled, on all processors.
fn encode(ty: TensorType, deviation: f32, gaussian: &[f32]) -> Result<Vec<u8>> {
    let format = Format::from_id(ty.id()).with_context(|| format!("no kernel knows {ty}"))?;
    let len = format.row_bytes(gaussian.len());
    let mut bytes =
        vec![0; len.with_context(|| format!("a pool is not a whole number of blocks of {ty}"))?];
    let blocks =
        (gaussian.len() / format.block_len()).div_ceil(thread::available_parallelism()?.get());
    let done = thread::scope(|scope| {
        let weights = gaussian.chunks(blocks * format.block_len());
        let bytes = bytes.chunks_mut(blocks * format.block_bytes());
        let workers = weights.zip(bytes).map(|(weights, bytes)| {
            scope.spawn(move || {
                let scaled: Vec<_> = weights.iter().map(|x| x * deviation).collect();
                format.encode(&scaled, bytes)
            })
        });
        let workers: Vec<_> = workers.collect();
        workers.into_iter().all(|worker| worker.join().unwrap_or(false))
    });
    done.then_some(bytes).with_context(|| format!("no encoder for {ty}"))
}
