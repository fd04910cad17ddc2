//! Tool calls, in every spelling of the peers, become those of chat interfaces:
//! `{"type": "function", "function": {"name": .., "arguments": {..}}}`.

use serde_json::{Map, Value, json};

use crate::source::{self, kind};

type Result<T> = std::result::Result<T, String>;

/// Takes the calls out of a message's fields: `tool_calls`, or `function_call` as OpenAI had it
/// first. Nothing where there are none, or the list is empty.
pub(super) fn take(fields: &mut Map<String, Value>) -> Result<Option<Vec<Value>>> {
    let mut found = None;
    for name in ["tool_calls", "function_call"] {
        let Some(value) = fields.shift_remove(name) else { continue };
        let calls = list(value).map_err(|message| format!("`{name}`: {message}"))?;
        match (&found, calls.is_empty()) {
            (_, true) => {}
            (None, false) => found = Some(calls),
            (Some(_), false) => return Err("turn has both `tool_calls` and `function_call`".into()),
        }
    }
    Ok(found)
}

/// The calls that are the content of a turn, and the text before them: some files put the
/// reasoning in front, between `<think>` and `</think>`.
pub(super) fn of_content(content: &Value) -> Result<(String, Vec<Value>)> {
    let (before, calls) = match content {
        Value::String(text) => match text.rfind("</think>") {
            Some(at) => {
                let (before, rest) = text.split_at(at + "</think>".len());
                (before.trim_start(), list(rest.into())?)
            }
            None => ("", list(content.clone())?),
        },
        other => ("", list(other.clone())?),
    };
    match calls.is_empty() {
        true => Err("there is no tool call in the list of calls".into()),
        false => Ok((before.to_owned(), calls)),
    }
}

/// Calls in normal form, of a list, of one call, or of either as JSON text.
pub(super) fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.trim().is_empty() => Ok(Vec::new()),
        Value::String(text) => match source::json_text(&text) {
            Ok(value @ (Value::Null | Value::Array(_) | Value::Object(_))) => list(value),
            Ok(other) => Err(format!("a tool call is {}, not an object", kind(&other))),
            Err(message) => Err(format!("a tool call is text, {message}")),
        },
        Value::Array(calls) => calls.into_iter().map(call).collect(),
        // What a table makes of a turn without a call.
        Value::Object(one) if one.values().all(Value::is_null) => Ok(Vec::new()),
        one @ Value::Object(_) => Ok(vec![call(one)?]),
        other => Err(format!("a tool call is {}, not an object", kind(&other))),
    }
}

fn call(value: Value) -> Result<Value> {
    let mut call = match value {
        Value::Object(call) => call,
        Value::String(text) => match source::json_text(&text) {
            Ok(Value::Object(call)) => call,
            _ => return Err("a tool call is text that is not a JSON object".into()),
        },
        other => return Err(format!("a tool call is {}, not an object", kind(&other))),
    };
    call.retain(|_, value| !value.is_null());
    match call.get_mut("function") {
        Some(Value::Object(inner)) => {
            let inner = function(std::mem::take(inner))?;
            call.insert("function".into(), inner);
            if call.contains_key("type") {
                return Ok(Value::Object(call));
            }
            let mut typed = Map::from_iter([("type".to_owned(), Value::from("function"))]);
            typed.extend(call);
            Ok(Value::Object(typed))
        }
        Some(Value::String(_)) => {
            let name = call.shift_remove("function").unwrap_or_default();
            call.shift_insert(0, "name".into(), name);
            flat(call)
        }
        _ => flat(call),
    }
}

/// A call without its wrapper: what tells it from others stays outside.
fn flat(mut call: Map<String, Value>) -> Result<Value> {
    let id = call.shift_remove("id");
    call.retain(|name, value| name != "type" || value != "function");
    let mut wrapped = Map::new();
    wrapped.extend(id.map(|id| ("id".to_owned(), id)));
    wrapped.insert("type".into(), "function".into());
    wrapped.insert("function".into(), function(call)?);
    Ok(Value::Object(wrapped))
}

/// Name and arguments, which become an object.
fn function(mut function: Map<String, Value>) -> Result<Value> {
    function.retain(|_, value| !value.is_null());
    let Some(name) = function.get("name").and_then(Value::as_str).filter(|name| !name.is_empty())
    else {
        return Err("a tool call has no `name`".into());
    };
    let name = name.to_owned();
    if !function.contains_key("arguments")
        && let Some(at) = function.keys().position(|key| key == "parameters")
    {
        // As Llama's templates have the model write it.
        let arguments = function.shift_remove("parameters").unwrap_or_default();
        function.shift_insert(at, "arguments".into(), arguments);
    }
    let arguments = match function.get_mut("arguments") {
        Some(arguments) => std::mem::take(arguments),
        None => json!({}),
    };
    function.insert("arguments".into(), self::arguments(&name, arguments)?);
    Ok(Value::Object(function))
}

fn arguments(name: &str, value: Value) -> Result<Value> {
    match value {
        Value::Object(_) => Ok(value),
        Value::String(text) if text.trim().is_empty() => Ok(json!({})),
        Value::String(text) => match source::json_text(&text) {
            Ok(Value::Null) => Ok(json!({})),
            // Text within text: encoded twice.
            Ok(value @ (Value::Object(_) | Value::String(_))) => arguments(name, value),
            Ok(other) => {
                Err(format!("the arguments of `{name}` are {}, not an object", kind(&other)))
            }
            Err(message) => Err(format!("the arguments of `{name}` are text, {message}")),
        },
        other => Err(format!("the arguments of `{name}` are {}, not an object", kind(&other))),
    }
}
