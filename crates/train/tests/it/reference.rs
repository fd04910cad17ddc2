//! What the policy is compared with is the policy before its first step, whatever is trained.

use std::cell::RefCell;

use compute::Backend as _;
use compute::cpu::{Cpu, CpuConfig, Precision};
use data::{Packing, Unit};
use keys::{Document, Surroundings};
use model::adapter::{LoadedAdapter, LoraKind};
use model::{Base, HeadGradients, LoraConfig, Module, Optimizers};
use text::Target;
use train::engine::Engine;
use train::models::{Models, PartName, Reference, ReferenceFrom, TrainingSetup};
use train::objective::{Coupling, ExtraPass, MicroOutputs, Objective, Outcome, Share};
use train::optimizer::OptimizerConfig;
use train::step::{StepPlan, Totals};

use crate::engine::sequence;
use crate::support::model_golden;

/// Lowers all log-probabilities, and remembers them under policy and reference.
#[derive(Default)]
struct Compare {
    policy: RefCell<Vec<f32>>,
    reference: RefCell<Vec<f32>>,
}

impl Objective for Compare {
    fn coupling(&self) -> Coupling {
        Coupling::Sequence
    }

    fn divisor(&self, _totals: &Totals) -> f64 {
        1.0
    }

    fn extra_passes(&self) -> &[ExtraPass] {
        &[ExtraPass { part: PartName::Reference }]
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], _plan: &StepPlan) -> Vec<Outcome> {
        let outcome = |micro: &MicroOutputs<'_>| {
            self.policy.borrow_mut().extend(&micro.policy.logprob);
            self.reference.borrow_mut().extend(&micro.extra[0].logprob);
            let share = |target: &Target| Share { sequence: target.sequence as usize, value: 0.0 };
            let loss = micro.batch.targets.iter().map(share).collect();
            let logprob = Some(vec![1.0; micro.batch.targets.len()]);
            let gradients = HeadGradients { logprob, ..HeadGradients::default() };
            Outcome { loss, gradients, ..Outcome::default() }
        };
        micros.iter().map(outcome).collect()
    }
}

fn optimizer() -> OptimizerConfig {
    let adamw = compute::Optimizer::AdamW { betas: [0.9, 0.99], eps: 1e-8 };
    OptimizerConfig {
        matrices: adamw,
        others: adamw,
        weight_decay: 0.0,
        embedding_ratio: 1.0,
        loraplus_ratio: 1.0,
    }
}

fn adapter(base: &Base, seed: u64, change: impl FnOnce(&mut LoraConfig)) -> LoadedAdapter {
    let modules = [Module::Q, Module::Down];
    let mut config = LoraConfig::uniform(&base.config, LoraKind::Lora, 2, 4.0, 0.0, &modules);
    change(&mut config);
    let values = config.initial_values(&base.config, seed);
    LoadedAdapter { config, values, replaced: Default::default() }
}

/// With values that are far from those of the base.
fn moved(base: &Base, mut adapter: LoadedAdapter) -> LoadedAdapter {
    let shapes = adapter.config.matrices(&base.config);
    for (seed, (values, info)) in adapter.values.iter_mut().zip(shapes).enumerate() {
        let draw = |i| compute::random::uniform(compute::random::key(&[seed as u64, i])) - 0.5;
        let len = info.shape.iter().product::<usize>() as u64;
        let scale = if info.name.contains("magnitude") { 0.0 } else { 0.3 };
        *values = (0..len).map(|i| scale * draw(i) + 1.0 - scale / 0.3).collect();
    }
    adapter
}

fn document() -> Document {
    let around = Surroundings { current_dir: ".".as_ref(), home: None, variable: &|_| None };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recipe.yaml");
    let recipe = "model: some\nmethod: sft\ndata: {train: rows.jsonl}\n\
                  adapter: {type: lora, modules_to_save: [lm_head]}\n";
    std::fs::write(&path, recipe).unwrap();
    train::recipe::schema().read(&path, &[], &around).unwrap()
}

/// What a step over the same rows sees.
fn compare(cpu: &mut Cpu, models: &Models, recompute: bool) -> Compare {
    let weights = |len| (0..len).map(|i| f32::from(u8::from(i > 0))).collect();
    let rows = [
        sequence(0, (0..17).map(|i| [3, 7, 90, 12, 55][i % 5]).collect(), weights(17)),
        sequence(1, (0..9).map(|i| 7 + 9 * i).collect(), weights(9)),
    ];
    let plan = StepPlan::new(&Unit::of_sequences(rows.to_vec()), &Packing::new(18));
    assert_eq!(plan.micros.len(), 2);
    let compare = Compare::default();
    let mut engine = Engine {
        backend: cpu,
        decoder: &models.decoder,
        parts: &models.parts,
        trained: PartName::Policy,
        recompute,
    };
    engine.accumulate(&plan, &compare, None).unwrap();
    compare
}

