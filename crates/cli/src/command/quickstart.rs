//! `tunesmith quickstart`: a real small model learns a task, and the proof that it did.

mod arms;
mod demo;
mod model;
mod pace;
mod plan;
mod plot;
mod recipe;
mod report;

use std::fs;
use std::path::Path;
use std::time::Instant;

use clap::Args;
use eval::compare::Comparison;
use hub::Resolved;
use session::Session;
use train::run::{Occupied, RunFolder, write_atomic};

use super::quote;
use super::train::{Outcome, TrainRequest};
use crate::context::Context;
use crate::environment::peak_memory;
use crate::error::{Failure, Result};
use crate::signals::{Signals, StopSignal};
use crate::terminal::style::{bytes, count, duration};
use arms::{Exam, SCHEMA, SHOTS, TUNED};
use demo::Demo;
pub(crate) use model::{SMOLLM2, stand_ins};
use plan::{ArmWork, Pace, Plan, TrainWork};
use recipe::{BATCH_SIZE, FULL_STEPS, VALIDATION_ROWS, VALIDATIONS};

/// Rows that the machine's pace is measured on.
const PACE_ROWS: usize = 64;

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith quickstart
  tunesmith quickstart --output runs/first --seed 2

The model comes from a cache, the model hub or a Python package, whichever has it. `TUNESMITH_MODEL` names a
folder or a `.gguf` file to use instead.";

/// What `quickstart` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Folder for data, recipe and run [default: runs/quickstart-NNN]
    #[arg(long, value_name = "DIR")]
    output: Option<String>,

    /// Seed of the data and of training
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: u64,

    /// Test messages that each model answers; fewer make wider intervals
    #[arg(long, value_name = "N", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u16).range(2..))]
    messages: u16,

    /// Time limit in minutes; a slow machine trains fewer steps
    #[arg(long, value_name = "M", default_value_t = 6.0, value_parser = minutes)]
    minutes: f64,
}

fn minutes(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "a number above 0 is needed".to_owned())
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let folder = folder(arguments, context)?;
    let model = model::find(context)?;
    let mut show = Show { arguments, context, folder, begun: Instant::now() };
    show.go(&model)
}

/// A folder of its own: nothing that is there already is touched.
fn folder(arguments: &Arguments, context: &Context) -> Result<RunFolder> {
    let environment = &context.environment;
    let Some(given) = &arguments.output else {
        return Ok(RunFolder::claim_next(&environment.current_dir.join("runs"), "quickstart")?);
    };
    let folder = environment.path(given);
    let is_taken =
        fs::read_dir(&folder).map_or(folder.exists(), |mut entries| entries.next().is_some());
    if is_taken {
        let message = format!("{}: is not an empty folder", environment.show(&folder));
        return Err(Failure::wrong("occupied", message)
            .at(&folder)
            .hint("name another one with `--output`"));
    }
    Ok(RunFolder::claim(&folder, Occupied::Refuse)?)
}

/// One quickstart from its first word to its last.
struct Show<'a> {
    arguments: &'a Arguments,
    context: &'a Context,
    folder: RunFolder,
    /// When the model was there: what comes before depends on the network.
    begun: Instant,
}

