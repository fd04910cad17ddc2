//! Continued pretraining: the loss of [`Sft`] over every token of raw texts.

use data::Wanted;

use super::{Method, Sft};

pub(super) static METHOD: Method = Method {
    name: "pretrain",
    title: "Continued pretraining",
    records: Wanted::Texts,
    learns_from: "raw text",
    learned: "loss on every token of the texts, the end-of-sequence token included",
    objective: |_| Box::new(Sft),
    ..Method::DEFAULT
};
