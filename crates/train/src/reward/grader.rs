//! Rewards by a grader: the primary metric of each answer.

use std::sync::Arc;

use data::Stop;
use eval::grader::{Grader, by_name};
use serde_json::{Map, Value};

use super::{Completion, RewardError, RewardSource, Scored};

/// The grader of a recipe, with its options.
pub(super) fn make(name: &str, options: &Map<String, Value>) -> eval::Result<Box<dyn Grader>> {
    by_name(name, options)
}

/// Why no answer to the row of a reference could be right; nothing where one could.
pub(super) fn problem(grader: &dyn Grader, reference: &Value) -> Option<String> {
    grader.needs_reference().then(|| grader.reference_problem(reference)).flatten()
}

/// Grades on the thread that asks.
pub(super) struct Graded(pub(super) Box<dyn Grader>);

impl RewardSource for Graded {
    fn score(&mut self, completions: &[Arc<Completion>], stop: &Stop) -> Vec<Scored> {
        let grade = |completion: &Arc<Completion>| {
            if stop.is_asked() {
                return Err(RewardError::stopped());
            }
            let expected = match &completion.asked.reference {
                Some(reference) => reference,
                None if self.0.needs_reference() => {
                    return Err(RewardError::new("the row has no reference answer"));
                }
                None => &Value::Null,
            };
            Ok(Some(self.0.reward(&completion.answer, expected)))
        };
        completions.iter().map(grade).collect()
    }
}
