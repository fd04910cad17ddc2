//! Advantages of answers beside the other answers to the same prompt.

use std::ops::Range;
use std::sync::Arc;

use super::figures::figures;
use super::moments::{Moments, STD_OFFSET};
use super::shaping::Shaping;
use crate::rollout::{AdvantageEstimator, Estimates, Rollout};

/// What a reward's distance from its group's mean is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The deviation within the group: Shao et al. 2024, section 4.1.2.
    Group,
    /// The deviation over the rollout.
    Batch,
    /// Nothing: Dr. GRPO, Liu et al. 2025 (2503.20783).
    None,
}

/// How several rewards become one advantage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// Their weighted sum is compared.
    SumThenNormalize,
    /// Each is divided by its own deviation in the group, then they are summed by weight and the sum is divided by its
    /// deviation over the rollout: GDPO, 2601.05242.
    NormalizeThenSum,
}

/// GRPO's advantages: `(r − mean) / (std + 1e-4)` with Bessel's correction, the same for all tokens of an answer.
///
/// An answer whose reward could not be had counts nowhere and has advantage 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupRelative {
    /// What distances are divided by.
    pub scale: Scale,
    /// How several rewards become one.
    pub aggregation: Aggregation,
    /// What is added to the reward.
    pub shaping: Shaping,
}

/// RLOO's advantages: the reward less the mean of the other answers' rewards, Ahmadian et al. 2024 (2402.14740).
///
/// The divergence from the reference is summed over the answer and is a part of the reward. An answer whose reward
/// could not be had counts nowhere and has advantage 0, as has one that stands alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeaveOneOut {
    /// Whether advantages get mean 0 and deviation 1 over the rollout.
    pub normalize: bool,
    /// What is added to the reward.
    pub shaping: Shaping,
}

/// Rewards, each with what its group is like; none where there is no reward.
pub(super) fn beside_group(
    groups: &[Range<usize>],
    rewards: &[Option<f64>],
    advantage: impl Fn(f64, &Moments) -> f64,
) -> Vec<Option<f64>> {
    let mut advantages = vec![None; rewards.len()];
    for group in groups {
        let moments = Moments::of(rewards[group.clone()].iter().copied().flatten());
        for index in group.clone() {
            advantages[index] = rewards[index].map(|reward| advantage(reward, &moments));
        }
    }
    advantages
}

impl GroupRelative {
    fn summed(&self, rollout: &Rollout<'_>) -> Vec<Option<f64>> {
        let rewards: Vec<Option<f64>> = (0..rollout.rewards.len())
            .map(|sequence| self.shaping.reward_with_kl(rollout, sequence))
            .collect();
        let batch = Moments::of(rewards.iter().copied().flatten()).std();
        beside_group(rollout.groups, &rewards, |reward, group| {
            let distance = reward - group.mean;
            match self.scale {
                Scale::Group => distance / (group.std() + STD_OFFSET),
                Scale::Batch => distance / (batch + STD_OFFSET),
                Scale::None => distance,
            }
        })
    }

    fn normalized_apart(&self, rollout: &Rollout<'_>) -> Vec<Option<f64>> {
        let count = rollout.rewards.len();
        let known = |sequence| rollout.reward(sequence).is_some();
        let mut sums: Vec<Option<f64>> =
            (0..count).map(|sequence| known(sequence).then_some(0.0)).collect();
        let mut add = |rewards: &[Option<f64>], weight: f64| {
            let normalized = beside_group(rollout.groups, rewards, |reward, group| {
                (reward - group.mean) / (group.std() + STD_OFFSET)
            });
            for (sum, own) in sums.iter_mut().zip(normalized) {
                if let (Some(sum), Some(own)) = (sum, own) {
                    *sum += weight * own;
                }
            }
        };
        for (function, &weight) in rollout.weights.iter().enumerate() {
            let rewards: Vec<_> = rollout.rewards.iter().map(|row| row[function]).collect();
            add(&rewards, weight);
        }
        // Penalties are one more reward, of weight 1.
        let addition = |sequence| known(sequence).then(|| self.shaping.addition(rollout, sequence));
        add(&(0..count).map(addition).collect::<Vec<_>>(), 1.0);
        let all = Moments::of(sums.iter().copied().flatten());
        let scaled = |sum: Option<f64>| Some((sum? - all.mean) / (all.std() + STD_OFFSET));
        sums.into_iter().map(scaled).collect()
    }
}

impl AdvantageEstimator for GroupRelative {
    fn estimate(&self, rollout: &Rollout<'_>) -> Estimates {
        let advantages = match self.aggregation {
            Aggregation::SumThenNormalize => self.summed(rollout),
            Aggregation::NormalizeThenSum => self.normalized_apart(rollout),
        };
        of_answers(rollout, &self.shaping, &advantages)
    }
}

impl AdvantageEstimator for LeaveOneOut {
    fn estimate(&self, rollout: &Rollout<'_>) -> Estimates {
        let rewards: Vec<Option<f64>> = (0..rollout.rewards.len())
            .map(|sequence| self.shaping.reward_with_kl(rollout, sequence))
            .collect();
        // r − (Σ − r) / (n − 1) is n / (n − 1) times the distance from the mean.
        let mut advantages = beside_group(rollout.groups, &rewards, |reward, group| {
            let count = group.count as f64;
            if group.count < 2 { 0.0 } else { (reward - group.mean) * count / (count - 1.0) }
        });
        if self.normalize {
            let is_alone = |sequence: usize| {
                let group = rollout.groups.iter().find(|group| group.contains(&sequence));
                let known = group.map(|group| rewards[group.clone()].iter().flatten().count());
                known.is_none_or(|known| known < 2)
            };
            // An answer that stands alone has been compared with nothing.
            for (sequence, advantage) in advantages.iter_mut().enumerate() {
                *advantage = advantage.filter(|_| !is_alone(sequence));
            }
            let all = Moments::of(advantages.iter().copied().flatten());
            for advantage in advantages.iter_mut().flatten() {
                *advantage = (*advantage - all.mean) / (all.std() + STD_OFFSET);
            }
        }
        of_answers(rollout, &self.shaping, &advantages)
    }
}

/// The same advantage for every token of an answer; 0 without one.
fn of_answers(rollout: &Rollout<'_>, shaping: &Shaping, advantages: &[Option<f64>]) -> Estimates {
    let of_tokens = |(own, logprobs): (&Option<f64>, &Arc<[f32]>)| -> Arc<[f64]> {
        vec![own.unwrap_or(0.0); logprobs.len()].into()
    };
    Estimates {
        advantages: advantages.iter().zip(rollout.logprobs).map(of_tokens).collect(),
        returns: Vec::new(),
        metrics: figures(rollout, shaping),
    }
}
