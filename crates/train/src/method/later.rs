//! Methods whose data can be prepared and checked, and that cannot be trained yet.

use data::Wanted;

use super::{Method, Usual};

const PREFERENCES: Usual = Usual { rates: [1e-5, 1e-6, 1e-6], batch: 32, epochs: 1.0 };

const fn pairs(name: &'static str, title: &'static str) -> Method {
    let (records, usual) = (Wanted::Preferences, PREFERENCES);
    let learns_from = "pairs of a chosen and a rejected answer";
    Method { name, title, records, learns_from, fewest_sequences: 2, usual, ..Method::DEFAULT }
}

const fn prompts(name: &'static str, title: &'static str) -> Method {
    let usual = Usual { batch: 8, ..PREFERENCES };
    let (records, learns_from) = (Wanted::Prompts, "prompts");
    Method { name, title, records, learns_from, usual, ..Method::DEFAULT }
}

pub(super) static KTO: Method = Method {
    name: "kto",
    title: "Kahneman-Tversky optimization",
    records: Wanted::Feedback,
    learns_from: "answers marked as wanted or not",
    usual: PREFERENCES,
    ..Method::DEFAULT
};
pub(super) static ORPO: Method = pairs("orpo", "Odds ratio preference optimization");
pub(super) static SIMPO: Method = pairs("simpo", "Simple preference optimization");
pub(super) static CPO: Method = pairs("cpo", "Contrastive preference optimization");
pub(super) static PPO: Method = prompts("ppo", "Proximal policy optimization");
pub(super) static GRPO: Method = prompts("grpo", "Group relative policy optimization");
pub(super) static RLOO: Method = prompts("rloo", "REINFORCE leave-one-out");
