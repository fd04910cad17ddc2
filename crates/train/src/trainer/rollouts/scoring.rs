//! What a reward model over the same base says about answers.

use data::record::{Conversation, Feedback, Record};
use data::{Packing, Reads, RowError, Sequence, Supervisor, Unit};
use model::{HeadRequest, Want};
use serde_json::Value;
use text::Message;

use super::Answer;
use crate::models::PartName;
use crate::step::StepPlan;
use crate::trainer::course::Stand;
use crate::{Error, Result};

/// Scores of answers, in their order. Each is rendered as a row of the reward model's training is: prompt and answer,
/// ended as the template ends a turn, also where the answer was cut.
pub(super) fn scores(
    at: &mut Stand<'_>,
    supervisor: &Supervisor,
    answers: &[(&Unit, &Answer)],
) -> Result<Vec<f64>> {
    let mut sequences: Vec<Sequence> = Vec::new();
    for (row, &(prompt, answer)) in (0..).zip(answers) {
        let record = Record::Feedback(judged(prompt, answer));
        let made = supervisor.sequences(row, &record, &mut data::Findings::default());
        let refused = |error: RowError| data::Error::Rows { rows: vec![error], hint: None };
        sequences.extend(made.map_err(refused)?);
    }
    let longest = at.models.decoder.config.max_position_embeddings;
    if let Some(long) = sequences.iter().find(|sequence| sequence.len() > longest) {
        let message = format!(
            "{}: prompt and answer have {} tokens, and the reward model takes {longest}",
            long.place,
            long.len()
        );
        return Err(Error::refused(message, "lower `rollout.max_new_tokens`"));
    }
    let packing = Packing { reads: Reads::Last, keep_units: false, ..*at.packing };
    let plan = StepPlan::new(&Unit::of_sequences(sequences), &packing);
    let want = Want { value: true, ..Want::default() };
    let request = HeadRequest { want, ..HeadRequest::logprobs() };
    let outputs = at.engine().outputs_under_part(&plan, PartName::Reward, &request)?;
    let mut scores = vec![0.0; plan.sequences.len()];
    for (micro, outputs) in plan.micros.iter().zip(outputs) {
        for last in &micro.batch.last_reads {
            scores[last.sequence as usize] = f64::from(outputs.value[last.read as usize]);
        }
    }
    Ok(scores)
}

/// An answer as a row that was judged.
fn judged(prompt: &Unit, answer: &Answer) -> Feedback {
    let place = prompt.sequences[0].place.clone();
    let turns = prompt.side.get("messages").and_then(Value::as_array);
    let turns = turns.expect("a prompt is prepared with its messages");
    let turn = |turn: &Value| Message::from_value(turn.clone());
    let messages: std::result::Result<Vec<Message>, _> = turns.iter().map(turn).collect();
    let mut messages = messages.expect("messages are kept as they can be read");
    messages.extend(answer.episode.iter().flat_map(|episode| episode.said.iter().cloned()));
    messages.push(Message::new("assistant", answer.text.as_str()));
    let counts = messages.len();
    let is_last = |index: usize| index + 1 == counts;
    Feedback {
        conversation: Conversation {
            place,
            supervised: (0..counts).map(is_last).collect(),
            weights: (0..counts).map(|index| f32::from(u8::from(is_last(index)))).collect(),
            messages,
            tools: prompt.side.get("tools").cloned(),
        },
        desirable: true,
    }
}
