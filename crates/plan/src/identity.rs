//! Which model a file really holds: the question of everyone who downloaded "DeepSeek R1".
//!
//! Files named so are mostly distilled models, Qwen or Llama trained on R1's answers, with a
//! hundredth of its parameters. So the shape decides what a file is, and names only between models
//! of one shape: R1 and V3 differ in nothing but the values of their weights.

use cachalot_gguf::Metadata;
use serde::Serialize;

use crate::demand::Demand;
use crate::shape::Shape;
use crate::units;

/// The architecture that cachalot runs.
const ARCHITECTURE: &str = "deepseek2";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The full DeepSeek-R1, of any release.
    DeepSeekR1,
    /// DeepSeek-V3, V3-0324 or V3.1, of R1's shape.
    DeepSeekV3,
    /// A mixture of R1 and V3, or a further training of one.
    DeepSeekR1V3Kin,
    /// R1 or V3: the file does not say which.
    DeepSeekR1OrV3,
    /// Kimi-K2 and its successors.
    KimiK2,
    /// DeepSeek-V2, V2.5 or Coder-V2.
    DeepSeekV2,
    /// DeepSeek-V2-Lite or Coder-V2-Lite.
    DeepSeekV2Lite,
    /// A smaller model of another architecture, trained on R1's answers.
    DistilledR1,
    /// cachalot's own test model.
    Calf,
    /// Another model.
    Other,
    /// A vocabulary or a bare header: no weights.
    NoWeights,
    /// A part of a model for a special purpose: projector, adapter, importance matrix.
    Accessory,
}

/// What a file is, and the sentence that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// What it is.
    pub kind: Kind,
    /// One sentence for the person who asks.
    pub verdict: String,
    /// Whether cachalot runs models of this architecture.
    pub runs: bool,
}

/// Tells what a file is by its metadata, its tensors and, where these are silent, its name.
/// `file_name` may be empty.
pub fn identify(metadata: &Metadata, demand: &Demand, file_name: &str) -> Identity {
    let file = File { metadata, demand, names: Names::of(metadata, file_name) };
    let (kind, verdict) = file.verdict();
    let weights = !matches!(kind, Kind::NoWeights | Kind::Accessory);
    let runs = weights && demand.architecture.as_deref() == Some(ARCHITECTURE);
    Identity { kind, verdict, runs }
}

struct File<'a> {
    metadata: &'a Metadata,
    demand: &'a Demand,
    names: Names,
}

