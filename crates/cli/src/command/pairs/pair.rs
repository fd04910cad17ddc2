//! Two answers to one prompt, and why others are not compared.

use std::collections::{BTreeMap, HashSet};

use data::Place;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::asking::Answer;
use crate::asking::hex;
use crate::asking::prompts::Prompt;
use crate::error::{Failure, Result};

/// An answer that may become one of a pair.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) text: String,
    /// The column or the model that it comes from.
    pub(super) from: String,
    /// Why it is no target, if it is none.
    pub(super) flaw: Option<String>,
}

/// A prompt with its answers, in their order.
pub(super) struct Group<'a> {
    pub(super) prompt: &'a Prompt,
    pub(super) candidates: Vec<Candidate>,
}

/// Two answers that are compared.
pub(super) struct Pair<'a> {
    pub(super) prompt: &'a Prompt,
    pub(super) first: Candidate,
    pub(super) second: Candidate,
    /// A hash of the prompt and both answers.
    pub(super) id: String,
}

/// An answer or a pair that gives no row, and why.
pub(super) struct LeftOut {
    pub(super) reason: String,
    place: Place,
    /// What it is.
    rest: Value,
}

impl Candidate {
    /// An answer that was asked for.
    pub(super) fn of_answer(answer: &Answer, from: String) -> Self {
        let flaw = answer.flaw().map(str::to_owned);
        Candidate { text: answer.text.clone(), from, flaw }
    }

    /// An answer that stands in a column: text, or turns of which the last one is the assistant's.
    pub(super) fn of_column(value: &Value, column: &str, place: &Place) -> Result<Self> {
        let text = match value {
            Value::String(text) => Some(text.as_str()),
            Value::Array(turns) => turns
                .last()
                .filter(|turn| turn["role"] == "assistant")
                .and_then(|turn| turn["content"].as_str()),
            _ => None,
        };
        let Some(text) = text else {
            let what = match value {
                Value::Null => "is missing or null",
                Value::Array(_) => "is a list that does not end with an assistant's turn",
                _ => "is no text",
            };
            let message = format!("{place}: candidate `{column}` {what}");
            let failure = Failure::new("data_rows", message).at(&place.file);
            let hint = "fill it in, remove the row, or name other columns in \
                        `pairs.candidates.columns`";
            return Err(Failure { line: Some(place.line), ..failure }.hint(hint));
        };
        let flaw = text.trim().is_empty().then(|| "empty".to_owned());
        Ok(Candidate { text: text.to_owned(), from: column.to_owned(), flaw })
    }
}

impl Pair<'_> {
    /// Bits that are the pair's own.
    pub(super) fn key(&self) -> u64 {
        u64::from_str_radix(&self.id[..16], 16).unwrap_or_default()
    }

    /// Lists the pair among those without a row.
    pub(super) fn left_out(&self, reason: &str) -> LeftOut {
        let rest = json!({"answers": [self.first.text, self.second.text], "pair": self.id});
        LeftOut { reason: reason.to_owned(), place: self.prompt.place.clone(), rest }
    }
}

impl LeftOut {
    pub(super) fn of_candidate(reason: &str, prompt: &Prompt, candidate: &Candidate) -> Self {
        let rest = json!({"answer": candidate.text, "from": candidate.from});
        LeftOut { reason: reason.to_owned(), place: prompt.place.clone(), rest }
    }

    /// As a row of the list.
    pub(super) fn to_json(&self) -> Value {
        let mut row = json!({"reason": self.reason, "row": self.place.to_string()});
        if let (Some(row), Value::Object(rest)) = (row.as_object_mut(), &self.rest) {
            row.extend(rest.clone());
        }
        row
    }
}

/// How often there was each reason.
pub(super) fn reasons(left_out: &[LeftOut]) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    for one in left_out {
        *reasons.entry(one.reason.as_str()).or_default() += 1;
    }
    reasons
}

/// The answers that can be compared. Those that were cut off, are empty, or repeat an earlier one of their prompt
/// are listed instead.
pub(super) fn usable(groups: Vec<Group<'_>>) -> (Vec<Group<'_>>, Vec<LeftOut>) {
    let mut left_out = Vec::new();
    let keep = |Group { prompt, candidates }| {
        let mut usable: Vec<Candidate> = Vec::new();
        for candidate in candidates {
            let is_known = |own: &Candidate| own.text.trim() == candidate.text.trim();
            let reason = match &candidate.flaw {
                Some(flaw) => Some(flaw.as_str()),
                None => usable.iter().any(is_known).then_some("identical"),
            };
            match reason {
                Some(reason) => left_out.push(LeftOut::of_candidate(reason, prompt, &candidate)),
                None => usable.push(candidate),
            }
        }
        Group { prompt, candidates: usable }
    };
    let groups = groups.into_iter().map(keep).collect();
    (groups, left_out)
}

