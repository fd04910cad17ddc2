//! What the policy is compared with.

use std::collections::BTreeMap;
use std::sync::Arc;

use keys::{Document, Key, Resume, Settings as _};
use model::adapter::LoadedAdapter;

use super::{PartName, PartSetup, TrainingSetup};
use crate::method::Method;
use crate::{Error, Result};

/// Methods that compare the policy with a reference.
const WITH_REFERENCE: &[&str] = &["dpo", "kto", "bco"];

/// What the policy is compared with.
pub(crate) const REFERENCE_KEYS: &[Key] = &[
    Key::section("reference").shorthand("from").doc("Model that a preference method compares with."),
    Key::path_or_name("reference.from")
        .or(&["start", "base"])
        .when("method", WITH_REFERENCE)
        .default("start")
        .doc("Reference model: start (the model as it is before the first step), base (the base model without any adapter), or the folder of an adapter over the same base."),
    Key::choice("reference.logprobs", &["auto", "live", "cached"])
        .when("method", WITH_REFERENCE)
        .default("auto")
        .on_resume(Resume::Free)
        .doc("When the log-probabilities of the reference are computed: live in every step, or cached once before the first step and kept for later runs. Both give the same bits. auto caches if the rows are passed over more than once."),
];

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
    /// Of the policy as it is before its first step: the base is shared, so what the policy adds to it is left out. An adapter that is continued is copied, since
    /// its beginning is gone after a step.
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

        // A checkpoint has it.
        if self.parts.iter().any(|part| part.name == PartName::Reference) {
            return Ok(Reference::Part);
        }
        let adapters = match from {
            ReferenceFrom::Start => self.beginning()?,
            ReferenceFrom::Base => Vec::new(),
            ReferenceFrom::Adapter(adapter) => vec![adapter],
        };
        let is_base = adapters.is_empty();
        self.parts.push(PartSetup { name: PartName::Reference, adapters, head: None });
        Ok(if is_base { Reference::Base } else { Reference::Part })
    }

    /// The adapters of the policy as it is before its first step.
    fn beginning(&self) -> Result<Vec<Arc<LoadedAdapter>>> {
        let policy = self.policy();
        let mut adapters = policy.adapters[..self.brought].to_vec();
        if self.is_restored && self.brought > 0 && self.brought == policy.adapters.len() {
            let message = "the checkpoint does not hold the adapter that the run began with";
            return Err(Error::refused(message, "begin a new run with `--overwrite`"));
        }
        if let (Some(last), true) = (adapters.last_mut(), self.brought == policy.adapters.len()) {
            // It goes on as the policy. Whole tensors that it brings are in the base.
            let (config, values) = (last.config.clone(), last.values.clone());
            *last = Arc::new(LoadedAdapter { config, values, replaced: BTreeMap::new() });
        }
        Ok(adapters)
    }
}
