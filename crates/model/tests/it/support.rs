//! What the tests share: goldens, backends, batches.

use std::path::{Path, PathBuf};

use std::collections::BTreeMap;

use compute::cpu::{Cpu, CpuConfig, Precision};
use compute::{Backend, Op, Reference};
use data::{Packing, Place, Sequence, pack};
use model::adapter::LoadedAdapter;
use model::{
    Adapter, Base, Decoder, HeadGradients, HeadOutputs, HeadRequest, Keep, LoraConfig, Optimizers,
    Pass,
};
use safetensors::SafeTensors;
use serde_json::Value;
use text::{Batch, Segment};

/// A file or folder under `tests/golden`.
pub(crate) fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(name)
}

/// A golden JSON file.
pub(crate) fn json(name: &str) -> Value {
    let path = golden(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    serde_json::from_str(&text).unwrap()
}

/// The numbers of a JSON list.
pub(crate) fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// The numbers of a JSON list.
pub(crate) fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// A CPU backend with memory for small tests.
pub(crate) fn cpu(precision: Precision, threads: usize) -> Cpu {
    let mut cpu = Cpu::new(CpuConfig { threads, isa: None, precision }).unwrap();
    cpu.reserve(64 << 20).unwrap();
    cpu
}

/// Runs a test on every backend that computes in f32 or better.
pub(crate) fn on_exact_backends(test: impl Fn(&mut dyn Backend)) {
    let mut reference = Reference::new();
    reference.reserve(64 << 20).unwrap();
    test(&mut reference);
    test(&mut cpu(Precision::F32, 2));
}

/// A sequence in which every token with a weight counts.
pub(crate) fn sequence(row: u64, tokens: &[u32], weights: &[f32]) -> Sequence {
    Sequence {
        row,
        part: 0,
        role: 0,
        tokens: tokens.to_vec(),
        weights: weights.to_vec(),
        place: Place { file: Path::new("test").into(), line: row as usize + 1, element: None },
    }
}

/// One batch of sequences, prefixes of `min_shared` tokens or more shared.
pub(crate) fn batch(sequences: &[Sequence], min_shared: usize) -> Batch {
    let packing = Packing { min_shared, ..Packing::new(usize::MAX) };
    let mut micros = pack(sequences, &packing);
    assert_eq!(micros.len(), 1);
    micros.remove(0).batch
}

/// `|a - b| / |b|` over whole tensors.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| square(a - b)).sum();
    let norm: f64 = b.iter().map(|&b| square(b)).sum();
    if norm == 0.0 { difference.sqrt() } else { (difference / norm).sqrt() }
}

/// f32: relative distance of a whole tensor.
pub(crate) const TOLERANCE: f64 = 1e-4;

#[track_caller]
pub(crate) fn check_close(what: &str, actual: &[f32], expected: &[f32]) {
    let distance = distance(actual, expected);
    assert!(distance < TOLERANCE, "{what}: distance {distance:e}");
}

/// Bit for bit; `-0` and `0` differ.
#[track_caller]
pub(crate) fn check_same(what: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    if let Some(at) = actual.iter().zip(expected).position(differs) {
        panic!("{what}: element {at} is {:e}, not {:e}", actual[at], expected[at]);
    }
}

/// Every matrix bit for bit.
#[track_caller]
pub(crate) fn check_same_all(what: &str, actual: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        check_same(&format!("{what}, matrix {index}"), actual, expected);
    }
}

/// The f32 tensors of a safetensors file.
pub(crate) fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let all = file.tensors().into_iter().map(|(name, view)| {
        let values = view.data().chunks_exact(4);
        (name, values.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    });
    all.collect()
}

/// An adapter folder's shape and values.
pub(crate) fn lora(dir: &Path, base: &Base) -> Lora {
    let loaded = LoadedAdapter::read(dir, &base.config).unwrap();
    (loaded.config, loaded.values)
}

/// An adapter's shape and values.
pub(crate) type Lora = (LoraConfig, Vec<Vec<f32>>);

