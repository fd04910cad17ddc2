//! Methods whose data can be prepared and checked, and that cannot be trained yet.

use data::Wanted;

use super::{Method, Usual, preference};

const fn prompts(name: &'static str, title: &'static str) -> Method {
    let usual = Usual { batch: 8, ..preference::USUAL };
    let (records, learns_from) = (Wanted::Prompts, "prompts");
    Method { name, title, records, learns_from, usual, ..Method::DEFAULT }
}

pub(super) static PPO: Method = prompts("ppo", "Proximal policy optimization");
pub(super) static GRPO: Method = prompts("grpo", "Group relative policy optimization");
pub(super) static RLOO: Method = prompts("rloo", "REINFORCE leave-one-out");
