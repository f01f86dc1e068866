//! The KV cache: latents in pages.
//!
//! A layer keeps one row per token, `[latent | rotated shared key]`, for all heads together: 576
//! numbers on R1 where full keys and values would be 40,960. Rows of all sequences are in pages of
//! [`PAGE_ROWS`], a layer's pages in one allocation, which is made once, zeroed, so that pages that
//! are never written use no memory.

use cachalot_gguf::KvType;
use cachalot_kernels::Format;
use cachalot_kernels::attention::{Latent, PAGE_ROWS};

use crate::Error;
use crate::seam::PageId;

/// Numbers of a row that is made on the stack: as many as rows of all published models have.
const ROW_NUMBERS: usize = 576;

/// The weight format with the same encoding.
pub(crate) fn format(kv: KvType) -> Format {
    match kv {
        KvType::F32 => Format::F32,
        KvType::F16 => Format::F16,
        KvType::Q8_0 => Format::Q8_0,
    }
}

/// The numbers of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowShape {
    /// All of them.
    pub(crate) width: usize,
    /// The first ones, which are the latent.
    pub(crate) latent: usize,
}

/// The pages of some layers.
pub(crate) struct KvPages {
    format: Format,
    shape: RowShape,
    row_bytes: usize,
    pages: usize,
    layers: Vec<Vec<u8>>, // [layers][pages, PAGE_ROWS, row_bytes]
}

impl KvPages {
    /// `pages` pages for `layers` layers.
    pub(crate) fn new(
        kv: KvType,
        layers: usize,
        shape: RowShape,
        pages: usize,
    ) -> Result<Self, Error> {
        let format = format(kv);
        let width = shape.width;
        let row_bytes = format.row_bytes(width).ok_or(Error::CacheType { width, kind: kv })?;
        let bytes = row_bytes.saturating_mul(PAGE_ROWS).saturating_mul(pages);
        let total = bytes.saturating_mul(layers);
        // `vec![0; n]` gets untouched memory but aborts if refused, so it is asked for first.
        let capacity = pages.saturating_mul(PAGE_ROWS);
        let refused = |_| Error::CacheMemory { capacity, bytes: total };
        Vec::<u8>::new().try_reserve_exact(total).map_err(refused)?;
        let layers = (0..layers).map(|_| vec![0; bytes]).collect();
        Ok(Self { format, shape, row_bytes, pages, layers })
    }

    /// The number of pages.
    pub(crate) fn len(&self) -> usize {
        self.pages
    }

    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Encodes a row that `make` writes.
    pub(crate) fn encode(&self, out: &mut [u8], make: impl FnOnce(&mut [f32])) {
        let (mut few, mut many);
        let row = if self.shape.width <= ROW_NUMBERS {
            few = [0.0; ROW_NUMBERS];
            &mut few[..self.shape.width]
        } else {
            many = vec![0.0; self.shape.width];
            &mut many[..]
        };
        make(row);
        let encoded = self.format.encode(row, out);
        debug_assert!(encoded, "{} can be written", self.format);
    }

    /// Stores encoded rows `[rows, row_bytes]` of a layer at the positions from `start` on of the
    /// sequence with these `pages`.
    pub(crate) fn store(&mut self, layer: usize, pages: &[PageId], start: usize, rows: &[u8]) {
        let mut rows = rows;
        let mut position = start;
        while !rows.is_empty() {
            let (page, at) = (pages[position / PAGE_ROWS] as usize, position % PAGE_ROWS);
            let count = (PAGE_ROWS - at).min(rows.len() / self.row_bytes);
            let (now, rest) = rows.split_at(count * self.row_bytes);
            let first = (page * PAGE_ROWS + at) * self.row_bytes;
            self.layers[layer][first..first + now.len()].copy_from_slice(now);
            (rows, position) = (rest, position + count);
        }
    }

    /// Copies a page in all layers.
    pub(crate) fn copy_page(&mut self, from: PageId, to: PageId) {
        let len = PAGE_ROWS * self.row_bytes;
        let (from, to) = (from as usize * len, to as usize * len);
        self.layers.iter_mut().for_each(|bytes| bytes.copy_within(from..from + len, to));
    }

    /// Appends a page, layer by layer, to `out`.
    pub(crate) fn read_page(&self, page: PageId, out: &mut Vec<u8>) {
        let len = PAGE_ROWS * self.row_bytes;
        let at = page as usize * len;
        self.layers.iter().for_each(|bytes| out.extend_from_slice(&bytes[at..at + len]));
    }

    /// Replaces a page by the bytes of [`KvPages::read_page`].
    pub(crate) fn write_page(&mut self, page: PageId, bytes: &[u8]) {
        let len = PAGE_ROWS * self.row_bytes;
        let at = page as usize * len;
        let layers = self.layers.iter_mut().zip(bytes.chunks_exact(len));
        layers.for_each(|(layer, bytes)| layer[at..at + len].copy_from_slice(bytes));
    }

    /// The first `len` rows of a sequence in a layer.
    pub(crate) fn rows<'a>(&'a self, layer: usize, pages: &'a [PageId], len: usize) -> Latent<'a> {
        let RowShape { width, latent } = self.shape;
        let (format, bytes) = (self.format, &self.layers[layer]);
        Latent { format, bytes, pages, len, width, values: latent }
    }
}

#[cfg(test)]
mod tests {
    use cachalot_kernels::Tier;

    use super::*;

    const SHAPE: RowShape = RowShape { width: 96, latent: 64 };

    #[test]
    fn rows_come_back_from_their_pages_as_the_type_stores_them() {
        let row = |n: usize| -> Vec<f32> {
            (0..96).map(|i| ((i * 7 + n * 13) % 80) as f32 / 7.0 - 5.0).collect()
        };
        for (kv, error) in [(KvType::F32, 0.0), (KvType::F16, 4e-3), (KvType::Q8_0, 0.04)] {
            let mut kv_pages = KvPages::new(kv, 2, SHAPE, 5).unwrap();
            let pages = [3, 1];
            let mut bytes = vec![0; 20 * kv_pages.row_bytes()];
            for (n, out) in bytes.chunks_mut(kv_pages.row_bytes()).enumerate() {
                kv_pages.encode(out, |to| to.copy_from_slice(&row(n)));
            }
            kv_pages.store(1, &pages, 50, &bytes);
            kv_pages.copy_page(1, 4);
            let read = |layer: usize, position: usize, pages: &[PageId]| {
                let mut row = vec![0.0; SHAPE.width];
                kv_pages.rows(layer, pages, 70).row(Tier::detect(), position, &mut row);
                row
            };
            for (position, pages) in [(50, [3, 1]), (63, [3, 1]), (64, [3, 1]), (69, [0, 4])] {
                let out = read(1, position, &pages);
                let near = row(position - 50).iter().zip(&out).all(|(a, b)| (a - b).abs() <= error);
                assert!(near, "{kv}, position {position}");
            }
            assert!(read(0, 50, &pages).iter().all(|&x| x == 0.0), "the other layer is untouched");
        }
    }

    #[test]
    fn impossible_caches_are_refused() {
        let shape = RowShape { width: 48, latent: 32 };
        let error = |kv, pages| KvPages::new(kv, 61, shape, pages).err();
        let text = error(KvType::Q8_0, 1).unwrap().to_string();
        assert_eq!(text, "rows of 48 numbers cannot be stored as q8_0: use f16 for the KV cache");
        assert!(matches!(error(KvType::F16, usize::MAX), Some(Error::CacheMemory { .. })));
        assert!(matches!(error(KvType::F16, 1 << 44), Some(Error::CacheMemory { .. })));
    }
}
