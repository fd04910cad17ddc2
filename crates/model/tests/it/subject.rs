//! A model of any family on a backend, frozen, adapted or trained as a whole.

use std::collections::BTreeMap;

use compute::{Backend, Op, Parameter, Quantization};
use model::tensor::read_gradients;
use model::{
    Adapter, Base, Decoder, HeadGradients, HeadOutputs, HeadRequest, LoadOptions, Optimizers, Pass,
    Selection, Training,
};
use text::Batch;

use crate::support::{How, Lora, golden};

/// What of a model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trained {
    Nothing,
    /// The adapter.
    Lora,
    /// The adapter with magnitudes, which are those of the base.
    Dora,
    /// Every tensor of the base.
    All,
}

/// A model on a backend.
pub(crate) struct Subject {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) decoder: Decoder,
    pub(crate) adapter: Option<Adapter>,
}

/// Gradients by tensor.
pub(crate) type Gradients = BTreeMap<String, Vec<f32>>;

impl Subject {
    pub(crate) fn new(
        mut backend: Box<dyn Backend>,
        base: &Base,
        lora: &Lora,
        trained: Trained,
        quantization: Option<Quantization>,
    ) -> Self {
        let training = Training { tensors: Selection::All, optimizers: Optimizers::ADAMW };
        let training = (trained == Trained::All).then_some(training);
        let options = LoadOptions { training, quantization, ..LoadOptions::default() };
        let decoder = Decoder::load_with(base, &mut *backend, &options).unwrap();
        let (mut config, mut values) = lora.clone();
        if trained == Trained::Dora {
            config.dora = true;
            values = values.chunks(2).flat_map(|pair| [pair, &[Vec::new()]].concat()).collect();
        }
        let training = Some(Optimizers::ADAMW);
        let adapter = match trained {
            Trained::Nothing | Trained::All => None,
            Trained::Lora | Trained::Dora => {
                Some(Adapter::new(&mut *backend, &decoder, config, &values, training).unwrap())
            }
        };
        Subject { backend, decoder, adapter }
    }

    /// What the head says of the model as it is trained.
    pub(crate) fn outputs(&mut self, batch: &Batch, request: &HeadRequest) -> HeadOutputs {
        let pass = Pass { adapter: self.adapter.as_ref(), ..Pass::default() };
        let (decoder, backend) = (&self.decoder, &mut *self.backend);
        let mut hidden = decoder.forward(backend, batch, &pass).unwrap();
        let targets = &batch.targets;
        let outputs =
            decoder.head(backend, &mut hidden, targets, request, None, None, &pass).unwrap();
        hidden.release(backend);
        outputs
    }

    /// Log-probabilities of the targets.
    pub(crate) fn logprobs(&mut self, batch: &Batch) -> Vec<f32> {
        self.outputs(batch, &HeadRequest::logprobs()).logprob
    }

    /// Adds the gradient of the mean loss over the targets' weights, `total` in all; returns the
    /// log-probabilities.
    pub(crate) fn accumulate(&mut self, batch: &Batch, total: f32, how: How) -> Vec<f32> {
        self.step(std::slice::from_ref(batch), total, how)
    }

    /// The same over the micro-batches of a step.
    pub(crate) fn step(&mut self, micros: &[Batch], total: f32, how: How) -> Vec<f32> {
        let (decoder, adapter) = (&self.decoder, self.adapter.as_ref());
        let start = self.backend.mark();
        let tokens = micros.iter().flat_map(|batch| batch.tokens.iter().copied());
        let lookups = decoder.begin_step(&mut *self.backend, adapter, tokens).unwrap();
        let backend = &mut *self.backend;
        let pass = &Pass { adapter, keep: how.keep(), lookups: Some(&lookups), ..how.pass() };
        let logprobs = micros.iter().map(|batch| one(backend, decoder, batch, pass, total, how));
        let logprobs = logprobs.collect::<Vec<_>>().concat();
        lookups.finish(backend).unwrap();
        assert_eq!(self.backend.mark(), start, "the stack is back where it began");
        logprobs
    }

    /// Reads the gradients of all that is trained and sets them to zero.
    pub(crate) fn take_gradients(&mut self) -> Gradients {
        let trained = match &self.adapter {
            Some(adapter) => adapter.trained(),
            None => self.decoder.trained(),
        };
        let gradients = read_gradients(&mut *self.backend, trained).unwrap();
        for tensor in trained {
            let Parameter { gradient: out, .. } = tensor.parameter;
            self.backend.run(Op::Fill { out, value: 0.0 }).unwrap();
        }
        gradients.into_iter().map(|(name, (_, values))| (name, values)).collect()
    }
}

/// One micro-batch of a step.
fn one(
    backend: &mut dyn Backend,
    decoder: &Decoder,
    batch: &Batch,
    pass: &Pass<'_>,
    total: f32,
    How { one_pass, .. }: How,
) -> Vec<f32> {
    let weights: Vec<f32> = batch.targets.iter().map(|t| -t.weight / total).collect();
    let request = HeadRequest::logprobs();
    let mut hidden = decoder.forward(backend, batch, pass).unwrap();
    let known = one_pass.then_some(weights.as_slice());
    let targets = &batch.targets;
    let outputs = decoder.head(backend, &mut hidden, targets, &request, None, known, pass).unwrap();
    let logprob = (!one_pass).then(|| weights.clone());
    let gradients = HeadGradients { logprob, ..HeadGradients::default() };
    decoder.backward(backend, hidden, &gradients, None, pass).unwrap();
    outputs.logprob
}

/// Every folder of a small model, below `tests/golden`.
pub(crate) fn families() -> Vec<String> {
    let entries = std::fs::read_dir(golden("architectures")).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        format!("architectures/{}", entry.unwrap().file_name().into_string().unwrap())
    };
    let mut families: Vec<String> = entries.map(name).collect();
    families.sort_unstable();
    families.push("tiny_llama/gqa".into());
    families
}
