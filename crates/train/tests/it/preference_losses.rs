//! Losses over preferences: their slopes, and that they come through zeros and do not depend on micro-batches.

use data::Micro;
use model::HeadOutputs;
use text::{Batch, Target};
use train::method::{Bco, Contrast, Divergence, Dpo, Kto, LOSSES, Orpo, ReferenceFree};
use train::objective::{Coupling, Fold, MicroOutputs, Objective};
use train::step::{SequenceInfo, StepPlan};

/// Learned tokens of the chosen and the rejected answer of every pair.
const LENGTHS: [[usize; 2]; 4] = [[3, 5], [1, 1], [4, 2], [2, 2]];

/// Tokens of every prompt, which some losses read too.
const PROMPT: usize = 2;

/// Log-probabilities of a step, token by token, `[sequences][tokens]`.
#[derive(Clone)]
struct Step {
    policy: Vec<Vec<f32>>,
    reference: Vec<Vec<f32>>,
}

/// Numbers that repeat in every run.
fn drawn(purpose: u64, index: u64, scale: f64) -> f32 {
    let draw = compute::random::uniform(compute::random::key(&[purpose, index]));
    (-scale * f64::from(draw) - 0.01) as f32
}

impl Step {
    fn new(scale: f64) -> Self {
        let mut next = 0;
        let mut rows = |purpose: u64| {
            let mut row = |learned: usize| {
                let tokens = (0..PROMPT + learned).map(|_| {
                    next += 1;
                    drawn(purpose, next, scale)
                });
                tokens.collect::<Vec<f32>>()
            };
            LENGTHS.iter().flatten().map(|&learned| row(learned)).collect()
        };
        Step { policy: rows(1), reference: rows(2) }
    }

    /// All log-probabilities 0, as a device that only counts gives them.
    fn zeros() -> Self {
        let mut step = Step::new(1.0);
        step.policy.iter_mut().chain(&mut step.reference).for_each(|row| row.fill(0.0));
        step
    }
}

/// A micro-batch with the pairs of that range. Prompts are targets where the objective reads everything.
fn micro(pairs: std::ops::Range<usize>, everything: bool) -> Micro {
    let mut batch = Batch::default();
    let sequences: Vec<usize> = (2 * pairs.start..2 * pairs.end).collect();
    for &sequence in &sequences {
        let learned = LENGTHS[sequence / 2][sequence % 2];
        let first = if everything { 0 } else { PROMPT };
        for (place, token) in (first..PROMPT + learned).enumerate() {
            let read = batch.targets.len() as u32;
            let weight = if token < PROMPT { 0.0 } else { 1.0 };
            let (sequence, role) = (sequence as u32, (sequence % 2) as u8);
            let (token, place) = (token as u32, place as u32);
            batch.targets.push(Target { read, token, sequence, place, role, weight });
        }
    }
    Micro { batch, sequences }
}

/// Loss and derivative by every target, in the order of sequences. Targets name the token that they are.
fn evaluate(objective: &dyn Objective, step: &Step, at_once: usize) -> (f64, Vec<f32>) {
    let everything = objective.reads() == data::Reads::Everything;
    let pairs = LENGTHS.len();
    let cuts = (0..pairs).step_by(at_once);
    let micros = cuts.map(|start| micro(start..(start + at_once).min(pairs), everything));
    let info = |index: usize| SequenceInfo { unit: index as u32 / 2, role: index as u8 % 2 };
    let mut plan = StepPlan::from_micros(micros.collect(), (0..2 * pairs).map(info).collect());
    plan.carried = objective.initially_carried();
    let outputs = |rows: &[Vec<f32>], micro: &Micro| {
        let value = |target: &Target| rows[target.sequence as usize][target.token as usize];
        HeadOutputs {
            logprob: micro.batch.targets.iter().map(value).collect(),
            log_sum_sq_probs: micro
                .batch
                .targets
                .iter()
                .map(|t| drawn(3, t.read.into(), 2.0))
                .collect(),
            ..HeadOutputs::default()
        }
    };
    let given: Vec<_> = plan
        .micros
        .iter()
        .map(|micro| (outputs(&step.policy, micro), [outputs(&step.reference, micro)]))
        .collect();
    let before = [0.25];
    let micros: Vec<MicroOutputs<'_>> = plan
        .micros
        .iter()
        .zip(&given)
        .map(|(Micro { batch, sequences }, (policy, extra))| MicroOutputs {
            batch,
            sequences,
            policy,
            extra,
            before: &before,
        })
        .collect();
    let outcomes = match objective.coupling() {
        Coupling::Step => objective.evaluate(&micros, &plan),
        _ => micros.iter().flat_map(|micro| objective.evaluate(&[*micro], &plan)).collect(),
    };
    let loss = outcomes.iter().flat_map(|outcome| outcome.loss.clone()).collect();
    let gradients = outcomes.into_iter().flat_map(|outcome| outcome.gradients.logprob.unwrap());
    (Fold::Sum.of(loss), gradients.collect())
}

