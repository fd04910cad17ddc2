//! What the kernels of a device hold beside stack and weights, counted without running them.

use crate::{Op, Storage, Weight};

/// How a device keeps a frozen matrix, as far as it decides what products need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// As operands, ready to be multiplied.
    Operands,
    /// In the blocks of its file.
    Blocks(Storage),
    /// In codes of four bits.
    FourBit,
    /// In codes of eight bits.
    EightBit,
}

/// A device's bookkeeping: it hears of every weight and operation, and says how many bytes the kernels would take
/// for themselves.
///
/// It belongs to the device because only its kernels know what they pack, unpack or keep of a chunk.
pub trait Footprint: Send {
    /// A weight was loaded.
    fn load(&mut self, weight: Weight, kept: Kept);

    /// A weight was unloaded.
    fn unload(&mut self, weight: Weight);

    /// An operation would run.
    fn run(&mut self, op: &Op<'_>);

    /// Bytes that were needed up to now.
    fn bytes(&self) -> usize;

    /// A copy that goes on by itself.
    fn copy(&self) -> Box<dyn Footprint>;

    /// Itself, so that a device's tests can look inside.
    #[cfg(test)]
    fn as_any(&self) -> &dyn std::any::Any;
}

impl Clone for Box<dyn Footprint> {
    fn clone(&self) -> Self {
        self.copy()
    }
}
