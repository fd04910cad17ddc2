//! One optimizer step's gradient: what every method shares.

use std::sync::Arc;

use compute::{Backend, DType, Op, Parameter};
use data::Micro;
use eval::classification::Classified;
use model::{
    Decoder, HeadGradients, HeadOutputs, HeadRequest, Hidden, Keep, Pass, TeacherStates, Want,
};
use text::Batch;

use crate::Result;
use crate::models::{Part, PartName, activate, part};
use crate::objective::{
    Coupling, ExtraPass, Fold, MARGIN, Metric, MicroOutputs, Objective, Outcome, Share,
};
use crate::step::StepPlan;

/// A model in training on a device.
pub struct Engine<'a> {
    /// Where it runs.
    pub backend: &'a mut dyn Backend,
    /// The base.
    pub decoder: &'a Decoder,
    /// The models over it.
    pub parts: &'a [Part],
    /// The one whose outputs the objective judges.
    pub trained: PartName,
    /// Keep only the residual stream between layers.
    pub recompute: bool,
}

/// What a step's gradient came with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOutcome {
    /// The loss over the whole step.
    pub loss: f64,
    /// Further figures, by name.
    pub metrics: Vec<(&'static str, f64)>,
    /// What every unit adds to the loss, `[units]`.
    pub shares: Vec<f64>,
    /// By how much the better answer of every unit has the higher reward, `[units]`; none of a unit without two answers.
    pub margins: Vec<Option<f64>>,
    /// The class of every row and the one that the model gives it, `[units]`; empty where there are no classes.
    pub classified: Vec<Classified>,
    /// What the objective carries to the next step.
    pub carried: Vec<f64>,
}

impl<'a> Engine<'a> {
    /// Adds the gradient of the step's loss to what the trained matrices hold.
    pub fn accumulate(
        &mut self,
        plan: &StepPlan,
        objective: &dyn Objective,
        dropout_key: Option<u64>,
    ) -> Result<StepOutcome> {
        self.accumulate_over(plan, plan.tokens(), objective, dropout_key)
    }

    /// As [`accumulate`](Engine::accumulate), for a part of a step that has these `tokens`.
    pub(crate) fn accumulate_over(
        &mut self,
        plan: &StepPlan,
        tokens: impl Iterator<Item = u32>,
        objective: &dyn Objective,
        dropout_key: Option<u64>,
    ) -> Result<StepOutcome> {
        let before = self.before(plan, objective)?;
        self.activate(self.trained)?;
        let adapter = self.part().adapter.as_deref();
        let lookups = self.decoder.begin_step(self.backend, adapter, tokens)?;
        let pass = Pass { lookups: Some(&lookups), ..self.pass(self.part(), true, dropout_key) };
        let outcome = match objective.coupling() {
            Coupling::Step => self.accumulate_coupled(plan, objective, &before, &pass)?,
            _ => self.accumulate_apart(plan, objective, &before, &pass)?,
        };
        lookups.finish(self.backend)?;
        Ok(outcome)
    }

    /// One micro-batch after another.
    fn accumulate_apart(
        &mut self,
        plan: &StepPlan,
        objective: &dyn Objective,
        before: &[f64],
        pass: &Pass<'_>,
    ) -> Result<StepOutcome> {
        let mut parts = Vec::with_capacity(plan.micros.len());
        for index in 0..plan.micros.len() {
            let extra = self.extra_passes(plan, index, objective)?;
            let Micro { batch, sequences } = &plan.micros[index];
            let unknown = HeadOutputs::default();
            let micro = MicroOutputs { batch, sequences, policy: &unknown, extra: &extra, before };
            let known = objective.known_gradient(&micro, plan);
            let (hidden, policy) = self.forward(plan, index, objective, known.as_deref(), pass)?;
            let micro = MicroOutputs { policy: &policy, ..micro };
            let mut outcomes = objective.evaluate(&[micro], plan);
            let mut part = outcomes.pop().expect("an outcome per micro-batch");
            if known.is_some() {
                part.gradients.logprob = None;
            }
            self.backward(hidden, &std::mem::take(&mut part.gradients), pass)?;
            parts.push(part);
        }
        Ok(StepOutcome::of(parts, plan))
    }

