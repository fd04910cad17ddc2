//! Where a run's optimizer steps come from, and by which figure its model is judged.

use compute::Backend;
use data::{Cursor, Extent, Order, Packing, Sequence, Sequences, Unit};
use eval::classification::{Classified, macro_f1};
use model::Config;
use serde::{Deserialize, Serialize};
use text::Metadata;

use super::Control;
use super::reference_cache::{Filled, ReferenceCache};
use crate::Result;
use crate::checkpoint::{RolloutState, State};
use crate::engine::Engine;
use crate::events::Event;
use crate::method::{Figure, Method};
use crate::models::Models;
use crate::objective::{Coupling, Objective};
use crate::recipe::RolloutConfig;
use crate::step::StepPlan;

/// Validation rows whose losses are taken at a time: what is read of them stays small, however many there are.
pub(super) const VALIDATION_CHUNK: usize = 1024;

/// Where the next optimizer step comes from. A method that learns from rows goes through them; one that learns from
/// answers of its own has them made.
pub(super) trait Course {
    /// The step that begins where the run stands.
    fn next(&mut self, at: &mut Stand<'_>) -> Result<Next>;

    /// Computes what is computed once, before the first step. `go_on` is asked now and then.
    fn begin(
        &mut self,
        _engine: &mut Engine<'_>,
        _packing: &Packing,
        _go_on: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Filled>> {
        Ok(None)
    }

    /// Forgets what was computed of the reference, which is another one now.
    fn forget_reference(&mut self) {}

    /// The loss of its steps.
    fn objective(&self) -> &dyn Objective;

    /// That of the value head, where it has a model of its own.
    fn value_objective(&self) -> Option<&dyn Objective> {
        None
    }

    /// Judges the model as it stands; none where there is nothing to judge it by, or where the run was told to end.
    fn judge(&mut self, at: &mut Stand<'_>) -> Result<Option<Judged>>;

    /// The rows that are trained and validated on, where there are such.
    fn rows(&self) -> Option<[&Sequences; 2]> {
        None
    }

    /// Optimizer steps of the whole run, those that are done included.
    fn total_steps(&mut self, state: &State) -> u64;
}

/// Where a run stands, and what it has at hand there.
pub(super) struct Stand<'a> {
    pub(super) models: &'a Models,
    pub(super) backend: &'a mut dyn Backend,
    pub(super) state: &'a State,
    pub(super) metadata: &'a Metadata,
    pub(super) packing: &'a Packing,
    /// Whether layers are computed twice.
    pub(super) recompute: bool,
    /// What the caller wants, asked often where something takes long.
    pub(super) listen: &'a mut dyn FnMut() -> Control,
    /// Tells an event.
    pub(super) tell: &'a mut dyn FnMut(&Event) -> Result<()>,
}

impl Stand<'_> {
    /// The engine that trains the policy.
    pub(super) fn engine(&mut self) -> Engine<'_> {
        self.models.engine(self.backend, self.recompute)
    }
}

/// What comes next in a run.
pub(super) enum Next {
    Step(Box<StepData>),
    /// Nothing: the caller wants the run to end, before the step was complete.
    Stopped,
    /// Nothing: the rows are through.
    End,
}

/// One optimizer step.
pub(super) struct StepData {
    pub(super) plan: StepPlan,
    /// Rows, pairs or prompts.
    pub(super) rows: usize,
    /// Where the next step begins.
    pub(super) next: Cursor,
    /// Passes over the rows so far.
    pub(super) epoch: f64,
    /// Where the next step stands among the rollouts.
    pub(super) rollout: RolloutState,
    /// Figures beside those of the objective.
    pub(super) metrics: Vec<(String, f64)>,
}

