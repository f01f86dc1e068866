//! GPUs by name: memory and bandwidth by the makers' data sheets.

use crate::machine::Gpu;

/// A known card.
struct Known {
    /// How it is written, small and without blanks; the most special first.
    name: &'static str,
    shown: &'static str,
    memory_gib: u64,
    gb_per_second: f64,
    joined: bool,
}

const fn card(
    name: &'static str,
    shown: &'static str,
    memory_gib: u64,
    gb_per_second: f64,
) -> Known {
    Known { name, shown, memory_gib, gb_per_second, joined: false }
}

const fn joined(
    name: &'static str,
    shown: &'static str,
    memory_gib: u64,
    gb_per_second: f64,
) -> Known {
    Known { name, shown, memory_gib, gb_per_second, joined: true }
}

/// Figures are the makers' data sheets. A name may be a part of a longer one: then the longer comes
/// first.
const KNOWN: &[Known] = &[
    joined("gb300", "GB300", 288, 8000.0),
    joined("gb200", "GB200", 186, 8000.0),
    joined("b300", "B300", 288, 8000.0),
    joined("b200", "B200", 180, 8000.0),
    joined("gh200", "GH200", 96, 4000.0),
    joined("h200", "H200", 141, 4800.0),
    joined("h100nvl", "H100 NVL", 94, 3900.0),
    card("h100pcie", "H100 PCIe", 80, 2039.0),
    joined("h100", "H100", 80, 3350.0),
    joined("h800", "H800", 80, 3350.0),
    joined("h20", "H20", 96, 4000.0),
    joined("mi355x", "MI355X", 288, 8000.0),
    joined("mi325x", "MI325X", 256, 6000.0),
    joined("mi300x", "MI300X", 192, 5300.0),
    joined("mi300a", "MI300A", 128, 5300.0),
    joined("mi250x", "MI250X", 128, 3277.0),
    joined("mi250", "MI250", 128, 3277.0),
    joined("a800", "A800", 80, 2039.0),
    joined("a10080gb", "A100 80 GB", 80, 2039.0),
    joined("a100-sxm4-80gb", "A100 80 GB", 80, 2039.0),
    joined("a100", "A100 40 GB", 40, 1555.0),
    card("pro6000", "RTX PRO 6000", 96, 1792.0),
    card("pro5000", "RTX PRO 5000", 48, 1344.0),
    card("pro4500", "RTX PRO 4500", 32, 896.0),
    card("pro4000", "RTX PRO 4000", 24, 672.0),
    card("6000ada", "RTX 6000 Ada", 48, 960.0),
    card("5000ada", "RTX 5000 Ada", 32, 576.0),
    card("2000ada", "RTX 2000 Ada", 16, 224.0),
    card("4500ada", "RTX 4500 Ada", 24, 432.0),
    card("4000ada", "RTX 4000 Ada", 20, 360.0),
    card("quadro6000", "Quadro RTX 6000", 24, 672.0),
    card("quadro8000", "Quadro RTX 8000", 48, 672.0),
    card("a6000", "RTX A6000", 48, 768.0),
    card("a5500", "RTX A5500", 24, 768.0),
    card("a5000", "RTX A5000", 24, 768.0),
    card("a4500", "RTX A4500", 20, 640.0),
    card("a4000", "RTX A4000", 16, 448.0),
    card("a2000", "RTX A2000", 12, 288.0),
    card("l40s", "L40S", 48, 864.0),
    card("l40", "L40", 48, 864.0),
    card("l20", "L20", 48, 864.0),
    card("l4", "L4", 24, 300.0),
    card("a40", "A40", 48, 696.0),
    card("a30", "A30", 24, 933.0),
    card("a16", "A16", 16, 200.0),
    card("a10g", "A10G", 24, 600.0),
    card("a10", "A10", 24, 600.0),
    card("a2", "A2", 16, 200.0),
    card("v100", "V100", 32, 900.0),
    card("p100", "P100", 16, 732.0),
    card("p40", "P40", 24, 346.0),
    card("m40", "M40", 24, 288.0),
    card("k80", "K80", 24, 480.0),
    card("vega64", "RX Vega 64", 8, 484.0),
    card("vega56", "RX Vega 56", 8, 410.0),
    joined("gaudi3", "Gaudi 3", 128, 3700.0),
    joined("gaudi2", "Gaudi 2", 96, 2450.0),
    card("t4", "T4", 16, 320.0),
    card("mi210", "MI210", 64, 1638.0),
    card("mi100", "MI100", 32, 1229.0),
    card("mi60", "MI60", 32, 1024.0),
    card("mi50", "MI50", 32, 1024.0),
    card("titanv", "Titan V", 12, 653.0),
    card("titanxp", "Titan Xp", 12, 548.0),
    card("titan", "Titan RTX", 24, 672.0),
    // Graphics of laptops, which are other chips than the cards of the same number.
    card("5090laptop", "RTX 5090 Laptop", 24, 896.0),
    card("5080laptop", "RTX 5080 Laptop", 16, 896.0),
    card("5070tilaptop", "RTX 5070 Ti Laptop", 12, 672.0),
    card("5070laptop", "RTX 5070 Laptop", 8, 384.0),
    card("5060laptop", "RTX 5060 Laptop", 8, 384.0),
    card("4090laptop", "RTX 4090 Laptop", 16, 576.0),
    card("4080laptop", "RTX 4080 Laptop", 12, 432.0),
    card("4070laptop", "RTX 4070 Laptop", 8, 256.0),
    card("4060laptop", "RTX 4060 Laptop", 8, 256.0),
    card("4050laptop", "RTX 4050 Laptop", 6, 192.0),
    card("3080tilaptop", "RTX 3080 Ti Laptop", 16, 512.0),
    card("3080laptop", "RTX 3080 Laptop", 16, 448.0),
    card("3070laptop", "RTX 3070 Laptop", 8, 448.0),
    card("3060laptop", "RTX 3060 Laptop", 6, 336.0),
    card("5090", "RTX 5090", 32, 1792.0),
    card("5080", "RTX 5080", 16, 960.0),
    card("5070ti", "RTX 5070 Ti", 16, 896.0),
    card("5070", "RTX 5070", 12, 672.0),
    card("5060ti", "RTX 5060 Ti", 16, 448.0),
    card("5060", "RTX 5060", 8, 448.0),
    card("5050", "RTX 5050", 8, 320.0),
    card("3050", "RTX 3050", 8, 224.0),
    card("4090d", "RTX 4090 D", 24, 1008.0),
    card("4090", "RTX 4090", 24, 1008.0),
    card("4080super", "RTX 4080 Super", 16, 736.0),
    card("4080", "RTX 4080", 16, 717.0),
    card("4070tisuper", "RTX 4070 Ti Super", 16, 672.0),
    card("4070ti", "RTX 4070 Ti", 12, 504.0),
    card("4070super", "RTX 4070 Super", 12, 504.0),
    card("4070", "RTX 4070", 12, 504.0),
    card("4060ti", "RTX 4060 Ti", 16, 288.0),
    card("4060", "RTX 4060", 8, 272.0),
    card("3090ti", "RTX 3090 Ti", 24, 1008.0),
    card("3090", "RTX 3090", 24, 936.0),
    card("3080ti", "RTX 3080 Ti", 12, 912.0),
    card("3080", "RTX 3080", 10, 760.0),
    card("3070ti", "RTX 3070 Ti", 8, 608.0),
    card("3070", "RTX 3070", 8, 448.0),
    card("3060ti", "RTX 3060 Ti", 8, 448.0),
    card("3060", "RTX 3060", 12, 360.0),
    card("2080ti", "RTX 2080 Ti", 11, 616.0),
    card("2080super", "RTX 2080 Super", 8, 496.0),
    card("2080", "RTX 2080", 8, 448.0),
    card("2070super", "RTX 2070 Super", 8, 448.0),
    card("2070", "RTX 2070", 8, 448.0),
    card("2060", "RTX 2060", 6, 336.0),
    card("1080ti", "GTX 1080 Ti", 11, 484.0),
    card("1080", "GTX 1080", 8, 320.0),
    card("1070ti", "GTX 1070 Ti", 8, 256.0),
    card("1070", "GTX 1070", 8, 256.0),
    card("1060", "GTX 1060", 6, 192.0),
    card("1660ti", "GTX 1660 Ti", 6, 288.0),
    card("1660super", "GTX 1660 Super", 6, 336.0),
    card("1660", "GTX 1660", 6, 192.0),
    card("980ti", "GTX 980 Ti", 6, 336.0),
    card("w7900", "Radeon PRO W7900", 48, 864.0),
    card("r9700", "Radeon AI PRO R9700", 32, 640.0),
    card("7900xtx", "RX 7900 XTX", 24, 960.0),
    card("7900xt", "RX 7900 XT", 20, 800.0),
    card("7900gre", "RX 7900 GRE", 16, 576.0),
    card("7700xt", "RX 7700 XT", 12, 432.0),
    card("7600xt", "RX 7600 XT", 16, 288.0),
    card("rx7600", "RX 7600", 8, 288.0),
    card("6950xt", "RX 6950 XT", 16, 576.0),
    card("rx6800", "RX 6800", 16, 512.0),
    card("6750xt", "RX 6750 XT", 12, 432.0),
    card("6600xt", "RX 6600 XT", 8, 256.0),
    card("rx5700", "RX 5700 XT", 8, 448.0),
    card("w6800", "Radeon PRO W6800", 32, 512.0),
    card("6700xt", "RX 6700 XT", 12, 384.0),
    card("rx6600", "RX 6600", 8, 224.0),
    card("rx580", "RX 580", 8, 256.0),
    card("9060xt", "RX 9060 XT", 16, 322.0),
    card("w7800", "Radeon PRO W7800", 32, 576.0),
    card("vii", "Radeon VII", 16, 1024.0),
    card("7800xt", "RX 7800 XT", 16, 624.0),
    card("6900xt", "RX 6900 XT", 16, 512.0),
    card("6800xt", "RX 6800 XT", 16, 512.0),
    card("9070xt", "RX 9070 XT", 16, 640.0),
    card("9070", "RX 9070", 16, 640.0),
    card("b60", "Arc Pro B60", 24, 456.0),
    card("b50", "Arc Pro B50", 16, 224.0),
    card("b580", "Arc B580", 12, 456.0),
    card("b570", "Arc B570", 10, 380.0),
    card("a770", "Arc A770", 16, 560.0),
    card("a750", "Arc A750", 8, 512.0),
    card("a380", "Arc A380", 6, 186.0),
];

