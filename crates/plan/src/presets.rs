//! Machines that people ask about, as descriptions.

use crate::describe::{self, DescribeError};
use crate::machine::Machine;

/// A machine by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// The name to type.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Its description.
    pub description: &'static str,
}

const fn preset(name: &'static str, what: &'static str, description: &'static str) -> Preset {
    Preset { name, what, description }
}

/// All of them, the smallest first.
pub const PRESETS: [Preset; 16] = [
    preset("raspberry-pi", "Raspberry Pi 5 with 16 GB", "raspberry pi 5 16GB nvme"),
    preset("laptop-32", "laptop with 32 GB", "i7-13700 2x5200 32GB nvme 5GB/s"),
    preset(
        "desktop-96",
        "desktop with 96 GB and an NVMe drive",
        "ryzen 9950x 2x6000 96GB nvme 7GB/s",
    ),
    preset(
        "desktop-96-4nvme",
        "the same with four NVMe drives",
        "ryzen 9950x 2x6000 96GB 4xnvme 7GB/s",
    ),
    preset(
        "desktop-128",
        "desktop with 128 GB and an NVMe drive",
        "ryzen 9950x 2x5600 128GB nvme 7GB/s",
    ),
    preset(
        "desktop-128-4nvme",
        "the same with four NVMe drives",
        "ryzen 9950x 2x5600 128GB 4xnvme 7GB/s",
    ),
    preset(
        "desktop-4090",
        "desktop with 96 GB and an RTX 4090",
        "ryzen 9950x 2x6000 96GB rtx4090 nvme 7GB/s",
    ),
    preset("strix-halo", "Ryzen AI Max+ 395 with 128 GB", "ryzen ai max 395 128GB nvme 7GB/s"),
    preset(
        "server-4x4090",
        "server board with four RTX 4090",
        "epyc-9354 12x4800 384GB 4xrtx4090 nvme 7GB/s",
    ),
    preset(
        "server-8x4090",
        "server board with eight RTX 4090",
        "epyc-9354 12x4800 384GB 8xrtx4090 nvme 7GB/s",
    ),
    preset(
        "epyc-ddr4",
        "used EPYC with 8 channels of DDR4, the 2,000-dollar rig",
        "epyc-7702 8x2400 512GB nvme 3.5GB/s",
    ),
    preset("epyc-ddr5", "EPYC with 12 channels of DDR5", "epyc-9654 12x4800 768GB nvme 7GB/s"),
    preset(
        "dual-xeon",
        "two Xeons with 8 channels of DDR5 each",
        "2x xeon gold 6454s 16x4800 1TB nvme 7GB/s",
    ),
    preset("mac-studio-512", "Mac Studio, M3 Ultra with 512 GB", "m3ultra 512GB nvme 6GB/s"),
    preset("8xh100", "eight H100 of 80 GB", "8xh100 2x xeon 8480 16x4800 2TB nvme 7GB/s"),
    preset("8xh200", "eight H200 of 141 GB", "8xh200 2x xeon 8480 16x4800 2TB nvme 7GB/s"),
];

/// The preset of this name, or else the machine that the text describes.
///
/// # Errors
/// If it is neither; a word that is like a preset's name is said to be.
pub fn machine(text: &str) -> Result<Machine, DescribeError> {
    let name = text.trim().to_lowercase().replace([' ', '_'], "-");
    if let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) {
        let machine = describe::machine(preset.description)?;
        return Ok(Machine {
            name: format!("{} ({})", preset.what, preset.description),
            ..machine
        });
    }
    describe::machine(text).map_err(|error| match error {
        DescribeError::Word { word, nearest } if !text.trim().contains(char::is_whitespace) => {
            let mut names = describe::nearest(&name, PRESETS.iter().map(|preset| preset.name));
            names.extend(nearest);
            names.truncate(3);
            DescribeError::Word { word, nearest: names }
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_machine_with_all_that_matters() {
        for preset in PRESETS {
            let machine = machine(preset.name).unwrap_or_else(|e| panic!("{}: {e}", preset.name));
            assert!(machine.memory.total_bytes.is_some(), "{}", preset.name);
            assert!(machine.drive().is_some(), "{}", preset.name);
            let rated =
                machine.memory.theoretical().is_some() || machine.processor.platform().is_some();
            assert!(rated || machine.unified().is_some(), "{}", preset.name);
        }
    }

    #[test]
    fn a_preset_that_does_not_exist_has_neighbours() {
        let error = machine("desktop-69").unwrap_err().to_string();
        assert!(error.contains("desktop-96"), "{error}");
        let error = machine("8xh300").unwrap_err().to_string();
        assert!(error.contains("8xh100"), "{error}");
    }

    #[test]
    fn what_is_no_preset_is_a_description() {
        assert_eq!(machine("8xH100").unwrap().gpu_count(), 8);
        assert_eq!(machine("64GB 2x4800").unwrap().memory.channels, Some(2));
    }
}
