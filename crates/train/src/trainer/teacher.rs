//! What a student is distilled from.

use std::path::PathBuf;
use std::sync::Arc;

use keys::{Document, Settings as _};
use model::Base;
use model::adapter::LoadedAdapter;
use text::{Date, Tokenizer};

use super::initial_adapter;
use super::models::Sources;
use crate::models::{PartName, PartSetup, TrainingSetup};
use crate::{Error, Result};

/// The key that names it.
const KEY: &str = "distill.teacher";

/// The model that `distill.teacher` names.
#[derive(Clone, Debug)]
pub enum TeacherModel {
    /// An adapter over the base of the run, or that base itself.
    OverBase(Option<PathBuf>),
    /// Another model.
    Other(Arc<Base>),
}

impl TeacherModel {
    /// What a name was resolved to: `path` and `adapter` of the teacher, and the path of the run's own base.
    ///
    /// # Errors
    /// An adapter over another base: it is to be merged first.
    pub fn of(
        document: &Document,
        path: &std::path::Path,
        adapter: Option<PathBuf>,
        own: &std::path::Path,
    ) -> Result<Self> {
        let absolute =
            |path: &std::path::Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if absolute(path) == absolute(own) {
            return Ok(TeacherModel::OverBase(adapter));
        }
        if adapter.is_some() {
            let message = "the teacher is an adapter over another base than the run's";
            let hint = "merge it first: `tunesmith merge`";
            return Err(problem(document, KEY, message.to_owned(), hint));
        }
        Ok(TeacherModel::Other(Arc::new(Base::open(path)?)))
    }
}

fn problem(document: &Document, key: &str, message: String, hint: &str) -> Error {
    Error::Recipe(document.problem(key, message, Some(hint.to_owned())).into())
}

/// Adds the part [`PartName::Teacher`].
pub(super) fn add(
    document: &Document,
    sources: &Sources<'_>,
    setup: &mut TrainingSetup,
) -> Result<()> {
    // A checkpoint has it.
    if setup.has_part(PartName::Teacher) {
        return Ok(());
    }
    let mut teacher = PartSetup::of_base(PartName::Teacher);
    match sources.teacher {
        Some(TeacherModel::Other(base)) => {
            let date = Date::new(2026, 1, 1).expect("a day");
            check_tokens(document, sources.tokenizer, &base.metadata(date)?.tokenizer)?;
            teacher.base = Some(base.clone());
        }
        over_base => {
            check_shared(document, setup)?;
            match over_base {
                Some(TeacherModel::OverBase(Some(dir))) => {
                    initial_adapter::check_base(dir, sources.base, sources.peft)?;
                    let adapter = LoadedAdapter::read(dir, &sources.base.config)?;
                    initial_adapter::refuse_pissa(dir, &adapter.config)?;
                    initial_adapter::refuse_whole(dir, &adapter)?;
                    teacher.adapters.push(adapter.into());
                }
                Some(_) => {}
                None => teacher.adapters = setup.beginning()?,
            }
        }
    }
    setup.parts.push(teacher);
    Ok(())
}

/// Refuses to train what a teacher over the same base computes with.
fn check_shared(document: &Document, setup: &TrainingSetup) -> Result<()> {
    let hint = "train an adapter of the linear layers, or name another model as `distill.teacher`";
    if setup.tensors.is_some() {
        let message =
            "the teacher shares the base with the student, and this run trains the base itself";
        return Err(problem(document, "adapter.type", message.into(), hint));
    }
    let Some(own) = setup.policy().own() else { return Ok(()) };
    let keys = ["adapter.trainable_tokens", "tokenizer.add_tokens", "tokenizer.add_special_tokens"];
    let of_tokens = keys.into_iter().find(|key| document.is_given(key));
    let key = match (own.config.modules_to_save.is_empty(), own.config.tokens.is_empty()) {
        (true, true) => return Ok(()),
        (false, _) => "adapter.modules_to_save",
        (true, false) => of_tokens.unwrap_or(keys[0]),
    };
    let message =
        "the teacher shares embedding and head with the student, and this run trains them";
    Err(problem(document, key, message.into(), hint))
}

/// Refuses a teacher whose tokens are others than the student's.
fn check_tokens(document: &Document, own: &Tokenizer, teacher: &Tokenizer) -> Result<()> {
    let differs = |&id: &u32| own.token(id) != teacher.token(id);
    let Some(id) = (0..own.vocab_size() as u32).find(differs) else { return Ok(()) };
    let named = |tokenizer: &Tokenizer| tokenizer.token(id).unwrap_or_else(|| "nothing".into());
    let message = format!(
        "token {id} of the student is `{}`, and that of the teacher is `{}`: their distributions cannot be compared",
        named(own),
        named(teacher)
    );
    let hint =
        "take a teacher with the student's tokenizer, or let it write rows: `tunesmith distill`";
    Err(problem(document, KEY, message, hint))
}
