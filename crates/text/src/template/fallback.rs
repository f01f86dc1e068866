//! Templates for files that have none, chosen by the tags that the vocabulary has.

use crate::Vocab;

/// The template of the R1 family. Published with the model under the MIT licence, Copyright (c)
/// 2023 DeepSeek.
pub(super) const R1: &str = include_str!("r1.jinja");
/// Kimi-K2's turns; tools are added by `tools`.
const KIMI: &str = include_str!("kimi.jinja");

/// The template that fits this vocabulary, if one does.
pub(super) fn of(vocab: &Vocab) -> Option<&'static str> {
    let has = |tags: &[&str]| tags.iter().all(|tag| vocab.special_id(tag).is_some());
    if has(&["<｜User｜>", "<｜Assistant｜>"]) {
        Some(R1)
    } else if has(&["<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"]) {
        Some(KIMI)
    } else {
        None
    }
}
