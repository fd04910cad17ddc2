//! The losses of direct preference optimization and of its kin over one pair, each with its source.

use crate::objective::{Dual, Pair};

/// A loss over pairs, or over all pairs of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// DPO, Rafailov et al. 2023, eq. 7; with label smoothing conservative DPO, Mitchell 2023, eq. 3.
    Sigmoid,
    /// Zhao et al. 2023 (SLiC-HF).
    Hinge,
    /// Azar et al. 2023, eq. 17, over means per token, as its authors confirmed to the authors of TRL.
    Ipo,
    /// Chowdhury et al. 2024: unbiased where labels are flipped with the probability of label smoothing.
    Robust,
    /// Ji et al. 2024, eq. 16 for two answers.
    ExoPair,
    /// Chen et al. 2024 (noise contrastive alignment).
    NcaPair,
    /// Jung et al. 2024, without its shift.
    BcoPair,
    /// Wu et al. 2024, eq. 4.7 where the chosen answer always wins.
    SppoHard,
    /// Melnyk et al. 2024: margins of policy and reference, both sorted over the step.
    Aot,
    /// The same over log-ratios of chosen and of rejected answers.
    AotUnpaired,
    /// D'Oosterlinck et al. 2024, eq. 7.
    ApoZero,
    /// The same, eq. 8.
    ApoDown,
    /// Lu et al. 2024, eq. 5.
    Discopop,
    /// Mean negative log-likelihood of the step's chosen tokens.
    Sft,
    /// Lambert et al. 2024 (Tülu 3): DPO over means per token.
    SigmoidNorm,
}

/// Words of a recipe and the losses that they name.
pub const LOSSES: [(&str, Loss); 15] = [
    ("sigmoid", Loss::Sigmoid),
    ("hinge", Loss::Hinge),
    ("ipo", Loss::Ipo),
    ("robust", Loss::Robust),
    ("exo_pair", Loss::ExoPair),
    ("nca_pair", Loss::NcaPair),
    ("bco_pair", Loss::BcoPair),
    ("sppo_hard", Loss::SppoHard),
    ("aot", Loss::Aot),
    ("aot_unpaired", Loss::AotUnpaired),
    ("apo_zero", Loss::ApoZero),
    ("apo_down", Loss::ApoDown),
    ("discopop", Loss::Discopop),
    ("sft", Loss::Sft),
    ("sigmoid_norm", Loss::SigmoidNorm),
];

impl Loss {
    /// The loss of that word.
    pub fn named(word: &str) -> Option<Loss> {
        LOSSES.iter().find(|(name, _)| *name == word).map(|(_, loss)| *loss)
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        let known = LOSSES.iter().find(|(_, loss)| *loss == self);
        known.expect("every loss has a word").0
    }

    /// Whether it sorts over all pairs of a step.
    pub fn sorts(self) -> bool {
        matches!(self, Loss::Aot | Loss::AotUnpaired)
    }

    /// Whether label smoothing changes it.
    pub fn takes_smoothing(self) -> bool {
        matches!(self, Loss::Sigmoid | Loss::Robust | Loss::ExoPair) || self.sorts()
    }

    /// Whether it is over the score of a [`Divergence`], and not over log-ratios.
    pub fn takes_divergence(self) -> bool {
        use Loss::{Discopop, ExoPair, Hinge, Ipo, Robust, Sigmoid, SigmoidNorm};
        matches!(self, Sigmoid | Hinge | Ipo | Robust | ExoPair | Discopop | SigmoidNorm)
    }
}

/// Which divergence from the reference is bounded, Wang et al. 2024 (f-DPO): the score of an answer is f'(policy /
/// reference).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// The reverse KL of DPO: the log-ratio itself.
    ReverseKl,
    /// 1 - 1/t.
    ForwardKl,
    /// ln(2t / (t + 1)).
    JensenShannon,
    /// (t^(α-1) - 1) / (α - 1).
    Alpha(f64),
}

/// Exponents are cut here, so that a score stays finite in f32 too.
const LARGEST_EXPONENT: f64 = 80.0;

impl Divergence {
    /// The score of a log-ratio ln t.
    pub fn score<const N: usize>(self, log_ratio: Dual<N>) -> Dual<N> {
        match self {
            Divergence::ReverseKl => log_ratio,
            Divergence::ForwardKl => -(-log_ratio).at_most(LARGEST_EXPONENT).exp() + 1.0,
            Divergence::JensenShannon => log_ratio.log_sigmoid() + std::f64::consts::LN_2,
            Divergence::Alpha(alpha) if (alpha - 1.0).abs() < 1e-6 => log_ratio,
            Divergence::Alpha(alpha) => {
                let power = (log_ratio * (alpha - 1.0)).at_most(LARGEST_EXPONENT).exp();
                (power - 1.0) * (1.0 / (alpha - 1.0))
            }
        }
    }
}

