//! Content that is a list of parts.

use serde_json::{Map, Value, json};

use crate::record::field;

/// Replaces a list of parts by the fields that templates know. Returns the tools
/// that stood among them.
pub(super) fn unfold(fields: &mut Map<String, Value>) -> Result<Option<Value>, String> {
    let Some(Value::Array(parts)) = fields.get("content") else { return Ok(None) };
    let parts = parts.clone();
    let (mut text, mut reasoning) = (None::<String>, None::<String>);
    let (mut tool_calls, mut tools) = (Vec::new(), None);
    for part in &parts {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
        match kind {
            "text" => text.get_or_insert_default().push_str(&words(part, kind)?),
            "reasoning" | "thinking" => {
                reasoning.get_or_insert_default().push_str(&words(part, kind)?);
            }
            "tool_call" => match calls(&words(part, kind)?)? {
                Value::Array(calls) => tool_calls.extend(calls),
                other => tool_calls.push(other),
            },
            "tools" => {
                let list = part.get("value").unwrap_or(&Value::Null);
                let wrong = |what| format!("content part `tools` is {what}, not a list");
                tools = field::tools(list).map_err(wrong)?;
            }
            _ => return Err(format!("content part of type `{kind}`; only text is supported")),
        }
    }
    let only_calls = text.is_none() && !tool_calls.is_empty();
    let content = if only_calls { Value::Null } else { text.unwrap_or_default().into() };
    fields.insert("content".into(), content);
    if let Some(reasoning) = reasoning {
        fields.insert("reasoning_content".into(), reasoning.into());
    }
    if !tool_calls.is_empty() {
        fields.insert("tool_calls".into(), tool_calls.into());
    }
    Ok(tools)
}

/// The text of a part. Values that are JSON and not text are taken as such.
fn words(part: &Value, kind: &str) -> Result<String, String> {
    let value = ["text", "value", kind].iter().find_map(|key| part.get(*key));
    match part.as_str().or_else(|| value?.as_str()) {
        Some(text) => Ok(text.to_owned()),
        None => match value {
            Some(value @ (Value::Object(_) | Value::Array(_))) if kind == "tool_call" => {
                Ok(value.to_string())
            }
            _ => Err(format!("content part of type `{kind}` has no text")),
        },
    }
}

/// Calls in the form that templates take, from `{name, arguments}` or a list of such.
pub(super) fn calls(text: &str) -> Result<Value, String> {
    let calls = match serde_json::from_str(text) {
        Ok(Value::Array(calls)) => calls,
        Ok(call @ Value::Object(_)) => vec![call],
        _ => return Err("a tool call is not JSON".into()),
    };
    if calls.is_empty() {
        return Err("there is no tool call in the list of calls".into());
    }
    let wrap = |call: Value| match call.get("name") {
        Some(Value::String(_)) => Ok(json!({"type": "function", "function": call})),
        _ => Err("a tool call has no `name`".into()),
    };
    calls.into_iter().map(wrap).collect()
}
