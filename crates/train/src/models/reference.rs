//! What the policy is compared with.

use std::collections::BTreeMap;
use std::sync::Arc;

use keys::{Document, Key, Resume, Settings as _};
use model::LoraConfig;
use model::adapter::LoadedAdapter;

use super::{PartName, PartSetup, TrainingSetup};
use crate::method::Method;
use crate::{Error, Result};

/// Methods that compare the policy with a reference.
const WITH_REFERENCE: &[&str] =
    &["dpo", "kto", "bco", "ppo", "grpo", "rloo", "reinforce_pp", "online_dpo"];

/// Of these, methods that learn from rows as they are: what the reference says of a row may be kept.
const OVER_ROWS: &[&str] = &["dpo", "kto", "bco"];

/// Said of a checkpoint that cannot be gone on from.
const LOST: &str = "the checkpoint does not hold the adapter that the run began with";

/// What the policy is compared with.
pub(crate) const REFERENCE_KEYS: &[Key] = &[
    Key::section("reference").shorthand("from").doc("Model that a preference or RL method compares with."),
    Key::path_or_name("reference.from")
        .or(&["start", "base"])
        .when("method", WITH_REFERENCE)
        .default("start")
        .doc("Reference model: start (the model as it is before the first step), base (the base model without any adapter), or the folder of an adapter over the same base."),
    Key::choice("reference.logprobs", &["auto", "live", "cached"])
        .when("method", OVER_ROWS)
        .default("auto")
        .on_resume(Resume::Free)
        .doc("When the log-probabilities of the reference are computed: live in every step, or cached once before the first step and kept for later runs. Both give the same bits. auto caches if the rows are passed over more than once."),
    Key::int("reference.refresh_steps", 1, 1 << 40)
        .when("method", WITH_REFERENCE)
        .unit("steps")
        .doc("Number of optimizer steps after which the reference becomes the policy, again and again (TR-DPO). Cached log-probabilities are then computed anew, and validation figures are against another reference. By default the reference stays as it began."),
    Key::float("reference.refresh_mix", 0.0, 1.0)
        .above_min()
        .when("method", WITH_REFERENCE)
        .doc("Share of the policy in a refreshed reference, 1 by default; the rest is the reference so far. Below 1 the matrices of the adapters are mixed, A and B apart, which is not the mean of what they compute."),
];

/// How the reference follows the policy: TR-DPO, Gorbatovski et al. 2024, section 3. With a mix of 1 this is
/// their hard update, below it their soft one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refresh {
    /// Optimizer steps from one to the next.
    pub steps: u64,
    /// Share of the policy in the new reference, over 0; 1 makes it the policy.
    pub mix: f32,
}

impl Refresh {
    /// What a recipe says; none where the reference stays as it began.
    pub(crate) fn read(document: &Document) -> Option<Self> {
        let steps = document.opt_usize("reference.refresh_steps")? as u64;
        let mix = document.opt_f64("reference.refresh_mix").unwrap_or(1.0) as f32;
        Some(Refresh { steps, mix })
    }

    /// The step after which the reference was refreshed last, when so many are done and none is refreshed after them
    /// yet; 0 where it is as it began.
    pub fn last_before(self, steps_done: u64) -> u64 {
        steps_done.saturating_sub(1) / self.steps * self.steps
    }

    /// Whether the reference is to be refreshed before the step that follows so many.
    pub fn is_due(self, steps_done: u64) -> bool {
        steps_done > 0 && steps_done.is_multiple_of(self.steps)
    }
}

/// Whether a method compares the policy with a reference.
pub fn has_reference(method: &Method) -> bool {
    WITH_REFERENCE.contains(&method.name)
}

/// What the reference is made of.
#[derive(Clone, Debug)]
pub enum ReferenceFrom {
    /// The policy as it is before its first step.
    Start,
    /// The base under no adapter.
    Base,
    /// An adapter over the base.
    Adapter(Arc<LoadedAdapter>),
}

/// Which model gives the log-probabilities of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The base under no adapter.
    Base,
    /// Adapters of the part [`PartName::Reference`].
    Part,
}

