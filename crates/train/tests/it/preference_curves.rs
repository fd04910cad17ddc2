//! Ten steps of preference methods over the small model and its adapter equal PyTorch's and PEFT's.

use std::sync::Arc;

use compute::Backend as _;
use compute::cpu::{Cpu, Precision};
use data::{Packing, Sequence, Unit};
use model::adapter::LoadedAdapter;
use model::{Base, ScalarHead, TrainedTensor};
use serde_json::Value;
use train::engine::Engine;
use train::method::{Dpo, Kto, Orpo, Reward};
use train::models::{Models, PartName, PartSetup, TrainingSetup};
use train::objective::{Coupling, Objective};
use train::optimizer::OptimizerConfig;
use train::step::StepPlan;

use crate::engine::sequence;
use crate::support::{cpu, floats, golden_json, model_golden, tokens};

/// The number of a JSON value.
pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

pub(crate) fn indices(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|index| index.as_u64().unwrap() as usize).collect()
}

/// An answer of a pair behind its prompt.
fn answer(golden: &Value, pair: usize, side: usize, row: usize) -> Sequence {
    let pair = &golden["pairs"][pair];
    let (prompt, answer) = (tokens(&pair["prompt"]), tokens(&pair[["chosen", "rejected"][side]]));
    let weights = [vec![0.0; prompt.len()], vec![1.0; answer.len()]].concat();
    Sequence { role: side as u8, ..sequence(row, [prompt, answer].concat(), weights) }
}

/// The units of a step whose rows are pairs.
fn pairs_of(golden: &Value, step: usize) -> Vec<Unit> {
    let pairs = indices(&golden["steps"][step]);
    let pair = |(row, pair): (usize, usize)| [0, 1].map(|side| answer(golden, pair, side, row));
    Unit::of_sequences(pairs.into_iter().enumerate().flat_map(pair).collect())
}

/// The units of a step whose rows are judged answers.
fn answers_of(golden: &Value, case: &Value, step: usize) -> Vec<Unit> {
    let rows = indices(&case["rows"][step]).into_iter().enumerate();
    let answer = |(row, index): (usize, usize)| answer(golden, index / 2, index % 2, row);
    Unit::of_sequences(rows.map(answer).collect())
}

#[track_caller]
pub(crate) fn check(what: &str, actual: f64, expected: f64) {
    let bound = 1e-4 * expected.abs().max(1e-2);
    assert!((actual - expected).abs() < bound, "{what}: {actual}, expected {expected}");
}

/// The small model with its adapter, a frozen copy of it as the reference, and an optimizer.
pub(crate) struct Curve {
    pub(crate) backend: Cpu,
    pub(crate) models: Models,
    pub(crate) optimizer: OptimizerConfig,
}

impl Curve {
    /// As a golden has them; with a scalar head where its case has one.
    pub(crate) fn of(golden: &Value, case: &Value) -> Self {
        let mut backend = cpu(2, Precision::F32);
        backend.reserve(32 << 20).unwrap();
        let base = Base::open(&model_golden("tiny_llama/gqa")).unwrap();
        let start =
            LoadedAdapter::read(&model_golden("tiny_llama/gqa/adapter"), &base.config).unwrap();
        let betas = floats(&golden["betas"]);
        let adamw = compute::Optimizer::AdamW {
            betas: [betas[0], betas[1]],
            eps: number(&golden["eps"]) as f32,
        };
        let optimizer = OptimizerConfig {
            matrices: adamw,
            others: adamw,
            weight_decay: 0.0,
            embedding_ratio: 1.0,
            loraplus_ratio: 1.0,
        };
        let mut setup = TrainingSetup::new(None, optimizer.kinds());
        setup.policy_mut().adapters.push(Arc::new(start.clone()));
        setup.policy_mut().head = case.get("score_weight").map(|score| floats(&score[0]));
        let adapters = vec![Arc::new(start)];
        setup.parts.push(PartSetup { adapters, ..PartSetup::of_base(PartName::Reference) });
        let models = setup.load(&base, &mut backend).unwrap();
        Curve { backend, models, optimizer }
    }
}

/// Trains as the golden did, in micro-batches of so many tokens. `fill` adds to a plan what no row says.
pub(crate) fn check_curve(
    name: &str,
    objective: &dyn Objective,
    golden: &Value,
    units: impl Fn(usize) -> Vec<Unit>,
    fill: impl Fn(&mut StepPlan),
    budget: usize,
) {
    let case = &golden[name];
    let Curve { mut backend, models, optimizer } = Curve::of(golden, case);
    assert_eq!(models.policy().head.is_some(), objective.request().want.value);
    let trained = models.trained();
    assert!(
        trained.iter().any(|tensor| tensor.name == ScalarHead::TENSOR)
            == case.get("score_weight").is_some()
    );
    let parameters: Vec<_> =
        trained.iter().map(|tensor: &TrainedTensor| tensor.parameter).collect();

    let packing = Packing {
        keep_units: objective.coupling() == Coupling::Unit,
        reads: objective.reads(),
        drop_unread: true,
        ..Packing::new(budget)
    };
    for (step, loss) in case["losses"].as_array().unwrap().iter().enumerate() {
        let units = units(step);
        let mut plan = StepPlan::new(&units, &packing);
        fill(&mut plan);
        let auxiliary = objective.auxiliary(&units);
        plan.auxiliary =
            (!auxiliary.is_empty()).then(|| Box::new(StepPlan::new(&auxiliary, &packing)));
        let mut engine: Engine<'_> = models.engine(&mut backend, step % 2 == 1);
        let outcome = engine.accumulate(&plan, objective, None).unwrap();
        let norm = engine.gradient_norm(&parameters).unwrap();
        check(&format!("{name}: loss {step}"), outcome.loss, number(loss));
        check(&format!("{name}: norm {step}"), norm, number(&case["grad_norms"][step]));
        if let Some(expected) = case.get("z0") {
            let (_, kl) = outcome.metrics.iter().find(|(name, _)| *name == "kl").unwrap();
            check(&format!("{name}: z0 {step}"), *kl, number(&expected[step]));
        }
        let scale = (number(&golden["max_grad_norm"]) / (norm + 1e-6)).min(1.0);
        optimizer
            .step(&mut backend, &trained, number(&golden["lr"]), scale, step as u64 + 1)
            .unwrap();
        models.refresh(&mut backend).unwrap();
    }
}

#[test]
fn ten_steps_equal_pytorch_and_peft() {
    let golden = golden_json("preference_curves.json");
    for budget in [usize::MAX, 16] {
        let dpo = Dpo::sigmoid(number(&golden["dpo"]["beta"]));
        check_curve("dpo", &dpo, &golden, |step| pairs_of(&golden, step), |_| (), budget);
        let orpo = Orpo { beta: number(&golden["orpo"]["beta"]) };
        check_curve("orpo", &orpo, &golden, |step| pairs_of(&golden, step), |_| (), budget);
        let reward = Reward::default();
        check_curve("reward", &reward, &golden, |step| pairs_of(&golden, step), |_| (), budget);
        for name in ["kto", "kto_uneven"] {
            let case = &golden[name];
            let kto = Kto {
                beta: number(&case["beta"]),
                desirable_weight: number(&case["desirable_weight"]),
                undesirable_weight: number(&case["undesirable_weight"]),
                uses_kl: true,
                kl_max_tokens: usize::MAX,
            };
            check_curve(
                name,
                &kto,
                &golden,
                |step| answers_of(&golden, case, step),
                |_| (),
                budget,
            );
        }
    }
}
