//! Rows of a merged tensor: `W + scaling * B A` and what other adapters make of it, in f32.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};
use safetensors::Dtype;

use super::Merge;
use super::outputs::{Content, Output, size_of_type, stored_as};
use crate::checkpoint::Tensor;
use crate::tensor::Role;
use crate::{Error, Module, Result};

/// Bytes of f32 that are worked on at a time, unless a single row is larger.
const CHUNK_BYTES: usize = 32 << 20;

/// Rows of a tensor that are worked on at a time.
pub(super) fn chunk_rows(cols: usize) -> usize {
    (CHUNK_BYTES / (4 * cols.max(1))).max(1)
}

/// A tensor on its way: what the base has, and what is done to it.
pub(super) struct Rows<'a> {
    output: &'a Output<'a>,
    cols: usize,
    values: Values<'a>,
    delta: Option<Delta<'a>>,
    /// Tokens and their rows, `[tokens, C]`.
    tokens: Option<(&'a [u32], &'a [f32])>,
}

/// Where the numbers of the base are.
enum Values<'a> {
    /// In its file; rows beyond those of the file are `beyond`.
    Stored { tensor: Box<Tensor<'a>>, beyond: Vec<f32> },
    /// On the host already.
    Given(Cow<'a, [f32]>),
}

/// What an adapter does to one linear layer.
struct Delta<'a> {
    rank: usize,
    scaling: f32,
    /// `[rank, K]`
    a: &'a [f32],
    /// `[N, rank]`
    b: &'a [f32],
    /// `[N]`: the norms that DoRA gives the rows.
    magnitude: Option<&'a [f32]>,
}

impl Merge<'_> {
    /// A tensor of the decoder, to be made row by row. `Foreign` ones have none.
    pub(super) fn rows<'a>(&'a self, output: &'a Output<'a>) -> Result<Option<Rows<'a>>> {
        let cols = output.shape.get(1).copied().unwrap_or(1);
        let mut rows = Rows {
            output,
            cols,
            values: Values::Given(Cow::Borrowed(&[])),
            delta: None,
            tokens: None,
        };
        match &output.content {
            Content::Foreign(_) => return Ok(None),
            Content::Vector(name) => {
                rows.values = match self.replaced(name) {
                    Some(values) => values,
                    None => {
                        Values::Given(Cow::Owned(self.base.vector(name, 0, output.shape[0])?))
                    }
                };
            }
            &Content::Linear(layer, module) => {
                let name = format!("model.layers.{layer}.{}.weight", module.path());
                rows.values = match self.replaced(&name) {
                    Some(values) => values,
                    None => {
                        let tensor = Box::new(self.base.tensor(&name, &output.shape)?);
                        Values::Stored { tensor, beyond: Vec::new() }
                    }
                };
                rows.delta = self.delta(layer, module);
            }
            Content::Vocabulary(name) => {
                rows.values = match self.replaced(name) {
                    Some(values) => values,
                    None => self.vocabulary(name, output.shape[0], cols)?,
                };
                rows.tokens = self.token_rows(name);
            }
        }
        Ok(Some(rows))
    }

    fn replaced(&self, name: &str) -> Option<Values<'_>> {
        let (_, values) = self.options.replaced.get(name)?;
        Some(Values::Given(Cow::Borrowed(values)))
    }

    /// Embedding or head of the base; new tokens begin as the mean of the others.
    fn vocabulary(&self, name: &str, rows: usize, cols: usize) -> Result<Values<'_>> {
        let before = self.base.config.vocab_size;
        let tensor = self.base.tensor(stored_as(self.base, name), &[before, cols])?;
        let beyond = if rows > before { mean_row(&tensor, cols)? } else { Vec::new() };
        Ok(Values::Stored { tensor: Box::new(tensor), beyond })
    }

    /// The adapter's matrices over a module of the file.
    fn delta(&self, layer: usize, module: Module) -> Option<Delta<'_>> {
        let &(rank, alpha) = self.adapter.modules.get(&(layer, module))?;
        let before = self.adapter.modules.range(..(layer, module)).count();
        let per_module = if self.adapter.dora { 3 } else { 2 };
        let values = &self.values[per_module * before..];
        Some(Delta {
            rank,
            scaling: self.adapter.scaling(rank, alpha),
            a: &values[0],
            b: &values[1],
            magnitude: self.adapter.dora.then(|| &*values[2]),
        })
    }

    /// The trained rows of embedding or head, if there are any.
    fn token_rows(&self, name: &str) -> Option<(&[u32], &[f32])> {
        let path = name.strip_suffix(".weight")?;
        let infos = self.adapter.matrices(&self.base.config);
        let tokens = infos.iter().zip(&self.values).filter(|(info, _)| info.role == Role::Tokens);
        let mut named = tokens.filter(|(info, _)| {
            let inner = info.name.strip_prefix("base_model.model.");
            inner.is_some_and(|inner| inner.starts_with(path))
        });
        let (_, values) = named.next()?;
        // The head keeps its rows where only those of the embedding were trained.
        (!values.is_empty()).then_some((&self.adapter.tokens, values))
    }
}

