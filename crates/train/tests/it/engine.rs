//! A step's gradient on a small random Llama: equal to PyTorch's, however the step is cut.

use std::collections::BTreeMap;

use compute::cpu::{Cpu, CpuConfig, Precision};
use compute::{Backend, Reference};
use data::{Packing, Place, Reads, Sequence, Unit};
use model::adapter::LoadedAdapter;
use model::{Adapter, Base, Decoder, LoraConfig, Optimizers, ScalarHead};
use safetensors::SafeTensors;
use serde_json::Value;
use train::engine::{Engine, StepOutcome};
use train::method::{Dpo, Reward, Sft};
use train::models::{Part, PartName};
use train::objective::{Coupling, MicroOutputs, Objective, Outcome, Share};
use train::step::{StepPlan, Totals};

use crate::support::{floats, model_golden, model_golden_json, tokens};

/// Relative distance of a whole tensor in f32.
const TOLERANCE: f64 = 1e-4;

/// Everything about the model that a test may change.
struct Setup {
    base: Base,
    lora: LoraConfig,
    values: Vec<Vec<f32>>,
    /// Weight of a scalar head.
    score: Option<Vec<f32>>,
    recompute: bool,
}

impl Setup {
    fn new() -> Self {
        let base = Base::open(&model_golden("tiny_llama/gqa")).unwrap();
        let adapter = model_golden("tiny_llama/gqa/adapter");
        let loaded = LoadedAdapter::read(&adapter, &base.config).unwrap();
        let (lora, values) = (loaded.config, loaded.values);
        Setup { base, lora, values, score: None, recompute: false }
    }

    /// Outcome and gradients (of the adapter's matrices, then of the scalar head) of one step.
    fn step(
        &self,
        backend: &mut dyn Backend,
        plan: &StepPlan,
        objective: &dyn Objective,
    ) -> (StepOutcome, BTreeMap<String, Vec<f32>>) {
        let decoder = Decoder::load(&self.base, backend).unwrap();
        let config = &decoder.config;
        let (lora, training) = (self.lora.clone(), Some(Optimizers::ADAMW));
        let adapter = Adapter::new(backend, &decoder, lora, &self.values, training).unwrap();
        let scalar =
            self.score.as_ref().map(|score| ScalarHead::new(backend, score, training).unwrap());
        let mut engine = Engine {
            backend: &mut *backend,
            decoder: &decoder,
            parts: &[
                Part::policy(Some(adapter.clone()), scalar.clone()),
                Part { name: PartName::Reference, adapter: None, head: None, decoder: None },
            ],
            trained: PartName::Policy,
            recompute: self.recompute,
        };
        let outcome = engine.accumulate(plan, objective, None).unwrap();
        let evaluated = engine.evaluate(plan, objective).unwrap();
        let difference = (evaluated.loss - outcome.loss).abs();
        assert!(difference <= 1e-5 * outcome.loss.abs(), "{evaluated:?} {outcome:?}");
        let names = adapter.config().matrices(config).into_iter().map(|matrix| matrix.name);
        let head = scalar.as_ref().and_then(ScalarHead::trained);
        let names = names.chain(head.map(|tensor| tensor.name.clone()));
        let parameters =
            adapter.parameters().into_iter().chain(head.map(|tensor| tensor.parameter));
        let gradients = names.zip(parameters).map(|(name, parameter)| {
            let mut gradient = vec![0.0; parameter.gradient.len];
            backend.read(parameter.gradient, &mut gradient).unwrap();
            (name, gradient)
        });
        (outcome, gradients.collect())
    }
}

fn cpu() -> Cpu {
    let mut cpu = Cpu::new(CpuConfig { threads: 2, isa: None, precision: Precision::F32 }).unwrap();
    cpu.reserve(16 << 20).unwrap();
    cpu
}

fn reference() -> Reference {
    let mut reference = Reference::new();
    reference.reserve(64 << 20).unwrap();
    reference
}

/// Runs a test on every backend that computes in f32 or better.
fn on_exact_backends(test: impl Fn(&mut dyn Backend)) {
    test(&mut reference());
    test(&mut cpu());
}

pub(crate) fn sequence(row: usize, tokens: Vec<u32>, weights: Vec<f32>) -> Sequence {
    let place = Place { file: std::path::Path::new("test").into(), line: row + 1, element: None };
    Sequence { row: row as u64, part: 0, role: 0, tokens, weights, place }
}

fn plan_of(sequences: &[Sequence], packing: &Packing) -> StepPlan {
    StepPlan::new(&Unit::of_sequences(sequences.to_vec()), packing)
}

