//! Adds the commit to the version of release builds: `0.1.0 (1a2b3c4)`. Without git, or outside a
//! repository, the version stays as it is. Debug builds skip this, or every commit would rebuild
//! them.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name| std::env::var(name).unwrap_or_default();
    if variable("PROFILE") != "release" {
        return;
    }
    // The log of HEAD grows with every commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    // In an unpacked archive inside another repository, git would name that repository's commit.
    let is_ours = git(&["ls-files", "build.rs"]).is_some_and(|found| !found.is_empty());
    if let Some(commit) = git(&["rev-parse", "--short", "HEAD"]).filter(|_| is_ours) {
        println!("cargo::rustc-env=CACHALOT_VERSION={} ({commit})", variable("CARGO_PKG_VERSION"));
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.trim().to_owned())
}
