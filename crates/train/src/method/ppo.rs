//! Proximal policy optimization with a value head, Schulman et al. 2017; for language models Ziegler et al. 2019.

use keys::{Document, Key, Settings as _};

use super::{Method, Online, Usual, online};
use crate::Result;
use crate::advantage::Gae;
use crate::objective::{KlController, OwnValues, PolicyGradient, Surrogate, ValueLoss};

const KEYS: &[Key] = &[
    Key::float("objective.beta", 0.0, 1e3)
        .when("method", &["ppo"])
        .default("0.05")
        .doc(online::BETA),
    Key::float("objective.clip_low", 0.0, 1.0)
        .when("method", &["ppo"])
        .default("0.2")
        .doc(online::CLIP_LOW),
    Key::float("objective.clip_high", 0.0, 1e3)
        .when("method", &["ppo"])
        .default("0.2")
        .doc(online::CLIP_HIGH),
    Key::float("objective.gamma", 0.0, 1.0)
        .when("method", &["ppo"])
        .default("1.0")
        .doc("What a reward counts for the token before it. 1 counts all rewards that follow in full."),
    Key::float("objective.lambda", 0.0, 1.0)
        .when("method", &["ppo"])
        .default("0.95")
        .doc("How far rewards are followed before the value head is trusted (GAE): 0 for one token, 1 to the end of the answer."),
    Key::float("objective.vf_coef", 0.0, 1e3)
        .when("method", &["ppo"])
        .default("0.1")
        .doc("Weight of the loss of the value head."),
    Key::float("objective.clip_value", 0.0, 1e6)
        .above_min()
        .or(&["none"])
        .when("method", &["ppo"])
        .default("0.2")
        .doc("How far a value may move from the one of the rollout before its loss pulls it no further."),
    Key::choice("objective.value_adapter", &["shared", "own"])
        .when("method", &["ppo"])
        .default("shared")
        .doc("Which hidden states the value head reads. shared: those of the policy, whose adapter it trains with it. own: those of an adapter of its own over the same base, which takes a second forward and backward pass."),
    Key::bool("objective.whiten_rewards")
        .when("method", &["ppo"])
        .default("false")
        .doc("Divide the rewards of tokens by their deviation before advantages are made. Their mean stays."),
    Key::bool("objective.whiten_advantages")
        .when("method", &["ppo"])
        .default("true")
        .doc("Give the advantages of a rollout mean 0 and variance 1."),
    Key::choice("objective.kl.controller", &["fixed", "adaptive"])
        .when("method", &["ppo"])
        .default("fixed")
        .doc("Whether `objective.beta` stays, or follows the divergence from step to step so that it nears `objective.kl.target`."),
    Key::float("objective.kl.target", 0.0, 1e6)
        .above_min()
        .when("method", &["ppo"])
        .default("6.0")
        .unit("nats")
        .doc("Wanted KL divergence of an answer, summed over its tokens, with the adaptive controller."),
    Key::float("objective.kl.horizon", 0.0, 1e12)
        .above_min()
        .when("method", &["ppo"])
        .default("10000")
        .unit("answers")
        .doc("Number of answers over which the adaptive controller changes `objective.beta` by the error of the divergence, which counts as at most 20 %."),
];

pub(super) static METHOD: Method = Method {
    name: "ppo",
    title: "Proximal policy optimization",
    keys: KEYS,
    has_value_head: true,
    usual: Usual { group_size: 1, updates: 4, batch: 64, ..online::PROMPTS.usual },
    check,
    fill: |document, _| {
        online::fill(document);
        Ok(())
    },
    objective: |document| Box::new(objective(document)),
    value_objective: |document| {
        has_own_values(document).then(|| Box::new(OwnValues(value_loss(document))) as _)
    },
    online: Some(Online::Advantages(|document| {
        Box::new(Gae {
            gamma: document.get_f64("objective.gamma"),
            lambda: document.get_f64("objective.lambda"),
            whiten_rewards: document.get_bool("objective.whiten_rewards"),
            whiten: document.get_bool("objective.whiten_advantages"),
            shaping: online::shaping(document),
        })
    })),
    ..online::PROMPTS
};

/// What the value head is taught.
fn value_loss(document: &Document) -> ValueLoss {
    ValueLoss {
        coefficient: document.get_f64("objective.vf_coef"),
        clip: document.opt_f64("objective.clip_value"),
    }
}

fn has_own_values(document: &Document) -> bool {
    document.get_str("objective.value_adapter") == "own"
}

fn is_adaptive(document: &Document) -> bool {
    document.get_str("objective.kl.controller") == "adaptive"
}

fn objective(document: &Document) -> PolicyGradient {
    let number = |key: &str| document.get_f64(key);
    PolicyGradient {
        surrogate: Surrogate::Clip {
            low: number("objective.clip_low"),
            high: number("objective.clip_high"),
            delta: document.opt_f64("objective.delta"),
        },
        value: (!has_own_values(document)).then(|| value_loss(document)),
        controller: is_adaptive(document).then(|| KlController {
            initial: number("objective.beta"),
            target: number("objective.kl.target"),
            horizon: number("objective.kl.horizon"),
            updates: document.opt_usize("rollout.updates").unwrap_or(1).max(1) as f64,
        }),
        ..online::policy_gradient(document)
    }
}

fn check(document: &Document) -> Result<()> {
    let is_adaptive = is_adaptive(document);
    if is_adaptive && document.get_f64("objective.beta") == 0.0 {
        let message = "the adaptive controller multiplies `objective.beta`, and 0 stays 0";
        let hint = "set `objective.beta` over 0";
        return Err(online::problem(document, "objective.kl.controller", message, hint));
    }
    for key in ["objective.kl.target", "objective.kl.horizon"] {
        if document.is_given(key) && !is_adaptive {
            let message = format!("`{key}` has no effect: `objective.kl.controller` is `fixed`");
            return Err(online::problem(document, key, message, "leave it out"));
        }
    }
    online::check(document)
}
