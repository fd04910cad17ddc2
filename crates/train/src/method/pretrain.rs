//! Continued pretraining: the loss of [`Sft`] over every token of raw texts.

use data::Wanted;
use keys::Document;

use super::{Method, Sft, Usual};
use crate::objective::Objective;

pub(super) struct Pretraining;

pub(super) const METHOD: Pretraining = Pretraining;

impl Method for Pretraining {
    fn name(&self) -> &'static str {
        "pretrain"
    }

    fn title(&self) -> &'static str {
        "Continued pretraining"
    }

    fn records(&self) -> Wanted {
        Wanted::Texts
    }

    fn learns_from(&self) -> &'static str {
        "raw text"
    }

    fn learned(&self) -> &'static str {
        "loss on every token of the texts, the end-of-sequence token included"
    }

    fn usual(&self) -> Usual {
        Usual { rates: [2e-4, 1e-5, 5e-5], batch: 16, epochs: 1.0 }
    }

    fn objective(&self, _document: &Document) -> Box<dyn Objective> {
        Box::new(Sft)
    }
}
