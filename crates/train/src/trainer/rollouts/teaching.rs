//! What a teacher says of sampled answers: its states at their tokens, behind the prompt that it sees.

use std::path::Path;
use std::sync::Arc;

use data::checksum::checksum;
use data::record::Prompt;
use data::{Sequences, Supervisor, Unit};
use keys::{Document, Settings as _};
use serde_json::{Map, Value};
use text::{Message, Metadata};

use super::collect::{Answered, unit};
use super::{Collected, Group, Learner, Rollouts};
use crate::models::PartName;
use crate::rollout::Rollout;
use crate::step::StepPlan;
use crate::trainer::course::{Course as _, Judged, Score, Stand};
use crate::{Error, Result};

/// The prompts that a teacher sees.
pub(in crate::trainer) struct TeacherPrompts {
    supervisor: Supervisor,
    /// In place of the prompts' own system message; as they are where there is none.
    system: Option<String>,
    /// The column with what it sees behind that.
    demonstration: Option<String>,
}

impl TeacherPrompts {
    /// As a recipe has them.
    pub(in crate::trainer) fn read(
        document: &Document,
        metadata: &Metadata,
        kwargs: Map<String, Value>,
    ) -> Result<Self> {
        let system = match document.opt_path("distill.system_file") {
            Some(path) => Some(read_text(path)?),
            None => document.opt_str("distill.system").map(str::to_owned),
        };
        Ok(TeacherPrompts {
            supervisor: Supervisor::for_prompts(metadata, kwargs).with_own_system(),
            system,
            demonstration: document.opt_str("distill.demonstration").map(str::to_owned),
        })
    }

    /// The tokens of the teacher's prompt for a row.
    fn tokens(&self, prompt: &Unit) -> Result<Vec<u32>> {
        let sequence = &prompt.sequences[0];
        if self.system.is_none() && self.demonstration.is_none() {
            return Ok(sequence.tokens.clone());
        }
        let refused = |error: data::RowError| data::Error::Rows { rows: vec![error], hint: None };
        let turns = prompt.side.get("messages").and_then(Value::as_array);
        let turns = turns.expect("a prompt is prepared with its messages");
        let read = |turn: &Value| Message::from_value(turn.clone());
        let messages: std::result::Result<Vec<Message>, _> = turns.iter().map(read).collect();
        let mut messages = messages.expect("messages are kept as they can be read");
        let is_system = |message: &Message| message.role == "system";
        let mut shown: Vec<String> = match &self.system {
            Some(system) => vec![system.clone()],
            None => {
                let own = messages.iter().filter(|message| is_system(message));
                own.map(|message| message.content.clone()).collect()
            }
        };
        if let Some(column) = &self.demonstration {
            shown.push(self.demonstrated(prompt, column)?);
        }
        messages.retain(|message| !is_system(message));
        messages.insert(0, Message::new("system", shown.join("\n\n")));
        let prompt = Prompt {
            place: sequence.place.clone(),
            messages,
            reference: None,
            columns: Map::new(),
            tools: prompt.side.get("tools").cloned(),
        };
        Ok(self.supervisor.prompt_tokens(&prompt).map_err(refused)?)
    }

