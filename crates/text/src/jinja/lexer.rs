//! From the source of a template to tokens.

use super::ast::Constant;
use super::number;
use super::{Failure, Result};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Data(String),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Text(String),
    Number(Number),
    Operator(&'static str),
    End,
}

/// A number as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Number {
    Int(i128),
    Big(String),
    Float(f64),
}

impl Number {
    pub(super) fn constant(&self) -> Constant {
        match self {
            Number::Int(value) => Constant::Int(*value),
            Number::Big(digits) => Constant::Big(digits.as_str().into()),
            Number::Float(value) => Constant::Float(*value),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) line: usize,
    pub(super) kind: Kind,
}

/// Longer operators stand before those that they begin with.
const OPERATORS: [&str; 26] = [
    "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";",
];

/// Cuts a source into tokens. The environment of `transformers` trims the line end after a block
/// (`trim_blocks`) and the spaces before one (`lstrip_blocks`).
pub(super) fn tokens(source: &str) -> Result<Vec<Token>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer =
        Lexer { source: &source, at: 0, line: 1, line_starts: true, tokens: Vec::new() };
    lexer.run()?;
    lexer.push(Kind::End);
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: usize,
    /// Whether the last token ended a line.
    line_starts: bool,
    tokens: Vec<Token>,
}

