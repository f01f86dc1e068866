//! The cache of latents: what attention remembers of a sequence.
//!
//! A layer keeps one row per token, `[latent | rotated shared key]`, for all heads together: 576
//! numbers on R1 where full keys and values would be 40,960. Memory is asked for whole, and as zeros,
//! so that pages of a context that is never filled are never touched.

use std::fmt;

use cachalot_gguf::KvType;
use cachalot_kernels::Format;
use cachalot_kernels::attention::{Latent, PAGE_ROWS};

use crate::{Error, StageCache};

/// The weight format with the same encoding.
pub(crate) fn format(kv: KvType) -> Format {
    match kv {
        KvType::F32 => Format::F32,
        KvType::F16 => Format::F16,
        KvType::Q8_0 => Format::Q8_0,
    }
}

/// The memory of one sequence in all layers. Made by [`crate::Model::cache`].
pub struct KvCache {
    pub(crate) parts: Vec<StageCache>,
    pub(crate) len: usize,
    pub(crate) capacity: usize,
    pub(crate) bytes_per_token: usize,
}

impl KvCache {
    /// Tokens remembered.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that can be remembered.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of one token in all layers.
    pub fn bytes_per_token(&self) -> usize {
        self.bytes_per_token
    }

    /// Forgets all tokens from position `len` on; a longer `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl fmt::Debug for KvCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KvCache({} of {} tokens)", self.len, self.capacity)
    }
}

/// The rows of some layers, in this machine's memory.
pub(crate) struct LatentRows {
    format: Format,
    width: usize,
    values: usize,
    row_bytes: usize,
    pages: Vec<u32>,      // the pages of a layer, in order
    layers: Vec<Vec<u8>>, // per layer: [pages, PAGE_ROWS, row_bytes]
}

impl LatentRows {
    /// Zeroed rows of `width` numbers, the first `values` of them the latent.
    pub(crate) fn new(
        kind: KvType,
        layers: usize,
        (width, values): (usize, usize),
        capacity: usize,
    ) -> Result<Self, Error> {
        let format = format(kind);
        let row_bytes = format.row_bytes(width).ok_or(Error::CacheType { width, kind })?;
        let pages = capacity.div_ceil(PAGE_ROWS);
        let bytes = row_bytes.saturating_mul(PAGE_ROWS).saturating_mul(pages);
        let total = bytes.saturating_mul(layers);
        // `vec![0; n]` gets untouched pages but aborts when refused, so the question is asked first.
        let refused = |_| Error::CacheMemory { capacity, bytes: total };
        Vec::<u8>::new().try_reserve_exact(total).map_err(refused)?;
        let layers = (0..layers).map(|_| vec![0; bytes]).collect();
        let pages = (0..pages as u32).collect();
        Ok(Self { format, width, values, row_bytes, pages, layers })
    }

    /// Stores one row `[width]` of a layer.
    pub(crate) fn store(&mut self, layer: usize, position: usize, row: &[f32]) {
        let bytes = &mut self.layers[layer][position * self.row_bytes..][..self.row_bytes];
        let encoded = self.format.encode(row, bytes);
        debug_assert!(encoded, "{} can be written", self.format);
    }

    /// The first `len` rows of a layer.
    pub(crate) fn rows(&self, layer: usize, len: usize) -> Latent<'_> {
        let &Self { format, width, values, .. } = self;
        Latent { format, bytes: &self.layers[layer], pages: &self.pages, len, width, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cachalot_kernels::{Cpu, Tier};

    #[test]
    fn rows_come_back_as_the_type_stores_them() {
        let cpu = Cpu::new(1, Tier::detect());
        let row: Vec<f32> = (0..96).map(|i| (i as f32 - 40.0) / 7.0).collect();
        for (kind, error) in [(KvType::F32, 0.0), (KvType::F16, 4e-3), (KvType::Q8_0, 0.04)] {
            let mut rows = LatentRows::new(kind, 2, (96, 64), 5).unwrap();
            rows.store(1, 4, &row);
            let mut out = vec![0.0; 96];
            let read = |rows: &LatentRows, position: usize, out: &mut [f32]| {
                let (latent, key) = out.split_at_mut(64);
                rows.rows(1, 5).read(&cpu, position..position + 1, latent, key);
            };
            read(&rows, 4, &mut out);
            assert!(row.iter().zip(&out).all(|(a, b)| (a - b).abs() <= error), "{kind}");
            read(&rows, 3, &mut out);
            assert!(out.iter().all(|&x| x == 0.0), "{kind}");
        }
    }

    #[test]
    fn impossible_caches_are_refused() {
        let error = |kind, capacity| LatentRows::new(kind, 61, (48, 32), capacity).err();
        let text = error(KvType::Q8_0, 1).unwrap().to_string();
        assert_eq!(text, "rows of 48 numbers cannot be stored as q8_0: use f16 for the KV cache");
        assert!(matches!(error(KvType::F16, usize::MAX), Some(Error::CacheMemory { .. })));
        assert!(matches!(error(KvType::F16, 1 << 50), Some(Error::CacheMemory { .. })));
    }
}
