//! Advantages: TRL's numbers, and what may not change them.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;
use train::advantage::{
    Aggregation, Baseline, Gae, GroupRelative, KlReward, LeaveOneOut, Overlong, Scale, Shaping,
    WhitenedReturns,
};
use train::objective::KlEstimator;
use train::rollout::{AdvantageEstimator, Estimates, Rollout};

use crate::policy_gradient::rows;
use crate::support::golden_json;

/// What a [`Rollout`] borrows.
#[derive(Clone, Default)]
struct Sampled {
    groups: Vec<Range<usize>>,
    rewards: Vec<Vec<Option<f64>>>,
    weights: Vec<f64>,
    ended: Vec<bool>,
    drawn: Vec<Arc<[bool]>>,
    logprobs: Vec<Arc<[f32]>>,
    reference: Vec<Arc<[f32]>>,
    values: Vec<Arc<[f32]>>,
    carried: Vec<f64>,
}

fn f32s(value: &Value) -> Vec<Arc<[f32]>> {
    rows(value).into_iter().map(|row| row.into_iter().map(|v| v as f32).collect()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

impl Sampled {
    /// Answers with these rewards, of one token each.
    fn of_rewards(rewards: Vec<Vec<Option<f64>>>, weights: Vec<f64>, group_size: usize) -> Self {
        let count = rewards.len();
        let one = vec![Arc::from([-1.0_f32]); count];
        Sampled {
            groups: (0..count).step_by(group_size).map(|at| at..at + group_size).collect(),
            rewards,
            weights,
            ended: vec![true; count],
            drawn: vec![Arc::from([true]); count],
            logprobs: one.clone(),
            reference: one.clone(),
            values: one,
            carried: Vec::new(),
        }
    }

    /// The rows of the golden with these rewards.
    fn of_golden(golden: &Value, rewards: &Value, group_size: usize) -> Self {
        let rewards = rewards.as_array().unwrap().iter();
        let rewards = rewards.map(|row| match row {
            Value::Array(row) => row.iter().map(Value::as_f64).collect(),
            one => vec![one.as_f64()],
        });
        let columns = &golden["rows"];
        let mask = rows(&columns["mask"]).into_iter();
        Sampled {
            drawn: mask.map(|row| row.into_iter().map(|weight| weight != 0.0).collect()).collect(),
            logprobs: f32s(&columns["old"]),
            reference: f32s(&columns["reference"]),
            values: f32s(&columns["old_values"]),
            ..Sampled::of_rewards(rewards.collect(), vec![1.0], group_size)
        }
    }

    fn estimate(&self, estimator: &dyn AdvantageEstimator) -> Estimates {
        estimator.estimate(&Rollout {
            groups: &self.groups,
            rewards: &self.rewards,
            weights: &self.weights,
            ended: &self.ended,
            drawn: Some(&self.drawn),
            logprobs: &self.logprobs,
            reference: Some(&self.reference),
            values: Some(&self.values),
            carried: &self.carried,
        })
    }

    /// The advantage of every answer's first token.
    fn first(&self, estimator: &dyn AdvantageEstimator) -> Vec<f64> {
        self.estimate(estimator).advantages.iter().map(|row| row[0]).collect()
    }

    /// Groups, and the answers in them, in another order; `order` of all answers.
    fn permuted(&self, order: &[usize]) -> Self {
        fn pick<T: Clone>(rows: &[T], order: &[usize]) -> Vec<T> {
            order.iter().map(|&index| rows[index].clone()).collect()
        }
        Sampled {
            groups: self.groups.clone(),
            rewards: pick(&self.rewards, order),
            weights: self.weights.clone(),
            ended: pick(&self.ended, order),
            drawn: pick(&self.drawn, order),
            logprobs: pick(&self.logprobs, order),
            reference: pick(&self.reference, order),
            values: pick(&self.values, order),
            carried: self.carried.clone(),
        }
    }
}

fn kl(beta: f64) -> Option<KlReward> {
    let estimator = KlEstimator::K1;
    (beta != 0.0).then_some(KlReward { beta, estimator, is_carried: false })
}

fn shaped(beta: f64) -> Shaping {
    Shaping { kl: kl(beta), ..Shaping::default() }
}

#[track_caller]
fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (got, expected) in got.iter().zip(expected) {
        let near = (got - expected).abs() < 1e-9 * (1.0 + expected.abs());
        assert!(near, "{what}: {got}, expected {expected}");
    }
}

fn metric(estimates: &Estimates, name: &str) -> f64 {
    let found = estimates.metrics.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no `{name}`")).1
}

fn flat(rows: &[Arc<[f64]>]) -> Vec<f64> {
    rows.iter().flat_map(|row| row.iter().copied()).collect()
}

#[test]
fn grpo_is_trl_s() {
    let golden = golden_json("policy_gradient.json");
    let given = &golden["rewards"];
    let rewards = given["values"].as_array().unwrap().iter();
    let rewards = rewards.map(|row| row.as_array().unwrap().iter().map(Value::as_f64).collect());
    let size = given["group_size"].as_u64().unwrap() as usize;
    let sampled = Sampled::of_rewards(rewards.collect(), numbers(&given["weights"]), size);
    for case in golden["grpo_advantages"].as_array().unwrap() {
        let estimator = GroupRelative {
            scale: match case["scale"].as_str().unwrap() {
                "group" => Scale::Group,
                "batch" => Scale::Batch,
                _ => Scale::None,
            },
            aggregation: match case["aggregation"].as_str().unwrap() {
                "sum_then_normalize" => Aggregation::SumThenNormalize,
                _ => Aggregation::NormalizeThenSum,
            },
            shaping: Shaping::default(),
        };
        let what = format!("{estimator:?}");
        assert_close(&what, &sampled.first(&estimator), &numbers(&case["advantages"]));
        let estimates = sampled.estimate(&estimator);
        if estimator.scale == Scale::Group && estimator.aggregation == Aggregation::SumThenNormalize
        {
            let expected = case["zero_std"].as_f64().unwrap();
            assert!((metric(&estimates, "frac_reward_zero_std") - expected).abs() < 1e-6, "{what}");
        }
    }
}

#[test]
fn rloo_is_trl_s() {
    let golden = golden_json("policy_gradient.json");
    for case in golden["rloo_advantages"].as_array().unwrap() {
        let size = case["group_size"].as_u64().unwrap() as usize;
        let mut sampled = Sampled::of_golden(&golden, &case["rewards"], size);
        // TRL's RLOO knows no observations, but its mask leaves them out.
        let normalize = case["normalize"].as_bool().unwrap();
        let estimator = LeaveOneOut { normalize, shaping: shaped(case["beta"].as_f64().unwrap()) };
        let expected = numbers(&case["advantages"]);
        assert_close(&format!("{estimator:?}"), &sampled.first(&estimator), &expected);
        // What the rollout carries is the weight where the recipe says so.
        if let Some(kl) = estimator.shaping.kl {
            sampled.carried = vec![kl.beta];
            let kl = Some(KlReward { beta: 9.0, is_carried: true, ..kl });
            let carried = LeaveOneOut { shaping: Shaping { kl, ..estimator.shaping }, ..estimator };
            assert_eq!(sampled.first(&carried), sampled.first(&estimator));
        }
    }
}

#[test]
fn reinforce_pp_is_the_formula() {
    let golden = golden_json("policy_gradient.json");
    for case in golden["reinforce_pp"].as_array().unwrap() {
        let sampled = Sampled::of_golden(&golden, &case["rewards"], 3);
        let estimator = WhitenedReturns {
            gamma: case["gamma"].as_f64().unwrap(),
            baseline: match case["baseline"].as_str().unwrap() {
                "group" => Baseline::Group,
                _ => Baseline::None,
            },
            shaping: shaped(case["beta"].as_f64().unwrap()),
        };
        let expected = rows(&case["advantages"]).concat();
        let got = flat(&sampled.estimate(&estimator).advantages);
        assert_close(&format!("{estimator:?}"), &got, &expected);
    }
}

#[test]
fn gae_passes_over_observations() {
    let golden = golden_json("policy_gradient.json");
    for case in golden["gae"].as_array().unwrap() {
        let sampled = Sampled::of_golden(&golden, &case["rewards"], 3);
        let number = |name: &str| case[name].as_f64().unwrap();
        let estimator = Gae {
            gamma: number("gamma"),
            lambda: number("lambda"),
            whiten_rewards: false,
            whiten: true,
            shaping: shaped(number("beta")),
        };
        let estimates = sampled.estimate(&estimator);
        let what = format!("{estimator:?}");
        assert_close(&what, &flat(&estimates.advantages), &rows(&case["advantages"]).concat());
        assert_close(&what, &flat(&estimates.returns), &rows(&case["returns"]).concat());
    }
}

#[test]
fn gae_is_trl_s() {
    let golden = golden_json("policy_gradient.json");
    for case in golden["ppo"]["advantages"].as_array().unwrap() {
        let settings = &case["settings"];
        let number = |name: &str| settings[name].as_f64().unwrap();
        let scores = numbers(&case["scores"]);
        let logprobs = f32s(&case["logprobs"]);
        let drawn = logprobs.iter().map(|row| vec![true; row.len()].into()).collect();
        let scores = scores.into_iter().map(|score| vec![Some(score)]).collect();
        let sampled = Sampled {
            logprobs,
            drawn,
            reference: f32s(&case["references"]),
            values: f32s(&case["values"]),
            ..Sampled::of_rewards(scores, vec![1.0], 1)
        };
        let kl = KlReward {
            beta: number("kl_coef"),
            estimator: KlEstimator::named(settings["kl_estimator"].as_str().unwrap()),
            is_carried: false,
        };
        let estimator = Gae {
            gamma: number("gamma"),
            lambda: number("lam"),
            whiten_rewards: settings["whiten_rewards"].as_bool().unwrap(),
            whiten: true,
            shaping: Shaping { kl: Some(kl), ..Shaping::default() },
        };
        let estimates = sampled.estimate(&estimator);
        let what = settings.to_string();
        assert_close(&what, &flat(&estimates.advantages), &rows(&case["advantages"]).concat());
        assert_close(&what, &flat(&estimates.returns), &rows(&case["returns"]).concat());
    }
}

/// Every estimator, with a name.
fn estimators(shaping: Shaping) -> Vec<(String, Box<dyn AdvantageEstimator>)> {
    let mut all: Vec<(String, Box<dyn AdvantageEstimator>)> = Vec::new();
    for scale in [Scale::Group, Scale::Batch, Scale::None] {
        let estimator =
            GroupRelative { scale, aggregation: Aggregation::SumThenNormalize, shaping };
        all.push((format!("{estimator:?}"), Box::new(estimator)));
    }
    let gdpo = Aggregation::NormalizeThenSum;
    let gdpo = GroupRelative { scale: Scale::Group, aggregation: gdpo, shaping };
    all.push(("gdpo".into(), Box::new(gdpo)));
    for normalize in [false, true] {
        all.push((format!("rloo {normalize}"), Box::new(LeaveOneOut { normalize, shaping })));
    }
    for baseline in [Baseline::None, Baseline::Group] {
        let estimator = WhitenedReturns { gamma: 1.0, baseline, shaping };
        all.push((format!("{estimator:?}"), Box::new(estimator)));
    }
    let gae = Gae { gamma: 1.0, lambda: 0.95, whiten_rewards: true, whiten: true, shaping };
    all.push(("gae".into(), Box::new(gae)));
    all
}

fn drawn_rewards() -> Sampled {
    let golden = golden_json("policy_gradient.json");
    let rewards = serde_json::json!([[1.0], [0.25], [null], [0.75], [-0.5], [2.0]]);
    Sampled::of_golden(&golden, &rewards, 3)
}

#[test]
fn another_order_gives_every_answer_the_same_bits() {
    let sampled = drawn_rewards();
    // The second group first, and both in another order inside.
    let order = [5, 3, 4, 1, 2, 0];
    for (name, estimator) in estimators(shaped(0.05)) {
        let (here, there) =
            (sampled.estimate(&*estimator), sampled.permuted(&order).estimate(&*estimator));
        for (index, &row) in order.iter().enumerate() {
            assert_eq!(here.advantages[row], there.advantages[index], "{name}");
        }
        assert_eq!(here.metrics, there.metrics, "{name}");
    }
}

#[test]
fn a_constant_added_to_all_rewards_changes_nothing() {
    let sampled = drawn_rewards();
    let mut raised = sampled.clone();
    raised.rewards.iter_mut().flatten().flatten().for_each(|reward| *reward += 100.0);
    // Values do not rise with the rewards, so the one method that has them is left out.
    for (name, estimator) in estimators(shaped(0.05)).into_iter().filter(|(name, _)| name != "gae")
    {
        let [here, there] = [&sampled, &raised].map(|s| flat(&s.estimate(&*estimator).advantages));
        for (here, there) in here.iter().zip(there) {
            assert!((here - there).abs() < 1e-9, "{name}: {here}, {there}");
        }
    }
}

#[test]
fn advantages_of_a_group_sum_to_0() {
    let sampled = drawn_rewards();
    for scale in [Scale::Group, Scale::Batch, Scale::None] {
        let aggregation = Aggregation::SumThenNormalize;
        let advantages =
            sampled.first(&GroupRelative { scale, aggregation, shaping: Shaping::default() });
        for group in &sampled.groups {
            assert!(advantages[group.clone()].iter().sum::<f64>().abs() < 1e-12);
        }
    }
    let advantages = sampled.first(&LeaveOneOut { normalize: false, shaping: Shaping::default() });
    assert!(advantages[..3].iter().sum::<f64>().abs() < 1e-12);
}

#[test]
fn an_answer_without_a_reward_counts_nowhere() {
    let sampled = drawn_rewards();
    for (name, estimator) in estimators(shaped(0.05)) {
        let estimates = sampled.estimate(&*estimator);
        assert!(estimates.advantages[2].iter().all(|&advantage| advantage == 0.0), "{name}");
        if let Some(returns) = estimates.returns.get(2) {
            let values = sampled.values[2].iter().map(|&value| f64::from(value));
            assert!(returns.iter().copied().eq(values), "{name}");
        }
    }
    let nothing = Sampled::of_rewards(vec![vec![None]; 4], vec![1.0], 2);
    for (name, estimator) in estimators(Shaping::default()) {
        let estimates = nothing.estimate(&*estimator);
        assert!(flat(&estimates.advantages).iter().all(|&advantage| advantage == 0.0), "{name}");
        assert!(estimates.metrics.iter().all(|(_, value)| value.is_finite()), "{name}");
    }
}

/// With one answer to a prompt, as `ppo` takes them, no group says that its answers are all alike.
#[test]
fn answers_alone_have_no_variance_to_miss() {
    let sampled = Sampled::of_rewards(vec![vec![Some(0.1)], vec![Some(0.7)]], vec![1.0], 1);
    for (name, estimator) in estimators(Shaping::default()) {
        let estimates = sampled.estimate(&*estimator);
        let mut names = estimates.metrics.iter().map(|(name, _)| *name);
        assert!(names.all(|figure| figure != "frac_reward_zero_std"), "{name}");
    }
}

#[test]
fn equal_rewards_move_nothing() {
    let sampled = Sampled::of_rewards(vec![vec![Some(0.1)]; 6], vec![1.0], 3);
    for (name, estimator) in estimators(Shaping::default()).into_iter().filter(|(n, _)| n != "gae")
    {
        let estimates = sampled.estimate(&*estimator);
        assert!(flat(&estimates.advantages).iter().all(|&a| a == 0.0), "{name}");
        assert_eq!(metric(&estimates, "frac_reward_zero_std"), 1.0, "{name}");
        assert_eq!(metric(&estimates, "reward"), 0.1, "{name}");
    }
}

#[test]
fn long_and_cut_answers_lose_reward() {
    let overlong = Overlong { longest: 100, buffer: 20, penalty: 2.0 };
    for (tokens, expected) in
        [(1, 0.0), (80, 0.0), (85, -0.5), (90, -1.0), (100, -2.0), (120, -2.0)]
    {
        assert_eq!(overlong.reward(tokens), expected, "{tokens}");
    }
    let mut sampled = Sampled::of_rewards(vec![vec![Some(1.0)]; 2], vec![1.0], 2);
    sampled.ended[1] = false;
    let shaping = Shaping { missing_end: 0.5, ..Shaping::default() };
    let advantages = sampled.first(&GroupRelative {
        scale: Scale::None,
        aggregation: Aggregation::SumThenNormalize,
        shaping,
    });
    assert_eq!(advantages, [0.25, -0.25]);
    // Penalties are one more reward where each is normalised.
    let gdpo =
        GroupRelative { scale: Scale::Group, aggregation: Aggregation::NormalizeThenSum, shaping };
    assert!(sampled.first(&gdpo)[0] > 0.7);
}

#[test]
fn explained_variance_is_1_where_values_are_right() {
    let mut sampled = drawn_rewards();
    sampled.rewards[2] = vec![Some(0.5)];
    for (values, rewards) in sampled.values.iter_mut().zip(&sampled.rewards) {
        *values = vec![rewards[0].unwrap() as f32; values.len()].into();
    }
    let shaping = Shaping::default();
    let gae = Gae { gamma: 1.0, lambda: 0.95, whiten_rewards: false, whiten: false, shaping };
    let estimates = sampled.estimate(&gae);
    assert_eq!(metric(&estimates, "val/explained_variance"), 1.0);
    assert!(flat(&estimates.advantages).iter().all(|advantage| advantage.abs() < 1e-12));
}
