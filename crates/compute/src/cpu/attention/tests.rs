//! Attention and its gradient against f64, and bit for bit against themselves.

use super::{Gradients, Layout, Shape, attention, attention_backward};
use crate::cpu::operand::Operand;
use crate::cpu::testing::{assert_close, normal};
use crate::cpu::{Isa, Pool};

/// A layout that owns its buffers.
#[derive(Clone, Default)]
struct Forest {
    positions: Vec<u32>,
    spans: Vec<u32>,
    runs: Vec<u32>,
    trees: Vec<u32>,
}

impl Forest {
    /// Adds a span of the queries at `positions` over runs of `(first row, rows)`.
    fn span(mut self, positions: impl IntoIterator<Item = u32>, runs: &[(u32, u32)]) -> Self {
        let first = self.positions.len();
        self.positions.extend(positions);
        let count = self.positions.len() - first;
        self.spans.extend([first, count, self.runs.len() / 2, runs.len()].map(|x| x as u32));
        self.runs.extend(runs.iter().flat_map(|&(row, rows)| [row, rows]));
        self
    }

    /// Ends a tree.
    fn tree(mut self) -> Self {
        if self.trees.is_empty() {
            self.trees.push(0);
        }
        self.trees.push((self.spans.len() / 4) as u32);
        self
    }

    fn layout(&self) -> Layout<'_> {
        let Forest { positions, spans, runs, trees } = self;
        Layout { query_positions: positions, spans, runs, trees }
    }

    /// For every query the visible key rows, in order.
    fn visible(&self, shape: &Shape) -> Vec<Vec<usize>> {
        let mut visible = Vec::new();
        for span in self.spans.chunks_exact(4) {
            let runs = &self.runs[2 * span[2] as usize..][..2 * span[3] as usize];
            let keys: Vec<u32> = runs.chunks_exact(2).flat_map(|r| r[0]..r[0] + r[1]).collect();
            for &p in &self.positions[span[0] as usize..][..span[1] as usize] {
                let window = i64::from(shape.window.unwrap_or(u32::MAX));
                let sees = |&j: &usize| i64::from(p) - (j as i64) < window;
                visible.push((0..=p as usize).filter(sees).map(|j| keys[j] as usize).collect());
            }
        }
        visible
    }

    fn key_rows(&self) -> usize {
        self.runs.chunks_exact(2).map(|run| (run[0] + run[1]) as usize).max().unwrap_or(0)
    }
}

/// Random operands.
struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

impl Inputs {
    fn new(shape: &Shape, forest: &Forest) -> Self {
        let queries = forest.positions.len() * shape.heads * shape.head_dim;
        let keys = forest.key_rows() * shape.kv_heads * shape.head_dim;
        let [q, dout] = [1, 2].map(|seed| normal(seed, queries));
        let [k, v] = [3, 4].map(|seed| normal(seed, keys));
        Inputs { q, k, v, dout }
    }

    fn gradients<'a>(&'a self, out: &'a [f32], lse: &'a [f32]) -> Gradients<'a, f32> {
        let Inputs { q, k, v, dout } = self;
        Gradients { q, k, v, out, lse, dout }
    }

    /// The same rounded to bf16: its bits, `q`, `k`, `v`, `dout`.
    fn round(&mut self) -> [Vec<u16>; 4] {
        let Inputs { q, k, v, dout } = self;
        [q, k, v, dout].map(|x| {
            let bits = halves(x);
            *x = floats(&bits);
            bits
        })
    }
}

fn halves(x: &[f32]) -> Vec<u16> {
    x.iter().map(|&x| <u16 as Operand>::store(x)).collect()
}

fn floats(x: &[u16]) -> Vec<f32> {
    x.iter().map(|&x| x.load()).collect()
}

/// Instruction sets for operands in bf16: what multiplies pairs runs on plain arrays where it is not there.
fn for_halves() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|&isa| isa != Isa::Avx512Bf16).chain([Isa::Avx512Bf16])
}

