//! Cloud instances by name, with their published cores and memory.
//!
//! A part of a socket has a part of its memory bandwidth: channels are counted in proportion, which
//! is said to be an assumption. Sources: aws.amazon.com/ec2/instance-types,
//! cloud.google.com/compute/docs, learn.microsoft.com/azure/virtual-machines/sizes.

/// An instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Instance {
    /// Its processor, as in `processors.rs`.
    pub(super) processor: &'static str,
    /// Physical cores.
    pub(super) cores: u32,
    pub(super) sockets: u32,
    pub(super) memory_gib: u64,
    /// The part of its sockets that it has.
    pub(super) share: f64,
    /// GPUs, as in `gpus.rs`.
    pub(super) gpus: Option<(u32, &'static str)>,
}

/// A family of instances that differ in size only.
struct Family {
    name: &'static str,
    processor: &'static str,
    /// Virtual CPUs of a core.
    per_core: u32,
    /// GiB for each virtual CPU.
    gib_each: f64,
    /// Virtual CPUs of the largest instance, which has all of its sockets.
    largest: u32,
    sockets: u32,
}

const fn family(
    name: &'static str,
    processor: &'static str,
    per_core: u32,
    gib_each: f64,
    largest: u32,
) -> Family {
    Family { name, processor, per_core, gib_each, largest, sockets: 2 }
}

/// Families of AWS. The letter says what memory a virtual CPU has: c 2, m 4, r 8 GiB.
const AWS: &[Family] = &[
    family("c6a", "epyc 7r13", 2, 2.0, 192),
    family("m6a", "epyc 7r13", 2, 4.0, 192),
    family("r6a", "epyc 7r13", 2, 8.0, 192),
    family("c7a", "epyc 9r14", 1, 2.0, 192),
    family("m7a", "epyc 9r14", 1, 4.0, 192),
    family("r7a", "epyc 9r14", 1, 8.0, 192),
    family("c8a", "epyc 9r45", 1, 2.0, 192),
    family("m8a", "epyc 9r45", 1, 4.0, 192),
    family("r8a", "epyc 9r45", 1, 8.0, 192),
    family("c6i", "xeon platinum 8375c", 2, 2.0, 128),
    family("m6i", "xeon platinum 8375c", 2, 4.0, 128),
    family("r6i", "xeon platinum 8375c", 2, 8.0, 128),
    family("c7i", "xeon platinum 8488c", 2, 2.0, 192),
    family("m7i", "xeon platinum 8488c", 2, 4.0, 192),
    family("r7i", "xeon platinum 8488c", 2, 8.0, 192),
    family("c8i", "xeon 6 6975p-c", 2, 2.0, 384),
    family("m8i", "xeon 6 6975p-c", 2, 4.0, 384),
    family("r8i", "xeon 6 6975p-c", 2, 8.0, 384),
    Family { sockets: 1, ..family("c7g", "graviton3", 1, 2.0, 64) },
    Family { sockets: 1, ..family("m7g", "graviton3", 1, 4.0, 64) },
    Family { sockets: 1, ..family("r7g", "graviton3", 1, 8.0, 64) },
    family("c8g", "graviton4", 1, 2.0, 192),
    family("m8g", "graviton4", 1, 4.0, 192),
    family("r8g", "graviton4", 1, 8.0, 192),
    family("x2idn", "xeon platinum 8375c", 2, 16.0, 128),
    family("x2iedn", "xeon platinum 8375c", 2, 32.0, 128),
    family("x8g", "graviton4", 1, 16.0, 192),
];

/// Families of Google Cloud, `c3d-highmem-360`.
const GOOGLE: &[Family] = &[
    family("c3d-standard", "epyc 9b14", 2, 4.0, 360),
    family("c3d-highmem", "epyc 9b14", 2, 8.0, 360),
    family("c3-standard", "xeon platinum 8481c", 2, 4.0, 176),
    family("c3-highmem", "xeon platinum 8481c", 2, 8.0, 176),
    family("n2d-standard", "epyc 7b13", 2, 4.0, 224),
    family("n2d-highmem", "epyc 7b13", 2, 8.0, 224),
    family("c4-standard", "xeon platinum 8581c", 2, 3.75, 192),
    family("c4-highmem", "xeon platinum 8581c", 2, 7.75, 192),
    family("c4d-standard", "epyc 9b45", 2, 3.875, 384),
    family("c4d-highmem", "epyc 9b45", 2, 7.875, 384),
    family("c4a-highmem", "neoverse-v2 axion", 1, 8.0, 72),
];