    /// The text of a row's column.
    fn demonstrated(&self, prompt: &Unit, column: &str) -> Result<String> {
        let columns = prompt.side.get("columns");
        let value = columns.and_then(|columns| columns.get(column));
        let value = value.or_else(|| {
            // A column that the format takes for the reference is not among the others.
            (column == "reference").then(|| prompt.side.get("reference")).flatten()
        });
        match value {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) if !other.is_null() => Ok(other.to_string()),
            _ => {
                let place = &prompt.sequences[0].place;
                let message = format!("{place}: no column `{column}`, which the teacher is to see");
                let hint = "correct `distill.demonstration`; `reference` is the row's answer";
                Err(Error::refused(message, hint))
            }
        }
    }

    /// Names what the teacher sees beside the prompts.
    pub(in crate::trainer) fn fingerprint(&self) -> String {
        let text = format!("{:?} {:?}", self.system, self.demonstration);
        format!("{:08x}", checksum(text.as_bytes()))
    }

    /// By how many tokens the teacher's prompts are longer than the student's, at most.
    pub(in crate::trainer) fn longer_by(&self, rows: [&Sequences; 2]) -> Result<usize> {
        if self.system.is_none() && self.demonstration.is_none() {
            return Ok(0);
        }
        let mut most = 0;
        for rows in rows {
            for index in 0..rows.len() {
                let prompt = rows.unit(index..index + 1)?;
                let own = prompt.sequences[0].len();
                most = most.max(self.tokens(&prompt)?.len().saturating_sub(own));
            }
        }
        Ok(most)
    }

    /// Answers behind the prompt that the teacher sees.
    fn seen(&self, group: &Answered) -> Result<Unit> {
        let tokens = self.tokens(&group.prompt)?;
        let mut prompt = group.prompt.clone();
        prompt.sequences[0].weights = vec![0.0; tokens.len()];
        prompt.sequences[0].tokens = tokens;
        Ok(unit(&Answered { prompt, answers: group.answers.clone() }, false))
    }
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io(path))
}

impl Rollouts {
    /// Answers, and what the teacher says of them.
    pub(super) fn taught(
        &mut self,
        at: &mut Stand<'_>,
        groups: Vec<Answered>,
        policy: String,
    ) -> Result<Collected> {
        let taught = self.with_teacher(at, &groups, self.config.mask_truncated)?;
        let answers: Vec<_> = groups.iter().flat_map(|group| &group.answers).collect();
        let rewards = vec![Vec::new(); answers.len()];
        let rollout = Rollout::of_rewards(&rewards, &self.weights);
        self.show(at, &groups, &rollout, &vec![0.0; answers.len()])?;
        let metrics = self.metrics(&answers, &rollout);
        let number = at.state.rollout.number;
        Ok(Collected { number, policy, groups: taught, next: at.state.cursor, metrics })
    }

    /// What is learned from answers, with the teacher's states at their tokens.
    fn with_teacher(
        &self,
        at: &mut Stand<'_>,
        groups: &[Answered],
        mask: bool,
    ) -> Result<Vec<Group>> {
        let Learner::Teacher(prompts) = &self.learner else {
            unreachable!("the method has a teacher")
        };
        let seen: Vec<Unit> =
            groups.iter().map(|group| prompts.seen(group)).collect::<Result<_>>()?;
        let plan = StepPlan::new(&seen, at.packing);
        let states = at.engine().states_under_part(&plan, PartName::Teacher)?;
        let mut states = states.into_iter();
        let taught = |group: &Answered| {
            let own = group.answers.iter().zip(states.by_ref());
            // A token that is not learned has no target.
            let kept = own.map(|(answer, states)| match mask && !answer.ended {
                true => Arc::from([]),
                false => states,
            });
            Group { teacher: Some(kept.collect()), ..Group::of(unit(group, mask)) }
        };
        Ok(groups.iter().map(taught).collect())
    }

    /// The divergence from the teacher over answers to held-out prompts.
    pub(super) fn judged_by_teacher(
        &self,
        at: &mut Stand<'_>,
        groups: &[Answered],
    ) -> Result<Judged> {
        let taught = self.with_teacher(at, groups, false)?;
        let taught: Vec<&Group> = taught.iter().collect();
        let plan = super::plan(&taught, true, at);
        let loss = at.engine().evaluate(&plan, self.rows.objective())?.loss;
        let answers: Vec<_> = groups.iter().flat_map(|group| &group.answers).collect();
        let rewards = vec![Vec::new(); answers.len()];
        let rollout = Rollout::of_rewards(&rewards, &self.weights);
        Ok(Judged {
            loss: Some(loss),
            metrics: self.metrics(&answers, &rollout),
            score: Score::new(crate::method::Figure::LOSS, loss),
            shares: Vec::new(),
            margins: Vec::new(),
            classified: Vec::new(),
        })
    }
}
