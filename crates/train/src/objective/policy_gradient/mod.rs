//! The loss of methods that sample their answers: GRPO and its kin, RLOO, REINFORCE++, PPO.
//!
//! They differ in how advantages are made (see [`crate::advantage`]), and in a handful of settings here.

mod correction;
mod figures;
mod kl;
mod sequence;
mod surrogate;
mod tokens;
mod value;

use std::collections::BTreeMap;

use model::{HeadGradients, HeadOutputs, HeadRequest, Want};
use text::Target;

use super::{Coupling, ExtraPass, MicroOutputs, Objective, Outcome, Share};
use crate::models::PartName;
use crate::step::{StepPlan, Totals};
use tokens::{Answer, answers};

pub use correction::Correction;
pub use kl::{KlController, KlEstimator, KlLoss};
pub use sequence::{SequenceLoss, Token};
pub use surrogate::{BinaryDivergence, Surrogate};
pub use value::{OwnValues, ValueLoss};

/// Of what the importance ratio is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RatioLevel {
    /// Of each token.
    Token,
    /// Of the whole answer, as the geometric mean over its tokens: GSPO, Zheng et al. 2025, eq. 7.
    Mean,
    /// Of the whole answer, as the product over its tokens.
    Product,
}

/// What losses of tokens are divided by, summed over the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Average {
    /// Over the tokens of an answer, then over answers: GRPO, Shao et al. 2024, eq. 3.
    Sequences,
    /// Over all tokens: DAPO, Yu et al. 2025, eq. 8.
    Tokens,
    /// Over answers, each divided by this length: Dr. GRPO, Liu et al. 2025 (2503.20783).
    Length(f64),
}

/// `Σ surrogate + β Σ KL + value loss − c · entropy` over the tokens of sampled answers.
///
/// A token counts by its target's weight; one of weight 0 (an observation) counts nowhere. All divisors are those of the
/// step, never of a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyGradient {
    /// What a token costs.
    pub surrogate: Surrogate,
    /// Of what the importance ratio is taken.
    pub level: RatioLevel,
    /// What losses of tokens are divided by.
    pub average: Average,
    /// Pull towards the reference as a part of the loss; none where it is in the reward, or nowhere.
    pub kl: Option<KlLoss>,
    /// Sets the weight of the pull from step to step; see [`StepPlan::carried`].
    pub controller: Option<KlController>,
    /// How stale answers count; none where all count in full.
    pub correction: Option<Correction>,
    /// Leaves out tokens with a negative advantage where the mean over the answer of `log π_sampled − log π` is over
    /// this: DeepSeek-V3.2, 2512.02556, eq. 9.
    pub off_policy_threshold: Option<f64>,
    /// Share of the step's tokens, those of highest entropy, that move the policy: Wang et al. 2025 (2506.01939).
    pub top_entropy: f64,
    /// Weight of the mean entropy, which is made larger.
    pub entropy_coefficient: f64,
    /// What the value head is taught; none without one.
    pub value: Option<ValueLoss>,
    /// The temperature at which the answers were drawn.
    pub temperature: f32,
}

impl PolicyGradient {
    /// The plain clipped loss, a mean over tokens, at temperature 1.
    pub const PLAIN: PolicyGradient = PolicyGradient {
        surrogate: Surrogate::Clip { low: 0.2, high: 0.2, delta: None },
        level: RatioLevel::Token,
        average: Average::Tokens,
        kl: None,
        controller: None,
        correction: None,
        off_policy_threshold: None,
        top_entropy: 1.0,
        entropy_coefficient: 0.0,
        value: None,
        temperature: 1.0,
    };

    /// What the losses of an answer's tokens are divided by.
    pub fn token_divisor(&self, answer_weight: f64, totals: &Totals) -> f64 {
        let sequences = totals.sequences.max(1) as f64;
        match self.average {
            Average::Sequences => answer_weight.max(1.0) * sequences,
            Average::Tokens => totals.weight.max(1.0),
            Average::Length(length) => length * sequences,
        }
    }

    fn beta(&self, plan: &StepPlan) -> f64 {
        let carried = self.controller.and(plan.carried.first().copied());
        carried.or(self.kl.map(|kl| kl.beta)).unwrap_or(0.0)
    }

