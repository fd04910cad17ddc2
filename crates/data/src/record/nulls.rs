//! Fields of tool calls and of schemas that are null.

use serde_json::Value;
use text::Message;

use super::{LabelledInput, Record};

/// Keys of a JSON Schema whose value may well be null.
const MEANT: [&str; 3] = ["default", "const", "example"];

/// Whether a record has calls or tools with a null that may not be meant.
pub(super) fn in_tools(record: &Record) -> bool {
    let (parts, tools): (Vec<&[Message]>, _) = match record {
        Record::Conversation(row) => (vec![&row.messages], &row.tools),
        Record::Feedback(row) => (vec![&row.conversation.messages], &row.conversation.tools),
        Record::Preference(row) => (vec![&row.prompt, &row.chosen, &row.rejected], &row.tools),
        Record::Ranked(row) => {
            let answers = row.answers.iter().map(|answer| answer.messages.as_slice());
            (answers.chain([row.prompt.as_slice()]).collect(), &row.tools)
        }
        Record::Prompt(row) => (vec![&row.messages], &row.tools),
        Record::Stepwise(row) => (vec![&row.prompt], &None),
        Record::Labelled(row) => match &row.input {
            LabelledInput::Dialogue { messages, tools } => (vec![messages], tools),
            LabelledInput::Text(_) => return false,
        },
        Record::Text(_) | Record::Tokens(_) => return false,
    };
    let calls = parts.into_iter().flatten().filter_map(|message| message.extra.get("tool_calls"));
    calls.chain(tools).any(has_null)
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| match value {
            Value::Null => !MEANT.contains(&name.as_str()),
            value => has_null(value),
        }),
        Value::Array(items) => items.iter().any(has_null),
        _ => false,
    }
}
