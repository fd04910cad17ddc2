//! Classifiers: the loss against PyTorch and finite differences, and whole runs.

use std::fs;

use model::HeadOutputs;
use model::adapter::LoadedAdapter;
use serde_json::{Value, json};
use text::{Batch, LastRead};
use train::method::Classify;
use train::objective::{Fold, MicroOutputs, Objective as _, Outcome};
use train::run::Occupied;
use train::step::{SequenceInfo, StepPlan};

use crate::support::{Fixture, How, floats, golden_json, read_json};

/// What the loss makes of logits, `[rows][classes]`, in micro-batches of `each` rows.
fn outcomes(
    objective: &Classify,
    logits: &[Vec<f32>],
    labels: &[usize],
    each: usize,
) -> Vec<Outcome> {
    let info = |index| SequenceInfo { unit: index as u32, role: 0 };
    let mut plan = StepPlan::from_micros(Vec::new(), (0..logits.len()).map(info).collect());
    plan.sides = labels
        .iter()
        .map(|&label| json!({"label": objective.classes[label]}).as_object().unwrap().clone())
        .collect();
    let all: Vec<usize> = (0..logits.len()).collect();
    let micros = all.chunks(each).map(|sequences| {
        // Reads stand in another order than the rows.
        let count = sequences.len() as u32;
        let last_reads = (0..count).map(|row| LastRead {
            read: count - 1 - row,
            sequence: sequences[row as usize] as u32,
        });
        let batch = Batch {
            last_reads: last_reads.collect(),
            reads: (0..count).collect(),
            ..Batch::default()
        };
        let value = sequences.iter().rev().flat_map(|&row| logits[row].clone()).collect();
        (batch, sequences, HeadOutputs { value, ..HeadOutputs::default() })
    });
    micros
        .map(|(batch, sequences, policy)| {
            let (batch, policy) = (&batch, &policy);
            let micro = MicroOutputs { batch, sequences, policy, extra: &[], before: &[] };
            objective.evaluate(&[micro], &plan).remove(0)
        })
        .collect()
}

/// Loss, and derivatives by the logits in the order of rows.
fn loss(
    objective: &Classify,
    logits: &[Vec<f32>],
    labels: &[usize],
    each: usize,
) -> (f64, Vec<f32>) {
    let (mut shares, mut slopes) = (Vec::new(), Vec::new());
    for outcome in outcomes(objective, logits, labels, each) {
        shares.extend(outcome.loss);
        let of_reads = outcome.gradients.value.unwrap();
        slopes.extend(of_reads.chunks(logits[0].len()).rev().flatten().copied());
    }
    (Fold::Sum.of(shares), slopes)
}

fn objective(classes: usize, weights: &[f64]) -> Classify {
    let classes = (0..classes).map(|index| format!("class {index}")).collect();
    Classify { classes, weights: weights.to_vec() }
}

fn near(actual: f64, expected: f64, what: &str) {
    let bound = 2e-6 * expected.abs().max(1e-2);
    assert!((actual - expected).abs() <= bound, "{what}: {actual}, expected {expected}");
}

#[test]
fn the_loss_equals_pytorchs() {
    let golden = golden_json("class_losses.json");
    for case in golden["cases"].as_array().unwrap() {
        let rows = |key: &str| -> Vec<Vec<f32>> {
            case[key].as_array().unwrap().iter().map(floats).collect()
        };
        let (logits, gradient) = (rows("logits"), rows("gradient"));
        let labels: Vec<usize> = serde_json::from_value(case["labels"].clone()).unwrap();
        let weights: Vec<f64> = serde_json::from_value(case["weights"].clone()).unwrap();
        let objective = objective(logits[0].len(), &weights);
        for each in [1, 2, labels.len()] {
            let (loss, slopes) = loss(&objective, &logits, &labels, each);
            near(loss, case["loss"].as_f64().unwrap(), "loss");
            for (slope, expected) in slopes.iter().zip(gradient.iter().flatten()) {
                near(f64::from(*slope), f64::from(*expected), "slope");
            }
        }
    }
}

#[test]
fn slopes_are_finite_differences() {
    let logits = vec![vec![0.25, -1.5, 0.5, 2.0], vec![1.0, 0.0, -0.75, 0.125]];
    let (labels, objective) = ([3, 1], objective(4, &[1.0, 2.5, 0.5, 0.75]));
    let slopes = loss(&objective, &logits, &labels, 2).1;
    // Powers of two, so that logits move by exactly the step.
    let step = 2.0f32.powi(-8);
    for row in 0..2 {
        for class in 0..4 {
            let at = |by: f32| {
                let mut moved = logits.clone();
                moved[row][class] += by * step;
                loss(&objective, &moved, &labels, 2).0
            };
            let near_by = 8.0 * (at(1.0) - at(-1.0));
            let difference = (near_by - at(2.0) + at(-2.0)) / (12.0 * f64::from(step));
            let slope = f64::from(slopes[row * 4 + class]);
            assert!((difference - slope).abs() < 1e-7, "{row} {class}: {difference} {slope}");
        }
    }
}

