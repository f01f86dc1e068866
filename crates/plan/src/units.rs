//! Sizes and rates, as people write them and read them.
//!
//! | written | means |
//! |---|---|
//! | `64GB`, `64GiB`, `64G` | 64 x 2^30 bytes: memory is sold and counted in binary units, and every size that a person gives here is one of memory |
//! | `7GB/s` | 7 x 10^9 bytes per second: bandwidth is given in decimal units everywhere |
//! | `7GiB/s` | 7 x 2^30 bytes per second |
//!
//! [`parse_size`] and [`parse_rate`] are the only parsers of sizes and rates in this program, so
//! that `--memory 64GB` and `--ram 64GB` are the same number. Sizes are printed in binary units
//! with their unambiguous names (GiB); rates, and bytes read per token, in decimal GB.

/// What is wrong with a size or a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a size.
    #[error("`{0}` is not a size: write it like 64GiB, 128GB, 1.5TB or 512MiB")]
    Size(String),
    /// Not a rate.
    #[error("`{0}` is not a rate: write it like 7GB/s or 850MB/s")]
    Rate(String),
}

/// Largest size that is believed: 1 EiB.
const SIZE_MAX: f64 = (1_u64 << 60) as f64;

/// `64GiB`, `64 GB`, `64g` or a plain number of bytes, in binary units.
///
/// # Errors
/// If it is not a size, or less than 1 byte.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let error = || UnitError::Size(text.trim().to_owned());
    let lower = text.trim().to_ascii_lowercase();
    let (digits, unit) = lower.split_at(number_end(&lower));
    let shift = match unit.trim().trim_end_matches("ytes").trim_end_matches("yte") {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(error()),
    };
    let bytes = digits.parse::<f64>().map_err(|_| error())? * f64::from(shift).exp2();
    if (1.0..=SIZE_MAX).contains(&bytes) { Ok(bytes as u64) } else { Err(error()) }
}

/// `7GB/s`, `850 MB/s`, `7GiB/s`, `7gbps` -> bytes per second.
///
/// # Errors
/// If it is not a rate.
pub fn parse_rate(text: &str) -> Result<f64, UnitError> {
    let error = || UnitError::Rate(text.trim().to_owned());
    let lower: String = text.to_lowercase().split_whitespace().collect();
    let per_second = ["/sec", "/s", "ps"].iter().find_map(|unit| lower.strip_suffix(unit));
    let (digits, unit) =
        per_second.map(|rate| rate.split_at(number_end(rate))).ok_or_else(error)?;
    let unit = match unit {
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "mib" => f64::from(1 << 20),
        "gib" => f64::from(1 << 30),
        _ => return Err(error()),
    };
    let rate = digits.parse::<f64>().map_err(|_| error())? * unit;
    if (1e3..1e17).contains(&rate) { Ok(rate) } else { Err(error()) }
}

/// Where the number at the beginning of `text` ends.
fn number_end(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len())
}

/// A number of bytes in the largest binary unit that leaves at least 1: `376.7 GiB`.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1023.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

/// A rate in GB of 10^9 bytes, as bandwidth is given everywhere: `204.8 GB/s`.
pub fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", gigabytes(bytes_per_second))
}

/// Bytes in GB of 10^9, or smaller units: `12.3 GB`, `850 MB`.
pub fn gigabytes(bytes: f64) -> String {
    match bytes {
        1e9.. => format!("{:.1} GB", bytes / 1e9),
        1e6.. => format!("{:.0} MB", bytes / 1e6),
        _ => format!("{:.0} kB", bytes / 1e3),
    }
}

/// A duration: `12 ms`, `3.4 s`, `2 min 5 s`.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.1 => format!("{:.1} ms", seconds * 1e3),
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        ..60.0 => format!("{seconds:.1} s"),
        _ => format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0),
    }
}

/// A number with two significant digits: `0.46`, `2.9`, `62`.
pub fn significant(number: f64) -> String {
    match number.abs() {
        ..0.995 => format!("{number:.2}"),
        ..9.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

/// A number of parameters as the field writes it: `671.0B`, `8.3M`.
pub fn parameters(count: u64) -> String {
    let units = ["", "K", "M", "B"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => count.to_string(),
        _ => format!("{value:.1}{}", units[unit]),
    }
}

/// A whole number with separators between thousands: `163,840`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_however_they_are_written() {
        for (text, bytes) in [
            ("64GiB", 64 << 30),
            ("64 GB", 64 << 30),
            ("1.5 g", 3 << 29),
            ("2TB", 2 << 40),
            ("512kb", 512 << 10),
            ("7", 7),
            ("96 bytes", 96),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "0", "GiB", "1..2GB", "5 parsecs", "1e9", "-1", "99999999999TiB", "7GB/s"] {
            let error = parse_size(bad).unwrap_err().to_string();
            assert!(error.contains("is not a size"), "{bad}: {error}");
        }
    }

    #[test]
    fn rates_are_decimal() {
        for (text, rate) in [("7GB/s", 7e9), ("850 MB/s", 85e7), ("1.5TB/sec", 1.5e12)] {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        assert_eq!(parse_rate("2GiB/s"), Ok(2.0 * f64::from(1 << 30)));
        for bad in ["7GB", "GB/s", "-7GB/s", "7 parsecs/s", "1e30GB/s", "0GB/s"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_choose_their_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(70_272), "68.6 KiB");
        assert_eq!(bytes((1 << 30) - 1), "1.0 GiB");
        assert_eq!(bytes(404_400_000_000), "376.6 GiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn rates_times_and_numbers_are_rounded_for_people() {
        assert_eq!(rate(204.8e9), "204.8 GB/s");
        assert_eq!(rate(850e6), "850 MB/s");
        assert_eq!(gigabytes(8e3), "8 kB");
        assert_eq!(seconds(0.0123), "12.3 ms");
        assert_eq!(seconds(0.34), "340 ms");
        assert_eq!(seconds(3.44), "3.4 s");
        assert_eq!(seconds(125.0), "2 min 5 s");
        assert_eq!([0.456, 2.94, 9.96, 62.4].map(significant), ["0.46", "2.9", "10", "62"]);
    }

    #[test]
    fn parameters_choose_their_unit() {
        assert_eq!(parameters(640), "640");
        assert_eq!(parameters(999_990), "1.0M");
        assert_eq!(parameters(671_026_419_200), "671.0B");
        assert_eq!(parameters(1_026_000_000_000), "1026.0B");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(163_840), "163,840");
        assert_eq!(grouped(1_000_000), "1,000,000");
    }
}
