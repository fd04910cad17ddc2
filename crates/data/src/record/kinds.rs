//! What a row is, whatever its shape: the kinds of record that methods learn from.

use std::path::Path;

use serde_json::{Map, Value};
use text::Message;

use super::{Conversation, check};
use crate::Place;

/// One row, read.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A dialogue with turns to learn.
    Conversation(Conversation),
    /// Raw text, learned whole.
    Text(Text),
    /// Ids that somebody else tokenised.
    Tokens(Tokens),
    /// Two answers, one of which is better.
    Preference(Preference),
    /// An answer that was liked or not.
    Feedback(Feedback),
    /// Several answers with scores, or best first.
    Ranked(Ranked),
    /// An answer in steps, each right or wrong.
    Stepwise(Stepwise),
    /// A prompt to be answered and rewarded.
    Prompt(Prompt),
    /// A text or a dialogue of a class.
    Labelled(Labelled),
}

/// A document of raw text.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// Where it stands.
    pub place: Place,
    /// The text, not empty.
    pub text: String,
}

/// A row that was tokenised elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// Where it stands.
    pub place: Place,
    /// Ids, `[T]`.
    pub tokens: Vec<u32>,
    /// Weight of predicting each, `[T]`; the first is 0.
    pub weights: Vec<f32>,
}

/// A prompt with a better and a worse continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// Where it stands.
    pub place: Place,
    /// The turns before the answers.
    pub prompt: Vec<Message>,
    /// The better continuation: one assistant turn or several turns that end with one.
    pub chosen: Vec<Message>,
    /// The worse one.
    pub rejected: Vec<Message>,
    /// How much better, where the row says so.
    pub margin: Option<f64>,
    /// Tools offered to the assistant.
    pub tools: Option<Value>,
}

/// A dialogue whose last answer was judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// The dialogue; its last assistant turn counts.
    pub conversation: Conversation,
    /// Whether the answer is wanted.
    pub desirable: bool,
}

/// A prompt with several answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// Where it stands.
    pub place: Place,
    /// The turns before the answers.
    pub prompt: Vec<Message>,
    /// Two or more, best first.
    pub answers: Vec<Answer>,
    /// Tools offered to the assistant.
    pub tools: Option<Value>,
}

/// One of several answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Which of the row's answers it is, from 0.
    pub index: usize,
    /// Its turns.
    pub messages: Vec<Message>,
    /// Its score, higher is better, where there are scores.
    pub score: Option<f64>,
    /// How many grades are better than its own, 0 for the best. Equally good answers have the same.
    pub standing: usize,
}

/// A prompt with an answer in judged steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Stepwise {
    /// Where it stands.
    pub place: Place,
    /// The turns before the answer.
    pub prompt: Vec<Message>,
    /// The steps in order.
    pub steps: Vec<Step>,
}

/// A step of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What it says.
    pub text: String,
    /// Whether it is right: 1 or 0, or a share between.
    pub label: f32,
}

/// A prompt without an answer of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Where it stands.
    pub place: Place,
    /// Its turns, the last of them not the assistant's.
    pub messages: Vec<Message>,
    /// The reference answer, where the row has one.
    pub reference: Option<Value>,
    /// All other columns, for rewards.
    pub columns: Map<String, Value>,
    /// Tools offered to the assistant.
    pub tools: Option<Value>,
}

/// A text or a dialogue with its class.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// Where it stands.
    pub place: Place,
    /// What is classified.
    pub input: LabelledInput,
    /// The name of its class; a whole number as its digits. None only where rows are scored.
    pub label: Option<String>,
}

/// What is classified.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelledInput {
    /// Raw text, not empty.
    Text(String),
    /// Turns of a dialogue.
    Dialogue {
        /// The turns.
        messages: Vec<Message>,
        /// Tools offered to the assistant.
        tools: Option<Value>,
    },
}

impl Prompt {
    /// A prompt that stands in no file.
    pub fn of_messages(messages: Vec<Message>, tools: Option<Value>) -> Prompt {
        let place = Place { file: Path::new("prompt").into(), line: 1, element: None };
        Prompt { place, messages, reference: None, columns: Map::new(), tools }
    }

