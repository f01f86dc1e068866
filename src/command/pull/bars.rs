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
/// Where a bar has no room beside its text.
const NARROW_TOTAL: &str = "{wide_msg} {percent:>3} %";
const NARROW_FILE: &str = "  {wide_msg} {percent:>3} %";
/// Terminals with fewer columns are narrow.
const WIDE: usize = 80;
/// Columns of ` 100 %`.
const PERCENT: usize = 6;

/// Where progress goes.
#[derive(Debug)]
pub(crate) struct Bars {
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
    pub(crate) fn new(json: bool) -> Self {
        let terminal = (!json && io::stderr().is_terminal()).then(|| {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let total = bars.add(ProgressBar::new(0));
            Terminal { bars, total, files: Vec::new() }
        });
        Self { json, terminal, last: None, again: 0 }
    }

    /// Shows how far it is.
    ///
    /// # Errors
    /// If JSON cannot be written: its reader has gone.
    pub(crate) fn show(&mut self, progress: &Progress, out: &mut dyn Write) -> io::Result<()> {
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
    pub(crate) fn clear(&mut self) {
        if let Some(terminal) = self.terminal.take() {
            let _ = terminal.bars.clear();
        }
    }
}

impl Terminal {
    fn show(&mut self, progress: &Progress) {
        // A terminal may become wider or narrower meanwhile.
        let columns = textwrap::termwidth();
        let is_wide = columns >= WIDE;
        let (total, file_style) = if is_wide { (TOTAL, FILE) } else { (NARROW_TOTAL, NARROW_FILE) };
        self.total.set_style(style(total));
        self.total.set_length(progress.total);
        self.total.set_position(progress.done);
        let room = if is_wide { usize::MAX } else { columns.saturating_sub(PERCENT) };
        self.total.set_message(summary_within(progress, room));
        self.files.resize(progress.files.len(), None);
        for (file, bar) in progress.files.iter().zip(&mut self.files) {
            if file.done == 0 || file.verified {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
                continue;
            }
            let new = || self.bars.add(ProgressBar::new(file.total));
            let bar = bar.get_or_insert_with(new);
            bar.set_style(style(file_style));
            bar.set_length(file.total);
            bar.set_position(file.done);
            bar.set_message(called(file));
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

/// As much of the summary as fits into `room` columns, what matters least left out.
fn summary_within(progress: &Progress, room: usize) -> String {
    let text = summary(progress);
    if text.len() <= room {
        return text;
    }
    let is_under_way = progress.done < progress.total;
    let short = match progress.left().filter(|_| is_under_way) {
        Some(left) => format!("{}, {} left", units::rate(progress.rate), duration(left)),
        None => format!("{} of {}", units::bytes(progress.done), units::bytes(progress.total)),
    };
    match () {
        () if progress.files.iter().any(|file| file.again) => format!("again: {short}"),
        () if progress.following => format!("followed: {short}"),
        () => short,
    }
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

    #[test]
    fn a_narrow_terminal_gets_rate_and_time() {
        let mut progress = Progress { done: 1 << 30, total: 4 << 40, ..Progress::default() };
        assert_eq!(summary_within(&progress, 34), summary(&progress));
        progress.rate = 1e8;
        let narrow = summary_within(&progress, 34);
        assert!(narrow.ends_with(" left") && narrow.len() <= 34, "{narrow}");
        assert_eq!(summary_within(&progress, 80), summary(&progress));
    }
}
