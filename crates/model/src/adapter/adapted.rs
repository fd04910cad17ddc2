//! A base with an adapter over it, loaded as the adapter asks.

use std::sync::Arc;

use compute::{Backend, Measure, Quantization};

use super::{Adapter, LoadedAdapter};
use crate::architecture::{EMBEDDING, HEAD};
use crate::tensor::{HostTensor, Optimizers};
use crate::{Base, Config, Decoder, LoadOptions, Result, Selection, Training};

impl LoadedAdapter {
    /// How a base is to be loaded under this adapter: whole tensors that it brings take the place of the
    /// base's, and are trained with it.
    pub fn options(
        &self,
        base: &Base,
        quantization: Option<Quantization>,
        training: Option<Optimizers>,
    ) -> LoadOptions {
        let modules = self.config.modules_to_save.clone();
        let trained = training.filter(|_| !modules.is_empty());
        LoadOptions {
            quantization,
            training: trained
                .map(|optimizers| Training { tensors: Selection::Modules(modules), optimizers }),
            replaced: self.replaced.clone(),
            unties_head: self.config.unties_head(&base.config),
            vocab_size: self.vocab_size(&base.config),
            writes_tokens: !self.config.tokens.is_empty(),
        }
    }

    /// Loads `base` with this adapter over it on a device that only counts. Tensors have shapes and no numbers:
    /// those of whole modules are large, and those that PiSSA began with take long to find.
    pub(crate) fn load_counted(
        &self,
        base: &Base,
        measure: &mut Measure,
        quantization: Option<Quantization>,
    ) -> Result<(Decoder, Adapter)> {
        let shape =
            |(name, (shape, _)): (&String, &HostTensor)| (name.clone(), (shape.clone(), vec![]));
        let replaced = self.replaced.iter().map(shape).collect();
        let shapes = LoadedAdapter { config: self.config.clone(), values: vec![], replaced };
        let options = shapes.options(base, quantization, None);
        let decoder = Decoder::load_with(base, measure, &options)?;
        let config = self.config.clone();
        let mut adapter = Adapter::new(measure, &decoder, config, &self.values, None)?;
        if self.config.pissa {
            let below = self.config.counterweight(&self.values, &base.config);
            let below = Adapter::new(measure, &decoder, below.config, &below.values, None)?;
            adapter = adapter.over(Arc::new(below));
        }
        Ok((decoder, adapter))
    }

    /// Rows of embedding and head under this adapter, where they are not as many as the base has: tokens were
    /// added, or the vocabulary was cut to those that there are.
    pub fn vocab_size(&self, base: &Config) -> Option<usize> {
        let brought = |name| self.replaced.get(name).and_then(|(shape, _)| shape.first().copied());
        let whole = brought(EMBEDDING).max(brought(HEAD)).unwrap_or(base.vocab_size);
        let tokens = self.config.tokens.last().map_or(0, |&token| token as usize + 1);
        Some(whole.max(tokens)).filter(|&rows| rows != base.vocab_size)
    }

    /// Loads `base` with this adapter over it, active.
    pub fn load(
        self,
        base: &Base,
        backend: &mut dyn Backend,
        quantization: Option<Quantization>,
        training: Option<Optimizers>,
    ) -> Result<(Decoder, Adapter)> {
        let below = self.beginning(base)?;
        let options = self.options(base, quantization, training);
        let decoder = Decoder::load_with(base, backend, &options)?;
        let mut adapter = Adapter::new(backend, &decoder, self.config, &self.values, training)?;
        if let Some(below) = below {
            let below = Adapter::new(backend, &decoder, below.config, &below.values, None)?;
            adapter = adapter.over(Arc::new(below));
        }
        adapter.activate(backend, &decoder)?;
        Ok((decoder, adapter))
    }
}
