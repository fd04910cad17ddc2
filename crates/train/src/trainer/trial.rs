//! A training step over rows that nobody prepared, to be measured: what a run does in a step, without its folder.

use std::collections::BTreeMap;
use std::path::Path;

use compute::{Backend, MemoryLimits, Optimizer, Quantization};
use data::{Sequence, Unit};
use keys::Surroundings;
use model::adapter::{LoadedAdapter, LoraKind};
use model::generate::Sampling;
use model::{Base, LoraConfig, ScalarHead, Selection};

use super::Control;
use super::course::packing;
use super::memory_estimate::MemoryEstimate;
use super::plan::{self, Memory};
use super::reference_cache::reference_logprobs;
use super::rollouts::{Drawn, Policy, Wanted, room, sample};
use crate::method::Method;
use crate::models::{Models, PartName, PartSetup, TrainingSetup};
use crate::objective::Objective;
use crate::optimizer::OptimizerConfig;
use crate::recipe::schema;
use crate::step::StepPlan;
use crate::{Error, Result};

/// What is trained in a trial, and how.
#[derive(Clone, Debug)]
pub struct TrialConfig {
    /// What is learned by, with the keys that it takes unless told otherwise.
    pub method: &'static Method,
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
    /// The prompts of the step's answers, where these are sampled, and how long each answer is.
    sampled: Option<(Vec<Wanted>, usize)>,
    objective: Box<dyn Objective>,
    /// The step with the log-probabilities of the reference in it; see [`Trial::know_reference`].
    known: Option<StepPlan>,
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
        let mut setup = setup(base, config)?;
        let optimizer = OptimizerConfig {
            matrices: config.optimizer,
            others: config.optimizer,
            weight_decay: 0.0,
            embedding_ratio: 1.0,
            loraplus_ratio: 1.0,
        };
        let objective = usual_objective(config.method);
        let (tokens, shares) = (config.micro_batch_tokens, config.shares_prefixes);
        let packing = packing(&base.config, &*objective, tokens, shares);
        let units = Unit::of_sequences(rows.to_vec());
        let auxiliary = objective.auxiliary(&units);
        let auxiliary =
            (!auxiliary.is_empty()).then(|| Box::new(StepPlan::new(&auxiliary, &packing)));
        let carried = objective.initially_carried();
        let sampled = config.method.online.is_some().then(|| wanted(rows));
        let plan = StepPlan { auxiliary, carried, ..StepPlan::new(&units, &packing) };
        let counted = usual_objective(config.method);
        let counted = MemoryEstimate::new(base, &setup, &optimizer, counted, &*backend)?;
        let mut used = counted.most(&plan, config.recompute)?;
        if let Some((wanted, len)) = &sampled {
            let longest = wanted.iter().map(|wanted| wanted.prompt.len()).max().unwrap_or(1);
            used = used.or(counted.sampling(&room(wanted.len(), longest, *len))?);
        }
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
        Ok(Trial {
            models,
            sampled,
            objective,
            known: None,
            optimizer,
            recompute,
            steps: 0,
            plan,
            memory,
            flops,
            parameters,
        })
    }

    /// Draws as many answers as the step has, of their length, all at the same time. Returns how many tokens were drawn;
    /// none where the method learns from rows as they are.
    pub fn sample(&mut self, backend: &mut dyn Backend) -> Result<Option<usize>> {
        let Some((wanted, len)) = &self.sampled else { return Ok(None) };
        self.models.activate(backend, PartName::Policy)?;
        let policy = Policy {
            decoder: &self.models.decoder,
            adapter: self.models.policy().adapter.as_deref(),
            stop_tokens: &[],
            max_new_tokens: *len,
        };
        let mut drawn = 0;
        let mut count = |_, answer: Drawn| {
            drawn += answer.tokens.len();
            Ok(())
        };
        let listen = &mut || Control::Continue;
        sample(policy, backend, wanted, wanted.len(), listen, &mut count)?;
        Ok(Some(drawn))
    }

    /// Whether the loss compares with a reference.
    pub fn has_reference(&self) -> bool {
        self.models.parts.iter().any(|part| part.name == PartName::Reference)
    }

    /// Computes the log-probabilities of the reference, for [`Trial::step_with_known_reference`] and
    /// [`Trial::forward`].
    pub fn know_reference(&mut self, backend: &mut dyn Backend) -> Result<()> {
        let mut known = self.plan.clone();
        if self.has_reference() {
            let mut engine = self.models.engine(backend, self.recompute);
            let temperature = self.objective.request().temperature;
            if let Some(auxiliary) = &mut known.auxiliary {
                auxiliary.reference =
                    Some(reference_logprobs(auxiliary, &mut engine, temperature)?);
            }
            known.reference = Some(reference_logprobs(&known, &mut engine, temperature)?);
        }
        self.known = Some(known);
        Ok(())
    }

    /// One step: gradient, norm, update. Returns the loss.
    pub fn step(&mut self, backend: &mut dyn Backend) -> Result<f64> {
        let plan = std::mem::take(&mut self.plan);
        let loss = self.step_over(&plan, backend);
        self.plan = plan;
        loss
    }

    /// The same without passes of the reference.
    ///
    /// # Panics
    /// Before [`Trial::know_reference`].
    pub fn step_with_known_reference(&mut self, backend: &mut dyn Backend) -> Result<f64> {
        let plan = self.known.take().expect("the reference was computed");
        let loss = self.step_over(&plan, backend);
        self.known = Some(plan);
        loss
    }

    /// The loss alone: forward passes of the policy without gradient, and none of the reference.
    ///
    /// # Panics
    /// Before [`Trial::know_reference`].
    pub fn forward(&mut self, backend: &mut dyn Backend) -> Result<f64> {
        let plan = self.known.as_ref().expect("the reference was computed");
        let mut engine = self.models.engine(&mut *backend, self.recompute);
        let outcome = engine.evaluate(plan, &*self.objective)?;
        backend.sync()?;
        Ok(outcome.loss)
    }

    fn step_over(&mut self, plan: &StepPlan, backend: &mut dyn Backend) -> Result<f64> {
        let trained = self.models.trained();
        let parameters: Vec<_> = trained.iter().map(|tensor| tensor.parameter).collect();
        let mut engine = self.models.engine(&mut *backend, self.recompute);
        let outcome = engine.accumulate(plan, &*self.objective, None)?;
        engine.gradient_norm(&parameters)?;
        self.steps += 1;
        // Small enough that a measurement of any length ends where it began.
        self.optimizer.step(backend, &trained, 1e-6, 1.0, self.steps)?;
        self.models.refresh(backend)?;
        backend.sync()?;
        Ok(outcome.loss)
    }
}

