//! Gradients of whole models equal finite differences of the f64 reference.

use compute::{Backend as _, Op, Parameter, Reference};
use model::{
    Adapter, Decoder, HeadGradients, HeadOutputs, HeadRequest, LoraConfig, Module, Pass,
    ScalarHead, Want,
};
use text::Batch;

use crate::support::{batch, random_sequence, random_tokens, tiny};

/// The outputs that a loss may depend on.
const KINDS: [&str; 6] = ["logprob", "entropy", "lse", "mean_logprob", "value", "hidden"];

struct Probe {
    backend: Reference,
    decoder: Decoder,
    adapter: Adapter,
    scalar: ScalarHead,
    batch: Batch,
    request: HeadRequest,
    dropout_key: Option<u64>,
}

/// Numbers in `-1..1` that depend on nothing but the seed.
fn draws(seed: u64, len: usize) -> Vec<f32> {
    let draw = |i| 2.0 * compute::random::uniform(compute::random::key(&[seed, i])) - 1.0;
    (0..len as u64).map(draw).collect()
}

fn weighted(weights: &[f32], values: &[f32]) -> f64 {
    assert_eq!(weights.len(), values.len());
    weights.iter().zip(values).map(|(&w, &v)| f64::from(w) * f64::from(v)).sum()
}

fn norm(values: &[f32]) -> f64 {
    weighted(values, values).sqrt()
}

fn unit(mut values: Vec<f32>) -> Vec<f32> {
    let norm = norm(&values) as f32;
    values.iter_mut().for_each(|value| *value /= norm);
    values
}

impl Probe {
    fn new(config: impl FnOnce(LoraConfig) -> LoraConfig, request: HeadRequest) -> Self {
        let mut backend = Reference::new();
        backend.reserve(64 << 20).unwrap();
        let (base, (lora, values)) = tiny("gqa");
        let decoder = Decoder::load(&base, &mut backend).unwrap();
        let config = config(lora.clone());
        let kept = lora.modules.keys().zip(values.chunks(2));
        let kept = kept.filter(|(key, _)| config.modules.contains_key(key));
        let values: Vec<Vec<f32>> = kept.flat_map(|(_, pair)| pair.to_vec()).collect();
        let adapter = Adapter::new(&mut backend, &decoder.config, config, &values, true).unwrap();
        let size = decoder.config.hidden_size;
        let parameter = backend.load_trained(1, size, &draws(9, size)).unwrap();
        let prefix = random_tokens(1, 6, 128);
        let row = |row, tail| {
            random_sequence(row, &[prefix.clone(), random_tokens(10 + row, tail, 128)].concat())
        };
        let rows = [row(0, 4), row(1, 3), random_sequence(2, &random_tokens(2, 5, 128))];
        let batch = batch(&rows, 4);
        assert_eq!(batch.segments.len(), 4);
        let scalar = ScalarHead { parameter };
        Probe { backend, decoder, adapter, scalar, batch, request, dropout_key: None }
    }

    /// The head's outputs, the final hidden states, and the gradient of the loss of `kind` if it is asked for.
    fn run(&mut self, kind: Option<&str>) -> (HeadOutputs, Vec<f32>) {
        let backend = &mut self.backend;
        let pass = Pass {
            adapter: Some(&self.adapter),
            keep: kind.is_some(),
            checkpoint: false,
            dropout_key: self.dropout_key,
        };
        let mut hidden = self.decoder.forward(backend, &self.batch, &pass).unwrap();
        let mut states = vec![0.0; hidden.normed.len];
        backend.read(hidden.normed, &mut states).unwrap();
        let scalar = Some(&self.scalar);
        let targets = &self.batch.targets;
        let outputs =
            self.decoder.head(backend, &mut hidden, targets, &self.request, scalar, None).unwrap();
        let Some(kind) = kind else {
            hidden.release(backend);
            return (outputs, states);
        };
        let reads = self.batch.reads.len();
        let given = |name: &str, len| (kind == name).then(|| draws(name.len() as u64, len));
        let gradients = HeadGradients {
            logprob: given("logprob", targets.len()),
            entropy: given("entropy", reads),
            lse: given("lse", reads),
            mean_logprob: given("mean_logprob", reads),
            value: given("value", reads),
            hidden: given("hidden", states.len()),
        };
        self.decoder.backward(backend, hidden, &gradients, scalar, &pass).unwrap();
        (outputs, states)
    }

