//! `/completion`: the text that continues a prompt, whole or in events.

use serde_json::{Map, Value, json};

use crate::error::{ApiError, Family};
use crate::generate::{Answer, Live, Outcome, Piece, Probed};
use crate::openai::wire::{Timings, logprobs};
use crate::respond::{Dialect, SSE, comment, event};

/// What a client wants in the answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) tokens: bool,
    pub(crate) probs: bool,
    /// Probabilities in place of their logarithms.
    pub(crate) post_sampling: bool,
    pub(crate) progress: bool,
    /// Timings with every event.
    pub(crate) timings: bool,
    pub(crate) fields: Vec<String>,
    /// One answer, not a list.
    pub(crate) single: bool,
}

/// Writes completions.
pub(crate) struct CompletionStream {
    model: String,
    prompts: Vec<String>,
    settings: Map<String, Value>,
    wanted: Wanted,
    /// Per answer: whether there was a line break.
    new_line: Vec<bool>,
}

impl CompletionStream {
    pub(crate) fn new(
        model: String,
        prompts: Vec<String>,
        settings: Map<String, Value>,
        wanted: Wanted,
    ) -> Self {
        let new_line = vec![false; prompts.len()];
        Self { model, prompts, settings, wanted, new_line }
    }

    fn probs(&self, tokens: &[Probed]) -> Value {
        let mut probs = json!(logprobs(tokens));
        if self.wanted.post_sampling {
            for token in probs.as_array_mut().into_iter().flatten() {
                as_probability(token);
                let tops = token.get_mut("top_logprobs").map(Value::take).unwrap_or_default();
                let mut tops = tops;
                tops.as_array_mut().into_iter().flatten().for_each(as_probability);
                if let Some(object) = token.as_object_mut() {
                    object.remove("top_logprobs");
                    object.insert("top_probs".to_owned(), tops);
                }
            }
        }
        probs
    }

    fn text(&self, n: usize, text: &str, tokens: &[Probed], live: &Live) -> Value {
        let mut event = json!({
            "index": n, "content": text, "tokens": ids(tokens), "stop": false, "id_slot": n,
            "tokens_predicted": live.generated, "tokens_evaluated": live.prompt,
        });
        if self.wanted.timings {
            event["timings"] = json!(Timings::of(live));
        }
        if self.wanted.probs {
            event["completion_probabilities"] = self.probs(tokens);
        }
        event
    }

    /// The last event of an answer; of a whole answer, all of it.
    fn last(&self, n: usize, outcome: &Outcome) -> Value {
        let live = &outcome.live;
        let mut settings = self.settings.clone();
        settings.insert("seed".to_owned(), outcome.seed.into());
        let prompt = self.prompts.get(n).map(String::as_str).unwrap_or_default();
        json!({
            "index": n, "content": "", "tokens": [], "id_slot": n, "stop": true,
            "model": self.model, "tokens_predicted": live.generated,
            "tokens_evaluated": live.prompt, "generation_settings": settings, "prompt": prompt,
            "has_new_line": self.new_line.get(n).copied().unwrap_or(false),
            "truncated": outcome.truncated,
            "stop_type": outcome.end.stop_type(),
            "stopping_word": outcome.stop_text.as_deref().unwrap_or_default(),
            "tokens_cached": live.prompt + live.generated, "timings": Timings::of(live),
        })
    }

    /// Only the fields that were asked for.
    fn selected(&self, answer: Value) -> Value {
        if self.wanted.fields.is_empty() {
            return answer;
        }
        let mut selected = Map::new();
        for field in &self.wanted.fields {
            let pointer = format!("/{field}");
            if let Some(value) = answer.pointer(&pointer) {
                selected.insert(field.clone(), value.clone());
            }
        }
        Value::Object(selected)
    }
}

fn ids(tokens: &[Probed]) -> Vec<u32> {
    tokens.iter().map(|token| token.id).collect()
}

fn as_probability(token: &mut Value) {
    let Some(object) = token.as_object_mut() else { return };
    if let Some(logprob) = object.remove("logprob").as_ref().and_then(Value::as_f64) {
        object.insert("prob".to_owned(), json!(logprob.exp()));
    }
}

