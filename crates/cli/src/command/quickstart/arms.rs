//! The arms: who is asked, with which words, and how that is counted.

use std::path::Path;
use std::time::{Duration, Instant};

use eval::compare::Arm;
use eval::floor;
use eval::grader::{Json, Schema, read_object};
use eval::metric::Metrics;
use hub::Resolved;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use session::{Answer, Flow, Prompt, Question, Sampling, Session};
use text::Message;

use super::demo::{self, Demo, Example};
use super::plan::ArmWork;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::served::Served;
use crate::signals::Signals;
use crate::terminal::style::duration;

/// Longest answer in tokens. A ticket has about 50, and 90 with a line for every field.
const MAX_NEW_TOKENS: usize = 96;

/// Answers that are worked on at the same time.
pub(super) const LANES: usize = 64;

/// The base, told the whole schema.
pub(super) const SCHEMA: &str = "base+schema";
/// The base, told the schema and shown four worked examples.
pub(super) const SHOTS: &str = "base+shots";
/// The tuned model, told one sentence.
pub(super) const TUNED: &str = "tuned";

/// A model that can be asked, with the adapter of a run in place of its own.
pub(super) fn open(context: &Context, model: &Resolved, adapter: Option<&Path>) -> Result<Session> {
    let model = Resolved { adapter: adapter.map(Path::to_owned), ..model.clone() };
    let session = Served::default().session(context, &model)?;
    if session.metadata().chat_template.is_none() {
        let message = format!("{}: the model has no chat template", model.path.display());
        return Err(Failure::new("chat_template", message)
            .hint("the quickstart needs a chat model; without `TUNESMITH_MODEL` it gets one"));
    }
    Ok(session)
}

/// The rows that all arms answer, and how answers are graded.
pub(super) struct Exam {
    test: Vec<Example>,
    expected: Vec<Value>,
    grader: Json,
    seed: u64,
}

/// An arm that has answered.
pub(super) struct Asked {
    pub(super) arm: Arm,
    /// The tokens that it took.
    pub(super) work: ArmWork,
    pub(super) seconds: f64,
}

impl Exam {
    pub(super) fn new(demo: &Demo, seed: u64) -> Self {
        let schema = Schema::from_json(&demo.schema).expect("the demo's schema can be graded");
        let expected = demo.test.iter().map(|row| Value::Object(row.ticket.clone())).collect();
        Exam { test: demo.test.clone(), expected, grader: Json::new(schema), seed }
    }

    /// The rows that are asked.
    pub(super) fn rows(&self) -> &[Example] {
        &self.test
    }

    /// What the most common value of every field scores.
    pub(super) fn floor(&self, train: &[Example]) -> Metrics {
        let guess = floor::most_common(train.iter().map(|row| &row.ticket));
        Metrics::of(&floor::grade(&self.grader, &guess, &self.expected), self.seed)
    }

    /// How well an answer does: the fields that are equal, and whether the answer is JSON.
    pub(super) fn fields_right(&self, arm: &Arm, row: usize) -> usize {
        let fields = arm.grades[row].iter().filter(|(name, _)| name.starts_with("field."));
        fields.filter(|(_, value)| *value == 1.0).count()
    }

    fn prompts(&self, name: &str) -> Vec<Vec<Message>> {
        let schema = demo::schema_prompt();
        let shots = demo::shots();
        let prompt = |row: &Example| match name {
            SCHEMA => row.prompt(&schema, &[]),
            SHOTS => row.prompt(&schema, &shots),
            _ => row.prompt(demo::SYSTEM_SHORT, &[]),
        };
        self.test.iter().map(prompt).collect()
    }

    fn encoded(&self, session: &Session, name: &str) -> Result<Vec<Prompt>> {
        let prompt = |(key, messages)| -> Result<Prompt> {
            Ok(Prompt { tokens: session.encode(&Question::of_messages(messages))?, key })
        };
        (0..).zip(self.prompts(name)).map(prompt).collect()
    }

    /// The tokens that an arm is expected to take; a base that is not shown how a ticket looks
    /// may talk until it is cut off.
    pub(super) fn work(&self, session: &Session, name: &str) -> Result<ArmWork> {
        let prompts = self.encoded(session, name)?;
        let mut new_tokens = 0;
        for row in &self.test {
            new_tokens += match name {
                SCHEMA => MAX_NEW_TOKENS,
                _ => session.metadata().tokenizer.encode(&row.answer())?.len() + 1,
            };
        }
        let rendered: usize = prompts.iter().map(|prompt| prompt.tokens.len()).sum();
        let new_tokens = new_tokens as f64;
        let context = (rendered as f64 + new_tokens / 2.0) / prompts.len() as f64;
        Ok(ArmWork { prompt_tokens: computed(&prompts) as f64, new_tokens, context })
    }

