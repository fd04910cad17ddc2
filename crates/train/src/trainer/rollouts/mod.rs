//! The course of a method that learns from answers of its own: prompts are answered, answers rewarded, and one or more
//! optimizer steps are made on them.
//!
//! Draws are keyed by rollout, prompt and answer, and what was sampled and said about it is in a [`Journal`] before it is
//! used. So a run that was killed anywhere goes on with the same bits, wherever the reward functions are the same.

mod collect;
mod episodes;
mod journal;
mod pairs;
mod probe;
mod sampling;
mod scoring;
mod teaching;
mod validation;

use std::path::PathBuf;
use std::sync::Arc;

use data::{Cursor, Sequences, Supervisor, Unit};
use serde::{Deserialize, Serialize};

use super::course::{Course, Judged, Next, Rows, Stand, StepData};
use crate::Result;
use crate::checkpoint::{RolloutState, State};
use crate::objective::Objective;
use crate::recipe::RolloutConfig;
use crate::reward::Rewards;
use crate::rollout::AdvantageEstimator;
use crate::step::{Sampled, StepPlan};

use episodes::Episode;
pub(super) use episodes::Stage;
use journal::Journal;
pub(super) use sampling::{Drawn, Policy, Wanted, room, sample};
pub(super) use teaching::TeacherPrompts;

/// Keeps draws of answers and of minibatches apart from every other use of the seed.
const PURPOSE_ANSWER: u64 = 0x726f_6c6c;
const PURPOSE_VALIDATION: u64 = 0x6865_6c64;
const PURPOSE_EPISODE: u64 = 0x6570_6973;
const PURPOSE_MINIBATCH: u64 = 0x6d69_6e69;

/// Prompts that are answered, again and again, by the policy as it has become.
pub(super) struct Rollouts {
    /// The prompts.
    pub(super) rows: Rows,
    pub(super) config: RolloutConfig,
    pub(super) learner: Learner,
    pub(super) rewards: Rewards,
    /// Names and weights of the reward functions.
    pub(super) names: Vec<String>,
    pub(super) weights: Vec<f64>,
    /// What answers the policy's answers, where something does.
    pub(super) stage: Option<Stage>,
    /// How a reward model sees answers, where there is one.
    pub(super) supervisor: Option<Supervisor>,
    /// Where journals lie.
    pub(super) folder: PathBuf,
    pub(super) seed: u64,
    /// The rollout that is learned from.
    pub(super) current: Option<Collected>,
}

/// What answers are made into.
pub(super) enum Learner {
    /// Advantages, by their rewards.
    Advantages(Box<dyn AdvantageEstimator>),
    /// Pairs of a better and a worse one, by their rewards.
    Pairs {
        /// What the reward of an answer loses that was cut.
        missing_end: f64,
    },
    /// What a teacher, which sees these prompts, has to say at each of their tokens.
    Teacher(Box<TeacherPrompts>),
}

/// An answer to a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    /// Number of the prompt in its rollout.
    prompt: usize,
    /// Number of the answer to it.
    number: usize,
    /// Its tokens, the one that ended it included; of several turns also what stands between them.
    tokens: Vec<u32>,
    /// Log-probability of each that was drawn.
    logprobs: Vec<f32>,
    /// The same as text, without special tokens.
    text: String,
    /// Whether the policy ended it.
    ended: bool,
    /// What the reward functions gave; none before they were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rewards: Option<Vec<Option<f64>>>,
    /// What the value head gave before each token, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    values: Option<Vec<f32>>,
    /// What it has beside, where it has several turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    episode: Option<Episode>,
}

/// A rollout, ready to be learned from.
pub(super) struct Collected {
    /// Its number.
    number: u64,
    /// Fingerprint of the policy that sampled it.
    policy: String,
    /// A prompt and the answers to it.
    groups: Vec<Group>,
    /// Where the next rollout's prompts begin.
    next: Cursor,
    /// Figures of the whole rollout.
    metrics: Vec<(String, f64)>,
}

/// What is learned from the answers to one prompt.
struct Group {
    /// A sequence an answer.
    unit: Unit,
    /// `[sequences]`; empty where nothing is known of them but their tokens.
    sampled: Vec<Sampled>,
    /// Log-probabilities under the reference, `[sequences]`; none without one.
    reference: Option<Vec<Arc<[f32]>>>,
    /// A teacher's states, `[sequences]`; none without one. See [`StepPlan::teacher`].
    teacher: Option<Vec<Arc<[f32]>>>,
}