impl Dialect for CompletionStream {
    const MEDIA: &'static str = SSE;

    fn piece(&mut self, n: usize, piece: &Piece, live: &Live, out: &mut Vec<u8>) {
        match piece {
            Piece::Prefill { done, total, cached } if self.wanted.progress => {
                let ms = live.prefill.as_secs_f64() * 1e3;
                let progress =
                    json!({ "total": total, "cache": cached, "processed": done, "time_ms": ms });
                let mut data = self.text(n, "", &[], live);
                data["prompt_progress"] = progress;
                if self.wanted.timings {
                    data["timings"] = json!(Timings::of_prompt(live, *done));
                }
                event(out, None, &data);
            }
            Piece::Reasoning(text) | Piece::Content(text)
                if !text.text.is_empty() || !text.tokens.is_empty() =>
            {
                if let Some(new_line) = self.new_line.get_mut(n) {
                    *new_line |= text.text.contains('\n');
                }
                event(out, None, &self.text(n, &text.text, &text.tokens, live));
            }
            Piece::Done(outcome) => {
                let last = self.last(n, outcome);
                event(out, None, &self.selected(last));
            }
            _ => {}
        }
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        event(out, None, &error.body(Family::OpenAi));
    }

    fn ping(&self, out: &mut Vec<u8>) {
        comment(out);
    }

    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let mut all = Vec::with_capacity(answers.len());
        for (n, answer) in answers.into_iter().enumerate() {
            let Some(outcome) = &answer.outcome else { continue };
            if let Some(new_line) = self.new_line.get_mut(n) {
                *new_line = answer.content.contains('\n');
            }
            let mut whole = self.last(n, outcome);
            whole["content"] = answer.content.into();
            if self.wanted.tokens {
                whole["tokens"] = json!(ids(&answer.tokens));
            }
            if self.wanted.probs {
                whole["completion_probabilities"] = self.probs(&answer.tokens);
            }
            all.push(self.selected(whole));
        }
        if self.wanted.single { all.pop().unwrap_or_default() } else { Value::Array(all) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{End, Text};

    fn done() -> Piece {
        let live = Live { prompt: 3, generated: 2, ..Live::default() };
        let stop_text = Some("END".to_owned());
        Piece::Done(Outcome { end: End::StopText, stop_text, seed: 9, live, truncated: false })
    }

    fn stream(wanted: Wanted) -> CompletionStream {
        let settings = json!({ "n_predict": 4 }).as_object().unwrap().clone();
        CompletionStream::new("m".to_owned(), vec!["p".to_owned()], settings, wanted)
    }

    #[test]
    fn events_have_text_and_tokens_and_the_last_one_says_why() {
        let mut stream = stream(Wanted { single: true, ..Wanted::default() });
        let token = Probed { id: 7, bytes: b"a\n".to_vec(), logprob: None, top: Vec::new() };
        let text = Text { text: "a\n".to_owned(), tokens: vec![token] };
        let mut out = Vec::new();
        stream.piece(0, &Piece::Content(text), &Live::default(), &mut out);
        stream.piece(0, &done(), &Live::default(), &mut out);
        let out = String::from_utf8(out).unwrap();
        let events: Vec<Value> = out
            .split_terminator("\n\n")
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect();
        assert_eq!((&events[0]["content"], &events[0]["tokens"]), (&json!("a\n"), &json!([7])));
        assert_eq!((&events[0]["stop"], &events[1]["stop"]), (&json!(false), &json!(true)));
        assert_eq!(events[1]["stop_type"], "word");
        assert_eq!(events[1]["stopping_word"], "END");
        assert_eq!(events[1]["has_new_line"], true);
        assert_eq!(events[1]["generation_settings"]["seed"], 9);
    }

    #[test]
    fn fields_are_selected_by_path() {
        let fields = vec!["content".to_owned(), "generation_settings/n_predict".to_owned()];
        let mut stream = stream(Wanted { fields, single: true, ..Wanted::default() });
        let mut answer = Answer { content: "x".to_owned(), ..Answer::default() };
        answer.push(done());
        assert_eq!(
            stream.whole(vec![answer]),
            json!({ "content": "x", "generation_settings/n_predict": 4 })
        );
    }
}
