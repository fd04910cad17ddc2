//! Methods that sample answers and learn neither by advantages: by a teacher, and by pairs.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};
use train::events::Event;
use train::trainer::{Control, TeacherModel};

use crate::support::{Fixture, How, ROWS, check_same, figures, read_json, write_json};

const RECIPE: &str = "\
model: ./model
method: distill
adapter: {rank: 4}
data: {train: rows.jsonl, validation: {fraction: 0.2}}
rollout: {group_size: 2, max_new_tokens: 8}
distill: {teacher: ./model}
train:
  max_steps: 6
  batch_size: 3
  learning_rate: 1e-2
  evaluate_every: 2
  save: {steps: 3}
precision: f32
seed: 7
";

fn fixture(changes: &[(&str, &str)]) -> Fixture {
    Fixture::of(RECIPE, changes)
}

/// An adapter that says something of its own.
fn teach(fixture: &Fixture, name: &str) -> TeacherModel {
    let mut sft = Fixture::at(&fixture.path(""));
    sft.recipe = "model: ./model\nmethod: sft\nadapter: {rank: 4}\ndata: {train: rows.jsonl}\n\
                  train: {max_steps: 20, batch_size: 4, learning_rate: 1e-2}\nprecision: f32\n"
        .to_owned();
    sft.train(name, &How::default()).unwrap();
    TeacherModel::OverBase(Some(fixture.path(name).join("adapter")))
}

/// Figures of steps, or of validations.
fn figures_of(fixture: &Fixture, run: &str, kind: &str) -> Vec<Value> {
    let mut figures = figures(fixture, run);
    figures.retain(|event| event["event"] == kind);
    figures
}

/// The loss of the first step, and the last one over held-out prompts.
fn losses(fixture: &Fixture, run: &str) -> (f64, f64) {
    let last = figures_of(fixture, run, "evaluated").pop().unwrap();
    (fixture.steps(run)[0][1], last["validation_loss"].as_f64().unwrap())
}

#[test]
fn a_student_begins_as_itself_and_has_nothing_to_learn_from_it() {
    for beta in ["0", "0.3", "1"] {
        let fixture = fixture(&[("seed: 7", "seed: 7\nobjective: {beta: B}")]);
        let beta = format!("objective.beta={beta}");
        let overrides = &[beta.as_str()];
        fixture.train("run", &How { overrides, ..How::default() }).unwrap();
        for [_, loss, norm, _] in fixture.steps("run") {
            // KL(teacher || student) has two sums of probabilities that differ by rounding.
            assert!(loss == 0.0 && norm < 1e-6, "{beta}: {loss} {norm}");
        }
    }
}

#[test]
fn a_student_comes_nearer_to_its_teacher() {
    let fixture = fixture(&[("max_steps: 6", "max_steps: 40")]);
    let teacher = Some(teach(&fixture, "teacher"));
    for beta in ["0", "0.5", "1"] {
        let (run, beta) = (format!("run-{beta}"), format!("objective.beta={beta}"));
        let overrides = &[beta.as_str()];
        let how = How { overrides, teacher: teacher.clone(), ..How::default() };
        let summary = fixture.train(&run, &how).unwrap();
        assert!(!summary.learns_from_rewards && !summary.gives_scores);
        let (first, last) = losses(&fixture, &run);
        assert!(last < 0.5 * first, "{beta}: {first} to {last}");
    }
}

