//! What a run's steps take, found by running them on a device that only counts.

use compute::{Backend, Measure};
use data::{Micro, Packing, Unit};
use model::generate::{Batcher, Model, Room};
use model::{Base, TrainedTensor};
use text::{Batch, LastRead, Segment, Target};

use super::course::{Rows, VALIDATION_CHUNK, packing};
use super::plan::Memory;
use crate::Result;
use crate::models::{Models, PartName, TrainingSetup};
use crate::objective::{Objective, OwnValues, ValueLoss};
use crate::optimizer::OptimizerConfig;
use crate::step::{SequenceInfo, StepPlan};

/// How many of a run's steps are looked at: enough that what they have in common shows.
const STEPS: usize = 64;

/// Pages of a file come into memory in runs of so many bytes where the system has them at hand.
const FILE_RUN: usize = 64 << 10;

/// A model on a device that only counts.
pub(super) struct MemoryEstimate {
    models: Models,
    measure: Measure,
    dropout: bool,
    objective: Box<dyn Objective>,
    has_own_values: bool,
    /// What the model takes before its first step.
    pub(super) resident: Memory,
}

/// What a pass takes for a while.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peak {
    pub(super) stack: usize,
    pub(super) workspace: usize,
}

impl Peak {
    pub(super) fn or(self, other: Peak) -> Peak {
        Peak { stack: self.stack.max(other.stack), workspace: self.workspace.max(other.workspace) }
    }

    /// With what the model takes by itself.
    pub(super) fn over(self, resident: Memory) -> Memory {
        Memory { activations: self.stack, workspace: self.workspace, ..resident }
    }
}

impl MemoryEstimate {
    /// Puts the model there, and takes one step of the optimizer.
    pub(super) fn new(
        base: &Base,
        setup: &TrainingSetup,
        optimizer: &OptimizerConfig,
        objective: Box<dyn Objective>,
        device: &dyn Backend,
    ) -> Result<Self> {
        let mut measure = Measure::of(device);
        let models = setup.load(base, &mut measure)?;
        let trained = models.trained();
        let loaded = measure.report();
        let numbers: usize = trained.iter().map(TrainedTensor::len).sum();
        let state =
            |tensor: &TrainedTensor| tensor.parameter.optimizer.state_bytes(tensor.parameter.shape);
        let states: usize = trained.iter().map(state).sum();
        optimizer.step(&mut measure, &trained, 0.0, 1.0, 1)?;
        models.refresh(&mut measure)?;
        let step = measure.report().static_bytes - loaded.static_bytes;
        let other = loaded.static_bytes.saturating_sub(8 * numbers + states);
        let dropout = setup.policy().own().is_some_and(|own| own.config.dropout > 0.0);
        let resident = Memory {
            weights: loaded.weight_bytes + other,
            trained: 4 * numbers,
            gradients: 4 * numbers,
            optimizer: states + step,
            saving: setup.saving_bytes(&trained),
            ..Memory::default()
        };
        let has_own_values = setup.has_part(PartName::Value);
        Ok(MemoryEstimate { models, measure, dropout, objective, has_own_values, resident })
    }

    /// A micro-batch of so many tokens at its worst: every token read, every sequence for itself. The step
    /// that it is part of has at most `of_step` tokens, no two of them the same.
    pub(super) fn worst(
        &self,
        tokens: usize,
        sequences: usize,
        of_step: usize,
        recompute: bool,
    ) -> Result<Peak> {
        let different = of_step.min(self.models.decoder.config.vocab_size) as u32;
        let mut plan = worst_plan(tokens, sequences, &*self.objective);
        plan.carried = self.objective.initially_carried();
        self.step(&plan, different, recompute)
    }

    /// What it takes to sample answers.
    pub(super) fn sampling(&self, room: &Room) -> Result<Peak> {
        let mut measure = self.measure.clone();
        let adapter = self.models.policy().adapter.as_deref();
        let model = Model { decoder: &self.models.decoder, parts: &[adapter] };
        Batcher::rehearse(model, &mut measure, room)?;
        Ok(used(&measure))
    }

    /// Tokens that the run's first steps compute where micro-batches are so large.
    pub(super) fn computed(&self, rows: &mut Rows, tokens: usize) -> Result<usize> {
        let packing = self.packing(rows, tokens);
        let steps = rows.first_steps(STEPS)?;
        Ok(steps.iter().map(|step| self.plan(rows, step, &packing).totals.tokens_computed).sum())
    }

