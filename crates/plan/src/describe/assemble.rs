//! Items become a machine: sizes find what they are sizes of, counts what they count.

mod sizes;

use std::fmt::Display;

use super::parser::{Item, Role};
use super::products::Product;
use super::{DescribeError, consistent, together};
use crate::machine::{Drive, Gpu, Link, Machine, Origin};
use crate::{gpus, processors, units};

/// Sizes above this are no memory of a desktop or laptop, in bytes.
const DESKTOP_MAX: u64 = 256 << 30;
/// A size beside a drive, of a machine that is not a server, is the drive's from here on, in bytes.
const DESKTOP_DRIVE: u64 = 900 << 30;
/// Sizes from this on are sold as drives, in bytes.
const DRIVE_MIN: u64 = 240 << 30;
/// Sizes from here on are no memory of a graphics card, in bytes.
const CARD_MAX: u64 = 512 << 30;
/// Boards of desktops take at most four modules.
const SERVER_MODULES: u32 = 6;
/// Speeds that are assumed where only the generation of the memory is said, in MT/s: what servers
/// of it run at, which desktops reach as well.
const BASE_SPEEDS: [(u32, u32); 4] = [(3, 1600), (4, 3200), (5, 4800), (6, 8800)];

/// A size that has not been given to anything yet.
#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    modules: Option<u32>,
    role: Option<Role>,
    /// Whether it stands beside a drive.
    beside_drive: bool,
}

/// What was understood so far.
#[derive(Default)]
pub(super) struct Assembler {
    machine: Machine,
    product: Option<&'static Product>,
    case: Option<(&'static str, &'static [&'static str])>,
    sizes: Vec<Size>,
    drive_count: u32,
    /// A rate before its drive.
    rate_ahead: Option<f64>,
    channels: Option<u32>,
    ddr: Option<u32>,
    processor: Vec<String>,
    /// A word such as `RAM:` whose size follows.
    pending_role: Option<Role>,
}

/// Puts items together.
pub(super) fn machine(items: &[Item]) -> Result<Machine, DescribeError> {
    let mut assembler = Assembler::default();
    let parts: Vec<&Item> = items.iter().filter(|item| !matches!(item, Item::Filler)).collect();
    for (index, item) in parts.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| parts[before]);
        assembler.add(item, before, parts.get(index + 1).copied())?;
    }
    assembler.finish()
}

impl Assembler {
    fn add(
        &mut self,
        item: &Item,
        before: Option<&Item>,
        after: Option<&Item>,
    ) -> Result<(), DescribeError> {
        // `GPU: RTX 4090, SSD: 990 Pro 2TB`: a word waits for its size until another part is named.
        if matches!(
            item,
            Item::Product { .. }
                | Item::Case { .. }
                | Item::Cloud { .. }
                | Item::Processor { .. }
                | Item::Card(_)
                | Item::Drive { .. }
        ) {
            self.pending_role = None;
        }
        match item {
            Item::Product { count, product } => self.product(*count, product)?,
            Item::Case { count, shown, chips } => {
                self.case = Some((shown, chips));
                self.machines(*count)?;
            }
            Item::Cloud { count, name, instance } => self.cloud(*count, name, instance)?,
            Item::Processor { count, name } => self.processor(*count, name)?,
            Item::Card(gpu) => self.machine.gpus.push(gpu.clone()),
            Item::Drive { count, name, rate, is_kind } => {
                self.drive(*count, (name, *rate), *is_kind, before);
            }
            Item::Size { bytes, modules, .. } => self.size(*bytes, *modules, before, after),
            Item::Rate(rate) => self.rate(*rate, before, after)?,
            Item::Speed { channels, mts } => self.speed(*channels, *mts)?,
            Item::Ddr(generation) => self.ddr = Some(*generation),
            Item::Channels(channels) => {
                if let Some(first) = self.channels.replace(*channels) {
                    return Err(twice("the number of memory channels", &first, channels));
                }
            }
            Item::Cores(cores) => {
                self.machine.processor.cores = Some(*cores);
                self.machine.origin("cores", Origin::Given);
            }
            Item::Sockets(sockets) => self.machine.processor.sockets = Some(*sockets),
            Item::Network { bits_per_second, name, latency } => self.machine.links.push(Link {
                name: name.clone(),
                bits_per_second: *bits_per_second,
                latency_seconds: *latency,
            }),
            Item::Role(role) => self.role(*role, before),
            Item::CountAfter(count) => self.count_after(*count, before)?,
            Item::Machines(count) => self.machines(Some(*count))?,
            Item::Filler => {}
        }
        Ok(())
    }

