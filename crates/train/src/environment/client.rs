//! The program of a run's environment, and the episodes that it plays.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::protocol::{Began, Line, Opening, Reply, close_line, step_line};
use super::settings::FORM;
use super::{EnvironmentSettings, REWARD};
use crate::Result;
use crate::program::{Process, Said, pause_after, readable};
use crate::reward::{FAILURES_IN_A_ROW, OnRewardError, RewardError, Skipped, failed};

/// Episodes of one program. A caller names each by a number of its own, asks, and [`polls`](Environment::poll).
///
/// A program that died, hung or broke the protocol is started again, and episodes that said that they are deterministic
/// are played again up to where they were when they next have something to ask. After such a failure one episode
/// at a time is asked, until it is known which one the program fails at.
pub(crate) struct Environment {
    settings: EnvironmentSettings,
    process: Option<Process>,
    episodes: BTreeMap<u64, Episode>,
    /// Which episode an id of the running program is.
    ids: BTreeMap<u64, u64>,
    next_id: u64,
    /// Episodes that have something to ask, in the order in which they are asked.
    queue: VecDeque<u64>,
    /// Episodes that were asked when the program failed.
    suspects: BTreeSet<u64>,
    /// When the program last said something, or was asked while nothing else was.
    heard: Instant,
    /// When it may be started again.
    not_before: Option<Instant>,
    told: VecDeque<(u64, Told)>,
    skipped: Vec<Skipped>,
    /// Rows of episodes that were not as deterministic as the program had said.
    differing: Vec<String>,
    failures_in_a_row: usize,
    /// How often the program failed since an episode came to its end.
    faults_in_a_row: usize,
}

/// So often may the program fail before an episode comes to its end.
const FAULTS_IN_A_ROW: usize = 20;

/// What came of an episode's question.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// It has begun.
    Began(Began),
    /// What the environment says about its last answer.
    Replied(Reply),
    /// The program has forgotten it, and cannot be brought back to where it was: it begins anew.
    Lost,
    /// It has failed for good, and goes without its reward. The run is to go on.
    Failed,
}

struct Episode {
    opening: Opening,
    began: Option<Began>,
    /// Answers with their replies.
    turns: Vec<(String, Reply)>,
    /// Its id in the running program; none where the program does not know it.
    id: Option<u64>,
    /// How many of the turns the program has seen; none before it has answered that the episode begins.
    seen: Option<usize>,
    /// What it has to ask; none where it waits for its policy.
    asks: Option<Ask>,
    /// Whether it was asked and the reply is still to come.
    waits: bool,
    failures: u32,
}

#[derive(Clone, Debug)]
enum Ask {
    Start,
    Step(String),
}

impl Environment {
    /// Starts the program; fails where there is none.
    pub(crate) fn open(settings: EnvironmentSettings) -> Result<Self> {
        let process = Some(settings.launch.start_first()?);
        Ok(Environment {
            settings,
            process,
            episodes: BTreeMap::new(),
            ids: BTreeMap::new(),
            next_id: 0,
            queue: VecDeque::new(),
            suspects: BTreeSet::new(),
            heard: Instant::now(),
            not_before: None,
            told: VecDeque::new(),
            skipped: Vec::new(),
            differing: Vec::new(),
            failures_in_a_row: 0,
            faults_in_a_row: 0,
        })
    }

    pub(crate) fn settings(&self) -> &EnvironmentSettings {
        &self.settings
    }

    /// Adds an episode. With `began`, it has been played up to the end of `turns` before; otherwise it begins.
    pub(crate) fn add(
        &mut self,
        key: u64,
        opening: Opening,
        began: Option<Began>,
        turns: Vec<(String, Reply)>,
    ) {
        let asks = began.is_none().then_some(Ask::Start);
        let is_new = asks.is_some();
        let episode = Episode {
            opening,
            began,
            turns,
            id: None,
            seen: None,
            asks,
            waits: false,
            failures: 0,
        };
        let old = self.episodes.insert(key, episode);
        assert!(old.is_none(), "episode {key} is added twice");
        if is_new {
            self.queue.push_back(key);
        }
    }

