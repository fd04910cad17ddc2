//! Filters of texts.

use super::super::arithmetic::{MAX_LENGTH, escape};
use super::super::call::{Args, text as text_of, whole};
use super::super::methods::text::{justify, replaced, strip};
use super::super::repr::str;
use super::super::unicode::{capitalized, escaped, is_alphanumeric, is_space, lines};
use super::super::value::{Dict, Value};
use super::super::{Failure, Result};

pub(super) enum Found {
    Value(Value),
    /// Not a filter of texts: the arguments, given back.
    Other(Args),
}

pub(super) fn filter(name: &str, value: &Value, args: Args) -> Result<Found> {
    let soft = || if value.as_str().is_some() { value.clone() } else { Value::text(str(value)) };
    Ok(Found::Value(match name {
        "upper" | "lower" | "capitalize" | "title" => {
            args.none(name)?;
            let text = str(value);
            value.text_like(match name {
                "upper" => text.to_uppercase(),
                "lower" => text.to_lowercase(),
                "capitalize" => capitalized(&text),
                _ => titled(&text),
            })
        }
        "escape" | "e" => {
            args.none(name)?;
            Value::markup(escape(value))
        }
        "forceescape" => {
            args.none(name)?;
            Value::markup(escaped(&str(value)))
        }
        "trim" => {
            let [chars] = args.bind(name, ["chars"], 0)?;
            value.text_like(strip(&str(value), "strip", chars.as_ref())?)
        }
        "center" => {
            let [width] = args.bind(name, ["width"], 0)?;
            let width = width.as_ref().map(whole).transpose()?.unwrap_or(80);
            value.text_like(justify(&str(value), name, width, " ")?)
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"], 2)?;
            let count = count.filter(|count| !count.is_none());
            let count = count.as_ref().map(whole).transpose()?.unwrap_or(-1);
            let part = |part: Option<Value>| part.as_ref().map(str).unwrap_or_default();
            Value::text(replaced(&str(value), &part(old), &part(new), count)?)
        }
        "wordcount" => {
            args.none(name)?;
            let is_word = |c: char| c == '_' || is_alphanumeric(c);
            let text = str(value);
            Value::size(text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count())
        }
        "indent" => indent(value, args)?,
        "truncate" => truncate(value, args)?,
        "striptags" => {
            args.none(name)?;
            Value::text(without_tags(&str(value)))
        }
        "urlencode" => {
            args.none(name)?;
            urlencode(value, &soft())?
        }
        "wordwrap" => wordwrap(value, args)?,
        "xmlattr" => xmlattr(value, args)?,
        _ => return Ok(Found::Other(args)),
    }))
}

/// Every word with a capital: words begin after `-`, space and opening brackets.
fn titled(text: &str) -> String {
    let is_between = |c: char| is_space(c) || "-({[<".contains(c);
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_between).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        let first = word.chars().next().map_or(0, char::len_utf8);
        out.push_str(&word[..first].to_uppercase());
        out.push_str(&word[first..].to_lowercase());
        let end = tail.find(|c| !is_between(c)).unwrap_or(tail.len());
        out.push_str(&tail[..end]);
        rest = &tail[end..];
    }
    out
}

/// `indent(width=4, first=False, blank=False)`.
fn indent(value: &Value, args: Args) -> Result<Value> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"], 0)?;
    let indent = match &width {
        None => " ".repeat(4),
        Some(Value::Text(text) | Value::Markup(text)) => text.to_string(),
        Some(width) => {
            " ".repeat(usize::try_from(whole(width)?.max(0)).unwrap_or(usize::MAX).min(4096))
        }
    };
    let is_set = |flag: Option<Value>| flag.is_some_and(|flag| flag.is_true());
    let (first, blank) = (is_set(first), is_set(blank));
    // With a line end added, the text has the lines that Jinja finds.
    let text = format!("{}\n", text_of(value)?);
    let lines = lines(&text);
    if lines.len().saturating_mul(indent.len()) > MAX_LENGTH {
        return Err(Failure::new("the indented text is too long"));
    }
    let mut out = String::new();
    for (index, (line, _)) in lines.into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if (index == 0 && first) || (index > 0 && (blank || !line.is_empty())) {
            out.push_str(&indent);
        }
        out.push_str(line);
    }
    Ok(value.text_like(out))
}

fn truncate(value: &Value, args: Args) -> Result<Value> {
    let parameters = ["length", "killwords", "end", "leeway"];
    let [length, kill, end, leeway] = args.bind("truncate", parameters, 0)?;
    let length = length.as_ref().map(whole).transpose()?.unwrap_or(255);
    let leeway = leeway.filter(|leeway| !leeway.is_none());
    let leeway = leeway.as_ref().map(whole).transpose()?.unwrap_or(5);
    let end = end.as_ref().map(text_of).transpose()?.unwrap_or("...");
    let kept = length - end.chars().count() as i128;
    if kept < 0 || leeway < 0 {
        return Err(Failure::new("the length is shorter than what ends the text"));
    }
    // What is short enough stays what it is.
    if value.len().is_some_and(|found| found as i128 <= length + leeway) {
        return Ok(value.clone());
    }
    let text = text_of(value)?;
    let cut: String = text.chars().take(kept as usize).collect();
    let cut = match cut.rsplit_once(' ') {
        Some((words, _)) if !kill.is_some_and(|kill| kill.is_true()) => words,
        _ => &cut,
    };
    Ok(value.text_like(format!("{cut}{end}")))
}

