//! `tunesmith distill`: a teacher answers under a long prompt, and the rows forget the prompt.

mod config;
mod files;
mod size;

use std::time::Instant;

use clap::Args;
use serde_json::json;
use text::Message;
use train::claim::Claim;

use super::quote;
use super::subject::Recipe;
use crate::asking::prompts::{self, Ask, Prompt, Wishes};
use crate::asking::{Answer, Answerer, Endpoint, Local, Request, Requests, bar};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::signals::{Signals, StopSignal};
use crate::terminal::style::{count, duration};
use config::DistillConfig;
use files::{Files, Occupied, Tally};

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith distill recipe.yaml distill.system_file=long.txt distill.output=distilled.jsonl
  tunesmith distill recipe.yaml distill.teacher=http://localhost:8000/v1 distill.model=big
  tunesmith distill recipe.yaml --resume

The prompts are those of the recipe's `data.train`; answers in these rows are ignored. The key for an
endpoint is read from `OPENAI_API_KEY`.";

/// What `distill` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    recipe: Recipe,

    /// Keep the answers so far, and ask only for those that are missing
    #[arg(long)]
    resume: bool,

    /// Overwrite an existing output
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let begun = Instant::now();
    let document = arguments.recipe.document(context)?;
    let config = DistillConfig::read(&document, context)?;
    let occupied = match (arguments.resume, arguments.overwrite) {
        (true, _) => Occupied::Resume,
        (_, true) => Occupied::Overwrite,
        _ => Occupied::Refuse,
    };
    let _claim = Claim::beside(&config.output)?;
    let wishes = Wishes { output: &config.output, output_key: "distill.output", kept: &[] };
    let prompts = prompts::read(&document, context, config.asking.seed, &wishes)?;
    let mut files = Files::open(&config, occupied, context)?;
    let (asks, kept) = files.match_up(&prompts, config.samples);
    if !kept.is_empty() {
        let (kept, all) = (count(kept.len() as u64), count(asks.len() as u64));
        context.terminal.note(&format!("{kept} of {all} answers exist already"));
    }
    let stopped_by = Work { config: &config, context, asks: &asks }.ask(&mut files)?;
    let done = Done { config: &config, prompts: &prompts, begun };
    match stopped_by {
        Some(asked) => {
            done.tell_stopped(context, &files, arguments);
            Ok(asked.exit_code())
        }
        None => {
            let tally = files.finish(&asks, &config)?;
            done.tell(context, &document, &tally)?;
            Ok(0)
        }
    }
}

/// Prompts that wait for a teacher.
struct Work<'a> {
    config: &'a DistillConfig,
    context: &'a Context,
    asks: &'a [Ask<'a>],
}

impl Work<'_> {
    /// Asks for what is missing. Returns the signal that ended it early.
    fn ask(&self, files: &mut Files) -> Result<Option<StopSignal>> {
        let missing: Vec<usize> = files.missing();
        if missing.is_empty() {
            return Ok(None);
        }
        let signals = Signals::install()?;
        let bar = bar(self.context, missing.len());
        let mut on_answer = |missed: usize, answer: Answer| {
            bar.inc(1);
            files.keep(missing[missed], &self.asks[missing[missed]], answer)?;
            self.context.terminal.written()
        };
        let DistillConfig { teacher, asking, .. } = self.config;
        let request = |missed: usize| self.request(&self.asks[missing[missed]]);
        let requests = Requests { count: missing.len(), of: &request };
        let asked = match teacher {
            Answerer::Endpoint { address, model } => {
                Endpoint::new(address, model, asking, self.context).answer(
                    requests,
                    &signals,
                    &mut on_answer,
                )
            }
            Answerer::Local(model) => {
                let session =
                    self.config.served(self.context, model)?.session(self.context, model)?;
                Local::new(session, asking).answer(requests, &signals, &mut on_answer)
            }
        };
        bar.finish_and_clear();
        asked.map_err(|failure| with_resume(failure, files))?;
        Ok(signals.asked().filter(|_| !files.missing().is_empty()))
    }

    fn request(&self, ask: &Ask<'_>) -> Request {
        Request {
            messages: for_teacher(self.config, ask.prompt),
            tools: ask.prompt.tools.clone(),
            place: ask.prompt.place.clone(),
            seed: ask.seed(self.config.asking.seed),
        }
    }
}

