//! Content that is a list of parts.

use serde_json::{Map, Value};

use super::{calls, tools};

/// Replaces a list of parts by the fields that templates know. Returns the tools
/// that stood among them.
pub(super) fn unfold(fields: &mut Map<String, Value>) -> Result<Option<Value>, String> {
    let Some(Value::Array(parts)) = fields.get("content") else { return Ok(None) };
    let parts = parts.clone();
    let (mut text, mut reasoning) = (None::<String>, None::<String>);
    let (mut tool_calls, mut offered) = (Vec::new(), None);
    for part in &parts {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
        match kind {
            "text" => text.get_or_insert_default().push_str(&words(part, kind)?),
            "reasoning" | "thinking" => {
                reasoning.get_or_insert_default().push_str(&words(part, kind)?);
            }
            "tool_call" => {
                let (_, calls) = calls::of_content(&words(part, kind)?.into())?;
                tool_calls.extend(calls);
            }
            "tools" => {
                let list = part.get("value").unwrap_or(&Value::Null);
                let wrong = |what| format!("content part `tools` is {what}");
                offered = tools::tools(list).map_err(wrong)?;
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
    Ok(offered)
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
