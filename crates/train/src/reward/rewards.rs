//! All rewards of a run, at work beside it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use data::Stop;

use super::grader::{self, Graded};
use super::program::Program;
use super::{
    Completion, OnRewardError, RewardError, RewardKind, RewardSettings, RewardSource, Scored,
};
use crate::{Error, Result};

/// How often a wait looks whether it is to go on.
const LOOK: Duration = Duration::from_millis(50);
/// So many failures of one reward without a success between them end a run that skips failures: it has nothing to
/// learn from any more.
pub(crate) const FAILURES_IN_A_ROW: usize = 100;

/// The reward functions of a run. Completions go in one by one, and come out with the rewards of all functions.
///
/// Every function has threads of its own, each of which takes what waits, at most
/// [`batch`](RewardSettings::batch). Rewards are those of the completion alone, so they do not depend on which thread
/// takes it and when. Dropping it ends the programs.
pub struct Rewards {
    functions: Vec<Function>,
    reports: Receiver<Report>,
    /// Completions that wait for a reward.
    open: BTreeMap<u64, Open>,
    /// Those that have all of them.
    done: BTreeMap<u64, Vec<Option<f64>>>,
    skipped: Vec<Skipped>,
    stop: Arc<AtomicBool>,
}

/// A completion that was left without one of its rewards, as [`OnRewardError::Skip`] wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The name of the reward.
    pub reward: String,
    /// The row of its prompt.
    pub place: String,
    /// Why.
    pub error: RewardError,
}

/// One function at work.
struct Function {
    settings: RewardSettings,
    /// Where completions go; none of a reward model, and at the end.
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
    failures: usize,
    failures_in_a_row: usize,
}

struct Open {
    completion: Arc<Completion>,
    rewards: Vec<Option<f64>>,
    /// Functions that have not answered.
    missing: usize,
}

struct Job {
    id: u64,
    completion: Arc<Completion>,
}

/// What a function gave a completion.
struct Report {
    function: usize,
    id: u64,
    scored: Scored,
}

impl Rewards {
    /// Makes graders and starts programs; fails where one cannot be started. `external` makes what is neither: the
    /// sources of [`RewardKind::Http`] and [`RewardKind::Judge`], once for each of
    /// [`concurrency`](RewardSettings::concurrency).
    pub fn open(
        settings: &[RewardSettings],
        external: &mut dyn FnMut(&RewardSettings) -> Result<Box<dyn RewardSource>>,
    ) -> Result<Self> {
        let (sender, reports) = mpsc::channel();
        let mut rewards = Rewards {
            functions: Vec::new(),
            reports,
            open: BTreeMap::new(),
            done: BTreeMap::new(),
            skipped: Vec::new(),
            stop: Arc::default(),
        };
        for (function, settings) in settings.iter().enumerate() {
            let count = if settings.is_model() { 0 } else { settings.concurrency };
            let mut source = || source(settings, external);
            let sources = (0..count).map(|_| source()).collect::<Result<Vec<_>>>()?;
            let started = rewards.start(function, settings, sources, &sender);
            rewards.functions.push(started);
        }
        Ok(rewards)
    }

    /// Starts a thread for each of a function's sources.
    fn start(
        &self,
        function: usize,
        settings: &RewardSettings,
        sources: Vec<Box<dyn RewardSource>>,
        reports: &Sender<Report>,
    ) -> Function {
        let (jobs, taken) = mpsc::channel();
        let jobs = (!sources.is_empty()).then_some(jobs);
        let taken = Arc::new(Mutex::new(taken));
        let work = |source| {
            let flag = Arc::clone(&self.stop);
            let worker = Worker {
                function,
                source,
                settings: settings.clone(),
                jobs: Arc::clone(&taken),
                reports: reports.clone(),
                stop: Stop::when(move || flag.load(Ordering::Relaxed)),
            };
            thread::spawn(move || worker.run())
        };
        let workers = sources.into_iter().map(work).collect();
        let settings = settings.clone();
        Function { settings, jobs, workers, failures: 0, failures_in_a_row: 0 }
    }

    /// The functions, in the order of their results.
    pub fn settings(&self) -> impl ExactSizeIterator<Item = &RewardSettings> {
        self.functions.iter().map(|function| &function.settings)
    }

    /// How often each function failed for good since the start, in the order of results.
    pub fn failures(&self) -> Vec<usize> {
        self.functions.iter().map(|function| function.failures).collect()
    }

    /// What was skipped since this was last asked.
    pub fn take_skipped(&mut self) -> Vec<Skipped> {
        std::mem::take(&mut self.skipped)
    }

    /// How many completions have not come out yet.
    pub fn pending(&self) -> usize {
        self.open.len() + self.done.len()
    }

    /// Hands a completion to all functions and returns at once. No id is open twice.
    ///
    /// Fails where a function has failed meanwhile and failures end the run.
    pub fn submit(&mut self, id: u64, completion: Completion) -> Result<()> {
        assert!(
            !self.open.contains_key(&id) && !self.done.contains_key(&id),
            "completion {id} is submitted twice"
        );
        let completion = Arc::new(completion);
        let mut missing = 0;
        for jobs in self.functions.iter().filter_map(|function| function.jobs.as_ref()) {
            let sent = jobs.send(Job { id, completion: Arc::clone(&completion) });
            assert!(sent.is_ok(), "a thread that gives rewards has ended");
            missing += 1;
        }
        let rewards = vec![None; self.functions.len()];
        match missing {
            0 => _ = self.done.insert(id, rewards),
            _ => _ = self.open.insert(id, Open { completion, rewards, missing }),
        }
        self.take_reports()
    }

