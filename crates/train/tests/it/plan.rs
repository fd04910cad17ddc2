//! A plan says what the run then says, whether or not there are weights.

use compute::cpu::Precision;
use model::Base;
use serde_json::{Value, json};
use train::events::Event;
use train::run::Occupied;
use train::trainer::{Control, Job, Planned, SyntheticRows, plan};

use crate::support::{Fixture, How, cpu, read_json};

fn planned(
    fixture: &Fixture,
    how: &How<'_>,
    base: Base,
    stand_in: Option<SyntheticRows>,
) -> Planned {
    let device = cpu(how.threads, how.precision);
    let job = Job { base, ..fixture.job(how) };
    plan(job, &device, stand_in).unwrap()
}

/// The same model without its numbers.
fn shapes(fixture: &Fixture) -> Base {
    let path = fixture.path("model/config.json");
    Base::from_config(&read_json(&path), &path).unwrap()
}

#[track_caller]
fn check(overrides: &[&str]) {
    let mut fixture = Fixture::with_validation();
    if overrides.contains(&"adapter.type=none") {
        fixture.recipe = fixture.recipe.replace("adapter: {rank: 4}\n", "");
    }
    let all = [&["train.max_steps=3"], overrides].concat();
    let how = How { overrides: &all, precision: Precision::Bf16, ..How::default() };
    let with_weights = planned(&fixture, &how, fixture.base(), None);
    assert_eq!(planned(&fixture, &how, shapes(&fixture), None), with_weights, "{overrides:?}");
    assert!(!fixture.path("planned").exists());

    let mut started = Value::Null;
    let mut watch = |event: &Event| {
        if let Event::Started {
            planned_bytes, parameters_trained, micro_batch_tokens, steps, ..
        } = event
        {
            started = json!([planned_bytes, parameters_trained, micro_batch_tokens, steps]);
        }
    };
    let mut go_on = |_| Control::Continue;
    let summary = fixture.watch("run", &how, &mut watch, &mut go_on).unwrap();
    let Planned { memory_bytes, parameters, micro_batch_tokens, steps, tokens, .. } = with_weights;
    assert_eq!(started, json!([memory_bytes, parameters.trainable, micro_batch_tokens, steps]));
    assert_eq!(tokens, summary.tokens, "{overrides:?}");
}

#[test]
fn a_plan_is_what_the_run_does() {
    check(&[]);
    check(&["adapter.type=dora", "adapter.dropout=0.1", "train.optimizer.type=muon"]);
    check(&["adapter.type=none", "activation_checkpointing=block"]);
    check(&["adapter.type=none", "train.layers=[last 1]", "train.optimizer.type=adafactor"]);
    check(&["quantization=nf4", "train.optimizer.type=adamw8bit", "micro_batch_tokens=40"]);
    check(&["quantization=int8", "adapter.type=rslora"]);
    check(&["tokenizer.add_tokens=[<a>, <b>]"]);
    check(&["adapter.modules_to_save=[lm_head]"]);
}

#[test]
fn a_plan_needs_no_text() {
    let fixture = Fixture::new();
    for file in ["model/tokenizer.json", "rows.jsonl"] {
        std::fs::remove_file(fixture.path(file)).unwrap();
    }
    let how = How { overrides: &["train.batch_size=4", "train.epochs=2"], ..How::default() };
    let rows = SyntheticRows { rows: 10, tokens: 50 };
    let planned = planned(&fixture, &how, shapes(&fixture), Some(rows));
    assert_eq!((planned.steps, planned.tokens), (5, 2 * 10 * 50));
    assert!(planned.fits && planned.memory.activations > 0, "{planned:?}");
    assert!(planned.notes[0].contains("10 synthetic rows of 50 tokens"), "{:?}", planned.notes);
}

#[test]
fn the_own_steps_take_no_more_than_the_worst() {
    let fixture = Fixture::new();
    let how = How { occupied: Occupied::Refuse, ..How::default() };
    let wide = planned(&fixture, &how, fixture.base(), None);
    assert!(wide.memory_bytes < wide.worst_bytes, "{wide:?}");
    let overrides = ["micro_batch_tokens=20"];
    let narrow = planned(&fixture, &How { overrides: &overrides, ..how }, fixture.base(), None);
    assert!(narrow.memory.activations < wide.memory.activations, "{narrow:?}");
    assert!(narrow.worst_bytes < wide.worst_bytes, "{narrow:?}");
}

/// A plan that does not fit is a plan all the same.
#[test]
fn what_does_not_fit_comes_with_cures() {
    let fixture = Fixture::new();
    let how = How { memory_limit: 1 << 16, ..How::default() };
    let planned = planned(&fixture, &how, fixture.base(), None);
    assert!(!planned.fits && planned.limit_bytes == 1 << 16);
    assert!(planned.cures.iter().any(|cure| cure.contains("max_seq_len")), "{:?}", planned.cures);
}
