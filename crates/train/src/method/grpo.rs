//! Group relative policy optimization, Shao et al. 2024, and the losses that share its advantages.

use keys::{Document, Key, Settings as _};

use super::{Method, Online, online};
use crate::Result;
use crate::advantage::{Aggregation, GroupRelative, Scale};
use crate::objective::{Average, BinaryDivergence, PolicyGradient, RatioLevel, Surrogate};

const LOSSES: &[&str] = &[
    "grpo",
    "dr_grpo",
    "dapo",
    "bnpo",
    "cispo",
    "cispo_minimax",
    "gspo",
    "sapo",
    "dppo_tv",
    "dppo_kl",
];

const KEYS: &[Key] = &[
    Key::choice("objective.loss", LOSSES)
        .when("method", &["grpo"])
        .default("dapo")
        .doc("Loss over the tokens of answers; docs/methods/grpo.md has the formula and source of each. dapo is the mean over all tokens of the step, grpo the mean over the tokens of an answer and then over answers."),
    Key::float("objective.beta", 0.0, 1e3)
        .when("method", &["grpo"])
        .default("0.0")
        .doc(online::BETA),
    Key::float("objective.clip_low", 0.0, 1.0)
        .when("method", &["grpo"])
        .default_by("objective.loss")
        .doc("How far the importance ratio may fall under 1 before a token moves the policy no further. In dppo_tv and dppo_kl it is the largest divergence of a token with a negative advantage."),
    Key::float("objective.clip_high", 0.0, 1e3)
        .when("method", &["grpo"])
        .default_by("objective.loss")
        .doc("How far the importance ratio may rise over 1 before a token moves the policy no further. In dppo_tv and dppo_kl it is the largest divergence of a token with a positive advantage."),
    Key::float("objective.ratio_max", 0.0, 1e6)
        .above_min()
        .when("method", &["grpo"])
        .default_by("objective.loss")
        .doc("Largest importance ratio by which cispo, dppo_tv and dppo_kl weigh a token."),
    Key::float("objective.sapo_temperature_pos", 0.0, 1e3)
        .above_min()
        .when("method", &["grpo"])
        .default("1.0")
        .doc("sapo: how fast tokens with a positive advantage stop to move the policy as their ratio leaves 1."),
    Key::float("objective.sapo_temperature_neg", 0.0, 1e3)
        .above_min()
        .when("method", &["grpo"])
        .default("1.05")
        .doc("sapo: the same for tokens with a negative advantage."),
    Key::choice("objective.scale_rewards", &["group", "batch", "none"])
        .when("method", &["grpo"])
        .default_by("objective.loss")
        .doc("What the distance of a reward from the mean of its group is divided by: the deviation in the group, the one in the whole rollout, or nothing."),
    Key::choice(
        "objective.multi_objective_aggregation",
        &["sum_then_normalize", "normalize_then_sum"],
    )
    .when("method", &["grpo"])
    .default("sum_then_normalize")
    .doc("How several rewards become one advantage. normalize_then_sum (GDPO) divides each by its own deviation in the group first, so that the one with the largest numbers does not decide."),
];

pub(super) static METHOD: Method = Method {
    name: "grpo",
    title: "Group relative policy optimization",
    keys: KEYS,
    check,
    fill: |document, _| {
        fill(document);
        Ok(())
    },
    objective: |document| Box::new(objective(document)),
    online: Some(Online::Advantages(|document| Box::new(estimator(document)))),
    ..online::PROMPTS
};

fn loss(document: &Document) -> &str {
    document.get_str("objective.loss")
}

/// Bounds of the ratio or of the divergence; none where the loss has none. Those of dapo, gspo and dppo are the
/// published ones: Yu et al. 2025, section 4.1; Zheng et al. 2025, section 5.1; verl's example of DPPO.
fn usual_clip(loss: &str) -> Option<[f64; 2]> {
    match loss {
        "dapo" => Some([0.2, 0.28]),
        "gspo" => Some([3e-4, 4e-4]),
        "dppo_tv" => Some([0.15, 0.15]),
        "dppo_kl" => Some([0.05, 0.05]),
        // MiniMax-M1, section 3.1: no lower bound.
        "cispo_minimax" => Some([1.0, 0.2]),
        "cispo" | "sapo" => None,
        _ => Some([0.2, 0.2]),
    }
}

fn usual_ratio_max(loss: &str) -> Option<f64> {
    match loss {
        "cispo" => Some(5.0),
        "dppo_tv" | "dppo_kl" => Some(20.0),
        _ => None,
    }
}

