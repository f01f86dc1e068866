//! What names are of: products, drives, networks, and words of processors' names.

use super::cloud;
use super::parser::Item;
use super::products::{CASES, PRODUCTS};
use super::vocabulary::{DRIVES, KINDS_OF_DRIVES, MAKERS};
use crate::processors;

pub(super) fn product(name: &str, count: Option<u32>) -> Option<Item> {
    if let Some(instance) = cloud::find(name) {
        return Some(Item::Cloud { count, name: name.to_owned(), instance });
    }
    let squeezed = |name: &str| name.replace([' ', '-'], "");
    let is_named = |names: &[&str]| names.iter().any(|known| squeezed(known) == squeezed(name));
    if let Some((_, shown, chips)) = CASES.iter().find(|(names, _, _)| is_named(names)) {
        return Some(Item::Case { count, shown, chips });
    }
    let found = PRODUCTS.iter().find(|product| is_named(product.names))?;
    Some(Item::Product { count, product: found })
}

pub(super) fn drive(name: &str, count: Option<u32>) -> Option<Item> {
    let name: String = name.split_whitespace().collect();
    let (_, rate) = DRIVES.iter().find(|(known, _)| *known == name)?;
    let is_kind = KINDS_OF_DRIVES.contains(&name.as_str());
    Some(Item::Drive { count: count.unwrap_or(1), name, rate: *rate, is_kind })
}

/// Networks with names of their own: bits per second and latency of a message, as in the model of
/// the link.
pub(super) fn network(name: &str) -> Option<Item> {
    let (bits, latency) = match name {
        "thunderbolt" | "thunderbolt 4" | "tb4" | "thunderbolt bridge" | "usb4" => (40e9, 150e-6),
        "thunderbolt 5" | "tb5" => (80e9, 150e-6),
        "thunderbolt 5 rdma" | "tb5 rdma" | "rdma" => (80e9, 8e-6),
        "infiniband" | "ib" | "roce" | "connectx-7" | "cx7" => (200e9, 2e-6),
        "wifi" | "wi-fi" => (1e9, 3e-3),
        // `gigabit` without a number.
        "gbe" => (1e9, 75e-6),
        _ => return None,
    };
    Some(Item::Network {
        bits_per_second: bits as u64,
        name: name.to_owned(),
        latency: Some(latency),
    })
}

pub(super) fn is_server(text: &str) -> bool {
    processors::bare(text).is_some_and(|name| name.starts_with("epyc") || name.starts_with("xeon"))
}

/// `i7`, `i7-13700k`, `ultra`, `w9-3495x`.
pub(super) fn is_series(text: &str) -> bool {
    let core = ["i3", "i5", "i7", "i9"]
        .iter()
        .any(|core| text == *core || text.starts_with(&format!("{core}-")));
    let maker = text
        .split(['-', ' '])
        .next()
        .is_some_and(|first| MAKERS.contains(&first) && first.len() > 3);
    core || maker
        || text.starts_with("e5-")
        || text.starts_with("w-")
        || (text.starts_with('w')
            && text[1..].starts_with(['3', '5', '7', '9'])
            && text.contains('-'))
        || matches!(
            text,
            "n100"
                | "n95"
                | "n97"
                | "n305"
                | "qyfs"
                | "grace"
                | "gh200"
                | "snapdragon"
                | "rk3588"
                | "altra"
                | "graviton3"
                | "graviton4"
        )
}

/// What may follow a model: `v3`, `+`, `hx`.
pub(super) fn is_suffix(text: &str) -> bool {
    matches!(text, "v2" | "v3" | "v4" | "v5" | "hx" | "hs" | "x3d" | "pro")
}

/// A Ryzen by its bare number, which is not enough to be one: `5600`, `7600`, `3600`.
pub(super) fn ryzen(text: &str) -> Option<String> {
    let name = format!("ryzen 5 {text}");
    processors::cores(&name).is_some().then(|| format!("ryzen {text}"))
}

/// Timings of memory, clocks and generations of processors: `CL30`, `2.00GHz`, `13th`.
pub(super) fn says_nothing(word: &str) -> bool {
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    word.strip_prefix("cl").is_some_and(is_number)
        || ["ghz", "th", "rd", "nd", "st"]
            .iter()
            .any(|end| word.strip_suffix(end).is_some_and(is_number))
}
