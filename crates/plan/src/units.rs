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

/// Seconds as people say them: `12 ms`, `3.4 s`, `2 min 5 s`.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.1 => format!("{:.1} ms", seconds * 1e3),
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        ..60.0 => format!("{seconds:.1} s"),
        _ => format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0),
    }
}

/// A number with as many digits as it is worth: `0.46`, `2.9`, `62`.
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
