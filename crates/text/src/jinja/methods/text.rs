//! Methods of `str`. Those of markup give markup, and escape the texts that they take in.

use super::super::arithmetic::{MAX_LENGTH, escape};
use super::super::attribute::limits;
use super::super::call::{Args, join, text, whole};
use super::super::unicode::{
    capitalized, is_alphanumeric, is_decimal, is_letter, is_lower, is_numeric, is_printable,
    is_space, is_upper, lines,
};
use super::super::value::Value;
use super::super::{Failure, Result};
use super::unsupported;

pub(super) fn call(object: &Value, name: &'static str, args: Args) -> Result<Value> {
    let string = object.as_str().unwrap_or_default();
    match name {
        "join" => {
            let [items] = args.positional(name, 1)?;
            join(object, &items.unwrap_or(Value::None))
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.positional(name, 0)?;
            Ok(object.text_like(strip(string, name, chars.as_ref())?))
        }
        "split" | "rsplit" => {
            let [separator, limit] = args.bind(name, ["sep", "maxsplit"], 0)?;
            let limit = limit.as_ref().map(whole).transpose()?.unwrap_or(-1);
            let separator = separator.filter(|separator| !separator.is_none());
            let separator = separator.as_ref().map(text).transpose()?;
            let pieces = split(string, separator, limit, name == "rsplit")?;
            Ok(Value::list(pieces.into_iter().map(|piece| object.text_like(piece)).collect()))
        }
        "splitlines" => {
            let [keep_ends] = args.bind(name, ["keepends"], 0)?;
            let keep_ends = keep_ends.is_some_and(|keep| keep.is_true());
            let line = |(line, end): (&str, &str)| {
                object.text_like(if keep_ends { format!("{line}{end}") } else { line.to_owned() })
            };
            Ok(Value::list(lines(string).into_iter().map(line).collect()))
        }
        "startswith" | "endswith" => affix(string, name, args),
        "find" | "rfind" | "index" | "rindex" | "count" => search(string, name, args),
        "replace" => replace(object, string, args),
        "center" | "ljust" | "rjust" => {
            let [width, fill] = args.positional(name, 1)?;
            let width = whole(&width.unwrap_or(Value::None))?;
            let fill = fill.as_ref().map(text).transpose()?.unwrap_or(" ");
            Ok(object.text_like(justify(string, name, width, fill)?))
        }
        "zfill" => {
            let [width] = args.positional(name, 1)?;
            let width = whole(&width.unwrap_or(Value::None))?;
            let digits = string.strip_prefix(['-', '+']).unwrap_or(string);
            let (sign, digits) = string.split_at(string.len() - digits.len());
            let digits = justify(digits, "rjust", width - sign.len() as i128, "0")?;
            Ok(object.text_like(format!("{sign}{digits}")))
        }
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"], 0)?;
            let size = size.as_ref().map(whole).transpose()?.unwrap_or(8);
            Ok(object.text_like(expand_tabs(string, size.clamp(0, 256) as usize)))
        }
        "removeprefix" => {
            let [prefix] = args.positional(name, 1)?;
            let prefix = prefix.unwrap_or(Value::None);
            Ok(object.text_like(string.strip_prefix(text(&prefix)?).unwrap_or(string)))
        }
        "removesuffix" => {
            let [suffix] = args.positional(name, 1)?;
            let suffix = suffix.unwrap_or(Value::None);
            Ok(object.text_like(string.strip_suffix(text(&suffix)?).unwrap_or(string)))
        }
        "partition" | "rpartition" => {
            let [separator] = args.positional(name, 1)?;
            partition(object, string, name, text(&separator.unwrap_or(Value::None))?)
        }
        "encode" | "maketrans" | "translate" => Err(unsupported(name)),
        _ => {
            args.none(name)?;
            Ok(match changed(string, name) {
                Some(changed) => object.text_like(changed),
                None => Value::Bool(is(string, name)),
            })
        }
    }
}

