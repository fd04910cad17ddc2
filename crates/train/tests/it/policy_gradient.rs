//! Losses over sampled answers: TRL's numbers, their slopes, and what may not change them.

use std::sync::Arc;

use data::Micro;
use model::HeadOutputs;
use serde_json::Value;
use text::{Batch, Target};
use train::objective::{
    Average, BinaryDivergence, Correction, Coupling, Fold, KlController, KlEstimator, KlLoss,
    MicroOutputs, Objective, Outcome, PolicyGradient, RatioLevel, Surrogate, Token, ValueLoss,
};
use train::step::{Sampled, SequenceInfo, StepPlan};

use crate::support::golden_json;

/// Numbers of a JSON list of lists.
pub(crate) fn rows(value: &Value) -> Vec<Vec<f64>> {
    let row = |row: &Value| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    value.as_array().unwrap().iter().map(row).collect()
}

/// Sampled answers, `[sequences][targets]`.
#[derive(Clone)]
struct Answers {
    policy: Vec<Vec<f64>>,
    old: Vec<Vec<f64>>,
    sampled: Vec<Vec<f64>>,
    reference: Vec<Vec<f64>>,
    entropies: Vec<Vec<f64>>,
    mask: Vec<Vec<f64>>,
    advantages: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
    old_values: Vec<Vec<f64>>,
    returns: Vec<Vec<f64>>,
}

/// What an objective makes of them.
struct Result {
    loss: f64,
    /// By the log-probabilities, `[sequences][targets]`.
    gradient: Vec<Vec<f64>>,
    entropy_gradient: Vec<Vec<f64>>,
    value_gradient: Vec<Vec<f64>>,
    metrics: Vec<(&'static str, f64)>,
    carried: Vec<f64>,
}

impl Result {
    fn metric(&self, name: &str) -> f64 {
        let found = self.metrics.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no `{name}`")).1
    }
}

impl Answers {
    fn of_golden(golden: &Value) -> Self {
        let column = |name: &str| rows(&golden["rows"][name]);
        let policy = column("policy");
        let advantages = golden["rows"]["advantages"].as_array().unwrap().iter();
        let advantages = advantages.zip(&policy);
        Answers {
            advantages: advantages.map(|(a, row)| vec![a.as_f64().unwrap(); row.len()]).collect(),
            old: column("old"),
            sampled: column("sampled"),
            reference: column("reference"),
            entropies: column("entropies"),
            mask: column("mask"),
            values: column("values"),
            old_values: column("old_values"),
            returns: column("returns"),
            policy,
        }
    }

    /// As the policy itself sampled them.
    fn on_policy(mut self) -> Self {
        self.old = self.policy.clone();
        self.sampled = self.policy.clone();
        self
    }

    /// All of them as long as the shortest of more than one token, without observations.
    fn of_one_length(mut self) -> Self {
        for rows in self.columns() {
            rows.remove(1);
            rows.iter_mut().for_each(|row| row.truncate(2));
        }
        self.mask.iter_mut().flatten().for_each(|weight| *weight = 1.0);
        self
    }

    fn columns(&mut self) -> [&mut Vec<Vec<f64>>; 10] {
        [
            &mut self.policy,
            &mut self.old,
            &mut self.sampled,
            &mut self.reference,
            &mut self.entropies,
            &mut self.mask,
            &mut self.advantages,
            &mut self.values,
            &mut self.old_values,
            &mut self.returns,
        ]
    }

    fn permuted(mut self, order: &[usize]) -> Self {
        for rows in self.columns() {
            *rows = order.iter().map(|&index| rows[index].clone()).collect();
        }
        self
    }

    fn micro(&self, sequences: Vec<usize>) -> Micro {
        let mut batch = Batch::default();
        for &sequence in &sequences {
            for (place, &weight) in self.mask[sequence].iter().enumerate() {
                let read = batch.targets.len() as u32;
                let (sequence, place, weight) = (sequence as u32, place as u32, weight as f32);
                batch.reads.push(read);
                batch.targets.push(Target { read, token: 0, sequence, place, role: 0, weight });
            }
        }
        Micro { batch, sequences }
    }

