//! What is kept of a sitting: JSON for programs, rows for `docs/log/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::arguments::{Arguments, Part};
use super::contest::{Held, Standing};
use super::figures::Figures;
use super::machine::{self, Machine};
use super::table;

/// A sitting so far.
pub(super) struct Report<'a> {
    arguments: &'a Arguments,
    machine: Machine,
    date: String,
    commit: String,
    tunesmith: Option<String>,
    held: Vec<Held>,
    skipped: Vec<(Part, String)>,
}

impl<'a> Report<'a> {
    /// One that holds nothing yet.
    pub(super) fn new(arguments: &'a Arguments, machine: Machine) -> Self {
        Report {
            arguments,
            machine,
            date: machine::today(),
            commit: machine::commit(),
            tunesmith: machine::version(&arguments.tunesmith),
            held: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// What is measured, where and when.
    pub(super) fn heading(&self) -> String {
        format!(
            "{}, {}, workspace at {}\n{}\n{} threads, {} rounds, medians",
            self.date,
            self.tunesmith.as_deref().unwrap_or("tunesmith of unknown version"),
            self.commit,
            self.machine.shown(),
            self.arguments.threads,
            self.arguments.rounds
        )
    }

    /// Takes in what was measured.
    pub(super) fn add(&mut self, held: Held) {
        self.held.push(held);
    }

    /// Takes in what was not.
    pub(super) fn skip(&mut self, part: Part, why: String) {
        self.skipped.push((part, why));
    }

    /// Writes everything as JSON.
    pub(super) fn write(&self, path: &Path) -> Result<(), String> {
        let text = format!("{:#}\n", self.to_json());
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn to_json(&self) -> Value {
        let Report { arguments, machine, date, commit, tunesmith, held, skipped } = self;
        let skipped = skipped.iter().map(|(part, why)| json!({"part": part.name(), "why": why}));
        json!({
            "date": date,
            "machine": machine.to_json(),
            "commit": commit,
            "tunesmith": tunesmith,
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "quick": arguments.quick,
            "versions": self.versions(),
            "comparisons": held.iter().map(comparison).collect::<Vec<_>>(),
            "skipped": skipped.collect::<Vec<_>>(),
        })
    }

    /// Versions of the peers' packages, as the peers told them.
    fn versions(&self) -> BTreeMap<String, String> {
        let mut versions = BTreeMap::new();
        for held in &self.held {
            versions.extend(versions_of(held));
        }
        versions
    }

    /// Rows for `docs/log/`.
    pub(super) fn markdown(&self) -> String {
        let mut rows: Vec<String> = Vec::new();
        for held in &self.held {
            let versions = versions_of(held);
            let versions = versions.iter().map(|(name, version)| format!("; {name} {version}"));
            rows.push(format!(
                "| {} | {} | {} | `{}`: {}{} | {} |",
                self.date,
                self.machine.shown(),
                self.commit,
                self.arguments.shown(held.part),
                held.title,
                versions.collect::<String>(),
                sentence(held)
            ));
        }
        rows.join("\n")
    }
}

fn versions_of(held: &Held) -> BTreeMap<String, String> {
    let runs = held.standings.iter().flat_map(|standing| &standing.runs);
    let objects = runs.filter_map(|run| run.result["versions"].as_object());
    let pairs = objects.flatten();
    pairs.filter_map(|(name, version)| Some((name.clone(), version.as_str()?.to_owned()))).collect()
}

fn comparison(held: &Held) -> Value {
    json!({
        "part": held.part.name(),
        "title": held.title,
        "unit": held.unit.name(),
        "strongest_peer": held.strongest_peer().map(|peer| &peer.name),
        "sides": held.standings.iter().map(|standing| side(held, standing)).collect::<Vec<_>>(),
    })
}

fn side(held: &Held, standing: &Standing) -> Value {
    let tried = standing.tried.iter().map(|tried| match &tried.outcome {
        Ok(figures) => json!({"configuration": tried.configuration, "run": figures_of(figures)}),
        Err(why) => json!({"configuration": tried.configuration, "failure": why}),
    });
    json!({
        "side": standing.name,
        "is_peer": standing.is_peer,
        "configuration": standing.configuration,
        "figure": standing.figure(),
        "peak_bytes": standing.peak_bytes(),
        "times_as_fast": held.speed_ratio(standing),
        "share_of_memory": held.memory_ratio(standing),
        "failure": standing.failure,
        "runs": standing.runs.iter().map(figures_of).collect::<Vec<_>>(),
        "tried": tried.collect::<Vec<_>>(),
    })
}

fn figures_of(figures: &Figures) -> Value {
    let Figures { figure, peak_bytes, result } = figures;
    json!({"figure": figure, "peak_bytes": peak_bytes, "result": result})
}

/// The sides with figure, memory and ratio, in one sentence.
fn sentence(held: &Held) -> String {
    let clause = |standing: &Standing| {
        let configuration = &standing.configuration;
        let Some(figure) = standing.figure() else {
            let why = standing.failure.as_deref().unwrap_or("not run");
            return format!("{}: no figure ({why})", standing.name);
        };
        let figure = format!("{} {}", held.unit.show(figure), held.unit.name());
        let peak = table::megabytes(standing.peak_bytes());
        let ratio = held.speed_ratio(standing).filter(|_| standing.is_peer);
        let ratio = ratio.map(|ratio| format!(": {}", table::times(ratio))).unwrap_or_default();
        format!("{} ({configuration}) {figure}, {peak} MB{ratio}", standing.name)
    };
    // A bar would end the cell.
    held.standings.iter().map(clause).collect::<Vec<_>>().join("; ").replace('|', "/")
}

#[cfg(test)]
mod tests {
    use super::super::contest::tests::example;
    use super::*;

    #[test]
    fn a_sitting_is_kept_and_told() {
        let arguments = Arguments::parse(&["/peers", "--threads", "2"]).unwrap();
        let mut report = Report::new(&arguments, Machine::look());
        report.add(example());
        report.skip(Part::Random, "no time".to_owned());
        let json = report.to_json();
        assert_eq!(json["comparisons"][0]["strongest_peer"], "A");
        assert_eq!(json["comparisons"][0]["sides"][0]["figure"], 5.0);
        assert_eq!(json["comparisons"][0]["sides"][2]["failure"], "no module `x`");
        assert_eq!(json["skipped"][0]["part"], "random");
        let markdown = report.markdown();
        let cells: Vec<&str> = markdown.split(" | ").collect();
        assert_eq!(cells.len(), 5, "{markdown}");
        assert!(cells[3].starts_with("`cargo xtask bench-peers DIR --only sft"), "{markdown}");
        assert!(cells[4].contains("Tunesmith (4/6/5) 5.00 rows/s"), "{markdown}");
        assert!(cells[4].contains("B: no figure (no module `x`)"), "{markdown}");
    }
}
