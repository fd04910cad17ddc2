//! A decoder-only transformer over a backend: RMSNorm, rotary attention with
//! grouped queries, gated MLP.
//!
//! `forward` runs a batch up to the final norm at its reads; `head` turns reads into
//! log-probabilities; `backward` takes the objective's derivatives of those down to all
//! that is trained. Derivatives are written by hand; there is no tape.

mod backward;
mod forward;
mod head;
mod inputs;
mod layer;
mod load;
mod lookups;
mod module;
mod norm;
mod teacher;

use compute::Buffer;

pub use forward::{Hidden, Keep, Pass};
pub use head::{HeadGradients, HeadOutputs, HeadRequest, Want};
pub(crate) use inputs::{CacheView, Inputs, Spans};
pub use load::{LoadOptions, Selection, Training};
pub(crate) use load::{constant, frozen};
pub use lookups::LookupSums;
pub use module::Module;
pub use teacher::{DivergenceRequest, TeacherStates};

use crate::Config;
use crate::tensor::{Matrix, Role, TrainedTensor, Vector};

/// A decoder layer's weights.
struct Layer {
    attention_in: Option<Vector>,
    attention_out: Option<Vector>,
    mlp_in: Option<Vector>,
    mlp_out: Option<Vector>,
    q_norm: Option<Vector>,
    k_norm: Option<Vector>,
    weights: [Matrix; 7],
    biases: [Option<Vector>; 7],
}

/// Frequencies of rotary positions on a device.
#[derive(Clone, Copy)]
struct RopeBuffers {
    /// `[R / 2]`.
    short: Buffer,
    /// Those of sequences of more positions than the number.
    long: Option<(usize, Buffer)>,
}

/// A decoder whose weights a backend holds.
pub struct Decoder {
    /// Its shape.
    pub config: Config,
    embedding: Matrix,
    head: Matrix,
    final_norm: Vector,
    ropes: Vec<RopeBuffers>,
    layers: Vec<Layer>,
    trained: Vec<TrainedTensor>,
}

impl Decoder {
    /// What of the base itself is trained.
    pub fn trained(&self) -> &[TrainedTensor] {
        &self.trained
    }

    /// Whether head and embedding are one matrix.
    pub(crate) fn shares_head(&self) -> bool {
        self.head.weight() == self.embedding.weight()
    }

    pub(crate) fn embedding(&self) -> Matrix {
        self.embedding
    }

    pub(crate) fn head_matrix(&self) -> Matrix {
        self.head
    }

    pub(crate) fn module(&self, layer: usize, module: Module) -> Matrix {
        self.layers[layer].weights[module as usize]
    }

    /// The lowest layer with a trained tensor of its own: nothing below needs a gradient, unless the
    /// embedding does. The number of layers where none has one.
    fn lowest_trained_layer(&self) -> usize {
        let has_own = |layer: &Layer| {
            let norms = [
                layer.attention_in,
                layer.attention_out,
                layer.mlp_in,
                layer.mlp_out,
                layer.q_norm,
                layer.k_norm,
            ];
            let vectors = norms.into_iter().chain(layer.biases).flatten();
            layer.weights.iter().any(|weight| weight.gradient().is_some())
                || vectors.into_iter().any(|vector| vector.gradient().is_some())
        };
        self.layers.iter().position(has_own).unwrap_or(self.layers.len())
    }

    /// Whether the embedding as a whole is trained.
    fn trains_embedding(&self) -> bool {
        self.trained.iter().any(|tensor| tensor.role == Role::Embedding)
    }
}
