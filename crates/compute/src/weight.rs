//! Matrices that a backend keeps in a form of its own.

use crate::Buffer;
use crate::optimizer::{STATES, Shape};

/// Most parts of one matrix that are multiplied apart: queries, keys and values.
pub const PARTS: usize = 3;

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

/// Bytes as the signed codes of [`QuantizedValues::EightBit`].
pub fn signed(bytes: &[u8]) -> &[i8] {
    // SAFETY: both are one byte, and every bit pattern is valid in both.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

impl Storage {
    /// Every one.
    pub const ALL: [Storage; 11] = [
        Storage::F32,
        Storage::F16,
        Storage::Bf16,
        Storage::Q8_0,
        Storage::Q4_0,
        Storage::Q4_1,
        Storage::Q5_0,
        Storage::Q5_1,
        Storage::Q4_K,
        Storage::Q5_K,
        Storage::Q6_K,
    ];

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

impl WeightSource<'_> {
    /// Whether the bytes fit the shape.
    pub fn check(&self) -> crate::Result<()> {
        let WeightSource { rows, cols, storage, bytes, .. } = *self;
        let expected = storage.row_bytes(cols).map(|row_bytes| rows * row_bytes);
        if expected == Some(bytes.len()) {
            return Ok(());
        }
        let (expected, actual) = (expected.unwrap_or(0), bytes.len());
        Err(crate::Error::WeightBytes { storage, rows, cols, expected, actual })
    }

    /// Whether all numbers are finite. Bytes and shape fit.
    pub(crate) fn check_finite(&self) -> crate::Result<()> {
        let WeightSource { rows, cols, storage, .. } = *self;
        match (0..rows).find(|&row| !storage.all_finite(self.row(row))) {
            Some(row) => Err(crate::Error::NotFinite { row, rows, cols }),
            None => Ok(()),
        }
    }

    /// The bytes of a row.
    pub fn row(&self, row: usize) -> &[u8] {
        let row_bytes = self.storage.row_bytes(self.cols).expect("whole blocks");
        let row = self.row_order.map_or(row, |order| order[row] as usize);
        &self.bytes[row * row_bytes..][..row_bytes]
    }

    /// The f32 numbers from `first` on in the flattened matrix; first and end are whole blocks.
    pub fn read(&self, first: usize, out: &mut [f32]) {
        let (len, size) = (self.storage.block_len(), self.storage.block_bytes());
        let mut done = 0;
        while done < out.len() {
            let (row, col) = ((first + done) / self.cols, (first + done) % self.cols);
            let count = (self.cols - col).min(out.len() - done);
            let bytes = &self.row(row)[col / len * size..][..count / len * size];
            crate::dequant::dequantize(self.storage, bytes, &mut out[done..done + count]);
            done += count;
        }
    }
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

/// How a frozen matrix is made smaller while it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// 4 bits, Dettmers et al. 2023: blocks of 64 over the flattened matrix, their largest magnitudes
    /// quantised again in blocks of 256, as bitsandbytes does.
    Nf4,
    /// 8 bits: each row divided by its largest magnitude, in steps of 1/127.
    Int8,
}

/// A matrix that a file holds quantised, as bitsandbytes writes it.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedSource<'a> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Its numbers.
    pub values: QuantizedValues<'a>,
}

/// See [`QuantizedSource`].
#[derive(Clone, Copy, Debug)]
pub enum QuantizedValues<'a> {
    /// 4 bits: `map[code] * absmax[i / block_len]` over the flattened matrix.
    FourBit {
        /// Two codes a byte, the first in the high half.
        codes: &'a [u8],
        /// What the codes stand for.
        map: &'a [f32; 16],
        /// Numbers to one magnitude.
        block_len: usize,
        /// Magnitudes.
        absmax: Absmax<'a>,
    },
    /// 8 bits: `code * absmax[row] / 127`.
    EightBit {
        /// `[rows, cols]`.
        codes: &'a [i8],
        /// `[rows]`.
        absmax: &'a [f32],
    },
}

/// The magnitudes of 4-bit blocks.
#[derive(Clone, Copy, Debug)]
pub enum Absmax<'a> {
    /// As they are.
    Plain(&'a [f32]),
    /// Quantised again: `map[code] * absmax[block / block_len] + offset`.
    Nested {
        /// One a block.
        codes: &'a [u8],
        /// What the codes stand for, `[256]`.
        map: &'a [f32],
        /// Blocks to one magnitude.
        block_len: usize,
        /// Magnitudes of the magnitudes.
        absmax: &'a [f32],
        /// Their mean.
        offset: f32,
    },
}

