//! Terminal output: streamed answers, progress bars, tables, durations.
//!
//! Only terminals get colour and control codes. Pipes get the model's own `<think>` tags instead of
//! dimmed text, so that programs can separate thinking from the answer.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use cachalot_engine::status::Streaming;
use cachalot_plan::units;
use cachalot_store::CacheStats;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use unicode_width::UnicodeWidthStr;

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";
/// Between the columns of a table.
const GAP: &str = "  ";
/// Maximum width of output.
const LINE: usize = 100;
/// Minimum width of a last column that is wrapped.
const CELL_MIN: usize = 20;

/// How to write to one of the standard streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// It is a terminal.
    pub(crate) terminal: bool,
    /// It gets colour.
    pub(crate) colour: bool,
}

impl Style {
    /// Styles at a stream; `colour_allowed` is what the user's environment says.
    pub(crate) fn of(stream: &impl IsTerminal, colour_allowed: bool) -> Self {
        let terminal = stream.is_terminal();
        Self { terminal, colour: terminal && colour_allowed }
    }

    /// `text`, dimmed if there is colour.
    pub(crate) fn dim(self, text: &str) -> String {
        if self.colour { format!("{DIM}{text}{RESET}") } else { text.to_owned() }
    }
}

/// Writes one answer as it is generated.
#[derive(Debug)]
pub(crate) struct AnswerWriter<W: Write> {
    out: W,
    style: Style,
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
    pub(crate) fn new(out: W, style: Style, hide_thinking: bool) -> Self {
        Self { out, style, hide_thinking, part: Part::Nothing, at_line_start: true }
    }

    /// Writes more of the thinking.
    pub(crate) fn reasoning(&mut self, text: &str) -> io::Result<()> {
        if self.hide_thinking || text.is_empty() {
            return Ok(());
        }
        if self.part != Part::Thoughts {
            self.end_part()?;
            self.part = Part::Thoughts;
            if !self.style.colour {
                self.put("<think>\n")?;
            }
        }
        self.text(text)
    }

    /// Writes more of the answer.
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

    /// Ends the answer, complete or not.
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
            self.put(if self.style.colour { "\n" } else { "</think>\n\n" })?;
        }
        Ok(())
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.at_line_start { Ok(()) } else { self.put("\n") }
    }

    /// Writes text from the model. Each piece is dimmed separately, so that the terminal is left
    /// clean whenever the program ends.
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.at_line_start = text.ends_with('\n');
        let shown = if self.style.terminal { without_controls(text) } else { text.into() };
        match self.part {
            Part::Thoughts => write!(self.out, "{}", self.style.dim(&shown))?,
            _ => write!(self.out, "{shown}")?,
        }
        self.out.flush()
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.at_line_start = text.ends_with('\n');
        self.out.write_all(text.as_bytes())
    }
}

/// The text with control characters replaced: model output and strings from files are untrusted and
/// must not control the terminal.
pub(crate) fn without_controls(text: &str) -> std::borrow::Cow<'_, str> {
    let is_control = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_control) {
        text.replace(is_control, "\u{FFFD}").into()
    } else {
        text.into()
    }
}

/// A progress bar on standard error, if that is a terminal, for work that takes a while.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    begun: Instant,
    bar: Option<ProgressBar>,
}

/// Runs `load`, which may report bytes done and their total, behind a progress bar; where it
/// reports nothing for a while, activity is shown.
pub(crate) fn loading<T>(load: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
    let progress = Mutex::new(Progress::new("loading"));
    let progress = || progress.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        let (ended, loaded) = mpsc::channel::<()>();
        scope.spawn(move || {
            while loaded.recv_timeout(Progress::TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                progress().pulse();
            }
        });
        let result = load(&mut |done, total| progress().set(done, total));
        drop(ended);
        progress().clear();
        result
    })
}

