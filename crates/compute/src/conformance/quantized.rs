//! Rows of quantised matrices, and of those left where they lie.

use std::sync::Arc;

use super::batch::{BATCH, parts};
use super::stored::{codes, signed, stored};
use super::{Row, Trial};
use crate::op::{Embed, Linear, Term};
use crate::quantize::{DYNAMIC, NF4};
use crate::{
    Absmax, DType, LookupSource, Op, Owner, Quantization, QuantizedSource, QuantizedValues,
    Storage, Weight, WeightSource,
};

/// How a matrix of the suite is loaded.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// Quantised from a storage, its rows in another order.
    From(Storage, Quantization),
    /// NF4 as a file holds it, with blocks of this length.
    Plain(usize),
    /// The same with quantised magnitudes.
    Nested(usize),
    /// 8 bits as a file holds them.
    EightBit,
}

const FORMS: [Form; 8] = [
    Form::From(Storage::F32, Quantization::Nf4),
    Form::From(Storage::Bf16, Quantization::Nf4),
    Form::From(Storage::F16, Quantization::Int8),
    Form::Plain(64),
    Form::Plain(128),
    Form::Nested(64),
    Form::Nested(32),
    Form::EightBit,
];

pub(super) fn add(rows: &mut Vec<Row>) {
    // Outputs and inputs: whole blocks, blocks across rows, a short last block, an odd number of codes.
    let shapes = [(35, 64), (70, 512), (16, 96), (40, 130), (3, 43), (64, 1)];
    for form in FORMS {
        for (n, k) in shapes {
            for count in [1, 4, 5, 14] {
                let name = format!("linear {form:?} {count}x{k}x{n}");
                rows.push(Row::new(name, move |t| linear(t, form, count, n, k)));
            }
        }
        rows.push(Row::new(format!("embed {form:?}"), move |t| embed(t, form)));
    }
    for storage in [Storage::Q4_0, Storage::Q6_K] {
        for to in [Quantization::Nf4, Quantization::Int8] {
            let form = Form::From(storage, to);
            let name = format!("linear {form:?}");
            rows.push(Row::new(name, move |t| linear(t, form, 14, 35, 256)));
        }
    }
    for storage in Storage::ALL {
        rows.push(Row::new(format!("lookup {storage:?}"), move |t| lookup(t, storage)));
    }
}

pub(super) fn add_invariance(rows: &mut Vec<Row>) {
    for form in FORMS {
        for size in [256, 75] {
            for transposed in [false, true] {
                let name = format!("linear {form:?} of {size} transposed {transposed}");
                rows.push(Row::new(name, move |t| invariant(t, form, size, transposed)));
            }
        }
    }
    for form in FORMS {
        for (n, k) in [(70, 192), (35, 43)] {
            let name = format!("numbers of {form:?} {n}x{k}");
            rows.push(Row::new(name, move |t| same_numbers(t, form, n, k)));
        }
    }
    for storage in Storage::ALL {
        let name = format!("lookup {storage:?} as loaded");
        rows.push(Row::new(name, move |t| lookup_as_loaded(t, storage)));
    }
}

/// A random matrix of about unit size.
fn matrix(t: &mut Trial<'_>, rows: usize, cols: usize, form: Form) -> Weight {
    let len = rows * cols;
    let seed = t.next_seed();
    let magnitudes = |seed: u64, len: usize, spread: f32| -> Vec<f32> {
        (0..len as u64).map(|index| 1.0 + spread * signed(seed, index)).collect()
    };
    let source = |values| QuantizedSource { rows, cols, values };
    match form {
        Form::From(storage, to) => {
            let bytes = stored(storage, len, seed);
            let order: Vec<u32> = (0..rows as u32).rev().collect();
            let row_order = Some(&order[..]);
            t.load_as(WeightSource { rows, cols, storage, bytes: &bytes, row_order }, to)
        }
        Form::Plain(block_len) => {
            let codes = codes(seed, len.div_ceil(2));
            let absmax = magnitudes(seed ^ 1, len.div_ceil(block_len), 0.5);
            let absmax = Absmax::Plain(&absmax);
            let codes = &codes;
            t.load_quantized(source(QuantizedValues::FourBit {
                codes,
                map: &NF4,
                block_len,
                absmax,
            }))
        }
        Form::Nested(block_len) => {
            let blocks = len.div_ceil(block_len);
            let (own, nested) = (codes(seed, len.div_ceil(2)), codes(seed ^ 1, blocks));
            let absmax = magnitudes(seed ^ 2, blocks.div_ceil(16), 0.5);
            let absmax = Absmax::Nested {
                codes: &nested,
                map: &*DYNAMIC,
                block_len: 16,
                absmax: &absmax,
                offset: 2.0,
            };
            let codes = &own;
            t.load_quantized(source(QuantizedValues::FourBit {
                codes,
                map: &NF4,
                block_len,
                absmax,
            }))
        }
        Form::EightBit => {
            let codes = codes(seed, len);
            let codes = crate::weight::signed(&codes);
            let absmax = magnitudes(seed ^ 1, rows, 0.5);
            t.load_quantized(source(QuantizedValues::EightBit { codes, absmax: &absmax }))
        }
    }
}

