//! Losses over preferences: their slopes, and that they come through zeros and do not depend on micro-batches.

use std::ops::Range;

use data::Micro;
use model::HeadOutputs;
use serde_json::Value;
use text::{Batch, LastRead, Target};
use train::method::{
    Bco, Contrast, Divergence, Dpo, Kto, LOSSES, Loss, Orpo, ReferenceFree, Reward, RewardLoss,
};
use train::objective::{Coupling, Fold, MicroOutputs, Objective, Outcome};
use train::step::{SequenceInfo, StepPlan};

use crate::support::{floats, golden_json};

/// Log-probabilities of a step of pairs, token by token, `[sequences][prompt and answer]`.
#[derive(Clone)]
struct Step {
    /// Tokens of every pair's prompt, which some losses read too.
    prompts: Vec<usize>,
    policy: Vec<Vec<f32>>,
    reference: Vec<Vec<f32>>,
    /// Log of the sum of squared probabilities.
    squares: Vec<Vec<f32>>,
}

/// Numbers that repeat in every run.
fn drawn(purpose: u64, index: u64, scale: f64) -> f32 {
    let draw = compute::random::uniform(compute::random::key(&[purpose, index]));
    (-scale * f64::from(draw) - 0.01) as f32
}

impl Step {
    fn new(scale: f64) -> Self {
        let lengths = [[3, 5], [1, 1], [4, 2], [2, 2]];
        let mut next = 0;
        let mut rows = |purpose: u64, scale: f64| {
            let mut row = |learned: usize| {
                let tokens = (0..2 + learned).map(|_| {
                    next += 1;
                    drawn(purpose, next, scale)
                });
                tokens.collect::<Vec<f32>>()
            };
            lengths.iter().flatten().map(|&learned| row(learned)).collect()
        };
        let (policy, reference) = (rows(1, scale), rows(2, scale));
        Step { prompts: vec![2; 4], policy, reference, squares: rows(3, 2.0) }
    }

    /// All log-probabilities 0, as a device that only counts gives them.
    fn zeros() -> Self {
        let mut step = Step::new(1.0);
        step.policy.iter_mut().chain(&mut step.reference).for_each(|row| row.fill(0.0));
        step
    }

    /// The pairs of the golden.
    fn of_golden(golden: &Value) -> Self {
        let mut step = Step { prompts: vec![], policy: vec![], reference: vec![], squares: vec![] };
        for pair in golden["pairs"].as_array().unwrap() {
            let prompt = floats(&pair["prompt"]);
            step.prompts.push(prompt.len());
            let behind = |prompt: &[f32], name: &str| [prompt, &floats(&pair[name])].concat();
            let zeros = vec![0.0; prompt.len()];
            for side in ["chosen", "rejected"] {
                step.policy.push(behind(&prompt, side));
                step.reference.push(behind(&zeros, &format!("ref_{side}")));
                step.squares.push(behind(&zeros, &format!("sq_{side}")));
            }
        }
        step
    }

    fn pairs(&self) -> usize {
        self.prompts.len()
    }

    /// A micro-batch with the pairs of that range. Prompts are targets where the objective reads `everything`.
    fn micro(&self, pairs: Range<usize>, everything: bool) -> Micro {
        let mut batch = Batch::default();
        let sequences: Vec<usize> = (2 * pairs.start..2 * pairs.end).collect();
        for &sequence in &sequences {
            let prompt = self.prompts[sequence / 2];
            let first = if everything { 0 } else { prompt };
            for (place, token) in (first..self.policy[sequence].len()).enumerate() {
                let read = batch.targets.len() as u32;
                let weight = if token < prompt { 0.0 } else { 1.0 };
                let (sequence, role) = (sequence as u32, (sequence % 2) as u8);
                let (token, place) = (token as u32, place as u32);
                batch.targets.push(Target { read, token, sequence, place, role, weight });
            }
        }
        Micro { batch, sequences }
    }

    fn plan(&self, objective: &dyn Objective, at_once: usize) -> StepPlan {
        let everything = objective.reads() == data::Reads::Everything;
        let pairs = self.pairs();
        let cuts = (0..pairs).step_by(at_once);
        let micros = cuts.map(|start| self.micro(start..(start + at_once).min(pairs), everything));
        let info = |index: usize| SequenceInfo { unit: index as u32 / 2, role: index as u8 % 2 };
        let mut plan = StepPlan::from_micros(micros.collect(), (0..2 * pairs).map(info).collect());
        plan.carried = objective.initially_carried();
        plan
    }

