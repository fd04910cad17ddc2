//! Optimizers: what each computes, and what it keeps.

mod dynamic;

use crate::DType;
pub use dynamic::DynamicMap;

/// The rule of an update, with its numbers.
///
/// Bytes are those kept for each trained number beside its value and gradient, 4 each, and the operand copy of
/// a matrix. Decay is decoupled, `value *= 1 - learning_rate * weight_decay` before the update, where
/// nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// AdamW, Loshchilov and Hutter 2019, algorithm 2, as PyTorch computes it. 8 bytes.
    AdamW {
        /// Decay of the moments.
        betas: [f32; 2],
        /// Added to the root of the second moment.
        eps: f32,
    },
    /// AdamW with both moments in blocks of 256 bytes, Dettmers et al. 2022, as bitsandbytes keeps them. 2.03 bytes.
    ///
    /// Code c of a block stands for `level[c] * absmax`, with the block's largest magnitude and the levels of
    /// [`DynamicMap`]. A step takes the new moments as they are and rounds them, each to its nearest level, afterwards.
    /// A parameter of fewer than [`EIGHT_BIT_MIN`] numbers has f32 moments.
    AdamW8bit {
        /// Decay of the moments.
        betas: [f32; 2],
        /// Added to the root of the second moment.
        eps: f32,
    },
    /// Lion, Chen et al. 2023, algorithm 2. 4 bytes.
    ///
    /// `value -= learning_rate * sign(beta1 m + (1 - beta1) g)`, then `m = beta2 m + (1 - beta2) g`.
    Lion {
        /// Weight of the momentum in the update, and its decay.
        betas: [f32; 2],
    },
    /// Adafactor, Shazeer and Stern 2018, algorithms 4 and 5, without momentum and with a rate that is given: what
    /// transformers computes with `scale_parameter` and `relative_step` off. `4 / rows + 4 / cols` bytes,
    /// 4 for a vector.
    ///
    /// With `beta = 1 - step^decay_rate`, R and C the decayed means of `g^2 + eps` over rows and columns, the update
    /// is `g / sqrt(R C / mean(R))`, divided by `max(1, rms / clip_threshold)` of its root mean square. A
    /// vector keeps the decayed squares themselves. Decay is decoupled.
    Adafactor {
        /// Added to the squared gradient; positive.
        eps: f32,
        /// The update's root mean square is cut to this.
        clip_threshold: f32,
        /// Decay of the second moment: `1 - step^decay_rate`, negative.
        decay_rate: f32,
    },
    /// Muon, Jordan et al. 2024: momentum made orthogonal by Newton-Schulz steps. Matrices only. 4 bytes.
    ///
    /// `m += (1 - momentum) (g - m)`, as PyTorch has it; then `X = m` (with `nesterov`: `g + momentum (m - g)`) over
    /// its Frobenius norm, at least 1e-7; then `iterations` times `X = a X + (b A + c A^2) X` with `A = X X^T` and
    /// `(a, b, c) = (3.4445, -4.7750, 2.0315)`, in f32 and not bf16. A matrix of LoRA is a matrix like others:
    /// `lora_A` and `lora_B` are made orthogonal each by itself, of rank `rank`, not their product.
    Muon {
        /// Decay of the momentum.
        momentum: f32,
        /// Whether the gradient looks ahead.
        nesterov: bool,
        /// Newton-Schulz steps.
        iterations: u32,
        /// Scales the update as `0.2 sqrt(max(rows, cols))` (so that AdamW's rates fit) and not as
        /// `sqrt(max(1, rows / cols))`.
        match_rms: bool,
    },
    /// Gradient descent with momentum, as PyTorch computes it. 4 bytes.
    ///
    /// Decay is coupled: `g += weight_decay * value`. Then `m = momentum m + g`, so that the first step's `m` is `g`,
    /// and `value -= learning_rate * m` (with `nesterov`: `g + momentum m`).
    Sgd {
        /// Decay of the momentum.
        momentum: f32,
        /// Whether the gradient looks ahead.
        nesterov: bool,
    },
}

/// An [`Optimizer`] without its numbers: what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OptimizerKind {
    /// See [`Optimizer::AdamW`].
    AdamW,
    /// See [`Optimizer::AdamW8bit`].
    AdamW8bit,
    /// See [`Optimizer::Lion`].
    Lion,
    /// See [`Optimizer::Adafactor`].
    Adafactor,
    /// See [`Optimizer::Muon`].
    Muon,
    /// See [`Optimizer::Sgd`].
    Sgd,
}

/// Numbers in a block of 8-bit moments.
pub const MOMENT_BLOCK: usize = 256;

/// Below so many numbers the moments of [`OptimizerKind::AdamW8bit`] are f32.
pub const EIGHT_BIT_MIN: usize = 4096;

/// The coefficients a, b, c of Muon's polynomial.
pub const NEWTON_SCHULZ: [f32; 3] = [3.4445, -4.775, 2.0315];

