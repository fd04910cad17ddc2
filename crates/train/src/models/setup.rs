//! What the models of a run are made of, on the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use compute::{Backend, Quantization};
use model::adapter::LoadedAdapter;
use model::tensor::HostTensor;
use model::{
    Adapter, Base, Config, Decoder, LoadOptions, LoraConfig, Optimizers, ScalarHead, Selection,
    TrainedTensor, Training,
};

use super::{Models, Part, PartName};
use crate::Result;

/// Everything that decides what is trained and what it is compared with.
#[derive(Clone, Debug)]
pub struct TrainingSetup {
    /// The policy, and the other parts that the method needs.
    pub parts: Vec<PartSetup>,
    /// How many of the policy's adapters the model brought along, the lowest ones.
    pub brought: usize,
    /// Whether the values are those of a checkpoint, and no longer those that the run began with.
    pub is_restored: bool,
    /// Which tensors of the base are trained, where there is no adapter.
    pub tensors: Option<Selection>,
    /// Values of tensors of the base in place of the file's: those of a checkpoint.
    pub replaced: BTreeMap<String, HostTensor>,
    /// How frozen linear layers are made smaller.
    pub quantization: Option<Quantization>,
    /// Rows of the vocabulary, where tokens were added.
    pub vocab_size: Option<usize>,
    /// What the optimizer keeps.
    pub optimizers: Optimizers,
}

/// A part of a run.
#[derive(Clone, Debug)]
pub struct PartSetup {
    /// What it is.
    pub name: PartName,
    /// Its adapters, the lowest first; of a part that is trained it is the last one. Parts share an adapter
    /// where they hold the same one. None: the base itself.
    pub adapters: Vec<Arc<LoadedAdapter>>,
    /// Values of its scalar head, `[N, C]`.
    pub head: Option<Vec<f32>>,
    /// The model that it is, where that is not one over the shared base.
    pub base: Option<Arc<Base>>,
}

impl PartSetup {
    /// A part that is the base itself.
    pub fn of_base(name: PartName) -> Self {
        PartSetup { name, adapters: Vec::new(), head: None, base: None }
    }

    /// The adapter that is trained, if one is.
    pub fn own(&self) -> Option<&LoadedAdapter> {
        self.adapters.last().filter(|_| self.name.is_trained()).map(|own| &**own)
    }

    /// The frozen adapters, the lowest first.
    pub fn frozen(&self) -> &[Arc<LoadedAdapter>] {
        let trained = usize::from(self.own().is_some());
        &self.adapters[..self.adapters.len() - trained]
    }
}

impl TrainingSetup {
    /// The base itself as the policy, to be completed.
    pub fn new(quantization: Option<Quantization>, optimizers: Optimizers) -> Self {
        TrainingSetup {
            parts: vec![PartSetup::of_base(PartName::Policy)],
            brought: 0,
            is_restored: false,
            tensors: None,
            replaced: BTreeMap::new(),
            quantization,
            vocab_size: None,
            optimizers,
        }
    }

    /// Whether the run has a part of that name.
    pub fn has_part(&self, name: PartName) -> bool {
        self.parts.iter().any(|part| part.name == name)
    }

    /// The model that the run is about.
    pub fn policy(&self) -> &PartSetup {
        &self.parts[0]
    }

    /// The same, to be changed.
    pub fn policy_mut(&mut self) -> &mut PartSetup {
        &mut self.parts[0]
    }

    /// The decoder's shape, added tokens included.
    pub fn config(&self, base: &Base) -> Config {
        let mut config = base.config.clone();
        config.vocab_size = self.vocab_size.unwrap_or(config.vocab_size);
        config
    }

    /// Puts everything on a device.
    pub fn load(&self, base: &Base, backend: &mut dyn Backend) -> Result<Models> {
        let decoder = Decoder::load_with(base, backend, &self.options(base))?;
        let mut parts = Vec::with_capacity(self.parts.len());
        let mut shared = Vec::new();
        for part in &self.parts {
            let training = Some(self.optimizers).filter(|_| part.name.is_trained());
            let head = match &part.head {
                Some(values) => {
                    let outputs = values.len() / base.config.hidden_size;
                    Some(ScalarHead::with_outputs(backend, values, outputs, training)?)
                }
                None => None,
            };
            let adapter = self.load_adapters(part, backend, &decoder, &mut shared)?;
            let decoder = match &part.base {
                Some(other) => {
                    let options =
                        LoadOptions { quantization: self.quantization, ..LoadOptions::default() };
                    Some(Arc::new(Decoder::load_with(other, backend, &options)?))
                }
                None => None,
            };
            parts.push(Part { name: part.name, adapter, head, decoder });
        }
        let models = Models { decoder, parts };
        models.activate(backend, PartName::Policy)?;
        Ok(models)
    }

