//! Estimators of the KL divergence at their places: gradients in expectation, exact sums over a small vocabulary.
//!
//! The numbers are those of docs/methods/kl.md.

use train::objective::{Average, KlEstimator, KlLoss, PolicyGradient, RatioLevel, Token};

const ESTIMATORS: [KlEstimator; 3] = [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3];

/// Probabilities of five tokens.
fn softmax(logits: [f64; 5]) -> [f64; 5] {
    let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
    logits.map(|logit| logit.exp() / sum)
}

/// A policy, what it was when it sampled, and a reference.
struct Policies {
    policy: [f64; 5],
    sampler: [f64; 5],
    reference: [f64; 5],
}

const START: [f64; 5] = [0.5, -0.2, 1.1, 0.0, -1.4];
const WAY: [f64; 5] = [1.0, -0.5, -1.0, 0.3, 0.7];

impl Policies {
    /// The sampler is `away` from the reference, the policy `moved` further.
    fn new(away: f64, moved: f64) -> Self {
        let at = |distance: f64| {
            let mut logits = START;
            logits.iter_mut().zip(WAY).for_each(|(logit, way)| *logit += distance * way);
            softmax(logits)
        };
        Policies { policy: at(away + moved), sampler: at(away), reference: at(0.0) }
    }

    /// `Σ_a weight(a) · d(log π(a))/d(logits)`.
    fn gradient(&self, weight: impl Fn(usize) -> f64) -> [f64; 5] {
        let total: f64 = (0..5).map(&weight).sum();
        std::array::from_fn(|logit| weight(logit) - total * self.policy[logit])
    }

    fn log_ratio(&self, token: usize) -> f64 {
        (self.policy[token] / self.reference[token]).ln()
    }

    /// d(KL(π ‖ ref))/d(logits).
    fn reverse(&self) -> [f64; 5] {
        self.gradient(|token| self.policy[token] * self.log_ratio(token))
    }

    /// d(KL(ref ‖ π))/d(logits).
    fn forward(&self) -> [f64; 5] {
        self.gradient(|token| -self.reference[token])
    }

    /// The expected gradient of the loss over tokens that the sampler drew, by the code that trains.
    fn in_loss(&self, estimator: KlEstimator, with_ratio: bool) -> [f64; 5] {
        let kl = Some(KlLoss { beta: 1.0, estimator, with_ratio });
        let objective = PolicyGradient { kl, ..PolicyGradient::PLAIN };
        self.gradient(|index| {
            let sampled = self.sampler[index].ln();
            let token = Token {
                logprob: self.policy[index].ln(),
                old: sampled,
                sampled,
                reference: Some(self.reference[index].ln()),
                advantage: 0.0,
                weight: 1.0,
                is_kept: true,
            };
            self.sampler[index] * objective.sequence(&[token], 1.0, 1.0).slopes[0]
        })
    }

    /// The expected gradient where the estimate is subtracted from the reward, in the first update.
    fn in_reward(&self, estimator: KlEstimator) -> [f64; 5] {
        self.gradient(|index| self.policy[index] * estimator.value(self.log_ratio(index)))
    }
}

fn distance(left: [f64; 5], right: [f64; 5]) -> f64 {
    let squares = left.iter().zip(right).map(|(left, right)| (left - right).powi(2));
    squares.sum::<f64>().sqrt()
}

/// `|g − g*| / |g*|`, g* the gradient of the reverse divergence.
fn error(policies: &Policies, gradient: [f64; 5]) -> f64 {
    distance(gradient, policies.reverse()) / distance(policies.reverse(), [0.0; 5])
}

/// Errors of every combination: on the policy's own tokens, near the reference and far from it; then with tokens of the
/// policy before an update. Rewards do not know of later updates.
#[test]
fn the_bias_of_every_combination() {
    let near = Policies::new(0.1, 0.0);
    let far = Policies::new(1.5, 0.0);
    let stale = Policies::new(1.0, 0.5);
    let row = |errors: [f64; 3]| errors.map(|error| format!("{error:.3}")).join(" ");
    let mut table = Vec::new();
    for estimator in ESTIMATORS {
        let all = [&near, &far, &stale];
        for (place, with_ratio) in [("loss", false), ("loss with ratio", true)] {
            let errors =
                all.map(|policies| error(policies, policies.in_loss(estimator, with_ratio)));
            table.push(format!("{estimator:?} {place}: {}", row(errors)));
        }
        let errors = [&near, &far].map(|policies| error(policies, policies.in_reward(estimator)));
        table.push(format!("{estimator:?} reward: {:.3} {:.3}", errors[0], errors[1]));
    }
    assert_eq!(table, TABLE, "{table:#?}");
}

const TABLE: [&str; 9] = [
    "K1 loss: 1.000 1.000 1.408",
    "K1 loss with ratio: 0.000 0.000 0.000",
    "K1 reward: 0.000 0.000",
    "K2 loss: 0.000 0.000 0.456",
    "K2 loss with ratio: 0.000 0.000 0.000",
    "K2 reward: 0.989 1.096",
    "K3 loss: 0.019 0.756 2.286",
    "K3 loss with ratio: 0.000 0.000 0.000",
    "K3 reward: 0.991 1.622",
];

