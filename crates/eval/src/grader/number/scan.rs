//! Numbers within a text, as people and models write them.

/// A number that was read from a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Number {
    /// Its value, as near as a float comes.
    pub(super) value: f64,
    /// Its digits without zeros at either end, where it is a decimal number: exact for any length.
    pub(super) digits: Option<String>,
}

/// A number and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) number: Number,
    /// The first byte, its sign and currency included.
    pub(super) start: usize,
    /// The first byte behind it.
    pub(super) end: usize,
    /// Whether it stands for itself, and is no part of a word, a formula, a date or a version.
    pub(super) plain: bool,
}

/// Which characters part thousands, and which one begins the decimals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decimal {
    /// `1,234.5`.
    Point,
    /// `1.234,5`.
    Comma,
}

/// Space that does not break, between thousands.
const THIN: char = '\u{a0}';
/// Signs of money in front of a number.
const CURRENCY: [char; 6] = ['$', '€', '£', '¥', '₹', '₩'];
/// Single letters that are units when they stand right behind a number. Others are variables: `3x`.
const UNITS: &str = "mgshlLWVAJNKCFT";

/// A text with one sign for minus, one for space within numbers, ASCII digits and plain fractions.
pub(super) fn normalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let digit_follows = characters.peek().is_some_and(char::is_ascii_digit);
        let last = out.chars().next_back();
        match character {
            '\u{2212}' | '\u{fe63}' | '\u{ff0d}' => out.push('-'),
            // A dash between two numbers is a range.
            '\u{2010}' | '\u{2011}' | '\u{2013}'
                if digit_follows && !last.is_some_and(char::is_alphanumeric) =>
            {
                out.push('-');
            }
            '\u{a0}' | '\u{2007}' | '\u{2009}' | '\u{202f}' => out.push(THIN),
            '\u{2019}' => out.push('\''),
            '\u{2044}' => out.push('/'),
            '\u{ff01}'..='\u{ff5e}' => {
                out.extend(char::from_u32(u32::from(character) - 0xff01 + 0x21));
            }
            _ => match vulgar(character) {
                Some(fraction) => {
                    out.push_str(if last.is_some_and(|c| c.is_ascii_digit()) { " " } else { "" });
                    out.push_str(fraction);
                }
                None => out.push(character),
            },
        }
    }
    out
}

/// `½` and its like.
fn vulgar(character: char) -> Option<&'static str> {
    Some(match character {
        '½' => "1/2",
        '⅓' => "1/3",
        '⅔' => "2/3",
        '¼' => "1/4",
        '¾' => "3/4",
        '⅕' => "1/5",
        '⅛' => "1/8",
        '⅜' => "3/8",
        '⅝' => "5/8",
        '⅞' => "7/8",
        _ => return None,
    })
}

/// Every number of a [`normalised`] text in order.
pub(super) fn numbers(text: &str, decimal: Decimal) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if !begins(text, at, decimal) {
            at += 1;
            continue;
        }
        let read = read(text, at, decimal);
        let (start, negative) = sign(text, at);
        let number = if negative { read.number.negated() } else { read.number };
        let plain = !read.strange && plain(text, start, read.end);
        found.push(Found { number, start, end: read.end, plain });
        at = read.end;
    }
    found
}

/// Whether a number begins at a byte: a digit, or the point of `.5`.
fn begins(text: &str, at: usize, decimal: Decimal) -> bool {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let free =
        at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || b".)".contains(&bytes[at - 1]));
    digit(at) || (decimal == Decimal::Point && bytes[at] == b'.' && digit(at + 1) && free)
}

struct Read {
    number: Number,
    end: usize,
    /// Whether it goes on as no number does: `1.2.3`, `3/4/2025`.
    strange: bool,
}

/// Reads the number that begins at a byte.
fn read(text: &str, at: usize, decimal: Decimal) -> Read {
    let bytes = text.as_bytes();
    let (whole, end) = grouped(text, at, decimal);
    let point = match decimal {
        Decimal::Point => b'.',
        Decimal::Comma => b',',
    };
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    if bytes.get(end) == Some(&point) && digit(end + 1) {
        let fraction = digits(text, end + 1);
        let end = end + 1 + fraction.len();
        let strange = bytes.get(end) == Some(&b'.') && digit(end + 1);
        return powered(text, &whole, fraction, end, strange);
    }
    let over = |at: usize| {
        let below = bytes.get(at).filter(|byte| **byte == b'/').map(|_| digits(text, at + 1))?;
        let end = at + 1 + below.len();
        let more = bytes.get(end).is_some_and(|byte| b"/.".contains(byte)) && digit(end + 1);
        let below: f64 = below.parse().ok()?;
        (below != 0.0 && !more).then_some((below, end))
    };
    let value: f64 = whole.parse().unwrap_or(f64::INFINITY);
    if let Some((below, end)) = over(end) {
        return Read { number: Number { value: value / below, digits: None }, end, strange: false };
    }
    // `1 3/4`: a whole number and a proper fraction.
    let space = [" ", "\u{a0}"].iter().find(|space| text[end..].starts_with(**space));
    if let Some(space) = space {
        let above = digits(text, end + space.len());
        if let (Some((below, end)), Ok(above)) =
            (over(end + space.len() + above.len()), above.parse::<f64>())
            && above < below
        {
            let number = Number { value: value + above / below, digits: None };
            return Read { number, end, strange: false };
        }
    }
    let strange = bytes.get(end) == Some(&b'/') && digit(end + 1);
    powered(text, &whole, "", end, strange)
}

