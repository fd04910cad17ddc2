//! Conversations that are too long, split between turns.

use super::Supervisor;
use super::assemble::Identity;
use super::dialogue::Dialogue;
use super::render::RowResult;
use crate::overlong::{CANNOT_SPLIT, SPLIT_CONVERSATION};
use crate::{Findings, Sequence};

impl Supervisor {
    /// Sequences of at most `max` tokens: the system messages and as many exchanges as fit, then the next ones.
    ///
    /// A part is rendered as a dialogue of its own, so that it is proven like any other. An exchange that does
    /// not fit by itself is listed and left out.
    pub(super) fn split(
        &self,
        row: u64,
        dialogue: &Dialogue<'_>,
        max: usize,
        findings: &mut Findings,
    ) -> RowResult<Vec<Sequence>> {
        let starts = exchanges(dialogue);
        let mut parts = Vec::new();
        let (mut first, mut part) = (0, 0);
        while first + 1 < starts.len() {
            let mut fitting = None;
            for end in first + 1..starts.len() {
                let exchanges = dialogue.part(starts[first], starts[end]);
                let mut found = Findings::default();
                let sequences = self.dialogue(row, &exchanges, &mut found)?;
                if sequences.iter().any(|sequence| sequence.len() > max) {
                    break;
                }
                fitting = Some((end, sequences, found));
            }
            match fitting {
                None => {
                    findings.add(&CANNOT_SPLIT, dialogue.place);
                    first += 1;
                }
                Some((end, mut sequences, found)) => {
                    if !sequences.is_empty() {
                        findings.add(&SPLIT_CONVERSATION, dialogue.place);
                    }
                    sequences.iter_mut().for_each(|sequence| sequence.part = part);
                    part += 1;
                    parts.extend(sequences);
                    findings.merge(found);
                    first = end;
                }
            }
        }
        Ok(parts)
    }

    /// The sequences of a dialogue; none where nothing in it counts.
    pub(super) fn dialogue(
        &self,
        row: u64,
        dialogue: &Dialogue<'_>,
        findings: &mut Findings,
    ) -> RowResult<Vec<Sequence>> {
        let turns = self.turns(dialogue)?;
        if turns.is_empty() {
            return Ok(Vec::new());
        }
        self.note_messages(dialogue, &turns, findings)?;
        let rows = self.rows(&turns, dialogue.place, findings);
        self.assembled(Identity { row, role: 0, place: dialogue.place }, &rows, findings)
    }
}

/// Where exchanges begin, and the end of the last: a user turn that follows another role opens one.
fn exchanges(dialogue: &Dialogue<'_>) -> Vec<usize> {
    let (head, messages) = (dialogue.head(), &dialogue.messages);
    let opens = |&index: &usize| {
        index == head || (messages[index].role == "user" && messages[index - 1].role != "user")
    };
    (head..messages.len()).filter(opens).chain([messages.len()]).collect()
}
