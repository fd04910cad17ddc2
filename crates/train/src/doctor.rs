//! What goes wrong in a run although no number is infinite: found from the figures of its steps and from its sample
//! answers.
//!
//! Each finding is made once. All that it rests on is kept in checkpoints, so a resumed run finds the same at the same
//! steps. Bounds are constants here with their units; docs/methods/findings.md explains each.

mod rollouts;

use std::collections::BTreeMap;

use eval::grader::repeated_share;
use serde::{Deserialize, Serialize};

use crate::events::StepEvent;

/// A finding about the run itself.
#[derive(Debug)]
pub struct Kind {
    /// Its stable name, as `stop_on` takes it.
    pub id: &'static str,
    /// What to do about it.
    pub hint: &'static str,
}

/// The chosen answers became less likely.
pub static CHOSEN_FALLS: Kind = Kind {
    id: "chosen-log-prob-falls",
    hint: "lower `train.learning_rate`, raise `objective.beta`, or add a likelihood term (`objective.rpo_alpha` of dpo)",
};
/// The rejected answers became impossible.
pub static REJECTED_VANISHES: Kind = Kind {
    id: "rejected-driven-to-nothing",
    hint: "lower `train.learning_rate` or raise `objective.beta`: the model unlearns more than the pairs show",
};
/// There is nothing left to learn from.
pub static SATURATED: Kind = Kind {
    id: "margins-saturated",
    hint: "stop here, or lower `train.epochs` or `train.learning_rate`: further steps only memorise pairs",
};
/// A reward model does not tell answers apart.
pub static AT_CHANCE: Kind = Kind {
    id: "accuracy-at-chance",
    hint: "raise `train.learning_rate`, and look at some pairs: if nobody can tell them apart, or half of them are swapped, there is nothing to learn",
};
/// The policy left the reference.
pub static FAR: Kind = Kind {
    id: "far-from-reference",
    hint: "raise `objective.beta` or lower `train.learning_rate`",
};
/// The model no longer ends its turn.
pub static END_LOST: Kind = Kind {
    id: "end-of-turn-lost",
    hint: "lower `train.learning_rate`; `tunesmith check` shows whether the answers of the data end",
};
/// Sample answers repeat themselves.
pub static REPEATS: Kind = Kind {
    id: "samples-repeat",
    hint: "lower `train.learning_rate` or stop earlier; look at the samples",
};
/// Sample answers are cut off.
pub static ENDLESS: Kind = Kind {
    id: "samples-do-not-end",
    hint: "lower `train.learning_rate`, or raise `train.sample.max_new_tokens` if answers are meant to be long",
};

/// All kinds of runs over rows, and of samples.
static KINDS: [&Kind; 8] = [
    &CHOSEN_FALLS,
    &REJECTED_VANISHES,
    &SATURATED,
    &AT_CHANCE,
    &FAR,
    &END_LOST,
    &REPEATS,
    &ENDLESS,
];

/// All kinds.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.into_iter().chain(rollouts::KINDS)
}

/// Figures are smoothed: a step's own counts so much.
const NEW: f64 = 0.2;
/// Steps before anything is found in smoothed figures.
const FEWEST_STEPS: u64 = 5;
/// The chosen answers may fall by so many nats a token.
const CHOSEN_FALL: f64 = 0.5;
/// The rejected ones by so many.
const REJECTED_FALL: f64 = 3.0;
/// Of a margin of 8 the loss is 3e-4.
const LARGE_MARGIN: f64 = 8.0;
/// A reward model whose loss is higher has something left to learn: rows may ask for a margin of their own.
const SMALL_LOSS: f64 = 0.05;
/// Pairs that a reward model sees before its accuracy is judged, and that it is judged by each time. At a true accuracy
/// of 0.6 the interval of so many holds 0.5 once in 200,000 times.
const JUDGED_PAIRS: f64 = 1000.0;
/// Mean squared log-ratio a token, halved, in nats: 4 is a factor of 17 in the probability of a token, in the root mean
/// square. Runs whose answers were good came to 2, and one to 4.1; runs whose answers were nonsense ended at 15 and 26
/// (docs/experiments.md).
const DRIFT: f64 = 4.0;
/// The end of an answer is lost below this probability, if it was likelier by [`END_FALL`].
const END_PROBABILITY: f64 = 0.2;
/// In nats.
const END_FALL: f64 = 1.5;
/// Share of an answer's four-word runs that it has said before.
const REPEATED: f64 = 0.3;
/// How much of it, or of the answers that end, is a change.
const CHANGE: f64 = 0.2;