/// Bytes that stay where they lie, a mapped file say.
pub type Owner = std::sync::Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A matrix of which only rows are looked up ([`crate::op::Embed`]), left where it lies.
#[derive(Clone)]
pub struct LookupSource {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// How the bytes are to be read.
    pub storage: Storage,
    /// Whose bytes.
    pub owner: Owner,
    /// Which of them.
    pub range: std::ops::Range<usize>,
}

impl LookupSource {
    /// Whether the range lies inside the owner's bytes and fits the shape.
    pub fn check(&self) -> crate::Result<()> {
        let Self { rows, cols, storage, .. } = *self;
        let all = (*self.owner).as_ref();
        let bytes = all.get(self.range.clone()).unwrap_or(&[]);
        WeightSource { rows, cols, storage, bytes, row_order: None }.check()
    }

    /// A row as f32.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let row_bytes = self.storage.row_bytes(self.cols).expect("whole blocks");
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let start = self.range.start + row * row_bytes;
        let bytes = &(*self.owner).as_ref()[start..start + row_bytes];
        crate::dequant::dequantize(self.storage, bytes, out);
    }
}

/// Rows of a trained matrix that are multiplied by themselves.
#[derive(Clone, Copy, Debug)]
pub struct ParameterPart {
    /// Their operand copy.
    pub weight: Weight,
    /// Their values, f32.
    pub master: Buffer,
    /// d(loss)/d(value), f32.
    pub gradient: Buffer,
}

/// What is trained: the operand copies and all that the optimizer keeps.
///
/// The buffers are as long as `shape`, f32, and may be read and written
/// (checkpoints); after writing `master`, run [`crate::Op::Refresh`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Matrix or vector.
    pub shape: Shape,
    /// Which optimizer it was made for.
    pub optimizer: crate::OptimizerKind,
    /// What matrix products use: operand copies of runs of rows, one after another. It is one of all rows,
    /// or one for each part of a fused matrix; a vector has none.
    pub weights: [Option<Weight>; PARTS],
    /// The f32 value.
    pub master: Buffer,
    /// d(loss)/d(value), accumulated until the optimizer clears it.
    pub gradient: Buffer,
    /// What the optimizer keeps, as [`crate::OptimizerKind::states`] lists it.
    pub state: [Option<Buffer>; STATES],
}

impl Parameter {
    /// Takes the buffers of a parameter from a backend, all zero.
    pub(crate) fn new(
        backend: &mut dyn crate::Backend,
        shape: Shape,
        parts: &[Weight],
        optimizer: crate::OptimizerKind,
    ) -> crate::Result<Self> {
        let mut weights = [None; PARTS];
        weights.iter_mut().zip(parts).for_each(|(weight, &part)| *weight = Some(part));
        let master = backend.alloc_static(shape.len(), crate::DType::F32)?;
        let gradient = backend.alloc_static(shape.len(), crate::DType::F32)?;
        let mut state = [None; STATES];
        for (slot, (_, len, dtype)) in state.iter_mut().zip(optimizer.states(shape)) {
            *slot = Some(backend.alloc_static(len, dtype)?);
        }
        Ok(Parameter { shape, optimizer, weights, master, gradient, state })
    }

    /// Panics where the parameter was loaded for an optimizer that keeps something else.
    pub(crate) fn assert_kept_for(&self, optimizer: crate::OptimizerKind) {
        let states = optimizer.states(self.shape);
        let kept = self.state.iter().flatten().map(|buffer| (buffer.len, buffer.dtype));
        let wanted = states.iter().map(|&(_, len, dtype)| (len, dtype));
        assert!(kept.eq(wanted), "{optimizer:?} steps {self:?}, loaded for another optimizer");
    }

    /// All buffers: value, gradient, what the optimizer keeps.
    pub fn buffers(&self) -> impl Iterator<Item = Buffer> {
        [Some(self.master), Some(self.gradient)].into_iter().chain(self.state).flatten()
    }

    /// What the optimizer keeps, by name.
    pub fn states(&self) -> impl Iterator<Item = (&'static str, Buffer)> {
        let names = self.optimizer.states(self.shape);
        names.into_iter().zip(self.state).filter_map(|((name, ..), buffer)| Some((name, buffer?)))
    }

    /// The operand copy of a matrix.
    ///
    /// # Panics
    /// Of a vector, and of a matrix of several parts.
    pub fn matrix(&self) -> Weight {
        let [Some(weight), None, None] = self.weights else {
            panic!("one matrix is trained here, not a vector and not several parts")
        };
        weight
    }

    /// The parts of a matrix, in the order of its rows; none of a vector.
    pub fn parts(&self) -> impl Iterator<Item = ParameterPart> {
        let mut first = 0;
        self.weights.into_iter().flatten().map(move |weight| {
            let len = weight.rows * weight.cols;
            let part = ParameterPart {
                weight,
                master: self.master.slice(first, len),
                gradient: self.gradient.slice(first, len),
            };
            first += len;
            part
        })
    }
}
