//! The page for people: the answer, the tables behind it, what would help.

use cachalot_plan::upgrade::{self, Advice, Upgrade};
use cachalot_plan::{
    Class, Constraints, Error, KvType, Layout, Machine, MemoryTier, Mode, ModelFacts, Plan,
    RuntimeProfile, SoftwareAge, explain, plan, understood, units,
};

use super::rate;
use super::subject::Subject;
use crate::terminal::{list, table};

/// Depths at which rates are shown.
pub(super) const DEPTHS: [u64; 3] = [0, 8192, 32_768];
/// Typical least length of an answer of R1, with its thinking, in tokens.
const ANSWER_TOKENS: f64 = 1000.0;
/// Most changes that are listed.
const UPGRADES: usize = 8;

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) machine: &'a Machine,
    pub(super) model: &'a ModelFacts,
    pub(super) subject: &'a Subject,
    pub(super) constraints: Constraints,
    pub(super) profile: RuntimeProfile,
    /// Threads, if they are given.
    pub(super) threads: Option<u32>,
}

impl Question<'_> {
    pub(super) fn plan(&self) -> Result<Plan, Error> {
        plan(self.machine, self.model, self.constraints, self.profile)
    }

    pub(super) fn upgrades(&self) -> Vec<Upgrade> {
        upgrade::upgrades(&self.upgrade_question())
    }

    pub(super) fn upgrade_question(&self) -> upgrade::Question<'_> {
        let Self { machine, model, subject, constraints, profile, .. } = *self;
        upgrade::Question { machine, model, others: &subject.others, constraints, profile }
    }
}

/// The whole page.
pub(super) fn page(question: &Question<'_>, explained: bool) -> String {
    let Question { machine, model, .. } = question;
    let mut page = format!("{} ({}) on {}\n\n", model.name, units::bytes(model.size), machine.name);
    page += &format!("{}\n", understood(machine));
    let planned = question.plan();
    page += &headline(question, &planned);
    if let Some(note) = &question.subject.note {
        page += &format!("{note}\n");
    }
    if let Ok(planned) = &planned {
        page += &on_processor(question, planned);
        page += &format!("\n{}", places(model, planned));
        page += &format!("\n{}", times(planned));
        page += &format!("\n{}", rates(planned));
        page += &for_all(planned);
        let layout = Layout::of(machine, model, &planned.fit, question.threads);
        page += &format!("\nLayout:\n{layout}");
        page += &format!("\n{}{}", remarks(machine, planned), of_early_2025(question, planned));
        if explained {
            let rows = explain::explain(machine, model, planned);
            let rows: Vec<_> =
                rows.into_iter().map(|row| vec![row.name, row.value, row.formula]).collect();
            page += &format!("\nEvery number:\n{}", table("lrl", &rows));
        }
    }
    page + &help(question)
}

fn headline(question: &Question<'_>, planned: &Result<Plan, Error>) -> String {
    let error = match planned {
        Ok(Plan { fit, prediction }) => {
            let range = rate(prediction.decode(0));
            let streamed = match fit.mode {
                Mode::Resident => String::new(),
                Mode::Streamed { .. } => {
                    let share = fit.routed_disk as f64 / question.model.routed.max(1) as f64;
                    format!("; {:.0} % of the experts are streamed from the drive", share * 100.0)
                }
            };
            let yes = yes(prediction.decode(0).likely);
            let patience = patience(prediction.decode(0).likely);
            return format!(
                "{yes}: about {range}, bound by {}{streamed}{patience}.\n",
                prediction.bound().bound()
            );
        }
        Err(error) => error,
    };
    let mut text = match error {
        Error::Unknown(unknown) => {
            format!("It may run, but its speed cannot be predicted: {unknown}.\n")
        }
        other => format!("No: {other}.\n"),
    };
    if let Error::Placement(placement) = error {
        if let Some(missing) = placement.missing() {
            text += &format!("{} short. ", units::bytes(missing));
        }
        text += &smallest_change(question);
    }
    text
}

