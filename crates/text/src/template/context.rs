//! What a template is given: messages and tools as values of Jinja.

use serde_json::{Map, Value};

use super::RenderOptions;
use super::calls::{CallForm, Content, calls_tools};
use crate::Message;
use crate::jinja::Value as Jinja;

/// The variables besides special tokens, in the order in which later ones win.
pub(super) fn variables<'a>(
    messages: &[Message],
    options: &RenderOptions<'a>,
    form: CallForm,
) -> Vec<(&'a str, Jinja)> {
    let messages = Value::Array(messages.iter().map(|message| shown(message, form)).collect());
    let json = |value: Option<&Value>| value.map_or(Jinja::None, Jinja::from);
    let mut variables = vec![
        ("messages", Jinja::from(&messages)),
        // Where there are none, a template sees `none`: defined, and no list.
        ("tools", json(options.tools)),
        ("documents", json(options.documents)),
        ("add_generation_prompt", Jinja::Bool(options.add_generation_prompt)),
    ];
    let kwargs = options.kwargs.into_iter().flatten();
    variables.extend(kwargs.map(|(name, value)| (name.as_str(), Jinja::from(value))));
    variables
}

/// A message as transformers shows it: without fields that are null, its reasoning under all names
/// that templates read, its calls in the form that the template takes.
fn shown(message: &Message, form: CallForm) -> Value {
    let Value::Object(mut fields) = message.to_value() else { return Value::Null };
    let calls = calls_tools(message);
    let content = match fields.get("content") {
        Some(Value::Null) if !calls => Some("".into()),
        Some(Value::Null) => match form.content {
            Content::Absent => None,
            Content::Empty => Some("".into()),
            Content::Null => Some(Value::Null),
        },
        content => content.cloned(),
    };
    fields.retain(|name, value| name == "content" || !value.is_null());
    match content {
        Some(content) => drop(fields.insert("content".into(), content)),
        None => drop(fields.shift_remove("content")),
    }
    if calls && let Some(Value::Array(calls)) = fields.get_mut("tool_calls") {
        calls.iter_mut().for_each(|call| form.convert(call));
    }
    add_reasoning(message, &mut fields);
    Value::Object(fields)
}

/// Adds the reasoning of a message under the names that templates read.
fn add_reasoning(message: &Message, fields: &mut Map<String, Value>) {
    let reasoning = ["reasoning_content", "thinking", "reasoning"]
        .into_iter()
        .find_map(|name| message.extra.get(name).filter(|value| !value.is_null()));
    if let Some(reasoning) = reasoning {
        fields.entry("thinking").or_insert_with(|| reasoning.clone());
        fields.insert("reasoning_content".into(), reasoning.clone());
    }
}
