//! `cachalot ps`: what a running server is doing.

use std::io::Write;

use cachalot_plan::units;
use clap::Args;
use serde_json::Value;

use crate::client::{ServerArgs, ask};
use crate::settings::Environment;
use crate::terminal::without_controls;

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Print all that the server says, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints the model and its requests.
pub(crate) fn run(
    args: &PsArgs,
    environment: &Environment,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let status = ask(&args.server, environment, "GET", "/api/cachalot/status")?;
    if args.json {
        writeln!(out, "{status:#}")?;
        return Ok(());
    }
    let text = |value: &Value| without_controls(value.as_str().unwrap_or_default()).into_owned();
    let state = text(&status["state"]);
    match status["model"].as_object() {
        None => {
            let share = status["load"]["fraction"].as_f64().unwrap_or(0.0);
            writeln!(out, "{state}: {:.0} % of the model is loaded", share * 100.0)?;
        }
        Some(model) => {
            let bytes = model["bytes"].as_u64().unwrap_or(0);
            let context = units::grouped(model["context"].as_u64().unwrap_or(0));
            let (id, kind) = (text(&model["id"]), text(&model["quantization"]));
            let size = units::bytes(bytes);
            writeln!(out, "{id}  {size}  {kind}  context {context}  {state}")?;
        }
    }
    let sequences = status["sequences"].as_array().cloned().unwrap_or_default();
    for sequence in &sequences {
        let (id, phase) = (text(&sequence["id"]), text(&sequence["phase"]));
        let (prompt, tokens) = (&sequence["prompt_tokens"], &sequence["tokens"]);
        let rate = sequence["tokens_per_s"].as_f64().unwrap_or(0.0);
        writeln!(out, "  {id}  {phase}  {prompt} prompt tokens, {tokens} generated, {rate:.1}/s")?;
    }
    if sequences.is_empty() {
        writeln!(out, "  no requests")?;
    }
    Ok(())
}
