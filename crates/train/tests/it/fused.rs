//! Optimizers whose statistics are those of a whole matrix, over fused ones.

use compute::cpu::Precision;
use compute::{Backend, Optimizer, Reference};
use data::{Packing, Unit};
use model::adapter::LoadedAdapter;
use model::{Base, Decoder, LoadOptions, Selection, Training};
use serde_json::Value;
use train::engine::Engine;
use train::method::Sft;
use train::models::{Part, PartName};
use train::optimizer::OptimizerConfig;
use train::step::StepPlan;

use crate::support::{cpu, floats, golden_json, model_golden};
use crate::whole::{check_close, sequences};

fn optimizer(golden: &Value, run: &Value) -> (OptimizerConfig, f64) {
    let name = run["optimizer"].as_str().unwrap();
    let settings = &golden["settings"][name];
    let number = |key: &str| settings[key].as_f64().unwrap();
    let matrices = match name {
        "muon" => Optimizer::Muon {
            momentum: number("momentum") as f32,
            nesterov: settings["nesterov"].as_bool().unwrap(),
            iterations: 5,
            match_rms: true,
        },
        "adafactor" => Optimizer::Adafactor {
            eps: floats(&settings["eps"])[0],
            clip_threshold: number("clip_threshold") as f32,
            decay_rate: number("decay_rate") as f32,
        },
        other => panic!("no optimizer `{other}`"),
    };
    let betas = floats(&golden["adamw"]["betas"]);
    let eps = golden["adamw"]["eps"].as_f64().unwrap() as f32;
    let others = match name {
        "muon" => Optimizer::AdamW { betas: [betas[0], betas[1]], eps },
        _ => matrices,
    };
    let config = OptimizerConfig {
        matrices,
        others,
        weight_decay: number("weight_decay") as f32,
        embedding_ratio: 1.0,
        loraplus_ratio: 1.0,
    };
    (config, number("lr"))
}

fn check(backend: &mut dyn Backend, golden: &Value, run: &Value) {
    let with_adapter = run["adapter"].as_bool().unwrap();
    let what = format!("{} {with_adapter}", run["optimizer"]);
    let (config, rate) = optimizer(golden, run);
    let base = Base::open(&model_golden("architectures/phi3")).unwrap();
    let optimizers = config.kinds();
    let (decoder, adapter) = if with_adapter {
        let folder = model_golden("architectures/phi3/adapter");
        let loaded = LoadedAdapter::read(&folder, &base.config).unwrap();
        let (decoder, adapter) = loaded.load(&base, backend, None, Some(optimizers)).unwrap();
        (decoder, Some(adapter))
    } else {
        let training = Some(Training { tensors: Selection::All, optimizers });
        let options = LoadOptions { training, ..LoadOptions::default() };
        (Decoder::load_with(&base, backend, &options).unwrap(), None)
    };
    let trained = match &adapter {
        Some(adapter) => adapter.trained().to_vec(),
        None => decoder.trained().to_vec(),
    };
    for (step, batch) in golden["batches"].as_array().unwrap().iter().enumerate() {
        let mut engine = Engine {
            backend,
            decoder: &decoder,
            parts: &[Part::policy(adapter.clone(), None)],
            trained: PartName::Policy,
            recompute: false,
        };
        let plan = StepPlan::new(&Unit::of_sequences(sequences(batch)), &Packing::new(usize::MAX));
        let loss = engine.accumulate(&plan, &Sft, None).unwrap().loss;
        check_close(&format!("{what}: loss {step}"), loss, &run["losses"][step]);
        config.step(backend, &trained, rate, 1.0, step as u64 + 1).unwrap();
    }
    let weights = run["weights"].as_object().unwrap();
    assert_eq!(trained.len(), weights.len(), "{what}");
    for tensor in &trained {
        let expected = &weights[&tensor.name];
        let mut values = vec![0.0; tensor.len()];
        backend.read(tensor.parameter.master, &mut values).unwrap();
        let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        check_close(&format!("{what}: {}", tensor.name), squares, &expected["squares"]);
        for (value, expected) in values[values.len() - 4..].iter().zip(floats(&expected["last"])) {
            let apart = (value - expected).abs();
            assert!(apart < 2e-4, "{what}: {}: {value} {expected}", tensor.name);
        }
    }
}

/// The packages know one `qkv_proj` and one `gate_up_proj`: moments of columns, the cut of an update and
/// its orthogonal form are those of all rows together.
#[test]
fn fused_matrices_take_the_packages_steps() {
    let golden = golden_json("fused_optimizers.json");
    let runs = golden["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 4);
    for run in runs {
        let mut reference = Reference::new();
        reference.reserve(64 << 20).unwrap();
        check(&mut reference, &golden, run);
        let mut cpu = cpu(2, Precision::F32);
        cpu.reserve(16 << 20).unwrap();
        check(&mut cpu, &golden, run);
    }
}
