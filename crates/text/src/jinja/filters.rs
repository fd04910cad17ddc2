//! Filters: what follows `|`.

mod sequence;
mod text;

use super::call::{Args, text as text_of, whole};
use super::interpreter::Interpreter;
use super::number::{self, Parsed};
use super::repr::{self, str};
use super::value::{Dict, Value};
use super::{Failure, Result, compare, json, percent};

/// The names of all filters.
pub(super) const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

impl Interpreter<'_> {
    /// `value | name(args)`.
    pub(super) fn filter(&mut self, name: &str, value: Value, args: Args) -> Result<Value> {
        match name {
            "tojson" => json::tojson(&value, args),
            "safe" => {
                args.none(name)?;
                Ok(Value::markup(str(&value)))
            }
            "string" => {
                args.none(name)?;
                Ok(if value.as_str().is_some() { value } else { Value::text(str(&value)) })
            }
            "default" | "d" => {
                let [other, boolean] = args.bind(name, ["default_value", "boolean"], 0)?;
                let boolean = boolean.is_some_and(|boolean| boolean.is_true());
                let is_default = value.is_undefined() || (boolean && !value.is_true());
                Ok(if is_default { other.unwrap_or_else(|| Value::text("")) } else { value })
            }
            "length" | "count" => {
                args.none(name)?;
                let length = match &value {
                    Value::Loop(_) => return self.attribute(&value, "length"),
                    other => other.len(),
                };
                let found = value.type_name();
                let none = || Failure::new(format!("object of type '{found}' has no len()"));
                length.map(Value::size).ok_or_else(none)
            }
            "attr" => {
                let [attribute] = args.bind(name, ["name"], 1)?;
                let attribute = attribute.unwrap_or(Value::None);
                // Only an attribute, never an item of that name.
                if let (Value::Dict(_), Some(key)) = (&value, attribute.as_str())
                    && super::methods::name(&value, key).is_none()
                {
                    return Ok(Value::undefined(format!("'dict object' has no attribute '{key}'")));
                }
                self.attribute(&value, text_of(&attribute)?)
            }
            "abs" => {
                args.none(name)?;
                absolute(&value)
            }
            "int" => int(&value, args),
            "float" => {
                let [default] = args.bind(name, ["default"], 0)?;
                let found = as_float(&value)?.map(Value::Float);
                Ok(found.or(default).unwrap_or(Value::Float(0.0)))
            }
            "round" => round(&value, args),
            "filesizeformat" => filesize(&value, args),
            "format" => {
                if !args.positional.is_empty() && !args.named.is_empty() {
                    let message = "can't handle positional and keyword arguments at the same time";
                    return Err(Failure::new(message));
                }
                let values = if args.named.is_empty() {
                    Value::tuple(args.positional)
                } else {
                    Args::dict(args.named)
                };
                let format =
                    if value.as_str().is_some() { value } else { Value::text(str(&value)) };
                percent::format(&format, &values)
            }
            "pprint" => {
                args.none(name)?;
                let text = repr::repr(&sorted(&value)?);
                if text.chars().count() > 80 {
                    return Err(Failure::new("`pprint` of a long value is not supported"));
                }
                Ok(Value::text(text))
            }
            "random" | "urlize" => Err(Failure::new(format!(
                "the filter `{name}` is not supported in a chat template"
            ))),
            name if NAMES.contains(&name) => match text::filter(name, &value, args)? {
                text::Found::Value(value) => Ok(value),
                text::Found::Other(args) => self.sequence_filter(name, value, args),
            },
            name => Err(Failure::new(format!("no filter named '{name}'"))),
        }
    }
}

/// A value with the keys of its dictionaries in order, as `pprint` writes them.
fn sorted(value: &Value) -> Result<Value> {
    let all = |items: &[Value]| items.iter().map(sorted).collect::<Result<Vec<Value>>>();
    Ok(match value {
        Value::Dict(dict) => {
            let entries = dict.entries().iter().map(|(key, value)| {
                Ok((key.clone(), Value::tuple(vec![key.clone(), sorted(value)?])))
            });
            let mut ordered = Dict::default();
            for entry in compare::sort(entries.collect::<Result<_>>()?, false)? {
                if let Some([key, value]) = entry.as_items() {
                    ordered.push(key.clone(), value.clone());
                }
            }
            Value::dict(ordered)
        }
        Value::List(items) => Value::list(all(items)?),
        Value::Tuple(items) => Value::tuple(all(items)?),
        other => other.clone(),
    })
}

fn absolute(value: &Value) -> Result<Value> {
    match (value, value.as_int()) {
        (Value::Undefined(missing), _) => Err(Failure::new(missing.message())),
        (Value::Float(value), _) => Ok(Value::Float(value.abs())),
        (Value::Big(digits), _) => Ok(Value::Big(digits.trim_start_matches('-').into())),
        (_, Some(value)) => Ok(Value::Int(value.saturating_abs())),
        _ => Err(Failure::new(format!("bad operand type for abs(): '{}'", value.type_name()))),
    }
}