impl File<'_> {
    fn verdict(&self) -> (Kind, String) {
        if let Some(accessory) = self.accessory() {
            return (Kind::Accessory, accessory);
        }
        if self.demand.total.tensors == 0 {
            return (Kind::NoWeights, self.no_weights());
        }
        let known = KNOWN.iter().find(|known| self.has_shape(&known.shape));
        match known.map(|known| known.kind) {
            Some(Kind::DeepSeekR1OrV3) => self.r1_or_v3(),
            Some(kind) => (kind, self.known(kind)),
            None if self.is_calf() => {
                let size = units::parameters(self.demand.parameters());
                (Kind::Calf, format!("calf, cachalot's small test model ({size} parameters)."))
            }
            None => self.another(),
        }
    }

    /// Whether shape and number of parameters are those of a known model, within 1 %: converters
    /// differ in a few small tensors.
    fn has_shape(&self, shape: &Shape) -> bool {
        let (keys, demand) = (self.metadata, self.demand);
        let equal = |found: Option<u64>, expected| found == Some(expected);
        demand.architecture.as_deref() == Some(ARCHITECTURE)
            && equal(demand.layers.map(|layers| layers.total), shape.layers)
            && equal(demand.hidden, shape.hidden)
            && equal(demand.experts.map(|experts| experts.total), shape.experts)
            && equal(keys.arch_u64("attention.head_count").ok(), shape.heads)
            && equal(keys.arch_u64("attention.kv_lora_rank").ok(), shape.kv_lora)
            && equal(demand.vocabulary, shape.vocab)
            && demand.parameters().abs_diff(shape.parameters()) < shape.parameters() / 100
    }

    fn known(&self, kind: Kind) -> String {
        let coder = self.names.any(|name| name.contains("coder"));
        let (model, size) = match (kind, coder) {
            (Kind::KimiK2, _) => ("Kimi-K2", "1T"),
            (Kind::DeepSeekV2Lite, false) => ("DeepSeek-V2-Lite", "16B"),
            (Kind::DeepSeekV2Lite, true) => ("DeepSeek-Coder-V2-Lite", "16B"),
            (_, false) => ("DeepSeek-V2", "236B"),
            (_, true) => ("DeepSeek-Coder-V2", "236B"),
        };
        format!("{model} {size}{}: {}.", self.called(model), self.size())
    }

    fn r1_or_v3(&self) -> (Kind, String) {
        let size = self.size();
        let both = "R1 and V3 have the same shape";
        let (kind, by_file_name) = self.names.r1_or_v3();
        let proof = if by_file_name { ", by its file name" } else { "" };
        let verdict = match kind {
            Kind::DeepSeekR1 => {
                format!("The full DeepSeek-R1 671B{}{proof}: {size}.", self.called("DeepSeek-R1"))
            }
            Kind::DeepSeekV3 => {
                format!("DeepSeek-V3 671B{}{proof}, not R1: {size}.", self.called("DeepSeek-V3"))
            }
            Kind::DeepSeekR1V3Kin => {
                let called = self.called("");
                let origin = self.names.origin();
                format!("{origin}, 671B{called}{proof}: {size}; not the full DeepSeek-R1.")
            }
            _ if self.thinks() => format!(
                "DeepSeek-R1 or DeepSeek-V3, 671B: {both}, and the file names neither; its chat \
                 template thinks as R1's does. {size}."
            ),
            _ => format!(
                "DeepSeek-R1 or DeepSeek-V3, 671B: {both}, and the file does not say which. {size}."
            ),
        };
        (kind, verdict)
    }

    /// R1's template opens the thought; that of V3.1 does so on request, that of V3 never.
    fn thinks(&self) -> bool {
        let template = self.metadata.str("tokenizer.chat_template").unwrap_or("");
        template.contains("<think>") && !template.contains("thinking")
    }

    fn is_calf(&self) -> bool {
        self.demand.architecture.as_deref() == Some(ARCHITECTURE)
            && self.metadata.str("general.name").is_ok_and(|name| name.eq_ignore_ascii_case("calf"))
            && self.demand.parameters() < 10_000_000
    }

    fn another(&self) -> (Kind, String) {
        let size = units::parameters(self.demand.parameters());
        let called = self.called("");
        let Some(architecture) = self.demand.architecture.as_deref() else {
            return (
                Kind::Other,
                format!("{size} parameters of an architecture it does not name."),
            );
        };
        let is_r1 = self.names.any(|name| words(name).any(|word| word == "r1"));
        let deepseek = self.names.any(|name| name.contains("deepseek") || name.contains("distill"));
        if architecture != ARCHITECTURE && is_r1 && deepseek {
            let base = base_name(architecture);
            let verdict = format!(
                "A distilled model ({base}, {size}){called}: not R1, but {base} trained on R1's answers."
            );
            return (Kind::DistilledR1, verdict);
        }
        let article = if architecture.starts_with(['a', 'e', 'i', 'o', 'u']) { "An" } else { "A" };
        let not_full = if is_r1 && deepseek { "; not the full R1, which has 671B" } else { "" };
        let verdict =
            format!("{article} {architecture} model of {size} parameters{called}{not_full}.");
        (Kind::Other, verdict)
    }

    fn accessory(&self) -> Option<String> {
        let purpose = match self.metadata.str("general.type").ok()? {
            "adapter" => "An adapter (LoRA)",
            "mmproj" | "projector" => "A projector for images or sound",
            "imatrix" => "An importance matrix for quantizing",
            _ => return None,
        };
        Some(format!("{purpose}{}: an accessory, no model to run by itself.", self.called("")))
    }

    fn no_weights(&self) -> String {
        let called = self.called("");
        match self.metadata.array("tokenizer.ggml.tokens") {
            Ok(tokens) => {
                let tokens = units::grouped(tokens.len() as u64);
                format!("A vocabulary of {tokens} tokens without weights{called}: no model to run.")
            }
            Err(_) => format!("A header without weights{called}: no model to run."),
        }
    }

    /// The name that the file gives itself, in brackets, unless it says no more than `known` does.
    fn called(&self, known: &str) -> String {
        match self.metadata.str("general.name").map(str::trim) {
            Ok(name) if !name.is_empty() && plain(name) != plain(known) => {
                let name: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
                format!(" (“{name}”)")
            }
            _ => String::new(),
        }
    }

    fn size(&self) -> String {
        let total = units::parameters(self.demand.parameters());
        let active = units::parameters(self.demand.total.active_parameters);
        format!("{total} parameters, {active} of them active per token")
    }
}

