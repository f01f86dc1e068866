//! Values of options and chat parameters, with messages that say what is accepted.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use cachalot_plan::units;

/// A number of tokens: `4096`, `4,096`, `4k` (1k is 1,024) or `1m`.
pub(crate) fn tokens(text: &str) -> Result<usize, String> {
    let error = || "expected a number of tokens such as 4096 or 32k".to_owned();
    let text = text.trim().to_ascii_lowercase();
    let (digits, shift) = match text.strip_suffix(['k', 'm']) {
        Some(digits) => (digits, if text.ends_with('k') { 10 } else { 20 }),
        None => (&text[..], 0),
    };
    // `16,64` is a list, which other programs accept, and not 1,664.
    let mut groups = digits.split([',', '_']);
    let first = groups.next().unwrap_or_default();
    let is_grouped = groups.clone().next().is_some();
    if groups.any(|group| group.len() != 3) || (is_grouped && !(1..=3).contains(&first.len())) {
        return Err(error());
    }
    let number: usize = digits.replace([',', '_'], "").parse().map_err(|_| error())?;
    number.checked_mul(1 << shift).ok_or_else(error)
}

/// A whole number, not negative.
pub(crate) fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| "expected a whole number".to_owned())
}

/// A whole number in a range.
pub(crate) fn within<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let number = text.trim().parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            format!("expected a whole number from {} to {}", range.start(), range.end())
        })
    }
}

/// A number of seconds: `30`, `30s`, `2m` or `1h`.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let with_unit = units.iter().find_map(|(unit, of)| Some((text.strip_suffix(unit)?, *of)));
    let (number, of) = with_unit.unwrap_or((text, 1));
    let seconds = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(of));
    seconds.ok_or_else(|| "expected a time such as 30 (seconds), 2m or 1h".to_owned())
}

/// A decimal number.
pub(crate) fn decimal(text: &str) -> Result<f64, String> {
    let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "expected a number such as 0.6".to_owned())
}

/// A number of threads. More than the machine has is accepted here and reduced later.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    whole(text)
        .ok()
        .filter(|threads| *threads > 0)
        .ok_or_else(|| "expected a number of threads, at least 1".to_owned())
}

/// A size in bytes, such as `64GiB`.
pub(crate) fn size(text: &str) -> Result<u64, units::UnitError> {
    units::parse_size(text)
}

/// A seed: a number, or `random`, for which -1 is common elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(pub(crate) Option<u64>);

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "-1" | "random" => Ok(Self(None)),
            text => {
                let seed = text.parse().map_err(|_| "expected a whole number, or random");
                Ok(Self(Some(seed?)))
            }
        }
    }
}

/// A maximum number of tokens: a number, or `none`, for which -1 is common elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<usize>);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "-1" | "none" => Ok(Self(None)),
            text => {
                let limit = tokens(text).map_err(|error| format!("{error}, or none"));
                Ok(Self(Some(limit?)))
            }
        }
    }
}

/// Expert groups for routing: `auto`, `off` or `N/K`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupsArg {
    Auto,
    Off,
    Of { groups: usize, used: usize },
}

impl FromStr for GroupsArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Self::Auto),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        let numbers = text.split_once('/').and_then(|(groups, used)| {
            Some((groups.trim().parse().ok()?, used.trim().parse().ok()?))
        });
        match numbers {
            Some((groups, used)) if 0 < used && used <= groups => Ok(Self::Of { groups, used }),
            Some(_) => Err("expected from 1 to N of N groups".to_owned()),
            None => Err("expected auto, off, or two numbers such as 8/4".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_tokens_may_have_units_and_separators() {
        for (text, count) in
            [("4096", 4096), ("4,096", 4096), ("32k", 32_768), ("32K", 32_768), ("1m", 1 << 20)]
        {
            assert_eq!(tokens(text), Ok(count), "{text}");
        }
        for list in ["16,64", "4,0960", "1,", ",100", "1234,567", "1,,000"] {
            assert!(tokens(list).is_err(), "{list}");
        }
        for bad in
            ["", "k", "1.5", "-1", "many", "4kk", "99999999999999999999", "9999999999999999m"]
        {
            assert!(tokens(bad).unwrap_err().contains("such as 4096 or 32k"), "{bad}");
        }
    }

    #[test]
    fn ranges_and_times_name_what_they_accept() {
        let cards = within::<u16>(1..=8);
        assert_eq!(cards(" 8 "), Ok(8));
        for bad in ["0", "9", "x", "", "-1", "1.0"] {
            assert_eq!(cards(bad).unwrap_err(), "expected a whole number from 1 to 8", "{bad}");
        }
        for (text, expected) in [("30", 30), ("30s", 30), ("2m", 120), ("1h", 3600), ("0", 0)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in ["", "s", "-1", "1.5m", "99999999999999999999h"] {
            assert!(seconds(bad).unwrap_err().contains("such as 30"), "{bad}");
        }
    }

    #[test]
    fn minus_one_means_random_or_none() {
        assert_eq!(
            ["-1", "random", "7"].map(str::parse),
            [None, None, Some(7)].map(|s| Ok(Seed(s)))
        );
        assert_eq!(
            ["-1", "none", "2k"].map(str::parse),
            [None, None, Some(2048)].map(|limit| Ok(Limit(limit)))
        );
        assert!("-2".parse::<Seed>().unwrap_err().contains("random"));
        assert!("few".parse::<Limit>().unwrap_err().contains("none"));
    }

    #[test]
    fn other_numbers_say_what_is_expected() {
        assert_eq!(decimal("0.5"), Ok(0.5));
        for bad in ["warm", "nan", "inf", "1,5", ""] {
            assert!(decimal(bad).unwrap_err().contains("such as 0.6"), "{bad}");
        }
        assert_eq!(threads("1000"), Ok(1000));
        for bad in ["0", "-1", "all"] {
            assert!(threads(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expert_groups_are_parsed() {
        assert_eq!("8/4".parse(), Ok(GroupsArg::Of { groups: 8, used: 4 }));
        assert_eq!("off".parse(), Ok(GroupsArg::Off));
        for bad in ["8", "4/8", "8/0", "x/y", ""] {
            assert!(bad.parse::<GroupsArg>().is_err(), "{bad}");
        }
    }
}
