//! The model on a device, ready to answer or to be timed.

use std::path::Path;

use compute::{Backend, Precision};
use eval::answer::{Answer, Language, Progress, Settings, answers};
use eval::grader::read_object;
use model::adapter::LoadedAdapter;
use model::generate::Flow;
use model::{Adapter, Base, Decoder};
use text::{ChatTemplate, Message, Metadata};

use crate::context::Context;
use crate::error::{Failure, Result};
use hub::Resolved;

/// Longest answer in tokens. A ticket has about 50, and 90 with a line for every field.
pub(super) const MAX_NEW_TOKENS: usize = 96;

/// Answers that are worked on at the same time.
pub(super) const LANES: usize = 64;

/// A base, perhaps with an adapter.
pub(super) struct Stage {
    pub(super) backend: Box<dyn Backend>,
    pub(super) decoder: Decoder,
    pub(super) metadata: Metadata,
    adapter: Option<Adapter>,
    template: ChatTemplate,
    /// `q4_1` and `gguf`, say.
    pub(super) storage: String,
    pub(super) format: &'static str,
}

impl Stage {
    /// Loads a model. With an adapter, its own tokenizer and template are used.
    pub(super) fn open(
        context: &Context,
        model: &Resolved,
        adapter: Option<&Path>,
    ) -> Result<Self> {
        let base = Base::open(&model.path)?;
        let metadata = base.metadata_with(adapter, context.today())?;
        let Some(template) = metadata.chat_template.clone() else {
            let message = format!("{}: the model has no chat template", model.path.display());
            return Err(Failure::new("chat_template", message)
                .hint("the quickstart needs a chat model; without `TUNESMITH_MODEL` it gets one"));
        };
        let mut backend = context.device(Precision::Bf16)?;
        let (decoder, adapter) = match adapter {
            None => (Decoder::load(&base, &mut *backend)?, None),
            Some(folder) => {
                let loaded = LoadedAdapter::read(folder, &base.config)?;
                let (decoder, adapter) = loaded.load(&base, &mut *backend, None, None)?;
                (decoder, Some(adapter))
            }
        };
        let (storage, format) = (base.storage_name()?, base.format);
        Ok(Stage { backend, decoder, metadata, adapter, template, storage, format })
    }

    /// How this model is talked to.
    pub(super) fn language(&self) -> Language<'_> {
        Language { tokenizer: &self.metadata.tokenizer, template: &self.template }
    }

    /// Answers every prompt. An answer ends with the first whole JSON object in it, whoever
    /// gives it: what comes after it is not graded, and would only cost time.
    pub(super) fn answer(
        &mut self,
        prompts: &[Vec<Message>],
        progress: &mut dyn FnMut(Progress) -> Flow,
    ) -> Result<Vec<Answer>> {
        let is_complete = |text: &str| text.contains('}') && read_object(text).is_some();
        let settings = Settings {
            max_new_tokens: MAX_NEW_TOKENS,
            stop_tokens: &self.metadata.eos_token_ids,
            max_active: LANES,
            is_complete: Some(&is_complete),
        };
        let language = Language { tokenizer: &self.metadata.tokenizer, template: &self.template };
        let adapter = self.adapter.as_ref();
        let backend = &mut *self.backend;
        Ok(answers(&self.decoder, backend, adapter, language, prompts, &settings, progress)?)
    }
}