    /// Puts the adapters of a part on a device. Stacks of frozen ones are `shared` among parts.
    fn load_adapters<'a>(
        &self,
        part: &'a PartSetup,
        backend: &mut dyn Backend,
        decoder: &Decoder,
        shared: &mut Vec<(&'a [Arc<LoadedAdapter>], Arc<Adapter>)>,
    ) -> Result<Option<Arc<Adapter>>> {
        let mut top: Option<Arc<Adapter>> = None;
        for (index, loaded) in part.adapters.iter().enumerate() {
            let stack = &part.adapters[..=index];
            let is_frozen = stack.len() <= part.frozen().len();
            if is_frozen && let Some((_, known)) = shared.iter().find(|(s, _)| same(s, stack)) {
                top = Some(known.clone());
                continue;
            }
            let training = Some(self.optimizers).filter(|_| !is_frozen);
            let config = loaded.config.clone();
            let adapter = Adapter::new(backend, decoder, config, &loaded.values, training)?;
            let adapter = Arc::new(match top {
                Some(below) => adapter.over(below),
                None => adapter,
            });
            if is_frozen {
                shared.push((stack, adapter.clone()));
            }
            top = Some(adapter);
        }
        Ok(top)
    }

    fn options(&self, base: &Base) -> LoadOptions {
        let optimizers = self.optimizers;
        let mut options = match self.policy().own() {
            Some(adapter) => adapter.options(base, self.quantization, Some(optimizers)),
            None => LoadOptions { quantization: self.quantization, ..LoadOptions::default() },
        };
        if let Some(tensors) = self.tensors.clone() {
            options.training = Some(Training { tensors, optimizers });
        }
        options.replaced.extend(self.replaced.clone());
        options.vocab_size = self.vocab_size;
        let adapters = self.parts.iter().flat_map(|part| &part.adapters);
        options.writes_tokens = adapters.into_iter().any(|own| !own.config.tokens.is_empty());
        options
    }

    /// Forgets values that are on the device now. What the export needs stays.
    pub fn forget_values(&mut self) {
        self.replaced.clear();
        for part in self.parts.iter_mut().filter(|part| part.name.is_trained()) {
            if let Some(own) = part.adapters.last_mut() {
                let own = Arc::make_mut(own);
                own.values.clear();
                own.replaced.retain(|name, _| !own.config.saves(name));
            }
        }
    }

    /// Whole tensors that the adapter's folder holds: those that were `trained`, and those that it brings
    /// untrained, the embedding of a larger vocabulary say.
    pub fn whole_tensors(
        &self,
        trained: BTreeMap<String, HostTensor>,
    ) -> BTreeMap<String, HostTensor> {
        let brought = self.policy().own().into_iter().flat_map(|adapter| &adapter.replaced);
        let mut all: BTreeMap<String, HostTensor> =
            brought.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        all.extend(trained);
        all
    }

    /// Bytes on the host while all that is `trained` is written: values are read back, and put together with
    /// what they stand on.
    pub fn saving_bytes(&self, trained: &[TrainedTensor]) -> usize {
        let numbers: usize = trained.iter().map(TrainedTensor::len).sum();
        let largest = trained.iter().map(TrainedTensor::len).max().unwrap_or(0);
        let frozen = self.policy().frozen();
        let below: usize = frozen.iter().map(|below| lengths(&below.values)).sum();
        // The one is put together from the others, one after another.
        let exported = frozen.len() * (numbers + below);
        4 * (numbers + exported + self.untrained_numbers() + largest)
    }

    /// Numbers in whole tensors that the adapter brings untrained.
    fn untrained_numbers(&self) -> usize {
        let own = self.policy().own().into_iter();
        let brought =
            own.flat_map(|own| own.replaced.iter().filter(|(name, _)| !own.config.saves(name)));
        brought.map(|(_, (shape, _))| shape.iter().product::<usize>()).sum()
    }

    /// Bytes of values that stay on the host throughout the run.
    pub fn kept_bytes(&self) -> usize {
        let mut frozen: Vec<&Arc<LoadedAdapter>> = Vec::new();
        for adapter in self.parts.iter().flat_map(PartSetup::frozen) {
            if !frozen.iter().any(|known| Arc::ptr_eq(known, adapter)) {
                frozen.push(adapter);
            }
        }
        let frozen: usize = frozen.into_iter().map(|adapter| lengths(&adapter.values)).sum();
        4 * (frozen + self.untrained_numbers())
    }

    /// The adapter that is written for others, from the trained one's values: put together with what it
    /// stands on, so that it works over the base as it is.
    pub fn exported(
        &self,
        config: &Config,
        values: Vec<Vec<f32>>,
    ) -> Result<Option<(LoraConfig, Vec<Vec<f32>>)>> {
        let Some(own) = self.policy().own() else { return Ok(None) };
        let (mut lora, mut values) = (own.config.clone(), values);
        for below in self.policy().frozen().iter().rev() {
            (lora, values) = lora.merged_with(&values, &below.config, &below.values, config)?;
        }
        Ok(Some((lora, values)))
    }
}

/// Whether two stacks are made of the same adapters, not of equal ones.
pub(crate) fn same(a: &[Arc<LoadedAdapter>], b: &[Arc<LoadedAdapter>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn lengths(values: &[Vec<f32>]) -> usize {
    values.iter().map(Vec::len).sum()
}
