//! What there is to see in data before a recipe is written.

use std::path::{Path, PathBuf};

use data::prepare::{FileSummary, load_source};
use data::record::Wanted;
use data::source::Row;
use data::{Conversation, Findings, Source, Supervisor};
use model::Base;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Arguments;
use super::method::{instead, refuse, shape};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::terminal::style::count;
use train::method::Method;

/// What data look like.
pub(super) struct Look {
    /// What they are to teach by.
    pub(super) method: &'static Method,
    /// The files.
    pub(super) files: Vec<FileLook>,
    /// Rows of all files.
    pub(super) rows: usize,
    /// Fewest and most turns of a conversation that are learned.
    turns: Option<(usize, usize)>,
    /// The system message that all conversations share.
    pub(super) system: Option<String>,
    /// Tokens of the rows.
    pub(super) lengths: Lengths,
    /// What the user should know.
    pub(super) findings: Findings,
    /// Longest row that the model takes, where it is at hand.
    pub(super) max_positions: Option<usize>,
}

/// A file of rows.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FileLook {
    /// The file.
    pub(super) path: PathBuf,
    /// The shape of its rows.
    pub(super) format: String,
    /// How many there are.
    pub(super) rows: usize,
}

impl Look {
    /// Reads the data, and counts tokens if they are conversations and the model is on this machine.
    pub(super) fn at(
        method: &'static Method,
        arguments: &Arguments,
        context: &Context,
    ) -> Result<Self> {
        let at_hand = context.models().at_hand(&arguments.model);
        let base = at_hand.as_ref().map(|model| Base::open(&model.path)).transpose()?;
        let max_positions = base.as_ref().map(|base| base.config.max_position_embeddings);
        if method.records != Wanted::Conversations {
            return Ok(Look { max_positions, ..Look::of_rows(method, &arguments.data)? });
        }
        let mut findings = Findings::default();
        let (mut files, mut conversations) = (Vec::new(), Vec::new());
        for path in &arguments.data {
            let (file, loaded) = load_conversations(method, path, &mut findings)?;
            files.push(file);
            conversations.extend(loaded);
        }
        let lengths = match at_hand.zip(base) {
            Some((model, base)) => {
                let metadata = base.metadata_with(model.adapter.as_deref(), context.today())?;
                let supervisor = Supervisor::from_metadata(&metadata, Map::new())?;
                Lengths::count(&conversations, &supervisor, &mut findings)?
            }
            None => Lengths::estimate(&conversations),
        };
        let learned = |c: &Conversation| c.supervised.iter().filter(|&&turn| turn).count();
        let turns = conversations.iter().map(learned);
        Ok(Look {
            method,
            files,
            rows: conversations.len(),
            turns: turns.clone().min().zip(turns.max()),
            system: shared_system(&conversations),
            lengths,
            findings,
            max_positions,
        })
    }

    /// Looks at rows that are no conversations.
    fn of_rows(method: &'static Method, paths: &[PathBuf]) -> Result<Self> {
        let (mut files, mut rows) = (Vec::new(), Vec::new());
        for path in paths {
            let loaded = data::source::read(path)?;
            let format =
                shape(&loaded, method.records).ok_or_else(|| refuse(method, path, &loaded))?;
            files.push(FileLook {
                path: path.clone(),
                format: format.to_owned(),
                rows: loaded.len(),
            });
            rows.extend(loaded);
        }
        Ok(Look {
            method,
            files,
            rows: rows.len(),
            turns: None,
            system: None,
            lengths: Lengths::of_rows(&rows),
            findings: Findings::default(),
            max_positions: None,
        })
    }

    /// What is learned, in words.
    pub(super) fn learned(&self) -> String {
        match self.turns {
            None => self.method.learns_from.to_owned(),
            Some((1, 1)) => "one answer a row".to_owned(),
            Some((low, high)) if low == high => format!("{low} answers a row"),
            Some((low, high)) => format!("{low} to {high} answers a row"),
        }
    }
}

