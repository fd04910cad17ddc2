//! Losses, their derivatives and schedules equal TRL's, PyTorch's and transformers'.

use model::HeadOutputs;
use serde_json::Value;
use text::{Batch, LastRead, Target};
use train::method::{Dpo, Reward, Sft};
use train::objective::{Fold, MicroOutputs, Objective};
use train::schedule::{Schedule, ScheduleKind};
use train::step::{SequenceInfo, StepPlan, Totals};

use crate::support::{floats, golden_json};

/// Relative: outputs are f32.
const TOLERANCE: f64 = 1e-6;

#[track_caller]
fn check(what: &str, actual: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    let difference = (actual - expected).abs();
    assert!(
        difference <= TOLERANCE * expected.abs().max(1e-3),
        "{what}: {actual}, expected {expected}"
    );
}

fn target(read: usize, sequence: usize, role: u8, weight: f32) -> Target {
    Target { read: read as u32, token: 0, sequence: sequence as u32, place: 0, role, weight }
}

/// A plan of pairs: sequences 2i and 2i + 1.
fn plan_of_pairs(pairs: usize) -> StepPlan {
    let info = |index: usize| SequenceInfo { unit: index as u32 / 2, role: index as u8 % 2 };
    StepPlan::from_micros(Vec::new(), (0..2 * pairs).map(info).collect())
}

/// Evaluates pairs in micro-batches of `at_once`, one target a sequence. Returns the loss and,
/// sequence by sequence, the derivative that `of` finds.
fn evaluate_pairs(
    objective: &dyn Objective,
    policy: &[[f32; 2]],
    reference: &[[f32; 2]],
    at_once: usize,
    of: impl Fn(&train::objective::Outcome) -> Vec<f32>,
) -> (f64, Vec<f32>) {
    let plan = plan_of_pairs(policy.len());
    let (mut loss, mut derivatives) = (0.0, Vec::new());
    let chunks = policy.chunks(at_once).zip(reference.chunks(at_once)).enumerate();
    for (index, (policy, reference)) in chunks {
        let first = 2 * index * at_once;
        let targets: Vec<Target> =
            (0..2 * policy.len()).map(|i| target(i, first + i, i as u8 % 2, 1.0)).collect();
        let last = (0..2 * policy.len() as u32)
            .map(|read| LastRead { read, sequence: first as u32 + read });
        let batch = Batch { targets, last_reads: last.collect(), ..Batch::default() };
        let sequences: Vec<usize> = (first..first + 2 * policy.len()).collect();
        let outputs = |values: &[[f32; 2]]| HeadOutputs {
            logprob: values.concat(),
            value: values.concat(),
            ..HeadOutputs::default()
        };
        let (policy, extra) = (outputs(policy), [outputs(reference)]);
        let micro = MicroOutputs {
            batch: &batch,
            sequences: &sequences,
            policy: &policy,
            extra: &extra,
            before: &[],
        };
        let outcome = objective.evaluate(&[micro], &plan).remove(0);
        loss += Fold::Sum.of(outcome.loss.clone());
        derivatives.extend(of(&outcome));
    }
    (loss, derivatives)
}

fn pairs_of(rows: &Value, column: usize) -> Vec<[f32; 2]> {
    let rows = rows.as_array().unwrap().iter().map(floats);
    rows.map(|row| [row[column], row[column + 1]]).collect()
}

#[test]
fn dpo_equals_trl() {
    let golden = golden_json("objectives.json");
    let (policy, reference) =
        (pairs_of(&golden["dpo_pairs"], 0), pairs_of(&golden["dpo_pairs"], 2));
    let plain = golden["dpo"].as_array().unwrap().iter().filter(|c| c["label_smoothing"] == 0.0);
    let mut cases = 0;
    for case in plain {
        cases += 1;
        let dpo = Dpo::sigmoid(case["beta"].as_f64().unwrap());
        for at_once in [1, 2, 6] {
            let (loss, derivatives) =
                evaluate_pairs(&dpo, &policy, &reference, at_once, |outcome| {
                    outcome.gradients.logprob.clone().unwrap()
                });
            check("dpo loss", loss, &case["loss"]);
            for (index, pair) in derivatives.chunks(2).enumerate() {
                check("chosen", pair[0].into(), &case["gradient"][index][0]);
                check("rejected", pair[1].into(), &case["gradient"][index][1]);
            }
        }
    }
    assert_eq!(cases, 2);
}

