//! Figures of a step over sampled answers, by TRL's names.

use super::tokens::Answer;
use super::{PolicyGradient, RatioLevel, SequenceLoss};
use crate::objective::{Fold, Metric, Share};
use crate::step::StepPlan;

/// Gathers the shares of answers.
pub(super) struct Figures {
    /// Sum of the weights of the step's tokens.
    total: f64,
    sequences: f64,
    by_sequence: bool,
    has_reference: bool,
    has_value: bool,
    is_on_policy: bool,
    metrics: Vec<Metric>,
}

impl Figures {
    pub(super) fn new(objective: &PolicyGradient, plan: &StepPlan) -> Self {
        Figures {
            total: plan.totals.weight.max(1.0),
            sequences: plan.totals.sequences.max(1) as f64,
            by_sequence: objective.level != RatioLevel::Token,
            has_reference: objective.kl.is_some(),
            has_value: objective.value.is_some(),
            is_on_policy: plan.is_on_policy,
            metrics: Vec::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        answer: &Answer,
        loss: &SequenceLoss,
        entropy: f64,
        value_loss: f64,
        value_clipped: f64,
    ) {
        let of_tokens = |sum: f64| sum / self.total;
        // Where the ratio is that of the answer, so are its bounds.
        let of_ratios = |sum: f64| match self.by_sequence {
            true => sum / loss.weight.max(1.0) / self.sequences,
            false => sum / self.total,
        };
        let mut sums = vec![
            ("entropy", of_tokens(entropy)),
            ("clip_ratio/low_mean", of_ratios(loss.low)),
            ("clip_ratio/high_mean", of_ratios(loss.high)),
            ("clip_ratio/region_mean", of_ratios(loss.low + loss.high)),
            ("policy/approxkl_avg", of_tokens(loss.moved)),
            ("sampling/importance_sampling_ratio/mean", of_tokens(loss.ratios[0])),
        ];
        if self.has_reference {
            sums.push(("kl", of_tokens(loss.kl_sum)));
        }
        if self.has_value {
            sums.push(("loss/policy_avg", loss.policy));
            sums.push(("loss/value_avg", value_loss));
            sums.push(("val/clipfrac_avg", of_tokens(value_clipped)));
        }
        for (name, value) in sums {
            self.push(name, Fold::Sum, answer.sequence, value);
        }
        let [_, smallest, largest] = loss.ratios;
        // An answer of which no token counts has no ratio.
        if smallest <= largest {
            let deviation = (largest - 1.0).max(1.0 - smallest);
            for (name, fold, value) in [
                ("sampling/importance_sampling_ratio/min", Fold::Min, smallest),
                ("sampling/importance_sampling_ratio/max", Fold::Max, largest),
                ("sampling/ratio_deviation/max", Fold::Max, deviation),
            ] {
                self.push(name, fold, answer.sequence, value);
            }
            if self.is_on_policy {
                self.push("sampling/mismatch", Fold::Max, answer.sequence, deviation);
            }
        }
    }

    fn push(&mut self, name: &'static str, fold: Fold, sequence: usize, value: f64) {
        let share = Share { sequence, value };
        match self.metrics.iter_mut().find(|metric| metric.name == name) {
            Some(metric) => metric.shares.push(share),
            None => self.metrics.push(Metric { name, fold, shares: vec![share] }),
        }
    }

    pub(super) fn metrics(self) -> Vec<Metric> {
        self.metrics
    }
}