    fn outcomes(&self, objective: &dyn Objective, plan: &StepPlan, before: &[f64]) -> Vec<Outcome> {
        let values = |rows: &[Vec<f32>], micro: &Micro| {
            let value = |target: &Target| rows[target.sequence as usize][target.token as usize];
            micro.batch.targets.iter().map(value).collect::<Vec<f32>>()
        };
        let outputs = |rows: &[Vec<f32>], micro: &Micro| HeadOutputs {
            logprob: values(rows, micro),
            log_sum_sq_probs: values(&self.squares, micro),
            ..HeadOutputs::default()
        };
        let given: Vec<_> = plan
            .micros
            .iter()
            .map(|micro| (outputs(&self.policy, micro), [outputs(&self.reference, micro)]))
            .collect();
        let micros: Vec<MicroOutputs<'_>> = plan
            .micros
            .iter()
            .zip(&given)
            .map(|(Micro { batch, sequences }, (policy, extra))| MicroOutputs {
                batch,
                sequences,
                policy,
                extra,
                before,
            })
            .collect();
        match objective.coupling() {
            Coupling::Step => objective.evaluate(&micros, plan),
            _ => micros.iter().flat_map(|micro| objective.evaluate(&[*micro], plan)).collect(),
        }
    }
}

/// Loss and derivative by every target, in the order of sequences.
fn evaluate(objective: &dyn Objective, step: &Step, at_once: usize) -> (f64, Vec<f32>) {
    evaluate_after(objective, step, at_once, &[0.25])
}

/// The same, where auxiliary sequences gave these numbers.
fn evaluate_after(
    objective: &dyn Objective,
    step: &Step,
    at_once: usize,
    before: &[f64],
) -> (f64, Vec<f32>) {
    let outcomes = step.outcomes(objective, &step.plan(objective, at_once), before);
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
    let kto = Kto {
        beta: 0.3,
        desirable_weight: 1.3,
        undesirable_weight: 0.8,
        uses_kl: true,
        kl_max_tokens: 64,
    };
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
            let first = if everything { 0 } else { step.prompts[row / 2] };
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
        let whole = evaluate(&*objective, &step, step.pairs());
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
    let mut ratios = weighed_slopes.iter().zip(&slopes).map(|(weighed, plain)| weighed / plain);
    for pair in 0..step.pairs() {
        let tokens = |row: usize| step.policy[row].len() - step.prompts[pair];
        let own: Vec<f32> = ratios.by_ref().take(tokens(2 * pair) + tokens(2 * pair + 1)).collect();
        assert!(own.iter().all(|ratio| (ratio / own[0] - 1.0).abs() < 1e-5), "{own:?}");
    }
}

#[test]
fn the_running_mean_is_of_all_rewards_so_far() {
    let step = Step::new(1.5);
    let bco = Bco { beta: 0.2 };
    let rewards = (0..2 * step.pairs()).map(|row| {
        let tokens = step.prompts[row / 2]..step.policy[row].len();
        let ratio = |t: usize| f64::from(step.policy[row][t]) - f64::from(step.reference[row][t]);
        0.2 * tokens.map(ratio).sum::<f64>()
    });
    let sum: f64 = rewards.sum();
    let mut plan = step.plan(&bco, 2);
    plan.carried = vec![4.0, 10.0];
    let carried = |plan: &StepPlan| step.outcomes(&bco, plan, &[]).remove(0).carried;
    let after = carried(&plan);
    assert_eq!(after[0], 12.0);
    assert!((after[1] - (40.0 + sum) / 12.0).abs() < 1e-12, "{after:?}");
    plan.is_validation = true;
    assert_eq!(carried(&plan), plan.carried, "a validation changes nothing");
}

/// Outputs are f32.
#[track_caller]
fn check(what: &str, actual: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    let bound = 2e-6 * expected.abs().max(1e-2);
    assert!((actual - expected).abs() <= bound, "{what}: {actual}, expected {expected}");
}

