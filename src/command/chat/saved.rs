//! `/save` and `/load`: the messages of a chat as a JSON file.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use cachalot_text::Message;
use serde::{Deserialize, Serialize};

use crate::conversation::Conversation;
use crate::input;
use crate::output::{Kind, Output, Rules, cannot_write};

/// Version of the format.
const VERSION: u32 = 1;

/// A saved conversation. The first key identifies the kind of file.
#[derive(Debug, Deserialize, Serialize)]
struct Saved {
    cachalot_conversation: u32,
    model: String,
    #[serde(default)]
    system: Option<String>,
    messages: Vec<SavedMessage>,
}

#[derive(Debug, Deserialize, Serialize)]
struct SavedMessage {
    role: String,
    content: String,
}

/// Writes the conversation; returns the reply.
pub(super) fn save(conversation: &Conversation, file: &str) -> String {
    let messages = conversation.turns().iter().map(|message| SavedMessage {
        role: message.role.clone(),
        content: message.content.clone().unwrap_or_default(),
    });
    let saved = Saved {
        cachalot_conversation: VERSION,
        model: conversation.info().name.clone(),
        system: conversation.system.clone(),
        messages: messages.collect(),
    };
    match write(Path::new(file), &saved) {
        Ok(()) => format!("Saved {} to {file}.", messages_of(saved.messages.len())),
        Err(error) => format!("{error:#}"),
    }
}

/// Replaces the conversation by a saved one; returns the reply.
pub(super) fn load(conversation: &mut Conversation, file: &str) -> String {
    match read(Path::new(file)) {
        Ok(saved) => {
            let turns = saved.messages.iter();
            let turns: Vec<Message> =
                turns.map(|message| Message::new(&message.role, &message.content)).collect();
            let reply = format!("Loaded {} from {file}.", messages_of(turns.len()));
            conversation.set_turns(turns);
            conversation.system = saved.system;
            reply
        }
        Err(error) => format!("{error:#}"),
    }
}

fn write(path: &Path, saved: &Saved) -> anyhow::Result<()> {
    let rules = Rules { kind: Kind::Conversation, inputs: &[], force: false };
    let mut output = Output::create(path, rules)?;
    let json = serde_json::to_string(saved)?;
    writeln!(output.file(), "{json}").with_context(|| cannot_write(path))?;
    output.commit()
}

fn read(path: &Path) -> anyhow::Result<Saved> {
    let name = path.display();
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {name}"))?;
    ensure!(metadata.is_file(), "cannot read {name}: it is not a regular file");
    let saved: Saved = serde_json::from_str(&input::file(path)?)
        .with_context(|| format!("{name} is not a saved conversation"))?;
    let version = saved.cachalot_conversation;
    ensure!(version == VERSION, "{name} is of version {version}: this program reads {VERSION}");
    for (i, message) in saved.messages.iter().enumerate() {
        let expected = if i % 2 == 0 { "user" } else { "assistant" };
        if message.role != expected {
            bail!("{name}: message {} is of `{}` instead of `{expected}`", i + 1, message.role);
        }
    }
    ensure!(saved.messages.len().is_multiple_of(2), "{name}: the last question has no answer");
    Ok(saved)
}

fn messages_of(count: usize) -> String {
    format!("{count} message{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back_and_anything_else_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat.json");
        let message = |role: &str, content: &str| SavedMessage {
            role: role.to_owned(),
            content: content.to_owned(),
        };
        let messages = vec![message("user", "hi"), message("assistant", "Hello!\n")];
        let system = Some("Be brief.".to_owned());
        let mut saved =
            Saved { cachalot_conversation: VERSION, model: "calf".to_owned(), system, messages };
        write(&path, &saved).unwrap();
        write(&path, &saved).unwrap(); // a saved conversation may be replaced
        let read_back = read(&path).unwrap();
        assert_eq!(read_back.system.as_deref(), Some("Be brief."));
        assert_eq!(read_back.messages[1].content, "Hello!\n");
        saved.messages.pop();
        write(&path, &saved).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("has no answer"));
        for bad in ["", "hello", "{\"messages\": []}", "[]"] {
            fs::write(&path, bad).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains("not a saved conversation"));
        }
        fs::write(&path, "a letter").unwrap();
        assert!(write(&path, &saved).unwrap_err().to_string().contains("not a saved conversation"));
        assert!(read(folder.path()).unwrap_err().to_string().contains("not a regular file"));
    }
}
