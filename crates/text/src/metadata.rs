//! What a model's container says about it, besides its weights.

pub mod folder;
pub mod gguf;

use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::{ChatTemplate, Date, Result, SpecialTokens, Tokenizer};

/// Configuration, tokenizer and chat template of a model.
#[derive(Clone)]
pub struct Metadata {
    /// `config.json`; of a GGUF file, the same keys made from its metadata.
    pub config: Value,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template, which takes that named `tool_use` for conversations with tools; a base model has none.
    pub chat_template: Option<ChatTemplate>,
    /// Other chat templates by name (`tool_use`, `rag`, ...), sorted.
    pub named_templates: Vec<(String, ChatTemplate)>,
    /// The named special tokens.
    pub special: SpecialTokens,
    /// Ids that end an answer, sorted: of the generation config, the config and the tokenizer.
    pub eos_token_ids: Vec<u32>,
    /// `generation_config.json`, or an empty object.
    pub generation_config: Value,
}

impl Metadata {
    /// Reads a Hugging Face folder. `date` is what its chat template takes for today.
    pub fn from_folder(dir: &Path, date: Date) -> Result<Self> {
        let config = folder::config(dir)?;
        let generation_config = folder::generation_config(dir)?;
        let tokenizer = Tokenizer::from_folder(dir)?;
        let special = tokenizer.special().clone();

        let templates = folder::chat_templates(dir)?;
        let compile = |source: &String| ChatTemplate::new(source, &special, date);
        let default = templates.default.as_ref().map(compile).transpose()?;
        let named = templates.named.iter();
        let named_templates: Vec<_> = named
            .map(|(name, source)| Ok((name.clone(), compile(source)?)))
            .collect::<Result<_>>()?;
        let chat_template = default.map(|template| with_tool_use(template, &named_templates));

        let mut eos_token_ids = token_ids(&generation_config["eos_token_id"]);
        if eos_token_ids.is_empty() {
            eos_token_ids = token_ids(&config["eos_token_id"]);
        }
        eos_token_ids.extend(tokenizer.eos());
        Ok(Metadata {
            config,
            tokenizer,
            chat_template,
            named_templates,
            special,
            eos_token_ids: sorted(eos_token_ids),
            generation_config,
        })
    }

    /// Reads the header of a GGUF file. `date` is what its chat template takes for today.
    pub fn from_gguf(header: &gguf::Metadata, date: Date) -> Result<Self> {
        let tokenizer = Tokenizer::from_gguf(header)?;
        let special = tokenizer.special().clone();
        let template = header.str("tokenizer.chat_template")?;
        let default =
            template.map(|source| ChatTemplate::new(source, &special, date)).transpose()?;
        let mut named_templates = Vec::new();
        for (name, source) in header.named_templates()? {
            named_templates.push((name, ChatTemplate::new(&source, &special, date)?));
        }
        let chat_template = default.map(|template| with_tool_use(template, &named_templates));
        let mut eos_token_ids = Vec::new();
        for name in ["eos_token_id", "eot_token_id"] {
            eos_token_ids.extend(header.token_id(name)?);
        }
        let eos_token_ids = sorted(eos_token_ids);
        Ok(Metadata {
            config: header.config()?,
            tokenizer,
            chat_template,
            named_templates,
            special,
            generation_config: serde_json::json!({ "eos_token_id": eos_token_ids }),
            eos_token_ids,
        })
    }

    /// The chat template of that name, for every conversation; `default` is the default one.
    pub fn template(&self, name: &str) -> Option<ChatTemplate> {
        if name == "default" {
            return self.chat_template.as_ref().map(ChatTemplate::alone);
        }
        let found = self.named_templates.iter().find(|(other, _)| other == name);
        found.map(|(_, template)| template.clone())
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata").field("config", &self.config).finish_non_exhaustive()
    }
}

/// As transformers chooses: conversations with tools take the template `tool_use` where the model has one.
fn with_tool_use(template: ChatTemplate, named: &[(String, ChatTemplate)]) -> ChatTemplate {
    match named.iter().find(|(name, _)| name == "tool_use") {
        Some((_, tool_use)) => template.with_tool_use(tool_use),
        None => template,
    }
}

/// Token ids of a configuration: one, or a list.
fn token_ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(values) => values.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}

fn sorted(mut ids: Vec<u32>) -> Vec<u32> {
    ids.sort_unstable();
    ids.dedup();
    ids
}
