//! The arms: who is asked, with which words, and how that is counted.

use std::time::{Duration, Instant};

use data::demo::{self, Demo, Example};
use eval::answer::{Answer, Progress};
use eval::compare::Arm;
use eval::floor;
use eval::grader::{Json, Schema};
use eval::metric::Metrics;
use indicatif::{ProgressBar, ProgressStyle};
use model::generate::Flow;
use serde_json::Value;
use text::Message;

use super::plan::ArmWork;
use super::stage::{MAX_NEW_TOKENS, Stage};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::signals::Signals;
use crate::terminal::style::duration;

/// The base, told the whole schema.
pub(super) const SCHEMA: &str = "base+schema";
/// The base, told the schema and shown four worked examples.
pub(super) const SHOTS: &str = "base+shots";
/// The tuned model, told one sentence.
pub(super) const TUNED: &str = "tuned";

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

    /// The tokens that an arm is expected to take; a base that is not shown how a ticket looks
    /// may talk until it is cut off.
    pub(super) fn work(&self, stage: &Stage, name: &str) -> Result<ArmWork> {
        let language = stage.language();
        let mut prompts = Vec::with_capacity(self.test.len());
        for prompt in self.prompts(name) {
            prompts.push(language.encode(&prompt)?);
        }
        let mut new_tokens = 0;
        for row in &self.test {
            new_tokens += match name {
                SCHEMA => MAX_NEW_TOKENS,
                _ => language.tokenizer.encode(&row.answer())?.len() + 1,
            };
        }
        let rendered: usize = prompts.iter().map(Vec::len).sum();
        let new_tokens = new_tokens as f64;
        let context = (rendered as f64 + new_tokens / 2.0) / prompts.len() as f64;
        Ok(ArmWork { prompt_tokens: computed(&prompts) as f64, new_tokens, context })
    }

    /// Asks every row.
    pub(super) fn run(
        &self,
        context: &Context,
        stage: &mut Stage,
        name: &str,
        signals: &Signals,
    ) -> Result<Asked> {
        let expected_work = self.work(stage, name)?;
        let bar = Bar::new(context, name, self.test.len());
        let begun = Instant::now();
        let mut stopped = None;
        let answers = stage.answer(&self.prompts(name), &mut |progress: Progress| {
            bar.show(progress);
            stopped = signals.asked();
            let goes_on = stopped.is_none() && context.terminal.written().is_ok();
            if goes_on { Flow::Continue } else { Flow::Stop }
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
fn computed(prompts: &[Vec<u32>]) -> usize {
    let Some((first, rest)) = prompts.split_first() else { return 0 };
    let equal = |other: &Vec<u32>| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    let shared = rest.iter().map(equal).min().unwrap_or(0);
    prompts.iter().map(|prompt| prompt.len() - shared).sum::<usize>() + shared
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

    fn show(&self, progress: Progress) {
        if let Some(bar) = &self.0 {
            bar.set_position(progress.answered as u64);
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
        assert_eq!(computed(&[vec![1, 2, 3], vec![1, 2, 4, 5]]), 2 + 1 + 2);
        assert_eq!(computed(&[vec![1, 2], vec![3]]), 3);
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