struct Known {
    shape: Shape,
    kind: Kind,
}

const KNOWN: [Known; 4] = [
    Known { shape: Shape::DEEPSEEK_V3, kind: Kind::DeepSeekR1OrV3 },
    Known { shape: Shape::KIMI_K2, kind: Kind::KimiK2 },
    Known { shape: Shape::DEEPSEEK_V2, kind: Kind::DeepSeekV2 },
    Known { shape: Shape::DEEPSEEK_V2_LITE, kind: Kind::DeepSeekV2Lite },
];

/// What a file is called, in small letters, the most trustworthy first; the file name is the last.
struct Names {
    in_file: Vec<String>,
    /// The models that it was made from, by its keys.
    bases: Vec<String>,
    file_name: String,
}

impl Names {
    fn of(metadata: &Metadata, file_name: &str) -> Self {
        let named = |keys: &[&str]| -> Vec<String> {
            keys.iter().filter_map(|key| metadata.str(key).ok()).map(str::to_lowercase).collect()
        };
        let count = metadata.u64("general.base_model.count").unwrap_or(1).min(16);
        let bases = (0..count)
            .filter_map(|n| metadata.str(&format!("general.base_model.{n}.name")).ok())
            .map(str::to_lowercase);
        Self {
            in_file: named(&["general.name", "general.basename", "general.finetune"]),
            bases: bases.collect(),
            file_name: file_name.to_lowercase(),
        }
    }

    fn any(&self, test: impl Fn(&str) -> bool) -> bool {
        self.in_file.iter().chain(&self.bases).chain([&self.file_name]).any(|name| test(name))
    }

    /// What the file calls itself, and whether that is only its file name. A name that says more
    /// than the model's own, a name without either beside a base model that has one, and several
    /// base models are those of a model made from R1 or V3.
    fn r1_or_v3(&self) -> (Kind, bool) {
        let own = self.in_file.iter().find_map(|name| r1_or_v3(name));
        let finetuned = self.in_file.get(1..).is_some_and(|names| {
            names.iter().any(|name| !name.is_empty() && r1_or_v3(name).is_none() && is_more(name))
        });
        let bases: Vec<Kind> = self.bases.iter().filter_map(|name| r1_or_v3(name)).collect();
        let made = match (own, bases.first()) {
            _ if self.bases.len() > 1 && !bases.is_empty() => true,
            (Some(Kind::DeepSeekV3), Some(Kind::DeepSeekR1)) => true,
            (None, Some(_)) => self.in_file.first().is_some_and(|name| !name.is_empty()),
            (Some(_), _) => finetuned,
            _ => false,
        };
        match own {
            _ if made => (Kind::DeepSeekR1V3Kin, false),
            Some(kind) => (kind, false),
            None => match (bases.first(), r1_or_v3(&self.file_name)) {
                (Some(kind), _) => (*kind, false),
                (None, Some(kind)) => (kind, true),
                (None, None) => (Kind::DeepSeekR1OrV3, false),
            },
        }
    }

    /// What a model made from others was made from.
    fn origin(&self) -> &'static str {
        let has = |wanted: &str| self.any(|name| words(name).any(|word| word == wanted));
        match (has("zero"), has("r1"), has("v3")) {
            (true, true, _) => "DeepSeek-R1-Zero, R1's predecessor without fine-tuning",
            (_, true, false) => "A model made from DeepSeek-R1",
            (_, false, true) => "A model made from DeepSeek-V3",
            _ => "A model made from DeepSeek-R1 and V3",
        }
    }
}

