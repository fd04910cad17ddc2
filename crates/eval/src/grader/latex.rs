//! What little of LaTeX answers are written in: `\boxed{}`, fractions, units and spacing.

/// The content of the last whole `\boxed{..}` or `\fbox{..}`.
pub(crate) fn boxed(text: &str) -> Option<&str> {
    let mut end = text.len();
    while let Some(start) = ["\\boxed", "\\fbox"].iter().filter_map(|c| text[..end].rfind(c)).max()
    {
        let name = if text[start..].starts_with("\\boxed") { "\\boxed" } else { "\\fbox" };
        let behind = text[start + name.len()..].trim_start();
        if let Some(content) = braced(behind) {
            return Some(content);
        }
        // A box that was cut off is none; one before it may be whole.
        end = start;
    }
    None
}

/// The content of the braces that a text begins with.
fn braced(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return text[..index].strip_prefix('{');
        }
    }
    None
}

/// An argument at the start of a text, in braces or of one character, and what comes behind it.
fn argument(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    if text.starts_with('{') {
        let content = braced(text)?;
        return Some((content, &text[content.len() + 2..]));
    }
    let first = text.chars().next().filter(|c| c.is_alphanumeric())?;
    Some(text.split_at(first.len_utf8()))
}

/// Commands that change only how a text looks, with what stands for them in plain text. Longer ones come first.
const LOOKS: [(&str, &str); 20] = [
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("^{\\circ}", "°"),
    ("^\\circ", "°"),
    ("\\degree", "°"),
    ("\\left", ""),
    ("\\right", ""),
    ("\\displaystyle", ""),
    ("{,}", ","),
    ("\\! ", ""),
    ("\\!", ""),
    ("\\,", ""),
    ("\\;", " "),
    ("\\ ", " "),
    ("\\$", "$"),
    ("\\%", "%"),
    ("\\(", ""),
    ("\\)", ""),
    ("~", " "),
];

/// Commands around words.
const WORDS: [&str; 6] = ["\\text", "\\mbox", "\\mathrm", "\\textbf", "\\mathbf", "\\textit"];

/// A text without spacing and commands for looks, its words bare, its fractions as `\frac{a}{b}`.
fn simple(text: &str) -> String {
    let mut text = text.to_owned();
    for (command, plain) in LOOKS {
        if text.contains(command) {
            text = replace_command(&text, command, plain);
        }
    }
    for command in WORDS {
        text = rewrite(&text, command, |rest| {
            let (words, behind) = braced(rest).map(|words| (words, &rest[words.len() + 2..]))?;
            // The power of a unit (`\text{ cm}^2`) goes with it.
            let power = ["^2", "^3", "^{2}", "^{3}"].iter().find_map(|p| behind.strip_prefix(p));
            Some((format!(" {words} "), power.unwrap_or(behind)))
        });
    }
    rewrite(&text, "\\frac", |rest| {
        let (above, rest) = argument(rest)?;
        let (below, rest) = argument(rest)?;
        Some((format!("\\frac{{{}}}{{{}}}", above.trim(), below.trim()), rest))
    })
}

/// Replaces a command where it is not the beginning of a longer name: `\left` within `\leftarrow` stays.
fn replace_command(text: &str, command: &str, plain: &str) -> String {
    let named = command.starts_with('\\') && command.ends_with(|c: char| c.is_ascii_alphabetic());
    rewrite(text, command, |rest| {
        let longer = named && rest.starts_with(|c: char| c.is_ascii_alphabetic());
        (!longer).then(|| (plain.to_owned(), rest))
    })
}

/// Puts something else in place of every `command` and the arguments behind it; `replace` is given what comes behind
/// the command, and gives the new text and the rest. Where it gives nothing the command stays.
fn rewrite(text: &str, command: &str, replace: impl Fn(&str) -> Option<(String, &str)>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(command) {
        let behind = &rest[at + command.len()..];
        out.push_str(&rest[..at]);
        match replace(behind) {
            Some((new, behind)) => {
                out.push_str(&new);
                rest = behind;
            }
            None => {
                out.push_str(command);
                rest = behind;
            }
        }
    }
    out + rest
}

