//! Linear layers and the gradient of trained matrices.

use super::memory::Memory;
use crate::op::{Linear, Term, WeightGradient};

pub(super) fn forward(memory: &mut Memory, op: &Linear<'_>) {
    op.assert_terms();
    let len = op.out.len;
    let mut out = match op.base {
        Some(base) if base == op.out => memory.present(base, len),
        Some(base) => memory.numbers(base, len),
        None => vec![0.0; len],
    };
    let mut sum = vec![0.0; len];
    for term in op.terms {
        add_product(memory, op.rows, term, &mut sum);
    }
    if let Some(bias) = op.bias {
        let Term { weight, transposed, .. } = op.terms[0];
        let n = if transposed { weight.cols } else { weight.rows };
        let bias = memory.numbers(bias, n);
        let rows = sum.chunks_exact_mut(n);
        rows.for_each(|row| row.iter_mut().zip(&bias).for_each(|(sum, bias)| *sum += bias));
    }
    for (out, sum) in out.iter_mut().zip(sum) {
        *out += f64::from(op.scale) * sum;
    }
    memory.write(op.out, &out);
}

/// `sum += input * weight^T`, or `input * weight` when transposed.
fn add_product(memory: &mut Memory, rows: usize, term: &Term, sum: &mut [f64]) {
    let weight = term.weight;
    let (k, n) = match term.transposed {
        true => (weight.rows, weight.cols),
        false => (weight.cols, weight.rows),
    };
    assert_eq!(sum.len(), rows * n, "output of a linear op of {rows} rows by {weight:?}");
    let input = memory.numbers(term.input, rows * k);
    let weight = memory.factor(weight);
    for (input, sum) in input.chunks_exact(k).zip(sum.chunks_exact_mut(n)) {
        if term.transposed {
            for (k, input) in input.iter().enumerate() {
                sum.iter_mut().zip(weight.row(k)).for_each(|(sum, w)| *sum += input * w);
            }
        } else {
            for (n, sum) in sum.iter_mut().enumerate() {
                *sum += input.iter().zip(weight.row(n)).map(|(x, w)| x * w).sum::<f64>();
            }
        }
    }
}

pub(super) fn weight_gradient(memory: &mut Memory, op: &WeightGradient) {
    let rows = op.dy.len / op.n;
    let groups = memory.integers(op.groups, op.groups.len);
    assert!(groups.is_sorted() && groups.first() == Some(&0), "groups {groups:?} of rows");
    assert_eq!(groups.last(), Some(&(rows as u32)), "groups end with the {rows} rows");
    let dy = memory.numbers(op.dy, rows * op.n);
    let x = memory.numbers(op.x, rows * op.k);
    let mut gradient = memory.present(op.gradient, op.n * op.k);
    for (dy, x) in dy.chunks_exact(op.n).zip(x.chunks_exact(op.k)) {
        for (dy, gradient) in dy.iter().zip(gradient.chunks_exact_mut(op.k)) {
            gradient.iter_mut().zip(x).for_each(|(gradient, x)| *gradient += dy * x);
        }
    }
    memory.write(op.gradient, &gradient);
}
