//! What the methods over pairs and judged answers have in common.

use keys::{Document, Settings as _};

use super::{Figure, Usual};
use crate::objective::ACCURACY;

/// What methods over preferences take unless told otherwise.
pub(super) const USUAL: Usual = Usual::of_rows([1e-4, 1e-6, 1e-6], 32);

/// What is learned of a pair, in words.
pub(super) const LEARNED: &str =
    "loss on the chosen against the rejected answer, their end-of-turn tokens included";

/// What methods over pairs learn from, in words.
pub(super) const LEARNS_FROM: &str = "pairs of a chosen and a rejected answer";

/// Doc of `train.best_by` where rewards are implicit.
pub(super) const BEST_BY: &str = "Validation figure that selects the best step: the lowest loss, or the highest accuracy, which is the share of pairs whose chosen answer has the higher implicit reward.";

/// The figure of `train.best_by`.
pub(super) fn judged_by(document: &Document) -> Figure {
    match document.get_str("train.best_by") {
        "accuracy" => Figure { name: ACCURACY, higher_is_better: true },
        _ => Figure::LOSS,
    }
}

/// Doc of `objective.label_smoothing`.
pub(super) const LABEL_SMOOTHING: &str = "Probability that a label of the data is wrong: that the rejected answer is in fact the better one.";
