//! The output for people: a sentence, a few facts, two tables.

use cachalot_gguf::TensorInfo;
use cachalot_plan::demand::Usage;
use cachalot_plan::identity::Kind;
use cachalot_plan::{KvType, units};

use super::{Shown, file_name};
use crate::terminal::{prose, table, without_controls};

/// The whole page. Control characters from the file are replaced.
pub(super) fn text(shown: &Shown, tensors: bool) -> String {
    let mut page = format!("{}\n", prose(&shown.identity.verdict));
    if let Some(runs) = runs(shown) {
        page += &format!("{}\n", prose(&runs));
    }
    page += &format!("\n{}", table("ll", &facts(shown)));
    if shown.demand.total.tensors > 0 {
        page += &format!("\n{}", table("lrrrrr", &groups(shown)));
        page += &format!("\n{}", table("lrrrr", &types(shown)));
    }
    if tensors {
        page += &format!("\n{}", table("lllrrr", &list(shown)));
    }
    without_controls(&page).into_owned()
}

/// Whether cachalot runs it, and if not, why.
fn runs(shown: &Shown) -> Option<String> {
    if matches!(shown.identity.kind, Kind::NoWeights | Kind::Accessory) {
        return None;
    }
    let missing = shown.types_without_kernel();
    Some(if !shown.identity.runs {
        "cachalot does not run it: it runs models of the architecture deepseek2.".to_owned()
    } else if !missing.is_empty() {
        let missing = missing.join(", ");
        format!("cachalot does not run this file: it cannot compute with {missing}.")
    } else {
        match &shown.verdict {
            Err(reason) => format!("cachalot does not run this file: {reason}."),
            Ok(verdict) if verdict.warnings.is_empty() => "cachalot runs it.".to_owned(),
            Ok(verdict) => format!("cachalot runs it; {}.", verdict.warnings.join("; ")),
        }
    })
}

type Row = Vec<String>;

fn facts(shown: &Shown) -> Vec<Row> {
    let (set, demand) = (&shown.set, &shown.demand);
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: Option<String>| {
        facts.extend(value.map(|value| vec![name.to_owned(), value]));
    };
    let first = file_name(&set.parts[0].path);
    fact(
        "file",
        Some(match set.parts.len() {
            1 => first,
            parts => format!("{first} and {} more", parts - 1),
        }),
    );
    let bits = format!(", {:.2} bits per weight", demand.bits_per_weight());
    let bits = if demand.total.tensors > 0 { bits } else { String::new() };
    fact("size", Some(format!("{}{bits}", units::bytes(shown.size))));
    fact("architecture", demand.architecture.clone());
    fact(
        "parameters",
        (demand.total.tensors > 0).then(|| {
            let total = units::parameters(demand.parameters());
            let active = units::parameters(demand.total.active_parameters);
            format!("{total}, {active} active per token")
        }),
    );
    fact("layers", layers(shown));
    fact("experts", experts(shown));
    fact("context", demand.context.map(|tokens| format!("{} tokens", units::grouped(tokens))));
    fact("cache", cache(shown));
    fact(
        "vocabulary",
        demand.vocabulary.map(|tokens| format!("{} tokens", units::grouped(tokens))),
    );
    let template = set.metadata.str("tokenizer.chat_template").ok();
    fact(
        "chat template",
        template.map(|text| {
            let thinks = if text.contains("<think>") { ", thinks" } else { "" };
            format!("{}{thinks}", units::bytes(text.len() as u64))
        }),
    );
    facts
}

fn layers(shown: &Shown) -> Option<String> {
    let layers = shown.demand.layers?;
    let kinds = match (layers.dense, layers.moe) {
        (_, 0) => String::new(),
        (0, _) => ", all with experts".to_owned(),
        (dense, moe) => format!(": {dense} dense, {moe} with experts"),
    };
    let hidden =
        shown.demand.hidden.map(|hidden| format!("; hidden size {}", units::grouped(hidden)));
    Some(format!("{}{kinds}{}", layers.total, hidden.unwrap_or_default()))
}

fn experts(shown: &Shown) -> Option<String> {
    let experts = shown.demand.experts?;
    let shared = match experts.shared {
        0 => String::new(),
        shared => format!(", and {shared} shared"),
    };
    let groups = match experts.groups {
        0 | 1 => String::new(),
        groups => format!(", from {} of {groups} groups", experts.groups_used),
    };
    Some(format!("{} of {} per token{groups}{shared}", experts.used, experts.total))
}

