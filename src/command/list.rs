//! `cachalot list`: the models on this machine, of all programs, and unfinished downloads.

use std::io::Write;
use std::time::SystemTime;

use anyhow::anyhow;
use cachalot_hub::{Model, Partial, Place};
use cachalot_plan::units;
use serde_json::json;

use crate::models;
use crate::settings::Environment;
use crate::terminal::{prose, table, without_controls};

/// Options of `cachalot list`.
#[derive(clap::Args, Debug)]
pub(crate) struct ListArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Lists everything.
pub(crate) fn run(
    args: &ListArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let library = models::library(environment)
        .ok_or_else(|| anyhow!("there is no folder for models: set CACHALOT_MODELS (or HOME)"))?;
    let listing = library.list();
    for warning in &listing.warnings {
        eprintln!("warning: {}", without_controls(warning));
    }
    if args.json {
        let models: Vec<_> = listing.models.iter().map(model_json).collect();
        let partials: Vec<_> = listing.partials.iter().map(partial_json).collect();
        let object = json!({ "library": library.root(), "models": models, "unfinished": partials,
                             "warnings": listing.warnings });
        writeln!(out, "{}", serde_json::to_string_pretty(&object)?)?;
        return Ok(out.flush()?);
    }
    if listing.models.is_empty() && listing.partials.is_empty() {
        let text = format!(
            "No models yet in {}.\n\
             `cachalot plan` says which run here, `cachalot pull NAME` downloads one.",
            library.root().display()
        );
        writeln!(out, "{}", prose(&text))?;
        return Ok(out.flush()?);
    }
    let mut rows = vec![["name", "size", "where", "modified"].map(str::to_owned).to_vec()];
    rows.extend(listing.partials.iter().map(|partial| {
        vec![
            partial.name.to_string(),
            units::bytes(partial.size),
            format!("{}, {}", percent(partial), state(partial)),
            String::new(),
        ]
    }));
    rows.extend(listing.models.iter().map(|model| {
        vec![
            model.name.to_string(),
            units::bytes(model.size()),
            place(model.place).to_owned(),
            age(model.modified),
        ]
    }));
    out.write_all(without_controls(&table("lrll", &rows)).as_bytes())?;
    Ok(out.flush()?)
}

fn percent(partial: &Partial) -> String {
    let share = partial.done as f64 / partial.size.max(1) as f64 * 100.0;
    format!("{:.1} %", (share * 10.0).floor() / 10.0)
}

fn state(partial: &Partial) -> &'static str {
    if partial.running { "downloading" } else { "unfinished: pull it again" }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Library => "library",
        Place::Imported => "imported",
        Place::Ollama => "Ollama's store",
        Place::HuggingFace => "Hugging Face's cache",
    }
}

/// `3 days ago`.
fn age(time: SystemTime) -> String {
    let seconds = time.elapsed().map_or(0, |age| age.as_secs());
    let (count, unit) = match seconds {
        0..60 => return "just now".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..5_184_000 => (seconds / 86_400, "day"),
        _ => (seconds / 2_592_000, "month"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

fn model_json(model: &Model) -> serde_json::Value {
    let files: Vec<_> = model
        .files
        .iter()
        .map(|file| {
            json!({ "path": file.path, "name": file.name, "size": file.size,
                    "sha256": file.sha256.map(|hash| hash.to_string()) })
        })
        .collect();
    let modified = model.modified.duration_since(SystemTime::UNIX_EPOCH);
    json!({
        "name": model.name.to_string(),
        "size": model.size(),
        "where": place(model.place),
        "modified": modified.map_or(0, |since| since.as_secs()),
        "digest": model.digest.to_string(),
        "files": files,
    })
}

fn partial_json(partial: &Partial) -> serde_json::Value {
    json!({
        "name": partial.name.to_string(),
        "size": partial.size,
        "done": partial.done,
        "running": partial.running,
        "folder": partial.folder,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ages_are_rounded_down() {
        let ago = |seconds| age(SystemTime::now() - Duration::from_secs(seconds));
        assert_eq!(ago(5), "just now");
        assert_eq!(ago(61), "1 minute ago");
        assert_eq!(ago(7300), "2 hours ago");
        assert_eq!(ago(86_400 * 70), "2 months ago");
    }
}