#[test]
fn what_the_biased_ones_do_instead() {
    for away in [0.1, 1.5] {
        let policies = Policies::new(away, 0.0);
        // k1 as a loss pulls nowhere.
        assert!(distance(policies.in_loss(KlEstimator::K1, false), [0.0; 5]) < 1e-12);
        // k3 as a loss is the forward divergence.
        let forward = policies.forward();
        assert!(distance(policies.in_loss(KlEstimator::K3, false), forward) < 1e-12);
        // k3 in the reward is the reverse divergence less the forward one.
        let (reverse, gradient) = (policies.reverse(), policies.in_reward(KlEstimator::K3));
        let less = std::array::from_fn(|logit| reverse[logit] - forward[logit]);
        assert!(distance(gradient, less) < 1e-12);
    }
}

#[test]
fn k1_and_k3_are_unbiased_as_values() {
    let policies = Policies::new(1.5, 0.0);
    let mean = |estimator: KlEstimator| -> f64 {
        (0..5)
            .map(|token| policies.policy[token] * estimator.value(policies.log_ratio(token)))
            .sum()
    };
    let divergence = mean(KlEstimator::K1);
    assert!((mean(KlEstimator::K3) - divergence).abs() < 1e-12);
    assert!((mean(KlEstimator::K2) - divergence).abs() > 0.01);
}

/// Answers of two tokens out of two, so that the first decides which distribution the second is drawn from.
/// Logits: of the first token, then of the second behind each first.
type Logits = [[f64; 2]; 3];

fn logprob(logits: [f64; 2], token: usize) -> f64 {
    logits[token] - (logits[0].exp() + logits[1].exp()).ln()
}

/// `Σ over answers π(answer) Σ_t weight(t, answer's log-ratios) · d(log π(token t))/d(logits)`.
fn expected(
    policy: Logits,
    reference: Logits,
    weight: impl Fn(usize, [f64; 2]) -> f64,
) -> Vec<f64> {
    let mut gradient = vec![0.0; 6];
    for first in 0..2 {
        for second in 0..2 {
            let of =
                |logits: Logits| [logprob(logits[0], first), logprob(logits[1 + first], second)];
            let (own, other) = (of(policy), of(reference));
            let probability = (own[0] + own[1]).exp();
            let log_ratios = [own[0] - other[0], own[1] - other[1]];
            for (time, token, row) in [(0, first, 0), (1, second, 1 + first)] {
                for logit in 0..2 {
                    let slope =
                        f64::from(u8::from(logit == token)) - logprob(policy[row], logit).exp();
                    gradient[2 * row + logit] += probability * weight(time, log_ratios) * slope;
                }
            }
        }
    }
    gradient
}

#[test]
fn a_token_s_estimate_in_the_loss_does_not_see_what_the_token_leads_to() {
    let policy = [[0.4, -0.3], [1.0, -0.5], [-0.2, 0.6]];
    let reference = [[0.0, 0.1], [0.2, 0.3], [0.4, -0.8]];
    let error = |gradient: &[f64], exact: &[f64]| {
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let apart = norm(&mut gradient.iter().zip(exact).map(|(g, e)| g - e));
        apart / norm(&mut exact.iter().copied())
    };
    // Differences of the divergence itself.
    let divergence = |policy: Logits| -> f64 {
        let mut sum = 0.0;
        for first in 0..2 {
            for second in 0..2 {
                let of = |l: Logits| logprob(l[0], first) + logprob(l[1 + first], second);
                sum += of(policy).exp() * (of(policy) - of(reference));
            }
        }
        sum
    };
    let exact: Vec<f64> = (0..6)
        .map(|index| {
            let moved = |by: f64| {
                let mut policy = policy;
                policy[index / 2][index % 2] += by;
                divergence(policy)
            };
            (moved(1e-5) - moved(-1e-5)) / 2e-5
        })
        .collect();
    // k1 summed in the reward of the answer (rloo), and as what follows a token (reinforce_pp, ppo).
    let summed = expected(policy, reference, |_, l| l[0] + l[1]);
    let following =
        expected(policy, reference, |time, l| if time == 0 { l[0] + l[1] } else { l[1] });
    assert!(error(&summed, &exact) < 1e-9);
    assert!(error(&following, &exact) < 1e-9);
    // k2 in the loss of each token: the first does not answer for the second.
    let own = expected(policy, reference, |time, l| l[time]);
    assert_eq!(format!("{:.3}", error(&own, &exact)), "0.197");
}

/// With the ratio of a whole answer, the ratio of GSPO and that of the token, estimates after an update are weighed
/// differently: only a product over the tokens is the change of probability of the answer.
#[test]
fn the_ratio_is_that_of_the_loss() {
    let token = |logprob: f64, old: f64| Token {
        logprob,
        old,
        sampled: old,
        reference: Some(-1.0),
        advantage: 0.0,
        weight: 1.0,
        is_kept: true,
    };
    let tokens = [token(-0.5, -0.75), token(-1.5, -1.0)];
    for estimator in ESTIMATORS {
        for (level, ratios) in [
            (RatioLevel::Token, [0.25, -0.5]),
            (RatioLevel::Mean, [-0.125; 2]),
            (RatioLevel::Product, [-0.25; 2]),
        ] {
            let kl = Some(KlLoss { beta: 1.0, estimator, with_ratio: true });
            let average = Average::Sequences;
            let objective = PolicyGradient { kl, level, average, ..PolicyGradient::PLAIN };
            let expected: f64 = tokens
                .iter()
                .zip(ratios)
                .map(|(token, ratio): (&Token, f64)| {
                    estimator.value(token.logprob + 1.0) * ratio.exp()
                })
                .sum();
            let got = objective.sequence(&tokens, 1.0, 1.0).kl;
            assert!((got - expected).abs() < 1e-12, "{estimator:?}, {level:?}");
        }
    }
}
