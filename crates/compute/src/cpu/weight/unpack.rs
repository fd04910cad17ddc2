//! Panels from every form that a matrix may have.

#[cfg(target_arch = "x86_64")]
use super::packed::Grouped;
use super::packed::Packed;
#[cfg(target_arch = "x86_64")]
use super::quantized_blocks::Groups;
use super::{CHUNK, Form, Matrix, not_multiplied};
#[cfg(target_arch = "x86_64")]
use super::{unpack_avx2, unpack_avx512};
use crate::cpu::Isa;
use crate::cpu::arena::Memory;
use crate::cpu::operand::{LANES, Operand};
use crate::cpu::panel::{Format, OperandRows, PANEL, RowsF32, panel_from_rows, transpose_words};
use crate::cpu::simd::{Kernel, Simd};

/// See [`Matrix::unpack`].
pub(super) struct Unpack<'a> {
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "what it would choose is x86-64")
    )]
    pub(super) isa: Isa,
    pub(super) matrix: &'a Matrix,
    pub(super) transposed: bool,
    pub(super) panels: (usize, usize),
    pub(super) steps: (usize, usize),
    pub(super) out: *mut u8,
    pub(super) temporary: &'a mut [f32],
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
            Form::Packed(matrix) => {
                #[cfg(target_arch = "x86_64")]
                if self.has_groups()
                    && let Some(grouped) = Grouped::new(matrix, self.matrix.cols)
                {
                    return match grouped {
                        Grouped::Q4(matrix) => self.groups(matrix),
                        Grouped::Q4WithMinimum(matrix) => self.groups(matrix),
                        Grouped::Q8(matrix) => self.groups(matrix),
                        Grouped::FourBit(matrix) => self.groups(matrix),
                        Grouped::EightBit(matrix) => self.groups(matrix),
                    };
                }
                if self.transposed {
                    return self.rows_transposed(simd, matrix);
                }
                for panel in 0..self.panels.1 {
                    let out = self.out.wrapping_add(panel * bytes);
                    self.rows(simd, matrix, self.panels.0 + panel, out);
                }
            }
            Form::Lookup(_) => not_multiplied(),
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

    /// Whether there are instructions that unpack 32 numbers to bf16 at a time.
    #[cfg(target_arch = "x86_64")]
    fn has_groups(&self) -> bool {
        let has_avx2 = !matches!(self.isa, Isa::Portable | Isa::Neon);
        has_avx2 && self.matrix.format != Format::Floats
    }

    /// All panels, 32 numbers at a time.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn groups(&self, matrix: impl Groups) {
        let Matrix { rows, cols, format, .. } = *self.matrix;
        let (bytes, pairs) = (self.steps.1 * format.step_bytes(), format.has_pairs());
        let first = self.steps.0 * format.step_len();
        let last = (first + self.steps.1 * format.step_len()).min(cols);
        if !self.transposed {
            for panel in 0..self.panels.1 {
                let out = self.out.wrapping_add(panel * bytes);
                let index = self.panels.0 + panel;
                let rows = (index * PANEL, PANEL.min(rows - index * PANEL));
                // SAFETY: `has_groups` has looked for the instructions, and pairs are the format of
                // processors that have those for them; `out` has room for the steps.
                unsafe {
                    match pairs {
                        true => unpack_avx512::unpack(matrix, rows, (first, last), out.cast()),
                        false => unpack_avx2::unpack(matrix, rows, (first, last), out.cast()),
                    }
                }
            }
            return;
        }
        for step in 0..self.steps.1 {
            let row = first + step * format.step_len();
            for panel in 0..self.panels.1 {
                let out = self.out.wrapping_add(panel * bytes + step * format.step_bytes());
                // A panel of the transpose is a group wide.
                let group = self.panels.0 + panel;
                // SAFETY: as above.
                unsafe {
                    match pairs {
                        true => {
                            let rows = (row, 2.min(rows - row));
                            unpack_avx512::unpack_transposed(matrix, rows, group, out.cast());
                        }
                        false => unpack_avx2::unpack_transposed(matrix, row, group, out.cast()),
                    }
                }
            }
        }
    }

    /// A panel of rows.
    #[inline(always)]
    fn rows<S: Simd>(&mut self, simd: S, matrix: &Packed, panel: usize, out: *mut u8) {
        let Matrix { rows, cols, format, .. } = *self.matrix;
        let count = PANEL.min(rows - panel * PANEL);
        let first = self.steps.0 * format.step_len();
        let last = (first + self.steps.1 * format.step_len()).min(cols);
        for chunk in (first..last).step_by(CHUNK) {
            let len = CHUNK.min(last - chunk);
            for row in 0..count {
                let numbers = &mut self.temporary[row * CHUNK..][..len];
                matrix.read(cols, panel * PANEL + row, chunk, numbers);
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

    /// Neighbouring panels of the transpose of rows.
    #[inline(always)]
    fn rows_transposed<S: Simd>(&mut self, simd: S, matrix: &Packed) {
        let Matrix { rows, cols, format, .. } = *self.matrix;
        let (first, width) = (self.panels.0 * PANEL, self.panels.1 * PANEL);
        let bytes = self.steps.1 * format.step_bytes();
        // The last panel may be wider than what is left of the rows.
        let present = width.min(cols - first);
        let (low, high) = self.temporary.split_at_mut(CHUNK);
        let (low, high) = (&mut low[..width], &mut high[..width]);
        low[present..].fill(0.0);
        high[present..].fill(0.0);
        for step in 0..self.steps.1 {
            let row = (self.steps.0 + step) * format.step_len();
            let count = format.step_len().min(rows - row);
            for (row, numbers) in (row..row + count).zip([&mut *low, &mut *high]) {
                matrix.read(cols, row, first, &mut numbers[..present]);
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

/// One step of a panel from 32 numbers (and, for pairs, those of the next row).
#[inline(always)]
unsafe fn write_step<S: Simd>(simd: S, format: Format, low: &[f32], high: &[f32], out: *mut u8) {
    let (numbers, _) = low.as_chunks::<LANES>();
    // SAFETY: the caller's duty.
    unsafe {
        match format {
            Format::Pairs | Format::Tiles => {
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

/// Steps of a panel of the transpose from one panel of a matrix: `columns` of it (from where
/// `source` points), `steps` along its rows.
///
/// # Safety
/// The columns exist in the panel; `out` has room for the steps.
#[inline(always)]
unsafe fn transpose_panel<S: Simd>(
    simd: S,
    format: Format,
    source: *const u8,
    columns: usize,
    steps: usize,
    out: *mut u8,
) {
    // SAFETY: the caller's duty; stores of 16 at a stride of 32 never reach beyond the steps.
    unsafe {
        match format {
            #[cfg(target_arch = "x86_64")]
            Format::Pairs | Format::Tiles => {
                unpack_avx512::transpose(source.cast(), columns, steps, out.cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            Format::Pairs | Format::Tiles => unreachable!("only x86-64 has products of pairs"),
            Format::Halves => {
                transpose_halves::<S, u16>(simd, source.cast(), columns, steps, out.cast());
            }
            Format::Floats => {
                transpose_halves::<S, f32>(simd, source.cast(), columns, steps, out.cast());
            }
        }
    }
}

#[inline(always)]
unsafe fn transpose_halves<S: Simd, E: Operand>(
    simd: S,
    source: *const E,
    columns: usize,
    steps: usize,
    out: *mut E,
) {
    let source = OperandRows { start: source, cols: PANEL };
    for first in [0, LANES] {
        let range = (first, columns.saturating_sub(first).min(LANES));
        // SAFETY: the caller's duty.
        unsafe {
            let end = steps * PANEL - first;
            transpose_words(simd, source, range, steps, out.add(first), PANEL, end);
        }
    }
}
