//! Products of a few rows, which need no panels.

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::few_rows_avx2::{self, FEW_ROWS, Part};
    use super::super::packed::Grouped;
    use super::super::{Form, Matrix};
    use crate::cpu::Isa;
    use crate::cpu::panel::{Format, PANEL};

    pub(in super::super) fn multiplies(
        matrix: &Matrix,
        isa: Isa,
        transposed: bool,
        rows: usize,
    ) -> bool {
        let has_avx2 = matches!(isa, Isa::Avx2 | Isa::Avx512);
        has_avx2
            && !transposed
            && rows <= FEW_ROWS
            && matrix.format == Format::Halves
            && grouped(matrix).is_some()
    }

    fn grouped(matrix: &Matrix) -> Option<Grouped<'_>> {
        match &matrix.form {
            Form::Packed(packed) => Grouped::new(packed, matrix.cols),
            Form::Panels(_) | Form::Lookup(_) => None,
        }
    }

    /// # Safety
    /// As [`Matrix::multiply_few`].
    pub(in super::super) unsafe fn multiply(
        matrix: &Matrix,
        panel: usize,
        (start, steps): (usize, usize),
        (x, count): (*const f32, usize),
        tile: *mut f32,
        load: bool,
    ) {
        let first = panel * PANEL;
        let rows = (first, PANEL.min(matrix.rows - first));
        let part = Part { rows, columns: (start, start + steps), x, count, tile, load };
        // SAFETY: the caller's duty; `multiplies` has looked for the instructions.
        unsafe {
            match grouped(matrix).expect("`multiplies` has said so") {
                Grouped::Q4(matrix) => few_rows_avx2::multiply(matrix, part),
                Grouped::Q4WithMinimum(matrix) => few_rows_avx2::multiply(matrix, part),
                Grouped::Q8(matrix) => few_rows_avx2::multiply(matrix, part),
                Grouped::FourBit(matrix) => few_rows_avx2::multiply(matrix, part),
                Grouped::EightBit(matrix) => few_rows_avx2::multiply(matrix, part),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::{multiplies, multiply};

#[cfg(not(target_arch = "x86_64"))]
mod nowhere {
    use super::super::Matrix;
    use crate::cpu::Isa;

    pub(in super::super) fn multiplies(_: &Matrix, _: Isa, _: bool, _: usize) -> bool {
        false
    }

    pub(in super::super) unsafe fn multiply(
        _: &Matrix,
        _: usize,
        _: (usize, usize),
        _: (*const f32, usize),
        _: *mut f32,
        _: bool,
    ) {
        unreachable!("`multiplies` says no");
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) use nowhere::{multiplies, multiply};