/// The first word of the answer.
pub(super) fn yes(rate: f64) -> &'static str {
    match rate {
        1.0.. => "Yes",
        0.2.. => "Yes, slowly",
        _ => "Impractical",
    }
}

/// How long an answer takes, at rates below 1 token per second.
pub(super) fn patience(rate: f64) -> String {
    if rate >= 1.0 {
        return String::new();
    }
    let seconds = ANSWER_TOKENS / rate.max(1e-6);
    let (count, unit) = match seconds {
        7200.0.. => (seconds / 3600.0, "hours"),
        _ => (seconds / 60.0, "minutes"),
    };
    format!(
        "; an answer of {} tokens takes {count:.0} {unit}",
        units::grouped(ANSWER_TOKENS as u64)
    )
}

/// The change of least effort with which it runs, and of those the one that brings least: more
/// memory or a better drive than is needed is not a smaller change.
fn smallest_change(question: &Question<'_>) -> String {
    let mut upgrades = question.upgrades();
    upgrades.extend(upgrade::cheapest_pair(&question.upgrade_question()));
    let smallest = upgrades.iter().min_by_key(|upgrade| (upgrade.effort, upgrade.rank));
    if let Some(smallest) = smallest {
        return format!(
            "The smallest change that makes it work: {}, for about {}.\n",
            smallest.what,
            rate(smallest.decode)
        );
    }
    match upgrade::least_memory(&question.upgrade_question()) {
        Some((bytes, needs_drive)) => {
            let gib = bytes >> 30;
            let drive = if needs_drive { ", and a drive to stream from" } else { "" };
            format!("It takes a machine with {gib} GB of memory{drive}.\n")
        }
        None => "No single change makes it work.\n".to_owned(),
    }
}

/// What of that cachalot does today, where cards were counted on.
fn on_processor(question: &Question<'_>, planned: &Plan) -> String {
    if question.machine.machines() > 1 {
        let one = Machine { machines: None, ..question.machine.clone() };
        let alone = plan(&one, question.model, question.constraints, question.profile);
        let how = match alone {
            Ok(planned) => format!("would run it at about {}", rate(planned.prediction.decode(0))),
            Err(_) => "cannot hold it".to_owned(),
        };
        return format!(
            "This assumes software that splits a model over machines. cachalot runs on one machine so \
             far, and one of these alone {how}.\n"
        );
    }
    if planned.fit.dense_in == MemoryTier::Ram {
        return String::new();
    }
    let runs_here = question.machine.processor.platform().is_some();
    if question.machine.unified().is_some() && !runs_here {
        return "This assumes software that uses the GPU. cachalot itself runs on CPUs, on Linux x86-64, so far.\n"
            .to_owned();
    }
    let alone = question.machine.without_gpus();
    let how = match plan(&alone, question.model, question.constraints, question.profile) {
        Ok(planned) => format!("about {}", rate(planned.prediction.decode(0))),
        Err(Error::Unknown(_)) => "how fast that is cannot be predicted".to_owned(),
        Err(_) => "without the GPU the model does not fit here".to_owned(),
    };
    format!(
        "This assumes software that uses the GPU. cachalot itself runs on the CPU so far: {how}.\n"
    )
}

fn places(model: &ModelFacts, planned: &Plan) -> String {
    let fit = &planned.fit;
    let dense_in = if fit.dense_in == MemoryTier::Vram { "graphics memory" } else { "memory" };
    let cell = |text: &str| text.to_owned();
    let mut rows = vec![vec![cell("what"), cell("bytes"), cell("where")]];
    let mut row = |what: &str, bytes: u64, place: &str| {
        if bytes > 0 {
            rows.push(vec![cell(what), units::bytes(bytes), cell(place)]);
        }
    };
    row("non-expert weights", model.dense, dense_in);
    row("routed experts", fit.routed_vram, "graphics memory");
    let cache = if fit.mode == Mode::Resident { "memory" } else { "memory, as a cache" };
    row("routed experts", fit.routed_ram, cache);
    row("routed experts", fit.routed_disk, "drive, read on a miss");
    let other = match fit.cache_type {
        KvType::Q8_0 => KvType::F16,
        _ => KvType::Q8_0,
    };
    let tokens = units::grouped(fit.context);
    let instead = units::bytes(model.cache_bytes_per_token(other) * fit.context);
    let kv = format!("{dense_in}: {tokens} tokens in {}; {instead} in {other}", fit.cache_type);
    row("KV cache", fit.kv, &kv);
    row("buffers", fit.buffers, dense_in);
    table("lrl", &rows)
}

