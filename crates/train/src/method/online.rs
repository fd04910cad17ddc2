//! What the methods that sample their answers have in common.

use data::Wanted;
use keys::{Document, Key, Settings as _};

use super::{Method, Usual};
use crate::advantage::{KlReward, Overlong, Shaping};
use crate::objective::{Correction, KlEstimator, KlLoss, PolicyGradient};
use crate::recipe::EpisodeBounds;
use crate::{Error, Result};

/// Methods that sample their answers.
pub(crate) const ONLINE: &[&str] =
    &["grpo", "rloo", "reinforce_pp", "ppo", "online_dpo", "distill"];

/// Of these, methods that learn from rewards.
pub(crate) const REWARDED: &[&str] = &["grpo", "rloo", "reinforce_pp", "ppo", "online_dpo"];

/// Of these, methods whose loss is [`PolicyGradient`].
const POLICY_GRADIENT: &[&str] = &["grpo", "rloo", "reinforce_pp", "ppo"];

/// Keys of that loss.
pub(crate) const ONLINE_KEYS: &[Key] = &[
    Key::choice("objective.kl.in", &["loss", "reward"])
        .when("method", &["grpo"])
        .default("loss")
        .doc(KL_IN),
    Key::choice("objective.kl.in", &["loss", "reward"])
        .when("method", &["reinforce_pp", "ppo"])
        .default("reward")
        .doc(KL_IN),
    Key::choice("objective.kl.in", &["reward"])
        .when("method", &["rloo"])
        .default("reward")
        .doc("Where the KL divergence from the reference counts: its sum over an answer is a part of the reward."),
    Key::choice("objective.kl.estimator", &["k1", "k2", "k3"])
        .when("method", POLICY_GRADIENT)
        .default_by("objective.kl.in")
        .doc("Estimator of the KL divergence per token: k1 = l, k2 = l²/2, k3 = exp(-l) - 1 + l, where l is the log-ratio of policy and reference. By default k2 in the loss and k1 in the reward, whose gradients are those of the divergence; docs/methods/kl.md has the others."),
    Key::bool("objective.kl.ratio")
        .when("method", POLICY_GRADIENT)
        .default_by("objective.kl.estimator")
        .doc("Multiply the KL term of the loss by the importance ratio. By default only that of k2. With k3 it is what TRL does by default, and its gradient is then that of the divergence."),
    Key::bool("objective.allow_biased")
        .when("method", POLICY_GRADIENT)
        .default("false")
        .doc("Allow estimators of the KL divergence at places where their gradient is not that of the divergence."),
    Key::float("objective.delta", 1.0, 1e6)
        .above_min()
        .when("method", POLICY_GRADIENT)
        .doc("Largest importance ratio of tokens with a negative advantage (two-sided or dual clip), over 1 + `objective.clip_high`. By default there is none."),
    Key::float("objective.entropy_coef", 0.0, 1e3)
        .when("method", POLICY_GRADIENT)
        .default("0.0")
        .doc("Weight of the mean entropy per token, which is made larger."),
    Key::float("objective.top_entropy_quantile", 0.0, 1.0)
        .above_min()
        .when("method", POLICY_GRADIENT)
        .default("1.0")
        .doc("Share of the tokens of a step, those of highest entropy, that move the policy. Below 1 all outputs are computed before the gradient, which takes one more forward pass."),
    Key::float("objective.off_policy_mask_threshold", 0.0, 1e6)
        .above_min()
        .when("method", POLICY_GRADIENT)
        .unit("nats per token")
        .doc("Leave out answers with a negative advantage that have become less likely than this since they were drawn, in the mean over their tokens. By default none is left out."),
    Key::choice(
        "objective.stale.correction",
        &["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"],
    )
    .when("method", POLICY_GRADIENT)
    .default("none")
    .doc("How tokens count that an older policy drew: by the ratio of the policy before the update to the one that drew them, of each token or of the whole answer. Ratios outside the bounds are cut to them (truncate) or do not count (mask)."),
    Key::float("objective.stale.max", 0.0, 1e6)
        .above_min()
        .or(&["none"])
        .when("method", POLICY_GRADIENT)
        .default("3.0")
        .doc("Largest ratio of `objective.stale.correction`."),
    Key::float("objective.stale.min", 0.0, 1e6)
        .when("method", POLICY_GRADIENT)
        .default("0.0")
        .doc("Smallest ratio of `objective.stale.correction`."),
    Key::int("objective.overlong_buffer", 1, 1 << 30)
        .when("method", POLICY_GRADIENT)
        .unit("tokens")
        .doc("Punish answers that come nearer to `rollout.max_new_tokens` than this, in a straight line up to `objective.overlong_penalty` (DAPO). By default none is."),
    Key::float("objective.overlong_penalty", 0.0, 1e6)
        .when("method", POLICY_GRADIENT)
        .default("1.0")
        .doc("Largest penalty of `objective.overlong_buffer`, in units of the reward."),
    Key::float("objective.missing_end_penalty", 0.0, 1e6)
        .when("method", REWARDED)
        .default("0.0")
        .doc("What the reward loses where the policy did not end the answer itself."),
];

