//! Quantising on all threads. The numbers are those of [`Quantized::new`].

use crate::cpu::Scratch;
use crate::cpu::operand::Shared;
use crate::cpu::panel::Machine;
use crate::cpu::simd::{Kernel, Simd, dispatch};
use crate::quantize::{
    BLOCK_LEN, BlockAbsmax, DYNAMIC, EightBit, FourBit, NESTED_LEN, NF4, Quantized, RUN,
    check_finite, int8_row, mean, nested_block, nf4_blocks,
};
use crate::{Quantization, Result, WeightSource};

/// Magnitudes that one task quantises: whole nested blocks.
const MAGNITUDES: usize = 16 * NESTED_LEN;

/// Quantises a matrix; see [`Quantized::new`].
pub(crate) fn quantize(
    machine: Machine<'_>,
    source: WeightSource<'_>,
    quantization: Quantization,
) -> Result<Quantized> {
    source.check()?;
    Ok(match quantization {
        Quantization::Nf4 => Quantized::FourBit(nf4(machine, source)?),
        Quantization::Int8 => Quantized::EightBit(int8(machine, source)?),
    })
}

fn nf4(machine: Machine<'_>, source: WeightSource<'_>) -> Result<FourBit> {
    let (rows, cols, len) = (source.rows, source.cols, source.rows * source.cols);
    let mut codes = vec![0; len.div_ceil(2)];
    let mut absmax = vec![0.0; len.div_ceil(BLOCK_LEN)];
    let (out, magnitudes) = (Shared::new(&mut codes), Shared::new(&mut absmax));
    machine.pool.run(len.div_ceil(RUN), &|task, scratch: &mut Scratch| {
        let (first, last) = (task * RUN, len.min((task + 1) * RUN));
        let numbers = scratch.f32(last - first);
        source.read(first, numbers);
        // SAFETY: runs are whole blocks, so every task has codes and magnitudes of its own.
        let (codes, absmax) = unsafe {
            let blocks = first / BLOCK_LEN..last.div_ceil(BLOCK_LEN);
            (out.part(first / 2..last.div_ceil(2)), magnitudes.part(blocks))
        };
        dispatch(machine.isa, Nf4Run { numbers, codes, absmax });
    });
    check_finite(&absmax, |block| block * BLOCK_LEN / cols, rows, cols)?;
    let absmax = nest(machine, &absmax);
    Ok(FourBit { codes, map: NF4, block_len: BLOCK_LEN, absmax })
}

struct Nf4Run<'a> {
    numbers: &'a [f32],
    codes: &'a mut [u8],
    absmax: &'a mut [f32],
}

impl Kernel for Nf4Run<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        nf4_blocks(self.numbers, self.codes, self.absmax);
    }
}

fn nest(machine: Machine<'_>, absmax: &[f32]) -> BlockAbsmax {
    let offset = mean(absmax);
    let mut codes = vec![0; absmax.len()];
    let mut nested = vec![0.0; absmax.len().div_ceil(NESTED_LEN)];
    let (out, magnitudes) = (Shared::new(&mut codes), Shared::new(&mut nested));
    machine.pool.run(absmax.len().div_ceil(MAGNITUDES), &|task, _| {
        let (first, last) = (task * MAGNITUDES, absmax.len().min((task + 1) * MAGNITUDES));
        // SAFETY: tasks are whole nested blocks, so each has codes and magnitudes of its own.
        let (codes, nested) = unsafe {
            let blocks = first / NESTED_LEN..last.div_ceil(NESTED_LEN);
            (out.part(first..last), magnitudes.part(blocks))
        };
        let blocks = absmax[first..last].chunks(NESTED_LEN).zip(codes.chunks_mut(NESTED_LEN));
        for (nested, (absmax, codes)) in nested.iter_mut().zip(blocks) {
            *nested = nested_block(absmax, offset, codes);
        }
    });
    let (map, block_len) = (DYNAMIC.to_vec(), NESTED_LEN);
    BlockAbsmax::Nested { codes, map, block_len, absmax: nested, offset }
}

fn int8(machine: Machine<'_>, source: WeightSource<'_>) -> Result<EightBit> {
    let (rows, cols) = (source.rows, source.cols);
    let mut codes = vec![0; rows * cols];
    let mut absmax = vec![0.0; rows];
    let (out, magnitudes) = (Shared::new(&mut codes), Shared::new(&mut absmax));
    machine.pool.run(rows, &|row, scratch: &mut Scratch| {
        let numbers = scratch.f32(cols);
        source.read(row * cols, numbers);
        // SAFETY: every task has a row of its own.
        let (codes, absmax) =
            unsafe { (out.part(row * cols..(row + 1) * cols), magnitudes.part(row..row + 1)) };
        dispatch(machine.isa, Int8Row { numbers, codes, absmax: &mut absmax[0] });
    });
    check_finite(&absmax, |row| row, rows, cols)?;
    Ok(EightBit { codes, absmax })
}

struct Int8Row<'a> {
    numbers: &'a [f32],
    codes: &'a mut [i8],
    absmax: &'a mut f32,
}

impl Kernel for Int8Row<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        *self.absmax = int8_row(self.numbers, self.codes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Storage;
    use crate::cpu::panel::Format;
    use crate::cpu::testing::normal;
    use crate::cpu::{Isa, Pool};

    #[test]
    fn threads_and_instructions_change_nothing() {
        #[track_caller]
        fn check(rows: usize, cols: usize) {
            let values = normal(7, rows * cols);
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let storage = Storage::F32;
            let source = WeightSource { rows, cols, storage, bytes: &bytes, row_order: None };
            let pool = Pool::new(3);
            for to in [Quantization::Nf4, Quantization::Int8] {
                let expected = Quantized::new(source, to).unwrap();
                for isa in Isa::available() {
                    let machine = Machine { pool: &pool, isa, format: Format::Floats };
                    let actual = quantize(machine, source, to).unwrap();
                    assert!(actual == expected, "{rows} x {cols}, {to:?}, {isa:?}");
                }
            }
        }
        check(3, 43);
        check(130, 250);
        // More than one run, and more than one task of magnitudes.
        check(400, 700);
    }
}
