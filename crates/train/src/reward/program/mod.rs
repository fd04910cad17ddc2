//! Rewards by a program that speaks JSON Lines: a completion a line in, a reward a line out.

mod line;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use data::Stop;

use self::line::Line;
use super::{Completion, OnRewardError, RewardError, RewardSettings, RewardSource, Scored};
use crate::Result;
use crate::program::{LOOK, Launch, Process, Said, pause_after, readable};

/// A program that gives rewards, started again where it dies, hangs or breaks the protocol.
///
/// A batch is written at once, and its rewards may come in any order. After a failure the completions that are left
/// are asked for one by one, so that the one that the program fails at is known: the others get their rewards.
pub(super) struct Program {
    launch: Launch,
    retries: u32,
    stops_at_failure: bool,
    process: Option<Process>,
    next_id: u64,
}

/// What came of asking for some rewards.
#[derive(Default)]
struct Round {
    /// Completions by their index, and what the program said of each.
    answers: Vec<(usize, Answer)>,
    /// Why there are not all of them; the program has been ended.
    fault: Option<RewardError>,
}

enum Answer {
    Reward(Option<f64>),
    /// The program could not score it: it may when it is asked again.
    Failed(RewardError),
    /// What it says is no reward.
    Wrong(RewardError),
}

impl Program {
    /// Starts the program; fails where there is none.
    pub(super) fn start(
        command: &[String],
        folder: &Path,
        settings: &RewardSettings,
    ) -> Result<Self> {
        let launch = Launch {
            command: command.to_vec(),
            folder: folder.to_owned(),
            key: settings.key.clone(),
            timeout: settings.timeout,
            form: FORM,
            script: "reward.py",
        };
        Ok(Program {
            process: Some(launch.start_first()?),
            launch,
            retries: settings.retries,
            stops_at_failure: settings.on_error == OnRewardError::Stop,
            next_id: 0,
        })
    }

    /// Asks for the rewards of some completions, by their indices.
    fn ask(&mut self, completions: &[Arc<Completion>], asked: &[usize], stop: &Stop) -> Round {
        let mut round = Round::default();
        let process = match self.process.take().map_or_else(|| self.launch.start(), Ok) {
            Ok(process) => process,
            Err(error) => return Round { fault: Some(error), ..round },
        };
        let first = self.next_id;
        self.next_id += asked.len() as u64;
        for (id, &index) in (first..).zip(asked) {
            process.write(completions[index].to_json(id));
        }
        let mut is_open = vec![true; asked.len()];
        let mut deadline = Instant::now() + self.launch.timeout;
        while is_open.contains(&true) {
            if stop.is_asked() {
                round.fault = Some(RewardError::stopped());
                return round;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match process.read(left.min(LOOK)) {
                Said::Line(line) => Line::read(&line),
                Said::Nothing if left.is_zero() => {
                    round.fault = Some(self.launch.late(process, "reward"));
                    return round;
                }
                Said::Nothing => continue,
                Said::TooLong(beginning) => Line::Rubbish(beginning),
                Said::End => {
                    round.fault = Some(self.launch.ended(process, "reward"));
                    return round;
                }
            };
            let (id, answer) = match line {
                Line::Empty => continue,
                Line::Reward(id, reward) => (id, Answer::Reward(reward)),
                Line::Failed(id, message) => (id, Answer::Failed(failed(&message, &process))),
                Line::Wrong(id, message) => {
                    (id, Answer::Wrong(RewardError::new(message).with_hint(FORM)))
                }
                Line::Rubbish(text) => {
                    let message =
                        format!("the program printed what is no reward: {}", readable(&text));
                    round.fault = Some(self.launch.broken(process, &message));
                    return round;
                }
            };
            let at = id.checked_sub(first).map(|at| at as usize).filter(|&at| at < asked.len());
            match at {
                Some(at) if is_open[at] => {
                    is_open[at] = false;
                    round.answers.push((asked[at], answer));
                    deadline = Instant::now() + self.launch.timeout;
                }
                at => {
                    let what = if at.is_some() || id < first {
                        "a second time"
                    } else {
                        "although there is none"
                    };
                    let message = format!("the program answered id {id} {what}");
                    round.fault = Some(self.launch.broken(process, &message));
                    return round;
                }
            }
        }
        self.process = Some(process);
        round
    }
}

fn failed(message: &str, process: &Process) -> RewardError {
    let errors = process.errors();
    RewardError::new(format!("the program could not score the answer: {message}{errors}"))
}

/// What a program has to print.
const FORM: &str = "its output is a line for each answer: {\"id\": ..., \"reward\": a number or null}; write everything \
    else to standard error";

impl RewardSource for Program {
    fn score(&mut self, completions: &[Arc<Completion>], stop: &Stop) -> Vec<Scored> {
        let mut batch = Batch::new(completions.len(), self.retries);
        let mut one_by_one = false;
        while let Some(asked) = batch.open(one_by_one) {
            if !pause(batch.failures[asked[0]], stop) {
                break;
            }
            let Round { answers, fault } = self.ask(completions, &asked, stop);
            if stop.is_asked() {
                break;
            }
            let answered = |at: &usize| answers.iter().any(|(own, _)| own == at);
            let unanswered = asked.iter().copied().find(|at| !answered(at));
            for (at, answer) in answers {
                match answer {
                    Answer::Reward(reward) => batch.scored[at] = Some(Ok(reward)),
                    // It would say the same again.
                    Answer::Wrong(error) => batch.give_up(at, error),
                    Answer::Failed(error) => {
                        one_by_one = true;
                        batch.fail(at, error);
                    }
                }
            }
            if let Some(error) = fault {
                one_by_one = true;
                // Of several, the one that the program failed at is not known yet.
                if let (Some(at), true) = (unanswered, asked.len() == 1 || self.retries == 0) {
                    batch.fail(at, error);
                }
            }
            // The run ends: nobody waits for the others.
            if batch.has_failed && self.stops_at_failure {
                break;
            }
        }
        let stopped =
            |scored: Option<Scored>| scored.unwrap_or_else(|| Err(RewardError::stopped()));
        batch.scored.into_iter().map(stopped).collect()
    }
}

/// Completions on the way to their rewards.
struct Batch {
    scored: Vec<Option<Scored>>,
    failures: Vec<u32>,
    retries: u32,
    /// Whether one of them failed for good.
    has_failed: bool,
}

impl Batch {
    fn new(len: usize, retries: u32) -> Self {
        Batch { scored: vec![None; len], failures: vec![0; len], retries, has_failed: false }
    }

    /// Those without a reward, or the first of them; none where all are done.
    fn open(&self, one: bool) -> Option<Vec<usize>> {
        let open = (0..self.scored.len()).filter(|&at| self.scored[at].is_none());
        let open: Vec<usize> = open.take(if one { 1 } else { usize::MAX }).collect();
        (!open.is_empty()).then_some(open)
    }

    /// Counts a failure, which is the last one if no retry is left.
    fn fail(&mut self, at: usize, error: RewardError) {
        self.failures[at] += 1;
        if self.failures[at] > self.retries {
            self.give_up(at, error);
        }
    }

    fn give_up(&mut self, at: usize, error: RewardError) {
        self.scored[at] = Some(Err(error));
        self.has_failed = true;
    }
}

/// Waits as long as so many failures ask for; false where the work was stopped meanwhile.
fn pause(failures: u32, stop: &Stop) -> bool {
    if failures > 0 {
        let end = Instant::now() + pause_after(failures);
        while Instant::now() < end && !stop.is_asked() {
            std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
        }
    }
    !stop.is_asked()
}
