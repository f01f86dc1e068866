//! Tokens per second against memory: how much is enough, at a glance.
//!
//! The picture is drawn by a library with its backends for SVG and for pixels. Text in pixels would
//! need a font of the system, so letters come as bitmaps of 8 x 8 points.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use cachalot_plan::{Constraints, RateRange, plan, units};
use font8x8::UnicodeFonts;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::answer::Question;
use crate::failure::usage;
use crate::output::{Kind, Output, Rules};

/// Points of the curve.
const POINTS: u64 = 60;
/// Size of the picture.
const SIZE: (u32, u32) = (900, 540);
/// Space for the labels of the axes.
const MARGIN: i32 = 70;
/// Lines of the chart in the terminal.
const ROWS: usize = 8;

/// Rates over memory, in GiB and tokens per second.
pub(super) struct Curve {
    /// Memory, and the low, likely and high rate.
    points: Vec<(f64, RateRange)>,
    /// The machine asked about.
    here: Option<(f64, f64)>,
    /// What is drawn.
    title: String,
}

const NOTHING: RateRange = RateRange { low: 0.0, likely: 0.0, high: 0.0 };

/// Asks the planner for every size of memory up to one that holds the whole model.
pub(super) fn curve(question: &Question<'_>) -> Curve {
    let total = question.machine.memory.total_bytes.unwrap_or(0);
    let most = (question.model.size + question.model.size / 4).max(total + total / 8);
    // At one and the same context where that fits, or the curve would have steps that memory did
    // not make.
    let here = question.plan().ok();
    let context = here.as_ref().map(|plan| plan.fit.context);
    let fixed =
        Constraints { context: question.constraints.context.or(context), ..question.constraints };
    let rate = |bytes: u64| {
        let mut machine = question.machine.clone();
        machine.memory.total_bytes = Some(bytes);
        machine.memory.available_bytes = None;
        let planned =
            |constraints| plan(&machine, question.model, constraints, question.profile).ok();
        let planned = planned(fixed).or_else(|| planned(question.constraints));
        planned.map_or(NOTHING, |plan| plan.prediction.decode(0))
    };
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let sizes = (1..=POINTS).map(|point| most / POINTS * point);
    let points = sizes.map(|bytes| (gib(bytes), rate(bytes))).collect();
    let drive = question.machine.drive().map_or_else(
        || "no drive".to_owned(),
        |(_, rate)| format!("drive of {}", units::rate(rate)),
    );
    let title = format!("{}, {drive}", question.model.name);
    let here = here.map(|plan| (gib(total), plan.prediction.decode(0).likely));
    Curve { points, here, title }
}

/// Round steps with which at most six reach `most`: 1, 2 or 5 times a power of ten, or for sizes of
/// memory, of two.
fn step(most: f64, of_memory: bool) -> f64 {
    let mut steps = (-3..6).flat_map(|power| {
        let unit = 10f64.powi(power);
        [1.0, 2.0, 5.0].map(|times| times * unit)
    });
    let mut sizes = (0..20).map(|power| 2f64.powi(power));
    let enough = |step: &f64| most / step <= 6.0;
    if of_memory { sizes.find(enough) } else { steps.find(enough) }.unwrap_or(most)
}

impl Curve {
    fn highest(&self) -> f64 {
        self.points.iter().map(|point| point.1.likely).fold(1e-3, f64::max)
    }

    fn widest(&self) -> f64 {
        self.points.last().map_or(1.0, |point| point.0)
    }
}

