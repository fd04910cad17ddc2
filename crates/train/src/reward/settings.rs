//! The rewards of a recipe, read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keys::{Document, Locator, Section, Settings as _};
use serde_json::{Map, Value};

use super::{RewardError, grader};
use crate::environment::{self, EnvironmentSettings};
use crate::program;
use crate::{Error, Result};

/// What a judge looks for where the recipe says nothing.
const RUBRIC: &str = "Judge the answer to the prompt. A good answer is correct, helps the person who asks, and does \
    what the prompt asks for. Length alone is no merit.";

/// One reward function of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardSettings {
    /// Its name in metrics and messages; no other has it.
    pub name: String,
    /// Its part in the sum.
    pub weight: f64,
    /// Lowest and highest value that it may give.
    pub range: Option<[f64; 2]>,
    /// What gives it.
    pub kind: RewardKind,
    /// How long a program may take until its next answer, or a request until it is answered.
    pub timeout: Duration,
    /// How often a reward that failed is asked for again.
    pub retries: u32,
    /// Programs or requests at once.
    pub concurrency: usize,
    /// Most completions that are handed over at once.
    pub batch: usize,
    /// What happens to a completion whose reward failed.
    pub on_error: OnRewardError,
    /// Its key in the recipe, such as `rewards.0`.
    pub key: String,
}

/// What gives a reward.
#[derive(Clone, Debug, PartialEq)]
pub enum RewardKind {
    /// A grader of [`eval::grader`].
    Grader {
        /// Its name.
        name: String,
        /// Its options.
        options: Map<String, Value>,
    },
    /// A reward model, which is computed on the device and not by [`Rewards`](super::Rewards).
    Model(Locator),
    /// A program over JSON Lines.
    Command {
        /// The program and its arguments.
        command: Vec<String>,
        /// The folder that it runs in.
        folder: PathBuf,
    },
    /// An address that completions are posted to.
    Http(String),
    /// A model behind an endpoint that scores answers.
    Judge(JudgeSettings),
}

/// A judge that gives whole scores.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeSettings {
    /// The address up to /v1.
    pub endpoint: String,
    /// A model there.
    pub model: String,
    /// What it looks for.
    pub rubric: String,
    /// Lowest and highest score.
    pub scale: [i64; 2],
    /// Most tokens that it may say about an answer.
    pub max_new_tokens: u32,
}

/// What happens to a completion whose reward failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRewardError {
    /// The run ends with an error.
    #[default]
    Stop,
    /// It has no such reward, which is counted.
    Skip,
}

impl OnRewardError {
    /// What a recipe says.
    pub(crate) fn read(document: &Document) -> Self {
        match document.opt_str("rollout.on_reward_error") {
            Some("skip") => OnRewardError::Skip,
            _ => OnRewardError::Stop,
        }
    }
}

impl RewardSettings {
    /// The rewards of a recipe, in its order. Each is right in itself: its grader takes its options, its files are
    /// there, and one of the weights is not 0.
    pub fn read(document: &Document) -> Result<Vec<RewardSettings>> {
        let on_error = OnRewardError::read(document);
        let environment = EnvironmentSettings::read(document)?;
        let entries = document.entries("rewards");
        let mut all: Vec<RewardSettings> = Vec::with_capacity(entries.len());
        for entry in &entries {
            let settings = read(entry, on_error)?;
            if let Some(other) = all.iter().find(|other| other.name == settings.name) {
                let message = format!("two rewards are called `{}`", other.name);
                return Err(problem(entry, "name", message, "give one of them another `name`"));
            }
            if environment.is_some() && settings.name == environment::REWARD {
                let message =
                    format!("`{}` is the name of the environment's own reward", settings.name);
                return Err(problem(entry, "name", message, "give this one another `name`"));
            }
            all.push(settings);
        }
        let weights = all.iter().map(|settings| settings.weight);
        let mut weights = weights.chain(environment.map(|settings| settings.weight)).peekable();
        if weights.peek().is_some() && weights.all(|weight| weight == 0.0) {
            let message = "every reward has weight 0, so nothing is learned";
            let hint = Some("give one of them a `weight` that is not 0".to_owned());
            return Err(keys::Error::from(document.problem("rewards", message, hint)).into());
        }
        Ok(all)
    }

