//! Text from outside as a terminal may show it.
//!
//! File names, tokens, answers and the words of servers may hold control characters. A terminal obeys them:
//! it moves the cursor, hides text or changes its title. They are shown as escapes instead.

use std::borrow::Cow;

/// The text with every control character as an escape but for ends of lines and tabs.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    match text.contains(is_harmful) {
        true => Cow::Owned(text.chars().map(shown).collect()),
        false => Cow::Borrowed(text),
    }
}

/// As [`escaped`], but the colours of [`Style`](super::style::Style) stay: for lines of our own that hold text
/// from outside.
pub(crate) fn escaped_but_colors(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_harmful) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let length = match color_length(from) {
            Some(length) => {
                out.push_str(&from[..length]);
                length
            }
            None => {
                let c = from.chars().next().expect("a character was found there");
                out.push_str(&shown(c));
                c.len_utf8()
            }
        };
        rest = &from[length..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// What [`Style`](super::style::Style) writes between `ESC [` and `m`.
const COLORS: [&str; 7] = ["0", "1", "2", "1;31", "32", "33", "36"];

/// Bytes of the colour that a text begins with.
fn color_length(text: &str) -> Option<usize> {
    let (color, _) = text.strip_prefix("\u{1b}[")?.split_once('m')?;
    COLORS.contains(&color).then_some("\u{1b}[m".len() + color.len())
}

/// Control characters, and those that turn the direction of text around.
fn is_harmful(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() && !matches!(c, '\n' | '\t')
}

fn shown(c: char) -> String {
    if is_harmful(c) { c.escape_default().to_string() } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        for (text, expected) in [
            ("plain äöü 日本\n\tnext", "plain äöü 日本\n\tnext"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("over\rwritten\u{8}", "over\\rwritten\\u{8}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}gpj.exe", "abc\\u{202e}gpj.exe"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn own_colors_stay() {
        for (text, expected) in [
            ("\u{1b}[1mbold\u{1b}[0m", "\u{1b}[1mbold\u{1b}[0m"),
            ("\u{1b}[1;31mx\u{1b}[0m \u{1b}[2J\u{1b}", "\u{1b}[1;31mx\u{1b}[0m \\u{1b}[2J\\u{1b}"),
            ("\u{1b}[31", "\\u{1b}[31"),
            ("\u{1b}[8mhidden", "\\u{1b}[8mhidden"),
            ("plain", "plain"),
        ] {
            assert_eq!(escaped_but_colors(text), expected);
        }
        let style = super::super::style::Style::new(true);
        for paint in [
            super::super::style::Style::bold,
            super::super::style::Style::dim,
            super::super::style::Style::red,
            super::super::style::Style::green,
            super::super::style::Style::yellow,
            super::super::style::Style::cyan,
        ] {
            let painted = paint(style, "a\u{7}");
            assert_eq!(escaped_but_colors(&painted), paint(style, "a\\u{7}"));
        }
    }
}