    fn plan(&self, objective: &dyn Objective, at_once: usize) -> StepPlan {
        let count = self.policy.len();
        let cuts = (0..count).step_by(at_once);
        let micros = cuts.map(|at| self.micro((at..(at + at_once).min(count)).collect())).collect();
        let info = |unit| SequenceInfo { unit, role: 0 };
        let mut plan = StepPlan::from_micros(micros, (0..count as u32).map(info).collect());
        let column = |row: &[f64]| -> Arc<[f32]> { row.iter().map(|&v| v as f32).collect() };
        let sampled = |index: usize| Sampled {
            logprobs: column(&self.sampled[index]),
            proximal: column(&self.old[index]),
            advantages: self.advantages[index].clone().into(),
            values: column(&self.old_values[index]),
            returns: self.returns[index].clone().into(),
        };
        plan.sampled = Some((0..count).map(sampled).collect());
        plan.reference = Some(self.reference.iter().map(|row| column(row)).collect());
        plan.carried = objective.initially_carried();
        plan
    }

    fn evaluate(&self, objective: &dyn Objective, at_once: usize) -> Result {
        let plan = self.plan(objective, at_once);
        let column = |columns: &[Vec<f64>], micro: &Micro| -> Vec<f32> {
            let value = |t: &Target| columns[t.sequence as usize][t.place as usize] as f32;
            micro.batch.targets.iter().map(value).collect()
        };
        let given: Vec<_> = plan
            .micros
            .iter()
            .map(|micro| {
                let policy = HeadOutputs {
                    logprob: column(&self.policy, micro),
                    entropy: column(&self.entropies, micro),
                    value: column(&self.values, micro),
                    ..HeadOutputs::default()
                };
                let logprob = column(&self.reference, micro);
                (policy, [HeadOutputs { logprob, ..HeadOutputs::default() }])
            })
            .collect();
        let passes = objective.extra_passes().len();
        let micros = plan.micros.iter().zip(&given);
        let micros: Vec<MicroOutputs<'_>> = micros
            .map(|(Micro { batch, sequences }, (policy, extra))| MicroOutputs {
                batch,
                sequences,
                policy,
                extra: &extra[..passes],
                before: &[],
            })
            .collect();
        let outcomes: Vec<Outcome> = match objective.coupling() {
            Coupling::Step => objective.evaluate(&micros, &plan),
            _ => micros.iter().flat_map(|micro| objective.evaluate(&[*micro], &plan)).collect(),
        };
        self.collect(&plan, outcomes)
    }

    fn collect(&self, plan: &StepPlan, outcomes: Vec<Outcome>) -> Result {
        let zeros: Vec<Vec<f64>> = self.policy.iter().map(|row| vec![0.0; row.len()]).collect();
        let mut all = Result {
            loss: Fold::Sum.of(outcomes.iter().flat_map(|o| o.loss.clone()).collect()),
            gradient: zeros.clone(),
            entropy_gradient: zeros.clone(),
            value_gradient: zeros,
            metrics: Vec::new(),
            carried: outcomes[0].carried.clone(),
        };
        for (micro, outcome) in plan.micros.iter().zip(&outcomes) {
            for (index, target) in micro.batch.targets.iter().enumerate() {
                let at =
                    |column: &Option<Vec<f32>>| column.as_ref().map_or(0.0, |c| c[index].into());
                let (row, place) = (target.sequence as usize, target.place as usize);
                all.gradient[row][place] = at(&outcome.gradients.logprob);
                all.entropy_gradient[row][place] = at(&outcome.gradients.entropy);
                all.value_gradient[row][place] = at(&outcome.gradients.value);
            }
        }
        for metric in &outcomes[0].metrics {
            let shares = outcomes.iter().flat_map(|outcome| &outcome.metrics);
            let shares = shares.filter(|other| other.name == metric.name);
            let shares = shares.flat_map(|other| other.shares.clone()).collect();
            all.metrics.push((metric.name, metric.fold.of(shares)));
        }
        all
    }

