//! Attributes, items and slices, as the sandbox of `transformers` finds them.

use std::rc::Rc;

use super::call::whole;
use super::interpreter::Interpreter;
use super::repr::repr;
use super::value::{Missing, Range, Value};
use super::{Failure, Result, methods};

impl Interpreter<'_> {
    /// `object.name`: an attribute of the type (`items`, `upper`, ...) goes before an item of that name.
    pub(super) fn attribute(&mut self, object: &Value, name: &str) -> Result<Value> {
        if let Some(value) = self.own_attribute(object, name)? {
            return Ok(value);
        }
        let found = match object {
            Value::Dict(dict) => dict.get_text(name).cloned(),
            _ => None,
        };
        Ok(found.unwrap_or_else(|| lacks_attribute(object, name)))
    }

    /// `object[key]`: an item goes before an attribute of that name.
    pub(super) fn item(&mut self, object: &Value, key: &Value) -> Result<Value> {
        if let Value::Undefined(missing) = object {
            return Err(Failure::new(missing.message()));
        }
        let found = match object {
            Value::Dict(dict) => match key.check_hashable() {
                Ok(()) => dict.get(key).cloned(),
                Err(_) => None,
            },
            _ => key.as_int().and_then(|index| at(object, index)),
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let Some(name) = key.as_str() else {
            let missing = Missing::Item { of: object.object_name(), key: repr(key) };
            return Ok(Value::Undefined(Rc::new(missing)));
        };
        let found = self.own_attribute(object, name)?;
        Ok(found.unwrap_or_else(|| lacks_attribute(object, name)))
    }

    /// An attribute that Python's type has.
    fn own_attribute(&mut self, object: &Value, name: &str) -> Result<Option<Value>> {
        if let Value::Undefined(missing) = object {
            return Err(Failure::new(missing.message()));
        }
        if name.starts_with("__") && name.ends_with("__") || methods::changes(object, name) {
            let of = object.type_name();
            let message = format!("access to attribute '{name}' of '{of}' object is unsafe.");
            return Ok(Some(Value::undefined(message)));
        }
        if let Some(method) = methods::name(object, name) {
            return Ok(Some(Value::Method(Rc::new((object.clone(), method)))));
        }
        Ok(match (object, name) {
            (Value::Loop(state), name) => return self.loop_attribute(state, name),
            (Value::Namespace(dict), name) => dict.borrow().get_text(name).cloned(),
            (Value::Group(items), "grouper") => items.first().cloned(),
            (Value::Group(items), "list") => items.get(1).cloned(),
            (Value::Macro(closure), "name") => {
                Some(closure.definition.name.clone().map_or(Value::None, Value::Text))
            }
            (Value::Macro(closure), "arguments") => {
                let names = closure.definition.parameters.iter();
                Some(Value::list(names.map(|p| Value::Text(p.text.clone())).collect()))
            }
            (Value::Macro(closure), "caller") => Some(Value::Bool(closure.definition.caller)),
            (Value::Cycler(cycler), "current") => Some(cycler.0[cycler.1.get()].clone()),
            (Value::Range(range), "start") => Some(Value::Int(range.start)),
            (Value::Range(range), "stop") => Some(Value::Int(range.stop)),
            (Value::Range(range), "step") => Some(Value::Int(range.step)),
            (Value::Int(_) | Value::Bool(_), "real" | "numerator") => {
                object.as_int().map(Value::Int)
            }
            (Value::Int(_) | Value::Bool(_), "imag") => Some(Value::Int(0)),
            (Value::Int(_) | Value::Bool(_), "denominator") => Some(Value::Int(1)),
            (Value::Float(_), "real") => Some(object.clone()),
            (Value::Float(_), "imag") => Some(Value::Float(0.0)),
            _ => None,
        })
    }

    /// The item that a path like `a.0.b` of a filter leads to.
    pub(super) fn path(&mut self, object: &Value, path: &Value) -> Result<Value> {
        let Some(path) = path.as_str() else { return self.item(object, path) };
        path.split('.').try_fold(object.clone(), |object, part| {
            let is_index = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let key = match part.parse() {
                Ok(index) if is_index => Value::Int(index),
                _ => Value::text(part),
            };
            self.item(&object, &key)
        })
    }
}

fn lacks_attribute(object: &Value, name: &str) -> Value {
    let missing = Missing::Attribute { of: object.object_name(), name: name.into() };
    Value::Undefined(Rc::new(missing))
}

/// The item at an index, which counts from the end where it is negative.
fn at(object: &Value, index: i128) -> Option<Value> {
    let length = object.len()?;
    let index = if index < 0 { index + length as i128 } else { index };
    let index = usize::try_from(index).ok().filter(|index| *index < length)?;
    match object {
        Value::Text(text) | Value::Markup(text) => {
            text.chars().nth(index).map(|c| object.text_like(String::from(c)))
        }
        Value::Range(range) => Some(range.get(index)),
        _ => object.as_items().map(|items| items[index].clone()),
    }
}

/// `object[start:stop:step]`.
pub(super) fn slice(object: &Value, bounds: &[Option<Value>; 3]) -> Result<Value> {
    if let Value::Undefined(missing) = object {
        return Err(Failure::new(missing.message()));
    }
    let is_sequence = object.as_str().is_some() || object.as_items().is_some();
    if !is_sequence && !matches!(object, Value::Range(_)) {
        return Err(Failure::new(format!("'{}' object cannot be sliced", object.type_name())));
    }
    let bound = |value: &Option<Value>| match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => whole(value).map(Some),
    };
    let [start, stop, step] = bounds;
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(Failure::new("slice step cannot be zero"));
    }
    if let (Some(text), 1) = (object.as_str(), step)
        && text.is_ascii()
    {
        let (start, stop) = limits(start, stop, step, text.len());
        let (start, stop) = (start as usize, stop.max(start) as usize);
        return Ok(object.text_like(&text[start..stop]));
    }
    let length = object.len().unwrap_or(0);
    let (start, stop) = limits(start, stop, step, length);
    let picked = Range { start, stop, step };
    if let Value::Range(range) = object {
        let (start, step) = (range.start + range.step * start, range.step * step);
        let stop = range.start + range.step * stop;
        return Ok(Value::Range(Range { start, stop, step }));
    }
    let indices = (0..picked.len()).map(|index| (picked.start + step * index as i128) as usize);
    if let Some(text) = object.as_str() {
        let chars: Vec<char> = text.chars().collect();
        return Ok(object.text_like(indices.map(|index| chars[index]).collect::<String>()));
    }
    let items = object.as_items().unwrap_or_default();
    let items = indices.map(|index| items[index].clone()).collect();
    Ok(if matches!(object, Value::List(_)) { Value::list(items) } else { Value::tuple(items) })
}

/// Where a slice begins and ends in so many items.
pub(super) fn limits(
    start: Option<i128>,
    stop: Option<i128>,
    step: i128,
    length: usize,
) -> (i128, i128) {
    let length = length as i128;
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let place = |bound: i128| {
        let bound = if bound < 0 { bound.saturating_add(length) } else { bound };
        bound.clamp(lowest, highest)
    };
    let (first, last) = if step > 0 { (lowest, highest) } else { (highest, lowest) };
    (start.map_or(first, place), stop.map_or(last, place))
}
