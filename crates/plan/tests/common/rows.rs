//! The rows of `fixtures/measurements*.csv` as machines, models and placements.

use cachalot_plan::KvType;
use cachalot_plan::machine::{Drive, Gpu, Link, Machine};
use cachalot_plan::predict::{RoutingSkew, RuntimeProfile, SoftwareAge};
use cachalot_plan::{
    Constants, MemoryTier, Mode, ModelFacts, Placement, Prediction, Shape, catalogue, describe,
    gpus, predict,
};
use serde::Deserialize;

/// A measurement, as its source tells it; absent is what it does not.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: u32,
    category: String,
    model: String,
    pub(crate) quant: String,
    size_gib: Option<f64>,
    runtime: String,
    pub(crate) cpu: String,
    sockets: Option<u32>,
    mem_channels_total: Option<u32>,
    mem_mts: Option<u32>,
    bw_reported_gbs: Option<f64>,
    ram_gb: Option<f64>,
    pub(crate) gpu: String,
    disk: String,
    context_depth_tok: String,
    decode_tps: Option<f64>,
    prefill_tps: Option<f64>,
    concurrency: u32,
    note: String,
    confidence: String,
    nonrouted_bpw_assumed: Option<f64>,
    /// `2025-02`, of the run or of its publication.
    software_date: Option<String>,
}

/// A row as what is predicted.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) row: Row,
    machine: Machine,
    model: ModelFacts,
    fit: Placement,
    profile: RuntimeProfile,
}

impl Case {
    /// What the planner says about this row by these constants.
    pub(crate) fn predict(&self, constants: &Constants) -> Result<Prediction, String> {
        let Self { machine, model, fit, profile, .. } = self;
        let prediction = predict::predict_with(machine, model, fit, *profile, constants)
            .map_err(|error| error.to_string())?;
        Ok(match machine.links.first() {
            Some(link) => predict::over(prediction, machine, link, model, *profile, constants),
            None => prediction,
        })
    }
}

/// How well a row can be predicted, and is promised to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One socket, with or without graphics cards.
    OneSocket,
    /// Several sockets, or experts on a drive.
    SocketsOrDisk,
    /// Anything else, or too little known: within a range.
    Other,
}

/// All rows with a rate of decoding.
pub(crate) fn rows() -> Vec<Row> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let read = |name: &str| -> Vec<Row> {
        let path = format!("{fixtures}/{name}");
        let rows = csv::Reader::from_path(path).expect("the fixture is there").into_deserialize();
        rows.map(|row| row.expect("its rows have these columns")).collect()
    };
    let rows = [read("measurements.csv"), read("measurements-2.csv")].concat();
    rows.into_iter().filter(|row| row.decode_tps.is_some()).collect()
}

impl Row {
    /// The measured rate of prompts, if there is one.
    pub(crate) fn prefill(&self) -> Option<f64> {
        // On a card, where decoding is not.
        self.prefill_tps.filter(|_| !self.runtime.contains("pure CPU decode"))
    }

    /// Tokens that are computed at a time in prompts, as options say: `-ub 2048`, `ub4096`.
    fn micro_batch(&self) -> u64 {
        let options = self.runtime.split_once("ub").map(|(_, rest)| rest.trim_start());
        let number = options.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        number.and_then(|number| number.parse().ok()).unwrap_or(512)
    }

    /// The rate of decoding.
    pub(crate) fn measured(&self) -> f64 {
        self.decode_tps.expect("rows without a rate are left out")
    }

    /// Whether the source is too vague for fitting, and serves for testing ranges only.
    pub(crate) fn is_vague(&self) -> bool {
        self.confidence == "low" || self.note.contains("perhaps partly offloaded")
    }

    pub(crate) fn kind(&self) -> Kind {
        match (self.category.as_str(), self.sockets) {
            ("cpu" | "hybrid", Some(1)) => Kind::OneSocket,
            ("cpu" | "hybrid", Some(_)) | ("disk", _) => Kind::SocketsOrDisk,
            _ => Kind::Other,
        }
    }