/// What is asked so that rows like these are drawn, and how many tokens of each row are.
fn wanted(rows: &[Sequence]) -> (Vec<Wanted>, usize) {
    let prompt = |row: &Sequence| row.len() - row.supervised();
    let wanted = |(key, row): (u64, &Sequence)| Wanted {
        prompt: row.tokens[..prompt(row)].to_vec(),
        sampling: Sampling { temperature: 1.0, key, ..Sampling::default() },
    };
    let len = rows.iter().map(Sequence::supervised).max().unwrap_or(1);
    ((0..).zip(rows).map(wanted).collect(), len)
}

/// The loss of a method with the keys that it takes unless told otherwise.
fn usual_objective(method: &Method) -> Box<dyn Objective> {
    let around = Surroundings { current_dir: Path::new("."), home: None, variable: &|_| None };
    let recipe = format!("model: trial\nmethod: {}\ndata: {{train: rows}}\n", method.name);
    let document = schema().parse(&recipe, Path::new("trial"), &[], &around);
    (method.objective)(&document.expect("a recipe needs no more than this"))
}

fn setup(base: &Base, config: &TrialConfig) -> Result<TrainingSetup> {
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
    if config.method.has_scalar_head || config.method.has_value_head {
        setup.policy_mut().head = Some(ScalarHead::initial_values(base, 1)?);
    }
    let objective = usual_objective(config.method);
    if objective.extra_passes().iter().any(|pass| pass.part == PartName::Reference) {
        // What the policy begins as is the base: the adapter is fresh.
        setup.parts.push(PartSetup::of_base(PartName::Reference));
    }
    if objective.divergence().is_some() {
        setup.parts.push(PartSetup::of_base(PartName::Teacher));
    }
    Ok(setup)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::{METHODS, Online};
    use crate::models::has_reference;

    #[test]
    fn methods_with_a_reference_ask_for_its_passes() {
        for method in METHODS {
            let objective = usual_objective(method);
            let asks = objective.extra_passes().iter().any(|p| p.part == PartName::Reference);
            // Of answers that are sampled the divergence may be in the reward, or count nowhere.
            let may_ask = has_reference(method);
            assert!(asks <= may_ask, "{}", method.name);
            let has_advantages = matches!(method.online, Some(Online::Advantages(_)));
            assert!(has_advantages || asks == may_ask, "{}", method.name);
        }
    }
}
