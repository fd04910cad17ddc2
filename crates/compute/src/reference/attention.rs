//! Attention over segments.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::Memory;
use crate::Buffer;
use crate::op::{Attention, AttentionBackward};

/// One query and the key rows of its sequence.
struct Query {
    row: usize,
    position: usize,
    /// Index into [`Layout::sequences`].
    sequence: usize,
}

/// The layout of an attention, checked.
struct Layout {
    queries: Vec<Query>,
    /// Key rows of each span, by position.
    sequences: Vec<Vec<usize>>,
}

fn layout(memory: &mut Memory, op: &Attention, queries: usize, key_rows: usize) -> Layout {
    let positions = memory.integers(op.layout.query_positions, queries);
    let spans = memory.integers(op.layout.spans, op.layout.spans.len);
    let runs = memory.integers(op.layout.runs, op.layout.runs.len);
    let mut layout = Layout { queries: Vec::new(), sequences: Vec::new() };
    let mut spans_of_row = vec![0; queries];
    for (sequence, span) in spans.chunks_exact(4).enumerate() {
        let [first, count, first_run, run_count] = std::array::from_fn(|i| span[i] as usize);
        let runs = runs[first_run * 2..][..run_count * 2].chunks_exact(2);
        let keys = runs.flat_map(|run| run[0] as usize..(run[0] + run[1]) as usize);
        let keys: Vec<usize> = keys.collect();
        assert!(keys.iter().all(|&key| key < key_rows), "runs of span {sequence} leave the keys");
        assert!(keys.len() <= op.layout.keys_max, "span {sequence} sees {} keys", keys.len());
        for row in first..first + count {
            let position = positions[row] as usize;
            assert!(position < keys.len(), "query {row} at {position} has no key of its own");
            spans_of_row[row] += 1;
            layout.queries.push(Query { row, position, sequence });
        }
        layout.sequences.push(keys);
    }
    assert!(spans_of_row.iter().all(|&spans| spans == 1), "every query lies in one span");
    layout
}

/// The key rows that runs name; a cache has others, which nobody has written.
fn named_rows(memory: &mut Memory, x: Buffer, cols: usize, layout: &Layout) -> Vec<f64> {
    let mut numbers = vec![f64::NAN; x.len];
    let rows: BTreeSet<usize> = layout.sequences.iter().flatten().copied().collect();
    for start in rows.into_iter().map(|row| row * cols) {
        let row = memory.numbers(x.slice(start, cols), cols);
        numbers[start..start + cols].copy_from_slice(&row);
    }
    numbers
}

/// Panics where a key row is seen from two trees: their gradients are added up apart.
fn assert_trees_apart(memory: &mut Memory, op: &Attention, layout: &Layout) {
    let trees = memory.integers(op.layout.trees, op.layout.trees.len);
    assert!(trees.is_sorted() && trees.first() == Some(&0), "trees {trees:?}");
    assert_eq!(trees.last(), Some(&(layout.sequences.len() as u32)), "trees end with the spans");
    let mut tree_of_row = BTreeMap::new();
    for (tree, bounds) in trees.windows(2).enumerate() {
        for keys in &layout.sequences[bounds[0] as usize..bounds[1] as usize] {
            for &row in keys {
                let first = *tree_of_row.entry(row).or_insert(tree);
                assert_eq!(first, tree, "key row {row} is seen from trees {first} and {tree}");
            }
        }
    }
}

impl Attention {
    /// Score of a query with a key and its derivative by their product.
    fn score(&self, q: &[f64], k: &[f64]) -> (f64, f64) {
        let scale = f64::from(self.scale);
        let score = scale * dot(q, k);
        match self.softcap {
            None => (score, scale),
            Some(cap) => {
                let tanh = (score / f64::from(cap)).tanh();
                (f64::from(cap) * tanh, scale * (1.0 - tanh * tanh))
            }
        }
    }