fn changed(string: &str, name: &str) -> Option<String> {
    Some(match name {
        "upper" => string.to_uppercase(),
        "lower" => string.to_lowercase(),
        "casefold" => string.to_lowercase().replace('ß', "ss").replace('ς', "σ"),
        "capitalize" => capitalized(string),
        "swapcase" => {
            let swap = |c: char| -> String {
                if is_upper(c) { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            };
            string.chars().map(swap).collect()
        }
        "title" => {
            let mut out = String::new();
            let mut word = String::new();
            for c in string.chars() {
                if is_upper(c) || is_lower(c) {
                    word.push(c);
                } else {
                    out.push_str(&capitalized(&std::mem::take(&mut word)));
                    out.push(c);
                }
            }
            out + &capitalized(&word)
        }
        _ => return None,
    })
}

fn is(string: &str, name: &str) -> bool {
    let all = |is: fn(char) -> bool| !string.is_empty() && string.chars().all(is);
    let any = |is: fn(char) -> bool| string.chars().any(is);
    match name {
        "isalnum" => all(is_alphanumeric),
        "isalpha" => all(|c| if c.is_ascii() { c.is_ascii_alphabetic() } else { is_letter(c) }),
        "isascii" => string.is_ascii(),
        "isdecimal" => all(is_decimal),
        "isdigit" => all(|c| is_decimal(c) || "²³¹⁰⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉".contains(c)),
        "isnumeric" => all(is_numeric),
        "isspace" => all(is_space),
        "isprintable" => string.chars().all(is_printable),
        "islower" => any(is_lower) && !any(is_upper),
        "isupper" => any(is_upper) && !any(is_lower),
        "istitle" => is_title(string),
        // `isidentifier`
        _ => {
            let is_part = |c: char| c == '_' || is_alphanumeric(c);
            all(is_part) && !string.starts_with(is_numeric)
        }
    }
}

fn is_title(string: &str) -> bool {
    let mut after_letter = false;
    let mut found = false;
    for c in string.chars() {
        if (is_upper(c) && after_letter) || (is_lower(c) && !after_letter) {
            return false;
        }
        after_letter = is_upper(c) || is_lower(c);
        found |= after_letter;
    }
    found
}

pub(in super::super) fn strip(string: &str, name: &str, chars: Option<&Value>) -> Result<String> {
    let chars = chars.filter(|chars| !chars.is_none()).map(text).transpose()?;
    let is_stripped = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    Ok(match name {
        "strip" => string.trim_matches(is_stripped),
        "lstrip" => string.trim_start_matches(is_stripped),
        _ => string.trim_end_matches(is_stripped),
    }
    .to_owned())
}

fn split(
    string: &str,
    separator: Option<&str>,
    limit: i128,
    from_end: bool,
) -> Result<Vec<String>> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let Some(separator) = separator else { return Ok(words(string, limit, from_end)) };
    if separator.is_empty() {
        return Err(Failure::new("empty separator"));
    }
    let count = limit.saturating_add(1);
    let mut pieces: Vec<String> = if from_end {
        string.rsplitn(count, separator).map(str::to_owned).collect()
    } else {
        string.splitn(count, separator).map(str::to_owned).collect()
    };
    if from_end {
        pieces.reverse();
    }
    Ok(pieces)
}

/// The words between spaces; after so many splits the rest stays whole.
fn words(string: &str, limit: usize, from_end: bool) -> Vec<String> {
    let trim = |text: &str| -> String {
        let text = if from_end {
            text.trim_end_matches(is_space)
        } else {
            text.trim_start_matches(is_space)
        };
        text.to_owned()
    };
    let mut words = Vec::new();
    let mut rest = trim(string);
    while !rest.is_empty() {
        let space = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(space) = space.filter(|_| words.len() < limit) else {
            words.push(rest);
            break;
        };
        if from_end {
            let start = space + rest[space..].chars().next().map_or(1, char::len_utf8);
            words.push(rest[start..].to_owned());
            rest = trim(&rest[..space]);
        } else {
            words.push(rest[..space].to_owned());
            rest = trim(&rest[space..]);
        }
    }
    if from_end {
        words.reverse();
    }
    words
}