#[test]
fn dpo_begins_at_ln_2() {
    let same = [[-3.0, -9.0], [-100.0, -1.0]];
    let (loss, _) = evaluate_pairs(&Dpo::sigmoid(0.3), &same, &same, 2, |_| Vec::new());
    assert!((loss - std::f64::consts::LN_2).abs() < 1e-12, "{loss}");
}

#[test]
fn reward_equals_trl() {
    let golden = golden_json("objectives.json");
    let rewards = pairs_of(&golden["reward_pairs"], 0);
    let case = &golden["reward"][0];
    assert_eq!(case["center"], 0.0);
    for at_once in [1, 4, 6] {
        let (loss, derivatives) =
            evaluate_pairs(&Reward::default(), &rewards, &rewards, at_once, |outcome| {
                outcome.gradients.value.clone().unwrap()
            });
        check("reward loss", loss, &case["loss"]);
        for (index, pair) in derivatives.chunks(2).enumerate() {
            check("chosen", pair[0].into(), &case["gradient"][index][0]);
            check("rejected", pair[1].into(), &case["gradient"][index][1]);
        }
    }
}

#[test]
fn sft_is_a_weighted_mean_over_the_whole_step() {
    let golden = golden_json("objectives.json");
    let logprobs = floats(&golden["sft_logprobs"]);
    for case in golden["sft"].as_array().unwrap() {
        let weights = floats(&case["weights"]);
        let total = weights.iter().map(|&weight| f64::from(weight)).sum();
        let mut plan = StepPlan::from_micros(Vec::new(), Vec::new());
        plan.totals = Totals { weight: total, ..Totals::default() };
        for at_once in [1, 3, 7] {
            let (mut loss, mut derivatives) = (0.0, Vec::new());
            for (weights, logprobs) in weights.chunks(at_once).zip(logprobs.chunks(at_once)) {
                let rows = weights.iter().enumerate();
                let targets: Vec<Target> = rows.map(|(i, &w)| target(i, 0, 0, w)).collect();
                let policy = HeadOutputs { logprob: logprobs.to_vec(), ..HeadOutputs::default() };
                let batch = Batch { targets, ..Batch::default() };
                let micro = MicroOutputs {
                    batch: &batch,
                    sequences: &[0],
                    policy: &policy,
                    extra: &[],
                    before: &[],
                };
                let outcome = Sft.evaluate(&[micro], &plan).remove(0);
                loss += Fold::Sum.of(outcome.loss.clone());
                // What is handed over before the forward is what evaluation says after it.
                assert_eq!(outcome.gradients.logprob, Sft.known_gradient(&micro, &plan));
                derivatives.extend(outcome.gradients.logprob.unwrap());
            }
            check("sft loss", loss, &case["loss"]);
            for (index, derivative) in derivatives.into_iter().enumerate() {
                check("sft gradient", derivative.into(), &case["gradient"][index]);
            }
        }
    }
}

/// The schedule of a golden case, where there is one here.
///
/// `constant` of transformers takes no notice of warm-up: with none, it is ours too.
fn schedule(case: &Value) -> Option<Schedule> {
    let warmup_steps = case["warmup_steps"].as_u64().unwrap();
    let kind = match case["kind"].as_str().unwrap() {
        "constant" if warmup_steps > 0 => return None,
        "constant" | "constant_with_warmup" => ScheduleKind::Constant,
        "linear" => ScheduleKind::Linear,
        "cosine" | "cosine_with_min_lr" => ScheduleKind::Cosine,
        other => panic!("unknown schedule {other}"),
    };
    let total_steps = case["total_steps"].as_u64().unwrap();
    let min_ratio = case["min_lr_rate"].as_f64().unwrap_or(0.0);
    Some(Schedule { kind, warmup_steps, total_steps, min_ratio })
}

#[test]
fn schedules_equal_transformers() {
    let golden = golden_json("schedule.json");
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let Some(schedule) = schedule(case) else { continue };
        compared += 1;
        for (step, expected) in case["factors"].as_array().unwrap().iter().enumerate() {
            let factor = schedule.factor(step as u64);
            let difference = (factor - expected.as_f64().unwrap()).abs();
            assert!(difference < 1e-8, "{schedule:?}, step {step}: {factor}, expected {expected}");
        }
    }
    assert_eq!(compared, 30);
}

#[test]
fn a_schedule_ends_at_its_least_factor() {
    for kind in [ScheduleKind::Linear, ScheduleKind::Cosine] {
        let schedule = Schedule { kind, warmup_steps: 2, total_steps: 10, min_ratio: 0.25 };
        assert_eq!(schedule.factor(2), 1.0);
        assert_eq!(schedule.factor(10), 0.25);
        assert_eq!(schedule.factor(1000), 0.25);
    }
}