/// How a model did on the validation rows.
pub(super) struct Judged {
    /// The objective's loss; none where answers are judged by their rewards.
    pub(super) loss: Option<f64>,
    /// Further figures.
    pub(super) metrics: Vec<(String, f64)>,
    /// The figure by which steps are compared.
    pub(super) score: Score,
    /// What every unit adds to the loss, before it is divided, `[units]`.
    pub(super) shares: Vec<f64>,
    /// By how much the better answer of every unit has the higher reward, `[units]`; none of a unit without two answers.
    pub(super) margins: Vec<Option<f64>>,
    /// The class of every row and the one that the model gives it; empty where there are no classes.
    pub(super) classified: Vec<Classified>,
}

/// A figure by which steps are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// `loss`, or the name of a metric.
    pub by: String,
    /// Its value.
    pub value: f64,
    /// Which way is better.
    pub higher_is_better: bool,
    /// The step after which the reference was refreshed that the figure is measured against; 0 where it is as it began,
    /// or where there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reference_step: u64,
}

fn is_zero(step: &u64) -> bool {
    *step == 0
}

impl Score {
    pub(super) fn new(figure: Figure, value: f64) -> Self {
        Score {
            by: figure.name.to_owned(),
            value,
            higher_is_better: figure.higher_is_better,
            reference_step: 0,
        }
    }

    /// Whether this one is better than another of the same figure against the same reference. Any other one says
    /// nothing.
    pub fn is_better_than(&self, other: &Score) -> bool {
        let is_same = self.by == other.by && self.reference_step == other.reference_step;
        match (is_same, self.higher_is_better) {
            (false, _) => true,
            (true, true) => self.value > other.value,
            (true, false) => self.value < other.value,
        }
    }
}

/// The rows of a data set in shuffled epochs.
pub(super) struct Rows {
    pub(super) train: Sequences,
    pub(super) validation: Sequences,
    pub(super) order: Order,
    pub(super) extent: Extent,
    pub(super) objective: Box<dyn Objective>,
    /// That of a value head with a model of its own.
    pub(super) value_objective: Option<Box<dyn Objective>>,
    pub(super) judged_by: Figure,
    /// Whether what rows begin with is computed once.
    pub(super) shares_prefixes: bool,
    /// Log-probabilities of the reference, where they are computed once.
    pub(super) reference: Option<ReferenceCache>,
    /// Where rows are prompts, what is sampled behind them.
    pub(super) rollout: Option<RolloutConfig>,
    /// Whether two of the sampled answers are learned from, as a pair.
    pub(super) learns_from_pairs: bool,
    /// By how many tokens prompts of a teacher are longer, at most.
    pub(super) teacher_longer_by: usize,
}

/// How the micro-batches of a method are made: what its objective reads, and what it must see at once.
pub(super) fn packing(
    config: &Config,
    objective: &dyn Objective,
    tokens: usize,
    shares_prefixes: bool,
) -> Packing {
    let packing = Packing::new(tokens);
    Packing {
        keep_units: objective.coupling() != Coupling::Sequence,
        reads: objective.reads(),
        drop_unread: true,
        min_shared: if shares_prefixes { packing.min_shared } else { 0 },
        apart_beyond: config.long_beyond(),
        ..packing
    }
}

impl Rows {
    /// The step over these units.
    pub(super) fn plan(
        &self,
        units: &[Unit],
        packing: &Packing,
        carried: &[f64],
        is_validation: bool,
    ) -> StepPlan {
        let auxiliary = self.objective.auxiliary(units);
        let auxiliary =
            (!auxiliary.is_empty()).then(|| Box::new(StepPlan::new(&auxiliary, packing)));
        let carried = carried.to_vec();
        let reference = self.reference.as_ref().filter(|cache| cache.is_filled());
        let reference = reference.map(|cache| cache.of(units));
        StepPlan { auxiliary, carried, is_validation, reference, ..StepPlan::new(units, packing) }
    }

    /// Answers of a rollout, or of a validation, at most.
    pub(super) fn most_answers(&mut self, rollout: &RolloutConfig) -> usize {
        let prompts = self.order.step(Cursor::default()).map_or(1, |step| step.units.len());
        let held_out = self.validation.units() * rollout.validation_samples;
        (prompts * rollout.group_size).max(held_out).max(1)
    }