    fn packing(&self, rows: &Rows, tokens: usize) -> Packing {
        packing(&self.models.decoder.config, &*self.objective, tokens, rows.shares_prefixes)
    }

    fn plan(&self, rows: &Rows, units: &[Unit], packing: &Packing) -> StepPlan {
        rows.plan(units, packing, &self.objective.initially_carried(), false)
    }

    /// The micro-batches that the run will make, validation's among them.
    pub(super) fn own(&self, rows: &mut Rows, tokens: usize, recompute: bool) -> Result<Peak> {
        let packing = self.packing(rows, tokens);
        let mut most = Peak::default();
        let steps = rows.first_steps(STEPS)?;
        let plans: Vec<_> = steps.iter().map(|step| self.plan(rows, step, &packing)).collect();
        let different = plans.iter().map(|plan| different_tokens(plan).len()).max().unwrap_or(0);
        for plan in largest(plans) {
            most = most.or(self.step(&plan, different as u32, recompute)?);
        }
        // Held-out prompts have no targets: they are answered.
        let steps = if rows.rollout.is_some() { 0 } else { STEPS };
        for chunk in rows.validation.chunks(VALIDATION_CHUNK).take(steps) {
            for plan in largest([self.plan(rows, &chunk?, &packing)]) {
                most = most.or(self.evaluation(&plan)?);
            }
        }
        Ok(most)
    }

    /// What the micro-batches of a step take at most.
    pub(super) fn most(&self, plan: &StepPlan, recompute: bool) -> Result<Peak> {
        let (mut most, different) = (Peak::default(), different_tokens(plan).len());
        for plan in largest([plan.clone()]) {
            most = most.or(self.step(&plan, different as u32, recompute)?);
        }
        Ok(most)
    }

    /// Bytes of a mapped embedding that looking up the tokens of a step, or of validation, brings into
    /// memory. They are given back after it.
    pub(super) fn looked_up(&self, rows: &mut Rows) -> Result<usize> {
        let row_bytes = self.measure.report().lookup_row_bytes;
        let vocab = self.models.decoder.config.vocab_size;
        if row_bytes == 0 {
            return Ok(0);
        }
        let touched = |units: &[Unit]| {
            let mut runs = vec![false; (vocab * row_bytes).div_ceil(FILE_RUN)];
            let sequences = units.iter().flat_map(|unit| &unit.sequences);
            for &token in sequences.flat_map(|sequence| &sequence.tokens) {
                let start = token as usize * row_bytes;
                runs[start / FILE_RUN..(start + row_bytes).div_ceil(FILE_RUN)].fill(true);
            }
            runs.into_iter().filter(|&run| run).count() * FILE_RUN
        };
        let mut most = rows.first_steps(STEPS)?.iter().map(|step| touched(step)).max().unwrap_or(0);
        for chunk in rows.validation.chunks(VALIDATION_CHUNK).take(STEPS) {
            most = most.max(touched(&chunk?));
        }
        Ok(most)
    }

    /// All parameters of the model, and those that are trained.
    pub(super) fn parameters(&self) -> (usize, usize) {
        let trained = self.models.trained();
        let total = self.models.decoder.config.parameter_count();
        (total, trained.iter().map(TrainedTensor::len).sum())
    }

    /// A micro-batch of a step that looks up so many different tokens.
    fn step(&self, plan: &StepPlan, different: u32, recompute: bool) -> Result<Peak> {
        Ok(used(&self.count(plan, 0..different, recompute)?))
    }

    /// Useful floating point operations of forward and backward over a step.
    pub(super) fn work(&self, plan: &StepPlan) -> Result<u64> {
        let count = |measure: &Measure| {
            let report = measure.report();
            report.flops_linear
                + report.flops_weight_gradient
                + report.flops_attention
                + report.flops_head
        };
        // Recomputation is not counted.
        Ok(count(&self.count(plan, plan.tokens(), false)?) - count(&self.measure))
    }

    /// Runs the engine itself on a device that only counts. Results read as zeros, which every loss survives.
    fn count(
        &self,
        plan: &StepPlan,
        tokens: impl Iterator<Item = u32>,
        recompute: bool,
    ) -> Result<Measure> {
        let mut measure = self.measure.clone();
        let dropout_key = self.dropout.then_some(0);
        let mut engine = self.models.engine(&mut measure, recompute);
        if self.objective.divergence().is_some() {
            engine.states_under_part(plan, PartName::Teacher)?;
        }
        engine.accumulate_over(plan, tokens, &*self.objective, dropout_key)?;
        if self.has_own_values {
            // Its weight and bounds take no memory.
            let values = OwnValues(ValueLoss { coefficient: 1.0, clip: None });
            engine.trained = PartName::Value;
            engine.accumulate_over(plan, std::iter::empty(), &values, dropout_key)?;
        }
        Ok(measure)
    }