    /// The losses of all kinds.
    fn losses(&mut self) -> Vec<f64> {
        let (outputs, states) = self.run(None);
        let HeadOutputs { logprob, entropy, lse, mean_logprob, value, .. } = &outputs;
        let loss = |(kind, values): (&&str, &Vec<f32>)| {
            weighted(&draws(kind.len() as u64, values.len()), values)
        };
        let values = [logprob, entropy, lse, mean_logprob, value, &states];
        KINDS.iter().zip(values).map(loss).collect()
    }

    fn parameters(&self) -> Vec<Parameter> {
        let mut all = self.adapter.parameters();
        all.push(self.scalar.parameter);
        all
    }

    fn gradients(&mut self, kind: &str) -> Vec<Vec<f32>> {
        self.run(Some(kind));
        let mut all = Vec::new();
        for parameter in self.parameters() {
            let mut gradient = vec![0.0; parameter.gradient.len];
            self.backend.read(parameter.gradient, &mut gradient).unwrap();
            self.backend.run(Op::Fill { out: parameter.gradient, value: 0.0 }).unwrap();
            all.push(gradient);
        }
        all
    }

    /// The losses where a matrix has moved by `step` along `direction`.
    fn losses_at(&mut self, parameter: Parameter, direction: &[f32], step: f64) -> Vec<f64> {
        let original = self.backend.read_f64(parameter.master);
        let moved = original.iter().zip(direction).map(|(value, d)| value + step * f64::from(*d));
        self.backend.upload_f64(&moved.collect::<Vec<_>>(), parameter.master);
        self.backend.run(Op::Refresh(&[parameter])).unwrap();
        let losses = self.losses();
        self.backend.upload_f64(&original, parameter.master);
        self.backend.run(Op::Refresh(&[parameter])).unwrap();
        losses
    }

    /// Compares, matrix by matrix, the derivative along a random direction with the difference of
    /// fourth order. What is left is the rounding of outputs to f32.
    fn check(&mut self) {
        let parameters = self.parameters();
        let gradients: Vec<Vec<Vec<f32>>> = KINDS.map(|kind| self.gradients(kind)).into();
        let step = 0.03;
        for (index, &parameter) in parameters.iter().enumerate() {
            let direction = unit(draws(1000 + index as u64, parameter.master.len));
            let [far_below, below, above, far_above] =
                [-2.0, -1.0, 1.0, 2.0].map(|n| self.losses_at(parameter, &direction, n * step));
            for (at, kind) in KINDS.iter().enumerate() {
                let near = 8.0 * (above[at] - below[at]);
                let difference = (near - far_above[at] + far_below[at]) / (12.0 * step);
                let gradient = &gradients[at][index];
                let analytic = weighted(&direction, gradient);
                // What a random direction sees of a gradient, on average.
                let size = norm(gradient) / (gradient.len() as f64).sqrt();
                let error = (difference - analytic).abs();
                assert!(
                    error < 3e-3 * size + 1e-5,
                    "{kind}, matrix {index}: {difference} is not {analytic}; size {size}"
                );
            }
            let moved = gradients.iter().any(|all| all[index].iter().any(|g| *g != 0.0));
            assert!(moved, "matrix {index} has no gradient");
        }
    }
}

fn everything() -> HeadRequest {
    let want = Want {
        logprob: true,
        entropy: true,
        lse: true,
        mean_logprob: true,
        value: true,
        ..Want::default()
    };
    HeadRequest { want, ..HeadRequest::logprobs() }
}

#[test]
fn every_output_has_its_gradient() {
    Probe::new(|config| config, everything()).check();
}

#[test]
fn logits_may_be_scaled_capped_and_tempered() {
    let request = HeadRequest { temperature: 0.7, softcap: Some(4.0), scale: 0.9, ..everything() };
    Probe::new(|config| config, request).check();
}

#[test]
fn dropout_has_its_gradient() {
    let mut probe = Probe::new(|config| LoraConfig { dropout: 0.3, ..config }, everything());
    let before = probe.losses();
    probe.dropout_key = Some(17);
    assert_ne!(probe.losses(), before);
    probe.check();
}

#[test]
fn some_modules_of_some_layers() {
    let part = |mut config: LoraConfig| {
        config.modules.retain(|&(layer, module), _| {
            (layer == 1 && module != Module::Q) || module == Module::V
        });
        LoraConfig { dropout: 0.2, ..config }
    };
    let mut probe = Probe::new(part, everything());
    probe.dropout_key = Some(1);
    probe.check();
}
