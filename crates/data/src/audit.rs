//! What is wrong with a set of rows as texts: duplicates, leaks, odd contents.
//!
//! ```text
//! shingles    a text                 -> its character 5-grams
//! sketch      a row                  -> a fingerprint of fixed size
//! search      fingerprints           -> verified pairs of similar rows
//! templated   two or many rows       -> one template filled in, or near-duplicates
//! duplicates  a set                  -> groups, clusters, contradictions
//! leakage     training and held-out  -> what stands in both
//! ngrams      training and held-out  -> long runs of words that stand in both
//! quality     a row                  -> hints about its contents
//! preferences pairs                  -> length bias, score ranges
//! size        a number of rows       -> what it is good for
//! ```
//!
//! Pure functions over texts: no tokenizer, no files. The result is the same
//! on any number of threads.

mod duplicates;
mod leakage;
mod ngrams;
mod parallel;
pub mod preferences;
pub mod quality;
mod search;
mod shingles;
mod size;
mod sketch;
mod templated;
mod union_find;
mod verify;

pub(crate) use duplicates::with_same_prompt;
pub use duplicates::{Duplicates, Giant, duplicates, near_pairs};
pub use leakage::{Block, LeakSearch, Leaks};
pub use shingles::{jaccard, shingles};
pub use size::size_guide;
pub use sketch::{BANDS, Sketch};

use crate::Result;

/// The Jaccard similarity from which two rows are near-duplicates.
pub const NEAR: f32 = 0.7;

/// A row as plain text. What is compared as a whole is `prompt`, a line break, `answer`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditText {
    /// All that the model is given; empty for plain text.
    pub prompt: String,
    /// All that it learns to write; empty where only questions are known.
    pub answer: String,
}

/// Gives the text of a row again, so that no set has to stay in memory.
pub trait Texts: Sync {
    /// The text of row `index`, the same at every call.
    fn text(&self, index: usize) -> Result<AuditText>;
}

impl Texts for [AuditText] {
    fn text(&self, index: usize) -> Result<AuditText> {
        Ok(self[index].clone())
    }
}

impl Texts for Vec<AuditText> {
    fn text(&self, index: usize) -> Result<AuditText> {
        Ok(self[index].clone())
    }
}
