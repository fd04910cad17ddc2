//! From the recipe's optimizer to steps over everything that is trained, with the rates that
//! parts of it may have of their own.
//!
//! Weight decay applies to what transformers' Trainer chooses by name: all but norms and biases, so DoRA's magnitudes
//! too. Embeddings keep 32-bit moments under `adamw8bit`, as Trainer tells bitsandbytes. A fused tensor (`qkv_proj`) is
//! one parameter: blocks, moments and statistics are those of the tensor as it is stored.

use compute::op::Optimize;
use compute::{Backend, Op, Optimizer, Parameter};
use model::{Optimizers, Role, TrainedTensor};

use crate::Result;

/// The recipe's optimizer, and which parts of a model differ from it.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// Of linear layers and adapters' matrices.
    pub matrices: Optimizer,
    /// Of vectors, embeddings and heads: Muon leaves them to AdamW. 8-bit AdamW keeps the moments of an
    /// embedding in f32.
    pub others: Optimizer,
    /// Decay of everything but norms and biases, as transformers' Trainer chooses it by name: DoRA's
    /// magnitudes decay. Coupled for SGD, else decoupled.
    pub weight_decay: f32,
    /// Rate of embeddings, heads and trained tokens over that of the rest.
    pub embedding_ratio: f64,
    /// LoRA+, Hayou et al. 2024: rate of `lora_B` over that of `lora_A`. As in PEFT, vectors that are trained
    /// beside them take that of `lora_B`, whole matrices that of `lora_A`.
    pub loraplus_ratio: f64,
}

impl OptimizerConfig {
    /// What has to be kept for what.
    pub fn kinds(&self) -> Optimizers {
        Optimizers { matrices: self.matrices.kind(), others: self.others.kind() }
    }

    /// Factor on the learning rate of a tensor in this role.
    pub fn rate(&self, role: Role) -> f64 {
        match role {
            Role::LoraB | Role::Magnitude | Role::Norm | Role::Bias => self.loraplus_ratio,
            Role::Embedding | Role::Head | Role::Tokens => self.embedding_ratio,
            _ => 1.0,
        }
    }

    fn of(&self, role: Role) -> Optimizer {
        let optimizer = match role {
            Role::LoraA | Role::LoraB | Role::Linear => self.matrices,
            _ => self.others,
        };
        match optimizer {
            Optimizer::AdamW8bit { betas, eps } if role == Role::Embedding => {
                Optimizer::AdamW { betas, eps }
            }
            other => other,
        }
    }

    /// Weight decay of a tensor in this role.
    pub fn decay(&self, role: Role) -> f32 {
        match role {
            Role::Norm | Role::Bias => 0.0,
            _ => self.weight_decay,
        }
    }

    /// One step over all of `trained`: `step` counts from 1, `gradient_scale` clips.
    pub fn step(
        &self,
        backend: &mut dyn Backend,
        trained: &[TrainedTensor],
        learning_rate: f64,
        gradient_scale: f64,
        step: u64,
    ) -> Result<()> {
        for group in self.groups(trained) {
            backend.run(Op::Optimize(Optimize {
                parameters: &group.parameters,
                optimizer: group.optimizer,
                gradient_scale: gradient_scale as f32,
                learning_rate: (learning_rate * group.rate) as f32,
                weight_decay: group.weight_decay,
                step: step as u32,
            }))?;
        }
        Ok(())
    }

    /// What shares optimizer, rate and decay, in the order of its first tensor.
    fn groups(&self, trained: &[TrainedTensor]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for tensor in trained {
            let group = Group {
                optimizer: self.of(tensor.role),
                rate: self.rate(tensor.role),
                weight_decay: self.decay(tensor.role),
                parameters: vec![tensor.parameter],
            };
            match groups.iter_mut().find(|other| other.is_like(&group)) {
                Some(other) => other.parameters.push(tensor.parameter),
                None => groups.push(group),
            }
        }
        groups
    }
}

/// Parameters that take the same step.
#[derive(Debug)]
struct Group {
    optimizer: Optimizer,
    rate: f64,
    weight_decay: f32,
    parameters: Vec<Parameter>,
}

impl Group {
    fn is_like(&self, other: &Group) -> bool {
        self.optimizer == other.optimizer
            && self.rate == other.rate
            && self.weight_decay == other.weight_decay
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use compute::{Measure, Shape};

    fn config() -> OptimizerConfig {
        OptimizerConfig {
            matrices: Optimizer::Muon {
                momentum: 0.95,
                nesterov: true,
                iterations: 5,
                match_rms: true,
            },
            others: Optimizer::AdamW { betas: [0.9, 0.999], eps: 1e-8 },
            weight_decay: 0.1,
            embedding_ratio: 0.5,
            loraplus_ratio: 16.0,
        }
    }

    #[test]
    fn roles_that_differ_in_rate_or_decay_or_rule_step_apart() {
        let config = config();
        let mut backend = Measure::new(compute::DType::F32);
        let mut tensor = |role: Role, shape: Shape| {
            let kind = config.kinds().of(role);
            let parameter = backend.load_trained(shape, &[], kind).unwrap();
            TrainedTensor { name: String::new(), role, parameter }
        };
        let matrix = Shape::Matrix(4, 4);
        let trained = [
            tensor(Role::LoraA, matrix),
            tensor(Role::LoraB, matrix),
            tensor(Role::LoraA, matrix),
            tensor(Role::Norm, Shape::Vector(4)),
            tensor(Role::Tokens, matrix),
            tensor(Role::Bias, Shape::Vector(4)),
        ];
        let groups = config.groups(&trained);
        let shown: Vec<_> = groups
            .iter()
            .map(|g| (g.optimizer.kind(), g.rate, g.weight_decay, g.parameters.len()))
            .collect();
        use compute::OptimizerKind::{AdamW, Muon};
        assert_eq!(
            shown,
            [
                (Muon, 1.0, 0.1, 2),
                (Muon, 16.0, 0.1, 1),
                (AdamW, 16.0, 0.0, 2),
                (AdamW, 0.5, 0.1, 1)
            ]
        );
    }
}
