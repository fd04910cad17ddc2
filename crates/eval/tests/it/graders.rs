//! Graders over the references of published data sets.

use std::path::PathBuf;

use eval::grader::{Grader, by_name};
use eval::probe;
use serde_json::{Map, Value};

/// A file of the shared data; nothing, with a message, where it is missing.
#[allow(clippy::print_stderr)]
fn shared(file: &str) -> Option<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(file);
    let text = std::fs::read_to_string(path).ok();
    if text.is_none() {
        eprintln!("skipped: the shared data have no {file}");
    }
    text
}

fn number() -> Box<dyn Grader> {
    by_name("number", &Map::new()).expect("exists")
}

#[test]
fn references_of_gsm8k_grade_themselves() {
    for file in ["gsm8k/test.jsonl", "gsm8k/train.jsonl"] {
        let Some(text) = shared(file) else { return };
        let rows: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
        let grader = number();
        let mut others = 0.0;
        for (index, row) in rows.iter().enumerate() {
            let reference = &row["answer"];
            let solution = reference.as_str().expect("a text");
            let (reasoning, answer) = solution.split_once("#### ").expect("a marked answer");
            assert_eq!(grader.reference_problem(reference), None, "{solution}");
            // As it is written, the number alone, and as chat models write it.
            let plain = answer.replace(',', "");
            let written = [
                solution.to_owned(),
                answer.to_owned(),
                format!("{reasoning}\nThe answer is **${plain}.00**."),
                format!("{reasoning}\n\\boxed{{{plain}}}"),
            ];
            for written in written {
                assert_eq!(grader.reward(&written, reference), 1.0, "{written}");
            }
            let other = rows[(index + 1) % rows.len()]["answer"].as_str().expect("a text");
            others += grader.reward(other, reference);
        }
        // Neighbours have the same answer now and then.
        assert!(others / (rows.len() as f64) < 0.03, "{file}: {others} of {}", rows.len());
    }
}

#[test]
fn references_of_math500_grade_themselves() {
    let Some(text) = shared("math500/math500_test.json") else { return };
    let rows: Vec<Value> = serde_json::from_str(&text).expect("rows");
    let grader = number();
    for row in &rows {
        let (reference, solution) = (&row["answer"], row["solution"].as_str().expect("a text"));
        assert_eq!(grader.reference_problem(reference), None, "{reference}");
        assert_eq!(grader.reward(reference.as_str().expect("a text"), reference), 1.0);
        assert_eq!(grader.reward(solution, reference), 1.0, "{reference}: {solution}");
    }
}

#[test]
fn a_probe_of_gsm8k_finds_nothing() {
    for file in ["gsm8k/test.jsonl", "gsm8k/train.jsonl"] {
        let Some(text) = shared(file) else { return };
        let rows: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
        let rows: Vec<probe::Row<'_>> = rows
            .iter()
            .map(|row| probe::Row {
                prompt: row["question"].as_str().expect("a text"),
                expected: &row["answer"],
            })
            .collect();
        let settings = probe::Settings { rows: 1000, ..probe::Settings::default() };
        let grader = number();
        let mut score = |answers: &[(usize, String)]| {
            let reward =
                |(row, answer): &(usize, String)| grader.reward(answer, rows[*row].expected);
            Ok::<Vec<Option<f64>>, String>(
                answers.iter().map(|answer| Some(reward(answer))).collect(),
            )
        };
        for report in [
            probe::grader(grader.as_ref(), &rows),
            probe::probe(&rows, &settings, &mut score).expect("scores"),
        ] {
            assert!(report.findings.is_empty(), "{report}");
            assert_eq!(report.scores[0].mean, Some(1.0), "{report}");
        }
    }
}
