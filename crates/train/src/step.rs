//! A step is planned before its first forward: its micro-batches, and the totals
//! that losses divide by.

use std::ops::Range;
use std::sync::Arc;

use data::{Micro, Packing, Sequence, Unit, pack_units};
use model::HeadOutputs;
use serde_json::{Map, Value};
use text::Target;

/// What a step's loss may divide by, summed over all of its micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Sum of the targets' weights.
    pub weight: f64,
    /// Tokens that count in the loss: targets, or last tokens where only these are read.
    pub targets: usize,
    /// Sequences.
    pub sequences: usize,
    /// Units: rows, pairs.
    pub units: usize,
    /// Tokens as rendered.
    pub tokens: usize,
    /// Tokens that are computed, shared prefixes once.
    pub tokens_computed: usize,
}

/// Which unit a sequence of the step belongs to, and what it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceInfo {
    /// Its unit, counted in the order of the step. The same row twice makes two units.
    pub unit: u32,
    /// Role within it.
    pub role: u8,
}

/// One optimizer step, planned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepPlan {
    /// Its micro-batches.
    pub micros: Vec<Micro>,
    /// Its sequences, those of a unit next to each other; [`text::Target::sequence`] points here.
    pub sequences: Vec<SequenceInfo>,
    /// What the rows say beside tokens, by unit; see [`Unit::side`].
    pub sides: Vec<Map<String, Value>>,
    /// Sequences that are no rows of the step; see [`Objective::auxiliary`](crate::objective::Objective::auxiliary).
    pub auxiliary: Option<Box<StepPlan>>,
    /// What the objective carries from step to step, as it was before this one.
    pub carried: Vec<f64>,
    /// Whether the step is a validation, which changes nothing that is carried.
    pub is_validation: bool,
    /// Log-probabilities under the reference that are known already, by sequence and [`text::Target::place`].
    pub reference: Option<Vec<Arc<[f32]>>>,
    /// The final norm's output of a teacher where each target is predicted, by sequence, `[targets * C]` of its C; none
    /// without a teacher.
    pub teacher: Option<Vec<Arc<[f32]>>>,
    /// What is known of sampled sequences, by sequence; none of rows of a data set.
    pub sampled: Option<Vec<Sampled>>,
    /// Whether the policy is still the one that sampled them.
    pub is_on_policy: bool,
    /// What losses divide by.
    pub totals: Totals,
}

/// What is known of a sequence that a policy sampled. Columns are over its targets, by [`text::Target::place`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampled {
    /// Log-probability of each target when it was drawn, at the sampling temperature, `[targets]`.
    pub logprobs: Arc<[f32]>,
    /// The same under the policy before its first update on the answer, where an older or another one sampled it: the
    /// ratio of the loss is to this one. Empty where the policy itself sampled.
    pub proximal: Arc<[f32]>,
    /// By how much each is better than expected, `[targets]`.
    pub advantages: Arc<[f64]>,
    /// What the value head gave before each when it was drawn, `[targets]`; empty without such a head.
    pub values: Arc<[f32]>,
    /// What the value head is to give, `[targets]`; empty without such a head.
    pub returns: Arc<[f64]>,
}

impl StepPlan {
    /// Packs the units of one step.
    pub fn new(units: &[Unit], packing: &Packing) -> Self {
        let numbered = (0..).zip(units);
        let infos = numbered.flat_map(|(unit, rows)| {
            rows.sequences.iter().map(move |row| SequenceInfo { unit, role: row.role })
        });
        let infos: Vec<SequenceInfo> = infos.collect();
        let sequences: Vec<&Sequence> = units.iter().flat_map(|unit| &unit.sequences).collect();
        let numbers: Vec<u32> = infos.iter().map(|info| info.unit).collect();

        let mut plan = Self::from_micros(pack_units(&sequences, &numbers, packing), infos);
        plan.sides = units.iter().map(|unit| unit.side.clone()).collect();
        plan.totals.tokens = units.iter().map(Unit::tokens).sum();
        // In the order of sequences, not of micro-batches: the sum must not depend on where these end.
        let weights = sequences.iter().flat_map(|sequence| &sequence.weights);
        plan.totals.weight = weights.map(|&weight| f64::from(weight)).sum();
        plan
    }

    /// A plan of micro-batches that were packed elsewhere, counted as if nothing were shared.
    pub fn from_micros(micros: Vec<Micro>, sequences: Vec<SequenceInfo>) -> Self {
        let mut totals = Totals { sequences: sequences.len(), ..Totals::default() };
        for batch in micros.iter().map(|micro| &micro.batch) {
            totals.tokens_computed += batch.tokens.len();
            totals.tokens += batch.tokens.len();
            totals.targets += match batch.targets.len() {
                0 => batch.last_reads.len(),
                targets => targets,
            };
            totals.weight += batch.targets.iter().map(|t| f64::from(t.weight)).sum::<f64>();
        }
        totals.units = sequences.last().map_or(0, |last| last.unit as usize + 1);
        StepPlan {
            micros,
            sequences,
            sides: vec![Map::new(); totals.units],
            totals,
            ..StepPlan::default()
        }
    }

    /// A column over targets, by sequence and [`Target::place`]. `outputs` are of the micro-batches; `value` gets those
    /// of one, the index of a target in it, and the target.
    pub fn by_sequence(
        &self,
        outputs: &[HeadOutputs],
        value: impl Fn(&HeadOutputs, usize, &Target) -> f32,
    ) -> Vec<Arc<[f32]>> {
        let mut values: Vec<Vec<f32>> = vec![Vec::new(); self.sequences.len()];
        for (micro, outputs) in self.micros.iter().zip(outputs) {
            for (index, target) in micro.batch.targets.iter().enumerate() {
                let of_sequence = &mut values[target.sequence as usize];
                let place = target.place as usize;
                of_sequence.resize(of_sequence.len().max(place + 1), 0.0);
                of_sequence[place] = value(outputs, index, target);
            }
        }
        values.into_iter().map(Arc::from).collect()
    }

    /// The tokens that are computed, micro-batch by micro-batch.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        self.micros.iter().flat_map(|micro| micro.batch.tokens.iter().copied())
    }

    /// The units that stand in a micro-batch, as ranges of the step's sequences. `sequences` are those of the
    /// micro-batch, ascending.
    ///
    /// Panics where one of them is cut: the packing must keep units together.
    pub fn units_of(&self, sequences: &[usize]) -> Vec<Range<usize>> {
        let unit = |index: usize| self.sequences[index].unit;
        let runs = sequences.chunk_by(|&left, &right| unit(left) == unit(right));
        let whole = |run: &[usize]| {
            let range = run[0]..run[0] + run.len();
            let is_inside = |index: usize| {
                self.sequences.get(index).is_some_and(|other| other.unit == unit(run[0]))
            };
            let before = range.start.checked_sub(1).is_some_and(is_inside);
            assert!(!before && !is_inside(range.end), "a unit stands whole in a micro-batch");
            range
        };
        runs.map(whole).collect()
    }
}
