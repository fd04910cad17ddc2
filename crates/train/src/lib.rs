//! Training: the recipe as a whole, objectives, the loop, and the run folder.
//!
//! A trainer tells the world through [`events::Event`]s; terminal, run folder and
//! `--json` are readers of these. Nothing here prints or reads the environment.

pub mod advantage;
pub mod checkpoint;
pub mod claim;
pub mod doctor;
pub mod engine;
pub mod environment;
mod error;
pub mod events;
pub mod method;
pub mod models;
pub mod moved;
pub mod objective;
pub mod optimizer;
mod program;
pub mod recipe;
pub mod reward;
pub mod rollout;
pub mod run;
pub mod schedule;
pub mod step;
pub mod trainer;

pub use error::{Error, Result};
