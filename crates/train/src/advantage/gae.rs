//! Generalized advantage estimation, for methods with a value head.

use std::sync::Arc;

use super::figures::figures;
use super::moments::Moments;
use super::shaping::Shaping;
use crate::rollout::{AdvantageEstimator, Estimates, Rollout};

/// Schulman et al. 2016, eq. 16: `A_t = δ_t + γ λ A_{t+1}` with `δ_t = r_t + γ V_{t+1} − V_t`; behind the last token
/// both are 0. Returns are `A + V`, before whitening.
///
/// The reward of a token is `−β` times its divergence from the reference. The answer's reward stands at the last token
/// that the policy drew, the one that ends the answer, as in verl and OpenRLHF; TRL puts it one position later where
/// there is one. `V_t` is what the head gives at the position that predicts token t. Tokens that the policy did not
/// draw are passed over: the next value and advantage of the token before them are those of the token behind.
///
/// An answer whose reward could not be had has advantage 0, and its returns are its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gae {
    /// What a later reward counts, token by token.
    pub gamma: f64,
    /// How far ahead values are not trusted: 0 looks one token ahead, 1 to the end.
    pub lambda: f64,
    /// Whether rewards of tokens are divided by their deviation first. Their mean stays.
    pub whiten_rewards: bool,
    /// Whether advantages get mean 0 and variance 1 over the rollout.
    pub whiten: bool,
    /// What is added to the reward.
    pub shaping: Shaping,
}

impl AdvantageEstimator for Gae {
    /// Panics where the rollout has no values.
    fn estimate(&self, rollout: &Rollout<'_>) -> Estimates {
        let values = rollout.values.expect("a method with a value head has values");
        let sequences = 0..rollout.rewards.len();
        let mut rewards: Vec<Option<Vec<f64>>> =
            sequences.clone().map(|index| self.rewards(rollout, index)).collect();
        if self.whiten_rewards {
            let all = Moments::of(drawn(rollout, &rewards));
            for reward in rewards.iter_mut().flatten().flatten() {
                // As TRL: the mean is taken off and put back.
                *reward = all.whiten(*reward) + all.mean;
            }
        }
        let advantages: Vec<Option<Vec<f64>>> = sequences
            .clone()
            .map(|index| {
                Some(self.advantages(rollout, index, rewards[index].as_ref()?, &values[index]))
            })
            .collect();
        let returns = sequences.clone().map(|index| -> Arc<[f64]> {
            let values = values[index].iter().enumerate();
            let of = |(target, &value): (usize, &f32)| {
                let advantage = advantages[index].as_ref().map_or(0.0, |row| row[target]);
                f64::from(value) + advantage
            };
            values.map(of).collect()
        });
        let returns: Vec<Arc<[f64]>> = returns.collect();

        let mut metrics = figures(rollout, &self.shaping);
        // R − V is the advantage.
        let left = Moments::of(drawn(rollout, &advantages)).variance();
        let known = advantages
            .iter()
            .zip(&returns)
            .map(|(row, returns)| row.as_ref().map(|_| returns.to_vec()));
        let spread = Moments::of(drawn(rollout, &known.collect::<Vec<_>>())).variance();
        if spread > 0.0 {
            metrics.push(("val/explained_variance", 1.0 - left / spread));
        }

        let all = Moments::of(drawn(rollout, &advantages));
        let advantages = sequences.map(|index| -> Arc<[f64]> {
            let mut row = vec![0.0; rollout.logprobs[index].len()];
            for target in rollout.drawn_targets(index) {
                let own = advantages[index].as_ref().map(|row| row[target]);
                let whiten = |own| if self.whiten { all.whiten(own) } else { own };
                row[target] = own.map_or(0.0, whiten);
            }
            row.into()
        });
        Estimates { advantages: advantages.collect(), returns, metrics }
    }
}

impl Gae {
    /// The reward of every token; none where the answer's could not be had.
    fn rewards(&self, rollout: &Rollout<'_>, sequence: usize) -> Option<Vec<f64>> {
        let score = self.shaping.reward(rollout, sequence)?;
        let mut rewards = self.shaping.kl_rewards(rollout, sequence);
        if let Some(last) = rollout.drawn_targets(sequence).next_back() {
            rewards[last] += score;
        }
        Some(rewards)
    }

    fn advantages(
        &self,
        rollout: &Rollout<'_>,
        sequence: usize,
        rewards: &[f64],
        values: &[f32],
    ) -> Vec<f64> {
        let mut advantages = vec![0.0; rewards.len()];
        let (mut next_value, mut next_advantage) = (0.0, 0.0);
        for target in rollout.drawn_targets(sequence).rev() {
            let value = f64::from(values[target]);
            let error = rewards[target] + self.gamma * next_value - value;
            next_advantage = error + self.gamma * self.lambda * next_advantage;
            next_value = value;
            advantages[target] = next_advantage;
        }
        advantages
    }
}

/// The entries of columns that belong to tokens that the policy drew.
fn drawn(rollout: &Rollout<'_>, columns: &[Option<Vec<f64>>]) -> Vec<f64> {
    let rows = columns.iter().enumerate();
    let known = rows.filter_map(|(index, row)| Some((index, row.as_ref()?)));
    let entries = |(index, row)| {
        let row: &Vec<f64> = row;
        rollout.drawn_targets(index).map(|target| row[target]).collect::<Vec<f64>>()
    };
    known.flat_map(entries).collect()
}
