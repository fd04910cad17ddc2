//! Documents of raw text.

use serde_json::{Map, Value};

use super::field::{Fields, Result};
use super::{Record, Shape, Text, Wanted, prompt};

pub(super) const SHAPE: Shape = Shape {
    name: "text",
    layout: "`text`; also `content`, `document`",
    columns: &[&["text", "content", "document"]],
    holds: "raw text for pretraining",
    serves: &[Wanted::Texts],
    signature,
    read,
    asked: prompt::asked,
};

const COLUMNS: [(&str, &str); 3] =
    [("text", "`text`"), ("content", "`content`"), ("document", "`document`")];

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    COLUMNS.into_iter().find(|(name, _)| row.contains_key(*name)).map(|(_, signature)| signature)
}

fn read(fields: &Fields<'_>) -> Result<Record> {
    let column = COLUMNS.into_iter().find(|(name, _)| fields.has(name));
    let column = column.map_or("text", |(name, _)| name);
    let text = fields.text(column)?;
    if text.trim().is_empty() {
        return Err(fields.error(format!("`{}` is empty", fields.called(column))));
    }
    Ok(Record::Text(Text { place: fields.place.clone(), text }))
}
