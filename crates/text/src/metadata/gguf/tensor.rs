//! Where a tensor lies, and in what type.

use super::reader::Reader;
use crate::Result;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name (`blk.0.attn_q.weight`, ...).
    pub name: String,
    /// Its shape, the fastest dimension first: a matrix is `[cols, rows]`.
    pub dims: Vec<u64>,
    /// How its numbers are stored.
    pub tensor_type: TensorType,
    /// Its first byte, counted from the start of the file.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// The shortest entry: length of the name, number of dimensions, type, offset.
    pub(super) const MIN_BYTES: usize = 8 + 4 + 4 + 8;

    /// Reads an entry; `offset` is still counted from the start of the data.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let name = reader.string("the name of a tensor")?;
        let what = format!("the description of tensor `{name}`");
        let rank = reader.u32(&what)?;
        if !(1..=4).contains(&rank) {
            let message = format!("tensor `{name}` has {rank} dimensions; 1 to 4 are possible");
            return Err(reader.error(message));
        }
        let dims = (0..rank).map(|_| reader.u64(&what)).collect::<Result<Vec<_>>>()?;
        let id = reader.u32(&what)?;
        let offset = reader.u64(&what)?;
        let Some(tensor_type) = TensorType::from_id(id) else {
            return Err(reader.error(format!("tensor `{name}` has the unknown type {id}")));
        };
        let Some(bytes) = tensor_type.bytes(&dims) else {
            let message = format!("tensor `{name}` of shape {dims:?} cannot be {tensor_type:?}");
            return Err(reader.error(message));
        };
        Ok(TensorInfo { name, dims, tensor_type, offset, bytes })
    }

    /// Makes the offset count from the start of the file, or says what is wrong with it.
    pub(super) fn place(
        &mut self,
        data_start: u64,
        alignment: u64,
        file_len: u64,
    ) -> std::result::Result<(), String> {
        if !self.offset.is_multiple_of(alignment) {
            return Err(format!("its offset {} is not a multiple of {alignment}", self.offset));
        }
        let start = data_start.checked_add(self.offset);
        let end = start.and_then(|start| start.checked_add(self.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_len => {
                self.offset = start;
                Ok(())
            }
            _ => Err(format!(
                "its {} bytes from {data_start} + {} on reach past the end of the file at {file_len}",
                self.bytes, self.offset
            )),
        }
    }

    /// The product of the dimensions.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }
}

/// Declares the tensor types: name, number in the file, numbers and bytes in a block.
macro_rules! tensor_types {
    ($($name:ident = $id:literal, $block_len:literal, $block_bytes:literal;)*) => {
        /// How the numbers of a tensor are stored, by the format's own names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(non_camel_case_types, missing_docs)]
        pub enum TensorType { $($name,)* }

        impl TensorType {
            /// The type of that number, where there is one.
            pub fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(TensorType::$name),)* _ => None }
            }

            /// The format's name for it.
            pub fn name(self) -> &'static str {
                match self { $(TensorType::$name => stringify!($name),)* }
            }

            /// Numbers in a block.
            pub fn block_len(self) -> u64 {
                match self { $(TensorType::$name => $block_len,)* }
            }

            /// Bytes of a block.
            pub fn block_bytes(self) -> u64 {
                match self { $(TensorType::$name => $block_bytes,)* }
            }
        }
    };
}

tensor_types! {
    F32 = 0, 1, 4;
    F16 = 1, 1, 2;
    Q4_0 = 2, 32, 18;
    Q4_1 = 3, 32, 20;
    Q5_0 = 6, 32, 22;
    Q5_1 = 7, 32, 24;
    Q8_0 = 8, 32, 34;
    Q8_1 = 9, 32, 36;
    Q2_K = 10, 256, 84;
    Q3_K = 11, 256, 110;
    Q4_K = 12, 256, 144;
    Q5_K = 13, 256, 176;
    Q6_K = 14, 256, 210;
    Q8_K = 15, 256, 292;
    IQ2_XXS = 16, 256, 66;
    IQ2_XS = 17, 256, 74;
    IQ3_XXS = 18, 256, 98;
    IQ1_S = 19, 256, 50;
    IQ4_NL = 20, 32, 18;
    IQ3_S = 21, 256, 110;
    IQ2_S = 22, 256, 82;
    IQ4_XS = 23, 256, 136;
    I8 = 24, 1, 1;
    I16 = 25, 1, 2;
    I32 = 26, 1, 4;
    I64 = 27, 1, 8;
    F64 = 28, 1, 8;
    IQ1_M = 29, 256, 56;
    BF16 = 30, 1, 2;
    TQ1_0 = 34, 256, 54;
    TQ2_0 = 35, 256, 66;
    MXFP4 = 39, 32, 17;
}

impl TensorType {
    /// Bytes of a tensor of that shape, where its rows fill whole blocks.
    fn bytes(self, dims: &[u64]) -> Option<u64> {
        let fills_blocks = dims.first()?.is_multiple_of(self.block_len());
        let elements = dims.iter().try_fold(1_u64, |product, dim| product.checked_mul(*dim))?;
        let blocks = elements / self.block_len();
        if fills_blocks { blocks.checked_mul(self.block_bytes()) } else { None }
    }
}
