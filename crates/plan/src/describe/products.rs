//! Machines that are sold under a name of their own, and what is in them.
//!
//! Figures are the makers' technical specifications (apple.com/support, nvidia.com,
//! raspberrypi.com, orangepi.org, steamdeck.com, frame.work).

/// A product.
#[derive(Debug, PartialEq)]
pub(super) struct Product {
    /// How it is written, with single blanks.
    pub(super) names: &'static [&'static str],
    /// Its name for people.
    pub(super) shown: &'static str,
    /// Its processor, as in `processors.rs`.
    pub(super) processor: Option<&'static str>,
    /// Its GPU, as in `gpus.rs`, where that shares the main memory.
    pub(super) unified: Option<&'static str>,
    pub(super) cores: Option<u32>,
    /// Channels of 64 bits, and their speed in MT/s.
    pub(super) memory: Option<(u32, u32)>,
    /// Sizes of memory that it is made with, in GiB.
    pub(super) sizes: &'static [u64],
    /// Read rate of its own drive, in GB/s.
    pub(super) drive: Option<f64>,
    /// What is taken to be so, where the name covers machines that differ.
    pub(super) assumed: Option<&'static str>,
}

const NOTHING: Product = Product {
    names: &[],
    shown: "",
    processor: None,
    unified: None,
    cores: None,
    memory: None,
    sizes: &[],
    drive: None,
    assumed: None,
};

/// A board or a box with a processor.
const fn board(
    names: &'static [&'static str],
    shown: &'static str,
    processor: &'static str,
    sizes: &'static [u64],
    drive: f64,
) -> Product {
    Product { names, shown, processor: Some(processor), sizes, drive: Some(drive), ..NOTHING }
}

/// A chip whose GPU shares its memory.
const fn chip(
    names: &'static [&'static str],
    shown: &'static str,
    cores: u32,
    sizes: &'static [u64],
    drive: f64,
) -> Product {
    let unified = Some(names[0]);
    let (cores, drive) = (Some(cores), Some(drive));
    Product { names, shown, unified, cores, sizes, drive, ..NOTHING }
}

/// All products; of two that match at one place, the longer name counts.
pub(super) const PRODUCTS: &[Product] = &[
    chip(&["m1"], "M1", 8, &[8, 16], 2.9),
    chip(&["m1 pro"], "M1 Pro", 10, &[16, 32], 5.0),
    chip(&["m1 max"], "M1 Max", 10, &[32, 64], 5.0),
    chip(&["m1 ultra"], "M1 Ultra", 20, &[64, 128], 5.0),
    chip(&["m2"], "M2", 8, &[8, 16, 24], 2.9),
    chip(&["m2 pro"], "M2 Pro", 12, &[16, 32], 5.0),
    chip(&["m2 max"], "M2 Max", 12, &[32, 64, 96], 5.0),
    chip(&["m2 ultra"], "M2 Ultra", 24, &[64, 128, 192], 5.0),
    chip(&["m3"], "M3", 8, &[8, 16, 24], 2.9),
    chip(&["m3 pro"], "M3 Pro", 12, &[18, 36], 5.0),
    chip(&["m3 max"], "M3 Max", 16, &[36, 48, 64, 96, 128], 5.0),
    chip(&["m3 ultra"], "M3 Ultra", 32, &[96, 256, 512], 6.0),
    chip(&["m4"], "M4", 10, &[16, 24, 32], 2.9),
    chip(&["m4 pro"], "M4 Pro", 14, &[24, 48, 64], 5.0),
    chip(&["m4 max"], "M4 Max", 16, &[36, 48, 64, 128], 6.0),
    chip(&["m5"], "M5", 10, &[16, 24, 32], 6.0),
    chip(&["m5 pro"], "M5 Pro", 18, &[24, 48, 64], 6.0),
    chip(&["m5 max"], "M5 Max", 18, &[36, 48, 64, 128], 6.0),
    chip(
        &[
            "gb10",
            "dgx spark",
            "nvidia spark",
            "asus ascent gx10",
            "ascent gx10",
            "asus gx10",
            "gx10",
            "spark",
        ],
        "DGX Spark (GB10)",
        20,
        &[128],
        5.0,
    ),
    chip(&["jetson agx thor", "jetson thor", "agx thor"], "Jetson Thor", 14, &[128], 5.0),
    chip(
        &["jetson agx orin", "jetson orin agx", "agx orin", "orin agx", "jetson orin"],
        "Jetson AGX Orin",
        12,
        &[32, 64],
        3.5,
    ),
    chip(&["jetson orin nx", "orin nx"], "Jetson Orin NX", 8, &[8, 16], 3.5),
    chip(
        &["jetson orin nano", "orin nano", "jetson orin nano super", "orin nano super"],
        "Jetson Orin Nano",
        6,
        &[8],
        3.5,
    ),
    STRIX_HALO,
    Product {
        names: &["ryzen ai max 390", "ai max 390", "ryzen ai max 385", "ai max 385"],
        shown: "Ryzen AI Max 385/390 (Strix Halo)",
        processor: Some("ryzen ai max 390"),
        sizes: &[32, 64],
        ..STRIX_HALO
    },
    board(
        &["raspberry pi 5", "rpi 5", "rpi5", "pi 5", "pi5", "raspberry pi5"],
        "Raspberry Pi 5",
        "raspberry pi 5",
        &[2, 4, 8, 16],
        0.45,
    ),
    board(
        &["raspberry pi 4", "raspberry pi 4b", "rpi 4", "rpi4", "rpi 4b", "pi 4", "pi4", "pi 4b"],
        "Raspberry Pi 4",
        "raspberry pi 4",
        &[1, 2, 4, 8],
        0.35,
    ),
    board(
        &["orange pi 5", "orangepi 5", "opi5", "orange pi 5b"],
        "Orange Pi 5",
        "rk3588s",
        &[4, 8, 16, 32],
        0.45,
    ),
    board(
        &["orange pi 5 plus", "orangepi 5 plus", "orange pi 5 max"],
        "Orange Pi 5 Plus",
        "rk3588",
        &[4, 8, 16, 32],
        3.0,
    ),
    board(
        &["rock 5b", "rock5b", "radxa rock 5b", "rock 5b plus"],
        "Radxa Rock 5B",
        "rk3588",
        &[4, 8, 16, 32],
        3.0,
    ),
    board(&["steam deck", "steamdeck", "steam deck oled"], "Steam Deck", "steam deck", &[16], 2.4),
    Product {
        names: &["chromebook", "chromebooks"],
        shown: "Chromebook",
        cores: Some(4),
        memory: Some((1, 4266)),
        sizes: &[4, 8, 16],
        drive: Some(0.25),
        assumed: Some("4 cores, LPDDR4X-4266 on 64 bits, and eMMC, as Chromebooks commonly have"),
        ..NOTHING
    },
    Product {
        names: &["laptop", "notebook", "gaming laptop"],
        shown: "laptop",
        cores: Some(8),
        memory: Some((2, 5200)),
        sizes: &[8, 16, 32, 64, 96],
        drive: Some(3.5),
        assumed: Some(
            "8 cores, two channels of DDR5-5200, and an NVMe drive, as laptops commonly have",
        ),
        ..NOTHING
    },
    Product {
        names: &[
            "phone",
            "smartphone",
            "iphone",
            "android phone",
            "android",
            "galaxy s24",
            "galaxy s25",
            "galaxy s23",
            "galaxy s24 ultra",
            "galaxy s25 ultra",
            "snapdragon 8",
            "snapdragon 8 gen3",
            "snapdragon 8 elite",
            "pixel",
        ],
        shown: "phone",
        cores: Some(8),
        memory: Some((1, 8533)),
        sizes: &[6, 8, 12, 16, 24],
        drive: Some(2.0),
        assumed: Some("8 cores, LPDDR5X-8533 on 64 bits, and UFS storage, as recent phones have"),
        ..NOTHING
    },
];

