//! `tunesmith train`: a recipe becomes an adapter.

use std::path::{Path, PathBuf};

use clap::Args;
use keys::{Document, Settings as _};
use model::Base;
use serde_json::Value;
use train::moved::Moved;
use train::recipe::{run_stem, schema};
use train::run::{Occupied, RunFolder};
use train::trainer::{Control, DataAccess, Job, Summary};

use super::quote;
use super::subject::teacher;
use crate::context::{Context, precision_of};
use crate::environment::{peak_memory, resident_memory};
use crate::error::{Failure, Result};
use crate::memory::free_memory;
use crate::rewards;
use crate::signals::{Signals, StopSignal};
use crate::terminal::Terminal;
use crate::terminal::curve::sparkline;
use crate::terminal::progress::Progress;
use crate::terminal::style::{bytes, count, duration};
use hub::Resolved;

macro_rules! examples {
    () => {
        "Examples:
  tunesmith train recipe.yaml
  tunesmith train recipe.yaml train.learning_rate=1e-4 output=runs/slower
  tunesmith train runs/recipe-001 --resume"
    };
}

/// What to type, for `-h`.
pub(super) const EXAMPLES: &str = concat!(examples!(), "\n\n`--help` lists every key of a recipe.");

/// What stands before the keys in `--help`.
pub(crate) const KEYS_HEAD: &str = concat!(examples!(), "\n\nKeys of a recipe, also as KEY=VALUE:");

/// What a signal before the first step ends with.
const BEFORE_FIRST_STEP: &str =
    "interrupted before the first step: nothing was trained, and rows that are prepared are kept";

/// What `train` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A recipe, or the folder of a run
    #[arg(value_name = "RECIPE")]
    recipe: String,

    /// Keys that override the recipe, such as train.epochs=2
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,

    /// Resume a run (default: the latest run of this recipe)
    #[arg(long)]
    resume: bool,

    /// Replace the run in the output folder; other files there stay
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let occupied = match (arguments.resume, arguments.overwrite) {
        (true, _) => Occupied::Resume,
        (_, true) => Occupied::Overwrite,
        _ => Occupied::Refuse,
    };
    let recipe = context.environment.path(&arguments.recipe);
    let request = TrainRequest { recipe, overrides: arguments.overrides.clone(), occupied };
    let outcome = request.run(context)?;
    outcome.tell(context);
    context.terminal.result(outcome.to_json());
    Ok(outcome.stopped_by.map_or(0, StopSignal::exit_code))
}

/// A recipe to be carried out.
pub(crate) struct TrainRequest {
    /// The recipe, or the folder of a run.
    pub(crate) recipe: PathBuf,
    /// Keys that go before the recipe's, each `key=value`.
    pub(crate) overrides: Vec<String>,
    /// What to do where the output holds a run.
    pub(crate) occupied: Occupied,
}

/// What came of it.
pub(crate) struct Outcome {
    /// The run in figures.
    pub(crate) summary: Summary,
    /// The loss of every step that was done now, or the reward of its rollout.
    pub(crate) curve: Vec<f64>,
    /// The signal that ended it early.
    pub(crate) stopped_by: Option<StopSignal>,
}

impl TrainRequest {
    /// Reads the recipe, gets the model and trains.
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome> {
        let mut overrides = self.overrides.clone();
        if let Some(precision) = &context.global.precision {
            overrides.push(format!("precision={precision}"));
        }
        let is_run = self.recipe.is_dir() && RunFolder::is_run(&self.recipe);
        let path = if is_run { self.recipe.join("recipe.yaml") } else { self.recipe.clone() };
        let mut document = read_recipe(context, &path, &overrides)?;
        if let Some(moved) = Moved::of(&self.recipe).filter(|_| is_run) {
            document.relocate(&|path| moved.path(path));
        }
        // Before the model is looked for, which may take long.
        let folder = match document.opt_path("output") {
            Some(output) if document.is_given("output") && !is_run => {
                self.claim(context, output)?
            }
            _ if is_run => self.claim(context, &self.recipe)?,
            _ => self.free_or_newest(context, &path)?,
        };
        let model = context
            .models()
            .locate(document.get_locator("model.id"), document.opt_str("model.revision"))
            .map_err(|failure| at_key(&document, "model.id", failure))?;
        self.train(context, document, &model, folder)
    }

    /// Claims a folder, named as the user knows it.
    fn claim(&self, context: &Context, output: &Path) -> Result<RunFolder> {
        let output = PathBuf::from(context.environment.show(output));
        Ok(RunFolder::claim(&output, self.occupied)?)
    }

