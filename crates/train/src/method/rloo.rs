//! REINFORCE leave-one-out, Ahmadian et al. 2024.

use keys::{Document, Key, Settings as _};

use super::{Method, Online, online};
use crate::Result;
use crate::advantage::LeaveOneOut;
use crate::objective::{Average, PolicyGradient, RatioLevel, Surrogate};

const KEYS: &[Key] = &[
    Key::float("objective.beta", 0.0, 1e3)
        .when("method", &["rloo"])
        .default("0.05")
        .doc(online::BETA),
    Key::float("objective.clip_low", 0.0, 1.0)
        .when("method", &["rloo"])
        .default("0.2")
        .doc("How far the importance ratio of an answer, the product over its tokens, may fall under 1 before it moves the policy no further."),
    Key::float("objective.clip_high", 0.0, 1e3)
        .when("method", &["rloo"])
        .default("0.2")
        .doc("How far the importance ratio of an answer may rise over 1 before it moves the policy no further."),
    Key::bool("objective.normalize_advantages")
        .when("method", &["rloo"])
        .default("false")
        .doc("Give the advantages of a rollout mean 0 and deviation 1."),
];

pub(super) static METHOD: Method = Method {
    name: "rloo",
    title: "REINFORCE leave-one-out",
    keys: KEYS,
    check,
    fill: |document, _| {
        online::fill(document);
        Ok(())
    },
    objective: |document| Box::new(objective(document)),
    online: Some(Online::Advantages(|document| {
        Box::new(LeaveOneOut {
            normalize: document.get_bool("objective.normalize_advantages"),
            shaping: online::shaping(document),
        })
    })),
    ..online::PROMPTS
};

fn objective(document: &Document) -> PolicyGradient {
    PolicyGradient {
        surrogate: Surrogate::Clip {
            low: document.get_f64("objective.clip_low"),
            high: document.get_f64("objective.clip_high"),
            delta: document.opt_f64("objective.delta"),
        },
        level: RatioLevel::Product,
        // All tokens of an answer have its loss: their mean is the loss of the answer.
        average: Average::Sequences,
        ..online::policy_gradient(document)
    }
}

fn check(document: &Document) -> Result<()> {
    online::check_group(document)?;
    online::check(document)
}
