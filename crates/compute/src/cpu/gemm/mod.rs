//! Matrix products: packing, register tiles, and the loops over them.
//!
//! A product `A B^T` takes rows of A in *blocks* of up to [`block_rows`], packed step by step
//! (`[steps][rows of the block]`, one 32-bit word each), and rows of B in *panels* of 32
//! (`[steps][32]`). A tile of one block by one panel stays in registers over all steps.
//! Every element is one chain of additions in f32, steps ascending, whatever its neighbours are.

#[cfg(target_arch = "x86_64")]
pub(super) mod columns;
mod gradient;
#[cfg(target_arch = "x86_64")]
pub(super) mod groups;
#[cfg(target_arch = "x86_64")]
pub(super) mod halves;
mod linear;
mod pack;
#[cfg(target_arch = "x86_64")]
pub(super) mod pairs;
mod tile;

use super::Isa;
use crate::DType;

pub(super) use gradient::{Gradient, STEPS as GRADIENT_STEPS, Source, weight_gradient};
pub(super) use linear::{Machine, Packing, Product, ProductTerm, linear};
pub(super) use pack::{
    PackInput, Packed, RowsF32, pack_blocks, pack_rows, panel_from_rows, transpose_panel,
};
pub(super) use tile::{Output, PIECES, Pass, Piece, peak_flops};

/// Rows of B in a panel.
pub(crate) const PANEL: usize = 32;

/// Steps of a panel that are multiplied in one pass: few enough to stay in the second-level
/// cache, a multiple of what any block type unpacks at once.
pub(crate) const PASS_STEPS: usize = 2048;

/// Sets of pointers that threads share.
///
/// What they write is disjoint by task; this is each use's duty.
#[derive(Clone, Copy)]
pub(crate) struct Pointers<T>(pub(crate) T);

// SAFETY: see the type.
unsafe impl<T> Send for Pointers<T> {}
// SAFETY: see the type.
unsafe impl<T> Sync for Pointers<T> {}

/// How a panel holds its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A step is two neighbours along K as bf16 in one word; multiplied by `vdpbf16ps`.
    Pairs,
    /// A step is one bf16, widened when it is used.
    Halves,
    /// A step is one f32.
    Floats,
}

impl Format {
    /// How operands of a type are held where these instructions multiply them.
    pub(crate) fn new(isa: Isa, operand: DType) -> Self {
        match (operand, isa) {
            (DType::F32, _) => Format::Floats,
            (_, Isa::Avx512Bf16) => Format::Pairs,
            _ => Format::Halves,
        }
    }

    /// Numbers along K in one step.
    pub(crate) fn step_len(self) -> usize {
        match self {
            Format::Pairs => 2,
            Format::Halves | Format::Floats => 1,
        }
    }

    /// Bytes of a number in a row of operands.
    pub(crate) fn operand_bytes(self) -> usize {
        match self {
            Format::Pairs | Format::Halves => 2,
            Format::Floats => 4,
        }
    }

    /// Steps that `k` numbers take; the last may be padded with zeros.
    pub(crate) fn steps(self, k: usize) -> usize {
        k.div_ceil(self.step_len())
    }

    /// Bytes of one step of a panel.
    pub(crate) fn step_bytes(self) -> usize {
        match self {
            Format::Pairs | Format::Floats => 4 * PANEL,
            Format::Halves => 2 * PANEL,
        }
    }
}

/// Rows of A in the largest tile that the registers hold.
pub(crate) fn block_rows(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 | Isa::Avx512Bf16 => 12,
        Isa::Avx2 | Isa::Neon => 6,
        Isa::Portable => 2,
    }
}
