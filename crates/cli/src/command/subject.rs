//! What a command that loads no weights works on: a recipe, its model's shape, and the job of both.

use std::path::{Path, PathBuf};

use clap::Args;
use keys::{Document, Settings as _};
use model::Base;
use train::trainer::{Job, TeacherModel};

use super::quote;
use super::train::{at_key, read_recipe};
use crate::asking::is_address;
use crate::context::Context;
use crate::environment::resident_memory;
use crate::error::{Failure, Result};
use crate::memory::free_memory;
use hub::Outline;

/// The recipe that a command names.
#[derive(Args, Debug)]
pub(super) struct Recipe {
    /// A recipe
    #[arg(value_name = "RECIPE")]
    recipe: String,

    /// Keys that override the recipe, such as adapter.rank=64
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

impl Recipe {
    /// The file, as the user named it.
    pub(super) fn name(&self) -> &str {
        &self.recipe
    }

    /// What the user typed, for a shell.
    pub(super) fn given(&self) -> String {
        let words = std::iter::once(&self.recipe).chain(&self.overrides);
        words.map(|word| quote(word)).collect::<Vec<_>>().join(" ")
    }

    /// What it says, its overrides and `--precision` applied.
    pub(super) fn document(&self, context: &Context) -> Result<Document> {
        let mut overrides = self.overrides.clone();
        if let Some(precision) = &context.global.precision {
            overrides.push(format!("precision={precision}"));
        }
        read_recipe(context, &context.environment.path(&self.recipe), &overrides)
    }
}

/// The model of a recipe, known without its weights.
pub(super) struct Subject {
    base: Base,
    adapter: Option<PathBuf>,
    name: String,
    teacher: Option<TeacherModel>,
}

impl Subject {
    /// The model that the recipe names; of one on the hub only config and tokenizer are fetched.
    pub(super) fn find(document: &Document, context: &Context) -> Result<Self> {
        let locator = document.get_locator("model.id");
        let revision = document.opt_str("model.revision");
        let outline = context.models().outline(locator, revision);
        match outline.map_err(|failure| at_key(document, "model.id", failure))? {
            Outline::Config(path) => Subject::of_config(&path, document),
            Outline::Whole(found) => {
                let base = Base::open(&found.path)?;
                let teacher = teacher(context, document, &found.path)?;
                Ok(Subject { base, adapter: found.adapter, name: found.name, teacher })
            }
        }
    }

    /// The shape alone, of a `config.json` in place of the recipe's model.
    pub(super) fn of_config(path: &Path, document: &Document) -> Result<Self> {
        let base = Base::from_config(&read_config(path)?, path)?;
        let name = document.get_locator("model.id").name.clone();
        Ok(Subject { base, adapter: None, name, teacher: None })
    }

    /// The job of the recipe, without a run folder. `memory` stands for what is free.
    pub(super) fn job(
        self,
        document: Document,
        memory: Option<usize>,
        context: &Context,
    ) -> Job<'_> {
        Job {
            document,
            base: self.base,
            start: self.adapter,
            base_name: self.name,
            revision: None,
            memory_limit: memory.unwrap_or_else(free_memory),
            resident_bytes: resident_memory,
            date: context.today(),
            threads: context.threads(),
            data: context.data_access(),
            reward_sources: train::trainer::no_reward_sources(),
            teacher: self.teacher,
        }
    }
}

/// The teacher that a recipe of `method: distill` names, over or beside the base at `own`.
pub(super) fn teacher(
    context: &Context,
    document: &Document,
    own: &Path,
) -> Result<Option<TeacherModel>> {
    let key = "distill.teacher";
    if document.get_str("method") != "distill" {
        return Ok(None);
    }
    let Some(named) = document.opt_locator(key) else { return Ok(None) };
    if is_address(&named.name) {
        let message = "an endpoint does not give its distributions over all tokens".to_owned();
        let hint = "name a model on this machine, or let it write rows: `tunesmith distill`";
        let problem = document.problem(key, message, Some(hint.to_owned()));
        return Err(train::Error::Recipe(problem.into()).into());
    }
    let found = context.models().locate(named, None);
    let found = found.map_err(|failure| at_key(document, key, failure))?;
    Ok(Some(TeacherModel::of(document, &found.path, found.adapter, own)?))
}

fn read_config(path: &Path) -> Result<serde_json::Value> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure { exit: crate::error::WRONG, ..Failure::io(path, &error) })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("{}: not JSON: {error}", path.display());
        Failure::wrong("model_file", message).at(path)
    })
}
