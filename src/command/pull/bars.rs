//! Progress of a download: bars on a terminal, a line now and then elsewhere, or JSON.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use cachalot_hub::{FileProgress, Progress};
use cachalot_plan::units;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

/// Between two lines, where there is no terminal.
const LINES: Duration = Duration::from_secs(10);
/// Between two lines of JSON.
const JSON_LINES: Duration = Duration::from_millis(500);
const TOTAL: &str = "{msg} {wide_bar} {percent:>3} %";
const FILE: &str = "  {msg:40!} {wide_bar} {percent:>3} %";

/// Where progress goes.
#[derive(Debug)]
pub(super) struct Bars {
    json: bool,
    terminal: Option<Terminal>,
    last: Option<Instant>,
    /// Files that have been said to be fetched again.
    again: usize,
}

#[derive(Debug)]
struct Terminal {
    bars: MultiProgress,
    total: ProgressBar,
    files: Vec<Option<ProgressBar>>,
}

impl Bars {
    pub(super) fn new(json: bool) -> Self {
        let terminal = (!json && io::stderr().is_terminal()).then(|| {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let total = bars.add(ProgressBar::new(0).with_style(style(TOTAL)));
            Terminal { bars, total, files: Vec::new() }
        });
        Self { json, terminal, last: None, again: 0 }
    }

    /// Shows how far it is.
    ///
    /// # Errors
    /// If JSON cannot be written: its reader has gone.
    pub(super) fn show(&mut self, progress: &Progress, out: &mut dyn Write) -> io::Result<()> {
        if let Some(terminal) = &mut self.terminal {
            terminal.show(progress);
            return Ok(());
        }
        let pause = if self.json { JSON_LINES } else { LINES };
        let again = progress.files.iter().filter(|file| file.again).count();
        let is_due = self.last.is_none_or(|last| last.elapsed() >= pause);
        let is_over = progress.done == progress.total;
        if !is_due && !is_over && again <= self.again {
            return Ok(());
        }
        (self.last, self.again) = (Some(Instant::now()), again.max(self.again));
        if self.json {
            writeln!(out, "{}", line(progress))?;
            out.flush()
        } else {
            eprintln!("{}", summary(progress));
            Ok(())
        }
    }

    /// Takes the bars away.
    pub(super) fn clear(&mut self) {
        if let Some(terminal) = self.terminal.take() {
            let _ = terminal.bars.clear();
        }
    }
}

impl Terminal {
    fn show(&mut self, progress: &Progress) {
        self.total.set_length(progress.total);
        self.total.set_position(progress.done);
        self.total.set_message(summary(progress));
        self.files.resize(progress.files.len(), None);
        for (file, bar) in progress.files.iter().zip(&mut self.files) {
            let is_active = file.done > 0 && !file.verified;
            match bar {
                Some(bar) if is_active => {
                    bar.set_length(file.total);
                    bar.set_position(file.done);
                    bar.set_message(called(file));
                }
                Some(_) => {
                    if let Some(bar) = bar.take() {
                        bar.finish_and_clear();
                        self.bars.remove(&bar);
                    }
                }
                None if is_active => {
                    let new = ProgressBar::new(file.total).with_style(style(FILE));
                    *bar = Some(self.bars.add(new));
                }
                None => {}
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that is invalid would be a bug; the default bar is good enough then.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn called(file: &FileProgress) -> String {
    match (file.again, file.done >= file.total) {
        (true, _) => format!("again: {}", file.name),
        (false, true) => format!("verifying {}", file.name),
        (false, false) => file.name.clone(),
    }
}

/// `1.2 GiB of 376.7 GiB, 52.1 MB/s, 2 h 3 min left`.
fn summary(progress: &Progress) -> String {
    let (done, total) = (units::bytes(progress.done), units::bytes(progress.total));
    let mut text = format!("{done} of {total}");
    if progress.rate > 0.0 && progress.done < progress.total {
        text += &format!(", {}", units::rate(progress.rate));
        if let Some(left) = progress.left() {
            text += &format!(", {} left", duration(left));
        }
    }
    let again: Vec<&str> =
        progress.files.iter().filter(|file| file.again).map(|file| file.name.as_str()).collect();
    if !again.is_empty() {
        text += &format!(", again: {}", again.join(", "));
    } else if progress.done == progress.total && progress.verified < progress.total {
        text += ", verifying";
    }
    if progress.following {
        text += " (another process downloads it)";
    }
    text
}

/// `2 h 3 min`, `4 min`, `5 s`.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn line(progress: &Progress) -> serde_json::Value {
    let files: Vec<_> = progress
        .files
        .iter()
        .map(|file| {
            json!({ "name": file.name, "done": file.done, "total": file.total,
                    "verified": file.verified, "again": file.again })
        })
        .collect();
    json!({
        "status": "pulling",
        "done": progress.done,
        "total": progress.total,
        "verified": progress.verified,
        "resumed": progress.resumed,
        "bytes_per_second": progress.rate.round(),
        "following": progress.following,
        "files": files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_said_in_a_line() {
        let mut progress = Progress { done: 1 << 30, total: 4 << 30, ..Progress::default() };
        assert_eq!(summary(&progress), "1.0 GiB of 4.0 GiB");
        progress.rate = f64::from(1 << 20);
        assert!(summary(&progress).ends_with("51 min left"), "{}", summary(&progress));
        progress.done = progress.total;
        assert!(summary(&progress).ends_with("verifying"));
        let again = FileProgress { name: "x".into(), again: true, ..FileProgress::default() };
        progress.files.push(again);
        assert!(summary(&progress).ends_with("again: x"));
        assert_eq!(duration(Duration::from_secs(7400)), "2 h 3 min");
    }
}
