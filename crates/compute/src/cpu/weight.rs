//! Resident matrices: panels of 32 rows, or the blocks of the file they came from.

use super::arena::Memory;
use super::gemm::{Format, Machine, PANEL, Pointers, RowsF32, panel_from_rows, transpose_panel};
use super::operand::{LANES, Operand as _};
use super::simd::{Kernel, Simd, dispatch};
use super::{Isa, Scratch};
use crate::dequant::dequantize;
use crate::{Error, Result, Storage, WeightSource};

/// Columns that are dequantised at a time: the longest block.
const CHUNK: usize = 256;

/// Numbers of scratch that unpacking takes.
pub(crate) const TEMPORARY: usize = PANEL * CHUNK;

/// A matrix `[rows, cols]` in memory, ready to be multiplied.
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    format: Format,
    form: Form,
}

enum Form {
    /// `[rows / 32][steps of cols][32]`, rows beyond the last are 0.
    Panels(Memory),
    /// Rows of blocks as in the file.
    Blocks(Storage, Memory),
}

impl Matrix {
    /// Takes a matrix from a file.
    pub(crate) fn load(machine: Machine<'_>, source: WeightSource<'_>) -> Result<Self> {
        let WeightSource { rows, cols, storage, bytes, row_order } = source;
        let row_bytes = storage.row_bytes(cols);
        let expected = row_bytes.map_or(0, |bytes| rows * bytes);
        if row_bytes.is_none() || expected != bytes.len() {
            let actual = bytes.len();
            return Err(Error::WeightBytes { storage, rows, cols, expected, actual });
        }
        let row_bytes = row_bytes.unwrap_or(0);
        let row = |row: usize| {
            let row = row_order.map_or(row, |order| order[row] as usize);
            &bytes[row * row_bytes..][..row_bytes]
        };
        let form = if storage.block_len() == 1 {
            let fill = |index: usize, first: usize, out: &mut [f32]| {
                let size = storage.block_bytes();
                widen(storage, &row(index)[first * size..][..out.len() * size], out);
            };
            Form::Panels(panels(machine, rows, cols, &fill))
        } else {
            let memory = Memory::new(expected);
            for index in 0..rows {
                // SAFETY: the memory holds `rows` rows, and nobody else has it yet.
                unsafe {
                    let out = memory.as_ptr().add(index * row_bytes);
                    out.copy_from_nonoverlapping(row(index).as_ptr(), row_bytes);
                }
            }
            Form::Blocks(storage, memory)
        };
        Ok(Matrix { rows, cols, format: machine.format, form })
    }

    /// Panels with these values, which [`refresh`](Matrix::refresh) can change.
    pub(crate) fn trained(machine: Machine<'_>, rows: usize, cols: usize, values: &[f32]) -> Self {
        let mut matrix = Matrix {
            rows,
            cols,
            format: machine.format,
            form: Form::Panels(Memory::new(panels_bytes(machine.format, rows, cols))),
        };
        matrix.refresh(machine, values);
        matrix
    }

    /// Takes new values, `[rows, cols]`.
    pub(crate) fn refresh(&mut self, machine: Machine<'_>, values: &[f32]) {
        assert_eq!(values.len(), self.rows * self.cols, "values of a matrix");
        let Form::Panels(memory) = &self.form else {
            unreachable!("a matrix of blocks is not trained");
        };
        let cols = self.cols;
        let fill = |row: usize, first: usize, out: &mut [f32]| {
            out.copy_from_slice(&values[row * cols + first..][..out.len()]);
        };
        fill_panels(machine, self.rows, cols, memory, &fill);
    }

    /// The panels as they lie in memory, where they need no unpacking.
    pub(crate) fn direct(&self, transposed: bool) -> Option<*const u8> {
        match &self.form {
            Form::Panels(memory) if !transposed => Some(memory.as_ptr()),
            _ => None,
        }
    }

    /// Panels that are best unpacked together.
    pub(crate) fn width(&self, transposed: bool) -> usize {
        match &self.form {
            Form::Blocks(storage, _) if transposed => storage.block_len() / PANEL,
            _ => 1,
        }
    }

