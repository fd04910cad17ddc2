//! Answers that were liked or not: TRL's `label`, LLaMA-Factory's `kto_tag`.

use serde_json::{Map, Value};

use super::field::{Fields, Result};
use super::{Feedback, Record, SHAPES, Shape, Wanted, cell, prompt};

pub(super) const SHAPE: Shape = Shape {
    name: "feedback",
    layout: "`prompt`, `completion` (or `messages`) and `label`: true or false",
    columns: &[&[
        "label",
        "kto_tag",
        "prompt",
        "completion",
        "response",
        "messages",
        "conversations",
        "conversation",
        "instruction",
        "input",
        "output",
        "question",
        "answer",
        "query",
        "context",
        "system",
        "history",
        "tools",
    ]],
    holds: "judged answers",
    serves: &[Wanted::Feedback],
    signature,
    read,
    asked: |fields| match dialogue(fields.value) {
        Some(shape) => (shape.asked)(fields),
        None => prompt::asked(fields),
    },
};

const LABELS: [(&str, &str); 2] =
    [("label", "an answer with `label`"), ("kto_tag", "an answer with `kto_tag`")];

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    let (_, signature) = LABELS.into_iter().find(|(name, _)| row.contains_key(*name))?;
    dialogue(row).map(|_| signature)
}

/// The shape in which a row has its dialogue.
fn dialogue(row: &Map<String, Value>) -> Option<&'static Shape> {
    let dialogues = SHAPES.into_iter().filter(|shape| shape.holds == "conversations");
    dialogues.into_iter().find(|shape| (shape.signature)(row).is_some())
}

fn read(fields: &Fields<'_>) -> Result<Record> {
    let column = LABELS.into_iter().find(|(name, _)| fields.has(name));
    let column = column.map_or("label", |(name, _)| name);
    let label = fields.get(column).ok_or_else(|| fields.missing(column))?;
    let desirable = cell::flag(label).ok_or_else(|| {
        let called = fields.called(column);
        fields
            .error(format!("`{called}` is {label}, neither true nor false"))
            .with_hint("write true or false; also 1 or 0, yes or no")
    })?;
    let shape = dialogue(fields.value).ok_or_else(|| fields.missing("completion"))?;
    let Record::Conversation(mut conversation) = (shape.read)(fields)? else {
        return Err(fields.error("row has no dialogue"));
    };
    // Only the last answer was judged.
    let last = conversation.messages.iter().rposition(|message| message.role == "assistant");
    for index in 0..conversation.messages.len() {
        let counts = Some(index) == last;
        conversation.supervised[index] = counts;
        conversation.weights[index] = f32::from(counts);
    }
    Ok(Record::Feedback(Feedback { conversation, desirable }))
}