    /// The slopes in f64, which [`HeadOutputs`] has no room for.
    fn slopes(&self, objective: &PolicyGradient) -> Vec<Vec<f64>> {
        let plan = self.plan(objective, self.policy.len());
        let sequence = |row: usize| {
            let token = |at: usize| Token {
                logprob: self.policy[row][at],
                old: self.old[row][at],
                sampled: self.sampled[row][at],
                reference: objective.kl.map(|_| self.reference[row][at]),
                advantage: self.advantages[row][at],
                weight: self.mask[row][at],
                is_kept: true,
            };
            let tokens: Vec<Token> = (0..self.policy[row].len()).map(token).collect();
            let weight = self.mask[row].iter().sum();
            let divisor = objective.token_divisor(weight, &plan.totals);
            objective.sequence(&tokens, divisor, objective.kl.map_or(0.0, |kl| kl.beta)).slopes
        };
        (0..self.policy.len()).map(sequence).collect()
    }
}

#[track_caller]
fn assert_close(what: &str, got: &[Vec<f64>], expected: &[Vec<f64>], bound: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (row, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got.len(), expected.len(), "{what}, row {row}");
        for (got, expected) in got.iter().zip(expected) {
            let near = (got - expected).abs() <= bound * (1.0 + expected.abs());
            assert!(near, "{what}, row {row}: {got}, expected {expected}");
        }
    }
}

/// The objective of a case of the golden.
fn objective(settings: &Value) -> PolicyGradient {
    let number = |name: &str| settings[name].as_f64();
    let (low, high) = (number("low").unwrap(), number("high").unwrap());
    let (loss, level) = (settings["loss"].as_str().unwrap(), settings["level"].as_str().unwrap());
    let max = number("ratio_max").unwrap_or(f64::INFINITY);
    let region = |divergence| Surrogate::TrustRegion { divergence, low, high, max };
    let correction = settings["correction"].as_str().map(|mode| Correction {
        by_sequence: mode.starts_with("sequence"),
        masks: mode.ends_with("mask"),
        min: number("stale_min").unwrap_or(0.0),
        max: number("stale_max").unwrap_or(f64::INFINITY),
    });
    let beta = number("beta").unwrap();
    PolicyGradient {
        surrogate: match loss {
            "cispo" => Surrogate::TruncatedWeight { max: high },
            "cispo_minimax" => Surrogate::ClippedWeight { low, high },
            "sapo" => Surrogate::Soft { positive: 1.0, negative: 1.05 },
            "dppo_tv" => region(BinaryDivergence::TotalVariation),
            "dppo_kl" => region(BinaryDivergence::Kl),
            _ => Surrogate::Clip { low, high, delta: number("delta") },
        },
        level: if level == "sequence" { RatioLevel::Mean } else { RatioLevel::Token },
        average: match loss {
            "grpo" | "sapo" => Average::Sequences,
            "dr_grpo" => Average::Length(number("max_new_tokens").unwrap()),
            _ => Average::Tokens,
        },
        kl: (beta != 0.0).then(|| KlLoss {
            beta,
            estimator: KlEstimator::named(settings["kl"].as_str().unwrap()),
            with_ratio: settings["kl_ratio"].as_bool().unwrap(),
        }),
        correction,
        off_policy_threshold: number("off_policy_threshold"),
        top_entropy: number("top_entropy").unwrap(),
        entropy_coefficient: number("entropy_coef").unwrap(),
        ..PolicyGradient::PLAIN
    }
}

