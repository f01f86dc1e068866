//! Numbers as a person reads them. Sizes are binary (GiB), since memory is sold and counted so; a
//! file that is "404 GB" in a catalogue has 376.7 GiB.

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

/// A whole number with its thousands set apart: `163,840`.
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
    fn bytes_choose_their_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(70_272), "68.6 KiB");
        assert_eq!(bytes((1 << 30) - 1), "1.0 GiB");
        assert_eq!(bytes(404_400_000_000), "376.6 GiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
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
