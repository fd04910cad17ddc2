//! What is scored, and what scores it.

use std::sync::Arc;

use data::{Place, Stop};
use serde_json::{Map, Value, json};
use text::integer;

/// A prompt of which completions are sampled, with all that its row says for rewards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// The text as the model sees it.
    pub prompt: String,
    /// The turns that the text was made of.
    pub messages: Vec<Value>,
    /// The reference answer, where the row has one.
    pub reference: Option<Value>,
    /// All other columns of the row.
    pub columns: Map<String, Value>,
    /// Where the row stands, for messages.
    pub place: String,
}

impl Asked {
    /// The prompt of a prepared row: its text, what the row says beside tokens, and where it stands.
    pub fn of_row(prompt: String, side: &Map<String, Value>, place: &Place) -> Self {
        let messages = side.get("messages").and_then(Value::as_array);
        let columns = side.get("columns").and_then(Value::as_object);
        Asked {
            prompt,
            messages: messages.cloned().unwrap_or_default(),
            reference: side.get("reference").filter(|value| !value.is_null()).cloned(),
            columns: columns.cloned().unwrap_or_default(),
            place: place.to_string(),
        }
    }
}

/// An answer that the policy sampled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// What was asked.
    pub asked: Arc<Asked>,
    /// The answer, without the token that ends it.
    pub answer: String,
    /// How many tokens were drawn.
    pub tokens: usize,
    /// Whether the policy ended the answer itself: else it was cut at the most tokens.
    pub ended: bool,
}

impl Completion {
    /// The completion as programs and servers see it: compact JSON without a line break.
    pub fn to_json(&self, id: u64) -> String {
        let Asked { prompt, messages, reference, columns, .. } = &*self.asked;
        let object = json!({
            "id": id, "prompt": prompt, "messages": messages, "answer": self.answer,
            "reference": reference, "columns": columns, "ended": self.ended, "tokens": self.tokens,
        });
        integer::plain(object.to_string())
    }
}

/// Why a completion has no reward although it should have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewardError {
    /// What happened, in lower case and without place.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl RewardError {
    /// An error without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        RewardError { message: message.into(), hint: None }
    }

    /// The same with a hint.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        RewardError { hint: Some(hint.into()), ..self }
    }

    /// Of work that was told to stop; nobody reads it.
    pub fn stopped() -> Self {
        RewardError::new("the run was stopped")
    }
}

/// The reward of one completion; none where the source has none to give.
pub type Scored = Result<Option<f64>, RewardError>;

/// What gives rewards. It has a thread of its own.
pub trait RewardSource: Send {
    /// The rewards of completions, in their order. May wait for other programs, and returns soon after `stop` is
    /// asked, whatever it has by then. A reward depends on its completion alone.
    fn score(&mut self, completions: &[Arc<Completion>], stop: &Stop) -> Vec<Scored>;
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_row_becomes_what_rewards_see() {
        let side = json!({
            "messages": [{"role": "user", "content": "2+2?"}], "reference": 4, "columns": {"level": "x"},
        });
        let place = Place { file: Path::new("a.jsonl").into(), line: 3, element: None };
        let asked = Asked::of_row("<user>2+2?".into(), side.as_object().unwrap(), &place);
        let asked = Arc::new(asked);
        assert_eq!(asked.place, "a.jsonl:3");
        let answer = "4\n\"yes\"".to_owned();
        let completion = Completion { asked, answer, tokens: 5, ended: true };
        let line = completion.to_json(7);
        assert!(!line.contains('\n'), "{line}");
        let expected = json!({
            "id": 7, "prompt": "<user>2+2?", "messages": [{"role": "user", "content": "2+2?"}],
            "answer": "4\n\"yes\"", "reference": 4, "columns": {"level": "x"}, "ended": true, "tokens": 5,
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
        // A row that says nothing.
        let asked = Asked::of_row("p".into(), &Map::new(), &place);
        assert_eq!((asked.reference, asked.messages.len(), asked.columns.len()), (None, 0, 0));
    }

    #[test]
    fn long_integers_keep_their_digits() {
        let digits = "123456789012345678901234567890";
        let marked = integer::marked(digits).unwrap();
        let reference = serde_json::from_str(&marked).unwrap();
        let asked = Arc::new(Asked { reference: Some(reference), ..Asked::default() });
        let line = Completion { asked, ..Completion::default() }.to_json(0);
        assert!(line.contains(&format!("\"reference\":{digits}")), "{line}");
    }
}