#[test]
fn predictions_are_the_largest_logits() {
    let logits = vec![vec![0.0, 1.0, 1.0], vec![2.0, 0.0, 1.0], vec![0.0, 0.0, 0.0]];
    let outcome = outcomes(&objective(3, &[]), &logits, &[1, 2, 0], 3).remove(0);
    let found: Vec<(usize, u32, u32)> =
        outcome.classified.iter().map(|(row, c)| (*row, c.label, c.predicted)).collect();
    assert_eq!(found, [(0, 1, 1), (1, 2, 0), (2, 0, 0)]);
    assert_eq!(outcome.metrics[0].name, "accuracy");
    let accuracy = outcome.metrics[0].fold.of(outcome.metrics[0].shares.clone());
    assert!((accuracy - 2.0 / 3.0).abs() < 1e-12);
}

/// Fifteen texts of three classes, told apart by a word.
fn texts() -> Vec<Value> {
    let words = [
        ("glad", ["yes", "fine", "good", "nice", "great"]),
        ("calm", ["hm", "so", "well", "ok", "right"]),
        ("sad", ["no", "bad", "ill", "lost", "late"]),
    ];
    let row =
        |(label, word): (&str, &str)| json!({"text": format!("{word} {label}"), "label": label});
    (0..5).flat_map(|i| words.map(|(label, words)| row((label, words[i])))).collect()
}

fn fixture(rows: &[Value]) -> Fixture {
    let mut fixture = Fixture::new();
    write(&fixture, "rows.jsonl", rows);
    let validated = "{train: rows.jsonl, validation: {fraction: 0.2, by: row, stratify: label}}";
    fixture.recipe = fixture.recipe.replace("{train: rows.jsonl}", validated);
    let often = "save: {steps: 3}\n  evaluate_every: 2";
    fixture.recipe = fixture.recipe.replace("save: {steps: 3}", often);
    fixture.recipe = fixture.recipe.replace("method: sft", "method: classify");
    fixture
}

fn write(fixture: &Fixture, name: &str, rows: &[Value]) {
    let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    fs::write(fixture.path(name), lines).unwrap();
}

fn events<'a>(events: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event["event"] == kind)
}

