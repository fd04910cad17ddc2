//! What is said between a run and its environment: a line of JSON each.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use text::{Message, integer};

use crate::program;

/// Where an episode begins. Answers to the same prompt begin alike.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Opening {
    /// Below 2^53, so that every language can hold it.
    pub(crate) seed: u64,
    /// The turns of the prompt.
    pub(crate) messages: Vec<Value>,
    /// The reference answer, where the row has one.
    pub(crate) reference: Option<Value>,
    /// The tools that the prompt offers, where it does.
    pub(crate) tools: Option<Value>,
    /// All other columns of the row.
    pub(crate) columns: Map<String, Value>,
    /// Where the row stands, for messages.
    pub(crate) place: String,
}

/// What an environment says when an episode begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Began {
    /// Turns behind the prompt's, before the first answer; often none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) observation: Vec<Message>,
    /// Whether the same answers always get the same replies.
    #[serde(default)]
    pub(crate) deterministic: bool,
}

/// What an environment says about an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Turns behind the answer; none where the episode is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) observation: Vec<Message>,
    /// What the answer earned.
    pub(crate) reward: f64,
    /// Whether the episode is over.
    pub(crate) done: bool,
}

impl Opening {
    /// The line that begins an episode.
    pub(super) fn line(&self, id: u64) -> String {
        let Opening { seed, messages, reference, tools, columns, .. } = self;
        let object = json!({
            "event": "start", "id": id, "seed": seed, "messages": messages, "reference": reference,
            "tools": tools, "columns": columns,
        });
        integer::plain(object.to_string())
    }
}

/// The line that hands over the answer of a turn, counted from 1.
pub(super) fn step_line(id: u64, turn: usize, answer: &str) -> String {
    json!({"event": "step", "id": id, "turn": turn, "answer": answer}).to_string()
}

/// The line that ends an episode.
pub(super) fn close_line(id: u64) -> String {
    json!({"event": "close", "id": id}).to_string()
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line {
    Empty,
    /// An answer, by its id.
    Answer(u64, Value),
    /// The program could not do it, and why.
    Failed(u64, String),
    /// The line is of no episode.
    Rubbish(String),
}

impl Line {
    pub(super) fn read(line: &str) -> Line {
        let line = line.trim();
        if line.is_empty() {
            return Line::Empty;
        }
        let rubbish = || Line::Rubbish(line.to_owned());
        let Some(value) = program::value(line) else { return rubbish() };
        let Some(id) = value.get("id").and_then(Value::as_u64) else { return rubbish() };
        match value.get("error").filter(|error| !error.is_null()) {
            Some(Value::String(error)) => Line::Failed(id, error.clone()),
            Some(error) => Line::Failed(id, error.to_string()),
            None => Line::Answer(id, value),
        }
    }
}

impl Began {
    /// Reads the answer to `start`, or says what is wrong with it.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let deterministic = flag(value, "deterministic")?;
        Ok(Began { observation: observation(value)?, deterministic })
    }
}

impl Reply {
    /// Reads the answer to `step`, or says what is wrong with it.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let done = flag(value, "done")?;
        let reward = match value.get("reward") {
            None | Some(Value::Null) => 0.0,
            Some(reward) => program::number(reward, "reward")?,
        };
        let observation = observation(value)?;
        if !done && observation.is_empty() {
            return Err(
                "the episode is not done, and there is no `observation` to go on from".into()
            );
        }
        Ok(Reply { observation, reward, done })
    }
}

fn flag(value: &Value, name: &str) -> Result<bool, String> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(format!("`{name}` is `{other}`, not true or false")),
    }
}

/// The turns of an `observation`: null, a text of the user, a message, or a list of them.
fn observation(value: &Value) -> Result<Vec<Message>, String> {
    match value.get("observation") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(turns)) => turns.iter().map(turn).collect(),
        Some(one) => Ok(vec![turn(one)?]),
    }
}

fn turn(value: &Value) -> Result<Message, String> {
    if let Value::String(text) = value {
        return Ok(Message::new("user", text.as_str()));
    }
    let message = Message::from_value(value.clone())
        .map_err(|error| format!("`observation` is no turn: {error}"))?;
    match message.role.as_str() {
        "assistant" => {
            Err("`observation` has a turn of the assistant, which is the policy's".into())
        }
        _ => Ok(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> Result<Reply, String> {
        match Line::read(line) {
            Line::Answer(3, value) => Reply::read(&value),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_are_read() {
        let user = |text: &str| Message::new("user", text);
        let done = Reply { reward: 1.5, done: true, ..Reply::default() };
        assert_eq!(reply(r#"{"id": 3, "reward": 1.5, "done": true}"#), Ok(done));
        let on = Reply { observation: vec![user("no")], ..Reply::default() };
        assert_eq!(reply(r#"{"id": 3, "observation": "no", "note": 1}"#), Ok(on));
        let tool =
            Reply { observation: vec![Message::new("tool", "4"), user("so?")], ..Reply::default() };
        let line = r#"{"id": 3, "observation": [{"role": "tool", "content": "4"}, "so?"]}"#;
        assert_eq!(reply(line), Ok(tool));
        let value = json!({"id": 3, "observation": "go", "deterministic": true});
        let began = Began { observation: vec![user("go")], deterministic: true };
        assert_eq!(Began::read(&value), Ok(began));
        assert_eq!(Began::read(&json!({"id": 3})), Ok(Began::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, message) in [
            (r#"{"id": 3}"#, "not done"),
            (r#"{"id": 3, "done": 1}"#, "`done` is `1`"),
            (r#"{"id": 3, "done": true, "reward": NaN}"#, "the reward is NaN"),
            (r#"{"id": 3, "done": true, "reward": "1"}"#, "not a number"),
            (r#"{"id": 3, "observation": 4}"#, "no turn"),
            (r#"{"id": 3, "observation": {"role": "assistant", "content": "x"}}"#, "assistant"),
        ] {
            let error = reply(line).expect_err(line);
            assert!(error.contains(message), "{error}");
        }
        assert_eq!(Line::read(r#"{"id": 3, "error": "no"}"#), Line::Failed(3, "no".into()));
        for rubbish in ["ready", "[]", r#"{"reward": 1}"#] {
            assert_eq!(Line::read(rubbish), Line::Rubbish(rubbish.into()));
        }
    }
}