/// The digits that begin at a byte.
fn digits(text: &str, at: usize) -> &str {
    let rest = text.get(at..).unwrap_or_default();
    &rest[..rest.bytes().take_while(u8::is_ascii_digit).count()]
}

/// The digits of a whole number, thousands apart or not, and where it ends.
fn grouped(text: &str, at: usize, decimal: Decimal) -> (String, usize) {
    let first = digits(text, at);
    let (mut whole, mut end) = (first.to_owned(), at + first.len());
    let separators = match decimal {
        Decimal::Point => [',', '\'', THIN],
        Decimal::Comma => ['.', '\'', THIN],
    };
    let separator = text[end..].chars().next().filter(|c| separators.contains(c));
    let Some(separator) = separator.filter(|_| first.len() <= 3 && !first.starts_with('0')) else {
        return (whole, end);
    };
    while text[end..].starts_with(separator) {
        let group = digits(text, end + separator.len_utf8());
        if group.len() != 3 {
            break;
        }
        whole.push_str(group);
        end += separator.len_utf8() + group.len();
    }
    (whole, end)
}

/// A decimal number with the power of ten that may follow: `1.5e3`, `1.5 × 10^3`.
fn powered(text: &str, whole: &str, fraction: &str, end: usize, strange: bool) -> Read {
    let plain = format!("0{whole}.{fraction}0");
    match power(text, end) {
        Some((power, end)) => {
            let value = format!("{plain}e{power}").parse().unwrap_or(f64::NAN);
            Read { number: Number { value, digits: None }, end, strange }
        }
        None => {
            let value = plain.parse().unwrap_or(f64::NAN);
            let digits = plain.trim_matches('0');
            let digits = Some(digits.trim_end_matches('.').to_owned());
            Read { number: Number { value, digits }, end, strange }
        }
    }
}

/// The power of ten that begins at a byte, and where it ends.
fn power(text: &str, at: usize) -> Option<(i32, usize)> {
    let signed = |at: usize| {
        let signed = text[at..].starts_with(['-', '+']);
        let start = at + usize::from(signed);
        let end = start + digits(text, start).len();
        let power = text[at..end].parse::<i32>().ok()?;
        Some((power, end))
    };
    if text[at..].starts_with(['e', 'E']) {
        let (power, end) = signed(at + 1)?;
        return (!text[end..].starts_with(char::is_alphanumeric)).then_some((power, end));
    }
    let rest = text[at..].trim_start();
    let rest = ["×", "\\times", "\\cdot", "*", "x"].iter().find_map(|t| rest.strip_prefix(*t))?;
    let rest = rest.trim_start().strip_prefix("10^")?;
    let braced = rest.strip_prefix('{');
    let start = text.len() - braced.unwrap_or(rest).len();
    let (power, end) = signed(start)?;
    match braced {
        Some(_) => text[end..].starts_with('}').then_some((power, end + 1)),
        None => Some((power, end)),
    }
}

/// Where a number begins with its sign and currency, and whether it is below zero.
fn sign(text: &str, at: usize) -> (usize, bool) {
    let mut start = at;
    let before = |start: usize| text[..start].chars().next_back();
    if let Some(currency) = before(start).filter(|c| CURRENCY.contains(c)) {
        start -= currency.len_utf8();
    }
    let Some(sign) = before(start).filter(|c| "-+".contains(*c)) else { return (start, false) };
    let sign_at = start - sign.len_utf8();
    let left = before(sign_at);
    // Behind a number or a name it subtracts, and several of them draw a line.
    if left.is_some_and(|c| c.is_alphanumeric() || ")]}%-+".contains(c)) {
        return (start, false);
    }
    let start = match left.filter(|c| CURRENCY.contains(c)) {
        Some(currency) => sign_at - currency.len_utf8(),
        None => sign_at,
    };
    (start, sign == '-')
}