    fn evaluation(&self, plan: &StepPlan) -> Result<Peak> {
        let mut measure = self.measure.clone();
        self.models.engine(&mut measure, false).evaluate(plan, &*self.objective)?;
        Ok(used(&measure))
    }
}

/// The tokens of a step, each once.
fn different_tokens(plan: &StepPlan) -> Vec<u32> {
    let mut tokens: Vec<u32> = plan.tokens().collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

fn used(measure: &Measure) -> Peak {
    let report = measure.report();
    Peak { stack: report.stack_peak_bytes, workspace: report.workspace_bytes }
}

/// Those micro-batches that no other one exceeds in everything that memory depends on, each as a step of its own.
fn largest(plans: impl IntoIterator<Item = StepPlan>) -> Vec<StepPlan> {
    let mut largest: Vec<StepPlan> = Vec::new();
    for mut plan in plans {
        for mut micro in std::mem::take(&mut plan.micros) {
            if largest.iter().any(|other| is_within(&micro.batch, &other.micros[0].batch)) {
                continue;
            }
            largest.retain(|other| !is_within(&other.micros[0].batch, &micro.batch));
            // How many tokens there are counts, not which.
            micro.batch.tokens.fill(0);
            largest.push(StepPlan { micros: vec![micro], ..plan.clone() });
        }
    }
    largest
}

/// Whether a batch takes no more than another one.
fn is_within(batch: &Batch, other: &Batch) -> bool {
    let size = |batch: &Batch| {
        [batch.tokens.len(), batch.reads.len(), batch.segments.len(), batch.targets.len()]
    };
    size(batch).iter().zip(size(other)).all(|(own, other)| *own <= other)
}

/// A micro-batch in which nothing is shared and everything is read that the objective reads.
fn worst_plan(tokens: usize, sequences: usize, objective: &dyn Objective) -> StepPlan {
    // A tree has at most twice as many segments as sequences.
    let count = (2 * sequences).clamp(1, tokens);
    let mut segments = Vec::with_capacity(count);
    for index in 0..count {
        let (start, end) = (tokens * index / count, tokens * (index + 1) / count);
        let (len, parent) = (end - start, None);
        segments.push(Segment { start, len, parent, sequence_len: len, row: 0 });
    }
    let has_targets = objective.reads().has_targets();
    let read = if has_targets { tokens } else { sequences.clamp(1, tokens) };
    let reads: Vec<u32> = (0..read as u32).collect();
    let last = read as u32 - 1;
    let mut targets = Vec::new();
    if has_targets {
        let target = |read| Target { read, token: 0, sequence: 0, place: 0, role: 0, weight: 1.0 };
        targets.extend(reads.iter().map(|&read| target(read)));
        // A shared last token predicts the first token of every child.
        targets.extend((0..sequences).map(|_| target(last)));
    }
    // One unit of as many sequences as the objective may want to compare.
    let info = |role| SequenceInfo { unit: 0, role };
    let last_reads = match objective.reads().has_values() {
        true => vec![LastRead { read: 0, sequence: 0 }, LastRead { read: last, sequence: 1 }],
        false => Vec::new(),
    };
    let batch = Batch { tokens: vec![0; tokens], segments, reads, targets, last_reads };
    let micro = Micro { batch, sequences: vec![0, 1] };
    StepPlan::from_micros(vec![micro], vec![info(0), info(1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_within_another_is_not_looked_at() {
        let batch = |tokens: usize, reads: u32| Batch {
            tokens: vec![0; tokens],
            reads: (0..reads).collect(),
            ..Batch::default()
        };
        let sizes = [(4, 1), (3, 1), (4, 2), (2, 3), (4, 2), (1, 1)];
        let micros = sizes.map(|(tokens, reads)| batch(tokens, reads));
        let micros = micros.map(|batch| Micro { batch, sequences: Vec::new() });
        let kept = largest([StepPlan::from_micros(micros.into(), Vec::new())]);
        let kept = kept.iter().map(|plan| &plan.micros[0].batch);
        let kept: Vec<_> = kept.map(|b| (b.tokens.len(), b.reads.len())).collect();
        assert_eq!(kept, [(4, 2), (2, 3)]);
    }
}