    /// Begins an episode that was [lost](Told::Lost) again.
    pub(crate) fn begin(&mut self, key: u64) {
        let episode = self.episodes.get_mut(&key).expect("an episode that was added");
        episode.asks = Some(Ask::Start);
        self.queue.push_back(key);
    }

    /// Hands over an answer.
    pub(crate) fn step(&mut self, key: u64, answer: String) {
        let episode = self.episodes.get_mut(&key).expect("an episode that was added");
        assert!(episode.asks.is_none(), "one answer at a time");
        episode.asks = Some(Ask::Step(answer));
        self.queue.push_back(key);
    }

    /// Ends an episode.
    pub(crate) fn close(&mut self, key: u64) {
        let episode = self.episodes.remove(&key).expect("an episode that was added");
        self.faults_in_a_row = 0;
        self.queue.retain(|other| *other != key);
        self.suspects.remove(&key);
        self.detach(episode.id);
    }

    /// Ends all of them: the run stops, or has failed. What the program still has to say is not waited for.
    pub(crate) fn close_all(&mut self) {
        if self.episodes.values().any(|episode| episode.waits) {
            self.process = None;
            self.ids.clear();
        }
        let keys: Vec<u64> = self.episodes.keys().copied().collect();
        keys.into_iter().for_each(|key| self.close(key));
        self.told.clear();
    }

    /// Episodes that go without their reward, since this was last asked.
    pub(crate) fn take_skipped(&mut self) -> Vec<Skipped> {
        std::mem::take(&mut self.skipped)
    }

    /// Rows of episodes that began anew because the program said something else when they were played again, since this
    /// was last asked.
    pub(crate) fn take_differing(&mut self) -> Vec<String> {
        std::mem::take(&mut self.differing)
    }

    /// What there is to tell, waiting for at most so long. Fails where an episode has failed and failures end the run.
    pub(crate) fn poll(&mut self, wait: Duration) -> Result<Vec<(u64, Told)>> {
        self.ask()?;
        let mut left = wait;
        while let Some(process) = &self.process {
            let said = process.read(if self.told.is_empty() { left } else { Duration::ZERO });
            left = Duration::ZERO;
            match said {
                Said::Line(line) => {
                    self.heard = Instant::now();
                    self.take(Line::read(&line))?;
                }
                Said::TooLong(beginning) => self.take(Line::Rubbish(beginning))?,
                Said::Nothing => break,
                Said::End => {
                    self.fail_at(|settings, process| settings.launch.ended(process, "line"))?;
                }
            }
            self.ask()?;
        }
        if self.process.is_none() && !left.is_zero() && self.told.is_empty() {
            // It is not yet time to start it again.
            std::thread::sleep(left);
        }
        let is_asked = self.episodes.values().any(|episode| episode.waits);
        if is_asked && self.heard.elapsed() >= self.settings.launch.timeout {
            self.fail_at(|settings, process| settings.launch.late(process, "line"))?;
        }
        Ok(self.told.drain(..).collect())
    }

    /// Asks what is to be asked, as far as that may be done now.
    fn ask(&mut self) -> Result<()> {
        while let Some(&key) = self.queue.front() {
            let waiting = self.episodes.values().any(|episode| episode.waits);
            if (waiting && !self.suspects.is_empty())
                || self.not_before.is_some_and(|time| Instant::now() < time)
            {
                return Ok(());
            }
            if self.process.is_none() {
                match self.settings.launch.start() {
                    Ok(process) => self.process = Some(process),
                    Err(error) => {
                        self.queue.pop_front();
                        self.fail(key, error)?;
                        continue;
                    }
                }
            }
            self.not_before = None;
            self.queue.pop_front();
            self.send(key, waiting);
        }
        Ok(())
    }

