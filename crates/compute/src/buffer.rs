//! Plain handles to device memory.

/// The element type of a [`Buffer`].
///
/// The reference backend computes and stores `F32` and `Bf16` alike as f64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float: residual stream, statistics, gradients, optimizer state.
    F32,
    /// bfloat16: operands of matrix products.
    Bf16,
    /// 32-bit unsigned integers: tokens, positions, indices.
    U32,
    /// Bytes: codes of 8-bit moments.
    U8,
}

impl DType {
    /// Bytes of one element on a device that stores the type as named.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::Bf16 => 2,
            DType::U8 => 1,
        }
    }
}

/// Which memory of a backend a [`Buffer`] lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// The stack of the current step.
    Stack,
    /// An allocation of its own that lives until it is freed.
    Static(u32),
}

/// A run of elements in a backend's memory. A plain handle: copying it copies
/// no data, and only the backend that made it can follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// The memory it lies in.
    pub region: Region,
    /// Bytes from the start of the region.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
    /// Type of the elements.
    pub dtype: DType,
}

impl Buffer {
    /// The `len` elements from element `start` on.
    ///
    /// # Panics
    /// Where they do not lie inside the buffer.
    pub fn slice(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len, "slice {start}+{len} of a buffer of {}", self.len);
        Buffer { offset: self.offset + start * self.dtype.size(), len, ..self }
    }
}

/// A height of the stack, to which it can be released again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub usize);
