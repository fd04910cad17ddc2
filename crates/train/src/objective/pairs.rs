//! What losses over pairs of a chosen and a rejected answer have in common.

use text::Target;

use super::{Dual, Fold, Metric, MicroOutputs, Outcome, Share};
use crate::step::StepPlan;

/// Share of pairs whose chosen answer has the higher reward.
pub const ACCURACY: &str = "rewards/accuracies";

/// By how much its reward is higher.
pub const MARGIN: &str = "rewards/margins";

/// Weighted sums over the tokens of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Answer {
    /// Log-probability under the policy, in nats.
    pub policy: f64,
    /// The same under the reference; 0 where the loss has none.
    pub reference: f64,
    /// The weights of the row alone: the number of tokens, where each counts once.
    pub tokens: f64,
}

impl Answer {
    /// By how much the policy likes the answer more than the reference does.
    pub fn log_ratio(&self) -> f64 {
        self.policy - self.reference
    }

    pub(super) fn add(&mut self, weight: f64, policy: f64, reference: f64) {
        self.policy += weight * policy;
        self.reference += weight * reference;
    }
}

/// A pair as a loss sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pair {
    /// The better answer.
    pub chosen: Answer,
    /// The worse one.
    pub rejected: Answer,
    /// What a likelihood term covers: the chosen answer, and its prompt where the loss wants that too.
    pub learned: Answer,
    /// Means over the tokens of both answers of log p - log Σ p², added up; of what was not asked for 0.
    pub on_policy: f64,
}

/// The log-probabilities of a pair that a loss depends on.
#[derive(Clone, Copy, Debug)]
pub struct PairVariables {
    /// Of [`Pair::chosen`].
    pub chosen: Dual<3>,
    /// Of [`Pair::rejected`].
    pub rejected: Dual<3>,
    /// Of [`Pair::learned`].
    pub learned: Dual<3>,
}

impl Pair {
    /// The pair's log-probabilities as variables of its loss.
    pub fn variables(&self) -> PairVariables {
        PairVariables {
            chosen: Dual::variable(0, self.chosen.policy),
            rejected: Dual::variable(1, self.rejected.policy),
            learned: Dual::variable(2, self.learned.policy),
        }
    }
}

/// What a loss makes of a pair.
#[derive(Clone, Copy, Debug)]
pub struct PairLoss {
    /// Its loss, with derivatives by [`PairVariables`].
    pub loss: Dual<3>,
    /// The implicit rewards of the chosen and the rejected answer.
    pub rewards: [f64; 2],
}

/// How a target counts in the sums of its pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetWeights {
    /// In [`Pair::chosen`] or [`Pair::rejected`].
    pub answer: f64,
    /// In [`Pair::learned`]. Only the chosen sequence's count.
    pub learned: f64,
}

impl TargetWeights {
    /// The weight that the row gives the token, in both.
    pub fn of_row(target: &Target) -> Self {
        TargetWeights { answer: target.weight.into(), learned: target.weight.into() }
    }
}

