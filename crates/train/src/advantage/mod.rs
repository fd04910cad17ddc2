//! How rewards become advantages, one file a family of methods.
//!
//! Sums are made over sorted numbers: a rollout in another order gives the same bits for every answer.

mod figures;
mod gae;
mod group;
mod moments;
mod returns;
mod shaping;

pub use gae::Gae;
pub use group::{Aggregation, GroupRelative, LeaveOneOut, Scale};
pub use returns::{Baseline, WhitenedReturns};
pub use shaping::{KlReward, Overlong, Shaping};
