//! A comparison and how it is held: candidates are tried, the best of each side runs in rounds.

use std::time::Duration;

use super::arguments::Part;
use super::figures::{Figures, Reading, Unit, median};
use super::runner::Invocation;

/// A run that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);
/// Nobody is told to stop before this.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// A candidate that takes so many times as long as the best before it is not the best.
const HOPELESS: u32 = 3;

/// Who is compared with whom at what.
#[derive(Debug)]
pub(super) struct Comparison {
    /// What kind of work.
    pub(super) part: Part,
    /// What exactly.
    pub(super) title: String,
    /// What is counted.
    pub(super) unit: Unit,
    /// The first is Tunesmith.
    pub(super) sides: Vec<Side>,
}

/// One of those that are compared.
#[derive(Debug)]
pub(super) struct Side {
    /// As tables name it.
    pub(super) name: String,
    /// Whether it is measured against.
    pub(super) is_peer: bool,
    /// Ways to run it, likely winners first. One of several is chosen by trying them all.
    pub(super) candidates: Vec<Candidate>,
}

/// A way to run a side.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// What sets it apart.
    pub(super) configuration: String,
    /// How it is run.
    pub(super) invocation: Invocation,
    /// Where its figure stands.
    pub(super) reading: Reading,
}

/// A comparison that has been held.
#[derive(Debug)]
pub(super) struct Held {
    /// What kind of work.
    pub(super) part: Part,
    /// What exactly.
    pub(super) title: String,
    /// What is counted.
    pub(super) unit: Unit,
    /// In the order of the sides.
    pub(super) standings: Vec<Standing>,
}

/// How a side did.
#[derive(Debug)]
pub(super) struct Standing {
    /// The side.
    pub(super) name: String,
    /// Whether it is measured against.
    pub(super) is_peer: bool,
    /// The candidate that ran in the rounds.
    pub(super) configuration: String,
    /// Its runs.
    pub(super) runs: Vec<Figures>,
    /// The candidates that it was chosen from.
    pub(super) tried: Vec<Tried>,
    /// Why there are fewer runs than rounds.
    pub(super) failure: Option<String>,
}

/// A candidate that ran once.
#[derive(Debug)]
pub(super) struct Tried {
    /// What sets it apart.
    pub(super) configuration: String,
    /// What it showed, or why nothing.
    pub(super) outcome: Result<Figures, String>,
}

/// Runs a candidate, of the side with this name, for so long at most.
pub(super) trait Run {
    /// One run.
    fn run(
        &mut self,
        side: &str,
        candidate: &Candidate,
        unit: Unit,
        limit: Duration,
    ) -> Result<Figures, String>;
}

impl Comparison {
    /// Chooses a candidate for every side, then lets the sides take turns.
    ///
    /// Every other round goes backwards, so that no side always runs on the machine that another
    /// one has warmed up.
    pub(super) fn hold(self, rounds: usize, runner: &mut dyn Run) -> Held {
        let Comparison { part, title, unit, sides } = self;
        let mut chosen: Vec<(Standing, Option<Candidate>)> =
            sides.into_iter().map(|side| side.choose(unit, runner)).collect();
        let mut order: Vec<usize> = (0..chosen.len()).collect();
        for _ in 0..rounds {
            for &at in &order {
                let (standing, candidate) = &mut chosen[at];
                let Some(candidate) = candidate else { continue };
                if standing.failure.is_some() {
                    continue;
                }
                match runner.run(&standing.name, candidate, unit, LONGEST) {
                    Ok(figures) => standing.runs.push(figures),
                    Err(why) => standing.failure = Some(why),
                }
            }
            order.reverse();
        }
        let standings = chosen.into_iter().map(|(standing, _)| standing).collect();
        Held { part, title, unit, standings }
    }
}

impl Side {
    /// The candidate that joins the rounds, if any works, and what is known of the side so far.
    fn choose(self, unit: Unit, runner: &mut dyn Run) -> (Standing, Option<Candidate>) {
        let Side { name, is_peer, candidates } = self;
        let several = candidates.len() > 1;
        let tried = if several { try_all(&name, &candidates, unit, runner) } else { Vec::new() };
        let at = if several { best(&tried, unit) } else { Some(0) };
        let candidate = at.and_then(|at| candidates.get(at)).cloned();
        let configuration = candidate.as_ref().map(|it| it.configuration.clone());
        let mut reasons = tried.iter().filter_map(|tried| tried.outcome.as_ref().err());
        let failure = reasons.next().cloned().filter(|_| candidate.is_none());
        let standing = Standing {
            name,
            is_peer,
            configuration: configuration.unwrap_or_default(),
            runs: Vec::new(),
            tried,
            failure,
        };
        (standing, candidate)
    }
}

/// The place of the fastest.
fn best(tried: &[Tried], unit: Unit) -> Option<usize> {
    let figures = tried.iter().enumerate();
    let figures = figures.filter_map(|(at, tried)| Some((at, tried.outcome.as_ref().ok()?.figure)));
    let faster = |best: (usize, f64), next: (usize, f64)| {
        if unit.ratio(next.1, best.1) > 1.0 { next } else { best }
    };
    figures.reduce(faster).map(|(at, _)| at)
}

/// Runs every candidate once; those that are hopelessly slow are stopped.
fn try_all(name: &str, candidates: &[Candidate], unit: Unit, runner: &mut dyn Run) -> Vec<Tried> {
    let mut quickest: Option<f64> = None;
    let mut limit = LONGEST;
    let mut tried = Vec::new();
    for candidate in candidates {
        let outcome = runner.run(name, candidate, unit, limit);
        if let Some(wall) = outcome.as_ref().ok().and_then(|ran| ran.result["wall_s"].as_f64()) {
            let wall = quickest.map_or(wall, |quickest| quickest.min(wall));
            quickest = Some(wall);
            limit = (Duration::from_secs_f64(wall) * HOPELESS).clamp(PATIENCE, LONGEST);
        }
        tried.push(Tried { configuration: candidate.configuration.clone(), outcome });
    }
    tried
}

