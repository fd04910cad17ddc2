//! What is added to the reward of an answer before advantages are made.

use crate::objective::KlEstimator;
use crate::rollout::Rollout;

/// Penalties on top of the reward.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shaping {
    /// Penalty on answers that come near the most tokens; none without one.
    pub overlong: Option<Overlong>,
    /// What an answer loses that the policy did not end itself.
    pub missing_end: f64,
    /// The divergence from the reference as a part of the reward; none where it is not.
    pub kl: Option<KlReward>,
}

/// `0` up to `longest − buffer` tokens, then falling in a straight line to `−penalty` at `longest`: DAPO, Yu et al.
/// 2025, eq. 13.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overlong {
    /// Most tokens of an answer.
    pub longest: usize,
    /// Tokens before that in which the penalty grows.
    pub buffer: usize,
    /// The largest penalty.
    pub penalty: f64,
}

/// `−β` times an estimate of the divergence, token by token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlReward {
    /// Weight, where the rollout carries none.
    pub beta: f64,
    /// What is estimated.
    pub estimator: KlEstimator,
    /// Whether the weight is the first of [`Rollout::carried`].
    pub is_carried: bool,
}

impl Overlong {
    /// What is added to the reward of an answer of so many tokens.
    pub fn reward(&self, tokens: usize) -> f64 {
        let over = tokens.saturating_sub(self.longest - self.buffer) as f64;
        -self.penalty * (over / self.buffer as f64).min(1.0)
    }
}

impl Shaping {
    /// What is added to the reward of an answer for its length and its end.
    pub(super) fn addition(&self, rollout: &Rollout<'_>, sequence: usize) -> f64 {
        let tokens = rollout.drawn_targets(sequence).count();
        let overlong = self.overlong.map_or(0.0, |overlong| overlong.reward(tokens));
        let is_cut = !rollout.ended[sequence];
        overlong - if is_cut { self.missing_end } else { 0.0 }
    }

    /// The reward of an answer with these, without the divergence; none where it could not be had.
    pub(super) fn reward(&self, rollout: &Rollout<'_>, sequence: usize) -> Option<f64> {
        Some(rollout.reward(sequence)? + self.addition(rollout, sequence))
    }

    /// What the divergence adds to the reward of every token, `[targets]`; 0 of a token that the policy did not draw.
    pub(super) fn kl_rewards(&self, rollout: &Rollout<'_>, sequence: usize) -> Vec<f64> {
        let logprobs = &rollout.logprobs[sequence];
        let (Some(kl), Some(reference)) = (self.kl, rollout.reference) else {
            return vec![0.0; logprobs.len()];
        };
        let carried = rollout.carried.first().copied().filter(|_| kl.is_carried);
        let beta = carried.unwrap_or(kl.beta);
        let of_token = |(target, (&own, &other)): (usize, (&f32, &f32))| {
            let estimate = kl.estimator.value(f64::from(own) - f64::from(other));
            if rollout.is_drawn(sequence, target) { -beta * estimate } else { 0.0 }
        };
        logprobs.iter().zip(reference[sequence].iter()).enumerate().map(of_token).collect()
    }

    /// The reward of an answer with all of it.
    pub(super) fn reward_with_kl(&self, rollout: &Rollout<'_>, sequence: usize) -> Option<f64> {
        let kl: f64 = self.kl_rewards(rollout, sequence).iter().sum();
        Some(self.reward(rollout, sequence)? + kl)
    }
}
