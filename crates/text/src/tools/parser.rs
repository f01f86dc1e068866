//! A model's output to text and tool calls, as deltas, from pieces cut anywhere.
//!
//! Only what may still become a tag, or the head of a call, is held back. What turns out not to be
//! a call is passed on as the text it is. Calls may be in the answer or inside a thought.

use super::{Tags, ToolFormat};
use crate::stop::partial_suffix;

/// Longest head of a call: a name and what is around it.
const HEAD_MAX: usize = 1024;

/// What a piece of output belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The thought.
    Reasoning,
    /// The answer.
    Answer,
}

/// What a piece of output makes certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolEvent {
    /// Text that is not part of a call.
    Text {
        /// Where it belongs.
        channel: Channel,
        /// The text, not empty.
        text: String,
    },
    /// A call begins.
    Call {
        /// Number of the call in this output, from 0.
        index: usize,
        /// Identifies the call to its result.
        id: String,
        /// The tool.
        name: String,
    },
    /// More of the arguments of the last call.
    Arguments {
        /// Number of the call.
        index: usize,
        /// JSON text, not empty.
        delta: String,
    },
    /// The last call is complete. Calls that the output cuts off have no end.
    End {
        /// Number of the call.
        index: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Outside of calls.
    Text,
    /// In a section, before a call or after the last.
    Section,
    /// In a call, before its arguments.
    Head,
    /// In arguments that are a JSON object.
    Json { depth: usize, in_string: bool, escaped: bool },
    /// In arguments that are not, up to the tag that ends the call.
    Raw,
    /// After the arguments.
    Tail,
}

/// Finds tool calls in an output. The events' joined texts do not depend on how the output is cut.
#[derive(Debug, Clone)]
pub struct ToolParser {
    format: ToolFormat,
    unique: String,
    state: State,
    channel: Channel,
    held: String,
    /// The output since the tag that may begin a call, for the case that it does not.
    raw: String,
    calls: usize,
    /// Calls found since the section began.
    in_section: usize,
}

impl ToolParser {
    pub(super) fn new(format: ToolFormat, unique: &str) -> Self {
        Self {
            format,
            unique: unique.to_owned(),
            state: State::Text,
            channel: Channel::Answer,
            held: String::new(),
            raw: String::new(),
            calls: 0,
            in_section: 0,
        }
    }

    /// Number of calls found so far.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Takes the next text.
    pub fn push(&mut self, channel: Channel, text: &str) -> Vec<ToolEvent> {
        let mut events = Vec::new();
        if text.is_empty() {
            return events;
        }
        if channel != self.channel && self.state == State::Text {
            self.flush(&mut events);
            self.channel = channel;
        }
        self.held.push_str(text);
        while self.step(&mut events) {}
        events
    }

    /// Ends the output: what is held is text, unless it belongs to a call.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        let mut events = Vec::new();
        match self.state {
            State::Text => self.flush(&mut events),
            State::Section if self.in_section > 0 => {}
            State::Section | State::Head => {
                self.give_up(&mut events);
                self.flush(&mut events);
            }
            State::Raw => {
                let rest = std::mem::take(&mut self.held);
                self.arguments(unfenced(&rest), &mut events);
            }
            State::Json { .. } | State::Tail => {}
        }
        self.held.clear();
        self.state = State::Text;
        events
    }

    fn tags(&self) -> Tags {
        self.format.tags()
    }

    fn text(&self, text: &str, events: &mut Vec<ToolEvent>) {
        if !text.is_empty() {
            events.push(ToolEvent::Text { channel: self.channel, text: text.to_owned() });
        }
    }

    fn flush(&mut self, events: &mut Vec<ToolEvent>) {
        let held = std::mem::take(&mut self.held);
        self.text(&held, events);
    }

    fn arguments(&self, delta: &str, events: &mut Vec<ToolEvent>) {
        if !delta.is_empty() {
            events.push(ToolEvent::Arguments { index: self.calls - 1, delta: delta.to_owned() });
        }
    }

    /// What looked like a call is text.
    fn give_up(&mut self, events: &mut Vec<ToolEvent>) {
        let raw = std::mem::take(&mut self.raw);
        self.text(&raw, events);
        self.state = State::Text;
    }

    /// Takes bytes from the held text into `raw`.
    fn take(&mut self, len: usize) {
        let taken: String = self.held.drain(..len).collect();
        self.raw.push_str(&taken);
    }

    /// Processes the held text; returns whether there may be more to process.
    fn step(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        match self.state {
            State::Text => self.step_text(events),
            State::Section => self.step_section(events),
            State::Head => self.step_head(events),
            State::Json { depth, in_string, escaped } => {
                self.step_json(depth, in_string, escaped, events)
            }
            State::Raw => self.step_raw(events),
            State::Tail => self.step_tail(events),
        }
    }

    fn step_text(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        let tags = self.tags();
        let begins = [tags.section_begin, tags.call_begin];
        let found = begins.iter().filter_map(|tag| Some((self.held.find(tag)?, *tag))).min();
        if let Some((at, tag)) = found {
            // White space before a call belongs to it.
            let before = self.held[..at].trim_end().len();
            self.text(&self.held[..before], events);
            self.held.drain(..before);
            self.raw.clear();
            let is_section = tag == tags.section_begin;
            self.take(at - before + if is_section { tag.len() } else { 0 });
            self.in_section = 0;
            self.state = State::Section;
            return true;
        }
        let partial = partial_suffix(&self.held, begins);
        let shown = self.held[..self.held.len() - partial].trim_end().len();
        self.text(&self.held[..shown], events);
        self.held.drain(..shown);
        false
    }

    fn step_section(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        let tags = self.tags();
        let space = self.held.len() - self.held.trim_start().len();
        let rest = &self.held[space..];
        if rest.starts_with(tags.call_begin) {
            self.take(space + tags.call_begin.len());
            self.state = State::Head;
            return true;
        }
        if rest.starts_with(tags.section_end) && self.in_section > 0 {
            self.held.drain(..space + tags.section_end.len());
            self.state = State::Text;
            return true;
        }
        if tags.call_begin.starts_with(rest) || tags.section_end.starts_with(rest) {
            return false;
        }
        if self.in_section == 0 {
            self.give_up(events);
        }
        self.state = State::Text;
        true
    }

    fn step_head(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        match head(self.format, &self.held) {
            Head::More if self.held.len() <= HEAD_MAX => return false,
            Head::More | Head::Faulty => self.give_up(events),
            Head::Found { name, id, len } => {
                let index = self.calls;
                let id = id.unwrap_or_else(|| format!("call_{}{index}", self.unique));
                events.push(ToolEvent::Call { index, id, name });
                self.calls += 1;
                self.in_section += 1;
                self.raw.clear();
                self.held.drain(..len);
                self.state = if self.held.starts_with('{') {
                    State::Json { depth: 0, in_string: false, escaped: false }
                } else {
                    State::Raw
                };
            }
        }
        true
    }

    fn step_json(
        &mut self,
        mut depth: usize,
        mut in_string: bool,
        mut escaped: bool,
        events: &mut Vec<ToolEvent>,
    ) -> bool {
        for (at, byte) in self.held.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                self.arguments(&self.held[..=at], events);
                self.held.drain(..=at);
                self.state = State::Tail;
                return true;
            }
        }
        let delta = std::mem::take(&mut self.held);
        self.arguments(&delta, events);
        self.state = State::Json { depth, in_string, escaped };
        false
    }

    fn step_raw(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        let Some(at) = self.held.find(self.tags().call_end) else { return false };
        self.arguments(unfenced(&self.held[..at]), events);
        self.held.drain(..at);
        self.state = State::Tail;
        true
    }

    /// Drops what follows the arguments, up to a tag.
    fn step_tail(&mut self, events: &mut Vec<ToolEvent>) -> bool {
        let tags = self.tags();
        let ends = [tags.call_end, tags.section_end, tags.call_begin];
        let found = ends.iter().filter_map(|tag| Some((self.held.find(tag)?, *tag))).min();
        let Some((at, tag)) = found else {
            let partial = partial_suffix(&self.held, ends);
            self.held.drain(..self.held.len() - partial);
            return false;
        };
        self.held.drain(..at + if tag == tags.call_end { tag.len() } else { 0 });
        events.push(ToolEvent::End { index: self.calls - 1 });
        self.state = State::Section;
        true
    }
}

