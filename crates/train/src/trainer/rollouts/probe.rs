//! What rewards make of bad answers, before the first step.

use std::collections::BTreeMap;
use std::sync::Arc;

use eval::grader;
use eval::probe::{self, Report, Row, Settings};
use serde_json::Value;

use super::Rollouts;
use super::collect::asked;
use crate::Result;
use crate::events::Event;
use crate::reward::{Asked, Completion, RewardKind, RewardSettings};
use crate::trainer::Control;
use crate::trainer::course::Stand;

impl Rollouts {
    /// Gives graders and programs answers that they should not reward, and tells what they do. Those that cost money or
    /// the device are not asked. Says whether it came to its end: not where the run is to end.
    pub(super) fn probe(&mut self, at: &mut Stand<'_>) -> Result<bool> {
        let units = self.rows.train.chunks(probe::ROWS).next();
        let units = units.transpose()?.unwrap_or_default();
        let tokenizer = &at.metadata.tokenizer;
        let prompts: Vec<Arc<Asked>> =
            units.iter().map(|unit| asked(unit, tokenizer)).collect::<Result<_>>()?;
        let texts: Vec<String> = prompts.iter().map(|asked| question(asked)).collect();
        let nothing = Value::Null;
        let expected = prompts.iter().map(|asked| asked.reference.as_ref().unwrap_or(&nothing));
        let rows: Vec<Row<'_>> =
            texts.iter().zip(expected).map(|(prompt, expected)| Row { prompt, expected }).collect();
        let functions: Vec<RewardSettings> = self.rewards.settings().cloned().collect();
        for (place, function) in functions.iter().enumerate() {
            let settings = Settings {
                needs_reference: needs_reference(function, &prompts),
                range: function.range,
                ..Settings::default()
            };
            let asks =
                matches!(function.kind, RewardKind::Grader { .. } | RewardKind::Command { .. });
            if !asks || function.weight == 0.0 {
                continue;
            }
            let mut score =
                |answers: &[(usize, String)]| self.scores_of(at, place, &prompts, answers);
            let report = probe::probe(&rows, &settings, &mut score)?;
            if self.rewards.pending() > 0 {
                return Ok(false);
            }
            tell(at, function, &report, &prompts)?;
        }
        Ok(true)
    }

    /// What one function gives answers to some of the prompts.
    fn scores_of(
        &mut self,
        at: &mut Stand<'_>,
        function: usize,
        prompts: &[Arc<Asked>],
        answers: &[(usize, String)],
    ) -> Result<Vec<Option<f64>>> {
        if self.rewards.pending() > 0 {
            // It was broken off.
            return Ok(vec![None; answers.len()]);
        }
        for (id, (row, answer)) in (0..).zip(answers) {
            let tokens = at.metadata.tokenizer.encode(answer).map_err(model::Error::from)?.len();
            let (asked, answer) = (prompts[*row].clone(), answer.clone());
            self.rewards.submit(id, Completion { asked, answer, tokens, ended: true })?;
        }
        let mut go_on = || (at.listen)() != Control::Stop;
        let given: BTreeMap<u64, Vec<Option<f64>>> =
            self.rewards.wait(&mut go_on)?.into_iter().collect();
        let score = |id| given.get(&id).and_then(|rewards| rewards[function]);
        Ok((0..answers.len() as u64).map(score).collect())
    }
}

/// Tells what was found.
fn tell(
    at: &mut Stand<'_>,
    function: &RewardSettings,
    report: &Report,
    prompts: &[Arc<Asked>],
) -> Result<()> {
    for finding in &report.findings {
        let example = finding.example.as_ref();
        let shown = example.map_or(String::new(), |example| {
            format!("; for example {:?} scores {:.3}", example.answer, example.score)
        });
        let event = Event::Finding {
            step: None,
            id: finding.id.into(),
            level: "warning".into(),
            count: 1,
            places: example.map(|example| prompts[example.row].place.clone()).into_iter().collect(),
            hint: format!("`{}`: {}{shown}; {}", function.name, finding.message, finding.hint),
        };
        (at.tell)(&event)?;
    }
    Ok(())
}

/// Whether a function compares answers with the reference. Of a program that is taken so where the rows have one.
fn needs_reference(function: &RewardSettings, prompts: &[Arc<Asked>]) -> bool {
    match &function.kind {
        RewardKind::Grader { name, options } => {
            grader::by_name(name, options).is_ok_and(|grader| grader.needs_reference())
        }
        _ => prompts.iter().all(|asked| asked.reference.is_some()),
    }
}

/// What is asked: the last message, or all of a prompt without messages.
fn question(asked: &Asked) -> String {
    let last = asked.messages.last().and_then(|message| message["content"].as_str());
    last.map_or_else(|| asked.prompt.clone(), str::to_owned)
}
