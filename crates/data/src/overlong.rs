//! What happens to rows that are longer than the model is trained on.

mod cut_prompt;

use crate::finding::Kind;
use crate::{Error, Findings, Level, Result, RowError, Sequence};

pub use cut_prompt::Beginning;

/// What to do with a row of more than `max_seq_len` tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlong {
    /// Name it and stop.
    #[default]
    Error,
    /// Keep its first `max_seq_len` tokens.
    Truncate,
    /// Cut the beginning of its prompt, so that its answers stay whole.
    ///
    /// Answers to one prompt lose the same tokens, as many as the longest of them has too many. A row whose
    /// answer alone does not fit is left out and listed, and so is one that has no prompt of its own: a raw
    /// text, judged steps, and a conversation of several learned turns, as the prompt of a later turn holds the
    /// answers before it.
    CutPrompt,
    /// Make several rows of it that fit.
    ///
    /// A conversation is split between turns: give the limit to
    /// [`SupervisionOptions::split_beyond`](crate::SupervisionOptions), for only the
    /// supervisor can render and prove its parts. A raw text becomes windows of
    /// `max_seq_len` tokens. What can be neither is left out and listed.
    Split,
    /// Leave it out.
    Skip,
}

/// Applies `overlong` to every sequence of more than `max_seq_len` tokens.
///
/// Whatever is cut or left out is counted in `findings`. `beginning` says what stands before the learned tokens.
pub fn limit(
    sequences: Vec<Sequence>,
    max_seq_len: usize,
    overlong: Overlong,
    beginning: Beginning,
    findings: &mut Findings,
) -> Result<Vec<Sequence>> {
    let longest = sequences.iter().map(Sequence::len).max().unwrap_or(0);
    let (mut kept, mut long) = (Vec::with_capacity(sequences.len()), Vec::new());
    let mut rest = sequences.into_iter().peekable();
    while let Some(first) = rest.next() {
        let row = first.row;
        let mut of_row = vec![first];
        while let Some(next) = rest.next_if(|sequence| sequence.row == row) {
            of_row.push(next);
        }
        match apply(of_row, max_seq_len, overlong, beginning, findings) {
            Ok(sequences) => kept.extend(sequences),
            Err(error) => long.push(error),
        }
    }
    if long.is_empty() {
        return Ok(kept);
    }
    let hint = format!(
        "`data.max_seq_len={longest}` takes them all; \
         `data.overlong=truncate`, `cut_prompt`, `split` or `skip` cuts, splits or leaves them"
    );
    Err(Error::Rows { rows: long, hint: Some(hint) })
}

/// Applies `overlong` to the sequences of one row.
///
/// Sequences of several roles (chosen and rejected) stand or fall together.
pub fn apply(
    sequences: Vec<Sequence>,
    max_seq_len: usize,
    overlong: Overlong,
    beginning: Beginning,
    findings: &mut Findings,
) -> std::result::Result<Vec<Sequence>, RowError> {
    let Some(long) = sequences.iter().filter(|s| s.len() > max_seq_len).max_by_key(|s| s.len())
    else {
        return Ok(sequences);
    };
    if overlong == Overlong::Error {
        let message = format!("row has {} tokens, more than {max_seq_len}", long.len());
        let hint = format!(
            "`data.max_seq_len={}` takes it; `data.overlong=truncate`, `cut_prompt`, `split` or `skip` \
             cuts, splits or leaves such rows",
            long.len()
        );
        return Err(RowError::new(&long.place, message).with_hint(hint));
    }
    let together = sequences.iter().any(|sequence| sequence.role != sequences[0].role);
    if overlong == Overlong::CutPrompt && together {
        return Ok(cut_prompt::cut(sequences, max_seq_len, beginning, findings));
    }
    let mut kept = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        let before = kept.len();
        if sequence.len() <= max_seq_len {
            kept.push(sequence);
        } else {
            match overlong {
                Overlong::Truncate => kept.extend(truncated(sequence, max_seq_len, findings)),
                Overlong::CutPrompt => {
                    kept.extend(cut_prompt::cut(vec![sequence], max_seq_len, beginning, findings));
                }
                Overlong::Split if !together => {
                    kept.extend(windows(sequence, max_seq_len, findings));
                }
                Overlong::Split => findings.add(&CANNOT_SPLIT, &sequence.place),
                Overlong::Skip | Overlong::Error => findings.add(&SKIPPED, &sequence.place),
            }
        }
        if together && kept.len() == before {
            return Ok(Vec::new()); // What is left of a pair is no pair.
        }
    }
    Ok(kept)
}

