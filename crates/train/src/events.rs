//! Everything that happens in a run, as a trainer tells it. Terminal, run folder and
//! `--json` are readers of the same events.

use serde::Serialize;

/// Something that happened. As JSON, `event` names which.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins or goes on.
    Started {
        /// The run folder.
        run: String,
        /// Method.
        method: String,
        /// Optimizer steps in all.
        steps: u64,
        /// Steps that were already done.
        resumed_from: Option<u64>,
        /// Training sequences.
        rows_train: usize,
        /// Validation sequences.
        rows_validation: usize,
        /// Tokens of the training rows, as rendered.
        tokens_train: usize,
        /// Of these, tokens that count in the loss.
        tokens_supervised: usize,
        /// Numbers in the model.
        parameters: usize,
        /// Numbers that are trained.
        parameters_trained: usize,
        /// Tokens of a micro-batch at most.
        micro_batch_tokens: usize,
        /// Bytes planned for weights, adapter, optimizer and the step's stack.
        planned_bytes: usize,
        /// The same by kind.
        memory: std::collections::BTreeMap<String, usize>,
    },
    /// Something about the data or the run that the user should know.
    Finding {
        /// The step after which it was found; none before the first.
        #[serde(skip_serializing_if = "Option::is_none")]
        step: Option<u64>,
        /// Its name.
        id: String,
        /// `note`, `warning` or `error`.
        level: String,
        /// How often.
        count: usize,
        /// The first few places.
        #[serde(rename = "where")]
        places: Vec<String>,
        /// What to do about it.
        hint: String,
    },
    /// The log-probabilities of the reference are known for all rows.
    ReferenceCached {
        /// Sequences of training and validation.
        sequences: usize,
        /// Of these, computed now; the others were known from before.
        computed: usize,
        /// Seconds that it took.
        seconds: f64,
    },
    /// An optimizer step is done.
    Step(StepEvent),
    /// The validation loss was taken.
    Evaluated {
        /// After this many steps.
        step: u64,
        /// The objective's loss over all validation rows: of supervised fine-tuning the mean negative
        /// log-likelihood of their supervised tokens. None of a method whose answers are judged by their rewards.
        #[serde(skip_serializing_if = "Option::is_none")]
        validation_loss: Option<f64>,
        /// Further figures, means over the validation rows.
        #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
        metrics: std::collections::BTreeMap<String, f64>,
        /// The step after which the reference of these figures was refreshed; none where it is as it began.
        #[serde(skip_serializing_if = "Option::is_none")]
        reference_step: Option<u64>,
        /// Whether it is the best so far, against this reference.
        best: bool,
    },
    /// Prompts were answered, to learn from the answers.
    Rollout {
        /// After this many steps.
        step: u64,
        /// Number of the rollout, from 0.
        number: u64,
        /// Prompts, those of which nothing is learned included.
        prompts: usize,
        /// Answers that are learned from.
        answers: usize,
        /// Their tokens.
        tokens: usize,
        /// Seconds of sampling, and of waiting for rewards.
        seconds: f64,
    },
    /// One of the answers of a rollout.
    Answered {
        /// After this many steps.
        step: u64,
        /// The last user message.
        prompt: String,
        /// What the policy said.
        answer: String,
        /// Whether the policy ended it itself.
        ended: bool,
        /// The weighted sum of its rewards; none where none could be had.
        reward: Option<f64>,
        /// What each reward function gave.
        rewards: std::collections::BTreeMap<String, Option<f64>>,
        /// By how much its last token is better than expected. Of a pair it is 1 for the better answer and -1 for the
        /// worse; 0 where answers are not compared.
        advantage: f64,
    },
    /// A fixed prompt was answered.
    Sampled {
        /// After this many steps.
        step: u64,
        /// The last user message.
        prompt: String,
        /// What the model said.
        answer: String,
    },
    /// A checkpoint was written.
    Saved {
        /// After this many steps.
        step: u64,
        /// The folder.
        path: String,
    },
    /// The run ended.
    Finished {
        /// `finished`, `interrupted`, ...
        status: String,
        /// Steps done.
        step: u64,
        /// Seconds since it began or went on.
        seconds: f64,
    },
}

/// See [`Event::Step`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StepEvent {
    /// Number of the step, from 1.
    pub step: u64,
    /// Loss over the step's supervised tokens, before the update.
    pub loss: f64,
    /// Of this step.
    pub learning_rate: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// Passes over the rows so far.
    pub epoch: f64,
    /// Rows of the step.
    pub rows: usize,
    /// Tokens of the step, as rendered.
    pub tokens: usize,
    /// Of these, tokens that count in the loss.
    pub tokens_supervised: usize,
    /// Tokens computed, shared prefixes once.
    pub tokens_computed: usize,
    /// Micro-batches of the step.
    pub micro_batches: usize,
    /// Seconds that the step took.
    pub seconds: f64,
    /// Further figures of the objective.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub metrics: std::collections::BTreeMap<String, f64>,
}

impl Event {
    /// The step that the event belongs to, where it belongs to one.
    pub fn step(&self) -> Option<u64> {
        match self {
            Event::Step(event) => Some(event.step),
            Event::Evaluated { step, .. }
            | Event::Sampled { step, .. }
            | Event::Rollout { step, .. }
            | Event::Answered { step, .. }
            | Event::Saved { step, .. }
            | Event::Finished { step, .. } => Some(*step),
            Event::Finding { step, .. } => *step,
            Event::Started { .. } | Event::ReferenceCached { .. } => None,
        }
    }
}
