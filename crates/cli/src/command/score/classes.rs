//! Rows in, classes of a classifier out.

use data::record::{self, Record};
use data::{Findings, Place, RowError, Sequence, source};
use eval::classification::{Classified, Report, report};
use serde::Serialize;
use serde_json::{Map, Value, json};
use session::Scorer;

use super::rows::refuse;
use super::{Arguments, check_finite, tell};
use crate::context::Context;
use crate::error::Result;
use crate::served::Served;
use crate::terminal::style::count;

/// A row that is to be classified, with its class where it has one.
struct Row {
    place: Place,
    label: Option<u32>,
}

/// A row with its classes, as the output has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Scored {
    /// File and line.
    place: String,
    /// The logit of every class.
    scores: Map<String, Value>,
    /// The class with the largest logit.
    label: String,
    /// Whether it is the row's own, where the row has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    correct: Option<bool>,
}

pub(super) fn run(
    arguments: &Arguments,
    context: &Context,
    served: &Served,
    mut scorer: Scorer,
) -> Result<u8> {
    let classes = scorer.classes().unwrap_or_default().to_vec();
    let (rows, sequences) = read(arguments, context, served, &scorer, &classes)?;
    let logits = scorer.score(&sequences, arguments.batch_tokens as usize)?;
    let (scored, classified) = classify(&rows, &logits, &classes)?;
    let report = report(&classified, &classes, 0);
    tell(arguments, context, &scored, summary(scored.len(), report.as_ref()))?;
    Ok(0)
}

/// Reads all rows. All that cannot be scored are named in the error.
fn read(
    arguments: &Arguments,
    context: &Context,
    served: &Served,
    scorer: &Scorer,
    classes: &[String],
) -> Result<(Vec<Row>, Vec<Sequence>)> {
    let mut findings = Findings::default();
    let (mut rows, mut sequences, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    for file in source::expand(&arguments.data)? {
        let read = source::read(&file)?;
        let reading = served.reading(&file, &read);
        for record in record::to_classify(read, &reading, &mut findings)? {
            let own = scorer.sequences(rows.len() as u64, &record, &mut findings);
            match label(&record, classes).and_then(|label| Ok((label, own?))) {
                Ok((label, own)) => {
                    rows.push(Row { place: record.place().clone(), label });
                    sequences.extend(own);
                }
                Err(error) => bad.push(error),
            }
        }
    }
    refuse(bad)?;
    context.warn_of(&findings);
    Ok((rows, sequences))
}

/// Which of the classes a row has; none where it says nothing.
fn label(record: &Record, classes: &[String]) -> std::result::Result<Option<u32>, RowError> {
    let Record::Labelled(labelled) = record else { return Ok(None) };
    let Some(label) = &labelled.label else { return Ok(None) };
    match classes.iter().position(|class| class == label) {
        Some(index) => Ok(Some(index as u32)),
        None => {
            let message = format!("the label `{label}` is none of the model's classes");
            let hint = format!("the classes are {}", classes.join(", "));
            Err(RowError::new(&labelled.place, message).with_hint(hint))
        }
    }
}

/// Gives every row its classes, and pairs of those that the labelled rows have and were given.
fn classify(
    rows: &[Row],
    logits: &[f32],
    classes: &[String],
) -> Result<(Vec<Scored>, Vec<Classified>)> {
    let (mut scored, mut classified) = (Vec::with_capacity(rows.len()), Vec::new());
    for (Row { place, label }, own) in rows.iter().zip(logits.chunks(classes.len())) {
        check_finite(place, own)?;
        // The first of equals, as in training.
        let best = (0..own.len()).rev().max_by(|&a, &b| own[a].total_cmp(&own[b])).unwrap_or(0);
        let scores = classes.iter().cloned().zip(own.iter().map(|&score| json!(score)));
        let correct = label.map(|label| label as usize == best);
        let (place, scores, label_given) = (place.to_string(), scores.collect(), &classes[best]);
        scored.push(Scored { place, scores, label: label_given.clone(), correct });
        classified.extend(label.map(|label| Classified { label, predicted: best as u32 }));
    }
    Ok((scored, classified))
}

/// The summary as JSON and as lines.
fn summary(rows: usize, report: Option<&Report>) -> (Value, Vec<String>) {
    let labelled = report.map_or(0, |report| report.rows);
    let number = |number: usize| count(number as u64);
    let mut lines =
        vec![format!("rows        {}, {} with a label", number(rows), number(labelled))];
    lines.extend(report.map(|report| report.to_string().trim_end().to_owned()));
    (json!({"rows": rows, "labelled": labelled, "classification": report}), lines)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn rows_get_the_class_with_the_largest_logit() {
        let place = |line| Place { file: Path::new("a.jsonl").into(), line, element: None };
        let rows = [(1, Some(1)), (2, None), (3, Some(0))];
        let rows = rows.map(|(line, label)| Row { place: place(line), label });
        let classes = ["calm", "glad"].map(str::to_owned);
        let (scored, classified) =
            classify(&rows, &[0.5, 1.5, 2.0, 2.0, -1.0, 3.0], &classes).unwrap();
        let json = serde_json::to_string(&scored[0]).unwrap();
        let expected = r#"{"place":"a.jsonl:1","scores":{"calm":0.5,"glad":1.5},"label":"glad","correct":true}"#;
        assert_eq!(json, expected);
        assert_eq!((scored[1].label.as_str(), scored[1].correct), ("calm", None));
        assert_eq!(scored[2].correct, Some(false));
        assert_eq!(classified.len(), 2);
        let failure = classify(&rows, &[f32::NAN, 0.0], &classes).unwrap_err();
        assert_eq!(
            (failure.message.as_str(), failure.line),
            ("a.jsonl:1: the score is NaN", Some(1))
        );
    }
}
