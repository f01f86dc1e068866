//! `cachalot logits`: the logits of given tokens, for comparing runtimes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use cachalot_engine::{Engine, Source};
use tempfile::{Builder, NamedTempFile};

use crate::args::LogitsArgs;
use crate::interrupt::Interrupt;
use crate::settings::{Environment, model_options};
use crate::terminal::Progress;

/// Writes the file; on failure, nothing is left behind and an existing file is unchanged.
pub(crate) fn run(args: &LogitsArgs, environment: &Environment) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let source = Source::File(args.file.clone());
    let mut progress = Progress::new("loading");
    let options = model_options(&args.model, environment);
    let mut engine = Engine::load(&source, &options, &mut |done, all| progress.set(done, all))?;
    progress.clear();

    let (rows, vocabulary) = (args.tokens.len(), engine.vocab().len());
    let cannot_write = || format!("cannot write {}", args.out.display());
    let mut file = temporary(&args.out).with_context(cannot_write)?;
    let mut progress = Progress::new("computing");
    let mut done = 0;
    interrupt.during(|cancel| {
        let mut out = BufWriter::new(file.as_file_mut());
        write_header(&mut out, rows, vocabulary).with_context(cannot_write)?;
        engine.logits(&args.tokens, cancel, |logits| -> anyhow::Result<()> {
            write_numbers(&mut out, logits).with_context(cannot_write)?;
            done += logits.len() / vocabulary;
            progress.set(done as u64, rows as u64);
            Ok(())
        })?;
        out.flush().with_context(cannot_write)
    })?;
    progress.clear();
    file.persist(&args.out).map_err(|error| error.error).with_context(cannot_write)?;
    Ok(())
}

/// A file next to `path` that replaces it when complete.
fn temporary(path: &Path) -> std::io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = Builder::new();
    builder.prefix(".logits-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666)); // minus the umask
    }
    builder.tempfile_in(folder.unwrap_or(Path::new(".")))
}

/// The format is a length of 8 bytes, that many bytes of JSON, and the numbers
/// (<https://github.com/huggingface/safetensors>).
fn write_header(out: &mut impl Write, rows: usize, vocabulary: usize) -> std::io::Result<()> {
    let end = rows * vocabulary * size_of::<f32>();
    let logits = serde_json::json!({
        "logits": { "dtype": "F32", "shape": [rows, vocabulary], "data_offsets": [0, end] }
    });
    let mut header = logits.to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' '); // so that the numbers are aligned
    }
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())
}

fn write_numbers(out: &mut BufWriter<&mut File>, numbers: &[f32]) -> std::io::Result<()> {
    numbers.iter().try_for_each(|number| out.write_all(&number.to_le_bytes()))
}
