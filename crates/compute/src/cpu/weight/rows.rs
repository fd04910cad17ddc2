//! Rows of a resident matrix: their sizes, and new values for some of them.

use super::{CHUNK, Form, Matrix, TEMPORARY};
use crate::cpu::operand::{LANES, Operand as _, Shared};
use crate::cpu::panel::{Format, PANEL};
use crate::cpu::pool::Pointers;
use crate::cpu::{Isa, Pool, versions};

impl Matrix {
    /// The sum of squares of every row, as products see it.
    pub(crate) fn row_squares(&self, pool: &Pool, isa: Isa, out: &mut [f32]) {
        assert_eq!(out.len(), self.rows, "row_squares: out is [N]");
        let (rows, steps) = (self.rows, self.format.steps(self.cols));
        let out = Shared::new(out);
        pool.run(rows.div_ceil(PANEL), &|panel, scratch| {
            let words = CHUNK * self.format.step_bytes() / 4;
            let [numbers, temporary] = scratch.split([words, TEMPORARY]);
            let mut totals = [0.0; PANEL];
            for start in (0..steps).step_by(CHUNK) {
                let count = CHUNK.min(steps - start);
                let numbers = &mut numbers[..count * self.format.step_bytes() / 4];
                self.unpack(isa, false, (panel, 1), (start, count), numbers, temporary);
                add_squares(isa, self.format, numbers, &mut totals);
            }
            // SAFETY: every task has a panel of its own.
            let out = unsafe { out.part(panel * PANEL..rows.min((panel + 1) * PANEL)) };
            out.iter_mut().zip(totals).for_each(|(out, total)| *out = total as f32);
        });
    }

    /// Sets some rows, which are distinct, to new values.
    pub(crate) fn write_rows(&mut self, pool: &Pool, index: &[u32], values: &[f32]) {
        let Matrix { rows, cols, format, .. } = *self;
        assert_eq!(values.len(), index.len() * cols, "write_rows: values are [rows, K]");
        let Form::Panels(memory) = &self.form else {
            unreachable!("only rows of operands are written");
        };
        let start = Pointers(memory.as_ptr());
        pool.run(index.len(), &|task, _| {
            let (start, row) = ({ &start }.0, index[task] as usize);
            assert!(row < rows, "write_rows: row {row} of {rows}");
            let (panel, lane) = (row / PANEL * format.steps(cols), row % PANEL);
            for (column, &value) in values[task * cols..][..cols].iter().enumerate() {
                let step = panel + column / format.step_len();
                // SAFETY: row and column lie inside the panels, and every task has a row of its own.
                unsafe {
                    match format {
                        Format::Pairs | Format::Tiles => {
                            let half = 2 * (step * PANEL + lane) + column % 2;
                            *start.cast::<u16>().add(half) = u16::store(value);
                        }
                        Format::Halves => {
                            *start.cast::<u16>().add(step * PANEL + lane) = u16::store(value);
                        }
                        Format::Floats => *start.cast::<f32>().add(step * PANEL + lane) = value,
                    }
                }
            }
        });
    }
}

versions! {
    fn add_squares(format: Format, panel: &[f32], totals: &mut [f64; PANEL]) = add_squares_body;
}

/// Adds the squares of a panel's steps to those of its rows: one chain a row in f32, then in f64.
#[inline(always)]
fn add_squares_body(format: Format, panel: &[f32], totals: &mut [f64; PANEL]) {
    let low = |word: f32| f32::from_bits(word.to_bits() << 16);
    let high = |word: f32| f32::from_bits(word.to_bits() & 0xFFFF_0000);
    let mut sums = [0.0_f32; PANEL];
    match format {
        Format::Pairs | Format::Tiles => {
            for step in panel.as_chunks::<PANEL>().0 {
                for (sum, &word) in sums.iter_mut().zip(step) {
                    *sum += low(word) * low(word) + high(word) * high(word);
                }
            }
        }
        Format::Halves => {
            for step in panel.as_chunks::<LANES>().0 {
                for (sums, &word) in sums.as_chunks_mut::<2>().0.iter_mut().zip(step) {
                    sums[0] += low(word) * low(word);
                    sums[1] += high(word) * high(word);
                }
            }
        }
        Format::Floats => {
            for step in panel.as_chunks::<PANEL>().0 {
                sums.iter_mut().zip(step).for_each(|(sum, x)| *sum += x * x);
            }
        }
    }
    totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += f64::from(sum));
}
