//! Whole models in training: the course of PyTorch's, and what is left for others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use compute::cpu::{Cpu, CpuConfig, Precision};
use compute::{Backend, Optimizer, Reference};
use data::{Packing, Place, Sequence, Unit};
use model::{Base, Decoder, LoadOptions, Selection, TrainedTensor, Training};
use safetensors::SafeTensors;
use serde_json::Value;
use train::engine::Engine;
use train::events::Event;
use train::method::Sft;
use train::models::{Part, PartName};
use train::optimizer::OptimizerConfig;
use train::run::{Occupied, RunFolder};
use train::step::StepPlan;
use train::trainer::{Control, Job, SyntheticRows, plan};

use crate::support::{Fixture, How, cpu, floats, golden_json, model_golden, read_json, tokens};

/// Relative, of every loss and norm.
const TOLERANCE: f64 = 1e-4;

fn optimizer(golden: &Value) -> OptimizerConfig {
    let betas = floats(&golden["betas"]);
    let eps = golden["eps"].as_f64().unwrap() as f32;
    let adamw = Optimizer::AdamW { betas: [betas[0], betas[1]], eps };
    OptimizerConfig {
        matrices: adamw,
        others: adamw,
        weight_decay: golden["weight_decay"].as_f64().unwrap() as f32,
        embedding_ratio: 1.0,
        loraplus_ratio: 1.0,
    }
}

/// The sequences of a step.
pub(crate) fn sequences(step: &Value) -> Vec<Sequence> {
    let sequence = |(row, entry): (usize, &Value)| {
        let tokens = tokens(&entry["tokens"]);
        let from = entry["supervised_from"].as_u64().unwrap() as usize;
        let weights = (0..tokens.len()).map(|i| f32::from(u8::from(i >= from))).collect();
        let place = Place { file: Path::new("test").into(), line: row + 1, element: None };
        Sequence { row: row as u64, part: 0, role: 0, tokens, weights, place }
    };
    step.as_array().unwrap().iter().enumerate().map(sequence).collect()
}

#[track_caller]
pub(crate) fn check_close(what: &str, actual: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!((actual - expected).abs() < TOLERANCE * expected.abs(), "{what}: {actual}, {expected}");
}

/// Ten steps as the golden took them.
fn check_curve(backend: &mut dyn Backend, case: &Value, golden: &Value, packing: &Packing) {
    let name = case["case"].as_str().unwrap();
    let base = Base::open(&model_golden(&format!("tiny_llama/{name}"))).unwrap();
    let optimizer = optimizer(golden);
    let training = Training { tensors: Selection::All, optimizers: optimizer.kinds() };
    let options = LoadOptions { training: Some(training), ..LoadOptions::default() };
    let decoder = Decoder::load_with(&base, backend, &options).unwrap();
    let trained = decoder.trained().to_vec();
    let numbers: usize = trained.iter().map(TrainedTensor::len).sum();
    assert_eq!(numbers, base.config.parameter_count(), "a tied head is not counted twice");
    let parameters: Vec<_> = trained.iter().map(|tensor| tensor.parameter).collect();
    let max_grad_norm = golden["max_grad_norm"].as_f64().unwrap();
    let rate = golden["lr"].as_f64().unwrap();
    for (step, batch) in case["batches"].as_array().unwrap().iter().enumerate() {
        let mut engine = Engine {
            backend,
            decoder: &decoder,
            parts: &[Part::policy(None, None)],
            trained: PartName::Policy,
            recompute: step % 2 == 1,
        };
        let plan = StepPlan::new(&Unit::of_sequences(sequences(batch)), packing);
        let loss = engine.accumulate(&plan, &Sft, None).unwrap().loss;
        let norm = engine.gradient_norm(&parameters).unwrap();
        check_close(&format!("{name}: loss {step}"), loss, &case["losses"][step]);
        check_close(&format!("{name}: norm {step}"), norm, &case["grad_norms"][step]);
        let scale = (max_grad_norm / (norm + 1e-6)).min(1.0);
        optimizer.step(backend, &trained, rate, scale, step as u64 + 1).unwrap();
    }
    for tensor in &trained {
        let mut values = vec![0.0; tensor.len()];
        backend.read(tensor.parameter.master, &mut values).unwrap();
        let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
        let expected = case["weight_sums"][&tensor.name].as_f64().unwrap();
        let size: f64 = values.iter().map(|&value| f64::from(value).abs()).sum();
        assert!((sum - expected).abs() < 1e-5 * size, "{name}: {}: {sum}, {expected}", tensor.name);
    }
}

#[test]
fn ten_steps_of_a_whole_model_equal_pytorch() {
    let golden = golden_json("full_curve.json");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        for budget in [usize::MAX, 16] {
            let packing = Packing { drop_unread: true, ..Packing::new(budget) };
            let config = CpuConfig { threads: 2, isa: None, precision: Precision::F32 };
            let mut cpu = Cpu::new(config).unwrap();
            cpu.reserve(16 << 20).unwrap();
            check_curve(&mut cpu, case, &golden, &packing);
        }
        let mut reference = Reference::new();
        reference.reserve(64 << 20).unwrap();
        check_curve(&mut reference, case, &golden, &Packing::new(usize::MAX));
    }
}

/// Every tensor of a folder's files, as bytes.
fn stored(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut tensors = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = fs::read(path).unwrap();
        let views = SafeTensors::deserialize(&bytes).unwrap();
        tensors.extend(views.tensors().into_iter().map(|(name, view)| (name, view.data().into())));
    }
    tensors
}