/// `out`, `lse`, `dq`, `dk`, `dv`.
fn naive(shape: &Shape, forest: &Forest, inputs: &Inputs) -> [Vec<f64>; 5] {
    let Shape { heads, kv_heads, head_dim: d, .. } = *shape;
    let scale = f64::from(shape.scale);
    let mut lse = vec![0.0; forest.positions.len() * heads];
    let [mut out, mut dq] = [0, 1].map(|_| vec![0.0; inputs.q.len()]);
    let [mut dk, mut dv] = [0, 1].map(|_| vec![0.0; inputs.k.len()]);
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
    };
    for (query, keys) in forest.visible(shape).iter().enumerate() {
        for head in 0..heads {
            let row = (query * heads + head) * d;
            let key = |key: usize| (key * kv_heads + head / (heads / kv_heads)) * d;
            let q = &inputs.q[row..row + d];
            let raw = keys.iter().map(|&j| dot(q, &inputs.k[key(j)..][..d]) * scale);
            let raw: Vec<f64> = raw.collect();
            let cap = shape.softcap.map(f64::from);
            let bent = |s: &f64| cap.map_or(*s, |cap| cap * (s / cap).tanh());
            let slope = |s: f64| cap.map_or(1.0, |cap| 1.0 - (s / cap).tanh().powi(2));
            let sum: f64 = raw.iter().map(|s| bent(s).exp()).sum();
            lse[query * heads + head] = sum.ln();
            let dout = &inputs.dout[row..row + d];
            let weights: Vec<f64> = raw.iter().map(|s| bent(s).exp() / sum).collect();
            for (&j, p) in keys.iter().zip(&weights) {
                for i in 0..d {
                    out[row + i] += p * f64::from(inputs.v[key(j) + i]);
                    dv[key(j) + i] += p * f64::from(dout[i]);
                }
            }
            let delta: f64 = (0..d).map(|i| f64::from(dout[i]) * out[row + i]).sum();
            for ((&j, p), &s) in keys.iter().zip(&weights).zip(&raw) {
                let ds = p * (dot(dout, &inputs.v[key(j)..][..d]) - delta) * slope(s) * scale;
                for i in 0..d {
                    dq[row + i] += ds * f64::from(inputs.k[key(j) + i]);
                    dk[key(j) + i] += ds * f64::from(q[i]);
                }
            }
        }
    }
    [out, lse, dq, dk, dv]
}

/// `out`, `lse`.
fn forward<T: Operand>(
    pool: &Pool,
    isa: Isa,
    shape: Shape,
    forest: &Forest,
    [q, k, v]: [&[T]; 3],
) -> (Vec<T>, Vec<f32>) {
    let mut out = vec![T::store(f32::NAN); q.len()];
    let mut lse = vec![f32::NAN; forest.positions.len() * shape.heads];
    attention(pool, isa, shape, forest.layout(), q, k, v, &mut out, &mut lse);
    (out, lse)
}

/// `dq`, `dk`, `dv`.
fn backward<T: Operand>(
    pool: &Pool,
    isa: Isa,
    shape: Shape,
    forest: &Forest,
    gradients: Gradients<'_, T>,
) -> [Vec<f32>; 3] {
    let Gradients { q, k, v, .. } = gradients;
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![f32::NAN; x.len()]);
    attention_backward(pool, isa, shape, forest.layout(), gradients, &mut dq, &mut dk, &mut dv);
    [dq, dk, dv]
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize) -> Shape {
    let scale = 1.0 / (head_dim as f32).sqrt();
    Shape { heads, kv_heads, head_dim, scale, window: None, softcap: None }
}

/// Two trees: a prefix with two children, one of which has a child of its own; and one row.
fn forest() -> Forest {
    Forest::default()
        .span(0..70, &[(0, 70)])
        .span(70..100, &[(0, 70), (70, 30)])
        .span(100..121, &[(0, 70), (70, 30), (100, 21)])
        .span(70..75, &[(0, 70), (121, 5)])
        .tree()
        .span(0..140, &[(126, 140)])
        .tree()
}

#[track_caller]
fn check(shape: Shape, forest: &Forest) {
    let inputs = Inputs::new(&shape, forest);
    let expected = naive(&shape, forest, &inputs);
    for isa in Isa::available() {
        let mut bits = Vec::new();
        for threads in [1, 2] {
            let pool = Pool::new(threads);
            let operands = [&inputs.q[..], &inputs.k, &inputs.v];
            let (out, lse) = forward(&pool, isa, shape, forest, operands);
            let gradients = inputs.gradients(&out, &lse);
            let [dq, dk, dv] = backward(&pool, isa, shape, forest, gradients);
            let actual = [out, lse, dq, dk, dv];
            for (actual, expected) in actual.iter().zip(&expected) {
                assert_close(actual, expected, 5e-6);
            }
            bits.push(actual.map(|x| x.into_iter().map(f32::to_bits).collect::<Vec<_>>()));
        }
        assert!(bits[0] == bits[1], "{isa}: one thread differs from two");
    }
    check_halves(shape, forest, inputs);
}

