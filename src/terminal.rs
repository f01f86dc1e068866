//! What people see: the stream of an answer, progress bars, times in words.
//!
//! Colour and control codes go to a terminal only. What a pipe gets instead of dimmed thoughts are
//! the model's own `<think>` tags, so that a program can take the answer apart.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use cachalot_engine::{CacheStats, Streaming};
use cachalot_plan::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";
/// Between the columns of a table.
const GAP: &str = "  ";
/// Characters of a line of a table, if its last column can be wrapped to that, and the least it is wrapped to.
const LINE: usize = 100;
const CELL_MIN: usize = 32;

/// How to write to one of the standard streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// It is a terminal.
    pub(crate) terminal: bool,
    /// It is to have colour, too.
    pub(crate) colour: bool,
}

impl Look {
    /// Looks at a stream; `colour_allowed` is what the user's environment says.
    pub(crate) fn of(stream: &impl IsTerminal, colour_allowed: bool) -> Self {
        let terminal = stream.is_terminal();
        Self { terminal, colour: terminal && colour_allowed }
    }

    /// `text`, dimmed where there is colour.
    pub(crate) fn dim(self, text: &str) -> String {
        if self.colour { format!("{DIM}{text}{RESET}") } else { text.to_owned() }
    }
}

/// Writes one answer as it comes.
#[derive(Debug)]
pub(crate) struct AnswerWriter<W: Write> {
    out: W,
    look: Look,
    hide_thinking: bool,
    part: Part,
    at_line_start: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Nothing,
    Thoughts,
    Answer,
}

impl<W: Write> AnswerWriter<W> {
    pub(crate) fn new(out: W, look: Look, hide_thinking: bool) -> Self {
        Self { out, look, hide_thinking, part: Part::Nothing, at_line_start: true }
    }

    /// More of the thoughts.
    pub(crate) fn reasoning(&mut self, text: &str) -> io::Result<()> {
        if self.hide_thinking || text.is_empty() {
            return Ok(());
        }
        if self.part != Part::Thoughts {
            self.end_part()?;
            self.part = Part::Thoughts;
            if !self.look.colour {
                self.put("<think>\n")?;
            }
        }
        self.text(text)
    }

    /// More of the answer.
    pub(crate) fn answer(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if self.part != Part::Answer {
            self.end_part()?;
            self.part = Part::Answer;
        }
        self.text(text)
    }

    /// Ends the answer, however far it came.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if self.part == Part::Answer {
            self.end_line()?;
        } else {
            self.end_part()?;
        }
        self.out.flush()
    }

    fn end_part(&mut self) -> io::Result<()> {
        if self.part == Part::Thoughts {
            self.end_line()?;
            self.put(if self.look.colour { "\n" } else { "</think>\n\n" })?;
        }
        Ok(())
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.at_line_start { Ok(()) } else { self.put("\n") }
    }

    /// Text of the model. Each piece is dimmed for itself: whenever the program ends, the terminal
    /// is left as it was found.
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.at_line_start = text.ends_with('\n');
        let shown = if self.look.terminal { without_controls(text) } else { text.into() };
        match self.part {
            Part::Thoughts => write!(self.out, "{}", self.look.dim(&shown))?,
            _ => write!(self.out, "{shown}")?,
        }
        self.out.flush()
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.at_line_start = text.ends_with('\n');
        self.out.write_all(text.as_bytes())
    }
}

/// The text with nothing in it that could steer a terminal: neither what a model says nor what its file
/// says of itself is ours.
pub(crate) fn without_controls(text: &str) -> std::borrow::Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(steers) { text.replace(steers, "\u{FFFD}").into() } else { text.into() }
}

/// A progress bar on standard error, if that is a terminal, of work that proves to take time.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Work shorter than this needs no bar.
    const PATIENCE: Duration = Duration::from_millis(500);

    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, begun: Instant::now(), bar: None }
    }

    /// So much is done.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        if self.bar.is_none() && self.begun.elapsed() >= Self::PATIENCE {
            let target = ProgressDrawTarget::stderr();
            let bar = ProgressBar::with_draw_target(Some(total), target).with_message(self.what);
            // A faulty template would be a fault of ours; the plain bar is good enough then.
            let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} % {eta:>4}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = bar.with_style(style).with_position(done).with_elapsed(self.begun.elapsed());
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// More of the work is done, but nobody knows of how much.
    pub(crate) fn pulse(&mut self) {
        if self.bar.is_none() && self.begun.elapsed() >= Self::PATIENCE {
            let target = ProgressDrawTarget::stderr();
            let bar = ProgressBar::with_draw_target(None, target).with_message(self.what);
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            self.bar = Some(bar.with_style(style));
        }
        if let Some(bar) = &self.bar {
            bar.tick();
        }
    }

    /// The work is done; the bar goes away.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// `12 ms`, `3.41 s`, `2 min 5 s`.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        ..60.0 => format!("{seconds:.2} s"),
        _ => format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0),
    }
}

