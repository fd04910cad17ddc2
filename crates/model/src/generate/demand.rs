//! What answering takes, found by running its largest step on a device that only counts.

use compute::{Backend, Measure, Quantization};

use super::{Cache, GenerateConfig, Lanes, PREFILL_TOKENS, Prompt, step};
use crate::adapter::LoadedAdapter;
use crate::{Adapter, Base, Config, Decoder, LoadOptions, Result};

/// Bytes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Base and adapter.
    pub weights: usize,
    /// Keys and values of the sequences that run at the same time.
    pub cache: usize,
    /// The height of the stack.
    pub activations: usize,
    /// What kernels work in.
    pub workspace: usize,
}

/// A model on a device that only counts: no weight is read.
pub struct Counted {
    decoder: Decoder,
    adapter: Option<Adapter>,
    measure: Measure,
}

impl Counted {
    /// A base with an adapter over it, as [`LoadedAdapter::load`] would load it.
    pub fn new(
        base: &Base,
        adapter: Option<&LoadedAdapter>,
        quantization: Option<Quantization>,
        backend: &dyn Backend,
    ) -> Result<Self> {
        let mut measure = Measure::of(backend);
        let (decoder, adapter) = match adapter {
            Some(adapter) => {
                let (decoder, adapter) = adapter.load_counted(base, &mut measure, quantization)?;
                (decoder, Some(adapter))
            }
            None => {
                let options = LoadOptions { quantization, ..LoadOptions::default() };
                (Decoder::load_with(base, &mut measure, &options)?, None)
            }
        };
        Ok(Counted { decoder, adapter, measure })
    }

    /// The decoder's shape, with the tokens that the adapter adds.
    pub fn config(&self) -> &Config {
        &self.decoder.config
    }

    /// What it takes to answer these prompts, at most `max_active` of them at the same time.
    pub fn demand(&self, prompts: &[Prompt], max_active: usize) -> Result<Demand> {
        let mut measure = self.measure.clone();
        let loaded = measure.report();
        let lanes = Lanes::new(prompts, max_active, self.decoder.config.long_beyond());
        let cache = Cache::new(&self.decoder, &mut measure, lanes.slots())?;
        let cached = measure.report().static_bytes - loaded.static_bytes;
        let work = lanes.largest_work(PREFILL_TOKENS);
        let (layers, adapter) = (&cache.layers, self.adapter.as_ref());
        step(&self.decoder, &mut measure, adapter, &work, layers, &GenerateConfig::default())?;
        let report = measure.report();
        Ok(Demand {
            weights: loaded.weight_bytes + loaded.static_bytes,
            cache: cached,
            activations: report.stack_peak_bytes,
            workspace: report.workspace_bytes,
        })
    }
}

impl Demand {
    /// Every kind by name.
    pub fn kinds(&self) -> [(&'static str, usize); 4] {
        [
            ("weights", self.weights),
            ("cache", self.cache),
            ("activations", self.activations),
            ("workspace", self.workspace),
        ]
    }

    /// All together.
    pub fn total(&self) -> usize {
        self.kinds().iter().map(|(_, bytes)| bytes).sum()
    }
}