/// Every objective over log-probabilities of preferences, with a name.
fn objectives() -> Vec<(String, Box<dyn Objective>)> {
    let plain = Dpo::sigmoid(0.3);
    let mut all: Vec<(String, Box<dyn Objective>)> = Vec::new();
    for (name, loss) in LOSSES {
        let label_smoothing = if loss.takes_smoothing() { 0.1 } else { 0.0 };
        let losses = vec![(loss, 0.7)];
        all.push((
            name.into(),
            Box::new(Dpo { losses, label_smoothing, ld_alpha: 0.5, ..plain.clone() }),
        ));
    }
    for divergence in [Divergence::ForwardKl, Divergence::JensenShannon, Divergence::Alpha(0.3)] {
        all.push((format!("{divergence:?}"), Box::new(Dpo { divergence, ..plain.clone() })));
    }
    let mix = LOSSES[..3].iter().map(|(_, loss)| (*loss, 0.4)).collect();
    all.push(("mix".into(), Box::new(Dpo { losses: mix, rpo_alpha: 0.5, ..plain })));
    all.push(("orpo".into(), Box::new(Orpo { beta: 0.4 })));
    for contrast in [
        Contrast::Sigmoid { label_smoothing: 0.1 },
        Contrast::Hinge,
        Contrast::Ipo,
        Contrast::Simple { gamma: 0.7 },
    ] {
        let objective = ReferenceFree { beta: 0.3, contrast, nll_weight: 0.5 };
        all.push((format!("{contrast:?}"), Box::new(objective)));
    }
    let kto = Kto { beta: 0.3, desirable_weight: 1.3, undesirable_weight: 0.8, uses_kl: true };
    all.push(("kto".into(), Box::new(kto)));
    all.push(("apo_zero_unpaired".into(), Box::new(Kto { uses_kl: false, ..kto })));
    all
}

#[test]
fn slopes_are_those_of_the_loss() {
    let step = Step::new(1.5);
    for (name, objective) in objectives() {
        let (_, gradients) = evaluate(&*objective, &step, 2);
        let everything = objective.reads() == data::Reads::Everything;
        let mut index = 0;
        for row in 0..step.policy.len() {
            let first = if everything { 0 } else { PROMPT };
            for token in first..step.policy[row].len() {
                // Log-probabilities are f32: the step that is taken is the one that they can take.
                let moved = |by: f32| {
                    let mut step = step.clone();
                    step.policy[row][token] += by;
                    (f64::from(step.policy[row][token]), evaluate(&*objective, &step, 2).0)
                };
                let [(up, above), (down, below)] = [moved(1e-3), moved(-1e-3)];
                let difference = (above - below) / (up - down);
                let slope = f64::from(gradients[index]);
                let bound = 2e-5 * (1.0 + slope.abs());
                assert!(
                    (slope - difference).abs() < bound,
                    "{name}, {row}, {token}: {slope}, {difference}"
                );
                index += 1;
            }
        }
        assert_eq!(index, gradients.len());
    }
}

