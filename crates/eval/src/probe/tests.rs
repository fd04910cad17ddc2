//! Every finding has a grader that raises it; healthy graders raise none.

use serde_json::{Value, json};

use super::*;
use crate::grader::{Grades, by_name};

/// Word problems with short answers, as gsm8k has them. The prompt ends with a number that is not the answer.
fn problems() -> Vec<(String, Value)> {
    let row = |i: u64| {
        let (a, b) = (3 + i * 7 % 40, 2 + i * 11 % 30);
        let prompt = format!(
            "Ann has {a} bags of {b} eggs. How many eggs are that in all, if she breaks {}?",
            i % 3
        );
        let answer = a * b - i % 3;
        (
            prompt,
            json!(format!("She has {a} * {b} = {} eggs, and breaks some.\n#### {answer}", a * b)),
        )
    };
    (0..40).map(row).collect()
}

/// Rows with references that are other things.
fn texts(references: &[&str]) -> Vec<(String, Value)> {
    references
        .iter()
        .map(|r| (format!("Which of {} is it?", references.join(", ")), json!(r)))
        .collect()
}

fn rows(owned: &[(String, Value)]) -> Vec<Row<'_>> {
    owned.iter().map(|(prompt, expected)| Row { prompt, expected }).collect()
}

#[track_caller]
fn check(name: &str, options: Value, owned: &[(String, Value)], expected: &[&str]) -> Report {
    let options = options.as_object().expect("options are an object");
    let made = by_name(name, options).expect("good options");
    let report = grader(made.as_ref(), &rows(owned));
    let ids: Vec<&str> = report.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(ids, expected, "{report}");
    report
}

/// A grader made of a closure.
struct Scorer<F>(F);

impl<F: Fn(&str, &str) -> f64 + Send + Sync> Grader for Scorer<F> {
    fn grade(&self, answer: &str, expected: &Value) -> Grades {
        let mut grades = Grades::default();
        grades.insert("score", (self.0)(answer, expected.as_str().unwrap_or_default()));
        grades
    }

    fn primary(&self) -> &'static str {
        "score"
    }
}

/// The findings about a closure over rows with the references `red`, `green` and `blue`.
#[track_caller]
fn finds(score: impl Fn(&str, &str) -> f64 + Send + Sync, expected: &[&str]) -> Report {
    let owned = texts(&["red", "green", "blue"]);
    let report = grader(&Scorer(score), &rows(&owned));
    let ids: Vec<&str> = report.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(ids, expected, "{report}");
    report
}

