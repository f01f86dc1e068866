//! Published files of R1 and its kin: how large they are, and how their bytes are shared out.
//!
//! Sizes are those that loaders report. Which bytes are routed experts follows from the shape of the
//! model and from the bits per weight of everything else, which the recipe of each file gives. A file
//! whose size nobody has reported is not here.

use cachalot_gguf::TensorType;

use crate::demand::Demand;
use crate::model::{Encoded, ModelFacts, UnpackCost};
use crate::shape::{Layout, Shape};

/// A published file.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// Whose weights it has.
    pub model: &'static str,
    /// Where it is: an owner and a name at Hugging Face, or a name at Ollama.
    pub repository: &'static str,
    /// How it is quantized.
    pub quant: &'static str,
    /// Hundredths of GiB.
    size_gib_100: u32,
    /// Mean bits of all weights but routed experts.
    dense_bits: f64,
    shape: &'static Shape,
    /// Who reports the size.
    pub source: &'static str,
    /// Whether cachalot has kernels for its formats.
    pub runs: bool,
}

/// What loaders print about the files of Unsloth and Bartowski, quoted in a comparison of them all.
const LOGS: &str = "loader log, github.com/ikawrakow/ik_llama.cpp pull 259 and discussion 258";
const LOGS_0528: &str = "loader log, github.com/ikawrakow/ik_llama.cpp discussion 258";
const UNSLOTH: &str = "unsloth.ai/blog/deepseekr1-dynamic, rounded to whole GiB";

const R1: &str = "DeepSeek-R1";
const R1_0528: &str = "DeepSeek-R1-0528";

const fn published(
    model: &'static str,
    repository: &'static str,
    quant: &'static str,
    size_gib_100: u32,
    dense_bits: f64,
    source: &'static str,
) -> Published {
    let shape = &Shape::DEEPSEEK_V3;
    Published { model, repository, quant, size_gib_100, dense_bits, shape, source, runs: true }
}

/// The file is of a format that only its maker's runtime reads.
const fn foreign(published: Published) -> Published {
    Published { runs: false, ..published }
}

/// All of them, by model, the smallest first.
pub const CATALOGUE: [Published; 19] = [
    published(R1, "unsloth/DeepSeek-R1-GGUF", "UD-IQ1_S", 13060, 4.9, LOGS),
    published(R1, "unsloth/DeepSeek-R1-GGUF", "UD-IQ1_M", 15800, 4.9, UNSLOTH),
    published(R1, "unsloth/DeepSeek-R1-GGUF", "UD-IQ2_XXS", 18300, 5.2, UNSLOTH),
    published(R1, "unsloth/DeepSeek-R1-GGUF", "UD-Q2_K_XL", 21103, 5.2, LOGS),
    published(R1, "unsloth/DeepSeek-R1-GGUF", "Q4_K_M", 37665, 5.2, LOGS),
    published(R1, "deepseek-r1:671b", "Q4_K_M", 37665, 5.2, LOGS),
    published(R1, "unsloth/DeepSeek-R1-GGUF", "Q8_0", 66429, 8.5, LOGS),
    published(R1_0528, "unsloth/DeepSeek-R1-0528-GGUF", "UD-Q2_K_XL", 23385, 5.2, LOGS_0528),
    published(
        R1_0528,
        "unsloth/DeepSeek-R1-0528-GGUF",
        "UD-Q3_K_XL",
        27558,
        5.5,
        "loader log, github.com/ikawrakow/ik_llama.cpp issue 521",
    ),
    published(R1_0528, "unsloth/DeepSeek-R1-0528-GGUF", "IQ4_XS", 33313, 5.2, LOGS_0528),
    published(R1_0528, "unsloth/DeepSeek-R1-0528-GGUF", "UD-Q4_K_XL", 35762, 6.0, LOGS_0528),
    foreign(published(
        R1_0528,
        "ubergarm/DeepSeek-R1-0528-GGUF",
        "IQ1_S_R4",
        13020,
        4.6,
        "loader log, github.com/ikawrakow/ik_llama.cpp pull 494",
    )),
    foreign(published(
        R1_0528,
        "ubergarm/DeepSeek-R1-0528-GGUF",
        "IQ2_K_R4",
        21902,
        5.5,
        "loader log, github.com/ikawrakow/ik_llama.cpp pull 559",
    )),
    foreign(published(
        R1_0528,
        "ubergarm/DeepSeek-R1-0528-GGUF",
        "IQ3_K_R4",
        30094,
        6.0,
        "loader log, github.com/ikawrakow/ik_llama.cpp pull 534",
    )),
    foreign(published(
        R1_0528,
        "ubergarm/DeepSeek-R1-0528-GGUF",
        "IQ4_KS_R4",
        36777,
        6.0,
        "loader log, github.com/ikawrakow/ik_llama.cpp discussion 258",
    )),
    published(
        "DeepSeek-V3",
        "unsloth/DeepSeek-V3-GGUF",
        "Q4_K_S",
        35390,
        4.9,
        "github.com/ikawrakow/ik_llama.cpp pull 180",
    ),
    published(
        "DeepSeek-V3-0324",
        "unsloth/DeepSeek-V3-0324-GGUF",
        "UD-IQ3_XXS",
        25417,
        5.5,
        "github.com/ggml-org/llama.cpp pull 13435",
    ),
    published(
        "DeepSeek-V3-0324",
        "bartowski/DeepSeek-V3-0324-GGUF",
        "Q4_K_M-V2",
        37903,
        5.4,
        LOGS_0528,
    ),
    Published {
        model: "DeepSeek-V2-Lite",
        repository: "DeepSeek-V2-Lite-GGUF",
        quant: "Q4_K_M",
        size_gib_100: 978,
        dense_bits: 5.5,
        shape: &Shape::DEEPSEEK_V2_LITE,
        source: "github.com/ikawrakow/ik_llama.cpp pull 232",
        runs: true,
    },
];

