//! The tables: models, and their published files with sizes.
//!
//! llama.cpp's standard quantizations take the same bits per weight in every model of R1's shape,
//! so one table serves all of them; files of other recipes are listed one by one, with who reports
//! their size.

use super::{Base, Published};
use crate::shape::Shape;

const V3: &Shape = &Shape::DEEPSEEK_V3;
const K2: &Shape = &Shape::KIMI_K2;
/// K2 Thinking and later: the same weights for a context of 262,144 tokens.
const K2_LONG: &Shape = &Shape { context: 262_144, ..Shape::KIMI_K2 };

const fn base(
    name: &'static str,
    aliases: &'static [&'static str],
    ollama: &'static [(&'static str, &'static str)],
    shape: &'static Shape,
) -> Base {
    Base { name, aliases, ollama, shape }
}

/// All models, R1 first.
pub(super) static BASES: [Base; 12] = [
    base(
        "DeepSeek-R1",
        &["r1"],
        &[
            ("deepseek-r1:671b", "Q4_K_M"),
            ("deepseek-r1:671b-q4_k_m", "Q4_K_M"),
            ("deepseek-r1:671b-q8_0", "Q8_0"),
            ("deepseek-r1:671b-fp16", "BF16"),
        ],
        V3,
    ),
    base(
        "DeepSeek-R1-0528",
        &["r1-0528"],
        &[
            ("deepseek-r1:671b-0528", "Q4_K_M"),
            ("deepseek-r1:671b-0528-q4_k_m", "Q4_K_M"),
            ("deepseek-r1:671b-0528-q8_0", "Q8_0"),
            ("deepseek-r1:671b-0528-fp16", "BF16"),
        ],
        V3,
    ),
    base(
        "DeepSeek-V3",
        &["v3"],
        &[
            ("deepseek-v3:671b", "Q4_K_M"),
            ("deepseek-v3:latest", "Q4_K_M"),
            ("deepseek-v3:671b-q4_k_m", "Q4_K_M"),
            ("deepseek-v3:671b-q8_0", "Q8_0"),
            ("deepseek-v3:671b-fp16", "BF16"),
        ],
        V3,
    ),
    base("DeepSeek-V3-0324", &["v3-0324"], &[], V3),
    base(
        "DeepSeek-V3.1",
        &["v3.1"],
        &[
            ("deepseek-v3.1:671b", "Q4_K_M"),
            ("deepseek-v3.1:latest", "Q4_K_M"),
            ("deepseek-v3.1:671b-q8_0", "Q8_0"),
        ],
        V3,
    ),
    base(
        "DeepSeek-V3.1-Terminus",
        &["v3.1-terminus", "terminus"],
        &[
            ("deepseek-v3.1:671b-terminus-q4_k_m", "Q4_K_M"),
            ("deepseek-v3.1:671b-terminus-q8_0", "Q8_0"),
        ],
        V3,
    ),
    base("Kimi-K2", &["kimi-k2", "k2", "kimi-k2-0711", "kimi"], &[], K2),
    base("Kimi-K2-Thinking", &["kimi-k2-thinking", "k2-thinking"], &[], K2_LONG),
    base("Kimi-K2.5", &["kimi-k2.5", "k2.5"], &[], K2_LONG),
    base("Kimi-K2.6", &["kimi-k2.6", "k2.6"], &[], K2_LONG),
    base("DeepSeek-V2-Lite", &["v2-lite", "v2-lite-chat", "v2lite"], &[], &Shape::DEEPSEEK_V2_LITE),
    base(
        "DeepSeek-Coder-V2-Lite",
        &["coder-v2-lite", "coder-v2:16b"],
        &[("deepseek-coder-v2:16b", "Q4_0"), ("deepseek-coder-v2:latest", "Q4_0")],
        &Shape::DEEPSEEK_V2_LITE,
    ),
];