    /// Puts a system message in front where there is none.
    pub fn add_system(&mut self, text: Option<&str>) {
        check::add_system(&mut self.messages, text);
    }
}

impl Tokens {
    /// The ids before the last run of those that are learned; all of them where nothing is context.
    pub(super) fn unlearned(mut self) -> Tokens {
        let learned = |weight: &f32| *weight != 0.0;
        let end = self.weights.iter().rposition(learned).map_or(0, |last| last + 1);
        // The first is never learned, for it follows nothing.
        let context = self.weights[..end].iter().rposition(|weight| !learned(weight));
        let len = context.filter(|&last| last > 0).map_or(self.tokens.len(), |last| last + 1);
        self.tokens.truncate(len);
        self.weights.truncate(len);
        self
    }
}

/// What a method learns from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Dialogues (or tokens).
    #[default]
    Conversations,
    /// Raw text (or tokens).
    Texts,
    /// Pairs.
    Preferences,
    /// Judged answers.
    Feedback,
    /// Pairs, ranked or scored answers, or judged steps.
    Rewards,
    /// Prompts.
    Prompts,
    /// Texts or dialogues with a class.
    Labelled,
    /// The same to be classified: the class may be missing.
    Unlabelled,
}

impl Wanted {
    /// Whether what is learned is which answer to a prompt is better.
    pub fn compares_answers(self) -> bool {
        matches!(self, Wanted::Preferences | Wanted::Feedback | Wanted::Rewards)
    }
}

impl Record {
    /// Where the row stands.
    pub fn place(&self) -> &Place {
        match self {
            Record::Conversation(conversation) => &conversation.place,
            Record::Text(text) => &text.place,
            Record::Tokens(tokens) => &tokens.place,
            Record::Preference(pair) => &pair.place,
            Record::Feedback(feedback) => &feedback.conversation.place,
            Record::Ranked(ranked) => &ranked.place,
            Record::Stepwise(stepwise) => &stepwise.place,
            Record::Prompt(prompt) => &prompt.place,
            Record::Labelled(labelled) => &labelled.place,
        }
    }

    /// What the row says beside tokens, and methods learn from. Nothing else of a record outlives preparation,
    /// except the messages of a prompt, which [`Supervisor::side`](crate::Supervisor::side) adds.
    ///
    /// | record | entries |
    /// |---|---|
    /// | preference | `margin`, where the row has one |
    /// | ranked | `standings`, best first; `scores` where all answers have one |
    /// | stepwise | `labels`, one a step |
    /// | prompt | `reference`, and `columns` with all that is not asked |
    /// | labelled | `label`, the name of the class |
    pub fn side(&self) -> Map<String, Value> {
        let mut side = Map::new();
        let mut put = |name: &str, value: Value| _ = side.insert(name.to_owned(), value);
        match self {
            Record::Preference(pair) => {
                if let Some(margin) = pair.margin {
                    put("margin", margin.into());
                }
            }
            Record::Ranked(ranked) => {
                let scores: Option<Vec<f64>> = ranked.answers.iter().map(|a| a.score).collect();
                let standings = ranked.answers.iter().map(|answer| answer.standing);
                put("standings", standings.collect::<Vec<_>>().into());
                if let Some(scores) = scores {
                    put("scores", scores.into());
                }
            }
            Record::Stepwise(stepwise) => {
                let labels = stepwise.steps.iter().map(|step| step.label);
                put("labels", labels.collect::<Vec<_>>().into());
            }
            Record::Prompt(prompt) => {
                if let Some(reference) = &prompt.reference {
                    put("reference", reference.clone());
                }
                if let Some(tools) = &prompt.tools {
                    put("tools", tools.clone());
                }
                if !prompt.columns.is_empty() {
                    put("columns", prompt.columns.clone().into());
                }
            }
            Record::Labelled(labelled) => {
                if let Some(label) = &labelled.label {
                    put("label", label.as_str().into());
                }
            }
            Record::Conversation(_) | Record::Text(_) | Record::Tokens(_) | Record::Feedback(_) => {
            }
        }
        side
    }
}