/// Memory that cards of one name are made with, in GiB, besides what [`KNOWN`] says.
const VARIANTS: &[(&str, &[u64])] = &[
    ("H100", &[64, 94, 96]),
    ("GH200", &[144]),
    ("A100 40 GB", &[80]),
    ("V100", &[16]),
    ("MI50", &[16]),
    ("RTX 4090", &[48]),
    ("RTX 4060 Ti", &[8]),
    ("RTX 5060 Ti", &[8]),
    ("RTX 3080", &[12, 20]),
    ("RTX 3060", &[8]),
    ("RTX 3050", &[6]),
    ("RTX 2060", &[12]),
    ("RTX 4090 D", &[48]),
    ("RTX 5090", &[96]),
    ("RTX 3070", &[16]),
    ("RTX 4080 Super", &[32]),
    ("GTX 1060", &[3]),
    ("Arc A770", &[8]),
    ("P100", &[12]),
    ("K80", &[12]),
    ("RTX 3080 Laptop", &[8]),
    ("RTX 2080 Ti", &[22]),
    ("RTX PRO 5000", &[72]),
];

/// Chips whose graphics unit shares the machine's memory: name, GB/s, and memory if nothing says
/// how much it has.
const UNIFIED: &[(&str, f64, u64)] = &[
    ("m3ultra", 819.0, 512),
    ("m2ultra", 800.0, 192),
    ("m1ultra", 800.0, 128),
    ("m5max", 614.0, 128),
    ("m4max", 546.0, 128),
    ("m3max", 400.0, 128),
    ("m2max", 400.0, 96),
    ("m1max", 400.0, 64),
    ("m5pro", 307.0, 64),
    ("m4pro", 273.0, 64),
    ("m3pro", 150.0, 36),
    ("m2pro", 200.0, 32),
    ("m1pro", 200.0, 32),
    ("gb10", 273.0, 128),
    ("dgxspark", 273.0, 128),
    ("jetsonagxthor", 273.0, 128),
    ("jetsonthor", 273.0, 128),
    ("agxthor", 273.0, 128),
    ("jetsonagxorin", 204.8, 64),
    ("agxorin", 204.8, 64),
    ("jetsonorinnano", 102.0, 8),
    ("orinnano", 102.0, 8),
    ("jetsonorinnx", 102.0, 16),
    ("orinnx", 102.0, 16),
    ("jetsonorin", 204.8, 64),
];

