//! What the recipe says about making pairs.

use std::path::PathBuf;

use keys::{Document, Section, Settings as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::super::train::at_key;
use crate::asking::{Answerer, Asking, Named, address, hex, problem};
use crate::context::Context;
use crate::error::{Failure, Result, WRONG};
use crate::served::Served;
use hub::Resolved;

/// What a judge looks for where the recipe says nothing.
const RUBRIC: &str = "Compare two answers to the same prompt. The better answer is correct, helps the \
    person who asks, and does what the prompt asks for. Length alone is no merit.";
/// Seconds that a person is taken to need for a pair before there are choices to measure.
const SECONDS_PER_PAIR: f64 = 20.0;

/// Where the answers come from.
pub(super) enum Candidates {
    /// They are asked for.
    Asked(Box<Asked>),
    /// They stand in these columns of the rows.
    Columns(Vec<String>),
}

/// A model that answers each prompt several times.
pub(super) struct Asked {
    pub(super) by: Answerer,
    pub(super) asking: Asking,
    /// Answers to each prompt.
    pub(super) samples: usize,
    /// Of a million tokens.
    pub(super) price: Option<f64>,
    /// The recipe, where its own model answers: with its template and variables.
    recipe: Option<Document>,
}

/// Who chooses.
pub(super) enum ChooseBy {
    Person,
    Judge(Judge),
    /// A reward model.
    Reward(Resolved),
}

/// A model behind an endpoint that compares two answers.
pub(super) struct Judge {
    pub(super) address: String,
    pub(super) model: String,
    pub(super) rubric: String,
    pub(super) asking: Asking,
    /// Of a million tokens.
    pub(super) price: Option<f64>,
}

/// A resolved section `pairs`.
pub(super) struct PairsConfig {
    pub(super) candidates: Candidates,
    pub(super) choose_by: ChooseBy,
    pub(super) output: PathBuf,
    pub(super) max_pairs: Option<usize>,
    seconds_per_pair: Option<f64>,
    pub(super) rate_per_hour: Option<f64>,
    pub(super) seed: u64,
}

impl PairsConfig {
    pub(super) fn read(document: &Document, context: &Context) -> Result<Self> {
        let section = document.section("pairs");
        let Some(output) = section.opt_path("output") else {
            let message = "`pairs.output` is missing: where do the pairs go?";
            let hint = "add `pairs.output=pairs.jsonl`, or say it in the recipe";
            return Err(problem(document, "pairs.output", message, hint));
        };
        let choose_by = match section.opt_str("choose_by") {
            Some("judge") => ChooseBy::Judge(judge(document, context)?),
            Some("reward") => ChooseBy::Reward(reward(document, context)?),
            _ => ChooseBy::Person,
        };
        Ok(PairsConfig {
            candidates: candidates(document, context)?,
            choose_by,
            output: output.to_owned(),
            max_pairs: section.opt_usize("max_pairs"),
            seconds_per_pair: section.opt_f64("seconds_per_pair"),
            rate_per_hour: section.opt_f64("rate_per_hour"),
            seed: document.get_i64("seed") as u64,
        })
    }

    /// The columns of the rows that hold answers.
    pub(super) fn columns(&self) -> &[String] {
        match &self.candidates {
            Candidates::Columns(columns) => columns,
            Candidates::Asked(_) => &[],
        }
    }

    /// Pairs out of the answers to a prompt, at most.
    pub(super) fn pairs_per_prompt(&self) -> usize {
        match (&self.choose_by, &self.candidates) {
            (ChooseBy::Reward(_), _) => 1,
            (_, Candidates::Columns(columns)) => columns.len() - 1,
            (_, Candidates::Asked(asked)) => asked.samples - 1,
        }
    }

    /// Seconds that a person takes for a pair, out of those so far where the recipe does not say.
    pub(super) fn seconds_per_pair(&self, so_far: Option<f64>) -> f64 {
        self.seconds_per_pair.or(so_far).unwrap_or(SECONDS_PER_PAIR)
    }

    /// What cannot be paired, and why.
    pub(super) fn left_out(&self) -> PathBuf {
        self.output.with_extension("left_out.jsonl")
    }

    /// All answers and choices as they come.
    pub(super) fn journal(&self) -> PathBuf {
        self.output.with_extension("journal.jsonl")
    }

    /// A hash of all that the answers depend on beside their prompts.
    pub(super) fn fingerprint(&self) -> String {
        let text = match &self.candidates {
            Candidates::Columns(columns) => json!([columns]),
            Candidates::Asked(asked) => {
                let Asked { by, asking, recipe, .. } = &**asked;
                let by = by.identity(recipe.as_ref());
                let Asking { max_new_tokens, temperature, top_p, seed, .. } = asking;
                json!([by, max_new_tokens, temperature, top_p, seed])
            }
        };
        hex(&Sha256::digest(text.to_string()))
    }
}

impl Asked {
    /// How a model on this machine is shown its prompts.
    pub(super) fn served(&self, context: &Context, model: &Resolved) -> Result<Served> {
        let mut served = Served::of_model(context, model)?;
        served.recipe = self.recipe.clone();
        Ok(served)
    }

    /// What an answer came from, for the rows that are written.
    pub(super) fn called(&self, context: &Context) -> String {
        match &self.by {
            Answerer::Local(model) => {
                context.environment.show(model.adapter.as_ref().unwrap_or(&model.path))
            }
            Answerer::Endpoint { model, .. } => model.clone(),
        }
    }
}

impl Judge {
    /// The name of the rater: another rubric makes another rater.
    pub(super) fn rater(&self) -> String {
        let rubric = hex(&Sha256::digest(&self.rubric)[..4]);
        format!("{JUDGE}{}@{rubric}", self.model)
    }
}

/// What the names of judges begin with.
const JUDGE: &str = "judge:";
/// What the names of reward models begin with.
pub(super) const REWARD: &str = "reward:";

/// Whether a rater of this name is a person.
pub(super) fn is_person(name: &str) -> bool {
    !name.starts_with(JUDGE) && !name.starts_with(REWARD)
}

const CANDIDATES: Named = Named {
    code: "candidates",
    who: "who answers",
    key: "pairs.candidates.endpoint",
    concurrency: "pairs.candidates.concurrency",
};

const JUDGING: Named = Named {
    code: "judge",
    who: "a judge",
    key: "pairs.judge.endpoint",
    concurrency: "pairs.judge.concurrency",
};

fn candidates(document: &Document, context: &Context) -> Result<Candidates> {
    let section = document.section("pairs.candidates");
    if let Some(columns) = section.opt_strs("columns") {
        let columns: Vec<String> = columns.into_iter().map(str::to_owned).collect();
        let twice = columns.iter().enumerate().find(|(at, name)| columns[..*at].contains(name));
        if let Some((_, name)) = twice {
            let message = format!("`pairs.candidates.columns` names `{name}` twice");
            let hint = "a pair needs two different columns";
            return Err(problem(document, "pairs.candidates.columns", &message, hint));
        }
        return Ok(Candidates::Columns(columns));
    }
    let asking = asking(&section, 1.0, CANDIDATES, document);
    Ok(Candidates::Asked(Box::new(Asked {
        by: answerer(document, context)?,
        asking,
        samples: section.opt_usize("samples").unwrap_or(2),
        price: section.opt_f64("price"),
        recipe: (!document.is_given("pairs.candidates.model")).then(|| document.clone()),
    })))
}

/// The keys that candidates and judges have alike.
fn asking(section: &Section<'_>, temperature: f64, named: Named, document: &Document) -> Asking {
    Asking {
        max_new_tokens: section.opt_usize("max_new_tokens").unwrap_or(512) as u32,
        temperature: section.opt_f64("temperature").unwrap_or(temperature) as f32,
        top_p: section.opt_f64("top_p").unwrap_or(1.0) as f32,
        concurrency: section.opt_usize("concurrency").unwrap_or(8) as u16,
        seed: document.get_i64("seed") as u64,
        named,
    }
}

fn answerer(document: &Document, context: &Context) -> Result<Answerer> {
    let key = "pairs.candidates.model";
    let model = document.opt_locator(key);
    if let Some(endpoint) = document.opt_str(CANDIDATES.key) {
        let instead = "let a model on this machine answer";
        let address = address(document, CANDIDATES.key, endpoint, context, instead)?;
        let Some(model) = model else {
            let message = format!("`{key}` is missing: which model of the endpoint answers?");
            return Err(problem(document, CANDIDATES.key, &message, "add its name there"));
        };
        return Ok(Answerer::Endpoint { address, model: model.name.clone() });
    }
    let (key, locator, revision) = match model {
        Some(model) => (key, model, None),
        None => ("model.id", document.get_locator("model.id"), document.opt_str("model.revision")),
    };
    let found = context.models().locate(locator, revision);
    found.map(Answerer::Local).map_err(|failure| at_key(document, key, failure))
}

fn reward(document: &Document, context: &Context) -> Result<Resolved> {
    let key = "pairs.reward";
    let Some(locator) = document.opt_locator(key) else {
        let message = format!("`{key}` is missing: which reward model scores the answers?");
        let hint = "name its adapter folder or run there";
        return Err(problem(document, "pairs.choose_by", &message, hint));
    };
    let found = context.models().locate(locator, None);
    found.map_err(|failure| at_key(document, key, failure))
}

fn judge(document: &Document, context: &Context) -> Result<Judge> {
    let section = document.section("pairs.judge");
    let missing = |key: &str, what: &str, hint: &str| {
        let message = format!("`{key}` is missing: {what}");
        problem(document, "pairs.choose_by", &message, hint)
    };
    let endpoint = section.opt_str("endpoint").ok_or_else(|| {
        let hint = "add it, such as http://localhost:8000/v1, or let a person choose";
        missing(JUDGING.key, "where is the judge?", hint)
    })?;
    let model = section.opt_str("model").ok_or_else(|| {
        missing("pairs.judge.model", "which model of the endpoint judges?", "add its name there")
    })?;
    let rubric = match section.opt_path("rubric_file") {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Failure { exit: WRONG, ..Failure::io(path, &error) })?,
        None => section.opt_str("rubric").unwrap_or(RUBRIC).to_owned(),
    };
    Ok(Judge {
        address: address(document, JUDGING.key, endpoint, context, "let a person choose")?,
        model: model.to_owned(),
        rubric: rubric.trim().to_owned(),
        asking: asking(&section, 0.0, JUDGING, document),
        price: section.opt_f64("price"),
    })
}