/// Instances with their own figures.
const SINGLE: &[(&str, Instance)] = &[
    ("p5.48xlarge", gpus("epyc 7r13", 96, 2048, (8, "h100"))),
    ("p5e.48xlarge", gpus("epyc 7r13", 96, 2048, (8, "h200"))),
    ("p5en.48xlarge", gpus("xeon platinum 8488c", 96, 2048, (8, "h200"))),
    ("p6-b200.48xlarge", gpus("xeon platinum 8570", 96, 2048, (8, "b200"))),
    ("p4d.24xlarge", gpus("xeon platinum 8275cl", 48, 1152, (8, "a100"))),
    ("p4de.24xlarge", gpus("xeon platinum 8275cl", 48, 1152, (8, "a10080gb"))),
    ("g5.48xlarge", gpus("epyc 7r32", 96, 768, (8, "a10"))),
    ("g6.48xlarge", gpus("epyc 7r13", 96, 768, (8, "l4"))),
    ("g6e.48xlarge", gpus("epyc 7r13", 96, 1536, (8, "l40s"))),
    ("a3-highgpu-8g", gpus("xeon platinum 8481c", 104, 1872, (8, "h100"))),
    ("a2-ultragpu-8g", gpus("xeon platinum 8273cl", 48, 1360, (8, "a10080gb"))),
    ("standard_nd96isr_h100_v5", gpus("xeon platinum 8480c", 96, 1900, (8, "h100"))),
    ("standard_hb176rs_v4", whole("epyc 9v33x", 176, 704)),
    ("standard_hx176rs", whole("epyc 9v33x", 176, 1408)),
    ("standard_hb120rs_v3", whole("epyc 7v73x", 120, 448)),
    ("standard_e96as_v5", whole("epyc 7763", 48, 672)),
    ("hpc7a.96xlarge", whole("epyc 9r14", 192, 768)),
    ("standard_e96ds_v5", whole("xeon platinum 8370c", 48, 672)),
    ("standard_e96s_v5", whole("xeon platinum 8370c", 48, 672)),
];

const fn whole(processor: &'static str, cores: u32, memory_gib: u64) -> Instance {
    Instance { processor, cores, sockets: 2, memory_gib, share: 1.0, gpus: None }
}

const fn gpus(
    processor: &'static str,
    cores: u32,
    memory_gib: u64,
    gpus: (u32, &'static str),
) -> Instance {
    Instance { gpus: Some(gpus), ..whole(processor, cores, memory_gib) }
}

/// The instance of this name, in small letters.
pub(super) fn find(name: &str) -> Option<Instance> {
    if let Some((_, instance)) = SINGLE.iter().find(|(known, _)| *known == name) {
        return Some(instance.clone());
    }
    if let Some((family, size)) = name.split_once('.') {
        let family = AWS.iter().find(|known| known.name == family)?;
        return family.of(vcpus(size, family.largest)?);
    }
    let (family, vcpus) = name.rsplit_once('-')?;
    GOOGLE.iter().find(|known| known.name == family)?.of(vcpus.parse().ok()?)
}

impl Family {
    fn of(&self, vcpus: u32) -> Option<Instance> {
        if vcpus == 0 || vcpus > self.largest {
            return None;
        }
        let share = f64::from(vcpus) / f64::from(self.largest);
        let sockets = if share > 0.5 { self.sockets } else { 1 };
        Some(Instance {
            processor: self.processor,
            cores: (vcpus / self.per_core).max(1),
            sockets,
            memory_gib: (f64::from(vcpus) * self.gib_each) as u64,
            share: share * f64::from(self.sockets) / f64::from(sockets),
            gpus: None,
        })
    }
}

/// `48xlarge` -> 192.
fn vcpus(size: &str, largest: u32) -> Option<u32> {
    let size = size.strip_prefix("metal-").unwrap_or(size);
    match size {
        "metal" => Some(largest),
        "medium" => Some(1),
        "large" => Some(2),
        "xlarge" => Some(4),
        _ => {
            let times: u32 =
                size.strip_suffix("xlarge").or(size.strip_suffix("xl"))?.parse().ok()?;
            times.checked_mul(4)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors;

    #[test]
    fn instances_have_their_published_cores_and_memory() {
        for (name, cores, gib, sockets) in [
            ("r6a.48xlarge", 96, 1536, 2),
            ("r7a.48xlarge", 192, 1536, 2),
            ("r7i.48xlarge", 96, 1536, 2),
            ("c7a.48xlarge", 192, 384, 2),
            ("m7i.24xlarge", 48, 384, 1),
            ("m7a.metal-48xl", 192, 768, 2),
            ("r7a.8xlarge", 32, 256, 1),
            ("c3d-highmem-360", 180, 2880, 2),
            ("p5.48xlarge", 96, 2048, 2),
        ] {
            let found = find(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(
                (found.cores, found.memory_gib, found.sockets),
                (cores, gib, sockets),
                "{name}"
            );
        }
        assert_eq!(find("r7a.8xlarge").unwrap().share, 32.0 / 96.0);
        for name in ["r7a.999xlarge", "r7a", "z1d.large", "c3d-highmem-0", ""] {
            assert_eq!(find(name), None, "{name}");
        }
    }

    #[test]
    fn every_processor_is_known() {
        let families = AWS.iter().chain(GOOGLE).map(|family| family.processor);
        for name in families.chain(SINGLE.iter().map(|(_, instance)| instance.processor)) {
            assert!(processors::find(name).is_some(), "{name}");
        }
    }
}
