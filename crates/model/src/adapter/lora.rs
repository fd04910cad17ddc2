//! LoRA, Hu et al. 2021: `y = W x + scaling * B A x`, and rsLoRA's scaling.

use std::collections::BTreeMap;

use compute::{Backend, Buffer, Parameter, Storage, Weight, WeightSource};

use crate::{Config, Module, Result};

/// How `scaling` follows from rank and alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraKind {
    /// `alpha / rank`.
    Lora,
    /// `alpha / sqrt(rank)`, Kalajdzievski 2023.
    RsLora,
}

/// What an adapter covers and how strongly.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// How scaling is computed.
    pub kind: LoraKind,
    /// Rank where no pattern says otherwise.
    pub rank: usize,
    /// Alpha where no pattern says otherwise.
    pub alpha: f32,
    /// Dropout on the inputs while training.
    pub dropout: f32,
    /// Rank and alpha of every adapted module, by layer.
    pub modules: BTreeMap<(usize, Module), (usize, f32)>,
}

impl LoraConfig {
    /// The same rank and alpha on `modules` of all layers.
    pub fn uniform(
        config: &Config,
        kind: LoraKind,
        rank: usize,
        alpha: f32,
        dropout: f32,
        modules: &[Module],
    ) -> Self {
        let covered = (0..config.num_hidden_layers)
            .flat_map(|layer| modules.iter().map(move |&module| ((layer, module), (rank, alpha))));
        LoraConfig { kind, rank, alpha, dropout, modules: covered.collect() }
    }

    /// Factor on `B A x` for a module of this rank and alpha.
    pub fn scaling(&self, rank: usize, alpha: f32) -> f32 {
        match self.kind {
            LoraKind::Lora => alpha / rank as f32,
            LoraKind::RsLora => alpha / (rank as f32).sqrt(),
        }
    }

    /// Numbers in all matrices.
    pub fn parameter_count(&self, config: &Config) -> usize {
        let modules = self.modules.iter();
        modules
            .map(|(&(_, module), &(rank, _))| {
                let (rows, cols) = config.shape(module);
                rank * (rows + cols)
            })
            .sum()
    }

    /// Every matrix in the order that files, optimizer and gradients keep.
    pub fn matrices(&self, config: &Config) -> Vec<MatrixInfo> {
        let mut matrices = Vec::with_capacity(2 * self.modules.len());
        for (&(layer, module), &(rank, _)) in &self.modules {
            let (rows, cols) = config.shape(module);
            let name = |part| {
                format!("base_model.model.model.layers.{layer}.{}.{part}.weight", module.path())
            };
            matrices.push(MatrixInfo { name: name("lora_A"), rows: rank, cols });
            matrices.push(MatrixInfo { name: name("lora_B"), rows, cols: rank });
        }
        matrices
    }

    /// Initial values, matrix by matrix: A uniform in `±1 / sqrt(cols)` as PEFT draws it, B zero.
    pub fn initial_values(&self, config: &Config, seed: u64) -> Vec<Vec<f32>> {
        let matrices = self.matrices(config);
        let values = matrices.iter().enumerate().map(|(index, matrix)| {
            if index % 2 == 1 {
                return vec![0.0; matrix.rows * matrix.cols];
            }
            let key = compute::random::key(&[seed, PURPOSE_INIT, index as u64]);
            let bound = 1.0 / (matrix.cols as f32).sqrt();
            let draw = |i| compute::random::uniform(compute::random::mix(key ^ i));
            (0..(matrix.rows * matrix.cols) as u64).map(|i| (2.0 * draw(i) - 1.0) * bound).collect()
        });
        values.collect()
    }
}

/// Keeps initial values apart from every other use of the seed.
const PURPOSE_INIT: u64 = 0x6c6f_7261;

/// One matrix of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixInfo {
    /// PEFT's name for it.
    pub name: String,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
}

/// A matrix on the device, trained or not.
#[derive(Clone, Copy, Debug)]
enum Matrix {
    Frozen(Weight),
    Trained(Parameter),
}