    /// The completions that have all their rewards by now, in the order of ids, each once. A reward is none where the
    /// source has none to give, where it failed and failures are skipped, and where it is that of a reward model,
    /// which the caller computes ([`RewardSettings::is_model`]).
    ///
    /// Fails where a function has failed and failures end the run.
    pub fn finished(&mut self) -> Result<Vec<(u64, Vec<Option<f64>>)>> {
        self.take_reports()?;
        Ok(std::mem::take(&mut self.done).into_iter().collect())
    }

    /// As [`Rewards::finished`], once everything that was submitted is done, or soon after `go_on` says no; it is
    /// asked at least every 100 ms.
    pub fn wait(
        &mut self,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<(u64, Vec<Option<f64>>)>> {
        while !self.open.is_empty() && go_on() {
            match self.reports.recv_timeout(LOOK) {
                Ok(report) => self.take(report)?,
                Err(RecvTimeoutError::Timeout) => self.check_workers(),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the threads that give rewards have ended")
                }
            }
        }
        self.finished()
    }

    fn take_reports(&mut self) -> Result<()> {
        while let Ok(report) = self.reports.try_recv() {
            self.take(report)?;
        }
        Ok(())
    }

    fn take(&mut self, Report { function: index, id, scored }: Report) -> Result<()> {
        let open = self.open.get_mut(&id).expect("a report is of an open completion");
        let function = &mut self.functions[index];
        match scored {
            Ok(reward) => {
                open.rewards[index] = reward;
                function.failures_in_a_row = 0;
            }
            Err(error) => {
                function.failures += 1;
                function.failures_in_a_row += 1;
                let name = &function.settings.name;
                let place = &open.completion.asked.place;
                if function.settings.on_error == OnRewardError::Stop {
                    return Err(failed(name, place, error));
                }
                if function.failures_in_a_row == FAILURES_IN_A_ROW {
                    let message = format!(
                        "{} (and so did {FAILURES_IN_A_ROW} answers one after the other)",
                        error.message
                    );
                    return Err(failed(name, place, RewardError { message, ..error }));
                }
                let (reward, place) = (name.clone(), place.clone());
                self.skipped.push(Skipped { reward, place, error });
            }
        }
        open.missing -= 1;
        if open.missing == 0 {
            let open = self.open.remove(&id).expect("it is there");
            self.done.insert(id, open.rewards);
        }
        Ok(())
    }

    /// A thread that ended while it has work has panicked: its own message was printed.
    fn check_workers(&self) {
        let mut workers = self.functions.iter().flat_map(|function| &function.workers);
        assert!(!workers.any(JoinHandle::is_finished), "a thread that gives rewards has ended");
    }
}

impl Drop for Rewards {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.functions.iter_mut().for_each(|function| function.jobs = None);
        for function in &mut self.functions {
            // A request that is under way may take minutes, and nobody wants its answer.
            let is_waited_for = matches!(
                function.settings.kind,
                RewardKind::Command { .. } | RewardKind::Grader { .. }
            );
            for worker in function.workers.drain(..).filter(|_| is_waited_for) {
                // A panic has been told where it happened.
                worker.join().ok();
            }
        }
    }
}

/// A thread that gives the rewards of one source.
struct Worker {
    function: usize,
    source: Box<dyn RewardSource>,
    settings: RewardSettings,
    /// Shared by all threads of a function: who holds it takes a batch.
    jobs: Arc<Mutex<Receiver<Job>>>,
    reports: Sender<Report>,
    stop: Stop,
}

impl Worker {
    fn run(mut self) {
        while let Some(jobs) = self.take_batch() {
            let completions: Vec<Arc<Completion>> =
                jobs.iter().map(|job| Arc::clone(&job.completion)).collect();
            let scored = self.source.score(&completions, &self.stop);
            if self.stop.is_asked() {
                return;
            }
            assert_eq!(scored.len(), jobs.len(), "a source gives one reward for each completion");
            for (job, scored) in jobs.into_iter().zip(scored) {
                let scored = match scored {
                    Ok(Some(value)) => self.settings.checked(value).map(Some),
                    // Another completion has failed, which ends the run.
                    Err(error) if error == RewardError::stopped() => continue,
                    scored => scored,
                };
                // Nobody listening means that the run has ended.
                let _ = self.reports.send(Report { function: self.function, id: job.id, scored });
            }
        }
    }

    /// Waits for a job and takes those that wait behind it; none at the end.
    fn take_batch(&self) -> Option<Vec<Job>> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let first = jobs.recv().ok().filter(|_| !self.stop.is_asked())?;
        let more = jobs.try_iter().take(self.settings.batch - 1);
        Some(std::iter::once(first).chain(more).collect())
    }
}

/// What gives the rewards of a function on one thread.
fn source(
    settings: &RewardSettings,
    external: &mut dyn FnMut(&RewardSettings) -> Result<Box<dyn RewardSource>>,
) -> Result<Box<dyn RewardSource>> {
    match &settings.kind {
        RewardKind::Grader { name, options } => {
            let made = grader::make(name, options);
            let grader = made.map_err(|error| Error::Refused {
                message: format!("{}: {error}", settings.key),
                hint: error.hint().map(str::to_owned),
            })?;
            Ok(Box::new(Graded(grader)))
        }
        RewardKind::Command { command, folder } => {
            Ok(Box::new(Program::start(command, folder, settings)?))
        }
        RewardKind::Http(_) | RewardKind::Judge(_) => external(settings),
        RewardKind::Model(_) => unreachable!("a reward model has no source"),
    }
}

/// The error of a reward that could not be had.
pub(crate) fn failed(reward: &str, place: &str, error: RewardError) -> Error {
    let RewardError { message, hint } = error;
    Error::Reward { reward: reward.to_owned(), place: place.to_owned(), message, hint }
}
