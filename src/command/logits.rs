//! `cachalot logits`: the logits of given tokens, for comparing runtimes.

use std::io::{BufWriter, Write};

use anyhow::Context;
use cachalot_engine::layout::{Engine, Source};
use cachalot_gguf::split::part_paths;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::args::LogitsArgs;
use crate::interrupt::Interrupt;
use crate::output::{self, Kind, Output, Rules, cannot_write};
use crate::settings::{Environment, model_options};
use crate::terminal::{Progress, loading};

/// Writes the file; on failure, nothing is left behind and an existing file is unchanged.
pub(crate) fn run(args: &LogitsArgs, environment: &Environment) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let source = Source::File(args.file.clone());
    let mut options = model_options(&args.model, environment);
    let inputs = part_paths(&args.file);
    let rules = Rules { kind: Kind::Safetensors, inputs: &inputs, force: args.output.force };
    let mut output = Output::create(&args.out, rules)?;
    let trace = output::trace(&args.output, &inputs, &mut options)?;
    let mut engine = loading(|progress| Engine::load(&source, &options, progress))?;

    let (rows, vocabulary) = (args.tokens.len(), engine.vocab().len());
    let header = header(rows, vocabulary)?;
    let cannot_write = || cannot_write(&args.out);
    let mut progress = Progress::new("computing");
    let mut done = 0;
    interrupt.during(|cancel| {
        let mut out = BufWriter::new(output.file());
        out.write_all(&header).with_context(cannot_write)?;
        engine.logits(&args.tokens, cancel, |logits| -> anyhow::Result<()> {
            let mut numbers = logits.iter();
            numbers
                .try_for_each(|number| out.write_all(&number.to_le_bytes()))
                .with_context(cannot_write)?;
            done += logits.len() / vocabulary;
            progress.set(done as u64, rows as u64);
            Ok(())
        })?;
        out.flush().with_context(cannot_write)
    })?;
    progress.clear();
    drop(engine); // which writes the rest of the trace
    output.commit()?;
    trace.map_or(Ok(()), Output::commit)
}

/// Everything before the numbers: the length of the metadata in 8 bytes, and the metadata.
fn header(rows: usize, vocabulary: usize) -> anyhow::Result<Vec<u8>> {
    let end = rows * vocabulary * size_of::<f32>();
    let tensor =
        TensorInfo { dtype: Dtype::F32, shape: vec![rows, vocabulary], data_offsets: (0, end) };
    let metadata = Metadata::new(None, vec![("logits".to_owned(), tensor)])?;
    let mut json = serde_json::to_vec(&metadata)?;
    json.resize(json.len().next_multiple_of(8), b' '); // so that the numbers are aligned
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    Ok(header)
}
