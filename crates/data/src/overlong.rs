//! What happens to rows that are longer than the model is trained on.

use crate::finding::Kind;
use crate::{Error, Findings, Level, Result, RowError, Sequence};

/// What to do with a row of more than `max_seq_len` tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlong {
    /// Name it and stop.
    #[default]
    Error,
    /// Keep its first `max_seq_len` tokens.
    Truncate,
    /// Leave it out.
    Skip,
}

/// Applies `overlong` to every sequence of more than `max_seq_len` tokens.
///
/// Whatever is cut or left out is counted in `findings`.
pub fn limit(
    sequences: Vec<Sequence>,
    max_seq_len: usize,
    overlong: Overlong,
    findings: &mut Findings,
) -> Result<Vec<Sequence>> {
    let (mut kept, mut long) = (Vec::with_capacity(sequences.len()), Vec::new());
    for mut sequence in sequences {
        if sequence.len() <= max_seq_len {
            kept.push(sequence);
            continue;
        }
        match overlong {
            Overlong::Error => long.push(sequence),
            Overlong::Skip => findings.add(&SKIPPED, &sequence.place),
            Overlong::Truncate => {
                sequence.tokens.truncate(max_seq_len);
                sequence.weights.truncate(max_seq_len);
                if sequence.supervised() == 0 {
                    findings.add(&NOTHING_LEFT, &sequence.place);
                } else {
                    findings.add(&TRUNCATED, &sequence.place);
                    kept.push(sequence);
                }
            }
        }
    }
    match long.iter().map(Sequence::len).max() {
        None => Ok(kept),
        Some(longest) => Err(Error::Rows {
            rows: long.iter().map(|sequence| too_long(sequence, max_seq_len)).collect(),
            hint: Some(format!(
                "`data.max_seq_len={longest}` takes them all; \
                 `data.overlong=truncate` or `skip` cuts or leaves them"
            )),
        }),
    }
}

fn too_long(sequence: &Sequence, max_seq_len: usize) -> RowError {
    let message = format!("row has {} tokens, more than {max_seq_len}", sequence.len());
    RowError::new(&sequence.place, message)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;

    fn sequence(prompt: usize, answer: usize) -> Sequence {
        let file = std::path::Path::new("a.jsonl").into();
        let len = prompt + answer;
        Sequence {
            row: 0,
            group: 0,
            role: 0,
            tokens: vec![1; len],
            weights: (0..len).map(|i| if i < prompt { 0.0 } else { 1.0 }).collect(),
            place: Place { file, line: len, element: None },
        }
    }

    #[track_caller]
    fn check(overlong: Overlong, expected: &[usize], ids: &[&str]) {
        let mut findings = Findings::default();
        let rows = vec![sequence(2, 2), sequence(4, 4), sequence(7, 2), sequence(3, 3)];
        let kept = limit(rows, 6, overlong, &mut findings).unwrap();
        assert_eq!(kept.iter().map(Sequence::len).collect::<Vec<_>>(), expected);
        assert_eq!(findings.iter().map(|finding| finding.id).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn what_is_cut_or_left_out_is_counted() {
        check(Overlong::Skip, &[4, 6], &["overlong-skipped"]);
        check(Overlong::Truncate, &[4, 6, 6], &["overlong-truncated", "overlong-nothing-left"]);
    }

    #[test]
    fn an_error_names_rows_and_lengths() {
        let rows = vec![sequence(2, 2), sequence(4, 4), sequence(7, 2)];
        let error = limit(rows, 6, Overlong::Error, &mut Findings::default()).unwrap_err();
        let expected = "a.jsonl:8: row has 8 tokens, more than 6\n\
                        a.jsonl:9: row has 9 tokens, more than 6";
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().unwrap().starts_with("`data.max_seq_len=9` takes them all"));
    }
}
