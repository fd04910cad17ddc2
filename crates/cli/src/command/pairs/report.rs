//! What is said in the end.

use std::time::Instant;

use serde_json::json;

use super::super::quote;
use super::cost::Cost;
use super::finish::Tally;
use super::journal::Journal;
use super::judge::Position;
use super::person::End;
use super::raters::Agreed;
use super::work::{Work, median_seconds};
use crate::signals::StopSignal;
use crate::terminal::style::{count, duration};

/// The end of a command.
pub(super) struct Done<'a> {
    pub(super) work: &'a Work<'a>,
    pub(super) prompts: usize,
    pub(super) pairs: usize,
    pub(super) cost: Cost,
    pub(super) begun: Instant,
}

impl Done<'_> {
    /// Says what came of it. Returns the exit code.
    pub(super) fn tell(&self, end: &End, tally: &Tally, journal: &Journal) -> u8 {
        let Work { config, context, rater, .. } = self.work;
        let terminal = &context.terminal;
        let [written, all, prompts] =
            [tally.written, self.pairs, self.prompts].map(|number| count(number as u64));
        let seconds = self.begun.elapsed().as_secs_f64();
        terminal.say("");
        terminal.say(&terminal.style.bold(&format!(
            "{written} of {all} pairs from {prompts} prompts have a better answer, in {}",
            duration(seconds)
        )));
        if tally.open > 0 {
            terminal.say(&format!("open       {} pairs", count(tally.open as u64)));
        }
        if !tally.left_out.is_empty() {
            let reasons: Vec<String> =
                tally.left_out.iter().map(|(why, n)| format!("{n} x {why}")).collect();
            let list = context.environment.show(&config.left_out());
            terminal.say(&format!("left out   {}: {list}", reasons.join(", ")));
        }
        let median = median_seconds(journal, Some(rater));
        if let Some(median) = median {
            terminal.say(&format!("time       {median:.0} s a pair (median)"));
        }
        if let Some(line) = tally.position.and_then(Position::line) {
            terminal.say(&format!("position   {line}"));
        }
        for agreed in &tally.agreement {
            terminal.say(&format!("agreement  {}", agreed.line()));
        }
        let output = context.environment.show(&config.output);
        terminal.say(&format!("output     {output}"));
        let (status, code) = self.status(end);
        match status {
            "finished" => {
                let program = quote(context.environment.program());
                terminal.say(&terminal.style.bold("next"));
                terminal.say(&format!("  {program} init dpo --data {}", quote(&output)));
            }
            _ => self.work.say_next(),
        }
        let agreement: Vec<_> = tally.agreement.iter().map(Agreed::to_json).collect();
        terminal.result(json!({
            "status": status, "prompts": self.prompts, "pairs": self.pairs,
            "rows_written": tally.written, "open": tally.open, "left_out": tally.left_out,
            "rater": rater, "seconds_per_pair": median,
            "position": tally.position.map(Position::to_json), "agreement": agreement,
            "cost": self.cost.to_json(), "output": output,
            "journal": context.environment.show(&config.journal()), "seconds": seconds,
        }));
        code
    }

    fn status(&self, end: &End) -> (&'static str, u8) {
        match end {
            End::Done => ("finished", 0),
            End::Quit => ("stopped", 0),
            End::Signal(signal) => ("interrupted", StopSignal::exit_code(*signal)),
        }
    }
}