/// A text without HTML: comments and tags taken out, space made single, entities read.
fn without_tags(text: &str) -> String {
    let cut = |text: &str, open: &str, close: &str| {
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(open) {
            let Some(end) = rest[start..].find(close) else { break };
            out.push_str(&rest[..start]);
            rest = &rest[start + end + close.len()..];
        }
        out + rest
    };
    let text = cut(&cut(text, "<!--", "-->"), "<", ">");
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    let mut text = words.join(" ");
    for (entity, c) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#34;", "\""),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ] {
        text = text.replace(entity, c);
    }
    text
}

fn quoted(text: &str, for_query: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(byte.into());
            }
            b'/' if !for_query => out.push('/'),
            b' ' if for_query => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn urlencode(value: &Value, soft: &Value) -> Result<Value> {
    if value.as_str().is_some() || !value.is_iterable() {
        return Ok(Value::text(quoted(&str(soft), false)));
    }
    let pairs = match value {
        Value::Dict(dict) => {
            dict.entries().iter().map(|(k, v)| Value::tuple(vec![k.clone(), v.clone()])).collect()
        }
        other => other.iterate()?,
    };
    let mut parts = Vec::new();
    for pair in pairs {
        match pair.iterate()?.as_slice() {
            [key, value] => {
                parts.push(format!("{}={}", quoted(&str(key), true), quoted(&str(value), true)));
            }
            _ => return Err(Failure::new("`urlencode` takes pairs")),
        }
    }
    Ok(Value::text(parts.join("&")))
}

/// Lines of at most so many characters, broken at spaces; a word that is longer is cut.
fn wordwrap(value: &Value, args: Args) -> Result<Value> {
    let parameters = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, long, separator, hyphens] = args.bind("wordwrap", parameters, 0)?;
    let width = width.as_ref().map(whole).transpose()?.unwrap_or(79);
    let width = usize::try_from(width).ok().filter(|width| *width > 0);
    let width = width.ok_or_else(|| Failure::new("the width must be at least 1"))?;
    let text = text_of(value)?;
    if text.contains('-') && hyphens.is_none_or(|hyphens| hyphens.is_true()) {
        return Err(Failure::new(
            "`wordwrap` of a text with hyphens needs `break_on_hyphens=false`",
        ));
    }
    let separator = separator.filter(|separator| !separator.is_none());
    let separator = separator.as_ref().map_or_else(|| "\n".to_owned(), str);
    let long = long.is_none_or(|long| long.is_true());
    let wrapped: Vec<String> =
        lines(text).into_iter().map(|(line, _)| wrap(line, width, long).join(&separator)).collect();
    Ok(Value::text(wrapped.join(&separator)))
}

fn wrap(line: &str, width: usize, cuts: bool) -> Vec<String> {
    let mut chunks: Vec<Vec<char>> = Vec::new();
    for c in line.chars() {
        match chunks.last_mut() {
            Some(chunk) if is_space(chunk[0]) == is_space(c) => chunk.push(c),
            _ => chunks.push(vec![c]),
        }
    }
    chunks.reverse();
    let mut lines: Vec<String> = Vec::new();
    while !chunks.is_empty() {
        if !lines.is_empty() && chunks.last().is_some_and(|chunk| is_space(chunk[0])) {
            chunks.pop();
        }
        let mut line: Vec<Vec<char>> = Vec::new();
        let mut length = 0;
        while chunks.last().is_some_and(|chunk| length + chunk.len() <= width) {
            let Some(chunk) = chunks.pop() else { break };
            length += chunk.len();
            line.push(chunk);
        }
        if let Some(chunk) = chunks.last_mut()
            && chunk.len() > width
        {
            let room = width - length;
            if cuts && room > 0 {
                let rest = chunk.split_off(room);
                line.push(std::mem::replace(chunk, rest));
            } else if line.is_empty() {
                line.extend(chunks.pop());
            }
        }
        if line.last().is_some_and(|chunk| is_space(chunk[0])) {
            line.pop();
        }
        if !line.is_empty() {
            lines.push(line.into_iter().flatten().collect());
        }
    }
    lines
}

fn xmlattr(value: &Value, args: Args) -> Result<Value> {
    let [space] = args.bind("xmlattr", ["autospace"], 0)?;
    let Value::Dict(dict) = value else {
        return Err(Failure::new(format!(
            "'{}' object has no attribute 'items'",
            value.type_name()
        )));
    };
    let attribute = |(key, value): &(Value, Value)| {
        (!value.is_none() && !value.is_undefined())
            .then(|| format!("{}=\"{}\"", escape(key), escape(value)))
    };
    let dict: &Dict = dict;
    let shown =
        dict.entries().iter().filter(|(_, value)| !value.is_none() && !value.is_undefined());
    for (key, _) in shown {
        text_of(key)?;
    }
    if dict.entries().iter().any(|(key, _)| str(key).contains([' ', '\t', '\n', '/', '>', '='])) {
        return Err(Failure::new("invalid character in attribute name"));
    }
    let text = dict.entries().iter().filter_map(attribute).collect::<Vec<_>>().join(" ");
    let space = space.is_none_or(|space| space.is_true()) && !text.is_empty();
    Ok(Value::text(if space { format!(" {text}") } else { text }))
}
