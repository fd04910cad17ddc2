//! What `tunesmith check` has to say: figures that the terminal, the page and JSON show alike.

use std::path::PathBuf;

use serde::Serialize;

use crate::Finding;

/// A data audit.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Rows that the files of `data.train` have, after `limit`.
    pub rows_in: usize,
    /// Of these, rows that are trained on.
    pub rows_trained: usize,
    /// Of these, rows that are kept back for validation, or that stand in a file of their own.
    pub rows_validation: usize,
    /// Of these, rows that are listed as not used, by reason.
    pub rows_left_out: Vec<(String, usize)>,
    /// The files.
    pub files: Vec<FileReport>,
    /// What was found, errors first.
    pub findings: Vec<Finding>,
    /// Sequences of an epoch.
    pub sequences: usize,
    /// Tokens of an epoch, as rendered.
    pub tokens: usize,
    /// Of these, tokens that count in the loss.
    pub tokens_supervised: usize,
    /// How long sequences are.
    pub lengths: Lengths,
    /// The sides of the pairs, where the rows are pairs or ranked answers.
    pub pairs: Option<Pairs>,
    /// How full the micro-batches of an epoch are.
    pub packing: Packed,
    /// Optimizer steps of an epoch, where the recipe says how large one is.
    pub steps_per_epoch: Option<usize>,
    /// How the rows that are kept back were chosen.
    pub split: Option<Split>,
    /// What a set of this size is good for.
    pub size_guide: String,
    /// Rows as the model sees them.
    pub samples: Vec<Sample>,
    /// Seconds that the audit took.
    pub seconds: f64,
}

/// A file of the recipe.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// What it is for: `train`, `validation` or `test`.
    pub purpose: &'static str,
    /// The shape of its records.
    pub format: String,
    /// Why it is taken to be that shape.
    pub why: String,
    /// Rows read.
    pub rows: usize,
}

/// Lengths of sequences in tokens.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Lengths {
    /// Half are no longer.
    pub median: usize,
    /// 95 of 100 are no longer.
    pub p95: usize,
    /// The longest.
    pub longest: usize,
    /// Bins of a histogram, from short to long.
    pub bins: Vec<Bin>,
    /// What limits would cut.
    pub cuts: Vec<Cut>,
}

/// Chosen answers beside rejected ones; of ranked answers the best beside the worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pairs {
    /// Pairs of the training files, those that are kept back among them.
    pub count: usize,
    /// Of these, pairs whose chosen answer is longer, in characters.
    pub chosen_longer: usize,
    /// Pairs whose rejected answer is longer.
    pub rejected_longer: usize,
    /// Pairs whose answers are the same text.
    pub identical: usize,
    /// Characters of all chosen answers by those of all rejected ones; none where these are empty.
    pub length_ratio: Option<f64>,
}

/// Sequences of `from..to` tokens.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Bin {
    /// Fewest tokens.
    pub from: usize,
    /// One more than the most tokens.
    pub to: usize,
    /// Sequences.
    pub count: usize,
}

/// What a `max_seq_len` would cut.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cut {
    /// The limit.
    pub max_seq_len: usize,
    /// Sequences that are longer.
    pub sequences: usize,
    /// Their tokens beyond it.
    pub tokens: usize,
}

/// How an epoch packs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Packed {
    /// Sequences that were packed to find out: those of the first steps.
    pub sequences: usize,
    /// Most tokens of a micro-batch.
    pub micro_batch_tokens: usize,
    /// Micro-batches that they make.
    pub micro_batches: usize,
    /// Share of that room which is used.
    pub fill: f64,
    /// Tokens computed, shared prefixes once.
    pub tokens_computed: usize,
    /// Share of the rendered tokens that sharing saves.
    pub shared: f64,
}

/// How rows were kept back.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Split {
    /// `row`, `cluster`, `time:<column>`, `group:<column>` or `path`.
    pub by: String,
    /// Rows (not clusters) kept back.
    pub rows: usize,
    /// Clusters, groups or moments that they came from, where that is not rows.
    pub parts: usize,
}

/// A row as the model sees it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// File and line.
    pub place: String,
    /// What it is: `row`, `chosen`, `rejected`, ...
    pub role: String,
    /// Its tokens in order.
    pub tokens: Vec<SampleToken>,
}

/// A token of a sample.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SampleToken {
    /// Its id.
    pub id: u32,
    /// Its text; bytes that are no character alone are shown as U+FFFD.
    pub text: String,
    /// Its weight in the loss; 0 is context.
    pub weight: f32,
    /// Whether it is a token of control.
    pub special: bool,
}
