//! Numbers as Python reads and writes them.

/// A float as `repr` writes it: the shortest digits, an exponent below 1e-4 and from 1e16.
pub(super) fn repr(value: f64) -> String {
    if let Some(text) = not_finite(value) {
        return text.into();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{value:?}");
    }
    format!("{digits}e{}", signed(exponent))
}

fn not_finite(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("nan"),
        f64::INFINITY => Some("inf"),
        f64::NEG_INFINITY => Some("-inf"),
        _ => None,
    }
}

fn signed(exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{:02}", exponent.abs())
}

/// `%.3f`.
pub(super) fn fixed(value: f64, precision: usize) -> String {
    not_finite(value).map_or_else(|| format!("{value:.precision$}"), str::to_owned)
}

/// `%.3e`.
pub(super) fn exponential(value: f64, precision: usize) -> String {
    if let Some(text) = not_finite(value) {
        return text.into();
    }
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{digits}e{}", signed(exponent.parse().unwrap_or(0)))
}

/// `%.3g`; `keeps_zeros` is the flag `#`.
pub(super) fn general(value: f64, precision: usize, keeps_zeros: bool) -> String {
    if let Some(text) = not_finite(value) {
        return text.into();
    }
    let precision = precision.max(1);
    let text = exponential(value, precision - 1);
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let bare = |text: &str| -> String {
        if keeps_zeros || !text.contains('.') {
            return text.to_owned();
        }
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if exponent < -4 || exponent >= precision as i32 {
        return format!("{}e{}", bare(digits), signed(exponent));
    }
    bare(&format!("{value:.*}", (precision as i32 - 1 - exponent).max(0) as usize))
}

/// `%.3e` without zeros at the end of the digits.
pub(super) fn exponential_short(value: f64, precision: usize) -> String {
    let text = exponential(value, precision.max(1) - 1);
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    };
    format!("{digits}e{exponent}")
}

/// The length of a float literal at the start of a text: with a fraction, an exponent, or both.
pub(super) fn float_length(text: &str) -> Option<usize> {
    let whole = digits_length(text)?;
    let fraction = text[whole..].strip_prefix('.').and_then(digits_length).map(|length| length + 1);
    let mut end = whole + fraction.unwrap_or(0);
    let exponent = text[end..].strip_prefix(['e', 'E']).and_then(|rest| {
        let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        Some(1 + rest.len() - digits.len() + digits_length(digits)?)
    });
    end += exponent.unwrap_or(0);
    (fraction.is_some() || exponent.is_some()).then_some(end)
}

/// The length of digits with single `_` between them.
fn digits_length(text: &str) -> Option<usize> {
    run_length(text, |byte| byte.is_ascii_digit())
}

fn run_length(text: &str, is_digit: impl Fn(u8) -> bool) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut length = 0;
    while length < bytes.len() {
        let joins = bytes[length] == b'_' && length > 0;
        if is_digit(bytes[length]) {
            length += 1;
        } else if joins && bytes.get(length + 1).is_some_and(|byte| is_digit(*byte)) {
            length += 2;
        } else {
            break;
        }
    }
    (length > 0).then_some(length)
}

/// The length of an integer literal at the start of a text that begins with a digit.
pub(super) fn integer_length(text: &str) -> usize {
    let radix = match text.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => 16,
        Some("0o") => 8,
        Some("0b") => 2,
        _ => 10,
    };
    if radix != 10 {
        let digits = text[2..].strip_prefix('_').unwrap_or(&text[2..]);
        let is_digit = |byte: u8| char::from(byte).is_digit(radix);
        if let Some(length) = run_length(digits, is_digit) {
            return text.len() - digits.len() + length;
        }
    }
    // A number that begins with zero is zero.
    let zeros = text.starts_with('0');
    run_length(text, |byte| if zeros { byte == b'0' } else { byte.is_ascii_digit() }).unwrap_or(1)
}

/// What Python's `int(text, base)` reads, or nothing where it refuses.
pub(super) fn parse_int(text: &str, base: u32) -> Option<Parsed> {
    let text = text.trim_matches(super::unicode::is_space);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find_map(|(prefix, radix)| {
        let rest = lower.strip_prefix(prefix)?;
        (base == radix || base == 0)
            .then(|| (rest.strip_prefix('_').unwrap_or(rest).to_owned(), radix))
    });
    let (digits, base) = prefixed.unwrap_or((lower, if base == 0 { 10 } else { base }));
    let is_digit = |byte: u8| char::from(byte).is_digit(base);
    if run_length(&digits, is_digit) != Some(digits.len()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let signed = if negative { format!("-{digits}") } else { digits };
    Some(match i128::from_str_radix(&signed, base) {
        Ok(value) => Parsed::Int(value),
        Err(_) if base == 10 => {
            let (sign, digits) = if negative { signed.split_at(1) } else { ("", &*signed) };
            Parsed::Big(format!("{sign}{}", digits.trim_start_matches('0')))
        }
        Err(_) => return None,
    })
}

pub(super) enum Parsed {
    Int(i128),
    Big(String),
}

/// What Python's `float(text)` reads, or nothing where it refuses.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(super::unicode::is_space);
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let word = unsigned.to_ascii_lowercase();
    if matches!(word.as_str(), "inf" | "infinity" | "nan") {
        return text.to_ascii_lowercase().parse().ok();
    }
    let dotted = unsigned.replacen('.', "", 1);
    let mantissa = dotted.split(['e', 'E']).next()?;
    let joined = run_length(mantissa, |byte| byte.is_ascii_digit()) == Some(mantissa.len());
    let near_dot = unsigned.contains("_.") || unsigned.contains("._");
    if !joined || near_dot || !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    text.replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_repr_does() {
        for (value, expected) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (-0.5, "-0.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e300, "1.25e+300"),
            (0.1 + 0.2, "0.30000000000000004"),
        ] {
            assert_eq!(repr(value), expected);
        }
    }

    #[test]
    fn literals_end_where_they_end() {
        for (text, float, integer) in [
            ("1.5e3x", Some(5), 1),
            ("1.", None, 1),
            ("1e5", Some(3), 1),
            ("1_000.5", Some(7), 5),
            ("0x1F_g", None, 4),
            ("007", None, 2),
            ("12ab", None, 2),
        ] {
            assert_eq!((float_length(text), integer_length(text)), (float, integer), "{text}");
        }
    }
}
