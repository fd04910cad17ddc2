//! Several answers to a prompt, with scores or ranks.

use serde_json::{Map, Value};
use text::Message;

use super::field::{Fields, Result};
use super::{Answer, Preference, Ranked, Record, Shape, Wanted, cell, prompt};

pub(super) const SHAPE: Shape = Shape {
    name: "ranked",
    layout: "`prompt`, `responses`: list of texts, and `scores` or `ranks`",
    columns: &[
        &["responses", "completions", "answers", "scores", "ratings", "ranks", "rankings"],
        prompt::COLUMNS,
    ],
    holds: "ranked answers",
    serves: &[Wanted::Rewards, Wanted::Preferences, Wanted::Feedback],
    signature,
    read,
    asked: prompt::asked,
};

const ANSWERS: [(&str, &str); 3] = [
    ("responses", "scored `responses`"),
    ("completions", "scored `completions`"),
    ("answers", "scored `answers`"),
];
const SCORES: [&str; 2] = ["scores", "ratings"];
const RANKS: [&str; 2] = ["ranks", "rankings"];

/// Where an answer that is an object has its text, score and rank.
const TEXT_KEYS: [&str; 5] = ["response", "completion", "text", "content", "answer"];
const SCORE_KEYS: [&str; 3] = ["overall_score", "score", "rating"];

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    let (name, signature) = ANSWERS.into_iter().find(|(name, _)| row.contains_key(*name))?;
    let first = row[name].as_array()?.first()?;
    let has_values = SCORES.iter().chain(&RANKS).any(|name| row.contains_key(*name));
    (has_values || first.is_object()).then_some(signature)
}

/// What is wrong with a row that nothing can be learned from.
const EQUALLY_GOOD: &str = "all answers are equally good";

/// An answer as the row has it: higher is better.
struct Scored {
    index: usize,
    messages: Vec<Message>,
    value: f64,
}

fn read(fields: &Fields<'_>) -> Result<Record> {
    let column = ANSWERS.into_iter().find(|(name, _)| fields.has(name));
    let column = column.map_or("responses", |(name, _)| name);
    let list = fields.list(column)?;
    let (mut answers, is_score) = match list.first() {
        Some(Value::Object(_)) => objects(fields, list)?,
        _ => texts(fields, column, list)?,
    };
    if answers.len() < 2 {
        let called = fields.called(column);
        return Err(fields.error(format!("`{called}` has fewer than two answers")));
    }
    answers.sort_by(|a, b| b.value.total_cmp(&a.value));
    if answers[0].value == answers[answers.len() - 1].value {
        let hint = "give the answers different scores, or leave the row out: `data.on_error=skip`";
        return Err(fields.error(EQUALLY_GOOD).with_hint(hint));
    }
    if fields.wanted != Wanted::Rewards {
        return best_and_worst(fields, answers, is_score);
    }
    let asked = prompt::asked(fields)?;
    let (mut standing, mut last) = (0, answers[0].value);
    let answer = |scored: Scored| {
        standing += usize::from(scored.value != last);
        last = scored.value;
        let score = is_score.then_some(last);
        Answer { index: scored.index, messages: scored.messages, score, standing }
    };
    Ok(Record::Ranked(Ranked {
        place: fields.place.clone(),
        prompt: asked.messages,
        answers: answers.into_iter().map(answer).collect(),
        tools: asked.tools,
    }))
}

/// The pair that says most.
fn best_and_worst(fields: &Fields<'_>, mut answers: Vec<Scored>, is_score: bool) -> Result<Record> {
    let best = answers.remove(0);
    let worst = answers.pop().ok_or_else(|| fields.error("row has fewer than two answers"))?;
    let difference = best.value - worst.value;
    let asked = prompt::asked(fields)?;
    Ok(Record::Preference(Preference {
        place: fields.place.clone(),
        prompt: asked.messages,
        chosen: best.messages,
        rejected: worst.messages,
        margin: is_score.then_some(difference),
        tools: asked.tools,
    }))
}

/// Answers with scores or ranks in a column of their own.
fn texts(fields: &Fields<'_>, column: &str, list: &[Value]) -> Result<(Vec<Scored>, bool)> {
    let (name, is_score) = match (fields.first_of(&SCORES), fields.first_of(&RANKS)) {
        (Some(name), _) => (name, true),
        (None, Some(name)) => (name, false),
        (None, None) => return Err(fields.missing("scores")),
    };
    let values = fields.list(name)?;
    let (called, column) = (fields.called(name), fields.called(column));
    if values.len() != list.len() {
        let message = format!("`{called}` has {} entries, `{column}` {}", values.len(), list.len());
        return Err(fields.error(message));
    }
    let mut answers = Vec::with_capacity(list.len());
    for (index, (text, value)) in list.iter().zip(values).enumerate() {
        let text = text.as_str().ok_or_else(|| {
            let found = crate::source::kind(text);
            fields.error(format!("`{column}` {index} is {found}, not text"))
        })?;
        let value = cell::number(value)
            .ok_or_else(|| fields.error(format!("`{called}` {index} is {value}, not a number")))?;
        answers.push(scored(index, text, value, is_score));
    }
    Ok((answers, is_score))
}

/// Answers that are objects with a score or rank each.
fn objects(fields: &Fields<'_>, list: &[Value]) -> Result<(Vec<Scored>, bool)> {
    let number = |answer: &Value, keys: &[&str]| {
        keys.iter().find_map(|key| answer.get(*key)).and_then(cell::number)
    };
    let is_score = list.first().is_some_and(|first| number(first, &SCORE_KEYS).is_some());
    let keys: &[&str] = if is_score { &SCORE_KEYS } else { &["rank"] };
    let mut answers = Vec::with_capacity(list.len());
    for (index, answer) in list.iter().enumerate() {
        let text = TEXT_KEYS.iter().find_map(|key| answer.get(*key)?.as_str());
        let text =
            text.ok_or_else(|| fields.error(format!("answer {index} has no text `response`")))?;
        let value = number(answer, keys).ok_or_else(|| {
            fields.error(format!("answer {index} has no number `{}`", keys[keys.len() / 2]))
        })?;
        answers.push(scored(index, text, value, is_score));
    }
    Ok((answers, is_score))
}

fn scored(index: usize, text: &str, value: f64, is_score: bool) -> Scored {
    // The first rank is the best.
    let value = if is_score { value } else { -value };
    Scored { index, messages: vec![Message::new("assistant", text)], value }
}
