//! Six steps of GRPO and PPO on fixed rollouts, over the small model and its adapter, equal PyTorch's and PEFT's.

use std::ops::Range;
use std::sync::Arc;

use compute::cpu::Cpu;
use data::{Packing, Sequence, Unit};
use model::{HeadRequest, Want};
use serde_json::Value;
use train::advantage::{Aggregation, Gae, GroupRelative, KlReward, Scale, Shaping};
use train::models::{Models, PartName};
use train::objective::{KlEstimator, KlLoss, Objective as _, PolicyGradient, Surrogate, ValueLoss};
use train::rollout::{AdvantageEstimator, Rollout};
use train::step::{Sampled, StepPlan};

use crate::engine::sequence;
use crate::preference_curves::{Curve, check, indices, number};
use crate::support::{floats, golden_json, tokens};

/// The groups of a rollout: two answers to each of its prompts.
fn groups(golden: &Value, pairs: &[usize]) -> Vec<Unit> {
    let answers = pairs.iter().enumerate().flat_map(|(row, &pair)| {
        ["chosen", "rejected"].map(|side| -> Sequence {
            let pair = &golden["pairs"][pair];
            let (prompt, answer) = (tokens(&pair["prompt"]), tokens(&pair[side]));
            let weights = [vec![0.0; prompt.len()], vec![1.0; answer.len()]].concat();
            sequence(row, [prompt, answer].concat(), weights)
        })
    });
    Unit::of_sequences(answers.collect())
}

/// What is known of the answers when they are sampled: here, of fixed ones, what the policy says of them now.
fn sampled(
    models: &Models,
    backend: &mut Cpu,
    plan: &StepPlan,
    rewards: &[Vec<Option<f64>>],
    estimator: &dyn AdvantageEstimator,
    temperature: f32,
) -> (Vec<Sampled>, Vec<Arc<[f32]>>) {
    let has_values = models.policy().head.is_some();
    let want = Want { logprob: true, value: has_values, ..Want::default() };
    let request = HeadRequest { want, temperature, ..HeadRequest::logprobs() };
    let mut engine = models.engine(backend, false);
    let policy = engine.outputs_under_part(plan, PartName::Policy, &request).unwrap();
    let request = HeadRequest { temperature, ..HeadRequest::logprobs() };
    let reference = engine.outputs_under_part(plan, PartName::Reference, &request).unwrap();
    let logprobs = plan.by_sequence(&policy, |outputs, target, _| outputs.logprob[target]);
    let reference = plan.by_sequence(&reference, |outputs, target, _| outputs.logprob[target]);
    let values = has_values.then(|| {
        plan.by_sequence(&policy, |outputs, _, target| outputs.value[target.read as usize])
    });
    let groups: Vec<Range<usize>> = (0..logprobs.len() / 2).map(|g| 2 * g..2 * g + 2).collect();
    let estimates = estimator.estimate(&Rollout {
        groups: &groups,
        rewards,
        weights: &[1.0],
        ended: &vec![true; logprobs.len()],
        logprobs: &logprobs,
        reference: Some(&reference),
        values: values.as_deref(),
        drawn: None,
        carried: &[],
    });
    let sampled = (0..logprobs.len()).map(|index| Sampled {
        logprobs: logprobs[index].clone(),
        advantages: estimates.advantages[index].clone(),
        values: values.as_ref().map_or_else(|| Arc::from([]), |values| values[index].clone()),
        returns: estimates.returns.get(index).cloned().unwrap_or_else(|| Arc::from([])),
        ..Sampled::default()
    });
    (sampled.collect(), reference)
}

/// Trains as the golden did, in micro-batches of so many tokens.
fn check_curve(
    name: &str,
    objective: &PolicyGradient,
    estimator: &dyn AdvantageEstimator,
    golden: &Value,
    budget: usize,
) {
    let case = &golden[name];
    let Curve { mut backend, models, optimizer } = Curve::of(golden, case);
    let trained = models.trained();
    let parameters: Vec<_> = trained.iter().map(|tensor| tensor.parameter).collect();

    let packing = Packing { drop_unread: true, ..Packing::new(budget) };
    let updates = number(&golden["updates"]) as usize;
    let mut step = 0;
    for pairs in golden["rollouts"].as_array().unwrap() {
        let pairs = indices(pairs);
        let reward = |pair: &usize| floats(&golden["rewards"][*pair]);
        let rewards = pairs.iter().flat_map(reward).map(|reward| vec![Some(f64::from(reward))]);
        let rewards: Vec<_> = rewards.collect();
        let mut plan = StepPlan::new(&groups(golden, &pairs), &packing);
        let temperature = objective.temperature;
        let (known, reference) =
            sampled(&models, &mut backend, &plan, &rewards, estimator, temperature);
        (plan.sampled, plan.reference) = (Some(known), Some(reference));
        for update in 0..updates {
            plan.is_on_policy = update == 0;
            let mut engine = models.engine(&mut backend, step % 2 == 1);
            let outcome = engine.accumulate(&plan, objective, None).unwrap();
            let norm = engine.gradient_norm(&parameters).unwrap();
            check(&format!("{name}: loss {step}"), outcome.loss, number(&case["losses"][step]));
            check(&format!("{name}: norm {step}"), norm, number(&case["grad_norms"][step]));
            if let Some((_, off)) =
                outcome.metrics.iter().find(|(name, _)| *name == "sampling/mismatch")
            {
                assert_eq!((update, *off), (0, 0.0), "{name}: the ratio of step {step}");
            }
            let scale = (number(&golden["max_grad_norm"]) / (norm + 1e-6)).min(1.0);
            let rate = number(&golden["lr"]);
            optimizer.step(&mut backend, &trained, rate, scale, step as u64 + 1).unwrap();
            models.refresh(&mut backend).unwrap();
            step += 1;
        }
    }
    assert_eq!(step, case["losses"].as_array().unwrap().len());
}

#[test]
fn six_steps_on_fixed_rollouts_equal_pytorch_and_peft() {
    let golden = golden_json("rollout_curves.json");
    let temperature = number(&golden["temperature"]) as f32;
    let grpo = PolicyGradient {
        surrogate: Surrogate::Clip { low: 0.2, high: 0.28, delta: None },
        kl: Some(KlLoss { beta: 0.04, estimator: KlEstimator::K3, with_ratio: false }),
        temperature,
        ..PolicyGradient::PLAIN
    };
    let group = GroupRelative {
        scale: Scale::Group,
        aggregation: Aggregation::SumThenNormalize,
        shaping: Shaping::default(),
    };
    let ppo = PolicyGradient {
        value: Some(ValueLoss { coefficient: 0.1, clip: Some(0.2) }),
        temperature,
        ..PolicyGradient::PLAIN
    };
    let kl = KlReward { beta: 0.05, estimator: KlEstimator::K1, is_carried: false };
    let gae = Gae {
        gamma: 1.0,
        lambda: 0.95,
        whiten_rewards: false,
        whiten: true,
        shaping: Shaping { kl: Some(kl), ..Shaping::default() },
    };
    assert!(!grpo.request().want.value && ppo.request().want.value);
    for budget in [usize::MAX, 16] {
        check_curve("grpo", &grpo, &group, &golden, budget);
        check_curve("ppo", &ppo, &gae, &golden, budget);
    }
}