#[test]
fn healthy_graders_raise_nothing() {
    let report = check("number", json!({}), &problems(), &[]);
    assert_eq!(report.rows, ROWS);
    assert_eq!(report.scores[0].mean, Some(1.0));
    assert_eq!(report.form, "{}");
    for place in ["####", "Answer:", "boxed", "<answer>"] {
        check("number", json!({"extract": place}), &problems(), &[]);
    }
    let short: Vec<_> = problems()
        .into_iter()
        .map(|(p, r)| {
            let (_, answer) = r.as_str().unwrap().split_once("#### ").unwrap();
            (p, json!(answer))
        })
        .collect();
    check("number", json!({}), &short, &[]);
    check("choice", json!({}), &texts(&["A", "B", "C", "D"]), &[]);
    let objects = [json!({"a": 1, "b": 2}), json!({"a": 2, "b": 3}), json!(r#"{"a":5}"#)];
    let objects = objects.map(|object| ("Make an object.".to_owned(), object));
    check("json", json!({}), &objects, &[]);
    let loose = json!({"extract": "<answer>", "ignore_case": true, "ignore_punctuation": true});
    check("exact", loose, &texts(&["red", "green", "blue"]), &[]);
}

#[test]
fn graders_of_form_raise_nothing_about_content() {
    check("format_tags", json!({}), &problems(), &[]);
    check("length", json!({"min": 5}), &problems(), &[]);
    check("language", json!({"language": "en"}), &problems(), &[]);
    check("regex", json!({"pattern": "eggs"}), &problems(), &[]);
    check("repetition", json!({}), &problems(), &["grader-rewards-empty"]);
    check("length", json!({"max": 50}), &problems(), &["grader-rewards-empty"]);
}

#[test]
fn bad_answers_that_score_are_found() {
    let right = |answer: &str, expected: &str| answer.contains(expected);
    let score = |yes: bool| f64::from(u8::from(yes));
    finds(move |a, e| score(right(a, e) && !a.contains("Which")), &[]);
    let report = finds(
        move |a, e| score((right(a, e) && !a.contains("Which")) || a.is_empty()),
        &["grader-rewards-empty"],
    );
    assert_eq!(
        report.findings[0].message,
        "an empty answer scores 1.00 on average, the reference 1.00"
    );
    let report = finds(move |a, e| score(right(a, e)), &["grader-rewards-echo"]);
    let example = report.findings[0].example.as_ref().unwrap();
    assert_eq!((example.row, example.score), (0, 1.0));
    assert!(example.answer.starts_with("Which of red"), "{example:?}");
    let polite = move |a: &str, e: &str| {
        score(right(a, e) && !a.contains("Which")).max(0.4 * score(a.contains("sorry")))
    };
    let report = finds(polite, &["grader-rewards-refusal"]);
    assert_eq!(report.findings[0].message, "a refusal scores 0.40 on average, the reference 1.00");
}

#[test]
fn lists_of_numbers_are_found() {
    let small: Vec<_> = (0..20)
        .map(|i| {
            (format!("What comes after {}?", ["one", "two"][i % 2]), json!(format!("{}", 3 * i)))
        })
        .collect();
    check("contains", json!({}), &small, &["grader-rewards-number-list"]);
    let extract = json!({"extract": "<answer>"});
    let report = check("contains", extract, &small, &["grader-rewards-number-list"]);
    assert!(report.findings[0].message.starts_with("all numbers, in the form of the reference"));
}

#[test]
fn a_missed_reference_is_found() {
    // The answers are words, and the grader looks for letters of choices.
    let owned = [texts(&["A", "B", "C"]), texts(&["red", "green"])].concat();
    check("choice", json!({}), &owned, &["grader-misses-reference"]);
    // A reference that can get half of the declared range only.
    let settings = Settings { range: Some([0.0, 2.0]), ..Settings::default() };
    let owned = texts(&["red", "green", "blue"]);
    let rows = rows(&owned);
    let mut score = |answers: &[(usize, String)]| {
        let right = |(row, a): &(usize, String)| {
            let expected = rows[*row].expected.as_str().unwrap();
            Some(f64::from(u8::from(a.contains(expected) && !a.contains("Which"))))
        };
        Ok::<Vec<Option<f64>>, String>(answers.iter().map(right).collect())
    };
    let report = probe(&rows, &settings, &mut score).unwrap();
    assert_eq!(report.findings[0].id, "grader-misses-reference");
    assert_eq!(
        report.findings[0].message,
        "the reference scores 1.00 on average, the best answer 2.00"
    );
}

#[test]
fn a_score_without_the_reference_is_found() {
    let colour = |a: &str, _: &str| {
        let named = ["red", "green", "blue"].iter().any(|c| a.contains(c)) && !a.contains("Which");
        f64::from(u8::from(named))
    };
    finds(colour, &["grader-rewards-other-reference"]);
    let close = json!({"tolerance": 10_000});
    let all =
        ["grader-rewards-echo", "grader-rewards-number-list", "grader-rewards-other-reference"];
    check("number", close, &problems(), &all);
}

#[test]
fn a_grader_of_letters_misses_rewordings() {
    let report =
        check("exact", json!({}), &texts(&["1200", "15", "7000"]), &["grader-misses-rewording"]);
    let message = &report.findings[0].message;
    for missed in [
        "in a sentence 0.00",
        "in bold 0.00",
        "a full stop 0.00",
        "with decimals 0.00",
        "separators 0.00",
    ] {
        assert!(message.contains(missed), "{message}");
    }
    assert!(!message.contains("space around it"), "{message}");
}

#[test]
fn a_constant_score_is_found() {
    let report = finds(|_, _| 0.5, &["grader-constant"]);
    assert_eq!(report.findings[0].message, "all 33 answers score 0.5");
    // Nothing that is tried is ever right.
    finds(|_, _| 0.0, &["grader-constant"]);
}

#[test]
fn scores_may_be_below_zero() {
    let signed = |a: &str, e: &str| if a.contains(e) && !a.contains("Which") { 1.0 } else { -1.0 };
    finds(signed, &[]);
    let signed = |a: &str, e: &str| {
        if a.contains(e) && !a.contains("Which") || a.is_empty() { 1.0 } else { -1.0 }
    };
    finds(signed, &["grader-rewards-empty"]);
}

#[test]
fn answers_without_a_score_are_counted() {
    let owned = texts(&["red", "green", "blue"]);
    let rows = rows(&owned);
    let mut none =
        |answers: &[(usize, String)]| Ok::<Vec<Option<f64>>, String>(vec![None; answers.len()]);
    let report = probe(&rows, &Settings::default(), &mut none).unwrap();
    assert_eq!(report.findings[0].id, "grader-silent");
    assert_eq!((report.scores[0].scored, report.scores[0].failed), (0, 3));
    let mut nan = |answers: &[(usize, String)]| {
        Ok::<Vec<Option<f64>>, String>(vec![Some(f64::NAN); answers.len()])
    };
    assert_eq!(
        probe(&rows, &Settings::default(), &mut nan).unwrap().findings[0].id,
        "grader-silent"
    );
    let mut broken =
        |_: &[(usize, String)]| Err::<Vec<Option<f64>>, _>("the program died".to_owned());
    assert_eq!(probe(&rows, &Settings::default(), &mut broken).unwrap_err(), "the program died");
}

#[test]
fn without_rows_nothing_is_found() {
    let made = by_name("number", &serde_json::Map::new()).unwrap();
    let report = grader(made.as_ref(), &[]);
    assert_eq!((report.rows, report.findings.len()), (0, 0));
}

#[test]
fn rows_are_taken_evenly() {
    assert_eq!(evenly(10, 4), [0, 2, 5, 7]);
    assert_eq!(evenly(2, 4), [0, 1]);
    assert!(evenly(0, 4).is_empty());
}

#[test]
fn a_report_is_a_table() {
    let report = check("contains", json!({}), &texts(&["red", "green"]), &["grader-rewards-echo"]);
    let text = report.to_string();
    assert!(text.starts_with("2 rows, references written as \"{}\"\n"), "{text}");
    assert!(text.contains(&format!("{:<46}{:>8}\n", "the prompt itself", "1.00")), "{text}");
    assert!(
        text.contains("(row 1: \"Which of red, green is it?\" scores 1.00)\n  let the grader"),
        "{text}"
    );
}