/// Whether what stands right before and behind a number leaves it one.
fn plain(text: &str, start: usize, end: usize) -> bool {
    let mut before = text[..start].chars().rev();
    let mut joined = before.next();
    if joined == Some('{') {
        joined = before.next().filter(|c| c.is_alphanumeric() || "^_}]".contains(*c));
    }
    if joined.is_some_and(|c| c.is_alphabetic() && u32::from(c) < 0x2e80 || "^_\\}".contains(c)) {
        return false;
    }
    let behind = &text[end..];
    let letters = behind.chars().take_while(|c| c.is_alphabetic()).count();
    let unit = behind.starts_with(|c: char| UNITS.contains(c) || u32::from(c) >= 0x2e80);
    let command = |text: &str| {
        text.strip_prefix('\\').is_some_and(|name| name.starts_with(|c: char| c.is_alphabetic()))
    };
    !(behind.starts_with(['^', '_']) || (letters == 1 && !unit) || command(behind.trim_start()))
}

impl Number {
    fn negated(self) -> Self {
        // Zero has no sign.
        let digits = self.digits.map(|d| if d.is_empty() { d } else { format!("-{d}") });
        Self { value: -self.value, digits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str, decimal: Decimal) -> Vec<f64> {
        let text = normalised(text);
        numbers(&text, decimal).into_iter().map(|found| found.number.value).collect()
    }

    #[test]
    fn numbers_are_read() {
        let check = |text: &str, expected: &[f64]| {
            assert_eq!(values(text, Decimal::Point), expected, "{text}");
        };
        check("1,234.50", &[1234.5]);
        check("1'234'567", &[1234567.0]);
        check("1\u{202f}234 5", &[1234.0, 5.0]);
        check("1,2 and 1,2345", &[1.0, 2.0, 1.0, 2345.0]);
        check("0,123", &[0.0, 123.0]);
        check("-3/4", &[-0.75]);
        check("\u{2212}5 \u{2013}6", &[-5.0, -6.0]);
        check("10\u{2013}12 and 10-12", &[10.0, 12.0, 10.0, 12.0]);
        check("5 - 3, x-3, (-3), 5+3", &[5.0, 3.0, 3.0, -3.0, 5.0, 3.0]);
        check("$12, -$12, $-12, €5", &[12.0, -12.0, -12.0, 5.0]);
        check("12. .5 a.5", &[12.0, 0.5, 5.0]);
        check("2 1/2 cups, 2½, ½", &[2.5, 2.5, 0.5]);
        check("5 7/2", &[5.0, 3.5]);
        check("1/0", &[1.0, 0.0]);
        check("1.5e3 2E-2 3 × 10^5 6.7 \\times 10^{-5}", &[1500.0, 0.02, 3e5, 6.7e-5]);
        check("1e3x 5 each", &[1.0, 3.0, 5.0]);
        check("１２．５", &[12.5]);
        check("12 %", &[12.0]);
        check("", &[]);
        check("-", &[]);
        check("----5", &[5.0]);
    }

    #[test]
    fn a_comma_may_begin_the_decimals() {
        let check =
            |text: &str, expected: &[f64]| assert_eq!(values(text, Decimal::Comma), expected);
        check("1.234,50", &[1234.5]);
        check("3,5", &[3.5]);
        check("1 234,5", &[1.0, 234.5]);
        check("1\u{a0}234,5", &[1234.5]);
    }

    #[test]
    fn some_numbers_are_parts() {
        let check = |text: &str, expected: &[bool]| {
            let text = normalised(text);
            let found = numbers(&text, Decimal::Point);
            let plain: Vec<bool> = found.iter().map(|found| found.plain).collect();
            assert_eq!(plain, expected, "{text}");
        };
        check("5, 5. 5! (5) 5km 5m $5 **5**", &[true; 8]);
        check("5元 共5", &[true; 2]);
        check("5x x5 5^2 a_5 \\sqrt{5} {5}", &[false, false, false, false, false, false, true]);
        check("5\\pi 5 \\sqrt2 5\\) 5\\\\", &[false, false, false, true, true]);
        check("1.2.3", &[false, true]);
        check("3/4/2025", &[false, true]);
        check("52_8", &[false, false]);
    }

    #[test]
    fn long_numbers_keep_their_digits() {
        let digits = |text: &str| numbers(text, Decimal::Point)[0].number.digits.clone();
        assert_eq!(digits("007.500").as_deref(), Some("7.5"));
        assert_eq!(digits("-0.0").as_deref(), Some(""));
        assert_eq!(digits("100").as_deref(), Some("100"));
        let long = format!("1{}", "0".repeat(400));
        assert_eq!(digits(&long), Some(long.clone()));
        assert_eq!(digits("1/2"), None);
    }
}
