//! `str.format`, and how a format specification writes a value.

use super::arithmetic::{MAX_LENGTH, escape};
use super::interpreter::Interpreter;
use super::value::Value;
use super::{Failure, Result, number, repr};

/// How deep a replacement field may hold others: in its specification, once.
const MAX_DEPTH: usize = 2;

struct Fields<'v> {
    positional: Vec<Value>,
    named: &'v Value,
    /// The number that the next `{}` takes.
    next: usize,
    is_markup: bool,
}

/// `format.format(*positional, **named)`. Into markup go escaped values.
pub(super) fn format(
    interpreter: &mut Interpreter<'_>,
    format: &Value,
    positional: Vec<Value>,
    named: &Value,
) -> Result<Value> {
    let mut fields = Fields { positional, named, next: 0, is_markup: format.is_markup() };
    let text = fields.fill(interpreter, format.as_str().unwrap_or_default(), MAX_DEPTH)?;
    Ok(format.text_like(text))
}

impl Fields<'_> {
    fn fill(
        &mut self,
        interpreter: &mut Interpreter<'_>,
        format: &str,
        depth: usize,
    ) -> Result<String> {
        if depth == 0 {
            return Err(Failure::new("Max string recursion exceeded"));
        }
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(Failure::new("single '}' encountered in format string"));
            }
            let end =
                field_end(rest).ok_or_else(|| Failure::new("expected '}' before end of string"))?;
            let field = &rest[..end];
            rest = &rest[end + 1..];
            out.push_str(&self.field(interpreter, field, depth)?);
        }
        out.push_str(rest);
        Ok(out)
    }

    /// `name!conversion:specification`.
    fn field(
        &mut self,
        interpreter: &mut Interpreter<'_>,
        field: &str,
        depth: usize,
    ) -> Result<String> {
        // A colon within brackets belongs to a key.
        let mut brackets = 0;
        let end = field.char_indices().find(|(_, c)| {
            brackets += i32::from(*c == '[') - i32::from(*c == ']');
            brackets == 0 && (*c == ':' || *c == '!')
        });
        let (name, rest) = field.split_at(end.map_or(field.len(), |(end, _)| end));
        let (conversion, specification) = match rest.strip_prefix('!') {
            Some(rest) => match rest.split_once(':') {
                Some((conversion, specification)) => (Some(conversion), specification),
                None => (Some(rest), ""),
            },
            None => (None, rest.strip_prefix(':').unwrap_or("")),
        };
        let value = self.value(interpreter, name)?;
        let value = match conversion {
            None => value,
            Some("s") => Value::text(repr::str(&value)),
            Some("r") => Value::text(repr::repr(&value)),
            Some("a") => Value::text(repr::ascii(&value)),
            Some(other) => {
                return Err(Failure::new(format!("unknown conversion specifier '{other}'")));
            }
        };
        let specification = self.fill(
            interpreter,
            specification,
            depth - 1 + usize::from(specification.is_empty()),
        )?;
        let text = formatted(&value, &specification)?;
        if !self.is_markup {
            return Ok(text);
        }
        if value.is_markup() && !specification.is_empty() {
            return Err(Failure::new("format specifier given for markup"));
        }
        Ok(escape(&value.text_like(text)))
    }

    /// What a field names: a number or a name, then `.attribute` and `[key]`.
    fn value(&mut self, interpreter: &mut Interpreter<'_>, name: &str) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let mut value = if first.is_empty() || first.bytes().all(|byte| byte.is_ascii_digit()) {
            let index = first.parse().unwrap_or(self.next);
            self.next += usize::from(first.is_empty());
            let found = self.positional.get(index).cloned();
            found.ok_or_else(|| Failure::new("replacement index out of range"))?
        } else {
            match self.named {
                Value::Dict(dict) => dict.get_text(first).cloned(),
                _ => None,
            }
            .ok_or_else(|| Failure::new(format!("key error: '{first}'")))?
        };
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                value = interpreter.attribute(&value, &after[..end])?;
                rest = &after[end..];
            } else {
                let after = &rest[1..];
                let end =
                    after.find(']').ok_or_else(|| Failure::new("missing ']' in format string"))?;
                let key = match after[..end].parse() {
                    Ok(index) => Value::Int(index),
                    Err(_) => Value::text(&after[..end]),
                };
                value = interpreter.item(&value, &key)?;
                rest = &after[end + 1..];
            }
        }
        Ok(value)
    }
}

