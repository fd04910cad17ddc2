//! How long something takes.

use std::collections::BTreeMap;
use std::time::Instant;

use compute::{Backend, Op, Result, Transfer, Wrapper};

use super::row::Row;

/// What takes so long in all need not be measured again.
const LONG: f64 = 60.0;

/// Runs `work` once unmeasured, then `seconds` long and at least `least` times, fewer only where that is long; the
/// median.
pub(super) fn median<E>(
    seconds: f64,
    least: usize,
    mut work: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<f64, E> {
    work()?;
    let begun = Instant::now();
    let mut times = Vec::new();
    loop {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
        let passed = begun.elapsed().as_secs_f64();
        if passed >= seconds && (times.len() >= least || passed >= LONG) {
            return Ok(middle(times));
        }
    }
}

/// The median, of two middle ones the mean.
pub(super) fn middle(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let half = times.len() / 2;
    match times.len() % 2 {
        1 => times[half],
        _ => 0.5 * (times[half - 1] + times[half]),
    }
}

/// Runs `work` once and says where its time goes: a row for every kind of operation, the longest first.
pub(super) fn profile(
    backend: &mut dyn Backend,
    work: impl FnOnce(&mut dyn Backend) -> crate::error::Result<()>,
) -> crate::error::Result<Vec<Row>> {
    let (total, mut operations) = operations(backend, work)?;
    let rest = total - operations.iter().map(|(_, seconds)| seconds).sum::<f64>();
    operations.push(("between operations", rest));
    let row = |(name, seconds): (&str, f64)| {
        let name = format!("  {:4.1} %  {name}", 100.0 * seconds / total);
        Row { name, seconds, ..Row::default() }
    };
    Ok(operations.into_iter().map(row).collect())
}

/// Runs `work` once: its seconds in all, and those of every kind of operation, the longest first.
pub(super) fn operations(
    backend: &mut dyn Backend,
    work: impl FnOnce(&mut dyn Backend) -> crate::error::Result<()>,
) -> crate::error::Result<(f64, Vec<(&'static str, f64)>)> {
    let mut clocked = Clocked { backend, seconds: BTreeMap::new() };
    let start = Instant::now();
    work(&mut clocked)?;
    let total = start.elapsed().as_secs_f64();
    let mut operations: Vec<_> = clocked.seconds.into_iter().collect();
    operations.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok((total, operations))
}

/// A backend that writes down how long every kind of operation takes.
struct Clocked<'a> {
    backend: &'a mut dyn Backend,
    seconds: BTreeMap<&'static str, f64>,
}

impl Clocked<'_> {
    fn clock<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut dyn Backend) -> Result<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let done = work(self.backend);
        *self.seconds.entry(name).or_default() += start.elapsed().as_secs_f64();
        done
    }
}

fn name(op: &Op<'_>) -> &'static str {
    match op {
        Op::Fill { .. } => "fill",
        Op::Accumulate { .. } => "accumulate",
        Op::Cast { .. } => "cast",
        Op::Gather(_) | Op::Scatter(_) => "gather and scatter",
        Op::Embed(_) => "embedding",
        Op::RmsNorm(_) => "norm",
        Op::RmsNormBackward(_) => "norm backward",
        Op::Linear(list) if is_transposed(list) => "linear backward",
        Op::Linear(_) => "linear",
        Op::WeightGradient(_) => "weight gradient",
        Op::RopeTable(_) | Op::Rope(_) => "rope",
        Op::Attention(_) => "attention",
        Op::AttentionBackward(_) => "attention backward",
        Op::Gated(_) => "activation",
        Op::GatedBackward(_) => "activation backward",
        Op::Dropout(_) => "dropout",
        Op::Head(_) | Op::HeadDivergence(_) => "head",
        Op::Sample(_) => "sample",
        Op::SumSquares { .. } => "gradient norm",
        Op::Optimize(_) | Op::Refresh(_) => "optimizer",
        _ => "other",
    }
}

fn is_transposed(list: &[compute::op::Linear<'_>]) -> bool {
    list.iter().flat_map(|linear| linear.terms).any(|term| term.transposed)
}

impl Wrapper for Clocked<'_> {
    fn inner(&self) -> &dyn Backend {
        &*self.backend
    }

    fn inner_mut(&mut self) -> &mut dyn Backend {
        &mut *self.backend
    }

    fn run_op(&mut self, op: Op<'_>) -> Result<()> {
        self.clock(name(&op), |backend| {
            backend.run(op)?;
            backend.sync()
        })
    }

    fn transfer(
        &mut self,
        direction: Transfer,
        copy: &mut dyn FnMut(&mut dyn Backend) -> Result<()>,
    ) -> Result<()> {
        let name = match direction {
            Transfer::Upload => "upload",
            Transfer::Read => "read",
        };
        self.clock(name, copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_a_mean() {
        assert_eq!(middle(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(middle(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn work_is_run_once_more_than_measured() {
        let mut runs = 0;
        let seconds = median(0.0, 3, || {
            runs += 1;
            Ok::<(), ()>(())
        });
        assert!(seconds.unwrap() >= 0.0);
        assert_eq!(runs, 4);
    }
}
