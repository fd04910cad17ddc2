//! A better and a worse answer, in the peers' shapes.

use serde_json::{Map, Value};
use text::Message;

use super::field::{Fields, Result};
use super::prompt::{self, Asked};
use super::{Preference, Record, Shape, Wanted, prompt_completion, transcript};

pub(super) const SHAPE: Shape = Shape {
    name: "preference",
    layout: "`prompt`, `chosen`, `rejected`: texts or lists of messages",
    columns: &[
        &[
            "chosen",
            "rejected",
            "chosen_messages",
            "rejected_messages",
            "chosen_response",
            "rejected_response",
            "output",
            "response",
            "margin",
            "score_chosen",
            "score_rejected",
        ],
        prompt::COLUMNS,
    ],
    holds: "preferences",
    serves: &[Wanted::Preferences, Wanted::Rewards, Wanted::Feedback],
    signature,
    read,
    asked: |fields| parts(fields).map(|parts| parts.0),
};

/// Where the answers stand, and how a row with them is described.
const PAIRS: [(&str, &str, &str); 3] = [
    ("chosen", "rejected", "`chosen` and `rejected`"),
    ("chosen_messages", "rejected_messages", "`chosen_messages` and `rejected_messages`"),
    ("chosen_response", "rejected_response", "`chosen_response` and `rejected_response`"),
];

/// Where LLaMA-Factory had a list of both.
const LISTS: [(&str, &str); 2] =
    [("output", "`output` with two answers"), ("response", "`response` with two answers")];

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    let has = |name: &str| row.contains_key(name);
    let pair = PAIRS.into_iter().find(|(chosen, rejected, _)| has(chosen) && has(rejected));
    let list = || LISTS.into_iter().find(|(name, _)| row.get(*name).is_some_and(Value::is_array));
    pair.map(|pair| pair.2).or_else(|| list().map(|list| list.1))
}

fn read(fields: &Fields<'_>) -> Result<Record> {
    let (asked, chosen, rejected) = parts(fields)?;
    Ok(Record::Preference(Preference {
        place: fields.place.clone(),
        prompt: asked.messages,
        chosen,
        rejected,
        margin: margin(fields)?,
        tools: asked.tools,
    }))
}

/// The prompt, the better and the worse answer.
fn parts(fields: &Fields<'_>) -> Result<(Asked, Turns, Turns)> {
    let list = LISTS.iter().find(|(name, _)| fields.get(name).is_some_and(Value::is_array));
    let pair = PAIRS.iter().find(|(chosen, ..)| fields.has(chosen));
    match (pair, list) {
        (None, Some((name, _))) => {
            let [chosen, rejected] = two_answers(fields, name)?;
            Ok((prompt::asked(fields)?, chosen, rejected))
        }
        (pair, _) => {
            let (chosen, rejected, _) = pair.unwrap_or(&PAIRS[0]);
            answers(fields, chosen, rejected)
        }
    }
}

type Turns = Vec<Message>;

/// LLaMA-Factory's older form: a list of the better and the worse answer.
fn two_answers(fields: &Fields<'_>, name: &str) -> Result<[Turns; 2]> {
    match fields.list(name)? {
        [Value::String(chosen), Value::String(rejected)] => {
            Ok([chosen, rejected].map(|text| vec![Message::new("assistant", text.as_str())]))
        }
        _ => {
            let called = fields.called(name);
            Err(fields.error(format!("`{called}` is not a list of a better and a worse text")))
        }
    }
}

/// The prompt and both answers: the prompt stands in a column of its own, or is
/// what the answers have in common.
fn answers(fields: &Fields<'_>, chosen: &str, rejected: &str) -> Result<(Asked, Turns, Turns)> {
    let better = turns(fields, chosen)?;
    let worse = turns(fields, rejected)?;
    let is_whole = |turns: &Turns| turns.first().is_some_and(|turn| turn.role != "assistant");
    if !is_whole(&better) || !is_whole(&worse) {
        return Ok((prompt::asked(fields)?, better, worse));
    }
    let shared = shared_turns(&better, &worse);
    if shared == 0 {
        let (chosen, rejected) = (fields.called(chosen), fields.called(rejected));
        let message = format!("`{chosen}` and `{rejected}` do not begin with the same prompt");
        return Err(fields.error(message));
    }
    let mut messages = better[..shared].to_vec();
    if messages[0].role != "system" {
        messages.splice(0..0, fields.system()?);
    }
    let asked = Asked { messages, tools: fields.tools()?, columns: vec!["system", "tools"] };
    Ok((asked, better[shared..].to_vec(), worse[shared..].to_vec()))
}

/// An answer, or a dialogue that ends with it.
fn turns(fields: &Fields<'_>, name: &str) -> Result<Turns> {
    if let Some(Value::String(text)) = fields.get(name)
        && let Some(turns) = transcript::turns(text)
    {
        return Ok(turns);
    }
    Ok(prompt_completion::part(fields, name, "assistant")?.messages)
}

/// How many turns are the prompt of two dialogues: those with which both begin,
/// up to the assistant turn from which on they differ.
fn shared_turns(chosen: &[Message], rejected: &[Message]) -> usize {
    let same = chosen.iter().zip(rejected).take_while(|(chosen, rejected)| chosen == rejected);
    let most = chosen.len().min(rejected.len()) - 1;
    let is_answer =
        |index: &usize| chosen[*index].role == "assistant" && rejected[*index].role == "assistant";
    (0..=same.count().min(most)).rev().find(is_answer).unwrap_or(0)
}

/// How much better the better answer is, where the row says so.
fn margin(fields: &Fields<'_>) -> Result<Option<f64>> {
    if let Some(margin) = fields.optional_number("margin")? {
        return Ok(Some(margin));
    }
    let scores =
        (fields.optional_number("score_chosen")?, fields.optional_number("score_rejected")?);
    Ok(scores.0.zip(scores.1).map(|(chosen, rejected)| chosen - rejected))
}
