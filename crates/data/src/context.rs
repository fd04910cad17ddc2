//! Retrieved context: passages of the user's documents in front of a prompt.
//!
//! Trains a model for retrieval: each prompt gets the passages that BM25 finds for it, among
//! passages that have nothing to do with it, and in some rows those alone (RAFT, Zhang et al.
//! 2024). [`prompt`] is the one form of it, for training and for serving.

mod documents;
mod draw;
mod index;
mod passages;

use std::collections::HashSet;
use std::path::PathBuf;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use text::Message;

use crate::record::{LabelledInput, Record};
use crate::{Error, Result};
use draw::Draw;
use index::Index;

/// Columns in which a row brings the passage that holds its answer.
const GOLDEN: [&str; 2] = ["context", "document"];

/// What the recipe says about retrieved context.
#[derive(Clone, Debug, PartialEq)]
pub struct ContextOptions {
    /// A file or folder of documents: `.txt`, `.md`, or `.jsonl` with `text`.
    pub retrieve: PathBuf,
    /// How many passages are retrieved for a prompt, the golden one included.
    pub k: usize,
    /// How many passages that were not retrieved stand among them.
    pub distractors: usize,
    /// About how many words a passage has.
    pub words: usize,
    /// Share of rows that get passages that were not retrieved and no others.
    pub without: f64,
}

/// Documents in passages, ready to be retrieved from.
pub struct Context {
    passages: Vec<String>,
    index: Index,
    options: ContextOptions,
    seed: u64,
    hash: String,
    left_out: Vec<PathBuf>,
}

impl Context {
    /// Reads the documents and makes them searchable.
    ///
    /// Passages of equal text are one. Fails where there are no documents.
    pub fn build(options: &ContextOptions, seed: u64) -> Result<Context> {
        let read = documents::read(&options.retrieve)?;
        let mut seen = HashSet::new();
        let mut passages: Vec<String> = Vec::new();
        for document in &read.texts {
            let cut = passages::cut(document, options.words);
            passages.extend(cut.filter(|text| seen.insert(*text)).map(str::to_owned));
        }
        drop(seen);
        if passages.is_empty() {
            return Err(Error::Setting {
                key: "data.context.retrieve".into(),
                message: format!("{}: the documents are empty", options.retrieve.display()),
                hint: Some("name a file or folder with text in it".into()),
            });
        }
        let index = Index::new(&passages);
        let hash = hash(&passages, options, seed);
        let left_out = read.left_out;
        Ok(Context { passages, index, options: options.clone(), seed, hash, left_out })
    }

    /// The files of the folder that are no documents.
    pub fn left_out(&self) -> &[PathBuf] {
        &self.left_out
    }

    /// Number of passages.
    pub fn len(&self) -> usize {
        self.passages.len()
    }

    /// Whether there are no passages: never.
    pub fn is_empty(&self) -> bool {
        self.passages.is_empty()
    }

    /// A hash of all that [`Context::add`] depends on beside the record, for caches.
    pub fn hash(&self) -> String {
        self.hash.clone()
    }

    /// The best passages for a query, at most `k`, the best first: what serving puts in front.
    pub fn passages(&self, query: &str) -> Vec<&str> {
        let found = self.index.search(query, self.options.k);
        found.into_iter().map(|passage| self.passages[passage].as_str()).collect()
    }

    /// Puts passages in front of the record's last user turn.
    ///
    /// `golden` is the passage that the row itself brings; without it the best one that is found is
    /// taken for it. Texts and tokens, and dialogues without a user turn, stay.
    pub fn add(&self, row: u64, record: &mut Record, golden: Option<&str>) {
        let Some(messages) = dialogue(record) else { return };
        let Some(last) = messages.iter_mut().rev().find(|turn| turn.role == "user") else { return };
        let passages = self.choose(row, &last.content, golden);
        last.content = prompt(&passages, &last.content);
    }

