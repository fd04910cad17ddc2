//! Python's methods of texts, lists, dictionaries and numbers.

pub(super) mod text;

use super::call::{Args, whole};
use super::interpreter::Interpreter;
use super::value::{Dict, Value, View};
use super::{Failure, Result, attribute, compare, format};

const TEXT: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const DICT: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];
const LIST: [&str; 3] = ["copy", "count", "index"];
const TUPLE: [&str; 2] = ["count", "index"];
const INT: [&str; 6] =
    ["as_integer_ratio", "bit_count", "bit_length", "conjugate", "from_bytes", "to_bytes"];
const FLOAT: [&str; 5] = ["as_integer_ratio", "conjugate", "fromhex", "hex", "is_integer"];
const CYCLER: [&str; 2] = ["next", "reset"];

/// The method of that name, where the type has it.
pub(super) fn name(value: &Value, name: &str) -> Option<&'static str> {
    let names: &[&'static str] = match value {
        Value::Text(_) | Value::Markup(_) => &TEXT,
        Value::Dict(_) => &DICT,
        Value::List(_) => &LIST,
        Value::Tuple(_) | Value::Group(_) | Value::Range(_) => &TUPLE,
        Value::Int(_) | Value::Big(_) | Value::Bool(_) => &INT,
        Value::Float(_) => &FLOAT,
        Value::Cycler(_) => &CYCLER,
        _ => return None,
    };
    names.iter().find(|other| **other == name).copied()
}

/// Whether the method changes the value, which the sandbox forbids.
pub(super) fn changes(value: &Value, name: &str) -> bool {
    match value {
        Value::Dict(_) => matches!(name, "clear" | "pop" | "popitem" | "setdefault" | "update"),
        Value::List(_) => matches!(
            name,
            "append" | "clear" | "pop" | "reverse" | "insert" | "sort" | "extend" | "remove"
        ),
        _ => false,
    }
}

impl Interpreter<'_> {
    pub(super) fn call_method(
        &mut self,
        object: &Value,
        name: &'static str,
        args: Args,
    ) -> Result<Value> {
        match object {
            Value::Text(_) | Value::Markup(_) if name == "format" => {
                format::format(self, object, args.positional, &Args::dict(args.named))
            }
            Value::Text(_) | Value::Markup(_) if name == "format_map" => {
                let [named] = args.positional(name, 1)?;
                format::format(self, object, Vec::new(), &named.unwrap_or(Value::None))
            }
            Value::Text(_) | Value::Markup(_) => text::call(object, name, args),
            Value::Dict(dict) => dict_method(object, dict, name, args),
            Value::List(_) | Value::Tuple(_) | Value::Group(_) | Value::Range(_) => {
                list_method(object, name, args)
            }
            Value::Cycler(cycler) => {
                args.none(name)?;
                if name == "reset" {
                    cycler.1.set(0);
                    return Ok(Value::None);
                }
                let at = cycler.1.get();
                cycler.1.set((at + 1) % cycler.0.len());
                Ok(cycler.0[at].clone())
            }
            Value::Loop(state) if name == "cycle" => {
                let items = args.positional;
                if items.is_empty() {
                    return Err(Failure::new("no items for cycling given"));
                }
                Ok(items[state.index0.get() % items.len()].clone())
            }
            Value::Loop(state) => {
                let values = args.positional;
                let mut last = state.changed.borrow_mut();
                let is_same = last.as_ref().is_some_and(|last| {
                    last.len() == values.len()
                        && last.iter().zip(&values).all(|(a, b)| compare::equal(a, b))
                });
                *last = Some(values);
                Ok(Value::Bool(!is_same))
            }
            _ => number_method(object, name, args),
        }
    }
}

fn unsupported(name: &str) -> Failure {
    Failure::new(format!("the method `{name}` is not supported in a chat template"))
}

fn dict_method(object: &Value, dict: &std::rc::Rc<Dict>, name: &str, args: Args) -> Result<Value> {
    match name {
        "get" => {
            let [key, default] = args.positional("get", 1)?;
            let key = key.unwrap_or(Value::None);
            key.check_hashable()?;
            let found = dict.get(&key).cloned();
            Ok(found.or(default).unwrap_or(Value::None))
        }
        "items" | "keys" | "values" | "copy" => {
            args.none(name)?;
            Ok(match name {
                "items" => Value::View(dict.clone(), View::Items),
                "keys" => Value::View(dict.clone(), View::Keys),
                "values" => Value::View(dict.clone(), View::Values),
                _ => object.clone(),
            })
        }
        _ => {
            let [keys, value] = args.positional("fromkeys", 1)?;
            let mut dict = Dict::default();
            for key in keys.unwrap_or(Value::None).iterate()? {
                key.check_hashable()?;
                dict.insert(key, value.clone().unwrap_or(Value::None));
            }
            Ok(Value::dict(dict))
        }
    }
}

fn list_method(object: &Value, name: &str, args: Args) -> Result<Value> {
    if name == "copy" {
        args.none(name)?;
        return Ok(object.clone());
    }
    let items = object.iterate()?;
    let is =
        |item: &Value, wanted: &Value| compare::same(item, wanted) || compare::equal(item, wanted);
    if name == "count" {
        let [wanted] = args.positional(name, 1)?;
        let wanted = wanted.unwrap_or(Value::None);
        return Ok(Value::size(items.iter().filter(|item| is(item, &wanted)).count()));
    }
    let [wanted, start, stop] = args.positional(name, 1)?;
    let wanted = wanted.unwrap_or(Value::None);
    let start = start.as_ref().map(whole).transpose()?;
    let stop = stop.as_ref().map(whole).transpose()?;
    let (start, stop) = attribute::limits(start, stop, 1, items.len());
    let found = (start..stop).find(|index| is(&items[*index as usize], &wanted));
    found.map(Value::Int).ok_or_else(|| Failure::new("the value is not in the list"))
}

fn number_method(object: &Value, name: &str, args: Args) -> Result<Value> {
    match (object, name, object.as_int()) {
        (Value::Float(value), "is_integer", _) => {
            args.none(name)?;
            Ok(Value::Bool(value.is_finite() && value.fract() == 0.0))
        }
        (Value::Float(_), "conjugate", _) => Ok(object.clone()),
        (_, "bit_length", Some(value)) => {
            args.none(name)?;
            Ok(Value::Int((128 - value.unsigned_abs().leading_zeros()).into()))
        }
        (_, "bit_count", Some(value)) => {
            args.none(name)?;
            Ok(Value::Int(value.unsigned_abs().count_ones().into()))
        }
        (_, "conjugate", Some(value)) => Ok(Value::Int(value)),
        (_, "as_integer_ratio", Some(value)) => {
            Ok(Value::tuple(vec![Value::Int(value), Value::Int(1)]))
        }
        _ => Err(unsupported(name)),
    }
}
