//! What a name stands for, before anything is downloaded.

use std::path::PathBuf;

use cachalot_gguf::split::Set;
use cachalot_hub::{Hub, Offer, Room};
use cachalot_plan::{
    Constraints, Kind, MemoryBudget, Mode, ModelFacts, RoutingSkew, RuntimeProfile, fit, predict,
    units,
};
use serde_json::json;

use crate::command::show::Shown;
use crate::hardware::{self, DriveProbe, Measure};
use crate::settings::Environment;
use crate::terminal::table;

/// What the headers say.
#[derive(Debug)]
pub(crate) struct Preview {
    /// What it is, in a sentence.
    pub(super) verdict: String,
    pub(super) runs: bool,
    pub(super) is_distill: bool,
    types_without_kernel: Vec<&'static str>,
    /// The model as the planner sees it.
    pub(super) facts: Option<ModelFacts>,
    /// What the planner expects here, in a sentence.
    expectation: String,
}

impl Preview {
    pub(super) fn of(offer: &Offer, environment: &Environment) -> Self {
        let parts = offer.set.parts().zip(&offer.headers);
        let parts: Vec<_> =
            parts.map(|(file, header)| (PathBuf::from(&file.name), header.gguf.clone())).collect();
        let set = match Set::merge(parts) {
            Ok(set) => set,
            Err(error) => return Self::unknown(error.to_string()),
        };
        let skew = RoutingSkew::of(&set.metadata);
        let shown = Shown::new(set, offer.set.size());
        let name = offer.set.name.to_string();
        let facts = ModelFacts::of(&shown.set.metadata, &shown.demand, &name);
        let facts = facts.filter(|_| shown.runs());
        let expectation = match &facts {
            Some(facts) => expectation(facts, skew, environment),
            None => String::new(),
        };
        Self {
            verdict: shown.identity.verdict.clone(),
            runs: shown.runs(),
            is_distill: shown.identity.kind == Kind::DistilledR1,
            types_without_kernel: shown.types_without_kernel(),
            facts,
            expectation,
        }
    }

    fn unknown(verdict: String) -> Self {
        Self {
            verdict,
            runs: false,
            is_distill: false,
            types_without_kernel: Vec::new(),
            facts: None,
            expectation: String::new(),
        }
    }

    /// Why cachalot does not run it.
    pub(super) fn why_not(&self) -> String {
        match self.types_without_kernel[..] {
            [] => self.verdict.clone(),
            ref types => format!("it has no kernels for {}", types.join(", ")),
        }
    }

    pub(super) fn text(&self, offer: &Offer, rooms: &[Room], hub: &Hub) -> String {
        let mut text = format!("{}: {}\n", offer.set.name, self.verdict);
        if !self.runs {
            text += &format!("cachalot does not run it: {}\n", self.why_not());
        }
        let row = |name: &str, size: u64, hash: Option<String>| {
            vec![name.to_owned(), units::bytes(size), hash.unwrap_or_default()]
        };
        let rows = offer.set.files.iter().map(|file| {
            let hash = file.sha256.map(|hash| format!("sha256:{}", hash.short()));
            row(&file.name, file.size, hash.or_else(|| Some("the server states no hash".into())))
        });
        text += &table("lrl", &rows.collect::<Vec<_>>());
        let count = offer.set.files.len();
        let files = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
        text += &format!("{} in {files}\n", units::bytes(offer.set.size()));
        if !self.expectation.is_empty() {
            text += &format!("Here: {}\n", self.expectation);
        }
        if hub.installed(offer).is_some() {
            return text + "It is here already.\n";
        }
        for room in rooms {
            let (needed, free) = (units::bytes(room.needed), units::bytes(room.free));
            let short = if room.needed > room.free { ": NOT ENOUGH" } else { "" };
            let folder = room.folder.display();
            text += &format!("{needed} to write to {folder}, {free} free{short}\n");
        }
        text
    }

    pub(super) fn json(&self, offer: &Offer, rooms: &[Room], hub: &Hub) -> serde_json::Value {
        let files: Vec<_> = offer
            .set
            .files
            .iter()
            .map(|file| {
                json!({ "name": file.name, "size": file.size, "url": file.url, "role": file.role,
                        "sha256": file.sha256.map(|hash| hash.to_string()) })
            })
            .collect();
        let rooms: Vec<_> = rooms
            .iter()
            .map(|room| json!({ "folder": room.folder, "needed": room.needed, "free": room.free }))
            .collect();
        json!({
            "name": offer.set.name.to_string(),
            "revision": offer.set.revision,
            "size": offer.set.size(),
            "verdict": self.verdict,
            "runs": self.runs,
            "distill": self.is_distill,
            "expectation": self.expectation,
            "installed": hub.installed(offer).is_some(),
            "files": files,
            "space": rooms,
        })
    }
}

/// What the planner expects of this model on this machine, as far as it has been measured.
fn expectation(facts: &ModelFacts, skew: RoutingSkew, environment: &Environment) -> String {
    let options = environment.options(None);
    let machine =
        hardware::this_machine(environment, &options, DriveProbe::Nowhere, Measure::Never);
    let machine = machine.without_gpus();
    let constraints = Constraints::default();
    let placed = match fit::fit(facts, MemoryBudget::of(&machine, None), constraints) {
        Ok(placed) => placed,
        Err(error) => return format!("it does not fit: {error}"),
    };
    let place = match placed.mode {
        Mode::Resident => "all of it in memory".to_owned(),
        Mode::Streamed { .. } => {
            format!("{} of memory, and experts from the drive", units::bytes(placed.ram))
        }
    };
    let profile = RuntimeProfile { skew, ..RuntimeProfile::default() };
    match predict::predict(&machine, facts, &placed, profile) {
        Ok(prediction) => {
            let likely = units::significant(prediction.decode(0).likely);
            let bound = prediction.bound().bound();
            format!("{place}; about {likely} tokens/s, bound by {bound}")
        }
        Err(_) => format!("{place}; `cachalot plan` measures this machine, and predicts how fast"),
    }
}
