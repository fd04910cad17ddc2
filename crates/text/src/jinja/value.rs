//! The values of a template: Python's types, as far as a template can tell.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{For, Macro};
use super::compare;
use super::interpreter::Scope;
use super::{Failure, Result};

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Undefined(Rc<Missing>),
    None,
    Bool(bool),
    Int(i128),
    /// The digits of a whole number of more than 128 bits: it is printed and compared, not computed with.
    Big(Arc<str>),
    Float(f64),
    Text(Arc<str>),
    /// A text that `safe` or `escape` made: what is added to it is escaped as HTML.
    Markup(Arc<str>),
    List(Rc<Vec<Value>>),
    Tuple(Rc<Vec<Value>>),
    /// A pair of `groupby`: a tuple with the names `grouper` and `list`.
    Group(Rc<Vec<Value>>),
    Dict(Rc<Dict>),
    View(Rc<Dict>, View),
    Range(Range),
    /// What can be iterated over once.
    Generator(Rc<Generator>),
    Namespace(Rc<RefCell<Dict>>),
    Loop(Rc<Loop>),
    Macro(Rc<Closure>),
    Method(Rc<(Value, &'static str)>),
    Function(Function),
    Cycler(Rc<(Vec<Value>, Cell<usize>)>),
    Joiner(Rc<(Value, Cell<bool>)>),
}

/// Why something is undefined.
#[derive(Debug)]
pub(crate) enum Missing {
    Name(Arc<str>),
    Attribute { of: &'static str, name: Arc<str> },
    Item { of: &'static str, key: String },
    Because(String),
}

impl Missing {
    pub(super) fn message(&self) -> String {
        match self {
            Missing::Name(name) => format!("'{name}' is undefined"),
            Missing::Attribute { of, name } => format!("'{of}' has no attribute '{name}'"),
            Missing::Item { of, key } => format!("{of} has no element {key}"),
            Missing::Because(message) => message.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Keys,
    Values,
    Items,
}

/// `range(start, stop, step)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(super) start: i128,
    pub(super) stop: i128,
    pub(super) step: i128,
}

impl Range {
    pub(super) fn len(self) -> usize {
        let distance = if self.step > 0 {
            self.stop.saturating_sub(self.start)
        } else {
            self.start.saturating_sub(self.stop)
        };
        if distance <= 0 { 0 } else { ((distance - 1) / self.step.abs() + 1) as usize }
    }

    pub(super) fn get(self, index: usize) -> Value {
        Value::Int(self.start + self.step * index as i128)
    }
}

#[derive(Debug)]
pub(crate) struct Generator {
    pub(super) items: RefCell<std::vec::IntoIter<Value>>,
    /// What goes wrong once all items are taken.
    pub(super) failure: RefCell<Option<Failure>>,
}

/// The variable `loop`.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(super) statement: Arc<For>,
    /// The scope around the loop.
    pub(super) scope: Rc<Scope>,
    pub(super) items: RefCell<std::vec::IntoIter<Value>>,
    /// The number of items, once it is known.
    pub(super) length: Cell<Option<usize>>,
    pub(super) index0: Cell<usize>,
    pub(super) previous: RefCell<Option<Value>>,
    pub(super) current: RefCell<Option<Value>>,
    /// An item that was looked at before its turn.
    pub(super) next: RefCell<Option<Value>>,
    pub(super) changed: RefCell<Option<Vec<Value>>>,
    pub(super) depth0: usize,
}

/// A macro and the scope that it was defined in.
#[derive(Debug)]
pub(crate) struct Closure {
    pub(super) definition: Arc<Macro>,
    pub(super) scope: Rc<Scope>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    Lipsum,
    RaiseException,
    StrftimeNow,
}

/// A dictionary in the order of insertion. Those of templates are small, so that a key is looked for one by one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dict {
    entries: Vec<(Value, Value)>,
}

impl Dict {
    pub(super) fn get(&self, key: &Value) -> Option<&Value> {
        if let Some(text) = key.as_str() {
            return self.get_text(text);
        }
        self.entries.iter().find(|(other, _)| compare::equal(other, key)).map(|(_, value)| value)
    }

    pub(super) fn get_text(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(other, _)| other.as_str() == Some(key)).map(|(_, value)| value)
    }

    pub(super) fn insert(&mut self, key: Value, value: Value) {
        match self.entries.iter_mut().find(|(other, _)| compare::equal(other, &key)) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key, value)),
        }
    }

    /// Adds an entry whose key is known to be new.
    pub(super) fn push(&mut self, key: Value, value: Value) {
        self.entries.push((key, value));
    }

    pub(super) fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What a view of the dictionary shows at an entry.
    fn seen(&self, view: View) -> Vec<Value> {
        let entries = self.entries.iter().cloned();
        match view {
            View::Keys => entries.map(|(key, _)| key).collect(),
            View::Values => entries.map(|(_, value)| value).collect(),
            View::Items => entries.map(|(key, value)| Value::tuple(vec![key, value])).collect(),
        }
    }
}

impl Value {
    pub(crate) fn text(text: impl Into<Arc<str>>) -> Value {
        Value::Text(text.into())
    }

    pub(super) fn markup(text: impl Into<Arc<str>>) -> Value {
        Value::Markup(text.into())
    }