/// Operands in bf16. `out` is rounded once, and weights and their gradients where pairs are multiplied.
#[track_caller]
fn check_halves(shape: Shape, forest: &Forest, mut inputs: Inputs) {
    let [q, k, v, dout] = &inputs.round();
    let expected = naive(&shape, forest, &inputs);
    for isa in for_halves() {
        let mut bits = Vec::new();
        for threads in [1, 2] {
            let pool = Pool::new(threads);
            let (out, lse) = forward(&pool, isa, shape, forest, [&q[..], k, v]);
            let gradients = Gradients { q, k, v, out: &out, lse: &lse, dout };
            let [dq, dk, dv] = backward(&pool, isa, shape, forest, gradients);
            let actual = [floats(&out), lse, dq, dk, dv];
            let tolerances = [4e-3, 5e-6, 6e-3, 6e-3, 4e-3];
            for ((actual, expected), tolerance) in actual.iter().zip(&expected).zip(tolerances) {
                assert_close(actual, expected, tolerance);
            }
            bits.push(actual.map(|x| x.into_iter().map(f32::to_bits).collect::<Vec<_>>()));
        }
        assert!(bits[0] == bits[1], "{isa}: one thread differs from two");
    }
}

#[test]
fn one_query_one_key() {
    check(shape(1, 1, 8), &Forest::default().span([0], &[(0, 1)]).tree());
}

#[test]
fn head_sizes_and_groups() {
    for (heads, kv_heads, head_dim) in [(9, 3, 64), (2, 2, 8), (4, 1, 96), (2, 1, 6), (2, 1, 256)] {
        check(shape(heads, kv_heads, head_dim), &forest());
    }
    // More heads on one key than rows in a block.
    check(shape(100, 1, 8), &Forest::default().span(0..9, &[(0, 9)]).tree());
}

#[test]
fn windows() {
    for window in [1, 5, 64, 70, 1000] {
        check(Shape { window: Some(window), ..shape(6, 2, 16) }, &forest());
    }
}

#[test]
fn soft_caps() {
    check(Shape { softcap: Some(1.5), ..shape(3, 3, 64) }, &forest());
    check(Shape { softcap: Some(1.5), window: Some(20), ..shape(2, 1, 8) }, &forest());
}

#[test]
fn some_positions_only() {
    let some = Forest::default()
        .span([3, 4, 69], &[(0, 70)])
        .span([], &[(0, 70), (70, 1)])
        .span([99], &[(0, 70), (70, 30)])
        .tree()
        .tree()
        .span([0, 130], &[(100, 140)])
        .tree();
    check(shape(9, 3, 64), &some);
    check(Shape { window: Some(33), ..shape(9, 3, 64) }, &some);
}

#[test]
fn large_scores_do_not_overflow() {
    let mut shape = shape(3, 1, 64);
    shape.scale = 12.0;
    let forest = Forest::default().span(0..100, &[(0, 100)]).tree();
    let inputs = Inputs::new(&shape, &forest);
    let expected = naive(&shape, &forest, &inputs);
    let operands = [&inputs.q[..], &inputs.k, &inputs.v];
    let (out, lse) = forward(&Pool::new(1), Isa::detect(), shape, &forest, operands);
    assert_close(&out, &expected[0], 1e-4);
    assert_close(&lse, &expected[1], 1e-6);
}

/// The same sequence in one run, in two, behind another, and one query at a time.
fn check_invariance(shape: Shape) {
    let len = 150_u32;
    let whole = Forest::default().span(0..len, &[(0, len)]).tree();
    let inputs = Inputs::new(&shape, &whole);
    let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(|x| halves(x));
    let query = shape.heads * shape.head_dim;
    for isa in for_halves() {
        let pool = Pool::new(2);
        let whole_result = forward(&pool, isa, shape, &whole, [&q[..], &k, &v]);

        let one_by_one = (0..len).fold(Forest::default(), |f, p| f.span([p], &[(0, len)])).tree();
        assert!(whole_result == forward(&pool, isa, shape, &one_by_one, [&q, &k, &v]));

        let cached = (0..len).fold(Forest::default(), |f, p| f.span([p], &[(0, p + 1)])).tree();
        assert!(whole_result == forward(&pool, isa, shape, &cached, [&q, &k, &v]));

        let runs = Forest::default()
            .span(0..50, &[(0, 50)])
            .span(50..101, &[(0, 50), (50, 51)])
            .span(101..len, &[(0, 50), (50, 51), (101, 49)])
            .tree();
        let same = whole_result == forward(&pool, isa, shape, &runs, [&q, &k, &v]);
        assert!(same, "{isa}");

        // Behind 7 rows of another sequence, keys in three pieces out of order.
        let key = shape.kv_heads * shape.head_dim;
        let shuffle = |x: &[u16]| {
            [&x[..7 * key], &x[90 * key..], &x[..33 * key], &x[33 * key..90 * key]].concat()
        };
        let packed = Forest::default()
            .span(0..7, &[(0, 7)])
            .tree()
            .span(0..len, &[(67, 33), (100, 57), (7, 60)])
            .tree();
        let operands = [&[&q[..7 * query], &q].concat()[..], &shuffle(&k), &shuffle(&v)];
        let (packed_out, packed_lse) = forward(&pool, isa, shape, &packed, operands);
        let (out, lse) = whole_result;
        assert!(out == packed_out[7 * query..] && lse == packed_lse[7 * shape.heads..]);
    }
}