/// The pairs of neighbours among the answers of each prompt, at most so many. Repeated pairs are listed instead.
pub(super) fn neighbours<'a>(
    groups: &[Group<'a>],
    most: Option<usize>,
    left_out: &mut Vec<LeftOut>,
) -> Vec<Pair<'a>> {
    let two = |group: &Group<'a>| {
        let prompt = group.prompt;
        let pair = move |two: &[Candidate]| pair_of(prompt, two[0].clone(), two[1].clone());
        group.candidates.windows(2).map(pair).collect::<Vec<_>>()
    };
    let mut ids = HashSet::new();
    let mut pairs = Vec::new();
    for pair in groups.iter().flat_map(two) {
        match ids.insert(pair.id.clone()) {
            true => pairs.push(pair),
            false => left_out.push(pair.left_out("repeated")),
        }
    }
    pairs.truncate(most.unwrap_or(usize::MAX));
    pairs
}

/// The best answer of a prompt with the worst by their scores, in the order of the answers, with their scores.
pub(super) fn extremes<'a>(group: &Group<'a>, scores: &[f32]) -> (Pair<'a>, [f64; 2]) {
    let by_score = |a: &usize, b: &usize| scores[*a].total_cmp(&scores[*b]);
    // Of equal ones the first.
    let best = (0..scores.len()).rev().max_by(by_score).unwrap_or(0);
    let worst = (0..scores.len()).filter(|&at| at != best).min_by(by_score).unwrap_or(0);
    let (first, second) = (best.min(worst), best.max(worst));
    let candidate = |at: usize| group.candidates[at].clone();
    let pair = pair_of(group.prompt, candidate(first), candidate(second));
    (pair, [first, second].map(|at| f64::from(scores[at])))
}

fn pair_of(prompt: &Prompt, first: Candidate, second: Candidate) -> Pair<'_> {
    let text = json!([prompt.hash, first.text, second.text]).to_string();
    Pair { prompt, first, second, id: hex(&Sha256::digest(text)[..16]) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn prompt() -> Prompt {
        let place = Place { file: Path::new("p.jsonl").into(), line: 1, element: None };
        let (system, messages, tools, reference) = (None, Vec::new(), None, None);
        let (columns, kept, hash) = (serde_json::Map::new(), Vec::new(), "h".to_owned());
        let turns_hash = hash.clone();
        Prompt { place, system, messages, tools, reference, columns, kept, hash, turns_hash }
    }

    fn group<'a>(prompt: &'a Prompt, texts: &[&str]) -> Group<'a> {
        let candidate = |text: &&str| Candidate {
            text: (*text).to_owned(),
            from: "x".into(),
            flaw: text.is_empty().then(|| "empty".into()),
        };
        Group { prompt, candidates: texts.iter().map(candidate).collect() }
    }

    #[test]
    fn neighbours_are_paired() {
        let prompt = prompt();
        let groups = vec![group(&prompt, &["a", "", "b", " a", "c"]), group(&prompt, &["a", "b"])];
        let (groups, mut left_out) = usable(groups);
        let pairs = neighbours(&groups, None, &mut left_out);
        let texts: Vec<[&str; 2]> =
            pairs.iter().map(|pair| [&*pair.first.text, &*pair.second.text]).collect();
        assert_eq!(texts, [["a", "b"], ["b", "c"]]);
        let expected = BTreeMap::from([("empty", 1), ("identical", 1), ("repeated", 1)]);
        assert_eq!(reasons(&left_out), expected);
        assert_eq!(neighbours(&groups, Some(1), &mut left_out).len(), 1);
    }

    #[test]
    fn the_best_stands_against_the_worst() {
        let prompt = prompt();
        let check = |scores: &[f32], expected: ([&str; 2], [f64; 2])| {
            let group = group(&prompt, &["a", "b", "c"]);
            let (pair, scores) = extremes(&group, scores);
            assert_eq!(([&*pair.first.text, &*pair.second.text], scores), expected);
        };
        check(&[0.0, 2.0, 1.0], (["a", "b"], [0.0, 2.0]));
        check(&[3.0, 2.0, -1.0], (["a", "c"], [3.0, -1.0]));
        check(&[1.0, 1.0, 1.0], (["a", "b"], [1.0, 1.0]));
    }
}