impl Standing {
    /// The middle figure of the runs.
    pub(super) fn figure(&self) -> Option<f64> {
        median(&self.runs.iter().map(|run| run.figure).collect::<Vec<_>>())
    }

    /// The middle of what the runs held.
    pub(super) fn peak_bytes(&self) -> Option<u64> {
        let peaks = self.runs.iter().filter_map(|run| run.peak_bytes);
        median(&peaks.map(|peak| peak as f64).collect::<Vec<_>>()).map(|peak| peak as u64)
    }
}

impl Held {
    /// Tunesmith, which everything is set against.
    pub(super) fn ours(&self) -> Option<&Standing> {
        self.standings.iter().find(|standing| !standing.is_peer)
    }

    /// How many times as fast as this side Tunesmith is.
    pub(super) fn speed_ratio(&self, other: &Standing) -> Option<f64> {
        Some(self.unit.ratio(self.ours()?.figure()?, other.figure()?))
    }

    /// Tunesmith's memory as a share of this side's.
    pub(super) fn memory_ratio(&self, other: &Standing) -> Option<f64> {
        Some(self.ours()?.peak_bytes()? as f64 / other.peak_bytes()? as f64)
    }

    /// The fastest of those that Tunesmith is measured against.
    pub(super) fn strongest_peer(&self) -> Option<&Standing> {
        let peers = self.standings.iter().filter(|standing| standing.is_peer);
        let with_figure = peers.filter_map(|peer| Some((peer, peer.figure()?)));
        let faster = |best: (_, f64), next: (_, f64)| {
            if self.unit.ratio(next.1, best.1) > 1.0 { next } else { best }
        };
        with_figure.reduce(faster).map(|(peer, _)| peer)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A run that shows what the configuration says: figures by `/`, one a run, `-` for a failure.
    struct Script {
        done: Vec<String>,
    }

    impl Run for Script {
        fn run(
            &mut self,
            side: &str,
            candidate: &Candidate,
            _: Unit,
            _: Duration,
        ) -> Result<Figures, String> {
            let label = format!("{side} {}", candidate.configuration);
            let before = self.done.iter().filter(|done| **done == label).count();
            self.done.push(label);
            let words: Vec<&str> = candidate.configuration.split('/').collect();
            let figure = words[before.min(words.len() - 1)].parse();
            let figure = figure.map_err(|_| "no module `x`".to_owned())?;
            Ok(Figures { figure, peak_bytes: Some(900_000_000), result: json!({"wall_s": 1.0}) })
        }
    }

    /// A comparison of Tunesmith and two peers as it was held, and the order of runs.
    fn held(unit: Unit, sides: &[&[&str]]) -> (Held, Vec<String>) {
        let names = ["Tunesmith", "A", "B"];
        let side = |(name, configurations): (&str, &&[&str])| Side {
            name: name.to_owned(),
            is_peer: name != "Tunesmith",
            candidates: configurations
                .iter()
                .map(|&configuration| Candidate {
                    configuration: configuration.to_owned(),
                    invocation: Invocation {
                        program: "/none".into(),
                        arguments: Vec::new(),
                        leaves: None,
                    },
                    reading: Reading::Wall,
                })
                .collect(),
        };
        let sides = names.into_iter().zip(sides).map(side).collect();
        let mut script = Script { done: Vec::new() };
        let comparison = Comparison { part: Part::Sft, title: "rows".to_owned(), unit, sides };
        (comparison.hold(3, &mut script), script.done)
    }

    /// For the tests of tables.
    pub(in super::super) fn example() -> Held {
        held(Unit::RowsPerSecond, &[&["4/6/5"], &["-", "2/2/3"], &["-"]]).0
    }

    #[test]
    fn sides_take_turns_and_every_other_round_goes_backwards() {
        let (held, order) = held(Unit::RowsPerSecond, &[&["9"], &["1"], &["2"]]);
        let order: String = order.iter().map(|label| label.chars().next().unwrap()).collect();
        assert_eq!(order, "TABBATTAB");
        assert_eq!(held.strongest_peer().unwrap().name, "B");
        assert_eq!(held.speed_ratio(held.strongest_peer().unwrap()), Some(4.5));
    }

    #[test]
    fn the_best_candidate_joins_the_rounds() {
        let (held, order) = held(Unit::Seconds, &[&["2"], &["9", "-", "3/4", "5"], &["7"]]);
        assert_eq!(order.iter().filter(|label| *label == "A 3/4").count(), 4);
        let peer = &held.standings[1];
        assert_eq!((peer.configuration.as_str(), peer.figure()), ("3/4", Some(4.0)));
        assert_eq!(peer.tried.len(), 4);
        assert!(peer.tried[1].outcome.is_err());
        assert_eq!(held.strongest_peer().unwrap().name, "A");
        assert_eq!(held.speed_ratio(peer), Some(2.0));
    }

    #[test]
    fn who_fails_has_a_reason_and_no_figure() {
        let held = example();
        assert_eq!(held.ours().unwrap().figure(), Some(5.0));
        assert_eq!(held.standings[1].figure(), Some(3.0));
        let failed = &held.standings[2];
        assert_eq!(failed.failure.as_deref(), Some("no module `x`"));
        assert_eq!(held.speed_ratio(failed), None);
        assert_eq!(held.strongest_peer().unwrap().name, "A");
    }
}
