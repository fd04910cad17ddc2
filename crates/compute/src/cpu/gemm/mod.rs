//! Matrix products: packing, register tiles, and the loops over them.
//!
//! A product `A B^T` takes rows of A in *blocks* of up to [`block_rows`], packed step by step
//! (`[steps][rows of the block]`, one 32-bit word each), and rows of B in *panels* of 32
//! (`[steps][32]`). A tile of one block by one panel stays in registers over all steps.
//! Every element is one chain of additions in f32, steps ascending, whatever its neighbours are.

mod gradient;
mod linear;
mod pack;
mod tile;

use super::Isa;

pub(super) use gradient::{Gradient, STEPS as GRADIENT_STEPS, Source, weight_gradient};
pub(super) use linear::{Packing, Product, ProductTerm, linear};
pub(super) use pack::{PackInput, Packed, pack_blocks, pack_rows};
pub(super) use tile::{Output, PIECES, Pass, Piece, peak_flops};

/// Steps of a panel that are multiplied in one pass: few enough to stay in the second-level
/// cache, a multiple of what any block type unpacks at once.
pub(crate) const PASS_STEPS: usize = 2048;

/// Rows of A in the largest tile that the registers hold.
pub(crate) fn block_rows(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 | Isa::Avx512Bf16 => 12,
        Isa::Avx2 | Isa::Neon => 6,
        Isa::Portable => 2,
    }
}