/// What `float(value)` is; nothing where it refuses.
fn as_float(value: &Value) -> Result<Option<f64>> {
    match value {
        Value::Undefined(missing) => Err(Failure::new(missing.message())),
        Value::Text(text) | Value::Markup(text) => Ok(number::parse_float(text)),
        other => Ok(other.as_number()),
    }
}

fn int(value: &Value, args: Args) -> Result<Value> {
    let [default, base] = args.bind("int", ["default", "base"], 0)?;
    let base = base.as_ref().map(whole).transpose()?.unwrap_or(10);
    let read = match (value, u32::try_from(base)) {
        (Value::Undefined(missing), _) => return Err(Failure::new(missing.message())),
        (Value::Text(text) | Value::Markup(text), Ok(base @ (0 | 2..=36))) => {
            number::parse_int(text, base).map(|parsed| match parsed {
                Parsed::Int(value) => Value::Int(value),
                Parsed::Big(digits) => Value::Big(digits.into()),
            })
        }
        (Value::Big(_), _) => Some(value.clone()),
        (other, _) => other.as_int().map(Value::Int),
    };
    if let Some(value) = read {
        return Ok(value);
    }
    let float = as_float(value)?;
    if matches!(value, Value::Float(value) if value.is_infinite()) {
        return Err(Failure::new("cannot convert float infinity to integer"));
    }
    let whole = float.filter(|value| value.is_finite()).map(f64::trunc);
    Ok(match whole {
        Some(value) if value.abs() < 1e38 => Value::Int(value as i128),
        Some(value) => Value::Big(format!("{value:.0}").into()),
        None => default.unwrap_or(Value::Int(0)),
    })
}

fn round(value: &Value, args: Args) -> Result<Value> {
    let [precision, method] = args.bind("round", ["precision", "method"], 0)?;
    let precision = precision.as_ref().map(whole).transpose()?.unwrap_or(0);
    let precision = i32::try_from(precision.clamp(-400, 400)).unwrap_or(0);
    let method = method.as_ref().map(text_of).transpose()?.unwrap_or("common");
    let number = match (value, value.as_number()) {
        (Value::Undefined(missing), _) => return Err(Failure::new(missing.message())),
        (_, Some(number)) => number,
        _ => {
            let found = value.type_name();
            return Err(Failure::new(format!("type {found} doesn't define __round__ method")));
        }
    };
    let scale = |function: fn(f64) -> f64| {
        let power = 10_f64.powi(precision);
        let scaled = if precision < 0 { number / 10_f64.powi(-precision) } else { number * power };
        Value::Float(function(scaled) / power)
    };
    match method {
        "common" => {}
        "ceil" => return Ok(scale(f64::ceil)),
        "floor" => return Ok(scale(f64::floor)),
        _ => return Err(Failure::new("method must be common, ceil or floor")),
    }
    if let Some(integer) = value.as_int() {
        return Ok(Value::Int(round_integer(integer, precision)));
    }
    if !number.is_finite() || precision > 330 {
        return Ok(Value::Float(number));
    }
    let rounded = if precision >= 0 {
        // Written with so many digits, a number is rounded as Python does: half to even of its exact value.
        format!("{number:.*}", precision as usize).parse().unwrap_or(number)
    } else {
        let power = 10_f64.powi(-precision);
        (number / power).round_ties_even() * power
    };
    Ok(Value::Float(rounded))
}

/// Rounds to tens, hundreds, ..., half to even.
fn round_integer(value: i128, precision: i32) -> i128 {
    let Some(unit) = u32::try_from(-precision).ok().filter(|zeros| *zeros > 0) else {
        return value;
    };
    let Some(unit) = 10_i128.checked_pow(unit) else { return 0 };
    let (quotient, rest) = (value.div_euclid(unit), value.rem_euclid(unit));
    let up = rest * 2 > unit || (rest * 2 == unit && quotient % 2 != 0);
    (quotient + i128::from(up)) * unit
}

fn filesize(value: &Value, args: Args) -> Result<Value> {
    let [binary] = args.bind("filesizeformat", ["binary"], 0)?;
    let binary = binary.is_some_and(|binary| binary.is_true());
    let bytes = as_float(value)?.ok_or_else(|| Failure::new("could not convert to float"))?;
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok(Value::text("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::text(format!("{:.0} Bytes", bytes.trunc())));
    }
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let fits = |power: &usize| bytes < base.powi(*power as i32 + 2);
    let power = (0..prefixes.len()).find(fits).unwrap_or(prefixes.len() - 1);
    let size = number::fixed(base * bytes / base.powi(power as i32 + 2), 1);
    let prefix = prefixes[power];
    Ok(Value::text(match (binary, prefix) {
        (true, prefix) => format!("{size} {}iB", prefix.to_uppercase()),
        (false, prefix) => format!("{size} {prefix}B"),
    }))
}