    /// What makes a machine another one. Rows about cards alone often do not name the processor.
    pub(crate) fn machine_name(&self) -> String {
        if !matches!(self.category.as_str(), "gpu" | "cluster" | "v2lite") {
            return format!("{} {:?}", self.cpu, self.mem_mts);
        }
        // Boxes of eight such cards, told apart by what their owners say of them.
        let box_of = ["PCIe switches", "EP8"].into_iter().find(|of| self.runtime.contains(of));
        format!("{} {} {}", self.cpu, self.gpu, box_of.unwrap_or_default())
    }

    /// Tokens before those that were timed: a number, or the middle of `~500-1000`.
    pub(crate) fn depth(&self) -> u64 {
        let numbers = self.context_depth_tok.trim_start_matches('~').split('-');
        let numbers: Vec<u64> = numbers.filter_map(|number| number.parse().ok()).collect();
        numbers.iter().sum::<u64>() / numbers.len().max(1) as u64
    }

    /// What is predicted, or why that cannot be.
    pub(crate) fn case(&self) -> Result<Case, String> {
        if self.model.contains("GLM-4.7-Flash") {
            return Err("a shape that the catalogue does not have".to_owned());
        }
        if self.runtime.contains("MTP-") {
            return Err("speculation: not a plain decode rate".to_owned());
        }
        if self.quant.contains("8-bit") {
            return Err("the quantization is not known: one node cannot hold 8 bits".to_owned());
        }
        if self.concurrency > 1 && self.category != "gpu" {
            return Err(format!("the sum of {} answers at a time", self.concurrency));
        }
        let (machine, model) = (self.machine(), self.model());
        let fit = self.fit(&machine, &model);
        let profile = self.profile(&model);
        let case = Case { row: self.clone(), machine, model, fit, profile };
        case.predict(&Constants::PRIOR).map(|_| case)
    }

    /// Software without a latent cache, or that moves whole layers only: mainline llama.cpp and
    /// what is built on it before April 2025, MLX of March, and options that turn such caches off.
    fn is_early(&self) -> bool {
        let says = |words: &[&str]| {
            words.iter().any(|word| self.runtime.contains(word) || self.note.contains(word))
        };
        let other = ["llama.cpp", "llama-server", "ollama", "MLX"];
        let is_other = other.iter().any(|name| self.runtime.starts_with(name));
        let is_old = self.software_date.as_ref().is_some_and(|date| date.as_str() < "2025-04");
        (is_other && is_old)
            || says(&["no MLA", "ngl 7", "ngl 8", "layers on GPU", "ollama 0", "baseline", "b4722"])
            || says(&["Jan 2025", "std attention", "expanded attention", "1x NUMA node"])
            // A blog of January 2025, and kernels launched one by one.
            || says(&["vendor blog", "no CUDA graph"])
    }

    fn machine(&self) -> Machine {
        let mut machine = Machine { name: self.cpu.clone(), ..Machine::default() };
        if !matches!(self.cpu.as_str(), "" | "-") && !self.cpu.starts_with("unspecified") {
            machine.processor.name = Some(self.cpu.clone());
        }
        machine.processor.sockets = self.sockets;
        machine.memory.channels = self.mem_channels_total;
        machine.memory.speed_mts = self.mem_mts;
        machine.memory.total_bytes = self.ram_gb.map(|gb| (gb * f64::from(1 << 30)) as u64);
        machine.gpus = self.gpus();
        if self.runtime.contains("pure CPU decode") {
            machine.gpus.clear();
        }
        if self.is_early() && self.category == "hybrid" && !self.runtime.contains("CUDA graph") {
            // A few whole layers on a card change little.
            machine.gpus.clear();
        }
        if self.category == "cluster" {
            machine.machines = self.sockets;
            let (bits_per_second, latency) = match self.runtime.contains("RDMA") {
                true => (80_000_000_000, Some(8e-6)),
                false => (10_000_000_000, None),
            };
            let name = self.disk.clone();
            machine.links = vec![Link { name, bits_per_second, latency_seconds: latency }];
        }
        // In rows about cards alone this column has the cards' bandwidth.
        if machine.gpus.is_empty() || self.category == "hybrid" {
            machine.memory.read_bytes_per_second = self.bw_reported_gbs.map(|rate| rate * 1e9);
        }
        machine.drives = self.drive().into_iter().collect();
        machine
    }

