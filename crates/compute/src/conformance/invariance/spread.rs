//! Sums of a step, whose groups of rows may be spread over calls.

use std::ops::Range;

use crate::conformance::batch::{BATCH, Part, parts};
use crate::conformance::{Row, Trial};
use crate::op::{
    ColumnSums, Head, HeadGradients, HeadOutputs, HeadWeightGradient, ScaleColumns, ScatterAdd,
    WeightGradient,
};
use crate::{Buffer, DType, Op, Storage};

pub(super) fn add(rows: &mut Vec<Row>) {
    rows.push(Row::new("weight_gradient", weight_gradient));
    rows.push(Row::new("weight_gradient shared by entries", shared_gradient));
    rows.push(Row::new("column_sums", column_sums));
    rows.push(Row::new("scatter_add", scatter_add));
    rows.push(Row::new("scale_columns", scale_columns));
    rows.push(Row::new("gradient of the head by its weight", head_weight));
}

/// Groups of the step.
const BOUNDS: [u32; 7] = [0, 3, 8, 9, 9, 20, 33];
const ROWS: usize = 33;

/// Rows of one call, and its groups.
struct Call {
    rows: Range<usize>,
    groups: Buffer,
}

impl Call {
    /// The call's rows of a matrix of the step.
    fn of(&self, matrix: Buffer) -> Buffer {
        let cols = matrix.len / ROWS;
        matrix.slice(self.rows.start * cols, self.rows.len() * cols)
    }
}

/// One call over all groups, and calls that end where a group does: keeps the sums as pairs, and
/// returns those of the one call.
fn spread(t: &mut Trial<'_>, len: usize, add: impl Fn(&mut Trial<'_>, &Call, Buffer)) -> Buffer {
    let start = t.random(len);
    let mut sum_of = |splits: &[usize]| {
        let sum = t.upload(&start, DType::F32);
        for split in splits.windows(2) {
            let bounds = &BOUNDS[split[0]..=split[1]];
            let groups: Vec<u32> = bounds.iter().map(|bound| bound - bounds[0]).collect();
            let rows = bounds[0] as usize..bounds[bounds.len() - 1] as usize;
            let call = Call { rows, groups: t.integers(&groups) };
            add(t, &call, sum);
        }
        sum
    };
    let whole = sum_of(&[0, 6]);
    let others = [vec![0, 1, 6], vec![0, 2, 3, 6], vec![0, 1, 2, 3, 4, 5, 6]];
    let others = others.map(|splits| (sum_of(&splits), splits));
    for (split, splits) in others {
        t.keep("sum of one call", whole);
        t.keep(format!("sum of calls at groups {splits:?}"), split);
    }
    whole
}

fn weight_gradient(t: &mut Trial<'_>) {
    let (n, k) = (19, 35);
    let (dy, x) = (t.operands(ROWS * n), t.operands(ROWS * k));
    spread(t, n * k, |t, call, gradient| {
        let (dy, x, groups) = (call.of(dy), call.of(x), call.groups);
        t.run(Op::WeightGradient(&[WeightGradient { dy, x, n, k, groups, gradient }]));
    });
}

fn shared_gradient(t: &mut Trial<'_>) {
    let (n, k) = (40, 16);
    let inputs = [(); 2].map(|()| (t.operands(ROWS * n), t.operands(ROWS * k)));
    spread(t, n * k, |t, call, gradient| {
        let entries = inputs.map(|(dy, x)| {
            let (dy, x, groups) = (call.of(dy), call.of(x), call.groups);
            WeightGradient { dy, x, n, k, groups, gradient }
        });
        t.run(Op::WeightGradient(&entries));
    });
}