#[test]
fn a_query_is_the_same_in_any_company() {
    check_invariance(shape(9, 3, 64));
    check_invariance(shape(2, 2, 24));
    check_invariance(Shape { window: Some(40), softcap: Some(2.0), ..shape(4, 2, 8) });
}

/// Answers behind one beginning, a query each, get the same bits as alone: the tiles of what they share are
/// packed once for all of them.
#[test]
fn answers_share_what_they_begin_with() {
    let shapes = [shape(9, 3, 64), shape(4, 4, 24), shape(10, 2, 8)];
    let windowed = Shape { window: Some(90), ..shape(9, 3, 64) };
    let shared = 150_u32;
    for shape in shapes.into_iter().chain([windowed]) {
        let own = |answer: u32| (shared + 100 * answer, 1 + 13 * answer % 70);
        let together = (0..20).fold(Forest::default(), |forest, answer| {
            let (row, len) = own(answer);
            forest.span([shared + len - 1], &[(0, shared), (row, len)])
        });
        let together = together.tree();
        check(shape, &together);
        let inputs = Inputs::new(&shape, &together);
        let operands = [&inputs.q, &inputs.k, &inputs.v];
        for isa in Isa::available() {
            check_alone(isa, shape, &together, operands.map(|x| &x[..]), own);
        }
        let operands = operands.map(|x| halves(x));
        for isa in for_halves() {
            check_alone(isa, shape, &together, [&operands[0], &operands[1], &operands[2]], own);
        }
    }
}

/// 20 queries of `own` rows each behind the rows that all share: each is the same alone.
#[track_caller]
fn check_alone<T: Operand + PartialEq>(
    isa: Isa,
    shape: Shape,
    together: &Forest,
    [q, k, v]: [&[T]; 3],
    own: impl Fn(u32) -> (u32, u32),
) {
    let pool = Pool::new(2);
    let query = shape.heads * shape.head_dim;
    let (out, lse) = forward(&pool, isa, shape, together, [q, k, v]);
    for answer in 0..20 {
        let (row, len) = own(answer);
        let runs = [(0, own(0).0), (row, len)];
        let alone = Forest::default().span([own(0).0 + len - 1], &runs).tree();
        let at = answer as usize;
        let q = &q[at * query..(at + 1) * query];
        let (one, one_lse) = forward(&pool, isa, shape, &alone, [q, k, v]);
        assert!(one == out[at * query..(at + 1) * query], "{isa} answer {answer}");
        assert!(one_lse == lse[at * shape.heads..(at + 1) * shape.heads], "{isa}");
    }
}

/// Keys in blocks that lie anywhere, families of answers that share different beginnings: each answer gets the
/// bits of its keys in one run.
#[test]
fn blocks_of_keys_may_lie_anywhere() {
    let shape = shape(9, 3, 64);
    // Runs of each answer: all share two blocks, some of them five, and two of these a part of a sixth.
    let all = [(640, 64), (64, 64)];
    let some = [(640, 64), (64, 64), (320, 64), (0, 64), (448, 64)];
    let sixth = [&some[..], &[(128, 37)]].concat();
    let answers: Vec<Vec<(u32, u32)>> = vec![
        [&all[..], &[(704, 1)]].concat(),
        [&all[..], &[(768, 64), (832, 63)]].concat(),
        [&some[..], &[(896, 30)]].concat(),
        [&some[..], &[(960, 64), (1024, 9)]].concat(),
        [&sixth[..], &[(1088, 64), (192, 2)]].concat(),
        [&sixth[..], &[(165, 20)]].concat(),
        // The same again, in one run where blocks lie behind each other.
        vec![(640, 64), (64, 1)],
        vec![(640, 125)],
        vec![(512, 64)],
    ];
    let len = |runs: &[(u32, u32)]| runs.iter().map(|run| run.1).sum::<u32>();
    let add = |forest: Forest, runs: &Vec<(u32, u32)>| forest.span([len(runs) - 1], runs);
    let together = answers.iter().fold(Forest::default(), add).tree();
    let inputs = Inputs::new(&shape, &together);
    let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(|x| halves(x));
    let (query, key) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    for isa in for_halves() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            let (out, lse) = forward(&pool, isa, shape, &together, [&q[..], &k, &v]);
            for (at, runs) in answers.iter().enumerate() {
                let gather = |x: &[u16]| {
                    let rows = runs.iter().flat_map(|&(row, rows)| row..row + rows);
                    rows.flat_map(|row| x[row as usize * key..][..key].to_vec()).collect::<Vec<_>>()
                };
                let alone = Forest::default().span([len(runs) - 1], &[(0, len(runs))]).tree();
                let operands = [&q[at * query..][..query], &gather(&k), &gather(&v)];
                let (one, one_lse) = forward(&pool, isa, shape, &alone, operands);
                assert!(one == out[at * query..][..query], "{isa}, {threads}: answer {at}");
                assert!(one_lse == lse[at * shape.heads..][..shape.heads], "{isa}");
            }
        }
    }
}