/// The part of a text between two places that count characters, and the place where it begins.
fn part(
    string: &str,
    start: Option<&Value>,
    stop: Option<&Value>,
) -> Result<Option<(String, usize)>> {
    let bound =
        |value: Option<&Value>| value.filter(|value| !value.is_none()).map(whole).transpose();
    let (start, stop) = (bound(start)?, bound(stop)?);
    let length = string.chars().count();
    if start.is_some_and(|start| start > length as i128) {
        return Ok(None);
    }
    let (start, stop) = limits(start, stop, 1, length);
    if start > stop {
        return Ok(None);
    }
    let kept = string.chars().skip(start as usize).take((stop - start) as usize);
    Ok(Some((kept.collect(), start as usize)))
}

fn affix(string: &str, name: &str, args: Args) -> Result<Value> {
    let [affix, start, stop] = args.positional(name, 1)?;
    let affix = affix.unwrap_or(Value::None);
    let affixes = match &affix {
        Value::Tuple(affixes) => affixes.to_vec(),
        other => vec![other.clone()],
    };
    let part = part(string, start.as_ref(), stop.as_ref())?;
    for affix in &affixes {
        let affix = text(affix)?;
        let found = part.as_ref().is_some_and(|(part, _)| {
            if name == "startswith" { part.starts_with(affix) } else { part.ends_with(affix) }
        });
        if found {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn search(string: &str, name: &str, args: Args) -> Result<Value> {
    let [wanted, start, stop] = args.positional(name, 1)?;
    let wanted = wanted.unwrap_or(Value::None);
    let wanted = text(&wanted)?;
    let part = part(string, start.as_ref(), stop.as_ref())?;
    if name == "count" {
        let count = part.map_or(0, |(part, _)| match wanted {
            "" => part.chars().count() + 1,
            wanted => part.matches(wanted).count(),
        });
        return Ok(Value::size(count));
    }
    let found = part.and_then(|(part, start)| {
        let byte = if name.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) };
        Some(start + part[..byte?].chars().count())
    });
    match found {
        Some(at) => Ok(Value::size(at)),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => Err(Failure::new("substring not found")),
    }
}

fn replace(object: &Value, string: &str, args: Args) -> Result<Value> {
    let [old, new, count] = args.positional("replace", 2)?;
    let (old, new) = (old.unwrap_or(Value::None), new.unwrap_or(Value::None));
    let count = count.as_ref().map(whole).transpose()?.unwrap_or(-1);
    let new = if object.is_markup() { escape(&new) } else { text(&new)?.to_owned() };
    Ok(object.text_like(replaced(string, text(&old)?, &new, count)?))
}

pub(in super::super) fn replaced(
    string: &str,
    old: &str,
    new: &str,
    count: i128,
) -> Result<String> {
    if new.len().saturating_mul(string.len()) > MAX_LENGTH
        && string.matches(old).count() * new.len() > MAX_LENGTH
    {
        return Err(Failure::new("the replaced text is too long"));
    }
    Ok(string.replacen(old, new, usize::try_from(count).unwrap_or(usize::MAX)))
}

pub(in super::super) fn justify(
    string: &str,
    name: &str,
    width: i128,
    fill: &str,
) -> Result<String> {
    if fill.chars().count() != 1 {
        return Err(Failure::new("the fill character must be exactly one character long"));
    }
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let missing = width.saturating_sub(string.chars().count());
    if missing > MAX_LENGTH {
        return Err(Failure::new("the width is too large"));
    }
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // As Python does: the odd space goes to the left where the width is odd.
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(format!("{}{string}{}", fill.repeat(left), fill.repeat(missing - left)))
}

fn expand_tabs(string: &str, size: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for c in string.chars() {
        match c {
            '\t' if size > 0 => {
                let spaces = size - column % size;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\t' => {}
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

fn partition(object: &Value, string: &str, name: &str, separator: &str) -> Result<Value> {
    if separator.is_empty() {
        return Err(Failure::new("empty separator"));
    }
    let found = if name == "partition" {
        string.split_once(separator)
    } else {
        string.rsplit_once(separator)
    };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None if name == "partition" => [string, "", ""],
        None => ["", "", string],
    };
    Ok(Value::tuple(parts.into_iter().map(|part| object.text_like(part)).collect()))
}
