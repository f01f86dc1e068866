//! Machines as people describe them.

use proptest::prelude::*;

use super::*;

#[test]
fn the_example_of_the_manual_is_understood() {
    let machine = machine("epyc-9654 12x4800 384GB rtx4090 nvme 7GB/s").unwrap();
    assert_eq!(machine.processor.cores, Some(96));
    assert_eq!(machine.memory.theoretical(), Some(460.8e9));
    assert_eq!(machine.memory.total_bytes, Some(384 << 30));
    assert_eq!((machine.gpus[0].name.as_str(), machine.gpu_count()), ("RTX 4090", 1));
    assert_eq!(machine.drive().unwrap().1, 7e9);
}

#[test]
fn a_size_is_that_of_what_it_stands_beside() {
    let memory = |text: &str| {
        let machine = machine(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        machine.memory.total_bytes.map(|bytes| bytes >> 30)
    };
    for text in [
        "epyc 7532 8x3200 2x3090 256GB",
        "256GB 2x3090 24GB",
        "2x RTX 3090 256GB RAM",
        "256GB nvme 7GB/s",
        "nvme 2TB 256GB",
        "2TB nvme, 256GB ram",
        "256GB, 2 x 4TB NVMe",
        "8x32GB DDR4-3200",
        "Dell PowerEdge R7525, dual EPYC 7532, 256 GB",
    ] {
        assert_eq!(memory(text), Some(256), "{text}");
    }
    assert_eq!(memory("8xH100 80GB 2TB"), Some(2048));
    assert_eq!(memory("192GB M2 Ultra"), Some(192));
    assert_eq!(memory("MacBook Pro M4 Max 64GB"), Some(64));
}

#[test]
fn machines_as_people_describe_them_are_understood() {
    let of = |text: &str| machine(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let rate = |text: &str| of(text).memory.theoretical().map(|rate| rate / 1e9);
    for (text, gb_per_second) in [
        ("EPYC 9374F 384GB DDR5-4800 12 channels", 460.8),
        ("EPYC 7773X 64c, 8 channels DDR4-3200, 1TB", 204.8),
        ("AMD EPYC 7532 32-Core Processor, 8x 32GB DDR4-3200, 2 x NVMe", 204.8),
        ("dual EPYC 7R13, 8 channels, DDR4-3200, 1TB", 409.6),
        ("2x EPYC 7R13 16x3200 512GB", 409.6),
        ("HP Z840, 2x E5-2699v4, 8x2400, 1TB", 153.6),
        ("Core Ultra 9 285K 2x6400 192GB RTX 5090", 102.4),
        ("quad channel ddr4 2666 threadripper 1950x 128gb", 85.312),
        ("raspberry pi 5 1x4267 16GB", 34.136),
    ] {
        let found = rate(text).unwrap_or_default();
        assert!((found - gb_per_second).abs() < 0.01, "{text}: {found}");
    }
    assert_eq!(of("EPYC 7002 8 channel DDR4 256GB RAM + 3060").memory.channels, Some(8));
    assert_eq!(of("Framework Desktop 128GB").processor.cores, Some(16));
    assert_eq!(of("NVIDIA Jetson AGX Orin 64GB").gpus[0].bytes_per_second, Some(204.8e9));
    assert_eq!(of("4x RTX PRO 6000 Blackwell Max-Q").gpu_count(), 4);
    assert_eq!(of("RTX 4070 Ti Super").gpus[0].name, "RTX 4070 Ti Super");
    assert_eq!(of("ryzen 9 5950x 64c/128t").memory.total_bytes, None);
    assert_eq!(of("7GB/s nvme").drive().unwrap().1, 7e9);
    assert_eq!(of("Samsung 990 Pro NVMe").drive().unwrap().1, 7.4e9);
    assert_eq!(of("NVMe PCIe 5.0 SSD").drive().unwrap().1, 14e9);
    assert_eq!(of("4 NVMe 7GB/s").drive().unwrap().1, 28e9 * RAID);
    assert_eq!(of("2.5GbE").links[0].bits_per_second, 2_500_000_000);
}

#[test]
fn words_may_come_in_many_forms() {
    let of = |text: &str| machine(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(of("8xH100").gpu_count(), 8);
    assert_eq!(of("8 x H100 80GB").gpus[0].count, 8);
    assert_eq!(of("2x Xeon Gold 6454S 16x4800 1TB").processor.sockets, Some(2));
    assert_eq!(of("2x Xeon Gold 6454S 16x4800 1TB").processor.cores, Some(64));
    assert_eq!(of("Xeon E5-2690 v3, 4x2133").processor.cores, Some(12));
    assert_eq!(of("12x32GB 12x4800").memory.total_bytes, Some(384 << 30));
    assert_eq!(of("128 GB, 80 GB/s").memory.read_bytes_per_second, Some(80e9));
    assert_eq!(of("m3 ultra 512GB").gpus[0].memory_bytes, 512 << 30);
    assert_eq!(of("RTX PRO 6000 + 2x RTX 6000 Ada").gpu_count(), 3);
    assert_eq!(of("4xnvme 7GB/s").drive().unwrap().1, 28e9 * RAID);
    assert_eq!(of("nvme gen5").drive().unwrap().1, 14e9);
    assert_eq!(of("24GB:1008GB/s").gpus[0].bytes_per_second, Some(1008e9));
    assert_eq!(of("raspberry pi 5 16GB").processor.cores, Some(4));
    assert_eq!(of("10gbe 64GB").links[0].bits_per_second, 10_000_000_000);
}

#[test]
fn whole_machines_are_counted() {
    let of = |text: &str| machine(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    for text in ["2x (EPYC 9654 768GB) infiniband", "two (epyc 9654, 768gb), infiniband"] {
        let found = of(text);
        assert_eq!((found.machines(), found.processor.sockets()), (2, 1), "{text}");
        assert_eq!(found.memory.total_bytes, Some(768 << 30), "{text}");
        assert_eq!(found.name, text);
    }
    for (text, machines, sockets) in [
        ("4x epyc 7763 512gb 100gbe", 4, 1),
        ("2x epyc 7763 1TB", 1, 2),
        ("2x ryzen 9 7950x 128gb 10gbe", 2, 1),
        ("8x xeon 8380h 6TB", 1, 8),
        ("2 desktops 128gb 2.5gbe", 2, 1),
        ("3 rigs 7950x 192gb 4090", 3, 1),
    ] {
        let found = of(text);
        assert_eq!((found.machines(), found.processor.sockets()), (machines, sockets), "{text}");
    }
    let found = of("2 x HGX H100 infiniband");
    assert_eq!((found.machines(), found.gpus[0].count), (2, 8));
    assert_eq!(of("3x DGX H100").machines(), 3);
    assert_eq!(of("96 GB (2x48GB)").machines(), 1);
    assert_eq!(of("96 GB (2x48GB)").memory.total_bytes, Some(96 << 30));
}

#[test]
fn lists_and_lines_of_system_tools_are_understood() {
    let of = |text: &str| machine(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let listed = of("RAM: 128GB, GPU: RTX 4090, SSD: Samsung 990 Pro 2TB");
    assert_eq!(listed.memory.total_bytes, Some(128 << 30));
    assert_eq!(listed.gpus[0].memory_bytes, 24 << 30);
    assert_eq!(listed.drive().unwrap().1, 7.4e9);
    assert_eq!(of("128GB ram, 24gb vram").gpus[0].memory_bytes, 24 << 30);
    assert_eq!(of("512 GB RAM + 24 GB GPU").gpus[0].memory_bytes, 24 << 30);
    assert_eq!(of("Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz, 512 GB").processor.cores, Some(32));
    assert_eq!(of("13th Gen Intel(R) Core(TM) i9-13900K 64GB").processor.cores, Some(24));
    assert_eq!(of("supermicro x12 dual 8358 1tb").processor.sockets, Some(2));
    let modules = of("ddr5-6000 2x48");
    assert_eq!(modules.memory.total_bytes, Some(96 << 30));
    assert_eq!(modules.memory.speed_mts, Some(6000));
    assert_eq!(of("optane p5800x 96gb").drive().unwrap().1, 7.2e9);
    for (text, name) in [
        ("7950x3d 192gb", "ryzen 9 7950x3d"),
        ("5700G 48GB", "ryzen 7 5700g"),
        ("7600x 32gb", "ryzen 5 7600x"),
        ("8945hs 64gb", "ryzen 9 8945hs"),
    ] {
        assert_eq!(of(text).processor.name.as_deref(), Some(name), "{text}");
    }
    assert_eq!(of("mac pro 2019 384GB").memory.channels, Some(6));
    assert_eq!(of("RTX 2060 12GB, 64GB").gpus[0].memory_bytes, 12 << 30);
    assert_eq!(of("RTX 2060 12GB, 64GB").memory.total_bytes, Some(64 << 30));
    for (text, sockets, cores) in [
        ("EPYC 9755 2P 1.5TB", 2, 256),
        ("2S Xeon 8592+ 1TB", 2, 128),
        ("4S Xeon 8380 3TB", 4, 160),
        ("AmpereOne 192 512GB", 1, 192),
        ("Altra Max 128 512GB", 1, 128),
        ("gold 6444y 256GB", 1, 16),
    ] {
        let processor = of(text).processor;
        assert_eq!((processor.sockets(), processor.cores), (sockets, Some(cores)), "{text}");
    }
    assert_eq!(of("mac studio 256").memory.total_bytes, Some(256 << 30));
    assert_eq!(of("jetson orin agx 64gb").memory.total_bytes, Some(64 << 30));
}

#[test]
fn mistakes_are_named() {
    let error = |text: &str| machine(text).unwrap_err().to_string();
    assert!(error("rtx4O90").contains("did you mean 4090"), "{}", error("rtx4O90"));
    assert!(error("384GB nvne").contains("did you mean nvme?"), "{}", error("384GB nvne"));
    assert!(error("64GB 128GB").contains("twice"));
    assert!(error("2x4800 200GB/s").contains("77 GB/s at best"), "{}", error("2x4800 200GB/s"));
    assert!(error("flux-capacitor").contains("`flux-capacitor`"));
    assert!(error(" ").contains("empty"));
    assert!(gpu("potato").is_err());
}

proptest! {
    #[test]
    fn any_text_is_a_machine_or_an_error(text in "\\PC{0,60}") {
        if let Err(error) = machine(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn likely_words_are_no_danger_either(
        words in proptest::collection::vec(
            "([0-9]{1,5}x?)?(epyc|xeon|nvme|4090|gen5|gb|GB/s|TB|h100|:|c|x|v3|gbe)?[0-9]{0,5}", 0..8)
    ) {
        let _ = machine(&words.join(" "));
    }
}

/// Descriptions of many kinds, each with all that is understood of it.
#[test]
fn descriptions_are_understood_as_people_mean_them() {
    insta::assert_snapshot!(page(include_str!("../../tests/fixtures/descriptions.txt")));
}

/// The same of forums, shops and clouds.
#[test]
fn descriptions_of_forums_and_shops_are_understood_as_people_mean_them() {
    insta::assert_snapshot!(page(include_str!("../../tests/fixtures/descriptions-2.txt")));
}

fn page(descriptions: &str) -> String {
    let mut page = String::new();
    for description in
        descriptions.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        page += &format!("{description}\n");
        match machine(description) {
            Ok(machine) => {
                for question in &machine.questions {
                    page += &format!("    asks: {question}\n");
                }
                for row in crate::understood::understood(&machine) {
                    let from = if row.from.is_empty() {
                        String::new()
                    } else {
                        format!(" [{}]", row.from)
                    };
                    page += &format!("    {}: {}{from}\n", row.part, row.value);
                }
            }
            Err(error) => page += &format!("    error: {error}\n"),
        }
    }
    page
}
