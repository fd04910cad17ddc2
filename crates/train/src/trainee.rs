//! What a run trains: an adapter over a frozen base, tensors of the base itself, or both.

use std::collections::BTreeMap;

use compute::{Backend, Quantization};
use model::adapter::LoadedAdapter;
use model::tensor::{HostTensor, read_tensors};
use model::{
    Adapter, Base, Config, Decoder, LoadOptions, LoraConfig, Optimizers, Selection, TrainedTensor,
    Training,
};

use crate::Result;

/// Everything that decides what is trained, on the host.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The trained adapter as it stands; none where the base itself is trained.
    pub adapter: Option<LoadedAdapter>,
    /// A frozen adapter that it stands on.
    pub below: Option<LoadedAdapter>,
    /// The values that a PiSSA adapter began with.
    pub initial: Option<Vec<Vec<f32>>>,
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

/// A model in training on a device.
pub struct Trainee {
    /// The base.
    pub decoder: Decoder,
    /// What is trained over it.
    pub adapter: Option<Adapter>,
}

/// What is trained, read back to the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// The adapter's matrices in the order of [`LoraConfig::matrices`].
    pub adapter: Vec<Vec<f32>>,
    /// Tensors of the base by name.
    pub tensors: BTreeMap<String, HostTensor>,
}

impl Blueprint {
    /// The decoder's shape, added tokens included.
    pub fn config(&self, base: &Base) -> Config {
        let mut config = base.config.clone();
        config.vocab_size = self.vocab_size.unwrap_or(config.vocab_size);
        config
    }

    /// Puts everything on a device.
    pub fn load(&self, base: &Base, backend: &mut dyn Backend) -> Result<Trainee> {
        let decoder = Decoder::load_with(base, backend, &self.options(base)?)?;
        let Some(own) = &self.adapter else { return Ok(Trainee { decoder, adapter: None }) };
        let below = match &self.below {
            Some(below) => {
                let config = below.config.clone();
                Some(Adapter::new(backend, &decoder, config, &below.values, None)?)
            }
            None => None,
        };
        let training = Some(self.optimizers);
        let adapter = Adapter::new(backend, &decoder, own.config.clone(), &own.values, training)?;
        let adapter = match below {
            Some(below) => adapter.over(below),
            None => adapter,
        };
        Ok(Trainee { decoder, adapter: Some(adapter) })
    }

    fn options(&self, base: &Base) -> Result<LoadOptions> {
        let optimizers = self.optimizers;
        let mut options = match &self.adapter {
            Some(adapter) => adapter.options_with(
                base,
                self.quantization,
                Some(optimizers),
                self.initial.as_deref(),
            )?,
            None => LoadOptions { quantization: self.quantization, ..LoadOptions::default() },
        };
        if let Some(tensors) = self.tensors.clone() {
            options.training = Some(Training { tensors, optimizers });
        }
        options.replaced.extend(self.replaced.clone());
        options.vocab_size = self.vocab_size;
        Ok(options)
    }

    /// Forgets values that are on the device now. What the export needs stays.
    pub fn forget_values(&mut self) {
        self.replaced.clear();
        if let Some(adapter) = &mut self.adapter {
            adapter.values.clear();
            let config = &adapter.config;
            adapter.replaced.retain(|name, _| !config.saves(name));
        }
    }

    /// Whole tensors that the adapter's folder holds: those that were `trained`, and those that it brings
    /// untrained, the embedding of a larger vocabulary say.
    pub fn whole_tensors(
        &self,
        trained: BTreeMap<String, HostTensor>,
    ) -> BTreeMap<String, HostTensor> {
        let brought = self.adapter.iter().flat_map(|adapter| &adapter.replaced);
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
        let exported = match (&self.initial, &self.below) {
            // Twice the rank: what was trained and, negative, what it began with.
            (Some(_), None) => 2 * numbers,
            // The one is put together from the other.
            (Some(_), Some(below)) => 4 * numbers + lengths(&below.values),
            (None, Some(below)) => numbers + lengths(&below.values),
            (None, None) => 0,
        };
        4 * (numbers + exported + self.untrained_numbers() + largest)
    }

    /// Numbers in whole tensors that the adapter brings untrained.
    fn untrained_numbers(&self) -> usize {
        let brought = self
            .adapter
            .iter()
            .flat_map(|own| own.replaced.iter().filter(move |(name, _)| !own.config.saves(name)));
        brought.map(|(_, (shape, _))| shape.iter().product::<usize>()).sum()
    }

    /// Bytes of values that stay on the host throughout the run.
    pub fn kept_bytes(&self) -> usize {
        let below = self.below.as_ref().map_or(0, |below| lengths(&below.values));
        4 * (below + self.untrained_numbers() + self.initial.as_deref().map_or(0, lengths))
    }

    /// The adapter that is written for others, from the trained one's values: put together with what it
    /// stands on, so that it works over the base as it is.
    pub fn exported(
        &self,
        config: &Config,
        values: Vec<Vec<f32>>,
    ) -> Result<Option<(LoraConfig, Vec<Vec<f32>>)>> {
        let Some(own) = &self.adapter else { return Ok(None) };
        let (lora, values) = match &self.initial {
            Some(initial) => own.config.without_pissa(&values, initial, config),
            None => (own.config.clone(), values),
        };
        let Some(below) = &self.below else { return Ok(Some((lora, values))) };
        Ok(Some(lora.merged_with(&values, &below.config, &below.values, config)?))
    }
}

fn lengths(values: &[Vec<f32>]) -> usize {
    values.iter().map(Vec::len).sum()
}

impl Trainee {
    /// All that is trained: tensors of the base, then the adapter's.
    pub fn trained(&self) -> Vec<TrainedTensor> {
        let own = self.adapter.iter().flat_map(|adapter| adapter.trained());
        self.decoder.trained().iter().chain(own).cloned().collect()
    }

    /// Reads all that is trained back.
    pub fn values(&self, backend: &mut dyn Backend) -> Result<Values> {
        let adapter = match &self.adapter {
            Some(adapter) => adapter.values(backend, &self.decoder)?,
            None => Vec::new(),
        };
        Ok(Values { adapter, tensors: read_tensors(backend, self.decoder.trained())? })
    }

    /// Brings what follows from the trained values up to them: after a step or after values were written.
    pub fn refresh(&self, backend: &mut dyn Backend) -> Result<()> {
        if let Some(adapter) = &self.adapter {
            adapter.refresh(backend, &self.decoder)?;
        }
        Ok(())
    }
}
