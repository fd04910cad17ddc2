//! Rows of tokens drawn at random.

use std::path::Path;
use std::sync::Arc;

use compute::random;
use data::{Place, Sequence, Wanted};

/// What the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MadeUp {
    /// Rows, the first tokens of which may be the same in all of them.
    Rows,
    /// Answers that are wanted or not by turns, each behind a prompt of its own.
    Judged,
    /// Two answers to each prompt.
    Pairs,
    /// So many answers to each prompt, which the policy draws.
    Groups(usize),
}

impl MadeUp {
    /// What a method learns from, with so many answers to a prompt where it draws them.
    pub(super) fn of(records: Wanted, group: usize) -> Self {
        match records {
            Wanted::Prompts => MadeUp::Groups(group),
            Wanted::Preferences | Wanted::Rewards => MadeUp::Pairs,
            Wanted::Feedback => MadeUp::Judged,
            _ => MadeUp::Rows,
        }
    }

    /// Sequences of a row.
    pub(super) fn answers(self) -> usize {
        match self {
            MadeUp::Pairs => 2,
            MadeUp::Groups(answers) => answers,
            MadeUp::Rows | MadeUp::Judged => 1,
        }
    }

    /// What so many of them are.
    pub(super) fn called(self) -> &'static str {
        match self {
            MadeUp::Rows => "rows",
            MadeUp::Judged => "answers",
            MadeUp::Pairs => "pairs",
            MadeUp::Groups(_) => "prompts",
        }
    }

    /// So many rows. Of each sequence the first `shared` tokens are not learned, nor is the first.
    pub(super) fn sequences(
        self,
        rows: usize,
        tokens: usize,
        shared: usize,
        vocab: usize,
    ) -> Vec<Sequence> {
        let file: Arc<Path> = Path::new("made up").into();
        let answers = self.answers();
        let sequence = |index: usize| {
            let row = index / answers;
            let token = |position: usize| {
                let of = match (position < shared, self) {
                    (true, MadeUp::Rows) => 0,
                    // Of the prompts none has the number of an answer.
                    (true, _) => (rows * answers + row) as u64 + 1,
                    (false, _) => index as u64 + 1,
                };
                (random::key(&[of, position as u64]) % vocab as u64) as u32
            };
            let weight = |position: usize| f32::from(position >= shared.max(1));
            Sequence {
                row: row as u64,
                part: 0,
                role: match self {
                    MadeUp::Rows | MadeUp::Groups(_) => 0,
                    MadeUp::Judged | MadeUp::Pairs => (index % 2) as u8,
                },
                tokens: (0..tokens).map(token).collect(),
                weights: (0..tokens).map(weight).collect(),
                place: Place { file: file.clone(), line: row + 1, element: None },
            }
        };
        (0..rows * answers).map(sequence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_share_what_they_are_told_to() {
        let rows = MadeUp::Rows.sequences(3, 10, 4, 1000);
        assert_eq!(rows[0].tokens[..4], rows[2].tokens[..4]);
        assert_ne!(rows[0].tokens[4..], rows[2].tokens[4..]);
        assert_eq!(rows[1].weights, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(MadeUp::Rows.sequences(1, 3, 0, 10)[0].weights, [0.0, 1.0, 1.0]);
    }

    #[test]
    fn answers_share_the_prompt_of_their_pair() {
        let pairs = MadeUp::Pairs.sequences(2, 10, 4, 1000);
        assert_eq!(
            pairs.iter().map(|s| (s.row, s.role)).collect::<Vec<_>>(),
            [(0, 0), (0, 1), (1, 0), (1, 1)]
        );
        assert_eq!(pairs[0].tokens[..4], pairs[1].tokens[..4]);
        assert_ne!(pairs[0].tokens[4..], pairs[1].tokens[4..]);
        assert_ne!(pairs[0].tokens[..4], pairs[2].tokens[..4]);
        let judged = MadeUp::Judged.sequences(2, 10, 4, 1000);
        assert_eq!(judged.iter().map(|s| (s.row, s.role)).collect::<Vec<_>>(), [(0, 0), (1, 1)]);
        assert_ne!(judged[0].tokens[..4], judged[1].tokens[..4]);
    }
}
