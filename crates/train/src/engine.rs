//! One optimizer step's gradient: what every method shares.

use compute::{Backend, DType, Op, Parameter};
use model::{Adapter, Decoder, HeadGradients, HeadOutputs, Hidden, Pass, ScalarHead};

use crate::Result;
use crate::objective::{Coupling, ExtraPass, MicroOutputs, Objective, Outcome};
use crate::step::StepPlan;

/// A model in training on a device.
pub struct Engine<'a> {
    /// Where it runs.
    pub backend: &'a mut dyn Backend,
    /// The base.
    pub decoder: &'a Decoder,
    /// What is trained over it; none where the base itself is.
    pub adapter: Option<&'a Adapter>,
    /// A scalar head that is trained with it.
    pub scalar: Option<&'a ScalarHead>,
    /// What the policy started from; none is the bare base.
    pub reference: Option<&'a Adapter>,
    /// Keep only the residual stream between layers.
    pub checkpoint: bool,
}

/// What a step's gradient came with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOutcome {
    /// The loss over the whole step.
    pub loss: f64,
    /// Further figures, by name.
    pub metrics: Vec<(&'static str, f64)>,
}

impl Engine<'_> {
    /// Adds the gradient of the step's loss to what the trained matrices hold.
    pub fn accumulate(
        &mut self,
        plan: &StepPlan,
        objective: &dyn Objective,
        dropout_key: Option<u64>,
    ) -> Result<StepOutcome> {
        let mut outcome = StepOutcome::default();
        if objective.coupling() == Coupling::Step {
            self.accumulate_coupled(plan, objective, dropout_key, &mut outcome)?;
            return Ok(outcome);
        }
        for index in 0..plan.micros.len() {
            let extra = self.extra_passes(plan, index, objective)?;
            let targets = &plan.micros[index].batch.targets;
            let linear = objective.linear(targets, plan);
            let (hidden, policy) =
                self.forward(plan, index, objective, linear.as_deref(), dropout_key, true)?;
            let micro = MicroOutputs { targets, policy: &policy, extra: &extra };
            let mut outcomes = objective.evaluate(&[micro], plan);
            let Outcome { loss, mut gradients, metrics } =
                outcomes.pop().expect("an outcome per micro-batch");
            outcome.add(loss, metrics);
            if linear.is_some() {
                gradients.logprob = None;
            }
            self.backward(hidden, &gradients, dropout_key)?;
        }
        Ok(outcome)
    }

    /// All outputs first, one evaluation, then forward and backward of every micro-batch.
    fn accumulate_coupled(
        &mut self,
        plan: &StepPlan,
        objective: &dyn Objective,
        dropout_key: Option<u64>,
        outcome: &mut StepOutcome,
    ) -> Result<()> {
        let parts = self.outcomes(plan, objective, dropout_key)?;
        for (index, part) in parts.into_iter().enumerate() {
            outcome.add(part.loss, part.metrics);
            let (hidden, _) = self.forward(plan, index, objective, None, dropout_key, true)?;
            self.backward(hidden, &part.gradients, dropout_key)?;
        }
        Ok(())
    }

    /// The loss of a step's sequences without gradient.
    pub fn evaluate(&mut self, plan: &StepPlan, objective: &dyn Objective) -> Result<StepOutcome> {
        let mut outcome = StepOutcome::default();
        for part in self.outcomes(plan, objective, None)? {
            outcome.add(part.loss, part.metrics);
        }
        Ok(outcome)
    }

    /// What the objective makes of all of the step's micro-batches at once, without gradient.
    fn outcomes(
        &mut self,
        plan: &StepPlan,
        objective: &dyn Objective,
        dropout_key: Option<u64>,
    ) -> Result<Vec<Outcome>> {
        let mut policies = Vec::with_capacity(plan.micros.len());
        let mut extras = Vec::with_capacity(plan.micros.len());
        for index in 0..plan.micros.len() {
            extras.push(self.extra_passes(plan, index, objective)?);
            let (hidden, policy) =
                self.forward(plan, index, objective, None, dropout_key, false)?;
            hidden.release(self.backend);
            policies.push(policy);
        }
        let micros = plan.micros.iter().zip(policies.iter().zip(&extras));
        let micros: Vec<MicroOutputs<'_>> = micros
            .map(|(micro, (policy, extra))| MicroOutputs {
                targets: &micro.batch.targets,
                policy,
                extra,
            })
            .collect();
        Ok(objective.evaluate(&micros, plan))
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
        linear: Option<&[f32]>,
        dropout_key: Option<u64>,
        keep: bool,
    ) -> Result<(Hidden, HeadOutputs)> {
        let batch = &plan.micros[index].batch;
        let pass = self.pass(self.adapter, keep, dropout_key);
        let mut hidden = self.decoder.forward(self.backend, batch, &pass)?;
        let request = objective.request();
        let outputs = self.decoder.head(
            self.backend,
            &mut hidden,
            &batch.targets,
            &request,
            self.scalar,
            linear,
            &pass,
        )?;
        Ok((hidden, outputs))
    }

    fn backward(
        &mut self,
        hidden: Hidden,
        gradients: &HeadGradients,
        dropout_key: Option<u64>,
    ) -> Result<()> {
        let pass = self.pass(self.adapter, true, dropout_key);
        Ok(self.decoder.backward(self.backend, hidden, gradients, self.scalar, &pass)?)
    }

    fn extra_passes(
        &mut self,
        plan: &StepPlan,
        index: usize,
        objective: &dyn Objective,
    ) -> Result<Vec<HeadOutputs>> {
        let batch = &plan.micros[index].batch;
        let mut outputs = Vec::new();
        for pass in objective.extra_passes() {
            let ExtraPass::Reference = pass;
            let pass = self.pass(self.reference, false, None);
            let mut hidden = self.decoder.forward(self.backend, batch, &pass)?;
            // The scalar head belongs to the policy.
            let mut request = objective.request();
            request.want.value = false;
            outputs.push(self.decoder.head(
                self.backend,
                &mut hidden,
                &batch.targets,
                &request,
                None,
                None,
                &pass,
            )?);
            hidden.release(self.backend);
        }
        Ok(outputs)
    }

    fn pass<'b>(
        &self,
        adapter: Option<&'b Adapter>,
        keep: bool,
        dropout_key: Option<u64>,
    ) -> Pass<'b> {
        Pass { adapter, keep, checkpoint: self.checkpoint, dropout_key }
    }
}

impl StepOutcome {
    fn add(&mut self, loss: f64, metrics: Vec<(&'static str, f64)>) {
        self.loss += loss;
        for (name, share) in metrics {
            match self.metrics.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += share,
                None => self.metrics.push((name, share)),
            }
        }
    }
}
