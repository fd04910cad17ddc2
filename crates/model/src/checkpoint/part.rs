//! Rows of a tensor, as a backend or the host wants them.
//!
//! NaN and infinity are refused here, where values are read anyway. An embedding that stays in its mapped file is read once
//! for that, 8 MB at a time: looking only at rows as they are used would name the tensor after hours, or never.

use std::ops::Range;
use std::path::Path;

use compute::quantize::QuantizedRows;
use compute::{LookupSource, QuantizedSource, QuantizedValues, Storage, WeightSource, all_finite};
use safetensors::Dtype;

use super::{Base, Stored, Tensor};
use crate::{Error, Result};

/// Rows that are compared at a time.
const COMPARED_ROWS: usize = 512;
/// Bytes of a tensor that are looked at before their pages are given back.
const CHECKED_BYTES: usize = 8 << 20;

/// Rows of a matrix.
pub struct Part<'a> {
    rows: usize,
    cols: usize,
    numbers: Numbers<'a>,
}

enum Numbers<'a> {
    Plain { storage: Storage, bytes: &'a [u8], row_order: Option<Vec<u32>> },
    Quantized(QuantizedValues<'a>),
    Rows(QuantizedRows<'a>),
}

impl Tensor<'_> {
    /// Some rows of a matrix.
    ///
    /// # Panics
    /// Where there are no such rows, or the tensor is no matrix.
    pub fn rows(&self, rows: Range<usize>) -> Part<'_> {
        let [count, cols] = self.shape[..] else { panic!("`{}` is no matrix", self.name) };
        assert!(rows.start <= rows.end && rows.end <= count, "rows {rows:?} of {count}");
        let numbers = match &self.stored {
            Stored::Plain { storage, bytes, row_order } => {
                let row_bytes = storage.row_bytes(cols).unwrap_or(0);
                let inside = |&row: &u32| {
                    // Rows change places within heads, and parts are whole heads.
                    assert!(rows.contains(&(row as usize)), "row {row} is none of {rows:?}");
                    row - rows.start as u32
                };
                let row_order = row_order.as_ref();
                let row_order = row_order.map(|o| o[rows.clone()].iter().map(inside).collect());
                // A base without numbers has no bytes.
                let bytes = bytes.get(rows.start * row_bytes..rows.end * row_bytes);
                let bytes = bytes.unwrap_or_default();
                Numbers::Plain { storage: *storage, bytes, row_order }
            }
            Stored::Quantized(codes) => match codes.values() {
                values if rows.len() == count => Numbers::Quantized(values),
                values => Numbers::Rows(values.rows(cols, rows.clone())),
            },
        };
        Part { rows: rows.len(), cols, numbers }
    }

    /// The f32 numbers of some rows; of a vector, some of its numbers. NaN and infinity are errors.
    ///
    /// `out` is as long as the rows.
    pub fn dequantize(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let count = self.shape.first().copied().unwrap_or(1);
        let cols = self.shape.iter().skip(1).product::<usize>();
        assert!(rows.start <= rows.end && rows.end <= count, "rows {rows:?} of {count}");
        assert_eq!(out.len(), rows.len() * cols, "numbers of {rows:?} by {cols}");
        match &self.stored {
            Stored::Plain { storage, bytes, row_order } => {
                let row_order = row_order.as_deref();
                let source =
                    WeightSource { rows: count, cols, storage: *storage, bytes, row_order };
                source.check().map_err(|error| self.refused(0, error))?;
                source.read(rows.start * cols, out);
            }
            Stored::Quantized(codes) => {
                codes.values().read(cols, rows.start * cols..rows.end * cols, out);
            }
        }
        if all_finite(out) {
            return Ok(());
        }
        let index = out.iter().position(|number| !number.is_finite()).unwrap_or(0);
        let (row, rows) = (rows.start + index / cols.max(1), count);
        Err(self.refused(0, compute::Error::NotFinite { row, rows, cols }))
    }

    /// Reads the whole tensor and refuses NaN and infinity: for what is left in its file, from which only
    /// single rows will be read. It costs as much as reading the tensor, and holds no memory.
    pub(crate) fn check_finite(&self) -> Result<()> {
        let Stored::Plain { storage, bytes, .. } = self.stored else { return Ok(()) };
        let cols = self.shape.iter().skip(1).product::<usize>();
        let Some(row_bytes) = storage.row_bytes(cols).filter(|&bytes| bytes > 0) else {
            return Ok(());
        };
        let step = (CHECKED_BYTES / row_bytes).max(1);
        for (chunk, bytes) in bytes.chunks(step * row_bytes).enumerate() {
            if !storage.all_finite(bytes) {
                let sound = bytes.chunks(row_bytes).take_while(|row| storage.all_finite(row));
                let row = chunk * step + sound.count();
                return Err(not_finite(self.path, &self.name, row));
            }
            self.mapping.release(bytes);
        }
        Ok(())
    }

    /// What a backend said of the rows from `first_row` on, as an error about the tensor.
    pub(crate) fn refused(&self, first_row: usize, error: compute::Error) -> Error {
        let Tensor { name, path, .. } = self;
        match error {
            // A backend may have put rows into another order, or know no more than a block: the file's own row
            // is the one to be found.
            compute::Error::NotFinite { row, .. } => match self.check_finite() {
                Err(exact) => exact,
                Ok(()) => not_finite(path, name, first_row + row),
            },
            error => Error::file(*path, format!("tensor `{name}`: {error}")),
        }
    }

    /// As [`dequantize`](Tensor::dequantize), in memory of its own.
    pub fn values(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let cols = self.shape.iter().skip(1).product::<usize>();
        let mut values = vec![0.0; rows.len() * cols];
        self.dequantize(rows, &mut values)?;
        Ok(values)
    }

    /// Whether shape or numbers of another tensor are others.
    pub(super) fn differs_from(&self, other: &Tensor<'_>) -> Result<bool> {
        if self.shape != other.shape {
            return Ok(true);
        }
        let count = self.shape.first().copied().unwrap_or(1);
        for start in (0..count).step_by(COMPARED_ROWS) {
            let rows = start..count.min(start + COMPARED_ROWS);
            if self.values(rows.clone())? != other.values(rows)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives back the memory of the file's pages that hold the tensor; they are read again when it is.
    pub fn release(&self) {
        self.mapping.release(match &self.stored {
            Stored::Plain { bytes, .. } => bytes,
            Stored::Quantized(codes) => codes.bytes(),
        });
    }

    /// Its type, if its numbers stand for themselves.
    pub(crate) fn float_type(&self) -> Option<Dtype> {
        match &self.stored {
            Stored::Plain { storage: Storage::F32, .. } => Some(Dtype::F32),
            Stored::Plain { storage: Storage::F16, .. } => Some(Dtype::F16),
            Stored::Plain { storage: Storage::Bf16, .. } => Some(Dtype::BF16),
            _ => None,
        }
    }
}

impl Part<'_> {
    /// The rows, where they are not quantised.
    pub fn plain(&self) -> Option<WeightSource<'_>> {
        let (rows, cols) = (self.rows, self.cols);
        match &self.numbers {
            Numbers::Plain { storage, bytes, row_order } => {
                let (storage, row_order) = (*storage, row_order.as_deref());
                Some(WeightSource { rows, cols, storage, bytes, row_order })
            }
            Numbers::Rows(part) => part.floats().map(|bytes| {
                let storage = Storage::F32;
                WeightSource { rows, cols, storage, bytes, row_order: None }
            }),
            Numbers::Quantized(_) => None,
        }
    }

    /// The rows, where they are quantised.
    ///
    /// # Panics
    /// Where they are [`plain`](Part::plain).
    pub fn quantized(&self) -> QuantizedSource<'_> {
        let values = match &self.numbers {
            Numbers::Quantized(values) => *values,
            Numbers::Rows(part) => part.values(),
            Numbers::Plain { .. } => panic!("rows that are not quantised"),
        };
        QuantizedSource { rows: self.rows, cols: self.cols, values }
    }
}

