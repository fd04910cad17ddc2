//! The address space of the reference: every write, read and release is checked.

use std::collections::{BTreeMap, BTreeSet};

use super::Matrix;
use crate::{Buffer, DType, Region};

/// What stands at a byte of memory. A longer element stands at its first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    Unwritten,
    Number(f64),
    Integer(u32),
}

/// Memory as the queued operations see it, one after another.
#[derive(Default)]
pub(super) struct Memory {
    stack: Vec<Cell>,
    statics: BTreeMap<u32, Vec<Cell>>,
    pub(super) weights: BTreeMap<u32, Matrix>,
    /// Those that are only looked up.
    pub(super) lookups: BTreeSet<u32>,
    /// What the operation now running has read: its outputs may not overlap it.
    inputs: Vec<Buffer>,
}

impl Memory {
    /// A new operation begins.
    pub(super) fn begin(&mut self) {
        self.inputs.clear();
    }

    /// The stack up to `top` bytes exists; from `bottom` on nothing is written.
    pub(super) fn grow(&mut self, bottom: usize, top: usize) {
        self.stack.truncate(bottom);
        self.stack.resize(top, Cell::Unwritten);
    }

    /// The stack ends at `top` bytes.
    pub(super) fn shrink(&mut self, top: usize) {
        self.stack.truncate(top);
    }

    /// A zeroed allocation of its own.
    pub(super) fn add_static(&mut self, id: u32, len: usize, dtype: DType) {
        let zero = if is_integer(dtype) { Cell::Integer(0) } else { Cell::Number(0.0) };
        self.statics.insert(id, vec![zero; len * dtype.size()]);
    }

    /// Forgets an allocation.
    pub(super) fn remove_static(&mut self, id: u32) {
        assert!(self.statics.remove(&id).is_some(), "static buffer {id} is freed twice");
    }

    /// A weight that is multiplied.
    pub(super) fn factor(&self, weight: crate::Weight) -> &Matrix {
        let lookup = self.lookups.contains(&weight.id);
        assert!(!lookup, "a matrix of `load_lookup` is multiplied; it can only be embedded");
        self.weight(weight)
    }

    /// A weight by its number.
    pub(super) fn weight(&self, weight: crate::Weight) -> &Matrix {
        let matrix = self.weights.get(&weight.id);
        let matrix = matrix.unwrap_or_else(|| panic!("{weight:?} is used after it was unloaded"));
        assert_eq!((matrix.rows, matrix.cols), (weight.rows, weight.cols), "shape of {weight:?}");
        matrix
    }

    /// An input of `len` numbers.
    pub(super) fn numbers(&mut self, buffer: Buffer, len: usize) -> Vec<f64> {
        self.inputs.push(buffer);
        self.present(buffer, len)
    }

    /// The present value of an output that is added to.
    pub(super) fn present(&self, buffer: Buffer, len: usize) -> Vec<f64> {
        assert_eq!(buffer.len, len, "length of {buffer:?}");
        let cells = self.cells(buffer);
        let number = |(index, cell): (usize, &Cell)| match *cell {
            Cell::Number(number) => number,
            other => panic!("number {index} of {buffer:?} is read but {other:?}"),
        };
        cells.step_by(buffer.dtype.size()).enumerate().map(number).collect()
    }

    /// An input of `len` integers.
    pub(super) fn integers(&mut self, buffer: Buffer, len: usize) -> Vec<u32> {
        self.inputs.push(buffer);
        self.present_integers(buffer, len)
    }

    /// The present value of an output of integers.
    pub(super) fn present_integers(&self, buffer: Buffer, len: usize) -> Vec<u32> {
        assert_eq!(buffer.len, len, "length of {buffer:?}");
        let integer = |(index, cell): (usize, &Cell)| match *cell {
            Cell::Integer(integer) => integer,
            other => panic!("integer {index} of {buffer:?} is read but {other:?}"),
        };
        self.cells(buffer).step_by(buffer.dtype.size()).enumerate().map(integer).collect()
    }

    /// Writes an output.
    pub(super) fn write(&mut self, buffer: Buffer, values: &[f64]) {
        assert!(!is_integer(buffer.dtype), "numbers are written to {buffer:?}");
        self.write_cells(buffer, values.len(), values.iter().map(|&value| Cell::Number(value)));
    }

    /// Writes an output of integers.
    pub(super) fn write_integers(&mut self, buffer: Buffer, values: &[u32]) {
        assert!(is_integer(buffer.dtype), "integers are written to {buffer:?}");
        self.write_cells(buffer, values.len(), values.iter().map(|&value| Cell::Integer(value)));
    }

    fn write_cells(&mut self, buffer: Buffer, len: usize, values: impl Iterator<Item = Cell>) {
        assert_eq!(buffer.len, len, "length of {buffer:?}");
        if let Some(input) = self.inputs.iter().find(|input| overlap(**input, buffer)) {
            panic!("output {buffer:?} overlaps input {input:?}");
        }
        let (start, size) = (buffer.offset, buffer.dtype.size());
        let region = match buffer.region {
            Region::Stack => &mut self.stack,
            Region::Static(id) => self.statics.get_mut(&id).expect("a live static buffer"),
        };
        let released = || panic!("{buffer:?} is written after it was released");
        let cells = region.get_mut(start..start + len * size).unwrap_or_else(released);
        for (element, value) in cells.chunks_exact_mut(size).zip(values) {
            // What is inside of an element cannot be read as one of another type.
            element.fill(Cell::Unwritten);
            element[0] = value;
        }
    }

    fn cells(&self, buffer: Buffer) -> std::slice::Iter<'_, Cell> {
        let start = buffer.offset;
        let region = match buffer.region {
            Region::Stack => Some(&self.stack),
            Region::Static(id) => self.statics.get(&id),
        };
        let cells = region.and_then(|r| r.get(start..start + buffer.len * buffer.dtype.size()));
        cells.unwrap_or_else(|| panic!("{buffer:?} is read after it was released")).iter()
    }
}

fn is_integer(dtype: DType) -> bool {
    matches!(dtype, DType::U32 | DType::U8)
}

fn overlap(a: Buffer, b: Buffer) -> bool {
    let end = |buffer: Buffer| buffer.offset + buffer.len * buffer.dtype.size();
    a.region == b.region && a.offset < end(b) && b.offset < end(a)
}
