//! What is written: the pairs with a better answer, and a list of what gave none.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use text::{Message, integer};
use train::run::write_atomic;

use super::config::{ChooseBy, PairsConfig, is_person};
use super::journal::{Choice, Journal};
use super::judge::Position;
use super::pair::{LeftOut, Pair, reasons};
use super::raters::{Agreed, Decision, Judged, Rater, agreement, decide, judged, raters};
use crate::error::{Failure, Result};

/// The end in figures.
pub(super) struct Tally {
    pub(super) written: usize,
    /// Pairs that the rater of this command has not chosen yet.
    pub(super) open: usize,
    /// Why answers and pairs gave no row, and how often.
    pub(super) left_out: BTreeMap<String, usize>,
    pub(super) agreement: Vec<Agreed>,
    pub(super) position: Option<Position>,
}

/// The scores of a pair's first and second answer, by pair, where a reward model chose.
pub(super) type Scores = HashMap<String, [f64; 2]>;

/// Writes the output and the list of what is left out, both from the journal. `name` is who chooses.
pub(super) fn finish(
    pairs: &[Pair<'_>],
    mut left_out: Vec<LeftOut>,
    scores: &Scores,
    journal: &Journal,
    config: &PairsConfig,
    name: &str,
) -> Result<Tally> {
    let raters = raters(journal);
    let decides = |rater: &&Rater| match &config.choose_by {
        ChooseBy::Person => is_person(&rater.name),
        ChooseBy::Judge(_) | ChooseBy::Reward(_) => rater.name == name,
    };
    let verdicts = judged(journal.verdicts(), name);
    let own = raters.iter().find(|rater| rater.name == name);
    let (mut rows, mut written, mut open) = (String::new(), 0, 0);
    for pair in pairs {
        let is_unparsable = verdicts.get(&pair.id).is_some_and(Judged::is_in_vain);
        let is_chosen = own.is_some_and(|own| own.choices.contains_key(&pair.id));
        open += usize::from(!is_chosen && !is_unparsable);
        let decision = decide(&pair.id, raters.iter().filter(decides));
        match decision {
            None if is_unparsable => left_out.push(pair.left_out("verdict names no answer")),
            None => {}
            Some(Decision { choice: Choice::Tie, .. }) => left_out.push(pair.left_out("tie")),
            Some(Decision { choice: Choice::Skip, .. }) => left_out.push(pair.left_out("skip")),
            Some(decision) => {
                rows.push_str(&line(&row(pair, &decision, scores.get(&pair.id), config)));
                written += 1;
            }
        }
    }
    write_atomic(&config.output, rows.as_bytes())?;
    write_left_out(&left_out, config)?;
    let position = match &config.choose_by {
        ChooseBy::Judge(judge) => Some(Position::of(pairs, judge, journal)),
        ChooseBy::Person | ChooseBy::Reward(_) => None,
    };
    let agreement = agreement(pairs, &raters);
    let left_out = reasons(&left_out).into_iter().map(|(why, n)| (why.to_owned(), n)).collect();
    Ok(Tally { written, open, left_out, agreement, position })
}

/// Writes the list of what gave no row; there is none where all did.
pub(super) fn write_left_out(left_out: &[LeftOut], config: &PairsConfig) -> Result<()> {
    let list: String = left_out.iter().map(|one| line(&one.to_json())).collect();
    match list.is_empty() {
        true => remove(&config.left_out()),
        false => Ok(write_atomic(&config.left_out(), list.as_bytes())?),
    }
}

/// A preference as `method: dpo` reads it, with who chose, when, and where it comes from.
fn row(
    pair: &Pair<'_>,
    decision: &Decision,
    scores: Option<&[f64; 2]>,
    config: &PairsConfig,
) -> Value {
    let (chosen, rejected) = match decision.choice {
        Choice::Second => (&pair.second, &pair.first),
        _ => (&pair.first, &pair.second),
    };
    let answer = |text: &str| json!([Message::new("assistant", text)]);
    let mut row = json!({
        "prompt": pair.prompt.turns(), "chosen": answer(&chosen.text), "rejected": answer(&rejected.text),
        "raters": decision.raters, "chosen_at": decision.at,
        "chosen_from": chosen.from, "rejected_from": rejected.from,
        "row": pair.prompt.place.to_string(),
    });
    if let Some([first, second]) = scores {
        row["margin"] = (first - second).abs().into();
    }
    if let Some(tools) = &pair.prompt.tools {
        row["tools"] = tools.clone();
    }
    let is_other = |name: &&String| !config.columns().contains(name);
    let columns: serde_json::Map<String, Value> = pair
        .prompt
        .columns
        .iter()
        .filter(|(name, _)| is_other(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !columns.is_empty() {
        row["columns"] = columns.into();
    }
    row
}

fn line(row: &Value) -> String {
    format!("{}\n", integer::plain(row.to_string()))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io(path, &error))
        }
        _ => Ok(()),
    }
}
