//! A person chooses in the terminal: blind, one key a line, every choice on the disk at once.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::journal::{Choice, Chosen, Journal, now};
use super::pair::Pair;
use crate::context::Context;
use crate::error::Result;
use crate::signals::{Signals, StopSignal};
use crate::terminal::escape::escaped;
use crate::terminal::lines::read_lines;

/// What the draw of sides is for.
const SIDES: u64 = 0x7369_6465;
/// How often signals are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// How a session ended.
pub(super) enum End {
    /// Every pair has its choice.
    Done,
    /// The person left, or there is no more input.
    Quit,
    Signal(StopSignal),
}

/// A person in front of pairs.
pub(super) struct Person<'a> {
    pub(super) pairs: &'a [Pair<'a>],
    pub(super) rater: &'a str,
    pub(super) seed: u64,
    pub(super) context: &'a Context,
    pub(super) signals: &'a Signals,
}

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Key {
    A,
    B,
    Tie,
    Skip,
    Undo,
    Quit,
    Unknown,
}

impl Person<'_> {
    /// Asks for every pair that this rater has not chosen yet.
    pub(super) fn choose(&self, journal: &mut Journal) -> Result<End> {
        let lines = read_lines();
        let mut again = None;
        loop {
            let index = again.take().or_else(|| self.next(journal));
            let (key, seconds) = match self.ask(index, &lines)? {
                Ok(answered) => answered,
                Err(End::Quit) if index.is_none() => return Ok(End::Done),
                Err(end) => return Ok(end),
            };
            match (key, index) {
                (Key::Undo, _) => match self.undo(journal)? {
                    Some(index) => {
                        self.say("taken back");
                        again = Some(index);
                    }
                    None => {
                        self.say("there is no choice to take back");
                        again = index;
                    }
                },
                (_, None) => return Ok(End::Done),
                (Key::Quit, _) => return Ok(End::Quit),
                (key, Some(index)) => self.keep(&self.pairs[index], key, seconds, journal)?,
            }
        }
    }

    /// The first pair without a choice of this rater.
    fn next(&self, journal: &Journal) -> Option<usize> {
        let done = journal.chosen_by(self.rater);
        self.pairs.iter().position(|pair| !done.contains(pair.id.as_str()))
    }

    /// Takes back the last choice of a pair that is shown. Choices of other pairs, of an earlier command, stay.
    fn undo(&self, journal: &mut Journal) -> Result<Option<usize>> {
        let index = |id: &str| self.pairs.iter().position(|pair| pair.id == id);
        let undone = journal.undo(self.rater, |id| index(id).is_some())?;
        Ok(undone.and_then(|id| index(&id)))
    }

    /// Whether the second answer is shown as A: a draw by pair and rater.
    fn is_swapped(&self, pair: &Pair<'_>) -> bool {
        let rater = Sha256::digest(self.rater);
        let rater = u64::from_le_bytes(rater[..8].try_into().expect("eight bytes"));
        data::random::key(&[SIDES, self.seed, pair.key(), rater]) & 1 == 1
    }

    fn keep(&self, pair: &Pair<'_>, key: Key, seconds: f64, journal: &mut Journal) -> Result<()> {
        let (a, b) = match self.is_swapped(pair) {
            true => (Choice::Second, Choice::First),
            false => (Choice::First, Choice::Second),
        };
        let choice = match key {
            Key::A => a,
            Key::B => b,
            Key::Tie => Choice::Tie,
            _ => Choice::Skip,
        };
        journal.keep_choice(Chosen {
            pair: pair.id.clone(),
            rater: self.rater.to_owned(),
            choice,
            shown_as_a: a,
            seconds: (seconds * 10.0).round() / 10.0,
            at: now(),
        })
    }

    /// Shows a pair, or that none is left, and waits for a key. Returns it with the seconds it took.
    fn ask(
        &self,
        index: Option<usize>,
        lines: &Receiver<String>,
    ) -> Result<std::result::Result<(Key, f64), End>> {
        match index {
            Some(index) => self.show(index),
            None => self.say("every pair has a choice; u takes the last one back, enter ends"),
        }
        let begun = Instant::now();
        loop {
            self.context.terminal.written()?;
            if self.context.environment.stdin_is_terminal && !self.context.terminal.is_json() {
                self.context.terminal.prompt("> ");
            }
            let line = match self.next_line(lines) {
                Ok(line) => line,
                Err(end) => return Ok(Err(end)),
            };
            match key(&line) {
                Key::Unknown if index.is_some() => {
                    let line = escaped(line.trim()).into_owned();
                    self.say(&format!(
                        "`{line}` is no key: a, b, t (tie), s (skip), u (undo), q (quit)"
                    ));
                }
                key => return Ok(Ok((key, begun.elapsed().as_secs_f64()))),
            }
        }
    }

    fn next_line(&self, lines: &Receiver<String>) -> std::result::Result<String, End> {
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => return Err(End::Quit),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(asked) = self.signals.asked() {
                return Err(End::Signal(asked));
            }
        }
    }

    fn show(&self, index: usize) {
        let style = self.context.terminal.style;
        let pair = &self.pairs[index];
        self.say("");
        self.say(&style.bold(&format!("pair {} of {}", index + 1, self.pairs.len())));
        let tools = pair.prompt.tool_lines();
        if !tools.is_empty() {
            self.say(&style.dim("tools"));
            tools.iter().for_each(|tool| self.say(&escaped(tool)));
        }
        for turn in pair.prompt.turns() {
            self.say(&style.dim(&escaped(&turn.role)));
            self.say(&escaped(&turn.content));
        }
        let (mut a, mut b) = (&pair.first.text, &pair.second.text);
        if self.is_swapped(pair) {
            std::mem::swap(&mut a, &mut b);
        }
        for (name, text) in [("A", a), ("B", b)] {
            self.say(&style.cyan(name));
            self.say(&escaped(text));
        }
        self.say(&style.dim("a or b is better; t tie, s skip, u undo, q quit"));
    }

    fn say(&self, line: &str) {
        self.context.terminal.say(line);
    }
}

fn key(line: &str) -> Key {
    match line.trim().to_lowercase().as_str() {
        "a" => Key::A,
        "b" => Key::B,
        "t" => Key::Tie,
        "s" => Key::Skip,
        "u" => Key::Undo,
        "q" => Key::Quit,
        _ => Key::Unknown,
    }
}
