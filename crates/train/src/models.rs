//! The models of a run on a device: named parts over one base.

mod reference;
mod refresh;
mod setup;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use compute::Backend;
use model::tensor::{HostTensor, read_tensors};
use model::{Adapter, Decoder, ScalarHead, TrainedTensor};

use crate::Result;
use crate::engine::Engine;

pub(crate) use reference::REFERENCE_KEYS;
pub use reference::{Reference, ReferenceFrom, Refresh, has_reference};
pub(crate) use setup::same;
pub use setup::{PartSetup, TrainingSetup};

/// What a part is to the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartName {
    /// The model that the run is about.
    Policy,
    /// What the policy is compared with.
    Reference,
    /// Values of states, learned with the policy.
    Value,
    /// Scores of answers.
    Reward,
    /// Whose distributions the policy is to come near to.
    Teacher,
}

impl PartName {
    /// Those beside the policy.
    pub const OTHERS: [PartName; 4] =
        [PartName::Reference, PartName::Value, PartName::Reward, PartName::Teacher];

    /// Whether the adapter on top and the head of the part are trained. The others stay as they are.
    pub fn is_trained(self) -> bool {
        matches!(self, PartName::Policy | PartName::Value)
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PartName::Policy => "policy",
            PartName::Reference => "reference",
            PartName::Value => "value",
            PartName::Reward => "reward",
            PartName::Teacher => "teacher",
        })
    }
}

/// One of the models of a run: adapters over the shared base, and a scalar head; or another model.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is.
    pub name: PartName,
    /// Its adapter over those that it stands on, which parts may share; none: the base itself.
    pub adapter: Option<Arc<Adapter>>,
    /// Its scalar head.
    pub head: Option<ScalarHead>,
    /// The model that it is, where that is not one over the shared base.
    pub decoder: Option<Arc<Decoder>>,
}

impl Part {
    /// The model that a run is about.
    pub fn policy(adapter: Option<Adapter>, head: Option<ScalarHead>) -> Self {
        Part { name: PartName::Policy, adapter: adapter.map(Arc::new), head, decoder: None }
    }

    /// What is trained of it, beside tensors of the base. Names of tensors are those of their files; behind the
    /// name of the part where it is not the policy, since two adapters may have the same tensors.
    pub fn trained(&self) -> Vec<TrainedTensor> {
        let adapter = self.adapter.iter().flat_map(|adapter| adapter.trained());
        let head = self.head.as_ref().and_then(ScalarHead::trained);
        let named = |tensor: &TrainedTensor| match self.name {
            PartName::Policy => tensor.clone(),
            part => TrainedTensor { name: format!("{part}.{}", tensor.name), ..tensor.clone() },
        };
        adapter.chain(head).map(named).collect()
    }

    /// Reads what is trained of it back, without tensors of the base.
    pub fn values(&self, backend: &mut dyn Backend, decoder: &Decoder) -> Result<Values> {
        let adapter = match &self.adapter {
            Some(adapter) => adapter.values(backend, decoder)?,
            None => Vec::new(),
        };
        let head = self.head.as_ref().map(|head| head.values(backend)).transpose()?;
        Ok(Values { adapter, head, tensors: BTreeMap::new() })
    }
}

/// What is trained of a part, read back to the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// The adapter's matrices in the order of [`LoraConfig::matrices`](model::LoraConfig::matrices).
    pub adapter: Vec<Vec<f32>>,
    /// The scalar head, `[N, C]`.
    pub head: Option<Vec<f32>>,
    /// Tensors of the base by name.
    pub tensors: BTreeMap<String, HostTensor>,
}

/// All models of a run on a device.
pub struct Models {
    /// The base that they share.
    pub decoder: Decoder,
    /// The policy, and what else the method needs.
    pub parts: Vec<Part>,
}

impl Models {
    /// The model that the run is about.
    pub fn policy(&self) -> &Part {
        part(&self.parts, PartName::Policy)
    }

    /// The engine that trains the policy.
    pub fn engine<'a>(&'a self, backend: &'a mut dyn Backend, recompute: bool) -> Engine<'a> {
        let (decoder, parts, trained) = (&self.decoder, &self.parts, PartName::Policy);
        Engine { backend, decoder, parts, trained, recompute }
    }

    /// All that is trained: tensors of the base, then those of each part.
    pub fn trained(&self) -> Vec<TrainedTensor> {
        let parts = self.parts.iter().flat_map(Part::trained);
        self.decoder.trained().iter().cloned().chain(parts).collect()
    }

    /// Reads what is trained of the policy back, tensors of the base among it.
    pub fn values(&self, backend: &mut dyn Backend) -> Result<Values> {
        let tensors = read_tensors(backend, self.decoder.trained())?;
        Ok(Values { tensors, ..self.policy().values(backend, &self.decoder)? })
    }

    /// Brings what follows from the trained values up to them: after a step or after values were written. The
    /// policy is active afterwards.
    pub fn refresh(&self, backend: &mut dyn Backend) -> Result<()> {
        for adapter in self.parts.iter().filter_map(|part| part.adapter.as_ref()) {
            adapter.refresh(backend, &self.decoder)?;
        }
        self.activate(backend, PartName::Policy)
    }

    /// Makes a part the one that the base computes with; see [`activate`].
    pub fn activate(&self, backend: &mut dyn Backend, name: PartName) -> Result<()> {
        activate(&self.parts, name, &self.decoder, backend)
    }
}

/// Puts the rows of tokens that a part has into the base's embedding and head, and takes out those of the others.
/// Before each pass of a part, this makes the shared base the part's own.
pub fn activate(
    parts: &[Part],
    name: PartName,
    decoder: &Decoder,
    backend: &mut dyn Backend,
) -> Result<()> {
    // Any of the others may be active, and rows that two have must end as this one's.
    for adapter in parts.iter().filter_map(|part| part.adapter.as_ref()) {
        adapter.deactivate(backend, decoder)?;
    }
    if let Some(adapter) = &part(parts, name).adapter {
        adapter.activate(backend, decoder)?;
    }
    Ok(())
}

/// The part of this name.
///
/// # Panics
/// Where there is none: a run has every part that its method needs.
pub fn part(parts: &[Part], name: PartName) -> &Part {
    let found = parts.iter().find(|part| part.name == name);
    found.unwrap_or_else(|| panic!("the run has no part `{name}`"))
}
