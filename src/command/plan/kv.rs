//! `cachalot plan --kv`: the size of the KV cache, for all heads as in runtimes until spring 2025,
//! and as the latent of multi-head latent attention.

use cachalot_plan::{KvType, units};
use serde_json::json;

use super::subject::Subject;
use crate::terminal::table;

/// Lengths of context that people ask about.
const CONTEXTS: [u64; 6] = [2048, 8192, 32_768, 65_536, 131_072, 163_840];

/// The table, or the same as JSON.
pub(super) fn page(subject: &Subject, as_json: bool) -> anyhow::Result<String> {
    let model = &subject.model;
    let contexts: Vec<u64> =
        CONTEXTS.into_iter().filter(|tokens| *tokens <= model.context).collect();
    let each = [
        ("all heads, f16", model.cache_expanded),
        ("latent, f16", model.cache_bytes_per_token(KvType::F16)),
        ("latent, q8_0", model.cache_bytes_per_token(KvType::Q8_0)),
    ];
    if as_json {
        let rows = contexts.iter().map(|tokens| {
            let bytes = each.map(|(_, bytes)| bytes * tokens);
            json!({ "tokens": tokens, "all_heads_f16": bytes[0], "latent_f16": bytes[1], "latent_q8_0": bytes[2] })
        });
        let object = json!({ "model": model.name, "bytes": rows.collect::<Vec<_>>() });
        return Ok(serde_json::to_string_pretty(&object)? + "\n");
    }
    let mut rows = vec![vec!["tokens".to_owned()]];
    rows[0].extend(each.map(|(name, _)| name.to_owned()));
    let mut per_token = vec!["per token".to_owned()];
    per_token.extend(each.map(|(_, bytes)| format!("{} B", units::grouped(bytes))));
    rows.push(per_token);
    for tokens in contexts {
        let mut row = vec![units::grouped(tokens)];
        row.extend(each.map(|(_, bytes)| binary(bytes * tokens)));
        rows.push(row);
    }
    let times = model.cache_expanded as f64 / model.cache_f16.max(1) as f64;
    Ok(format!(
        "KV cache of {}:\n\n{}\nThe latent (MLA) cache is {times:.0} times smaller; cachalot uses nothing else.\n",
        model.name,
        table("rrrr", &rows)
    ))
}

/// MiB up to 10,000 of them, as loaders' logs have it, then GiB.
fn binary(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    let trimmed = |number: f64| {
        let text = format!("{number:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if mib < 10_000.0 {
        format!("{} MiB", trimmed(mib))
    } else {
        format!("{} GiB", trimmed(mib / 1024.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::subject::published;
    use super::*;

    #[test]
    fn the_figures_of_the_faq_are_exact() {
        let page = page(&published("deepseek-r1:671b"), false).unwrap();
        let line =
            |tokens: &str| page.lines().find(|line| line.trim_start().starts_with(tokens)).unwrap();
        assert!(
            line("2,048").contains("9760 MiB") && line("2,048").contains("137.25 MiB"),
            "{page}"
        );
        assert!(
            line("163,840").contains("762.5 GiB") && line("163,840").contains("10.72 GiB"),
            "{page}"
        );
    }
}
