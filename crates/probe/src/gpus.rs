//! Graphics cards: NVIDIA's by NVML, which is looked for at run time, AMD's by sysfs.

use std::fs;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::Clock;

use cachalot_plan::gpus;
use cachalot_plan::machine::Gpu;

/// All cards, cards of one kind together, and why some could not be seen.
pub(crate) fn gpus() -> (Vec<Gpu>, Option<String>) {
    let mut found: Vec<Gpu> = Vec::new();
    let (nvidia, why) = match nvidia() {
        Ok(cards) => (cards, None),
        // Without a driver there is no library, and nothing to be said.
        Err(_) if !std::path::Path::new("/proc/driver/nvidia").exists() => (Vec::new(), None),
        Err(why) => (Vec::new(), Some(format!("NVIDIA cards: {why}"))),
    };
    for card in nvidia.into_iter().chain(amd()) {
        match found.iter_mut().find(|known| known.name == card.name) {
            Some(known) => known.count += 1,
            None => found.push(card),
        }
    }
    (found, why)
}

fn nvidia() -> Result<Vec<Gpu>, nvml_wrapper::error::NvmlError> {
    let nvml = Nvml::init()?;
    (0..nvml.device_count()?)
        .map(|index| {
            let device = nvml.device_by_index(index)?;
            let name = device.name()?;
            let known = gpus::find(&name);
            // Two transfers per clock over the bus, if the data sheet is not known.
            let by_bus = || {
                let bits = f64::from(device.memory_bus_width().ok()?);
                let megahertz = f64::from(device.max_clock_info(Clock::Memory).ok()?);
                Some(bits / 8.0 * megahertz * 2e6)
            };
            let rate = known.as_ref().and_then(|known| known.bytes_per_second).or_else(by_bus);
            Ok(Gpu {
                name,
                count: 1,
                memory_bytes: device.memory_info()?.total,
                bytes_per_second: rate,
                attention_flops: known.as_ref().and_then(|known| known.attention_flops),
                unified: false,
                joined: known.is_some_and(|known| known.joined),
            })
        })
        .collect()
}

fn amd() -> Vec<Gpu> {
    let cards = fs::read_dir("/sys/class/drm").into_iter().flatten().flatten();
    let memory = cards.filter_map(|card| {
        let name = card.file_name().into_string().ok()?;
        let is_card = name.strip_prefix("card")?.parse::<u32>().is_ok(); // not card0-DP-1
        let folder = card.path().join("device");
        let bytes = fs::read_to_string(folder.join("mem_info_vram_total")).ok()?;
        let product = fs::read_to_string(folder.join("product_name")).unwrap_or_default();
        let memory_bytes = bytes.trim().parse().ok()?;
        is_card.then(|| (product.trim().to_owned(), memory_bytes))
    });
    memory
        .map(|(product, memory_bytes)| {
            let known = gpus::find(&product).unwrap_or_default();
            let name = if product.is_empty() { "AMD card".to_owned() } else { product };
            Gpu { name, count: 1, memory_bytes, ..known }
        })
        .collect()
}
