//! How a step is cut into micro-batches changes no bit of it: of its loss, its metrics and every gradient.

use std::collections::BTreeMap;

use compute::Backend as _;
use compute::cpu::{Cpu, CpuConfig, Isa, Precision};
use data::{Micro, Packing, Place, Sequence, Unit, pack};
use model::adapter::LoadedAdapter;
use model::tensor::read_gradients;
use model::{
    Adapter, Base, Decoder, HeadOutputs, LoadOptions, Optimizers, Selection, TrainedTensor,
    Training,
};
use train::engine::{Engine, StepOutcome};
use train::method::{Dpo, Sft};
use train::models::{Part, PartName};
use train::objective::{Coupling, MicroOutputs, Objective, Outcome};
use train::step::{StepPlan, Totals};

use crate::support::{Fixture, How, model_golden, read_json, write_json};

/// Sft as an objective whose derivatives are known only after the forward.
struct General(Coupling);

impl Objective for General {
    fn divisor(&self, totals: &Totals) -> f64 {
        totals.weight
    }

    fn coupling(&self) -> Coupling {
        self.0
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        Sft.evaluate(micros, plan)
    }
}

/// Which tensors are trained: of an adapter folder, or all of the base.
#[derive(Clone, Copy, Debug)]
enum Trained {
    Adapter(&'static str),
    All,
}

/// A model on the CPU.
struct Subject {
    cpu: Cpu,
    decoder: Decoder,
    adapter: Option<Adapter>,
}

type Gradients = BTreeMap<String, Vec<u32>>;

impl Subject {
    fn new(family: &str, trained: Trained, config: CpuConfig) -> Self {
        let base = Base::open(&model_golden(family)).unwrap();
        let mut cpu = Cpu::new(config).unwrap();
        cpu.reserve(64 << 20).unwrap();
        let (decoder, adapter) = match trained {
            Trained::All => {
                let (tensors, optimizers) = (Selection::All, Optimizers::ADAMW);
                let training = Some(Training { tensors, optimizers });
                let options = LoadOptions { training, ..LoadOptions::default() };
                (Decoder::load_with(&base, &mut cpu, &options).unwrap(), None)
            }
            Trained::Adapter(folder) => {
                let mut loaded = LoadedAdapter::read(&model_golden(folder), &base.config).unwrap();
                loaded.config.dropout = 0.2;
                let training = Some(Optimizers::ADAMW);
                let (decoder, adapter) = loaded.load(&base, &mut cpu, None, training).unwrap();
                (decoder, Some(adapter))
            }
        };
        Subject { cpu, decoder, adapter }
    }

    fn trained(&self) -> Vec<TrainedTensor> {
        let own = self.adapter.iter().flat_map(|adapter| adapter.trained());
        own.chain(self.decoder.trained()).cloned().collect()
    }