impl Base {
    /// A matrix left in its file, from which a backend reads single rows; none where it is quantised.
    pub fn lookup(&self, name: &str, shape: &[usize; 2]) -> Result<Option<LookupSource>> {
        let tensor = self.tensor(name, shape)?;
        let Stored::Plain { storage, bytes, row_order: None } = tensor.stored else {
            return Ok(None);
        };
        let start = tensor.mapping.offset(bytes);
        let (range, owner) = (start..start + bytes.len(), tensor.mapping.owner());
        let [rows, cols] = *shape;
        Ok(Some(LookupSource { rows, cols, storage, owner, range }))
    }

    /// `len` numbers of a vector from `first` on.
    pub fn vector(&self, name: &str, first: usize, len: usize) -> Result<Vec<f32>> {
        let Some(tensor) = self.tensors.get_as(name, &[first + len])? else {
            return Err(Error::file(&self.path, format!("tensor `{name}` is missing")));
        };
        if tensor.shape.len() != 1 || tensor.shape[0] < first + len {
            let message = format!(
                "tensor `{name}` has shape {:?}, but the config asks for [{}]",
                tensor.shape,
                first + len
            );
            return Err(Error::file(tensor.path, message));
        }
        tensor.values(first..first + len)
    }
}

/// A tensor of a file in which a number is NaN or infinite.
pub(crate) fn not_finite(path: &Path, name: &str, row: usize) -> Error {
    Error::file(path, format!("tensor `{name}`: row {row} holds NaN or infinity")).with_hint(
        "the file is damaged, or its training diverged: download it again, or use an earlier checkpoint",
    )
}

/// A tensor's name as a plain decoder has it, without what a model of several parts puts around it.
pub(crate) fn plain_name(name: &str) -> String {
    match name.strip_prefix("model.language_model.") {
        Some(inner) => format!("model.{inner}"),
        None => name.strip_prefix("language_model.").unwrap_or(name).to_owned(),
    }
}
