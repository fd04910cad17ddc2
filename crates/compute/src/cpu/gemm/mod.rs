//! Matrix products: packing, register tiles, and the loops over them.
//!
//! A product `A B^T` takes rows of A in *blocks* of up to [`block_rows`], packed step by step
//! (`[steps][rows of the block]`, one 32-bit word each), and rows of B in *panels* of 32
//! (`[steps][32]`). A tile of one block by one panel stays in registers over all steps.
//! Every element is one chain of additions in f32, steps ascending, whatever its neighbours are.
//!
//! AMX takes sixteen steps at a time. Blocks are packed for it as `[steps / 16][rows of the block][16]`,
//! padded with zeros, and the chain is one of sums of sixteen steps. Where rows are summed (a weight gradient), each
//! group of rows begins with a new sixteen, so that its bits do not depend on what stands before it.

mod gradient;
mod linear;
mod pack;
mod tile;

use super::panel::Format;
use super::{Isa, amx};

pub(super) use gradient::{Gradient, STEPS as GRADIENT_STEPS, Source, weight_gradient};
pub(super) use linear::{Packing, Product, ProductTerm, linear};
pub(super) use pack::{PackInput, Packed, pack_blocks, pack_rows};
#[cfg(test)]
pub(super) use tile::Segment;
pub(super) use tile::{Output, PIECES, Pass, Piece, Work, peak_flops};

/// Steps of a panel that are multiplied in one pass: few enough to stay in the second-level
/// cache, a multiple of what any block type unpacks at once.
pub(crate) const PASS_STEPS: usize = 2048;

/// Rows of A in the largest tile that the registers hold.
pub(crate) fn block_rows(isa: Isa, format: Format) -> usize {
    match isa {
        Isa::Amx if format == Format::Tiles => amx::ROWS,
        Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => 12,
        Isa::Avx2 | Isa::Neon => 6,
        Isa::Portable => 2,
    }
}