/// A text in which fractions of whole numbers are written `3/4`, and one behind a whole number `1 3/4`.
pub(super) fn with_plain_fractions(text: &str) -> String {
    if !text.contains(['\\', '~']) && !text.contains("{,}") {
        return text.to_owned();
    }
    let text = simple(text);
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("\\frac") {
        out.push_str(&rest[..at]);
        let behind = &rest[at + "\\frac".len()..];
        let parts = argument(behind).and_then(|(above, rest)| {
            let (below, rest) = argument(rest)?;
            (is_whole(above) && is_whole(below)).then_some((above, below, rest))
        });
        match parts {
            Some((above, below, behind)) => {
                let mixed = out.ends_with(|c: char| c.is_ascii_digit());
                out.push_str(if mixed { " " } else { "" });
                out.push_str(&format!("{above}/{below}"));
                rest = behind;
            }
            None => {
                out.push_str("\\frac");
                rest = behind;
            }
        }
    }
    out + rest
}

/// Whether a text is a whole number with or without a sign.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// A formula without what changes only its looks, to be compared letter for letter.
pub(super) fn tidy(text: &str) -> String {
    let text = rewrite(&simple(text), "\\sqrt", |rest| {
        let (inner, rest) = argument(rest)?;
        Some((format!("\\sqrt{{{inner}}}"), rest))
    });
    let kept = text.chars().filter(|c| !c.is_whitespace() && !"$°".contains(*c));
    let text: String = kept.collect();
    text.trim_end_matches(['.', ',']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_box_counts() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(boxed(text), expected, "{text}");
        check(r"so \boxed{5}.", Some("5"));
        check(r"\boxed{5} no \boxed{\frac{1}{2}}", Some(r"\frac{1}{2}"));
        check(r"\boxed{5} no \boxed{6", Some("5"));
        check(r"\fbox{7}", Some("7"));
        check(r"\boxed {7}", Some("7"));
        check(r"\boxed{}", Some(""));
        check(r"\boxed", None);
        check(r"\boxed{}}", Some(""));
        check("boxed{5}", None);
    }

    #[test]
    fn fractions_become_plain() {
        let check = |text: &str, expected: &str| assert_eq!(with_plain_fractions(text), expected);
        check(r"\frac{14}{3}", "14/3");
        check(r"-\dfrac{35}{9}", "-35/9");
        check(r"\frac43", "4/3");
        check(r"\frac 59", "5/9");
        check(r"\frac{270}7\text{ degrees}", "270/7  degrees ");
        check(r"1\frac{4}{5}", "1 4/5");
        check(r"137 \frac{1}{2}", "137 1/2");
        check(r"\frac{\pi}{2}", r"\frac{\pi}{2}");
        check(r"10,\!080", "10,080");
        check(r"11,\! 111,\! 111,\! 100", "11,111,111,100");
        check(r"\$32,\!348", "$32,348");
        check(r"15\mbox{ cm}^2", "15  cm ");
        check(r"30^\circ", "30°");
        check(r"\leftarrow \left(3\right)", r"\leftarrow (3)");
        check(r"\frac{1}", r"\frac{1}");
        check("5{,}000", "5,000");
        check("plain", "plain");
    }

    #[test]
    fn formulas_are_tidied() {
        let same = |a: &str, b: &str| assert_eq!(tidy(a), tidy(b));
        same(r"\left( 3, \frac{\pi}{2} \right)", r"(3,\dfrac{\pi}{2})");
        same(r"$3\sqrt{13}$.", r"3 \sqrt{13}");
        same(r"\sqrt2", r"\sqrt{2}");
        same(r"\text{Evelyn}", "Evelyn");
        same(r"\(x+1\)", "x + 1");
        assert_ne!(tidy(r"\frac{1}{2}"), tidy(r"\frac{2}{1}"));
    }
}
