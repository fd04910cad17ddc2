//! A prompt and its completion, as texts or as lists of messages.

use serde_json::{Map, Value};
use text::Message;

use super::field::{Fields, Result};
use super::prompt::Asked;
use super::turn::Dialogue;
use super::{Conversation, Record, Shape, Wanted};

pub(super) const SHAPE: Shape = Shape {
    name: "prompt_completion",
    layout: "`prompt`, `completion`: texts or lists of messages; also `question`, `answer` and the like",
    columns: &[&[
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
    ]],
    holds: "conversations",
    serves: &[Wanted::Conversations],
    signature,
    read: |fields| conversation(fields).map(Record::Conversation),
    asked,
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

/// The columns of the prompt and of the completion.
fn pair(fields: &Fields<'_>) -> Result<(&'static str, &'static str)> {
    match pairs(fields.value)[..] {
        [(prompt, completion, _)] => Ok((prompt, completion)),
        [] => Ok(("prompt", "completion")),
        [first, second, ..] => {
            let message = format!("row has {} and also {}", first.2, second.2);
            let hint =
                "say which is meant, such as `columns: {prompt: question, completion: answer}`";
            Err(fields.error(message).with_hint(hint))
        }
    }
}

pub(super) fn conversation(fields: &Fields<'_>) -> Result<Conversation> {
    let (prompt, completion) = pair(fields)?;
    let mut dialogue = part(fields, prompt, "user")?;
    for (message, weight) in dialogue.messages.iter().zip(&mut dialogue.weights) {
        if message.role == "assistant" {
            *weight = Some(0.0);
        }
    }
    let rest = part(fields, completion, "assistant")?;
    dialogue.messages.extend(rest.messages);
    dialogue.weights.extend(rest.weights);
    dialogue.tools = dialogue.tools.or(rest.tools);
    dialogue.put_first(fields.system()?);
    Conversation::new(fields, dialogue)
}

/// The turns before the completion.
fn asked(fields: &Fields<'_>) -> Result<Asked> {
    let (prompt, _) = pair(fields)?;
    let mut dialogue = part(fields, prompt, "user")?;
    dialogue.put_first(fields.system()?);
    let tools = fields.tools()?.or(dialogue.tools);
    Ok(Asked { messages: dialogue.messages, tools, columns: vec![prompt, "system", "tools"] })
}

/// A text as a turn of that role, or turns as they are.
pub(super) fn part(fields: &Fields<'_>, name: &str, role: &str) -> Result<Dialogue> {
    if let Some(Value::Array(_) | Value::Object(_)) = fields.get(name) {
        return fields.dialogue(name);
    }
    let mut dialogue = Dialogue::default();
    dialogue.push(Message::new(role, fields.text(name)?), None);
    Ok(dialogue)
}