const KL_IN: &str = "Where the KL divergence from the reference counts: as a term of the loss, or subtracted from the reward.";

/// Doc of `objective.beta`.
pub(super) const BETA: &str =
    "Weight of the KL divergence from the reference. 0 needs no reference.";

/// Doc of `objective.clip_low`.
pub(super) const CLIP_LOW: &str =
    "How far the importance ratio may fall under 1 before a token moves the policy no further.";

/// Doc of `objective.clip_high`.
pub(super) const CLIP_HIGH: &str =
    "How far the importance ratio may rise over 1 before a token moves the policy no further.";

/// A method over prompts.
pub(super) const PROMPTS: Method = Method {
    records: Wanted::Prompts,
    learns_from: "prompts",
    learned: "answers that the policy samples, their end-of-turn tokens included, by their rewards",
    usual: Usual { group_size: 8, ..Usual::of_rows([1e-5, 1e-6, 1e-6], 8) },
    ..Method::DEFAULT
};

/// Whether the divergence from the reference counts, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kl {
    beta: f64,
    estimator: KlEstimator,
    word: &'static str,
    is_in_loss: bool,
    with_ratio: bool,
}

impl Kl {
    /// What a recipe says, resolved or not.
    fn read(document: &Document) -> Self {
        let is_in_loss = document.get_str("objective.kl.in") == "loss";
        let usual = if is_in_loss { "k2" } else { "k1" };
        let word = match document.opt_str("objective.kl.estimator").unwrap_or(usual) {
            "k1" => "k1",
            "k2" => "k2",
            _ => "k3",
        };
        Kl {
            beta: document.get_f64("objective.beta"),
            estimator: KlEstimator::named(word),
            word,
            is_in_loss,
            with_ratio: document.opt_bool("objective.kl.ratio").unwrap_or(word == "k2"),
        }
    }

    /// Why its gradient is not that of the divergence; none where it is.
    fn bias(&self) -> Option<&'static str> {
        let reason = match (self.is_in_loss, self.estimator, self.with_ratio) {
            (true, KlEstimator::K1, false) => {
                "as a loss its expected gradient is 0: it does not pull towards the reference"
            }
            (true, KlEstimator::K2, false) => {
                "without the importance ratio its gradient is that of the divergence only in the first update of a rollout"
            }
            (true, KlEstimator::K3, false) => {
                "as a loss its gradient is that of the forward KL divergence, not of the reverse one"
            }
            (false, KlEstimator::K2, _) => {
                "in the reward it punishes tokens that have become less likely as well as those that have become more likely"
            }
            (false, KlEstimator::K3, _) => {
                "in the reward its gradient is that of the reverse KL divergence less that of the forward one: near the reference they cancel"
            }
            _ => return None,
        };
        Some(reason)
    }
}

