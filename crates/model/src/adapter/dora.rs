//! DoRA, Liu et al. 2024: `y = m / |W + s B A| * (W x + s B A x)`, row by row, the norm
//! taken as a constant in backward.

use compute::op::{DoraFactors, Linear, Op, Term};
use compute::{Backend, Buffer, DType, Weight};

use crate::Result;
use crate::tensor::TrainedVector;

/// The magnitudes over one module, and what follows from them and the matrices.
#[derive(Clone, Copy, Debug)]
pub struct Dora {
    magnitude: Option<TrainedVector>,
    /// `|W_n|^2`, kept while the matrices change.
    squares: Buffer,
    /// `[N]`: what the sum is multiplied by.
    pub(crate) factors: Buffer,
    /// `[N]`: the norms of the adapted rows.
    pub(crate) norms: Buffer,
}

impl Dora {
    pub(crate) fn gradient(&self) -> Option<Buffer> {
        self.magnitude.map(|magnitude| magnitude.gradient)
    }

    /// The values of the trained magnitudes.
    pub(super) fn magnitude(&self) -> Option<Buffer> {
        self.magnitude.map(|magnitude| magnitude.master)
    }

    pub(super) fn new(
        backend: &mut dyn Backend,
        squares: Buffer,
        magnitude: Option<TrainedVector>,
    ) -> Result<Self> {
        let factors = backend.alloc_static(squares.len, DType::F32)?;
        let norms = backend.alloc_static(squares.len, DType::F32)?;
        Ok(Dora { magnitude, squares, factors, norms })
    }

    /// Gives back what follows from the magnitudes; they belong to their tensor.
    pub(super) fn unload(self, backend: &mut dyn Backend) {
        for buffer in [self.squares, self.factors, self.norms] {
            backend.free_static(buffer);
        }
    }
}

/// The matrices that factors are made of.
pub(super) struct DoraInputs {
    /// The adapted module.
    pub(super) weight: Weight,
    /// `lora_A` as a matrix.
    pub(super) a: Weight,
    /// Its values, `[rank, K]`, f32.
    pub(super) a_values: Buffer,
    /// `lora_B`'s values, `[N, rank]`, f32.
    pub(super) b_values: Buffer,
    /// `[N]`, f32.
    pub(super) magnitude: Buffer,
    pub(super) scaling: f32,
}

/// Room for the products of the largest module.
#[derive(Clone, Copy, Debug)]
pub(super) struct DoraScratch {
    a: Buffer,
    product: Buffer,
    gram: Buffer,
}

impl DoraScratch {
    /// For modules of at most these sizes.
    pub(super) fn new(
        backend: &mut dyn Backend,
        rank: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Self> {
        let operand = backend.operand();
        Ok(DoraScratch {
            a: backend.alloc_static(rank * cols, operand)?,
            product: backend.alloc_static(rank * rows, DType::F32)?,
            gram: backend.alloc_static(rank * rank, DType::F32)?,
        })
    }

    pub(super) fn free(self, backend: &mut dyn Backend) {
        for buffer in [self.a, self.product, self.gram] {
            backend.free_static(buffer);
        }
    }

    /// Makes the factors of one module anew.
    pub(super) fn refresh(
        &self,
        backend: &mut dyn Backend,
        dora: &Dora,
        inputs: &DoraInputs,
    ) -> Result<()> {
        let (outputs, rank) = (inputs.weight.rows, inputs.a.rows);
        let a = self.a.slice(0, inputs.a_values.len);
        let product = self.product.slice(0, rank * outputs);
        let gram = self.gram.slice(0, rank * rank);
        backend.run(Op::Cast { x: inputs.a_values, scale: 1.0, out: a })?;
        for (weight, out) in [(inputs.weight, product), (inputs.a, gram)] {
            let terms = [Term { input: a, weight, transposed: false }];
            let linear = Linear::product(rank, &terms, out);
            backend.run(Op::Linear(&[linear]))?;
        }
        backend.run(Op::DoraFactors(DoraFactors {
            outputs,
            rank,
            squares: dora.squares,
            product,
            gram,
            b: inputs.b_values,
            scaling: inputs.scaling,
            magnitude: inputs.magnitude,
            factors: dora.factors,
            norms: dora.norms,
        }))?;
        Ok(())
    }
}