/// Lines of aligned columns; `sides` has an `l` or `r` for each column.
pub(crate) fn table(sides: &str, rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..sides.len()).map(|column| width(column).unwrap_or(0)).collect();
    let last = sides.len().saturating_sub(1);
    let before = widths[..last].iter().map(|width| width + GAP.len()).sum::<usize>();
    let room =
        if sides.ends_with('l') { LINE.saturating_sub(before).max(CELL_MIN) } else { usize::MAX };
    let mut table = String::new();
    for row in rows {
        let mut rest = Vec::new();
        let cells = row.iter().zip(&widths).zip(sides.chars()).enumerate();
        let cells = cells.map(|(column, ((cell, width), side))| match side {
            'l' if column == last => {
                let mut lines = wrapped(cell, room).into_iter();
                let first = lines.next().unwrap_or_default();
                rest.extend(lines);
                first
            }
            'l' => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        table += cells.collect::<Vec<_>>().join(GAP).trim_end();
        table.push('\n');
        for line in rest {
            table += &format!("{:before$}{line}\n", "");
        }
    }
    table
}

/// Text in lines of at most `room` characters, as far as its words are not longer.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a first line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// `0.85 GB`: decimal, as rates of drives and memory are given.
pub(crate) fn gigabytes(bytes: f64) -> String {
    format!("{:.2} GB", bytes / 1e9)
}

/// What there is of the experts in memory, and where the others come from.
pub(crate) fn streaming(streaming: &Streaming) -> String {
    let rate = streaming.rate;
    let how = if rate.direct { "directly" } else { "through the page cache" };
    let locked =
        if streaming.is_locked { "" } else { "; not locked in memory: `ulimit -l` is low" };
    format!(
        "{} of {} in memory; others read {how} with {} at {}/s{locked}",
        units::bytes(streaming.cache_bytes()),
        units::bytes(streaming.routed),
        rate.reader,
        gigabytes(rate.bytes_per_second),
    )
}

/// What streaming experts took for some tokens, and what it was bound by.
pub(crate) fn streamed(
    streaming: &Streaming,
    stats: &CacheStats,
    tokens: usize,
    time: Duration,
) -> String {
    let waited = stats.waited.as_secs_f64() / time.as_secs_f64().max(1e-9);
    let mut text = format!(
        "{:.1} % found in memory, {} read per token at {}/s of {}/s, {:.0} % of the time waiting: bound by \
         {}",
        100.0 * stats.hit_rate(),
        gigabytes(stats.bytes as f64 / tokens.max(1) as f64),
        gigabytes(stats.read_rate()),
        gigabytes(streaming.rate.bytes_per_second),
        100.0 * waited,
        if waited > 0.5 { "disk" } else { "compute" },
    );
    let guessed = stats.foreseen + stats.wasted;
    if guessed > 0 {
        text += &format!("; {} of {guessed} guesses were right", stats.foreseen);
    }
    if let Some(agreement) = stats.agreement() {
        text += &format!(
            "; results changed by --prefer-cached: {:.1} % of the picks are the router's own",
            100.0 * agreement
        );
    }
    text
}

/// The line for a drive that has been slower than it was, for long.
pub(crate) fn slow_drive(streaming: &Streaming, stats: &CacheStats) -> Option<String> {
    let [now, then] = [stats.read_rate(), streaming.rate.bytes_per_second].map(gigabytes);
    streaming.is_slow(stats).then(|| {
        format!(
            "The drive delivers {now}/s, less than half of the {then}/s of the start: is it hot, or busy \
             with something else?"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_cells_at_the_end_are_wrapped() {
        let rows = [vec!["a".to_owned(), "word ".repeat(30).trim().to_owned()]];
        let table = table("ll", &rows);
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.lines().all(|line| line.len() <= LINE), "{table}");
        assert!(table.lines().nth(1).unwrap().starts_with("   word"), "{table}");
    }

    const PIPE: Look = Look { terminal: false, colour: false };
    const TERMINAL: Look = Look { terminal: true, colour: true };

    fn written(look: Look, hide: bool, pieces: &[(bool, &str)]) -> String {
        let mut out = Vec::new();
        let mut writer = AnswerWriter::new(&mut out, look, hide);
        for (is_thought, text) in pieces {
            if *is_thought { writer.reasoning(text) } else { writer.answer(text) }.unwrap();
        }
        writer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_pipe_gets_tags_and_a_terminal_dimmed_thoughts() {
        let pieces = [(true, "Let me"), (true, " see."), (false, "It "), (false, "is 3.")];
        assert_eq!(written(PIPE, false, &pieces), "<think>\nLet me see.\n</think>\n\nIt is 3.\n");
        assert_eq!(
            written(TERMINAL, false, &pieces),
            "\x1b[2mLet me\x1b[0m\x1b[2m see.\x1b[0m\n\nIt is 3.\n"
        );
        assert_eq!(written(TERMINAL, true, &pieces), "It is 3.\n");
    }

    #[test]
    fn an_answer_may_stop_anywhere() {
        assert_eq!(written(PIPE, false, &[]), "");
        assert_eq!(written(PIPE, false, &[(true, "Hm")]), "<think>\nHm\n</think>\n\n");
        assert_eq!(written(PIPE, false, &[(false, "One.\n")]), "One.\n");
    }

    #[test]
    fn a_model_cannot_steer_a_terminal() {
        let answer = [(false, "a\x1b[2Jb\tc\r\u{9b}d\n")];
        assert_eq!(written(TERMINAL, false, &answer), "a\u{FFFD}[2Jb\tc\u{FFFD}\u{FFFD}d\n");
        assert_eq!(written(PIPE, false, &answer), "a\x1b[2Jb\tc\r\u{9b}d\n", "a file gets it all");
    }

    #[test]
    fn times_are_rounded_for_people() {
        assert_eq!(time(Duration::from_millis(12)), "12 ms");
        assert_eq!(time(Duration::from_millis(3410)), "3.41 s");
        assert_eq!(time(Duration::from_secs(125)), "2 min 5 s");
    }
}