    /// Outcome and bits of all gradients of a step.
    fn step(
        &mut self,
        plan: &StepPlan,
        objective: &dyn Objective,
        recompute: bool,
    ) -> (StepOutcome, Gradients) {
        let trained = self.trained();
        for tensor in &trained {
            let out = tensor.parameter.gradient;
            self.cpu.run(compute::Op::Fill { out, value: 0.0 }).unwrap();
        }
        let start = self.cpu.mark();
        let mut engine = Engine {
            backend: &mut self.cpu,
            decoder: &self.decoder,
            parts: &[
                Part::policy(self.adapter.clone(), None),
                Part { name: PartName::Reference, adapter: None, head: None, decoder: None },
            ],
            trained: PartName::Policy,
            recompute,
        };
        let outcome = engine.accumulate(plan, objective, Some(5)).unwrap();
        assert_eq!(self.cpu.mark(), start, "the stack is back where it began");
        let gradients = read_gradients(&mut self.cpu, &trained).unwrap();
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
        (outcome, gradients.into_iter().map(|(name, (_, values))| (name, bits(values))).collect())
    }
}

fn draw(seed: u64, index: u64, below: u64) -> u64 {
    compute::random::key(&[seed, index]) % below
}

/// A row in which about two tokens in three count, each differently; its number says which.
fn row(row: u64, tokens: Vec<u32>) -> Sequence {
    let weight = |i: u64| match draw(row + 100, i, 3) {
        0 => 0.0,
        _ => 0.25 + draw(row + 200, i, 1000) as f32 / 700.0,
    };
    let weights = (0..tokens.len() as u64).map(|i| if i == 0 { 0.0 } else { weight(i) });
    let place = Place { file: std::path::Path::new("test").into(), line: 1, element: None };
    Sequence { row, part: 0, role: 0, weights: weights.collect(), tokens, place }
}

fn tokens(seed: u64, len: u64) -> Vec<u32> {
    (0..len).map(|i| 3 + draw(seed, i, 90) as u32).collect()
}

/// Rows of very different lengths: of one token, without a token that counts, longer than most budgets.
fn apart() -> Vec<Sequence> {
    let lengths = [9, 60, 1, 33, 2, 17, 5, 47, 3, 64, 21, 8, 2, 31];
    let rows = lengths.iter().zip(0..).map(|(&len, number)| row(number, tokens(number, len)));
    let mut rows: Vec<Sequence> = rows.collect();
    rows[5].weights.fill(0.0);
    rows
}

/// The same, most of them behind one of two beginnings, one within the other.
fn families() -> Vec<Sequence> {
    let (first, inner) = (tokens(50, 19), tokens(51, 17));
    let mut rows = apart();
    for (index, row_of) in rows.iter_mut().enumerate() {
        let own = row_of.tokens[..row_of.tokens.len().min(21)].to_vec();
        let all = match index % 3 {
            0 => [first.clone(), own].concat(),
            1 => [first.clone(), inner.clone(), own].concat(),
            _ => own,
        };
        *row_of = row(index as u64, all);
    }
    rows
}

/// Pairs of answers to prompts of their own.
fn pairs() -> Vec<Sequence> {
    let lengths = [3, 28, 11, 11, 30, 1, 2, 7, 19, 23, 14, 5, 1, 1, 29, 30];
    let of = |(&len, number): (&u64, u64)| {
        let prompt = tokens(70 + number / 2, 17 + number / 2);
        let from = prompt.len();
        let mut row = row(number, [prompt, tokens(90 + number, len)].concat());
        row.weights[..from].fill(0.0);
        Sequence { row: number / 2, role: (number % 2) as u8, ..row }
    };
    lengths.iter().zip(0..).map(of).collect()
}

fn packing(budget: usize, min_shared: usize, keep_units: bool) -> Packing {
    Packing { min_shared, keep_units, drop_unread: true, ..Packing::new(budget) }
}

/// Tokens of the largest tree.
fn largest_tree(rows: &[Sequence], min_shared: usize) -> usize {
    let sizes = pack(rows, &packing(usize::MAX, min_shared, false)).into_iter().flat_map(|micro| {
        let batch = micro.batch;
        let starts = batch.trees().into_iter().map(|root| {
            batch.segments.get(root).map_or(batch.tokens.len(), |segment| segment.start)
        });
        let starts: Vec<usize> = starts.collect();
        starts.windows(2).map(|tree| tree[1] - tree[0]).collect::<Vec<_>>()
    });
    sizes.max().unwrap()
}

/// One step, cut in every way that cuts no tree and no pair.
#[track_caller]
fn check(family: &str, trained: Trained, isa: Option<Isa>, precision: Precision) {
    let config = |threads| CpuConfig { threads, isa, precision };
    let mut subjects = [1, 2, 3].map(|threads| Subject::new(family, trained, config(threads)));
    let dpo = Dpo::sigmoid(0.3);
    let [token, step] = [Coupling::Sequence, Coupling::Step].map(General);
    let family_tree = largest_tree(&families(), 16);
    /// Name, objective, rows, tokens of a shared beginning at least, and the smallest budget.
    type Row<'a> = (&'a str, &'a dyn Objective, Vec<Sequence>, usize, usize);
    let cases: [Row<'_>; 7] = [
        ("sft", &Sft, apart(), 0, 1),
        ("sft shared", &Sft, families(), 16, family_tree),
        ("sft repeated", &Sft, families(), 0, 1),
        ("general", &token, families(), 16, family_tree),
        ("step", &step, apart(), 0, 1),
        ("dpo", &dpo, pairs(), 0, 112),
        ("dpo shared", &dpo, pairs(), 16, 112),
    ];
    for (name, objective, rows, min_shared, least) in cases {
        let keep_units = objective.coupling() == Coupling::Unit;
        let plan = |budget| {
            let units = Unit::of_sequences(rows.clone());
            StepPlan::new(&units, &packing(budget, min_shared, keep_units))
        };
        let expected = subjects[0].step(&plan(usize::MAX), objective, false);
        assert!(expected.1.values().flatten().any(|&bits| bits != 0));
        let mut counts = vec![1];
        for (index, budget) in [1, 20, 50, 77, 112, 140, 200, 400].into_iter().enumerate() {
            let plan = plan(budget.max(least));
            if counts.last() == Some(&plan.micros.len()) {
                continue;
            }
            let found = subjects[index % 3].step(&plan, objective, index % 2 == 1);
            let what = format!("{family} {trained:?} {isa:?} {precision:?} {name}, {budget}");
            assert_eq!(found.0, expected.0, "{what}");
            for (name, gradient) in &found.1 {
                assert!(*gradient == expected.1[name], "{what}: {name}");
            }
            counts.push(plan.micros.len());
        }
        assert!(counts.len() > 2, "{name}: {counts:?} micro-batches");
    }
}

const BOTH: [Precision; 2] = [Precision::F32, Precision::Bf16];

#[test]
fn of_lora_on_every_instruction_set() {
    for isa in Isa::available() {
        for precision in BOTH {
            let adapter = Trained::Adapter("tiny_llama/gqa/adapter");
            check("tiny_llama/gqa", adapter, Some(isa), precision);
        }
    }
}

#[test]
fn of_a_whole_model_on_every_instruction_set() {
    for isa in Isa::available() {
        for precision in BOTH {
            check("tiny_llama/tied", Trained::All, Some(isa), precision);
        }
    }
}

/// Untied, with biases, norms of heads, parts of a fused matrix, factors on the embedding and windows.
#[test]
fn of_other_families() {
    for precision in BOTH {
        for family in ["tiny_llama/gqa", "architectures/qwen2", "architectures/gemma2"] {
            check(family, Trained::All, None, precision);
        }
        check("architectures/qwen3", Trained::All, None, precision);
        let adapter = Trained::Adapter("architectures/phi3/adapter");
        check("architectures/phi3", adapter, None, precision);
    }
}

/// Rows of tokens and whole modules beside an adapter.
#[test]
fn of_trained_tokens() {
    for (family, folder) in [
        ("tiny_llama/gqa", "adapters/tokens"),
        ("tiny_llama/tied", "adapters/tokens_tied"),
        ("tiny_llama/gqa", "adapters/modules_to_save"),
    ] {
        check(family, Trained::Adapter(folder), None, Precision::Bf16);
    }
}

/// A tree that is larger than the budget is cut: the same log-probabilities, dropout or not, and gradients
/// that are added up in another order.
#[test]
fn a_tree_that_is_cut_changes_rounding_alone() {
    let rows = families();
    let adapter = Trained::Adapter("tiny_llama/gqa/adapter");
    let config = CpuConfig { threads: 2, isa: None, precision: Precision::F32 };
    let mut subject = Subject::new("tiny_llama/gqa", adapter, config);
    let mut step = |budget| {
        let plan = StepPlan::new(&Unit::of_sequences(rows.clone()), &packing(budget, 16, false));
        (plan.totals.tokens_computed, subject.step(&plan, &Sft, false))
    };
    let (least, whole) = step(usize::MAX);
    for budget in [60, 90] {
        let (computed, cut) = step(budget);
        assert!(computed > least);
        assert_eq!(cut.0, whole.0);
        for (name, gradient) in &cut.1 {
            let values = |bits: &[u32]| bits.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>();
            let (cut, whole) = (values(gradient), values(&whole.1[name]));
            let square = |x: f32| f64::from(x).powi(2);
            let apart: f64 = cut.iter().zip(&whole).map(|(a, b)| square(a - b)).sum();
            let norm: f64 = whole.iter().map(|&b| square(b)).sum();
            assert!(apart <= 1e-10 * norm, "{name}: {apart:e} of {norm:e}");
        }
    }
}

/// Weights after some steps, of which each may be cut in its own way.
fn trained_with(budgets: &[usize]) -> Vec<Vec<u32>> {
    let config = CpuConfig { threads: 2, isa: None, precision: Precision::Bf16 };
    let mut subject = Subject::new("tiny_llama/tied", Trained::All, config);
    let adamw = compute::Optimizer::AdamW { betas: [0.9, 0.99], eps: 1e-8 };
    let optimizer = train::optimizer::OptimizerConfig {
        matrices: adamw,
        others: adamw,
        weight_decay: 0.01,
        embedding_ratio: 1.0,
        loraplus_ratio: 1.0,
    };
    let trained = subject.trained();
    for (number, &budget) in (1..).zip(budgets) {
        let rows: Vec<Sequence> =
            apart().into_iter().skip(number as usize % 3).step_by(2).collect();
        let plan = StepPlan::new(&Unit::of_sequences(rows.clone()), &packing(budget, 16, false));
        let mut engine = Engine {
            backend: &mut subject.cpu,
            decoder: &subject.decoder,
            parts: &[Part::policy(None, None)],
            trained: PartName::Policy,
            recompute: false,
        };
        engine.accumulate(&plan, &Sft, None).unwrap();
        optimizer.step(&mut subject.cpu, &trained, 1e-2, 1.0, number).unwrap();
    }
    let value = |tensor: &TrainedTensor| {
        let mut values = vec![0.0; tensor.len()];
        subject.cpu.read(tensor.parameter.master, &mut values).unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    trained.iter().map(value).collect()
}

#[test]
fn a_run_may_change_its_micro_batches_on_the_way() {
    let expected = trained_with(&[1024; 6]);
    assert!(trained_with(&[64; 6]) == expected);
    assert!(trained_with(&[1024, 1024, 1024, 30, 1, 200]) == expected);
}

/// A model of which head and embedding are one matrix takes the place of the fixture's.
fn tie(fixture: &Fixture) {
    let golden = model_golden("tiny_llama/tied");
    std::fs::copy(golden.join("model.safetensors"), fixture.path("model/model.safetensors"))
        .unwrap();
    let mut config = read_json(&golden.join("config.json"));
    let before = read_json(&fixture.path("model/config.json"));
    for key in ["max_position_embeddings", "eos_token_id"] {
        config[key] = before[key].clone();
    }
    write_json(&fixture.path("model/config.json"), &config);
}

/// Whole runs, with rows behind one beginning and rows apart: an adapter, the model itself, a tied one.
#[test]
fn micro_batch_tokens_change_no_bit_of_a_run() {
    let beginning = "a beginning of all questions: ";
    let rows = [("2+2?", "4"), ("sky?", "a very long and blue one"), ("hi", "b"), ("why?", "so")];
    let long = "no beginning, and a long question that has no other one beside it";
    let questions: Vec<String> = rows.iter().map(|(q, _)| format!("{beginning}{q}")).collect();
    let mut all: Vec<(&str, &str)> =
        questions.iter().zip(rows).map(|(question, (_, answer))| (&**question, answer)).collect();
    all.extend([(long, "yes"), ("x", "y"), ("bye", "see you"), ("10-3?", "7"), ("red?", "no")]);
    for (whole, tied) in [(false, false), (true, false), (true, true)] {
        let mut fixture = Fixture::with_validation();
        if tied {
            tie(&fixture);
        }
        fixture.write_rows("rows.jsonl", &all);
        fixture.recipe = fixture.recipe.replace("batch_size: 4", "batch_size: 8");
        fixture.recipe = match whole {
            true => fixture.recipe.replace("adapter: {rank: 4}", "adapter: {type: none}"),
            false => fixture.recipe.replace("{rank: 4}", "{rank: 4, dropout: 0.1}"),
        };
        let run = |name: &str, overrides: &[&str], threads: usize| {
            let how = How { overrides, threads, ..How::default() };
            fixture.train(name, &how).unwrap();
            let file = match whole {
                true => "model/model.safetensors",
                false => "adapter/adapter_model.safetensors",
            };
            let validations = fixture.events(name).into_iter();
            let validations = validations.filter(|event| event["event"] == "evaluated");
            let losses: Vec<f64> =
                validations.map(|event| event["validation_loss"].as_f64().unwrap()).collect();
            let micros = fixture.events(name).into_iter();
            let micros = micros.filter_map(|event| event["micro_batches"].as_u64()).sum::<u64>();
            let bytes = std::fs::read(fixture.path(name).join(file)).unwrap();
            (micros, (fixture.steps(name), losses, bytes))
        };
        let (fewest, expected) = run("large", &["micro_batch_tokens=4096"], 1);
        assert!(expected.1.len() > 3);
        for (name, tokens) in [("usual", "192"), ("small", "160")] {
            let (micros, found) = run(name, &[&format!("micro_batch_tokens={tokens}")], 2);
            assert!(micros > fewest, "{name}: {micros} micro-batches, {fewest}");
            assert!(found == expected, "{name}");
        }
        let apart = ["micro_batch_tokens=4096", "share_prefixes=false"];
        let (_, expected) = run("apart", &apart, 2);
        let least = ["micro_batch_tokens=16", "share_prefixes=false"];
        let (micros, found) = run("least", &least, 1);
        assert!(micros > fewest && found == expected);
    }
}

/// What the head is told does not hang on a target's neighbours.
#[test]
fn a_target_keeps_its_weight_in_every_plan() {
    let rows = apart();
    let weights = |budget| {
        let plan = StepPlan::new(&Unit::of_sequences(rows.clone()), &packing(budget, 0, false));
        let policy = HeadOutputs::default();
        let of = |Micro { batch, sequences }: &Micro| {
            let micro = MicroOutputs { batch, sequences, policy: &policy, extra: &[], before: &[] };
            Sft.known_gradient(&micro, &plan).unwrap()
        };
        let all = plan.micros.iter().flat_map(of);
        (plan.totals.weight.to_bits(), all.map(f32::to_bits).collect::<Vec<_>>())
    };
    assert_eq!(weights(1), weights(usize::MAX));
}
