//! Calls: arguments, and the functions that every template has.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::interpreter::{Interpreter, raised};
use super::repr::str;
use super::value::{Dict, Function, Range, Value};
use super::{Failure, Result};

/// The functions by the names under which a template finds them.
pub(super) const FUNCTIONS: [(&str, Function); 8] = [
    ("range", Function::Range),
    ("dict", Function::Dict),
    ("namespace", Function::Namespace),
    ("cycler", Function::Cycler),
    ("joiner", Function::Joiner),
    ("lipsum", Function::Lipsum),
    ("raise_exception", Function::RaiseException),
    ("strftime_now", Function::StrftimeNow),
];

/// The sandbox's limit.
const MAX_RANGE: usize = 100_000;

/// Evaluated arguments.
#[derive(Clone, Debug, Default)]
pub(super) struct Args {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Arc<str>, Value)>,
}

impl Args {
    /// The arguments by the names of the parameters, of which so many must be given.
    pub(super) fn bind<const N: usize>(
        self,
        function: &str,
        parameters: [&str; N],
        required: usize,
    ) -> Result<[Option<Value>; N]> {
        let mut bound: [Option<Value>; N] = [const { None }; N];
        if self.positional.len() > N {
            let count = self.positional.len();
            let message = format!("{function} takes at most {N} argument(s), not {count}");
            return Err(Failure::new(message));
        }
        for (bound, value) in bound.iter_mut().zip(self.positional) {
            *bound = Some(value);
        }
        for (name, value) in self.named {
            let Some(at) = parameters.iter().position(|parameter| *parameter == &*name) else {
                return Err(Failure::new(format!("{function} has no parameter '{name}'")));
            };
            if bound[at].replace(value).is_some() {
                return Err(Failure::new(format!("{function} got several values for '{name}'")));
            }
        }
        if let Some(at) = bound[..required].iter().position(Option::is_none) {
            let missing = parameters[at];
            return Err(Failure::new(format!("{function} lacks its argument '{missing}'")));
        }
        Ok(bound)
    }

    /// The arguments of a function whose parameters have no names.
    pub(super) fn positional<const N: usize>(
        self,
        function: &str,
        required: usize,
    ) -> Result<[Option<Value>; N]> {
        if !self.named.is_empty() {
            return Err(Failure::new(format!("{function} takes no keyword arguments")));
        }
        if self.positional.len() < required {
            let count = self.positional.len();
            let message = format!("{function} takes {required} argument(s), not {count}");
            return Err(Failure::new(message));
        }
        self.bind(function, [""; N], 0)
    }

    pub(super) fn none(self, function: &str) -> Result<()> {
        self.positional::<0>(function, 0).map(|_| ())
    }

    /// Named arguments as a dictionary.
    pub(super) fn dict(named: Vec<(Arc<str>, Value)>) -> Value {
        let mut dict = Dict::default();
        for (name, value) in named {
            dict.insert(Value::Text(name), value);
        }
        Value::dict(dict)
    }
}

/// A whole number that an argument has to be.
pub(super) fn whole(value: &Value) -> Result<i128> {
    match (value, value.as_int()) {
        (Value::Undefined(missing), _) => Err(Failure::new(missing.message())),
        (_, Some(value)) => Ok(value),
        (other, None) => Err(Failure::new(format!(
            "'{}' object cannot be interpreted as an integer",
            other.type_name()
        ))),
    }
}

/// A text that an argument has to be.
pub(super) fn text(value: &Value) -> Result<&str> {
    match value {
        Value::Undefined(missing) => Err(Failure::new(missing.message())),
        other => other
            .as_str()
            .ok_or_else(|| Failure::new(format!("a str is required, not {}", other.type_name()))),
    }
}