    /// How often the run passes over its rows.
    pub(super) fn passes(&mut self) -> f64 {
        match self.extent {
            Extent::Epochs(epochs) => epochs,
            Extent::Steps(steps) => {
                let first = self.order.step(Cursor::default()).map(|step| step.next);
                first.map_or(0.0, |next| steps as f64 * self.order.epochs_at(next))
            }
        }
    }

    /// Tokens of the longest that stands whole in a micro-batch: a sequence, or a unit that must not be cut.
    pub(super) fn longest(&self) -> usize {
        let longest = |sequences: &Sequences| match self.objective.coupling() {
            _ if let Some(rollout) = self.rollout => {
                let prompt = sequences.longest().map_or(0, |(_, tokens)| tokens);
                prompt + self.teacher_longer_by + rollout.longest_answer()
            }
            Coupling::Unit | Coupling::Step => sequences.longest_unit().1,
            Coupling::Sequence => sequences.longest().map_or(0, |(_, tokens)| tokens),
        };
        longest(&self.train).max(longest(&self.validation)).max(1)
    }

    /// What the first `count` steps take, and the longest unit alone.
    pub(super) fn first_steps(&mut self, count: usize) -> Result<Vec<Vec<Unit>>> {
        let (mut steps, mut cursor) = (Vec::new(), Cursor::default());
        for _ in 0..count {
            let Some(step) = self.order.step(cursor) else { break };
            cursor = step.next;
            steps.push(self.train.units_at(&step.units)?);
        }
        steps.push(vec![self.train.unit(self.train.longest_unit().0)?]);
        if let Some(rollout) = self.rollout {
            let answers = if self.learns_from_pairs { 2 } else { rollout.group_size };
            let answered = |unit: &Unit| answered(unit, answers, rollout.longest_answer());
            steps = steps.iter().map(|units| units.iter().map(answered).collect()).collect();
        }
        Ok(steps)
    }
}