/// Loss, derivatives and figures of all pairs in some micro-batches. A unit is a pair, the chosen sequence first.
///
/// `weigh` gets a target and the number of learned tokens of the shorter answer of its pair. `judge` gets the pairs of
/// all micro-batches at once and gives the loss of each; the step's loss is the mean over its pairs.
pub fn evaluate_pairs(
    micros: &[MicroOutputs<'_>],
    plan: &StepPlan,
    weigh: impl Fn(&Target, usize) -> TargetWeights,
    judge: impl FnOnce(&[Pair]) -> Vec<PairLoss>,
) -> Vec<Outcome> {
    let seen: Vec<MicroPairs> =
        micros.iter().map(|micro| MicroPairs::of(micro, plan, &weigh)).collect();
    let all: Vec<Pair> = seen.iter().flat_map(|micro| micro.pairs.iter().copied()).collect();
    let mut losses = judge(&all).into_iter();
    let outcome = |(micro, seen): (&MicroOutputs<'_>, &MicroPairs)| {
        let own: Vec<PairLoss> = losses.by_ref().take(seen.pairs.len()).collect();
        seen.outcome(micro, plan, &own)
    };
    micros.iter().zip(&seen).map(outcome).collect()
}

/// The pairs of a micro-batch.
struct MicroPairs {
    pairs: Vec<Pair>,
    /// Index of each pair's chosen sequence in the step.
    chosen: Vec<usize>,
    /// Log-probability of the token that ends each pair's chosen answer, `[pairs]`.
    ends: Vec<f64>,
    /// Half the mean squared log-ratio of policy and reference over the learned tokens of each pair, in nats: the KL
    /// estimator k2 (Schulman 2020) over the data. Empty without a reference.
    drifts: Vec<f64>,
    /// Which of the pairs a target belongs to, and how it counts there, `[targets]`.
    targets: Vec<(usize, TargetWeights)>,
}

impl MicroPairs {
    fn of(
        micro: &MicroOutputs<'_>,
        plan: &StepPlan,
        weigh: &impl Fn(&Target, usize) -> TargetWeights,
    ) -> Self {
        let targets = &micro.batch.targets;
        let units = plan.units_of(micro.sequences);
        let mut pair_of = vec![0; plan.sequences.len()];
        let mut learned_tokens = vec![0; plan.sequences.len()];
        for (index, unit) in units.iter().enumerate() {
            assert_eq!(unit.len(), 2, "a unit of preferences is a pair");
            pair_of[unit.clone()].fill(index);
        }
        for target in targets.iter().filter(|target| target.weight != 0.0) {
            learned_tokens[target.sequence as usize] += 1;
        }

        let mut pairs = vec![Pair::default(); units.len()];
        let mut ends = vec![0.0; units.len()];
        let mut drifts = vec![0.0; if micro.extra.is_empty() { 0 } else { units.len() }];
        let mut weights = Vec::with_capacity(targets.len());
        for (index, target) in targets.iter().enumerate() {
            let sequence = target.sequence as usize;
            let unit = &units[pair_of[sequence]];
            let shorter = learned_tokens[unit.start].min(learned_tokens[unit.start + 1]);
            let weight = weigh(target, shorter);
            let policy = f64::from(micro.policy.logprob[index]);
            let reference =
                micro.extra.first().map_or(0.0, |extra| f64::from(extra.logprob[index]));
            let pair = &mut pairs[pair_of[sequence]];
            let is_chosen = sequence == unit.start;
            let answer = if is_chosen { &mut pair.chosen } else { &mut pair.rejected };
            answer.add(weight.answer, policy, reference);
            answer.tokens += f64::from(target.weight);
            if is_chosen {
                pair.learned.add(weight.learned, policy, reference);
                pair.learned.tokens += weight.learned;
            }
            if let (Some(squares), true) =
                (micro.policy.log_sum_sq_probs.get(target.read as usize), target.weight != 0.0)
            {
                pair.on_policy += (policy - f64::from(*squares)) / learned_tokens[sequence] as f64;
            }
            if is_chosen && target.weight != 0.0 {
                // Targets stand in the order of their tokens.
                ends[pair_of[sequence]] = policy;
            }
            if let (Some(drift), true) = (drifts.get_mut(pair_of[sequence]), target.weight != 0.0) {
                let tokens = learned_tokens[unit.start] + learned_tokens[unit.start + 1];
                *drift += 0.5 * (policy - reference).powi(2) / tokens as f64;
            }
            weights.push((pair_of[sequence], weight));
        }
        let chosen = units.iter().map(|unit| unit.start).collect();
        MicroPairs { pairs, chosen, ends, drifts, targets: weights }
    }

    fn outcome(&self, micro: &MicroOutputs<'_>, plan: &StepPlan, losses: &[PairLoss]) -> Outcome {
        let pairs = plan.totals.units as f64;
        let mean = |name, value: &dyn Fn(usize) -> f64| {
            let share =
                |(index, &sequence): (usize, &usize)| Share { sequence, value: value(index) };
            let shares = self.chosen.iter().enumerate().map(share).collect();
            Metric { name, fold: Fold::Mean, shares }
        };
        let rewards = |index: usize| losses[index].rewards;
        let is_right = |index: usize| f64::from(u8::from(rewards(index)[0] > rewards(index)[1]));
        let mut metrics = vec![
            mean("rewards/chosen", &|index| rewards(index)[0]),
            mean("rewards/rejected", &|index| rewards(index)[1]),
            mean(ACCURACY, &is_right),
            mean(MARGIN, &|index| rewards(index)[0] - rewards(index)[1]),
            mean("logps/chosen", &|index| self.pairs[index].chosen.policy),
            mean("logps/rejected", &|index| self.pairs[index].rejected.policy),
            mean("logps/chosen_end", &|index| self.ends[index]),
            mean("lengths/chosen", &|index| self.pairs[index].chosen.tokens),
            mean("lengths/rejected", &|index| self.pairs[index].rejected.tokens),
        ];
        if !self.drifts.is_empty() {
            metrics.push(mean("drift", &|index| self.drifts[index]));
        }

        let mut outcome = Outcome { metrics, ..Outcome::default() };
        let share = |(loss, &sequence): (&PairLoss, &usize)| Share {
            sequence,
            value: loss.loss.value / pairs,
        };
        outcome.loss = losses.iter().zip(&self.chosen).map(share).collect();
        let gradient = |(target, &(index, weight)): (&Target, &(usize, TargetWeights))| {
            let [of_chosen, of_rejected, of_learned] = losses[index].loss.slopes;
            let slope = match target.sequence as usize == self.chosen[index] {
                true => of_chosen * weight.answer + of_learned * weight.learned,
                false => of_rejected * weight.answer,
            };
            (slope / pairs) as f32
        };
        outcome.gradients.logprob =
            Some(micro.batch.targets.iter().zip(&self.targets).map(gradient).collect());
        outcome
    }
}