/// The first `max` tokens, unless nothing in them is learned.
fn truncated(mut sequence: Sequence, max: usize, findings: &mut Findings) -> Option<Sequence> {
    let was_learned = sequence.supervised() > 0;
    sequence.tokens.truncate(max);
    sequence.weights.truncate(max);
    if was_learned && sequence.supervised() == 0 {
        findings.add(&NOTHING_LEFT, &sequence.place);
        return None;
    }
    findings.add(&TRUNCATED, &sequence.place);
    Some(sequence)
}

/// A raw text as windows of `max` tokens. The last token of one is the first of
/// the next, so that every token is predicted as often as before: once.
fn windows(sequence: Sequence, max: usize, findings: &mut Findings) -> Vec<Sequence> {
    let is_text = sequence.weights.iter().skip(1).all(|&weight| weight != 0.0);
    if !is_text || max < 2 {
        findings.add(&CANNOT_SPLIT, &sequence.place);
        return Vec::new();
    }
    findings.add(&SPLIT_TEXT, &sequence.place);
    let window = |(part, start): (u32, usize)| {
        let end = (start + max).min(sequence.len());
        let mut weights = sequence.weights[start..end].to_vec();
        weights[0] = 0.0; // Nothing predicts a first token.
        let place = sequence.place.clone();
        Sequence { part, tokens: sequence.tokens[start..end].to_vec(), weights, place, ..sequence }
    };
    let starts = (0..sequence.len() - 1).step_by(max - 1);
    (0..).zip(starts).map(window).collect()
}