/// Several tasks add to the same queries: what one thread gives, many give, however wide columns are.
#[test]
fn gradients_do_not_depend_on_threads() {
    let long = Forest::default().span(0..700, &[(0, 700)]).tree();
    let shared = (0..6).fold(Forest::default().span(0..150, &[(0, 150)]), |forest, tail| {
        let (row, len) = (150 + 100 * tail, 40 + 9 * tail);
        forest.span(150..150 + len, &[(0, 150), (row, len)])
    });
    for forest in [long, shared.tree()] {
        for window in [None, Some(90)] {
            let shape = Shape { window, ..shape(6, 2, 16) };
            let inputs = Inputs::new(&shape, &forest);
            let [q, k, v, dout] =
                [&inputs.q, &inputs.k, &inputs.v, &inputs.dout].map(|x| halves(x));
            let expected = naive(&shape, &forest, &inputs);
            for isa in Isa::available() {
                let operands = [&inputs.q[..], &inputs.k, &inputs.v];
                let (out, lse) = forward(&Pool::new(2), isa, shape, &forest, operands);
                let gradients = inputs.gradients(&out, &lse);
                let one = backward(&Pool::new(1), isa, shape, &forest, gradients);
                for (actual, expected) in one.iter().zip(&expected[2..]) {
                    assert_close(actual, expected, 5e-6);
                }
                for threads in [2, 3, 8] {
                    let many = backward(&Pool::new(threads), isa, shape, &forest, gradients);
                    assert!(one == many, "{isa}, {threads} threads");
                }
            }
            for isa in for_halves() {
                let (out, lse) = forward(&Pool::new(2), isa, shape, &forest, [&q[..], &k, &v]);
                let (q, k, v, dout) = (&q[..], &k[..], &v[..], &dout[..]);
                let gradients = Gradients { q, k, v, out: &out, lse: &lse, dout };
                let one = backward(&Pool::new(1), isa, shape, &forest, gradients);
                let many = backward(&Pool::new(5), isa, shape, &forest, gradients);
                assert!(one == many, "{isa}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "key row 10 is two keys")]
fn a_key_row_has_one_position() {
    let shape = shape(2, 1, 8);
    let forest = Forest::default().span(0..10, &[(0, 10)]).span(0..5, &[(10, 5)]).tree();
    let forest = forest.span(0..3, &[(10, 3)]).tree();
    let inputs = Inputs::new(&shape, &forest);
    let zeros = vec![0.0; inputs.q.len()];
    let gradients = inputs.gradients(&zeros, &zeros[..18 * 2]);
    backward(&Pool::new(1), Isa::detect(), shape, &forest, gradients);
}

#[test]
fn nan_reaches_those_who_see_it() {
    let shape = shape(2, 1, 64);
    let forest = Forest::default().span(0..3, &[(0, 3)]).tree();
    let mut inputs = Inputs::new(&shape, &forest);
    inputs.k[2 * 64 + 5] = f32::NAN;
    let operands = [&inputs.q[..], &inputs.k, &inputs.v];
    let (out, lse) = forward(&Pool::new(1), Isa::detect(), shape, &forest, operands);
    assert!(lse[4..].iter().all(|x| x.is_nan()) && lse[..4].iter().all(|x| !x.is_nan()));
    assert!(out[256..].iter().all(|x| x.is_nan()) && out[..256].iter().all(|x| !x.is_nan()));
}