    /// Asks every row.
    pub(super) fn run(
        &self,
        context: &Context,
        session: &mut Session,
        name: &str,
        signals: &Signals,
    ) -> Result<Asked> {
        let expected_work = self.work(session, name)?;
        let bar = Bar::new(context, name, self.test.len());
        let begun = Instant::now();
        let mut stopped = None;
        let prompts = self.encoded(session, name)?;
        // An answer ends with the first whole JSON object in it, whoever gives it: what comes after it is not
        // graded, and would only cost time.
        let sampling = Sampling {
            max_new_tokens: MAX_NEW_TOKENS,
            is_complete: Some(|text| text.contains('}') && read_object(text).is_some()),
            batch: LANES,
            ..Sampling::default()
        };
        let answers = session.answer(&prompts, &sampling, true, &mut |token| {
            bar.advance(token.is_last);
            stopped = signals.asked();
            let goes_on = stopped.is_none() && context.terminal.written().is_ok();
            if goes_on { Flow::Continue } else { Flow::Cancel }
        })?;
        context.terminal.written()?;
        let seconds = begun.elapsed().as_secs_f64();
        drop(bar);
        if let Some(asked) = stopped {
            let message = format!("interrupted while {name} answered");
            return Err(Failure {
                exit: asked.exit_code(),
                ..Failure::new("interrupted", message)
            });
        }
        let new_tokens: usize = answers.iter().map(|answer| answer.tokens).sum();
        let work = ArmWork { new_tokens: new_tokens as f64, ..expected_work };
        context.terminal.say(&format!(
            "{name:<11}  {} messages answered in {}",
            answers.len(),
            duration(seconds)
        ));
        Ok(Asked { arm: self.arm(name, answers), work, seconds })
    }

    fn arm(&self, name: &str, answers: Vec<Answer>) -> Arm {
        let prompt_tokens: Vec<usize> = answers.iter().map(|answer| answer.prompt_tokens).collect();
        let texts = answers.into_iter().map(|answer| answer.text).collect();
        Arm::new(name, &prompt_tokens, texts, &self.expected, &self.grader, self.seed)
    }
}

/// Tokens that prompts take, the beginning that all share once.
fn computed(prompts: &[Prompt]) -> usize {
    let Some((first, rest)) = prompts.split_first() else { return 0 };
    let equal =
        |other: &Prompt| first.tokens.iter().zip(&other.tokens).take_while(|(a, b)| a == b).count();
    let shared = rest.iter().map(equal).min().unwrap_or(0);
    prompts.iter().map(|prompt| prompt.tokens.len() - shared).sum::<usize>() + shared
}

/// How far an arm is, on a terminal.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(context: &Context, name: &str, rows: usize) -> Self {
        if !context.terminal.is_live {
            return Bar(None);
        }
        let template = "{msg}  {bar:32.cyan/dim} {pos}/{len} messages  {elapsed} gone";
        let style = ProgressStyle::with_template(template).expect("the template is right");
        let bar = ProgressBar::new(rows as u64).with_message(format!("{name:<11}"));
        bar.set_style(style.progress_chars("━╸─"));
        bar.enable_steady_tick(Duration::from_millis(500));
        Bar(Some(bar))
    }

    fn advance(&self, by_one: bool) {
        if let Some(bar) = &self.0 {
            bar.inc(u64::from(by_one));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_beginning_counts_once() {
        let prompt = |tokens: &[u32]| Prompt { tokens: tokens.to_vec(), key: 0 };
        assert_eq!(computed(&[prompt(&[1, 2, 3]), prompt(&[1, 2, 4, 5])]), 2 + 1 + 2);
        assert_eq!(computed(&[prompt(&[1, 2]), prompt(&[3])]), 3);
        assert_eq!(computed(&[]), 0);
    }

    #[test]
    fn arms_are_told_different_things() {
        let exam = Exam::new(&demo::generate(1, 4, 2), 1);
        let turns = |name| exam.prompts(name)[0].len();
        assert_eq!([SCHEMA, SHOTS, TUNED].map(turns), [2, 2 + 8, 2]);
        let system = |name| exam.prompts(name)[1][0].content.clone();
        assert_eq!(system(SCHEMA), system(SHOTS));
        assert_eq!(system(TUNED), demo::SYSTEM_SHORT);
    }
}