#[test]
fn losses_are_those_of_trl() {
    let golden = golden_json("policy_gradient.json");
    let answers = Answers::of_golden(&golden);
    let cases = golden["losses"].as_array().unwrap();
    assert_eq!(cases.len(), 39);
    for case in cases {
        let settings = &case["settings"];
        let what = settings.to_string();
        let objective = objective(settings);
        let mut answers = answers.clone();
        if objective.correction.is_none() {
            // TRL measures staleness by what sampled only where it corrects for it.
            answers.sampled = answers.old.clone();
        }
        let result = answers.evaluate(&objective, 4);
        let expected = case["loss"].as_f64().unwrap();
        assert!((result.loss - expected).abs() < 1e-9, "{what}: {}, {expected}", result.loss);
        let gradient = rows(&case["gradient"]);
        // The head takes f32.
        assert_close(&what, &result.gradient, &gradient, 1e-7);
        if objective.top_entropy == 1.0 {
            assert_close(&what, &answers.slopes(&objective), &gradient, 1e-9);
        }
        if !case["entropy_gradient"].is_null() {
            let gradient = rows(&case["entropy_gradient"]);
            assert_close(&what, &result.entropy_gradient, &gradient, 1e-7);
        }
        for (name, value) in case["metrics"].as_object().unwrap() {
            let (got, expected) = (result.metric(name), value.as_f64().unwrap());
            assert!((got - expected).abs() < 1e-7, "{what}, {name}: {got}, {expected}");
        }
    }
}

#[test]
fn rloo_is_trl_s() {
    let golden = golden_json("policy_gradient.json");
    let mut answers = Answers::of_golden(&golden);
    answers.sampled = answers.old.clone();
    for case in golden["rloo"].as_array().unwrap() {
        let number = |name: &str| case[name].as_f64().unwrap();
        let objective = PolicyGradient {
            surrogate: Surrogate::Clip { low: number("low"), high: number("high"), delta: None },
            level: RatioLevel::Product,
            average: Average::Sequences,
            ..PolicyGradient::PLAIN
        };
        let result = answers.evaluate(&objective, 2);
        assert!((result.loss - number("loss")).abs() < 1e-9);
        assert_close("rloo", &answers.slopes(&objective), &rows(&case["gradient"]), 1e-9);
        for (name, value) in case["metrics"].as_object().unwrap() {
            let expected = value.as_f64().unwrap();
            assert!((result.metric(name) - expected).abs() < 1e-7, "{name}");
        }
    }
}

#[test]
fn ppo_is_trl_s() {
    let golden = golden_json("policy_gradient.json");
    let mut answers = Answers::of_golden(&golden);
    answers.sampled = answers.old.clone();
    answers.advantages = rows(&golden["rows"]["token_advantages"]);
    for case in golden["ppo"]["losses"].as_array().unwrap() {
        let setting = |name: &str| case["settings"][name].as_f64().unwrap();
        let clip = setting("cliprange");
        let value =
            ValueLoss { coefficient: setting("vf_coef"), clip: Some(setting("cliprange_value")) };
        let objective = PolicyGradient {
            surrogate: Surrogate::Clip { low: clip, high: clip, delta: None },
            value: Some(value),
            ..PolicyGradient::PLAIN
        };
        let result = answers.evaluate(&objective, 4);
        let expected = |name: &str| case[name].as_f64().unwrap();
        for (got, name) in [
            (result.loss, "loss"),
            (result.metric("loss/policy_avg"), "policy_loss"),
            (result.metric("loss/value_avg"), "value_loss"),
            (result.metric("val/clipfrac_avg"), "clipped_values"),
        ] {
            assert!((got - expected(name)).abs() < 1e-9, "{name}: {got}, {}", expected(name));
        }
        assert_close("policy", &answers.slopes(&objective), &rows(&case["gradient"]), 1e-9);
        assert_close("value", &result.value_gradient, &rows(&case["value_gradient"]), 1e-7);
    }
}