    /// The run folder where the recipe names none.
    fn free_or_newest(&self, context: &Context, recipe: &Path) -> Result<RunFolder> {
        let (parent, stem) = run_stem(recipe);
        if self.occupied != Occupied::Resume {
            return Ok(RunFolder::claim_next(&parent, &stem)?);
        }
        let parent = context.environment.current_dir.join(parent);
        let newest = newest_run(&parent, &stem).ok_or_else(|| {
            let message = format!("there is no run {}-NNN to resume", parent.join(&stem).display());
            Failure::wrong("refused", message)
                .hint("leave out `--resume` to begin one, or name the folder of the run")
        })?;
        let folder = self.claim(context, &newest)?;
        context.terminal.say(&format!("resuming {}", context.environment.show(&newest)));
        Ok(folder)
    }

    fn train(
        &self,
        context: &Context,
        document: Document,
        model: &Resolved,
        folder: RunFolder,
    ) -> Result<Outcome> {
        let precision = match self.occupied {
            Occupied::Resume if !document.is_given("precision") => precision_so_far(folder.path()),
            _ => None,
        };
        let precision = precision.unwrap_or_else(|| document.get_str("precision").to_owned());
        let backend = &mut *context.device(precision_of(&precision))?;
        let signals = Signals::install()?;
        let asked = signals.clone();
        let stop = data::Stop::when(move || asked.asked().is_some());
        let teacher = teacher(context, &document, &model.path)?;
        let job = Job {
            document,
            base: Base::open(&model.path)?,
            start: model.adapter.clone(),
            base_name: model.name.clone(),
            revision: model.revision.clone(),
            // After the base was mapped, which takes address space.
            memory_limit: free_memory(),
            resident_bytes: resident_memory,
            date: context.today(),
            threads: context.threads(),
            data: DataAccess { stop, ..context.data_access() },
            reward_sources: Box::new(rewards::external(context)),
            teacher,
        };
        let mut progress = Progress::new(&context.terminal);
        let mut stopped_by = None;
        let terminal = &context.terminal;
        let mut control = || match signals.asked() {
            Some(asked) => {
                stopped_by = Some(asked);
                Control::Stop
            }
            None if terminal.written().is_err() => Control::Stop,
            None => Control::Continue,
        };
        // From the first event on it is the loop that hears signals.
        let words = Terminal::new(&context.environment, context.global.json);
        let mut guard = Some(signals.guard(words, BEFORE_FIRST_STEP));
        let mut observer = |event: &train::events::Event| {
            guard.take();
            progress.event(event);
        };
        let trained = train::trainer::train(job, folder, backend, &mut observer, &mut control);
        drop(guard);
        let curve = progress.finish();
        let summary = match (trained, signals.asked()) {
            (Err(error), Some(asked)) if error.is_interrupt() => {
                let failure = Failure::new("interrupted", BEFORE_FIRST_STEP);
                return Err(Failure { exit: asked.exit_code(), ..failure });
            }
            (trained, _) => trained?,
        };
        if summary.status == "interrupted" && stopped_by.is_none() {
            // Nobody is told how it goes: the run is saved, and can go on.
            let run = context.environment.show(&summary.run);
            let hint = format!(
                "the run is saved after step {}: `{} train {} --resume` continues it",
                summary.steps,
                quote(context.environment.program()),
                quote(&run)
            );
            terminal.written().map_err(|failure| failure.hint(hint))?;
        }
        let stopped_by = stopped_by.filter(|_| summary.status == "interrupted");
        Ok(Outcome { summary, curve, stopped_by })
    }
}

impl Outcome {
    /// The result object.
    pub(crate) fn to_json(&self) -> Value {
        let mut json = serde_json::to_value(&self.summary).expect("a summary is JSON");
        json["peak_host_bytes"] = peak_memory().into();
        json["peak_device_bytes"] = 0.into();
        json
    }

