//! What loading a file would say, from its header alone: `run` refuses by it, and `show`, `plan`
//! and `bench` repeat it in the same words.

use cachalot_gguf::{Metadata, TensorInfo};
use cachalot_text::{ChatTemplate, Vocab};

use crate::Error;
use crate::request::{Sampling, vocab_of};

/// What is worth telling of a model that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Parts of the file that are ignored or replaced, one sentence each, without a full stop.
    pub warnings: Vec<String>,
}

/// Checks a header as loading does, but for options and memory. Nothing of the weights is read.
///
/// # Errors
/// Why the model does not run.
pub fn verdict<'a>(
    metadata: &Metadata,
    tensors: impl IntoIterator<Item = &'a TensorInfo>,
) -> Result<Verdict, Error> {
    let tensors: Vec<&TensorInfo> = tensors.into_iter().collect();
    let mut warnings = cachalot_model::check_header(metadata, tensors.iter().copied())?;
    let vocab = vocab_of(metadata)?;
    let embedding = tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    check_vocabulary(&vocab, embedding.map_or(0, |tensor| tensor.rows() as usize))?;
    warnings.extend(vocab.warnings().iter().cloned());
    let template = ChatTemplate::new(None, &vocab)?;
    warnings.extend(template.warning().map(str::to_owned));
    Sampling::recommended(metadata)?;
    Ok(Verdict { warnings })
}

/// A vocabulary belongs to a model if there is a logit for each token.
pub(super) fn check_vocabulary(vocab: &Vocab, logits: usize) -> Result<(), Error> {
    if vocab.len() != logits {
        return Err(Error::Vocabulary { tokens: vocab.len(), logits });
    }
    Ok(())
}
