//! Tool calls in the text of an answer, as the model's format has them.

/// More of an answer in which tools may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToolDelta {
    Text(String),
    Call { index: usize, id: String, name: String },
    Arguments { index: usize, text: String },
}

/// Finds tool calls in a stream of text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    count: usize,
}

impl Calls {
    pub(crate) fn push(&mut self, text: &str) -> Vec<ToolDelta> {
        vec![ToolDelta::Text(text.to_owned())]
    }

    pub(crate) fn finish(&mut self) -> Vec<ToolDelta> {
        Vec::new()
    }

    /// Whether a tool was called.
    pub(crate) fn any(&self) -> bool {
        self.count > 0
    }
}