const SKIPPED: Kind = Kind {
    id: "overlong-skipped",
    level: Level::Warning,
    message: "rows of more than `max_seq_len` tokens are left out",
    hint: "raise `data.max_seq_len` to train on them",
};
const TRUNCATED: Kind = Kind {
    id: "overlong-truncated",
    level: Level::Warning,
    message: "rows of more than `max_seq_len` tokens are cut: the model does not learn how they end",
    hint: "raise `data.max_seq_len`, or leave them out with `data.overlong=skip`",
};
const NOTHING_LEFT: Kind = Kind {
    id: "overlong-nothing-left",
    level: Level::Warning,
    message: "rows whose prompt alone fills `max_seq_len` are left out",
    hint: "raise `data.max_seq_len` to train on them",
};
const PROMPT_CUT: Kind = Kind {
    id: "overlong-prompt-cut",
    level: Level::Warning,
    message: "prompts of rows of more than `max_seq_len` tokens lose their beginning; the answers stay whole",
    hint: "raise `data.max_seq_len` to keep the prompts whole",
};
const LONG_ANSWER: Kind = Kind {
    id: "overlong-answer-too-long",
    level: Level::Warning,
    message: "rows whose answer does not fit into `max_seq_len` behind a token of the prompt are left out",
    hint: "raise `data.max_seq_len` to train on them",
};
const NO_PROMPT: Kind = Kind {
    id: "overlong-no-prompt",
    level: Level::Warning,
    message: "rows of more than `max_seq_len` tokens without a prompt of their own (raw texts, judged steps, \
              several learned turns) are left out",
    hint: "raise `data.max_seq_len`, or cut texts and conversations into parts with `data.overlong=split`",
};
const SPLIT_TEXT: Kind = Kind {
    id: "overlong-split-text",
    level: Level::Note,
    message: "texts of more than `max_seq_len` tokens are split into windows, of which the last one ends the text",
    hint: "raise `data.max_seq_len` to keep them whole",
};
pub(crate) const SPLIT_CONVERSATION: Kind = Kind {
    id: "overlong-split-conversation",
    level: Level::Warning,
    message: "parts of conversations of more than `max_seq_len` tokens do not see the turns before them",
    hint: "raise `data.max_seq_len` to keep the conversations whole",
};
pub(crate) const CANNOT_SPLIT: Kind = Kind {
    id: "overlong-cannot-split",
    level: Level::Warning,
    message: "rows or turns that alone have more than `max_seq_len` tokens are left out",
    hint: "raise `data.max_seq_len` to train on them",
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;

    const PROMPT: Beginning = Beginning { is_prompt: true, bos: None };

    fn sequence(prompt: usize, answer: usize) -> Sequence {
        let file = std::path::Path::new("a.jsonl").into();
        let len = prompt + answer;
        Sequence {
            row: 0,
            part: 0,
            role: 0,
            tokens: vec![1; len],
            weights: (0..len).map(|i| if i < prompt { 0.0 } else { 1.0 }).collect(),
            place: Place { file, line: len, element: None },
        }
    }

    #[track_caller]
    fn check(overlong: Overlong, expected: &[usize], ids: &[&str]) {
        let mut findings = Findings::default();
        let rows = [sequence(2, 2), sequence(4, 4), sequence(7, 2), sequence(3, 3)];
        let rows = rows.into_iter().zip(0..).map(|(sequence, row)| Sequence { row, ..sequence });
        let rows = rows.collect();
        let kept = limit(rows, 6, overlong, PROMPT, &mut findings).unwrap();
        assert_eq!(kept.iter().map(Sequence::len).collect::<Vec<_>>(), expected);
        assert_eq!(findings.iter().map(|finding| finding.id.as_ref()).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn what_is_cut_or_left_out_is_counted() {
        check(Overlong::Skip, &[4, 6], &["overlong-skipped"]);
        check(Overlong::Truncate, &[4, 6, 6], &["overlong-truncated", "overlong-nothing-left"]);
        check(Overlong::CutPrompt, &[4, 6, 6, 6], &["overlong-prompt-cut"]);
    }

    /// Whether a text of so many tokens is learned as before: each token but the first once, in order.
    #[track_caller]
    fn check_windows(len: u32, max: usize, lengths: &[usize]) {
        let mut text = sequence(1, len as usize - 1);
        text.tokens = (0..len).collect();
        let windows =
            apply(vec![text], max, Overlong::Split, PROMPT, &mut Findings::default()).unwrap();
        assert_eq!(windows.iter().map(Sequence::len).collect::<Vec<_>>(), lengths);
        let learned = |window: &Sequence| {
            let pairs = window.tokens.clone().into_iter().zip(window.weights.clone());
            pairs.filter(|(_, weight)| *weight != 0.0).map(|(token, _)| token).collect::<Vec<_>>()
        };
        let all: Vec<u32> = windows.iter().flat_map(learned).collect();
        assert_eq!(all, (1..len).collect::<Vec<_>>());
    }

    #[test]
    fn texts_become_windows() {
        check_windows(6, 6, &[6]);
        check_windows(7, 6, &[6, 2]);
        check_windows(11, 6, &[6, 6]);
        check_windows(13, 6, &[6, 6, 3]);
        check_windows(5, 2, &[2, 2, 2, 2]);
        check(Overlong::Split, &[4, 6], &["overlong-cannot-split"]);
    }

    #[test]
    fn pairs_stand_or_fall_together() {
        for (overlong, expected) in [
            (Overlong::Skip, 0),
            (Overlong::Split, 0),
            (Overlong::Truncate, 2),
            (Overlong::CutPrompt, 0),
        ] {
            let rejected = Sequence { role: 1, ..sequence(4, 4) };
            let mut findings = Findings::default();
            let kept = apply(vec![sequence(2, 2), rejected], 6, overlong, PROMPT, &mut findings);
            let kept = kept.unwrap();
            assert_eq!((kept.len(), findings.iter().count()), (expected, 1));
        }
    }

    #[test]
    fn an_error_names_rows_and_lengths() {
        let second = Sequence { row: 1, ..sequence(7, 2) };
        let rows = vec![sequence(2, 2), sequence(4, 4), second];
        let error = limit(rows, 6, Overlong::Error, PROMPT, &mut Findings::default()).unwrap_err();
        let expected = "a.jsonl:8: row has 8 tokens, more than 6\n\
                        a.jsonl:9: row has 9 tokens, more than 6";
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().unwrap().starts_with("`data.max_seq_len=9` takes them all"));
    }
}
