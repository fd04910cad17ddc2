//! Tests: what follows `is`.

use super::arithmetic::binary;
use super::ast::Operator;
use super::call::Args;
use super::interpreter::Interpreter;
use super::unicode::{is_lower, is_upper};
use super::value::Value;
use super::{Failure, Result, compare, filters, repr};

/// The names of all tests.
pub(super) const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

impl Interpreter<'_> {
    /// `value is name(args)`.
    pub(super) fn test(&mut self, name: &str, value: &Value, args: Args) -> Result<bool> {
        if !NAMES.contains(&name) {
            return Err(Failure::new(format!("no test named '{name}'")));
        }
        let takes_one = matches!(
            name,
            "divisibleby"
                | "sameas"
                | "in"
                | "=="
                | "eq"
                | "equalto"
                | "!="
                | "ne"
                | ">"
                | "gt"
                | "greaterthan"
                | "ge"
                | ">="
                | "<"
                | "lt"
                | "lessthan"
                | "<="
                | "le"
        );
        if !takes_one {
            args.none(name)?;
            return without_argument(name, value);
        }
        let parameter = match name {
            "divisibleby" => "num",
            "sameas" => "other",
            "in" => "seq",
            _ => "",
        };
        let [other] = args.bind(name, [parameter], 1)?;
        with_argument(name, value, &other.unwrap_or(Value::None))
    }
}

fn with_argument(name: &str, value: &Value, other: &Value) -> Result<bool> {
    use std::cmp::Ordering::{Greater, Less};
    let order = |operator: &str| compare::order(value, other, operator);
    Ok(match name {
        "divisibleby" => compare::equal(&binary(Operator::Modulo, value, other)?, &Value::Int(0)),
        "sameas" => compare::same(value, other),
        "in" => compare::contains(other, value)?,
        "==" | "eq" | "equalto" => compare::equal(value, other),
        "!=" | "ne" => !compare::equal(value, other),
        ">" | "gt" | "greaterthan" => order(">")? == Some(Greater),
        ">=" | "ge" => order(">=")?.is_some_and(|order| order != Less),
        "<" | "lt" | "lessthan" => order("<")? == Some(Less),
        _ => order("<=")?.is_some_and(|order| order != Greater),
    })
}

fn without_argument(name: &str, value: &Value) -> Result<bool> {
    let rest_is = |rest: i128| {
        let found = binary(Operator::Modulo, value, &Value::Int(2))?;
        Ok(compare::equal(&found, &Value::Int(rest)))
    };
    let cased = |is_case: fn(char) -> bool, is_other: fn(char) -> bool| {
        let text = repr::str(value);
        text.chars().any(is_case) && !text.chars().any(is_other)
    };
    Ok(match name {
        "odd" => return rest_is(1),
        "even" => return rest_is(0),
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "filter" | "test" if value.check_hashable().is_err() => {
            return value.check_hashable().map(|()| false);
        }
        "filter" => value.as_str().is_some_and(|name| filters::NAMES.contains(&name)),
        "test" => value.as_str().is_some_and(|name| NAMES.contains(&name)),
        "none" => value.is_none(),
        "boolean" => matches!(value, Value::Bool(_)),
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "integer" => matches!(value, Value::Int(_) | Value::Big(_)),
        "float" => matches!(value, Value::Float(_)),
        "lower" => cased(is_lower, is_upper),
        "upper" => cased(is_upper, is_lower),
        "string" => value.as_str().is_some(),
        "mapping" => matches!(value, Value::Dict(_)),
        "number" => value.as_number().is_some(),
        // What has a length and items by index; a view of a dictionary has no index.
        "sequence" => value.len().is_some() && !matches!(value, Value::View(..)),
        "iterable" => value.is_iterable(),
        "callable" => value.is_callable(),
        _ => value.is_markup(),
    })
}
