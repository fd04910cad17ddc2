//! The way to pairs: answers, the cost, and who chooses.

use std::cmp::Ordering;
use std::collections::HashMap;

use hub::Resolved;
use serde_json::json;

use super::super::quote;
use super::config::{Asked, ChooseBy, PairsConfig, is_person};
use super::cost::Cost;
use super::finish::{Scores, write_left_out};
use super::journal::{Choice, Chosen, Journal, now};
use super::pair::{Candidate, Group, LeftOut, Pair, extremes, reasons};
use super::person::{End, Person};
use super::reward::score_answers;
use super::{Arguments, judge};
use crate::asking::prompts::{self, Ask, Prompt};
use crate::asking::{Answerer, Endpoint, Local, Request, Requests, bar};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::signals::Signals;
use crate::terminal::style::count;

/// What is done on the way to pairs.
pub(super) struct Work<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) config: &'a PairsConfig,
    pub(super) context: &'a Context,
    pub(super) signals: &'a Signals,
    /// Who chooses.
    pub(super) rater: String,
}

impl Work<'_> {
    /// The answers to all prompts: those of the journal, and those that are asked for now. The error is the exit
    /// code of a command that ends here.
    pub(super) fn answers<'p>(
        &self,
        asked: &Asked,
        prompts: &'p [Prompt],
        journal: &mut Journal,
    ) -> Result<std::result::Result<(Vec<Group<'p>>, Cost), u8>> {
        let asks = prompts::asks(prompts, asked.samples);
        let is_missing = |ask: &Ask<'_>| journal.answer(&ask.prompt.hash, ask.sample).is_none();
        let missing: Vec<Ask<'_>> =
            prompts::asks(prompts, asked.samples).into_iter().filter(is_missing).collect();
        let mut cost = Cost::default();
        if !missing.is_empty() {
            let pairs = prompts.len() * self.config.pairs_per_prompt();
            let pairs = pairs.min(self.config.max_pairs.unwrap_or(usize::MAX));
            cost.of_answers(asked, &missing);
            match &self.config.choose_by {
                ChooseBy::Person => cost.of_person(self.config, pairs, None),
                ChooseBy::Judge(judge) => {
                    cost.of_judge_before(judge, asked, pairs, &missing);
                    // Before anything is paid for answers that nobody could judge.
                    Endpoint::new(&judge.address, &judge.model, &judge.asking, self.context)
                        .reach()?;
                }
                ChooseBy::Reward(_) => cost.of_reward(asks.len()),
            }
            if !self.agree(&cost)? {
                return Ok(Err(0));
            }
            self.ask(asked, &missing, journal)?;
            if let Some(signal) = self.signals.asked() {
                self.tell_stopped(prompts.len(), journal, &asks);
                return Ok(Err(signal.exit_code()));
            }
        }
        let from = asked.called(self.context);
        let mut groups: Vec<Group<'p>> = Vec::with_capacity(prompts.len());
        for asks in asks.chunks(asked.samples) {
            let answers =
                asks.iter().filter_map(|ask| journal.answer(&ask.prompt.hash, ask.sample));
            let candidates = answers.map(|answer| Candidate::of_answer(answer, from.clone()));
            groups.push(Group { prompt: asks[0].prompt, candidates: candidates.collect() });
        }
        Ok(Ok((groups, cost)))
    }

    fn ask(&self, asked: &Asked, missing: &[Ask<'_>], journal: &mut Journal) -> Result<()> {
        let request = |index: usize| {
            let prompt = missing[index].prompt;
            Request {
                messages: prompt.turns(),
                tools: prompt.tools.clone(),
                place: prompt.place.clone(),
                seed: missing[index].seed(asked.asking.seed),
            }
        };
        let requests = Requests { count: missing.len(), of: &request };
        let bar = bar(self.context, missing.len());
        let mut on_answer = |index: usize, answer| {
            bar.inc(1);
            journal.keep_answer(&missing[index].prompt.hash, missing[index].sample, answer)?;
            self.context.terminal.written()
        };
        let answered = match &asked.by {
            Answerer::Endpoint { address, model } => {
                Endpoint::new(address, model, &asked.asking, self.context).answer(
                    requests,
                    self.signals,
                    &mut on_answer,
                )
            }
            Answerer::Local(model) => {
                let session = asked.served(self.context, model)?.session(self.context, model)?;
                Local::new(session, &asked.asking).answer(requests, self.signals, &mut on_answer)
            }
        };
        bar.finish_and_clear();
        answered
    }

    /// Says what cannot be paired, before anybody chooses.
    pub(super) fn say_left_out(&self, left_out: &[LeftOut]) {
        for (reason, times) in reasons(left_out) {
            let times = count(times as u64);
            self.context.terminal.note(&format!("answers that are left out: {times} x {reason}"));
        }
    }

    /// Ends a command that has nothing to compare, with the list of why.
    pub(super) fn require_pairs(&self, pairs: usize, left_out: &[LeftOut]) -> Result<()> {
        if pairs > 0 {
            return Ok(());
        }
        write_left_out(left_out, self.config)?;
        let list = self.context.environment.show(&self.config.left_out());
        Err(Failure::new("no_pairs", "no pair is left to choose from".to_owned())
            .hint(format!("{list} lists why; a higher temperature gives answers that differ")))
    }

    /// Lets a reward model choose the best answer of each prompt over the worst.
    pub(super) fn score<'p>(
        &self,
        model: &Resolved,
        groups: Vec<Group<'p>>,
        journal: &mut Journal,
        cost: &mut Cost,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<(Vec<Pair<'p>>, Scores)> {
        if *cost == Cost::default() {
            cost.of_reward(groups.iter().map(|group| group.candidates.len()).sum());
            self.agree(cost)?;
        }
        let before = left_out.len();
        let scored = score_answers(model, groups, left_out, self.signals, self.context)?;
        self.say_left_out(&left_out[before..]);
        self.require_pairs(scored.len(), left_out)?;
        let before: HashMap<String, Choice> =
            journal.choices_of(&self.rater).iter().map(|c| (c.pair.clone(), c.choice)).collect();
        let (mut pairs, mut scores) = (Vec::with_capacity(scored.len()), Scores::new());
        for (group, own) in &scored {
            let (pair, [first, second]) = extremes(group, own);
            if scores.insert(pair.id.clone(), [first, second]).is_some() {
                left_out.push(pair.left_out("repeated"));
                continue;
            }
            let choice = match first.total_cmp(&second) {
                Ordering::Greater => Choice::First,
                Ordering::Less => Choice::Second,
                Ordering::Equal => Choice::Tie,
            };
            if before.get(&pair.id) != Some(&choice) {
                journal.keep_choice(Chosen {
                    pair: pair.id.clone(),
                    rater: self.rater.clone(),
                    choice,
                    shown_as_a: Choice::First,
                    seconds: 0.0,
                    at: now(),
                })?;
            }
            pairs.push(pair);
        }
        Ok((pairs, scores))
    }

    /// Says the cost; asks whether to go on where an endpoint will be asked and somebody may say no.
    fn agree(&self, cost: &Cost) -> Result<bool> {
        let terminal = &self.context.terminal;
        cost.lines(self.config).iter().for_each(|line| terminal.note(line));
        if !cost.spends() || self.arguments.yes || !self.context.environment.stdin_is_terminal {
            return Ok(true);
        }
        terminal.note("go on? [y/N]");
        // Nothing is half done, and reading a line hears of no signal.
        let _guard = self.signals.guard(terminal.clone(), "nothing was asked");
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        read.map_err(|error| Failure::new("io", format!("standard input: {error}")))?;
        let agreed = matches!(line.trim().to_lowercase().as_str(), "y" | "yes");
        if !agreed {
            terminal.say("nothing was asked; `--yes` goes on without this question");
            terminal.result(json!({"status": "declined", "cost": cost.to_json()}));
        }
        Ok(agreed)
    }

    /// Lets a person or a judge choose. None where the user does not agree to the cost.
    pub(super) fn choose(
        &self,
        pairs: &[Pair<'_>],
        journal: &mut Journal,
        cost: &mut Cost,
    ) -> Result<Option<End>> {
        let was_said = *cost != Cost::default();
        match &self.config.choose_by {
            ChooseBy::Person => {
                let chosen = journal.chosen_by(&self.rater);
                let open = pairs.iter().filter(|pair| !chosen.contains(pair.id.as_str())).count();
                cost.of_person(self.config, open, median_seconds(journal, None));
                if !was_said && !self.agree(cost)? {
                    return Ok(None);
                }
                let (rater, seed) = (self.rater.as_str(), self.config.seed);
                let (context, signals) = (self.context, self.signals);
                Person { pairs, rater, seed, context, signals }.choose(journal).map(Some)
            }
            ChooseBy::Judge(judge) => {
                let open = |tries| judge::open(pairs, judge, journal, tries);
                let all = (0..judge::TRIES).flat_map(open).map(|open| &pairs[open.pair]);
                cost.of_judge(judge, all);
                if !was_said && !self.agree(cost)? {
                    return Ok(None);
                }
                judge::choose(pairs, judge, journal, self.signals, self.context)?;
                Ok(Some(self.signals.asked().map_or(End::Done, End::Signal)))
            }
            // It scores all answers to a prompt at once.
            ChooseBy::Reward(_) => Ok(Some(End::Done)),
        }
    }

    fn tell_stopped(&self, prompts: usize, journal: &Journal, asks: &[Ask<'_>]) {
        let is_there = |ask: &&Ask<'_>| journal.answer(&ask.prompt.hash, ask.sample).is_some();
        let kept = asks.iter().filter(is_there).count();
        let terminal = &self.context.terminal;
        terminal.say(&format!("stopped after {kept} of {} answers", count(asks.len() as u64)));
        self.say_next();
        terminal.result(json!({"status": "interrupted", "prompts": prompts, "answers": kept}));
    }

    /// How to go on.
    pub(super) fn say_next(&self) {
        let terminal = &self.context.terminal;
        terminal.say(&terminal.style.bold("next"));
        let program = quote(self.context.environment.program());
        let given = self.arguments.recipe.given();
        let rater = match &self.arguments.rater {
            Some(rater) => format!(" --rater {}", quote(rater)),
            None => String::new(),
        };
        terminal.say(&format!("  {program} pairs {given} --resume{rater}"));
    }
}

/// The middle time that a choice took, of one rater or of all persons.
pub(super) fn median_seconds(journal: &Journal, rater: Option<&str>) -> Option<f64> {
    let counts = |name: &str| is_person(name) && rater.is_none_or(|own| own == name);
    let all = journal.choices().iter().filter(|(name, _)| counts(name));
    let mut seconds: Vec<f64> = all.flat_map(|(_, own)| own).map(|own| own.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied()
}
