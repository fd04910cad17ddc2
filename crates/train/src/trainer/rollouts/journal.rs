//! What was sampled and how it was rewarded, on disk before it is learned from.
//!
//! One file a rollout, `rollouts/000012.jsonl`: its first line says which policy sampled, each further line is an answer
//! or what the reward functions said about one. A run that goes on takes from here what it would compute again (answers)
//! and what the world outside said (rewards); a last line that a kill cut short is left out.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Answer;
use super::episodes::{Note, Transcript};
use super::sampling::Drawn;
use crate::environment::{Began, Reply};
use crate::{Error, Result};

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
enum Line {
    /// The first one.
    Rollout { number: u64, policy: String },
    /// An answer without rewards.
    Answer(Answer),
    /// An episode began, and what the environment said.
    Began { prompt: usize, number: usize, began: Began },
    /// The policy's next answer in it.
    Drew { prompt: usize, number: usize, drawn: Drawn },
    /// What the environment said about that.
    Replied { prompt: usize, number: usize, reply: Reply },
    /// The episode begins again.
    Anew { prompt: usize, number: usize },
    /// What the reward functions gave for an answer, in their order.
    Rewards { prompt: usize, number: usize, rewards: Vec<Option<f64>> },
    /// What the value head gave before each of its tokens.
    Values { prompt: usize, number: usize, values: Vec<f32> },
}

/// What a file holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) answers: Vec<Answer>,
    /// Episodes that had not come to their ends, by prompt and number.
    pub(super) episodes: BTreeMap<(usize, usize), Transcript>,
}

impl Known {
    /// The answer of a number to a prompt of a number.
    pub(super) fn take(&mut self, prompt: usize, number: usize) -> Option<Answer> {
        let is_it = |answer: &Answer| (answer.prompt, answer.number) == (prompt, number);
        let index = self.answers.iter().position(is_it)?;
        Some(self.answers.swap_remove(index))
    }

    /// What is known of the episode of a number to a prompt of a number.
    pub(super) fn take_episode(&mut self, prompt: usize, number: usize) -> Transcript {
        self.episodes.remove(&(prompt, number)).unwrap_or_default()
    }
}

/// The file of a rollout.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// The file of a rollout of a policy, and what it holds already. A file of another policy is begun again.
    pub(super) fn open(folder: &Path, number: u64, policy: &str) -> Result<(Self, Known)> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let path = path(folder, number);
        let (known, whole) = read(&path, policy)?;
        let file = match whole {
            Some(bytes) => {
                let file = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))?;
                // A line that a kill cut short would run into the next one.
                file.set_len(bytes).map_err(Error::io(&path))?;
                file
            }
            None => File::create(&path).map_err(Error::io(&path))?,
        };
        let mut journal = Journal { path, file };
        if whole.is_none() {
            journal.write(&Line::Rollout { number, policy: policy.to_owned() })?;
        }
        Ok((journal, known))
    }

    /// Adds an answer.
    pub(super) fn answer(&mut self, answer: &Answer) -> Result<()> {
        self.write(&Line::Answer(Answer { rewards: None, values: None, ..answer.clone() }))
    }

    /// Adds what happens in an episode before its end.
    pub(super) fn note(&mut self, (prompt, number): (usize, usize), note: &Note<'_>) -> Result<()> {
        let line = match *note {
            Note::Began(began) => Line::Began { prompt, number, began: began.clone() },
            Note::Drew(drawn) => Line::Drew { prompt, number, drawn: drawn.clone() },
            Note::Replied(reply) => Line::Replied { prompt, number, reply: reply.clone() },
            Note::Anew => Line::Anew { prompt, number },
            Note::Over(ref answer) => return self.answer(answer),
        };
        self.write(&line)
    }

    /// Adds the rewards of an answer, which has some.
    pub(super) fn rewards(&mut self, answer: &Answer) -> Result<()> {
        let rewards = answer.rewards.clone().expect("an answer that was rewarded");
        self.write(&Line::Rewards { prompt: answer.prompt, number: answer.number, rewards })
    }

    /// Adds the values of an answer, which has some.
    pub(super) fn values(&mut self, answer: &Answer) -> Result<()> {
        let values = answer.values.clone().expect("an answer with values");
        self.write(&Line::Values { prompt: answer.prompt, number: answer.number, values })
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line).expect("a line has no keys but texts");
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(Error::io(&self.path))
    }
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}.jsonl"))
}