impl Interpreter<'_> {
    pub(super) fn call(&mut self, callee: &Value, args: Args) -> Result<Value> {
        match callee {
            Value::Undefined(missing) => Err(Failure::new(missing.message())),
            Value::Macro(closure) => self.call_macro(closure, args),
            Value::Method(method) => self.call_method(&method.0, method.1, args),
            Value::Function(function) => self.call_function(*function, args),
            Value::Loop(state) => {
                let [items] = args.bind("loop", ["iterable"], 1)?;
                self.recurse(state, &items.unwrap_or(Value::None))
            }
            Value::Joiner(joiner) => {
                args.none("joiner")?;
                Ok(if joiner.1.replace(true) { joiner.0.clone() } else { Value::text("") })
            }
            other => Err(Failure::new(format!("'{}' object is not callable", other.type_name()))),
        }
    }

    fn call_function(&mut self, function: Function, args: Args) -> Result<Value> {
        match function {
            Function::Range => range(args),
            Function::Dict => dict(args),
            Function::Namespace => match dict(args)? {
                Value::Dict(dict) => {
                    let names = dict.entries().iter().filter_map(|(name, _)| name.as_str());
                    names.into_iter().try_for_each(check_namespace_name)?;
                    Ok(Value::Namespace(Rc::new(RefCell::new((*dict).clone()))))
                }
                other => Ok(other),
            },
            Function::Cycler => {
                if args.positional.is_empty() || !args.named.is_empty() {
                    return Err(Failure::new("at least one item has to be provided"));
                }
                Ok(Value::Cycler(Rc::new((args.positional, Cell::new(0)))))
            }
            Function::Joiner => {
                let [separator] = args.bind("joiner", ["sep"], 0)?;
                let separator = separator.unwrap_or_else(|| Value::text(", "));
                Ok(Value::Joiner(Rc::new((separator, Cell::new(false)))))
            }
            Function::Lipsum => {
                Err(Failure::new("`lipsum` writes random text, which no template may depend on"))
            }
            Function::RaiseException => {
                let [message] = args.bind("raise_exception", ["message"], 1)?;
                Err(raised(&message.unwrap_or(Value::None)))
            }
            Function::StrftimeNow => {
                let [format] = args.bind("strftime_now", ["format"], 1)?;
                let format = format.unwrap_or(Value::None);
                Ok(Value::text(self.date.strftime(text(&format)?)))
            }
        }
    }
}

fn range(args: Args) -> Result<Value> {
    let [first, second, step] = args.positional::<3>("range", 1)?;
    let bound = |value: &Option<Value>| value.as_ref().map(whole).transpose();
    let first = bound(&first)?.unwrap_or(0);
    let (start, stop) = match bound(&second)? {
        Some(stop) => (first, stop),
        None => (0, first),
    };
    let step = bound(&step)?.unwrap_or(1);
    if step == 0 {
        return Err(Failure::new("range() arg 3 must not be zero"));
    }
    let range = Range { start, stop, step };
    if range.len() > MAX_RANGE {
        return Err(Failure::new(format!("a range longer than {MAX_RANGE} is not allowed")));
    }
    Ok(Value::Range(range))
}

fn dict(args: Args) -> Result<Value> {
    let Args { positional, named } = args;
    let mut dict = Dict::default();
    match positional.as_slice() {
        [] => {}
        [Value::Dict(other)] => dict = (**other).clone(),
        [pairs] => {
            for pair in pairs.iterate()? {
                match pair.iterate()?.as_slice() {
                    [key, value] => {
                        key.check_hashable()?;
                        dict.insert(key.clone(), value.clone());
                    }
                    items => {
                        let message = format!("a pair is required, not {} items", items.len());
                        return Err(Failure::new(message));
                    }
                }
            }
        }
        _ => return Err(Failure::new("dict expected at most 1 argument")),
    }
    for (name, value) in named {
        dict.insert(Value::Text(name), value);
    }
    Ok(Value::dict(dict))
}

/// A name that `transformers` lets a namespace have.
pub(super) fn check_namespace_name(name: &str) -> Result<()> {
    if name.starts_with('_') {
        return Err(Failure::new(format!("a namespace cannot have an attribute '{name}'")));
    }
    Ok(())
}

/// Joins values as `str.join` does, which takes texts only.
pub(super) fn join(separator: &Value, items: &Value) -> Result<Value> {
    let mut out = String::new();
    for (index, item) in items.iterate()?.iter().enumerate() {
        if index > 0 {
            out.push_str(&str(separator));
        }
        if separator.is_markup() {
            out.push_str(&super::arithmetic::escape(item));
        } else {
            out.push_str(item.as_str().ok_or_else(|| {
                let found = item.type_name();
                Failure::new(format!("sequence item {index}: expected str instance, {found} found"))
            })?);
        }
    }
    Ok(separator.text_like(out))
}
