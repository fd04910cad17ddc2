//! A head that gives numbers per read: the score of a reward model, the value of a state, or the logits of classes.

use compute::Backend;

use crate::decoder::frozen;
use crate::tensor::{Matrix, Optimizers, Role, TrainedTensor, read_tensors};
use crate::{Base, Result};

/// Keeps initial values apart from every other use of the seed.
const PURPOSE_INIT: u64 = 0x73_636f_7265;

/// N numbers per read from the final norm's output, `[N, C]`, no bias: one of a value or reward head, one a class of a
/// classifier.
#[derive(Clone, Debug)]
pub struct ScalarHead {
    outputs: usize,
    matrix: Matrix,
    trained: Option<TrainedTensor>,
}

impl ScalarHead {
    /// Its tensor in a sequence classifier of transformers.
    pub const TENSOR: &str = "score.weight";

    /// The values that a new head with one output begins with, `[C]`: normal with mean 0 and the deviation that the
    /// config calls `initializer_range`, as transformers draws its `score` layer.
    pub fn initial_values(base: &Base, seed: u64) -> Result<Vec<f32>> {
        Self::initial_values_of(base, 1, seed)
    }

    /// The same for a head of `outputs` numbers, `[N, C]`.
    pub fn initial_values_of(base: &Base, outputs: usize, seed: u64) -> Result<Vec<f32>> {
        let json = base.config_json()?;
        let parts = [&json, &json["text_config"]];
        let deviation = parts.iter().find_map(|part| part["initializer_range"].as_f64());
        let deviation = deviation.unwrap_or(0.02);
        let key = compute::random::key(&[seed, PURPOSE_INIT]);
        let uniform = |i| f64::from(compute::random::uniform(compute::random::mix(key ^ i)));
        let normal = |i| {
            // Box and Muller 1958. A uniform draw can be 0, but not 1.
            let radius = (-2.0 * (1.0 - uniform(2 * i)).ln()).sqrt();
            radius * (std::f64::consts::TAU * uniform(2 * i + 1)).cos()
        };
        let len = (outputs * base.config.hidden_size) as u64;
        Ok((0..len).map(|i| (deviation * normal(i)) as f32).collect())
    }

    /// Puts a head of one output with these values, `[C]`, on a device, to be trained or only used.
    pub fn new(
        backend: &mut dyn Backend,
        values: &[f32],
        training: Option<Optimizers>,
    ) -> Result<Self> {
        Self::with_outputs(backend, values, 1, training)
    }

    /// The same for a head of `outputs` numbers, `[N, C]`.
    ///
    /// # Panics
    /// If the values are not those of so many outputs.
    pub fn with_outputs(
        backend: &mut dyn Backend,
        values: &[f32],
        outputs: usize,
        training: Option<Optimizers>,
    ) -> Result<Self> {
        assert!(outputs > 0 && values.len().is_multiple_of(outputs), "a row of values an output");
        let rows = [outputs];
        let size = (&rows[..], values.len() / outputs);
        let Some(optimizers) = training else {
            let weight = frozen(backend, size, values, None)?.remove(0);
            return Ok(ScalarHead { outputs, matrix: Matrix::Frozen(weight), trained: None });
        };
        let place = (Self::TENSOR, Role::Scalar);
        let tensor = TrainedTensor::load_matrix(backend, optimizers, place, size, values)?;
        Ok(ScalarHead { outputs, matrix: tensor.matrices().remove(0), trained: Some(tensor) })
    }

    /// N: numbers per read.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub(crate) fn matrix(&self) -> Matrix {
        self.matrix
    }

    /// Its tensor for the optimizer; none where it is only used.
    pub fn trained(&self) -> Option<&TrainedTensor> {
        self.trained.as_ref()
    }

    /// Reads the values of a trained head back, `[N, C]`.
    ///
    /// # Panics
    /// If the head is not trained.
    pub fn values(&self, backend: &mut dyn Backend) -> Result<Vec<f32>> {
        let tensor = self.trained.as_ref().expect("a head that is trained");
        let mut tensors = read_tensors(backend, std::slice::from_ref(tensor))?;
        Ok(tensors.remove(&tensor.name).expect("the tensor that was read").1)
    }

    /// Gives its device memory back.
    pub fn unload(self, backend: &mut dyn Backend) {
        match self.trained {
            Some(tensor) => backend.unload_trained(tensor.parameter),
            None => self.matrix.unload_frozen(backend),
        }
    }
}
