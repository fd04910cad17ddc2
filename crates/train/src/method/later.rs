//! Methods whose data can be prepared and checked, and that cannot be trained yet.

use data::Wanted;
use keys::Document;

use super::{Method, Usual};
use crate::objective::Objective;

/// A method without a loss.
pub(super) struct Later {
    name: &'static str,
    title: &'static str,
    records: Wanted,
    learns_from: &'static str,
    usual: Usual,
}

const PREFERENCES: Usual = Usual { rates: [1e-5, 1e-6, 1e-6], batch: 32, epochs: 1.0 };
const ROLLOUTS: Usual = Usual { batch: 8, ..PREFERENCES };

const fn pairs(name: &'static str, title: &'static str) -> Later {
    let learns_from = "pairs of a chosen and a rejected answer";
    Later { name, title, records: Wanted::Preferences, learns_from, usual: PREFERENCES }
}

const fn prompts(name: &'static str, title: &'static str) -> Later {
    Later { name, title, records: Wanted::Prompts, learns_from: "prompts", usual: ROLLOUTS }
}

pub(super) const KTO: Later = Later {
    name: "kto",
    title: "Kahneman-Tversky optimization",
    records: Wanted::Feedback,
    learns_from: "answers marked as wanted or not",
    usual: PREFERENCES,
};
pub(super) const ORPO: Later = pairs("orpo", "Odds ratio preference optimization");
pub(super) const SIMPO: Later = pairs("simpo", "Simple preference optimization");
pub(super) const CPO: Later = pairs("cpo", "Contrastive preference optimization");
pub(super) const PPO: Later = prompts("ppo", "Proximal policy optimization");
pub(super) const GRPO: Later = prompts("grpo", "Group relative policy optimization");
pub(super) const RLOO: Later = prompts("rloo", "REINFORCE leave-one-out");

impl Method for Later {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn records(&self) -> Wanted {
        self.records
    }

    fn learns_from(&self) -> &'static str {
        self.learns_from
    }

    fn learned(&self) -> &'static str {
        "nothing yet"
    }

    fn usual(&self) -> Usual {
        self.usual
    }

    fn trains(&self) -> bool {
        false
    }

    fn objective(&self, _document: &Document) -> Box<dyn Objective> {
        unreachable!("`{}` is refused before it is asked for its loss", self.name)
    }
}
