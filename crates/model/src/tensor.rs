//! Matrices and vectors of a model on a device, frozen or trained.

use std::collections::BTreeMap;

use compute::{Backend, Buffer, OptimizerKind, Parameter, ParameterPart, Shape, Weight};

use crate::Result;

/// A matrix on a device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Matrix {
    Frozen(Weight),
    /// A trained tensor, or its part where it is a fused one.
    Trained(ParameterPart),
}

impl Matrix {
    pub(crate) fn weight(&self) -> Weight {
        match self {
            Matrix::Frozen(weight) => *weight,
            Matrix::Trained(part) => part.weight,
        }
    }

    pub(crate) fn gradient(&self) -> Option<Buffer> {
        match self {
            Matrix::Frozen(_) => None,
            Matrix::Trained(part) => Some(part.gradient),
        }
    }

    /// Gives the memory of a frozen matrix back. That of a trained one belongs to its tensor.
    pub(crate) fn unload_frozen(self, backend: &mut dyn Backend) {
        if let Matrix::Frozen(weight) = self {
            backend.unload(weight);
        }
    }
}

/// A vector on a device: a norm's weight or a bias.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Vector {
    Frozen(Buffer),
    Trained(TrainedVector),
}

/// A trained vector, or its part where it is that of a fused tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrainedVector {
    pub(crate) master: Buffer,
    pub(crate) gradient: Buffer,
}

impl Vector {
    pub(crate) fn buffer(&self) -> Buffer {
        match self {
            Vector::Frozen(buffer) => *buffer,
            Vector::Trained(part) => part.master,
        }
    }

    pub(crate) fn gradient(&self) -> Option<Buffer> {
        match self {
            Vector::Frozen(_) => None,
            Vector::Trained(part) => Some(part.gradient),
        }
    }
}

/// What a trained tensor is to the model: rates and decay may differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `lora_A`.
    LoraA,
    /// `lora_B`.
    LoraB,
    /// DoRA's magnitudes.
    Magnitude,
    /// Rows of the embedding or the head for chosen tokens.
    Tokens,
    /// The embedding; with tied weights the head too.
    Embedding,
    /// The head.
    Head,
    /// A linear layer.
    Linear,
    /// A norm's weight.
    Norm,
    /// A bias.
    Bias,
    /// A value or reward head.
    Scalar,
}

/// Something that is trained, and where it is saved.
#[derive(Clone, Debug)]
pub struct TrainedTensor {
    /// Its name in the file.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its values and the optimizer's.
    pub parameter: Parameter,
}

impl TrainedTensor {
    /// Puts a matrix on a device, to be trained; its parts of so many rows are multiplied apart.
    pub(crate) fn load_matrix(
        backend: &mut dyn Backend,
        optimizers: Optimizers,
        (name, role): (&str, Role),
        (parts, cols): (&[usize], usize),
        values: &[f32],
    ) -> Result<Self> {
        let shape = Shape::Matrix(parts.iter().sum(), cols);
        let parameter = backend.load_trained_parts(shape, parts, values, optimizers.of(role))?;
        Ok(TrainedTensor { name: name.to_owned(), role, parameter })
    }

    /// Puts a vector on a device, to be trained.
    pub(crate) fn load_vector(
        backend: &mut dyn Backend,
        optimizers: Optimizers,
        (name, role): (&str, Role),
        values: &[f32],
    ) -> Result<Self> {
        let shape = Shape::Vector(values.len());
        let parameter = backend.load_trained(shape, values, optimizers.of(role))?;
        Ok(TrainedTensor { name: name.to_owned(), role, parameter })
    }

    /// The parts of a matrix.
    pub(crate) fn matrices(&self) -> Vec<Matrix> {
        self.parameter.parts().map(Matrix::Trained).collect()
    }

    /// Parts of a vector, of so many numbers each.
    pub(crate) fn vectors(&self, parts: &[usize]) -> Vec<TrainedVector> {
        let mut first = 0;
        let part = |&len: &usize| {
            let Parameter { master, gradient, .. } = self.parameter;
            let part = TrainedVector {
                master: master.slice(first, len),
                gradient: gradient.slice(first, len),
            };
            first += len;
            part
        };
        parts.iter().map(part).collect()
    }

    /// Numbers in it.
    pub fn len(&self) -> usize {
        self.parameter.shape.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor on the host: shape and values.
pub type HostTensor = (Vec<usize>, Vec<f32>);

/// Reads the values of trained tensors back.
pub fn read_tensors(
    backend: &mut dyn Backend,
    trained: &[TrainedTensor],
) -> Result<BTreeMap<String, HostTensor>> {
    read_whole(backend, trained, |parameter| parameter.master)
}

/// Reads the gradients of trained tensors.
pub fn read_gradients(
    backend: &mut dyn Backend,
    trained: &[TrainedTensor],
) -> Result<BTreeMap<String, HostTensor>> {
    read_whole(backend, trained, |parameter| parameter.gradient)
}

fn read_whole(
    backend: &mut dyn Backend,
    trained: &[TrainedTensor],
    buffer: impl Fn(&Parameter) -> Buffer,
) -> Result<BTreeMap<String, HostTensor>> {
    let mut tensors = BTreeMap::new();
    for tensor in trained {
        let mut values = vec![0.0; tensor.len()];
        backend.read(buffer(&tensor.parameter), &mut values)?;
        let shape = match tensor.parameter.shape {
            Shape::Matrix(rows, cols) => vec![rows, cols],
            Shape::Vector(len) => vec![len],
        };
        tensors.insert(tensor.name.clone(), (shape, values));
    }
    Ok(tensors)
}

/// Which optimizer keeps state for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Optimizers {
    /// Of linear layers and adapters' matrices.
    pub matrices: OptimizerKind,
    /// Of vectors, embeddings and heads.
    pub others: OptimizerKind,
}

impl Optimizers {
    /// AdamW for everything.
    pub const ADAMW: Self =
        Optimizers { matrices: OptimizerKind::AdamW, others: OptimizerKind::AdamW };

    /// Of a tensor in a role.
    pub fn of(&self, role: Role) -> OptimizerKind {
        match role {
            Role::LoraA | Role::LoraB | Role::Linear => self.matrices,
            // As Trainer tells bitsandbytes: an embedding's rows get their gradients at different times, and
            // the moments of a rare one are lost beside those of its block.
            Role::Embedding if self.others == OptimizerKind::AdamW8bit => OptimizerKind::AdamW,
            _ => self.others,
        }
    }
}