    /// The last words: what came out, where it is, and what to type next.
    pub(crate) fn tell(&self, context: &Context) {
        let (terminal, style) = (&context.terminal, context.terminal.style);
        let summary = &self.summary;
        let run = context.environment.show(&summary.run);
        let memory = peak_memory().map(|peak| format!(", peak memory {}", bytes(peak as u64)));
        let what = if summary.status == "finished" { "done:" } else { "stopped after" };
        terminal.say("");
        terminal.say(&style.bold(&format!(
            "{what} {} steps in {}, {} tokens/s{}",
            summary.steps,
            duration(summary.seconds),
            count(summary.tokens_per_s as u64),
            memory.unwrap_or_default()
        )));
        let curve = sparkline(&self.curve, 48);
        match (summary.loss_first, summary.loss_last, &self.curve[..]) {
            (.., [first, .., last]) if summary.learns_from_rewards => {
                terminal.say(&format!("reward      {first:.4} → {last:.4}  {curve}"));
            }
            (Some(first), Some(last), _) => {
                terminal.say(&format!("loss        {first:.4} → {last:.4}  {curve}"));
            }
            _ => {}
        }
        if let (Some(best), Some(last)) = (summary.validation_best, summary.validation_last) {
            let step = summary.best_step;
            let by = summary.validation_by.as_deref().filter(|by| *by != "loss");
            let by = by.map(|by| format!("{by} ")).unwrap_or_default();
            terminal.say(&format!("validation  {by}best {best:.4} at step {step}, last {last:.4}"));
        }
        if let Some(report) = &summary.preference {
            terminal.say("");
            terminal.say(report.to_string().trim_end());
        }
        if let Some(report) = &summary.classification {
            terminal.say("");
            terminal.say(report.to_string().trim_end());
        }
        // A run that trains the model itself leaves a model.
        let is_model = summary.adapter.ends_with("model");
        let what = if is_model { "model" } else { "adapter" };
        let shown = context.environment.show(&summary.adapter);
        terminal.say(&format!("{what:<11} {shown}"));
        terminal.say(&style.bold("next"));
        let (run, program) = (quote(&run), quote(context.environment.program()));
        if self.stopped_by.is_some() {
            terminal.say(&format!("  {program} train {run} --resume"));
        }
        if summary.gives_scores {
            let rows = if summary.classification.is_some() { "texts" } else { "pairs" };
            terminal.say(&format!("  {program} score {run} --data {rows}.jsonl"));
        } else {
            terminal.say(&format!("  {program} generate {run} --prompt 'Hello'"));
            terminal.say(&format!("  {program} chat {run}"));
        }
    }
}

/// Reads a recipe, named as the user knows it.
pub(crate) fn read_recipe(
    context: &Context,
    path: &Path,
    overrides: &[String],
) -> Result<Document> {
    let shown = PathBuf::from(context.environment.show(path));
    let text = std::fs::read_to_string(path).map_err(|error| {
        let failure = Failure::io(&shown, &error);
        Failure { exit: crate::error::WRONG, ..failure }
            .hint("`tunesmith init sft --data FILE` writes a recipe")
    })?;
    let read = |around: &keys::Surroundings<'_>| schema().parse(&text, &shown, overrides, around);
    Ok(context.environment.with_surroundings(read)?)
}

/// A failure that a value of the recipe led to.
pub(super) fn at_key(document: &Document, key: &str, failure: impl Into<Failure>) -> Failure {
    let failure = failure.into();
    let place = document.place(key);
    Failure {
        message: format!("{place}: {}", failure.message),
        file: place.file().map(Into::into).or(failure.file),
        line: place.line().or(failure.line),
        key: Some(key.into()),
        ..failure
    }
}

/// The run of `<parent>/<stem>-NNN` with the highest number.
fn newest_run(parent: &Path, stem: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(parent).ok()?.flatten().map(|entry| entry.path());
    let number = |path: &PathBuf| -> Option<u64> {
        let name = path.file_name()?.to_str()?.strip_prefix(stem)?.strip_prefix('-')?;
        name.parse().ok().filter(|_| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let runs = entries.filter(|path| RunFolder::is_run(path));
    runs.filter_map(|path| Some((number(&path)?, path))).max().map(|(_, path)| path)
}

/// The precision that a run was begun with.
fn precision_so_far(output: &Path) -> Option<String> {
    let bytes = std::fs::read(output.join("manifest.json")).ok()?;
    let manifest: Value = serde_json::from_slice(&bytes).ok()?;
    Some(manifest["machine"]["operand"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_run_of_a_recipe_is_found() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a-001", "a-002", "a-010", "a-b-011", "b-020", "a-x"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
            std::fs::write(root.path().join(name).join("manifest.json"), "{}").unwrap();
        }
        std::fs::create_dir(root.path().join("a-099")).unwrap();
        assert_eq!(newest_run(root.path(), "a"), Some(root.path().join("a-010")));
        assert_eq!(newest_run(root.path(), "c"), None);
        assert_eq!(newest_run(&root.path().join("absent"), "a"), None);
    }
}
