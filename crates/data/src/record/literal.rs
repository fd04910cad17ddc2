//! Lists and objects as Python prints them.
//!
//! `to_csv` of pandas and of `datasets` writes a cell that holds a list with `str`:
//! `[{'role': 'user', 'content': "it's"}]`.

use serde_json::{Map, Number, Value};

/// How deep lists may stand in each other.
const DEEPEST: usize = 64;

type Result<T> = std::result::Result<T, String>;

/// Parses a list, tuple or dictionary of literals.
pub(super) fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let value = parser.value()?;
    parser.blank();
    match parser.rest().is_empty() {
        true => Ok(value),
        false => Err(parser.fault("something follows the value")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fault(&self, what: &str) -> String {
        format!("{what}, character {}", self.text[..self.at].chars().count() + 1)
    }

    fn blank(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Passes over blanks and this text, if it comes next.
    fn takes(&mut self, text: &str) -> bool {
        self.blank();
        let comes = self.rest().starts_with(text);
        self.at += if comes { text.len() } else { 0 };
        comes
    }

    fn value(&mut self) -> Result<Value> {
        self.blank();
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.fault("lists stand too deep in each other"));
        }
        let value = match self.rest().chars().next() {
            Some('[') => self.list("[", "]"),
            Some('(') => self.list("(", ")"),
            Some('{') => self.dictionary(),
            Some('\'' | '"') => self.string().map(Value::String),
            Some(other) if other.is_ascii_digit() || "+-.".contains(other) => self.number(),
            Some(other) if other.is_alphabetic() => self.name(),
            Some(_) => Err(self.fault("expected a value")),
            None => Err(self.fault("the text ends within a value")),
        };
        self.depth -= 1;
        value
    }

    /// A list or tuple. NumPy leaves out the commas, which is plain unless two texts follow each other.
    fn list(&mut self, open: &str, close: &str) -> Result<Value> {
        self.takes(open);
        let mut items: Vec<Value> = Vec::new();
        let mut separated = true;
        while !self.takes(close) {
            if self.takes("...") {
                return Err(self.fault("NumPy left out the middle of a long list"));
            }
            let item = self.value()?;
            if !separated && item.is_string() && items.last().is_some_and(Value::is_string) {
                return Err(self.fault("two texts follow each other without a comma"));
            }
            items.push(item);
            separated = self.takes(",");
        }
        Ok(Value::Array(items))
    }

    fn dictionary(&mut self) -> Result<Value> {
        self.takes("{");
        let mut object = Map::new();
        while !self.takes("}") {
            let key = match self.value()? {
                Value::String(key) => key,
                Value::Number(key) => key.to_string(),
                _ => return Err(self.fault("a key is not a text")),
            };
            if !self.takes(":") {
                return Err(self.fault("expected `:`"));
            }
            let value = self.value()?;
            if object.insert(key, value).is_some() {
                return Err(self.fault("a key stands twice in one dictionary"));
            }
            if !self.takes(",") {
                self.blank();
                if !self.rest().starts_with('}') {
                    return Err(self.fault("expected `,` or `}`"));
                }
            }
        }
        Ok(Value::Object(object))
    }

    fn string(&mut self) -> Result<String> {
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map_or('\'', |(_, quote)| quote);
        let mut text = String::new();
        while let Some((at, next)) = chars.next() {
            match next {
                _ if next == quote => {
                    self.at += at + quote.len_utf8();
                    return Ok(text);
                }
                '\\' => {
                    let digits = |chars: &mut std::str::CharIndices<'_>, count: usize| {
                        let digits: String = chars.take(count).map(|(_, digit)| digit).collect();
                        char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
                    };
                    let escaped = match chars.next().map(|(_, escape)| escape) {
                        Some('n') => Some('\n'),
                        Some('t') => Some('\t'),
                        Some('r') => Some('\r'),
                        Some('x') => digits(&mut chars, 2),
                        Some('u') => digits(&mut chars, 4),
                        Some('U') => digits(&mut chars, 8),
                        Some(same @ ('\\' | '\'' | '"')) => Some(same),
                        _ => None,
                    };
                    self.at += if escaped.is_none() { at } else { 0 };
                    text.push(escaped.ok_or_else(|| self.fault("unknown escape"))?);
                }
                other => text.push(other),
            }
        }
        Err(self.fault("a quote is never closed"))
    }

    fn number(&mut self) -> Result<Value> {
        let rest = self.rest();
        let end = rest.find(|next: char| !(next.is_ascii_alphanumeric() || "+-.".contains(next)));
        let word = &rest[..end.unwrap_or(rest.len())];
        let whole =
            || word.parse::<i64>().map(Number::from).or(word.parse::<u64>().map(Number::from));
        let digits = word.trim_start_matches(['+', '-']);
        let number = match digits.chars().all(|digit| digit.is_ascii_digit()) {
            // A whole number that fits nowhere must not be rounded.
            true => whole().ok(),
            false if digits.starts_with(|next: char| next.is_alphabetic()) => None,
            false => word.parse::<f64>().ok().and_then(Number::from_f64),
        };
        let number =
            number.ok_or_else(|| self.fault(&format!("`{word}` is not a number that fits")))?;
        self.at += word.len();
        Ok(Value::Number(number))
    }

    /// A constant, or NumPy's `array(...)` and `np.float64(...)`.
    fn name(&mut self) -> Result<Value> {
        let rest = self.rest();
        let end = rest.find(|next: char| !(next.is_alphanumeric() || "_.".contains(next)));
        let word = &rest[..end.unwrap_or(rest.len())];
        let constant = match word {
            "None" | "nan" => Some(Value::Null),
            "True" | "np.True_" => Some(true.into()),
            "False" | "np.False_" => Some(false.into()),
            _ => None,
        };
        let wraps = ["array", "np.array", "np.float64", "np.float32", "np.int64", "np.str_"];
        if constant.is_none() && !wraps.contains(&word) {
            return Err(self.fault(&format!("`{word}` is not a literal")));
        }
        self.at += word.len();
        if let Some(constant) = constant {
            return Ok(constant);
        }
        let opened = self.takes("(");
        let value = self.value()?;
        if self.takes(",") && self.takes("dtype=") {
            let kind = self.rest().find(')').unwrap_or(0);
            self.at += kind;
        }
        match opened && self.takes(")") {
            true => Ok(value),
            false => Err(self.fault("expected `)`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Value) {
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn what_python_prints_is_read() {
        check(
            r#"[{'role': 'user', 'content': "it's"}, {'role': 'tool', 'content': None}]"#,
            json!([{"role": "user", "content": "it's"}, {"role": "tool", "content": null}]),
        );
        check(r"['a\'b\n\\\x41\u00e9\U0001f600', ]", json!(["a'b\n\\Aé😀"]));
        check("(1, -2.5, 1e3, True, nan, [], {})", json!([1, -2.5, 1000.0, true, null, [], {}]));
        check("{'a': {1: ()}}", json!({"a": {"1": []}}));
    }

    #[test]
    fn what_numpy_prints_is_read_where_it_is_plain() {
        check("[{'a': 'x'}\n {'a': 'y'}]", json!([{"a": "x"}, {"a": "y"}]));
        check("[1. 2.5]", json!([1.0, 2.5]));
        check(
            "{'from': array(['a', 'b'], dtype=object), 'n': np.float64(1.5)}",
            json!({"from": ["a", "b"], "n": 1.5}),
        );
    }

    #[test]
    fn faults_say_where() {
        for (text, fault) in [
            ("['a' 'b']", "two texts follow each other without a comma, character 9"),
            ("[1 ... 2]", "NumPy left out the middle of a long list, character 7"),
            ("[1", "the text ends within a value, character 3"),
            ("['a", "a quote is never closed, character 2"),
            ("[1] 2", "something follows the value, character 5"),
            ("{'a' 1}", "expected `:`, character 6"),
            ("{'a': 1 'b': 2}", "expected `,` or `}`, character 9"),
            ("{'a': 1, 'a': 2}", "a key stands twice in one dictionary, character 16"),
            (r"['\q']", "unknown escape, character 3"),
            (
                "[99999999999999999999]",
                "`99999999999999999999` is not a number that fits, character 2",
            ),
            ("[-inf]", "`-inf` is not a number that fits, character 2"),
            ("[b'a']", "`b` is not a literal, character 2"),
            ("[Timestamp('2020')]", "`Timestamp` is not a literal, character 2"),
            ("[*]", "expected a value, character 2"),
        ] {
            assert_eq!(parse(text).unwrap_err(), fault, "{text}");
        }
        assert!(parse(&"[".repeat(10_000)).unwrap_err().starts_with("lists stand too deep"));
    }
}
