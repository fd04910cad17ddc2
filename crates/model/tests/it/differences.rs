//! Gradients of whole models equal finite differences of the f64 reference.

use std::collections::BTreeMap;

use compute::op::Activation;
use compute::{Backend as _, Op, Parameter, Reference};
use model::adapter::LoadedAdapter;
use model::config::{Biases, LayerConfig, Norms, QkNorm, Rope};
use model::{
    Adapter, Base, Config, Decoder, HeadGradients, HeadOutputs, HeadRequest, Keep, LoadOptions,
    LoraConfig, Module, Optimizers, Pass, Role, ScalarHead, Selection, Training, Want,
};
use serde_json::json;
use text::Batch;

use crate::gguf_file::{Numbers, write_folder};
use crate::support::{batch, random_sequence, random_tokens, tiny};

/// The outputs that a loss may depend on.
const KINDS: [&str; 6] = ["logprob", "entropy", "lse", "mean_logprob", "value", "hidden"];

struct Probe {
    backend: Reference,
    decoder: Decoder,
    adapter: Option<Adapter>,
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
    /// A tiny Llama under an adapter.
    fn new(config: impl FnOnce(LoraConfig) -> LoraConfig, request: HeadRequest) -> Self {
        Self::adapted("gqa", config, request)
    }

    /// A tiny model under an adapter; what follows from the base is made of it.
    fn adapted(
        case: &str,
        config: impl FnOnce(LoraConfig) -> LoraConfig,
        request: HeadRequest,
    ) -> Self {
        let mut backend = Reference::new();
        backend.reserve(64 << 20).unwrap();
        let (base, (lora, values)) = tiny(case);
        let named = lora.matrices(&base.config).into_iter().map(|info| info.name).zip(values);
        let mut named: BTreeMap<String, Vec<f32>> = named.collect();
        let config = config(lora);
        let values: Vec<Vec<f32>> = config
            .matrices(&base.config)
            .iter()
            .map(|info| named.remove(&info.name).unwrap_or_default())
            .collect();
        let loaded = LoadedAdapter { config, values, replaced: BTreeMap::new() };
        let training = Some(Optimizers::ADAMW);
        let (decoder, adapter) = loaded.load(&base, &mut backend, None, training).unwrap();
        Self::over(backend, decoder, Some(adapter), request)
    }

    /// A model of which everything is trained.
    fn whole(base: &Base, request: HeadRequest) -> Self {
        let mut backend = Reference::new();
        backend.reserve(64 << 20).unwrap();
        let training = Training { tensors: Selection::All, optimizers: Optimizers::ADAMW };
        let options = LoadOptions { training: Some(training), ..LoadOptions::default() };
        let decoder = Decoder::load_with(base, &mut backend, &options).unwrap();
        Self::over(backend, decoder, None, request)
    }

    fn over(
        mut backend: Reference,
        decoder: Decoder,
        adapter: Option<Adapter>,
        request: HeadRequest,
    ) -> Self {
        let size = decoder.config.hidden_size;
        let training = Some(Optimizers::ADAMW);
        let scalar = ScalarHead::new(&mut backend, &draws(9, size), training).unwrap();
        let tokens = |seed, len| random_tokens(seed, len, decoder.config.vocab_size as u32);
        let prefix = tokens(1, 6);
        let row =
            |row, tail| random_sequence(row, &[prefix.clone(), tokens(10 + row, tail)].concat());
        let rows = [row(0, 4), row(1, 3), random_sequence(2, &tokens(2, 5))];
        let batch = batch(&rows, 4);
        assert_eq!(batch.segments.len(), 4);
        Probe { backend, decoder, adapter, scalar, batch, request, dropout_key: None }
    }