/// One objective of every kind, with a name.
fn objectives() -> Vec<(String, PolicyGradient)> {
    let plain = PolicyGradient::PLAIN;
    let surrogates = [
        Surrogate::Clip { low: 0.1, high: 0.3, delta: None },
        Surrogate::Clip { low: 0.1, high: 0.3, delta: Some(1.5) },
        Surrogate::Soft { positive: 1.0, negative: 1.05 },
    ];
    let mut all = Vec::new();
    for surrogate in surrogates {
        for level in [RatioLevel::Token, RatioLevel::Mean, RatioLevel::Product] {
            for average in [Average::Sequences, Average::Tokens, Average::Length(7.0)] {
                all.push(PolicyGradient { surrogate, level, average, ..plain });
            }
        }
    }
    for estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
        for level in [RatioLevel::Token, RatioLevel::Mean] {
            // A ratio that is held fixed is no function to take differences of.
            let with_ratio = estimator != KlEstimator::K2;
            let kl = Some(KlLoss { beta: 0.3, estimator, with_ratio });
            all.push(PolicyGradient { kl, level, ..plain });
        }
    }
    let correction = Correction { by_sequence: false, masks: false, min: 0.9, max: 1.1 };
    all.push(PolicyGradient { correction: Some(correction), ..plain });
    let value = Some(ValueLoss { coefficient: 0.5, clip: Some(0.2) });
    all.push(PolicyGradient { value, entropy_coefficient: 0.1, ..plain });
    all.into_iter().map(|objective| (format!("{objective:?}"), objective)).collect()
}

/// Objectives whose loss holds a weight fixed: its differences are not its slopes.
fn held() -> Vec<(String, PolicyGradient)> {
    let (low, high, max) = (0.1, 0.2, 1.2);
    let region = |divergence| Surrogate::TrustRegion { divergence, low, high, max };
    let surrogates = [
        Surrogate::TruncatedWeight { max },
        Surrogate::ClippedWeight { low, high },
        region(BinaryDivergence::TotalVariation),
        region(BinaryDivergence::Kl),
    ];
    let mut all: Vec<PolicyGradient> = Vec::new();
    all.extend(surrogates.map(|surrogate| PolicyGradient { surrogate, ..PolicyGradient::PLAIN }));
    all.push(PolicyGradient {
        kl: Some(KlLoss { beta: 0.3, estimator: KlEstimator::K2, with_ratio: true }),
        top_entropy: 0.5,
        off_policy_threshold: Some(0.05),
        ..PolicyGradient::PLAIN
    });
    all.into_iter().map(|objective| (format!("{objective:?}"), objective)).collect()
}

#[test]
fn slopes_are_those_of_the_loss() {
    let answers = Answers::of_golden(&golden_json("policy_gradient.json"));
    for (name, objective) in objectives() {
        let slopes = answers.slopes(&objective);
        let result = answers.evaluate(&objective, 3);
        let difference = |change: &dyn Fn(&mut Answers, f64)| {
            // Inputs are f32: the step is one that they can take.
            let h = 2.0_f64.powi(-14);
            let [above, below] = [h, -h].map(|step| {
                let mut moved = answers.clone();
                change(&mut moved, step);
                moved.evaluate(&objective, 3).loss
            });
            (above - below) / (2.0 * h)
        };
        for (row, slopes) in slopes.iter().enumerate() {
            for (at, &slope) in slopes.iter().enumerate() {
                for (slope, difference) in [
                    (slope, difference(&|moved, h| moved.policy[row][at] += h)),
                    (
                        result.entropy_gradient[row][at],
                        difference(&|moved, h| moved.entropies[row][at] += h),
                    ),
                    (
                        result.value_gradient[row][at],
                        difference(&|moved, h| moved.values[row][at] += h),
                    ),
                ] {
                    let bound = 1e-6 * (1.0 + slope.abs());
                    assert!(
                        (slope - difference).abs() < bound,
                        "{name}, {row}, {at}: {slope}, {difference}"
                    );
                }
            }
        }
    }
}

#[test]
fn micro_batches_change_no_bit() {
    let answers = Answers::of_golden(&golden_json("policy_gradient.json"));
    for (name, objective) in objectives().into_iter().chain(held()) {
        let whole = answers.evaluate(&objective, 6);
        for at_once in [1, 2, 4] {
            let cut = answers.evaluate(&objective, at_once);
            assert_eq!(cut.loss.to_bits(), whole.loss.to_bits(), "{name}");
            assert_eq!(cut.gradient, whole.gradient, "{name}");
            assert_eq!(cut.metrics, whole.metrics, "{name}");
        }
    }
}