/// Says that answers that were got are not lost.
fn with_resume(failure: Failure, files: &Files) -> Failure {
    if files.kept() == 0 {
        return failure;
    }
    let more =
        format!("`--resume` continues after the {} answers so far", count(files.kept() as u64));
    let hint = failure.hint.as_ref().map_or(more.clone(), |hint| format!("{hint}; {more}"));
    failure.hint(hint)
}

/// The end of a command.
struct Done<'a> {
    config: &'a DistillConfig,
    prompts: &'a [Prompt],
    begun: Instant,
}

impl Done<'_> {
    fn tell(&self, context: &Context, document: &keys::Document, tally: &Tally) -> Result<()> {
        let (terminal, style) = (&context.terminal, context.terminal.style);
        let seconds = self.begun.elapsed().as_secs_f64();
        let sizes = size::of_prompts(self.prompts, self.config, document, context)?;
        let output = context.environment.show(&self.config.output);
        terminal.say(&style.bold(&format!(
            "{} rows from {} prompts in {}",
            count(tally.written as u64),
            count(self.prompts.len() as u64),
            duration(seconds)
        )));
        if let Some((teacher, student)) = sizes {
            let mean = |tokens: u64| tokens as f64 / self.prompts.len().max(1) as f64;
            let (teacher, student) = (mean(teacher), mean(student));
            terminal.say(&format!("prompts   {teacher:.0} → {student:.0} tokens each"));
        }
        if tally.rejected > 0 {
            let rejected = context.environment.show(&self.config.rejected());
            let flaws: Vec<String> =
                tally.flaws.iter().map(|(flaw, times)| format!("{times} x {flaw}")).collect();
            terminal.warn(&format!(
                "{} answers cannot be trained on ({}): {rejected}",
                count(tally.rejected as u64),
                flaws.join(", ")
            ));
        }
        terminal.say(&format!("output    {output}"));
        terminal.say(&style.bold("next"));
        let program = quote(context.environment.program());
        terminal.say(&format!("  {program} init sft --data {}", quote(&output)));
        terminal.result(json!({
            "status": "finished", "rows_in": self.prompts.len(), "rows_written": tally.written,
            "rejected": tally.rejected, "flaws": tally.flaws,
            "tokens_prompt_teacher": sizes.map(|(teacher, _)| teacher),
            "tokens_prompt_student": sizes.map(|(_, student)| student),
            "output": output, "seconds": seconds,
        }));
        Ok(())
    }

    fn tell_stopped(&self, context: &Context, files: &Files, arguments: &Arguments) {
        let terminal = &context.terminal;
        let (kept, all) = (files.kept(), self.prompts.len() * self.config.samples);
        terminal.say(&format!("stopped after {} of {} answers", kept, count(all as u64)));
        terminal.say(&terminal.style.bold("next"));
        let program = quote(context.environment.program());
        let given = arguments.recipe.given();
        terminal.say(&format!("  {program} distill {given} --resume"));
        terminal.result(json!({
            "status": "interrupted", "rows_in": self.prompts.len(), "answers": kept,
            "output": context.environment.show(&self.config.output),
            "seconds": self.begun.elapsed().as_secs_f64(),
        }));
    }
}

/// The turns that the teacher sees for a prompt.
fn for_teacher(config: &DistillConfig, prompt: &Prompt) -> Vec<Message> {
    let system = config.system.as_deref().or(prompt.system.as_deref());
    let system = system.map(|text| Message::new("system", text));
    system.into_iter().chain(config.examples.clone()).chain(prompt.messages.clone()).collect()
}

/// The turns before the answer in the row that is written.
fn for_student(config: &DistillConfig, prompt: &Prompt) -> Vec<Message> {
    let system = config.keep_system.as_deref().map(|text| Message::new("system", text));
    system.into_iter().chain(prompt.messages.clone()).collect()
}
