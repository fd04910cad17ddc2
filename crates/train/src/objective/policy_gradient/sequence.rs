//! The loss of one sampled answer.

use super::{KlEstimator, PolicyGradient, RatioLevel};
use crate::objective::Dual;

/// A token of a sampled answer as the loss sees it. Log-probabilities are at the sampling temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Log-probability under the policy.
    pub logprob: f64,
    /// The same before the first update on the answer.
    pub old: f64,
    /// The same when it was drawn.
    pub sampled: f64,
    /// The same under the reference; none without one.
    pub reference: Option<f64>,
    /// By how much it is better than expected.
    pub advantage: f64,
    /// How much it counts: 0 of an observation.
    pub weight: f64,
    /// Whether it is among those whose entropy is high enough to move the policy.
    pub is_kept: bool,
}

/// Loss and slopes of an answer, and sums over its tokens by weight.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceLoss {
    /// What the answer adds to the step's loss through its surrogate.
    pub policy: f64,
    /// What it adds through the KL divergence, `β` included.
    pub kl: f64,
    /// d(both)/d(log-probability) of every token, `[tokens]`.
    pub slopes: Vec<f64>,
    /// Sum of the tokens' weights.
    pub weight: f64,
    /// Tokens that the lower bound of the ratio decides.
    pub low: f64,
    /// Tokens that the upper bound decides.
    pub high: f64,
    /// Sum of the estimates k3 of the divergence from the reference.
    pub kl_sum: f64,
    /// Sum of `½ (log π − log π_old)²`.
    pub moved: f64,
    /// Sum, smallest and largest ratio of the policy to the one that sampled.
    pub ratios: [f64; 3],
}

impl PolicyGradient {
    /// Of the tokens of one answer. Sums over tokens are divided by `divisor`; `beta` weighs the KL divergence.
    pub fn sequence(&self, tokens: &[Token], divisor: f64, beta: f64) -> SequenceLoss {
        let weight: f64 = tokens.iter().map(|token| token.weight).sum();
        let moves = tokens.iter().map(|token| (token.logprob - token.old) * token.weight);
        let per_token = match self.level {
            RatioLevel::Product => 1.0,
            _ => 1.0 / weight.max(1.0),
        };
        let whole = moves.sum::<f64>() * per_token;
        let policy_weights = self.policy_weights(tokens, weight);

        let mut out =
            SequenceLoss { weight, slopes: vec![0.0; tokens.len()], ..Default::default() };
        out.ratios = [0.0, f64::INFINITY, f64::NEG_INFINITY];
        // By the ratio of the whole answer, which every token's log-probability moves.
        let mut whole_slope = 0.0;
        for (index, token) in tokens.iter().enumerate().filter(|(_, token)| token.weight != 0.0) {
            let logprob = Dual::variable(0, token.logprob);
            let log_ratio = match self.level {
                RatioLevel::Token => logprob - token.old,
                _ => Dual::variable(1, whole),
            };
            let surrogate = self.surrogate.loss(logprob, token.old, log_ratio, token.advantage);
            let share = token.weight / divisor;
            let policy = surrogate.loss * (policy_weights[index] * share);
            let kl = match (&self.kl, token.reference) {
                (Some(kl), Some(reference)) => {
                    kl.estimate(logprob, reference, log_ratio) * (beta * share)
                }
                _ => Dual::constant(0.0),
            };
            out.policy += policy.value;
            out.kl += kl.value;
            let slopes = (policy + kl).slopes;
            out.slopes[index] = slopes[0];
            whole_slope += slopes[1];
            out.low += if surrogate.is_low { token.weight } else { 0.0 };
            out.high += if surrogate.is_high { token.weight } else { 0.0 };
            out.add_figures(token);
        }
        for (slope, token) in out.slopes.iter_mut().zip(tokens) {
            *slope += whole_slope * per_token * token.weight;
        }
        out
    }

    /// How much the surrogate of every token counts: what masks and corrections leave of it.
    fn policy_weights(&self, tokens: &[Token], weight: f64) -> Vec<f64> {
        let stale = tokens.iter().map(|token| (token.old - token.sampled) * token.weight);
        let mut weights = match &self.correction {
            Some(correction) => correction.weights(&stale.collect::<Vec<f64>>()),
            None => vec![1.0; tokens.len()],
        };
        let away = tokens.iter().map(|token| (token.sampled - token.logprob) * token.weight);
        let away = away.sum::<f64>() / weight.max(1.0);
        let is_far = self.off_policy_threshold.is_some_and(|threshold| away > threshold);
        for (weight, token) in weights.iter_mut().zip(tokens) {
            if !token.is_kept || (is_far && token.advantage < 0.0) {
                *weight = 0.0;
            }
        }
        weights
    }
}

impl SequenceLoss {
    fn add_figures(&mut self, token: &Token) {
        let ratio = (token.logprob - token.sampled).exp();
        let [sum, smallest, largest] = self.ratios;
        self.ratios = [sum + token.weight * ratio, smallest.min(ratio), largest.max(ratio)];
        self.moved += token.weight * 0.5 * (token.logprob - token.old).powi(2);
        if let Some(reference) = token.reference {
            self.kl_sum += token.weight * KlEstimator::K3.value(token.logprob - reference);
        }
    }
}
