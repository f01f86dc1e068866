//! What the server tells of its model and its machine: what it is, where its weights are, how fast
//! it is predicted to be and what would make it faster. What nobody measured stays unknown.

use cachalot_engine::layout::Source;
use cachalot_engine::status::ModelInfo;
use cachalot_plan::upgrade::Upgrade;
use cachalot_server::{Advice, ExpertCounts, Facts, MemoryFacts, Place, Prediction};

use crate::forecast::Forecast;

/// Most improvements that are told, and most of one kind.
const ADVICE_MAX: usize = 6;
const ADVICE_OF_A_KIND: usize = 2;

/// What is known of the model once it is loaded, for the API and the page.
pub(crate) fn facts(info: &ModelInfo, source: &Source, forecast: Option<&Forecast>) -> Facts {
    let embedded = matches!(source, Source::Embedded(_));
    let tensors = info.weights.tensors();
    let mut by_type: Vec<(&str, u64)> = Vec::new();
    for tensor in tensors {
        let (name, size) = (tensor.info.ty.name(), tensor.info.size);
        match by_type.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += size,
            None => by_type.push((name, size)),
        }
    }
    let most = by_type.iter().max_by_key(|(_, size)| *size).map_or("", |(name, _)| name);
    let model = forecast.map(Forecast::model);
    let memory = forecast.map(|forecast| &forecast.machine().memory);
    Facts {
        id: if embedded { "calf".to_owned() } else { file_name(source) },
        path: match source {
            Source::File(path) => path.display().to_string(),
            Source::Embedded(_) => "calf.gguf (embedded)".to_owned(),
        },
        identity: info.name.clone(),
        architecture: info.metadata().arch().unwrap_or("unknown").to_owned(),
        parameters: tensors.iter().map(|tensor| tensor.info.shape.iter().product::<u64>()).sum(),
        bytes: info.weights.size(),
        quantization: most.to_owned(),
        embedded,
        layout: layout(info),
        experts: model
            .filter(|model| model.experts > 0)
            .map(|model| ExpertCounts { total: model.experts, used: model.experts_used }),
        memory: MemoryFacts {
            total_bytes: memory.and_then(|memory| memory.limit_bytes.or(memory.total_bytes)),
            limit_per_s: memory.and_then(|memory| memory.read_bytes_per_second),
            bytes_per_token: model.map(|model| model.routed_per_token + model.dense_per_token),
        },
        prediction: forecast.and_then(prediction),
        advice: forecast.map(|forecast| advice(forecast.upgrades())).unwrap_or_default(),
    }
}

/// The weights by where they are; the KV cache is not among them.
fn layout(info: &ModelInfo) -> Vec<Place> {
    let place = |what: &str, place: &str, bytes| Place {
        what: what.to_owned(),
        place: place.to_owned(),
        bytes,
    };
    let bytes = info.weights.size();
    let Some(streaming) = &info.streaming else {
        return vec![place("all weights", "memory", bytes)];
    };
    vec![
        place("routed experts", "drive", streaming.routed),
        place("cache of routed experts", "memory", streaming.cache_bytes()),
        place("all other weights", "memory", bytes.saturating_sub(streaming.routed)),
    ]
}

fn prediction(forecast: &Forecast) -> Option<Prediction> {
    let prediction = forecast.prediction()?;
    let range = prediction.decode(0);
    Some(Prediction {
        tokens_per_s: range.likely,
        low: range.low,
        high: range.high,
        prompt_tokens_per_s: prediction.prefill(0).likely,
        bound: prediction.bound().bound().to_owned(),
    })
}

/// The least costly changes first, a few of each kind; those that only other software makes use of
/// are last.
fn advice(mut upgrades: Vec<Upgrade>) -> Vec<Advice> {
    upgrades.sort_by_key(|upgrade| (!upgrade.supported, upgrade.effort, upgrade.rank));
    let mut kept: Vec<Upgrade> = Vec::new();
    for upgrade in upgrades {
        let alike = kept.iter().filter(|other| other.effort == upgrade.effort).count();
        if alike < ADVICE_OF_A_KIND && kept.len() < ADVICE_MAX {
            kept.push(upgrade);
        }
    }
    let told = kept.into_iter().map(|Upgrade { what, decode, gain, note, supported, .. }| Advice {
        what,
        tokens_per_s: decode.likely,
        gain,
        note,
        supported,
    });
    told.collect()
}

/// The file's name without its ending and, of a split one, without the number of its part.
fn file_name(source: &Source) -> String {
    let Source::File(path) = source else { return String::new() };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match stem.find("-00001-of-") {
        Some(at) => stem[..at].to_owned(),
        None => stem,
    }
}

#[cfg(test)]
mod tests {
    use cachalot_plan::presets;

    use super::*;

    #[test]
    fn split_files_lose_their_number() {
        let name = |path: &str| file_name(&Source::File(path.into()));
        assert_eq!(name("/m/R1-Q4-00001-of-00009.gguf"), "R1-Q4");
        assert_eq!(name("R1.gguf"), "R1");
    }

    #[test]
    fn a_prediction_comes_with_its_bound_and_the_cheapest_changes_first() {
        let machine = presets::machine("7950x, 64 GB DDR5-5200, gen4").unwrap();
        let forecast = Forecast::of_published("UD-Q2_K_XL", machine);
        let told = prediction(&forecast).unwrap();
        assert!(told.low < told.tokens_per_s && told.tokens_per_s < told.high);
        assert_eq!(told.bound, "the drive");
        let advice = advice(forecast.upgrades());
        assert!((1..=ADVICE_MAX).contains(&advice.len()), "{advice:?}");
        assert!(advice.iter().all(|advice| advice.gain.unwrap() > 1.0), "{advice:?}");
        assert!(advice.is_sorted_by_key(|advice| !advice.supported), "{advice:?}");
    }

    #[test]
    fn what_was_never_measured_is_not_predicted() {
        let mut machine = presets::machine("7950x, 64 GB DDR5-5200, gen4").unwrap();
        machine.memory.read_bytes_per_second = None;
        machine.memory.channels = None;
        machine.memory.speed_mts = None;
        machine.processor.name = None;
        let forecast = Forecast::of_published("UD-Q2_K_XL", machine);
        assert!(prediction(&forecast).is_none());
        assert!(forecast.upgrades().is_empty());
    }
}
