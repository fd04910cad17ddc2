//! What is written: answers as they come, and at the end the rows in the order of the prompts.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use text::{Message, integer};
use train::run::write_atomic;

use super::config::DistillConfig;
use super::for_student;
use crate::asking::Answer;
use crate::asking::prompts::{self, Ask, Prompt, hash};
use crate::context::Context;
use crate::error::{Failure, Result};

/// What to do where answers exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupied {
    Refuse,
    Resume,
    Overwrite,
}

/// The output, and beside it the answers so far.
///
/// Each answer goes to `OUTPUT.partial` the moment it is there, since it may have been paid for.
pub(super) struct Files {
    partial: PathBuf,
    journal: File,
    /// Answers that were there before, by the hash of their prompt or, out of written rows, of
    /// its turns.
    before: HashMap<String, VecDeque<Answer>>,
    /// By ask.
    answers: Vec<Option<Answer>>,
}

/// The end in figures.
pub(super) struct Tally {
    pub(super) written: usize,
    pub(super) rejected: usize,
    /// Why, and how often.
    pub(super) flaws: BTreeMap<String, usize>,
}

impl Files {
    /// Refuses an output that is there, unless told otherwise.
    pub(super) fn open(
        config: &DistillConfig,
        occupied: Occupied,
        context: &Context,
    ) -> Result<Self> {
        let partial = partial(&config.output);
        let there = [&config.output, &partial].into_iter().find(|path| path.exists());
        if let (Some(path), Occupied::Refuse) = (there, occupied) {
            let message = format!("{}: already exists", context.environment.show(path));
            return Err(Failure::wrong("occupied", message)
                .at(path)
                .hint("`--resume` asks only for what is missing, `--overwrite` starts over"));
        }
        let head = json!({"distill": config.fingerprint()});
        let mut before = HashMap::new();
        if occupied == Occupied::Resume && partial.exists() {
            before = read_journal(&partial, &head)?;
        } else if occupied == Occupied::Resume {
            before = read_rows(config)?;
        }
        // What was read is written again, so that a line that was cut off does no harm.
        let mut text = format!("{head}\n");
        let mut hashes: Vec<&String> = before.keys().collect();
        hashes.sort_unstable();
        for hash in hashes {
            before[hash].iter().for_each(|answer| text.push_str(&line(hash, answer)));
        }
        write_atomic(&partial, text.as_bytes())?;
        let journal = OpenOptions::new().append(true).open(&partial);
        let journal = journal.map_err(|error| Failure::io(&partial, &error))?;
        Ok(Files { partial, journal, before, answers: Vec::new() })
    }

    /// Every prompt as often as it is to be answered, and which of them are.
    pub(super) fn match_up<'a>(
        &mut self,
        prompts: &'a [Prompt],
        samples: usize,
    ) -> (Vec<Ask<'a>>, Vec<usize>) {
        let asks = prompts::asks(prompts, samples);
        let before = &mut self.before;
        let mut known = |hash: &str| before.get_mut(hash)?.pop_front();
        let answer =
            |ask: &Ask<'_>| known(&ask.prompt.hash).or_else(|| known(&ask.prompt.turns_hash));
        self.answers = asks.iter().map(answer).collect();
        let kept = (0..asks.len()).filter(|&index| self.answers[index].is_some());
        let kept = kept.collect();
        (asks, kept)
    }

    /// The asks without an answer.
    pub(super) fn missing(&self) -> Vec<usize> {
        (0..self.answers.len()).filter(|&index| self.answers[index].is_none()).collect()
    }

    /// Number of answers.
    pub(super) fn kept(&self) -> usize {
        self.answers.iter().flatten().count()
    }

    /// Takes in an answer.
    pub(super) fn keep(&mut self, index: usize, ask: &Ask<'_>, answer: Answer) -> Result<()> {
        let written = self.journal.write_all(line(&ask.prompt.hash, &answer).as_bytes());
        written.map_err(|error| Failure::io(&self.partial, &error))?;
        self.answers[index] = Some(answer);
        Ok(())
    }

    /// Writes the rows, when every ask has its answer.
    pub(super) fn finish(self, asks: &[Ask<'_>], config: &DistillConfig) -> Result<Tally> {
        let (mut rows, mut rejected) = (String::new(), String::new());
        let mut tally = Tally { written: 0, rejected: 0, flaws: BTreeMap::new() };
        for (ask, answer) in asks.iter().zip(self.answers.iter().flatten()) {
            let mut messages = for_student(config, ask.prompt);
            if let Some(flaw) = answer.flaw() {
                let place = ask.prompt.place.to_string();
                let mut row = json!({
                    "messages": messages, "answer": answer.text, "flaw": flaw, "row": place,
                });
                add_rest(&mut row, ask.prompt);
                rejected.push_str(&row_line(&row));
                tally.rejected += 1;
                *tally.flaws.entry(flaw.to_owned()).or_default() += 1;
            } else {
                messages.push(Message::new("assistant", answer.text.as_str()));
                let mut row = json!({"messages": messages});
                add_rest(&mut row, ask.prompt);
                rows.push_str(&row_line(&row));
                tally.written += 1;
            }
        }
        match rejected.is_empty() {
            true => remove(&config.rejected())?,
            false => write_atomic(&config.rejected(), rejected.as_bytes())?,
        }
        write_atomic(&config.output, rows.as_bytes())?;
        remove(&self.partial)?;
        Ok(tally)
    }
}

