//! `NaN`, `Infinity` and `-Infinity`: no JSON, but what Python's `json` module writes.

/// A text in which such numbers are null.
#[derive(Debug)]
pub(super) struct Replaced {
    /// The text.
    pub(super) text: String,
    /// Keys of the outermost object under which an infinite number stood.
    pub(super) infinite: Vec<String>,
    /// Line and column in `text` of every `null` that is longer than what it replaces.
    longer: Vec<(usize, usize)>,
}

impl Replaced {
    /// The column in the original text of a place in `text`.
    pub(super) fn column(&self, line: usize, column: usize) -> usize {
        let before = self.longer.iter().filter(|&&(on, at)| on == line && at < column);
        column - before.count()
    }
}

/// Replaces every such number by null; `None` where there is none.
pub(super) fn replace(text: &str) -> Option<Replaced> {
    let mut replaced = Replaced {
        text: String::with_capacity(text.len()),
        infinite: Vec::new(),
        longer: Vec::new(),
    };
    let (mut scanner, mut rest) = (Scanner::default(), text);
    let (mut line, mut line_start, mut found) = (1, 0, false);
    while let Some(next) = rest.chars().next() {
        let number = if scanner.in_string { None } else { number(rest) };
        let Some((number, is_infinite)) = number else {
            scanner.take(rest, next);
            replaced.text.push(next);
            if next == '\n' {
                (line, line_start) = (line + 1, replaced.text.len());
            }
            rest = &rest[next.len_utf8()..];
            continue;
        };
        found = true;
        if is_infinite {
            let key = scanner.key.clone().unwrap_or_default();
            if !replaced.infinite.contains(&key) {
                replaced.infinite.push(key);
            }
        }
        if number.len() < NULL.len() {
            replaced.longer.push((line, replaced.text.len() - line_start + 1));
        }
        replaced.text.push_str(&format!("{NULL:<0$}", number.len()));
        rest = &rest[number.len()..];
    }
    found.then_some(replaced)
}

const NULL: &str = "null";

/// The number with which a text begins, and whether it is infinite.
fn number(text: &str) -> Option<(&'static str, bool)> {
    let known = [("NaN", false), ("Infinity", true), ("-Infinity", true)];
    let (number, is_infinite) = known.into_iter().find(|(number, _)| text.starts_with(number))?;
    let ends =
        !text[number.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_');
    ends.then_some((number, is_infinite))
}

/// Where in a text a character stands.
#[derive(Default)]
struct Scanner<'a> {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The text from the last string of the outermost object on, its quote included.
    string: &'a str,
    /// The last key of the outermost object.
    key: Option<String>,
}

impl<'a> Scanner<'a> {
    /// Takes in the character with which `rest` begins.
    fn take(&mut self, rest: &'a str, next: char) {
        if self.in_string {
            let escaped = std::mem::take(&mut self.escaped);
            match next {
                '\\' => self.escaped = !escaped,
                '"' => self.in_string = escaped,
                _ => {}
            }
            return;
        }
        match next {
            '"' => {
                self.in_string = true;
                if self.depth == 1 {
                    self.string = rest;
                }
            }
            ':' if self.depth == 1 => {
                let length = self.string.len().saturating_sub(rest.len());
                self.key = serde_json::from_str(self.string[..length].trim_end()).ok();
            }
            '{' | '[' => self.depth += 1,
            '}' | ']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str, infinite: &[&str]) {
        let replaced = replace(text).unwrap();
        assert_eq!(replaced.text, expected);
        assert_eq!(replaced.infinite, infinite);
    }

    #[test]
    fn numbers_of_python_become_null() {
        check(r#"{"a":NaN,"b":"NaN \" Infinity"}"#, r#"{"a":null,"b":"NaN \" Infinity"}"#, &[]);
        check(
            r#"{"a b\u0021" : [1, -Infinity], "c": {"d": Infinity}, "e": 1}"#,
            r#"{"a b\u0021" : [1, null     ], "c": {"d": null    }, "e": 1}"#,
            &["a b!", "c"],
        );
        for text in ["", "{}", r#"{"a": "NaN"}"#, "NaNo", "Infinity2", "nan"] {
            assert!(replace(text).is_none(), "{text}");
        }
    }

    #[test]
    fn columns_are_those_of_the_text_as_it_stands() {
        let replaced = replace("[NaN, NaN, x,\nNaN, y]").unwrap();
        assert_eq!(replaced.text, "[null, null, x,\nnull, y]");
        assert_eq!((replaced.column(1, 14), replaced.column(2, 7)), (12, 6));
    }

    #[test]
    fn a_colon_without_a_key_is_no_panic() {
        for text in
            ["{: Infinity", "[1: Infinity]", "{\"a\" \"b\": {:Infinity", "}:{:\"\":Infinity"]
        {
            let _ = replace(text);
        }
    }
}
