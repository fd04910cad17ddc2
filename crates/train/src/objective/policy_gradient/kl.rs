//! Estimators of the reverse KL divergence, one number a sampled token.

use crate::objective::Dual;

/// `KL(π ‖ ref)` from one sample of π, where `l = log π − log ref` (Schulman 2020).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KlEstimator {
    /// `l`: unbiased, of either sign.
    K1,
    /// `l² / 2`: biased as a value; as a loss its gradient is that of the divergence.
    K2,
    /// `e⁻ˡ − 1 + l`: unbiased, never negative; as a loss its gradient is another one.
    K3,
}

impl KlEstimator {
    /// The estimator of that name in recipes.
    pub fn named(name: &str) -> Self {
        match name {
            "k1" => KlEstimator::K1,
            "k2" => KlEstimator::K2,
            _ => KlEstimator::K3,
        }
    }

    /// The estimate, by `l` in nats.
    pub fn value(self, log_ratio: f64) -> f64 {
        self.of(Dual::<1>::constant(log_ratio)).value
    }

    fn of<const N: usize>(self, l: Dual<N>) -> Dual<N> {
        match self {
            KlEstimator::K1 => l,
            KlEstimator::K2 => l.square() * 0.5,
            // At 0 both sums are exactly 0.
            KlEstimator::K3 => ((-l).exp() - 1.0) + l,
        }
    }
}

/// `β` times an estimate, as a part of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlLoss {
    /// Weight.
    pub beta: f64,
    /// What is estimated.
    pub estimator: KlEstimator,
    /// Whether the estimate is multiplied by the importance ratio of the loss. That of k2 is held fixed in the
    /// derivative; that of k1 and k3 is not (DeepSeek-V3.2, 2512.02556). Each time that is the form whose gradient is
    /// the divergence's.
    pub with_ratio: bool,
}

impl KlLoss {
    /// The estimate of a token, without `β`.
    pub(super) fn estimate(&self, logprob: Dual<2>, reference: f64, log_ratio: Dual<2>) -> Dual<2> {
        let estimate = self.estimator.of(logprob - reference);
        match (self.with_ratio, self.estimator) {
            (false, _) => estimate,
            (true, KlEstimator::K2) => estimate * log_ratio.value.exp(),
            (true, _) => estimate * log_ratio.exp(),
        }
    }
}

/// Keeps the divergence near a target: Ziegler et al. 2019, section 2.2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlController {
    /// `β` before the first step.
    pub initial: f64,
    /// The wanted divergence, summed over an answer, in nats.
    pub target: f64,
    /// Answers over which an error of 20 % changes `β` by that much.
    pub horizon: f64,
    /// Steps that see the same answers: each counts them in part.
    pub updates: f64,
}

impl KlController {
    /// `β` after answers with that mean divergence: `β (1 + clip(kl / target − 1, ±0.2) n / horizon)`.
    pub fn next(&self, beta: f64, kl: f64, answers: usize) -> f64 {
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        beta * (1.0 + error * answers as f64 / self.updates / self.horizon)
    }
}
