//! The journal: every answer and every choice, appended the moment it is there.
//!
//! An answer may have been paid for, and a choice has cost a person time, so a line is on the disk before
//! the next one is asked for. The output is always written from the journal.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use text::Date;

use crate::asking::Answer;
use crate::error::{Failure, Result};

/// What was chosen. First and second are the pair's own, whichever was shown as A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Choice {
    First,
    Second,
    Tie,
    Skip,
}

/// A choice, who made it and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Chosen {
    pub(super) pair: String,
    pub(super) rater: String,
    pub(super) choice: Choice,
    /// The answer that was shown as A: `first` or `second`.
    pub(super) shown_as_a: Choice,
    /// How long it took.
    pub(super) seconds: f64,
    /// UTC, such as `2026-03-01T12:00:00Z`.
    pub(super) at: String,
}

/// What a judge named when the answers stood in one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mark {
    A,
    B,
    #[serde(rename = "tie")]
    Tie,
}

/// One reply of a judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Verdict {
    pub(super) pair: String,
    pub(super) rater: String,
    /// The answer that was shown as A: `first` or `second`.
    pub(super) shown_as_a: Choice,
    /// None where the reply names no answer.
    pub(super) mark: Option<Mark>,
    /// The whole reply.
    pub(super) said: String,
    pub(super) at: String,
}

/// A line behind the head.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Answer { prompt: String, sample: usize, text: String, finish: String },
    Choice(Chosen),
    Undo { pair: String, rater: String, at: String },
    Verdict(Verdict),
}

/// What to do where a journal or an output exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupied {
    Refuse,
    Resume,
    Overwrite,
}

/// The journal of an output, open for more.
pub(super) struct Journal {
    path: PathBuf,
    /// None until there is something to keep.
    file: Option<File>,
    head: Value,
    answers: HashMap<(String, usize), Answer>,
    /// By rater, in the order in which they were made; those taken back are gone.
    choices: BTreeMap<String, Vec<Chosen>>,
    verdicts: Vec<Verdict>,
}

impl Journal {
    /// Reads a journal, or begins one with its first line. `fingerprint` says what its answers come from.
    pub(super) fn open(path: &Path, fingerprint: &str, occupied: Occupied) -> Result<Self> {
        let mut journal = Journal {
            path: path.to_owned(),
            file: None,
            head: json!({"pairs": fingerprint}),
            answers: HashMap::new(),
            choices: BTreeMap::new(),
            verdicts: Vec::new(),
        };
        if occupied == Occupied::Resume && path.exists() {
            journal.read()?;
        }
        Ok(journal)
    }

    /// Makes the file with its head, over one that is there, unless it is open.
    pub(super) fn begin(&mut self) -> Result<()> {
        if self.file.is_none() {
            let file = File::create(&self.path).map_err(|error| self.io(&error))?;
            self.file = Some(file);
            let head = self.head.clone();
            self.append(&head)?;
        }
        Ok(())
    }

    /// Takes in what is there. A last line that was cut off is cut away.
    fn read(&mut self) -> Result<()> {
        let mut text = fs::read(&self.path).map_err(|error| self.io(&error))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if whole == 0 {
            return Ok(());
        }
        let is_cut = whole < text.len();
        text.truncate(whole);
        let lines = text.split(|&byte| byte == b'\n').enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
            if number == 0 {
                let first = serde_json::from_slice::<Value>(line).unwrap_or_default();
                self.check_head(&first)?;
                continue;
            }
            let line = serde_json::from_slice(line).map_err(|error| {
                let place = format!("{}:{}", self.path.display(), number + 1);
                let failure = Failure::new("data_format", format!("{place}: {error}"));
                Failure { line: Some(number + 1), ..failure.at(&self.path) }
                    .hint("remove the line, or start over with `--overwrite`")
            })?;
            self.take_in(line);
        }
        let file = OpenOptions::new().append(true).open(&self.path);
        let file = file.map_err(|error| self.io(&error))?;
        if is_cut {
            file.set_len(whole as u64).map_err(|error| self.io(&error))?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn check_head(&self, first: &Value) -> Result<()> {
        let refused = |what: &str, hint: &str| {
            let message = format!("{}: {what}", self.path.display());
            Err(Failure::wrong("refused", message).at(&self.path).hint(hint))
        };
        match first {
            first if *first == self.head => Ok(()),
            first if first["pairs"].is_string() => refused(
                "was begun with answers from elsewhere",
                "go back to the `pairs.candidates` and `seed` of then, name another \
                 `pairs.output`, or start over with `--overwrite`",
            ),
            _ => refused("is not a journal of `pairs`", "name another `pairs.output`"),
        }
    }

    fn take_in(&mut self, line: Line) {
        match line {
            Line::Answer { prompt, sample, text, finish } => {
                self.answers.insert((prompt, sample), Answer { text, finish });
            }
            Line::Choice(chosen) => {
                self.choices.entry(chosen.rater.clone()).or_default().push(chosen);
            }
            Line::Undo { pair, rater, .. } => {
                let choices = self.choices.entry(rater).or_default();
                if let Some(at) = choices.iter().rposition(|chosen| chosen.pair == pair) {
                    choices.remove(at);
                }
            }
            Line::Verdict(verdict) => self.verdicts.push(verdict),
        }
    }

    /// The answer to a prompt, if it is there.
    pub(super) fn answer(&self, prompt: &str, sample: usize) -> Option<&Answer> {
        self.answers.get(&(prompt.to_owned(), sample))
    }

    pub(super) fn keep_answer(
        &mut self,
        prompt: &str,
        sample: usize,
        answer: Answer,
    ) -> Result<()> {
        let Answer { text, finish } = answer;
        self.keep(Line::Answer { prompt: prompt.to_owned(), sample, text, finish })
    }

    /// The choices of all raters but those of judges, which are made of verdicts.
    pub(super) fn choices(&self) -> &BTreeMap<String, Vec<Chosen>> {
        &self.choices
    }

    pub(super) fn choices_of(&self, rater: &str) -> &[Chosen] {
        self.choices.get(rater).map_or(&[], Vec::as_slice)
    }

    /// The pairs that a rater has chosen.
    pub(super) fn chosen_by(&self, rater: &str) -> HashSet<&str> {
        self.choices_of(rater).iter().map(|chosen| chosen.pair.as_str()).collect()
    }

    pub(super) fn keep_choice(&mut self, chosen: Chosen) -> Result<()> {
        self.keep(Line::Choice(chosen))
    }

    /// Takes back the last choice of a rater among some pairs. Returns its pair.
    pub(super) fn undo(
        &mut self,
        rater: &str,
        is_among: impl Fn(&str) -> bool,
    ) -> Result<Option<String>> {
        let own = self.choices_of(rater).iter();
        let Some(last) = own.rev().find(|chosen| is_among(&chosen.pair)) else { return Ok(None) };
        let pair = last.pair.clone();
        self.keep(Line::Undo { pair: pair.clone(), rater: rater.to_owned(), at: now() })?;
        Ok(Some(pair))
    }

    /// The replies of all judges, in their order.
    pub(super) fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    pub(super) fn keep_verdict(&mut self, verdict: Verdict) -> Result<()> {
        self.keep(Line::Verdict(verdict))
    }

    /// Whether nothing has been kept yet.
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.choices.is_empty() && self.verdicts.is_empty()
    }

