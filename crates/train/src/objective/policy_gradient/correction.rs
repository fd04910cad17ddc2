//! Answers that an older or another policy sampled.

/// How a token counts by `w = π_old / π_sampled`, where π_old is the policy before the first update on the answer.
///
/// Truncation: Yao et al. 2025 (TIS). Masks: IcePop, Ling Team 2025. Weights are held fixed in the derivative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    /// Whether `w` is that of the whole answer, the product over its tokens; else a token's own.
    pub by_sequence: bool,
    /// Whether what is outside the bounds does not count at all; else it counts as the bound.
    pub masks: bool,
    /// The smallest `w`.
    pub min: f64,
    /// The largest `w`.
    pub max: f64,
}

impl Correction {
    /// How much every token of an answer counts, by `log w`.
    pub(super) fn weights(&self, log_ratios: &[f64]) -> Vec<f64> {
        let weight = |log_ratio: f64| {
            let ratio = log_ratio.exp();
            match self.masks {
                true if ratio < self.min || ratio > self.max => 0.0,
                true => ratio,
                false => ratio.clamp(self.min, self.max),
            }
        };
        match self.by_sequence {
            true => vec![weight(log_ratios.iter().sum()); log_ratios.len()],
            false => log_ratios.iter().map(|&log_ratio| weight(log_ratio)).collect(),
        }
    }
}
