//! What the recipe says about distilling.

use std::path::{Path, PathBuf};

use data::{Findings, Reading, record, source};
use keys::{Document, Settings as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use text::Message;

use super::super::train::at_key;
use crate::asking::{Answerer, Asking, Named, address, hex, is_address, problem};
use crate::context::Context;
use crate::error::{Failure, Result, WRONG};
use crate::served::Served;
use hub::Resolved;

/// A resolved section `distill`.
pub(super) struct DistillConfig {
    pub(super) teacher: Answerer,
    /// The long prompt.
    pub(super) system: Option<String>,
    /// Turns between the long prompt and the row's own.
    pub(super) examples: Vec<Message>,
    /// What the written rows have in place of the long prompt.
    pub(super) keep_system: Option<String>,
    /// Answers to each prompt.
    pub(super) samples: usize,
    pub(super) asking: Asking,
    pub(super) output: PathBuf,
    /// The recipe, where its own model teaches: with its template and variables.
    recipe: Option<Document>,
}

impl DistillConfig {
    pub(super) fn read(document: &Document, context: &Context) -> Result<Self> {
        let section = document.section("distill");
        let Some(output) = section.opt_path("output") else {
            let message = "`distill.output` is missing: where do the rows go?";
            let hint = "add `distill.output=distilled.jsonl`, or say it in the recipe";
            return Err(problem(document, "distill.output", message, hint));
        };
        let system = match section.opt_path("system_file") {
            Some(path) => Some(read_text(path)?),
            None => section.opt_str("system").map(str::to_owned),
        };
        let examples = section.opt_path("examples").map(read_examples).transpose()?;
        let samples = section.opt_usize("samples").unwrap_or(1);
        let several = if samples > 1 { 1.0 } else { 0.0 };
        let temperature = section.opt_f64("temperature").unwrap_or(several) as f32;
        if samples > 1 && temperature == 0.0 {
            let message = format!("{samples} samples of temperature 0 are all the same");
            let hint = "set `distill.temperature`, or take one sample";
            return Err(problem(document, "distill.samples", &message, hint));
        }
        Ok(DistillConfig {
            teacher: teacher(document, context)?,
            system,
            examples: examples.unwrap_or_default(),
            keep_system: section.opt_str("keep_system").map(str::to_owned),
            samples,
            asking: Asking {
                max_new_tokens: section.opt_usize("max_new_tokens").unwrap_or(1024) as u32,
                temperature,
                top_p: section.opt_f64("top_p").unwrap_or(1.0) as f32,
                concurrency: section.opt_usize("concurrency").unwrap_or(8) as u16,
                seed: document.get_i64("seed") as u64,
                named: NAMED,
            },
            output: output.to_owned(),
            recipe: (!document.is_given("distill.teacher")).then(|| document.clone()),
        })
    }

    /// How a teacher on this machine is shown its prompts.
    pub(super) fn served(&self, context: &Context, model: &Resolved) -> Result<Served> {
        let mut served = Served::of_model(context, model)?;
        served.recipe = self.recipe.clone();
        Ok(served)
    }

    /// Where answers go that are no targets.
    pub(super) fn rejected(&self) -> PathBuf {
        self.output.with_extension("rejected.jsonl")
    }

    /// A hash of all that an answer depends on beside its prompt.
    pub(super) fn fingerprint(&self) -> String {
        let text = json!([
            self.teacher.identity(self.recipe.as_ref()),
            self.system,
            self.examples,
            self.asking.max_new_tokens,
            self.asking.temperature,
            self.asking.top_p,
            self.asking.seed,
        ]);
        hex(&Sha256::digest(text.to_string()))
    }
}

/// What errors call the teacher.
const NAMED: Named = Named {
    code: "teacher",
    who: "a teacher",
    key: "distill.teacher",
    concurrency: "distill.concurrency",
};

fn teacher(document: &Document, context: &Context) -> Result<Answerer> {
    let key = NAMED.key;
    let Some(named) = document.opt_locator(key) else {
        let (model, revision) =
            (document.get_locator("model.id"), document.opt_str("model.revision"));
        let found = context.models().locate(model, revision);
        return found.map(Answerer::Local).map_err(|failure| at_key(document, "model.id", failure));
    };
    if !is_address(&named.name) {
        let found = context.models().locate(named, None);
        return found.map(Answerer::Local).map_err(|failure| at_key(document, key, failure));
    }
    let instead = "let a model on this machine teach";
    let address = address(document, key, &named.name, context, instead)?;
    let Some(model) = document.opt_str("distill.model") else {
        let message = "`distill.model` is missing: which model of the endpoint answers?";
        return Err(problem(document, "distill.model", message, "add `distill.model=NAME`"));
    };
    Ok(Answerer::Endpoint { address, model: model.to_owned() })
}

fn read_text(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure { exit: WRONG, ..Failure::io(path, &error) })?;
    Ok(text.trim_end().to_owned())
}

/// The turns of rows that show how to answer, without system messages.
fn read_examples(path: &Path) -> Result<Vec<Message>> {
    let reading = Reading { key: "distill.examples".into(), ..Reading::default() };
    let rows = source::read(path)?;
    let (_, conversations) = record::conversations(rows, &reading, &mut Findings::default())?;
    let turns = conversations.into_iter().flat_map(|conversation| conversation.messages);
    Ok(turns.filter(|turn| turn.role != "system").collect())
}
