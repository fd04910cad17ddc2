//! Rewards from an address: completions are posted, and their rewards come back.

use std::sync::Arc;

use data::Stop;
use serde_json::Value;
use train::reward::{Completion, RewardError, RewardSettings, RewardSource, Scored};
use ureq::Agent;

use crate::asking::patience::{Patience, Trouble, agent, body, retry_after};
use crate::context::Context;

/// Characters of an answer that a message shows.
const SHOWN: usize = 200;
/// What an answer has to be.
const FORM: &str = "it has to answer {\"rewards\": [...]}, with a number or null for each completion, in their order";

/// An address that gives rewards.
pub(super) struct Http {
    agent: Agent,
    address: String,
    key: Option<String>,
    patience: Patience,
}

impl Http {
    pub(super) fn new(address: &str, settings: &RewardSettings, context: &Context) -> Self {
        Http {
            agent: agent(settings.timeout),
            address: address.to_owned(),
            key: context.environment.reward_key().map(str::to_owned),
            patience: Patience::new(settings.retries + 1),
        }
    }

    fn post(&self, content: &str) -> Result<String, Trouble> {
        let mut request = self.agent.post(&self.address).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = request.send(content).map_err(Trouble::network)?;
        self.patience.reached();
        let (status, wait) = (response.status().as_u16(), retry_after(&response));
        let text = body(&mut response)?;
        match status {
            200 => Ok(text),
            status => Err(Trouble { status, message: self.shown(&text), wait }),
        }
    }

    /// The beginning of an answer, without the key, which a server may repeat.
    fn shown(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => text.replace(key.as_str(), "***"),
            None => text.to_owned(),
        };
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        text.trim().chars().take(SHOWN).map(clean).collect()
    }

    fn failure(&self, Trouble { status, message, .. }: Trouble) -> RewardError {
        let address = &self.address;
        let said = if message.is_empty() { message } else { format!(": {message}") };
        match status {
            0 => RewardError::new(format!("{address} cannot be reached{said}"))
                .with_hint("check the address, and that the server runs"),
            401 | 403 => RewardError::new(format!("{address} refuses the request with {status}"))
                .with_hint("set the variable `REWARD_API_KEY` to its key"),
            status => RewardError::new(format!("{address} answers with {status}{said}")),
        }
    }

    /// The rewards of an answer, as many as were asked for.
    fn read(&self, text: &str, count: usize) -> Result<Vec<Option<f64>>, RewardError> {
        let wrong =
            |what: String| RewardError::new(format!("{}: {what}", self.address)).with_hint(FORM);
        let json: Value = serde_json::from_str(text)
            .map_err(|_| wrong(format!("the answer is not JSON: `{}`", self.shown(text))))?;
        let Some(rewards) = json.get("rewards").and_then(Value::as_array) else {
            return Err(wrong(format!("the answer has no list `rewards`: `{}`", self.shown(text))));
        };
        if rewards.len() != count {
            let given = rewards.len();
            return Err(wrong(format!("the answer has {given} rewards for {count} completions")));
        }
        let number = |value: &Value| match value {
            Value::Null => Ok(None),
            value => match value.as_f64() {
                Some(reward) => Ok(Some(reward)),
                None => Err(wrong(format!("a reward is `{value}`, not a number"))),
            },
        };
        rewards.iter().map(number).collect()
    }
}

impl RewardSource for Http {
    fn score(&mut self, completions: &[Arc<Completion>], stop: &Stop) -> Vec<Scored> {
        let objects: Vec<String> =
            (0..).zip(completions).map(|(id, one)| one.to_json(id)).collect();
        let content = format!("{{\"completions\":[{}]}}", objects.join(","));
        let answer = self.patience.ask(&|| stop.is_asked(), || self.post(&content));
        let rewards = match answer {
            None => Err(RewardError::stopped()),
            Some(Err(trouble)) => Err(self.failure(trouble)),
            Some(Ok(text)) => self.read(&text, completions.len()),
        };
        match rewards {
            Ok(rewards) => rewards.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); completions.len()],
        }
    }
}
