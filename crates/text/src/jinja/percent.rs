//! `text % values`.

use super::arithmetic::{MAX_LENGTH, escape};
use super::number;
use super::repr;
use super::value::Value;
use super::{Failure, Result};

#[derive(Default)]
struct Directive {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// The values in the order in which they are asked for.
struct Values<'v> {
    all: &'v Value,
    positional: Vec<Value>,
    next: usize,
}

impl Values<'_> {
    fn take(&mut self) -> Result<Value> {
        let value = self.positional.get(self.next).cloned();
        self.next += 1;
        value.ok_or_else(|| Failure::new("not enough arguments for format string"))
    }

    fn named(&self, name: &str) -> Result<Value> {
        match self.all {
            Value::Dict(dict) => dict
                .get_text(name)
                .cloned()
                .ok_or_else(|| Failure::new(format!("key error: '{name}'"))),
            _ => Err(Failure::new("format requires a mapping")),
        }
    }
}

/// `format % values`. Into markup go escaped values.
pub(super) fn format(format: &Value, values: &Value) -> Result<Value> {
    let template = format.as_str().unwrap_or_default();
    let positional = match values {
        Value::Tuple(items) | Value::Group(items) => items.to_vec(),
        other => vec![other.clone()],
    };
    // What has items by key may be left unread.
    let is_mapping =
        matches!(values, Value::Dict(_) | Value::List(_) | Value::Undefined(_) | Value::Range(_));
    let mut values = Values { all: values, positional, next: 0 };
    let mut out = String::new();
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut key = None;
        if chars.next_if_eq(&'(').is_some() {
            let mut name = String::new();
            let mut depth = 1;
            for c in chars.by_ref() {
                depth += i32::from(c == '(') - i32::from(c == ')');
                if depth == 0 {
                    break;
                }
                name.push(c);
            }
            if depth > 0 {
                return Err(Failure::new("incomplete format key"));
            }
            key = Some(values.named(&name)?);
        }
        let mut directive = Directive::default();
        while let Some(flag) = chars.next_if(|c| "-+ #0".contains(*c)) {
            match flag {
                '-' => directive.left = true,
                '+' => directive.plus = true,
                ' ' => directive.space = true,
                '#' => directive.alternate = true,
                _ => directive.zero = true,
            }
        }
        if let Some(width) = size(&mut chars, &mut values)? {
            directive.left |= width < 0;
            directive.width = width.unsigned_abs() as usize;
        }
        if chars.next_if_eq(&'.').is_some() {
            let precision = size(&mut chars, &mut values)?.unwrap_or(0);
            directive.precision = Some(precision.max(0) as usize);
        }
        if directive.width.max(directive.precision.unwrap_or(0)) > MAX_LENGTH.min(1 << 16) {
            return Err(Failure::new("the width is too large"));
        }
        while chars.next_if(|c| "hlL".contains(*c)).is_some() {}
        let Some(conversion) = chars.next() else { return Err(Failure::new("incomplete format")) };
        if conversion == '%' {
            out.push('%');
            continue;
        }
        let value = match key {
            Some(value) => value,
            None => values.take()?,
        };
        let text = directive.convert(conversion, &value)?;
        let is_text = "srac".contains(conversion);
        out.push_str(&directive.pad(
            &if is_text && format.is_markup() {
                escape(&if conversion == 's' { value.text_like(text) } else { Value::text(text) })
            } else {
                text
            },
            !is_text,
        ));
    }
    if values.next < values.positional.len() && !is_mapping {
        return Err(Failure::new("not all arguments converted during string formatting"));
    }
    Ok(format.text_like(out))
}

/// A width or a precision: digits, or `*` for the next value.
fn size(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    values: &mut Values<'_>,
) -> Result<Option<i64>> {
    if chars.next_if_eq(&'*').is_some() {
        let value = values.take()?;
        let width = value.as_int().and_then(|width| i64::try_from(width).ok());
        return width.map(Some).ok_or_else(|| Failure::new("* wants int"));
    }
    let mut width: Option<i64> = None;
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        let digit = i64::from(digit.to_digit(10).unwrap_or(0));
        width = Some(width.unwrap_or(0).saturating_mul(10).saturating_add(digit));
    }
    Ok(width)
}