#[test]
fn micro_batches_threads_and_stops_change_nothing() {
    let fixture = fixture(&[("group_size: 2", "group_size: 2, updates: 2")]);
    let teacher = Some(teach(&fixture, "teacher"));
    let plain = How { teacher: teacher.clone(), ..How::default() };
    fixture.train("whole", &plain).unwrap();
    fixture
        .train("threads", &How { threads: 3, teacher: teacher.clone(), ..How::default() })
        .unwrap();
    check_same(&fixture, "threads", "whole");
    for step in [1, 3, 4] {
        let run = format!("stopped-{step}");
        let how = How { teacher: teacher.clone(), ..How::default() };
        fixture.train_until(&run, &how, step).unwrap();
        // The checkpoint has the teacher.
        fs::rename(fixture.path("teacher"), fixture.path("away")).unwrap();
        fixture.train(&run, &How { teacher: teacher.clone(), ..How::resumed() }).unwrap();
        fs::rename(fixture.path("away"), fixture.path("teacher")).unwrap();
        check_same(&fixture, &run, "whole");
    }
    // What the teacher sees is a part of the run.
    let overrides = &["distill.system=other"];
    let how = How { overrides, teacher: teacher.clone(), ..How::resumed() };
    fixture.train_until("other", &How { teacher: teacher.clone(), ..How::default() }, 3).unwrap();
    let error = fixture.train("other", &how).unwrap_err();
    assert!(error.to_string().contains("teacher_hash"), "{error}");
    let small = &["micro_batch_tokens=96", "share_prefixes=false"];
    let large = &["micro_batch_tokens=4096", "share_prefixes=false"];
    for (run, overrides) in [("small", small), ("large", large)] {
        fixture.train(run, &How { overrides, teacher: teacher.clone(), ..How::default() }).unwrap();
    }
    assert_eq!(fixture.steps("small"), fixture.steps("large"));
    assert!(fixture.adapter_bytes("small") == fixture.adapter_bytes("large"));
}

/// Another model with the same weights says what the base says.
#[test]
fn another_model_teaches_as_the_base_does() {
    let fixture = fixture(&[]);
    let start = teach(&fixture, "start");
    let TeacherModel::OverBase(start) = start else { unreachable!() };
    let other = TeacherModel::Other(Arc::new(fixture.base()));
    for (run, teacher) in [("base", TeacherModel::OverBase(None)), ("other", other)] {
        let how = How { teacher: Some(teacher), start: start.clone(), ..How::default() };
        fixture.train(run, &how).unwrap();
    }
    assert!(fixture.steps("base")[0][1] > 0.0);
    check_same(&fixture, "other", "base");
    // Without a teacher it is the model as it began, the adapter included.
    fixture.train("own", &How { start, ..How::default() }).unwrap();
    assert_eq!(fixture.steps("own")[0][1], 0.0);
}

/// What the teacher sees in its prompt is what there is to learn.
#[test]
fn a_prompt_is_distilled_into_the_model() {
    let fixture = fixture(&[("max_steps: 6", "max_steps: 40")]);
    let rows: String = ROWS
        .iter()
        .map(|(prompt, answer)| {
            json!({"prompt": prompt, "answer": answer, "hint": "cccc"}).to_string() + "\n"
        })
        .collect();
    fs::write(fixture.path("rows.jsonl"), rows).unwrap();
    fs::write(fixture.path("long.txt"), "aaaa bbbb").unwrap();
    let recipes: [&[&str]; 3] = [
        &["distill.system=say b"],
        &["distill.demonstration=hint"],
        &["distill.system_file=long.txt", "distill.demonstration=reference"],
    ];
    for (index, overrides) in recipes.into_iter().enumerate() {
        let run = format!("run-{index}");
        fixture.train(&run, &How { overrides, ..How::default() }).unwrap();
        let (first, last) = losses(&fixture, &run);
        assert!(first > 0.0 && last < 0.9 * first, "{overrides:?}: {first} to {last}");
    }
}