    /// The entropy from which on tokens move the policy, by those of the step: TRL's quantile, with linear
    /// interpolation. None where all do.
    fn entropy_threshold(&self, answers: &[Vec<Answer>]) -> Option<f64> {
        if self.top_entropy >= 1.0 {
            return None;
        }
        let counted = answers.iter().flatten().flat_map(|answer| {
            answer.tokens.iter().zip(&answer.entropies).filter(|(token, _)| token.weight != 0.0)
        });
        let mut entropies: Vec<f64> = counted.map(|(_, &entropy)| entropy).collect();
        entropies.sort_by(f64::total_cmp);
        let last = entropies.len().checked_sub(1)?;
        let at = (1.0 - self.top_entropy) * last as f64;
        let (below, part) = (at.floor() as usize, at.fract());
        let above = entropies[(below + 1).min(last)];
        Some(entropies[below] + part * (above - entropies[below]))
    }

    fn outcome(
        &self,
        micro: &MicroOutputs<'_>,
        plan: &StepPlan,
        answers: &[Answer],
        entropy_divisor: f64,
    ) -> Outcome {
        let (targets, reads) = (&micro.batch.targets, micro.batch.reads.len());
        let total = plan.totals.weight.max(1.0);
        let beta = self.beta(plan);
        let mut figures = figures::Figures::new(self, plan);
        let mut outcome = Outcome::default();
        let mut slopes = vec![0.0; targets.len()];
        let (mut entropy_slopes, mut value_slopes) = (vec![0.0; reads], vec![0.0; reads]);
        for answer in answers {
            let weight = answer.tokens.iter().map(|token| token.weight).sum();
            let loss =
                self.sequence(&answer.tokens, self.token_divisor(weight, &plan.totals), beta);
            let (mut bonus, mut value_loss, mut clipped, mut entropy) = (0.0, 0.0, 0.0, 0.0);
            for (index, token) in answer.tokens.iter().enumerate() {
                let target = answer.targets[index];
                let read = targets[target].read as usize;
                slopes[target] = loss.slopes[index];
                entropy += token.weight * answer.entropies[index];
                if token.is_kept {
                    let share = self.entropy_coefficient * token.weight / entropy_divisor;
                    bonus += share * answer.entropies[index];
                    // Several targets may share a read: answers to one prompt begin at its last token.
                    entropy_slopes[read] -= share;
                }
                if let (Some(value), Some(&[now, old, wanted])) =
                    (&self.value, answer.values.get(index))
                {
                    let (own, slope, is_clipped) = value.loss(now, old, wanted);
                    value_loss += own * token.weight / total;
                    value_slopes[read] += value.coefficient * slope * token.weight / total;
                    clipped += if is_clipped { token.weight } else { 0.0 };
                }
            }
            let coefficient = self.value.map_or(0.0, |value| value.coefficient);
            let value = loss.policy + loss.kl + coefficient * value_loss - bonus;
            outcome.loss.push(Share { sequence: answer.sequence, value });
            figures.add(answer, &loss, entropy, value_loss, clipped);
        }
        outcome.metrics = figures.metrics();
        let f32s = |slopes: Vec<f64>| slopes.into_iter().map(|slope| slope as f32).collect();
        outcome.gradients = HeadGradients {
            logprob: Some(f32s(slopes)),
            entropy: (self.entropy_coefficient != 0.0).then(|| f32s(entropy_slopes)),
            value: self.value.map(|_| f32s(value_slopes)),
            ..HeadGradients::default()
        };
        outcome
    }

    /// `β` of the next step, by how far this step's answers were from the reference when they were drawn.
    fn next_beta(&self, plan: &StepPlan) -> Option<f64> {
        let controller = self.controller?;
        let (sampled, reference) = (plan.sampled.as_ref()?, plan.reference.as_ref()?);
        let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
        for target in plan.micros.iter().flat_map(|micro| &micro.batch.targets) {
            let (sequence, place) = (target.sequence as usize, target.place as usize);
            let old = f64::from(sampled[sequence].logprobs[place]);
            let log_ratio = old - f64::from(reference[sequence][place]);
            *sums.entry(sequence).or_default() += log_ratio * f64::from(target.weight);
        }
        let beta = plan.carried.first().copied().unwrap_or(controller.initial);
        if sums.is_empty() {
            return Some(beta);
        }
        let kl = sums.values().sum::<f64>() / sums.len() as f64;
        Some(controller.next(beta, kl, plan.totals.sequences))
    }
}

impl Objective for PolicyGradient {
    fn coupling(&self) -> Coupling {
        // Which tokens have a high entropy is known when all have been seen.
        if self.top_entropy < 1.0 { Coupling::Step } else { Coupling::Sequence }
    }

    fn request(&self) -> HeadRequest {
        let plain = HeadRequest::logprobs();
        let want = Want { entropy: true, value: self.value.is_some(), ..plain.want };
        HeadRequest { temperature: self.temperature, want, ..plain }
    }