impl Matrix {
    fn weight(&self) -> Weight {
        match self {
            Matrix::Frozen(weight) => *weight,
            Matrix::Trained(parameter) => parameter.weight,
        }
    }

    fn gradient(&self) -> Option<Buffer> {
        match self {
            Matrix::Frozen(_) => None,
            Matrix::Trained(parameter) => Some(parameter.gradient),
        }
    }
}

/// The two matrices over one module.
#[derive(Clone, Copy, Debug)]
pub struct Lora {
    a: Matrix,
    b: Matrix,
    rank: usize,
    scaling: f32,
}

impl Lora {
    pub(crate) fn a(&self) -> Weight {
        self.a.weight()
    }

    pub(crate) fn b(&self) -> Weight {
        self.b.weight()
    }

    pub(crate) fn a_gradient(&self) -> Option<Buffer> {
        self.a.gradient()
    }

    pub(crate) fn b_gradient(&self) -> Option<Buffer> {
        self.b.gradient()
    }

    pub(crate) fn rank(&self) -> usize {
        self.rank
    }

    pub(crate) fn scaling(&self) -> f32 {
        self.scaling
    }

    pub(crate) fn is_trained(&self) -> bool {
        matches!(self.a, Matrix::Trained(_))
    }
}

/// An adapter on a device.
#[derive(Clone, Debug)]
pub struct Adapter {
    config: LoraConfig,
    modules: BTreeMap<(usize, Module), Lora>,
}

impl Adapter {
    /// Puts the matrices `values` (in the order of [`LoraConfig::matrices`]) on a device, to be
    /// trained or only used.
    pub fn new(
        backend: &mut dyn Backend,
        model: &Config,
        config: LoraConfig,
        values: &[Vec<f32>],
        trained: bool,
    ) -> Result<Self> {
        let infos = config.matrices(model);
        assert_eq!(infos.len(), values.len(), "one value per matrix");
        let mut matrices = Vec::with_capacity(values.len());
        for (info, values) in infos.iter().zip(values) {
            matrices.push(if trained {
                Matrix::Trained(backend.load_trained(info.rows, info.cols, values)?)
            } else {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                Matrix::Frozen(backend.load(WeightSource {
                    rows: info.rows,
                    cols: info.cols,
                    storage: Storage::F32,
                    bytes: &bytes,
                    row_order: None,
                })?)
            });
        }
        let pairs = config.modules.iter().zip(matrices.chunks_exact(2));
        let modules = pairs
            .map(|((&key, &(rank, alpha)), pair)| {
                let scaling = config.scaling(rank, alpha);
                (key, Lora { a: pair[0], b: pair[1], rank, scaling })
            })
            .collect();
        Ok(Adapter { config, modules })
    }

    /// What it covers.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The matrices over a module, if it is covered.
    pub fn get(&self, layer: usize, module: Module) -> Option<&Lora> {
        self.modules.get(&(layer, module))
    }

    /// The lowest layer that is covered: nothing below it needs a gradient.
    pub fn lowest_layer(&self) -> usize {
        self.modules.keys().next().map_or(usize::MAX, |key| key.0)
    }

    /// All trained matrices, in the order of [`LoraConfig::matrices`].
    pub fn parameters(&self) -> Vec<Parameter> {
        let matrices = self.modules.values().flat_map(|lora| [lora.a, lora.b]);
        matrices
            .filter_map(|matrix| match matrix {
                Matrix::Trained(parameter) => Some(parameter),
                Matrix::Frozen(_) => None,
            })
            .collect()
    }

    /// Reads the f32 values of a trained adapter back, in the order of [`LoraConfig::matrices`].
    pub fn values(&self, backend: &mut dyn Backend) -> Result<Vec<Vec<f32>>> {
        let mut all = Vec::with_capacity(2 * self.modules.len());
        for parameter in self.parameters() {
            let mut values = vec![0.0; parameter.master.len];
            backend.read(parameter.master, &mut values)?;
            all.push(values);
        }
        Ok(all)
    }

    /// Gives its device memory back.
    pub fn unload(self, backend: &mut dyn Backend) {
        for lora in self.modules.values() {
            backend.unload(lora.a());
            backend.unload(lora.b());
        }
    }
}
