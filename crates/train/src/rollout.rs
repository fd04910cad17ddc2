//! Answers that a policy sampled, and how their rewards become advantages.

use std::ops::Range;
use std::sync::Arc;

/// What one round of sampling gave: some answers to each of some prompts, with their rewards.
///
/// Columns over targets have one entry for every token of an answer, the one that ended it included.
#[derive(Clone, Copy, Debug)]
pub struct Rollout<'a> {
    /// The answers to each prompt, as ranges of the sequences.
    pub groups: &'a [Range<usize>],
    /// What each reward function gave, `[sequences][functions]`; none where it could not be had.
    pub rewards: &'a [Vec<Option<f64>>],
    /// How much each reward function counts, `[functions]`.
    pub weights: &'a [f64],
    /// Whether the policy ended the answer itself: else it was cut at the most tokens, `[sequences]`.
    pub ended: &'a [bool],
    /// Whether the policy drew a token, not an environment, `[sequences][targets]`; none where it drew all of them.
    pub drawn: Option<&'a [Arc<[bool]>]>,
    /// Log-probabilities when drawn, at the sampling temperature, `[sequences][targets]`.
    pub logprobs: &'a [Arc<[f32]>],
    /// The same under the reference; none without one.
    pub reference: Option<&'a [Arc<[f32]>]>,
    /// What the value head gave before each token was drawn, `[sequences][targets]`; none without one.
    pub values: Option<&'a [Arc<[f32]>]>,
    /// What the method carries from step to step; see [`StepPlan::carried`](crate::step::StepPlan::carried).
    pub carried: &'a [f64],
}

impl<'a> Rollout<'a> {
    /// Rewards alone, of answers that nothing is learned from.
    pub fn of_rewards(rewards: &'a [Vec<Option<f64>>], weights: &'a [f64]) -> Self {
        Rollout {
            groups: &[],
            rewards,
            weights,
            ended: &[],
            logprobs: &[],
            reference: None,
            values: None,
            drawn: None,
            carried: &[],
        }
    }

    /// Whether the policy drew that token of a sequence.
    pub fn is_drawn(&self, sequence: usize, target: usize) -> bool {
        self.drawn.is_none_or(|drawn| drawn[sequence][target])
    }

    /// Indices of the tokens of a sequence that the policy drew.
    pub fn drawn_targets(&self, sequence: usize) -> impl DoubleEndedIterator<Item = usize> {
        let targets = 0..self.logprobs[sequence].len();
        targets.filter(move |&target| self.is_drawn(sequence, target))
    }

    /// The weighted sum of a sequence's rewards, of those that could be had; none where none could.
    pub fn reward(&self, sequence: usize) -> Option<f64> {
        let rewards = self.rewards[sequence].iter().zip(self.weights);
        let mut known = rewards.filter_map(|(reward, weight)| Some((*reward)? * weight)).peekable();
        known.peek()?;
        Some(known.sum())
    }
}

/// What a method makes of a rollout.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    /// By how much each token is better than expected, `[sequences][targets]`.
    pub advantages: Vec<Arc<[f64]>>,
    /// What the value head is to give, `[sequences][targets]`; empty without such a head.
    pub returns: Vec<Arc<[f64]>>,
    /// Figures of the rollout, by their names in events.
    pub metrics: Vec<(&'static str, f64)>,
}

/// How rewards become advantages.
pub trait AdvantageEstimator {
    /// The advantages of a rollout. Depends on nothing else, and not on the order of groups.
    fn estimate(&self, rollout: &Rollout<'_>) -> Estimates;
}
