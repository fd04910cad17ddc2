use crate::{key::is_secret_name, path::Locator};
use std::path::PathBuf;

/// What a key is set to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing; only within maps and lists that take anything.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number, also a number of bytes.
    Int(i64),
    /// A number.
    Float(f64),
    /// Free text.
    Text(String),
    /// One of the key's own words, such as `auto`.
    Word(String),
    /// A file or folder.
    Path(PathBuf),
    /// A file or folder, or a name of something kept elsewhere.
    Locator(Locator),
    /// A list.
    List(Vec<Value>),
    /// A mapping, in the order of the recipe.
    Map(Vec<(String, Value)>),
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Value {
        Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Text(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(value: Vec<Value>) -> Value {
        Value::List(value)
    }
}

impl From<PathBuf> for Value {
    fn from(value: PathBuf) -> Value {
        Value::Path(value)
    }
}

impl Value {
    /// The value as JSON: words, paths and names as text.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::from(*value),
            Value::Int(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::Text(text) | Value::Word(text) => Json::from(text.as_str()),
            Value::Path(path) => Json::from(path.to_string_lossy()),
            Value::Locator(locator) => Json::from(locator.to_string()),
            Value::List(items) => items.iter().map(Value::to_json).collect(),
            Value::Map(entries) => {
                entries.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
            }
        }
    }

    /// The value without the entries of maps whose names are those of secrets.
    pub(crate) fn without_secrets(&self) -> Value {
        match self {
            Value::List(items) => Value::List(items.iter().map(Value::without_secrets).collect()),
            Value::Map(entries) => {
                let open = entries.iter().filter(|(name, _)| !is_secret_name(name));
                Value::Map(open.map(|(n, value)| (n.clone(), value.without_secrets())).collect())
            }
            value => value.clone(),
        }
    }
}