impl Directive {
    fn convert(&self, conversion: char, value: &Value) -> Result<String> {
        let wants = |what: &str| {
            Failure::new(format!(
                "%{conversion} format: {what} is required, not {}",
                value.type_name()
            ))
        };
        let cut = |text: String| match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text,
        };
        match conversion {
            's' => Ok(cut(repr::str(value))),
            'r' => Ok(cut(repr::repr(value))),
            'a' => Ok(cut(repr::ascii(value))),
            'c' => match (value.as_int(), value.as_str()) {
                (Some(code), _) => u32::try_from(code)
                    .ok()
                    .and_then(char::from_u32)
                    .map(String::from)
                    .ok_or_else(|| Failure::new("%c arg not in range(0x110000)")),
                (None, Some(text)) if text.chars().count() == 1 => Ok(text.to_owned()),
                _ => Err(Failure::new("%c requires int or char")),
            },
            'd' | 'i' | 'u' => {
                let digits = match value {
                    Value::Float(value) if !value.is_finite() => {
                        return Err(Failure::new("cannot convert float to integer"));
                    }
                    Value::Float(value) => format!("{:.0}", value.trunc()),
                    Value::Big(digits) => digits.to_string(),
                    other => other.as_int().ok_or_else(|| wants("a real number"))?.to_string(),
                };
                Ok(self.signed(if digits == "-0" { "0" } else { &digits }))
            }
            'o' | 'x' | 'X' => {
                let value = value.as_int().ok_or_else(|| wants("an integer"))?;
                let (digits, prefix) = match conversion {
                    'o' => (format!("{:o}", value.unsigned_abs()), "0o"),
                    'x' => (format!("{:x}", value.unsigned_abs()), "0x"),
                    _ => (format!("{:X}", value.unsigned_abs()), "0X"),
                };
                let zeros = "0".repeat(self.precision.unwrap_or(0).saturating_sub(digits.len()));
                let sign = if value < 0 { "-" } else { "" };
                let prefix = if self.alternate { prefix } else { "" };
                Ok(self.plain_sign(&format!("{sign}{prefix}{zeros}{digits}")))
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let value = value.as_number().filter(|_| value.as_str().is_none());
                let value = value.ok_or_else(|| wants("a real number"))?;
                let precision = self.precision.unwrap_or(6);
                let text = match conversion.to_ascii_lowercase() {
                    'e' => number::exponential(value, precision),
                    'f' => number::fixed(value, precision),
                    _ => number::general(value, precision, self.alternate),
                };
                let upper = conversion.is_ascii_uppercase();
                Ok(self.plain_sign(&if upper { text.to_uppercase() } else { text }))
            }
            other => Err(Failure::new(format!("unsupported format character '{other}'"))),
        }
    }

    /// Digits with leading zeros up to the precision, and a sign.
    fn signed(&self, text: &str) -> String {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text),
        };
        let zeros = "0".repeat(self.precision.unwrap_or(0).saturating_sub(digits.len()));
        self.plain_sign(&format!("{sign}{zeros}{digits}"))
    }

    fn plain_sign(&self, text: &str) -> String {
        let sign = match (text.starts_with('-'), self.plus, self.space) {
            (true, ..) | (_, false, false) => "",
            (_, true, _) => "+",
            _ => " ",
        };
        format!("{sign}{text}")
    }

    fn pad(&self, text: &str, is_number: bool) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        if self.left {
            return format!("{text}{}", " ".repeat(missing));
        }
        if self.zero && is_number {
            let sign = text.len() - text.trim_start_matches(['-', '+', ' ']).len();
            let sign = if text[sign..].starts_with("0x")
                || text[sign..].starts_with("0X")
                || text[sign..].starts_with("0o")
            {
                sign + 2
            } else {
                sign
            };
            return format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..]);
        }
        format!("{}{text}", " ".repeat(missing))
    }
}