    fn machines(&mut self, count: Option<u32>) -> Result<(), DescribeError> {
        let Some(count) = count.filter(|count| *count > 1) else { return Ok(()) };
        match self.machine.machines.replace(count) {
            Some(first) if first != count => Err(twice("the number of machines", &first, &count)),
            _ => Ok(()),
        }
    }

    fn product(
        &mut self,
        count: Option<u32>,
        product: &'static Product,
    ) -> Result<(), DescribeError> {
        if let Some(first) = self.product.filter(|first| first.shown != product.shown) {
            return Err(twice("the machine", &first.shown, &product.shown));
        }
        self.product = Some(product);
        self.machines(count)
    }

    fn cloud(
        &mut self,
        count: Option<u32>,
        name: &str,
        instance: &super::cloud::Instance,
    ) -> Result<(), DescribeError> {
        self.machines(count)?;
        let machine = &mut self.machine;
        self.processor = vec![instance.processor.to_owned()];
        machine.processor.sockets = Some(instance.sockets);
        machine.processor.cores = Some(instance.cores);
        machine.memory.total_bytes = Some(instance.memory_gib << 30);
        if let Some(platform) = processors::find(instance.processor) {
            let channels = f64::from(platform.channels * instance.sockets) * instance.share;
            machine.memory.channels = Some((channels.round() as u32).max(1));
            machine.memory.speed_mts = Some(platform.speed_mts);
        }
        if instance.share < 1.0 {
            machine.assumed.push(format!(
                "{name} has {:.0} % of its sockets' memory bandwidth, as of their cores",
                instance.share * 100.0
            ));
        }
        let cards =
            instance.gpus.and_then(|(count, name)| Some(Gpu { count, ..gpus::find(name)? }));
        machine.gpus.extend(cards);
        for fact in ["cores", "memory", "channels", "speed"] {
            machine.origin(fact, Origin::Known);
        }
        Ok(())
    }

    fn processor(&mut self, count: Option<u32>, name: &str) -> Result<(), DescribeError> {
        self.processor.push(name.to_owned());
        match count.filter(|count| *count > 1) {
            // More than the sockets of any board: these are whole machines.
            Some(count) if count > processors::sockets_max(name) => {
                return self.machines(Some(count));
            }
            Some(count) => self.machine.processor.sockets = Some(count),
            None => {}
        }
        Ok(())
    }

    fn drive(
        &mut self,
        count: u32,
        (name, rate): (&str, f64),
        is_kind: bool,
        before: Option<&Item>,
    ) {
        let follows = matches!(before, Some(Item::Drive { .. }));
        if let Some(drive) = self.machine.drives.last_mut().filter(|_| follows && count == 1) {
            // `NVMe 990 Pro`: of two words about one drive, the one that is not a kind says more.
            if !is_kind {
                drive.read_bytes_per_second = Some(together(rate, f64::from(self.drive_count)));
                self.machine.origin("drive", Origin::Known);
            }
            return;
        }
        // `2x 4TB 990 pro`: the count stands before the size.
        let counted = self.sizes.last().filter(|_| matches!(before, Some(Item::Size { .. })));
        let many = counted.and_then(|size| size.modules).filter(|_| count == 1);
        let count = match (many, self.sizes.last_mut()) {
            (Some(many), Some(size)) if size.bytes / u64::from(many) >= DRIVE_MIN => {
                size.role = Some(Role::Drive);
                many
            }
            _ => count,
        };
        let origin = match self.rate_ahead {
            Some(_) => Origin::Given,
            None if is_kind || name.starts_with("gen") => Origin::Assumed,
            None => Origin::Known,
        };
        let rate = together(self.rate_ahead.take().unwrap_or(rate), f64::from(count));
        let name = if count > 1 { format!("{count}x {name}") } else { name.to_owned() };
        self.machine.origin("drive", origin);
        self.machine.drives.push(Drive {
            name,
            read_bytes_per_second: Some(rate),
            ..Drive::default()
        });
        self.drive_count = count;
    }

