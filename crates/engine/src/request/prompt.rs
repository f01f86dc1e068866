//! Messages -> the prompt of a request, with a loaded model or with its vocabulary alone.

use std::path::Path;

use cachalot_gguf::{Gguf, Metadata};
use cachalot_text::{
    ChatTemplate, Message, RenderOptions, Think, Vocab, VocabParts, strip_reasoning,
};

use super::Request;
use crate::Error;
use crate::status::ModelInfo;

impl ModelInfo {
    /// A request that answers the conversation `messages`, with the model's recommended sampling.
    /// Thoughts of earlier turns do not return to the prompt: R1's template drops them, and for
    /// templates that would not, they are dropped here.
    ///
    /// # Errors
    /// If the template refuses the conversation.
    pub fn chat(&self, messages: &[Message], think: Think) -> Result<Request, Error> {
        let mut messages = messages.to_vec();
        for message in messages.iter_mut().filter(|message| message.role == "assistant") {
            message.reasoning = None;
            message.content =
                message.content.as_deref().map(|text| strip_reasoning(text).to_owned());
        }
        let options = RenderOptions { think, ..RenderOptions::default() };
        let prompt = self.template.render(&messages, &options)?;
        Ok(Request {
            prompt: prompt.tokens(&self.vocab)?,
            thought: prompt.tail().into(),
            sampling: self.recommended.clone(),
            ..Request::default()
        })
    }
}

/// A rendered prompt, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptText {
    /// Its text, control tokens included.
    pub text: String,
    /// What to tell the user about the chat template.
    pub warning: Option<String>,
}

/// The prompt of a conversation, without a model: `chat_template` replaces that of the file.
///
/// # Errors
/// If the template is faulty or rejects the conversation.
pub fn render(
    vocab: &Vocab,
    chat_template: Option<&str>,
    messages: &[Message],
    think: Think,
) -> Result<PromptText, Error> {
    let template = ChatTemplate::new(chat_template, vocab)?;
    let options = RenderOptions { think, ..RenderOptions::default() };
    let text = template.render(messages, &options)?.text().to_owned();
    Ok(PromptText { text, warning: template.warning().map(str::to_owned) })
}

/// The vocabulary of a file, which need not hold tensors.
///
/// # Errors
/// If it is not a GGUF file, or has no vocabulary of a supported kind.
pub fn open_vocab(path: &Path) -> Result<Vocab, Error> {
    let first = cachalot_gguf::split::part_paths(path).swap_remove(0);
    let gguf = Gguf::open(&first)?;
    vocab_of(&gguf.metadata)
        .map_err(|source| Error::InFile { path: first, source: Box::new(source) })
}

/// The vocabulary of a GGUF in memory.
///
/// # Errors
/// As [`open_vocab`].
pub fn embedded_vocab(bytes: &[u8]) -> Result<Vocab, Error> {
    vocab_of(&Gguf::parse(bytes, bytes.len() as u64)?.metadata)
}

pub(crate) fn vocab_of(metadata: &Metadata) -> Result<Vocab, Error> {
    Ok(Vocab::new(&VocabParts::from_metadata(metadata)?)?)
}
