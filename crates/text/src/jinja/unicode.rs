//! What Python's `str` knows of characters.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

type Ranges = Vec<(char, char)>;

/// The characters of a class as a regular expression names it.
fn class(pattern: &str) -> Ranges {
    let hir = regex_syntax::parse(pattern).expect("the pattern is ours");
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            class.ranges().iter().map(|range| (range.start(), range.end())).collect()
        }
        _ => unreachable!("the pattern is a class"),
    }
}

fn contains(ranges: &Ranges, c: char) -> bool {
    let at = ranges.partition_point(|(_, end)| *end < c);
    ranges.get(at).is_some_and(|(start, _)| *start <= c)
}

macro_rules! class {
    ($(#[$doc:meta])* $name:ident, $pattern:literal) => {
        $(#[$doc])*
        pub(super) fn $name(c: char) -> bool {
            static RANGES: OnceLock<Ranges> = OnceLock::new();
            contains(RANGES.get_or_init(|| class($pattern)), c)
        }
    };
}

class!(
    /// A letter (`isalpha`).
    is_letter, r"\p{L}"
);
class!(
    /// A decimal digit (`isdecimal`).
    is_decimal, r"\p{Nd}"
);
class!(
    /// A digit or number of any script (`isnumeric`, but for ideographs).
    is_numeric, r"\p{N}"
);
class!(is_uppercase_letter, r"[\p{Lu}\p{Lt}\p{Uppercase}]");
class!(is_lowercase_letter, r"[\p{Ll}\p{Lowercase}]");
class!(
    /// What `repr` escapes, the space apart.
    is_unprintable, r"[\p{C}\p{Z}]"
);

/// Whether `str.strip` takes the character away.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

pub(super) fn is_printable(c: char) -> bool {
    c == ' ' || !is_unprintable(c)
}

pub(super) fn is_upper(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_uppercase() } else { is_uppercase_letter(c) }
}

pub(super) fn is_lower(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_lowercase() } else { is_lowercase_letter(c) }
}

pub(super) fn is_alphanumeric(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphanumeric() } else { is_letter(c) || is_numeric(c) }
}

/// The lines of a text as `str.splitlines` finds them, each with its end.
pub(super) fn lines(text: &str) -> Vec<(&str, &str)> {
    let ends = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
        '\u{2029}',
    ];
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(ends) {
        let (line, tail) = rest.split_at(end);
        let first = tail.chars().next().map_or(0, char::len_utf8);
        let length = if tail.starts_with("\r\n") { 2 } else { first };
        lines.push((line, &tail[..length]));
        rest = &tail[length..];
    }
    if !rest.is_empty() {
        lines.push((rest, ""));
    }
    lines
}

/// A word with a capital at its start and nowhere else.
pub(super) fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    let Some(first) = chars.next() else { return String::new() };
    // The capital of one character may be several: only its first stays one.
    let mut capital = first.to_uppercase();
    let mut out = String::from(capital.next().unwrap_or(first));
    out.extend(capital.flat_map(char::to_lowercase));
    // As a whole, for a sigma at the end of a word has a form of its own.
    out + &chars.as_str().to_lowercase()
}

/// HTML escaped as `markupsafe` does.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}
