//! Equality, order and membership as Python has them.

use std::cmp::Ordering;
use std::rc::Rc;

use super::value::{Dict, Value, View};
use super::{Failure, Result};

/// `left == right`.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Big(left), Value::Big(right)) => left == right,
        (Value::List(left), Value::List(right)) => all_equal(left, right),
        (Value::Tuple(left) | Value::Group(left), Value::Tuple(right) | Value::Group(right)) => {
            all_equal(left, right)
        }
        (Value::Dict(left), Value::Dict(right)) => dicts_equal(left, right),
        (Value::View(left, View::Keys), Value::View(right, View::Keys)) => {
            left.len() == right.len()
                && left.entries().iter().all(|(key, _)| right.get(key).is_some())
        }
        (Value::View(left, View::Items), Value::View(right, View::Items)) => {
            dicts_equal(left, right)
        }
        (Value::Range(left), Value::Range(right)) => {
            let length = left.len();
            length == right.len()
                && (length == 0 || left.start == right.start)
                && (length < 2 || left.step == right.step)
        }
        _ => match (left.as_str(), right.as_str()) {
            (Some(left), Some(right)) => left == right,
            (None, None) => match numbers(left, right) {
                Some(order) => order == Some(Ordering::Equal),
                None => same(left, right),
            },
            _ => false,
        },
    }
}

fn all_equal(left: &[Value], right: &[Value]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| same(left, right) || equal(left, right))
}

fn dicts_equal(left: &Dict, right: &Dict) -> bool {
    let same_value =
        |(key, value): &(Value, Value)| right.get(key).is_some_and(|other| equal(value, other));
    left.len() == right.len() && left.entries().iter().all(same_value)
}

/// `left is right`, where both are values that a template can tell apart.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::None, Value::None) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Int(left), Value::Int(right)) => left == right,
        (Value::Text(left), Value::Text(right)) => left == right,
        (Value::Undefined(left), Value::Undefined(right)) => Rc::ptr_eq(left, right),
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            Rc::ptr_eq(left, right)
        }
        (Value::Dict(left), Value::Dict(right)) => Rc::ptr_eq(left, right),
        (Value::Generator(left), Value::Generator(right)) => Rc::ptr_eq(left, right),
        (Value::Namespace(left), Value::Namespace(right)) => Rc::ptr_eq(left, right),
        (Value::Loop(left), Value::Loop(right)) => Rc::ptr_eq(left, right),
        (Value::Macro(left), Value::Macro(right)) => Rc::ptr_eq(left, right),
        (Value::Function(left), Value::Function(right)) => left == right,
        _ => false,
    }
}

/// The order of two numbers, if both are numbers; none within where one is no number.
fn numbers(left: &Value, right: &Value) -> Option<Option<Ordering>> {
    match (left.as_int(), right.as_int()) {
        (Some(left), Some(right)) => Some(Some(left.cmp(&right))),
        _ => match (left, right) {
            (Value::Big(left), Value::Big(right)) => Some(Some(big_order(left, right))),
            _ => Some(left.as_number()?.partial_cmp(&right.as_number()?)),
        },
    }
}

fn big_order(left: &str, right: &str) -> Ordering {
    let negative = (left.starts_with('-'), right.starts_with('-'));
    match negative {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => (left.len(), left).cmp(&(right.len(), right)),
        (true, true) => (right.len(), right).cmp(&(left.len(), left)),
    }
}

/// How two values are ordered, where they are; `operator` names the comparison in the error.
pub(super) fn order(left: &Value, right: &Value, operator: &str) -> Result<Option<Ordering>> {
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        return Ok(Some(left.cmp(right)));
    }
    if let Some(order) = numbers(left, right) {
        return Ok(order);
    }
    match (left, right) {
        (Value::Undefined(missing), _) | (_, Value::Undefined(missing)) => {
            Err(Failure::new(missing.message()))
        }
        (Value::List(left), Value::List(right)) => items_order(left, right, operator),
        (Value::Tuple(left) | Value::Group(left), Value::Tuple(right) | Value::Group(right)) => {
            items_order(left, right, operator)
        }
        _ => Err(Failure::new(format!(
            "'{operator}' not supported between instances of '{}' and '{}'",
            left.type_name(),
            right.type_name()
        ))),
    }
}

fn items_order(left: &[Value], right: &[Value], operator: &str) -> Result<Option<Ordering>> {
    for (left, right) in left.iter().zip(right) {
        if !same(left, right) && !equal(left, right) {
            return order(left, right, operator);
        }
    }
    Ok(Some(left.len().cmp(&right.len())))
}

/// `left < right`.
pub(super) fn less(left: &Value, right: &Value) -> Result<bool> {
    Ok(order(left, right, "<")? == Some(Ordering::Less))
}

/// Sorts by keys, equal ones in their order. A merge sort of our own, for a comparison may fail.
pub(super) fn sort(items: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<Value>> {
    let mut items = items;
    // Python turns the list around before and after, which keeps equal items in order.
    if reverse {
        items.reverse();
    }
    let mut sorted = merge_sort(items)?;
    if reverse {
        sorted.reverse();
    }
    Ok(sorted.into_iter().map(|(_, item)| item).collect())
}

fn merge_sort(items: Vec<(Value, Value)>) -> Result<Vec<(Value, Value)>> {
    if items.len() < 2 {
        return Ok(items);
    }
    let mut left = items;
    let right = left.split_off(left.len() / 2);
    let (left, right) = (merge_sort(left)?, merge_sort(right)?);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some((first, _)), Some((second, _))) = (left.peek(), right.peek()) {
        let next = if less(second, first)? { right.next() } else { left.next() };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}

/// `item in container`.
pub(super) fn contains(container: &Value, item: &Value) -> Result<bool> {
    match container {
        Value::Text(text) | Value::Markup(text) => match (item.as_str(), item) {
            (Some(part), _) => Ok(text.contains(part)),
            (None, item) => Err(Failure::new(format!(
                "'in <string>' requires string as left operand, not {}",
                item.type_name()
            ))),
        },
        Value::Dict(dict) | Value::View(dict, View::Keys) => {
            item.check_hashable()?;
            Ok(dict.get(item).is_some())
        }
        Value::Undefined(_)
        | Value::List(_)
        | Value::Tuple(_)
        | Value::Group(_)
        | Value::View(..)
        | Value::Range(_)
        | Value::Generator(_) => {
            Ok(container.iterate()?.iter().any(|other| same(other, item) || equal(other, item)))
        }
        other => {
            Err(Failure::new(format!("argument of type '{}' is not iterable", other.type_name())))
        }
    }
}
