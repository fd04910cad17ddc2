//! Resident matrices: panels of 32 rows of operands, or what becomes such panels when it is multiplied.

#[cfg(target_arch = "x86_64")]
mod bf16_avx2;
#[cfg(target_arch = "x86_64")]
mod bf16_avx512;
mod few_rows;
#[cfg(target_arch = "x86_64")]
mod few_rows_avx2;
mod packed;
mod quantize;
#[cfg(target_arch = "x86_64")]
mod quantized_blocks;
mod rows;
mod unpack;
#[cfg(target_arch = "x86_64")]
mod unpack_avx2;
#[cfg(target_arch = "x86_64")]
mod unpack_avx512;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::arena::Memory;
use super::operand::Operand as _;
use super::panel::{Format, Machine, PANEL, RowsF32, panel_from_rows};
use super::pool::Pointers;
use super::simd::{Kernel, Simd, dispatch};
use super::{Isa, Scratch};
use crate::dequant::dequantize;
use crate::quantize::Quantized;
use crate::{
    Error, LookupSource, Quantization, QuantizedSource, Result, Storage, WeightSource, all_finite,
};
use packed::Packed;
pub(crate) use packed::{EIGHT_BIT_WIDTH, FOUR_BIT_WIDTH};
pub(crate) use quantize::quantize;
use unpack::Unpack;

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
    /// Rows of blocks or codes.
    Packed(Packed),
    /// Rows left where they lie, of which some are read.
    Lookup(LookupSource),
}

impl Matrix {
    /// Takes a matrix from a file. One that holds NaN or an infinity is an error.
    pub(crate) fn load(machine: Machine<'_>, source: WeightSource<'_>) -> Result<Self> {
        source.check()?;
        let WeightSource { rows, cols, storage, .. } = source;
        let broken = FirstBroken::default();
        let form = if storage.block_len() == 1 {
            let fill = |index: usize, first: usize, out: &mut [f32]| {
                let size = storage.block_bytes();
                widen(storage, &source.row(index)[first * size..][..out.len() * size], out);
                // The numbers were just written, so they are still in the cache.
                if !all_finite(out) {
                    broken.note(index);
                }
            };
            Form::Panels(panels(machine, rows, cols, &fill))
        } else {
            Form::Packed(Packed::blocks(machine, source, &broken))
        };
        broken.check(rows, cols)?;
        Ok(Matrix { rows, cols, format: machine.format, form })
    }

    /// Takes a matrix from a file and quantises it.
    pub(crate) fn load_as(
        machine: Machine<'_>,
        source: WeightSource<'_>,
        quantization: Quantization,
    ) -> Result<Self> {
        let (rows, cols) = (source.rows, source.cols);
        let matrix = quantize::quantize(machine, source, quantization)?;
        let form = Form::Packed(Packed::Quantized(matrix));
        Ok(Matrix { rows, cols, format: machine.format, form })
    }

    /// Takes a matrix that is quantised already.
    pub(crate) fn load_quantized(format: Format, source: QuantizedSource<'_>) -> Result<Self> {
        let QuantizedSource { rows, cols, values } = source;
        let form = Form::Packed(Packed::Quantized(Quantized::copy(rows, cols, values)?));
        Ok(Matrix { rows, cols, format, form })
    }

    /// Keeps a matrix where it lies.
    pub(crate) fn load_lookup(format: Format, source: LookupSource) -> Result<Self> {
        source.check()?;
        let (rows, cols) = (source.rows, source.cols);
        Ok(Matrix { rows, cols, format, form: Form::Lookup(source) })
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
            unreachable!("only a matrix of panels is trained");
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
            Form::Panels(_) | Form::Packed(_) => None,
            Form::Lookup(_) => not_multiplied(),
        }
    }

    /// Panels that are best unpacked together.
    pub(crate) fn width(&self, transposed: bool) -> usize {
        match &self.form {
            Form::Packed(packed) if transposed => packed.width(),
            Form::Panels(_) | Form::Packed(_) => 1,
            Form::Lookup(_) => not_multiplied(),
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
        dispatch(isa, Unpack { isa, matrix: self, transposed, panels, steps, out, temporary });
    }

    /// Whether [`multiply_few`](Matrix::multiply_few) takes so many rows, which is then faster than to unpack
    /// panels.
    pub(crate) fn multiplies_few(&self, isa: Isa, transposed: bool, rows: usize) -> bool {
        few_rows::multiplies(self, isa, transposed, rows)
    }

    /// Adds the products of a few rows with some steps of a panel: `x` is `[steps][count]` from the first step
    /// on, `tile` is `[count][32]` and goes on from what it holds where `load` says so.
    ///
    /// # Safety
    /// [`multiplies_few`](Matrix::multiplies_few) said yes for this many rows, and pointers are valid for them.
    pub(crate) unsafe fn multiply_few(
        &self,
        panel: usize,
        steps: (usize, usize),
        (x, count): (*const f32, usize),
        tile: *mut f32,
        load: bool,
    ) {
        // SAFETY: the caller's duty.
        unsafe { few_rows::multiply(self, panel, steps, (x, count), tile, load) };
    }

    /// One row, rounded as products see it.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {}", self.rows);
        match &self.form {
            Form::Packed(packed) => {
                packed.read(self.cols, row, 0, out);
                self.round(out);
            }
            Form::Lookup(source) => {
                source.read_row(row, out);
                self.round(out);
            }
            Form::Panels(memory) => {
                let (panel, lane) = (row / PANEL, row % PANEL);
                let steps = self.format.steps(self.cols);
                for (column, out) in out.iter_mut().enumerate() {
                    let step = panel * steps + column / self.format.step_len();
                    // SAFETY: row and column lie inside the panels.
                    *out = unsafe {
                        match self.format {
                            Format::Pairs | Format::Tiles => {
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

    /// To what products see.
    fn round(&self, numbers: &mut [f32]) {
        if self.format != Format::Floats {
            numbers.iter_mut().for_each(|x| *x = u16::store(*x).load());
        }
    }
}

/// The first row in which a task found NaN or an infinity.
struct FirstBroken(AtomicUsize);

impl Default for FirstBroken {
    fn default() -> Self {
        FirstBroken(AtomicUsize::new(usize::MAX))
    }
}

impl FirstBroken {
    fn note(&self, row: usize) {
        self.0.fetch_min(row, Ordering::Relaxed);
    }

    /// Once all tasks are done.
    fn check(self, rows: usize, cols: usize) -> Result<()> {
        match self.0.into_inner() {
            usize::MAX => Ok(()),
            row => Err(Error::NotFinite { row, rows, cols }),
        }
    }
}

/// What is only looked up has no panels: `Op::Embed` alone takes it.
fn not_multiplied() -> ! {
    panic!("a matrix of `load_lookup` is multiplied; it can only be embedded")
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