/// What the losses over one pair have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) beta: f64,
    pub(super) label_smoothing: f64,
    pub(super) divergence: Divergence,
    pub(super) discopop_tau: f64,
    /// Learned tokens of all chosen answers of the step, and its pairs: [`Loss::Sft`] is a mean over the former.
    pub(super) chosen_tokens: f64,
    pub(super) pairs: f64,
}

impl Settings {
    /// The loss of one pair. Sorting losses are none of one pair.
    pub(super) fn loss(&self, loss: Loss, pair: &Pair) -> Dual<3> {
        let Settings { beta, label_smoothing: smoothing, .. } = *self;
        let variables = pair.variables();
        let chosen = variables.chosen - pair.chosen.reference;
        let rejected = variables.rejected - pair.rejected.reference;
        let [chosen_score, rejected_score] = [chosen, rejected].map(|x| self.divergence.score(x));
        let delta = (chosen_score - rejected_score) * beta;
        let per_token = chosen_score * (1.0 / pair.chosen.tokens.max(1.0))
            - rejected_score * (1.0 / pair.rejected.tokens.max(1.0));
        match loss {
            Loss::Sigmoid => self.smoothed(delta),
            Loss::Hinge => (-delta + 1.0).at_least(0.0),
            Loss::Ipo => (per_token - 0.5 / beta).square(),
            Loss::Robust => {
                let [right, flipped] = [delta, -delta].map(|x| -x.log_sigmoid());
                (right * (1.0 - smoothing) - flipped * smoothing) * (1.0 / (1.0 - 2.0 * smoothing))
            }
            Loss::ExoPair => {
                let term = |x: Dual<3>, target: f64| x.sigmoid() * (x.log_sigmoid() - target.ln());
                term(delta, 1.0 - smoothing) + term(-delta, smoothing)
            }
            Loss::NcaPair => {
                let [chosen, rejected] = [chosen * beta, rejected * beta];
                -chosen.log_sigmoid() - ((-chosen).log_sigmoid() + (-rejected).log_sigmoid()) * 0.5
            }
            Loss::BcoPair => -(chosen * beta).log_sigmoid() - (-(rejected * beta)).log_sigmoid(),
            Loss::SppoHard => (chosen - 0.5 / beta).square() + (rejected + 0.5 / beta).square(),
            Loss::ApoZero => -(chosen * beta).sigmoid() + 1.0 + (rejected * beta).sigmoid(),
            Loss::ApoDown => {
                (chosen * beta).sigmoid() + 1.0 - ((chosen - rejected) * beta).sigmoid()
            }
            Loss::Discopop => {
                let share = delta * (1.0 / self.discopop_tau);
                // e⁻ˣ times its share at once: apart the one overflows where the other vanishes.
                -delta.log_sigmoid() * (-share).sigmoid() + (share.log_sigmoid() - delta).exp()
            }
            Loss::Sft => -variables.learned * (self.pairs / self.chosen_tokens.max(1.0)),
            Loss::SigmoidNorm => -(per_token * beta).log_sigmoid(),
            Loss::Aot | Loss::AotUnpaired => unreachable!("it sorts over the step"),
        }
    }

    /// -ln σ of what should be positive, or with label smoothing of either sign.
    fn smoothed(&self, x: Dual<3>) -> Dual<3> {
        let wrong = self.label_smoothing;
        -x.log_sigmoid() * (1.0 - wrong) - (-x).log_sigmoid() * wrong
    }

    /// The loss of every pair where the step's pairs are sorted, `[pairs]`: entry i has the derivatives by the
    /// variables of pair i.
    pub(super) fn sorted_losses(&self, loss: Loss, pairs: &[Pair]) -> Vec<Dual<3>> {
        let [higher, lower]: [Vec<f64>; 2] = match loss {
            Loss::Aot => {
                let margins = |side: fn(&super::Answer) -> f64| {
                    pairs.iter().map(|pair| side(&pair.chosen) - side(&pair.rejected)).collect()
                };
                [margins(|answer| answer.policy), margins(|answer| answer.reference)]
            }
            _ => [
                pairs.iter().map(|pair| pair.chosen.log_ratio()).collect(),
                pairs.iter().map(|pair| pair.rejected.log_ratio()).collect(),
            ],
        };
        let (by_higher, by_lower) = (order(&higher), order(&lower));
        let mut losses = vec![Dual::constant(0.0); pairs.len()];
        for (&i, &j) in by_higher.iter().zip(&by_lower) {
            let x = Dual::<3>::variable(0, self.beta * (higher[i] - lower[j]));
            let Dual { value, slopes: [slope, ..] } = self.smoothed(x);
            let slope = self.beta * slope;
            losses[i].value += value;
            losses[i].slopes[0] += slope;
            match loss {
                Loss::Aot => losses[i].slopes[1] -= slope,
                _ => losses[j].slopes[1] -= slope,
            }
        }
        losses
    }
}

/// Indices by ascending value; equal ones keep their order.
fn order(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order
}
