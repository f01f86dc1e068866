//! Sizes find what they are sizes of: memory, a GPU, a drive.

use super::super::parser::Role;
use super::super::products::Product;
use super::{
    Assembler, DESKTOP_DRIVE, DESKTOP_MAX, DRIVE_MIN, DescribeError, Size, memory_channels_unknown,
    twice,
};
use crate::machine::{Drive, Gpu, Origin};
use crate::units;

impl Assembler {
    /// Gives each size to memory, a GPU or a drive.
    pub(super) fn share_out_sizes(&mut self) -> Result<(), DescribeError> {
        let mut sizes = std::mem::take(&mut self.sizes);
        for size in sizes.extract_if(.., |size| size.role == Some(Role::Vram)).collect::<Vec<_>>() {
            self.graphics_memory(size);
        }
        sizes.retain(|size| size.role != Some(Role::Drive));
        if let Some(product) = self.product {
            self.sizes_of_product(product, &mut sizes);
        } else if sizes.len() > 1 {
            let is_sure =
                sizes.iter().any(|size| size.role == Some(Role::Ram) || !size.beside_drive);
            if is_sure {
                sizes.retain(|size| size.role == Some(Role::Ram) || !size.beside_drive);
            } else {
                // `96GB NVMe 2TB`: the drive's is the larger.
                sizes.sort_by_key(|size| size.bytes);
                sizes.truncate(1);
            }
        }
        restated(&mut sizes);
        if let [small, large] = &mut sizes[..] {
            if small.bytes > large.bytes {
                std::mem::swap(small, large);
            }
            let desktop =
                self.machine.processor.platform().is_none_or(|platform| platform.channels <= 4);
            let is_pair = large.bytes >= DRIVE_MIN
                && small.bytes <= DESKTOP_MAX
                && large.bytes >= small.bytes.saturating_mul(4);
            if desktop && is_pair && large.role.is_none() && large.modules.is_none() {
                self.unrated_drive();
                sizes.truncate(1);
            }
        }
        match &sizes[..] {
            [] => {}
            [size] => self.memory(*size)?,
            [first, second, ..] => {
                let [first, second] = [first, second].map(|size| units::bytes(size.bytes));
                return Err(twice("memory", &first, &second));
            }
        }
        self.unified_memory();
        Ok(())
    }

    fn memory(&mut self, size: Size) -> Result<(), DescribeError> {
        let platform = self.machine.processor.platform();
        let channels = self.machine.memory.channels.or(platform.map(|platform| platform.channels));
        let is_server = channels.is_some_and(|channels| channels > 4);
        let is_drive = size.beside_drive && size.role.is_none() && size.bytes > DESKTOP_MAX;
        if is_drive && !is_server && size.bytes >= DESKTOP_DRIVE && self.product.is_none() {
            return Ok(());
        }
        let memory = &mut self.machine.memory;
        if let Some(first) =
            memory.total_bytes.replace(size.bytes).filter(|first| *first != size.bytes)
        {
            let [first, second] = [first, size.bytes].map(units::bytes);
            return Err(twice("memory", &first, &second));
        }
        self.machine.origin("memory", Origin::Given);
        if memory_channels_unknown(&self.machine) && self.channels.is_none() {
            self.machine.memory.modules = size.modules.filter(|count| *count > 1);
        }
        Ok(())
    }

    /// `24GB VRAM`: of the card that was named, or of one that was not.
    fn graphics_memory(&mut self, size: Size) {
        match self.machine.gpus.iter_mut().find(|gpu| !gpu.unified) {
            Some(gpu) => gpu.memory_bytes = size.bytes,
            None => self.machine.gpus.push(Gpu {
                name: "the GPU".to_owned(),
                count: 1,
                memory_bytes: size.bytes,
                ..Gpu::default()
            }),
        }
    }

    /// A product's memory has one of its sizes; any other size is its drive's.
    fn sizes_of_product(&mut self, product: &Product, sizes: &mut Vec<Size>) {
        let is_made = |size: &Size| {
            size.role == Some(Role::Ram) || product.sizes.contains(&(size.bytes >> 30))
        };
        let said = sizes.iter().find(|size| size.role == Some(Role::Ram));
        let memory = said.or_else(|| sizes.iter().find(|size| is_made(size))).copied();
        let others = sizes.iter().filter(|size| !is_made(size));
        // A size that the product is not made with, and is too small for a drive, is taken as said.
        let odd = others
            .filter(|size| size.bytes < (120 << 30) && !size.beside_drive)
            .min_by_key(|size| size.bytes)
            .copied();
        sizes.clear();
        if let Some(size) = memory.or(odd) {
            sizes.push(size);
        } else if let [only] = product.sizes {
            self.machine.memory.total_bytes = Some(only << 30);
            self.machine.origin("memory", Origin::Known);
        }
    }

    fn unified_memory(&mut self) {
        let total = self.machine.memory.total_bytes;
        if let Some(gpu) = self.machine.gpus.iter_mut().find(|gpu| gpu.unified) {
            gpu.memory_bytes = total.unwrap_or(0);
        }
    }

    fn unrated_drive(&mut self) {
        if self.machine.drives.is_empty() {
            self.machine.drives.push(Drive { name: "drive".to_owned(), ..Drive::default() });
        }
    }
}

/// `96 GB (2x48GB)`: the second says the first again, with its modules.
fn restated(sizes: &mut Vec<Size>) {
    if let [first, second] = sizes[..]
        && first.bytes == second.bytes
    {
        sizes[0].modules = first.modules.or(second.modules);
        sizes.truncate(1);
    }
}