impl Progress {
    /// Shorter work gets no bar.
    const DELAY: Duration = Duration::from_millis(500);
    /// Between two signs of activity.
    const TICK: Duration = Duration::from_millis(200);

    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, begun: Instant::now(), bar: None }
    }

    /// Sets the progress.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        let is_measured = self.bar.as_ref().is_some_and(|bar| bar.length().is_some());
        if !is_measured && self.begun.elapsed() >= Self::DELAY {
            self.clear(); // of a spinner
            let target = ProgressDrawTarget::stderr();
            let bar = ProgressBar::with_draw_target(Some(total), target).with_message(self.what);
            // An invalid template would be a bug; the default bar is good enough then.
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

    /// Shows activity of unknown length.
    pub(crate) fn pulse(&mut self) {
        if self.bar.is_none() && self.begun.elapsed() >= Self::DELAY {
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

    /// Removes the bar.
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

/// Lines of aligned columns; `sides` has an `l` (left) or `r` (right) for each column.
///
/// A last column of text is wrapped. Where columns of numbers are wider than the terminal, each row
/// becomes a block of its own, labelled by the first row.
pub(crate) fn table(sides: &str, rows: &[Vec<String>]) -> String {
    table_within(room(sides, rows), sides, rows, blocks)
}

/// A table of names and what belongs to them, without a first row that names the columns.
pub(crate) fn list(sides: &str, rows: &[Vec<String>]) -> String {
    table_within(room(sides, rows), sides, rows, entries)
}

/// The width for a table: a pipe is as wide as it needs.
fn room(sides: &str, rows: &[Vec<String>]) -> usize {
    let is_terminal = WIDTH.load(Ordering::Relaxed) != 0;
    let natural =
        (sides.len().saturating_sub(1)) * GAP.len() + least(sides, rows).iter().sum::<usize>();
    if is_terminal { width() } else { width().max(natural) }
}

/// The least width of each column.
fn least(sides: &str, rows: &[Vec<String>]) -> Vec<usize> {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max()
    };
    let mut widths: Vec<usize> =
        (0..sides.len()).map(|column| width(column).unwrap_or(0)).collect();
    if let Some(last) = widths.last_mut().filter(|_| sides.ends_with('l')) {
        *last = CELL_MIN.min(*last);
    }
    widths
}

/// `narrow` writes it where the columns have no room beside each other.
fn table_within(
    line: usize,
    sides: &str,
    rows: &[Vec<String>],
    narrow: fn(usize, &[Vec<String>]) -> String,
) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max()
    };
    let widths: Vec<usize> = (0..sides.len()).map(|column| width(column).unwrap_or(0)).collect();
    let last = sides.len().saturating_sub(1);
    let before = widths[..last].iter().map(|width| width + GAP.len()).sum::<usize>();
    if before + least(sides, rows).last().unwrap_or(&0) > line {
        return narrow(line, rows);
    }
    let mut table = String::new();
    for row in rows {
        let mut more = Vec::new();
        let cells = row.iter().zip(&widths).zip(sides.chars()).enumerate();
        let cells = cells.map(|(column, ((cell, width), side))| {
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            match side {
                'l' if column == last => {
                    let mut lines = wrapped(cell, line - before).into_iter();
                    let first = lines.next().unwrap_or_default();
                    more.extend(lines);
                    first
                }
                'l' => format!("{cell}{padding}"),
                _ => format!("{padding}{cell}"),
            }
        });
        table += cells.collect::<Vec<_>>().join(GAP).trim_end();
        table.push('\n');
        for line in more {
            table += &format!("{:before$}{line}\n", "");
        }
    }
    table
}

/// The rows of a table that is too wide, one below the other: the first cell, then the others with
/// the names that the first row gives them.
fn blocks(line: usize, rows: &[Vec<String>]) -> String {
    let Some((names, others)) = rows.split_first() else { return String::new() };
    // Two columns are a list of names and values, which has no row of names.
    if names.len() == 2 {
        return entries(line, rows);
    }
    let mut text = String::new();
    for row in others {
        text += &format!("{}\n", row.first().map_or("", String::as_str));
        for (name, cell) in names.iter().zip(row).skip(1).filter(|(_, cell)| !cell.is_empty()) {
            text += &indented(line, &format!("{name} {cell}"));
        }
    }
    text
}

/// The rows of a list that is too wide: the first cell, and below it the others.
fn entries(line: usize, rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for row in rows {
        let Some((name, cells)) = row.split_first() else { continue };
        text += &(textwrap::fill(name, options(line)) + "\n");
        let cells: Vec<&str> = cells.iter().map(String::as_str).filter(|c| !c.is_empty()).collect();
        text += &indented(line, &cells.join(GAP));
    }
    text
}

fn indented(line: usize, text: &str) -> String {
    let options = options(line).initial_indent(GAP).subsequent_indent("    ");
    textwrap::fill(text, options) + "\n"
}

/// Text in lines of at most `room` columns, unless a word is longer.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    textwrap::wrap(text, options(room)).into_iter().map(Into::into).collect()
}

fn options<'a>(width: usize) -> textwrap::Options<'a> {
    textwrap::Options::new(width)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
}

/// Columns of the terminal, at most [`LINE`]; 0 if standard output is not a terminal.
static WIDTH: AtomicUsize = AtomicUsize::new(0);

/// Adapts the width of output to the terminal, if there is one.
pub(crate) fn fit() {
    if io::stdout().is_terminal() {
        WIDTH.store(textwrap::termwidth().clamp(20, LINE), Ordering::Relaxed);
    }
}

fn width() -> usize {
    match WIDTH.load(Ordering::Relaxed) {
        0 => LINE,
        columns => columns,
    }
}

/// Prose, wrapped for a terminal: words stay whole. Other lines are kept.
pub(crate) fn prose(text: &str) -> String {
    if WIDTH.load(Ordering::Relaxed) == 0 {
        return text.to_owned();
    }
    let lines = text.split('\n').map(|line| textwrap::fill(line, options(width())));
    lines.collect::<Vec<_>>().join("\n")
}

/// A line on standard error. If that is closed, the line is lost, but nothing else.
pub(crate) fn note(text: &str) {
    let mut err = io::stderr();
    let text = if err.is_terminal() { prose(text) } else { text.to_owned() };
    let _ = writeln!(err, "{text}");
}

