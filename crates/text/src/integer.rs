//! Whole numbers of more than 64 bits, exact to the last digit.
//!
//! `serde_json` rounds them to a float. Its feature `arbitrary_precision` would keep them, but it
//! breaks internally tagged enums (tokenizer files are read into them) and turns every number of
//! every row into a string (lists of ids were read at 29 MB/s instead of 75). So only these numbers are kept as digits: as an object with one key
//! that no file has.

use serde_json::{Map, Value};

/// The key: a noncharacter of Unicode, which is no part of any text, and a word for who sees it.
const KEY: &str = "\u{10fffe}integer";
/// Fewest digits of a number beyond 64 bits.
const LONG: usize = 19;

/// The text of JSON with its long integers in the form in which a `Value` keeps them; nothing where
/// there are none.
pub fn marked(json: &str) -> Option<String> {
    let bytes = json.as_bytes();
    // A run of `LONG` digits has one at a multiple of `LONG`: most texts are told by few bytes.
    if !bytes.iter().skip(LONG - 1).step_by(LONG).any(u8::is_ascii_digit) {
        return None;
    }
    let (mut out, mut done, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = after_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let end = after_number(bytes, at);
                if is_long(&json[at..end]) {
                    out.push_str(&json[done..at]);
                    out.push_str(&format!("{{\"{KEY}\":\"{}\"}}", &json[at..end]));
                    done = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    (done > 0).then(|| out + &json[done..])
}

/// The opposite of [`marked`] for the compact JSON of a `Value`.
pub fn plain(json: String) -> String {
    let open = format!("{{\"{KEY}\":\"");
    if !json.contains(&open) {
        return json;
    }
    let mut pieces = json.split(&open);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_once("\"}") {
            Some((digits, rest)) if is_long(digits) => out.extend([digits, rest]),
            _ => out.extend([&open, piece]),
        }
    }
    out
}

/// The digits of a long integer, with its sign; nothing for any other value.
pub fn digits(value: &Value) -> Option<&str> {
    let object: &Map<String, Value> = value.as_object().filter(|object| object.len() == 1)?;
    object.get(KEY)?.as_str().filter(|digits| is_long(digits))
}

fn is_long(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.len() >= LONG
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && number.parse::<i64>().is_err()
        && number.parse::<u64>().is_err()
}

/// The first byte after the string that begins at `at`.
fn after_string(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The first byte after the number that begins at `at`.
fn after_number(bytes: &[u8], at: usize) -> usize {
    let within = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    at + bytes[at..].iter().take_while(|byte| within(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &[&str]) {
        let text = marked(json).unwrap_or_else(|| json.to_owned());
        let value: Value = serde_json::from_str(&text).unwrap();
        let found: Vec<_> = value.as_array().unwrap().iter().filter_map(digits).collect();
        assert_eq!(found, expected);
        let again = plain(value.to_string());
        assert_eq!(again, json, "the way back");
    }

    #[test]
    fn long_integers_keep_their_digits() {
        check("[12345678901234567890123]", &["12345678901234567890123"]);
        check("[-9223372036854775809,1]", &["-9223372036854775809"]);
        check("[18446744073709551616,2]", &["18446744073709551616"]);
        let long = "7".repeat(5000);
        check(&format!("[{long},{long}]"), &[&long, &long]);
    }

    #[test]
    fn what_fits_and_what_is_no_integer_stays() {
        check("[18446744073709551615,-9223372036854775808,1.0]", &[]);
        check("[\"12345678901234567890123\",\"\\\"12345678901234567890123\"]", &[]);
        check("[0.30000000000000004,1e+300]", &[]);
        for json in
            ["[0.1000000000000000055511151231257827, 123456789012345678901234e5]", "[1]", ""]
        {
            assert_eq!(marked(json), None);
        }
    }

    #[test]
    fn broken_json_stays_broken() {
        for json in [
            "[012345678901234567890123",
            "\"12345678901234567890123\\",
            "[--12345678901234567890123",
        ] {
            let text = marked(json).unwrap_or_else(|| json.to_owned());
            assert!(serde_json::from_str::<Value>(&text).is_err(), "{text}");
        }
    }
}