    /// All outputs first, one evaluation, then forward and backward of every micro-batch.
    fn accumulate_coupled(
        &mut self,
        plan: &StepPlan,
        objective: &dyn Objective,
        before: &[f64],
        pass: &Pass<'_>,
    ) -> Result<StepOutcome> {
        let parts = self.outcomes(plan, objective, before, pass.dropout_key)?;
        for (index, part) in parts.iter().enumerate() {
            let (hidden, _) = self.forward(plan, index, objective, None, pass)?;
            self.backward(hidden, &part.gradients, pass)?;
        }
        Ok(StepOutcome::of(parts, plan))
    }

    /// The loss of a step's sequences without gradient.
    pub fn evaluate(&mut self, plan: &StepPlan, objective: &dyn Objective) -> Result<StepOutcome> {
        let before = self.before(plan, objective)?;
        Ok(StepOutcome::of(self.outcomes(plan, objective, &before, None)?, plan))
    }

    /// What the objective wants to know before the first micro-batch, of the step's auxiliary sequences.
    fn before(&mut self, plan: &StepPlan, objective: &dyn Objective) -> Result<Vec<f64>> {
        let Some(plan) = &plan.auxiliary else { return Ok(Vec::new()) };
        let (policies, extras) = self.outputs(plan, objective, None)?;
        Ok(objective.before(&micro_outputs(plan, &policies, &extras, &[]), plan))
    }

    /// What the head of a part gives for every micro-batch, `[micro-batches]`, without gradient.
    pub fn outputs_under_part(
        &mut self,
        plan: &StepPlan,
        name: PartName,
        request: &HeadRequest,
    ) -> Result<Vec<HeadOutputs>> {
        self.activate(name)?;
        let mut all = Vec::with_capacity(plan.micros.len());
        for micro in &plan.micros {
            all.push(self.outputs_of(name, &micro.batch, request)?);
        }
        self.activate(self.trained)?;
        Ok(all)
    }

    /// The final norm's output of a part where the tokens of each sequence are predicted, `[sequences][targets * C]`.
    pub fn states_under_part(
        &mut self,
        plan: &StepPlan,
        name: PartName,
    ) -> Result<Vec<Arc<[f32]>>> {
        self.activate(name)?;
        let part = part(self.parts, name);
        let decoder = part.decoder.as_deref().unwrap_or(self.decoder);
        let width = decoder.config.hidden_size;
        let mut states: Vec<Vec<f32>> = vec![Vec::new(); plan.sequences.len()];
        for micro in &plan.micros {
            let of_micro = decoder.states(self.backend, &micro.batch, part.adapter.as_deref())?;
            for target in &micro.batch.targets {
                let (of_sequence, start) =
                    (&mut states[target.sequence as usize], target.place as usize * width);
                of_sequence.resize(of_sequence.len().max(start + width), 0.0);
                let read = &of_micro[target.read as usize * width..][..width];
                of_sequence[start..start + width].copy_from_slice(read);
            }
        }
        self.activate(self.trained)?;
        Ok(states.into_iter().map(Arc::from).collect())
    }

    /// The same under the base without any adapter; none where tensors of the base itself are trained.
    pub fn base_logprobs(&mut self, plan: &StepPlan) -> Result<Option<Vec<Vec<f32>>>> {
        let adapters = || self.parts.iter().filter_map(|part| part.adapter.as_deref());
        let has_whole = adapters().any(|adapter| !adapter.config().modules_to_save.is_empty());
        if has_whole || !self.decoder.trained().is_empty() {
            return Ok(None);
        }
        for adapter in adapters() {
            adapter.deactivate(self.backend, self.decoder)?;
        }
        let base = Part { name: PartName::Reference, adapter: None, head: None, decoder: None };
        let request = HeadRequest::logprobs();
        let mut all = Vec::with_capacity(plan.micros.len());
        for micro in &plan.micros {
            all.push(self.outputs_under(&base, &micro.batch, &request)?.logprob);
        }
        self.activate(self.trained)?;
        Ok(Some(all))
    }

    /// What the head of a part gives for a batch, without gradient. The part is active.
    fn outputs_of(
        &mut self,
        name: PartName,
        batch: &Batch,
        request: &HeadRequest,
    ) -> Result<HeadOutputs> {
        self.outputs_under(part(self.parts, name), batch, request)
    }

    fn outputs_under(
        &mut self,
        part: &Part,
        batch: &Batch,
        request: &HeadRequest,
    ) -> Result<HeadOutputs> {
        let adapter = part.adapter.as_deref();
        let pass = Pass { adapter, keep: Keep::Nothing, dropout_key: None, lookups: None };
        let mut hidden = self.decoder.forward(self.backend, batch, &pass)?;
        let (targets, head) = (&batch.targets, part.head.as_ref());
        let outputs =
            self.decoder.head(self.backend, &mut hidden, targets, request, head, None, &pass)?;
        hidden.release(self.backend);
        Ok(outputs)
    }