fn cache(shown: &Shown) -> Option<String> {
    let cache = shown.demand.cache.as_ref()?;
    let of = |ty| units::bytes(cache.bytes_per_token(ty));
    let kind = if cache.latent { " (latent)" } else { "" };
    let full = shown.demand.context.map(|tokens| {
        let bytes = tokens.saturating_mul(cache.bytes_per_token(KvType::F16));
        format!("; {} for the whole context in f16", units::bytes(bytes))
    });
    Some(format!(
        "{} per token in f16, {} in q8_0{kind}{}",
        of(KvType::F16),
        of(KvType::Q8_0),
        full.unwrap_or_default()
    ))
}

fn row(cells: &[&str]) -> Row {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn groups(shown: &Shown) -> Vec<Row> {
    let total = shown.demand.total;
    let line = |name: &str, usage: &Usage| {
        vec![
            name.to_owned(),
            usage.tensors.to_string(),
            units::parameters(usage.parameters),
            units::bytes(usage.bytes),
            share(usage.bytes, total.bytes),
            units::bytes(usage.bytes_per_token),
        ]
    };
    let mut rows = vec![row(&["part", "tensors", "parameters", "size", "share", "read per token"])];
    rows.extend(shown.demand.groups.iter().map(|(group, usage)| line(group.name(), usage)));
    rows.push(line("all", &total));
    rows
}

fn types(shown: &Shown) -> Vec<Row> {
    let total = shown.demand.total;
    let mut rows = vec![row(&["type", "tensors", "parameters", "size", "share"])];
    rows.extend(shown.demand.types.iter().map(|(ty, usage)| {
        vec![
            ty.name().to_owned(),
            usage.tensors.to_string(),
            units::parameters(usage.parameters),
            units::bytes(usage.bytes),
            share(usage.bytes, total.bytes),
        ]
    }));
    rows
}

fn list(shown: &Shown) -> Vec<Row> {
    let mut rows = vec![row(&["tensor", "type", "shape", "bytes", "offset", "file"])];
    rows.extend(shown.set.tensors.iter().map(|tensor| {
        let TensorInfo { name, ty, shape, offset, size } = &tensor.info;
        let shape = shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
        let file = (tensor.part + 1).to_string();
        let (ty, size, offset) = (ty.name().to_owned(), size.to_string(), offset.to_string());
        vec![name.clone(), ty, shape, size, offset, file]
    }));
    rows
}

fn share(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use cachalot_engine::layout::Verdict;
    use cachalot_gguf::split::{Part, PartTensor, Set};
    use cachalot_gguf::{Metadata, TensorInfo, TensorType};
    use cachalot_plan::Shape;
    use cachalot_plan::shape::Layout;

    use super::super::Shown;
    use super::*;

    fn shown(metadata: Metadata, tensors: Vec<TensorInfo>, parts: &[&str]) -> Shown {
        let size = tensors.iter().map(|tensor| tensor.size).sum::<u64>() + (5 << 20);
        let tensors = tensors.into_iter().map(|info| PartTensor { part: 0, info }).collect();
        let part =
            |name: &&str| Part { path: PathBuf::from(name), data_offset: 5 << 20, alignment: 32 };
        let parts = parts.iter().map(part).collect();
        Shown::new(Set { metadata, tensors, parts }, size)
    }

    /// R1 as its first Q4_K_M files had it, but for the smaller share of Q6_K.
    fn r1() -> Shown {
        let mut metadata = Shape::DEEPSEEK_V3.metadata(Layout::Legacy);
        metadata.insert("general.name", "DeepSeek R1 BF16");
        metadata.insert("deepseek2.expert_group_count", 8_u32);
        metadata.insert("deepseek2.expert_group_used_count", 4_u32);
        metadata.insert("tokenizer.chat_template", "<think>".repeat(300));
        let tensors = Shape::DEEPSEEK_V3.tensors(Layout::Legacy, |name| match name {
            "output.weight" => TensorType::Q6_K,
            _ => TensorType::Q4_K,
        });
        let parts = ["R1-00001-of-00002.gguf", "R1-00002-of-00002.gguf"];
        let mut shown = shown(metadata, tensors.unwrap(), &parts);
        shown.verdict = Ok(Verdict::default()); // as for the real header, with its vocabulary
        shown
    }

    const R1_PAGE: &str = "\
The full DeepSeek-R1 671B (“DeepSeek R1 BF16”): 671.0B parameters, 36.6B of them active per token.
cachalot runs it.

file           R1-00001-of-00002.gguf and 1 more
size           352.1 GiB, 4.51 bits per weight
architecture   deepseek2
parameters     671.0B, 36.6B active per token
layers         61: 3 dense, 58 with experts; hidden size 7,168
experts        8 of 256 per token, from 4 of 8 groups, and 1 shared
context        163,840 tokens
cache          68.6 KiB per token in f16, 36.5 KiB in q8_0 (latent); 10.7 GiB for the whole context
               in f16
vocabulary     129,280 tokens
chat template  2.1 KiB, thinks

part            tensors  parameters       size    share  read per token
routed experts      174      653.9B  342.6 GiB   97.3 %        10.7 GiB
shared experts      174        2.6B    1.3 GiB    0.4 %         1.3 GiB
attention           305       11.4B    6.0 GiB    1.7 %         6.0 GiB
dense FFN             9        1.2B  637.9 MiB    0.2 %       637.9 MiB
norms, router       361      107.5M  409.9 MiB    0.1 %       409.9 MiB
embedding             1      926.7M  497.1 MiB    0.1 %         3.9 KiB
head                  1      926.7M  725.0 MiB    0.2 %       725.0 MiB
all                1025      671.0B  352.1 GiB  100.0 %        19.8 GiB

type  tensors  parameters       size   share
Q4_K      663      670.0B  351.0 GiB  99.7 %
Q6_K        1      926.7M  725.0 MiB   0.2 %
F32       361      107.5M  409.9 MiB   0.1 %
";

    #[test]
    fn the_page_of_r1() {
        assert_eq!(text(&r1(), false), R1_PAGE);
    }

    #[test]
    fn a_file_says_why_it_does_not_run() {
        let tensor = |ty| TensorInfo::new("blk.0.ffn_up.weight", ty, &[256, 4]).unwrap();
        let of = |architecture: &str, ty| {
            let mut metadata = Metadata::default();
            metadata.insert("general.architecture", architecture);
            let shown = shown(metadata, vec![tensor(ty)], &["a.gguf"]);
            (shown.runs(), text(&shown, false))
        };
        let (runs, page) = of("llama", TensorType::Q4_K);
        assert!(
            !runs && page.contains("does not run it: it runs models of the architecture"),
            "{page}"
        );
        let (runs, page) = of("deepseek2", TensorType::IQ2_K_R4);
        assert!(!runs && page.contains("it cannot compute with IQ2_K_R4."), "{page}");
        let (runs, page) = of("deepseek2", TensorType::Q4_K);
        assert!(!runs && page.contains("has no key `deepseek2.embedding_length`"), "{page}");
        let (runs, page) = (r1().runs(), text(&r1(), false));
        assert!(runs && page.contains("cachalot runs it."), "{page}");
    }

    #[test]
    fn a_vocabulary_has_no_tables() {
        let mut metadata = Metadata::default();
        metadata.insert("general.architecture", "deepseek2");
        metadata.insert("tokenizer.ggml.tokens", vec!["a".to_owned(); 7]);
        let expected = "\
A vocabulary of 7 tokens without weights: no model to run.

file          vocab.gguf
size          5.0 MiB
architecture  deepseek2
vocabulary    7 tokens
";
        assert_eq!(text(&shown(metadata, Vec::new(), &["dir/vocab.gguf"]), false), expected);
    }

    #[test]
    fn strings_of_the_file_cannot_control_the_terminal() {
        let mut metadata = Metadata::default();
        metadata.insert("general.architecture", "llama\x1b[2J");
        metadata.insert("general.name", "a\x07b");
        let page = text(&shown(metadata, Vec::new(), &["a\r.gguf"]), true);
        assert!(page.contains("llama\u{fffd}[2J"), "{page}");
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[test]
    fn every_tensor_can_be_listed() {
        let page = text(&r1(), true);
        let line =
            page.lines().find(|line| line.starts_with("blk.60.ffn_down_exps.weight")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected = ["Q4_K", "2048", "x", "7168", "x", "256", "2113929216", "0", "1"];
        assert_eq!(words[1..], expected);
    }
}
