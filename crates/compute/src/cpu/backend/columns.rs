//! Buffers to slices and pointers for the operations on columns and rows.

use super::{Cpu, Element, matrix};
use crate::cpu::columns::{Scaling, Summands, column_sums, scale_columns, scatter_add};
use crate::cpu::dora::{Norms, dora_factors};
use crate::cpu::operand::Operand;
use crate::{Buffer, DType, Weight, op};

impl Cpu {
    pub(super) fn scatter_add(&self, op: &op::ScatterAdd) {
        let (pool, isa, at) = (&self.pool, self.isa, &self.places);
        let (x, index, out) = (at.input(op.x), at.input(op.index), at.output(op.out));
        scatter_add(pool, isa, op.cols, x, index, op.scale, out);
    }

    pub(super) fn column_sums<T: Operand + Element>(&self, op: &op::ColumnSums) {
        let b = op.b.map_or(DType::F32, |b| b.dtype);
        match (op.a.dtype, b) {
            (DType::F32, DType::F32) => self.column_sums_of::<f32, f32>(op),
            (DType::F32, _) => self.column_sums_of::<f32, T>(op),
            (_, DType::F32) => self.column_sums_of::<T, f32>(op),
            _ => self.column_sums_of::<T, T>(op),
        }
    }

    fn column_sums_of<A: Operand + Element, B: Operand + Element>(&self, op: &op::ColumnSums) {
        let (pool, isa, at) = (&self.pool, self.isa, &self.places);
        let groups: &[u32] = at.input(op.groups);
        assert!(groups.is_sorted() && groups.first() == Some(&0), "column_sums: groups ascend");
        let rows = groups.last().map_or(0, |&rows| rows as usize) * op.rows_each;
        assert_eq!(op.a.len, rows * op.cols, "column_sums: a is [{rows}, {}]", op.cols);
        let summands: Summands<'_, A, B> = Summands {
            cols: op.cols,
            a: at.input(op.a),
            b: op.b.map_or(&[], |b| at.input(b)),
            row_scale: op.row_scale.map_or(&[], |row_scale| at.input(row_scale)),
            divisor: op.divisor.map_or(&[], |divisor| at.input(divisor)),
        };
        column_sums(pool, isa, summands, at.output(op.gradient));
    }

    pub(super) fn scale_columns<T: Operand + Element>(&self, op: &op::ScaleColumns) {
        match (op.x.dtype, op.out.dtype) {
            (DType::F32, DType::F32) => self.scale_columns_of::<f32, f32>(op),
            (DType::F32, _) => self.scale_columns_of::<f32, T>(op),
            (_, DType::F32) => self.scale_columns_of::<T, f32>(op),
            _ => self.scale_columns_of::<T, T>(op),
        }
    }

    fn scale_columns_of<X: Operand + Element, O: Operand + Element>(&self, op: &op::ScaleColumns) {
        let (pool, isa, at) = (&self.pool, self.isa, &self.places);
        let len = op.out.len;
        let fits = op.x.len == len && op.base.is_none_or(|base| base.len == len);
        let fits = fits && op.factors.len == op.cols && len.is_multiple_of(op.cols);
        assert!(fits, "scale_columns: {len} numbers in rows of {}", op.cols);
        let scaling = Scaling {
            factors: at.input(op.factors),
            bias: op.bias.map_or(&[], |bias| at.input(bias)),
            scale: op.scale,
        };
        let x = at.typed::<X>(op.x).cast_const();
        let base = op.base.map_or(std::ptr::null(), |base| at.typed::<f32>(base).cast_const());
        // SAFETY: types and lengths were checked; what overlaps is the same (`Op`).
        unsafe {
            scale_columns::<X, O>(pool, isa, len / op.cols, scaling, (x, base), at.typed(op.out));
        }
    }

    pub(super) fn dora_factors(&self, op: &op::DoraFactors) {
        let (pool, isa, at) = (&self.pool, self.isa, &self.places);
        assert_eq!(op.squares.len, op.outputs, "dora_factors: squares are [N]");
        let [squares, product, gram, b, magnitude] =
            [op.squares, op.product, op.gram, op.b, op.magnitude].map(|buffer| at.input(buffer));
        let parts = Norms { rank: op.rank, squares, product, gram, b, scaling: op.scaling };
        dora_factors(pool, isa, parts, magnitude, at.output(op.factors), at.output(op.norms));
    }

    pub(super) fn row_squares(&self, weight: Weight, out: Buffer) {
        let matrix = matrix(&self.weights, weight);
        matrix.row_squares(&self.pool, self.isa, self.places.output(out));
    }

    pub(super) fn write_rows(&mut self, weight: Weight, index: Buffer, values: Buffer) {
        let loaded = self.weights[weight.id as usize].as_mut();
        let matrix = &mut loaded.expect("a weight is used before it is unloaded").matrix;
        matrix.write_rows(&self.pool, self.places.input(index), self.places.input(values));
    }
}
