//! What a run's steps take, found by running them on a device that only counts.

use compute::{Backend, DType, Device, Measure};
use data::{Cursor, Order, Packing, Sequences, Unit};
use model::{Base, Config, HeadGradients, HeadRequest, Pass, TrainedTensor};
use text::{Batch, Segment, Target};

use super::plan::Memory;
use crate::Result;
use crate::models::{Models, TrainingSetup};
use crate::optimizer::OptimizerConfig;
use crate::step::StepPlan;

/// Validation rows whose losses are taken at a time: what is read of them stays small, however many there are.
pub(super) const VALIDATION_CHUNK: usize = 1024;

/// How many of a run's steps are looked at: enough that what they have in common shows.
const STEPS: usize = 64;

/// Pages of a file come into memory in runs of so many bytes where the system has them at hand.
const FILE_RUN: usize = 64 << 10;

/// A model on a device that only counts.
pub(super) struct Demand {
    models: Models,
    measure: Measure,
    dropout: bool,
    /// What the model takes before its first step.
    pub(super) resident: Memory,
}

/// What a pass takes for a while.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    pub(super) stack: usize,
    pub(super) workspace: usize,
}

impl Use {
    fn or(self, other: Use) -> Use {
        Use { stack: self.stack.max(other.stack), workspace: self.workspace.max(other.workspace) }
    }

    /// With what the model takes by itself.
    pub(super) fn over(self, resident: Memory) -> Memory {
        Memory { activations: self.stack, workspace: self.workspace, ..resident }
    }
}

/// What a run goes through.
pub(super) struct Rows<'a> {
    pub(super) train: &'a Sequences,
    pub(super) validation: &'a Sequences,
    pub(super) order: &'a mut Order,
    /// Whether what they begin with is computed once.
    pub(super) shares_prefixes: bool,
}

impl Demand {
    /// Puts the model there, and takes one step of the optimizer.
    pub(super) fn new(
        base: &Base,
        setup: &TrainingSetup,
        optimizer: &OptimizerConfig,
        device: &Device,
        operand: DType,
    ) -> Result<Self> {
        let mut measure = Measure::of(device, operand);
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
        Ok(Demand { models, measure, dropout, resident })
    }

    /// A micro-batch of so many tokens at its worst: every token read, every sequence for itself. The step
    /// that it is part of has at most `of_step` tokens, no two of them the same.
    pub(super) fn worst(
        &self,
        tokens: usize,
        sequences: usize,
        of_step: usize,
        checkpoint: bool,
    ) -> Result<Use> {
        let different = of_step.min(self.models.decoder.config.vocab_size) as u32;
        let of_step: Vec<u32> = (0..different).collect();
        self.step(&worst_batch(tokens, sequences), &of_step, checkpoint)
    }

    /// Tokens that the run's first steps compute where micro-batches are so large.
    pub(super) fn computed(&self, rows: &mut Rows<'_>, tokens: usize) -> Result<usize> {
        let packing = self.packing(rows, tokens);
        let steps = rows.first_steps()?;
        Ok(steps.iter().map(|step| StepPlan::new(step, &packing).totals.tokens_computed).sum())
    }

    fn packing(&self, rows: &Rows<'_>, tokens: usize) -> Packing {
        packing(&self.models.decoder.config, tokens, rows.shares_prefixes)
    }

    /// The micro-batches that the run will make, validation's among them.
    pub(super) fn own(&self, rows: &mut Rows<'_>, tokens: usize, checkpoint: bool) -> Result<Use> {
        let packing = self.packing(rows, tokens);
        let mut most = Use::default();
        let steps = rows.first_steps()?;
        let plans: Vec<_> = steps.iter().map(|step| StepPlan::new(step, &packing)).collect();
        let different = plans.iter().map(|plan| different_tokens(plan).len()).max().unwrap_or(0);
        let of_step: Vec<u32> = (0..different as u32).collect();
        let micros = plans.into_iter().flat_map(|plan| plan.micros);
        for mut batch in largest(micros.map(|micro| micro.batch)) {
            // How many there are counts, not which.
            batch.tokens.fill(0);
            most = most.or(self.step(&batch, &of_step, checkpoint)?);
        }
        for chunk in rows.validation.chunks(VALIDATION_CHUNK)?.take(STEPS) {
            let micros = StepPlan::new(&chunk?, &packing).micros;
            for batch in largest(micros.into_iter().map(|micro| micro.batch)) {
                most = most.or(self.evaluation(&batch)?);
            }
        }
        Ok(most)
    }

    /// What the micro-batches of a step take at most.
    pub(super) fn most(&self, plan: &StepPlan, checkpoint: bool) -> Result<Use> {
        let (mut most, of_step) = (Use::default(), different_tokens(plan));
        for batch in largest(plan.micros.iter().map(|micro| micro.batch.clone())) {
            most = most.or(self.step(&batch, &of_step, checkpoint)?);
        }
        Ok(most)
    }