fn load_conversations(
    method: &Method,
    path: &Path,
    findings: &mut Findings,
) -> Result<(FileLook, Vec<Conversation>)> {
    let source = Source::of_path(path);
    match load_source(&source, findings) {
        Ok((file, loaded)) => {
            let FileSummary { format, rows, .. } = file;
            Ok((FileLook { path: path.to_owned(), format, rows }, loaded))
        }
        Err(error) => {
            let failure = Failure::from(error);
            let rows = data::source::read(path).unwrap_or_default();
            Err(match instead(method, path, &rows) {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
    }
}

fn shared_system(conversations: &[Conversation]) -> Option<String> {
    let system = |conversation: &Conversation| -> Option<String> {
        let first = conversation.messages.first()?;
        (first.role == "system").then(|| first.content.clone())
    };
    let first = system(conversations.first()?)?;
    conversations.iter().all(|c| system(c).as_ref() == Some(&first)).then_some(first)
}

/// Tokens of the rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lengths {
    /// Of every row, sorted.
    sorted: Vec<usize>,
    /// Tokens that count in the loss.
    supervised: Option<usize>,
}

/// Characters of a token in most languages of the Latin script, about.
const CHARACTERS: usize = 4;
/// Tokens that a template puts around a turn, about.
const AROUND_TURN: usize = 5;

impl Lengths {
    /// Counts what training would see.
    fn count(
        conversations: &[Conversation],
        supervisor: &Supervisor,
        findings: &mut Findings,
    ) -> Result<Self> {
        let (mut sorted, mut supervised, mut bad) = (Vec::new(), 0, Vec::new());
        for (row, conversation) in conversations.iter().enumerate() {
            match supervisor.supervise(row as u64, conversation, findings) {
                Ok(sequences) => {
                    supervised += sequences.iter().map(|s| s.supervised()).sum::<usize>();
                    sorted.extend(sequences.iter().map(|s| s.len()));
                }
                Err(error) => bad.push(error),
            }
        }
        if !bad.is_empty() {
            return Err(Failure::from(data::Error::Rows { rows: bad, hint: None }));
        }
        sorted.sort_unstable();
        Ok(Lengths { sorted, supervised: Some(supervised) })
    }

    /// Guesses from the number of characters.
    fn estimate(conversations: &[Conversation]) -> Self {
        let turn = |text: &str| text.chars().count().div_ceil(CHARACTERS) + AROUND_TURN;
        let row = |c: &Conversation| c.messages.iter().map(|m| turn(&m.content)).sum();
        let mut sorted: Vec<usize> = conversations.iter().map(row).collect();
        sorted.sort_unstable();
        Lengths { sorted, supervised: None }
    }

    /// As [`Lengths::estimate`], of all text in rows of any shape.
    fn of_rows(rows: &[Row]) -> Self {
        let row =
            |row: &Row| row.value.values().map(characters).sum::<usize>().div_ceil(CHARACTERS);
        let mut sorted: Vec<usize> = rows.iter().map(row).collect();
        sorted.sort_unstable();
        Lengths { sorted, supervised: None }
    }

    /// Whether tokens were not counted.
    pub(super) fn is_estimate(&self) -> bool {
        self.supervised.is_none()
    }

    /// Tokens of the longest row.
    pub(super) fn longest(&self) -> usize {
        self.sorted.last().copied().unwrap_or(0)
    }

    /// Rows with more tokens than this.
    pub(super) fn beyond(&self, tokens: usize) -> usize {
        self.sorted.len() - self.sorted.partition_point(|&length| length <= tokens)
    }

    /// The length that this share of the rows does not exceed (nearest rank).
    fn percentile(&self, share: f64) -> usize {
        let rank = (share * self.sorted.len() as f64).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }

    /// The lengths in words.
    pub(super) fn tell(&self) -> String {
        let (median, high) = (self.percentile(0.5), self.percentile(0.95));
        let total = count(self.sorted.iter().sum::<usize>() as u64);
        let longest = self.longest();
        let spread =
            format!("{median} a row (median), {high} at the 95th percentile, {longest} at most");
        match self.supervised {
            Some(supervised) => {
                let supervised = count(supervised as u64);
                format!("{spread}; {total} in all, {supervised} of them supervised")
            }
            None => {
                format!("about {spread}; guessed from characters")
            }
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "median": self.percentile(0.5), "p95": self.percentile(0.95), "max": self.longest(),
            "supervised": self.supervised, "estimated": self.is_estimate(),
        })
    }
}

/// Characters of all text in a value.
fn characters(value: &Value) -> usize {
    match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.iter().map(characters).sum(),
        Value::Object(entries) => entries.values().map(characters).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(sorted: &[usize]) -> Lengths {
        Lengths { sorted: sorted.to_vec(), supervised: Some(7) }
    }

    #[test]
    fn percentiles_are_rows_that_exist() {
        let hundred: Vec<usize> = (1..=100).collect();
        let found = lengths(&hundred);
        assert_eq!((found.percentile(0.5), found.percentile(0.95), found.longest()), (50, 95, 100));
        assert_eq!((found.beyond(100), found.beyond(98)), (0, 2));
        assert_eq!(lengths(&[3]).percentile(0.95), 3);
    }

    #[test]
    fn rows_of_any_shape_have_a_length() {
        let text = br#"{"prompt": "12345678", "n": 7, "answers": [{"text": "1234"}, "12345678"]}"#;
        let rows = data::source::parse(Path::new("rows.jsonl"), text).unwrap();
        assert_eq!(Lengths::of_rows(&rows).longest(), 5);
    }

    #[test]
    fn lengths_are_told() {
        let expected = "2 a row (median), 9 at the 95th percentile, 9 at most; 12 in all, 7 of \
                        them supervised";
        assert_eq!(lengths(&[1, 2, 9]).tell(), expected);
        let guessed = Lengths { supervised: None, ..lengths(&[1, 2, 9]) };
        assert!(guessed.tell().starts_with("about 2 a row"), "{}", guessed.tell());
        assert!(guessed.is_estimate());
    }
}