#[test]
fn micro_batches_change_no_bit_of_a_loss() {
    let step = Step::new(3.0);
    let bco: (String, Box<dyn Objective>) = ("bco".into(), Box::new(Bco { beta: 0.2 }));
    for (name, objective) in objectives().into_iter().chain([bco]) {
        let whole = evaluate(&*objective, &step, LENGTHS.len());
        for at_once in [1, 2, 3] {
            let cut = evaluate(&*objective, &step, at_once);
            assert_eq!(cut.0.to_bits(), whole.0.to_bits(), "{name}");
            assert_eq!(cut.1, whole.1, "{name}");
        }
    }
}

#[test]
fn zeros_and_far_apart_answers_are_survived() {
    let bco: (String, Box<dyn Objective>) = ("bco".into(), Box::new(Bco { beta: 0.2 }));
    for (name, objective) in objectives().into_iter().chain([bco]) {
        for (what, step) in [("zeros", Step::zeros()), ("far", Step::new(60.0))] {
            let (loss, gradients) = evaluate(&*objective, &step, 2);
            assert!(loss.is_finite(), "{name}, {what}: {loss}");
            assert!(
                gradients.iter().all(|slope| slope.is_finite()),
                "{name}, {what}: {gradients:?}"
            );
        }
    }
}

#[test]
fn wpo_weighs_pairs_and_its_weight_has_no_slope() {
    let step = Step::new(1.5);
    let plain = Dpo::sigmoid(0.3);
    let (unweighed, slopes) = evaluate(&plain, &step, 1);
    let (weighed, weighed_slopes) = evaluate(&Dpo { wpo: true, ..plain }, &step, 1);
    assert!((weighed - unweighed).abs() > 1e-3);
    // Within a pair all slopes are changed by the same factor.
    let mut start = 0;
    for lengths in LENGTHS {
        let range = start..start + lengths[0] + lengths[1];
        let ratios: Vec<f32> = range.clone().map(|i| weighed_slopes[i] / slopes[i]).collect();
        assert!(ratios.iter().all(|ratio| (ratio / ratios[0] - 1.0).abs() < 1e-5), "{ratios:?}");
        start = range.end;
    }
}

#[test]
fn the_running_mean_is_of_all_rewards_so_far() {
    let step = Step::new(1.5);
    let bco = Bco { beta: 0.2 };
    let info = |index: usize| SequenceInfo { unit: index as u32 / 2, role: index as u8 % 2 };
    let pairs = LENGTHS.len();
    let mut plan =
        StepPlan::from_micros(vec![micro(0..pairs, false)], (0..2 * pairs).map(info).collect());
    let logprob = |rows: &[Vec<f32>]| {
        let value = |target: &Target| rows[target.sequence as usize][target.token as usize];
        let logprob = plan.micros[0].batch.targets.iter().map(value).collect();
        HeadOutputs { logprob, ..HeadOutputs::default() }
    };
    let (policy, extra) = (logprob(&step.policy), [logprob(&step.reference)]);
    let rewards = (0..2 * pairs).map(|row| {
        let tokens = PROMPT..step.policy[row].len();
        tokens
            .map(|t| f64::from(step.policy[row][t]) - f64::from(step.reference[row][t]))
            .sum::<f64>()
            * 0.2
    });
    let sum: f64 = rewards.sum();
    plan.carried = vec![4.0, 10.0];
    let evaluate = |plan: &StepPlan| {
        let Micro { batch, sequences } = &plan.micros[0];
        let micro = MicroOutputs { batch, sequences, policy: &policy, extra: &extra, before: &[] };
        bco.evaluate(&[micro], plan).remove(0).carried
    };
    let carried = evaluate(&plan);
    assert_eq!(carried[0], 12.0);
    assert!((carried[1] - (40.0 + sum) / 12.0).abs() < 1e-12, "{carried:?}");
    plan.is_validation = true;
    assert_eq!(evaluate(&plan), plan.carried, "a validation changes nothing");
}
