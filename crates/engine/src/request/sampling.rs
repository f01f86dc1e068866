//! The numbers that steer sampling: one table for the flags, the chat's `/set parameter` and the
//! keys of a file, so that all three know the same names and the same ranges.

use cachalot_gguf::{Metadata, Value};

use crate::Error;

/// How the next token is chosen. The default is what DeepSeek recommends for R1: temperature 0.6,
/// top-p 0.95, nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 always takes the most likely token.
    pub temperature: f32,
    /// Only the smallest set of likeliest tokens whose probability reaches this; 1 is off.
    pub top_p: f32,
    /// Only this many of the likeliest tokens; 0 is off.
    pub top_k: usize,
    /// Only tokens at least this likely, as a share of the likeliest one's probability; 0 is off.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted once from the logits of recent tokens; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted from the logits of recent tokens for each time they occurred; 0 is off.
    pub frequency_penalty: f32,
    /// How many tokens count as recent, those of the prompt included.
    pub repeat_last_n: usize,
    /// Only tokens whose surprise is typical, up to this sum of probabilities; 1 is off.
    pub typical_p: f32,
    /// How often XTC excludes the most likely tokens; 0 is off.
    pub xtc_probability: f32,
    /// The probability from which on XTC calls a token likely; above 0.5 is off.
    pub xtc_threshold: f32,
    /// Scales DRY's penalty for repetitions; 0 is off.
    pub dry_multiplier: f32,
    /// DRY's penalty grows by this factor with each token of a repetition.
    pub dry_base: f32,
    /// Repetitions up to this length are free.
    pub dry_allowed_length: usize,
    /// Tokens that DRY searches for repetitions; -1 is all, 0 none.
    pub dry_penalty_last_n: i32,
    /// Texts across which nothing counts as a repetition.
    pub dry_sequence_breakers: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.6,
            top_p: 0.95,
            top_k: 0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repeat_last_n: 64,
            typical_p: 1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: -1,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
        }
    }
}

/// One number of [`Sampling`]: its name, where a file keeps it, what it may be.
pub struct Parameter {
    /// As flags and `/set parameter` call it: `top_p`.
    pub name: &'static str,
    /// What it does, in a few words.
    pub help: &'static str,
    /// The key of files that recommend a value, without `general.sampling.`.
    key: Option<&'static str>,
    min: f64,
    max: f64,
    whole: bool,
    get: fn(&Sampling) -> f64,
    set: fn(&mut Sampling, f64),
}

