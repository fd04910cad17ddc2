//! Checkpoints of runs with several parts: what each begins with, trains and keeps.

use compute::cpu::{Cpu, CpuConfig, Precision};
use compute::{Backend as _, Optimizer};
use data::{Packing, Unit};
use model::adapter::{LoadedAdapter, LoraKind, PeftMetadata};
use model::{Base, HeadGradients, HeadRequest, LoraConfig, Module, ScalarHead, Want};
use serde_json::json;
use train::checkpoint::{Contents, State, Store};
use train::engine::Engine;
use train::models::{Models, PartName, PartSetup, TrainingSetup, Values, part};
use train::objective::{Coupling, MicroOutputs, Objective, Outcome, Share};
use train::optimizer::OptimizerConfig;
use train::step::{StepPlan, Totals};

use crate::engine;
use crate::support::model_golden;

/// The sum of all values.
struct Sum;

impl Objective for Sum {
    fn coupling(&self) -> Coupling {
        Coupling::Sequence
    }

    fn request(&self) -> HeadRequest {
        let want = Want { value: true, ..Want::default() };
        HeadRequest { want, ..HeadRequest::logprobs() }
    }

    fn divisor(&self, _totals: &Totals) -> f64 {
        1.0
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], _plan: &StepPlan) -> Vec<Outcome> {
        let outcome = |micro: &MicroOutputs<'_>| {
            let values = &micro.policy.value;
            let share = |&value: &f32| Share { sequence: 0, value: value.into() };
            let value = Some(vec![1.0; values.len()]);
            let gradients = HeadGradients { value, ..HeadGradients::default() };
            let loss = values.iter().map(share).collect();
            Outcome { loss, gradients, ..Outcome::default() }
        };
        micros.iter().map(outcome).collect()
    }
}

fn sequence(tokens: Vec<u32>) -> data::Sequence {
    let mut weights = vec![1.0; tokens.len()];
    weights[0] = 0.0;
    engine::sequence(0, tokens, weights)
}

fn plan(sequence: data::Sequence) -> StepPlan {
    StepPlan::new(&Unit::of_sequences(vec![sequence]), &Packing::new(64))
}

fn base() -> Base {
    Base::open(&model_golden("tiny_llama/gqa")).unwrap()
}

fn optimizer() -> OptimizerConfig {
    let adamw = Optimizer::AdamW { betas: [0.9, 0.99], eps: 1e-8 };
    OptimizerConfig {
        matrices: adamw,
        others: adamw,
        weight_decay: 0.01,
        embedding_ratio: 1.0,
        loraplus_ratio: 1.0,
    }
}

fn cpu() -> Cpu {
    let mut cpu = Cpu::new(CpuConfig { threads: 2, isa: None, precision: Precision::F32 }).unwrap();
    cpu.reserve(16 << 20).unwrap();
    cpu
}

fn adapter(base: &Base, module: Module, seed: u64) -> LoadedAdapter {
    let kind = LoraKind::Lora;
    let config = LoraConfig::uniform(&base.config, kind, 2, 4.0, 0.0, &[module]);
    let mut values = config.initial_values(&base.config, seed);
    // `lora_B` begins with zeros: frozen ones would do nothing.
    for (index, value) in values.iter_mut().flatten().enumerate() {
        let hash = compute::random::key(&[seed, index as u64]);
        *value += 0.1 * (compute::random::uniform(hash) - 0.5);
    }
    LoadedAdapter { config, values, replaced: Default::default() }
}

fn head(base: &Base, seed: u64) -> Option<Vec<f32>> {
    Some(ScalarHead::initial_values(base, seed).unwrap())
}

fn empty() -> TrainingSetup {
    TrainingSetup::new(None, optimizer().kinds())
}

/// A policy over a frozen adapter, a copy of its beginning, values over the same frozen adapter, and a reward model.
fn setup(base: &Base) -> TrainingSetup {
    let below = std::sync::Arc::new(adapter(base, Module::Down, 1));
    let own = std::sync::Arc::new(adapter(base, Module::Q, 2));
    let mut setup = empty();
    setup.policy_mut().adapters = vec![below.clone(), own.clone()];
    setup.policy_mut().head = head(base, 3);
    let beginning = vec![below.clone(), own];
    let value = vec![below, adapter(base, Module::Q, 4).into()];
    let reward = vec![adapter(base, Module::V, 5).into()];
    setup.parts.extend([
        PartSetup { adapters: beginning, ..PartSetup::of_base(PartName::Reference) },
        PartSetup { adapters: value, head: head(base, 6), ..PartSetup::of_base(PartName::Value) },
        PartSetup { adapters: reward, head: head(base, 7), ..PartSetup::of_base(PartName::Reward) },
    ]);
    setup
}

struct Rig {
    cpu: Cpu,
    setup: TrainingSetup,
    models: Models,
}

impl Rig {
    fn new(base: &Base, mut setup: TrainingSetup) -> Self {
        let mut cpu = cpu();
        let models = setup.load(base, &mut cpu).unwrap();
        setup.forget_values();
        Rig { cpu, setup, models }
    }

