//! Counts, sizes and spans of time as a person reads them.

/// A count with thousands apart: `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the unit that suits them: `1.5 GB`.
pub fn bytes(number: u64) -> String {
    let number = number as f64;
    match number {
        n if n < 1e3 => format!("{n} B"),
        n if n < 1e6 => format!("{:.0} kB", n / 1e3),
        n if n < 1e9 => format!("{:.0} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

/// A span of time: `42 s`, `3 min 5 s`, `2 h 7 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0 if seconds > 0.0 => "under 1 s".to_owned(),
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")]
        {
            assert_eq!(count(number), expected);
        }
        for (number, expected) in
            [(12, "12 B"), (1500, "2 kB"), (98_000_000, "98 MB"), (1_460_000_000, "1.46 GB")]
        {
            assert_eq!(bytes(number), expected);
        }
        for (seconds, expected) in [
            (0.0, "0 s"),
            (0.2, "under 1 s"),
            (59.4, "59 s"),
            (185.0, "3 min 5 s"),
            (7620.0, "2 h 7 min"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