    /// The head's outputs, the final hidden states, and the gradient of the loss of `kind` if it is asked for.
    fn run(&mut self, kind: Option<&str>) -> (HeadOutputs, Vec<f32>) {
        let backend = &mut self.backend;
        let (start, adapter) = (backend.mark(), self.adapter.as_ref());
        let tokens = self.batch.tokens.iter().copied();
        let lookups = self.decoder.begin_step(backend, adapter, tokens).unwrap();
        let pass = Pass {
            adapter,
            keep: if kind.is_some() { Keep::All } else { Keep::Nothing },
            dropout_key: self.dropout_key,
            lookups: Some(&lookups),
        };
        let mut hidden = self.decoder.forward(backend, &self.batch, &pass).unwrap();
        let mut states = vec![0.0; hidden.normed.len];
        backend.read(hidden.normed, &mut states).unwrap();
        let scalar = Some(&self.scalar);
        let targets = &self.batch.targets;
        let outputs = self
            .decoder
            .head(backend, &mut hidden, targets, &self.request, scalar, None, &pass)
            .unwrap();
        let Some(kind) = kind else {
            hidden.release(backend);
            backend.release(start);
            return (outputs, states);
        };
        let reads = self.batch.reads.len();
        let given = |name: &str, len| (kind == name).then(|| draws(name.len() as u64, len));
        let gradients = HeadGradients {
            logprob: given("logprob", targets.len()),
            entropy: given("entropy", reads),
            lse: given("lse", reads),
            mean_logprob: given("mean_logprob", reads),
            value: given("value", reads * self.scalar.outputs()),
            hidden: given("hidden", states.len()),
        };
        self.decoder.backward(backend, hidden, &gradients, scalar, &pass).unwrap();
        lookups.finish(backend).unwrap();
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

    /// All that is trained, by name.
    fn parameters(&self) -> Vec<(String, Role, Parameter)> {
        let trained = match &self.adapter {
            Some(adapter) => adapter.trained(),
            None => self.decoder.trained(),
        };
        let named =
            trained.iter().map(|tensor| (tensor.name.clone(), tensor.role, tensor.parameter));
        let scalar = self.scalar.trained().unwrap();
        named.chain([("scalar head".into(), Role::Scalar, scalar.parameter)]).collect()
    }

    /// Makes what follows from a parameter anew. DoRA's norms follow from its matrices, but are constants
    /// to the gradient, and so they stay.
    fn refresh(&mut self, role: Role, parameter: Parameter) {
        self.backend.run(Op::Refresh(&[parameter])).unwrap();
        if let (Some(adapter), Role::Magnitude | Role::Tokens) = (&self.adapter, role) {
            adapter.refresh(&mut self.backend, &self.decoder).unwrap();
            adapter.activate(&mut self.backend, &self.decoder).unwrap();
        }
    }

    fn gradients(&mut self, kind: &str) -> Vec<Vec<f32>> {
        self.run(Some(kind));
        let mut all = Vec::new();
        for (_, _, parameter) in self.parameters() {
            let mut gradient = vec![0.0; parameter.gradient.len];
            self.backend.read(parameter.gradient, &mut gradient).unwrap();
            self.backend.run(Op::Fill { out: parameter.gradient, value: 0.0 }).unwrap();
            all.push(gradient);
        }
        all
    }

    /// The losses where a matrix has moved by `step` along `direction`.
    fn losses_at(
        &mut self,
        role: Role,
        parameter: Parameter,
        direction: &[f32],
        step: f64,
    ) -> Vec<f64> {
        let original = self.backend.read_f64(parameter.master);
        let moved = original.iter().zip(direction).map(|(value, d)| value + step * f64::from(*d));
        self.backend.upload_f64(&moved.collect::<Vec<_>>(), parameter.master);
        self.refresh(role, parameter);
        let losses = self.losses();
        self.backend.upload_f64(&original, parameter.master);
        self.refresh(role, parameter);
        losses
    }

    /// Compares, matrix by matrix, the derivative along a random direction with the difference of
    /// fourth order. What is left is the rounding of outputs to f32.
    fn check(&mut self) {
        let parameters = self.parameters();
        let gradients: Vec<Vec<Vec<f32>>> = KINDS.map(|kind| self.gradients(kind)).into();
        let step = 0.015;
        for (index, (name, role, parameter)) in parameters.iter().enumerate() {
            let direction = unit(draws(1000 + index as u64, parameter.master.len));
            let [far_below, below, above, far_above] = [-2.0, -1.0, 1.0, 2.0]
                .map(|n| self.losses_at(*role, *parameter, &direction, n * step));
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
                    "{kind}, {name}: {difference} is not {analytic}; size {size}"
                );
            }
            let moved = gradients.iter().any(|all| all[index].iter().any(|g| *g != 0.0));
            assert!(moved, "{name} has no gradient");
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

/// A head of three classes: its own gradient and the one that goes down.
#[test]
fn every_class_has_its_gradient() {
    let mut probe = Probe::new(|config| config, everything());
    let (size, training) = (probe.decoder.config.hidden_size, Some(Optimizers::ADAMW));
    let values = draws(11, 3 * size);
    probe.scalar = ScalarHead::with_outputs(&mut probe.backend, &values, 3, training).unwrap();
    assert_eq!(probe.scalar.outputs(), 3);
    probe.check();
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

#[test]
fn magnitudes_have_their_gradient_and_pass_the_others_on() {
    let dora = |config: LoraConfig| LoraConfig { dora: true, dropout: 0.2, ..config };
    let mut probe = Probe::new(dora, everything());
    probe.dropout_key = Some(3);
    let magnitudes = probe.parameters().iter().filter(|p| p.1 == Role::Magnitude).count();
    assert_eq!(magnitudes, 2 * 7);
    probe.check();
}

/// Tokens that the batch reads and others, in embedding and head.
#[test]
fn rows_of_tokens_have_their_gradient() {
    for (case, parts) in [("gqa", 2), ("tied", 1)] {
        let vocab = tiny(case).0.config.vocab_size as u32;
        let tokens = |config: LoraConfig| {
            // As the prefix of the batch.
            let mut tokens = random_tokens(1, 6, vocab);
            tokens.extend([0, 5]);
            tokens.sort_unstable();
            tokens.dedup();
            LoraConfig { tokens, ..config }
        };
        let mut probe = Probe::adapted(case, tokens, everything());
        let rows = probe.parameters().iter().filter(|p| p.1 == Role::Tokens).count();
        assert_eq!(rows, parts, "{case}");
        probe.check();
    }
}

/// What any family has, in one: windows, soft caps, biases, factors, heads that are rotated in part.
fn everything_at_once() -> Config {
    let json = json!({
        "model_type": "llama", "hidden_size": 12, "intermediate_size": 10, "vocab_size": 23,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
    });
    let rope = |inv_freq: &[f32]| Rope {
        rotary_dim: 2 * inv_freq.len(),
        inv_freq: inv_freq.to_vec(),
        long: None,
        attention_scale: 1.1,
        max_positions: None,
    };
    Config {
        ropes: vec![rope(&[1.0, 0.3]), rope(&[0.7, 0.2, 0.1])],
        layers: vec![
            LayerConfig { rope: Some(0), window: Some(3) },
            LayerConfig { rope: None, window: None },
            LayerConfig { rope: Some(1), window: Some(4) },
        ],
        activation: Activation::GeluTanh,
        biases: Biases { qkv: true, output: true, mlp: true },
        embedding_scale: 2.0,
        residual_scale: 0.6,
        attention_scale: 0.5,
        attention_softcap: Some(1.5),
        logit_scale: 0.8,
        logit_softcap: Some(2.0),
        ..Config::from_json(&json, "config.json".as_ref()).unwrap()
    }
}

/// A folder with every tensor that such a config may ask for, opened as that.
fn base_of(config: Config) -> Base {
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, shape: Vec<usize>, middle: f32| {
        let values = draws(tensors.len() as u64, shape.iter().product());
        let values = values.iter().map(|value| middle + 0.5 * value).collect();
        tensors.insert(name, Numbers { shape, values });
    };
    let (size, vocab) = (config.hidden_size, config.vocab_size);
    add("model.embed_tokens.weight".into(), vec![vocab, size], 0.0);
    add("lm_head.weight".into(), vec![vocab, size], 0.0);
    let middle = 1.0 - config.norm_offset;
    add("model.norm.weight".into(), vec![size], middle);
    for layer in 0..config.num_hidden_layers {
        let path = format!("model.layers.{layer}");
        for module in Module::ALL {
            let (rows, cols) = config.shape(module);
            add(format!("{path}.{}.weight", module.path()), vec![rows, cols], 0.0);
            add(format!("{path}.{}.bias", module.path()), vec![rows], 0.0);
        }
        let (input, after) = ("input_layernorm", "post_attention_layernorm");
        for norm in [input, after, "pre_feedforward_layernorm", "post_feedforward_layernorm"] {
            add(format!("{path}.{norm}.weight"), vec![size], middle);
        }
        for (norm, module) in [("q_norm", Module::Q), ("k_norm", Module::K)] {
            let len = match config.qk_norm {
                Some(QkNorm::Projection) => config.shape(module).0,
                _ => config.head_dim,
            };
            add(format!("{path}.self_attn.{norm}.weight"), vec![len], middle);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let json = json!({
        "model_type": "llama", "hidden_size": size, "intermediate_size": config.intermediate_size,
        "vocab_size": vocab, "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads, "head_dim": config.head_dim,
        "num_key_value_heads": config.num_key_value_heads,
    });
    write_folder(dir.path(), &json, &tensors);
    let mut base = Base::open(dir.path()).unwrap();
    base.config = config;
    base
}

#[track_caller]
fn check_whole(config: Config, tensors: usize) {
    let request = HeadRequest { temperature: 0.9, ..everything() };
    let mut probe = Probe::whole(&base_of(config), request);
    assert_eq!(probe.parameters().len(), tensors + 1);
    probe.check();
}

#[test]
fn every_tensor_with_norms_around_and_a_tied_head() {
    let config = Config {
        norms: Norms::Around,
        norm_offset: 1.0,
        qk_norm: Some(QkNorm::Head),
        tie_word_embeddings: true,
        ..everything_at_once()
    };
    check_whole(config, 2 + 3 * (14 + 4 + 2));
}

#[test]
fn every_tensor_with_norms_after_and_a_head_apart() {
    let config = Config {
        norms: Norms::After,
        qk_norm: Some(QkNorm::Projection),
        activation: Activation::Silu,
        ..everything_at_once()
    };
    check_whole(config, 3 + 3 * (14 + 2 + 2));
}

#[test]
fn every_tensor_with_norms_before() {
    check_whole(everything_at_once(), 3 + 3 * (14 + 2));
}
