//! REINFORCE++, Hu et al. 2025.

use keys::{Document, Key, Settings as _};

use super::{Method, Online, online};
use crate::Result;
use crate::advantage::{Baseline, WhitenedReturns};
use crate::objective::{PolicyGradient, Surrogate};

const KEYS: &[Key] = &[
    Key::float("objective.beta", 0.0, 1e3)
        .when("method", &["reinforce_pp"])
        .default("0.01")
        .doc(online::BETA),
    Key::float("objective.clip_low", 0.0, 1.0)
        .when("method", &["reinforce_pp"])
        .default("0.2")
        .doc(online::CLIP_LOW),
    Key::float("objective.clip_high", 0.0, 1e3)
        .when("method", &["reinforce_pp"])
        .default("0.2")
        .doc(online::CLIP_HIGH),
    Key::float("objective.gamma", 0.0, 1.0)
        .when("method", &["reinforce_pp"])
        .default("1.0")
        .doc("What a reward counts for the token before it. 1 counts all rewards that follow in full."),
    Key::choice("objective.baseline", &["none", "group"])
        .when("method", &["reinforce_pp"])
        .default("none")
        .doc("What a reward is compared with before advantages are whitened: nothing, or the mean of the answers to the same prompt (REINFORCE++-baseline)."),
];

pub(super) static METHOD: Method = Method {
    name: "reinforce_pp",
    title: "REINFORCE++",
    keys: KEYS,
    check,
    fill: |document, _| {
        online::fill(document);
        Ok(())
    },
    objective: |document| {
        Box::new(PolicyGradient {
            surrogate: Surrogate::Clip {
                low: document.get_f64("objective.clip_low"),
                high: document.get_f64("objective.clip_high"),
                delta: document.opt_f64("objective.delta"),
            },
            ..online::policy_gradient(document)
        })
    },
    online: Some(Online::Advantages(|document| {
        Box::new(WhitenedReturns {
            gamma: document.get_f64("objective.gamma"),
            baseline: baseline(document),
            shaping: online::shaping(document),
        })
    })),
    ..online::PROMPTS
};

fn baseline(document: &Document) -> Baseline {
    match document.get_str("objective.baseline") {
        "group" => Baseline::Group,
        _ => Baseline::None,
    }
}

fn check(document: &Document) -> Result<()> {
    if baseline(document) == Baseline::Group {
        online::check_group(document)?;
    }
    online::check(document)
}
