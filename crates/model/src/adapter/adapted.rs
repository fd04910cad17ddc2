//! A base with an adapter over it, loaded as the adapter asks.

use compute::{Backend, Quantization};

use super::{Adapter, EMBEDDING, HEAD, LoadedAdapter};
use crate::tensor::{HostTensor, Optimizers};
use crate::{Base, Config, Decoder, LoadOptions, LowRank, Result, Selection, Training};

impl LoadedAdapter {
    /// How a base is to be loaded under this adapter: whole tensors that it brings take the place of the
    /// base's, and are trained with it.
    pub fn options(
        &self,
        base: &Base,
        quantization: Option<Quantization>,
        training: Option<Optimizers>,
    ) -> Result<LoadOptions> {
        let subtracted = self.config.principal_products(base)?;
        Ok(LoadOptions { subtracted, ..self.options_less(base, quantization, training) })
    }

    /// As [`options`](LoadedAdapter::options), for a device that only counts. Tensors have shapes and no
    /// numbers: those of whole modules are large, and those of PiSSA take long to find.
    pub(crate) fn counted_options(
        &self,
        base: &Base,
        quantization: Option<Quantization>,
    ) -> LoadOptions {
        let nothing = LowRank { rank: 0, a: Vec::new(), b: Vec::new() };
        let keys = self.config.modules.keys().filter(|_| self.config.pissa);
        let subtracted = keys.map(|&key| (key, nothing.clone())).collect();
        let shape =
            |(name, (shape, _)): (&String, &HostTensor)| (name.clone(), (shape.clone(), vec![]));
        LoadOptions {
            quantization,
            training: None,
            replaced: self.replaced.iter().map(shape).collect(),
            unties_head: self.config.unties_head(&base.config),
            subtracted,
            vocab_size: self.vocab_size(&base.config),
            writes_tokens: !self.config.tokens.is_empty(),
        }
    }

    /// As [`options`](LoadedAdapter::options), for a PiSSA adapter that began with the values `initial`.
    pub fn options_with(
        &self,
        base: &Base,
        quantization: Option<Quantization>,
        training: Option<Optimizers>,
        initial: Option<&[Vec<f32>]>,
    ) -> Result<LoadOptions> {
        let Some(initial) = initial else { return self.options(base, quantization, training) };
        let subtracted = self.config.principal_products_from(initial, &base.config);
        Ok(LoadOptions { subtracted, ..self.options_less(base, quantization, training) })
    }

    /// Rows of embedding and head under this adapter, where they are not as many as the base has: tokens were
    /// added, or the vocabulary was cut to those that there are.
    pub fn vocab_size(&self, base: &Config) -> Option<usize> {
        let brought = |name| self.replaced.get(name).and_then(|(shape, _)| shape.first().copied());
        let whole = brought(EMBEDDING).max(brought(HEAD)).unwrap_or(base.vocab_size);
        let tokens = self.config.tokens.last().map_or(0, |&token| token as usize + 1);
        Some(whole.max(tokens)).filter(|&rows| rows != base.vocab_size)
    }

    fn options_less(
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
            subtracted: Default::default(),
            vocab_size: self.vocab_size(&base.config),
            writes_tokens: !self.config.tokens.is_empty(),
        }
    }

    /// Loads `base` with this adapter over it, active.
    pub fn load(
        self,
        base: &Base,
        backend: &mut dyn Backend,
        quantization: Option<Quantization>,
        training: Option<Optimizers>,
    ) -> Result<(Decoder, Adapter)> {
        let options = self.options(base, quantization, training)?;
        let decoder = Decoder::load_with(base, backend, &options)?;
        let adapter = Adapter::new(backend, &decoder, self.config, &self.values, training)?;
        adapter.activate(backend, &decoder)?;
        Ok((decoder, adapter))
    }
}