/// `deepseek-r1-0528` -> R1; `deepseek v3.1` -> V3; `r1t2-chimera`, `r1-1776`, `r1-zero` and any
/// other words -> made from them.
fn r1_or_v3(name: &str) -> Option<Kind> {
    let has = |wanted: &str| words(name).any(|word| word == wanted);
    let made = ["r1t", "r1t2", "chimera", "1776", "mai"];
    match (has("r1"), has("v3")) {
        _ if made.iter().any(|word| has(word)) => Some(Kind::DeepSeekR1V3Kin),
        (true, true) => Some(Kind::DeepSeekR1V3Kin),
        (true, false) | (false, true) if is_more(name) => Some(Kind::DeepSeekR1V3Kin),
        (true, false) => Some(Kind::DeepSeekR1),
        (false, true) => Some(Kind::DeepSeekV3),
        (false, false) => None,
    }
}

/// Whether a name has words that the models' own names, releases, sizes and quantizations do not
/// have.
fn is_more(name: &str) -> bool {
    const OWN: [&str; 31] = [
        "deepseek", "ai", "r1", "v3", "0528", "0324", "0120", "1", "base", "terminus", "671b",
        "685b", "256x20b", "of", "gguf", "ud", "xl", "xxs", "xs", "s", "m", "l", "k", "nl", "r4",
        "full", "instruct", "chat", "unsloth", "model", "dynamic",
    ];
    let is_quant = |word: &str| {
        let digits = word.trim_start_matches(['i', 't', 'q', 'b', 'f', 'p', 'm', 'x', 'n', 'v']);
        digits.is_empty() || digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'x')
    };
    words(name).filter(|word| !word.is_empty()).any(|word| !OWN.contains(&word) && !is_quant(word))
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_alphanumeric())
}

