//! Where the time of a training step goes, pass by pass.

use compute::Backend;
use train::trainer::Trial;

use super::clock::operations;
use super::row::Row;
use crate::error::Result;

/// How often each kind of step is run; the fastest counts.
const RUNS: usize = 3;

/// A row for every pass: what a step takes with the reference live, with its log-probabilities known, and without a
/// gradient. The head is a row of its own, and counts in no other.
pub(super) fn passes(backend: &mut dyn Backend, trial: &mut Trial) -> Result<Vec<Row>> {
    trial.know_reference(backend)?;
    let step = fastest(backend, |backend| trial.step(backend))?;
    let known = fastest(backend, |backend| trial.step_with_known_reference(backend))?;
    let forward = fastest(backend, |backend| trial.forward(backend))?;
    let update = known.of("gradient norm") + known.of("optimizer");
    let mut parts = vec![("policy forward", forward.beside_head())];
    if trial.has_reference() {
        parts.push(("reference forward", step.beside_head() - known.beside_head()));
    }
    parts.push(("backward", known.beside_head() - forward.beside_head() - update));
    parts.push(("head", step.of("head")));
    parts.push(("update", update));
    let row = |(name, seconds): (&'static str, f64)| Row {
        name: format!("  {:4.1} %  pass: {name}", 100.0 * seconds / step.total),
        // Of two measurements the longer one may be the one that does less.
        seconds: seconds.max(0.0),
        more: vec![("pass", name.into())],
        ..Row::default()
    };
    Ok(parts.into_iter().map(row).collect())
}

/// The time of a run, in all and by kind of operation.
struct Times {
    total: f64,
    operations: Vec<(&'static str, f64)>,
}

impl Times {
    fn of(&self, name: &str) -> f64 {
        self.operations.iter().filter(|(known, _)| *known == name).map(|(_, seconds)| seconds).sum()
    }

    fn beside_head(&self) -> f64 {
        self.total - self.of("head")
    }
}

fn fastest(
    backend: &mut dyn Backend,
    mut work: impl FnMut(&mut dyn Backend) -> train::Result<f64>,
) -> Result<Times> {
    let mut fastest: Option<Times> = None;
    for _ in 0..RUNS {
        let (total, operations) = operations(backend, |backend| Ok(work(backend).map(drop)?))?;
        if fastest.as_ref().is_none_or(|fastest| total < fastest.total) {
            fastest = Some(Times { total, operations });
        }
    }
    Ok(fastest.expect("it was run"))
}
