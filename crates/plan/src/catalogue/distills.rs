//! The distills: small models of other architectures, trained on answers of R1, that carry its
//! name.
//!
//! Names and bases are those of DeepSeek's model cards; tags are those of Ollama's library.

/// A distill.
#[derive(Debug, PartialEq, Eq)]
pub struct Distill {
    /// Its full name.
    pub name: &'static str,
    /// The model that it is.
    pub base: &'static str,
    /// Tags at Ollama under `deepseek-r1`; quantizations follow after a `-`.
    tags: &'static [&'static str],
}

/// All of them.
pub const DISTILLS: [Distill; 7] = [
    Distill {
        name: "DeepSeek-R1-0528-Qwen3-8B",
        base: "Qwen3 8B",
        tags: &["latest", "8b", "8b-0528-qwen3"],
    },
    Distill {
        name: "DeepSeek-R1-Distill-Qwen-1.5B",
        base: "Qwen2.5-Math 1.5B",
        tags: &["1.5b", "1.5b-qwen-distill"],
    },
    Distill {
        name: "DeepSeek-R1-Distill-Qwen-7B",
        base: "Qwen2.5-Math 7B",
        tags: &["7b", "7b-qwen-distill"],
    },
    Distill {
        name: "DeepSeek-R1-Distill-Llama-8B",
        base: "Llama 3.1 8B",
        tags: &["8b-llama-distill"],
    },
    Distill {
        name: "DeepSeek-R1-Distill-Qwen-14B",
        base: "Qwen2.5 14B",
        tags: &["14b", "14b-qwen-distill"],
    },
    Distill {
        name: "DeepSeek-R1-Distill-Qwen-32B",
        base: "Qwen2.5 32B",
        tags: &["32b", "32b-qwen-distill"],
    },
    Distill {
        name: "DeepSeek-R1-Distill-Llama-70B",
        base: "Llama 3.3 70B Instruct",
        tags: &["70b", "70b-llama-distill"],
    },
];

impl Distill {
    /// What a person who asked for it should know.
    pub fn verdict(&self) -> String {
        format!(
            "{} is a distill, not R1: {} trained on answers of R1. cachalot runs the full model, \
             deepseek-r1:671b",
            self.name, self.base
        )
    }
}

/// The distill that `name`, in small letters, refers to: an Ollama tag with or without
/// quantization, or a repository or file name.
pub(super) fn find(name: &str) -> Option<&'static Distill> {
    let name = name.replace(['_', ' '], "-");
    let by_tag = |tag: &str| {
        let of_tag = |known: &str| {
            let rest = tag.strip_prefix(known);
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with("-q") || rest.starts_with("-f")
            })
        };
        DISTILLS.iter().find(|distill| distill.tags.iter().any(|known| of_tag(known)))
    };
    if let Some(tag) = name.strip_prefix("deepseek-r1:").or_else(|| name.strip_prefix("r1:")) {
        return by_tag(tag);
    }
    // `r1-70b`, `deepseek-r1-32b`
    let size = name.strip_prefix("deepseek-r1-").or_else(|| name.strip_prefix("r1-"));
    let by_size =
        size.filter(|size| size.trim_end_matches('b').parse::<f64>().is_ok_and(|b| b < 100.0));
    let by_name = || DISTILLS.iter().find(|distill| name.contains(&distill.name.to_lowercase()));
    let short = || {
        DISTILLS.iter().find(|distill| {
            let short = distill.name.to_lowercase().replace("deepseek-r1-", "");
            name.ends_with(&short) || name.ends_with(&format!("{short}-gguf"))
        })
    };
    by_size.and_then(by_tag).or_else(by_name).or_else(short)
}
