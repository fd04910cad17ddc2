//! A run from its recipe to its adapter.

mod audit;
mod course;
mod initial_adapter;
mod memory_estimate;
mod models;
mod noise;
mod open;
mod output;
mod plan;
mod plan_report;
mod preference_report;
mod reference_cache;
mod report;
mod resume;
mod rollouts;
mod rows;
mod run_loop;
mod setup;
mod start;
mod synthetic_rows;
mod teacher;
mod trial;

use std::path::PathBuf;

use compute::Backend;
use keys::Document;
use model::Base;
use serde::Serialize;
use text::Date;

use crate::Result;
use crate::events::Event;
use crate::reward::{RewardSettings, RewardSource};
use crate::run::RunFolder;

pub use audit::{Audit, audit};
pub use course::Score;
pub use noise::Lowest;
pub use open::use_template;
pub use plan::Memory;
pub use plan_report::{ParameterCounts, Planned, Resolved, plan};
pub use rows::rows;
pub use synthetic_rows::SyntheticRows;
pub use teacher::TeacherModel;
pub use trial::{Trial, TrialConfig};

/// What [`train`] is asked to do.
pub struct Job<'a> {
    /// The recipe, with open keys.
    pub document: Document,
    /// The base model.
    pub base: Base,
    /// An adapter that the model brought, to be trained on.
    pub start: Option<PathBuf>,
    /// The base's name, for the adapter's config.
    pub base_name: String,
    /// The base's revision on the hub, where one was named.
    pub revision: Option<String>,
    /// Bytes that the process may use.
    pub memory_limit: usize,
    /// Bytes that the process holds at the moment it is asked.
    pub resident_bytes: fn() -> usize,
    /// Today: what a template of a new run takes for it. A resumed run keeps its own.
    pub date: Date,
    /// Threads that tokenise.
    pub threads: usize,
    /// How rows are come by.
    pub data: DataAccess<'a>,
    /// Makes the sources of rewards that need a network.
    pub reward_sources: RewardSources<'a>,
    /// What is distilled from; none: the model as the run begins.
    pub teacher: Option<TeacherModel>,
}

/// Makes the source of a reward that needs a network; see [`Rewards::open`](crate::reward::Rewards::open).
pub type RewardSources<'a> = Box<dyn FnMut(&RewardSettings) -> Result<Box<dyn RewardSource>> + 'a>;

/// For callers without a network: such a reward is refused.
pub fn no_reward_sources() -> RewardSources<'static> {
    Box::new(start::no_source)
}

/// How rows are come by.
pub struct DataAccess<'a> {
    /// Folder that keeps prepared rows for later runs; without it they stay in memory.
    pub cache: Option<PathBuf>,
    /// Brings the files of a data set on the hub to this machine.
    pub fetch: Fetch<'a>,
    /// Whether rows that cannot be used become a finding and not an error, so that all is seen at once.
    pub list_errors: bool,
    /// Ends the run before its first step: while rows are prepared and the model is loaded.
    pub stop: data::Stop,
}

/// Brings the files of a data set on the hub to this machine.
pub type Fetch<'a> = Box<dyn Fn(&data::HubSet) -> data::Result<Vec<PathBuf>> + 'a>;

impl Default for DataAccess<'_> {
    /// Nothing is kept, and there is no hub.
    fn default() -> Self {
        let fetch = |set: &data::HubSet| {
            Err(data::Error::Setting {
                key: "data".into(),
                message: format!("`{}` is on the hub, which is out of reach", set.id),
                hint: None,
            })
        };
        let (fetch, stop) = (Box::new(fetch), data::Stop::default());
        DataAccess { cache: None, fetch, list_errors: false, stop }
    }
}

/// What the caller wants after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Write a checkpoint and go on.
    Save,
    /// Write a checkpoint and end.
    Stop,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The run folder.
    pub run: PathBuf,
    /// `finished`, `interrupted`, or `stopped` by a finding.
    pub status: &'static str,
    /// Optimizer steps done.
    pub steps: u64,
    /// The step whose adapter is kept.
    pub best_step: u64,
    /// Tokens trained on, as rendered.
    pub tokens: u64,
    /// Of these, tokens that counted in the loss.
    pub tokens_supervised: u64,
    /// Tokens computed, shared prefixes once.
    pub tokens_computed: u64,
    /// Of all the run's steps.
    pub tokens_per_s: f64,
    /// Of all the run's steps.
    pub rows_per_s: f64,
    /// Seconds spent in steps, and on log-probabilities of the reference that were kept for them.
    pub seconds: f64,
    /// Loss of the first step.
    pub loss_first: Option<f64>,
    /// Loss of the last step.
    pub loss_last: Option<f64>,
    /// Best validation score: the loss, or the figure of `train.best_by`.
    pub validation_best: Option<f64>,
    /// The figure by which steps are compared: `loss`, or that of `train.best_by`.
    pub validation_by: Option<String>,
    /// The same figure of the last validation.
    pub validation_last: Option<f64>,
    /// Remarks about the data.
    pub findings: Vec<data::Finding>,
    /// The best model beside trivial rules on the held-out pairs, where the rows are pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preference: Option<eval::preference::Report>,
    /// How the best model classified the validation rows, where the method has classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<eval::classification::Report>,
    /// Whether the model gives scores and no text.
    pub gives_scores: bool,
    /// Whether it learned from rewards of answers of its own: losses of its steps say nothing then.
    pub learns_from_rewards: bool,
    /// Where the adapter stands.
    pub adapter: PathBuf,
}

/// Trains as the recipe says in the run's folder, from the start or from the last checkpoint.
///
/// `observer` sees every event as it happens; `control` is asked after every step.
pub fn train(
    job: Job<'_>,
    folder: RunFolder,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
    control: &mut dyn FnMut() -> Control,
) -> Result<Summary> {
    let mut run = start::prepare(job, folder, backend, observer)?;
    run_loop::run(&mut run, backend, observer, control)
}