impl TrainingSetup {
    /// Adds the part [`PartName::Reference`].
    ///
    /// Of the policy as it is before its first step: the base is shared, so what the policy adds to it is left out.
    /// An adapter that is continued is copied, since
    /// its beginning is gone after a step.
    ///
    /// A reference that is refreshed has an adapter of its own in any case, of the form of the policy's.
    ///
    /// # Errors
    /// Where tensors of the base itself are trained nothing is left of the beginning.
    pub fn add_reference(&mut self, document: &Document, from: ReferenceFrom) -> Result<Reference> {
        let problem = |key: &str, message: &str, hint: &str| {
            let problem = document.problem(key, message.to_owned(), Some(hint.to_owned()));
            Error::Recipe(problem.into())
        };
        let policy = self.policy();
        if self.tensors.is_some() {
            let message = "the method compares the policy with the model that it began as, and a run that \
                           trains the model itself does not keep that";
            let hint = "train an adapter: `adapter: {type: lora}`";
            return Err(problem("adapter.type", message, hint));
        }
        if policy.own().is_some_and(|own| !own.config.modules_to_save.is_empty()) {
            let message = "the method compares the policy with the model that it began as, and modules that \
                           are trained as a whole do not keep that";
            let hint = "leave it out, or merge the adapter first: `tunesmith merge`";
            return Err(problem("adapter.modules_to_save", message, hint));
        }

        let refreshes = Refresh::read(document).is_some();
        if !refreshes && document.is_given("reference.refresh_mix") {
            let message =
                "`reference.refresh_mix` has no effect on a reference that stays as it began";
            let hint = "say when it is refreshed: `reference: {refresh_steps: 64}`";
            return Err(problem("reference.refresh_mix", message, hint));
        }
        if refreshes && document.is_word("reference.from", "base") {
            let message = "a reference that becomes the policy does not stay the base";
            let hint = "leave `reference.from` out: a fresh adapter begins as the base";
            return Err(problem("reference.refresh_steps", message, hint));
        }

        // A checkpoint has it.
        if self.has_part(PartName::Reference) {
            return Ok(Reference::Part);
        }
        let adapters = match from {
            ReferenceFrom::Start if refreshes => self.copy_of_policy()?,
            ReferenceFrom::Adapter(adapter) if refreshes && !self.is_like_policy(&adapter) => {
                let message = "the reference has another form than the policy's adapter, and cannot become it";
                let hint = "train an adapter of the same rank, alpha and modules over the base, or leave \
                            `reference.refresh_steps` out";
                return Err(problem("reference.from", message, hint));
            }
            ReferenceFrom::Start => self.beginning()?,
            ReferenceFrom::Base => Vec::new(),
            ReferenceFrom::Adapter(adapter) => vec![adapter],
        };
        let is_base = adapters.is_empty();
        self.parts.push(PartSetup { adapters, ..PartSetup::of_base(PartName::Reference) });
        Ok(if is_base { Reference::Base } else { Reference::Part })
    }

    /// The frozen adapters of the policy and one of the reference's own, which begins as the policy's. Whole tensors
    /// that the policy brings are in the base.
    fn copy_of_policy(&self) -> Result<Vec<Arc<LoadedAdapter>>> {
        if self.is_restored {
            return Err(Error::refused(LOST, "begin a new run with `--overwrite`"));
        }
        let mut adapters = self.policy().adapters.clone();
        if let Some(own) = adapters.last_mut() {
            let (config, values) = (own.config.clone(), own.values.clone());
            *own = Arc::new(LoadedAdapter { config, values, replaced: BTreeMap::new() });
        }
        Ok(adapters)
    }

    /// Whether an adapter over the base may take the values of the policy's.
    fn is_like_policy(&self, adapter: &LoadedAdapter) -> bool {
        let policy = self.policy();
        let form = |config: &LoraConfig| LoraConfig { dropout: 0.0, ..config.clone() };
        let is_like = |own: &LoadedAdapter| form(&own.config) == form(&adapter.config);
        policy.frozen().is_empty() && policy.own().is_some_and(is_like)
    }

    /// The adapters of the policy as it is before its first step.
    pub(crate) fn beginning(&self) -> Result<Vec<Arc<LoadedAdapter>>> {
        let policy = self.policy();
        let mut adapters = policy.adapters[..self.brought].to_vec();
        if self.is_restored && self.brought > 0 && self.brought == policy.adapters.len() {
            return Err(Error::refused(LOST, "begin a new run with `--overwrite`"));
        }
        if let (Some(last), true) = (adapters.last_mut(), self.brought == policy.adapters.len()) {
            // It goes on as the policy. Whole tensors that it brings are in the base.
            let (config, values) = (last.config.clone(), last.values.clone());
            *last = Arc::new(LoadedAdapter { config, values, replaced: BTreeMap::new() });
        }
        Ok(adapters)
    }
}
