//! A prompt and its completion, as texts or as lists of messages.

use serde_json::{Map, Value};
use text::Message;

use super::field::{self, Result};
use super::{Conversation, Shape};
use crate::RowError;
use crate::source::Row;

pub(super) const SHAPE: Shape = Shape {
    name: "prompt_completion",
    layout: "`prompt`, `completion`: texts or lists of messages; also `question`, `answer` and the like",
    columns: &[
        "prompt",
        "completion",
        "response",
        "question",
        "answer",
        "query",
        "instruction",
        "input",
        "output",
        "system",
        "tools",
    ],
    signature,
    convert,
};

/// Columns that stand for prompt and completion, and how a row with them is described.
const PAIRS: [(&str, &str, &str); 6] = [
    ("prompt", "completion", "`prompt` and `completion`"),
    ("prompt", "response", "`prompt` and `response`"),
    ("question", "answer", "`question` and `answer`"),
    ("query", "response", "`query` and `response`"),
    ("instruction", "response", "`instruction` and `response`"),
    ("input", "output", "`input` and `output`"),
];

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    pairs(row).first().map(|pair| pair.2)
}

fn pairs(row: &Map<String, Value>) -> Vec<(&'static str, &'static str, &'static str)> {
    let has = |name: &str| row.contains_key(name);
    let found: Vec<_> = PAIRS
        .into_iter()
        .filter(|(prompt, completion, _)| has(prompt) && has(completion))
        .collect();
    // The proper names leave no doubt, whatever else the row has.
    if found.first().is_some_and(|pair| pair.2 == PAIRS[0].2) { vec![PAIRS[0]] } else { found }
}

fn convert(row: &Row) -> Result<Conversation> {
    let (prompt, completion) = match pairs(&row.value)[..] {
        [(prompt, completion, _)] => (prompt, completion),
        [] => ("prompt", "completion"),
        [first, second, ..] => {
            let message = format!("row has {} and also {}", first.2, second.2);
            let hint =
                "say which is meant, such as `columns: {prompt: question, completion: answer}`";
            return Err(RowError::new(&row.place, message).with_hint(hint));
        }
    };
    let (mut messages, mut marks) = (Vec::new(), Vec::new());
    for (name, role, counts) in [(prompt, "user", false), (completion, "assistant", true)] {
        if let Some(Value::Array(_)) = row.value.get(name) {
            let (turns, own) = field::messages(row, name)?;
            marks.extend(turns.iter().zip(own).map(|(turn, mark)| match turn.role.as_str() {
                "assistant" if counts => mark,
                "assistant" => Some(false),
                _ => mark,
            }));
            messages.extend(turns);
        } else {
            messages.push(Message::new(role, field::text(row, name)?));
            marks.push(None);
        }
    }
    let mut conversation = Conversation::new(row, messages, &marks, field::tools(row)?)?;
    conversation.put_first(field::system(row)?);
    Ok(conversation)
}
