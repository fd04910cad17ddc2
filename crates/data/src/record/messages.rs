//! Lists of turns: `role` and `content` as chat interfaces take them, and ShareGPT's
//! `from` and `value`.

use serde_json::{Map, Value};

use super::field::{Fields, Result};
use super::prompt::Asked;
use super::turn::Dialogue;
use super::{Conversation, Record, Shape, Wanted};

pub(super) const MESSAGES: Shape = Shape {
    name: "messages",
    layout: "`messages`: list of {`role`, `content`}",
    columns: &[&["messages", "conversations", "conversation", "system", "tools", "functions"]],
    holds: "conversations",
    serves: &[Wanted::Conversations],
    signature: |row| Some(list(row).filter(|found| !found.is_sharegpt)?.signature.0),
    read,
    asked,
};

pub(super) const SHAREGPT: Shape = Shape {
    name: "sharegpt",
    layout: "`conversations`: list of {`from`, `value`}",
    columns: &[&["conversations", "messages", "conversation", "system", "tools", "functions"]],
    holds: "conversations",
    serves: &[Wanted::Conversations],
    signature: |row| Some(list(row).filter(|found| found.is_sharegpt)?.signature.1),
    read,
    asked,
};

/// Where the list may stand, and how a row with it there is described.
const COLUMNS: [(&str, (&str, &str)); 3] = [
    ("messages", ("`messages` with `role`", "`messages` with `from`")),
    ("conversations", ("`conversations` with `role`", "`conversations` with `from`")),
    ("conversation", ("`conversation` with `role`", "`conversation` with `from`")),
];

struct Found {
    signature: (&'static str, &'static str),
    is_sharegpt: bool,
}

fn list(row: &Map<String, Value>) -> Option<Found> {
    let (column, signature) = COLUMNS.into_iter().find(|(name, _)| row.contains_key(*name))?;
    let turns = row[column].as_array()?;
    let has_answers = row.contains_key("chosen") && row.contains_key("rejected");
    // Beside two answers the list is their prompt, unless it ends with an answer itself.
    if has_answers && turns.last().is_none_or(is_asking) {
        return None;
    }
    let is_sharegpt = turns.first().is_some_and(|turn| turn.get("from").is_some());
    Some(Found { signature, is_sharegpt })
}

fn is_asking(turn: &Value) -> bool {
    let speaker = turn.get("role").or_else(|| turn.get("from")).and_then(Value::as_str);
    !matches!(speaker, Some("assistant" | "gpt" | "model" | "bot"))
}

fn read(fields: &Fields<'_>) -> Result<Record> {
    conversation(fields).map(Record::Conversation)
}

/// Whether a column of that name is a list of turns.
pub(super) fn is_list(column: &str) -> bool {
    COLUMNS.iter().any(|(name, _)| *name == column)
}

/// The column of the list of turns.
fn column(fields: &Fields<'_>) -> &'static str {
    COLUMNS.into_iter().find(|(name, _)| fields.has(name)).map_or("messages", |(name, _)| name)
}

pub(super) fn conversation(fields: &Fields<'_>) -> Result<Conversation> {
    Conversation::new(fields, dialogue(fields)?)
}

fn dialogue(fields: &Fields<'_>) -> Result<Dialogue> {
    let mut dialogue = fields.dialogue(column(fields))?;
    dialogue.put_first(fields.system()?);
    Ok(dialogue)
}

fn asked(fields: &Fields<'_>) -> Result<Asked> {
    let Dialogue { messages, tools, .. } = dialogue(fields)?;
    let columns = vec![column(fields), "system", "tools"];
    Ok(Asked { messages, tools: fields.tools()?.or(tools), columns })
}