fn usual_scale(loss: &str) -> &'static str {
    if loss == "dr_grpo" { "none" } else { "group" }
}

fn fill(document: &mut Document) {
    let loss = loss(document).to_owned();
    let reason = format!("the loss is {loss}");
    if let Some([low, high]) = usual_clip(&loss) {
        document.fill("objective.clip_low", low, &reason);
        document.fill("objective.clip_high", high, &reason);
    }
    if let Some(max) = usual_ratio_max(&loss) {
        document.fill("objective.ratio_max", max, &reason);
    }
    document.fill("objective.scale_rewards", usual_scale(&loss), &reason);
    online::fill(document);
}

fn objective(document: &Document) -> PolicyGradient {
    let loss = loss(document);
    let number = |key: &str| document.opt_f64(key);
    let [low, high] = usual_clip(loss).unwrap_or_default();
    let low = number("objective.clip_low").unwrap_or(low);
    let high = number("objective.clip_high").unwrap_or(high);
    let max = number("objective.ratio_max").or(usual_ratio_max(loss)).unwrap_or(f64::INFINITY);
    let region = |divergence| Surrogate::TrustRegion { divergence, low, high, max };
    let surrogate = match loss {
        "cispo" => Surrogate::TruncatedWeight { max },
        "cispo_minimax" => Surrogate::ClippedWeight { low, high },
        "sapo" => Surrogate::Soft {
            positive: document.get_f64("objective.sapo_temperature_pos"),
            negative: document.get_f64("objective.sapo_temperature_neg"),
        },
        "dppo_tv" => region(BinaryDivergence::TotalVariation),
        "dppo_kl" => region(BinaryDivergence::Kl),
        _ => Surrogate::Clip { low, high, delta: number("objective.delta") },
    };
    let average = match loss {
        "grpo" | "gspo" | "sapo" => Average::Sequences,
        "dr_grpo" => Average::Length(online::max_new_tokens(document) as f64),
        _ => Average::Tokens,
    };
    let level = if loss == "gspo" { RatioLevel::Mean } else { RatioLevel::Token };
    PolicyGradient { surrogate, level, average, ..online::policy_gradient(document) }
}

fn estimator(document: &Document) -> GroupRelative {
    let scale = document.opt_str("objective.scale_rewards");
    GroupRelative {
        scale: match scale.unwrap_or(usual_scale(loss(document))) {
            "batch" => Scale::Batch,
            "none" => Scale::None,
            _ => Scale::Group,
        },
        aggregation: match document.get_str("objective.multi_objective_aggregation") {
            "normalize_then_sum" => Aggregation::NormalizeThenSum,
            _ => Aggregation::SumThenNormalize,
        },
        shaping: online::shaping(document),
    }
}

/// Refuses settings that the loss does not know, and those that contradict each other.
fn check(document: &Document) -> Result<()> {
    let loss = loss(document);
    let clips = !matches!(loss, "cispo" | "cispo_minimax" | "sapo" | "dppo_tv" | "dppo_kl");
    let uses = [
        ("objective.clip_low", usual_clip(loss).is_some()),
        ("objective.clip_high", usual_clip(loss).is_some()),
        ("objective.ratio_max", usual_ratio_max(loss).is_some()),
        ("objective.delta", clips),
        ("objective.sapo_temperature_pos", loss == "sapo"),
        ("objective.sapo_temperature_neg", loss == "sapo"),
    ];
    for (key, is_used) in uses {
        if document.is_given(key) && !is_used {
            let message = format!("`{key}` has no effect: `objective.loss` is `{loss}`");
            return Err(online::problem(document, key, message, "leave it out"));
        }
    }
    let sums_later =
        document.get_str("objective.multi_objective_aggregation") == "normalize_then_sum";
    if sums_later && document.is_given("objective.scale_rewards") {
        let message = "`objective.scale_rewards` has no effect: rewards are normalised before they are summed";
        return Err(online::problem(document, "objective.scale_rewards", message, "leave it out"));
    }
    let has_kl = document.get_f64("objective.beta") != 0.0;
    if sums_later && has_kl && document.get_str("objective.kl.in") == "reward" {
        let message =
            "the divergence cannot be a part of rewards that are normalised before they are summed";
        let hint = "set `objective.kl.in: loss`";
        return Err(online::problem(document, "objective.kl.in", message, hint));
    }
    online::check_group(document)?;
    online::check(document)
}