/// Where a replacement field ends that may hold others.
fn field_end(text: &str) -> Option<usize> {
    let mut depth = 1;
    text.char_indices().find_map(|(at, c)| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        (depth == 0).then_some(at)
    })
}

#[derive(Default)]
struct Specification {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Specification {
    fn parse(text: &str) -> Result<Self> {
        let invalid = || Failure::new(format!("invalid format specifier '{text}'"));
        let mut specification = Specification::default();
        let mut chars = text.chars().peekable();
        let is_align = |c: char| "<>=^".contains(c);
        let mut two = text.chars();
        if let (Some(fill), Some(align)) = (two.next(), two.next())
            && is_align(align)
        {
            (specification.fill, specification.align) = (Some(fill), Some(align));
            chars.next();
            chars.next();
        } else {
            specification.align = chars.next_if(|c| is_align(*c));
        }
        specification.sign = chars.next_if(|c| "+- ".contains(*c));
        specification.alternate = chars.next_if_eq(&'#').is_some();
        specification.zero = chars.next_if_eq(&'0').is_some();
        let digits = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits
        };
        let width = digits(&mut chars);
        if !width.is_empty() {
            specification.width = width.parse().map_err(|_| invalid())?;
        }
        specification.grouping = chars.next_if(|c| ",_".contains(*c));
        if chars.next_if_eq(&'.').is_some() {
            let precision = digits(&mut chars).parse();
            specification.precision = Some(precision.map_err(|_| invalid())?);
        }
        specification.kind = chars.next();
        let too_large =
            specification.width.max(specification.precision.unwrap_or(0)) > MAX_LENGTH.min(1 << 16);
        if chars.next().is_some() || too_large {
            return Err(invalid());
        }
        Ok(specification)
    }

    fn pad(&self, text: &str, default: char) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        let align = self.align.unwrap_or(if self.zero && default == '>' { '=' } else { default });
        let fill = |count: usize| String::from(fill).repeat(count);
        match align {
            '<' => format!("{text}{}", fill(missing)),
            '^' => format!("{}{text}{}", fill(missing / 2), fill(missing - missing / 2)),
            '=' => {
                let mut sign = text.len() - text.trim_start_matches(['-', '+', ' ']).len();
                let digits = text[sign..].get(..2).unwrap_or_default().to_ascii_lowercase();
                if self.alternate && matches!(digits.as_str(), "0x" | "0o" | "0b") {
                    sign += 2;
                }
                format!("{}{}{}", &text[..sign], fill(missing), &text[sign..])
            }
            _ => format!("{}{text}", fill(missing)),
        }
    }

    /// Digits in groups, with the sign that is asked for.
    fn signed(&self, negative: bool, prefix: &str, digits: &str, every: usize) -> String {
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        };
        let Some(separator) = self.grouping else { return format!("{sign}{prefix}{digits}") };
        let whole = digits.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(digits.len());
        let whole = digits[..whole].find('e').filter(|_| every == 3).unwrap_or(whole);
        let (whole, rest) = digits.split_at(whole);
        let mut whole = whole.to_owned();
        if self.zero && self.align.is_none() {
            // Zeros in front are grouped too.
            let used = sign.len() + prefix.len() + rest.len();
            while used + grouped(&format!("0{whole}"), separator, every).len() <= self.width {
                whole.insert(0, '0');
            }
        }
        format!("{sign}{prefix}{}{rest}", grouped(&whole, separator, every))
    }
}