    /// Writes some steps of neighbouring panels of the matrix (or of its transpose) to
    /// `out`, `[panels][steps][32]`. The first step is a multiple of 256, the first panel one of
    /// [`width`](Matrix::width).
    pub(crate) fn unpack(
        &self,
        isa: Isa,
        transposed: bool,
        panels: (usize, usize),
        steps: (usize, usize),
        out: &mut [f32],
        temporary: &mut [f32],
    ) {
        assert!(out.len() * 4 >= panels.1 * steps.1 * self.format.step_bytes(), "room for panels");
        let out = out.as_mut_ptr().cast();
        dispatch(isa, Unpack { matrix: self, transposed, panels, steps, out, temporary });
    }

    /// One row, rounded as products see it.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {}", self.rows);
        match &self.form {
            Form::Blocks(storage, memory) => {
                dequantize(*storage, block_row(*storage, memory, self.cols, row), out);
                if self.format != Format::Floats {
                    out.iter_mut().for_each(|x| *x = u16::store(*x).load());
                }
            }
            Form::Panels(memory) => {
                let (panel, lane) = (row / PANEL, row % PANEL);
                let steps = self.format.steps(self.cols);
                for (column, out) in out.iter_mut().enumerate() {
                    let step = panel * steps + column / self.format.step_len();
                    // SAFETY: row and column lie inside the panels.
                    *out = unsafe {
                        match self.format {
                            Format::Pairs => {
                                let pair = 2 * (step * PANEL + lane) + column % 2;
                                (*memory.as_ptr().cast::<u16>().add(pair)).load()
                            }
                            Format::Halves => {
                                (*memory.as_ptr().cast::<u16>().add(step * PANEL + lane)).load()
                            }
                            Format::Floats => {
                                *memory.as_ptr().cast::<f32>().add(step * PANEL + lane)
                            }
                        }
                    };
                }
            }
        }
    }
}

/// Numbers of a type without blocks as f32.
fn widen(storage: Storage, bytes: &[u8], out: &mut [f32]) {
    match storage {
        Storage::Bf16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = u16::from_le_bytes(*bytes).load();
            }
        }
        Storage::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        _ => dequantize(storage, bytes, out),
    }
}

fn panels_bytes(format: Format, rows: usize, cols: usize) -> usize {
    rows.div_ceil(PANEL) * format.steps(cols) * format.step_bytes()
}

/// Gives `out.len()` numbers of a row from a column on.
type Fill<'a> = dyn Fn(usize, usize, &mut [f32]) + Sync + 'a;

fn panels(machine: Machine<'_>, rows: usize, cols: usize, fill: &Fill<'_>) -> Memory {
    let memory = Memory::new(panels_bytes(machine.format, rows, cols));
    fill_panels(machine, rows, cols, &memory, fill);
    memory
}

/// Writes all panels. Whoever calls holds the matrix alone.
fn fill_panels(machine: Machine<'_>, rows: usize, cols: usize, memory: &Memory, fill: &Fill<'_>) {
    let Machine { pool, isa, format } = machine;
    let start = Pointers(memory.as_ptr());
    pool.run(rows.div_ceil(PANEL), &|panel, scratch: &mut Scratch| {
        let start = { &start }.0;
        let numbers = scratch.f32(TEMPORARY);
        let count = PANEL.min(rows - panel * PANEL);
        for first in (0..cols).step_by(CHUNK) {
            let chunk = CHUNK.min(cols - first);
            for row in 0..count {
                fill(panel * PANEL + row, first, &mut numbers[row * CHUNK..][..chunk]);
            }
            let step = panel * format.steps(cols) + first / format.step_len();
            let source = RowsF32 { start: numbers.as_ptr(), cols: chunk, stride: CHUNK };
            // Chunks are even, so a pair never crosses one.
            let out = start.wrapping_add(step * format.step_bytes());
            dispatch(isa, FillPanel { format, source, rows: count, out });
        }
    });
}

struct FillPanel {
    format: Format,
    source: RowsF32<false>,
    rows: usize,
    out: *mut u8,
}

impl Kernel for FillPanel {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // SAFETY: the rows were just written, and the steps lie inside the panel.
        unsafe { panel_from_rows(simd, self.format, self.source, self.rows, self.out) };
    }
}