    fn size(
        &mut self,
        bytes: u64,
        modules: Option<u32>,
        before: Option<&Item>,
        after: Option<&Item>,
    ) {
        if let (Some(Item::Card(_)), Some(gpu)) = (before, self.machine.gpus.last_mut())
            && gpus::is_made_with(gpu, bytes)
        {
            gpu.memory_bytes = bytes;
            return;
        }
        let is_memory =
            matches!(after, Some(Item::Role(Role::Ram) | Item::Ddr(_) | Item::Speed { .. }));
        let is_drive = |item: Option<&Item>| {
            matches!(item, Some(Item::Drive { .. } | Item::Role(Role::Drive)))
        };
        let beside_drive = !is_memory && (is_drive(before) || is_drive(after));
        let role = self.pending_role.take().filter(|role| *role != Role::Vram || bytes < CARD_MAX);
        let role = role.or(is_memory.then_some(Role::Ram));
        self.sizes.push(Size { bytes, modules, role, beside_drive });
    }

    /// `24GB VRAM`: the size before it.
    fn role(&mut self, role: Role, before: Option<&Item>) {
        let last = self.sizes.last_mut();
        let last = last.filter(|size| size.role.is_none_or(|known| known == role));
        let last = last.filter(|size| role != Role::Vram || size.bytes < CARD_MAX);
        if let (Some(Item::Size { .. }), Some(size)) = (before, last) {
            size.role = Some(role);
        } else {
            self.pending_role = Some(role);
        }
    }

    fn rate(
        &mut self,
        rate: f64,
        before: Option<&Item>,
        after: Option<&Item>,
    ) -> Result<(), DescribeError> {
        let after_size =
            matches!(before, Some(Item::Size { .. })) && !self.machine.drives.is_empty();
        let of_drive = matches!(before, Some(Item::Drive { .. }))
            || (after_size && self.sizes.last().is_some_and(|size| size.beside_drive));
        if let Some(drive) = self.machine.drives.last_mut().filter(|_| of_drive) {
            drive.read_bytes_per_second = Some(together(rate, f64::from(self.drive_count)));
            self.machine.origin("drive", Origin::Given);
            return Ok(());
        }
        if matches!(after, Some(Item::Drive { .. })) && !matches!(before, Some(Item::Card(_))) {
            self.rate_ahead = Some(rate);
            return Ok(());
        }
        if let (Some(Item::Card(_)), Some(gpu)) = (before, self.machine.gpus.last_mut()) {
            gpu.bytes_per_second = Some(rate);
            return Ok(());
        }
        if let Some(first) = self.machine.memory.read_bytes_per_second.replace(rate) {
            return Err(twice("the memory bandwidth", &units::rate(first), &units::rate(rate)));
        }
        Ok(())
    }

    fn speed(&mut self, channels: Option<u32>, mts: u32) -> Result<(), DescribeError> {
        let memory = &mut self.machine.memory;
        let said = |channels: Option<u32>, mts: u32| {
            channels.map_or(format!("{mts} MT/s"), |channels| format!("{channels}x{mts}"))
        };
        if let Some(first) = memory.speed_mts.replace(mts) {
            let (first, second) = (said(memory.channels, first), said(channels, mts));
            return Err(twice("the speed of memory", &first, &second));
        }
        memory.channels = channels;
        self.machine.origin("speed", Origin::Given);
        if channels.is_some() {
            self.machine.origin("channels", Origin::Given);
        }
        Ok(())
    }

