//! A model's files, read but not loaded.

use std::path::Path;

use model::adapter::{LoadedAdapter, PeftMetadata};
use model::{Base, Config};
use text::{Date, Metadata};

use crate::{Result, Serving};

/// A base, perhaps with an adapter, and what is known of both without the base's weights.
pub struct Opened {
    /// The base.
    pub base: Base,
    /// Tokenizer and template: those of the adapter, where it brings them.
    pub metadata: Metadata,
    /// How the weights on top were trained.
    pub serving: Serving,
    /// What the chat template takes for today: as in training, else the day that was given.
    pub date: Date,
    /// What the user should know of the base's files.
    pub remarks: Vec<String>,
    /// The adapter, on the host.
    pub(crate) adapter: Option<LoadedAdapter>,
    /// The score head of a reward model or a classifier, `[N, C]`.
    pub(crate) head: Option<Vec<f32>>,
    /// Whether the adapter was trained over other weights than these.
    pub is_other_base: bool,
}

impl Opened {
    /// Reads a base and the adapter of a folder.
    pub fn read(base: &Path, adapter: Option<&Path>, today: Date) -> Result<Self> {
        let plain =
            |folder: &Path, config: &Config| Ok((LoadedAdapter::read(folder, config)?, None));
        Self::read_with(base, adapter, today, plain)
    }

    /// As [`read`](Opened::read) for a reward model, which no session answers with. An adapter without a score
    /// head is read all the same; [`Scorer::new`](crate::Scorer::new) refuses it.
    pub fn read_scored(base: &Path, adapter: Option<&Path>, today: Date) -> Result<Self> {
        Self::read_with(base, adapter, today, LoadedAdapter::read_scored)
    }

    fn read_with(
        base: &Path,
        adapter: Option<&Path>,
        today: Date,
        read: impl Fn(&Path, &Config) -> model::Result<(LoadedAdapter, Option<Vec<f32>>)>,
    ) -> Result<Self> {
        let serving = Serving::read(adapter.unwrap_or(base))?;
        let date = serving.date.as_deref().and_then(|date| date.parse().ok()).unwrap_or(today);
        let base = Base::open(base)?;
        let remarks =
            base.remarks.iter().map(|remark| format!("{}; {}", remark.message, remark.hint));
        let remarks = remarks.collect();
        let metadata = base.metadata_with(adapter, date)?;
        let mut is_other_base = false;
        let (mut loaded, mut head) = (None, None);
        if let Some(folder) = adapter {
            let (adapter, score) = read(folder, &base.config)?;
            (loaded, head) = (Some(adapter), score);
            let trained_over = PeftMetadata::read(folder)?.base_hash;
            is_other_base =
                trained_over.is_some_and(|hash| base.hash().is_ok_and(|own| own != hash));
        }
        Ok(Opened { base, metadata, serving, date, remarks, adapter: loaded, head, is_other_base })
    }
}