impl Group {
    /// Sequences of which nothing but their tokens is known.
    fn of(unit: Unit) -> Self {
        Group { unit, sampled: Vec::new(), reference: None, teacher: None }
    }
}

impl Course for Rollouts {
    fn next(&mut self, at: &mut Stand<'_>) -> Result<Next> {
        let RolloutState { number, steps, .. } = at.state.rollout;
        if at.state.step == 0 && self.config.probes && !self.probe(at)? {
            return Ok(Next::Stopped);
        }
        if self.current.as_ref().is_none_or(|current| current.number != number) {
            match self.collect(at)? {
                Ok(collected) => self.current = Some(collected),
                Err(nothing) => return Ok(nothing),
            }
        }
        let current = self.current.as_ref().expect("it was just collected");
        let chosen = self.minibatch(current, number, steps);
        let plan = plan(&chosen, steps == 0, at);
        let is_last = steps + 1 >= self.config.steps();
        let next = if is_last { current.next } else { at.state.cursor };
        let rollout = match is_last {
            true => RolloutState { number: number + 1, ..RolloutState::default() },
            false => RolloutState { number, steps: steps + 1, policy: current.policy.clone() },
        };
        Ok(Next::Step(Box::new(StepData {
            plan,
            rows: chosen.len(),
            next,
            epoch: self.rows.order.epochs_at(current.next),
            rollout,
            metrics: current.metrics.clone(),
        })))
    }

    /// What is left of the rollout is put together again from its journal.
    fn forget_reference(&mut self) {
        self.current = None;
    }

    fn objective(&self) -> &dyn Objective {
        self.rows.objective()
    }

    fn value_objective(&self) -> Option<&dyn Objective> {
        self.rows.value_objective.as_deref()
    }

    fn judge(&mut self, at: &mut Stand<'_>) -> Result<Option<Judged>> {
        self.validate(at)
    }

    fn rows(&self) -> Option<[&Sequences; 2]> {
        None
    }

    fn total_steps(&mut self, state: &State) -> u64 {
        self.rows.total_steps(state)
    }
}

impl Rollouts {
    /// The groups of one of the steps that a rollout is learned from in, in the order of their prompts.
    fn minibatch<'a>(&self, current: &'a Collected, number: u64, step: u64) -> Vec<&'a Group> {
        let count = current.groups.len() as u64;
        let minibatches = self.config.minibatches.min(count);
        if minibatches <= 1 {
            return current.groups.iter().collect();
        }
        let (pass, part) = (step / self.config.minibatches, step % self.config.minibatches);
        let key =
            |index: u64| compute::random::key(&[self.seed, PURPOSE_MINIBATCH, number, pass, index]);
        let mut order: Vec<u64> = (0..count).collect();
        order.sort_by_key(|&index| (key(index), index));
        // With more minibatches than prompts, the last ones begin again.
        let part = part % minibatches;
        let (start, end) = (count * part / minibatches, count * (part + 1) / minibatches);
        let mut chosen = order[start as usize..end as usize].to_vec();
        chosen.sort_unstable();
        chosen.into_iter().map(|index| &current.groups[index as usize]).collect()
    }
}

/// The step over some groups. `is_on_policy` says whether the policy is still the one that sampled them.
fn plan(groups: &[&Group], is_on_policy: bool, at: &Stand<'_>) -> StepPlan {
    let units: Vec<Unit> = groups.iter().map(|group| group.unit.clone()).collect();
    let sampled = groups.iter().flat_map(|group| group.sampled.iter().cloned());
    let reference = groups.iter().map(|group| group.reference.clone());
    let reference: Option<Vec<Vec<Arc<[f32]>>>> = reference.collect();
    let teacher = groups.iter().map(|group| group.teacher.clone());
    let teacher: Option<Vec<Vec<Arc<[f32]>>>> = teacher.collect();
    StepPlan {
        sampled: Some(sampled.collect()),
        is_on_policy,
        reference: reference.map(|reference| reference.concat()),
        teacher: teacher.map(|teacher| teacher.concat()),
        carried: at.state.carried.clone(),
        ..StepPlan::new(&units, at.packing)
    }
}
