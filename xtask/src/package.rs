//! What is made for packages: man pages, and a small binary with its debug lines apart.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Where the man pages are kept.
const MAN: &str = "packaging/man";

/// Writes the man pages again; `tests/man.rs` finds out when that is due.
///
/// # Errors
/// If the program cannot be built, or the pages cannot be written.
pub(crate) fn man(root: &Path) -> anyhow::Result<()> {
    run(root, "cargo", &["run", "--quiet", "--package", "cachalot", "--", "man", MAN])
}

/// Builds `target/dist/cachalot` without debug lines, and `cachalot.debug` with them, which
/// debuggers and profilers find beside it.
///
/// # Errors
/// If cargo or objcopy fails.
pub(crate) fn dist(root: &Path) -> anyhow::Result<()> {
    run(root, "cargo", &["build", "--profile", "dist", "--package", "cachalot"])?;
    let folder = root.join("target/dist");
    run(&folder, "objcopy", &["--only-keep-debug", "cachalot", "cachalot.debug"])?;
    run(&folder, "objcopy", &["--strip-debug", "cachalot"])?;
    run(&folder, "objcopy", &["--remove-section=.gnu_debuglink", "cachalot"])?;
    run(&folder, "objcopy", &["--add-gnu-debuglink=cachalot.debug", "cachalot"])
}

fn run(folder: &Path, program: &str, args: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program).args(args).current_dir(folder).status();
    let status = status.with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} {}: {status}", args.join(" "));
    Ok(())
}