    pub(super) fn list(items: Vec<Value>) -> Value {
        Value::List(Rc::new(items))
    }

    pub(super) fn tuple(items: Vec<Value>) -> Value {
        Value::Tuple(Rc::new(items))
    }

    pub(super) fn dict(dict: Dict) -> Value {
        Value::Dict(Rc::new(dict))
    }

    pub(super) fn size(size: usize) -> Value {
        Value::Int(size as i128)
    }

    pub(super) fn undefined(why: impl Into<String>) -> Value {
        Value::Undefined(Rc::new(Missing::Because(why.into())))
    }

    /// A generator of items, and of what goes wrong after them.
    pub(super) fn generator(items: Vec<Value>, failure: Option<Failure>) -> Value {
        let items = RefCell::new(items.into_iter());
        Value::Generator(Rc::new(Generator { items, failure: RefCell::new(failure) }))
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// A text that is like this one, markup or not.
    pub(super) fn text_like(&self, text: impl Into<Arc<str>>) -> Value {
        if self.is_markup() { Value::Markup(text.into()) } else { Value::Text(text.into()) }
    }

    pub(super) fn is_markup(&self) -> bool {
        matches!(self, Value::Markup(_))
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Value::None)
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_))
    }

    /// The value of a whole number; Python's booleans are numbers.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Value::Bool(value) => Some(i128::from(*value)),
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn as_number(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            Value::Big(digits) => digits.parse().ok(),
            _ => self.as_int().map(|value| value as f64),
        }
    }

    /// The items of a list or a tuple.
    pub(super) fn as_items(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            _ => self.len() != Some(0),
        }
    }

    /// What `len` says, where it says something.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Value::Undefined(_) => Some(0),
            Value::Text(text) | Value::Markup(text) => Some(text.chars().count()),
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => Some(items.len()),
            Value::Dict(dict) | Value::View(dict, _) => Some(dict.len()),
            Value::Range(range) => Some(range.len()),
            _ => None,
        }
    }

    /// All items. A generator is empty afterwards.
    pub(super) fn iterate(&self) -> Result<Vec<Value>> {
        Ok(match self {
            Value::Undefined(_) => Vec::new(),
            Value::Text(text) => text.chars().map(|c| Value::text(String::from(c))).collect(),
            Value::Markup(text) => text.chars().map(|c| Value::text(String::from(c))).collect(),
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => items.to_vec(),
            Value::Dict(dict) => dict.seen(View::Keys),
            Value::View(dict, view) => dict.seen(*view),
            Value::Range(range) => (0..range.len()).map(|index| range.get(index)).collect(),
            Value::Generator(generator) => {
                let items: Vec<Value> = generator.items.borrow_mut().by_ref().collect();
                match generator.failure.borrow_mut().take() {
                    Some(failure) => return Err(failure),
                    None => items,
                }
            }
            _ => {
                return Err(Failure::new(format!("'{}' object is not iterable", self.type_name())));
            }
        })
    }

    pub(super) fn is_iterable(&self) -> bool {
        self.len().is_some() || matches!(self, Value::Generator(_) | Value::Loop(_))
    }

    pub(super) fn is_callable(&self) -> bool {
        matches!(
            self,
            Value::Undefined(_)
                | Value::Macro(_)
                | Value::Method(_)
                | Value::Function(_)
                | Value::Joiner(_)
                | Value::Loop(_)
        )
    }

    /// Whether the value can be the key of a dictionary.
    pub(super) fn check_hashable(&self) -> Result<()> {
        let hashable = match self {
            Value::List(_) | Value::Dict(_) => false,
            Value::Tuple(items) | Value::Group(items) => {
                return items.iter().try_for_each(Value::check_hashable);
            }
            Value::View(_, view) => *view == View::Values,
            _ => true,
        };
        if hashable {
            return Ok(());
        }
        Err(Failure::new(format!("unhashable type: '{}'", self.type_name())))
    }

    /// Python's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::Big(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) => "str",
            Value::Markup(_) => "Markup",
            Value::List(_) => "list",
            Value::Tuple(_) | Value::Group(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::View(_, View::Keys) => "dict_keys",
            Value::View(_, View::Values) => "dict_values",
            Value::View(_, View::Items) => "dict_items",
            Value::Range(_) => "range",
            Value::Generator(_) => "generator",
            Value::Namespace(_) => "Namespace",
            Value::Loop(_) => "LoopContext",
            Value::Macro(_) => "Macro",
            Value::Method(_) => "builtin_function_or_method",
            Value::Function(_) => "function",
            Value::Cycler(_) => "Cycler",
            Value::Joiner(_) => "Joiner",
        }
    }

    /// How Jinja names a value that lacks an attribute.
    pub(super) fn object_name(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "bool object",
            Value::Int(_) | Value::Big(_) => "int object",
            Value::Float(_) => "float object",
            Value::Text(_) => "str object",
            Value::Markup(_) => "markupsafe.Markup object",
            Value::List(_) => "list object",
            Value::Tuple(_) | Value::Group(_) => "tuple object",
            Value::Dict(_) => "dict object",
            Value::Namespace(_) => "jinja2.utils.Namespace object",
            other => other.type_name(),
        }
    }
}
