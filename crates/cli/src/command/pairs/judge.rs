//! A model behind an endpoint chooses: asked in both orders, so that a liking for a position shows.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use text::Message;

use super::config::Judge;
use super::journal::{Choice, Journal, Mark, Verdict, now};
use super::pair::Pair;
use super::raters::{Judged, judged};
use crate::asking::{Endpoint, Request, Requests, bar};
use crate::context::Context;
use crate::error::Result;
use crate::signals::Signals;

/// How often one order is asked until its reply names an answer.
pub(super) const TRIES: usize = 2;
/// What the draws of verdicts are for.
const VERDICTS: u64 = 0x7665_7264;
/// What ends every request.
const QUESTION: &str = "Which answer is better? Give reasons first if you need to. End with one line that \
    holds only A, B or tie.";

/// A request that waits for its verdict: the pair, and whether its second answer is shown as A.
pub(super) struct Open {
    pub(super) pair: usize,
    pub(super) is_swapped: bool,
}

/// The requests that have been made `tries` times without a verdict.
pub(super) fn open(
    pairs: &[Pair<'_>],
    judge: &Judge,
    journal: &Journal,
    tries: usize,
) -> Vec<Open> {
    let judged = judged(journal.verdicts(), &judge.rater());
    let none = Judged::default();
    let orders = pairs.iter().enumerate().flat_map(|(pair, own)| {
        let judged = judged.get(&own.id).unwrap_or(&none);
        let is_open =
            |order: &usize| judged.marks[*order].is_none() && judged.tries[*order] == tries;
        let open = (0..2).filter(is_open).map(|order| Open { pair, is_swapped: order == 1 });
        open.collect::<Vec<_>>()
    });
    orders.collect()
}

/// Asks for every verdict that is missing, until all are there or a signal comes. A reply that names no answer
/// is asked for once more.
pub(super) fn choose(
    pairs: &[Pair<'_>],
    judge: &Judge,
    journal: &mut Journal,
    signals: &Signals,
    context: &Context,
) -> Result<()> {
    let endpoint = Endpoint::new(&judge.address, &judge.model, &judge.asking, context);
    for tries in 0..TRIES {
        let open = open(pairs, judge, journal, tries);
        if open.is_empty() || signals.asked().is_some() {
            continue;
        }
        let request = |index: usize| {
            let Open { pair, is_swapped } = open[index];
            let words =
                [VERDICTS, judge.asking.seed, pairs[pair].key(), is_swapped.into(), tries as u64];
            Request {
                messages: vec![Message::new(
                    "user",
                    question(&pairs[pair], &judge.rubric, is_swapped),
                )],
                tools: None,
                place: pairs[pair].prompt.place.clone(),
                seed: data::random::key(&words),
            }
        };
        let bar = bar(context, open.len());
        let asked = endpoint.answer(
            Requests { count: open.len(), of: &request },
            signals,
            &mut |index, answer| {
                bar.inc(1);
                let Open { pair, is_swapped } = open[index];
                journal.keep_verdict(Verdict {
                    pair: pairs[pair].id.clone(),
                    rater: judge.rater(),
                    shown_as_a: if is_swapped { Choice::Second } else { Choice::First },
                    mark: mark(&answer.text),
                    said: answer.text,
                    at: now(),
                })?;
                context.terminal.written()
            },
        );
        bar.finish_and_clear();
        asked?;
    }
    Ok(())
}

/// What the judge is told of a pair.
pub(super) fn question(pair: &Pair<'_>, rubric: &str, is_swapped: bool) -> String {
    let (mut a, mut b) = (&pair.first.text, &pair.second.text);
    if is_swapped {
        std::mem::swap(&mut a, &mut b);
    }
    let mut text = format!("{rubric}\n\n");
    let tools = pair.prompt.tool_lines();
    if !tools.is_empty() {
        let _ = writeln!(text, "<tools>\n{}\n</tools>\n", tools.join("\n"));
    }
    text.push_str("<prompt>\n");
    for turn in pair.prompt.turns() {
        let _ = writeln!(text, "{}: {}", turn.role, turn.content);
    }
    let _ = write!(
        text,
        "</prompt>\n\n<answer_a>\n{a}\n</answer_a>\n\n<answer_b>\n{b}\n</answer_b>\n\n{QUESTION}"
    );
    text
}

/// The answer that a reply names in its last line.
fn mark(reply: &str) -> Option<Mark> {
    let last = reply.lines().rev().find(|line| !line.trim().is_empty())?;
    // Models like to set verdicts in bold or in brackets, or to name what they give.
    let last = last.rsplit_once(':').map_or(last, |(_, after)| after);
    let word = last.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    match word.strip_prefix("answer ").unwrap_or(&word).trim() {
        "a" => Some(Mark::A),
        "b" => Some(Mark::B),
        "tie" => Some(Mark::Tie),
        _ => None,
    }
}

/// How often verdicts followed the position in place of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Position {
    /// Pairs whose verdicts of both orders name an answer, and no tie.
    decided: usize,
    /// Of these, both verdicts A.
    both_a: usize,
    /// Of these, both verdicts B.
    both_b: usize,
}

impl Position {
    pub(super) fn of(pairs: &[Pair<'_>], judge: &Judge, journal: &Journal) -> Self {
        let judged: HashMap<String, Judged> = judged(journal.verdicts(), &judge.rater());
        let marks = pairs.iter().filter_map(|pair| Some(judged.get(&pair.id)?.marks));
        let mut position = Position::default();
        for (one, other) in marks.filter_map(|[one, other]| one.zip(other)) {
            if one != Mark::Tie && other != Mark::Tie {
                position.decided += 1;
                position.both_a += usize::from((one, other) == (Mark::A, Mark::A));
                position.both_b += usize::from((one, other) == (Mark::B, Mark::B));
            }
        }
        position
    }

    /// Share of the decided pairs whose verdicts follow the position.
    fn share(self) -> Option<eval::interval::Interval> {
        let followed = self.both_a + self.both_b;
        let values: Vec<f64> =
            (0..self.decided).map(|pair| if pair < followed { 1.0 } else { 0.0 }).collect();
        (!values.is_empty()).then(|| eval::interval::bootstrap(&values, 1))
    }

    pub(super) fn to_json(self) -> Value {
        let Position { decided, both_a, both_b } = self;
        let share = self.share();
        json!({"pairs": decided, "both_a": both_a, "both_b": both_b, "share": share})
    }

    /// As a line; none where no pair was decided.
    pub(super) fn line(self) -> Option<String> {
        let Position { decided, both_a, both_b } = self;
        let share = self.share()?;
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        Some(format!(
            "{} of {decided} pairs were judged by the position and not by the answer (95 % interval \
             {} to {}): {both_a} x A, {both_b} x B",
            percent(share.mean),
            percent(share.low),
            percent(share.high)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_names_its_answer_last() {
        let check = |reply: &str, expected| assert_eq!(mark(reply), expected, "{reply}");
        for reply in ["A", "b wins?\n\na\n", "because\n**A**", "Verdict: [[A]].", "Answer A", "`A`"]
        {
            check(reply, Some(Mark::A));
        }
        check("B", Some(Mark::B));
        check("*Tie*", Some(Mark::Tie));
        for reply in ["", "A is better", "both", "A or B"] {
            check(reply, None);
        }
    }
}
