//! Matrices that a backend keeps in a form of its own.

use crate::Buffer;

/// How the numbers of a weight are stored in the file that it comes from.
///
/// The block types are those of the GGUF format: a row is cut into blocks of
/// [`Storage::block_len`] numbers, [`Storage::block_bytes`] bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum Storage {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// bfloat16.
    Bf16,
    /// 8 bits, one f16 scale per 32.
    Q8_0,
    /// 4 bits, one f16 scale per 32.
    Q4_0,
    /// 4 bits, f16 scale and minimum per 32.
    Q4_1,
    /// 5 bits, one f16 scale per 32.
    Q5_0,
    /// 5 bits, f16 scale and minimum per 32.
    Q5_1,
    /// 4 bits in super-blocks of 256.
    Q4_K,
    /// 5 bits in super-blocks of 256.
    Q5_K,
    /// 6 bits in super-blocks of 256.
    Q6_K,
}

impl Storage {
    /// Numbers in one block.
    pub fn block_len(self) -> usize {
        match self {
            Storage::F32 | Storage::F16 | Storage::Bf16 => 1,
            Storage::Q8_0 | Storage::Q4_0 | Storage::Q4_1 | Storage::Q5_0 | Storage::Q5_1 => 32,
            Storage::Q4_K | Storage::Q5_K | Storage::Q6_K => 256,
        }
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        match self {
            Storage::F32 => 4,
            Storage::F16 | Storage::Bf16 => 2,
            Storage::Q8_0 => 34,
            Storage::Q4_0 => 18,
            Storage::Q4_1 => 20,
            Storage::Q5_0 => 22,
            Storage::Q5_1 => 24,
            Storage::Q4_K => 144,
            Storage::Q5_K => 176,
            Storage::Q6_K => 210,
        }
    }

    /// Bytes of a row of `cols` numbers, where they fill whole blocks.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        cols.is_multiple_of(self.block_len()).then(|| cols / self.block_len() * self.block_bytes())
    }
}

/// A matrix `[rows, cols]` as a file holds it, rows one after another.
///
/// As in `nn.Linear`, `rows` are outputs and `cols` are inputs.
#[derive(Clone, Copy, Debug)]
pub struct WeightSource<'a> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// How `bytes` are to be read.
    pub storage: Storage,
    /// `rows * storage.row_bytes(cols)` bytes, little endian.
    pub bytes: &'a [u8],
    /// Row `i` of the weight is row `row_order[i]` of `bytes`.
    pub row_order: Option<&'a [u32]>,
}

/// A loaded matrix. Opaque: panels, blocks and unpacking belong to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Weight {
    /// The backend's own number for it.
    pub id: u32,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
}

/// A matrix that is trained: the operand copy and all that the optimizer keeps.
///
/// The buffers are `[rows, cols]` row by row, f32, and may be read and written
/// (checkpoints); after writing `master`, run [`crate::Op::Refresh`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// What matrix products use.
    pub weight: Weight,
    /// The f32 value.
    pub master: Buffer,
    /// d(loss)/d(value), accumulated until the optimizer clears it.
    pub gradient: Buffer,
    /// First moment of the optimizer.
    pub first_moment: Buffer,
    /// Second moment of the optimizer.
    pub second_moment: Buffer,
}