    fn keep(&mut self, line: Line) -> Result<()> {
        self.begin()?;
        self.append(&serde_json::to_value(&line).expect("a line is JSON"))?;
        self.take_in(line);
        Ok(())
    }

    fn append(&mut self, line: &Value) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = file.write_all(format!("{line}\n").as_bytes());
        written.and_then(|()| file.sync_data()).map_err(|error| self.io(&error))
    }

    fn io(&self, error: &std::io::Error) -> Failure {
        Failure::io(&self.path, error)
    }
}

/// The time (UTC).
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    utc(since.map_or(0, |since| since.as_secs()))
}

fn utc(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{}T{hours:02}:{minutes:02}:{:02}Z", Date::from_unix(seconds), seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(pair: &str, choice: Choice) -> Chosen {
        let (rater, at) = ("ana".to_owned(), now());
        Chosen { pair: pair.into(), rater, choice, shown_as_a: Choice::First, seconds: 1.5, at }
    }

    #[test]
    fn what_is_appended_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.journal.jsonl");
        let mut journal = Journal::open(&path, "x", Occupied::Refuse).unwrap();
        let answer = Answer { text: "hello".into(), finish: "stop".into() };
        journal.keep_answer("h", 1, answer.clone()).unwrap();
        for (pair, choice) in [("a", Choice::First), ("b", Choice::Tie), ("c", Choice::Skip)] {
            journal.keep_choice(chosen(pair, choice)).unwrap();
        }
        journal.keep_choice(chosen("elsewhere", Choice::Second)).unwrap();
        let is_shown = |pair: &str| pair != "elsewhere";
        assert_eq!(journal.undo("ana", is_shown).unwrap().as_deref(), Some("c"));
        assert_eq!(journal.undo("bob", is_shown).unwrap(), None);
        let verdict = Verdict {
            pair: "a".into(),
            rater: "judge:x".into(),
            shown_as_a: Choice::Second,
            mark: Some(Mark::Tie),
            said: "tie".into(),
            at: now(),
        };
        journal.keep_verdict(verdict.clone()).unwrap();

        // A kill in the middle of a line.
        fs::write(&path, [fs::read(&path).unwrap(), b"{\"choi".to_vec()].concat()).unwrap();
        for _ in 0..2 {
            let journal = Journal::open(&path, "x", Occupied::Resume).unwrap();
            assert_eq!(journal.answer("h", 1), Some(&answer));
            assert_eq!(journal.answer("h", 0), None);
            let choices: Vec<Choice> =
                journal.choices_of("ana").iter().map(|chosen| chosen.choice).collect();
            assert_eq!(choices, [Choice::First, Choice::Tie, Choice::Second]);
            assert_eq!(journal.verdicts(), std::slice::from_ref(&verdict));
        }
    }

    #[test]
    fn another_journal_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.journal.jsonl");
        let refusal = |text: &str| {
            fs::write(&path, text).unwrap();
            Journal::open(&path, "x", Occupied::Resume).err().map(|failure| failure.message)
        };
        let name = path.display();
        let expected = format!("{name}: was begun with answers from elsewhere");
        assert_eq!(refusal("{\"pairs\": \"y\"}\n"), Some(expected));
        assert_eq!(refusal("{}\n"), Some(format!("{name}: is not a journal of `pairs`")));
        let message = refusal("{\"pairs\":\"x\"}\n{\"what\":1}\n").unwrap();
        assert!(message.starts_with(&format!("{name}:2: unknown variant `what`")), "{message}");
        assert_eq!(refusal("{\"pairs\":\"x\"}\n"), None);
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(utc(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