impl Published {
    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        (u128::from(self.size_gib_100) * (1 << 30) / 100) as u64
    }

    /// What to type for it.
    pub fn name(&self) -> String {
        if self.repository.contains(':') {
            return self.repository.to_owned();
        }
        format!("{}:{}", self.repository, self.quant)
    }

    /// The model as the planner sees it.
    pub fn model(&self) -> ModelFacts {
        let billions = (self.shape.parameters() as f64 / 1e9).round();
        let name = format!("{} {billions}B {}", self.model, self.quant);
        of_shape(self.shape, &name, self.quant, self.size(), self.dense_bits)
    }
}

/// A model of this shape in a file of so many bytes, `dense_bits` per weight of all but the routed
/// experts.
pub fn of_shape(shape: &Shape, name: &str, quant: &str, size: u64, dense_bits: f64) -> ModelFacts {
    let metadata = shape.metadata(Layout::Absorbed);
    // Any type whose blocks fit all rows will do: only numbers of weights are wanted.
    let tensors = shape.tensors(Layout::Absorbed, |_| TensorType::F16).unwrap_or_default();
    let demand = Demand::of(&metadata, &tensors);
    let weights = ModelFacts::of(&metadata, &demand, name)
        .expect("a shape says how many layers there are, and what they cache");
    let dense = ((weights.dense as f64 / 2.0 * dense_bits / 8.0) as u64).min(size);
    let share = |bytes: u64, of: u64, all: u64| {
        (u128::from(bytes) * u128::from(of) / u128::from(all.max(1))) as u64
    };
    let dense_per_token = share(dense, weights.dense_per_token, weights.dense);
    let routed_per_token = share(size - dense, weights.experts_used, weights.experts);
    let format = |name: Option<&str>, per_token| {
        name.map(|name| Encoded { format: name.to_owned(), per_token }).into_iter().collect()
    };
    let routed_bits = (size - dense) as f64 * 8.0 / weights.routed.max(1) as f64 * 2.0;
    ModelFacts {
        size,
        dense,
        dense_per_token,
        routed: size - dense,
        routed_per_token,
        routed_formats: format(main_format(quant, routed_bits), routed_per_token),
        dense_formats: format(main_format("", dense_bits), dense_per_token),
        decoding: UnpackCost::of(quant),
        ..weights
    }
}

/// The format that most weights of a quantization have: the one that it is named after, or else the one of
/// so many bits.
fn main_format(quant: &str, bits: f64) -> Option<&'static str> {
    let named =
        ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL"];
    let by_bits =
        [("Q2_K", 3.0), ("Q3_K", 4.0), ("Q4_K", 5.3), ("Q5_K", 5.9), ("Q6_K", 7.5), ("Q8_0", 9.0)];
    let is_foreign = quant.contains("_R4") || quant.contains("_K") && quant.starts_with("IQ");
    let name = named.into_iter().find(|name| quant.ends_with(name));
    let by_bits = || by_bits.iter().find(|(_, most)| bits < *most).map(|(name, _)| *name);
    (!is_foreign).then(|| name.or_else(by_bits))?
}