    /// Writes what an episode has to ask, or what brings the program to where it was.
    fn send(&mut self, key: u64, waiting: bool) {
        let process = self.process.as_ref().expect("it was started");
        let episode = self.episodes.get_mut(&key).expect("who asks is there");
        let line = match (episode.id, &episode.asks) {
            (None, _) if episode.began.as_ref().is_some_and(|began| !began.deterministic) => {
                episode.forget();
                self.suspects.remove(&key);
                self.told.push_back((key, Told::Lost));
                return;
            }
            (None, _) => {
                let id = self.next_id;
                self.next_id += 1;
                self.ids.insert(id, key);
                (episode.id, episode.seen) = (Some(id), None);
                episode.opening.line(id)
            }
            (Some(id), asks) => {
                let seen = episode.seen.expect("the program has answered that it begins");
                match (episode.turns.get(seen), asks) {
                    (Some((answer, _)), _) | (None, Some(Ask::Step(answer))) => {
                        step_line(id, seen + 1, answer)
                    }
                    _ => unreachable!("an episode in the queue has something to ask"),
                }
            }
        };
        if !waiting {
            self.heard = Instant::now();
        }
        process.write(line);
        episode.waits = true;
    }

    /// Takes a line of the program.
    fn take(&mut self, line: Line) -> Result<()> {
        let broken = |message: String| {
            move |settings: &EnvironmentSettings, process| settings.launch.broken(process, &message)
        };
        let (id, answer) = match line {
            Line::Empty => return Ok(()),
            Line::Answer(id, value) => (id, Ok(value)),
            Line::Failed(id, message) => (id, Err(message)),
            Line::Rubbish(text) => {
                let message =
                    format!("the program printed what belongs to no episode: {}", readable(&text));
                return self.fail_at(broken(message));
            }
        };
        let key = self.ids.get(&id).copied();
        let asked = key.filter(|key| self.episodes[key].waits);
        let Some(key) = asked else {
            // Of an episode that was closed meanwhile nothing is wanted.
            if key.is_none() && id < self.next_id {
                return Ok(());
            }
            let message = format!("the program answered id {id}, which was not asked");
            return self.fail_at(broken(message));
        };
        let episode = self.episodes.get_mut(&key).expect("it was just found");
        episode.waits = false;
        match answer {
            Ok(value) => match episode.take(&value) {
                Ok(Taken::Told(told)) => {
                    self.suspects.remove(&key);
                    self.failures_in_a_row = 0;
                    self.told.push_back((key, told));
                    Ok(())
                }
                Ok(Taken::Again) => {
                    self.queue.push_front(key);
                    Ok(())
                }
                Ok(Taken::Differs) => {
                    episode.forget();
                    self.differing.push(episode.opening.place.clone());
                    let message = "the program says that the episode is deterministic, and said something else when it \
                        was played again";
                    let hint =
                        "leave `deterministic` out, or let all that is random follow from `seed`";
                    self.fail(key, RewardError::new(message).with_hint(hint))
                }
                Err(message) => self.fail(key, RewardError::new(message).with_hint(FORM)),
            },
            Err(message) => {
                let process = self.process.as_ref();
                let errors = process.map_or(String::new(), Process::errors);
                let message =
                    format!("the program could not go on with the episode: {message}{errors}");
                self.fail(key, RewardError::new(message))
            }
        }
    }