/// The surroundings of the loss: what all methods read alike. The caller adds surrogate, level and average.
pub(super) fn policy_gradient(document: &Document) -> PolicyGradient {
    let kl = Kl::read(document);
    let number = |name: &str| document.opt_f64(name);
    let correction = document.get_str("objective.stale.correction");
    let correction = (correction != "none").then(|| Correction {
        by_sequence: correction.starts_with("sequence"),
        masks: correction.ends_with("mask"),
        min: number("objective.stale.min").unwrap_or(0.0),
        max: number("objective.stale.max").unwrap_or(f64::INFINITY),
    });
    PolicyGradient {
        kl: (kl.is_in_loss && kl.beta != 0.0).then_some(KlLoss {
            beta: kl.beta,
            estimator: kl.estimator,
            with_ratio: kl.with_ratio,
        }),
        correction,
        off_policy_threshold: number("objective.off_policy_mask_threshold"),
        top_entropy: document.get_f64("objective.top_entropy_quantile"),
        entropy_coefficient: document.get_f64("objective.entropy_coef"),
        temperature: number("rollout.temperature").unwrap_or(1.0) as f32,
        ..PolicyGradient::PLAIN
    }
}

/// What is added to rewards.
pub(super) fn shaping(document: &Document) -> Shaping {
    let kl = Kl::read(document);
    let buffer = document.opt_usize("objective.overlong_buffer");
    Shaping {
        overlong: buffer.map(|buffer| Overlong {
            longest: max_new_tokens(document),
            buffer,
            penalty: document.get_f64("objective.overlong_penalty"),
        }),
        missing_end: document.get_f64("objective.missing_end_penalty"),
        kl: (!kl.is_in_loss && kl.beta != 0.0).then_some(KlReward {
            beta: kl.beta,
            estimator: kl.estimator,
            is_carried: document.opt_str("objective.kl.controller") == Some("adaptive"),
        }),
    }
}

/// Most tokens of an answer, or of an episode.
pub(super) fn max_new_tokens(document: &Document) -> usize {
    if let Some(episode) = EpisodeBounds::read(document) {
        return episode.tokens;
    }
    document.opt_usize("rollout.max_new_tokens").unwrap_or(256)
}

/// Writes down what follows from other keys.
pub(super) fn fill(document: &mut Document) {
    let kl = Kl::read(document);
    let place = if kl.is_in_loss {
        "the divergence is in the loss"
    } else {
        "the divergence is in the reward"
    };
    document.fill("objective.kl.estimator", kl.word, place);
    if kl.is_in_loss {
        let why = format!("the estimator is {}", kl.word);
        document.fill("objective.kl.ratio", kl.with_ratio, &why);
    }
}

