//! The tools that a row offers, in every spelling of the peers, become those of chat interfaces:
//! `{"type": "function", "function": {"name": .., "parameters": {..}}}`.

use serde_json::{Map, Value};

use crate::source::{self, kind};

type Result<T> = std::result::Result<T, String>;

/// A list of tools in normal form: of a list, of one tool, or of either as JSON text. Nothing where
/// the list is empty or null.
pub(in crate::record) fn tools(value: &Value) -> Result<Option<Value>> {
    let list = match value {
        Value::Null => return Ok(None),
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => {
            source::json_text(text).map_err(|message| format!("text, {message}"))?
        }
        other => other.clone(),
    };
    let list = match list {
        Value::Null => return Ok(None),
        Value::Array(list) => list,
        one @ Value::Object(_) => vec![one],
        other => return Err(format!("{}, not a list", kind(&other))),
    };
    let tools = list.into_iter().enumerate();
    let tools = tools.map(|(index, value)| {
        tool(value).map_err(|message| format!("a list whose tool {index} {message}"))
    });
    let tools: Vec<Value> = tools.collect::<Result<_>>()?;
    Ok((!tools.is_empty()).then(|| tools.into()))
}

fn tool(value: Value) -> Result<Value> {
    let mut tool = match value {
        Value::Object(tool) => tool,
        Value::String(text) => match source::json_text(&text) {
            Ok(Value::Object(tool)) => tool,
            _ => return Err("is text that is not a JSON object".into()),
        },
        other => return Err(format!("is {}, not an object", kind(&other))),
    };
    if let Some(Value::Object(inner)) = tool.get_mut("function") {
        let inner = function(std::mem::take(inner))?;
        tool.insert("function".into(), inner);
        if tool.get("type").is_some_and(|kind| !kind.is_null()) {
            return Ok(Value::Object(tool));
        }
        tool.shift_remove("type");
        return Ok(wrapped(tool));
    }
    match tool.get("type").and_then(Value::as_str) {
        // A tool of another kind, such as a search that the interface brings.
        Some(kind) if kind != "function" => return Ok(Value::Object(tool)),
        _ => drop(tool.shift_remove("type")),
    }
    let inner = function(tool)?;
    Ok(wrapped(Map::from_iter([("function".to_owned(), inner)])))
}

fn wrapped(tool: Map<String, Value>) -> Value {
    let mut wrapped = Map::from_iter([("type".to_owned(), Value::from("function"))]);
    wrapped.extend(tool);
    Value::Object(wrapped)
}

/// A function with a name; parameters that a table keeps as JSON text become an object.
fn function(mut function: Map<String, Value>) -> Result<Value> {
    if function.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err("has no `name`".into());
    }
    if let Some(Value::String(text)) = function.get("parameters") {
        let Ok(parameters @ Value::Object(_)) = source::json_text(text) else {
            return Err("has `parameters` that are text and not a JSON object".into());
        };
        function.insert("parameters".into(), parameters);
    }
    Ok(Value::Object(function))
}
