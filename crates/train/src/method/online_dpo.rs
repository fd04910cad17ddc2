//! Direct preference optimization on pairs of the policy's own answers: Guo et al. 2024 (2402.04792).

use keys::{Document, Settings as _};

use super::{Method, Online, Usual, dpo, online, preference};
use crate::Result;

pub(super) static METHOD: Method = Method {
    name: "online_dpo",
    title: "Online direct preference optimization",
    learned: "the best against the worst of the answers that the policy samples to a prompt, by their rewards",
    usual: Usual {
        group_size: 2,
        rates: preference::USUAL.rates,
        batch: 16,
        ..online::PROMPTS.usual
    },
    check,
    objective: dpo::objective,
    online: Some(Online::Pairs),
    ..online::PROMPTS
};

fn check(document: &Document) -> Result<()> {
    if document.opt_usize("rollout.group_size") == Some(1) {
        let message = "one answer to a prompt makes no pair";
        let hint = "take at least 2; of more, the best and the worst are compared";
        return Err(online::problem(document, "rollout.group_size", message, hint));
    }
    dpo::check(document)
}