/// The bytes of one row of blocks.
fn block_row(storage: Storage, memory: &Memory, cols: usize, row: usize) -> &[u8] {
    let row_bytes = cols / storage.block_len() * storage.block_bytes();
    assert!((row + 1) * row_bytes <= memory.bytes(), "row {row} of a matrix of blocks");
    // SAFETY: the row lies inside the memory, which was written when the matrix was loaded.
    unsafe { std::slice::from_raw_parts(memory.as_ptr().add(row * row_bytes), row_bytes) }
}

/// See [`Matrix::unpack`].
struct Unpack<'a> {
    matrix: &'a Matrix,
    transposed: bool,
    panels: (usize, usize),
    steps: (usize, usize),
    out: *mut u8,
    temporary: &'a mut [f32],
}

impl Kernel for Unpack<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let bytes = self.steps.1 * self.matrix.format.step_bytes();
        match &self.matrix.form {
            Form::Panels(memory) => {
                for panel in 0..self.panels.1 {
                    let out = self.out.wrapping_add(panel * bytes);
                    let first = self.panels.0 + panel;
                    if self.transposed {
                        self.transpose(simd, memory, first, out);
                    } else {
                        let format = self.matrix.format;
                        let step = first * format.steps(self.matrix.cols) + self.steps.0;
                        // SAFETY: the steps lie inside the panels and inside `out`.
                        unsafe {
                            let from = memory.as_ptr().add(step * format.step_bytes());
                            out.copy_from_nonoverlapping(from, bytes);
                        }
                    }
                }
            }
            Form::Blocks(storage, memory) if !self.transposed => {
                for panel in 0..self.panels.1 {
                    let out = self.out.wrapping_add(panel * bytes);
                    self.blocks(simd, *storage, memory, self.panels.0 + panel, out);
                }
            }
            Form::Blocks(storage, memory) => self.blocks_transposed(simd, *storage, memory),
        }
    }
}