/// The sequences of the model's own golden.
fn sft_sequences() -> (Vec<Sequence>, Value) {
    let golden = model_golden_json("tiny_llama/gqa/golden.json");
    let entries = golden["sequences"].as_array().unwrap().iter().enumerate();
    let sequences = entries.map(|(row, entry)| {
        let weights = [vec![0.0], floats(&entry["weights"])].concat();
        sequence(row, tokens(&entry["tokens"]), weights)
    });
    (sequences.collect(), golden)
}

/// Pairs of completions of one prompt, `supervise` saying which tokens count.
fn pair_sequences(golden: &Value, supervise: impl Fn(&[u32], &[u32]) -> Sequence) -> Vec<Sequence> {
    let mut sequences = Vec::new();
    for (row, pair) in golden["pairs"].as_array().unwrap().iter().enumerate() {
        for (role, column) in ["chosen", "rejected"].into_iter().enumerate() {
            let sequence = supervise(&tokens(&pair["prompt"]), &tokens(&pair[column]));
            sequences.push(Sequence { row: row as u64, role: role as u8, ..sequence });
        }
    }
    sequences
}

fn gradients(name: &str) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(model_golden(name)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| {
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    tensors.tensors().into_iter().map(|(name, view)| (name, values(view.data()))).collect()
}

/// `|a - b| / |b|`.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| square(a - b)).sum();
    let norm: f64 = b.iter().map(|&b| square(b)).sum();
    (difference / norm.max(f64::MIN_POSITIVE)).sqrt()
}

#[track_caller]
fn check_gradients(
    actual: &BTreeMap<String, Vec<f32>>,
    expected: &BTreeMap<String, Vec<f32>>,
    tolerance: f64,
) {
    assert_eq!(actual.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, expected) in expected {
        let distance = distance(&actual[name], expected);
        assert!(distance < tolerance, "gradient of {name}: distance {distance:e}");
    }
}

#[track_caller]
fn check_loss(actual: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!((actual - expected).abs() < 1e-4 * expected, "loss {actual}, expected {expected}");
}

/// Whole step in one micro-batch, and cut into small ones, prefixes repeated or shared.
fn packings(keep_units: bool) -> Vec<Packing> {
    let budgets = [usize::MAX, 60, 1];
    let all = budgets.into_iter().flat_map(|budget| {
        [0, 4].map(|min_shared| Packing { min_shared, keep_units, ..Packing::new(budget) })
    });
    all.collect()
}

#[test]
fn sft_gradients_equal_pytorch_however_the_step_is_cut() {
    let (sequences, golden) = sft_sequences();
    let expected = gradients("tiny_llama/gqa/gradients.safetensors");
    for recompute in [false, true] {
        let setup = Setup { recompute, ..Setup::new() };
        for mut packing in packings(false) {
            packing.drop_unread = true;
            let plan = plan_of(&sequences, &packing);
            on_exact_backends(|backend| {
                let (outcome, gradients) = setup.step(backend, &plan, &Sft);
                check_loss(outcome.loss, &golden["lora_loss"]);
                check_gradients(&gradients, &expected, TOLERANCE);
            });
        }
    }
}

/// Trees of equal length keep their order in every packing, so their gradients are added up in the
/// same order: the sums are the same to the bit.
#[test]
fn accumulated_equals_batched_to_the_bit() {
    let row = |row: usize| {
        let tokens: Vec<u32> = (0..17).map(|i| ((row * 31 + i * 7) % 127) as u32).collect();
        let weights = (0..17).map(|i| f32::from(u8::from(i > 4 + row % 3))).collect();
        sequence(row, tokens, weights)
    };
    let sequences: Vec<Sequence> = (0..6).map(row).collect();
    let setup = Setup::new();
    let step = |budget: usize, threads: usize| {
        let packing = Packing { min_shared: 0, ..Packing::new(budget) };
        let plan = plan_of(&sequences, &packing);
        let config = CpuConfig { threads, isa: None, precision: Precision::F32 };
        let mut cpu = Cpu::new(config).unwrap();
        cpu.reserve(16 << 20).unwrap();
        (plan.micros.len(), setup.step(&mut cpu, &plan, &Sft))
    };
    let (micros, (batched, whole)) = step(usize::MAX, 2);
    assert_eq!(micros, 1);
    for (budget, threads, expected_micros) in [(34, 1, 3), (17, 2, 6), (60, 3, 2)] {
        let (micros, (outcome, gradients)) = step(budget, threads);
        assert_eq!(micros, expected_micros);
        assert!((outcome.loss - batched.loss).abs() < 1e-12);
        assert_eq!(gradients, whole);
    }
}