#[test]
fn a_classifier_learns_its_classes_and_is_written_for_peft() {
    let fixture = fixture(&texts());
    let overrides = &["train.max_steps=40", "train.learning_rate=2e-2", "train.batch_size=6"];
    let summary = fixture.train("run", &How { overrides, ..How::default() }).unwrap();
    let all = fixture.events("run");
    let step = events(&all, "step").next().unwrap();
    // A row is read once, at its last token.
    assert_eq!((step["rows"].as_u64(), step["tokens_supervised"].as_u64()), (Some(6), Some(6)));
    let first = step["loss"].as_f64().unwrap();
    assert!((first - 3.0f64.ln()).abs() < 0.2, "{first}");
    let last = events(&all, "step").last().unwrap();
    assert_eq!(last["metrics"]["accuracy"], 1.0, "{last}");
    let evaluated = events(&all, "evaluated").last().unwrap();
    assert!(evaluated["metrics"]["macro_f1"].is_number(), "{evaluated}");
    assert_eq!(summary.validation_by.as_deref(), Some("accuracy"));

    let report = summary.classification.unwrap();
    assert_eq!(report.rows, 3);
    let names: Vec<&str> = report.classes.iter().map(|class| class.class.as_str()).collect();
    assert_eq!(names, ["calm", "glad", "sad"]);
    assert_eq!(Some(report.accuracy.mean), summary.validation_best);
    let page = fs::read_to_string(fixture.path("run/report.md")).unwrap();
    assert!(page.contains("## Classes") && page.contains("macro F1"), "{page}");

    let config = read_json(&fixture.path("run/adapter/adapter_config.json"));
    assert_eq!(config["task_type"], "SEQ_CLS");
    let own = read_json(&fixture.path("run/adapter/tunesmith.json"));
    assert_eq!(own["classes"], json!(["calm", "glad", "sad"]));
    let shape = &fixture.base().config;
    let (_, head) = LoadedAdapter::read_scored(&fixture.path("run/adapter"), shape).unwrap();
    assert_eq!(head.unwrap().len(), 3 * shape.hidden_size);
    let card = fs::read_to_string(fixture.path("run/adapter/README.md")).unwrap();
    assert!(
        card.contains("num_labels=3") && card.contains(r#"{"0":"calm","1":"glad","2":"sad"}"#),
        "{card}"
    );

    // It goes on from there, with the same classes only.
    let start = Some(fixture.path("run/adapter"));
    let how = How { overrides: &["train.max_steps=2"], start: start.clone(), ..How::default() };
    fixture.train("more", &how).unwrap();
    let more = fixture.events("more");
    let next = events(&more, "step").next().unwrap()["loss"].as_f64().unwrap();
    assert!(next < first, "{next} {first}");
    let others = ["objective.classes=[sad, glad, calm]"];
    let error = fixture.train("other", &How { overrides: &others, start, ..How::default() });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("gives the classes calm, glad, sad"), "{error}");
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bits() {
    let fixture = fixture(&texts());
    let overrides = &["adapter.dropout=0.2", "objective.class_weights=balanced"];
    let how = |occupied, threads| How { occupied, overrides, threads, ..How::default() };
    fixture.train("whole", &how(Occupied::Refuse, 2)).unwrap();
    fixture.train_until("run", &how(Occupied::Refuse, 1), 4).unwrap();
    fixture.train("run", &how(Occupied::Resume, 3)).unwrap();
    assert_eq!(fixture.steps("run"), fixture.steps("whole"));
    assert!(fixture.adapter_bytes("run") == fixture.adapter_bytes("whole"));
}

#[test]
fn micro_batches_change_no_bit() {
    let fixture = fixture(&texts());
    for tokens in ["4096", "20"] {
        let overrides = &[&*format!("micro_batch_tokens={tokens}"), "train.batch_size=6"];
        fixture.train(tokens, &How { overrides, ..How::default() }).unwrap();
    }
    let counts = ["4096", "20"].map(|run| {
        let all = fixture.events(run);
        events(&all, "step").map(|step| step["micro_batches"].as_u64().unwrap()).sum::<u64>()
    });
    assert!(counts[0] < counts[1], "{counts:?}");
    assert_eq!(fixture.steps("4096"), fixture.steps("20"));
    assert!(fixture.adapter_bytes("4096") == fixture.adapter_bytes("20"));
}

#[test]
fn rare_classes_weigh_more_where_they_are_balanced() {
    let mut rows = texts();
    rows.retain(|row| row["label"] != "sad");
    rows.truncate(7);
    let mut fixture = fixture(&rows);
    let whole = ", validation: {fraction: 0.2, by: row, stratify: label}";
    fixture.recipe = fixture.recipe.replace(whole, "");
    let overrides = &["objective.class_weights=balanced", "train.max_steps=1"];
    fixture.train("run", &How { overrides, ..How::default() }).unwrap();
    let recipe = fs::read_to_string(fixture.path("run/recipe.yaml")).unwrap();
    // Four glad and three calm: 7 / (2 · 3) and 7 / (2 · 4).
    assert!(recipe.contains("1.1666") && recipe.contains("0.875"), "{recipe}");
}

#[track_caller]
fn check_refused(fixture: &Fixture, overrides: &[&str], message: &str) {
    let error = match fixture.try_document(overrides) {
        Ok(_) => fixture.train("refused", &How { overrides, ..How::default() }).unwrap_err(),
        Err(error) => train::Error::Recipe(error),
    };
    assert!(error.to_string().contains(message), "{error}");
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
    assert!(!fixture.path("refused").exists(), "nothing is left behind");
}

#[test]
fn what_a_classifier_cannot_take_is_refused() {
    let three = fixture(&texts());
    check_refused(&three, &["adapter={type: none}"], "writes its model as an adapter");
    check_refused(&three, &["objective.classes=[calm, glad]"], "the label `sad` is not one of");
    check_refused(&three, &["objective.classes=[calm, glad, sad, sad]"], "stands there twice");
    check_refused(&three, &["objective.weights=[1, 2]"], "2 weights for 3 classes");
    check_refused(
        &three,
        &["objective.classes=[calm, glad, sad, wild]", "objective.class_weights=balanced"],
        "no training row has the class `wild`",
    );
    check_refused(&three, &["train.sample.prompts=[hi]"], "gives scores");
    check_refused(&three, &["objective.beta=0.1"], "`objective.beta` has no effect");

    let one: Vec<Value> = texts().into_iter().filter(|row| row["label"] == "sad").collect();
    check_refused(&fixture(&one), &[], "the label `sad` is that of every training row");
    let mut unlabelled = texts();
    unlabelled[4]["label"] = Value::Null;
    check_refused(&fixture(&unlabelled), &[], "rows.jsonl:5: `label` is null");

    let mut unseen = fixture(&texts());
    write(&unseen, "held.jsonl", &[json!({"text": "oh", "label": "wild"})]);
    let held = "validation: held.jsonl";
    unseen.recipe =
        unseen.recipe.replace("validation: {fraction: 0.2, by: row, stratify: label}", held);
    check_refused(&unseen, &[], "held.jsonl:1: no training row has the label `wild`");
}
