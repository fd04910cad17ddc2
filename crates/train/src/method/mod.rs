//! Methods: what each learns from, its keys, its usual values and its loss.
//!
//! A method is one file here and one line of [`METHODS`]. Everything else asks the method: the recipe for its keys,
//! the data for the records that it wants, the trainer for its objective, cards and help for its words.

mod dpo;
mod later;
mod pretrain;
mod reward;
mod sft;

use data::Wanted;
use keys::{Document, Key, Settings as _};

use crate::objective::Objective;
use crate::{Error, Result};

pub use dpo::Dpo;
pub use reward::Reward;
pub use sft::Sft;

/// Every method, in the order of `--help`.
pub static METHODS: [&dyn Method; 11] = [
    &sft::METHOD,
    &pretrain::METHOD,
    &dpo::METHOD,
    &later::KTO,
    &later::ORPO,
    &later::SIMPO,
    &later::CPO,
    &reward::METHOD,
    &later::PPO,
    &later::GRPO,
    &later::RLOO,
];

/// A way to learn.
pub trait Method: Sync {
    /// Its word in a recipe.
    fn name(&self) -> &'static str;

    /// What it is called in cards, with a capital.
    fn title(&self) -> &'static str;

    /// The records that it learns from.
    fn records(&self) -> Wanted;

    /// The same in words.
    fn learns_from(&self) -> &'static str;

    /// Sequences that a row has at least. A row with fewer cannot be learned from.
    fn fewest_sequences(&self) -> usize {
        1
    }

    /// What of a row is learned, in words.
    fn learned(&self) -> &'static str;

    /// Keys of its own. Each says by [`Key::when`] that it belongs to the method.
    fn keys(&self) -> &'static [Key] {
        &[]
    }

    /// What it takes unless told otherwise.
    fn usual(&self) -> Usual;

    /// Whether it trains a scalar head beside the adapter.
    fn has_scalar_head(&self) -> bool {
        false
    }

    /// The figure of a validation by which steps are compared.
    fn judged_by(&self, _document: &Document) -> Figure {
        Figure::LOSS
    }

    /// Whether it can be trained, or only its data prepared.
    fn trains(&self) -> bool {
        true
    }

    /// The loss, with the settings of a resolved recipe.
    fn objective(&self, document: &Document) -> Box<dyn Objective>;
}

/// What a method takes unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usual {
    /// Learning rate of an adapter, of a whole model, and of a small whole model.
    pub rates: [f64; 3],
    /// Rows, pairs or prompts of a step.
    pub batch: usize,
    /// Passes over the rows.
    pub epochs: f64,
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

/// The method of that name.
pub fn named(name: &str) -> Option<&'static dyn Method> {
    METHODS.into_iter().find(|method| method.name() == name)
}

/// The method of a recipe.
pub fn of(document: &Document) -> &'static dyn Method {
    named(document.get_str("method")).expect("the key takes names of methods only")
}

/// The method of a recipe, refused where it cannot be trained yet.
pub fn trainable(document: &Document) -> Result<&'static dyn Method> {
    let method = of(document);
    if method.trains() {
        return Ok(method);
    }
    let message = format!("method `{}` cannot be trained yet", method.name());
    let trained: Vec<&str> = METHODS.iter().filter(|m| m.trains()).map(|m| m.name()).collect();
    let hint = format!(
        "this version trains {}; `tunesmith check` and `prepare` work on the data of every method",
        trained.join(", ")
    );
    Err(Error::Recipe(document.problem("method", message, Some(hint)).into()))
}