#[test]
fn dpo_gradients_equal_pytorch_with_prompts_shared_or_repeated() {
    let golden = model_golden_json("tiny_llama/gqa/dpo.json");
    let sequences = pair_sequences(&golden, |prompt, completion| {
        let weights = [vec![0.0; prompt.len()], vec![1.0; completion.len()]].concat();
        sequence(0, [prompt, completion].concat(), weights)
    });
    let expected = gradients("tiny_llama/gqa/dpo_gradients.safetensors");
    let dpo = Dpo::sigmoid(golden["beta"].as_f64().unwrap());
    let setup = Setup::new();
    for packing in packings(true) {
        let plan = plan_of(&sequences, &packing);
        assert_eq!(plan.totals.units, 2);
        let computed = plan.totals.tokens_computed;
        assert_eq!(computed < plan.totals.tokens, packing.min_shared > 0, "shared prompts");
        on_exact_backends(|backend| {
            let (outcome, gradients) = setup.step(backend, &plan, &dpo);
            check_loss(outcome.loss, &golden["loss"]);
            let found = outcome.metrics.iter().find(|(name, _)| *name == "rewards/accuracies");
            assert_eq!(found, Some(&("rewards/accuracies", accuracy(&golden))));
            check_gradients(&gradients, &expected, TOLERANCE);
        });
    }
}

/// Share of pairs whose loss is under ln 2: the margin grew.
fn accuracy(golden: &Value) -> f64 {
    let losses = floats(&golden["losses"]);
    let grew = losses.iter().filter(|&&loss| f64::from(loss) < std::f64::consts::LN_2);
    grew.count() as f64 / losses.len() as f64
}

#[test]
fn reward_gradients_equal_pytorch() {
    let golden = model_golden_json("tiny_llama/gqa/reward.json");
    // The last token is read, and nothing else: what is supervised does not matter.
    let sequences = pair_sequences(&golden, |prompt, completion| {
        let weights = [vec![0.0; prompt.len()], vec![1.0; completion.len()]].concat();
        sequence(0, [prompt, completion].concat(), weights)
    });
    let expected = gradients("tiny_llama/gqa/reward_gradients.safetensors");
    let setup = Setup { score: Some(floats(&golden["score_weight"][0])), ..Setup::new() };
    for packing in packings(true) {
        let packing = Packing { reads: Reads::Last, drop_unread: true, ..packing };
        let plan = plan_of(&sequences, &packing);
        on_exact_backends(|backend| {
            let (outcome, gradients) = setup.step(backend, &plan, &Reward::default());
            check_loss(outcome.loss, &golden["loss"]);
            check_gradients(&gradients, &expected, TOLERANCE);
        });
    }
}

/// Variance of the sequences' log-probabilities over the step: no micro-batch knows it.
struct Spread;

impl Objective for Spread {
    fn coupling(&self) -> Coupling {
        Coupling::Step
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        totals.sequences as f64
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let count = plan.sequences.len();
        let sums = |micro: &MicroOutputs<'_>| {
            let mut sums = vec![0.0; count];
            for (target, &logprob) in micro.batch.targets.iter().zip(&micro.policy.logprob) {
                sums[target.sequence as usize] += f64::from(target.weight) * f64::from(logprob);
            }
            sums
        };
        let mut logprobs = vec![0.0; count];
        for micro in micros {
            logprobs.iter_mut().zip(sums(micro)).for_each(|(sum, part)| *sum += part);
        }
        let mean = logprobs.iter().sum::<f64>() / count as f64;
        let outcome = |micro: &MicroOutputs<'_>| {
            let here = |sequence: usize| {
                micro.batch.targets.iter().any(|t| t.sequence as usize == sequence)
            };
            let share = |sequence: usize| Share {
                sequence,
                value: (logprobs[sequence] - mean).powi(2) / count as f64,
            };
            let loss = (0..count).filter(|&sequence| here(sequence)).map(share).collect();
            let slope = |target: &text::Target| {
                let deviation = logprobs[target.sequence as usize] - mean;
                (2.0 * deviation / count as f64 * f64::from(target.weight)) as f32
            };
            let mut outcome = Outcome { loss, ..Outcome::default() };
            outcome.gradients.logprob = Some(micro.batch.targets.iter().map(slope).collect());
            outcome
        };
        micros.iter().map(outcome).collect()
    }
}

