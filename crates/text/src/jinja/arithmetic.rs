//! Operators as Python has them.

use super::ast::Operator;
use super::repr;
use super::unicode::escaped;
use super::value::Value;
use super::{Failure, Result, percent};

/// How long a text or a list may become by repetition or padding.
pub(super) const MAX_LENGTH: usize = 1 << 24;

pub(super) fn binary(operator: Operator, left: &Value, right: &Value) -> Result<Value> {
    match (operator, left, right) {
        (Operator::Add, Value::Text(left), Value::Text(right)) => {
            let mut text = String::with_capacity(left.len() + right.len());
            text.push_str(left);
            text.push_str(right);
            Ok(Value::text(text))
        }
        (Operator::Modulo, Value::Text(_) | Value::Markup(_), _) => percent::format(left, right),
        (_, Value::Undefined(missing), _) | (_, _, Value::Undefined(missing)) => {
            Err(Failure::new(missing.message()))
        }
        (Operator::Add, ..) => match add(left, right) {
            Some(sum) => Ok(sum),
            None => numeric(operator, left, right),
        },
        (Operator::Multiply, ..) => match repetition(left, right) {
            Some((value, count)) => repeated(value, count),
            None => numeric(operator, left, right),
        },
        _ => numeric(operator, left, right),
    }
}

/// The sum of two texts, lists or tuples. A text that meets markup is escaped.
fn add(left: &Value, right: &Value) -> Option<Value> {
    if let (Some(first), Some(second)) = (left.as_str(), right.as_str()) {
        let part = |value: &Value, text: &str| {
            if value.is_markup() { text.to_owned() } else { escaped(text) }
        };
        return Some(Value::markup(part(left, first) + &part(right, second)));
    }
    let joined = |left: &[Value], right: &[Value]| left.iter().chain(right).cloned().collect();
    match (left, right) {
        (Value::List(left), Value::List(right)) => Some(Value::list(joined(left, right))),
        (Value::Tuple(left) | Value::Group(left), Value::Tuple(right) | Value::Group(right)) => {
            Some(Value::tuple(joined(left, right)))
        }
        _ => None,
    }
}

/// What is repeated and how often, where a text, a list or a tuple is multiplied.
fn repetition<'v>(left: &'v Value, right: &Value) -> Option<(&'v Value, i128)> {
    let is_sequence = |value: &Value| value.as_str().is_some() || value.as_items().is_some();
    if is_sequence(left) { Some((left, right.as_int()?)) } else { None }
}

fn repeated(value: &Value, count: i128) -> Result<Value> {
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    let length = value.as_str().map_or_else(|| value.len().unwrap_or(0), str::len);
    if length.saturating_mul(count) > MAX_LENGTH {
        return Err(Failure::new("the repeated text or list is too long"));
    }
    let items = |items: &[Value]| (0..count).flat_map(|_| items.iter().cloned()).collect();
    Ok(match (value.as_str(), value) {
        (Some(text), _) => value.text_like(text.repeat(count)),
        (None, Value::List(list)) => Value::list(items(list)),
        (None, other) => Value::tuple(items(other.as_items().unwrap_or_default())),
    })
}

fn numeric(operator: Operator, left: &Value, right: &Value) -> Result<Value> {
    if operator == Operator::Multiply
        && let Some((value, count)) = repetition(right, left)
    {
        return repeated(value, count);
    }
    match (left.as_int(), right.as_int()) {
        (Some(left), Some(right)) => integers(operator, left, right),
        _ => match (left.as_number(), right.as_number()) {
            _ if matches!(left, Value::Big(_)) || matches!(right, Value::Big(_)) => {
                Err(Failure::new("the number is too large to compute with"))
            }
            (Some(left), Some(right)) => floats(operator, left, right),
            _ => Err(unsupported(operator, left, right)),
        },
    }
}