fn times(planned: &Plan) -> String {
    let prediction = &planned.prediction;
    let cell = |text: &str| text.to_owned();
    let mut rows = vec![vec![cell("per-token time"), cell("reads"), cell("time")]];
    for part in &prediction.parts {
        let bytes =
            if part.bytes == 0 { String::new() } else { units::gigabytes(part.bytes as f64) };
        rows.push(vec![cell(explain::name_of(part.what)), bytes, units::seconds(part.seconds)]);
    }
    let overlap = if prediction.hits.is_some() && prediction.exposed < 1.0 {
        "total (overlapped)"
    } else {
        "total"
    };
    rows.push(vec![cell(overlap), String::new(), units::seconds(prediction.seconds(0))]);
    table("lrr", &rows)
}

fn rates(planned: &Plan) -> String {
    let mut rows = vec![["depth", "decode", "prefill"].map(str::to_owned).to_vec()];
    for depth in DEPTHS.into_iter().filter(|depth| *depth <= planned.fit.context) {
        let what = format!("{} tokens", units::grouped(depth));
        let (decode, prefill) =
            (planned.prediction.decode(depth), planned.prediction.prefill(depth));
        rows.push(vec![what, rate(decode), rate(prefill)]);
    }
    table("lll", &rows)
}

/// The rate of all sequences together, if there are several.
fn for_all(planned: &Plan) -> String {
    let prediction = &planned.prediction;
    if prediction.users < 2 {
        return String::new();
    }
    format!(
        "{} sequences at a time: {} together, {} each.\n",
        prediction.users,
        rate(prediction.total(0)),
        rate(prediction.decode(0))
    )
}

/// What software of early 2025 did on such hardware, where answers of that time are still quoted.
fn of_early_2025(question: &Question<'_>, planned: &Plan) -> String {
    let Question { machine, model, constraints, profile, .. } = *question;
    let prediction = &planned.prediction;
    let with = |profile| plan(machine, model, constraints, profile).ok();
    if prediction.class == Class::JoinedCards {
        let early = RuntimeProfile { age: SoftwareAge::Early, ..profile };
        return with(early).map_or(String::new(), |early| {
            let early = rate(early.prediction.decode(0));
            format!("Software of early 2025 reached about {early} on such cards, a figure often quoted.\n")
        });
    }
    if prediction.hits.is_some() {
        let paged = RuntimeProfile { direct_reads: false, ..profile };
        return with(paged).map_or(String::new(), |paged| {
            let paged = rate(paged.prediction.decode(0));
            format!("Software that pages a mapped file in reaches about {paged} here.\n")
        });
    }
    String::new()
}

/// Assumptions, load time, and missing facts.
fn remarks(machine: &Machine, planned: &Plan) -> String {
    let prediction = &planned.prediction;
    let mut text = String::new();
    if let Some(hits) = prediction.hits {
        text += &format!(
            "An expert cache of {1:.0} % is assumed to serve {0:.0} % of the needed experts, as measured with models \
             of 256 experts on text of changing topics. The first minute is slower.\n",
            hits.rate * 100.0,
            hits.resident * 100.0
        );
    }
    if let Some(seconds) = prediction.load_seconds {
        text += &format!("Load time: about {}.\n", units::seconds(seconds));
    }
    if let Some(calibration) = prediction.calibration {
        let of = if calibration.same_model { "this model" } else { "other models" };
        let on = if calibration.imported { "identical hardware" } else { "this machine" };
        text += &format!(
            "{} measured runs of {of} on {on} were {:.2} times as fast as predicted; the rates above \
             include that.\n",
            calibration.runs, calibration.times
        );
    }
    if planned.fit.context_reduced {
        text += "The model supports a longer context: use --ctx.\n";
    }
    for assumed in &prediction.assumed {
        text += &format!("Assumed: {assumed}.\n");
    }
    text + &unknown(machine)
}