/// A quantization: its name, its size in GB (10^9 bytes), and mean bits of all but the routed
/// experts.
type Quant = (&'static str, f64, f64);

/// Files of one model in one place.
struct Listing {
    model: &'static str,
    repository: &'static str,
    source: &'static str,
    quants: &'static [Quant],
}

/// Bits per weight of llama.cpp's standard quantizations at R1's shape, and of all but the routed
/// experts: from the sizes of bartowski/deepseek-ai_DeepSeek-V3-0324-GGUF and of loaders' logs
/// (IQ4_XS, Q4_K_S).
const STANDARD: [(&str, f64, f64); 8] = [
    ("IQ4_XS", 4.265, 5.2),
    ("Q4_K_S", 4.531, 4.9),
    ("Q4_K_M", 4.822, 5.2),
    ("Q5_K_S", 5.506, 5.8),
    ("Q5_K_M", 5.668, 6.0),
    ("Q6_K", 6.567, 6.6),
    ("Q8_0", 8.504, 8.5),
    ("BF16", 16.0, 16.0),
];
const BY_SHAPE: &str = "llama.cpp's standard recipe, size by the model's shape";

/// Where standard quantizations of each model are published.
const STANDARD_AT: [(&str, &str); 10] = [
    ("DeepSeek-R1", "unsloth/DeepSeek-R1-GGUF"),
    ("DeepSeek-R1-0528", "unsloth/DeepSeek-R1-0528-GGUF"),
    ("DeepSeek-V3", "unsloth/DeepSeek-V3-GGUF"),
    ("DeepSeek-V3-0324", "bartowski/deepseek-ai_DeepSeek-V3-0324-GGUF"),
    ("DeepSeek-V3.1", "unsloth/DeepSeek-V3.1-GGUF"),
    ("DeepSeek-V3.1-Terminus", "unsloth/DeepSeek-V3.1-Terminus-GGUF"),
    ("Kimi-K2", "unsloth/Kimi-K2-Instruct-GGUF"),
    ("Kimi-K2-Thinking", "unsloth/Kimi-K2-Thinking-GGUF"),
    ("Kimi-K2.5", "unsloth/Kimi-K2.5-GGUF"),
    ("Kimi-K2.6", "unsloth/Kimi-K2.6-GGUF"),
];

/// The weights as DeepSeek and Moonshot released them, in safetensors, which cachalot does not
/// read: 8 bits per weight with scales, or for Kimi K2 Thinking and later experts of 4 bits.
const RELEASED: [(&str, &str, &str, f64); 9] = [
    ("DeepSeek-R1", "deepseek-ai/DeepSeek-R1", "FP8", 688.6),
    ("DeepSeek-R1-0528", "deepseek-ai/DeepSeek-R1-0528", "FP8", 688.6),
    ("DeepSeek-V3", "deepseek-ai/DeepSeek-V3", "FP8", 688.6),
    ("DeepSeek-V3-0324", "deepseek-ai/DeepSeek-V3-0324", "FP8", 688.6),
    ("DeepSeek-V3.1", "deepseek-ai/DeepSeek-V3.1", "FP8", 688.6),
    ("DeepSeek-V3.1-Terminus", "deepseek-ai/DeepSeek-V3.1-Terminus", "FP8", 688.6),
    ("Kimi-K2", "moonshotai/Kimi-K2-Instruct", "FP8", 1029.0),
    ("Kimi-K2-Thinking", "moonshotai/Kimi-K2-Thinking", "INT4", 594.0),
    ("Kimi-K2.5", "moonshotai/Kimi-K2.5", "INT4", 595.0),
];

const LOGS: &str = "loader log, github.com/ikawrakow/ik_llama.cpp pull 259 and discussion 258";
const UNSLOTH_R1: &str = "unsloth.ai/blog/deepseekr1-dynamic, rounded";
const UNSLOTH_0528: &str = "docs.unsloth.ai, DeepSeek-R1-0528, rounded";
const UNSLOTH_K2: &str = "docs.unsloth.ai, Kimi K2, rounded";

/// GB of a size in GiB.
const fn gib(gib: f64) -> f64 {
    gib * 1.073_741_824
}

const LISTINGS: [Listing; 15] = [
    Listing {
        model: "DeepSeek-R1",
        repository: "unsloth/DeepSeek-R1-GGUF",
        source: LOGS,
        quants: &[("UD-IQ1_S", gib(130.60), 4.9), ("UD-Q2_K_XL", gib(211.03), 5.2)],
    },
    Listing {
        model: "DeepSeek-R1",
        repository: "unsloth/DeepSeek-R1-GGUF",
        source: UNSLOTH_R1,
        quants: &[("UD-IQ1_M", gib(158.0), 4.9), ("UD-IQ2_XXS", gib(183.0), 5.2)],
    },
    Listing {
        model: "DeepSeek-R1-0528",
        repository: "unsloth/DeepSeek-R1-0528-GGUF",
        source: LOGS,
        quants: &[
            ("UD-Q2_K_XL", gib(233.85), 5.2),
            ("UD-Q3_K_XL", gib(275.58), 5.5),
            ("UD-Q4_K_XL", gib(357.62), 6.0),
        ],
    },
    Listing {
        model: "DeepSeek-R1-0528",
        repository: "unsloth/DeepSeek-R1-0528-GGUF",
        source: UNSLOTH_0528,
        quants: &[
            ("UD-TQ1_0", 162.0, 4.9),
            ("UD-IQ1_S", 185.0, 4.9),
            ("UD-IQ1_M", 200.0, 4.9),
            ("UD-IQ2_XXS", 216.0, 5.2),
            ("UD-IQ3_XXS", 273.0, 5.5),
            ("UD-Q5_K_XL", 481.0, 6.5),
        ],
    },
    Listing {
        model: "DeepSeek-R1-0528",
        repository: "ubergarm/DeepSeek-R1-0528-GGUF",
        source: "loader logs, github.com/ikawrakow/ik_llama.cpp pulls 494, 534, 559, discussion 258",
        quants: &[
            ("IQ1_S_R4", gib(130.20), 4.6),
            ("IQ2_K_R4", gib(219.02), 5.5),
            ("IQ3_K_R4", gib(300.94), 6.0),
            ("IQ4_KS_R4", gib(367.77), 6.0),
        ],
    },
    Listing {
        model: "DeepSeek-V3-0324",
        repository: "unsloth/DeepSeek-V3-0324-GGUF",
        source: "huggingface.co/unsloth/DeepSeek-V3-0324-GGUF, rounded",
        quants: &[
            ("UD-IQ1_S", 186.0, 4.9),
            ("UD-IQ1_M", 196.0, 4.9),
            ("UD-IQ2_XXS", 219.0, 5.2),
            ("UD-Q2_K_XL", 248.0, 5.2),
            ("UD-Q3_K_XL", 321.0, 5.5),
            ("UD-Q4_K_XL", 405.0, 6.0),
        ],
    },
    Listing {
        model: "DeepSeek-V3-0324",
        repository: "unsloth/DeepSeek-V3-0324-GGUF",
        source: "github.com/ggml-org/llama.cpp pull 13435",
        quants: &[("UD-IQ3_XXS", gib(254.17), 5.5)],
    },
    Listing {
        model: "DeepSeek-V3-0324",
        repository: "bartowski/deepseek-ai_DeepSeek-V3-0324-GGUF",
        source: LOGS,
        quants: &[("Q4_K_M-V2", 406.99, 5.4)],
    },
    Listing {
        model: "DeepSeek-V3.1",
        repository: "unsloth/DeepSeek-V3.1-GGUF",
        source: "unsloth.ai/docs, DeepSeek-V3.1, rounded",
        quants: &[("UD-TQ1_0", 170.0, 4.9), ("UD-Q2_K_XL", 245.0, 5.2), ("UD-Q3_K_XL", 300.0, 5.5)],
    },
    Listing {
        model: "Kimi-K2",
        repository: "unsloth/Kimi-K2-Instruct-GGUF",
        source: UNSLOTH_K2,
        quants: &[
            ("UD-TQ1_0", 245.0, 4.9),
            ("UD-IQ1_S", 281.0, 4.9),
            ("UD-IQ1_M", 304.0, 4.9),
            ("UD-IQ2_XXS", 343.0, 5.2),
            ("UD-Q2_K_XL", 381.0, 5.2),
            ("UD-IQ3_XXS", 417.0, 5.5),
            ("UD-Q3_K_XL", 452.0, 5.5),
            ("UD-Q4_K_XL", 588.0, 6.0),
            ("UD-Q5_K_XL", 732.0, 6.5),
        ],
    },
    Listing {
        model: "Kimi-K2",
        repository: "ubergarm/Kimi-K2-Instruct-GGUF",
        source: "loader log, github.com/ikawrakow/ik_llama.cpp pull 612",
        quants: &[("IQ2_KL", gib(345.69), 5.5)],
    },
    Listing {
        model: "Kimi-K2-Thinking",
        repository: "unsloth/Kimi-K2-Thinking-GGUF",
        source: "docs.unsloth.ai, Kimi K2 Thinking, rounded",
        quants: &[("UD-TQ1_0", 245.0, 4.9)],
    },
    Listing {
        model: "Kimi-K2.5",
        repository: "unsloth/Kimi-K2.5-GGUF",
        source: "unsloth.ai/docs, Kimi K2.5, rounded",
        quants: &[("UD-TQ1_0", 240.0, 4.9), ("UD-Q2_K_XL", 375.0, 5.2), ("UD-Q4_K_XL", 630.0, 8.5)],
    },
    Listing {
        model: "DeepSeek-V2-Lite",
        repository: "mradermacher/DeepSeek-V2-Lite-GGUF",
        source: "github.com/ikawrakow/ik_llama.cpp pull 232, and file listings",
        quants: &V2_LITE,
    },
    Listing {
        model: "DeepSeek-Coder-V2-Lite",
        repository: "bartowski/DeepSeek-Coder-V2-Lite-Instruct-GGUF",
        source: "huggingface.co/bartowski/DeepSeek-Coder-V2-Lite-Instruct-GGUF",
        quants: &V2_LITE,
    },
];

/// Its rows are not multiples of 256, so its quantizations take more bits than those of the large
/// models.
const V2_LITE: [Quant; 8] = [
    ("Q2_K", 6.43, 4.5),
    ("Q3_K_M", 8.13, 5.0),
    ("Q4_0", 8.91, 4.8),
    ("Q4_K_M", gib(9.78), 5.5),
    ("Q5_K_M", 11.85, 6.0),
    ("Q6_K", 14.07, 6.6),
    ("Q8_0", 16.70, 8.5),
    ("BF16", 31.42, 16.0),
];

/// Why cachalot cannot run a file that its maker quantized in formats of its own.
fn runs(quant: &str) -> bool {
    let foreign = quant.contains("_R4") || quant.ends_with("_KS") || quant.ends_with("_KL");
    !foreign && !matches!(quant, "FP8" | "INT4")
}

fn base_of(name: &str) -> &'static Base {
    BASES.iter().find(|base| base.name == name).expect("tables name known models")
}

