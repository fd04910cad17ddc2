//! What a sampled token costs, by how likely the policy makes it now and when it was drawn.

use crate::objective::Dual;

/// How far one token may move the policy. `r` is the importance ratio, `A` the advantage; `sg` holds its argument
/// fixed in the derivative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Surrogate {
    /// `-min(r A, clip(r, 1 - low, 1 + high) A)`: PPO, Schulman et al. 2017, eq. 7, with two bounds as in DAPO, Yu et
    /// al. 2025, eq. 8. With `delta`, over `1 + high`, the loss is at most `-delta A` where A < 0: dual clip, Ye et al.
    /// 2020 (1912.09729), the two-sided clip of INTELLECT-2.
    Clip {
        /// How far under 1 the ratio counts.
        low: f64,
        /// How far over 1 the ratio counts.
        high: f64,
        /// The largest ratio where the advantage is negative.
        delta: Option<f64>,
    },
    /// `-sg(min(r, max)) A log π`: CISPO as ScaleRL has it, Khatri et al. 2025 (2510.13786), and TRL.
    TruncatedWeight {
        /// The largest weight.
        max: f64,
    },
    /// `-sg(clip(r, 1 - low, 1 + high)) A log π`: CISPO as MiniMax-M1 has it, 2025 (2506.13585), eq. 4, and verl.
    ClippedWeight {
        /// How far under 1 the weight may be.
        low: f64,
        /// How far over 1 the weight may be.
        high: f64,
    },
    /// `-(4 / τ) σ(τ (r - 1)) A`, where τ depends on the sign of A: SAPO, Gao et al. 2025 (2511.20347).
    Soft {
        /// τ of a token with A > 0.
        positive: f64,
        /// τ of the others.
        negative: f64,
    },
    /// `-M sg(min(r, max)) A log π`: DPPO, 2602.04879, as verl has it. M is 0 where the token has moved the way that A pushes it
    /// and its binary divergence is over the bound, else 1.
    TrustRegion {
        /// How the divergence is measured.
        divergence: BinaryDivergence,
        /// The bound where A is not over 0.
        low: f64,
        /// The bound where A > 0.
        high: f64,
        /// The largest weight.
        max: f64,
    },
}

/// A divergence between two distributions that know only "this token" and "another one"; p when drawn, q now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryDivergence {
    /// `|p - q|`.
    TotalVariation,
    /// `p log(p / q) + (1 - p) log((1 - p) / (1 - q))`, with 1e-8 added to `1 - p` and to `1 - q`, as verl does.
    Kl,
}

/// The loss of a token, and whether its ratio was bounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TokenLoss {
    pub(super) loss: Dual<2>,
    /// Bounded from below, with A < 0.
    pub(super) is_low: bool,
    /// Bounded from above, with A > 0.
    pub(super) is_high: bool,
}

impl Surrogate {
    /// Of a token with that log-probability now and when drawn.
    pub(super) fn loss(
        &self,
        logprob: Dual<2>,
        old: f64,
        log_ratio: Dual<2>,
        advantage: f64,
    ) -> TokenLoss {
        let ratio = log_ratio.exp();
        let r = ratio.value;
        // Weights are held fixed in the derivative.
        let weighted = |weight: f64| logprob * -(weight * advantage);
        let outside =
            |low: f64, high: f64| (r < low && advantage < 0.0, r > high && advantage > 0.0);
        let (loss, (is_low, is_high)) = match *self {
            Surrogate::Clip { low, high, delta } => {
                let free = delta.map_or(ratio, |delta| ratio.at_most(delta)) * advantage;
                let clipped = ratio.at_least(1.0 - low).at_most(1.0 + high) * advantage;
                let smaller = if free.value <= clipped.value { free } else { clipped };
                (-smaller, outside(1.0 - low, 1.0 + high))
            }
            Surrogate::TruncatedWeight { max } => (weighted(r.min(max)), outside(0.0, max)),
            Surrogate::ClippedWeight { low, high } => {
                (weighted(r.clamp(1.0 - low, 1.0 + high)), outside(1.0 - low, 1.0 + high))
            }
            Surrogate::Soft { positive, negative } => {
                let tau = if advantage > 0.0 { positive } else { negative };
                (((ratio - 1.0) * tau).sigmoid() * (-4.0 / tau * advantage), (false, false))
            }
            Surrogate::TrustRegion { divergence, low, high, max } => {
                let (p, q) = (old.exp(), logprob.value.exp());
                let distance = match divergence {
                    BinaryDivergence::TotalVariation => (q - p).abs(),
                    BinaryDivergence::Kl => {
                        let others = ((1.0 - p + 1e-8) / (1.0 - q + 1e-8)).ln();
                        p * (old - logprob.value) + (1.0 - p) * others
                    }
                };
                let is_high = advantage > 0.0 && q > p && distance > high;
                let is_low = advantage < 0.0 && q < p && distance > low;
                let weight = if is_high || is_low { 0.0 } else { r.min(max) };
                (weighted(weight), (is_low, is_high))
            }
        };
        TokenLoss { loss, is_low, is_high }
    }
}