    fn gpus(&self) -> Vec<Gpu> {
        let text = self.gpu.to_lowercase();
        if text.is_empty() || text.starts_with("none") || text == "idle" {
            return Vec::new();
        }
        let clusters = self.category == "cluster";
        let named = text.split(['+', '/', '(', ',']).filter_map(|part| {
            let part = part.trim();
            let (count, name) = part.split_once('x').unwrap_or(("1", part));
            let gpu = gpus::find(name).or_else(|| gpus::find(part))?;
            let count = count.parse().unwrap_or(1);
            Some(Gpu { count: if clusters { self.sockets.unwrap_or(1) } else { count }, ..gpu })
        });
        let named: Vec<Gpu> = named.collect();
        if named.is_empty() {
            // Cards that nobody named: such as were common.
            let name = "some card".to_owned();
            let (memory_bytes, bytes_per_second) = (24 << 30, Some(950e9));
            return vec![Gpu { name, count: 1, memory_bytes, bytes_per_second, ..Gpu::default() }];
        }
        named
    }

    fn drive(&self) -> Option<Drive> {
        if self.category != "disk" {
            return None;
        }
        let text = self.disk.to_lowercase();
        let said = text.split_once("gb/s").and_then(|(before, _)| {
            before.split_whitespace().last()?.trim_matches('"').parse::<f64>().ok()
        });
        let rate = match said {
            // What paging reached is about half of what the drive delivers.
            Some(rate) if text.contains("paging") => rate * 1e9 / 0.48,
            Some(rate) => rate * 1e9,
            None => describe::drive_rate(&text)?,
        };
        Some(describe::drive(rate))
    }

    fn model(&self) -> ModelFacts {
        let of = |words: &[&str]| words.iter().any(|word| self.model.contains(word));
        let shape = match () {
            () if of(&["Kimi"]) => Shape::KIMI_K2,
            () if of(&["V2-Lite"]) => Shape::DEEPSEEK_V2_LITE,
            () => Shape::DEEPSEEK_V3,
        };
        let bits = bits(&self.quant);
        let size = self
            .size_gib
            .map_or(shape.parameters() as f64 / 8.0 * bits, |gib| gib * f64::from(1 << 30));
        let dense_bits = self.nonrouted_bpw_assumed.unwrap_or(bits.clamp(5.0, 8.5));
        let mut model =
            catalogue::of_shape(&shape, &self.model, &self.quant, size as u64, dense_bits);
        if of(&["GLM-5.2"]) {
            // 75 layers of 256 experts of 19 MB, of which a token reads 8; 9.9 GB of other weights.
            model.routed = 75 * 256 * 19_000_000;
            model.routed_per_token = 75 * 8 * 19_000_000;
            (model.dense, model.dense_per_token) = (9_900_000_000, 9_000_000_000);
        } else if of(&["V4-Flash"]) {
            // 167 GB, 256 experts, of which a token reads 6.
            model.routed = 157_000_000_000;
            model.routed_per_token = model.routed * 6 / 256;
            (model.dense, model.dense_per_token) = (10_000_000_000, 9_000_000_000);
        }
        if self.runtime.contains("-ser 6") {
            model = model.with_experts_used(6);
        }
        model.size = model.routed + model.dense;
        model
    }