    fn extra_passes(&self) -> &[ExtraPass] {
        match self.kl {
            Some(_) => &[ExtraPass { part: PartName::Reference }],
            None => &[],
        }
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        match self.average {
            Average::Tokens => totals.weight,
            _ => totals.sequences as f64,
        }
    }

    fn initially_carried(&self) -> Vec<f64> {
        self.controller.iter().map(|controller| controller.initial).collect()
    }

    /// Of the policy that sampled the answers: its log-probabilities are those of sampling, to the bit.
    fn known_gradient(&self, micro: &MicroOutputs<'_>, plan: &StepPlan) -> Option<Vec<f32>> {
        let sees_more = self.entropy_coefficient != 0.0 || self.coupling() == Coupling::Step;
        if !plan.is_on_policy || sees_more {
            return None;
        }
        let sampled = plan.sampled.as_ref()?;
        let logprob =
            |target: &Target| sampled[target.sequence as usize].logprobs[target.place as usize];
        let logprob = micro.batch.targets.iter().map(logprob).collect();
        let policy = HeadOutputs { logprob, ..HeadOutputs::default() };
        let micro = MicroOutputs { policy: &policy, ..*micro };
        let answers = answers(&micro, plan, false);
        self.outcome(&micro, plan, &answers, 1.0).gradients.logprob
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let mut all: Vec<Vec<Answer>> =
            micros.iter().map(|micro| answers(micro, plan, self.value.is_some())).collect();
        let mut entropy_divisor = plan.totals.weight;
        if let Some(threshold) = self.entropy_threshold(&all) {
            all.iter_mut().flatten().for_each(|answer| answer.keep_from(threshold));
            // In the order of sequences, not of micro-batches.
            let kept: BTreeMap<usize, f64> =
                all.iter().flatten().map(|answer| (answer.sequence, answer.kept())).collect();
            entropy_divisor = kept.values().sum();
        }
        let outcomes = micros.iter().zip(&all);
        let outcomes = outcomes
            .map(|(micro, answers)| self.outcome(micro, plan, answers, entropy_divisor.max(1.0)));
        let mut outcomes: Vec<Outcome> = outcomes.collect();
        if let Some(first) = outcomes.first_mut() {
            first.carried = self.next_beta(plan).into_iter().collect();
        }
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use data::Micro;
    use text::Batch;

    use super::*;
    use crate::step::{Sampled, SequenceInfo};

    fn outputs<'a>(
        plan: &'a StepPlan,
        reference: &'a HeadOutputs,
        policy: &'a HeadOutputs,
    ) -> MicroOutputs<'a> {
        let Micro { batch, sequences } = &plan.micros[0];
        let extra = std::slice::from_ref(reference);
        MicroOutputs { batch, sequences, policy, extra, before: &[] }
    }

    #[test]
    fn what_is_known_before_the_forward_is_what_comes_after_it() {
        let logprobs: Arc<[f32]> = Arc::from([-0.3, -2.5, -0.01]);
        let target = |place: u32| {
            let weight = 1.0;
            Target { read: place, token: 0, sequence: 0, place, role: 0, weight }
        };
        let batch = Batch {
            reads: vec![0, 1, 2],
            targets: (0..3).map(target).collect(),
            ..Batch::default()
        };
        let micro = Micro { batch, sequences: vec![0] };
        let mut plan = StepPlan::from_micros(vec![micro], vec![SequenceInfo { unit: 0, role: 0 }]);
        plan.is_on_policy = true;
        let advantages: Arc<[f64]> = Arc::from([0.7, 0.7, -0.2]);
        plan.sampled =
            Some(vec![Sampled { logprobs: logprobs.clone(), advantages, ..Sampled::default() }]);
        let policy = HeadOutputs {
            logprob: logprobs.to_vec(),
            entropy: vec![0.5; 3],
            ..HeadOutputs::default()
        };
        let reference = HeadOutputs { logprob: vec![-0.4, -2.0, -0.02], ..HeadOutputs::default() };
        let (plan, reference) = (&plan, &reference);
        let kl = KlLoss { beta: 0.1, estimator: KlEstimator::K2, with_ratio: true };
        let unknown = HeadOutputs::default();
        for level in [RatioLevel::Token, RatioLevel::Mean] {
            let objective = PolicyGradient { kl: Some(kl), level, ..PolicyGradient::PLAIN };
            let known =
                objective.known_gradient(&outputs(plan, reference, &unknown), plan).unwrap();
            let after = objective.evaluate(&[outputs(plan, reference, &policy)], plan).remove(0);
            assert_eq!(Some(known), after.gradients.logprob);
            let bonus = PolicyGradient { entropy_coefficient: 0.1, ..objective };
            assert_eq!(bonus.known_gradient(&outputs(plan, reference, &unknown), plan), None);
        }
    }
}