fn grouped(digits: &str, separator: char, every: usize) -> String {
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(every) {
            out.push(separator);
        }
        out.push(digit);
    }
    out
}

/// `format(value, specification)`.
fn formatted(value: &Value, specification: &str) -> Result<String> {
    if specification.is_empty() {
        return Ok(repr::str(value));
    }
    let parsed = Specification::parse(specification)?;
    match value {
        Value::Text(text) | Value::Markup(text) => text_formatted(text, &parsed),
        Value::Float(value) => float_formatted(*value, &parsed),
        _ => match (value.as_int(), parsed.kind) {
            (Some(value), Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')) => {
                float_formatted(value as f64, &parsed)
            }
            (Some(value), _) => int_formatted(value, &parsed),
            (None, _) => Err(Failure::new(format!(
                "unsupported format string passed to {}.__format__",
                value.type_name()
            ))),
        },
    }
}

fn text_formatted(text: &str, parsed: &Specification) -> Result<String> {
    let is_plain = parsed.sign.is_none() && !parsed.alternate && parsed.grouping.is_none();
    if !is_plain || parsed.align == Some('=') || parsed.kind.is_some_and(|kind| kind != 's') {
        return Err(Failure::new("invalid format specifier for a str"));
    }
    let cut: String = match parsed.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    };
    Ok(parsed.pad(&cut, '<'))
}

fn int_formatted(value: i128, parsed: &Specification) -> Result<String> {
    if parsed.precision.is_some() {
        return Err(Failure::new("precision not allowed in integer format specifier"));
    }
    let magnitude = value.unsigned_abs();
    let (digits, prefix, every) = match parsed.kind {
        None | Some('d' | 'n') => (magnitude.to_string(), "", 3),
        Some('b') => (format!("{magnitude:b}"), "0b", 4),
        Some('o') => (format!("{magnitude:o}"), "0o", 4),
        Some('x') => (format!("{magnitude:x}"), "0x", 4),
        Some('X') => (format!("{magnitude:X}"), "0X", 4),
        Some('c') => {
            let c = u32::try_from(value).ok().and_then(char::from_u32);
            let c = c.ok_or_else(|| Failure::new("%c arg not in range(0x110000)"))?;
            return Ok(parsed.pad(&String::from(c), '<'));
        }
        Some(kind) => return Err(Failure::new(format!("unknown format code '{kind}' for int"))),
    };
    if parsed.grouping == Some(',') && every != 3 {
        return Err(Failure::new("cannot specify ',' with this format code"));
    }
    let prefix = if parsed.alternate { prefix } else { "" };
    Ok(parsed.pad(&parsed.signed(value < 0, prefix, &digits, every), '>'))
}

fn float_formatted(value: f64, parsed: &Specification) -> Result<String> {
    let magnitude = value.abs();
    let precision = parsed.precision.unwrap_or(6);
    let text = match parsed.kind {
        Some('e' | 'E') => number::exponential(magnitude, precision),
        Some('f' | 'F') => number::fixed(magnitude, precision),
        Some('%') => number::fixed(magnitude * 100.0, precision) + "%",
        Some('g' | 'G' | 'n') => number::general(magnitude, precision, parsed.alternate),
        None => match parsed.precision {
            None => number::repr(magnitude),
            Some(precision) => {
                let text = number::general(magnitude, precision, false);
                let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
                if is_whole && text.len() >= precision.max(1) {
                    number::exponential_short(magnitude, precision)
                } else if is_whole {
                    text + ".0"
                } else {
                    text
                }
            }
        },
        Some(kind) => return Err(Failure::new(format!("unknown format code '{kind}' for float"))),
    };
    let upper = parsed.kind.is_some_and(|kind| kind.is_ascii_uppercase());
    let text = if upper { text.to_uppercase() } else { text };
    let negative = value.is_sign_negative() && !value.is_nan();
    Ok(parsed.pad(&parsed.signed(negative, "", &text, 3), '>'))
}
