//! The prompts of the training rows, with or without answers behind them.

use data::source::{self, Row};
use data::{Findings, Place, Reading, Source, record};
use keys::Document;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use text::Message;

use super::order::{Order, hex};
use crate::context::Context;
use crate::error::{Failure, Result};

/// What a row asks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prompt {
    pub(super) place: Place,
    /// The row's own system message.
    pub(super) system: Option<String>,
    /// Its other turns, the last of them the user's.
    pub(super) messages: Vec<Message>,
    /// A hash of all this: equal prompts have equal hashes.
    pub(super) hash: String,
    /// A hash of the turns alone, which is what a written row still tells.
    pub(super) turns_hash: String,
}

/// Columns of rows without answers.
const NAMES: [&str; 5] = ["prompt", "question", "query", "instruction", "input"];

/// The prompts of `data.train`, in its order.
pub(super) fn read(document: &Document, context: &Context, order: &Order) -> Result<Vec<Prompt>> {
    let config = data::recipe::config(document, order.seed, context.threads());
    let config = config.map_err(|problem| Failure::from(keys::Error::from(problem)))?;
    let mut prompts = Vec::new();
    for source in &config.train {
        refuse_output(source, order)?;
        prompts.extend(of_source(source)?);
    }
    Ok(prompts)
}

/// What is read must not be written over.
fn refuse_output(source: &Source, order: &Order) -> Result<()> {
    let same =
        |a: std::io::Result<_>, b: std::io::Result<_>| matches!((a, b), (Ok(a), Ok(b)) if a == b);
    let (files, _) = source.files()?;
    if files.iter().any(|file| same(file.canonicalize(), order.output.canonicalize())) {
        let message = format!("{}: is what the prompts are read from", order.output.display());
        return Err(Failure::wrong("refused", message)
            .at(&order.output)
            .hint("name another file as `distill.output`"));
    }
    Ok(())
}

fn of_source(source: &Source) -> Result<Vec<Prompt>> {
    let (files, reading) = source.files()?;
    let mut rows = Vec::new();
    for file in &files {
        rows.extend(source::read(file)?);
    }
    rows.truncate(source.limit.unwrap_or(usize::MAX));
    // Rows that only ask have no shape of a conversation.
    let asked = rows.iter().map(|row| bare(row, &reading)).collect::<Option<Vec<_>>>();
    let dialogues: Vec<(Place, Vec<Message>)> = match asked {
        Some(asked) => rows.into_iter().map(|row| row.place).zip(asked).collect(),
        None => {
            let mut findings = Findings::default();
            let (_, read) = record::conversations(rows, &reading, &mut findings)?;
            read.into_iter().map(|dialogue| (dialogue.place, dialogue.messages)).collect()
        }
    };
    let default = source.reading.system.as_deref();
    let prompts = dialogues.into_iter().map(|(place, turns)| prompt(place, turns, default));
    prompts.collect()
}

/// The turns of a row that says what it asks and not how it is answered.
fn bare(row: &Row, reading: &Reading) -> Option<Vec<Message>> {
    let column = |name: &str| {
        let renamed = reading.columns.iter().find(|(ours, _)| ours == name);
        row.value.get(renamed.map_or(name, |(_, theirs)| theirs))
    };
    if let Some(Value::Array(turns)) = column("messages") {
        return turns.iter().map(|turn| Message::from_value(turn.clone()).ok()).collect();
    }
    if ["conversations", "history", "system"].iter().any(|name| column(name).is_some()) {
        return None;
    }
    let mut asked = NAMES.iter().filter_map(|name| column(name));
    match (asked.next()?, asked.next()) {
        (Value::String(text), None) => Some(vec![Message::new("user", text.as_str())]),
        (Value::Array(turns), None) => {
            turns.iter().map(|turn| Message::from_value(turn.clone()).ok()).collect()
        }
        _ => None,
    }
}

/// A dialogue up to its last question.
fn prompt(place: Place, mut turns: Vec<Message>, default: Option<&str>) -> Result<Prompt> {
    let asks =
        turns.iter().rposition(|turn| turn.role == "user" && !turn.content.trim().is_empty());
    let Some(last) = asks else {
        let failure = Failure::new("data_rows", format!("{place}: row asks nothing"));
        return Err(Failure { line: Some(place.line), ..failure.at(&place.file) });
    };
    turns.truncate(last + 1);
    let own = turns.iter().find(|turn| turn.role == "system").map(|turn| turn.content.clone());
    turns.retain(|turn| turn.role != "system");
    let system = own.or_else(|| default.map(str::to_owned));
    let turns_hash = hash(&turns);
    let whole = system.iter().map(|text| Message::new("system", text.as_str()));
    let hash = hash(&whole.chain(turns.clone()).collect::<Vec<_>>());
    Ok(Prompt { place, system, messages: turns, hash, turns_hash })
}

/// A hash of turns.
pub(super) fn hash(turns: &[Message]) -> String {
    let json = serde_json::to_string(turns).expect("messages are JSON");
    hex(&Sha256::digest(json)[..16])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `role:content` of every prompt of a file.
    fn asked(rows: &str, reading: Reading) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.jsonl"), rows).unwrap();
        let source = Source { reading, ..Source::of_path(dir.path().join("p.jsonl")) };
        let turn = |turn: &Message| format!("{}:{}", &turn.role[..1], turn.content);
        let line = |prompt: Prompt| {
            let turns: Vec<String> = prompt.messages.iter().map(turn).collect();
            format!("{}|{}", prompt.system.unwrap_or_default(), turns.join(" "))
        };
        of_source(&source).unwrap().into_iter().map(line).collect()
    }

    #[track_caller]
    fn check(row: &str, expected: &str) {
        assert_eq!(asked(row, Reading::default()), [expected]);
    }

    #[test]
    fn a_row_is_cut_after_its_last_question() {
        check(r#"{"prompt": "a"}"#, "|u:a");
        check(r#"{"question": "a", "id": 3}"#, "|u:a");
        check(r#"{"question": "a", "answer": "b"}"#, "|u:a");
        check(r#"{"prompt": "a", "completion": ""}"#, "|u:a");
        check(r#"{"instruction": "a", "input": "b", "output": "c"}"#, "|u:a\n\nb");
        check(
            r#"{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]}"#,
            "s|u:a",
        );
        check(
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
                {"role": "assistant", "content": "d"}]}"#
                .replace('\n', " ")
                .as_str(),
            "s|u:a a:b u:c",
        );
        check(
            r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
            "|u:a",
        );
    }

    #[test]
    fn the_recipe_names_columns_and_a_system_message() {
        let reading = Reading {
            columns: vec![("prompt".into(), "ask".into())],
            system: Some("s".into()),
            ..Reading::default()
        };
        assert_eq!(asked(r#"{"ask": "a", "n": 1}"#, reading), ["s|u:a"]);
    }

    #[test]
    fn a_row_that_asks_nothing_is_named() {
        let place = Place { file: Path::new("p.jsonl").into(), line: 3, element: None };
        let failure = prompt(place, vec![Message::new("assistant", "a")], None).unwrap_err();
        assert_eq!(
            (failure.message.as_str(), failure.line),
            ("p.jsonl:3: row asks nothing", Some(3))
        );
    }
}
