//! The quickstart's data: free-text support messages of an invented shop, each
//! with the strict JSON ticket that it should become.
//!
//! ```text
//! ticket    what the customer has in mind: eight fields, drawn first
//! phrases   sentence patterns by slot, those for training apart from those for testing
//! message   a ticket told in words: patterns, order, distractors, typos
//! prompt    the task told to a model: short, in full, by four examples
//! ```
//!
//! The ticket is drawn before its message, so the answer is right by
//! construction. No sentence pattern of the test rows occurs in a training row:
//! what is measured is the task, not the memory of a sentence. Everything
//! follows from the seed.

mod calendar;
mod draw;
mod message;
mod noise;
mod phrases;
mod prompt;
mod ticket;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use text::Message;

use crate::error::{Failure, Result};
use draw::Draw;
use message::Spoken;
use phrases::Split;
use ticket::Ticket;

pub(crate) use prompt::{SYSTEM_SHORT, schema, schema_prompt, shots};

/// A support message and the ticket that it should become.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Example {
    /// What the customer wrote.
    pub(crate) message: String,
    /// The eight fields, in the order of [`schema`].
    pub(crate) ticket: Map<String, Value>,
}

impl Example {
    /// The ticket as compact JSON: the answer to learn.
    pub(crate) fn answer(&self) -> String {
        Value::Object(self.ticket.clone()).to_string()
    }

    /// The conversation up to the answer: instructions, worked examples, the message.
    pub(crate) fn prompt(&self, system: &str, shots: &[Self]) -> Vec<Message> {
        let mut messages = vec![Message::new("system", system)];
        for shot in shots {
            messages.push(Message::new("user", shot.message.as_str()));
            messages.push(Message::new("assistant", shot.answer()));
        }
        messages.push(Message::new("user", self.message.as_str()));
        messages
    }

    /// The example as a row of a `messages` file.
    fn to_row(&self) -> Value {
        json!({"messages": [
            {"role": "system", "content": SYSTEM_SHORT},
            {"role": "user", "content": self.message},
            {"role": "assistant", "content": self.answer()},
        ]})
    }
}

/// The demo's rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Demo {
    /// Rows to train and validate on.
    pub(crate) train: Vec<Example>,
    /// Rows to measure on, in sentence patterns of their own.
    pub(crate) test: Vec<Example>,
    /// What a ticket looks like, as JSON Schema.
    pub(crate) schema: Value,
}

/// Where [`Demo::write`] put things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// Training rows as `messages`, one a line.
    pub(crate) train: PathBuf,
    /// Test rows as `messages`, one a line.
    pub(crate) test: PathBuf,
    /// The JSON schema of a ticket.
    pub(crate) schema: PathBuf,
}

impl Demo {
    /// Writes `train.jsonl`, `test.jsonl` and `schema.json` into a folder, which
    /// is made if need be.
    pub(crate) fn write(&self, folder: &Path) -> Result<Files> {
        let files = Files {
            train: folder.join("train.jsonl"),
            test: folder.join("test.jsonl"),
            schema: folder.join("schema.json"),
        };
        fs::create_dir_all(folder).map_err(|error| Failure::io(folder, &error))?;
        write(&files.train, &lines(&self.train))?;
        write(&files.test, &lines(&self.test))?;
        write(&files.schema, &format!("{:#}\n", self.schema))?;
        Ok(files)
    }
}

/// Makes the demo: `train` and `test` rows, no message twice.
///
/// The first rows of a longer demo are those of a shorter one of the same seed.
pub(crate) fn generate(seed: u64, train: usize, test: usize) -> Demo {
    let mut seen = BTreeSet::new();
    let mut rows = |split, count| {
        let rows = (0..).map(|index| example(seed, split, index).0);
        // A message is drawn anew until it is a new one; with this many patterns
        // that is rare.
        rows.filter(|row| seen.insert(row.message.clone())).take(count).collect()
    };
    Demo { train: rows(Split::Train, train), test: rows(Split::Test, test), schema: schema() }
}

/// One row, and the patterns that it was made of.
fn example(seed: u64, split: Split, index: u64) -> (Example, Vec<&'static str>) {
    let mut draw = Draw::new(&[seed, split as u64, index]);
    let ticket = Ticket::draw(&mut draw);
    let Spoken { text, patterns } = message::speak(&ticket, split, &mut draw);
    (Example { message: text, ticket: ticket.to_map() }, patterns)
}

fn lines(rows: &[Example]) -> String {
    rows.iter().map(|row| format!("{}\n", row.to_row())).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| Failure::io(path, &error))
}

#[cfg(test)]
mod graded;
#[cfg(test)]
mod tests;