fn unsupported(operator: Operator, left: &Value, right: &Value) -> Failure {
    let symbol = match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Modulo => "%",
        Operator::Power => "**",
    };
    let (left, right) = (left.type_name(), right.type_name());
    Failure::new(format!("unsupported operand type(s) for {symbol}: '{left}' and '{right}'"))
}

fn integers(operator: Operator, left: i128, right: i128) -> Result<Value> {
    if right == 0 && matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Modulo)
    {
        return Err(Failure::new("division by zero"));
    }
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide => return Ok(Value::Float(left as f64 / right as f64)),
        // Rounded down, where the quotient of a machine is rounded to zero.
        Operator::FloorDivide => left.checked_div(right).map(|quotient| {
            let inexact = left % right != 0 && (left < 0) != (right < 0);
            quotient - i128::from(inexact)
        }),
        Operator::Modulo => left
            .checked_rem(right)
            .map(|rest| if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest }),
        Operator::Power if right < 0 => return floats(operator, left as f64, right as f64),
        Operator::Power => u32::try_from(right).ok().and_then(|right| left.checked_pow(right)),
    };
    result.map(Value::Int).ok_or_else(|| Failure::new("the number is too large"))
}

fn floats(operator: Operator, left: f64, right: f64) -> Result<Value> {
    if right == 0.0
        && matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Modulo)
    {
        return Err(Failure::new("division by zero"));
    }
    // The rest has the sign of the divisor.
    let rest = || {
        let rest = left % right;
        if rest == 0.0 {
            0.0_f64.copysign(right)
        } else if (rest < 0.0) != (right < 0.0) {
            rest + right
        } else {
            rest
        }
    };
    Ok(Value::Float(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::FloorDivide => floor_quotient(left, right, rest()),
        Operator::Modulo => rest(),
        Operator::Power if left == 0.0 && right < 0.0 => {
            return Err(Failure::new("0.0 cannot be raised to a negative power"));
        }
        Operator::Power if left < 0.0 && right.fract() != 0.0 && left.is_finite() => {
            return Err(Failure::new("complex numbers are not supported"));
        }
        Operator::Power => {
            let power = left.powf(right);
            if power.is_infinite() && left.is_finite() && right.is_finite() {
                return Err(Failure::new("the number is too large"));
            }
            power
        }
    }))
}

fn floor_quotient(left: f64, right: f64, rest: f64) -> f64 {
    let quotient = (left - rest) / right;
    if quotient == 0.0 {
        return 0.0_f64.copysign(left / right);
    }
    let floor = quotient.floor();
    if quotient - floor > 0.5 { floor + 1.0 } else { floor }
}

/// `-value`.
pub(super) fn negative(value: &Value) -> Result<Value> {
    match (value, value.as_int()) {
        (Value::Undefined(missing), _) => Err(Failure::new(missing.message())),
        (Value::Float(value), _) => Ok(Value::Float(-value)),
        (Value::Big(digits), _) => Ok(Value::Big(match digits.strip_prefix('-') {
            Some(digits) => digits.into(),
            None => format!("-{digits}").into(),
        })),
        (_, Some(value)) => value
            .checked_neg()
            .map(Value::Int)
            .ok_or_else(|| Failure::new("the number is too large")),
        (other, None) => {
            Err(Failure::new(format!("bad operand type for unary -: '{}'", other.type_name())))
        }
    }
}

/// `+value`.
pub(super) fn positive(value: &Value) -> Result<Value> {
    match (value, value.as_int()) {
        (Value::Undefined(missing), _) => Err(Failure::new(missing.message())),
        (Value::Float(_) | Value::Big(_), _) => Ok(value.clone()),
        (_, Some(value)) => Ok(Value::Int(value)),
        (other, None) => {
            Err(Failure::new(format!("bad operand type for unary +: '{}'", other.type_name())))
        }
    }
}

/// What a text is joined to where one of both is markup: escaped, unless it is markup too.
pub(super) fn escape(value: &Value) -> String {
    let text = repr::str(value);
    if value.is_markup() { text } else { escaped(&text) }
}