#[test]
fn another_order_gives_every_answer_the_same_slopes() {
    let answers = Answers::of_golden(&golden_json("policy_gradient.json"));
    let order = [3, 0, 5, 2, 4, 1];
    let permuted = answers.clone().permuted(&order);
    for (name, objective) in objectives().into_iter().chain(held()) {
        let (here, there) = (answers.evaluate(&objective, 6), permuted.evaluate(&objective, 6));
        assert!((here.loss - there.loss).abs() < 1e-12, "{name}");
        for (index, &row) in order.iter().enumerate() {
            assert_eq!(here.gradient[row], there.gradient[index], "{name}");
        }
    }
}

#[test]
fn the_first_update_has_a_ratio_of_exactly_1() {
    let mut answers = Answers::of_golden(&golden_json("policy_gradient.json")).on_policy();
    // Not only numbers that f32 has.
    answers
        .policy
        .iter_mut()
        .flatten()
        .for_each(|logprob| *logprob = f64::from(*logprob as f32 / 3.0));
    let answers = answers.on_policy();
    for (name, objective) in objectives().into_iter().chain(held()) {
        let result = answers.evaluate(&objective, 3);
        for end in ["min", "mean", "max"] {
            let ratio = result.metric(&format!("sampling/importance_sampling_ratio/{end}"));
            let bound = if end == "mean" { 1e-15 } else { 0.0 };
            assert!((ratio - 1.0).abs() <= bound, "{name}, {end}: {ratio}");
        }
        assert_eq!(result.metric("sampling/ratio_deviation/max"), 0.0, "{name}");
        assert_eq!(result.metric("clip_ratio/region_mean"), 0.0, "{name}");
        assert_eq!(result.metric("policy/approxkl_avg"), 0.0, "{name}");
    }
}

#[test]
fn the_divergence_from_the_policy_itself_is_exactly_0() {
    let mut answers = Answers::of_golden(&golden_json("policy_gradient.json")).on_policy();
    answers.reference = answers.policy.clone();
    for estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
        for with_ratio in [false, true] {
            let kl = Some(KlLoss { beta: 0.3, estimator, with_ratio });
            let pulled = answers.evaluate(&PolicyGradient { kl, ..PolicyGradient::PLAIN }, 6);
            assert_eq!(pulled.metric("kl"), 0.0);
            let free = answers.evaluate(&PolicyGradient::PLAIN, 6);
            assert_eq!(pulled.loss.to_bits(), free.loss.to_bits());
        }
    }
}

#[test]
fn on_policy_gspo_is_grpo_and_with_one_length_dr_grpo_is_dapo() {
    let golden = golden_json("policy_gradient.json");
    let grpo = PolicyGradient { average: Average::Sequences, ..PolicyGradient::PLAIN };
    let gspo = PolicyGradient { level: RatioLevel::Mean, ..grpo };
    let answers = Answers::of_golden(&golden).on_policy();
    assert_close("gspo", &answers.slopes(&gspo), &answers.slopes(&grpo), 1e-12);

    let answers = Answers::of_golden(&golden).of_one_length();
    let dr_grpo = PolicyGradient { average: Average::Length(2.0), ..PolicyGradient::PLAIN };
    let (fixed, by_tokens) =
        (answers.evaluate(&dr_grpo, 2), answers.evaluate(&PolicyGradient::PLAIN, 2));
    assert_eq!(fixed.loss.to_bits(), by_tokens.loss.to_bits());
    assert_eq!(fixed.gradient, by_tokens.gradient);
}

#[test]
fn observations_move_nothing() {
    let golden = golden_json("policy_gradient.json");
    let answers = Answers::of_golden(&golden);
    let mut other = answers.clone();
    for at in [2, 3] {
        other.policy[4][at] = -9.0;
        other.sampled[4][at] = -0.5;
        other.advantages[4][at] = 50.0;
        other.entropies[4][at] = 9.0;
        other.values[4][at] = 9.0;
    }
    for (name, objective) in objectives().into_iter().chain(held()) {
        let (here, there) = (answers.evaluate(&objective, 3), other.evaluate(&objective, 3));
        assert_eq!(here.loss.to_bits(), there.loss.to_bits(), "{name}");
        assert_eq!(here.gradient, there.gradient, "{name}");
        assert_eq!(here.gradient[4][2..4], [0.0, 0.0], "{name}");
        assert_eq!(here.metrics, there.metrics, "{name}");
    }
}