/// Chips and integrated GPUs, whose names are too short to be searched for within others.
const CHIPS: &[(&str, f64, u64)] = &[
    ("m1", 68.25, 16),
    ("m2", 100.0, 24),
    ("m3", 100.0, 24),
    ("m4", 120.0, 32),
    ("m5", 153.6, 32),
    ("radeon8060s", 256.0, 128),
];

/// The GPU with exactly this name.
pub(crate) fn by_name(text: &str) -> Option<Gpu> {
    let whole = text.to_lowercase().split_whitespace().collect::<String>();
    if let Some(chip) = CHIPS.iter().find(|(name, _, _)| *name == whole) {
        return Some(shared(chip));
    }
    let plain = plain(text);
    let is_rx = whole.contains("rx") && !whole.contains("rtx");
    let exact = |name: &str| {
        let bare = name.strip_prefix("rx").filter(|_| is_rx).unwrap_or(name);
        plain == name
            || plain.strip_prefix("rx").unwrap_or(&plain) == bare
            || plain.strip_suffix('s') == Some(name)
    };
    if let Some(known) = KNOWN.iter().find(|known| exact(known.name)) {
        return Some(known.gpu());
    }
    UNIFIED.iter().find(|(name, _, _)| plain == *name).map(shared)
}

/// Cards that people mean by a name that several makers' generations share.
pub(crate) fn ambiguous(text: &str) -> Option<(&'static str, &'static str)> {
    match text.split_whitespace().collect::<String>().as_str() {
        "rtx6000" | "nvidiartx6000" => Some((
            "an RTX PRO 6000 of 96 GB (write `rtx pro 6000`)",
            "an RTX 6000 Ada of 48 GB (write `rtx 6000 ada`)",
        )),
        "rtx5000" => Some((
            "an RTX PRO 5000 of 48 GB (write `rtx pro 5000`)",
            "an RTX 5000 Ada of 32 GB (write `rtx 5000 ada`)",
        )),
        "rtx4000" => Some((
            "an RTX PRO 4000 of 24 GB (write `rtx pro 4000`)",
            "an RTX 4000 Ada of 20 GB (write `rtx 4000 ada`)",
        )),
        _ => None,
    }
}

