//! The report of an audit: prepared rows in figures, and some of them as the model sees them.

use text::Tokenizer;

use crate::audit::preferences::Tally;
use crate::audit::size_guide;
use crate::report::{
    Bin, Cut, FileReport, Lengths, Packed, Pairs, Report, Sample, SampleToken, Split,
};
use crate::{
    Cursor, Extent, Order, Packing, Prepared, Result, Sequence, Sequences, StepSize, Wanted,
    pack_units,
};

/// Limits whose cost is shown.
const LIMITS: [usize; 8] = [128, 256, 512, 1024, 2048, 4096, 8192, 16384];
/// Bins of the histogram.
const BINS: usize = 12;
/// Sequences that are packed to see how well they pack.
const PACKED: usize = 8192;

/// How a run would take the rows.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How much a step takes.
    pub step_size: StepSize,
    /// How steps are packed.
    pub packing: Packing,
    /// Seed of the order.
    pub seed: u64,
    /// Rows to show.
    pub samples: usize,
}

/// What there is to say about prepared rows.
pub fn report(prepared: &Prepared, view: &View<'_>) -> Result<Report> {
    let Prepared { train, stats, findings, files, left_out, split, wanted, .. } = prepared;
    let preferences = &prepared.preferences;
    let extent = Extent::Epochs(1.0);
    let mut order = match train.is_empty() {
        true => None,
        false => Some(Order::new(train.order_units()?, view.seed, view.step_size, extent)),
    };
    let packing = match &mut order {
        Some(order) => packed(train, order, &view.packing)?,
        None => Packed::default(),
    };
    let mut rows_left_out = by_reason(left_out.iter().map(|row| row.message.as_str()));
    if stats.rows_mixed_out > 0 {
        rows_left_out.push(("not taken by the mixture".to_owned(), stats.rows_mixed_out));
    }
    let mut all = Vec::with_capacity(train.len());
    train.each(|outline| all.push(outline.tokens as u32))?;
    Ok(Report {
        rows_in: stats.rows_in,
        rows_trained: stats.rows,
        rows_validation: stats.rows_validation,
        rows_left_out,
        files: files.iter().map(file).collect(),
        findings: findings.iter().cloned().collect(),
        sequences: stats.sequences,
        tokens: stats.tokens,
        tokens_supervised: stats.supervised_tokens,
        lengths: lengths(all),
        pairs: pairs(preferences),
        packing,
        steps_per_epoch: order.map(|mut order| order.steps() as usize),
        split: split.as_ref().map(|split| Split {
            by: split.by.clone(),
            rows: split.rows,
            parts: split.parts,
        }),
        size_guide: size_guide(stats.rows).0.to_owned(),
        samples: samples(train, *wanted, view)?,
        seconds: 0.0,
    })
}

fn file(file: &crate::prepare::FileSummary) -> FileReport {
    FileReport {
        path: file.path.clone(),
        purpose: file.purpose,
        format: file.format.clone(),
        why: file.why.clone(),
        rows: file.rows,
    }
}

fn pairs(tally: &Tally) -> Option<Pairs> {
    (tally.pairs > 0).then(|| Pairs {
        count: tally.pairs,
        chosen_longer: tally.chosen_longer,
        rejected_longer: tally.rejected_longer,
        identical: tally.identical,
        length_ratio: tally.length_ratio(),
    })
}

/// Messages and how often each occurs, the most frequent first.
fn by_reason<'a>(messages: impl Iterator<Item = &'a str>) -> Vec<(String, usize)> {
    let mut sorted: Vec<&str> = messages.collect();
    sorted.sort_unstable();
    let runs = sorted.chunk_by(|a, b| a == b);
    let mut counted: Vec<_> = runs.map(|run| (run[0].to_owned(), run.len())).collect();
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counted
}

fn lengths(mut all: Vec<u32>) -> Lengths {
    all.sort_unstable();
    let Some(longest) = all.last().map(|&longest| longest as usize) else {
        return Lengths::default();
    };
    let rank = |share: f64| all[((share * all.len() as f64).ceil() as usize).max(1) - 1] as usize;
    let up_to = |most: usize| all.partition_point(|&len| len as usize <= most);
    let width = longest.div_ceil(BINS).max(1);
    let bin = |index: usize| {
        let (from, to) = (index * width + 1, (index + 1) * width + 1);
        Bin { from, to, count: up_to(to - 1) - up_to(from - 1) }
    };
    let cut = |max_seq_len: usize| {
        let longer = &all[up_to(max_seq_len)..];
        let tokens = longer.iter().map(|&len| len as usize - max_seq_len).sum();
        Cut { max_seq_len, sequences: longer.len(), tokens }
    };
    Lengths {
        median: rank(0.5),
        p95: rank(0.95),
        longest,
        bins: (0..longest.div_ceil(width)).map(bin).collect(),
        cuts: LIMITS.into_iter().filter(|&limit| limit < longest).map(cut).collect(),
    }
}