    /// `H200 x8`, `EPYC 9755 dual`.
    fn count_after(&mut self, count: u32, before: Option<&Item>) -> Result<(), DescribeError> {
        match before {
            Some(Item::Card(_)) => {
                if let Some(gpu) = self.machine.gpus.last_mut() {
                    gpu.count = count;
                }
            }
            Some(Item::Processor { .. }) => self.machine.processor.sockets = Some(count),
            Some(Item::Product { .. } | Item::Case { .. } | Item::Cloud { .. }) => {
                self.machines(Some(count))?;
            }
            Some(Item::Size { bytes, .. })
                if self.machine.gpus.last().is_some_and(|gpu| gpu.memory_bytes == *bytes) =>
            {
                if let Some(gpu) = self.machine.gpus.last_mut() {
                    gpu.count = count;
                }
            }
            // `framework desktop 128gb x4`
            Some(Item::Size { .. }) if self.product.is_some() => self.machines(Some(count))?,
            Some(Item::Size { .. }) => {
                if let Some(size) = self.sizes.last_mut() {
                    size.bytes = size.bytes.saturating_mul(count.into());
                    size.modules = Some(count);
                }
            }
            _ if !self.processor.is_empty() => self.machine.processor.sockets = Some(count),
            _ if count == 1 => {}
            _ => {
                let word = format!("{count}x");
                return Err(DescribeError::Word { word, nearest: Vec::new() });
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Machine, DescribeError> {
        self.name_processor()?;
        if self.machine.gpus.iter().any(|gpu| gpu.name == "GH200")
            && self.machine.processor.name.is_none()
        {
            self.machine.processor.name = Some("grace".to_owned());
            self.machine.processor.cores = processors::cores("grace");
        }
        self.fill_in_product();
        self.share_out_sizes()?;
        self.count_channels()?;
        self.link_machines();
        let Self { machine, .. } = self;
        consistent(&machine)?;
        Ok(machine)
    }

    fn name_processor(&mut self) -> Result<(), DescribeError> {
        let mut names = std::mem::take(&mut self.processor);
        // `AMD ... EPYC 9354`: of several, those that say something.
        if names.len() > 1 {
            names.retain(|name| {
                processors::find(name).is_some() || processors::cores(name).is_some()
            });
        }
        names.dedup();
        if let [first, second, ..] = &names[..] {
            return Err(twice("the processor", first, second));
        }
        let Some(name) = names.pop() else { return Ok(()) };
        let processor = &mut self.machine.processor;
        // `2x EPYC 7763 64-Core Processor`: the cores are those of each.
        if processor.cores.is_some() && processor.cores == processors::cores(&name) {
            processor.cores = None;
        }
        if processor.cores.is_none()
            && let Some(cores) = processors::cores(&name)
        {
            processor.cores = Some(cores.saturating_mul(processor.sockets()));
            self.machine.origin("cores", Origin::Known);
        }
        self.machine.processor.name = Some(name);
        Ok(())
    }

    /// Several machines have a network, said or not.
    fn link_machines(&mut self) {
        if self.machine.machines() < 2 || !self.machine.links.is_empty() {
            return;
        }
        let is_spark = self.product.is_some_and(|product| product.names.contains(&"dgx spark"));
        // Boards and laptops have ports for 1 Gbit/s.
        let is_small = self.product.is_some_and(|product| {
            product.shown == "laptop" || product.processor.is_some() && product.unified.is_none()
        });
        let (name, bits_per_second, latency_seconds) = if is_small {
            ("1gbe", 1_000_000_000, None)
        } else if is_spark {
            ("ConnectX-7", 200_000_000_000, Some(2e-6))
        } else {
            ("10gbe", 10_000_000_000, None)
        };
        self.machine.assumed.push(format!("{name} between the machines, since no network is said"));
        let name = name.to_owned();
        self.machine.links.push(Link { name, bits_per_second, latency_seconds });
    }

    /// What the product has that was not said.
    fn fill_in_product(&mut self) {
        let machine = &mut self.machine;
        let Some(product) = self.product else {
            if let Some((shown, chips)) = self.case {
                machine.product = Some(shown.to_owned());
                machine.questions.push(format!(
                    "which chip the {shown} has is not said: add one of {}",
                    chips.join(", ")
                ));
            }
            return;
        };
        let case = self.case.map_or(String::new(), |(case, _)| format!("{case} "));
        machine.product = Some(format!("{case}{}", product.shown));
        machine.memory.sizes = product.sizes.iter().map(|gib| gib << 30).collect();
        if machine.processor.name.is_none() {
            machine.processor.name = product.processor.map(str::to_owned);
        }
        if machine.processor.cores.is_none() {
            let by_name = product.processor.and_then(processors::cores);
            machine.processor.cores = product.cores.or(by_name);
            machine.origin("cores", Origin::Known);
        }
        if let (Some((channels, mts)), None) = (product.memory, machine.memory.speed_mts) {
            (machine.memory.channels, machine.memory.speed_mts) = (Some(channels), Some(mts));
            let origin = if product.assumed.is_some() { Origin::Assumed } else { Origin::Known };
            machine.origin("channels", origin);
            machine.origin("speed", origin);
        }
        if let Some(gpu) = product.unified.and_then(gpus::by_name) {
            machine.gpus.insert(0, Gpu { name: product.shown.to_owned(), ..gpu });
        }
        // The port of a board limits any drive in it.
        let port = product.drive.filter(|_| product.names[0].contains("pi"));
        match (machine.drives.first_mut(), product.drive) {
            (None, Some(rate)) => {
                machine.drives.push(Drive {
                    name: "internal drive".to_owned(),
                    read_bytes_per_second: Some(rate * 1e9),
                    ..Drive::default()
                });
                machine.origin("drive", Origin::Assumed);
            }
            // `1TB SSD` of a product is its own drive.
            (Some(drive), Some(rate))
                if port.is_none() && machine.origins.get("drive") == Some(&Origin::Assumed) =>
            {
                drive.read_bytes_per_second = Some(rate * 1e9);
            }
            (Some(drive), _)
                if port.is_some() && machine.origins.get("drive") != Some(&Origin::Given) =>
            {
                drive.read_bytes_per_second = port.map(|rate| rate * 1e9);
                machine.assumed.push(format!(
                    "{:.2} GB/s, what the {}'s port for drives carries",
                    product.drive.unwrap_or_default(),
                    product.shown
                ));
            }
            _ => {}
        }
        machine.assumed.extend(product.assumed.map(str::to_owned));
    }

    /// Channels that were not said together with their speed, or follow from the modules.
    fn count_channels(&mut self) -> Result<(), DescribeError> {
        let sockets = self.machine.processor.sockets();
        let most = self.machine.processor.platform().map(|platform| platform.channels);
        let said = self.channels.map(|channels| match most {
            // `dual EPYC, 8 channels`: of each.
            Some(most) if channels <= most => channels * sockets,
            _ => channels,
        });
        if let (Some(first), Some(second)) = (self.machine.memory.channels, said)
            && first != second
        {
            return Err(twice("the number of memory channels", &first, &second));
        }
        if said.is_some() {
            self.machine.memory.channels = said;
            self.machine.origin("channels", Origin::Given);
        }
        // Fewer modules than channels leave channels empty; more share them.
        if let (None, Some(modules), Some(most)) =
            (self.machine.memory.channels, self.machine.memory.modules, most)
        {
            self.machine.memory.channels = Some(modules.min(most.saturating_mul(sockets)));
            self.machine.origin("channels", Origin::Known);
        }
        if let (None, Some(modules @ SERVER_MODULES..), None) =
            (self.machine.memory.channels, self.machine.memory.modules, most)
        {
            self.machine.memory.channels = Some(modules);
            self.machine.origin("channels", Origin::Assumed);
            self.machine.assumed.push("one memory module per channel, as servers have".to_owned());
        }
        let base = self.ddr.and_then(|ddr| BASE_SPEEDS.iter().find(|(known, _)| *known == ddr));
        let platform = self.machine.processor.platform();
        if let (None, Some((ddr, mts)), None) = (self.machine.memory.speed_mts, base, platform) {
            self.machine.memory.speed_mts = Some(*mts);
            self.machine.origin("speed", Origin::Assumed);
            self.machine.assumed.push(format!("DDR{ddr}-{mts}, since no speed is said"));
        }
        Ok(())
    }
}

fn memory_channels_unknown(machine: &Machine) -> bool {
    machine.memory.channels.is_none()
}

fn twice(what: &'static str, first: &dyn Display, second: &dyn Display) -> DescribeError {
    DescribeError::Twice { what, first: first.to_string(), second: second.to_string() }
}