/// The curve in characters, the machine marked.
pub(super) fn chart(curve: &Curve) -> String {
    let (highest, widest) = (curve.highest(), curve.widest());
    let mut text = String::from("\ntok/s\n");
    for row in (0..ROWS).rev() {
        let label = if row == ROWS - 1 { units::significant(highest) } else { String::new() };
        let cells = curve.points.iter().map(|(_, rate)| {
            let filled = rate.likely / highest * ROWS as f64 - row as f64;
            let eighths = (filled.clamp(0.0, 1.0) * 8.0).round() as usize;
            [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][eighths]
        });
        text += &format!("{label:>6} |{}\n", cells.collect::<String>().trim_end());
    }
    text += &format!("     0 +{}\n", "-".repeat(curve.points.len()));
    if let Some((gib, rate)) = curve.here {
        let column = (gib / widest * curve.points.len() as f64).ceil() as usize;
        let note = format!("^ {gib:.0} GiB here: {} tok/s", units::significant(rate));
        text += &format!("        {}{note}\n", " ".repeat(column.clamp(1, curve.points.len()) - 1));
    }
    text += &format!("        0 to {widest:.0} GiB of memory\n");
    text
}

/// Draws the curve into a file whose name ends in `.svg` or `.png`; `inputs` are never replaced,
/// other files that are not pictures only with `force`.
pub(super) fn draw(
    curve: &Curve,
    file: &Path,
    inputs: &[PathBuf],
    force: bool,
) -> anyhow::Result<()> {
    let kind = match file.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Kind::Svg,
        Some("png") => Kind::Png,
        _ => {
            let message = "the name must end in .svg or .png";
            return Err(usage(format!("--plot {}: {message}", file.display())));
        }
    };
    let output = Output::create(file, Rules { kind, inputs, force })?;
    let failed = |why: String| anyhow!("{}: {why}", file.display());
    if kind == Kind::Svg {
        let root = SVGBackend::new(output.temporary(), SIZE).into_drawing_area();
        picture(&root, curve, &|root, text, (x, y)| {
            let style = TextStyle::from(("sans-serif", 16).into_font()).color(&BLACK);
            root.draw_text(text, &style, (x, y)).map_err(|error| error.to_string())
        })
    } else {
        let root = BitMapBackend::new(output.temporary(), SIZE).into_drawing_area();
        picture(&root, curve, &|root, text, place| letters(root, text, place))
    }
    .map_err(failed)?;
    output.commit()
}

/// Lines behind the curve.
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Digits before the point, of half a letter's width each.
fn digits(number: f64) -> i32 {
    if number < 1.0 { 1 } else { number.log10() as i32 + 1 }
}

type Area<B> = DrawingArea<B, Shift>;
/// Writes a text to the right of and below a place.
type Write<'a, B> = &'a dyn Fn(&Area<B>, &str, (i32, i32)) -> Result<(), String>;

fn picture<B: DrawingBackend>(
    root: &Area<B>,
    curve: &Curve,
    write: Write<'_, B>,
) -> Result<(), String> {
    let most = curve.points.iter().map(|point| point.1.high).fold(1e-3, f64::max);
    let (highest, widest) = (most * 1.05, curve.widest());
    let (width, height) = (SIZE.0 as i32, SIZE.1 as i32);
    let place = |(gib, rate): (f64, f64)| {
        let x = MARGIN + (gib / widest * f64::from(width - 2 * MARGIN)) as i32;
        let y = height - MARGIN - (rate / highest * f64::from(height - 2 * MARGIN)) as i32;
        (x, y)
    };
    let said = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
    root.fill(&WHITE).map_err(said)?;
    let ticks = |most: f64, step: f64| {
        (0..).map(move |n| f64::from(n) * step).take_while(move |at| *at <= most)
    };
    for gib in ticks(widest, step(widest, true)) {
        let (x, bottom) = place((gib, 0.0));
        let line = vec![(x, bottom), place((gib, highest))];
        root.draw(&PathElement::new(line, GRID.stroke_width(1))).map_err(said)?;
        write(root, &format!("{gib:.0}"), (x - 8 * digits(gib), bottom + 10))?;
    }
    for rate in ticks(highest, step(highest, false)) {
        let (left, y) = place((0.0, rate));
        let line = vec![(left, y), place((widest, rate))];
        root.draw(&PathElement::new(line, GRID.stroke_width(1))).map_err(said)?;
        let label = if rate > 0.0 { units::significant(rate) } else { "0".to_owned() };
        write(root, &label, (12, y - 8))?;
    }
    let of = |pick: fn(&RateRange) -> f64| {
        curve.points.iter().map(move |(gib, range)| (*gib, pick(range)))
    };
    let band =
        of(|range| range.low).chain(of(|range| range.high).collect::<Vec<_>>().into_iter().rev());
    let band: Vec<(i32, i32)> = band.map(place).collect();
    root.draw(&Polygon::new(band, BLUE.mix(0.12).filled())).map_err(said)?;
    let corners = vec![place((0.0, highest)), place((0.0, 0.0)), place((widest, 0.0))];
    root.draw(&PathElement::new(corners, BLACK.stroke_width(1))).map_err(said)?;
    let line: Vec<(i32, i32)> = of(|range| range.likely).map(place).collect();
    root.draw(&PathElement::new(line, BLUE.stroke_width(3))).map_err(said)?;
    write(root, &curve.title, (MARGIN, 16))?;
    write(root, "tokens per second over GiB of memory", (MARGIN, 40))?;
    if let Some(here) = curve.here {
        let (x, y) = place(here);
        root.draw(&Circle::new((x, y), 6, RED.filled())).map_err(said)?;
        let label = format!("here: {:.0} GiB, {} tok/s", here.0, units::significant(here.1));
        write(root, &label, (x.min(width - 400) + 12, y + 14))?;
    }
    root.present().map_err(said)
}