    /// Where weights were put by hand: experts on cards only as far as the row says so.
    fn fit(&self, machine: &Machine, model: &ModelFacts) -> Placement {
        let on_cards = !machine.gpus.is_empty();
        let all_on_cards = on_cards
            && !self.note.contains("part of the experts")
            && !matches!(self.category.as_str(), "hybrid" | "disk")
            && !self.runtime.contains("exps=CPU");
        let vram = if all_on_cards { 1.0 } else { self.share_on_cards(model) };
        let routed_vram = (model.routed as f64 * vram) as u64;
        let mut routed_ram = model.routed - routed_vram;
        if self.category == "disk" {
            let free = (self.ram_gb.unwrap_or(64.0) - 6.0) * f64::from(1 << 30);
            let dense = if on_cards { 0 } else { model.dense };
            routed_ram = routed_ram.min((free as u64).saturating_sub(dense));
        }
        let routed_disk = model.routed - routed_vram - routed_ram;
        Placement {
            mode: if routed_disk > 0 {
                Mode::Streamed { cache: routed_ram }
            } else {
                Mode::Resident
            },
            dense_in: if on_cards { MemoryTier::Vram } else { MemoryTier::Ram },
            routed_vram,
            routed_ram,
            routed_disk,
            context: 32_768,
            context_reduced: false,
            cache_type: KvType::F16,
            parallel: 1,
            kv: 0,
            micro_batch: self.micro_batch(),
            buffers: 0,
            ram: routed_ram,
            vram: routed_vram,
        }
    }

    /// `(20 of 58 MoE layers)`, `(7 MoE layers)`, `(85.9 of 134 GiB)`, `MoE layers 3-34 on GPUs`.
    fn share_on_cards(&self, model: &ModelFacts) -> f64 {
        if self.note.contains("part of the experts on the cards") {
            let room =
                self.gpus().iter().map(|gpu| gpu.memory_bytes * u64::from(gpu.count)).sum::<u64>();
            return (0.9 * room as f64 - model.dense as f64) / model.routed as f64;
        }
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let inside = self.gpu.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
        if let Some(layers) = inside.strip_suffix("MoE layers") {
            let layers = layers.split("of").next().and_then(number);
            return layers.unwrap_or(0.0) / model.moe_layers as f64;
        }
        if let Some((part, all)) = inside.strip_suffix("GiB").and_then(|text| text.split_once("of"))
        {
            let dense = model.dense as f64 / f64::from(1 << 30);
            let (part, all) = (number(part).unwrap_or(0.0), number(all).unwrap_or(1.0));
            return ((part - dense) / (all - dense)).clamp(0.0, 1.0);
        }
        let layers = self.note.split_once("ayers 3-").map(|(_, rest)| rest);
        let last = layers
            .filter(|rest| rest.contains("on GPU"))
            .and_then(|rest| number(rest.split(|c: char| !c.is_ascii_digit()).next()?));
        last.map_or(0.0, |last| (last - 2.0) / model.moe_layers as f64)
    }

    fn profile(&self, model: &ModelFacts) -> RuntimeProfile {
        let says = |words: &[&str]| words.iter().any(|word| self.runtime.contains(word));
        let room_for_copies = self.ram_gb.is_some_and(|gb| gb * 1.07e9 > 2.0 * model.size as f64);
        let copies = says(&["copied per NUMA", "TP over NUMA", "per-NUMA", "fastllm"])
            || (says(&["ktransformers"]) && room_for_copies)
            // Rows are divided over nodes as they were first touched.
            || (self.runtime.starts_with("llama.cpp") && says(&["NPS4"]));
        RuntimeProfile {
            tensor_split: says(&["vLLM", "SGLang", "TensorRT", "TP8", "tensor parallel", "exo"]),
            copies_per_socket: copies,
            direct_reads: false,
            skew: RoutingSkew::Measured,
            age: if self.is_early() { SoftwareAge::Early } else { SoftwareAge::Current },
            calibration: None,
        }
    }
}

/// Bits per weight of quantizations whose size a row does not say.
fn bits(quant: &str) -> f64 {
    let known = [
        ("int8", 8.0),
        ("fp8", 8.0),
        ("q8", 8.5),
        ("awq", 4.25),
        ("int4", 4.25),
        ("q2", 2.7),
        ("custom", 2.0),
        ("fp4", 4.7),
    ];
    let lower = quant.to_lowercase();
    known.iter().find(|(name, _)| lower.contains(name)).map_or(4.85, |(_, bits)| *bits)
}