/// `0.85 GB`: decimal, as drive and memory bandwidths are usually given.
pub(crate) fn gigabytes(bytes: f64) -> String {
    format!("{:.2} GB", bytes / 1e9)
}

/// How much of the experts is in memory, and how the others are read.
pub(crate) fn streaming(streaming: &Streaming) -> String {
    let rate = streaming.rate;
    let how = if rate.direct { "with direct I/O" } else { "through the page cache" };
    let locked =
        if streaming.is_locked { "" } else { "; memory not locked: `ulimit -l` is too low" };
    format!(
        "{} of {} in memory; others read {how}, {}, at {}/s{locked}",
        units::bytes(streaming.cache_bytes()),
        units::bytes(streaming.routed),
        rate.reader,
        gigabytes(rate.bytes_per_second),
    )
}

/// Statistics of streamed experts over some tokens, and the bottleneck.
pub(crate) fn streamed(
    streaming: &Streaming,
    stats: &CacheStats,
    tokens: usize,
    time: Duration,
) -> String {
    let waited = stats.waited.as_secs_f64() / time.as_secs_f64().max(1e-9);
    let mut text = format!(
        "expert cache hit rate {:.1} %, {} read per token at {}/s of {}/s, {:.0} % of the time waiting: \
         bound by {}",
        100.0 * stats.hit_rate(),
        gigabytes(stats.bytes as f64 / tokens.max(1) as f64),
        gigabytes(stats.read_rate()),
        gigabytes(streaming.rate.bytes_per_second),
        100.0 * waited,
        if waited > 0.5 { "drive" } else { "compute" },
    );
    let guessed = stats.prefetch_hits + stats.prefetch_unused;
    if guessed > 0 {
        text += &format!("; prefetch accuracy {} of {guessed}", stats.prefetch_hits);
    }
    if let Some(agreement) = stats.agreement() {
        text += &format!(
            "; --prefer-cached changes results: {:.1} % of routing decisions unchanged",
            100.0 * agreement
        );
    }
    text
}

/// Warns of a drive that has become slower than at the start, for some time.
pub(crate) fn slow_drive(streaming: &Streaming, stats: &CacheStats) -> Option<String> {
    let [now, then] = [stats.read_rate(), streaming.rate.bytes_per_second].map(gigabytes);
    streaming.is_slow(stats).then(|| {
        format!(
            "The drive reads {now}/s, less than half of the {then}/s at the start: throttling or \
             contention?"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_cells_in_the_last_column_are_wrapped() {
        let rows = [vec!["a".to_owned(), "word ".repeat(30).trim().to_owned()]];
        let table = table("ll", &rows);
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.lines().all(|line| line.len() <= LINE), "{table}");
        assert!(table.lines().nth(1).unwrap().starts_with("   word"), "{table}");
    }

    const PIPE: Style = Style { terminal: false, colour: false };
    const TERMINAL: Style = Style { terminal: true, colour: true };

    fn written(style: Style, hide: bool, pieces: &[(bool, &str)]) -> String {
        let mut out = Vec::new();
        let mut writer = AnswerWriter::new(&mut out, style, hide);
        for (is_thought, text) in pieces {
            if *is_thought { writer.reasoning(text) } else { writer.answer(text) }.unwrap();
        }
        writer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pipes_get_tags_and_terminals_dimmed_text() {
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
    fn a_model_cannot_control_the_terminal() {
        let answer = [(false, "a\x1b[2Jb\tc\r\u{9b}d\n")];
        assert_eq!(written(TERMINAL, false, &answer), "a\u{FFFD}[2Jb\tc\u{FFFD}\u{FFFD}d\n");
        assert_eq!(
            written(PIPE, false, &answer),
            "a\x1b[2Jb\tc\r\u{9b}d\n",
            "a file gets everything"
        );
    }

    #[test]
    fn tables_are_aligned_by_columns_of_the_terminal() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["name", "size", "note"]), row(["鯨のモデル", "8 MiB", "a whale"])];
        assert_eq!(
            table_within(100, "lrl", &rows, blocks),
            "name         size  note\n鯨のモデル  8 MiB  a whale\n"
        );
    }

    #[test]
    fn a_table_that_is_too_wide_becomes_blocks() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let rows =
            [row(&["part", "tensors", "size"]), row(&["routed experts", "174", "342.6 GiB"])];
        assert_eq!(
            table_within(20, "lrr", &rows, blocks),
            "routed experts\n  tensors 174\n  size 342.6 GiB\n"
        );
        let facts = [row(&["chat template of the model", "thinks before it answers"])];
        let text = table_within(20, "ll", &facts, blocks);
        assert!(text.lines().all(|line| line.len() <= 20), "{text}");
        let rows =
            [row(&["memory", "16 cores, 96 GiB", "(given)"]), row(&["drive", "none at all", ""])];
        assert_eq!(
            table_within(20, "lll", &rows, entries),
            "memory\n  16 cores, 96 GiB\n    (given)\ndrive\n  none at all\n"
        );
    }
}
