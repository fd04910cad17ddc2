//! Rewards: what sampled answers are worth, by graders, programs and models, beside sampling.
//!
//! A recipe names reward functions ([`RewardSettings`]). [`Rewards`] runs them, each in threads of its own, so that
//! answers are scored while others are still being sampled. What scores answers is a [`RewardSource`]: graders and
//! programs are here, those that need a network are the caller's, and a reward model is left to who has the device.
//! `docs/rewards.md` is the same for users.

mod grader;
mod keys;
mod program;
mod rewards;
mod rows;
mod settings;
mod source;

pub use keys::KEYS;
pub(crate) use rewards::{FAILURES_IN_A_ROW, failed};
pub use rewards::{Rewards, Skipped};
pub use rows::check_rows;
pub use settings::{JudgeSettings, OnRewardError, RewardKind, RewardSettings, check};
pub use source::{Asked, Completion, RewardError, RewardSource, Scored};