/// What could not be seen and would matter: not what channels promise of a memory that was
/// measured.
pub(super) fn unknown(machine: &Machine) -> String {
    let is_known = |why: &str| machine.memory.measured_here && why.starts_with("memory channels");
    let unknown = machine.unknown.iter().filter(|why| !is_known(why));
    unknown.map(|why| format!("Unknown: {why}.\n")).collect()
}

fn help(question: &Question<'_>) -> String {
    let upgrades = question.upgrades();
    if upgrades.is_empty() {
        return String::new();
    }
    let mut rows = vec![["change", "decode", "gain", ""].map(str::to_owned).to_vec()];
    rows.extend(upgrades.iter().take(UPGRADES).map(|upgrade| {
        let gain = upgrade.gain.map_or("runs".to_owned(), |gain| format!("{gain:.2}x"));
        vec![
            upgrade.what.clone(),
            rate(upgrade.decode),
            gain,
            upgrade.note.clone().unwrap_or_default(),
        ]
    }));
    let doubling = doubling(question, &upgrades);
    format!("\n{}{doubling}", table("llrl", &rows))
}

/// The recommendation below the table, which names the change that JSON names.
fn doubling(question: &Question<'_>, upgrades: &[Upgrade]) -> String {
    let name = |upgrade: &Upgrade| format!("{} ({})", upgrade.what, rate(upgrade.decode));
    match upgrade::advice(&question.upgrade_question(), upgrades) {
        Advice::One(one) if one.gain.is_none() => String::new(),
        Advice::One(one) => {
            format!("The cheapest change that doubles the speed: {}.\n", name(&one))
        }
        Advice::Elsewhere(one, pair) => {
            let pair = pair.map_or(String::new(), |pair| {
                format!(" With cachalot alone it takes two changes: {}.", name(&pair))
            });
            format!(
                "The cheapest change that doubles the speed, with other software: {}.{pair}\n",
                name(&one)
            )
        }
        Advice::Two(pair) => {
            format!(
                "No single change doubles the speed; the cheapest pair that does: {}.\n",
                name(&pair)
            )
        }
        Advice::Nothing => "No pair of changes doubles the speed.\n".to_owned(),
    }
}

/// The machine as it was understood, each part with where its figure comes from.
pub(super) fn understood(machine: &Machine) -> String {
    let rows: Vec<Vec<String>> = understood::understood(machine)
        .into_iter()
        .map(|row| {
            let from = if row.from.is_empty() { String::new() } else { format!("({})", row.from) };
            vec![row.part.to_owned(), row.value, from]
        })
        .collect();
    list("lll", &rows)
}