/// A tiny model and the adapter that was made for it.
pub(crate) fn tiny(name: &str) -> (Base, Lora) {
    let base = Base::open(&golden(&format!("tiny_llama/{name}"))).unwrap();
    let lora = lora(&golden(&format!("tiny_llama/{name}/adapter")), &base);
    (base, lora)
}

/// A model on a backend, with an adapter to be trained.
pub(crate) struct Rig {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) decoder: Decoder,
    pub(crate) adapter: Adapter,
}

/// How a batch is taken through a [`Rig`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    pub(crate) checkpoint: bool,
    pub(crate) one_pass: bool,
    pub(crate) dropout_key: Option<u64>,
}

impl How {
    /// Its pass, without gradient.
    pub(crate) fn pass(self) -> Pass<'static> {
        Pass { dropout_key: self.dropout_key, ..Pass::default() }
    }

    /// What it keeps on its way to a gradient.
    pub(crate) fn keep(self) -> Keep {
        Keep::for_backward(self.checkpoint)
    }
}

impl Rig {
    pub(crate) fn new(backend: Box<dyn Backend>, base: &Base, lora: &Lora) -> Self {
        let (config, values) = lora.clone();
        Self::load(backend, base, LoadedAdapter { config, values, replaced: BTreeMap::new() })
    }

    /// An adapter folder over its base.
    pub(crate) fn load(mut backend: Box<dyn Backend>, base: &Base, loaded: LoadedAdapter) -> Self {
        let training = Some(Optimizers::ADAMW);
        let (decoder, adapter) = loaded.load(base, &mut *backend, None, training).unwrap();
        Rig { backend, decoder, adapter }
    }

    /// The tiny model `gqa` on the CPU.
    pub(crate) fn tiny(precision: Precision, threads: usize) -> Self {
        let (base, lora) = tiny("gqa");
        Self::new(Box::new(cpu(precision, threads)), &base, &lora)
    }

    /// What the head says, without gradients.
    pub(crate) fn outputs(
        &mut self,
        batch: &Batch,
        request: &HeadRequest,
        pass: &Pass<'_>,
    ) -> HeadOutputs {
        let backend = &mut *self.backend;
        let mut hidden = self.decoder.forward(backend, batch, pass).unwrap();
        let outputs = self
            .decoder
            .head(backend, &mut hidden, &batch.targets, request, None, None, pass)
            .unwrap();
        hidden.release(backend);
        outputs
    }

    /// Log-probabilities of the targets under the base alone.
    pub(crate) fn base_logprobs(&mut self, batch: &Batch) -> Vec<f32> {
        self.outputs(batch, &HeadRequest::logprobs(), &Pass::default()).logprob
    }

    /// Log-probabilities of the targets under the adapter.
    pub(crate) fn logprobs(&mut self, batch: &Batch) -> Vec<f32> {
        let adapter = self.adapter.clone();
        let pass = Pass { adapter: Some(&adapter), ..Pass::default() };
        self.outputs(batch, &HeadRequest::logprobs(), &pass).logprob
    }

    /// Adds the gradient of the weighted log-probabilities; returns these.
    pub(crate) fn accumulate(&mut self, batch: &Batch, how: How) -> Vec<f32> {
        let backend = &mut *self.backend;
        let (one_pass, adapter) = (how.one_pass, Some(&self.adapter));
        let tokens = batch.tokens.iter().copied();
        let lookups = self.decoder.begin_step(backend, adapter, tokens).unwrap();
        let pass = Pass { adapter, keep: how.keep(), lookups: Some(&lookups), ..how.pass() };
        let weights: Vec<f32> = batch.targets.iter().map(|t| -t.weight / 32.0).collect();
        let request = HeadRequest::logprobs();
        let mut hidden = self.decoder.forward(backend, batch, &pass).unwrap();
        let known = one_pass.then_some(weights.as_slice());
        let outputs =
            self.decoder.head(backend, &mut hidden, &batch.targets, &request, None, known, &pass);
        let gradients =
            HeadGradients { logprob: (!one_pass).then(|| weights.clone()), ..Default::default() };
        self.decoder.backward(backend, hidden, &gradients, None, &pass).unwrap();
        lookups.finish(backend).unwrap();
        outputs.unwrap().logprob
    }

