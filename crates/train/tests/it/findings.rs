//! Findings about a run, each from a small run that goes wrong that way.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Fixture, How};

/// Ids of what a run found in its own figures and samples, in order.
fn found(fixture: &Fixture, run: &str) -> Vec<String> {
    let of_a_step = |event: &Value| event["event"] == "finding" && event["step"].as_u64().is_some();
    let events = fixture.events(run).into_iter().filter(of_a_step);
    events.map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

/// The small model with rows of its own and the recipe's keys changed.
fn fixture(method: &str, rows: &[Value]) -> Fixture {
    let mut fixture = Fixture::new();
    let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    fs::write(fixture.path("rows.jsonl"), lines).unwrap();
    fixture.recipe = fixture.recipe.replace("method: sft", &format!("method: {method}"));
    fixture
}

fn answered(answer: &str) -> Vec<Value> {
    ["a?", "b?", "c?", "d?"]
        .map(|question| json!({"prompt": question, "completion": answer}))
        .into()
}

fn pairs() -> Vec<Value> {
    let pair = |question| json!({"prompt": question, "chosen": "yes", "rejected": "no"});
    ["a?", "b?", "c?", "d?"].map(pair).into()
}

const SAMPLES: &str = "train.sample={prompts: [a?, b?], max_new_tokens: 24}";

#[test]
fn answers_that_repeat_themselves_are_found() {
    let fixture = fixture("sft", &answered("a a a a a a a a a a"));
    let overrides =
        &[SAMPLES, "train.max_steps=150", "train.learning_rate=3e-2", "train.evaluate_every=1"];
    fixture.train("run", &How { overrides, ..How::default() }).unwrap();
    let sampled = fixture.events("run").into_iter().rfind(|event| event["event"] == "sampled");
    let found = found(&fixture, "run");
    assert!(found.contains(&"samples-repeat".to_owned()), "{found:?} {sampled:?}");
}

#[test]
fn answers_that_no_longer_end_are_found() {
    let short = fixture("sft", &answered("yes"));
    let overrides = &["train.max_steps=60", "train.learning_rate=3e-2"];
    short.train("run", &How { overrides, ..How::default() }).unwrap();
    let long = fixture("sft", &answered("abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"));
    let overrides = &[
        SAMPLES,
        "adapter.from=continue",
        "train.max_steps=80",
        "train.learning_rate=2e-2",
        "train.evaluate_every=1",
    ];
    let start = Some(short.path("run/adapter"));
    long.train("run", &How { overrides, start, ..How::default() }).unwrap();
    assert_eq!(found(&long, "run"), ["samples-do-not-end"]);
}

#[test]
fn margins_that_have_nothing_left_to_learn_are_found() {
    for (method, own) in [("dpo", "objective.beta=1"), ("reward", "objective.center=0")] {
        let fixture = fixture(method, &pairs());
        let overrides = &[own, "train.max_steps=100", "train.learning_rate=5e-2"];
        fixture.train("run", &How { overrides, ..How::default() }).unwrap();
        let found = found(&fixture, "run");
        assert!(found.contains(&"margins-saturated".to_owned()), "{method}: {found:?}");
    }
}
