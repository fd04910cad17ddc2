//! Matrices and vectors of a model on a device, frozen or trained.

use std::collections::BTreeMap;

use compute::{Backend, Buffer, OptimizerKind, Parameter, Shape, Weight};

use crate::Result;

/// A matrix on a device.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "a few hundred bytes for a matrix of megabytes")]
pub(crate) enum Matrix {
    Frozen(Weight),
    Trained(Parameter),
}

impl Matrix {
    pub(crate) fn weight(&self) -> Weight {
        match self {
            Matrix::Frozen(weight) => *weight,
            Matrix::Trained(parameter) => parameter.matrix(),
        }
    }

    pub(crate) fn gradient(&self) -> Option<Buffer> {
        match self {
            Matrix::Frozen(_) => None,
            Matrix::Trained(parameter) => Some(parameter.gradient),
        }
    }

    pub(crate) fn unload(self, backend: &mut dyn Backend) {
        match self {
            Matrix::Frozen(weight) => backend.unload(weight),
            Matrix::Trained(parameter) => backend.unload_trained(parameter),
        }
    }
}

/// A vector on a device: a norm's weight or a bias.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "as of matrices, of which there are as many")]
pub(crate) enum Vector {
    Frozen(Buffer),
    Trained(Parameter),
}

impl Vector {
    pub(crate) fn buffer(&self) -> Buffer {
        match self {
            Vector::Frozen(buffer) => *buffer,
            Vector::Trained(parameter) => parameter.master,
        }
    }

    pub(crate) fn gradient(&self) -> Option<Buffer> {
        match self {
            Vector::Frozen(_) => None,
            Vector::Trained(parameter) => Some(parameter.gradient),
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
    /// The tensor of the file that it belongs to.
    pub name: String,
    /// Its first row in that tensor: not 0 for the later parts of a fused one.
    pub first_row: usize,
    /// What it is.
    pub role: Role,
    /// Its values and the optimizer's.
    pub parameter: Parameter,
}

impl TrainedTensor {
    /// Puts values on a device, to be trained: those of the tensor of this name from the row on.
    pub(crate) fn load(
        backend: &mut dyn Backend,
        optimizers: Optimizers,
        (name, first_row): (&str, usize),
        role: Role,
        shape: Shape,
        values: &[f32],
    ) -> Result<Self> {
        let parameter = backend.load_trained(shape, values, optimizers.of(role))?;
        Ok(TrainedTensor { name: name.to_owned(), first_row, role, parameter })
    }

    /// A name of its own.
    pub fn key(&self) -> String {
        match self.first_row {
            0 => self.name.clone(),
            row => format!("{}.from_row_{row}", self.name),
        }
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

/// Reads the values of trained tensors back; parts of one tensor are put together.
pub fn read_tensors(
    backend: &mut dyn Backend,
    trained: &[TrainedTensor],
) -> Result<BTreeMap<String, HostTensor>> {
    read_whole(backend, trained, |parameter| parameter.master)
}

/// Reads the gradients of trained tensors; parts of one tensor are put together.
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
    let mut tensors: BTreeMap<String, HostTensor> = BTreeMap::new();
    for tensor in trained {
        let mut values = vec![0.0; tensor.len()];
        backend.read(buffer(&tensor.parameter), &mut values)?;
        let shape = match tensor.parameter.shape {
            Shape::Matrix(rows, cols) => vec![rows, cols],
            Shape::Vector(len) => vec![len],
        };
        match tensors.get_mut(&tensor.name) {
            None => {
                tensors.insert(tensor.name.clone(), (shape, values));
            }
            Some((whole, before)) => {
                whole[0] += shape[0];
                before.extend(values);
            }
        }
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
            _ => self.others,
        }
    }
}