/// Something that was found, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Name of its [`Kind`].
    pub id: String,
    /// After this step.
    pub step: u64,
    /// What was found, with its numbers.
    pub message: String,
}

impl Found {
    /// Its kind.
    pub fn kind(&self) -> Option<&'static Kind> {
        kinds().find(|kind| kind.id == self.id)
    }
}

/// What has been seen of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Steps so far.
    steps: u64,
    /// Smoothed figures of steps.
    recent: BTreeMap<String, f64>,
    /// The same after [`FEWEST_STEPS`].
    early: BTreeMap<String, f64>,
    /// The largest smoothed reward of rollouts.
    #[serde(default)]
    best_reward: Option<f64>,
    /// Pairs of a reward model, and how many of them it told apart: of those that are judged next, or of the first ones.
    #[serde(default)]
    told_apart: [f64; 2],
    /// Whether the first [`JUDGED_PAIRS`] are over.
    #[serde(default)]
    is_judged: bool,
    /// Share of repetition and of answers that end, of the first samples.
    first_samples: Option<[f64; 2]>,
    /// What was found.
    pub found: Vec<Found>,
}

/// A sample answer.
#[derive(Clone, Copy, Debug)]
pub struct SampledAnswer<'a> {
    /// Its text.
    pub text: &'a str,
    /// Whether the model ended it.
    pub ended: bool,
}

/// Finds what goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Doctor {
    /// Rewards in the figures are log-ratios (with a reference) or log-probabilities times this.
    pub beta: Option<f64>,
}

impl Doctor {
    /// What the figures of a step show, beside what was found before.
    pub fn after_step(&self, history: &mut History, event: &StepEvent) -> Vec<Found> {
        history.steps += 1;
        let loss = ("loss".to_owned(), event.loss);
        let figures = event.metrics.clone().into_iter().chain([loss]);
        for (name, value) in figures.filter(|(_, value)| value.is_finite()) {
            let recent = history.recent.entry(name).or_insert(value);
            *recent += NEW * (value - *recent);
        }
        if let Some(&reward) = history.recent.get("reward") {
            history.best_reward = Some(history.best_reward.map_or(reward, |best| best.max(reward)));
        }
        let at_chance = at_chance(history, event);
        if history.steps < FEWEST_STEPS {
            return Vec::new();
        }
        if history.steps == FEWEST_STEPS {
            history.early = history.recent.clone();
        }
        let found = [
            self.chosen_falls(history),
            self.rejected_vanishes(history),
            saturated(history),
            at_chance,
            far(history),
            end_lost(history),
        ];
        let of_rollouts = rollouts::found(history);
        history.record(event.step, found.into_iter().flatten().chain(of_rollouts))
    }