impl Show<'_> {
    fn go(&mut self, model: &Resolved) -> Result<u8> {
        let signals = Signals::install()?;
        let demo = self.tell_task();
        let mut session = arms::open(self.context, model, None)?;
        let exam = Exam::new(&demo, self.arguments.seed);
        let measured = pace::measure(&mut session, &demo.train[..PACE_ROWS])?;
        let work = self.work(&session, &exam, &demo)?;
        self.estimate(&session, &measured, &work);

        self.head("before: what prompting makes of it");
        let schema = exam.run(self.context, &mut session, SCHEMA, &signals)?;
        let shots = exam.run(self.context, &mut session, SHOTS, &signals)?;
        let pace = measured.shown_by(&[schema.work, shots.work], schema.seconds + shots.seconds);
        // Other work on the machine only ever slows a measurement down: the faster one is right.
        let train = pace.train.max(pace::train_pace(&mut session, &demo.train[..PACE_ROWS])?);
        let pace = Pace { train, ..pace };
        let (format, storage) = (session.base().format, session.storage().to_owned());
        // Training loads the model anew; two at once would only cost memory.
        drop(session);

        let left = 60.0 * self.arguments.minutes - self.begun.elapsed().as_secs_f64();
        let plan = Plan::new(&pace, &work.train, &[work.tuned], left);
        let demo = self.write_data(demo, &plan)?;
        let outcome = self.train(&plan)?;
        if let Some(asked) = outcome.stopped_by {
            return Ok(self.interrupted(&outcome, asked));
        }

        self.head("after: the tuned model, told one sentence");
        let mut session = arms::open(self.context, model, Some(&outcome.summary.adapter))?;
        let tuned = exam.run(self.context, &mut session, TUNED, &signals)?;
        drop(session);

        let floor = exam.floor(&demo.train);
        let arms = vec![schema.arm, shots.arm, tuned.arm];
        let comparison = Comparison { arms, floor, rows: exam.rows().len() };
        let figures = report::Figures {
            summary: &outcome.summary,
            full_steps: plan.full_steps,
            weights: report::weights(format, &storage, &outcome.summary),
            seconds: self.begun.elapsed().as_secs_f64(),
            peak_host_bytes: peak_memory(),
        };
        self.report(&comparison, &exam, &outcome, &figures);
        self.context.terminal.result(report::to_json(&comparison, &figures));
        Ok(0)
    }

    fn say(&self, line: &str) {
        self.context.terminal.say(line);
    }

    fn head(&self, line: &str) {
        self.say("");
        self.say(&self.context.terminal.style.bold(line));
    }

    fn show(&self, path: &Path) -> String {
        self.context.environment.show(path)
    }

    /// Makes the data of the whole course, and shows a row of it.
    fn tell_task(&self) -> Demo {
        let messages = usize::from(self.arguments.messages);
        let demo = demo::generate(self.arguments.seed, recipe::rows(FULL_STEPS), messages);
        self.head("the task: a support message becomes one strict JSON ticket");
        let row = &demo.train[0];
        row.message.lines().for_each(|line| self.say(&format!("  {line}")));
        self.say(&format!("  → {}", row.answer()));
        demo
    }

    /// Writes as many rows as there are steps for, so that each is learned once.
    fn write_data(&self, mut demo: Demo, plan: &Plan) -> Result<Demo> {
        demo.train.truncate(recipe::rows(plan.steps));
        let files = demo.write(&self.folder.path().join("tickets"))?;
        self.say(&format!(
            "data   {} ({} rows), {} ({} rows in sentence patterns of their own)",
            self.show(&files.train),
            demo.train.len(),
            self.show(&files.test),
            demo.test.len()
        ));
        Ok(demo)
    }

    /// Counts the tokens of all that is to be done.
    fn work(&self, session: &Session, exam: &Exam, demo: &Demo) -> Result<Work> {
        let rows = pace::sequences(session, &demo.train[..PACE_ROWS])?;
        let tokens: usize = rows.iter().map(data::Sequence::len).sum();
        let row_tokens = tokens as f64 / rows.len() as f64;
        let train = TrainWork {
            steps: FULL_STEPS,
            step_tokens: row_tokens * BATCH_SIZE as f64,
            validation_tokens: row_tokens * VALIDATION_ROWS as f64,
            validations: VALIDATIONS as f64,
        };
        let base = [exam.work(session, SCHEMA)?, exam.work(session, SHOTS)?];
        Ok(Work { train, base, tuned: exam.work(session, TUNED)? })
    }

    fn estimate(&self, session: &Session, pace: &Pace, work: &Work) {
        let seconds = 60.0 * self.arguments.minutes - self.begun.elapsed().as_secs_f64();
        let arms = [work.base[0], work.base[1], work.tuned];
        let plan = Plan::new(pace, &work.train, &arms, seconds);
        let device = session.device();
        self.say(&format!(
            "speed  {} on {} threads: {} tokens/s trained, {} read, {} written",
            device.isa,
            device.threads,
            count(pace.train as u64),
            count(pace.prefill as u64),
            count(pace.decode as u64)
        ));
        let style = self.context.terminal.style;
        self.say(&style.bold(&format!(
            "time   about {}: {} of answers, {} of training",
            duration(plan.seconds()),
            duration(plan.arm_seconds),
            duration(plan.train_seconds)
        )));
        self.tell_fewer(&plan);
    }

    fn tell_fewer(&self, plan: &Plan) {
        let Plan { steps, full_steps, is_late, .. } = plan;
        let (steps, minutes) = (format!("{steps} of {full_steps} steps"), self.arguments.minutes);
        if *is_late {
            self.say(&format!(
                "       this machine is slow: it makes {steps}, the fewest, and takes more than \
                 {minutes} minutes"
            ));
        } else if plan.steps < *full_steps {
            self.say(&format!(
                "       this machine makes {steps} in {minutes} minutes; `--minutes` gives it more"
            ));
        }
    }

    /// Writes the recipe, prints it, and runs it as `tunesmith train` would.
    fn train(&self, plan: &Plan) -> Result<Outcome> {
        let text = recipe::text(plan.steps, self.arguments.seed);
        let path = self.folder.path().join("tickets.yaml");
        write_atomic(&path, text.as_bytes())?;
        self.head(&format!("the recipe: {}", self.show(&path)));
        self.tell_fewer(plan);
        text.lines().for_each(|line| self.say(&format!("  {line}")));
        self.head(&format!("training, about {}", duration(plan.train_seconds)));
        let request =
            TrainRequest { recipe: path, overrides: Vec::new(), occupied: Occupied::Refuse };
        request.run(self.context)
    }

    fn interrupted(&self, outcome: &Outcome, asked: StopSignal) -> u8 {
        outcome.tell(self.context);
        self.context.terminal.result(outcome.to_json());
        asked.exit_code()
    }

    fn report(
        &self,
        comparison: &Comparison,
        exam: &Exam,
        outcome: &Outcome,
        figures: &report::Figures<'_>,
    ) {
        let style = self.context.terminal.style;
        self.head(&format!("{} held-out messages", comparison.rows));
        report::results(comparison).lines().for_each(|line| self.say(line));
        report::side_by_side(comparison, exam, style).iter().for_each(|line| self.say(line));
        self.head("loss of every step");
        plot::plot(&outcome.curve, 64, 6).iter().for_each(|line| self.say(line));
        self.say("");
        self.say(&style.bold(&report::verdict(comparison)));
        let summary = &outcome.summary;
        let memory =
            figures.peak_host_bytes.map(|peak| format!(", peak memory {}", bytes(peak as u64)));
        self.say(&format!("measured   {}", figures.weights));
        self.say(&format!(
            "took       {}; training {} tokens/s{}",
            duration(figures.seconds),
            count(summary.tokens_per_s as u64),
            memory.unwrap_or_default()
        ));
        self.say(&format!("adapter    {}", self.show(&summary.adapter)));
        self.next(&summary.run);
    }

    fn next(&self, run: &Path) {
        let run = quote(&self.show(run));
        let system = quote(demo::SYSTEM_SHORT);
        let message = quote(&report::to_try(&demo::shots()));
        self.say(&self.context.terminal.style.bold("next"));
        let program = quote(self.context.environment.program());
        self.say(&format!("  {program} chat {run} --system {system}"));
        self.say(&format!("  {program} generate {run} --system {system} --prompt {message}"));
        self.say(&format!("  {program} init sft --data yours.jsonl"));
    }
}

/// The tokens of all that is to be done.
struct Work {
    train: TrainWork,
    base: [ArmWork; 2],
    tuned: ArmWork,
}