/// Whether cards of this name are made with this much memory.
pub(crate) fn is_made_with(gpu: &Gpu, bytes: u64) -> bool {
    let variants = VARIANTS.iter().find(|(shown, _)| *shown == gpu.name).map(|(_, gib)| *gib);
    let made = |gib: &u64| bytes == gib << 30;
    gpu.unified || gpu.memory_bytes == bytes || variants.is_some_and(|gib| gib.iter().any(made))
}

/// The GPU whose name is in `text`, one of it.
pub fn find(text: &str) -> Option<Gpu> {
    let text = plain(text);
    let known = KNOWN.iter().find(|known| text.contains(known.name)).map(Known::gpu);
    known.or_else(|| UNIFIED.iter().find(|(name, _, _)| text.contains(name)).map(shared))
}

impl Known {
    fn gpu(&self) -> Gpu {
        Gpu {
            name: self.shown.to_owned(),
            count: 1,
            memory_bytes: self.memory_gib << 30,
            bytes_per_second: Some(self.gb_per_second * 1e9),
            attention_flops: None,
            unified: false,
            joined: self.joined,
        }
    }
}

/// A GPU that shares the main memory.
fn shared(&(name, rate, memory): &(&str, f64, u64)) -> Gpu {
    Gpu {
        name: name.to_uppercase(),
        count: 1,
        memory_bytes: memory << 30,
        bytes_per_second: Some(rate * 1e9),
        attention_flops: None,
        unified: true,
        joined: false,
    }
}

/// Names that a description may use, for suggesting one.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name).chain(UNIFIED.iter().map(|(name, _, _)| *name))
}

fn plain(text: &str) -> String {
    let lower = text.to_lowercase();
    let kept: String = lower.chars().filter(|c| !c.is_whitespace() && *c != '_').collect();
    let kept = kept.replace("quadrortx", "quadro").replace("mobile", "laptop");
    [
        "nvidia",
        "geforce",
        "amd",
        "radeonpro",
        "radeon",
        "apple",
        "rtx-",
        "rtx",
        "gtx",
        "tesla",
        "arcpro",
        "arc",
        "instinct",
    ]
    .iter()
    .fold(kept, |text, word| text.replace(word, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_found_by_many_names() {
        for (text, shown, gib) in [
            ("RTX 4090 24GB", "RTX 4090", 24),
            ("NVIDIA GeForce RTX 4090", "RTX 4090", 24),
            ("rtx4090", "RTX 4090", 24),
            ("RTX PRO 6000 Max-Q 96GB", "RTX PRO 6000", 96),
            ("RTX 6000 Ada 48GB", "RTX 6000 Ada", 48),
            ("NVIDIA H100 80GB HBM3", "H100", 80),
            ("A100-SXM4-80GB", "A100 80 GB", 80),
            ("M3 Ultra", "M3ULTRA", 512),
        ] {
            let gpu = find(text).unwrap();
            assert_eq!((gpu.name.as_str(), gpu.memory_bytes >> 30), (shown, gib), "{text}");
        }
        assert!(find("H100").unwrap().joined && !find("4090").unwrap().joined);
        assert!(find("none").is_none() && find("").is_none());
    }

    #[test]
    fn every_name_finds_itself() {
        for name in names() {
            assert!(find(name).is_some(), "{name}");
        }
    }
}