/// Trains the small model itself and says which tensors of it changed.
fn changed(fixture: &Fixture, run: &str, overrides: &[&str]) -> Vec<String> {
    let overrides = [&["adapter.type=none", "train.learning_rate=1e-3"], overrides].concat();
    let how = How { overrides: &overrides, ..How::default() };
    let summary = fixture.train(run, &how).unwrap();
    assert_eq!(summary.adapter, fixture.path(run).join("model"));
    let (before, after) = (stored(&fixture.path("model")), stored(&summary.adapter));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let differs = |name: &&String| before[*name] != after[*name];
    after.keys().filter(differs).cloned().collect()
}

fn fixture() -> Fixture {
    let mut fixture = Fixture::with_validation();
    fixture.recipe = fixture.recipe.replace("adapter: {rank: 4}\n", "");
    fixture
}

#[test]
fn every_tensor_of_a_whole_model_is_trained_and_only_those_of_named_layers() {
    let fixture = fixture();
    let all = changed(&fixture, "all", &[]);
    assert_eq!(all.len(), stored(&fixture.path("model")).len());
    let last = changed(&fixture, "last", &["train.layers=[last 1]"]);
    let of_layer: Vec<String> =
        all.iter().filter(|name| name.starts_with("model.layers.1.")).cloned().collect();
    assert_eq!((last.len(), last), (9, of_layer));
    let first = changed(&fixture, "first", &["train.layers=[0]"]);
    assert!(first.len() == 9 && first.iter().all(|name| name.starts_with("model.layers.0.")));
}

#[test]
fn a_trained_model_is_a_complete_folder() {
    let fixture = fixture();
    changed(&fixture, "run", &["train.optimizer.weight_decay=0.1"]);
    let dir = fixture.path("run/model");
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "tunesmith.json",
        "README.md",
    ] {
        assert!(dir.join(name).is_file(), "{name}");
    }
    let before = read_json(&fixture.path("model/config.json"));
    assert_eq!(read_json(&dir.join("config.json")), before);
    // It is a model like any other: it can be opened, and trained again.
    let base = Base::open(&dir).unwrap();
    assert_eq!(base.config, fixture.base().config);
    let report = fs::read_to_string(fixture.path("run/report.md")).unwrap();
    assert!(report.contains("finished"), "{report}");
    let recipe = fs::read_to_string(fixture.path("run/recipe.yaml")).unwrap();
    assert!(!recipe.contains("rank:") && !recipe.contains("dropout:"), "{recipe}");
    assert!(!fixture.path("run/adapter").exists());
}

/// Rows of new tokens are written even where the embedding is not trained.
#[test]
fn tokens_are_added_to_a_model_of_which_some_layers_are_trained() {
    let fixture = fixture();
    let many: Vec<String> = (0..30).map(|i| format!("\"<{i}>\"")).collect();
    let tokens = format!("tokenizer.add_tokens=[{}]", many.join(", "));
    let overrides = ["adapter.type=none", "train.layers=[last 1]", tokens.as_str()];
    let how = How { overrides: &overrides, ..How::default() };
    let summary = fixture.train("run", &how).unwrap();
    let model = Base::open(&summary.adapter).unwrap();
    assert_eq!(model.config.vocab_size, 131);
    let (name, base) = ("lm_head.weight", fixture.base());
    assert_eq!(model.vocabulary(name, 131).unwrap(), base.vocabulary(name, 131).unwrap());
}

/// What cannot be written at the end is refused before the first step, and by the plan.
#[test]
fn a_model_that_cannot_be_written_is_not_trained() {
    let fixture = fixture();
    let overrides = ["adapter.type=none"];
    let how = How { overrides: &overrides, ..How::default() };
    // No config says this.
    let base = || {
        let mut base = fixture.base();
        base.config.rms_norm_eps *= 2.0;
        base
    };
    let expected = "a `config.json` cannot say all that this file says";
    let mut backend = cpu(1, Precision::F32);
    let job = Job { base: base(), ..fixture.job(&how) };
    let folder = RunFolder::claim(&fixture.path("run"), Occupied::Refuse).unwrap();
    let (observer, control) = (&mut |_: &Event| {}, &mut || Control::Continue);
    let error = train::trainer::train(job, folder, &mut backend, observer, control);
    let error = error.unwrap_err();
    assert!(error.to_string().ends_with(expected), "{error}");
    assert!(!fixture.path("run").exists());
    let job = Job { base: base(), ..fixture.job(&how) };
    let error = plan(job, &backend, None).unwrap_err();
    assert!(error.to_string().ends_with(expected), "{error}");
    // An adapter can be written over anything; that it cannot be merged is said.
    let adapter = Fixture::with_validation();
    let mut base = adapter.base();
    base.config.rms_norm_eps *= 2.0;
    let job = Job { base, ..adapter.job(&How::default()) };
    let planned = plan(job, &backend, None).unwrap();
    let is_said = |note: &String| note.starts_with("the adapter cannot be merged into this base: ");
    assert!(planned.notes.iter().any(is_said), "{:?}", planned.notes);
}

/// A Gemma GGUF file rounds no factor, and the bf16 model that is made of it does: no reason to refuse it.
#[test]
fn a_model_out_of_a_gemma_file_can_be_written() {
    let fixture = fixture();
    let how = How { overrides: &["adapter.type=none"], ..How::default() };
    let stand_in = Some(SyntheticRows { rows: 4, tokens: 8 });
    for case in ["gemma2", "gemma3_text"] {
        let base = Base::open(&model_golden(&format!("gguf/{case}.gguf"))).unwrap();
        let job = Job { base, ..fixture.job(&how) };
        let device = cpu(1, Precision::F32);
        plan(job, &device, stand_in).unwrap();
    }
}