fn column_sums(t: &mut Trial<'_>) {
    let (cols, rows_each) = (37, 2);
    let len = ROWS * rows_each * cols;
    let (a, b, row_scale) = (t.f32(len), t.operands(len), t.f32(ROWS * rows_each));
    let divisor: Vec<f32> = t.random(cols).iter().map(|x| 1.5 + x).collect();
    let divisor = Some(t.upload(&divisor, DType::F32));
    spread(t, cols, |t, call, gradient| {
        let (a, b, groups) = (call.of(a), Some(call.of(b)), call.groups);
        let row_scale = Some(call.of(row_scale));
        let op = ColumnSums { cols, a, b, row_scale, divisor, groups, rows_each, gradient };
        t.run(Op::ColumnSums(op));
    });
}

fn scatter_add(t: &mut Trial<'_>) {
    let cols = 70;
    let x = t.f32(ROWS * cols);
    let index = t.random_below(ROWS, 4);
    let index = t.integers(&index);
    spread(t, 4 * cols, |t, call, out| {
        let (x, index) = (call.of(x), call.of(index));
        t.run(Op::ScatterAdd(ScatterAdd { cols, x, index, scale: 0.7, out }));
    });
}

fn scale_columns(t: &mut Trial<'_>) {
    let cols = 37;
    let (factors, bias) = (t.f32(cols), Some(t.f32(cols)));
    let [x, base] = [(); 2].map(|()| t.random(BATCH * cols));
    parts(t, |t, part: &Part| {
        let (x, base) = (t.upload(part.of(&x), t.operand()), t.upload(part.of(&base), DType::F32));
        let out = t.out(x.len, t.operand());
        let base = Some(base);
        t.run(Op::ScaleColumns(ScaleColumns { cols, x, factors, bias, scale: 0.6, base, out }));
        vec![out]
    });
}

/// In one pass and in a second one, for all rows of the weight and for some.
fn head_weight(t: &mut Trial<'_>) {
    let (vocab, cols) = (317, 40);
    let weight = t.weight(vocab, cols, Storage::Bf16);
    let hidden = t.operands(ROWS * cols);
    let tokens = t.random_below(ROWS, vocab as u32);
    let tokens = t.integers(&tokens);
    let [logprob, entropy] = [(); 2].map(|()| t.f32(ROWS));
    let trained = [0, 31, 32, 200, 316];
    let all: Vec<u32> = (0..ROWS as u32).collect();
    let run = |t: &mut Trial<'_>, call: &Call, rows: Option<Buffer>, gradient, one_pass: bool| {
        let reads = call.rows.len();
        let lse = one_pass.then(|| t.out(reads, DType::F32));
        let op = Head {
            reads,
            hidden: call.of(hidden),
            weight,
            scale: 0.5,
            softcap: Some(3.0),
            temperature: 1.2,
            target_reads: t.integers(&all[..reads]),
            target_tokens: call.of(tokens),
            outputs: HeadOutputs { lse, ..HeadOutputs::default() },
            gradients: HeadGradients {
                logprob: Some(call.of(logprob)),
                entropy: Some(call.of(entropy)),
                ..HeadGradients::default()
            },
            d_hidden: Some(t.out(reads * cols, DType::F32)),
            d_weight: Some(HeadWeightGradient { groups: call.groups, rows, gradient }),
        };
        t.run(Op::Head(op));
    };
    spread(t, vocab * cols, |t, call, gradient| run(t, call, None, gradient, true));
    let rows = t.integers(&trained);
    let some = |t: &mut Trial<'_>, call: &Call, gradient| run(t, call, Some(rows), gradient, false);
    spread(t, trained.len() * cols, some);
    let zeros = vec![0.0; vocab * cols];
    let [all, some] =
        [vocab, trained.len()].map(|rows| t.upload(&zeros[..rows * cols], DType::F32));
    let call = Call { rows: 0..ROWS, groups: t.integers(&BOUNDS) };
    run(t, &call, None, all, true);
    run(t, &call, Some(rows), some, false);
    for (place, row) in trained.into_iter().enumerate() {
        t.keep(format!("row {row} of all"), all.slice(row as usize * cols, cols));
        t.keep(format!("row {row} alone"), some.slice(place * cols, cols));
    }
}