#[test]
fn a_teacher_that_cannot_teach_is_refused() {
    let check = |fixture: &Fixture, how: &How<'_>, place: &str| {
        let error = fixture.train("refused", how).unwrap_err();
        assert!(error.to_string().contains(place), "{error}");
        assert!(error.hint().is_some(), "{error}");
        assert!(!fixture.path("refused/events.jsonl").exists());
    };
    let fixture = fixture(&[]);
    let overrides = &["adapter={type: none}"];
    check(&fixture, &How { overrides, ..How::default() }, "adapter={type: none}");
    let overrides = &["adapter.modules_to_save=[lm_head]"];
    check(&fixture, &How { overrides, ..How::default() }, "adapter.modules_to_save=");
    let overrides = &["tokenizer={add_tokens: [xyz]}"];
    check(&fixture, &How { overrides, ..How::default() }, "tokenizer={");
    let overrides = &["distill.demonstration=nothing"];
    check(&fixture, &How { overrides, ..How::default() }, "rows.jsonl:");
    let long = format!("distill.system={}", "a ".repeat(60));
    check(&fixture, &How { overrides: &[&long], ..How::default() }, "rows.jsonl:");
    let mut nothing = Fixture::at(&fixture.path(""));
    nothing.recipe = fixture.recipe.replace("distill: {teacher: ./model}\n", "");
    check(&nothing, &How::default(), "nothing to learn");
    let overrides = &["distill.model=big"];
    check(&fixture, &How { overrides, ..How::default() }, "distill.model");

    // A model that was made for shorter texts, and one with other tokens.
    let other = fixture.path("other");
    fs::create_dir(&other).unwrap();
    for file in fs::read_dir(fixture.path("model")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), other.join(file.file_name())).unwrap();
    }
    let config = read_json(&other.join("config.json"));
    let mut short = config.clone();
    short["max_position_embeddings"] = 40.into();
    write_json(&other.join("config.json"), &short);
    let teacher = Some(TeacherModel::Other(Arc::new(model::Base::open(&other).unwrap())));
    check(&fixture, &How { teacher, ..How::default() }, "goes beyond the 40");
    write_json(&other.join("config.json"), &config);
    let mut tokenizer = read_json(&other.join("tokenizer.json"));
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let [a, b] = ["a", "b"].map(|token| vocab[token].clone());
    (vocab["a"], vocab["b"]) = (b, a);
    write_json(&other.join("tokenizer.json"), &tokenizer);
    let teacher = Some(TeacherModel::Other(Arc::new(model::Base::open(&other).unwrap())));
    check(&fixture, &How { teacher, ..How::default() }, "token ");
}

const PAIRS: &[(&str, &str)] = &[
    (
        "method: distill",
        "method: online_dpo\nrewards: [{grader: contains, options: {texts: [a], whole_words: false}}]",
    ),
    ("group_size: 2", "group_size: 4"),
    ("distill: {teacher: ./model}\n", ""),
];

#[test]
fn pairs_of_own_answers_teach_what_is_rewarded() {
    let fixture = fixture(&[PAIRS, &[("max_steps: 6", "max_steps: 40")]].concat());
    let summary = fixture.train("run", &How::default()).unwrap();
    assert!(summary.learns_from_rewards);
    let steps = figures_of(&fixture, "run", "step");
    let rewards: Vec<f64> =
        steps.iter().map(|step| step["metrics"]["reward"].as_f64().unwrap()).collect();
    let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len() as f64;
    let (first, last) = (mean(&rewards[..8]), mean(&rewards[32..]));
    assert!(last > first + 0.2, "{rewards:?}");
}

#[test]
fn pairs_are_as_if_the_run_never_stopped() {
    let fixture = fixture(&[PAIRS, &[("group_size: 4", "group_size: 4, updates: 2")]].concat());
    fixture.train("whole", &How::default()).unwrap();
    for step in [1, 2, 5] {
        let run = format!("run-{step}");
        fixture.train_until(&run, &How::default(), step).unwrap();
        fixture.train(&run, &How { threads: 2, ..How::resumed() }).unwrap();
        check_same(&fixture, &run, "whole");
    }
}

/// Where all answers have the same reward there is no pair, and the run goes on.
#[test]
fn a_step_may_have_no_pair() {
    let fixture = fixture(PAIRS);
    let overrides =
        &["rewards=[{grader: contains, options: {texts: [qqqqqqqq]}}]", "rollout.probe=false"];
    let mut told = 0;
    let mut observe = |event: &Event| told += u64::from(matches!(event, Event::Step(_)));
    let how = How { overrides, ..How::default() };
    fixture.watch("run", &how, &mut observe, &mut |_| Control::Continue).unwrap();
    assert_eq!(told, 6);
    for step in figures_of(&fixture, "run", "step") {
        assert_eq!(
            (&step["loss"], &step["metrics"]["frac_reward_zero_std"]),
            (&json!(0.0), &json!(1.0))
        );
    }
}