    /// What sample answers show, beside what was found before. The first ones are what later ones are compared with.
    pub fn after_samples(
        &self,
        history: &mut History,
        step: u64,
        answers: &[SampledAnswer<'_>],
    ) -> Vec<Found> {
        if answers.is_empty() {
            return Vec::new();
        }
        let count = answers.len() as f64;
        let repeated = answers.iter().map(|answer| repetition(answer.text)).sum::<f64>() / count;
        let ended = answers.iter().filter(|answer| answer.ended).count() as f64 / count;
        let [first_repeated, first_ended] = *history.first_samples.get_or_insert([repeated, ended]);
        let mut found = Vec::new();
        if repeated > REPEATED && repeated > first_repeated + CHANGE {
            let message = format!(
                "{:.0} % of the sample answers repeat four words that they said before; at first {:.0} %",
                100.0 * repeated,
                100.0 * first_repeated
            );
            found.push((&REPEATS, message));
        }
        if ended < first_ended - CHANGE {
            let message = format!(
                "{:.0} % of the sample answers end within the limit; at first {:.0} %",
                100.0 * ended,
                100.0 * first_ended
            );
            found.push((&ENDLESS, message));
        }
        history.record(step, found)
    }

    /// Nats per token by which answers of a side became likelier; with a reference than under it, else than at first.
    fn change(&self, history: &History, side: &str) -> Option<f64> {
        let tokens = history.recent.get(&format!("lengths/{side}"))?.max(1.0);
        if history.recent.contains_key("drift") {
            return Some(history.recent.get(&format!("rewards/{side}"))? / self.beta? / tokens);
        }
        let logps = format!("logps/{side}");
        let early =
            history.early.get(&logps)? / history.early.get(&format!("lengths/{side}"))?.max(1.0);
        Some(history.recent.get(&logps)? / tokens - early)
    }

    fn chosen_falls(&self, history: &History) -> Option<(&'static Kind, String)> {
        let change = self.change(history, "chosen").filter(|change| *change < -CHOSEN_FALL)?;
        let message = format!(
            "the log-probability of the chosen answers fell by {:.2} nats a token; the bound is {CHOSEN_FALL}",
            -change
        );
        Some((&CHOSEN_FALLS, message))
    }

    fn rejected_vanishes(&self, history: &History) -> Option<(&'static Kind, String)> {
        let change = self.change(history, "rejected").filter(|change| *change < -REJECTED_FALL)?;
        let message = format!(
            "the log-probability of the rejected answers fell by {:.2} nats a token; the bound is {REJECTED_FALL}",
            -change
        );
        Some((&REJECTED_VANISHES, message))
    }
}

/// The accuracy of a reward model over pairs, of figures by their names. A classifier has no margins, and judged steps
/// have none either.
fn of_scores(figures: &BTreeMap<String, f64>) -> Option<f64> {
    figures.get("accuracy").filter(|_| figures.contains_key("rewards/margins")).copied()
}

fn saturated(history: &History) -> Option<(&'static Kind, String)> {
    let margin = *history.recent.get("rewards/margins")?;
    let accuracy = match of_scores(&history.recent) {
        Some(accuracy) => (*history.recent.get("loss")? < SMALL_LOSS).then_some(accuracy)?,
        None => *history.recent.get("rewards/accuracies")?,
    };
    (margin > LARGE_MARGIN && accuracy > 0.99).then(|| {
        let message = format!("all pairs of the last steps are told apart, by a margin of {margin:.1}; the bound is {LARGE_MARGIN}");
        (&SATURATED, message)
    })
}

/// Judges pairs by the thousand, the first ones left out.
fn at_chance(history: &mut History, event: &StepEvent) -> Option<(&'static Kind, String)> {
    let accuracy = of_scores(&event.metrics).filter(|accuracy| accuracy.is_finite())?;
    let rows = event.rows as f64;
    let [pairs, right] = &mut history.told_apart;
    (*pairs, *right) = (*pairs + rows, *right + accuracy * rows);
    if *pairs < JUDGED_PAIRS {
        return None;
    }
    let [pairs, right] = std::mem::take(&mut history.told_apart);
    let is_judged = std::mem::replace(&mut history.is_judged, true);
    let share = right / pairs;
    // The normal interval of a share.
    let half = 1.96 * (share * (1.0 - share) / pairs).sqrt();
    (is_judged && share - half <= 0.5).then(|| {
        let message = format!(
            "the better answer has the higher score in {share:.3} of the last {pairs} pairs (95 % interval {:.3} to {:.3}), no better than a coin",
            share - half,
            share + half
        );
        (&AT_CHANCE, message)
    })
}

fn far(history: &History) -> Option<(&'static Kind, String)> {
    let drift = *history.recent.get("drift").filter(|drift| **drift > DRIFT)?;
    let message = format!(
        "the answers of the data are {drift:.2} nats a token from the reference (half the mean squared log-ratio); the bound is {DRIFT}"
    );
    Some((&FAR, message))
}

fn end_lost(history: &History) -> Option<(&'static Kind, String)> {
    let name = "logps/chosen_end";
    let (now, early) = (*history.recent.get(name)?, *history.early.get(name)?);
    (now < END_PROBABILITY.ln() && now < early - END_FALL).then(|| {
        let message = format!("the token that ends a chosen answer has a log-probability of {now:.2}; after the first steps it was {early:.2}");
        (&END_LOST, message)
    })
}

impl History {
    /// Keeps what was not found before, and returns it.
    fn record(
        &mut self,
        step: u64,
        found: impl IntoIterator<Item = (&'static Kind, String)>,
    ) -> Vec<Found> {
        let mut new = Vec::new();
        for (kind, message) in found {
            if self.found.iter().all(|known| known.id != kind.id) {
                let found = Found { id: kind.id.to_owned(), step, message };
                self.found.push(found.clone());
                new.push(found);
            }
        }
        new
    }
}

/// Share of the runs of four words that stand in the text before.
pub fn repetition(text: &str) -> f64 {
    repeated_share(&text.split_whitespace().collect::<Vec<_>>(), 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCTOR: Doctor = Doctor { beta: Some(0.1) };

    /// Figures of a healthy run, with some of them changed.
    fn figures(changes: &[(&str, f64)]) -> BTreeMap<String, f64> {
        let healthy = [
            ("rewards/chosen", 0.1),
            ("rewards/rejected", -0.4),
            ("rewards/margins", 0.5),
            ("rewards/accuracies", 0.8),
            ("logps/chosen", -60.0),
            ("logps/rejected", -70.0),
            ("logps/chosen_end", -0.1),
            ("lengths/chosen", 40.0),
            ("lengths/rejected", 40.0),
            ("drift", 0.01),
        ];
        let mut figures: BTreeMap<String, f64> =
            healthy.map(|(name, value)| (name.to_owned(), value)).into();
        for (name, value) in changes {
            figures.insert((*name).to_owned(), *value);
        }
        figures
    }

    fn event(step: u64, metrics: BTreeMap<String, f64>) -> StepEvent {
        StepEvent { step, rows: 100, metrics, ..StepEvent::default() }
    }

    /// Names of what is found when figures go from healthy ones to these.
    fn found(changes: &[(&str, f64)]) -> Vec<String> {
        let mut history = History::default();
        let mut all = Vec::new();
        for step in 1..=10 {
            all.extend(DOCTOR.after_step(&mut history, &event(step, figures(&[]))));
        }
        assert!(all.is_empty(), "a healthy run: {all:?}");
        for step in 11..=60 {
            all.extend(DOCTOR.after_step(&mut history, &event(step, figures(changes))));
        }
        assert_eq!(all, history.found);
        all.into_iter().map(|found| found.id).collect()
    }

    #[test]
    fn every_finding_of_a_step_has_figures_that_show_it() {
        assert_eq!(found(&[]), [""; 0]);
        assert_eq!(found(&[("rewards/chosen", -2.4)]), ["chosen-log-prob-falls"]);
        assert_eq!(found(&[("rewards/rejected", -13.0)]), ["rejected-driven-to-nothing"]);
        let saturated = [("rewards/margins", 9.0), ("rewards/accuracies", 1.0)];
        assert_eq!(found(&saturated), ["margins-saturated"]);
        assert_eq!(found(&[("drift", 6.0)]), ["far-from-reference"]);
        assert_eq!(found(&[("logps/chosen_end", -2.0)]), ["end-of-turn-lost"]);
        assert_eq!(found(&[("rewards/chosen", f64::NAN)]), [""; 0]);
    }

    #[test]
    fn without_a_reference_answers_are_compared_with_the_first_steps() {
        let mut history = History::default();
        for step in 1..=60 {
            let logps = if step < 10 { -60.0 } else { -90.0 };
            let mut figures = figures(&[("logps/chosen", logps)]);
            figures.remove("drift");
            DOCTOR.after_step(&mut history, &event(step, figures));
        }
        assert_eq!(history.found.len(), 1, "{:?}", history.found);
        assert_eq!(history.found[0].id, "chosen-log-prob-falls");
    }

    /// What is found in sixty steps of a reward model, each over a hundred pairs.
    fn of_scores(margin: f64, loss: f64, accuracy: impl Fn(u64) -> f64) -> Vec<(String, u64)> {
        let mut history = History::default();
        for step in 1..=60 {
            let metrics =
                [("rewards/margins", margin), ("accuracy", accuracy(step)), ("mean_reward", 30.0)];
            let metrics = metrics.map(|(name, value)| (name.to_owned(), value)).into();
            let event = StepEvent { loss, ..event(step, metrics) };
            Doctor { beta: None }.after_step(&mut history, &event);
            history = serde_json::from_str(&serde_json::to_string(&history).unwrap()).unwrap();
        }
        history.found.into_iter().map(|found| (found.id, found.step)).collect()
    }

    #[test]
    fn a_reward_model_that_is_done_or_learns_nothing_is_found() {
        let found = |id: &str, step| vec![(id.to_owned(), step)];
        assert_eq!(of_scores(2.0, 0.4, |_| 0.75), []);
        assert_eq!(of_scores(9.0, 1e-3, |_| 1.0), found("margins-saturated", 5));
        // Rows that ask for a margin of 9 are not learned yet.
        assert_eq!(of_scores(9.0, 0.6, |_| 1.0), []);
        // The first thousand pairs are not judged.
        assert_eq!(of_scores(0.0, 0.7, |_| 0.52), found("accuracy-at-chance", 20));
        assert_eq!(of_scores(0.0, 0.7, |step| if step <= 10 { 0.4 } else { 0.6 }), []);
        assert_eq!(of_scores(0.0, 0.7, |step| if step <= 30 { 0.6 } else { 0.3 })[0].1, 40);
    }

    #[test]
    fn samples_that_repeat_or_never_end_are_found() {
        let answer = |text, ended| SampledAnswer { text, ended };
        let fine = [answer("one two three four five six", true), answer("a b c d", true)];
        let again = "no no no no no no no no no no";
        let mut history = History::default();
        assert!(DOCTOR.after_samples(&mut history, 1, &fine).is_empty());
        assert!(DOCTOR.after_samples(&mut history, 2, &fine).is_empty());
        let found = DOCTOR.after_samples(&mut history, 3, &[answer(again, true), fine[0]]);
        assert_eq!(found[0].id, "samples-repeat");
        let found = DOCTOR.after_samples(&mut history, 4, &[answer(again, false), fine[0]]);
        assert_eq!(found.len(), 1, "each once: {found:?}");
        assert_eq!((found[0].id.as_str(), found[0].step), ("samples-do-not-end", 4));
        // A model that repeated itself from the first says so at no later step.
        let mut history = History::default();
        assert!(DOCTOR.after_samples(&mut history, 1, &[answer(again, false)]).is_empty());
        assert!(DOCTOR.after_samples(&mut history, 2, &[answer(again, false)]).is_empty());
    }

    #[test]
    fn a_history_that_was_kept_goes_on_the_same() {
        let mut whole = History::default();
        let mut kept = History::default();
        for step in 1..=30 {
            let event = event(step, figures(&[("rewards/chosen", -0.3 * step as f64)]));
            let found = DOCTOR.after_step(&mut whole, &event);
            assert_eq!(DOCTOR.after_step(&mut kept, &event), found);
            kept = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        }
        assert_eq!(kept, whole);
        assert!(!whole.found.is_empty());
    }
}