    /// The passages for a row of training, in the order in which they stand.
    fn choose<'a>(&'a self, row: u64, query: &str, golden: Option<&'a str>) -> Vec<&'a str> {
        let ContextOptions { k, distractors, without, .. } = self.options;
        let mut draw = Draw::new(self.seed, row);
        let retrieved = self.retrieve(query, golden);
        let mut taken: Vec<usize> = retrieved.iter().filter_map(|(index, _)| *index).collect();
        let is_without = draw.share() < without;
        // As many passages as other rows have: their number tells nothing.
        let count = if is_without { k + distractors } else { distractors };
        let mut chosen: Vec<&str> = match is_without {
            true => Vec::new(),
            false => retrieved.into_iter().map(|(_, text)| text).collect(),
        };
        let mut missing = count;
        while missing > 0 {
            taken.sort_unstable();
            let Some(index) = draw.other_than(&taken, self.passages.len()) else { break };
            taken.push(index);
            let text = self.passages[index].as_str();
            if !golden.is_some_and(|golden| overlap(golden, text)) {
                chosen.push(text);
                missing -= 1;
            }
        }
        draw.shuffle(&mut chosen);
        chosen
    }

    /// The golden passage and what else is found, `k` in all, with their indices.
    fn retrieve<'a>(
        &'a self,
        query: &str,
        golden: Option<&'a str>,
    ) -> Vec<(Option<usize>, &'a str)> {
        let k = self.options.k;
        let own = golden.filter(|_| k > 0).map(|text| (None, text));
        // More than are needed, since some may be parts of the row's own passage.
        let wanted = if own.is_some() { 2 * k } else { k };
        let found = self.index.search(query, wanted).into_iter();
        let found = found.map(|index| (Some(index), self.passages[index].as_str()));
        let found = found.filter(|(_, text)| !golden.is_some_and(|golden| overlap(golden, text)));
        own.into_iter().chain(found).take(k).collect()
    }
}

/// The form in which passages stand in front of a question, in training and in serving.
pub fn prompt(passages: &[&str], question: &str) -> String {
    let mut text = String::new();
    for passage in passages {
        text.push_str("<document>\n");
        text.push_str(passage);
        text.push_str("\n</document>\n");
    }
    if !passages.is_empty() {
        text.push('\n');
    }
    text + question
}

/// The passage that a row brings as `context` or `document`.
pub fn golden(columns: &Map<String, Value>) -> Option<&str> {
    let texts = GOLDEN.iter().filter_map(|name| columns.get(*name)?.as_str());
    texts.map(str::trim).find(|text| !text.is_empty())
}

/// The turns before the answers.
fn dialogue(record: &mut Record) -> Option<&mut [Message]> {
    match record {
        Record::Conversation(conversation) => Some(&mut conversation.messages),
        Record::Preference(pair) => Some(&mut pair.prompt),
        Record::Feedback(feedback) => Some(&mut feedback.conversation.messages),
        Record::Ranked(ranked) => Some(&mut ranked.prompt),
        Record::Stepwise(stepwise) => Some(&mut stepwise.prompt),
        Record::Prompt(prompt) => Some(&mut prompt.messages),
        Record::Labelled(labelled) => match &mut labelled.input {
            LabelledInput::Dialogue { messages, .. } => Some(messages),
            LabelledInput::Text(_) => None,
        },
        Record::Text(_) | Record::Tokens(_) => None,
    }
}

/// Whether one of two passages is part of the other.
fn overlap(a: &str, b: &str) -> bool {
    a.contains(b) || b.contains(a)
}

fn hash(passages: &[String], options: &ContextOptions, seed: u64) -> String {
    let ContextOptions { retrieve: _, k, distractors, words, without } = options;
    let mut hash = Sha256::new();
    hash.update(format!("{k} {distractors} {words} {without} {seed} {}\n", prompt(&["p"], "q")));
    for passage in passages {
        hash.update((passage.len() as u64).to_le_bytes());
        hash.update(passage);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_stand_before_the_question() {
        let expected = "<document>\na\n</document>\n<document>\nb c\n</document>\n\nwhy?";
        assert_eq!(prompt(&["a", "b c"], "why?"), expected);
        assert_eq!(prompt(&[], "why?"), "why?");
    }

    #[test]
    fn a_row_may_bring_its_passage() {
        #[track_caller]
        fn check(columns: &Value, expected: Option<&str>) {
            assert_eq!(golden(columns.as_object().unwrap()), expected);
        }
        check(&serde_json::json!({"context": " a \n"}), Some("a"));
        check(&serde_json::json!({"context": "", "document": "b"}), Some("b"));
        check(&serde_json::json!({"context": ["a"], "other": "c"}), None);
    }
}
