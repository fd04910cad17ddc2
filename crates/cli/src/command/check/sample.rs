//! A sample's tokens in runs, and their text made visible.

use data::report::SampleToken;

/// Neighbouring tokens that are alike.
pub(super) struct Run<'a> {
    pub(super) tokens: &'a [SampleToken],
    /// Their weight in the loss.
    pub(super) weight: f32,
    /// Whether they are tokens of control.
    pub(super) special: bool,
}

impl Run<'_> {
    pub(super) fn is_trained(&self) -> bool {
        self.weight != 0.0
    }

    /// The weight, where it is not what "trained" says already.
    pub(super) fn odd_weight(&self) -> Option<f32> {
        Some(self.weight).filter(|&weight| weight != 0.0 && weight != 1.0)
    }
}

/// Cuts tokens where weight or kind changes. Tokens of control that are trained
/// stay with what is trained around them: whether they count is what matters.
pub(super) fn runs(tokens: &[SampleToken]) -> impl Iterator<Item = Run<'_>> {
    let special = |token: &SampleToken| token.special && token.weight == 0.0;
    let alike = move |a: &SampleToken, b: &SampleToken| {
        a.weight.to_bits() == b.weight.to_bits() && special(a) == special(b)
    };
    tokens.chunk_by(alike).map(move |tokens| Run {
        tokens,
        weight: tokens[0].weight,
        special: special(&tokens[0]),
    })
}

/// The text with every character that a reader cannot see, or that would steer a terminal,
/// replaced by a sign for it. A newline stays behind its sign.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("↵\n"),
            '\t' => out.push('⇥'),
            // The control pictures stand in the order of the characters.
            c if c < ' ' => out.extend(char::from_u32(0x2400 + u32::from(c))),
            '\u{a0}' => out.push('⍽'),
            c if c.is_control() || is_invisible(c) => {
                out.push_str(&format!("<U+{:04X}>", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

/// As [`visible`], for one line of words.
pub(super) fn visible_line(text: &str) -> String {
    visible(text).replace("↵\n", "↵")
}

/// Marks of width zero and of direction, and separators of lines.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_gets_a_sign() {
        for (text, expected) in [
            ("a b", "a b"),
            ("a\nb", "a↵\nb"),
            ("a\tb\r", "a⇥b␍"),
            ("\x1b[31m", "␛[31m"),
            ("a\u{a0}b\u{200b}", "a⍽b<U+200B>"),
            ("\u{202e}x\u{7f}", "<U+202E>x<U+007F>"),
            ("Grüße 你好", "Grüße 你好"),
        ] {
            assert_eq!(visible(text), expected, "{text:?}");
        }
        assert_eq!(visible_line("a\nb"), "a↵b");
    }

    #[test]
    fn runs_end_where_weight_or_kind_changes() {
        let token =
            |weight: f32, special| SampleToken { weight, special, ..SampleToken::default() };
        let tokens = [
            token(0.0, true),
            token(0.0, false),
            token(0.0, false),
            token(1.0, false),
            token(1.0, true),
            token(0.5, false),
        ];
        let found: Vec<_> =
            runs(&tokens).map(|run| (run.tokens.len(), run.is_trained(), run.special)).collect();
        let expected = [(1, false, true), (2, false, false), (2, true, false), (1, true, false)];
        assert_eq!(found, expected);
        assert_eq!(runs(&tokens).filter_map(|run| run.odd_weight()).collect::<Vec<_>>(), [0.5]);
    }
}