const STRIX_HALO: Product = Product {
    names: &[
        "ryzen ai max 395",
        "ryzen ai max+ 395",
        "ai max 395",
        "ai max+ 395",
        "strix halo",
        "strix-halo",
        "framework desktop",
        "evo-x2",
        "hp z2 mini g1a",
        "z2 mini g1a",
        "gmktec evo-x2",
        "ryzen ai max",
        "8060s",
    ],
    shown: "Ryzen AI Max+ 395 (Strix Halo)",
    processor: Some("ryzen ai max 395"),
    unified: Some("radeon8060s"),
    cores: Some(16),
    memory: Some((4, 8000)),
    sizes: &[32, 64, 96, 128],
    drive: Some(7.0),
    assumed: None,
};

/// Cases of Apple's that come with one of several chips.
pub(super) const CASES: &[(&[&str], &str, &[&str])] = &[
    (&["mac mini", "macmini"], "Mac mini", &["M1", "M2", "M2 Pro", "M4", "M4 Pro"]),
    (
        &["mac studio", "macstudio"],
        "Mac Studio",
        &["M1 Max", "M1 Ultra", "M2 Max", "M2 Ultra", "M4 Max", "M3 Ultra"],
    ),
    (&["macbook air", "mba"], "MacBook Air", &["M1", "M2", "M3", "M4", "M5"]),
    (
        &["macbook pro", "mbp", "macbook"],
        "MacBook Pro",
        &["M1 Pro", "M1 Max", "M2 Pro", "M2 Max", "M3 Pro", "M3 Max", "M4 Pro", "M4 Max", "M5"],
    ),
    (&["mac pro", "macpro"], "Mac Pro", &["M2 Ultra"]),
    (&["imac"], "iMac", &["M1", "M3", "M4"]),
    (&["mac"], "Mac", &["M1", "M2", "M3", "M4", "M5", "with Pro, Max or Ultra"]),
];

/// Servers that are sold whole, as descriptions.
pub(super) const SERVERS: &[(&str, &str)] = &[
    ("dgx h100", "8x h100 2x xeon 8480 16x4800 2tb ram nvme 7gb/s"),
    ("hgx h100", "8x h100"),
    ("dgx h200", "8x h200 2x xeon 8480 16x4800 2tb ram nvme 7gb/s"),
    ("hgx h200", "8x h200"),
    ("dgx b200", "8x b200 2x xeon 8570 16x5600 2tb ram nvme 7gb/s"),
    ("hgx b200", "8x b200"),
    ("dgx b300", "8x b300 2x xeon 6776p 16x6400 2tb ram nvme 7gb/s"),
    ("dgx a100", "8x a10080gb 2x epyc 7742 16x3200 2tb ram nvme 7gb/s"),
    ("hgx a100", "8x a10080gb"),
    // Built to order with 8 to 28 cores; all have six channels.
    ("mac pro 2019", "xeon w-3265 6x2933"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gpus, processors};

    #[test]
    fn every_product_names_a_known_processor_and_gpu() {
        for product in PRODUCTS {
            assert!(product.sizes.is_sorted() && !product.sizes.is_empty(), "{}", product.shown);
            if let Some(name) = product.processor {
                assert!(processors::find(name).is_some(), "{name}");
            }
            if let Some(name) = product.unified {
                assert!(gpus::by_name(name).is_some_and(|gpu| gpu.unified), "{name}");
            }
            assert!(
                product.unified.is_some()
                    || product.memory.is_some()
                    || product.processor.is_some()
            );
        }
    }
}