impl<'s> Lexer<'s> {
    fn run(&mut self) -> Result<()> {
        while self.at < self.source.len() {
            let rest = self.rest();
            let Some(start) = next_tag(rest) else {
                let data = rest.to_owned();
                self.take(rest.len());
                self.push(Kind::Data(data));
                return Ok(());
            };
            let tag = &rest[start..start + 2];
            let sign = rest[start + 2..].chars().next().filter(|c| "+-".contains(*c));
            self.data(&rest[..start], sign, tag == "{{");
            self.take(start);
            let opening = 2 + usize::from(sign.is_some());
            match (tag, raw_begin(&rest[start + opening..])) {
                ("{#", _) => {
                    self.take(opening);
                    self.comment()?;
                }
                ("{{", _) => {
                    self.push(Kind::VariableBegin);
                    self.take(opening);
                    self.inside(true)?;
                }
                (_, Some(length)) => {
                    self.take(opening + length);
                    self.raw()?;
                }
                (_, None) => {
                    self.push(Kind::BlockBegin);
                    self.take(opening);
                    self.inside(false)?;
                }
            }
        }
        Ok(())
    }

    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    /// Steps over so many bytes.
    fn take(&mut self, length: usize) {
        let text = &self.source[self.at..self.at + length];
        self.line += text.matches('\n').count();
        if !text.is_empty() {
            self.line_starts = text.ends_with('\n');
        }
        self.at += length;
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { line: self.line, kind });
    }

    /// The text before a tag, stripped as the tag asks.
    fn data(&mut self, text: &str, sign: Option<char>, is_variable: bool) {
        let mut kept = text;
        if sign == Some('-') {
            kept = text.trim_end_matches(super::unicode::is_space);
        } else if sign.is_none() && !is_variable {
            let line = text.rfind('\n').map_or(0, |end| end + 1);
            let is_blank = text[line..].chars().all(super::unicode::is_space);
            if (line > 0 || self.line_starts) && is_blank {
                kept = &text[..line];
            }
        }
        if !kept.is_empty() {
            self.push(Kind::Data(kept.to_owned()));
        }
    }

    fn comment(&mut self) -> Result<()> {
        let rest = self.rest();
        let end = rest.find("#}").ok_or_else(|| self.wrong("missing end of comment tag"))?;
        let sign = rest[..end].chars().next_back();
        self.take(end + 2);
        self.trim(sign.filter(|c| "+-".contains(*c)));
        Ok(())
    }

    /// What a tag's end takes of the text that follows: all space after `-`, nothing after `+`, else one line end.
    fn trim(&mut self, sign: Option<char>) {
        let rest = self.rest();
        match sign {
            Some('-') => {
                let length = rest.len() - rest.trim_start_matches(super::unicode::is_space).len();
                self.take(length);
            }
            None if rest.starts_with('\n') => self.take(1),
            _ => {}
        }
    }

    fn raw(&mut self) -> Result<()> {
        let rest = self.rest();
        let found = rest.match_indices("{%").find_map(|(start, _)| {
            let (sign, length, end_sign) = raw_end(&rest[start..])?;
            Some((start, sign, length, end_sign))
        });
        let (start, sign, length, end_sign) =
            found.ok_or_else(|| self.wrong("missing end of raw directive"))?;
        self.data(&rest[..start], sign, false);
        self.take(start + length);
        self.trim(end_sign);
        Ok(())
    }

    /// The tokens of an expression or a statement, until the tag ends.
    fn inside(&mut self, is_variable: bool) -> Result<()> {
        let mut open: Vec<&str> = Vec::new();
        loop {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else { return Ok(()) };
            if open.is_empty()
                && let Some((length, sign)) = tag_end(rest, is_variable)
            {
                self.push(if is_variable { Kind::VariableEnd } else { Kind::BlockEnd });
                self.take(length);
                if !is_variable || sign == Some('-') {
                    self.trim(sign);
                }
                return Ok(());
            }
            if super::unicode::is_space(first) {
                self.take(first.len_utf8());
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first.is_alphanumeric() || first == '_' {
                let is_part = |c: char| c.is_alphanumeric() || c == '_';
                let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                self.push(Kind::Name(rest[..length].to_owned()));
                self.take(length);
            } else if first == '\'' || first == '"' {
                self.text(first)?;
            } else {
                let operator = OPERATORS.into_iter().find(|o| rest.starts_with(o));
                let Some(operator) = operator else {
                    return Err(self.wrong(format!("unexpected character `{first}`")));
                };
                self.balance(operator, &mut open)?;
                self.push(Kind::Operator(operator));
                self.take(operator.len());
            }
        }
    }

    fn balance(&self, operator: &'static str, open: &mut Vec<&'static str>) -> Result<()> {
        match operator {
            "{" => open.push("}"),
            "(" => open.push(")"),
            "[" => open.push("]"),
            "}" | ")" | "]" => match open.pop() {
                None => return Err(self.wrong(format!("unexpected `{operator}`"))),
                Some(expected) if expected != operator => {
                    let message = format!("unexpected `{operator}`, expected `{expected}`");
                    return Err(self.wrong(message));
                }
                Some(_) => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let after_dot = self.source[..self.at].ends_with('.');
        let (number, length) = match number::float_length(rest).filter(|_| !after_dot) {
            Some(length) => {
                let digits = rest[..length].replace('_', "");
                (Number::Float(digits.parse().unwrap_or(f64::NAN)), length)
            }
            None => {
                let length = number::integer_length(rest);
                let text = rest[..length].replace('_', "").to_ascii_lowercase();
                let digits = |prefix, radix| {
                    text.strip_prefix(prefix).map(|digits| i128::from_str_radix(digits, radix))
                };
                let value = digits("0x", 16)
                    .or_else(|| digits("0o", 8))
                    .or_else(|| digits("0b", 2))
                    .unwrap_or_else(|| text.parse());
                match value {
                    Ok(value) => (Number::Int(value), length),
                    Err(_) if text.bytes().all(|b| b.is_ascii_digit()) => {
                        (Number::Big(text), length)
                    }
                    Err(_) => return Err(self.wrong("the number is too large")),
                }
            }
        };
        self.push(Kind::Number(number));
        self.take(length);
        Ok(())
    }

    fn text(&mut self, quote: char) -> Result<()> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest[1..].char_indices().find(|(_, c)| {
            let ends = *c == quote && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let Some((end, _)) = end else { return Err(self.wrong("a text that does not end")) };
        let text = unescape(&rest[1..=end]).map_err(|message| self.wrong(message))?;
        self.push(Kind::Text(text));
        self.take(end + 2);
        Ok(())
    }

    fn wrong(&self, message: impl Into<String>) -> Failure {
        Failure::at(self.line, message)
    }
}

fn next_tag(text: &str) -> Option<usize> {
    let brace =
        |(at, _): &(usize, &str)| matches!(text.as_bytes().get(at + 1), Some(b'%' | b'{' | b'#'));
    text.match_indices('{').find(brace).map(|(at, _)| at)
}

/// The length of `raw %}` at the start of a text, with the space after `-%}`.
fn raw_begin(text: &str) -> Option<usize> {
    let after = trim_start(text).strip_prefix("raw")?;
    let after = trim_start(after);
    let after = match after.strip_prefix("-%}") {
        Some(after) => trim_start(after),
        None => after.strip_prefix("%}")?,
    };
    Some(text.len() - after.len())
}

/// The signs and the length of `{% endraw %}` at the start of a text.
fn raw_end(text: &str) -> Option<(Option<char>, usize, Option<char>)> {
    let after = text.strip_prefix("{%")?;
    let sign = after.chars().next().filter(|c| "+-".contains(*c));
    let after = trim_start(&after[usize::from(sign.is_some())..]).strip_prefix("endraw")?;
    let after = trim_start(after);
    let (length, end_sign) = tag_end(after, false)?;
    Some((sign, text.len() - after.len() + length, end_sign))
}

/// The length and the sign of what ends a tag, where the text begins with it.
fn tag_end(text: &str, is_variable: bool) -> Option<(usize, Option<char>)> {
    let end = if is_variable { "}}" } else { "%}" };
    if text.starts_with(end) {
        return Some((2, None));
    }
    let sign = text.chars().next().filter(|c| *c == '-' || (*c == '+' && !is_variable))?;
    text[1..].starts_with(end).then_some((3, Some(sign)))
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(super::unicode::is_space)
}

/// Python's escapes in a text. An escape that it does not know stays as it is.
fn unescape(text: &str) -> std::result::Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('\\') {
        out.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        let Some(c) = after.chars().next() else { return Err("`\\` at the end of a text".into()) };
        rest = &after[c.len_utf8()..];
        let simple = match c {
            '\n' => continue,
            '\\' | '\'' | '"' => c,
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' | 'u' | 'U' => {
                let length = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let digits =
                    rest.get(..length).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
                let digits = digits.ok_or_else(|| format!("`\\{c}` needs {length} hex digits"))?;
                rest = &rest[length..];
                let code = u32::from_str_radix(digits, 16).unwrap_or(u32::MAX);
                // Half of a pair is no character, in a template as little as in a text.
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            '0'..='7' => {
                let is_octal = |b: &u8| (b'0'..=b'7').contains(b);
                let length = after.bytes().take(3).take_while(is_octal).count();
                rest = &after[length..];
                let code = u32::from_str_radix(&after[..length], 8).unwrap_or_default();
                char::from_u32(code).unwrap_or_default()
            }
            'N' => return Err("`\\N{...}` is not supported".into()),
            other => {
                out.push('\\');
                other
            }
        };
        out.push(simple);
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        let tokens = tokens(source).unwrap().into_iter().map(|token| match token.kind {
            Kind::Data(text) => text,
            Kind::VariableBegin => "<{".into(),
            Kind::VariableEnd => "}>".into(),
            Kind::BlockBegin => "<%".into(),
            Kind::BlockEnd => "%>".into(),
            Kind::Name(name) => name,
            Kind::Text(text) => format!("{text:?}"),
            Kind::Number(number) => format!("{number:?}"),
            Kind::Operator(operator) => operator.into(),
            Kind::End => "$".into(),
        });
        assert_eq!(tokens.collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn sources_become_tokens() {
        check("a{{ x.y }}b\n", "a <{ x . y }> b $");
        check("a \n  {% if x %}\nb", "a \n <% if x %> b $");
        check("a \n  {%+ if x +%}\nb", "a \n   <% if x %> \nb $");
        check("a {%- x -%} \n b{{- y -}} c", "a <% x %> b <{ y }> c $");
        check("{# c #}\na{#- c -#}  b", "a b $");
        check("{% raw %} {{ x }}{% y %} {% endraw %}z", " {{ x }}{% y %}  z $");
        check("{{ {'a': {1: 2.5e3}}}}", "<{ { \"a\" : { Int(1) : Float(2500.0) } } }> $");
        check(r#"{{ 'a\n\'\x41\d\101' "é" }}"#, r#"<{ "a\n'A\\dA" "é" }> $"#);
        check("{{ 0x1F + 1_000 // 2 ** 3 }}", "<{ Int(31) + Int(1000) // Int(2) ** Int(3) }> $");
        check("{{ x.0.1 }}", "<{ x . Int(0) . Int(1) }> $");
    }

    #[test]
    fn what_does_not_balance_is_an_error() {
        for source in ["{{ (a }}", "{{ a) }}", "{{ 'a }}", "{# a", "{% raw %}a", "{{ a ? b }}"] {
            assert!(tokens(source).is_err(), "{source}");
        }
    }
}
