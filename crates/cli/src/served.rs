//! How a model is asked: as the recipe of its run has the rows that it was trained on.
//!
//! A run keeps its recipe. Who answers with its model reads prompts through it, so that the columns, the
//! system message and everything else that `data` says hold for prompts as they held for rows.

use std::path::Path;

use compute::Precision;
use data::source::Row;
use data::{Config, Location, Reading, Source, SupervisionOptions, Validation, Wanted};
use hub::Resolved;
use keys::Document;
use session::{Manner, Opened, Scorer, Session};
use train::run::RunFolder;

use crate::command::read_recipe;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::memory::free_memory;

/// What a recipe says of prompts. Without a recipe nothing is changed.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Where its rows are, and how they are read: training first.
    sources: Vec<Source>,
    /// What becomes of system messages and of reasoning.
    options: SupervisionOptions,
    /// The recipe whose own model answers, and not one that it made: template and variables are as it says.
    pub(crate) recipe: Option<Document>,
}

impl Served {
    /// What the run says that a model comes from.
    pub(crate) fn of_model(context: &Context, model: &Resolved) -> Result<Self> {
        let folder = model.adapter.as_deref().unwrap_or(&model.path);
        let run = folder.ancestors().skip(1).take(2).find(|folder| RunFolder::is_run(folder));
        let recipe = run.map(|run| run.join("recipe.yaml")).filter(|recipe| recipe.is_file());
        let Some(recipe) = recipe else { return Ok(Served::default()) };
        let read = read_recipe(context, &recipe, &[]).and_then(|recipe| Served::of_recipe(&recipe));
        read.or_else(|failure| {
            let recipe = context.environment.show(&recipe);
            let why = failure.message;
            context.terminal.warn(&format!(
                "{recipe} cannot be read, so prompts are shown without what it says of them: {why}"
            ));
            Ok(Served::default())
        })
    }

    /// What a recipe says.
    pub(crate) fn of_recipe(recipe: &Document) -> Result<Self> {
        let config = data::recipe::config(recipe, Wanted::Prompts, 0, 1);
        let config = config.map_err(|problem| Failure::from(keys::Error::from(problem)))?;
        let Config { train, validation, test, .. } = config;
        let mut sources = train;
        if let Validation::Sources(validation) = validation {
            sources.extend(validation);
        }
        sources.extend(test);
        Ok(Served { sources, options: data::recipe::supervision(recipe), recipe: None })
    }

    /// A model that answers as this says, with the template, its variables and the date that it was trained with.
    pub(crate) fn session(self, context: &Context, model: &Resolved) -> Result<Session> {
        let opened = Opened::read(&model.path, model.adapter.as_deref(), context.today())?;
        let opened = self.told(context, model, opened)?;
        let manner = Manner { system: self.system().map(str::to_owned), options: self.options };
        let backend = context.device(Precision::Bf16)?;
        Ok(Session::new(opened, manner, backend, free_memory)?)
    }

    /// A reward model that scores rows as this says they were trained on.
    pub(crate) fn scorer(&self, context: &Context, model: &Resolved) -> Result<Scorer> {
        let opened = Opened::read_scored(&model.path, model.adapter.as_deref(), context.today())?;
        let opened = self.told(context, model, opened)?;
        let backend = context.device(Precision::Bf16)?;
        Ok(Scorer::new(opened, self.options.clone(), backend, free_memory)?)
    }

    /// The files of a model with the template of the recipe, and what the user should know of them.
    fn told(&self, context: &Context, model: &Resolved, mut opened: Opened) -> Result<Opened> {
        opened.remarks.iter().for_each(|remark| context.terminal.note(remark));
        if let Some(folder) = model.adapter.as_ref().filter(|_| opened.is_other_base) {
            context.terminal.warn(&format!(
                "{} was trained over other weights than {}: its answers will differ",
                folder.display(),
                opened.base.path.display()
            ));
        }
        if let Some(recipe) = &self.recipe {
            train::trainer::use_template(recipe, &mut opened.metadata, opened.date)?;
            opened.serving.template_kwargs = train::recipe::template_kwargs(recipe);
        }
        Ok(opened)
    }

    /// How a file of prompts is read: as the recipe says where it names the file, else with what it says of
    /// its first training rows, as far as the file has those columns.
    pub(crate) fn reading(&self, file: &Path, rows: &[Row]) -> Reading {
        if let Some(reading) = self.sources.iter().find_map(|source| of_file(source, file)) {
            return reading;
        }
        let first = self.sources.first().map(|source| source.reading.clone()).unwrap_or_default();
        let has = |column: &str| rows.iter().any(|row| row.value.contains_key(column));
        let is_there = |(_, theirs): &(String, String)| {
            has(theirs) || has(theirs.split('.').next().unwrap_or(theirs))
        };
        let columns = first.columns.into_iter().filter(is_there).collect();
        let system = self.system().map(str::to_owned);
        Reading { columns, system, key: "data.train.0".into(), ..Reading::default() }
    }

    /// The system message of rows that bring none, where all training rows have the same.
    pub(crate) fn system(&self) -> Option<&str> {
        let mut systems = self.sources.iter().map(|source| source.reading.system.as_deref());
        let first = systems.next()??;
        systems.all(|system| system.is_none_or(|system| system == first)).then_some(first)
    }
}

/// How a source reads a file, if the file is one of its own.
fn of_file(source: &Source, file: &Path) -> Option<Reading> {
    if matches!(source.location, Location::Hub(_)) {
        return None;
    }
    let (files, reading) = source.files().ok()?;
    let file = file.canonicalize().ok()?;
    files.iter().any(|own| own.canonicalize().is_ok_and(|own| own == file)).then_some(reading)
}