#[test]
fn a_loss_over_the_whole_step_is_accumulated_exactly() {
    let (sequences, _) = sft_sequences();
    let setup = Setup::new();
    let plan = |budget| plan_of(&sequences, &Packing::new(budget));
    let (whole, cut) = (plan(usize::MAX), plan(1));
    assert_eq!(whole.micros.len(), 1);
    assert!(cut.micros.len() > 2);
    on_exact_backends(|backend| {
        let (batched, expected) = setup.step(backend, &whole, &Spread);
        let (accumulated, gradients) = setup.step(backend, &cut, &Spread);
        let difference = (accumulated.loss - batched.loss).abs();
        assert!(difference < 1e-6 * batched.loss, "{accumulated:?} {batched:?}");
        check_gradients(&gradients, &expected, 1e-5);
    });
}

#[test]
fn a_loss_over_the_whole_step_has_the_slope_of_its_gradient() {
    let (sequences, _) = sft_sequences();
    let mut setup = Setup::new();
    let plan = plan_of(&sequences, &Packing::new(1));
    let (_, gradients) = setup.step(&mut reference(), &plan, &Spread);
    let names = setup.lora.matrices(&setup.base.config);
    let norm: f64 = gradients.values().flatten().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    let mut moved = |length: f64| {
        let start = setup.values.clone();
        for (values, matrix) in setup.values.iter_mut().zip(&names) {
            for (value, &gradient) in values.iter_mut().zip(&gradients[&matrix.name]) {
                *value += (length * f64::from(gradient) / norm) as f32;
            }
        }
        let loss = setup.step(&mut reference(), &plan, &Spread).0.loss;
        setup.values = start;
        loss
    };
    let length = 1e-3;
    // Along its own gradient a loss climbs by the gradient's norm.
    let slope = (moved(length) - moved(-length)) / (2.0 * length);
    assert!((slope / norm - 1.0).abs() < 2e-3, "slope {slope}, norm {norm}");
}

#[test]
fn a_pair_that_stands_twice_in_a_step_counts_twice() {
    let golden = model_golden_json("tiny_llama/gqa/dpo.json");
    let sequences = pair_sequences(&golden, |prompt, completion| {
        let weights = [vec![0.0; prompt.len()], vec![1.0; completion.len()]].concat();
        sequence(0, [prompt, completion].concat(), weights)
    });
    let once = Unit::of_sequences(sequences);
    let dpo = Dpo::sigmoid(0.4);
    let setup = Setup::new();
    // A step that crosses the end of an epoch, or is larger than one: the last of the first epoch may be the
    // first of the second.
    let twice = [&once[..], &once[1..], &once[1..], &once[..1]].concat();
    let weighted = |plan: &StepPlan, unit: usize| {
        let (outcome, gradients) = setup.step(&mut reference(), plan, &dpo);
        (outcome.loss * unit as f64, gradients)
    };
    for packing in packings(true) {
        let plan = StepPlan::new(&twice, &packing);
        assert_eq!((plan.totals.units, plan.totals.sequences), (6 - 2 + 1, 10));
        let (sum, gradients) = weighted(&plan, plan.totals.units);
        let first = weighted(&StepPlan::new(&once[..1], &packing), 1);
        let second = weighted(&StepPlan::new(&once[1..], &packing), 1);
        let expected = 2.0 * first.0 + 3.0 * second.0;
        assert!((sum - expected).abs() < 1e-6 * expected, "{sum}, expected {expected}");
        for (name, values) in &gradients {
            let parts = first.1[name].iter().zip(&second.1[name]);
            let expected: Vec<f32> = parts.map(|(a, b)| (2.0 * a + 3.0 * b) / 5.0).collect();
            let distance = distance(values, &expected);
            assert!(distance < 1e-5, "gradient of {name}: distance {distance:e}");
        }
    }
}

#[test]
#[should_panic(expected = "a unit stands whole in a micro-batch")]
fn a_pair_that_is_cut_is_a_bug() {
    let golden = model_golden_json("tiny_llama/gqa/dpo.json");
    let sequences = pair_sequences(&golden, |prompt, completion| {
        let weights = [vec![0.0; prompt.len()], vec![1.0; completion.len()]].concat();
        sequence(0, [prompt, completion].concat(), weights)
    });
    let plan = plan_of(&sequences, &Packing { min_shared: 0, ..Packing::new(1) });
    Setup::new().step(&mut reference(), &plan, &Dpo::sigmoid(0.4));
}