    fn engine(&mut self, trained: PartName) -> Engine<'_> {
        Engine {
            backend: &mut self.cpu,
            decoder: &self.models.decoder,
            parts: &self.models.parts,
            trained,
            recompute: false,
        }
    }

    /// A step over the policy and the values.
    fn step(&mut self, number: u64) {
        let tokens = (0..9).map(|i| (7 * i + number as u32) % 128).collect();
        let plan = plan(sequence(tokens));
        for name in [PartName::Policy, PartName::Value] {
            self.engine(name).accumulate(&plan, &Sum, None).unwrap();
        }
        let trained = self.models.trained();
        optimizer().step(&mut self.cpu, &trained, 1e-2, 1.0, number).unwrap();
        self.models.refresh(&mut self.cpu).unwrap();
    }

    /// What the policy and the values hold, and what all parts say.
    fn state(&mut self) -> (Vec<Values>, Vec<f64>) {
        let mut values = Vec::new();
        for name in [PartName::Policy, PartName::Value] {
            let part = part(&self.models.parts, name);
            values.push(part.values(&mut self.cpu, &self.models.decoder).unwrap());
        }
        let plan = plan(sequence(vec![3; 6]));
        let names = [PartName::Policy, PartName::Value, PartName::Reward];
        let loss = |name| self.engine(name).evaluate(&plan, &Sum).unwrap().loss;
        (values, names.map(loss).to_vec())
    }

    fn save(&mut self, store: &Store, step: u64) -> std::path::PathBuf {
        let (metadata, manifest) = (PeftMetadata::default(), json!({}));
        let Rig { cpu, models, setup } = self;
        let contents = Contents {
            models,
            setup,
            metadata: &metadata,
            serving: &session::Serving::default(),
            recipe: "",
            manifest: &manifest,
        };
        let state = State { step, ..State::default() };
        store.save(cpu, &contents, &state, None).unwrap()
    }
}

#[test]
fn every_part_is_kept_and_goes_on() {
    let (base, dir) = (base(), tempfile::tempdir().unwrap());
    let store = Store::new(dir.path().to_owned(), 2);
    let mut whole = Rig::new(&base, setup(&base));
    let names: Vec<String> = whole.models.trained().into_iter().map(|t| t.name).collect();
    let mut distinct = names.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), names.len(), "every trained tensor has its own name");
    let begun = whole.state();
    whole.step(1);
    assert_ne!(whole.state().0[0], begun.0[0]);
    assert_ne!(whole.state().0[1], begun.0[1]);
    let path = whole.save(&store, 1);
    let mut restored = empty();
    Store::restore(&path, &mut restored, &base.config).unwrap();
    let mut resumed = Rig::new(&base, restored);
    Store::resume(&path, &mut resumed.cpu, &resumed.models).unwrap();
    assert_eq!(resumed.state(), whole.state());
    for rig in [&mut whole, &mut resumed] {
        rig.step(2);
    }
    assert_eq!(resumed.state(), whole.state());
    // The policy is a reward model that PEFT loads, over what it stands on.
    let (_, score) = LoadedAdapter::read_scored(&path, &base.config).unwrap();
    assert!(score.is_some());
}

/// The beginning of the policy is kept as it was, though it was the same adapter.
#[test]
fn the_reference_stays_where_the_policy_began() {
    let (base, dir) = (base(), tempfile::tempdir().unwrap());
    let store = Store::new(dir.path().to_owned(), 2);
    let begun = setup(&base);
    let mut rig = Rig::new(&base, begun.clone());
    rig.step(1);
    let path = rig.save(&store, 1);
    let mut restored = empty();
    Store::restore(&path, &mut restored, &base.config).unwrap();
    let reference = |setup: &TrainingSetup| setup.parts[1].adapters.last().unwrap().values.clone();
    assert_eq!(restored.parts[1].name, PartName::Reference);
    assert_eq!(reference(&restored), reference(&begun));
    let policy = |setup: &TrainingSetup| setup.policy().adapters.last().unwrap().values.clone();
    assert_ne!(policy(&restored), policy(&begun));
}

/// A whole model with a head: its tensors, and the head among them.
#[test]
fn a_whole_model_keeps_its_head() {
    let (base, dir) = (base(), tempfile::tempdir().unwrap());
    let store = Store::new(dir.path().to_owned(), 2);
    let whole = || TrainingSetup { tensors: Some(model::Selection::Layers(vec![1])), ..empty() };
    let mut setup = whole();
    setup.policy_mut().head = head(&base, 3);
    let mut rig = Rig::new(&base, setup);
    let plan = plan(sequence(vec![3; 6]));
    rig.engine(PartName::Policy).accumulate(&plan, &Sum, None).unwrap();
    let trained = rig.models.trained();
    optimizer().step(&mut rig.cpu, &trained, 1e-2, 1.0, 1).unwrap();
    let path = rig.save(&store, 1);
    let mut restored = whole();
    Store::restore(&path, &mut restored, &base.config).unwrap();
    let mut resumed = Rig::new(&base, restored);
    Store::resume(&path, &mut resumed.cpu, &resumed.models).unwrap();
    let [own, again] = [&mut rig, &mut resumed].map(|r| r.models.values(&mut r.cpu).unwrap());
    assert!(own.head.is_some());
    assert_eq!(own, again);
}