    /// What the objective makes of all of the step's micro-batches at once, without gradient.
    fn outcomes(
        &mut self,
        plan: &StepPlan,
        objective: &dyn Objective,
        before: &[f64],
        dropout_key: Option<u64>,
    ) -> Result<Vec<Outcome>> {
        let (policies, extras) = self.outputs(plan, objective, dropout_key)?;
        Ok(objective.evaluate(&micro_outputs(plan, &policies, &extras, before), plan))
    }

    /// What the heads give for every micro-batch, and further passes.
    fn outputs(
        &mut self,
        plan: &StepPlan,
        objective: &dyn Objective,
        dropout_key: Option<u64>,
    ) -> Result<(Vec<HeadOutputs>, Vec<Vec<HeadOutputs>>)> {
        self.activate(self.trained)?;
        let mut policies = Vec::with_capacity(plan.micros.len());
        let mut extras = Vec::with_capacity(plan.micros.len());
        for index in 0..plan.micros.len() {
            extras.push(self.extra_passes(plan, index, objective)?);
            let pass = self.pass(self.part(), false, dropout_key);
            let (hidden, policy) = self.forward(plan, index, objective, None, &pass)?;
            hidden.release(self.backend);
            policies.push(policy);
        }
        Ok((policies, extras))
    }

    /// The norm of the whole gradient.
    pub fn gradient_norm(&mut self, parameters: &[Parameter]) -> Result<f64> {
        let inputs: Vec<_> = parameters.iter().map(|parameter| parameter.gradient).collect();
        let mark = self.backend.mark();
        let out = self.backend.alloc(1, DType::F32)?;
        self.backend.run(Op::SumSquares { inputs: &inputs, out })?;
        let mut sum = [0.0];
        self.backend.read(out, &mut sum)?;
        self.backend.release(mark);
        Ok(f64::from(sum[0]).sqrt())
    }

    fn forward(
        &mut self,
        plan: &StepPlan,
        index: usize,
        objective: &dyn Objective,
        known_gradient: Option<&[f32]>,
        pass: &Pass<'_>,
    ) -> Result<(Hidden, HeadOutputs)> {
        let batch = &plan.micros[index].batch;
        let mut hidden = self.decoder.forward(self.backend, batch, pass)?;
        if let Some(request) = objective.divergence() {
            let teacher = part(self.parts, PartName::Teacher);
            let teacher = teacher.decoder.as_deref().unwrap_or(self.decoder);
            let normed = teacher_states(plan, batch, teacher.config.hidden_size);
            let teacher = TeacherStates { decoder: teacher, normed: &normed };
            // Answers to one prompt begin at one read: what they weigh there adds up.
            let gradient = known_gradient.map(|gradient| by_read(batch, gradient));
            let divergence = self.decoder.head_divergence(
                self.backend,
                &mut hidden,
                teacher,
                &request,
                gradient.as_deref(),
                pass,
            )?;
            return Ok((hidden, HeadOutputs { divergence, ..HeadOutputs::default() }));
        }
        let (request, head) = (objective.request(), self.part().head.as_ref());
        let outputs = self.decoder.head(
            self.backend,
            &mut hidden,
            &batch.targets,
            &request,
            head,
            known_gradient,
            pass,
        )?;
        Ok((hidden, outputs))
    }

    fn backward(
        &mut self,
        hidden: Hidden,
        gradients: &HeadGradients,
        pass: &Pass<'_>,
    ) -> Result<()> {
        let head = self.part().head.as_ref();
        Ok(self.decoder.backward(self.backend, hidden, gradients, head, pass)?)
    }

    fn extra_passes(
        &mut self,
        plan: &StepPlan,
        index: usize,
        objective: &dyn Objective,
    ) -> Result<Vec<HeadOutputs>> {
        let batch = &plan.micros[index].batch;
        let mut outputs = Vec::new();
        let mut is_active = true;
        for &ExtraPass { part: name } in objective.extra_passes() {
            if let (PartName::Reference, Some(known)) = (name, &plan.reference) {
                let logprob = batch
                    .targets
                    .iter()
                    .map(|target| known[target.sequence as usize][target.place as usize]);
                outputs.push(HeadOutputs { logprob: logprob.collect(), ..HeadOutputs::default() });
                continue;
            }
            is_active = false;
            self.activate(name)?;
            let mut request = objective.request();
            // Of the others only log-probabilities and values are asked for.
            let Want { logprob, value, .. } = request.want;
            let value = value && part(self.parts, name).head.is_some();
            request.want = Want { logprob, value, ..Want::default() };
            outputs.push(self.outputs_of(name, batch, &request)?);
        }
        if !is_active {
            self.activate(self.trained)?;
        }
        Ok(outputs)
    }

