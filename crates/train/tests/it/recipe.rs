//! The recipe: every key declared and documented, what is to come refused by name, defaults.

use data::{Extent, StepSize};
use keys::Settings as _;
use model::Module;
use model::adapter::LoraKind;
use train::recipe::{Every, Recipe, fill_by_data, schema};
use train::schedule::ScheduleKind;

use crate::support::Fixture;

fn fixture(recipe: &str) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.recipe = recipe.into();
    fixture
}

const LEAST: &str = "model: org/tiny\nmethod: sft\ndata: {train: rows.jsonl}\n";

#[test]
fn every_key_is_documented() {
    let schema = schema();
    let names: Vec<&str> = schema.keys().map(|key| key.name()).collect();
    for name in ["model.id", "data.train", "train.learning_rate", "micro_batch_tokens", "seed"] {
        assert!(names.contains(&name), "{name}");
    }
    // A schema refuses keys without a doc: that it could be made says that all have one.
    assert!(schema.markdown().contains("| `train.save.keep` |"), "{}", schema.markdown());
}

/// Recipe lines beside the least recipe, and what is said about them.
#[track_caller]
fn check_refused(lines: &str, message: &str, hint: &str) {
    let error = fixture(&format!("{LEAST}{lines}\n")).try_document(&[]).unwrap_err();
    let shown = error.to_string();
    assert!(shown.contains(message), "{shown}");
    let given = error.hint().unwrap_or_default();
    assert!(given.contains(hint), "hint: {given}");
}

#[test]
fn what_later_versions_bring_is_refused_by_name() {
    for (lines, name) in [
        ("quantization: nf4", "nf4"),
        ("evaluate: [{task: t.jsonl}]", "evaluate"),
        ("log: [tensorboard]", "log"),
        ("objective: {beta: 0.1}", "objective"),
        ("reference: base", "reference"),
        ("rollout: {group_size: 8}", "rollout"),
        ("rewards: [{grader: json}]", "rewards"),
        ("stop_on: [leakage]", "stop_on"),
        ("adapter: dora", "dora"),
        ("adapter: none", "none"),
        ("adapter: {from: stack}", "stack"),
        ("train: {optimizer: lion}", "lion"),
        ("train: {optimizer: adamw8bit}", "adamw8bit"),
        ("device: cuda", "cuda"),
    ] {
        check_refused(lines, name, "");
    }
    for method in ["dpo", "grpo", "pretrain", "reward"] {
        let recipe = LEAST.replace("sft", method);
        let error = fixture(&recipe).try_document(&[]).unwrap_err();
        assert!(error.to_string().contains(method), "{error}");
    }
}

#[test]
fn names_of_peers_are_explained() {
    check_refused("lora_r: 8", "unknown key `lora_r`", "adapter.rank: 8");
    check_refused("cutoff_len: 512", "unknown key `cutoff_len`", "data.max_seq_len: 512");
    check_refused(
        "per_device_train_batch_size: 4",
        "unknown key `per_device_train_batch_size`",
        "train.batch_size: 4",
    );
    check_refused("load_in_4bit: true", "unknown key `load_in_4bit`", "quantization");
    check_refused(
        "train: {learning_rte: 1e-4}",
        "unknown key `train.learning_rte`",
        "learning_rate",
    );
}

#[test]
fn what_cannot_work_together_is_refused() {
    check_refused("train: {epochs: 2, max_steps: 10}", "epochs", "");
    check_refused("train: {batch_size: 2, tokens_per_step: 10}", "batch_size", "");
    check_refused("train: {learning_rate: 3}", "learning_rate", "");
    check_refused("train: {optimizer: {betas: [0.9]}}", "betas", "");
    check_refused("train: {optimizer: {betas: [0.9, 1.0]}}", "betas", "");
    check_refused("adapter: {dropout: 1.0}", "dropout", "");
}

#[track_caller]
fn check_defaults(lines: &str, rows: usize, rank: usize, step: StepSize, extent: Extent) {
    let mut document = fixture(&format!("{LEAST}{lines}\n")).document(&[]);
    fill_by_data(&mut document, rows);
    let recipe = Recipe::read(&document).unwrap();
    let actual = (recipe.rank, recipe.step_size, recipe.extent);
    assert_eq!(actual, (rank, step, extent), "{rows} rows, {lines}");
    assert_eq!(recipe.alpha, 2.0 * rank as f32);
}