    /// A value that the source gave, refused where it is not finite or out of range.
    pub fn checked(&self, value: f64) -> std::result::Result<f64, RewardError> {
        if !value.is_finite() {
            let error = RewardError::new(format!("the reward is {value}, not a finite number"));
            return Err(error.with_hint("give `null` for an answer that has no reward"));
        }
        match self.range {
            Some([low, high]) if !(low..=high).contains(&value) => {
                let message = format!("the reward is {value}, out of its range {low} to {high}");
                let hint = format!("correct the reward, or `{}.range`", self.key);
                Err(RewardError::new(message).with_hint(hint))
            }
            _ => Ok(value),
        }
    }

    /// Whether it is left to who has the device.
    pub fn is_model(&self) -> bool {
        matches!(self.kind, RewardKind::Model(_))
    }
}

/// Refuses rewards that cannot be given, and a recipe without any; before any data is read.
pub fn check(document: &Document) -> Result<()> {
    let has_rewards = !RewardSettings::read(document)?.is_empty();
    if has_rewards || EnvironmentSettings::read(document)?.is_some() {
        return Ok(());
    }
    let message =
        format!("`rewards` is missing: what does `{}` learn from?", document.get_str("method"));
    let hint =
        "such as `rewards: [{grader: number}]` or `rewards: [{command: [python3, reward.py]}]`";
    Err(keys::Error::from(document.problem("rewards", message, Some(hint.to_owned()))).into())
}

fn read(entry: &Section<'_>, on_error: OnRewardError) -> Result<RewardSettings> {
    let kind = kind(entry)?;
    // What a program or address takes unless told otherwise.
    let (seconds, retries, concurrency, batch) = match &kind {
        RewardKind::Grader { .. } | RewardKind::Model(_) => {
            let of_others = ["timeout", "retries", "concurrency", "batch"];
            if let Some(key) = of_others.into_iter().find(|key| entry.is_given(key)) {
                let message = format!("`{}` has no effect: nothing is waited for", entry.full(key));
                return Err(problem(
                    entry,
                    key,
                    message,
                    "leave it out; it belongs to `command`, `http` and `judge`",
                ));
            }
            (60.0, 0, 1, 64)
        }
        RewardKind::Command { .. } => (60.0, 2, 1, 64),
        RewardKind::Http(_) => (60.0, 5, 4, 64),
        RewardKind::Judge(_) => {
            if entry.is_given("batch") {
                let message = format!(
                    "`{}` has no effect: a judge sees one answer at a time",
                    entry.full("batch")
                );
                return Err(problem(
                    entry,
                    "batch",
                    message,
                    "leave it out; `concurrency` is the number of requests at once",
                ));
            }
            (600.0, 5, 8, 1)
        }
    };
    Ok(RewardSettings {
        name: name(entry, &kind)?,
        weight: entry.get_f64("weight"),
        range: range(entry)?,
        timeout: Duration::from_secs_f64(entry.opt_f64("timeout").unwrap_or(seconds)),
        retries: entry.opt_usize("retries").unwrap_or(retries) as u32,
        concurrency: entry.opt_usize("concurrency").unwrap_or(concurrency),
        batch: entry.opt_usize("batch").unwrap_or(batch),
        on_error,
        key: entry.full(""),
        kind,
    })
}

fn kind(entry: &Section<'_>) -> Result<RewardKind> {
    let judge = ["endpoint", "model", "rubric", "rubric_file", "scale", "max_new_tokens"];
    let has_judge = judge.iter().any(|key| entry.is_given(&format!("judge.{key}")));
    // The others exclude each other by their keys.
    let beside = ["grader", "options", "model", "command", "http"];
    if let Some(key) = beside.into_iter().find(|key| has_judge && entry.is_given(key)) {
        let message =
            format!("`{}` cannot stand beside `{}`", entry.full("judge"), entry.full(key));
        return Err(problem(entry, "judge", message, "make them two entries of `rewards`"));
    }
    if let Some(name) = entry.opt_str("grader") {
        let options = entry.opt_map("options").unwrap_or_default();
        let options = options.iter().map(|(name, value)| (name.clone(), value.to_json())).collect();
        grader::make(name, &options).map_err(|error| {
            let key = if options.is_empty() { "grader" } else { "options" };
            let hint = error.hint().map(str::to_owned);
            Error::from(keys::Error::from(entry.problem(key, error.to_string(), hint)))
        })?;
        return Ok(RewardKind::Grader { name: name.to_owned(), options });
    }
    if let Some(model) = entry.opt_locator("model") {
        return Ok(RewardKind::Model(model.clone()));
    }
    if let Some(command) = entry.opt_strs("command") {
        return self::command(entry, command);
    }
    if let Some(address) = entry.opt_str("http") {
        if !address.starts_with("http://") && !address.starts_with("https://") {
            let message = format!("`{address}` is not an address");
            return Err(problem(entry, "http", message, "it begins with http:// or https://"));
        }
        return Ok(RewardKind::Http(address.to_owned()));
    }
    if has_judge {
        return self::judge(entry).map(RewardKind::Judge);
    }
    let message = "the entry names nothing that gives rewards".to_owned();
    Err(problem(
        entry,
        "",
        message,
        "write one of `grader`, `model`, `command`, `http` and `judge`",
    ))
}