    /// Makes the shared base that of a part.
    fn activate(&mut self, name: PartName) -> Result<()> {
        activate(self.parts, name, self.decoder, self.backend)
    }

    /// The part that is trained.
    fn part(&self) -> &'a Part {
        part(self.parts, self.trained)
    }

    fn pass(&self, part: &'a Part, keep: bool, dropout_key: Option<u64>) -> Pass<'a> {
        let adapter = part.adapter.as_deref();
        let keep = if keep { Keep::for_backward(self.recompute) } else { Keep::Nothing };
        Pass { adapter, keep, dropout_key, lookups: None }
    }
}

/// The teacher's states at the reads of a batch, `[R, C]`; zeros where the plan does not know them (when memory is
/// counted).
fn teacher_states(plan: &StepPlan, batch: &Batch, width: usize) -> Vec<f32> {
    let mut normed = vec![0.0; batch.reads.len() * width];
    let Some(states) = &plan.teacher else { return normed };
    for target in &batch.targets {
        let (read, place) = (target.read as usize * width, target.place as usize * width);
        let state = &states[target.sequence as usize][place..place + width];
        normed[read..read + width].copy_from_slice(state);
    }
    normed
}

/// Sums over the targets of each read, `[R]`.
fn by_read(batch: &Batch, of_targets: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0; batch.reads.len()];
    for (target, value) in batch.targets.iter().zip(of_targets) {
        sums[target.read as usize] += value;
    }
    sums
}

/// What the heads gave for every micro-batch of a plan.
fn micro_outputs<'a>(
    plan: &'a StepPlan,
    policies: &'a [HeadOutputs],
    extras: &'a [Vec<HeadOutputs>],
    before: &'a [f64],
) -> Vec<MicroOutputs<'a>> {
    let micros = plan.micros.iter().zip(policies.iter().zip(extras));
    let outputs = |(Micro { batch, sequences }, (policy, extra)): (&'a Micro, _)| {
        let (policy, extra): (&HeadOutputs, &Vec<HeadOutputs>) = (policy, extra);
        MicroOutputs { batch, sequences, policy, extra, before }
    };
    micros.map(outputs).collect()
}

impl StepOutcome {
    /// Of what the objective made of every micro-batch.
    fn of(parts: Vec<Outcome>, plan: &StepPlan) -> Self {
        let mut loss: Vec<Share> = Vec::new();
        let mut metrics: Vec<Metric> = Vec::new();
        let (mut carried, mut classified) = (Vec::new(), Vec::new());
        for part in parts {
            if carried.is_empty() {
                carried = part.carried;
            }
            loss.extend(part.loss);
            classified.extend(part.classified);
            for metric in part.metrics {
                match metrics.iter_mut().find(|known| known.name == metric.name) {
                    Some(known) => known.shares.extend(metric.shares),
                    None => metrics.push(metric),
                }
            }
        }
        let mut shares = vec![0.0; plan.totals.units];
        for share in &loss {
            shares[plan.sequences[share.sequence].unit as usize] += share.value;
        }
        let mut margins = vec![None; plan.totals.units];
        let of_units = metrics.iter().filter(|metric| metric.name == MARGIN);
        for share in of_units.flat_map(|metric| &metric.shares) {
            margins[plan.sequences[share.sequence].unit as usize] = Some(share.value);
        }
        classified.sort_by_key(|(sequence, _)| *sequence);
        // Of nothing there is no figure: a step may have no answer of a kind.
        let metrics = metrics.into_iter().filter(|metric| !metric.shares.is_empty());
        let metrics = metrics.map(|metric| (metric.name, metric.fold.of(metric.shares)));
        // Of a step whose sampled answers are all left out there is no share, and nothing is learned.
        let is_nothing = loss.is_empty() && plan.sampled.is_some();
        StepOutcome {
            loss: if is_nothing { 0.0 } else { Fold::Sum.of(loss) },
            metrics: metrics.collect(),
            shares,
            margins,
            classified: classified.into_iter().map(|(_, classified)| classified).collect(),
            carried,
        }
    }
}
