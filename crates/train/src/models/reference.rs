//! What the policy is compared with.

use std::collections::BTreeMap;
use std::sync::Arc;

use keys::{Document, Settings as _};
use model::adapter::LoadedAdapter;

use super::{PartName, PartSetup, TrainingSetup};
use crate::{Error, Result};

/// Where the log-probabilities of the reference come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The base under no adapter, which is what the policy began as.
    Base,
    /// Adapters of the part [`PartName::Reference`]: those that the policy began with.
    Part,
}

impl TrainingSetup {
    /// Adds the part [`PartName::Reference`]: the policy as it is before its first step.
    ///
    /// The base is shared, so what the policy adds to it is left out. An adapter that is continued is copied, since
    /// its beginning is gone after a step.
    ///
    /// # Errors
    /// Where tensors of the base itself are trained nothing is left of the beginning.
    pub fn add_reference(&mut self, document: &Document) -> Result<Reference> {
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
        let is_base = adapters.is_empty();
        self.parts.push(PartSetup { name: PartName::Reference, adapters, head: None });
        Ok(if is_base { Reference::Base } else { Reference::Part })
    }
}