/// A name without case and separators, for comparing.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// What people call the architectures that R1 was distilled into.
fn base_name(architecture: &str) -> &str {
    match architecture {
        "qwen2" => "Qwen2",
        "qwen3" => "Qwen3",
        "llama" => "Llama",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use cachalot_gguf::{TensorInfo, TensorType};

    use super::*;
    use crate::shape::Layout;

    fn identity_of(shape: Shape, keys: &[(&str, &str)], file_name: &str) -> Identity {
        let mut metadata = shape.metadata(Layout::Absorbed);
        for (key, value) in keys {
            metadata.insert(key, *value);
        }
        let tensors = shape.tensors(Layout::Absorbed, |_| TensorType::Q8_0).unwrap();
        identify(&metadata, &Demand::of(&metadata, &tensors), file_name)
    }

    /// A model of one tensor.
    fn small(architecture: &str, name: &str, parameters: u64) -> Identity {
        let mut metadata = Metadata::default();
        metadata.insert("general.architecture", architecture);
        metadata.insert("general.name", name);
        let tensor = TensorInfo::new("blk.0.ffn_up.weight", TensorType::F16, &[parameters]);
        identify(&metadata, &Demand::of(&metadata, &[tensor.unwrap()]), "")
    }

    #[test]
    fn r1_and_v3_are_told_apart_by_name() {
        let of = |key, name| identity_of(Shape::DEEPSEEK_V3, &[(key, name)], "");
        let r1 = of("general.name", "DeepSeek-R1-0528");
        assert_eq!(r1.kind, Kind::DeepSeekR1);
        assert!(r1.runs);
        assert_eq!(
            r1.verdict,
            "The full DeepSeek-R1 671B (“DeepSeek-R1-0528”): 671.0B parameters, 36.6B of them \
             active per token."
        );
        assert_eq!(of("general.basename", "DeepSeek-R1").kind, Kind::DeepSeekR1);
        for name in ["DeepSeek V3 0324", "DeepSeek-V3.1-Terminus", "Deepseek_V3"] {
            let v3 = of("general.name", name);
            assert_eq!(v3.kind, Kind::DeepSeekV3, "{name}");
            assert!(v3.verdict.starts_with("DeepSeek-V3 671B") && v3.verdict.contains("not R1"));
        }
        for name in ["DeepSeek-R1T2-Chimera", "R1 1776", "DeepSeek V3 R1 merge"] {
            assert_eq!(of("general.name", name).kind, Kind::DeepSeekR1V3Kin, "{name}");
        }
    }

    #[test]
    fn what_was_made_from_them_is_not_called_the_full_r1() {
        let of = |keys: &[(&str, &str)]| identity_of(Shape::DEEPSEEK_V3, keys, "");
        let base = ("general.base_model.0.name", "DeepSeek R1");
        for (keys, origin) in [
            (&[("general.name", "DeepSeek R1 Zero")][..], "DeepSeek-R1-Zero, R1's predecessor"),
            (&[("general.name", "DeepSeek-R1-abliterated")], "A model made from DeepSeek-R1,"),
            (&[("general.name", "Wise Whale 671B"), base], "A model made from DeepSeek-R1,"),
            (&[("general.name", "DeepSeek V3 0324 Roleplay")], "A model made from DeepSeek-V3,"),
            (
                &[("general.name", "DeepSeek R1"), ("general.finetune", "uncensored")],
                "A model made from DeepSeek-R1,",
            ),
            (
                &[("general.name", "DeepSeek V3 Thinks"), base],
                "A model made from DeepSeek-R1 and V3,",
            ),
        ] {
            let made = of(keys);
            assert_eq!(made.kind, Kind::DeepSeekR1V3Kin, "{keys:?}");
            assert!(made.verdict.starts_with(origin), "{}", made.verdict);
            assert!(!made.verdict.starts_with("The full"), "{}", made.verdict);
        }
        let merge = {
            let mut metadata = Shape::DEEPSEEK_V3.metadata(Layout::Absorbed);
            metadata.insert("general.name", "DeepSeek R1");
            metadata.insert("general.base_model.count", 2_u32);
            metadata.insert("general.base_model.0.name", "DeepSeek R1");
            metadata.insert("general.base_model.1.name", "DeepSeek V3");
            let tensors = Shape::DEEPSEEK_V3.tensors(Layout::Absorbed, |_| TensorType::Q8_0);
            identify(&metadata, &Demand::of(&metadata, &tensors.unwrap()), "")
        };
        assert_eq!(merge.kind, Kind::DeepSeekR1V3Kin);
        // Quantizations name what they quantize as their base; R1 itself was trained from V3.
        for name in ["DeepSeek R1", "DeepSeek R1 0528 BF16", "DeepSeek-R1-UD-IQ1_S"] {
            for base_name in ["DeepSeek R1", "DeepSeek V3 Base"] {
                let keys = [("general.name", name), (base.0, base_name)];
                assert_eq!(of(&keys).kind, Kind::DeepSeekR1, "{name} {base_name}");
            }
        }
        assert_eq!(of(&[base]).kind, Kind::DeepSeekR1);
    }

    #[test]
    fn the_file_name_is_the_last_resort_and_said_to_be() {
        let nameless = |file| identity_of(Shape::DEEPSEEK_V3, &[], file);
        let r1 = nameless("DeepSeek-R1-Q4_K_M-00001-of-00009.gguf");
        assert_eq!(r1.kind, Kind::DeepSeekR1);
        assert!(r1.verdict.contains("671B, by its file name"), "{}", r1.verdict);
        let renamed = [("general.name", "DeepSeek V3")];
        let v3 = identity_of(Shape::DEEPSEEK_V3, &renamed, "DeepSeek-R1.gguf");
        assert_eq!(v3.kind, Kind::DeepSeekV3);
        let unknown = nameless("sha256-9801e7fce27d");
        assert_eq!(unknown.kind, Kind::DeepSeekR1OrV3);
        assert!(unknown.verdict.contains("does not say which"));
        let template = [("tokenizer.chat_template", "...<｜Assistant｜><think>\\n")];
        let thinking = identity_of(Shape::DEEPSEEK_V3, &template, "");
        assert_eq!(thinking.kind, Kind::DeepSeekR1OrV3);
        assert!(thinking.verdict.contains("thinks as R1's does"));
    }

    #[test]
    fn sisters_are_known_by_shape() {
        let kind = |shape, name| identity_of(shape, &[("general.name", name)], "");
        let kimi = kind(Shape::KIMI_K2, "Kimi K2 Instruct 0905");
        assert!(kimi.verdict.starts_with("Kimi-K2 1T (“Kimi K2 Instruct 0905”): 1026.4B"));
        let lite = kind(Shape::DEEPSEEK_V2_LITE, "DeepSeek V2 Lite");
        assert!(lite.verdict.starts_with("DeepSeek-V2-Lite 16B: 15.7B"), "{}", lite.verdict);
        let coder = kind(Shape::DEEPSEEK_V2_LITE, "DeepSeek-Coder-V2-Lite-Instruct");
        assert!(coder.verdict.starts_with("DeepSeek-Coder-V2-Lite 16B"), "{}", coder.verdict);
        assert_eq!(kind(Shape::DEEPSEEK_V2, "DeepSeek V2.5").kind, Kind::DeepSeekV2);
    }

    #[test]
    fn a_name_does_not_make_an_r1() {
        let pruned = Shape { experts: 192, ..Shape::DEEPSEEK_V3 };
        let reap = identity_of(pruned, &[("general.name", "DeepSeek-R1-0528-REAP")], "");
        assert_eq!(reap.kind, Kind::Other);
        assert!(reap.verdict.contains("not the full R1"), "{}", reap.verdict);
        // The metadata of R1 with the tensors of a smaller model.
        let metadata = Shape::DEEPSEEK_V3.metadata(Layout::Absorbed);
        let cut = Shape { layers: 20, ..Shape::DEEPSEEK_V3 };
        let tensors = cut.tensors(Layout::Absorbed, |_| TensorType::F16).unwrap();
        let identity = identify(&metadata, &Demand::of(&metadata, &tensors), "DeepSeek-R1.gguf");
        assert_eq!(identity.kind, Kind::Other);
        assert!(
            identity.verdict.contains("not the full R1, which has 671B"),
            "{}",
            identity.verdict
        );
    }

    #[test]
    fn distilled_models_are_named_as_such() {
        let qwen = small("qwen2", "DeepSeek R1 Distill Qwen 32B", 32_800_000_000);
        assert_eq!(qwen.kind, Kind::DistilledR1);
        assert!(!qwen.runs);
        assert_eq!(
            qwen.verdict,
            "A distilled model (Qwen2, 32.8B) (“DeepSeek R1 Distill Qwen 32B”): not R1, but Qwen2 \
             trained on R1's answers."
        );
        assert_eq!(small("qwen3", "DeepSeek-R1-0528-Qwen3-8B", 1 << 30).kind, Kind::DistilledR1);
        assert_eq!(small("llama", "Deepseek_R1_Distill_Llama_8B", 1 << 30).kind, Kind::DistilledR1);
        assert_eq!(small("llama", "Meta Llama 3.1 8B", 1 << 30).kind, Kind::Other);
    }

    #[test]
    fn other_models_are_described_honestly() {
        assert_eq!(small("llama", "", 8_030_000_000).verdict, "A llama model of 8.0B parameters.");
        assert_eq!(
            small("deepseek2", "Nano", 9_200_000).verdict,
            "A deepseek2 model of 9.2M parameters (“Nano”)."
        );
        let calf = small("deepseek2", "Calf", 8_320_000);
        assert_eq!(calf.kind, Kind::Calf);
        assert_eq!(calf.verdict, "calf, cachalot's small test model (8.3M parameters).");
        assert_eq!(small("deepseek2", "Calf", 83_200_000).kind, Kind::Other);
    }

    #[test]
    fn what_is_no_model_is_said() {
        let mut metadata = Metadata::default();
        metadata.insert("general.architecture", "deepseek2");
        let demand = Demand::of(&metadata, []);
        let bare = identify(&metadata, &demand, "");
        assert_eq!((bare.kind, bare.runs), (Kind::NoWeights, false));
        metadata.insert("tokenizer.ggml.tokens", vec!["a".to_owned(); 1280]);
        let vocabulary = identify(&metadata, &demand, "");
        assert!(vocabulary.verdict.starts_with("A vocabulary of 1,280 tokens without weights"));
        metadata.insert("general.type", "adapter");
        assert_eq!(identify(&metadata, &demand, "").kind, Kind::Accessory);
    }
}
