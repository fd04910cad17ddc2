//! The prompts of the training rows, with or without answers behind them.

use std::collections::HashMap;
use std::path::Path;

use data::record::{self, Record};
use data::source::Row;
use data::{Findings, Location, Place, Source, SupervisionOptions, Supervisor, Wanted, source};
use keys::Document;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use text::{Message, integer};

use super::hex;
use crate::context::Context;
use crate::error::{Failure, Result};

/// What a row asks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prompt {
    pub(crate) place: Place,
    /// The system message that training shows.
    pub(crate) system: Option<String>,
    /// Its other turns, the last of them not the assistant's.
    pub(crate) messages: Vec<Message>,
    /// Tools that are offered.
    pub(crate) tools: Option<Value>,
    /// The answer of the row, which nobody is shown.
    pub(crate) reference: Option<Value>,
    /// The row's other columns.
    pub(crate) columns: Map<String, Value>,
    /// The columns that were to be kept, null where the row has none.
    pub(crate) kept: Vec<Value>,
    /// A hash of all that is shown: equal prompts have equal hashes.
    pub(crate) hash: String,
    /// A hash of the turns alone, which is what a written row still tells.
    pub(crate) turns_hash: String,
}

impl Prompt {
    /// The turns before the answer.
    pub(crate) fn turns(&self) -> Vec<Message> {
        let system = self.system.as_deref().map(|text| Message::new("system", text));
        system.into_iter().chain(self.messages.clone()).collect()
    }

    /// The tools that are offered, each as a line of JSON.
    pub(crate) fn tool_lines(&self) -> Vec<String> {
        let line = |tool: &Value| integer::plain(tool.to_string());
        match &self.tools {
            Some(Value::Array(tools)) => tools.iter().map(line).collect(),
            tools => tools.iter().map(line).collect(),
        }
    }
}

/// A prompt to be answered once.
pub(crate) struct Ask<'a> {
    pub(crate) prompt: &'a Prompt,
    /// Which of the answers to equal prompts this is, from 0.
    pub(crate) sample: usize,
}

impl Ask<'_> {
    /// A seed of its own for every ask, the same in a resumed command.
    pub(crate) fn seed(&self, seed: u64) -> u64 {
        let prompt = u64::from_str_radix(&self.prompt.hash[..16], 16).unwrap_or_default();
        data::random::key(&[seed, prompt, self.sample as u64])
    }
}

/// Every prompt as often as it is to be answered.
pub(crate) fn asks(prompts: &[Prompt], samples: usize) -> Vec<Ask<'_>> {
    let mut times: HashMap<&str, usize> = HashMap::new();
    let mut asks = Vec::with_capacity(prompts.len() * samples);
    for prompt in prompts {
        let sample = times.entry(&prompt.hash).or_default();
        for _ in 0..samples {
            asks.push(Ask { prompt, sample: *sample });
            *sample += 1;
        }
    }
    asks
}

/// What the reader of prompts has to know of the command.
pub(crate) struct Wishes<'a> {
    /// A file that prompts must not be read from, for it is written.
    pub(crate) output: &'a Path,
    /// The key that names it.
    pub(crate) output_key: &'static str,
    /// Columns of the file to keep as they are.
    pub(crate) kept: &'a [String],
}

/// The prompts of `data.train`, in its order, as training shows them.
pub(crate) fn read(
    document: &Document,
    context: &Context,
    seed: u64,
    wishes: &Wishes<'_>,
) -> Result<Vec<Prompt>> {
    let rows = data::recipe::config(document, Wanted::Prompts, seed, context.threads());
    let rows = rows.map_err(|problem| Failure::from(keys::Error::from(problem)))?;
    let options = data::recipe::supervision(document);
    let (mut prompts, mut findings) = (Vec::new(), Findings::default());
    for mut source in rows.train {
        if let Location::Hub(set) = &source.location {
            source.location = Location::Files(context.models().data_set(set)?);
        }
        refuse_output(&source, wishes)?;
        prompts.extend(of_source(&source, &options, wishes.kept, &mut findings)?);
    }
    context.warn_of(&findings);
    Ok(prompts)
}

/// What is read must not be written over.
fn refuse_output(source: &Source, wishes: &Wishes<'_>) -> Result<()> {
    let same =
        |a: std::io::Result<_>, b: std::io::Result<_>| matches!((a, b), (Ok(a), Ok(b)) if a == b);
    let (files, _) = source.files()?;
    if files.iter().any(|file| same(file.canonicalize(), wishes.output.canonicalize())) {
        let message = format!("{}: is what the prompts are read from", wishes.output.display());
        return Err(Failure::wrong("refused", message)
            .at(wishes.output)
            .hint(format!("name another file as `{}`", wishes.output_key)));
    }
    Ok(())
}