impl Unpack<'_> {
    /// A panel of the transpose: columns of the matrix, a step along its rows.
    #[inline(always)]
    fn transpose<S: Simd>(&self, simd: S, memory: &Memory, panel: usize, out: *mut u8) {
        let Matrix { rows, cols, format, .. } = *self.matrix;
        let panel_bytes = format.steps(cols) * format.step_bytes();
        let columns = PANEL.min(cols - panel * PANEL);
        // Steps that one panel of the matrix gives.
        let each = PANEL / format.step_len();
        let mut done = 0;
        while done < self.steps.1 {
            let source = (self.steps.0 + done) / each;
            let count = each.min(self.steps.1 - done);
            debug_assert!(source * PANEL < rows, "the step belongs to a row");
            let step = panel * PANEL / format.step_len();
            // SAFETY: the panel exists and has `columns` columns from the step on.
            unsafe {
                let from = memory.as_ptr().add(source * panel_bytes + step * format.step_bytes());
                let out = out.add(done * format.step_bytes());
                transpose_panel(simd, format, from, columns, count, out);
            }
            done += count;
        }
    }

    /// A panel of rows of blocks.
    #[inline(always)]
    fn blocks<S: Simd>(
        &mut self,
        simd: S,
        storage: Storage,
        memory: &Memory,
        panel: usize,
        out: *mut u8,
    ) {
        let Matrix { rows, cols, format, .. } = *self.matrix;
        let count = PANEL.min(rows - panel * PANEL);
        let first = self.steps.0 * format.step_len();
        let last = (first + self.steps.1 * format.step_len()).min(cols);
        #[cfg(target_arch = "x86_64")]
        if format == Format::Pairs && super::gemm::pairs::unpacks(storage) {
            let row = |row: usize| block_row(storage, memory, cols, panel * PANEL + row);
            // SAFETY: pairs are the format of processors that have the instructions; `out`
            // has room for the steps.
            return unsafe {
                super::gemm::pairs::unpack(storage, row, count, (first, last), out.cast());
            };
        }
        for chunk in (first..last).step_by(CHUNK) {
            let len = CHUNK.min(last - chunk);
            for row in 0..count {
                let bytes = block_row(storage, memory, cols, panel * PANEL + row);
                let numbers = &mut self.temporary[row * CHUNK..][..len];
                dequantize(storage, part(storage, bytes, chunk, len), numbers);
            }
            let source = RowsF32 { start: self.temporary.as_ptr(), cols: len, stride: CHUNK };
            let step = (chunk - first) / format.step_len();
            // SAFETY: the rows were just written, and the steps lie inside `out`.
            unsafe {
                let out = out.add(step * format.step_bytes());
                panel_from_rows(simd, format, source, count, out);
            }
        }
    }

    /// Neighbouring panels of the transpose of rows of blocks.
    #[inline(always)]
    fn blocks_transposed<S: Simd>(&mut self, simd: S, storage: Storage, memory: &Memory) {
        let Matrix { rows, cols, format, .. } = *self.matrix;
        let (first, width) = (self.panels.0 * PANEL, self.panels.1 * PANEL);
        let bytes = self.steps.1 * format.step_bytes();
        for step in 0..self.steps.1 {
            let row = (self.steps.0 + step) * format.step_len();
            let count = format.step_len().min(rows - row);
            #[cfg(target_arch = "x86_64")]
            if format == Format::Pairs && super::gemm::pairs::unpacks(storage) {
                let low = part(storage, block_row(storage, memory, cols, row), first, width);
                let high = (count == 2).then(|| block_row(storage, memory, cols, row + 1));
                let high = high.map(|high| part(storage, high, first, width));
                for panel in 0..self.panels.1 {
                    let range = panel * storage.block_bytes()..(panel + 1) * storage.block_bytes();
                    let high = high.map(|high| &high[range.clone()]);
                    let at = panel * bytes + step * format.step_bytes();
                    // SAFETY: pairs are the format of processors that have the instructions;
                    // `out` has room for the step.
                    unsafe {
                        let out = self.out.add(at).cast();
                        super::gemm::pairs::unpack_transposed(storage, &low[range], high, out);
                    }
                }
                continue;
            }
            let (low, high) = self.temporary.split_at_mut(CHUNK);
            let (low, high) = (&mut low[..width], &mut high[..width]);
            for (row, numbers) in (row..row + count).zip([&mut *low, &mut *high]) {
                let bytes = block_row(storage, memory, cols, row);
                dequantize(storage, part(storage, bytes, first, width), numbers);
            }
            if count < format.step_len() {
                high.fill(0.0);
            }
            for panel in 0..self.panels.1 {
                let range = panel * PANEL..(panel + 1) * PANEL;
                let out = self.out.wrapping_add(panel * bytes + step * format.step_bytes());
                // SAFETY: `out` has room for the step.
                unsafe { write_step(simd, format, &low[range.clone()], &high[range], out) };
            }
        }
    }
}

/// The bytes of some columns of a row.
fn part(storage: Storage, row: &[u8], first: usize, len: usize) -> &[u8] {
    let block = storage.block_len();
    debug_assert!(first.is_multiple_of(block) && len.is_multiple_of(block), "whole blocks");
    &row[first / block * storage.block_bytes()..][..len / block * storage.block_bytes()]
}

/// One step of a panel from 32 numbers (and, for pairs, those of the next row).
#[inline(always)]
unsafe fn write_step<S: Simd>(simd: S, format: Format, low: &[f32], high: &[f32], out: *mut u8) {
    let (numbers, _) = low.as_chunks::<LANES>();
    // SAFETY: the caller's duty.
    unsafe {
        match format {
            Format::Pairs => {
                let out = &mut *out.cast::<[u32; PANEL]>();
                for (out, (&low, &high)) in out.iter_mut().zip(low.iter().zip(high)) {
                    *out = u32::from(u16::store(low)) | u32::from(u16::store(high)) << 16;
                }
            }
            Format::Halves => {
                let out = &mut *out.cast::<[[u16; LANES]; 2]>();
                u16::store16(simd, simd.load(&numbers[0]), &mut out[0]);
                u16::store16(simd, simd.load(&numbers[1]), &mut out[1]);
            }
            Format::Floats => {
                let out = &mut *out.cast::<[[f32; LANES]; 2]>();
                f32::store16(simd, simd.load(&numbers[0]), &mut out[0]);
                f32::store16(simd, simd.load(&numbers[1]), &mut out[1]);
            }
        }
    }
}
