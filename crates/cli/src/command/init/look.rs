//! What there is to see in data before a recipe is written.

use data::prepare::{FileSummary, load_source};
use data::{Conversation, Findings, Source, Supervisor};
use model::Base;
use serde_json::{Map, Value, json};

use super::Arguments;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::terminal::style::count;

/// What data look like.
pub(super) struct Look {
    /// The files.
    pub(super) files: Vec<FileSummary>,
    /// Rows of all files.
    pub(super) rows: usize,
    /// Fewest and most turns of a row that are learned.
    turns: (usize, usize),
    /// The system message that all rows share.
    pub(super) system: Option<String>,
    /// Tokens of the rows.
    pub(super) lengths: Lengths,
    /// What the user should know.
    pub(super) findings: Findings,
    /// Longest row that the model takes, where it is at hand.
    pub(super) max_positions: Option<usize>,
}

impl Look {
    /// Reads the data, and counts tokens if the model is on this machine.
    pub(super) fn at(arguments: &Arguments, context: &Context) -> Result<Self> {
        let mut findings = Findings::default();
        let (mut files, mut conversations) = (Vec::new(), Vec::new());
        for path in &arguments.data {
            let source = Source { path: path.clone(), ..Source::default() };
            let (summary, loaded) = load_source(&source, &mut findings)?;
            files.push(summary);
            conversations.extend(loaded);
        }
        let (lengths, max_positions) = match context.models().at_hand(&arguments.model) {
            Some(model) => {
                let base = Base::open(&model.path)?;
                let metadata = base.metadata_with(model.adapter.as_deref(), context.today())?;
                let supervisor = Supervisor::from_metadata(&metadata, Map::new())?;
                let lengths = Lengths::count(&conversations, &supervisor, &mut findings)?;
                (lengths, Some(base.config.max_position_embeddings))
            }
            None => (Lengths::estimate(&conversations), None),
        };
        let learned = |c: &Conversation| c.supervised.iter().filter(|&&turn| turn).count();
        let turns = conversations.iter().map(learned);
        Ok(Look {
            files,
            rows: conversations.len(),
            turns: (turns.clone().min().unwrap_or(0), turns.max().unwrap_or(0)),
            system: shared_system(&conversations),
            lengths,
            findings,
            max_positions,
        })
    }

    /// The turns that are learned, in words.
    pub(super) fn turns(&self) -> String {
        match self.turns {
            (1, 1) => "one answer a row".to_owned(),
            (low, high) if low == high => format!("{low} answers a row"),
            (low, high) => format!("{low} to {high} answers a row"),
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

    /// Whether the model was not there to count with.
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
                format!("about {spread}; guessed from characters, since the model is not here yet")
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
    fn lengths_are_told() {
        let expected = "2 a row (median), 9 at the 95th percentile, 9 at most; 12 in all, 7 of \
                        them supervised";
        assert_eq!(lengths(&[1, 2, 9]).tell(), expected);
        let guessed = Lengths { supervised: None, ..lengths(&[1, 2, 9]) };
        assert!(guessed.tell().starts_with("about 2 a row"), "{}", guessed.tell());
        assert!(guessed.is_estimate());
    }
}
