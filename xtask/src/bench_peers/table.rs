//! Tables for a terminal.

use super::contest::{Held, Standing, Tried};
use super::figures::{Figures, Unit};

/// What a table says where there is nothing.
const NOTHING: &str = "-";

/// A comparison: its sides, who is how much faster, and what was tried on the way.
pub(super) fn text(held: &Held) -> String {
    let unit = held.unit;
    let heads = ["side", "configuration", unit.name(), "runs", "peak MB", "Tunesmith is"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(held.standings.iter().map(|standing| row(held, standing)));
    let mut text = columns(&rows);
    for line in verdicts(held) {
        text += &format!("{line}\n");
    }
    for standing in &held.standings {
        for tried in &standing.tried {
            text += &format!("tried: {}, {}\n", standing.name, attempt(tried, unit));
        }
    }
    text
}

fn row(held: &Held, standing: &Standing) -> Vec<String> {
    let Some(figure) = standing.figure() else {
        let why = standing.failure.as_deref().unwrap_or("was not run");
        return vec![standing.name.clone(), format!("{NOTHING} {why}")];
    };
    let runs: Vec<String> = standing.runs.iter().map(|run| held.unit.show(run.figure)).collect();
    let ratio = held.speed_ratio(standing).filter(|_| standing.is_peer);
    vec![
        standing.name.clone(),
        standing.configuration.clone(),
        held.unit.show(figure),
        runs.join(" "),
        megabytes(standing.peak_bytes()),
        ratio.map_or_else(|| NOTHING.to_owned(), times),
    ]
}

/// How Tunesmith stands to the strongest peer, and to TRL with default settings.
pub(super) fn verdicts(held: &Held) -> Vec<String> {
    let strongest = held.strongest_peer();
    let stock = held.standings.iter().find(|standing| standing.name == "TRL with default settings");
    let verdict = |label: &str, standing: &Standing| {
        let speed = held.speed_ratio(standing)?;
        let memory = held.memory_ratio(standing);
        let memory = memory.map(|ratio| format!(", with {ratio:.2} of its memory"));
        let memory = memory.unwrap_or_default();
        Some(format!("Tunesmith is {} as fast as {label}{memory}", times(speed)))
    };
    let first = strongest.and_then(|peer| {
        let label = format!("the strongest peer ({}, {})", peer.name, peer.configuration);
        verdict(&label, peer)
    });
    let second = stock.and_then(|peer| verdict(&peer.name, peer));
    first.into_iter().chain(second).collect()
}

fn attempt(tried: &Tried, unit: Unit) -> String {
    let outcome = match &tried.outcome {
        Ok(figures) => run(figures, unit),
        Err(why) => why.clone(),
    };
    format!("{}: {outcome}", tried.configuration)
}

/// A run in a few words.
pub(super) fn run(figures: &Figures, unit: Unit) -> String {
    let wall = figures.result["wall_s"].as_f64().unwrap_or_default();
    let peak = megabytes(figures.peak_bytes);
    format!("{} {}, {peak} MB, took {wall:.1} s", unit.show(figures.figure), unit.name())
}

/// A ratio.
pub(super) fn times(ratio: f64) -> String {
    format!("{ratio:.2} times")
}

/// Megabytes of a number of bytes.
pub(super) fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| NOTHING.to_owned(), |bytes| format!("{:.0}", bytes as f64 / 1e6))
}

/// Lays out rows: two columns to the left, figures to the right, with a line under the first row.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        // The last cell of a row that ends early may run on.
        let bound = rows.iter().filter(|row| column + 1 < row.len() || row.len() == count);
        bound.map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text += &format!("{}\n", line.trim_end());
        if at == 0 {
            text += &format!("{}\n", "-".repeat(widths.iter().sum::<usize>() + 2 * (count - 1)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::contest::tests::example;
    use super::*;

    #[test]
    fn a_table_shows_figures_ratios_and_reasons() {
        // The run that chose A's candidate is none of its three.
        let expected = "\
side       configuration  rows/s            runs  peak MB  Tunesmith is
-----------------------------------------------------------------------
Tunesmith  4/6/5            5.00  4.00 6.00 5.00      900             -
A          2/2/3            3.00  2.00 3.00 3.00      900    1.67 times
B          - no module `x`
Tunesmith is 1.67 times as fast as the strongest peer (A, 2/2/3), with 1.00 of its memory
tried: A, -: no module `x`
tried: A, 2/2/3: 2.00 rows/s, 900 MB, took 1.0 s
";
        assert_eq!(text(&example()), expected);
    }
}
