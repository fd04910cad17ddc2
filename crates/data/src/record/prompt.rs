//! Prompts, alone or before the answers of other shapes.

use serde_json::{Map, Value};
use text::Message;

use super::field::{Fields, Result};
use super::{
    Prompt, Record, SHAPES, Shape, Wanted, alpaca, by_name, calls_tools, messages,
    prompt_completion,
};

pub(super) const SHAPE: Shape = Shape {
    name: "prompt",
    layout: "`prompt` (or `question`, `messages`), optionally a reference `answer`",
    columns: &[COLUMNS, &["answer", "solution", "ground_truth", "reference", "target"]],
    holds: "prompts",
    serves: &[Wanted::Prompts],
    signature,
    read,
    asked,
};

/// What the turns before an answer are read from.
pub(super) const COLUMNS: &[&str] = &[
    "prompt",
    "messages",
    "conversations",
    "conversation",
    "instruction",
    "input",
    "context",
    "question",
    "query",
    "problem",
    "system",
    "history",
    "tools",
];

/// Where a prompt may stand, the first that a row has.
const PROMPTS: [(&str, &str); 9] = [
    ("prompt", "`prompt`"),
    ("messages", "`messages`"),
    ("conversations", "`conversations`"),
    ("conversation", "`conversation`"),
    ("instruction", "`instruction`"),
    ("question", "`question`"),
    ("query", "`query`"),
    ("problem", "`problem`"),
    ("input", "`input`"),
];

/// Where a reference answer may stand; the last three are answers to learn elsewhere.
const REFERENCES: [&str; 8] = [
    "answer",
    "solution",
    "ground_truth",
    "reference",
    "target",
    "completion",
    "response",
    "output",
];

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    PROMPTS.into_iter().find(|(name, _)| row.contains_key(*name)).map(|(_, signature)| signature)
}

/// The shape of a row that has turns and answers.
pub(super) fn answered(row: &Map<String, Value>) -> Option<&'static Shape> {
    let has_answers = |shape: &&Shape| shape.has_turns() && shape.name != "prompt";
    let mut shapes = SHAPES.into_iter().filter(has_answers);
    shapes.find(|shape| (shape.signature)(row).is_some())
}

/// The turns before an answer, and the columns that they stand in.
pub(super) struct Asked {
    pub(super) messages: Vec<Message>,
    /// Tools that stand among the turns.
    pub(super) tools: Option<Value>,
    pub(super) columns: Vec<&'static str>,
}

/// Reads the turns before an answer, wherever they stand.
pub(super) fn asked(fields: &Fields<'_>) -> Result<Asked> {
    let found = PROMPTS.into_iter().map(|(name, _)| name).find(|name| fields.get(name).is_some());
    let column = found.ok_or_else(|| fields.missing("prompt"))?;
    let mut columns = vec![column, "system", "history", "tools"];
    let addition = match column {
        "instruction" => fields.first_of(&["input", "context"]),
        "prompt" => Some("query"),
        _ => None,
    };
    let mut asked = match (fields.get(column), addition) {
        (Some(Value::String(_)), Some(input)) if !messages::is_list(column) => {
            columns.push(input);
            let text = alpaca::request(fields, column, input)?;
            Asked { messages: vec![Message::new("user", text)], tools: None, columns }
        }
        _ if messages::is_list(column) => {
            let dialogue = fields.dialogue(column)?;
            Asked { messages: dialogue.messages, tools: dialogue.tools, columns }
        }
        _ => {
            let dialogue = prompt_completion::part(fields, column, "user")?;
            Asked { messages: dialogue.messages, tools: dialogue.tools, columns }
        }
    };
    asked.messages.splice(0..0, alpaca::history(fields)?);
    asked.messages.splice(0..0, fields.system()?);
    asked.tools = fields.tools()?.or(asked.tools);
    Ok(asked)
}

/// A prompt as rows of the same form are trained on, its reference answer, and all other columns.
pub(super) fn read(fields: &Fields<'_>) -> Result<Record> {
    let named = fields.reading.format.as_deref().and_then(by_name);
    let shape = named.or_else(|| answered(fields.value));
    let Asked { mut messages, tools, mut columns } = match shape {
        Some(shape) => (shape.asked)(fields)?,
        None => asked(fields)?,
    };
    // What a dialogue ends with is an answer: the prompt is what stands before it.
    let mut last = None;
    while let Some(answer) = messages.pop_if(|message| message.role == "assistant") {
        last = Some(match calls_tools(&answer) {
            true => answer.extra["tool_calls"].clone(),
            false => answer.content.into(),
        });
    }
    let column = REFERENCES.into_iter().find(|name| fields.get(name).is_some());
    columns.extend(column);
    let reference = column.and_then(|name| fields.get(name)).cloned().or(last);
    let is_other = |name: &str| {
        !columns.contains(&name) && fields.troubles.iter().all(|trouble| trouble.column != name)
    };
    let others = fields.value.iter().filter(|(name, _)| is_other(name));
    Ok(Record::Prompt(Prompt {
        place: fields.place.clone(),
        messages,
        reference,
        columns: others.map(|(name, value)| (name.clone(), value.clone())).collect(),
        tools,
    }))
}