impl Course for Rows {
    fn begin(
        &mut self,
        engine: &mut Engine<'_>,
        packing: &Packing,
        go_on: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Filled>> {
        let Some(cache) = &mut self.reference else { return Ok(None) };
        cache.fill(engine, [&self.train, &self.validation], packing, go_on).map(Some)
    }

    fn forget_reference(&mut self) {
        if let Some(cache) = &mut self.reference {
            cache.forget();
        }
    }

    fn next(&mut self, at: &mut Stand<'_>) -> Result<Next> {
        let Some(step) = self.order.step(at.state.cursor) else { return Ok(Next::End) };
        let units = self.train.units_at(&step.units)?;
        Ok(Next::Step(Box::new(StepData {
            plan: self.plan(&units, at.packing, &at.state.carried, false),
            rows: step.units.len(),
            next: step.next,
            epoch: self.order.epochs_at(step.next),
            rollout: RolloutState::default(),
            metrics: Vec::new(),
        })))
    }

    fn objective(&self) -> &dyn Objective {
        &*self.objective
    }

    /// Means over all validation rows: of the loss as over one step, of metrics over units.
    fn judge(&mut self, at: &mut Stand<'_>) -> Result<Option<Judged>> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        let (mut loss, mut divisor, mut shares, mut margins) = (0.0, 0.0, Vec::new(), Vec::new());
        let mut classified = Vec::new();
        // Of each figure the sum over units, and how many units it is of.
        let mut sums: Vec<(&'static str, f64, f64)> = Vec::new();
        for chunk in self.validation.chunks(VALIDATION_CHUNK) {
            let plan = self.plan(&chunk?, at.packing, &at.state.carried, true);
            let outcome = at.engine().evaluate(&plan, &*self.objective)?;
            let (of_chunk, units_of_chunk) =
                (self.objective.divisor(&plan.totals), plan.totals.units as f64);
            loss += outcome.loss * of_chunk;
            divisor += of_chunk;
            margins.extend(outcome.margins);
            classified.extend(outcome.classified);
            shares.extend(outcome.shares.iter().map(|share| share * of_chunk));
            for (name, value) in outcome.metrics {
                let sum = value * units_of_chunk;
                match sums.iter_mut().find(|(known, ..)| *known == name) {
                    Some((_, total, units)) => {
                        (*total, *units) = (*total + sum, *units + units_of_chunk);
                    }
                    None => sums.push((name, sum, units_of_chunk)),
                }
            }
        }
        let loss = loss / divisor;
        let mut metrics: Vec<_> =
            sums.into_iter().map(|(name, total, units)| (name.to_owned(), total / units)).collect();
        if !classified.is_empty() {
            let classes =
                classified.iter().map(|row| row.label.max(row.predicted) as usize + 1).max();
            metrics.push(("macro_f1".to_owned(), macro_f1(&classified, classes.unwrap_or(0))));
        }
        let figure = self.judged_by;
        let metric = metrics.iter().find(|(name, _)| name == figure.name);
        let score = Score::new(figure, metric.map_or(loss, |(_, value)| *value));
        let loss = Some(loss);
        Ok(Some(Judged { loss, metrics, score, shares, margins, classified }))
    }

    fn rows(&self) -> Option<[&Sequences; 2]> {
        Some([&self.train, &self.validation])
    }

    /// Counted from where the run stands: a run that is made longer goes on behind the last step of the
    /// shorter one, which may have been short.
    fn total_steps(&mut self, state: &State) -> u64 {
        if let Extent::Steps(steps) = self.extent {
            return steps;
        }
        let each = self.rollout.map_or(1, |rollout| rollout.steps());
        // Of the rollout that the run stands in, some steps are done.
        let (mut cursor, mut steps) = (state.cursor, state.step - state.rollout.steps);
        while let Some(step) = self.order.step(cursor) {
            cursor = step.next;
            steps += each;
        }
        steps
    }
}

/// A prompt with so many answers of so many tokens, no two of them alike.
fn answered(prompt: &Unit, answers: usize, tokens: usize) -> Unit {
    let [prompt] = &prompt.sequences[..] else { unreachable!("a prompt is one sequence") };
    let answer = |number: usize| {
        let mut sequence: Sequence = prompt.clone();
        sequence.weights.fill(0.0);
        sequence.role = number as u8;
        sequence.tokens.extend(std::iter::repeat_n(number as u32, tokens));
        sequence.weights.resize(sequence.tokens.len(), 1.0);
        sequence
    };
    Unit { sequences: (0..answers).map(answer).collect(), ..Unit::default() }
}

/// Refuses rows with too few sequences for the method.
pub(super) fn check_rows(method: &Method, sequences: &Sequences) -> Result<()> {
    let smallest = sequences.smallest_unit();
    if sequences.is_empty() || smallest.len() >= method.fewest_sequences {
        return Ok(());
    }
    let place = sequences.get(smallest.start)?.place;
    let message =
        format!("{place}: method `{}` compares answers, and the row has one", method.name);
    let hint = "give rows with a chosen and a rejected answer, or with several that have scores";
    Err(crate::Error::refused(message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_knows_which_way_is_better() {
        let score = |by: &'static str, higher_is_better, value| {
            Score::new(Figure { name: by, higher_is_better }, value)
        };
        let [low, high] = [0.2, 0.7].map(|value| score("loss", false, value));
        assert!(low.is_better_than(&high) && !high.is_better_than(&low));
        let [few, many] = [0.2, 0.7].map(|value| score("accuracy", true, value));
        assert!(many.is_better_than(&few) && !few.is_better_than(&many));
        assert!(!many.is_better_than(&many));
        // The figure was changed on resume: what was best by the old one is not compared.
        assert!(low.is_better_than(&many));
        // The reference was refreshed: right after it the loss is that of a model that knows nothing.
        let later = Score { reference_step: 8, ..high.clone() };
        assert!(
            later.is_better_than(&low)
                && !Score { value: 0.8, ..later.clone() }.is_better_than(&later)
        );
    }
}
