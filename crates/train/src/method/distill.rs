//! Generalised knowledge distillation on the student's own answers: Agarwal et al. 2023 (2306.13649).

use keys::{Document, Key, Settings as _};
use model::{DivergenceRequest, HeadOutputs, HeadRequest, Want};

use super::{Method, Online, Usual, online};
use crate::Result;
use crate::objective::{Coupling, MicroOutputs, Objective, Outcome, Share};
use crate::step::{StepPlan, Totals};

const KEYS: &[Key] = &[Key::float("objective.beta", 0.0, 1.0)
    .when("method", &["distill"])
    .default("0.5")
    .doc("Which divergence from the teacher is made small: 0 is KL(teacher || student), which covers all that the teacher may say, 1 is KL(student || teacher), which keeps to what it would say, and between them lies the generalised Jensen-Shannon divergence.")];

pub(super) static METHOD: Method = Method {
    name: "distill",
    title: "On-policy distillation",
    learned: "answers that the student samples, their end-of-turn tokens included, by what a teacher would say at each token",
    keys: KEYS,
    usual: Usual { group_size: 1, rates: [2e-4, 1e-5, 1e-5], batch: 16, ..online::PROMPTS.usual },
    check,
    objective: |document| {
        Box::new(Distill(DivergenceRequest {
            temperature: document.opt_f64("rollout.temperature").unwrap_or(1.0) as f32,
            mix: document.get_f64("objective.beta") as f32,
        }))
    },
    online: Some(Online::Teacher),
    ..online::PROMPTS
};

/// Mean over the tokens of a step of the divergence from the teacher.
#[derive(Clone, Copy, Debug)]
pub struct Distill(pub DivergenceRequest);

impl Objective for Distill {
    fn coupling(&self) -> Coupling {
        Coupling::Sequence
    }

    fn request(&self) -> HeadRequest {
        HeadRequest { want: Want::default(), ..HeadRequest::logprobs() }
    }

    fn divergence(&self) -> Option<DivergenceRequest> {
        Some(self.0)
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        totals.weight
    }

    fn known_gradient(&self, micro: &MicroOutputs<'_>, plan: &StepPlan) -> Option<Vec<f32>> {
        let total = plan.totals.weight.max(1.0);
        let targets = micro.batch.targets.iter();
        Some(targets.map(|target| (f64::from(target.weight) / total) as f32).collect())
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let total = plan.totals.weight.max(1.0);
        let outcome = |micro: &MicroOutputs<'_>| {
            let HeadOutputs { divergence, .. } = micro.policy;
            let mut sums = vec![0.0; plan.sequences.len()];
            for target in &micro.batch.targets {
                let own = f64::from(divergence[target.read as usize]);
                sums[target.sequence as usize] += own * f64::from(target.weight) / total;
            }
            let share = |&sequence: &usize| Share { sequence, value: sums[sequence] };
            Outcome { loss: micro.sequences.iter().map(share).collect(), ..Outcome::default() }
        };
        micros.iter().map(outcome).collect()
    }
}

fn check(document: &Document) -> Result<()> {
    // What `tunesmith distill` knows beside.
    for key in ["distill.examples", "distill.model"] {
        if document.is_given(key) {
            let message = format!("`{key}` has no effect: the teacher answers nothing here");
            let hint =
                "put examples into `distill.system`, or write rows first: `tunesmith distill`";
            return Err(online::problem(document, key, message, hint));
        }
    }
    let teaches = ["teacher", "system", "system_file", "demonstration"];
    if !teaches.iter().any(|name| document.is_given(&format!("distill.{name}"))) {
        let message = "there is nothing to learn: without a `distill` section the teacher is the model itself behind the same prompt";
        let hint = "name a better model (`distill: {teacher: org/large}`), or what the model should answer as if it saw: \
                    `distill: {system_file: prompt.txt}`";
        return Err(online::problem(document, "method", message, hint));
    }
    Ok(())
}