    /// The program has failed, and `error` ends it and says how.
    fn fail_at(
        &mut self,
        error: impl FnOnce(&EnvironmentSettings, Process) -> RewardError,
    ) -> Result<()> {
        let process = self.process.take().expect("a program that runs");
        let error = error(&self.settings, process);
        self.faults_in_a_row += 1;
        self.ids.clear();
        let mut waiting = Vec::new();
        for (&key, episode) in &mut self.episodes {
            episode.id = None;
            if std::mem::take(&mut episode.waits) {
                waiting.push(key);
            }
        }
        match waiting[..] {
            [key] => self.fail(key, error)?,
            _ if self.faults_in_a_row > FAULTS_IN_A_ROW => {
                let place = waiting.first().map(|key| &*self.episodes[key].opening.place);
                return Err(failed(REWARD, place.unwrap_or("between two turns"), error));
            }
            // Of several, the one that it failed at is not known yet.
            _ => {
                for key in waiting.into_iter().rev() {
                    self.suspects.insert(key);
                    self.queue.push_front(key);
                }
                self.not_before = Some(Instant::now() + pause_after(1));
            }
        }
        Ok(())
    }

    /// An episode has failed: it is tried again, or has failed for good.
    fn fail(&mut self, key: u64, error: RewardError) -> Result<()> {
        let episode = self.episodes.get_mut(&key).expect("who has asked is there");
        let (id, failures) = (episode.id.take(), episode.failures + 1);
        (episode.failures, episode.waits) = (failures, false);
        let episode_is_forgotten = episode.asks.is_none();
        self.detach(id);
        if failures <= self.settings.retries {
            if episode_is_forgotten {
                self.suspects.remove(&key);
                self.told.push_back((key, Told::Lost));
                return Ok(());
            }
            self.suspects.insert(key);
            self.queue.push_front(key);
            self.not_before = Some(Instant::now() + pause_after(failures));
            return Ok(());
        }
        self.give_up(key, error)
    }

    /// An episode has failed for good: the run ends, or goes on without its reward.
    pub(crate) fn give_up(&mut self, key: u64, error: RewardError) -> Result<()> {
        let place = self.episodes[&key].opening.place.clone();
        self.suspects.remove(&key);
        self.failures_in_a_row += 1;
        if self.settings.on_error == OnRewardError::Stop {
            return Err(failed(REWARD, &place, error));
        }
        if self.failures_in_a_row == FAILURES_IN_A_ROW {
            let message = format!(
                "{} (and so did {FAILURES_IN_A_ROW} episodes one after the other)",
                error.message
            );
            return Err(failed(REWARD, &place, RewardError { message, ..error }));
        }
        self.skipped.push(Skipped { reward: REWARD.into(), place, error });
        self.told.push_back((key, Told::Failed));
        Ok(())
    }

    /// Lets the program forget an id.
    fn detach(&mut self, id: Option<u64>) {
        let known = id.filter(|id| self.ids.remove(id).is_some());
        if let (Some(id), Some(process)) = (known, &self.process) {
            process.write(close_line(id));
        }
    }
}

/// What an answer of the program was for.
enum Taken {
    /// What was asked.
    Told(Told),
    /// A turn that was played before.
    Again,
    /// It is another than before.
    Differs,
}

impl Episode {
    /// Takes the program's answer to what it was last asked, or says what is wrong with it.
    fn take(&mut self, value: &Value) -> std::result::Result<Taken, String> {
        let Some(seen) = self.seen else {
            let began = Began::read(value)?;
            self.seen = Some(0);
            return Ok(match &self.began {
                Some(known) if *known == began => Taken::Again,
                Some(_) => Taken::Differs,
                None => {
                    self.asks = None;
                    self.began = Some(began.clone());
                    Taken::Told(Told::Began(began))
                }
            });
        };
        let reply = Reply::read(value)?;
        self.seen = Some(seen + 1);
        if let Some((_, known)) = self.turns.get(seen) {
            return Ok(if *known == reply { Taken::Again } else { Taken::Differs });
        }
        let Some(Ask::Step(answer)) = self.asks.take() else {
            unreachable!("a reply is to an answer")
        };
        self.turns.push((answer, reply.clone()));
        Ok(Taken::Told(Told::Replied(reply)))
    }

    /// Is as if it had never begun.
    fn forget(&mut self) {
        (self.began, self.asks, self.seen) = (None, None, None);
        self.turns.clear();
    }
}