#[test]
fn defaults_follow_the_rows() {
    let (rows, tokens) = (StepSize::Rows, StepSize::Tokens);
    let (epochs, steps) = (Extent::Epochs, Extent::Steps);
    check_defaults("", 1999, 16, rows(16), epochs(3.0));
    check_defaults("", 2000, 64, rows(16), epochs(3.0));
    // 100 rows three times over make 50 steps of six.
    check_defaults("", 100, 16, rows(6), epochs(3.0));
    check_defaults("", 10, 16, rows(1), epochs(3.0));
    check_defaults("train: {epochs: 10}", 100, 16, rows(16), epochs(10.0));
    check_defaults("train: {batch_size: 16}", 10, 16, rows(16), epochs(3.0));
    check_defaults("train: {tokens_per_step: 900}", 10, 16, tokens(900), epochs(3.0));
    check_defaults("adapter: {rank: 8}", 5000, 8, rows(16), epochs(3.0));
    check_defaults("train: {max_steps: 70, batch_size: 4}", 10, 16, rows(4), steps(70));
}

#[test]
fn a_recipe_says_why_it_chose() {
    let mut document = fixture(LEAST).document(&[]);
    fill_by_data(&mut document, 100);
    let recipe = Recipe::read(&document).unwrap();
    assert_eq!(recipe.learning_rate, 2e-4);
    assert_eq!((recipe.adapter_kind, recipe.dropout), (LoraKind::Lora, 0.0));
    assert_eq!(recipe.target_modules, Module::ALL);
    assert_eq!((recipe.betas, recipe.weight_decay), ([0.9, 0.999], 0.0));
    assert_eq!(recipe.max_grad_norm, Some(1.0));
    assert_eq!((recipe.save_every, recipe.keep), (Every::Minutes(10.0), 2));
    assert_eq!(recipe.evaluate_every, Every::Steps(5));
    let schedule = recipe.schedule(100);
    assert_eq!((schedule.kind, schedule.warmup_steps), (ScheduleKind::Cosine, 3));
    let yaml = document.to_yaml();
    assert!(yaml.contains("lowered from 16 so that 100 rows make about 50 steps"), "{yaml}");
    for key in ["adapter.rank", "adapter.alpha", "train.learning_rate", "train.batch_size"] {
        assert!(!document.is_given(key) && document.value(key).is_some(), "{key}");
    }
}

#[test]
fn the_recipe_of_the_guide_is_read_as_it_says() {
    let document = fixture(
        "model: {id: org/tiny, revision: main, template_kwargs: {enable_thinking: false}}
method: sft
adapter: {type: rslora, rank: 8, alpha: 32, target_modules: [v_proj, q_proj, v_proj], dropout: 0.1}
quantization: none
data:
  train: [{path: rows.jsonl}]
  validation: {fraction: 0.1, by: row}
  max_seq_len: auto
  overlong: error
train:
  epochs: 3
  tokens_per_step: 4096
  learning_rate: 2.0e-4
  schedule: {type: linear, warmup_steps: 7, min_ratio: 0.1}
  optimizer: {type: adamw, weight_decay: 0.01, betas: [0.8, 0.95], eps: 1e-6}
  max_grad_norm: none
  evaluate_every: {tokens: 20000}
  save: {steps: 20, keep: 3}
  sample: {prompts: [Hello], system: Be brief., max_new_tokens: 9}
output: runs/tickets
seed: 1
device: auto
",
    );
    let mut document = document.document(&[]);
    fill_by_data(&mut document, 100);
    let recipe = Recipe::read(&document).unwrap();
    assert_eq!((recipe.adapter_kind, recipe.rank, recipe.alpha), (LoraKind::RsLora, 8, 32.0));
    assert_eq!(recipe.target_modules, [Module::Q, Module::V]);
    assert_eq!(recipe.step_size, StepSize::Tokens(4096));
    assert_eq!((recipe.max_grad_norm, recipe.eps), (None, 1e-6));
    assert_eq!(recipe.evaluate_every, Every::Tokens(20000));
    assert_eq!((recipe.save_every, recipe.keep), (Every::Steps(20), 3));
    assert_eq!(recipe.sample.prompts, ["Hello"]);
    let schedule = recipe.schedule(100);
    assert_eq!((schedule.kind, schedule.warmup_steps), (ScheduleKind::Linear, 7));
    assert_eq!(schedule.min_ratio, 0.1);
}