#[test]
fn answers_to_one_prompt_share_the_read_of_their_first_token() {
    let objective = PolicyGradient {
        entropy_coefficient: 0.5,
        value: Some(ValueLoss { coefficient: 1.0, clip: None }),
        ..PolicyGradient::PLAIN
    };
    let target = |sequence| Target { read: 0, token: 0, sequence, place: 0, role: 0, weight: 1.0 };
    let batch = Batch { reads: vec![0], targets: vec![target(0), target(1)], ..Batch::default() };
    let micro = Micro { batch, sequences: vec![0, 1] };
    let infos = (0..2).map(|unit| SequenceInfo { unit, role: 0 }).collect();
    let mut plan = StepPlan::from_micros(vec![micro], infos);
    let sampled = |wanted: f64| Sampled {
        logprobs: [-1.0].into(),
        proximal: [].into(),
        advantages: [1.0].into(),
        values: [0.0].into(),
        returns: [wanted].into(),
    };
    plan.sampled = Some(vec![sampled(1.0), sampled(4.0)]);
    let policy = HeadOutputs {
        logprob: vec![-1.0, -1.0],
        entropy: vec![2.0],
        value: vec![0.5],
        ..HeadOutputs::default()
    };
    let Micro { batch, sequences } = &plan.micros[0];
    let micro = MicroOutputs { batch, sequences, policy: &policy, extra: &[], before: &[] };
    let outcome = objective.evaluate(&[micro], &plan).remove(0);
    // Both tokens of two: -0.5 / 2 each; (0.5 - 1) / 2 and (0.5 - 4) / 2.
    assert_eq!(outcome.gradients.entropy, Some(vec![-0.5]));
    assert_eq!(outcome.gradients.value, Some(vec![-2.0]));
}

#[test]
fn the_controller_follows_the_divergence() {
    let answers = Answers::of_golden(&golden_json("policy_gradient.json"));
    let controller = KlController { initial: 0.1, target: 6.0, horizon: 100.0, updates: 1.0 };
    let near = PolicyGradient { controller: Some(controller), ..PolicyGradient::PLAIN };
    assert_eq!(near.initially_carried(), [0.1]);
    // The answers are nearer than 80 % of the target: the error counts as -20 %, over 6 of 100 answers.
    for at_once in [1, 6] {
        let carried = answers.evaluate(&near, at_once).carried;
        assert!((carried[0] - 0.1 * (1.0 - 0.2 * 0.06)).abs() < 1e-15, "{carried:?}");
    }
    // Every update of two sees the same answers.
    let twice = KlController { updates: 2.0, ..controller };
    assert!((twice.next(0.1, 60.0, 6) - 0.1 * (1.0 + 0.2 * 0.03)).abs() < 1e-15);
    assert_eq!(controller.next(0.1, 6.0, 6), 0.1);
}

#[test]
fn a_plan_that_says_nothing_of_sampling_is_survived() {
    let answers = Answers::of_golden(&golden_json("policy_gradient.json"));
    for (name, objective) in objectives().into_iter().chain(held()) {
        let mut plan = answers.plan(&objective, 6);
        (plan.sampled, plan.reference) = (None, None);
        let count = plan.micros[0].batch.targets.len();
        let zeros = vec![0.0; count];
        let policy = HeadOutputs {
            logprob: zeros.clone(),
            entropy: zeros.clone(),
            value: zeros,
            ..HeadOutputs::default()
        };
        let extra = vec![policy.clone(); objective.extra_passes().len()];
        let Micro { batch, sequences } = &plan.micros[0];
        let micro = MicroOutputs { batch, sequences, policy: &policy, extra: &extra, before: &[] };
        let outcome = objective.evaluate(&[micro], &plan).remove(0);
        assert!(outcome.loss.iter().all(|share| share.value == 0.0), "{name}");
    }
}