fn of_source(
    source: &Source,
    options: &SupervisionOptions,
    kept: &[String],
    findings: &mut Findings,
) -> Result<Vec<Prompt>> {
    let (files, reading) = source.files()?;
    let mut prompts = Vec::new();
    for file in &files {
        let mut rows = source::read(file)?;
        rows.truncate(source.limit.unwrap_or(usize::MAX).saturating_sub(prompts.len()));
        let value = |row: &Row, name: &String| row.value.get(name).cloned().unwrap_or_default();
        let key = |place: &Place| (place.line, place.element);
        let mut values: HashMap<_, Vec<Value>> = HashMap::new();
        for row in rows.iter().filter(|_| !kept.is_empty()) {
            values.insert(key(&row.place), kept.iter().map(|name| value(row, name)).collect());
        }
        for record in record::prompts(rows, &reading, findings)? {
            let kept = values.remove(&key(record.place())).unwrap_or_default();
            prompts.push(Prompt { kept, ..prompt(record, options)? });
        }
    }
    Ok(prompts)
}

/// What a row asks, with the options of training.
fn prompt(record: Record, options: &SupervisionOptions) -> Result<Prompt> {
    let place = record.place().clone();
    let refused = |message: &str, hint: &str| {
        let failure = Failure::new("data_rows", format!("{place}: {message}")).at(&place.file);
        Failure { line: Some(place.line), ..failure }.hint(hint)
    };
    let Record::Prompt(asked) = record else {
        let hint = "name the column that asks: `columns: {prompt: ...}`";
        return Err(refused("row is text or tokens and asks nothing", hint));
    };
    let turns = Supervisor::shown(&asked, options);
    let mut turns = turns.map_err(|error| data::Error::Rows { rows: vec![error], hint: None })?;
    let asks = |turn: &Message| turn.role == "user" && !turn.content.trim().is_empty();
    if !turns.iter().any(asks) {
        return Err(refused("row asks nothing", "fill in its prompt, or remove the row"));
    }
    let system = turns.iter().find(|turn| turn.role == "system").map(|turn| turn.content.clone());
    turns.retain(|turn| turn.role != "system");
    let turns_hash = hash(&turns);
    let whole = system.iter().map(|text| Message::new("system", text.as_str()));
    let mut hash = hash(&whole.chain(turns.clone()).collect::<Vec<_>>());
    if let Some(tools) = &asked.tools {
        hash = hash_text(&json!([hash, tools]).to_string());
    }
    let record::Prompt { tools, reference, columns, .. } = asked;
    let kept = Vec::new();
    Ok(Prompt { place, system, messages: turns, tools, reference, columns, kept, hash, turns_hash })
}

/// A hash of turns.
pub(crate) fn hash(turns: &[Message]) -> String {
    hash_text(&serde_json::to_string(turns).expect("messages are JSON"))
}

fn hash_text(text: &str) -> String {
    hex(&Sha256::digest(text)[..16])
}

#[cfg(test)]
mod tests {
    use data::Reading;
    use data::supervision::System;

    use super::*;

    fn prompts(rows: &str, reading: Reading, options: &SupervisionOptions) -> Result<Vec<Prompt>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.jsonl"), rows).unwrap();
        let source = Source { reading, ..Source::of_path(dir.path().join("p.jsonl")) };
        of_source(&source, options, &[], &mut Findings::default())
    }

    /// `role:content` of every prompt of a file.
    fn asked(rows: &str, reading: Reading) -> Vec<String> {
        let turn = |turn: &Message| format!("{}:{}", &turn.role[..1], turn.content);
        let line = |prompt: Prompt| {
            let turns: Vec<String> = prompt.messages.iter().map(turn).collect();
            format!("{}|{}", prompt.system.unwrap_or_default(), turns.join(" "))
        };
        let prompts = prompts(rows, reading, &SupervisionOptions::default()).unwrap();
        prompts.into_iter().map(line).collect()
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
    fn what_training_shows_is_shown() {
        let row = r#"{"system": "own", "messages": [{"role": "user", "content": "a"}], "tools": [{"name": "f"}], "answer": "b", "id": 1}"#;
        let set = SupervisionOptions {
            system: System::Set("set".into()),
            ..SupervisionOptions::default()
        };
        for (options, system) in [(SupervisionOptions::default(), "own"), (set, "set")] {
            let prompt = prompts(row, Reading::default(), &options).unwrap().remove(0);
            assert_eq!(prompt.system.as_deref(), Some(system));
            assert!(prompt.tools.is_some());
            assert_eq!(prompt.reference, Some(json!("b")));
            assert_eq!(Value::Object(prompt.columns), json!({"id": 1}));
        }
        // A tool's result stands before the answer.
        let row = r#"{"messages": [{"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]},
            {"role": "tool", "content": "r"}, {"role": "assistant", "content": "b"}]}"#;
        check(&row.replace('\n', " "), "|u:a a: t:r");
    }

    #[test]
    fn a_row_that_asks_nothing_is_named() {
        for (row, expected) in [
            (r#"{"messages": [{"role": "user", "content": " "}]}"#, "p.jsonl:1: row asks nothing"),
            (r#"{"text": "a"}"#, "p.jsonl:1: row is text or tokens and asks nothing"),
            (r#"{"id": "a"}"#, "p.jsonl:1: unknown format: the rows have `id`"),
        ] {
            let options = SupervisionOptions::default();
            let failure = prompts(row, Reading::default(), &options).unwrap_err();
            assert!(failure.message.ends_with(expected), "{}", failure.message);
            assert_eq!(failure.line, Some(1));
        }
    }
}