fn linear(t: &mut Trial<'_>, form: Form, rows: usize, n: usize, k: usize) {
    let weight = matrix(t, n, k, form);
    for transposed in [false, true] {
        let (inputs, outputs) = if transposed { (n, k) } else { (k, n) };
        let terms = [Term { input: t.operands(rows * inputs), weight, transposed }];
        let out = t.out(rows * outputs, DType::F32);
        t.run(Op::Linear(&[Linear::product(rows, &terms, out)]));
        t.keep(format!("transposed {transposed}"), out);
    }
}

fn embed(t: &mut Trial<'_>, form: Form) {
    for cols in [64, 43] {
        let weight = matrix(t, 11, cols, form);
        let tokens = t.integers(&[10, 0, 3, 3]);
        let out = t.out(4 * cols, DType::F32);
        t.run(Op::Embed(Embed { weight, tokens, scale: 1.5, out }));
        t.keep(format!("{cols} columns"), out);
    }
}

/// A matrix of 11 rows somewhere inside other bytes, and its number of columns.
fn left(t: &mut Trial<'_>, storage: Storage) -> (LookupSource, usize) {
    let cols = if storage.block_len() == 256 { 512 } else { 96 };
    let bytes = stored(storage, 11 * cols, t.next_seed());
    let range = 3..3 + bytes.len();
    let owner: Owner = Arc::new([&[0xFF; 3], &bytes[..], &[0xFF; 5]].concat());
    (LookupSource { rows: 11, cols, storage, owner, range }, cols)
}

fn lookup(t: &mut Trial<'_>, storage: Storage) {
    let (source, cols) = left(t, storage);
    let weight = t.load_lookup(source);
    let (tokens, out) = (t.integers(&[10, 0, 3, 3]), t.out(4 * cols, DType::F32));
    t.run(Op::Embed(Embed { weight, tokens, scale: 2.5, out }));
    t.keep("out", out);
}

fn lookup_as_loaded(t: &mut Trial<'_>, storage: Storage) {
    let (source, cols) = left(t, storage);
    let bytes = (*source.owner).as_ref()[source.range.clone()].to_vec();
    let loaded = t.load(WeightSource { rows: 11, cols, storage, bytes: &bytes, row_order: None });
    for (name, weight) in [("loaded", loaded), ("left", t.load_lookup(source))] {
        let (tokens, out) = (t.integers(&[10, 0, 3, 3]), t.out(4 * cols, DType::F32));
        t.run(Op::Embed(Embed { weight, tokens, scale: 1.0, out }));
        t.keep(name, out);
    }
}

fn invariant(t: &mut Trial<'_>, form: Form, size: usize, transposed: bool) {
    let weight = matrix(t, size, size, form);
    let (x, operand) = (t.random(BATCH * size), t.operand());
    parts(t, |t, part| {
        let rows = part.len();
        let terms = [Term { input: t.upload(part.of(&x), operand), weight, transposed }];
        let out = t.out(rows * size, DType::F32);
        t.run(Op::Linear(&[Linear::product(rows, &terms, out)]));
        vec![out]
    });
}

/// Products with unit vectors, both ways, have the numbers that are embedded.
fn same_numbers(t: &mut Trial<'_>, form: Form, n: usize, k: usize) {
    let weight = matrix(t, n, k, form);
    let tokens: Vec<u32> = (0..n as u32).collect();
    let (tokens, embedded) = (t.integers(&tokens), t.out(n * k, DType::F32));
    t.run(Op::Embed(Embed { weight, tokens, scale: 1.0, out: embedded }));
    let numbers = t.read(embedded);
    let columns: Vec<f32> = (0..k * n).map(|i| numbers[i % n * k + i / n]).collect();
    let columns = t.upload(&columns, DType::F32);
    for (transposed, inputs, expected) in [(true, n, embedded), (false, k, columns)] {
        let mut units = vec![0.0; inputs * inputs];
        units.iter_mut().step_by(inputs + 1).for_each(|unit| *unit = 1.0);
        let terms = [Term { input: t.upload(&units, t.operand()), weight, transposed }];
        let (rows, out) = (inputs, t.out(n * k, DType::F32));
        t.run(Op::Linear(&[Linear::product(rows, &terms, out)]));
        t.keep("embedded", expected);
        t.keep(format!("transposed {transposed}"), out);
    }
}