/// Bitmaps of letters, twice their size.
fn letters<B: DrawingBackend>(
    root: &Area<B>,
    text: &str,
    (left, top): (i32, i32),
) -> Result<(), String> {
    const SCALE: i32 = 2;
    const ADVANCE: i32 = 15;
    let mut x = left;
    for letter in text.chars() {
        let rows = font8x8::BASIC_FONTS.get(letter).unwrap_or_default();
        for (row, bits) in (0..).zip(rows) {
            for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                let corner = (x + column * SCALE, top + row * SCALE);
                let square = [corner, (corner.0 + SCALE, corner.1 + SCALE)];
                root.draw(&Rectangle::new(square, BLACK.filled()))
                    .map_err(|error| error.to_string())?;
            }
        }
        x += ADVANCE;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cachalot_plan::{RuntimeProfile, presets};

    use super::super::subject::published;
    use super::*;

    fn drawn() -> Curve {
        let machine = presets::machine("desktop-96").unwrap();
        let subject = published("UD-Q2_K_XL");
        let model = subject.model.clone();
        let (constraints, profile) = (Constraints::default(), RuntimeProfile::default());
        curve(&Question {
            machine: &machine,
            model: &model,
            subject: &subject,
            constraints,
            profile,
            threads: None,
        })
    }

    #[test]
    fn more_memory_is_never_drawn_slower() {
        let curve = drawn();
        assert!(
            curve.points.is_sorted_by(|a, b| a.1.likely <= b.1.likely * 1.0001),
            "{:?}",
            curve.points
        );
        assert_eq!(curve.points[0].1.likely, 0.0, "a few GiB are not enough");
        let text = chart(&curve);
        assert!(text.contains("^ 96 GiB here: 3.0") && text.lines().count() == ROWS + 5, "{text}");
    }

    #[test]
    fn pictures_are_svg_or_png() {
        let folder = tempfile::tempdir().unwrap();
        let curve = drawn();
        for (name, begins) in [("a.svg", &b"<svg"[..]), ("a.png", b"\x89PNG")] {
            let path = folder.path().join(name);
            draw(&curve, &path, &[], false).unwrap();
            assert!(std::fs::read(&path).unwrap().starts_with(begins), "{name}");
        }
        let svg = std::fs::read_to_string(folder.path().join("a.svg")).unwrap();
        assert!(svg.contains("tokens per second over GiB"));
        assert!(draw(&curve, &folder.path().join("a.gif"), &[], false).is_err());
        assert!(draw(&curve, &folder.path().join("no/such/a.png"), &[], false).is_err());
    }
}