/// A program whose files are there.
fn command(entry: &Section<'_>, command: Vec<&str>) -> Result<RewardKind> {
    let folder = entry.opt_path("folder").unwrap_or(Path::new(".")).to_owned();
    if let Some((key, message, hint)) = program::mistake(entry, &command, &folder) {
        return Err(problem(entry, key, message, hint));
    }
    let command = command.into_iter().map(str::to_owned).collect();
    Ok(RewardKind::Command { command, folder })
}

fn judge(entry: &Section<'_>) -> Result<JudgeSettings> {
    let required = |key: &str, what: &str, hint: &str| match entry.opt_str(key) {
        Some(text) => Ok(text.to_owned()),
        None => {
            let message = format!("`{}` is missing: {what}", entry.full(key));
            Err(problem(entry, "judge", message, hint))
        }
    };
    let endpoint =
        required("judge.endpoint", "where is the judge?", "such as http://localhost:8000/v1")?;
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    if !endpoint.starts_with("http") || !endpoint.ends_with("/v1") {
        let message = format!("`{endpoint}` is not the address of an endpoint, which ends in /v1");
        return Err(problem(entry, "judge.endpoint", message, "such as http://localhost:8000/v1"));
    }
    let model =
        required("judge.model", "which model of the endpoint judges?", "add its name there")?;
    let scale = match entry.opt_f64s("judge.scale").as_deref() {
        Some(&[low, high]) if low < high => [low as i64, high as i64],
        Some(_) => {
            let message = format!("`{}` has no room between its ends", entry.full("judge.scale"));
            return Err(problem(
                entry,
                "judge.scale",
                message,
                "write the lowest score first: [0, 10]",
            ));
        }
        None => [0, 10],
    };
    let rubric = match entry.opt_path("judge.rubric_file") {
        Some(path) => std::fs::read_to_string(path).map_err(Error::io(path))?,
        None => entry.opt_str("judge.rubric").unwrap_or(RUBRIC).to_owned(),
    };
    let max_new_tokens = entry.opt_usize("judge.max_new_tokens").unwrap_or(512) as u32;
    Ok(JudgeSettings { endpoint, model, rubric: rubric.trim().to_owned(), scale, max_new_tokens })
}

fn range(entry: &Section<'_>) -> Result<Option<[f64; 2]>> {
    match entry.opt_f64s("range").as_deref() {
        Some(&[low, high]) if low <= high => Ok(Some([low, high])),
        Some(_) => {
            let message = format!("`{}` ends before it begins", entry.full("range"));
            Err(problem(entry, "range", message, "write the lowest value first: [0, 1]"))
        }
        None => Ok(None),
    }
}

/// The given name, or one after what gives the reward.
fn name(entry: &Section<'_>, kind: &RewardKind) -> Result<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if let Some(name) = entry.opt_str("name") {
        if name.is_empty() || !name.chars().all(fits) {
            let message = format!("`{name}` cannot be a part of a metric's name");
            return Err(problem(
                entry,
                "name",
                message,
                "write it with letters, digits, `_`, `-` and `.`",
            ));
        }
        return Ok(name.to_owned());
    }
    let stem = |path: &str| {
        let stem = Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        stem.unwrap_or_else(|| path.to_owned())
    };
    let name = match kind {
        RewardKind::Grader { name, .. } => name.clone(),
        RewardKind::Model(locator) => stem(&locator.name),
        RewardKind::Command { command, .. } => {
            // `python3 reward.py` is called reward.
            let script = command.iter().skip(1).find(|word| program::is_script(word));
            stem(script.unwrap_or(&command[0]))
        }
        RewardKind::Http(_) => "http".to_owned(),
        RewardKind::Judge(_) => "judge".to_owned(),
    };
    Ok(name.chars().map(|c| if fits(c) { c } else { '_' }).collect())
}

fn problem(entry: &Section<'_>, key: &str, message: String, hint: &str) -> Error {
    let key_of_entry = if key.is_empty() { "" } else { key };
    keys::Error::from(entry.problem(key_of_entry, message, Some(hint.to_owned()))).into()
}