/// The file of this name: `deepseek-r1:671b`, `unsloth/DeepSeek-R1-GGUF:UD-IQ1_S`, or as much of it as
/// is unmistakable; several quantizations if only a repository is named.
pub fn find(name: &str) -> Vec<&'static Published> {
    let wanted = name.trim().to_lowercase();
    let wanted =
        if matches!(&*wanted, "deepseek-r1" | "r1") { "deepseek-r1:671b" } else { &wanted };
    let exact: Vec<_> =
        CATALOGUE.iter().filter(|published| published.name().to_lowercase() == wanted).collect();
    if !exact.is_empty() || wanted.is_empty() {
        return exact;
    }
    let by = |part: fn(&Published) -> &'static str| -> Vec<&'static Published> {
        CATALOGUE.iter().filter(|published| part(published).to_lowercase() == wanted).collect()
    };
    let by_quant = by(|published| published.quant);
    // A bare quantization means R1 of January 2025 if there is such a file, else the next that has it.
    let first = by_quant.iter().find(|found| found.repository.contains('/')).copied();
    match first {
        Some(first) => vec![first],
        None => {
            let of_repository = by(|published| published.repository);
            if of_repository.is_empty() { by(|published| published.model) } else { of_repository }
        }
    }
}

/// All names, for suggesting one.
pub fn names() -> Vec<String> {
    CATALOGUE.iter().map(Published::name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_those_reported() {
        let q2 = find("unsloth/DeepSeek-R1-GGUF:UD-Q2_K_XL")[0].model();
        assert_eq!((q2.size as f64 / 1e8).round(), 2266.0, "226.6 GB");
        // A loader's log: 200.9 GiB of experts; the rest, without its embedding, 9.9 GiB on the card.
        let gib = |bytes: u64| bytes as f64 / f64::powi(2.0, 30);
        assert!((gib(q2.routed) - 200.9).abs() < 0.6, "{}", gib(q2.routed));
        assert!((gib(q2.dense) - 10.1).abs() < 0.6, "{}", gib(q2.dense));
        assert_eq!(q2.name, "DeepSeek-R1 671B UD-Q2_K_XL");
        let q8 = find("q8_0")[0].model();
        let gb = |bytes: u64| (bytes as f64 / 1e8).round() / 10.0;
        assert_eq!((gb(q8.routed_per_token), gb(q8.dense_per_token)), (21.7, 17.3));
    }

    #[test]
    fn models_go_by_the_names_that_people_use() {
        for name in ["R1", "deepseek-r1", "DeepSeek-R1"] {
            assert_eq!(find(name)[0].name(), "deepseek-r1:671b", "{name}");
        }
        let found = find("deepseek-r1-0528");
        assert!(found.len() > 1 && found.iter().all(|p| p.model == R1_0528), "{found:?}");
        assert!(find("deepseek-r1:70b").is_empty(), "a distilled model is another model");
    }

    #[test]
    fn names_are_found_as_people_write_them() {
        let one = |name: &str| find(name).first().map(|found| found.name());
        assert_eq!(one("deepseek-r1:671b").as_deref(), Some("deepseek-r1:671b"));
        assert_eq!(one("DeepSeek-R1").as_deref(), Some("deepseek-r1:671b"));
        assert_eq!(one("UD-IQ1_S").as_deref(), Some("unsloth/DeepSeek-R1-GGUF:UD-IQ1_S"));
        assert_eq!(one("q4_k_m").as_deref(), Some("unsloth/DeepSeek-R1-GGUF:Q4_K_M"));
        assert!(find("unsloth/DeepSeek-R1-GGUF").len() > 4);
        assert!(find("llama").is_empty() && find("").is_empty());
    }

    #[test]
    fn every_entry_says_where_its_size_is_from_and_makes_sense() {
        for published in &CATALOGUE {
            let model = published.model();
            assert!(!published.source.is_empty());
            assert_eq!(model.routed + model.dense, model.size, "{}", published.name());
            assert!(model.routed > 4 * model.dense, "{}", published.name());
        }
    }
}
