//! Whether a preference run learned more than trivial rules: its best model beside them on the held-out pairs.

use data::{Packing, Reads, Sequence, Sequences, Unit};
use eval::preference::{self, Answer, LengthFinding, Pair, Report, TrainingPair, Verdict};
use text::Tokenizer;

use super::course::VALIDATION_CHUNK;
use crate::engine::Engine;
use crate::step::StepPlan;
use crate::{Error, Result};

/// Training pairs whose words are looked at, the first ones.
const MOST_TRAINING_PAIRS: usize = 50_000;

/// The texts of a pair, and what the base thinks of them.
struct Held {
    texts: [String; 2],
    tokens: [usize; 2],
    base: Option<[f64; 2]>,
}

/// What the model makes of the first validation rows, by the objective.
#[derive(Clone, Copy)]
pub(super) struct Margins<'a> {
    /// As it is now.
    pub(super) now: &'a [f64],
    /// As it was before its first step; empty where they are measured against a reference.
    pub(super) begun: &'a [f64],
}

/// Compares a model with trivial rules. None where the rows are not pairs.
pub(super) fn compare(
    [train, validation]: [&Sequences; 2],
    engine: &mut Engine<'_>,
    packing: &Packing,
    margins: Margins<'_>,
    tokenizer: &Tokenizer,
    seed: u64,
) -> Result<Option<Report>> {
    let packing = Packing { reads: Reads::Targets, keep_units: false, ..*packing };
    let count = margins.now.len();
    let mut held = Vec::with_capacity(count);
    for chunk in validation.chunks(VALIDATION_CHUNK) {
        let mut units = chunk?;
        units.truncate(count - held.len());
        if units.iter().any(|unit| unit.sequences.len() != 2) {
            return Ok(None);
        }
        held.extend(held_out(engine, &units, &packing, tokenizer)?);
        if held.len() == count {
            break;
        }
    }
    let begun = |index| (margins.begun.len() == count).then(|| margins.begun[index]);
    let pairs = held.iter().zip(margins.now).enumerate();
    let pairs = pairs.map(|(index, (held, &margin))| held.pair(margin, begun(index)));
    let pairs: Vec<Pair<'_>> = pairs.collect();
    let training = training_texts(train, tokenizer)?;
    let training: Vec<TrainingPair<'_>> =
        training.iter().map(|[chosen, rejected]| TrainingPair { chosen, rejected }).collect();
    preference::report(&pairs, &training, seed)
        .map_err(|error| Error::refused(error.to_string(), "lower `train.learning_rate`"))
}

impl Held {
    fn pair(&self, margin: f64, begun: Option<f64>) -> Pair<'_> {
        let answer = |side: usize| Answer {
            text: &self.texts[side],
            tokens: self.tokens[side],
            base_logprob: self.base.map(|base| base[side]),
        };
        Pair { margin, margin_begun: begun, chosen: answer(0), rejected: answer(1) }
    }
}

fn held_out(
    engine: &mut Engine<'_>,
    units: &[Unit],
    packing: &Packing,
    tokenizer: &Tokenizer,
) -> Result<Vec<Held>> {
    let plan = StepPlan::new(units, packing);
    let mut sums = vec![0.0; plan.sequences.len()];
    let base = engine.base_logprobs(&plan)?;
    for (micro, logprobs) in plan.micros.iter().zip(base.iter().flatten()) {
        for (target, logprob) in micro.batch.targets.iter().zip(logprobs) {
            sums[target.sequence as usize] += f64::from(*logprob);
        }
    }
    let held = |(index, unit): (usize, &Unit)| {
        let [chosen, rejected] = [&unit.sequences[0], &unit.sequences[1]];
        Held {
            texts: [chosen, rejected].map(|sequence| answer_text(sequence, tokenizer)),
            tokens: [chosen, rejected].map(Sequence::supervised),
            base: base.as_ref().map(|_| [sums[2 * index], sums[2 * index + 1]]),
        }
    };
    Ok(units.iter().enumerate().map(held).collect())
}

/// The learned tokens of a sequence as text. Those that are no text are left out: words are all that is looked at.
fn answer_text(sequence: &Sequence, tokenizer: &Tokenizer) -> String {
    let learned = sequence.tokens.iter().zip(&sequence.weights);
    let ids: Vec<u32> =
        learned.filter(|(_, weight)| **weight != 0.0).map(|(token, _)| *token).collect();
    tokenizer.decode(&ids, true).unwrap_or_default()
}

fn training_texts(rows: &Sequences, tokenizer: &Tokenizer) -> Result<Vec<[String; 2]>> {
    let mut texts = Vec::new();
    for chunk in rows.chunks(VALIDATION_CHUNK) {
        for unit in chunk? {
            if let [chosen, rejected] = &unit.sequences[..] {
                texts.push([chosen, rejected].map(|answer| answer_text(answer, tokenizer)));
            }
        }
        if texts.len() >= MOST_TRAINING_PAIRS {
            break;
        }
    }
    Ok(texts)
}

/// What a report says that the user should know at once: a name, the message and what to do.
pub(super) fn warnings(report: &Report) -> Vec<(&'static str, String, &'static str)> {
    let mut all = Vec::new();
    if let Some(finding @ LengthFinding::Meter { .. }) = &report.length {
        let hint = "balance the lengths of the pairs, or use a loss over means per token (`simpo`, or `objective.loss: sigmoid_norm` of dpo)";
        all.push(("length-meter", finding.to_string(), hint));
    }
    if let Verdict::NotClear { .. } = &report.verdict {
        let hint = "the held-out pairs do not show that the model learned more than this rule: use more pairs, or pairs in which the rule fails";
        all.push(("not-clear-of-a-trivial-rule", report.verdict.to_string(), hint));
    }
    all
}
