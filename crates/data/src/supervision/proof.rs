//! Whether what is learned of a turn is what the turn says: its content, its reasoning, the names
//! and the argument values of its calls, each of them and none twice.
//!
//! The learned text is that of the tokens up to the first one at which the model stops. Contents may be in it in any form
//! that templates give them: trimmed, indented, JSON with or without escapes, Python, XML.

use std::borrow::Cow;

use serde_json::Value;
use text::{Message, integer};

use super::Supervisor;
use super::findings as kind;
use super::options::{answer, reasoning};
use super::turn::Turn;
use crate::record::calls_tools;
use crate::{Findings, Place};

/// Shortest text whose repetition cannot be chance.
const TELLING: usize = 16;

impl Supervisor {
    /// Notes what the turn has and the learned text lacks, or has twice. `before` is the context
    /// that it follows.
    pub(super) fn prove(
        &self,
        turn: &Turn<'_>,
        before: &str,
        learned: &str,
        place: &Place,
        findings: &mut Findings,
    ) {
        let message = turn.message;
        let index = turn.index;
        let mut add = |kind: &crate::finding::Kind, what: &str| {
            findings.add_with(kind, place, format!("message {index}: {what}"));
        };
        let is_assistant = message.role == "assistant";
        let reasoning = reasoning(message).filter(|_| is_assistant);
        let answer = if is_assistant { answer(&message.content) } else { &message.content }.trim();
        if !is_written(answer, learned) {
            match calls_tools(message) {
                true => add(&kind::TEXT_LEFT_OUT, kind::TEXT_LEFT_OUT.message),
                false => add(&kind::ANSWER_NOT_LEARNED, kind::ANSWER_NOT_LEARNED.message),
            }
        }
        if reasoning.is_some_and(|text| !is_written(text, learned)) {
            add(&kind::REASONING_LEFT_OUT, kind::REASONING_LEFT_OUT.message);
        }
        if reasoning.is_some() && before.trim_end().ends_with("</think>") {
            add(&kind::REASONING_AFTER_CLOSED, kind::REASONING_AFTER_CLOSED.message);
        }
        let mut values = Vec::new();
        for call in calls(message) {
            leaves(call.get("arguments").unwrap_or(&Value::Null), &mut values);
            let name = call.get("name").and_then(Value::as_str).unwrap_or_default();
            if !is_written(name, learned) {
                add(&kind::CALL_NOT_LEARNED, &format!("the call of `{name}` is not learned"));
            }
        }
        if let Some(value) = values.iter().find(|value| !is_value_written(value, learned)) {
            let shown = integer::plain(value.to_string());
            let what = format!("the argument {} of a call is not learned", cut(&shown));
            add(&kind::CALL_NOT_LEARNED, &what);
        }
        let said = said(message);
        let texts = [answer].into_iter().chain(reasoning);
        let texts = texts.chain(values.iter().filter_map(|value| value.as_str()));
        if let Some(twice) = texts.map(str::trim).find(|text| is_repeated(text, learned, &said)) {
            let what = format!(
                "what is learned has {} more often than the turn",
                cut(&format!("`{twice}`"))
            );
            add(&kind::LEARNED_TWICE, &what);
        }
    }
}

/// The functions that a message calls.
fn calls(message: &Message) -> impl Iterator<Item = &Value> {
    let calls = message.extra.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    calls.map(|call| call.get("function").unwrap_or(call))
}

/// All values within a value that are no lists and no objects.
fn leaves<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        value if integer::digits(value).is_some() => found.push(value),
        Value::Object(fields) => fields.values().for_each(|value| leaves(value, found)),
        Value::Array(items) => items.iter().for_each(|value| leaves(value, found)),
        value => found.push(value),
    }
}

/// Whether a text stands in another, but for white space: templates trim, and some indent.
fn is_written(text: &str, within: &str) -> bool {
    let bare = |text: &str| -> String { text.split_whitespace().collect() };
    within.contains(text) || bare(within).contains(&bare(text))
}

/// Whether a value of an argument stands in a text, in any of the forms that templates give it:
/// as JSON, as Python or XML has it, or as it is.
fn is_value_written(value: &Value, within: &str) -> bool {
    if let Some(digits) = integer::digits(value) {
        return within.contains(digits);
    }
    match value {
        Value::Null => ["null", "None", "nil"].iter().any(|word| within.contains(word)),
        Value::Bool(flag) => {
            let words = if *flag { ["true", "True"] } else { ["false", "False"] };
            words.iter().any(|word| within.contains(word))
        }
        // 1e22 is also written 1e+22, and 7.0 as 7.
        Value::Number(number) => {
            let number = number.to_string();
            let digits =
                number.trim_start_matches('-').split(['.', 'e']).next().unwrap_or_default();
            within.contains(digits)
        }
        Value::String(text) => is_text_written(text, within),
        Value::Array(_) | Value::Object(_) => true,
    }
}

fn is_text_written(text: &str, within: &str) -> bool {
    if is_written(text, within) {
        return true;
    }
    let json = Value::from(text).to_string();
    let forms = [json[1..json.len() - 1].to_owned(), ascii(&json[1..json.len() - 1])];
    if forms.iter().any(|form| within.contains(form)) || is_written(text, &without_entities(within))
    {
        return true;
    }
    // Quotes, slashes and the like may be escaped in many ways: what is left without them.
    let bare = |text: &str| -> String { text.chars().filter(|c| c.is_alphanumeric()).collect() };
    let within = bare(within);
    [text.to_owned()].iter().chain(&forms).any(|form| within.contains(&bare(form)))
}

/// A text with the entities of XML as characters.
fn without_entities(text: &str) -> Cow<'_, str> {
    const ENTITIES: [(&str, &str); 7] = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    match text.contains('&') {
        true => ENTITIES
            .iter()
            .fold(text.to_owned(), |text, (entity, c)| text.replace(entity, c))
            .into(),
        false => text.into(),
    }
}

/// JSON with all that is not ASCII escaped, as Python does by default.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

/// All texts of a message, one after the other.
fn said(message: &Message) -> String {
    fn add(value: &Value, said: &mut String) {
        match value {
            Value::String(text) => said.extend([text, "\0"]),
            Value::Array(items) => items.iter().for_each(|item| add(item, said)),
            Value::Object(fields) => fields.values().for_each(|field| add(field, said)),
            _ => {}
        }
    }
    let mut said = format!("{}\0", message.content);
    let others = message.extra.iter().filter(|(name, _)| *name != "content");
    others.for_each(|(_, value)| add(value, &mut said));
    said
}

fn is_repeated(text: &str, learned: &str, said: &str) -> bool {
    text.len() >= TELLING && learned.matches(text).count() > said.matches(text).count().max(1)
}

/// The beginning of a text, for messages.
fn cut(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 80;
    match text.len() > LONGEST {
        true => format!("{}...", &text[..text.floor_char_boundary(LONGEST)]).into(),
        false => text.into(),
    }
}
