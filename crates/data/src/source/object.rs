//! JSON as strict as training data needs it: no key of an object stands twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::python_numbers;

/// Why a text is no JSON value.
#[derive(Debug)]
pub(super) struct Fault {
    /// What is wrong.
    pub(super) message: String,
    /// Line in the text, from 1.
    pub(super) line: usize,
    /// Byte in that line, from 1.
    pub(super) column: usize,
}

/// A value that was read.
#[derive(Debug)]
pub(super) struct Parsed {
    /// The value.
    pub(super) value: Value,
    /// Keys of an object under which an infinite number stands, which is null in the value.
    pub(super) infinite: Vec<String>,
}

/// Parses one value, also with `NaN` and `Infinity` as Python writes them: null. `serde_json` alone keeps the
/// last of two equal keys and says nothing, and rounds integers of more than 64 bits: these are
/// [`text::integer`]s.
pub(super) fn value(text: &str) -> Result<Parsed, Fault> {
    let fault = match strict(text) {
        Ok(value) => return Ok(Parsed { value, infinite: Vec::new() }),
        Err(fault) => fault,
    };
    let Some(replaced) = python_numbers::replace(text) else { return Err(fault) };
    match strict(&replaced.text) {
        Ok(value) => Ok(Parsed { value, infinite: replaced.infinite }),
        Err(fault) => Err(Fault { column: replaced.column(fault.line, fault.column), ..fault }),
    }
}

fn strict(text: &str) -> Result<Value, Fault> {
    let value = parse(text)?;
    match text::integer::marked(text) {
        Some(marked) => parse(&marked),
        None => Ok(value),
    }
}

fn parse(text: &str) -> Result<Value, Fault> {
    serde_json::from_str::<Strict>(text).map(|strict| strict.0).map_err(|error| {
        let bare = bare_message(&error);
        let message = if error.is_data() { bare } else { format!("not JSON: {bare}") };
        Fault { message, line: error.line(), column: error.column() }
    })
}

/// What serde_json says, without the position that it adds.
fn bare_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text[..end].to_owned()
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("key `{key}` stands twice in one object")));
            }
            let Strict(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_serde_json() {
        for text in [
            r#"{"b": [1, -2, 3.5, 1e300, true, null, "x\nä"], "a": {"": {}}, "c": []}"#,
            "18446744073709551615",
            "0.1",
            "\"\\ud83d\\ude00\"",
        ] {
            assert_eq!(value(text).unwrap().value, serde_json::from_str::<Value>(text).unwrap());
        }
    }

    #[track_caller]
    fn check(text: &str, message: &str) {
        assert_eq!(value(text).unwrap_err().message, message);
    }

    #[test]
    fn faults_are_named() {
        check(r#"{"a": 1, "a": 1}"#, "key `a` stands twice in one object");
        check(r#"[{"b": {"a": 1, "\u0061": 2}}]"#, "key `a` stands twice in one object");
        check("{\"a\": }", "not JSON: expected value");
        check("{\"a\": NaN, \"b\": nan}", "not JSON: expected ident");
        check("1e999", "not JSON: number out of range");
        check(&"[".repeat(100_000), "not JSON: recursion limit exceeded");
    }
}