/// What a machine is, for people.
pub(super) fn machine(machine: &Machine) -> String {
    let or_unknown = |known: Option<String>| known.unwrap_or_else(|| "unknown".to_owned());
    let (processor, memory) = (&machine.processor, &machine.memory);
    let count = |count: Option<u32>| or_unknown(count.map(|count| count.to_string()));
    let by = if memory.measured_here { "measured" } else { "as given" };
    let channels = match (memory.channels, memory.speed_mts) {
        (Some(channels), Some(mts)) => Some(format!("{channels} x {mts} MT/s")),
        (Some(channels), None) => Some(channels.to_string()),
        _ => None,
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("machine", machine.name.clone());
    row("CPU", or_unknown(processor.name.clone()));
    row("sockets", count(processor.sockets));
    row("cores", format!("{}, {} threads", count(processor.cores()), count(processor.threads)));
    row("NUMA nodes", count(processor.numa_nodes));
    row(
        "instructions",
        if processor.features.is_empty() {
            "unknown".to_owned()
        } else {
            processor.features.join(" ")
        },
    );
    row("memory", or_unknown(memory.total_bytes.map(units::bytes)));
    if let Some(limit) = memory.limit_bytes {
        row("container limit", units::bytes(limit));
    }
    row("free", or_unknown(memory.available_bytes.map(units::bytes)));
    row("channels", or_unknown(channels));
    row(
        "memory bandwidth",
        or_unknown(memory.read_bytes_per_second.map(|rate| format!("{}, {by}", units::rate(rate)))),
    );
    row(
        "multiply-adds",
        or_unknown(
            processor
                .products_per_second
                .map(|rate| format!("{:.0} billion/s, measured", rate / 1e9)),
        ),
    );
    for drive in &machine.drives {
        let by = if drive.measured_here { "measured" } else { "as given" };
        let rate = drive.read_bytes_per_second.map(|rate| format!("{}, {by}", units::rate(rate)));
        row("drive", format!("{}: {}", drive.name, or_unknown(rate)));
    }
    for gpu in &machine.gpus {
        let rate = or_unknown(gpu.bytes_per_second.map(units::rate));
        row(
            "GPU",
            format!("{} x {}, {}, {rate}", gpu.count, gpu.name, units::bytes(gpu.memory_bytes)),
        );
    }
    if machine.gpus.is_empty() {
        row("GPU", "none found".to_owned());
    }
    for link in &machine.links {
        row("network", format!("{}: {} Gbit/s", link.name, link.bits_per_second as f64 / 1e9));
    }
    for unknown in &machine.unknown {
        row("unknown", unknown.clone());
    }
    table("ll", &rows)
}

#[cfg(test)]
mod tests {
    use cachalot_plan::presets;

    use super::super::subject::published;
    use super::*;

    fn page_of(machine: &str, model: &str) -> String {
        let machine = presets::machine(machine).unwrap();
        let subject = published(model);
        let model = subject.model.clone();
        let (constraints, profile) = (Constraints::default(), RuntimeProfile::default());
        page(
            &Question {
                machine: &machine,
                model: &model,
                subject: &subject,
                constraints,
                profile,
                threads: None,
            },
            false,
        )
    }

    #[test]
    fn the_answer_comes_first_and_in_words() {
        let page = page_of("desktop-96", "UD-Q2_K_XL");
        let second = page.lines().find(|line| line.starts_with("Yes")).unwrap();
        assert!(
            second.starts_with("Yes: about 3.0 tok/s (2.0-4.0), bound by the drive;"),
            "{page}"
        );
        for part in [
            "drive, read on a miss",
            "32,768 tokens in f16",
            "change",
            "doubles",
            "changing topics",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("graphics memory"));
    }

    #[test]
    fn a_no_says_why_and_what_to_change() {
        let page = page_of("8GB 2x4800 nvme", "q8_0");
        assert!(page.contains("No: DeepSeek-R1 671B Q8_0 needs at least"), "{page}");
        assert!(page.contains("The smallest change that makes it work: "), "{page}");
        let no_drive = page_of("64GB 2x4800", "UD-IQ1_S");
        assert!(no_drive.contains("no drive") && no_drive.contains("NVMe"), "{no_drive}");
    }

    #[test]
    fn cards_are_counted_on_but_not_silently() {
        let page = page_of("desktop-4090", "UD-Q2_K_XL");
        assert!(page.contains("cachalot itself runs on the CPU so far: about 3.0"), "{page}");
    }

    #[test]
    fn a_missing_fact_is_asked_for() {
        let page = page_of("512GB nvme", "q4_k_m");
        assert!(page.contains("cannot be predicted") && page.contains("--bandwidth"), "{page}");
    }

    #[test]
    fn a_machine_shows_what_is_unknown() {
        let text = machine(&presets::machine("12x4800 384GB").unwrap());
        assert!(text.contains("12 x 4800 MT/s") && text.contains("unknown"), "{text}");
    }
}
