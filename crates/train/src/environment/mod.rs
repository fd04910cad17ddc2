//! Environments: programs that answer the policy's answers, turn by turn, until an episode is done.
//!
//! A recipe names a program ([`EnvironmentSettings`]). `Environment` runs it beside sampling: many episodes at a time,
//! told apart by an id. `Speech` makes the tokens of what it says, by the model's chat template. What is done with them
//! is the trainer's. `docs/environments.md` is the same for users.

mod client;
mod keys;
mod protocol;
mod settings;
mod speech;

pub(crate) use client::{Environment, Told};
pub use keys::KEYS;
pub(crate) use protocol::{Began, Opening, Reply};
pub use settings::{EnvironmentSettings, fill};
pub(crate) use speech::{Speech, messages};

/// The name of the reward that is the sum of an episode's rewards.
pub const REWARD: &str = "environment";