/// What a file of this policy holds, and how many bytes of it are whole lines; none of another policy, or of no file.
fn read(path: &Path, policy: &str) -> Result<(Known, Option<u64>)> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Known::default(), None)),
        read => read.map_err(Error::io(path))?,
    };
    let (mut known, mut whole) = (Known::default(), 0);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let parsed = serde_json::from_slice(line).ok().filter(|_| line.ends_with(b"\n"));
        let Some(parsed) = parsed else { break };
        match parsed {
            Line::Rollout { policy: other, .. } if whole == 0 && other == policy => {}
            _ if whole == 0 => return Ok((Known::default(), None)),
            Line::Rollout { .. } => break,
            Line::Answer(answer) => {
                known.episodes.remove(&(answer.prompt, answer.number));
                known.answers.push(answer);
            }
            Line::Began { prompt, number, began } => {
                let transcript = Transcript { began: Some(began), turns: Vec::new() };
                known.episodes.insert((prompt, number), transcript);
            }
            Line::Drew { prompt, number, drawn } => {
                known.episodes.entry((prompt, number)).or_default().turns.push((drawn, None));
            }
            Line::Replied { prompt, number, reply } => {
                let turns = known.episodes.get_mut(&(prompt, number)).map(|own| &mut own.turns);
                if let Some((_, own)) = turns.and_then(|turns| turns.last_mut()) {
                    *own = Some(reply);
                }
            }
            Line::Anew { prompt, number } => _ = known.episodes.remove(&(prompt, number)),
            Line::Rewards { prompt, number, rewards } => {
                if let Some(answer) = known.find(prompt, number) {
                    answer.rewards = Some(rewards);
                }
            }
            Line::Values { prompt, number, values } => {
                if let Some(answer) = known.find(prompt, number) {
                    answer.values = Some(values);
                }
            }
        }
        whole += line.len() as u64;
    }
    Ok((known, (whole > 0).then_some(whole)))
}

impl Known {
    fn find(&mut self, prompt: usize, number: usize) -> Option<&mut Answer> {
        let is_it = |answer: &&mut Answer| (answer.prompt, answer.number) == (prompt, number);
        self.answers.iter_mut().find(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: usize) -> Answer {
        Answer {
            prompt: 3,
            number,
            tokens: vec![5, 6],
            logprobs: vec![-0.1, -1e-7],
            text: "so\nmuch".into(),
            ended: true,
            rewards: None,
            values: None,
            episode: None,
        }
    }

    #[test]
    fn what_was_written_is_read_back_however_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, known) = Journal::open(folder.path(), 4, "p").unwrap();
        assert_eq!(known, Known::default());
        let mut first = answer(0);
        journal.answer(&first).unwrap();
        journal.answer(&answer(1)).unwrap();
        first.rewards = Some(vec![Some(0.5), None]);
        journal.rewards(&first).unwrap();
        let path = path(folder.path(), 4);
        let bytes = fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let (mut journal, mut known) = Journal::open(folder.path(), 4, "p").unwrap();
            let [one, two] = [known.take(3, 0), known.take(3, 1)];
            assert!(one.is_none_or(|one| one == first || one == answer(0)));
            assert!(two.is_none_or(|two| two == answer(1)));
            // The next line stands by itself.
            journal.answer(&answer(2)).unwrap();
            let (_, mut known) = Journal::open(folder.path(), 4, "p").unwrap();
            assert_eq!(known.take(3, 2), Some(answer(2)), "cut at {cut}");
        }
        let (_, known) = Journal::open(folder.path(), 4, "another").unwrap();
        assert_eq!(known, Known::default());
    }

    /// An episode is known as far as it was played; one that is over, or began anew, is not known as an episode.
    #[test]
    fn an_episode_is_known_as_far_as_it_was_played() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path(), 4, "p").unwrap();
        let began = Began { deterministic: true, ..Began::default() };
        let drawn = Drawn { tokens: vec![5, 6], logprobs: vec![-0.1, -1e-7], ended: true };
        let observation = vec![text::Message::new("tool", "4")];
        let reply = Reply { observation, reward: 0.1, done: false };
        for number in 0..3 {
            let place = (3, number);
            journal.note(place, &Note::Began(&began)).unwrap();
            journal.note(place, &Note::Drew(&drawn)).unwrap();
            journal.note(place, &Note::Replied(&reply)).unwrap();
            journal.note(place, &Note::Drew(&drawn)).unwrap();
        }
        journal.note((3, 1), &Note::Anew).unwrap();
        journal.note((3, 2), &Note::Over(Box::new(answer(2)))).unwrap();
        let (_, mut known) = Journal::open(folder.path(), 4, "p").unwrap();
        let played = Transcript {
            began: Some(began),
            turns: vec![(drawn.clone(), Some(reply)), (drawn, None)],
        };
        assert_eq!(known.take_episode(3, 0), played);
        assert_eq!(known.take_episode(3, 1), Transcript::default());
        assert_eq!(known.take_episode(3, 2), Transcript::default());
        assert_eq!(known.take(3, 2), Some(answer(2)));
    }
}