/// Every number of [`Sampling`].
pub const PARAMETERS: [Parameter; 15] = [
    Parameter {
        name: "temperature",
        help: "0 takes the likeliest token, more is more varied",
        key: Some("temp"),
        min: 0.0,
        max: 100.0,
        whole: false,
        get: |s| s.temperature.into(),
        set: |s, value| s.temperature = value as f32,
    },
    Parameter {
        name: "top_p",
        help: "only the likeliest, up to this sum; 1 is off",
        key: Some("top_p"),
        min: 0.0,
        max: 1.0,
        whole: false,
        get: |s| s.top_p.into(),
        set: |s, value| s.top_p = value as f32,
    },
    Parameter {
        name: "top_k",
        help: "sample from this many of the most likely tokens; 0 is off",
        key: Some("top_k"),
        min: 0.0,
        max: 1e9,
        whole: true,
        get: |s| s.top_k as f64,
        set: |s, value| s.top_k = value as usize,
    },
    Parameter {
        name: "min_p",
        help: "only those at least this likely, relative to the most likely; 0 is off",
        key: Some("min_p"),
        min: 0.0,
        max: 1.0,
        whole: false,
        get: |s| s.min_p.into(),
        set: |s, value| s.min_p = value as f32,
    },
    Parameter {
        name: "repeat_penalty",
        help: "divides the logits of recent tokens; 1 is off",
        key: Some("penalty_repeat"),
        min: 0.01,
        max: 100.0,
        whole: false,
        get: |s| s.repeat_penalty.into(),
        set: |s, value| s.repeat_penalty = value as f32,
    },
    Parameter {
        name: "presence_penalty",
        help: "taken from recent tokens once; 0 is off",
        key: None,
        min: -100.0,
        max: 100.0,
        whole: false,
        get: |s| s.presence_penalty.into(),
        set: |s, value| s.presence_penalty = value as f32,
    },
    Parameter {
        name: "frequency_penalty",
        help: "taken from recent tokens each time; 0 is off",
        key: None,
        min: -100.0,
        max: 100.0,
        whole: false,
        get: |s| s.frequency_penalty.into(),
        set: |s, value| s.frequency_penalty = value as f32,
    },
    Parameter {
        name: "repeat_last_n",
        help: "how many tokens count as recent",
        key: Some("penalty_last_n"),
        min: 0.0,
        max: 1e9,
        whole: true,
        get: |s| s.repeat_last_n as f64,
        set: |s, value| s.repeat_last_n = value as usize,
    },
    Parameter {
        name: "typical_p",
        help: "locally typical sampling; 1 is off",
        key: None,
        min: 0.0,
        max: 1.0,
        whole: false,
        get: |s| s.typical_p.into(),
        set: |s, value| s.typical_p = value as f32,
    },
    Parameter {
        name: "xtc_probability",
        help: "chance that XTC drops the likeliest; 0 is off",
        key: Some("xtc_probability"),
        min: 0.0,
        max: 1.0,
        whole: false,
        get: |s| s.xtc_probability.into(),
        set: |s, value| s.xtc_probability = value as f32,
    },
    Parameter {
        name: "xtc_threshold",
        help: "probability that XTC calls likely",
        key: Some("xtc_threshold"),
        min: 0.0,
        max: 1.0,
        whole: false,
        get: |s| s.xtc_threshold.into(),
        set: |s, value| s.xtc_threshold = value as f32,
    },
    Parameter {
        name: "dry_multiplier",
        help: "penalty for repeated sequences; 0 is off",
        key: None,
        min: 0.0,
        max: 100.0,
        whole: false,
        get: |s| s.dry_multiplier.into(),
        set: |s, value| s.dry_multiplier = value as f32,
    },
    Parameter {
        name: "dry_base",
        help: "growth of that penalty with their length",
        key: None,
        min: 0.0,
        max: 100.0,
        whole: false,
        get: |s| s.dry_base.into(),
        set: |s, value| s.dry_base = value as f32,
    },
    Parameter {
        name: "dry_allowed_length",
        help: "length of sequences that may repeat",
        key: None,
        min: 0.0,
        max: 1e9,
        whole: true,
        get: |s| s.dry_allowed_length as f64,
        set: |s, value| s.dry_allowed_length = value as usize,
    },
    Parameter {
        name: "dry_penalty_last_n",
        help: "tokens searched for repeats; -1 is all",
        key: None,
        min: -1.0,
        max: 1e9,
        whole: true,
        get: |s| s.dry_penalty_last_n.into(),
        set: |s, value| s.dry_penalty_last_n = value as i32,
    },
];

impl Parameter {
    /// Its value in `sampling`, in its shortest form.
    pub fn get(&self, sampling: &Sampling) -> String {
        // By way of f32, whose shortest form of 0.6 is 0.6.
        ((self.get)(sampling) as f32).to_string()
    }

    fn set(&self, sampling: &mut Sampling, value: f64) -> Result<(), Error> {
        let in_range = (self.min..=self.max).contains(&value);
        if !in_range || (self.whole && value.fract() != 0.0) {
            return Err(Error::ParameterRange {
                name: self.name,
                value,
                kind: if self.whole { "a whole number" } else { "a number" },
                min: self.min,
                max: self.max,
            });
        }
        (self.set)(sampling, value);
        Ok(())
    }
}

