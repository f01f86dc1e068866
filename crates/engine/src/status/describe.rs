//! What a file says of its model, without putting the model together: enough to render prompts and
//! to show what answers elsewhere.

use std::time::Duration;

use cachalot_gguf::{KvType, Metadata};
use cachalot_plan::Layout;
use cachalot_plan::layout::KvPlan;
use cachalot_store::{Placement, Weights};
use cachalot_text::{ChatTemplate, Vocab};

use super::fingerprint::Fingerprint;
use super::info::{Context, ModelInfo};
use crate::Error;
use crate::layout::{Options, Source};
use crate::output::ThoughtTags;
use crate::request::{Sampling, vocab_of};

/// The description of a model that runs elsewhere, with this context and KV type. Of its files, the
/// headers alone are read.
///
/// # Errors
/// If the source is not a valid model, or the template of `options` is faulty.
pub fn describe(
    source: &Source,
    options: &Options,
    context: Context,
    kv_type: KvType,
) -> Result<ModelInfo, Error> {
    let weights = match source {
        Source::Embedded(bytes) => Weights::from_static(bytes)?,
        Source::File(path) => Weights::open(path, Placement::Mapped)?,
    };
    let vocab = vocab_of(weights.metadata())?;
    // Nothing of it is on a device here.
    let layout = Layout {
        stages: Vec::new(),
        experts: Vec::new(),
        kv: KvPlan { ty: kv_type, context: context.tokens as u64, parallel: 0, pages: 0, bytes: 0 },
        micro_batch: 0,
        buffers: 0,
        threads: Vec::new(),
    };
    model_info(source, options, weights, vocab, context, layout)
}

/// A model's description, as if no thread computed it and nothing were streamed.
pub(crate) fn model_info(
    source: &Source,
    options: &Options,
    weights: Weights,
    vocab: Vocab,
    context: Context,
    layout: Layout,
) -> Result<ModelInfo, Error> {
    let kv_type = layout.kv.ty;
    let metadata = weights.metadata();
    let template = ChatTemplate::new(options.chat_template.as_deref(), &vocab)?;
    let tensors = weights.tensors().iter().map(|tensor| &tensor.info);
    let mut warnings = cachalot_model::check_header(metadata, tensors)?;
    warnings.extend(vocab.warnings().iter().cloned());
    warnings.extend(template.warning().map(str::to_owned));
    Ok(ModelInfo {
        name: name(source, metadata),
        thought_tags: ThoughtTags::of(&vocab),
        recommended: Sampling::recommended(metadata)?,
        vocab,
        template,
        warnings,
        context,
        kv_type,
        fingerprint: Fingerprint::of(source, options, kv_type)
            .map_err(|source| Error::Fingerprint { source })?,
        threads: 0,
        threads_missing: 0,
        tier: options.tier,
        streaming: None,
        weights,
        layout,
        load_time: Duration::ZERO,
    })
}

/// What a file calls its model, or else the file's own name.
fn name(source: &Source, metadata: &Metadata) -> String {
    let named = metadata.str("general.name").ok().filter(|name| !name.trim().is_empty());
    named.map(str::to_owned).unwrap_or_else(|| match source {
        Source::Embedded(_) => "calf".to_owned(),
        Source::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    })
}