/// The least norm that Muon divides by.
pub const NORM_MIN: f32 = 1e-7;

/// Most buffers that an optimizer keeps for a parameter.
pub const STATES: usize = 4;

/// What is trained: a matrix, of which products need an operand copy, or a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Rows and columns.
    Matrix(usize, usize),
    /// Length: a norm's weight, a bias, magnitudes.
    Vector(usize),
}

impl Shape {
    /// Numbers in all.
    pub fn len(self) -> usize {
        match self {
            Shape::Matrix(rows, cols) => rows * cols,
            Shape::Vector(len) => len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The parts of so many rows each of a matrix: rows, columns, and which of its numbers they are.
    pub(crate) fn parts(self, parts: &[usize]) -> Vec<(usize, usize, std::ops::Range<usize>)> {
        let Shape::Matrix(rows, cols) = self else {
            assert!(parts.is_empty(), "a vector has no parts");
            return Vec::new();
        };
        assert_eq!(parts.iter().sum::<usize>(), rows, "parts have all rows");
        let mut first = 0;
        let part = |&rows: &usize| {
            let start = first * cols;
            first += rows;
            (rows, cols, start..first * cols)
        };
        parts.iter().map(part).collect()
    }
}

impl Optimizer {
    /// What it keeps.
    pub fn kind(&self) -> OptimizerKind {
        match self {
            Optimizer::AdamW { .. } => OptimizerKind::AdamW,
            Optimizer::AdamW8bit { .. } => OptimizerKind::AdamW8bit,
            Optimizer::Lion { .. } => OptimizerKind::Lion,
            Optimizer::Adafactor { .. } => OptimizerKind::Adafactor,
            Optimizer::Muon { .. } => OptimizerKind::Muon,
            Optimizer::Sgd { .. } => OptimizerKind::Sgd,
        }
    }
}

impl OptimizerKind {
    /// Length and type of what is kept for a parameter beside value and gradient, with names for files.
    pub fn states(self, shape: Shape) -> Vec<(&'static str, usize, DType)> {
        let len = shape.len();
        let blocks = len.div_ceil(MOMENT_BLOCK);
        match (self, shape) {
            (OptimizerKind::AdamW8bit, _) if len >= EIGHT_BIT_MIN => vec![
                ("first_moment", len, DType::U8),
                ("first_absmax", blocks, DType::F32),
                ("second_moment", len, DType::U8),
                ("second_absmax", blocks, DType::F32),
            ],
            (OptimizerKind::AdamW | OptimizerKind::AdamW8bit, _) => {
                vec![("first_moment", len, DType::F32), ("second_moment", len, DType::F32)]
            }
            (OptimizerKind::Adafactor, Shape::Matrix(rows, cols)) => {
                vec![("row_moment", rows, DType::F32), ("column_moment", cols, DType::F32)]
            }
            (OptimizerKind::Adafactor, Shape::Vector(_)) => {
                vec![("second_moment", len, DType::F32)]
            }
            (OptimizerKind::Lion | OptimizerKind::Muon | OptimizerKind::Sgd, _) => {
                vec![("momentum", len, DType::F32)]
            }
        }
    }

    /// Bytes of what [`states`](OptimizerKind::states) lists.
    pub fn state_bytes(self, shape: Shape) -> usize {
        self.states(shape).iter().map(|(_, len, dtype)| len * dtype.size()).sum()
    }

    /// Bytes that a step takes for itself and gives back, one parameter at a time.
    pub fn scratch_bytes(self, shape: Shape) -> usize {
        let numbers = match (self, shape) {
            // The iterate, the next one and its packed copy; three matrices over the shorter side.
            (OptimizerKind::Muon, Shape::Matrix(rows, cols)) => {
                3 * rows * cols + 3 * rows.min(cols).pow(2)
            }
            // A factor of each column, and the squares of each row in f64.
            (OptimizerKind::Adafactor, Shape::Matrix(rows, cols)) => 2 * rows + cols,
            _ => 0,
        };
        4 * numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_counted_by_shape() {
        #[track_caller]
        fn check(kind: OptimizerKind, shape: Shape, expected: usize) {
            assert_eq!(kind.state_bytes(shape), expected);
        }
        let (matrix, vector) = (Shape::Matrix(64, 100), Shape::Vector(100));
        check(OptimizerKind::AdamW, matrix, 8 * 6400);
        check(OptimizerKind::AdamW8bit, matrix, 2 * (6400 + 4 * 25));
        check(OptimizerKind::AdamW8bit, vector, 8 * 100);
        check(OptimizerKind::AdamW8bit, Shape::Vector(4097), 2 * (4097 + 4 * 17));
        check(OptimizerKind::Lion, matrix, 4 * 6400);
        check(OptimizerKind::Adafactor, matrix, 4 * 164);
        check(OptimizerKind::Adafactor, vector, 4 * 100);
        check(OptimizerKind::Muon, matrix, 4 * 6400);
        check(OptimizerKind::Sgd, vector, 4 * 100);
    }
}
