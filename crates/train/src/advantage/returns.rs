//! Advantages of REINFORCE++: what follows a token, beside all tokens of the rollout.

use std::sync::Arc;

use super::figures::figures;
use super::group::beside_group;
use super::moments::Moments;
use super::shaping::Shaping;
use crate::rollout::{AdvantageEstimator, Estimates, Rollout};

/// What a reward is compared with before tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Nothing.
    None,
    /// The mean of its group.
    Group,
}

/// REINFORCE++, Hu et al. 2025 (2501.03262): the discounted sum of a token's reward and all that follow, whitened over
/// all tokens that the policy drew. The reward of a token is `−β` times its divergence from the reference; the last
/// one drawn has the answer's reward as well.
///
/// An answer whose reward could not be had counts nowhere and has advantage 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WhitenedReturns {
    /// What a later reward counts, token by token.
    pub gamma: f64,
    /// What rewards are compared with first.
    pub baseline: Baseline,
    /// What is added to the reward.
    pub shaping: Shaping,
}

impl AdvantageEstimator for WhitenedReturns {
    fn estimate(&self, rollout: &Rollout<'_>) -> Estimates {
        let sequences = 0..rollout.rewards.len();
        let rewards: Vec<Option<f64>> =
            sequences.clone().map(|index| self.shaping.reward(rollout, index)).collect();
        let scores = match self.baseline {
            Baseline::None => rewards,
            Baseline::Group => {
                beside_group(rollout.groups, &rewards, |reward, group| reward - group.mean)
            }
        };
        let returns: Vec<Option<Vec<f64>>> =
            sequences.map(|index| Some(self.returns(rollout, index, scores[index]?))).collect();
        let drawn = returns.iter().enumerate().flat_map(|(index, row)| {
            let row = row.iter();
            row.flat_map(move |row| rollout.drawn_targets(index).map(|target| row[target]))
        });
        let moments = Moments::of(drawn);
        let advantages = returns.iter().enumerate().map(|(index, row)| -> Arc<[f64]> {
            let mut advantages = vec![0.0; rollout.logprobs[index].len()];
            for target in rollout.drawn_targets(index) {
                advantages[target] = row.as_ref().map_or(0.0, |row| moments.whiten(row[target]));
            }
            advantages.into()
        });
        Estimates {
            advantages: advantages.collect(),
            returns: Vec::new(),
            metrics: figures(rollout, &self.shaping),
        }
    }
}

impl WhitenedReturns {
    /// What follows every token; tokens that the policy did not draw are passed over.
    fn returns(&self, rollout: &Rollout<'_>, sequence: usize, score: f64) -> Vec<f64> {
        let mut rewards = self.shaping.kl_rewards(rollout, sequence);
        if let Some(last) = rollout.drawn_targets(sequence).next_back() {
            rewards[last] += score;
        }
        let mut following = 0.0;
        for target in rollout.drawn_targets(sequence).rev() {
            following = rewards[target] + self.gamma * following;
            rewards[target] = following;
        }
        rewards
    }
}
