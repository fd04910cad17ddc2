//! Six steps of GRPO, GSPO and PPO on a fixed rollout over the small model and its adapter equal PyTorch's and PEFT's.

use std::sync::Arc;

use data::{Sequence, Unit};
use serde_json::Value;
use train::objective::{
    Average, KlEstimator, KlLoss, PolicyGradient, RatioLevel, Surrogate, ValueLoss,
};
use train::step::{Sampled, StepPlan};

use crate::engine::sequence;
use crate::preference_curves::{check_curve, number};
use crate::support::{floats, golden_json, tokens};

fn rows(golden: &Value) -> &[Value] {
    golden["rows"].as_array().unwrap()
}

/// A unit a prompt, with its answers.
fn units(golden: &Value) -> Vec<Unit> {
    let answer = |row: &Value| -> Sequence {
        let (prompt, answer) = (tokens(&row["prompt"]), tokens(&row["answer"]));
        let weights = [vec![0.0; prompt.len()], vec![1.0; answer.len()]].concat();
        let group = row["group"].as_u64().unwrap() as usize;
        sequence(group, [prompt, answer].concat(), weights)
    };
    Unit::of_sequences(rows(golden).iter().map(answer).collect())
}

fn fill(golden: &Value, plan: &mut StepPlan) {
    let sampled = |row: &Value| Sampled {
        logprobs: floats(&row["logprobs"]).into(),
        proximal: [].into(),
        advantages: vec![number(&row["advantage"]); row["answer"].as_array().unwrap().len()].into(),
        values: floats(&row["values"]).into(),
        returns: floats(&row["returns"]).into_iter().map(f64::from).collect(),
    };
    plan.sampled = Some(rows(golden).iter().map(sampled).collect());
    let reference = rows(golden).iter().map(|row| Arc::from(floats(&row["reference"])));
    plan.reference = Some(reference.collect());
}

#[test]
fn six_updates_of_a_rollout_equal_pytorch_and_peft() {
    let golden = golden_json("update_curves.json");
    let temperature = number(&golden["temperature"]) as f32;
    let clip = |case: &Value| Surrogate::Clip {
        low: number(&case["low"]),
        high: number(&case["high"]),
        delta: None,
    };
    let plain = |name: &str| PolicyGradient {
        surrogate: clip(&golden[name]),
        temperature,
        ..PolicyGradient::PLAIN
    };
    let (beta, ppo) = (number(&golden["grpo"]["beta"]), &golden["ppo"]);
    let kl = KlLoss { beta, estimator: KlEstimator::K2, with_ratio: true };
    let value =
        ValueLoss { coefficient: number(&ppo["vf_coef"]), clip: Some(number(&ppo["clip_value"])) };
    let cases = [
        ("grpo", PolicyGradient { kl: Some(kl), ..plain("grpo") }),
        (
            "gspo",
            PolicyGradient {
                level: RatioLevel::Mean,
                average: Average::Sequences,
                ..plain("gspo")
            },
        ),
        (
            "ppo",
            PolicyGradient {
                value: Some(value),
                entropy_coefficient: number(&ppo["entropy_coef"]),
                ..plain("ppo")
            },
        ),
    ];
    // Answers behind a shared prompt in one micro-batch, and apart.
    for budget in [usize::MAX, 16] {
        for (name, objective) in &cases {
            let fill = |plan: &mut StepPlan| fill(&golden, plan);
            check_curve(name, objective, &golden, |_| units(&golden), fill, budget);
        }
    }
}