    /// Bytes of a mapped embedding that looking up the tokens of a step, or of validation, brings into
    /// memory. They are given back after it.
    pub(super) fn looked_up(&self, rows: &mut Rows<'_>) -> Result<usize> {
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
        let mut most = rows.first_steps()?.iter().map(|step| touched(step)).max().unwrap_or(0);
        for chunk in rows.validation.chunks(VALIDATION_CHUNK)?.take(STEPS) {
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

    fn step(&self, batch: &Batch, of_step: &[u32], checkpoint: bool) -> Result<Use> {
        Ok(used(&self.count(batch, of_step, checkpoint)?))
    }

    /// Useful floating point operations of forward and backward over a micro-batch.
    pub(super) fn work(&self, batch: &Batch) -> Result<u64> {
        let count = |measure: &Measure| {
            let report = measure.report();
            report.flops_linear
                + report.flops_weight_gradient
                + report.flops_attention
                + report.flops_head
        };
        // Recomputation is not counted.
        Ok(count(&self.count(batch, &batch.tokens, false)?) - count(&self.measure))
    }

    /// A micro-batch of a step with tokens `of_step`.
    fn count(&self, batch: &Batch, of_step: &[u32], checkpoint: bool) -> Result<Measure> {
        let mut measure = self.measure.clone();
        let (decoder, adapter) = (&self.models.decoder, self.models.policy().adapter.as_deref());
        let dropout_key = self.dropout.then_some(0);
        let backend = &mut measure as &mut dyn Backend;
        let lookups = decoder.begin_step(backend, adapter, of_step.iter().copied())?;
        let lookups = Some(&lookups);
        let pass = Pass { adapter, keep: true, checkpoint, dropout_key, lookups };
        let weights = vec![0.0; batch.targets.len()];
        let request = HeadRequest::logprobs();
        let targets = &batch.targets;
        let mut hidden = decoder.forward(backend, batch, &pass)?;
        decoder.head(backend, &mut hidden, targets, &request, None, Some(&weights), &pass)?;
        decoder.backward(backend, hidden, &HeadGradients::default(), None, &pass)?;
        Ok(measure)
    }

    fn evaluation(&self, batch: &Batch) -> Result<Use> {
        let mut measure = self.measure.clone();
        let (decoder, adapter) = (&self.models.decoder, self.models.policy().adapter.as_deref());
        let pass = Pass { adapter, ..Pass::default() };
        let request = HeadRequest::logprobs();
        let mut hidden = decoder.forward(&mut measure, batch, &pass)?;
        decoder.head(&mut measure, &mut hidden, &batch.targets, &request, None, None, &pass)?;
        hidden.release(&mut measure);
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

/// How a run's micro-batches are made.
pub(super) fn packing(config: &Config, tokens: usize, shares_prefixes: bool) -> Packing {
    let packing = Packing::new(tokens);
    let min_shared = if shares_prefixes { packing.min_shared } else { 0 };
    Packing { drop_unread: true, min_shared, apart_beyond: config.long_beyond(), ..packing }
}

fn used(measure: &Measure) -> Use {
    let report = measure.report();
    Use { stack: report.stack_peak_bytes, workspace: report.workspace_bytes }
}

impl Rows<'_> {
    /// What the run's first steps take, and its longest row alone.
    fn first_steps(&mut self) -> Result<Vec<Vec<Unit>>> {
        let (mut steps, mut cursor) = (Vec::new(), Cursor::default());
        for _ in 0..STEPS {
            let Some(step) = self.order.step(cursor) else { break };
            cursor = step.next;
            steps.push(self.train.units_at(&step.units)?);
        }
        if let Some((longest, _)) = self.train.longest() {
            steps.push(Unit::of_sequences(vec![self.train.get(longest)?]));
        }
        Ok(steps)
    }
}

/// Those batches that no other one exceeds in everything that memory depends on.
fn largest(batches: impl IntoIterator<Item = Batch>) -> Vec<Batch> {
    let size = |batch: &Batch| {
        [batch.tokens.len(), batch.reads.len(), batch.segments.len(), batch.targets.len()]
    };
    let within = |a: &Batch, b: &Batch| size(a).iter().zip(size(b)).all(|(a, b)| *a <= b);
    let mut largest: Vec<Batch> = Vec::new();
    for batch in batches {
        if !largest.iter().any(|other| within(&batch, other)) {
            largest.retain(|other| !within(other, &batch));
            largest.push(batch);
        }
    }
    largest
}

/// A batch in which nothing is shared and everything is read.
fn worst_batch(tokens: usize, sequences: usize) -> Batch {
    // A tree has at most twice as many segments as sequences.
    let count = (2 * sequences).clamp(1, tokens);
    let mut segments = Vec::with_capacity(count);
    for index in 0..count {
        let (start, end) = (tokens * index / count, tokens * (index + 1) / count);
        let (len, parent) = (end - start, None);
        segments.push(Segment { start, len, parent, sequence_len: len, row: 0 });
    }
    let reads: Vec<u32> = (0..tokens as u32).collect();
    let target = |read| Target { read, token: 0, sequence: 0, place: 0, role: 0, weight: 1.0 };
    let mut targets: Vec<Target> = reads.iter().map(|&read| target(read)).collect();
    // A shared last token predicts the first token of every child.
    targets.extend((0..sequences).map(|_| target(tokens as u32 - 1)));
    Batch { tokens: vec![0; tokens], segments, reads, targets, last_reads: Vec::new() }
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
        let kept = largest(sizes.map(|(tokens, reads)| batch(tokens, reads)));
        let kept: Vec<_> = kept.iter().map(|b| (b.tokens.len(), b.reads.len())).collect();
        assert_eq!(kept, [(4, 2), (2, 3)]);
    }
}