impl Sampling {
    /// Whether recent tokens are penalized at all.
    pub(crate) fn penalizes(&self) -> bool {
        self.repeat_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Sets the number called `name`; `-` for `_` is allowed, and `temp` for `temperature`.
    ///
    /// # Errors
    /// [`Error::ParameterName`] for another name, [`Error::ParameterRange`] for a value outside of
    /// the range.
    pub fn set(&mut self, name: &str, value: f64) -> Result<(), Error> {
        let known = name.replace('-', "_");
        let known = if known == "temp" { "temperature" } else { &known };
        match PARAMETERS.iter().find(|parameter| parameter.name == known) {
            Some(parameter) => parameter.set(self, value),
            None => Err(Error::ParameterName { name: name.to_owned() }),
        }
    }

    /// The defaults, replaced by what the file recommends in its `general.sampling.*` keys (the
    /// names are llama.cpp's; there, negative counts mean "off" and "everything").
    ///
    /// # Errors
    /// [`Error::ParameterKey`] around a recommendation that is not a number or out of range.
    pub fn recommended(metadata: &Metadata) -> Result<Self, Error> {
        let mut sampling = Self::default();
        for parameter in &PARAMETERS {
            let Some(key) = parameter.key.map(|key| format!("general.sampling.{key}")) else {
                continue;
            };
            let Some(found) = metadata.get(&key) else { continue };
            let mut value = number(found);
            if parameter.whole && value < 0.0 {
                value = if parameter.name == "top_k" { 0.0 } else { parameter.max };
            }
            parameter
                .set(&mut sampling, value)
                .map_err(|source| Error::ParameterKey { key, source: Box::new(source) })?;
        }
        Ok(sampling)
    }
}

/// Any number of the metadata; what is none becomes NaN, which is in no range.
fn number(value: &Value) -> f64 {
    match *value {
        Value::U8(number) => number.into(),
        Value::I8(number) => number.into(),
        Value::U16(number) => number.into(),
        Value::I16(number) => number.into(),
        Value::U32(number) => number.into(),
        Value::I32(number) => number.into(),
        Value::U64(number) => number as f64,
        Value::I64(number) => number as f64,
        Value::F32(number) => number.into(),
        Value::F64(number) => number,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_recommends_and_is_checked() {
        let mut metadata = Metadata::default();
        assert_eq!(Sampling::recommended(&metadata).unwrap(), Sampling::default());
        metadata.insert("general.sampling.temp", 0.3_f32);
        metadata.insert("general.sampling.top_k", -1_i32);
        metadata.insert("general.sampling.penalty_last_n", 12_i32);
        let sampling = Sampling::recommended(&metadata).unwrap();
        assert_eq!((sampling.temperature, sampling.top_k, sampling.repeat_last_n), (0.3, 0, 12));
        assert_eq!(sampling.top_p, 0.95, "what the file does not name keeps its default");
        for bad in [Value::from(1.5_f32), Value::from("much"), Value::from(f32::NAN)] {
            metadata.insert("general.sampling.top_p", bad);
            let error = Sampling::recommended(&metadata).unwrap_err().to_string();
            assert!(error.contains("general.sampling.top_p"), "{error}");
        }
    }

    #[test]
    fn names_are_forgiving_and_ranges_are_not() {
        let mut sampling = Sampling::default();
        sampling.set("temp", 0.0).unwrap();
        sampling.set("top-k", 40.0).unwrap();
        assert_eq!((sampling.temperature, sampling.top_k), (0.0, 40));
        for (name, value) in [("temperature", -0.1), ("top_k", 1.5), ("top_p", f64::NAN)] {
            let error = sampling.set(name, value).unwrap_err().to_string();
            assert!(error.contains("from 0"), "{error}");
        }
        assert!(sampling.set("warmth", 1.0).unwrap_err().to_string().contains("warmth"));
    }

    #[test]
    fn every_parameter_shows_what_was_set() {
        for parameter in &PARAMETERS {
            let mut sampling = Sampling::default();
            sampling.set(parameter.name, 1.0).unwrap();
            assert_eq!(parameter.get(&sampling), "1", "{}", parameter.name);
        }
        assert_eq!(PARAMETERS[0].get(&Sampling::default()), "0.6");
    }
}
