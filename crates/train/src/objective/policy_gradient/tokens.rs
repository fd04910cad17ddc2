//! The sampled answers of a micro-batch.

use super::Token;
use crate::objective::MicroOutputs;
use crate::step::StepPlan;

/// An answer of a micro-batch; columns are over its targets.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Of the step's sequences.
    pub(super) sequence: usize,
    /// What the loss sees.
    pub(super) tokens: Vec<Token>,
    /// Indices of the targets.
    pub(super) targets: Vec<usize>,
    /// Entropy of the distribution that each was drawn from, in nats, under the policy of now.
    pub(super) entropies: Vec<f64>,
    /// What the value head gives, what it gave when the answer was drawn, and what it is to give; empty without one.
    pub(super) values: Vec<[f64; 3]>,
}

impl Answer {
    /// Lets only tokens with at least that entropy move the policy.
    pub(super) fn keep_from(&mut self, threshold: f64) {
        for (token, &entropy) in self.tokens.iter_mut().zip(&self.entropies) {
            token.is_kept = entropy >= threshold;
        }
    }

    /// Weight of the tokens that move the policy.
    pub(super) fn kept(&self) -> f64 {
        self.tokens.iter().filter(|token| token.is_kept).map(|token| token.weight).sum()
    }
}

/// The answers of a micro-batch, in the order of its sequences. Where the plan does not say how they were sampled (when
/// memory is counted), they are taken as drawn from the policy itself, with advantage 0.
pub(super) fn answers(micro: &MicroOutputs<'_>, plan: &StepPlan, has_values: bool) -> Vec<Answer> {
    let mut all = vec![Answer::default(); plan.sequences.len()];
    for (index, target) in micro.batch.targets.iter().enumerate() {
        let (place, read) = (target.place as usize, target.read as usize);
        let sampled = plan.sampled.as_ref().map(|sampled| &sampled[target.sequence as usize]);
        let logprob = f64::from(micro.policy.logprob[index]);
        let at = |column: &[f32]| column.get(place).map(|&value| f64::from(value));
        let drawn = sampled.map_or(logprob, |sampled| f64::from(sampled.logprobs[place]));
        let answer = &mut all[target.sequence as usize];
        answer.targets.push(index);
        answer.tokens.push(Token {
            logprob,
            old: sampled.and_then(|sampled| at(&sampled.proximal)).unwrap_or(drawn),
            sampled: drawn,
            reference: micro.extra.first().map(|extra| f64::from(extra.logprob[index])),
            advantage: sampled.map_or(0.0, |sampled| sampled.advantages[place]),
            weight: f64::from(target.weight),
            is_kept: true,
        });
        let entropy = micro.policy.entropy.get(read).copied().unwrap_or(0.0);
        answer.entropies.push(f64::from(entropy));
        if has_values {
            let value = f64::from(micro.policy.value[read]);
            let wanted = sampled
                .map(|sampled| [value, f64::from(sampled.values[place]), sampled.returns[place]]);
            answer.values.push(wanted.unwrap_or([value; 3]));
        }
    }
    let own = |&sequence: &usize| Answer { sequence, ..std::mem::take(&mut all[sequence]) };
    micro.sequences.iter().map(own).collect()
}