/// Packs the first steps of an epoch.
fn packed(train: &Sequences, order: &mut Order, packing: &Packing) -> Result<Packed> {
    let (mut cursor, mut packed) = (Cursor::default(), Packed::default());
    let (mut tokens, mut room) = (0, 0);
    while packed.sequences < PACKED
        && let Some(step) = order.step(cursor)
    {
        cursor = step.next;
        let sequences = train.get_all(step.units.iter().cloned().flatten())?;
        let units = (0..).zip(&step.units).flat_map(|(unit, rows)| rows.clone().map(move |_| unit));
        let micros = pack_units(&sequences, &units.collect::<Vec<_>>(), packing);
        packed.sequences += sequences.len();
        packed.micro_batches += micros.len();
        packed.tokens_computed +=
            micros.iter().map(|micro| micro.batch.tokens.len()).sum::<usize>();
        // A sequence above the budget makes its micro-batch larger.
        room +=
            micros.iter().map(|m| m.batch.tokens.len().max(packing.budget_tokens)).sum::<usize>();
        tokens += step.tokens;
    }
    packed.micro_batch_tokens = packing.budget_tokens;
    packed.fill = packed.tokens_computed as f64 / room.max(1) as f64;
    packed.shared = 1.0 - packed.tokens_computed as f64 / tokens.max(1) as f64;
    Ok(packed)
}

/// Rows from all over the set.
fn samples(train: &Sequences, wanted: Wanted, view: &View<'_>) -> Result<Vec<Sample>> {
    let count = view.samples.min(train.len());
    (0..count)
        .map(|index| sample(&train.get(index * train.len() / count)?, view.tokenizer, wanted))
        .collect()
}

/// What a sequence is within its row.
fn role(wanted: Wanted, role: u8) -> String {
    match (wanted, role) {
        (Wanted::Preferences, 0) => "chosen".into(),
        (Wanted::Preferences, _) => "rejected".into(),
        (Wanted::Feedback, 0) => "desirable".into(),
        (Wanted::Feedback, _) => "undesirable".into(),
        // The best first; a pair has two.
        (Wanted::Rewards, rank) => format!("answer {}", rank + 1),
        _ => "row".into(),
    }
}

fn sample(sequence: &Sequence, tokenizer: &Tokenizer, wanted: Wanted) -> Result<Sample> {
    let text = |id: u32| tokenizer.decode(&[id], false).unwrap_or_default();
    let token = |(&id, &weight): (&u32, &f32)| SampleToken {
        id,
        text: text(id),
        weight,
        special: tokenizer.is_special(id),
    };
    Ok(Sample {
        place: sequence.place.to_string(),
        role: role(wanted, sequence.role),
        tokens: sequence.tokens.iter().zip(&sequence.weights).map(token).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequences_of_a_row_are_told_apart() {
        for (wanted, first, second) in [
            (Wanted::Conversations, "row", "row"),
            (Wanted::Preferences, "chosen", "rejected"),
            (Wanted::Feedback, "desirable", "undesirable"),
            (Wanted::Rewards, "answer 1", "answer 2"),
        ] {
            assert_eq!((role(wanted, 0).as_str(), role(wanted, 1).as_str()), (first, second));
        }
    }

    #[test]
    fn lengths_are_counted_in_bins_and_cuts() {
        let found = lengths((1..=600).collect());
        assert_eq!((found.median, found.p95, found.longest), (300, 570, 600));
        assert_eq!(found.bins.iter().map(|bin| bin.count).sum::<usize>(), 600);
        assert_eq!(found.bins.len(), BINS);
        let cuts: Vec<_> =
            found.cuts.iter().map(|cut| (cut.max_seq_len, cut.sequences, cut.tokens)).collect();
        assert_eq!(
            cuts,
            [(128, 472, 472 * 473 / 2), (256, 344, 344 * 345 / 2), (512, 88, 88 * 89 / 2)]
        );
        assert_eq!(lengths(vec![1]).bins.len(), 1);
        assert!(lengths(Vec::new()).bins.is_empty());
    }

    #[test]
    fn reasons_are_counted() {
        let counted = by_reason(["a", "b", "b"].into_iter());
        assert_eq!(counted, [("b".to_owned(), 2), ("a".to_owned(), 1)]);
    }
}