/// A mistake at a key.
pub(super) fn problem(
    document: &Document,
    key: &str,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Error {
    Error::Recipe(document.problem(key, message, Some(hint.into())).into())
}

/// Refuses settings that contradict each other.
pub(super) fn check(document: &Document) -> Result<()> {
    check_kl(document)?;
    if let (Some(delta), Some(high)) =
        (document.opt_f64("objective.delta"), document.opt_f64("objective.clip_high"))
        && delta <= 1.0 + high
    {
        let message = format!("{delta} is not over 1 + `objective.clip_high` ({high})");
        return Err(problem(document, "objective.delta", message, "raise it; 4 is usual"));
    }
    let bounds = ["objective.stale.min", "objective.stale.max"].map(|key| document.opt_f64(key));
    if let [Some(min), Some(max)] = bounds
        && min > max
    {
        let message = format!("{min} is over `objective.stale.max` ({max})");
        return Err(problem(document, "objective.stale.min", message, "lower it"));
    }
    let longest = document.opt_usize("rollout.max_new_tokens");
    if let (Some(buffer), Some(longest)) =
        (document.opt_usize("objective.overlong_buffer"), longest)
        && buffer > longest
    {
        let message = format!("{buffer} is over `rollout.max_new_tokens` ({longest})");
        return Err(problem(document, "objective.overlong_buffer", message, "lower it"));
    }
    if document.is_given("objective.overlong_penalty")
        && document.opt_usize("objective.overlong_buffer").is_none()
    {
        let message =
            "`objective.overlong_penalty` has no effect without `objective.overlong_buffer`";
        return Err(problem(
            document,
            "objective.overlong_penalty",
            message,
            "set `objective.overlong_buffer`, or leave it out",
        ));
    }
    for key in ["objective.stale.min", "objective.stale.max"] {
        if document.is_given(key) && document.get_str("objective.stale.correction") == "none" {
            let message = format!("`{key}` has no effect: `objective.stale.correction` is `none`");
            return Err(problem(document, key, message, "choose a correction, or leave it out"));
        }
    }
    Ok(())
}

/// Refuses estimators whose gradient is not that of the divergence.
fn check_kl(document: &Document) -> Result<()> {
    let kl = Kl::read(document);
    let is_given = |key: &str| document.is_given(key);
    if !kl.is_in_loss && is_given("objective.kl.ratio") {
        let message = "`objective.kl.ratio` has no effect: the divergence is in the reward";
        return Err(problem(document, "objective.kl.ratio", message, "leave it out"));
    }
    if kl.beta == 0.0 && is_given("objective.kl.estimator") {
        let message = "`objective.kl.estimator` has no effect: `objective.beta` is 0";
        let hint = "set `objective.beta`, or leave it out";
        return Err(problem(document, "objective.kl.estimator", message, hint));
    }
    let has_updates = document.opt_usize("rollout.updates").is_some_and(|updates| updates > 1);
    // k3 is only warned of, for other programs have it; k2 without ratio is right in a single update.
    let is_refused = match (kl.is_in_loss, kl.estimator) {
        (true, KlEstimator::K3) => false,
        (true, KlEstimator::K2) => has_updates,
        _ => true,
    };
    let is_allowed = document.get_bool("objective.allow_biased") || kl.beta == 0.0;
    match kl.bias() {
        Some(reason) if is_refused && !is_allowed => {
            let place = if kl.is_in_loss { "loss" } else { "reward" };
            let (word, message) = (kl.word, format!("{} in the {place}: {reason}", kl.word));
            let hint = match (kl.is_in_loss, word) {
                (true, "k2") => "leave `objective.kl.ratio` out",
                (true, _) => {
                    "take k2, or `objective.kl.in: reward`; `objective.allow_biased: true` trains with it anyway"
                }
                _ => {
                    "take k1, or k2 in the loss; `objective.allow_biased: true` trains with it anyway"
                }
            };
            Err(problem(document, "objective.kl.estimator", message, hint))
        }
        _ => Ok(()),
    }
}

/// What a run warns of before it starts: an estimator of the divergence whose gradient is another one. None where the
/// method samples nothing, has no reference, or an unbiased estimator.
pub fn kl_warning(document: &Document) -> Option<String> {
    let kl = POLICY_GRADIENT.contains(&document.get_str("method")).then(|| Kl::read(document))?;
    let reason = kl.bias().filter(|_| kl.beta != 0.0)?;
    let place = if kl.is_in_loss { "loss" } else { "reward" };
    let cure = match (kl.is_in_loss, kl.estimator) {
        (true, KlEstimator::K3) => {
            "`objective.kl.ratio: true` (the default of TRL 1.16) or k2 has the right gradient"
        }
        (true, _) => "k2 with `objective.kl.ratio` has the right gradient",
        (false, _) => "k1 has the right gradient",
    };
    Some(format!("{} in the {place}: {reason}; {cure}", kl.word))
}

/// Refuses groups in which there is nothing to compare.
pub(super) fn check_group(document: &Document) -> Result<()> {
    if document.opt_usize("rollout.group_size") == Some(1) {
        let message =
            "one answer to a prompt has no other to be compared with: its advantage is always 0";
        return Err(problem(
            document,
            "rollout.group_size",
            message,
            "take at least 2; 8 is usual",
        ));
    }
    Ok(())
}
