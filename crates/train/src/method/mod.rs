//! Methods: what each learns from, its keys, its usual values and its loss.
//!
//! A method is one file here and one line of [`METHODS`]. Everything else asks the method: the recipe for its keys,
//! the data for the records that it wants, the trainer for its objective, cards and help for its words.

mod bco;
mod classify;
mod cpo;
mod distill;
mod dpo;
mod grpo;
mod kto;
mod online;
mod online_dpo;
mod orpo;
mod ppo;
mod preference;
mod pretrain;
mod reinforce_pp;
mod reward;
mod rloo;
mod sft;

use data::{Sequences, Wanted};
use keys::{Document, Key, Settings as _};

use crate::Result;
use crate::objective::Objective;
use crate::rollout::AdvantageEstimator;

pub use bco::Bco;
pub use classify::Classify;
pub use cpo::{Contrast, ReferenceFree};
pub use distill::Distill;
pub use dpo::{Divergence, Dpo, LOSSES, Loss};
pub use kto::Kto;
pub use online::kl_warning;
pub(crate) use online::{ONLINE, ONLINE_KEYS, REWARDED};
pub use orpo::Orpo;
pub use reward::{Reward, RewardLoss};
pub use sft::Sft;

/// Every method, in the order of `--help`.
pub static METHODS: [&Method; 16] = [
    &sft::METHOD,
    &pretrain::METHOD,
    &dpo::METHOD,
    &kto::METHOD,
    &bco::METHOD,
    &orpo::METHOD,
    &cpo::SIMPO,
    &cpo::CPO,
    &reward::METHOD,
    &classify::METHOD,
    &ppo::METHOD,
    &grpo::METHOD,
    &rloo::METHOD,
    &reinforce_pp::METHOD,
    &online_dpo::METHOD,
    &distill::METHOD,
];

/// Makes a loss with the settings of a resolved recipe.
pub type MakeObjective = fn(&Document) -> Box<dyn Objective>;

/// Makes what turns rewards into advantages, with the settings of a resolved recipe.
pub type MakeEstimator = fn(&Document) -> Box<dyn AdvantageEstimator>;

/// What a method makes of the answers that it samples.
#[derive(Clone, Copy, Debug)]
pub enum Online {
    /// Advantages, of their rewards.
    Advantages(MakeEstimator),
    /// A pair of the best and the worst answer to each prompt, by their rewards.
    Pairs,
    /// A comparison with what a teacher would say at each of their tokens. No rewards.
    Teacher,
}

/// A way to learn.
#[derive(Debug)]
pub struct Method {
    /// Its word in a recipe.
    pub name: &'static str,
    /// What it is called in cards, with a capital.
    pub title: &'static str,
    /// The records that it learns from.
    pub records: Wanted,
    /// The same in words.
    pub learns_from: &'static str,
    /// Sequences that a row has at least. A row with fewer cannot be learned from.
    pub fewest_sequences: usize,
    /// Rows that a step has at least.
    pub fewest_rows: usize,
    /// What of a row is learned, in words.
    pub learned: &'static str,
    /// Keys of its own. Each says by [`Key::when`] that it belongs to the method.
    pub keys: &'static [Key],
    /// What it takes unless told otherwise.
    pub usual: Usual,
    /// Whether it trains a scalar head beside the adapter, and its model gives scores.
    pub has_scalar_head: bool,
    /// Whether it trains a head for the values of states beside the adapter. The model that it gives has none.
    pub has_value_head: bool,
    /// Numbers that this head gives, as a resolved recipe says: 1, or one a class.
    pub outputs: fn(&Document) -> usize,
    /// Refuses settings that contradict each other, before any data is read.
    pub check: fn(&Document) -> Result<()>,
    /// Fills the method's keys that depend on the rows it is trained on, and refuses rows that it cannot learn from.
    pub fill: fn(&mut Document, &Sequences) -> Result<()>,
    /// Refuses rows, of training and of validation, that contradict the resolved recipe.
    pub check_rows: fn(&Document, &Sequences, &Sequences) -> Result<()>,
    /// The figure of a validation by which steps are compared, as a resolved recipe says.
    pub judged_by: fn(&Document) -> Figure,
    /// The loss, with the settings of a resolved recipe.
    pub objective: MakeObjective,
    /// The loss of the value head, as a resolved recipe says, where that has a model of its own and not the policy's.
    pub value_objective: fn(&Document) -> Option<Box<dyn Objective>>,
    /// What it makes of the answers that it samples; none of a method that learns from rows as they are.
    pub online: Option<Online>,
}

impl Method {
    /// Whether it samples answers and learns from their rewards.
    pub fn learns_from_rewards(&self) -> bool {
        matches!(self.online, Some(Online::Advantages(_) | Online::Pairs))
    }

    /// What most methods have.
    const DEFAULT: Method = Method {
        name: "",
        title: "",
        records: Wanted::Conversations,
        learns_from: "",
        fewest_sequences: 1,
        fewest_rows: 1,
        learned: "",
        keys: &[],
        usual: Usual::of_rows([5e-4, 1e-5, 5e-5], 16),
        has_scalar_head: false,
        has_value_head: false,
        outputs: |_| 1,
        check: |_| Ok(()),
        fill: |_, _| Ok(()),
        check_rows: |_, _, _| Ok(()),
        judged_by: |_| Figure::LOSS,
        objective: |_| unreachable!("every method has a loss"),
        value_objective: |_| None,
        online: None,
    };
}

/// What a method takes unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usual {
    /// Learning rate of an adapter over a model of hidden size 2000, of a whole model, and of a small whole model.
    pub rates: [f64; 3],
    /// Rows, pairs or prompts of a step.
    pub batch: usize,
    /// Passes over the rows.
    pub epochs: f64,
    /// Answers that are sampled to a prompt.
    pub group_size: usize,
    /// How often they are learned from.
    pub updates: usize,
}

impl Usual {
    /// What methods take that learn from rows as they are, at these rates.
    const fn of_rows(rates: [f64; 3], batch: usize) -> Self {
        Usual { rates, batch, epochs: 1.0, group_size: 1, updates: 1 }
    }
}

/// A figure of a validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// `loss`, or the name of a metric.
    pub name: &'static str,
    /// Which way is better.
    pub higher_is_better: bool,
}

impl Figure {
    /// The objective's loss.
    pub const LOSS: Figure = Figure { name: "loss", higher_is_better: false };
}

/// Names of the classes of a resolved recipe, in the order of the head's outputs; none of a method without classes.
pub fn classes(document: &Document) -> Vec<String> {
    let classes = document.opt_strs("objective.classes").unwrap_or_default();
    classes.into_iter().map(str::to_owned).collect()
}

/// The method of that name.
pub fn named(name: &str) -> Option<&'static Method> {
    METHODS.into_iter().find(|method| method.name == name)
}

/// The method of a recipe.
pub fn of(document: &Document) -> &'static Method {
    named(document.get_str("method")).expect("the key takes names of methods only")
}