#[track_caller]
fn check(what: &str, base: &Base, mut setup: TrainingSetup, expected: Reference) {
    assert_eq!(setup.add_reference(&document(), ReferenceFrom::Start).unwrap(), expected, "{what}");
    let config = CpuConfig { threads: 2, isa: None, precision: Precision::F32 };
    let mut cpu = Cpu::new(config).unwrap();
    cpu.reserve(16 << 20).unwrap();
    let models = setup.load(base, &mut cpu).unwrap();
    setup.forget_values();
    let trained = models.trained();
    let begun = compare(&mut cpu, &models, false);
    for (a, b) in begun.policy.borrow().iter().zip(begun.reference.borrow().iter()) {
        assert!((a - b).abs() < 1e-4, "{what}: the policy begins as the reference: {a}, {b}");
    }
    for step in 1..4 {
        optimizer().step(&mut cpu, &trained, 3e-2, 1.0, step).unwrap();
        models.refresh(&mut cpu).unwrap();
        let now = compare(&mut cpu, &models, true);
        assert_eq!(now.reference, begun.reference, "{what}: step {step}");
        let (now, begun) = (now.policy.borrow(), begun.policy.borrow());
        let pairs = now.iter().zip(begun.iter());
        let furthest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest > 0.01, "{what}: the policy moves: {furthest}");
    }
}

fn setup(brought: usize, adapters: Vec<LoadedAdapter>) -> TrainingSetup {
    let mut setup = TrainingSetup::new(None, Optimizers::ADAMW);
    setup.brought = brought;
    setup.policy_mut().adapters = adapters.into_iter().map(Into::into).collect();
    setup
}

#[test]
fn the_reference_does_not_move_with_the_policy() {
    for case in ["gqa", "tied"] {
        let base = Base::open(&model_golden(&format!("tiny_llama/{case}"))).unwrap();
        let tokens = |config: &mut LoraConfig| config.tokens = vec![3, 7, 90];
        let plain = |_: &mut LoraConfig| {};
        let dora = |config: &mut LoraConfig| config.dora = true;
        let what = |what: &str| format!("{case}, {what}");
        let fresh = |adapter| setup(0, vec![adapter]);
        check(&what("plain"), &base, fresh(adapter(&base, 1, plain)), Reference::Base);
        check(&what("tokens"), &base, fresh(adapter(&base, 1, tokens)), Reference::Base);
        check(&what("dora"), &base, fresh(adapter(&base, 1, dora)), Reference::Base);

        // What a PiSSA adapter begins with is taken off below it.
        let LoadedAdapter { config, replaced, .. } = adapter(&base, 1, plain);
        let values = config.pissa_values(&base, 1).unwrap();
        let below = config.counterweight(&values, &base.config);
        let pissa = setup(0, vec![below, LoadedAdapter { config, values, replaced }]);
        check(&what("pissa"), &base, pissa, Reference::Base);

        let continued = |adapter| setup(1, vec![moved(&base, adapter)]);
        let begun = continued(adapter(&base, 1, plain));
        check(&what("continued"), &base, begun, Reference::Part);
        let begun = continued(adapter(&base, 1, tokens));
        check(&what("continued tokens"), &base, begun, Reference::Part);
        let begun = continued(adapter(&base, 1, dora));
        check(&what("continued dora"), &base, begun, Reference::Part);

        let below = moved(&base, adapter(&base, 2, plain));
        let stack = setup(1, vec![below, adapter(&base, 1, tokens)]);
        check(&what("stack"), &base, stack, Reference::Part);
    }
}

#[test]
fn where_nothing_is_left_of_the_beginning_it_is_refused() {
    let base = Base::open(&model_golden("tiny_llama/gqa")).unwrap();
    let mut whole = setup(0, Vec::new());
    whole.tensors = Some(model::Selection::All);
    let saved = adapter(&base, 1, |config| config.modules_to_save = vec!["lm_head".into()]);
    let cases = [(whole, "trains the model itself"), (setup(0, vec![saved]), "trained as a whole")];
    for (mut setup, why) in cases {
        let error = setup.add_reference(&document(), ReferenceFrom::Start).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("recipe.yaml:4") && text.contains(why), "{text}");
        assert!(error.hint().is_some(), "{text}");
    }
}

#[test]
fn parts_share_frozen_adapters() {
    let base = Base::open(&model_golden("tiny_llama/gqa")).unwrap();
    let plain = |seed| adapter(&base, seed, |_| {});
    let mut setup = setup(1, vec![plain(2), plain(1)]);
    setup.add_reference(&document(), ReferenceFrom::Start).unwrap();
    let mut cpu = Cpu::new(CpuConfig { threads: 1, isa: None, precision: Precision::F32 }).unwrap();
    let models = setup.load(&base, &mut cpu).unwrap();
    let [policy, reference] = [&models.parts[0], &models.parts[1]];
    let below = policy.adapter.as_ref().unwrap().stack()[0];
    assert!(std::ptr::eq(below, &**reference.adapter.as_ref().unwrap()));
}