/// Where answers go until all are there.
fn partial(output: &Path) -> PathBuf {
    let mut partial = output.as_os_str().to_owned();
    partial.push(".partial");
    partial.into()
}

/// A row as a line of JSON.
fn row_line(row: &Value) -> String {
    format!("{}\n", integer::plain(row.to_string()))
}

/// What a row has beside its turns: the tools that training shows, and what came with the prompt.
fn add_rest(row: &mut Value, prompt: &Prompt) {
    let columns = Some(&prompt.columns).filter(|columns| !columns.is_empty());
    let rest = [
        ("tools", prompt.tools.clone()),
        ("reference", prompt.reference.clone()),
        ("columns", columns.map(|columns| json!(columns))),
    ];
    for (name, value) in rest {
        if let Some(value) = value {
            row[name] = value;
        }
    }
}

fn line(hash: &str, answer: &Answer) -> String {
    let Answer { text, finish } = answer;
    format!("{}\n", json!({"prompt": hash, "answer": text, "finish": finish}))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io(path, &error))
        }
        _ => Ok(()),
    }
}

/// The answers of a command that was cut off, perhaps in the middle of its last line.
fn read_journal(path: &Path, head: &Value) -> Result<HashMap<String, VecDeque<Answer>>> {
    let text = fs::read(path).map_err(|error| Failure::io(path, &error))?;
    let mut lines = text.split(|&byte| byte == b'\n').map(serde_json::from_slice::<Value>);
    if !matches!(lines.next(), Some(Ok(first)) if first == *head) {
        let message = format!("{}: was begun with other settings", path.display());
        return Err(Failure::wrong("refused", message)
            .at(path)
            .hint("go back to them, or start over with `--overwrite`"));
    }
    let mut before: HashMap<String, VecDeque<Answer>> = HashMap::new();
    for line in lines.flatten() {
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        let parts = (text("prompt"), text("answer"), text("finish"));
        if let (Some(prompt), Some(text), Some(finish)) = parts {
            before.entry(prompt).or_default().push_back(Answer { text, finish });
        }
    }
    Ok(before)
}

/// The answers of a command that came to its end: its rows and those it rejected.
fn read_rows(config: &DistillConfig) -> Result<HashMap<String, VecDeque<Answer>>> {
    let mut before: HashMap<String, VecDeque<Answer>> = HashMap::new();
    for path in [&config.output, &config.rejected()] {
        // Of a command that got no target the output is empty.
        if fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0 {
            continue;
        }
        for row in data::source::read(path)? {
            let strange = || {
                Failure::new("data_rows", format!("{}: is not a row of `distill`", row.place))
                    .at(path)
                    .hint("name another `distill.output`, or start over with `--overwrite`")
            };
            let messages = row.value.get("messages").cloned().unwrap_or_default();
            let mut turns: Vec<Message> =
                serde_json::from_value(messages).map_err(|_| strange())?;
            turns.retain(|turn| turn.role != "system");
            let text = |name: &str| row.value.get(name).and_then(Value::as_str);
            let answer = match (text("answer"), text("flaw")) {
                // An empty answer ended well, and is told by its text.
                (Some(text), Some(flaw)) => {
                    let finish = if flaw == "empty" { "stop" } else { flaw };
                    Answer { text: text.to_owned(), finish: finish.to_owned() }
                }
                _ => {
                    let last = turns.pop().filter(|turn| turn.role == "assistant");
                    Answer { text: last.ok_or_else(strange)?.content, finish: "stop".into() }
                }
            };
            before.entry(hash(&turns)).or_default().push_back(answer);
        }
    }
    Ok(before)
}