/// Compares loss and derivatives with a case of the golden.
#[track_caller]
fn check_case(objective: &dyn Objective, step: &Step, before: &[f64], case: &Value) {
    let what = case["settings"].to_string();
    let everything = objective.reads() == data::Reads::Everything;
    for at_once in [1, 4, step.pairs()] {
        let (loss, gradients) = evaluate_after(objective, step, at_once, before);
        check(&what, loss, &case["loss"]);
        let mut gradients = gradients.into_iter();
        for pair in 0..step.pairs() {
            for side in ["chosen", "rejected"] {
                if everything {
                    let prompt = gradients.by_ref().take(step.prompts[pair]);
                    for (token, slope) in prompt.enumerate() {
                        match side {
                            "chosen" => {
                                check(
                                    &what,
                                    slope.into(),
                                    &case["gradient"]["prompt"][pair][token],
                                );
                            }
                            _ => assert_eq!(slope, 0.0, "{what}: a rejected answer's prompt"),
                        }
                    }
                }
                for expected in case["gradient"][side][pair].as_array().unwrap() {
                    check(&what, gradients.next().unwrap().into(), expected);
                }
            }
        }
        assert_eq!(gradients.next(), None);
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn dpo_equals_trl_in_every_setting() {
    let golden = golden_json("preferences.json");
    let step = Step::of_golden(&golden);
    let cases = golden["dpo"].as_array().unwrap();
    assert_eq!(cases.len(), 44);
    for case in cases {
        let settings = &case["settings"];
        let loss =
            |loss: &Value| (Loss::named(loss[0].as_str().unwrap()).unwrap(), number(&loss[1]));
        let dpo = Dpo {
            beta: number(&settings["beta"]),
            losses: settings["loss"].as_array().unwrap().iter().map(loss).collect(),
            label_smoothing: number(&settings["label_smoothing"]),
            divergence: match settings["divergence"].as_str().unwrap() {
                "forward_kl" => Divergence::ForwardKl,
                "js_divergence" => Divergence::JensenShannon,
                "alpha_divergence" => Divergence::Alpha(number(&settings["alpha_coefficient"])),
                _ => Divergence::ReverseKl,
            },
            ld_alpha: settings["ld_alpha"].as_f64().unwrap_or(1.0),
            rpo_alpha: number(&settings["rpo_alpha"]),
            wpo: settings["wpo"].as_bool().unwrap(),
            discopop_tau: number(&settings["discopop_tau"]),
        };
        check_case(&dpo, &step, &[], case);
    }
}

#[test]
fn losses_without_a_reference_equal_trl() {
    let golden = golden_json("preferences.json");
    let step = Step::of_golden(&golden);
    for case in golden["orpo"].as_array().unwrap() {
        check_case(&Orpo { beta: number(&case["settings"]["beta"]) }, &step, &[], case);
    }
    for method in ["cpo", "simpo"] {
        for case in golden[method].as_array().unwrap() {
            let settings = &case["settings"];
            let contrast = match settings["loss"].as_str() {
                Some("hinge") => Contrast::Hinge,
                Some("ipo") => Contrast::Ipo,
                Some(_) => {
                    Contrast::Sigmoid { label_smoothing: number(&settings["label_smoothing"]) }
                }
                None => Contrast::Simple { gamma: number(&settings["gamma"]) },
            };
            let (beta, nll_weight) = (number(&settings["beta"]), number(&settings["alpha"]));
            check_case(&ReferenceFree { beta, contrast, nll_weight }, &step, &[], case);
        }
    }
}

#[test]
fn kto_equals_trl() {
    let golden = golden_json("preferences.json");
    let step = Step::of_golden(&golden);
    for case in golden["kto"].as_array().unwrap() {
        let settings = &case["settings"];
        let kto = Kto {
            beta: number(&settings["beta"]),
            desirable_weight: number(&settings["desirable_weight"]),
            undesirable_weight: number(&settings["undesirable_weight"]),
            uses_kl: settings["loss"] == "kto",
            kl_max_tokens: usize::MAX,
        };
        let sum = |name: &str| case[name].as_array().unwrap().iter().map(number).sum::<f64>();
        let kl = (sum("kl_policy") - sum("kl_reference")) / 12.0;
        check_case(&kto, &step, &[kl], case);
    }
}

#[test]
fn bco_equals_trl_over_several_steps() {
    let golden = golden_json("preferences.json");
    let all = Step::of_golden(&golden);
    for case in golden["bco"]["cases"].as_array().unwrap() {
        let bco = Bco { beta: number(&case["beta"]) };
        let mut carried = bco.initially_carried();
        for expected in case["steps"].as_array().unwrap() {
            let indices = |side: &str| {
                expected[side]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|i| i.as_u64().unwrap() as usize)
                    .collect::<Vec<_>>()
            };
            let rows: Vec<(usize, u8)> = indices("chosen")
                .into_iter()
                .map(|pair| (2 * pair, 0))
                .chain(indices("rejected").into_iter().map(|pair| (2 * pair + 1, 1)))
                .collect();
            // Each answer is a row of its own.
            let mut batch = Batch::default();
            for (sequence, &(row, role)) in rows.iter().enumerate() {
                for token in all.prompts[row / 2]..all.policy[row].len() {
                    let (read, sequence) = (batch.targets.len() as u32, sequence as u32);
                    let target =
                        Target { read, token: token as u32, sequence, place: 0, role, weight: 1.0 };
                    batch.targets.push(target);
                }
            }
            let logprobs = |values: &[Vec<f32>]| {
                let value = |target: &Target| {
                    values[rows[target.sequence as usize].0][target.token as usize]
                };
                let logprob = batch.targets.iter().map(value).collect();
                HeadOutputs { logprob, ..HeadOutputs::default() }
            };
            let (policy, extra) = (logprobs(&all.policy), [logprobs(&all.reference)]);
            let sequences: Vec<usize> = (0..rows.len()).collect();
            let infos = (0..).zip(&rows).map(|(unit, &(_, role))| SequenceInfo { unit, role });
            let mut plan = StepPlan::from_micros(Vec::new(), infos.collect());
            plan.carried = carried;
            let micro = MicroOutputs {
                batch: &batch,
                sequences: &sequences,
                policy: &policy,
                extra: &extra,
                before: &[],
            };
            let outcome = bco.evaluate(&[micro], &plan).remove(0);
            carried = outcome.carried;
            check("delta", carried[1], &expected["delta"]);
            check("bco", Fold::Sum.of(outcome.loss), &expected["loss"]);
            let mut gradients = outcome.gradients.logprob.unwrap().into_iter();
            for side in ["chosen", "rejected"] {
                for slope in expected["gradient"][side]
                    .as_array()
                    .unwrap()
                    .iter()
                    .flat_map(|row| row.as_array().unwrap())
                {
                    check("bco slope", gradients.next().unwrap().into(), slope);
                }
            }
        }
    }
}

/// Loss and derivatives of rewards that are read at last tokens, a unit of so many at a time.
fn of_rewards(reward: Reward, rewards: &[f32], unit: usize, sides: Vec<Value>) -> (f64, Vec<f32>) {
    let count = rewards.len() as u32;
    let sequence = |read: u32| if reward.loss == RewardLoss::Steps { 0 } else { read };
    let last_reads = (0..count).map(|read| LastRead { read, sequence: sequence(read) });
    let batch = Batch { last_reads: last_reads.collect(), ..Batch::default() };
    let of_steps = reward.loss == RewardLoss::Steps;
    let sequences: Vec<usize> = if of_steps { vec![0] } else { (0..rewards.len()).collect() };
    let info =
        |index: &usize| SequenceInfo { unit: (index / unit) as u32, role: (index % unit) as u8 };
    let mut plan = StepPlan::from_micros(Vec::new(), sequences.iter().map(info).collect());
    plan.totals.targets = rewards.len();
    plan.sides = sides.into_iter().map(|side| side.as_object().unwrap().clone()).collect();
    let policy = HeadOutputs { value: rewards.to_vec(), ..HeadOutputs::default() };
    let micro = MicroOutputs {
        batch: &batch,
        sequences: &sequences,
        policy: &policy,
        extra: &[],
        before: &[],
    };
    let outcome = reward.evaluate(&[micro], &plan).remove(0);
    (Fold::Sum.of(outcome.loss), outcome.gradients.value.unwrap())
}

#[test]
fn reward_losses_equal_trl_and_their_formulas() {
    let golden = golden_json("preferences.json");
    let pairs: Vec<f32> =
        golden["reward"]["pairs"].as_array().unwrap().iter().flat_map(floats).collect();
    let margins = floats(&golden["reward"]["margins"]);
    for case in golden["reward"]["cases"].as_array().unwrap() {
        let side = |margin: &f32| match case["margins"].as_bool().unwrap() {
            true => serde_json::json!({"margin": margin}),
            false => serde_json::json!({}),
        };
        let reward = Reward { center: number(&case["center"]), ..Reward::default() };
        let (loss, slopes) = of_rewards(reward, &pairs, 2, margins.iter().map(side).collect());
        check("reward", loss, &case["loss"]);
        for (slope, expected) in slopes.chunks(2).zip(case["gradient"].as_array().unwrap()) {
            check("chosen", slope[0].into(), &expected[0]);
            check("rejected", slope[1].into(), &expected[1]);
        }
    }
    let plackett_luce = Reward { loss: RewardLoss::PlackettLuce, center: 0.0 };
    for case in golden["plackett_luce"].as_array().unwrap() {
        let rewards = floats(&case["rewards"]);
        let sides = vec![serde_json::json!({})];
        let (loss, slopes) = of_rewards(plackett_luce, &rewards, rewards.len(), sides);
        check("plackett_luce", loss, &case["loss"]);
        for (slope, expected) in slopes.iter().zip(case["gradient"].as_array().unwrap()) {
            check("plackett_luce slope", (*slope).into(), expected);
        }
    }
    let steps = Reward { loss: RewardLoss::Steps, center: 0.0 };
    for case in golden["stepwise"].as_array().unwrap() {
        let sides = vec![serde_json::json!({"labels": case["labels"]})];
        let (loss, slopes) = of_rewards(steps, &floats(&case["rewards"]), 1, sides);
        check("steps", loss, &case["loss"]);
        for (slope, expected) in slopes.iter().zip(case["gradient"].as_array().unwrap()) {
            check("steps slope", (*slope).into(), expected);
        }
    }
}