    /// The positions that a query at `position` sees.
    fn visible(&self, position: usize) -> std::ops::RangeInclusive<usize> {
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window as usize));
        first..=position
    }

    fn kv_head(&self, head: usize) -> usize {
        assert!(self.heads.is_multiple_of(self.kv_heads), "heads share kv heads evenly");
        head / (self.heads / self.kv_heads)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Adds `factor * x` to `out`.
fn add(out: &mut [f64], factor: f64, x: &[f64]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out += factor * x);
}

pub(super) fn forward(memory: &mut Memory, op: &Attention) {
    let d = op.head_dim;
    let queries = op.q.len / (op.heads * d);
    let key_rows = op.k.len / (op.kv_heads * d);
    let q = memory.numbers(op.q, queries * op.heads * d);
    let layout = layout(memory, op, queries, key_rows);
    let [k, v] = [op.k, op.v].map(|x| named_rows(memory, x, op.kv_heads * d, &layout));
    let (mut out, mut lses) = (vec![0.0; q.len()], vec![0.0; queries * op.heads]);
    for query in &layout.queries {
        let rows = &layout.sequences[query.sequence][op.visible(query.position)];
        for head in 0..op.heads {
            let index = query.row * op.heads + head;
            let at = |row: &usize| (row * op.kv_heads + op.kv_head(head)) * d;
            let q = &q[index * d..][..d];
            let score = |row: &usize| op.score(q, &k[at(row)..][..d]).0;
            let scores: Vec<f64> = rows.iter().map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let lse = max + scores.iter().map(|score| (score - max).exp()).sum::<f64>().ln();
            for (row, score) in rows.iter().zip(scores) {
                add(&mut out[index * d..][..d], (score - lse).exp(), &v[at(row)..][..d]);
            }
            lses[index] = lse;
        }
    }
    memory.write(op.out, &out);
    memory.write(op.lse, &lses);
}

/// With `P = exp(score - lse)`, `dP = dout v^T` and `delta = sum(P dP)`:
/// `dv += P dout`, `dscore = P (dP - delta)`.
pub(super) fn backward(memory: &mut Memory, op: &AttentionBackward) {
    let forward = &op.forward;
    let d = forward.head_dim;
    let queries = forward.q.len / (forward.heads * d);
    let key_rows = forward.k.len / (forward.kv_heads * d);
    let q = memory.numbers(forward.q, queries * forward.heads * d);
    let k = memory.numbers(forward.k, key_rows * forward.kv_heads * d);
    let v = memory.numbers(forward.v, key_rows * forward.kv_heads * d);
    let lse = memory.numbers(forward.lse, queries * forward.heads);
    // Not needed here, but part of the contract.
    memory.numbers(forward.out, q.len());
    let dout = memory.numbers(op.dout, q.len());
    let layout = layout(memory, forward, queries, key_rows);
    assert_trees_apart(memory, forward, &layout);
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    for query in &layout.queries {
        let rows = &layout.sequences[query.sequence][forward.visible(query.position)];
        for head in 0..forward.heads {
            let index = query.row * forward.heads + head;
            let at = |row: usize| (row * forward.kv_heads + forward.kv_head(head)) * d;
            let (q, dout) = (&q[index * d..][..d], &dout[index * d..][..d]);
            let probability = |&row: &usize| {
                let (score, slope) = forward.score(q, &k[at(row)..][..d]);
                ((score - lse[index]).exp(), slope, dot(dout, &v[at(row)..][..d]))
            };
            let terms: Vec<(f64, f64, f64)> = rows.iter().map(probability).collect();
            let delta: f64 = terms.iter().map(|(p, _, dp)| p * dp).sum();
            for (&row, (p, slope, dp)) in rows.iter().zip(terms) {
                let dproduct = p * (dp - delta) * slope;
                add(&mut dv[at(row)..][..d], p, dout);
                add(&mut dq[index * d..][..d], dproduct, &k[at(row)..][..d]);
                add(&mut dk[at(row)..][..d], dproduct, q);
            }
        }
    }
    memory.write(op.dq, &dq);
    memory.write(op.dk, &dk);
    memory.write(op.dv, &dv);
}
