//! A reward model chooses: it scores every answer, and the best stands against the worst.

use data::record::{self, Record};
use data::{Findings, Sequence};
use hub::Resolved;
use session::Scorer;
use text::Message;

use super::pair::{Candidate, Group, LeftOut};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::served::Served;
use crate::signals::Signals;

/// Tokens that run together, unless a single answer has more.
const BATCH_TOKENS: usize = 1024;

/// Why an answer is left out.
const TOO_LONG: &str = "too long for the reward model";

/// The answers that the reward model can take, where a prompt has two or more, and their scores as `score` gives them.
/// Answers that are too long for it are listed instead.
pub(super) fn score_answers<'p>(
    model: &Resolved,
    groups: Vec<Group<'p>>,
    left_out: &mut Vec<LeftOut>,
    signals: &Signals,
    context: &Context,
) -> Result<Vec<(Group<'p>, Vec<f32>)>> {
    let mut scorer = Served::of_model(context, model)?.scorer(context, model)?;
    if scorer.classes().is_some() {
        let message =
            "the model is a classifier: it says which class a text has, not which answer is better";
        return Err(Failure::wrong("no_reward_model", message)
            .hint("name a model that was trained with `method: reward`"));
    }
    let (mut rows, mut kept, mut findings) = (Vec::new(), Vec::new(), Findings::default());
    for (index, mut group) in groups.into_iter().enumerate() {
        let sequences = sequences(&scorer, index, &group, &mut findings)?;
        let mut fits = sequences.iter().map(Option::is_some);
        let is_too_long = |_: &mut Candidate| !fits.next().unwrap_or(true);
        for candidate in group.candidates.extract_if(.., is_too_long) {
            left_out.push(LeftOut::of_candidate(TOO_LONG, group.prompt, &candidate));
        }
        if group.candidates.len() > 1 {
            rows.extend(sequences.into_iter().flatten());
            kept.push(group);
        }
    }
    context.warn_of(&findings);
    // Nothing is left half done: choices are kept when all scores are there.
    let what = "the answers are not scored yet; `--resume` scores them";
    let guard = signals.guard(context.terminal.clone(), what);
    let scores = scorer.score(&rows, BATCH_TOKENS).map_err(|error| {
        let is_room = matches!(error, session::Error::ScoreRoom { .. });
        let failure = Failure::from(error);
        match is_room {
            true => failure.hint("a smaller reward model fits, or shorter answers"),
            false => failure,
        }
    })?;
    drop(guard);
    let mut rest = scores.as_slice();
    let mut all = Vec::with_capacity(kept.len());
    for group in kept {
        let (own, others) = rest.split_at(group.candidates.len());
        rest = others;
        if let Some(score) = own.iter().find(|score| !score.is_finite()) {
            let place = &group.prompt.place;
            let message = format!("{place}: the score is {score}");
            let failure = Failure::new("not_finite", message).at(&place.file);
            let hint = "the model's numbers are not finite there: name an earlier checkpoint";
            return Err(Failure { line: Some(place.line), ..failure }.hint(hint));
        }
        all.push((group, own.to_vec()));
    }
    Ok(all)
}

/// The tokens of a prompt with each of its answers, as a row of training has them; none of an answer that is too long.
fn sequences(
    scorer: &Scorer,
    row: usize,
    group: &Group<'_>,
    findings: &mut Findings,
) -> Result<Vec<Option<Sequence>>> {
    let answer = |(index, text): (usize, &str)| record::Answer {
        index,
        messages: vec![Message::new("assistant", text)],
        score: None,
        standing: 0,
    };
    let texts = group.candidates.iter().map(|candidate| candidate.text.as_str());
    let ranked = Record::Ranked(record::Ranked {
        place: group.prompt.place.clone(),
        prompt: group.prompt.turns(),
        answers: texts.enumerate().map(answer).collect(),
        tools: group.prompt.tools.clone(),
    });
    let sequences = scorer.sequences_that_fit(row as u64, &ranked, findings);
    Ok(sequences.map_err(|error| data::Error::Rows { rows: vec![error], hint: None })?)
}
