//! A training step over rows that nobody prepared, to be measured: what a run does in a step, without its folder.

use std::collections::BTreeMap;

use compute::{Backend, MemoryLimits, Optimizer, Quantization};
use data::{Sequence, Unit};
use model::adapter::{LoadedAdapter, LoraKind};
use model::{Base, LoraConfig, Selection};

use super::course::packing;
use super::memory_estimate::MemoryEstimate;
use super::plan::{self, Memory};
use crate::method::Sft;
use crate::models::{Models, TrainingSetup};
use crate::optimizer::OptimizerConfig;
use crate::step::StepPlan;
use crate::{Error, Result};

/// What is trained in a trial, and how.
#[derive(Clone, Debug)]
pub struct TrialConfig {
    /// Rank of LoRA on all linear layers; without it the model itself is trained.
    pub rank: Option<usize>,
    /// How frozen linear layers are made smaller.
    pub quantization: Option<Quantization>,
    /// The rule of the update.
    pub optimizer: Optimizer,
    /// Most tokens computed at a time.
    pub micro_batch_tokens: usize,
    /// Whether layers are computed twice.
    pub recompute: bool,
    /// Whether a beginning that several rows share is computed once.
    pub shares_prefixes: bool,
    /// Bytes that the trial may take.
    pub memory_limit: usize,
}

/// A model in training on a device, and the rows of its step.
pub struct Trial {
    models: Models,
    optimizer: OptimizerConfig,
    recompute: bool,
    steps: u64,
    /// The step.
    pub plan: StepPlan,
    /// What it takes, as planned.
    pub memory: Memory,
    /// Useful floating point operations of a step, two to a multiply and add; what backward computes again is
    /// not counted.
    pub flops: u64,
    /// All parameters, and those that are trained.
    pub parameters: (usize, usize),
}

impl Trial {
    /// Plans the step, loads the model and makes room.
    pub fn new(
        base: &Base,
        backend: &mut dyn Backend,
        config: &TrialConfig,
        rows: &[Sequence],
    ) -> Result<Self> {
        let mut setup = setup(base, config);
        let optimizer = OptimizerConfig {
            matrices: config.optimizer,
            others: config.optimizer,
            weight_decay: 0.0,
            embedding_ratio: 1.0,
            loraplus_ratio: 1.0,
        };
        let packing =
            packing(&base.config, &Sft, config.micro_batch_tokens, config.shares_prefixes);
        let plan = StepPlan::new(&Unit::of_sequences(rows.to_vec()), &packing);
        let counted = MemoryEstimate::new(base, &setup, &optimizer, Box::new(Sft), &*backend)?;
        let used = counted.most(&plan, config.recompute)?;
        let flops = counted.work(&plan)?;
        let parameters = counted.parameters();
        let memory = used.over(Memory { saving: 0, ..counted.resident });
        let limits = MemoryLimits { host: config.memory_limit, device: backend.memory_bytes() };
        if memory.exceeded(&limits).is_some() {
            let message = plan::too_large("the step does not fit: it", &memory, &limits);
            let hint = "measure fewer `--sequences` or `--tokens`, an adapter or a smaller model";
            return Err(Error::refused(message, hint));
        }
        let models = setup.load(base, backend)?;
        setup.forget_values();
        backend.reserve(used.stack)?;
        let recompute = config.recompute;
        Ok(Trial { models, optimizer, recompute, steps: 0, plan, memory, flops, parameters })
    }

    /// One step: gradient, norm, update. Returns the loss.
    pub fn step(&mut self, backend: &mut dyn Backend) -> Result<f64> {
        let trained = self.models.trained();
        let parameters: Vec<_> = trained.iter().map(|tensor| tensor.parameter).collect();
        let mut engine = self.models.engine(&mut *backend, self.recompute);
        let outcome = engine.accumulate(&self.plan, &Sft, None)?;
        engine.gradient_norm(&parameters)?;
        self.steps += 1;
        // Small enough that a measurement of any length ends where it began.
        self.optimizer.step(backend, &trained, 1e-6, 1.0, self.steps)?;
        self.models.refresh(backend)?;
        backend.sync()?;
        Ok(outcome.loss)
    }
}

fn setup(base: &Base, config: &TrialConfig) -> TrainingSetup {
    let shape = &base.config;
    let kind = config.optimizer.kind();
    let optimizers = model::Optimizers { matrices: kind, others: kind };
    let mut setup = TrainingSetup::new(config.quantization, optimizers);
    if let Some(rank) = config.rank {
        let (alpha, modules) = (2.0 * rank as f32, shape.modules());
        let lora = LoraConfig::uniform(shape, LoraKind::Lora, rank, alpha, 0.0, modules);
        let values = lora.initial_values(shape, 1);
        let adapter = LoadedAdapter { config: lora, values, replaced: BTreeMap::new() };
        setup.policy_mut().adapters.push(adapter.into());
    } else {
        setup.tensors = Some(Selection::All);
    }
    setup
}