/// Arguments without the fence of a code block.
fn unfenced(text: &str) -> &str {
    text.trim().trim_end_matches("```").trim()
}

enum Head {
    /// The text may still become one.
    More,
    /// It cannot.
    Faulty,
    Found {
        name: String,
        id: Option<String>,
        /// Bytes up to the arguments.
        len: usize,
    },
}

/// The head of a call: what stands before its arguments.
fn head(format: ToolFormat, text: &str) -> Head {
    let tags = format.tags();
    let has_other_tag = |text: &str| {
        let others = [tags.section_begin, tags.section_end, tags.call_begin, tags.call_end];
        others.iter().any(|tag| text.contains(tag))
    };
    let Some((before, after)) = text.split_once(tags.separator) else {
        return if has_other_tag(text) { Head::Faulty } else { Head::More };
    };
    if has_other_tag(before) {
        return Head::Faulty;
    }
    let space = after.len() - after.trim_start().len();
    let at = before.len() + tags.separator.len();
    let found = |name: &str, id: Option<&str>, len: usize| {
        let name = name.trim();
        if name.is_empty() || len > HEAD_MAX || name.contains(['\n', '<']) {
            return Head::Faulty;
        }
        Head::Found { name: name.to_owned(), id: id.map(str::to_owned), len }
    };
    if format == ToolFormat::KimiK2 {
        let id = before.trim();
        let name = id.strip_prefix("functions.").unwrap_or(id);
        let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
        return if space == after.len() { Head::More } else { found(name, Some(id), at + space) };
    }
    // V3.1 has the arguments here, R1 the name: models write one for the other.
    if space == after.len() {
        return Head::More;
    }
    if after[space..].starts_with('{') {
        return found(before, None, at + space);
    }
    if format == ToolFormat::V31 && !before.trim().eq("function") {
        return found(before, None, at + space);
    }
    let Some(end) = after[space..].find(['\n', '{', '`']).map(|end| end + space) else {
        return if has_other_tag(after) { Head::Faulty } else { Head::More };
    };
    match argument_start(after, end) {
        Some(start) => found(&after[..end], None, at + start),
        None => Head::More,
    }
}

/// Where the arguments start after a name that ends at `end`: behind an optional fence. Nothing if
/// the text does not reach so far.
fn argument_start(text: &str, end: usize) -> Option<usize> {
    let rest = text[end..].trim_start();
    let fenced = rest.trim_start_matches('`');
    let fence = rest.len() - fenced.len();
    if fence == 0 {
        return (!rest.is_empty()).then_some(text.len() - rest.len());
    }
    if fence < 3 {
        return None;
    }
    let rest = if "json".starts_with(fenced) {
        return None;
    } else {
        fenced.strip_prefix("json").unwrap_or(fenced)
    };
    let arguments = rest.trim_start();
    (!arguments.is_empty()).then_some(text.len() - arguments.len())
}
