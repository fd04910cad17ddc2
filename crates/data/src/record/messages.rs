//! `messages` as chat APIs take them: a list of `role` and `content`.

use serde_json::{Map, Value};

use super::field::{self, Result};
use super::{Conversation, Shape};
use crate::source::Row;

pub(super) const SHAPE: Shape = Shape {
    name: "messages",
    layout: "`messages`: list of {`role`, `content`}",
    columns: &["messages", "conversations", "conversation", "system", "tools"],
    signature,
    convert,
};

/// Where the list may stand, and how a row with it there is described.
pub(super) const COLUMNS: [(&str, &str, &str); 3] = [
    ("messages", "`messages` with `role`", "`messages` with `from`"),
    ("conversations", "`conversations` with `role`", "`conversations` with `from`"),
    ("conversation", "`conversation` with `role`", "`conversation` with `from`"),
];

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    let (column, signature, _) = COLUMNS.into_iter().find(|(name, ..)| row.contains_key(*name))?;
    let first = row[column].as_array()?.first();
    let is_sharegpt = first.is_some_and(|message| message.get("from").is_some());
    (!is_sharegpt).then_some(signature)
}

fn convert(row: &Row) -> Result<Conversation> {
    let column = COLUMNS.iter().find(|(name, ..)| row.value.contains_key(*name));
    let (messages, marks) = field::messages(row, column.map_or("messages", |(name, ..)| *name))?;
    let mut conversation = Conversation::new(row, messages, &marks, field::tools(row)?)?;
    conversation.put_first(field::system(row)?);
    Ok(conversation)
}
