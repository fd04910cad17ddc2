//! What answering takes, found by running its largest step on a device that only counts.

use compute::{Backend, Measure, Quantization};
use text::Batch;

use super::batcher::run_largest;
use super::{Model, Prompt, Room};
use crate::adapter::LoadedAdapter;
use crate::{Adapter, Base, Config, Decoder, LoadOptions, Pass, Result, ScalarHead};

/// Bytes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Base and adapter.
    pub weights: usize,
    /// Keys and values of the sequences that run at the same time.
    pub cache: usize,
    /// The height of the stack above the cache, which lies on it too.
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
        self.demand_of(&Room::for_prompts(prompts, max_active, self.config()))
    }

    /// What a forward pass over a batch takes, with a scalar head of these values, `[N, C]`, at its reads.
    pub fn demand_of_scores(&self, batch: &Batch, head: &[f32]) -> Result<Demand> {
        let mut measure = self.measure.clone();
        let outputs = head.len() / self.decoder.config.hidden_size;
        let scalar = ScalarHead::with_outputs(&mut measure, head, outputs, None)?;
        let pass = Pass { adapter: self.adapter.as_ref(), ..Pass::default() };
        self.decoder.scores(&mut measure, batch, &scalar, &pass)?;
        let report = measure.report();
        Ok(Demand {
            weights: report.weight_bytes + report.static_bytes,
            cache: 0,
            activations: report.stack_peak_bytes,
            workspace: report.workspace_bytes,
        })
    }

    /// What a batcher with this room takes.
    pub fn demand_of(&self, room: &Room) -> Result<Demand> {
        let mut measure = self.measure.clone();
        let model = Model { decoder: &self.decoder, parts: &[self.adapter.as_ref()] };
        let cache = run_largest(model, &mut measure, room)?.0;
        let report = measure.report();
        Ok(Demand {
            weights: report.weight_bytes + report.static_bytes,
            cache,
            activations: report.stack_peak_bytes - cache,
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

    /// What is still wanted where the weights are loaded and the stack has so many bytes.
    pub fn beyond(self, reserved: usize) -> Self {
        let cache = self.cache.saturating_sub(reserved);
        let activations = self.activations.saturating_sub(reserved.saturating_sub(self.cache));
        Demand { weights: 0, cache, activations, ..self }
    }

    /// All together.
    pub fn total(&self) -> usize {
        self.kinds().iter().map(|(_, bytes)| bytes).sum()
    }
}