fn bytes(gb: f64) -> u64 {
    (gb * 1e9).round() as u64
}

/// All files, by model, the smallest first.
pub(super) fn all() -> Vec<Published> {
    let mut files = Vec::new();
    for listing in &LISTINGS {
        files.extend(listing.quants.iter().map(|&(quant, gb, dense_bits)| Published {
            base: base_of(listing.model),
            repository: listing.repository,
            quant,
            size: bytes(gb),
            dense_bits,
            source: listing.source,
            runs: runs(quant),
            note: None,
        }));
    }
    for (model, repository) in STANDARD_AT {
        let base = base_of(model);
        files.extend(STANDARD.iter().map(|&(quant, bits, dense_bits)| {
            let size = (base.shape.parameters() as f64 * bits / 8.0) as u64;
            standard(base, (repository, quant), size, dense_bits)
        }));
    }
    for base in &BASES {
        files.extend(
            base.ollama
                .iter()
                .filter_map(|(tag, quant)| {
                    let of = |file: &&Published| file.base == base && file.quant == *quant;
                    let same = *files.iter().find(of)?;
                    let moved = *tag == "deepseek-r1:671b";
                    let note = moved.then_some(
                        "Ollama moved this tag to R1-0528 in May 2025: the same size and speed",
                    );
                    Some(Published { repository: tag, note, ..same })
                })
                .collect::<Vec<_>>(),
        );
    }
    for (model, repository, quant, gb) in RELEASED {
        let note = Some("safetensors as released, which cachalot does not read: take a GGUF file");
        let base = base_of(model);
        let file = standard(base, (repository, quant), bytes(gb), 8.0);
        files.push(Published {
            note,
            runs: false,
            source: "the release at huggingface.co",
            ..file
        });
    }
    let order = |file: &Published| BASES.iter().position(|base| base == file.base);
    files.sort_by_key(|file| (order(file), file.size, file.is_ollama()));
    files
}

fn standard(
    base: &'static Base,
    (repository, quant): (&'static str, &'static str),
    size: u64,
    dense_bits: f64,
) -> Published {
    let (source, runs, note) = (BY_SHAPE, true, None);
    Published { base, repository, quant, size, dense_bits, source, runs, note }
}