    /// Reads the gradients of all matrices and sets them to zero.
    pub(crate) fn take_gradients(&mut self) -> Vec<Vec<f32>> {
        let mut all = Vec::new();
        for parameter in self.adapter.parameters() {
            let mut gradient = vec![0.0; parameter.gradient.len];
            self.backend.read(parameter.gradient, &mut gradient).unwrap();
            self.backend.run(Op::Fill { out: parameter.gradient, value: 0.0 }).unwrap();
            all.push(gradient);
        }
        all
    }

    /// Sets the gradients of all that is trained to zero.
    pub(crate) fn zero_gradients(&mut self) {
        let own = self.adapter.trained().iter();
        for tensor in own.chain(self.decoder.trained()) {
            let out = tensor.parameter.gradient;
            self.backend.run(Op::Fill { out, value: 0.0 }).unwrap();
        }
    }

    /// The gradient of one batch.
    pub(crate) fn gradients(&mut self, batch: &Batch, how: How) -> Vec<Vec<f32>> {
        self.accumulate(batch, how);
        self.take_gradients()
    }
}

/// Tokens that depend on nothing but the seed, without the special ones.
pub(crate) fn random_tokens(seed: u64, len: usize, vocab: u32) -> Vec<u32> {
    let draw = |i| compute::random::key(&[seed, i]) % u64::from(vocab - 3);
    (0..len as u64).map(|i| 3 + draw(i) as u32).collect()
}

/// A sequence in which every token but the first counts, each differently.
pub(crate) fn random_sequence(row: u64, tokens: &[u32]) -> Sequence {
    let weight = |i: usize| 0.5 + compute::random::uniform(compute::random::key(&[row, i as u64]));
    let weights = (0..tokens.len()).map(|i| if i == 0 { 0.0 } else { weight(i) });
    sequence(row, tokens, &weights.collect::<Vec<_>>())
}

/// Each tree of a batch as a batch of its own, in order.
pub(crate) fn split_trees(batch: &Batch) -> Vec<Batch> {
    let trees = batch.trees();
    let ends = |index: usize| {
        batch.segments.get(index).map_or(batch.tokens.len(), |segment| segment.start)
    };
    let split = trees.windows(2).map(|tree| {
        let (start, end) = (ends(tree[0]), ends(tree[1]));
        let segments = batch.segments[tree[0]..tree[1]].iter().map(|segment| Segment {
            start: segment.start - start,
            parent: segment.parent.map(|parent| parent - tree[0]),
            ..*segment
        });
        let first_read = batch.reads.partition_point(|&read| (read as usize) < start);
        let last_read = batch.reads.partition_point(|&read| (read as usize) < end);
        let own = first_read as u32..last_read as u32;
        let targets = batch.targets.iter().filter(|target| own.contains(&target.read));
        Batch {
            tokens: batch.tokens[start..end].to_vec(),
            segments: segments.collect(),
            reads: batch.reads[first_read..last_read].iter().map(|r| r - start as u32).collect(),
            targets: targets.map(|t| text::Target { read: t.read - own.start, ..*t }).collect(),
            last_reads: Vec::new(),
        }
    });
    split.collect()
}

/// Values of the targets by row and position of the token before: the same whatever the packing.
pub(crate) fn by_place(
    sequences: &[Sequence],
    batch: &Batch,
    values: &[f32],
) -> BTreeMap<(u64, u32), u32> {
    assert_eq!(batch.targets.len(), values.len());
    let positions = batch.positions();
    let places = batch.targets.iter().zip(values).map(|(target, value)| {
        let row = sequences[target.sequence as usize].row;
        let position = positions[batch.reads[target.read as usize] as usize];
        ((row, position), value.to_bits())
    });
    places.collect()
}

/// Says on stderr why a test did not run.
#[allow(clippy::print_stderr)]
pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Shows a number that a test measured.
#[allow(clippy::print_stderr)]
pub(crate) fn measured(what: &str) {
    eprintln!("measured: {what}");
}