/// The mean of all rows of a tensor, `[cols]`.
fn mean_row(tensor: &Tensor<'_>, cols: usize) -> Result<Vec<f32>> {
    let (rows, step) = (tensor.shape[0], chunk_rows(cols));
    let mut mean = vec![0.0_f64; cols];
    for start in (0..rows).step_by(step) {
        for row in tensor.values(start..rows.min(start + step))?.chunks_exact(cols) {
            mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
    }
    Ok(mean.into_iter().map(|sum| (sum / rows as f64) as f32).collect())
}

impl Rows<'_> {
    /// Some rows as bytes of the output's type, made by `threads` threads.
    pub(super) fn encoded(&self, rows: Range<usize>, threads: usize) -> Result<Vec<u8>> {
        let row_bytes = self.cols * size_of_type(self.output.dtype);
        let mut bytes = vec![0; rows.len() * row_bytes];
        let share = rows.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let parts = bytes.chunks_mut(share * row_bytes).enumerate();
            let workers: Vec<_> = parts
                .map(|(part, out)| {
                    let start = rows.start + part * share;
                    let own = start..rows.end.min(start + share);
                    scope.spawn(move || self.encode(own, out))
                })
                .collect();
            let mut results = workers.into_iter().map(|w| w.join().expect("no worker panics"));
            results.try_for_each(|result| result)
        })?;
        Ok(bytes)
    }

    /// Lets go of what the file's pages hold.
    pub(super) fn release(&self) {
        if let Values::Stored { tensor, .. } = &self.values {
            tensor.release();
        }
    }

    fn encode(&self, rows: Range<usize>, out: &mut [u8]) -> Result<()> {
        let values = self.merged(rows)?;
        let is_finite = match self.output.dtype {
            Dtype::F32 => encode(&values, out, |x| (x.to_le_bytes(), x.is_finite())),
            Dtype::F16 => encode(&values, out, |x| {
                let half = f16::from_f32(x);
                (half.to_le_bytes(), half.is_finite())
            }),
            _ => encode(&values, out, |x| {
                let half = bf16::from_f32(x);
                (half.to_le_bytes(), half.is_finite())
            }),
        };
        if is_finite {
            return Ok(());
        }
        let name = &self.output.name;
        let (what, cure) = match values.iter().all(|value| value.is_finite()) {
            true => ("a number that its type cannot hold", "write a wider type: bf16 or f32"),
            false => ("a number that is not finite", "base or adapter are broken"),
        };
        let message = format!("tensor `{name}` would hold {what}");
        Err(Error::Input { message, hint: Some(cure.into()) })
    }

    /// Some rows of the merged tensor.
    fn merged(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let (first, cols) = (rows.start, self.cols);
        let mut values = self.values.rows(rows.clone(), cols)?;
        if let Some(delta) = &self.delta {
            delta.apply(&mut values, cols, first);
        }
        if let Some((tokens, trained)) = self.tokens {
            for (&token, trained) in tokens.iter().zip(trained.chunks_exact(cols)) {
                if rows.contains(&(token as usize)) {
                    values[(token as usize - first) * cols..][..cols].copy_from_slice(trained);
                }
            }
        }
        Ok(values)
    }
}

impl Values<'_> {
    fn rows(&self, rows: Range<usize>, cols: usize) -> Result<Vec<f32>> {
        match self {
            Values::Given(values) => Ok(values[rows.start * cols..rows.end * cols].to_vec()),
            Values::Stored { tensor, beyond } => {
                let stored = rows.start.min(tensor.shape[0])..rows.end.min(tensor.shape[0]);
                let mut values = tensor.values(stored.clone())?;
                for _ in stored.len()..rows.len() {
                    values.extend(beyond);
                }
                Ok(values)
            }
        }
    }
}

impl Delta<'_> {
    /// Changes rows of the layer, from `first_row` on.
    fn apply(&self, values: &mut [f32], cols: usize, first_row: usize) {
        for (row, values) in (first_row..).zip(values.chunks_exact_mut(cols)) {
            let b = &self.b[row * self.rank..][..self.rank];
            for (&b, a) in b.iter().zip(self.a.chunks_exact(cols)) {
                let factor = self.scaling * b;
                values.iter_mut().zip(a).for_each(|(value, &a)| *value += factor * a);
            }
            if let Some(magnitude) = self.magnitude {
                let square: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
                let factor = (f64::from(magnitude[row]) / square.sqrt()) as f32;
                values.iter_mut().for_each(|value| *value *= factor);
            }
        }
    }
}

/// Writes numbers as bytes. Whether all of them are finite.
fn encode<const N: usize>(
    values: &[f32],
    out: &mut [u8],
    convert: impl Fn(f32) -> ([u8; N], bool),
) -> bool {
    let mut all_finite = true;
    for (&value, out) in values.iter().zip(out.chunks_exact_mut(N)) {
        let (bytes, is_finite) = convert(value);
        out.copy_from_slice(&bytes);
        all_finite &= is_finite;
    }
    all_finite
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_bounded_unless_one_row_is_larger() {
        assert_eq!(chunk_rows(4096) * 4096 * 4, CHUNK_BYTES);
        assert_eq!(chunk_rows(CHUNK_BYTES), 1);
        assert!(chunk_rows(1) * 4 <= CHUNK_BYTES);
    }

    /// `W = [[1, 2], [3, 4]]`, `B A = [[1, 1], [2, 2]]`, scaling 2.
    #[test]
    fn rows_follow_the_formulas() {
        let (a, b, magnitude) = ([1.0, 1.0], [1.0, 2.0], [10.0, 5.0]);
        let mut delta = Delta { rank: 1, scaling: 2.0, a: &a, b: &b, magnitude: None };
        let mut whole = vec![1.0, 2.0, 3.0, 4.0];
        delta.apply(&mut whole, 2, 0);
        assert_eq!(whole, [3.0, 4.0, 7.0, 8.0]);
        let mut second = vec![3.0, 4.0];
        delta.apply(&mut second, 2, 1);
        assert_eq!(second, [7.0, 8.0]);
        delta.magnitude = Some(&magnitude);
        let mut first = vec![1.0, 2.0];
        delta.apply(&mut first, 2, 0);
        assert_eq!(first, [6.0, 8.0]);
    }
}
