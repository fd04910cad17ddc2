//! Answers of several turns: an environment answers the policy until an episode is done.
//!
//! Tokens go in as they came out: what the policy drew is never tokenised again. Behind each answer stand the tokens of
//! what the environment said, which nothing is learned from.

use compute::Backend;
use data::Unit;
use model::generate::Sampling;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use text::{Message, Tokenizer};

use super::collect::Answered;
use super::sampling::{Drawn, Policy, Pool, Turn, room};
use super::{Answer, Rollouts};
use crate::Result;
use crate::environment::{Began, Environment, Opening, Reply, Speech, Told, messages};
use crate::events::Event;
use crate::program::LOOK;
use crate::recipe::{EpisodeBounds, RolloutConfig};
use crate::reward::{Asked, RewardError};
use crate::trainer::Control;
use crate::trainer::course::Stand;

/// A run's environment, and the words around what it says.
pub(in crate::trainer) struct Stage {
    pub(in crate::trainer) environment: Environment,
    pub(in crate::trainer) speech: Speech,
}

/// What an answer of several turns has beside its tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Episode {
    /// Tokens of the prompt, where the environment added turns to that of the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) prompt: Option<Vec<u32>>,
    /// Which of its tokens the policy drew: start and end of every answer.
    pub(super) drawn: Vec<[usize; 2]>,
    /// The turns behind the row's messages, without the last answer.
    pub(super) said: Vec<Message>,
    /// Whether the environment ended it.
    pub(super) done: bool,
    /// The sum of its rewards; none where the environment failed.
    pub(super) reward: Option<f64>,
}

/// What a journal knows of an episode that had not come to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Transcript {
    pub(super) began: Option<Began>,
    /// Answers, each with what the environment said about it.
    pub(super) turns: Vec<(Drawn, Option<Reply>)>,
}

/// An episode that is wanted.
pub(super) struct Wanted<'a> {
    pub(super) row: &'a Unit,
    pub(super) asked: &'a Asked,
    /// Number of the prompt in its rollout, and of the answer to it.
    pub(super) place: (usize, usize),
    pub(super) sampling: Sampling,
    /// The same for all answers to a prompt.
    pub(super) seed: u64,
    pub(super) known: Transcript,
}

/// What happens in an episode. All but the last is told before it is used.
pub(super) enum Note<'a> {
    Began(&'a Began),
    Drew(&'a Drawn),
    Replied(&'a Reply),
    /// What was told before does not hold any more.
    Anew,
    Over(Box<Answer>),
}

/// How long episodes and their turns may be, and how many are played at a time.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) bounds: EpisodeBounds,
    pub(super) concurrency: usize,
}

/// What to do next with an episode.
enum Next {
    Begin,
    Draw,
    Ask(String),
    /// It is over, and whether the environment ended it.
    End(bool),
}

/// An episode that is played.
struct Playing<'a> {
    wanted: &'a Wanted<'a>,
    /// The turns so far, with a stand-in for every answer.
    messages: Vec<Message>,
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    text: String,
    ended: bool,
    /// Whether the environment has failed.
    has_failed: bool,
    episode: Episode,
}

impl Limits {
    /// Those of a recipe with an environment.
    pub(super) fn of(config: &RolloutConfig) -> Self {
        let bounds = config.episode.expect("a recipe with an environment bounds its episodes");
        Limits { bounds, concurrency: config.concurrency }
    }
}

impl Stage {
    /// Plays episodes to their ends; `note` gets what happens in each, by its index. Says whether all came to their
    /// ends: `listen` is asked after every token and while the environment is waited for, and may end it.
    #[allow(clippy::too_many_arguments, reason = "policy, environment and what surrounds them")]
    pub(super) fn play(
        &mut self,
        policy: Policy<'_>,
        backend: &mut dyn Backend,
        tokenizer: &Tokenizer,
        wanted: &[Wanted<'_>],
        limits: Limits,
        listen: &mut dyn FnMut() -> Control,
        note: &mut dyn FnMut(usize, Note<'_>) -> Result<()>,
    ) -> Result<bool> {
        let prompt = |wanted: &Wanted<'_>| wanted.row.sequences[0].tokens.len();
        let Some(longest) = wanted.iter().map(prompt).max() else { return Ok(true) };
        let room = room(limits.concurrency.min(wanted.len()), longest, limits.bounds.tokens);
        let pool = Pool::new(policy, backend, room)?;
        let mut game = Game {
            environment: &mut self.environment,
            speech: &self.speech,
            tokenizer,
            policy,
            limits,
            pool,
            playing: wanted.iter().map(Playing::new).collect(),
            open: wanted.len(),
        };
        let result = game.run(backend, listen, note);
        game.environment.close_all();
        game.pool.close(backend);
        result
    }
}

struct Game<'a> {
    environment: &'a mut Environment,
    speech: &'a Speech,
    tokenizer: &'a Tokenizer,
    policy: Policy<'a>,
    limits: Limits,
    pool: Pool<'a>,
    playing: Vec<Playing<'a>>,
    /// Episodes that are not over.
    open: usize,
}

impl Game<'_> {
    fn run(
        &mut self,
        backend: &mut dyn Backend,
        listen: &mut dyn FnMut() -> Control,
        note: &mut dyn FnMut(usize, Note<'_>) -> Result<()>,
    ) -> Result<bool> {
        for index in 0..self.playing.len() {
            self.take_up(index, note)?;
        }
        while self.open > 0 {
            if !self.pool.is_empty() {
                for (index, drawn) in self.pool.step(backend)? {
                    note(index, Note::Drew(&drawn))?;
                    let next = self.playing[index].take_drawn(drawn, self.tokenizer)?;
                    self.go_on(index, next, note)?;
                }
            }
            let wait =
                if self.pool.is_empty() && self.open > 0 { LOOK } else { Default::default() };
            for (index, told) in self.environment.poll(wait)? {
                self.take(index as usize, told, note)?;
            }
            if listen() == Control::Stop {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Begins an episode, or goes on where a journal left it.
    fn take_up(
        &mut self,
        index: usize,
        note: &mut dyn FnMut(usize, Note<'_>) -> Result<()>,
    ) -> Result<()> {
        let playing = &mut self.playing[index];
        let wanted = playing.wanted;
        let Transcript { began, turns } = &wanted.known;
        let began = began.clone().filter(|began| began.deterministic);
        let mut told = Vec::new();
        let mut next = Ok(Next::Begin);
        if let Some(began) = &began {
            next = playing.take_began(began, self.speech, self.limits.bounds);
            for (drawn, reply) in turns {
                next = playing.take_drawn(drawn.clone(), self.tokenizer).map(Ok)?;
                if let Some(reply) = reply {
                    told.push((playing.text.clone(), reply.clone()));
                    next = playing.take_reply(reply, self.speech, self.limits.bounds);
                }
            }
        } else if wanted.known != Transcript::default() {
            note(index, Note::Anew)?;
        }
        self.environment.add(index as u64, wanted.opening(), began, told);
        match next {
            Ok(next) => self.go_on(index, next, note),
            Err(error) => self.environment.give_up(index as u64, error),
        }
    }

    /// Takes what the environment tells.
    fn take(
        &mut self,
        index: usize,
        told: Told,
        note: &mut dyn FnMut(usize, Note<'_>) -> Result<()>,
    ) -> Result<()> {
        let playing = &mut self.playing[index];
        let next = match told {
            Told::Began(began) => {
                note(index, Note::Began(&began))?;
                playing.take_began(&began, self.speech, self.limits.bounds)
            }
            Told::Replied(reply) => {
                note(index, Note::Replied(&reply))?;
                playing.take_reply(&reply, self.speech, self.limits.bounds)
            }
            Told::Lost => {
                note(index, Note::Anew)?;
                *playing = Playing::new(playing.wanted);
                self.environment.begin(index as u64);
                return Ok(());
            }
            Told::Failed => {
                let has_tokens = !playing.tokens.is_empty();
                if !has_tokens {
                    *playing = Playing::new(playing.wanted);
                }
                playing.has_failed = true;
                // An answer has tokens.
                Ok(if has_tokens { Next::End(false) } else { Next::Draw })
            }
        };
        match next {
            Ok(next) => self.go_on(index, next, note),
            Err(error) => self.environment.give_up(index as u64, error),
        }
    }

    fn go_on(
        &mut self,
        index: usize,
        next: Next,
        note: &mut dyn FnMut(usize, Note<'_>) -> Result<()>,
    ) -> Result<()> {
        let playing = &mut self.playing[index];
        match next {
            // It was asked to when it was added.
            Next::Begin => {}
            Next::Draw => {
                let most = self.policy.max_new_tokens.min(playing.room(self.limits.bounds));
                self.pool.add(index, playing.turn(most));
            }
            Next::Ask(answer) => self.environment.step(index as u64, answer),
            Next::End(done) => {
                self.open -= 1;
                self.environment.close(index as u64);
                note(index, Note::Over(Box::new(playing.answer(done))))?;
            }
        }
        Ok(())
    }
}

impl Wanted<'_> {
    fn tools(&self) -> Option<&Value> {
        self.row.side.get("tools")
    }

    fn opening(&self) -> Opening {
        let Asked { messages, reference, columns, place, .. } = self.asked;
        Opening {
            // Languages that know doubles alone hold whole numbers of 53 bits.
            seed: self.seed >> 11,
            messages: messages.clone(),
            reference: reference.clone(),
            tools: self.tools().cloned(),
            columns: columns.clone(),
            place: place.clone(),
        }
    }
}

impl<'a> Playing<'a> {
    fn new(wanted: &'a Wanted<'a>) -> Self {
        Playing {
            wanted,
            messages: messages(&wanted.row.side),
            prompt: wanted.row.sequences[0].tokens.clone(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            text: String::new(),
            ended: false,
            has_failed: false,
            episode: Episode { reward: Some(0.0), ..Episode::default() },
        }
    }

    /// Tokens that it may yet have.
    fn room(&self, bounds: EpisodeBounds) -> usize {
        let most = self.wanted.row.sequences[0].tokens.len() + bounds.tokens;
        most.saturating_sub(self.prompt.len() + self.tokens.len())
    }

    fn turn(&self, max_new_tokens: usize) -> Turn {
        Turn {
            tokens: [&self.prompt[..], &self.tokens].concat(),
            sampling: self.wanted.sampling,
            drawn: self.logprobs.len() as u64,
            max_new_tokens,
        }
    }

    fn take_began(
        &mut self,
        began: &Began,
        speech: &Speech,
        bounds: EpisodeBounds,
    ) -> std::result::Result<Next, RewardError> {
        if began.observation.is_empty() {
            return Ok(Next::Draw);
        }
        self.messages.extend(began.observation.iter().cloned());
        self.episode.said.extend(began.observation.iter().cloned());
        self.prompt = speech.opened(&self.messages, self.wanted.tools())?;
        self.episode.prompt = Some(self.prompt.clone());
        match self.room(bounds) {
            0 => {
                let tokens = self.prompt.len();
                let message = format!(
                    "with the first observation the prompt has {tokens} tokens, and there is no room for an answer"
                );
                Err(RewardError::new(message).with_hint("raise `environment.max_tokens`"))
            }
            _ => Ok(Next::Draw),
        }
    }

    fn take_drawn(&mut self, drawn: Drawn, tokenizer: &Tokenizer) -> Result<Next> {
        let Drawn { tokens, logprobs, ended } = drawn;
        let said = if ended { &tokens[..tokens.len() - 1] } else { &tokens[..] };
        self.text = tokenizer.decode(said, true).map_err(model::Error::from)?;
        let start = self.tokens.len();
        self.tokens.extend(tokens);
        self.logprobs.extend(logprobs);
        self.episode.drawn.push([start, self.tokens.len()]);
        self.ended = ended;
        Ok(match ended && !self.has_failed {
            true => Next::Ask(self.text.clone()),
            false => Next::End(false),
        })
    }

    fn take_reply(
        &mut self,
        reply: &Reply,
        speech: &Speech,
        bounds: EpisodeBounds,
    ) -> std::result::Result<Next, RewardError> {
        self.episode.reward = self.episode.reward.map(|sum| sum + reply.reward);
        if reply.done || self.episode.drawn.len() >= bounds.turns {
            return Ok(Next::End(reply.done));
        }
        let observed = speech.observed(&self.messages, &reply.observation, self.wanted.tools())?;
        if observed.len() >= self.room(bounds) {
            return Ok(Next::End(false));
        }
        self.tokens.extend(observed);
        self.messages.push(Speech::stand_in());
        self.messages.extend(reply.observation.iter().cloned());
        self.episode.said.push(Message::new("assistant", self.text.as_str()));
        self.episode.said.extend(reply.observation.iter().cloned());
        Ok(Next::Draw)
    }

    /// What it has become.
    fn answer(&mut self, done: bool) -> Answer {
        let (prompt, number) = self.wanted.place;
        let mut episode = std::mem::take(&mut self.episode);
        episode.done = done;
        if self.has_failed {
            episode.reward = None;
        }
        Answer {
            prompt,
            number,
            tokens: std::mem::take(&mut self.tokens),
            logprobs: std::mem::take(&mut self.logprobs),
            text: std::mem::take(&mut self.text),
            ended: self.ended && (done || self.has_failed),
            rewards: None,
            values: None,
            episode: Some(episode),
        }
    }
}

impl Answer {
    /// Takes what the reward functions gave, and puts the environment's own reward behind it.
    pub(super) fn reward(&mut self, mut rewards: Vec<Option<f64>>) {
        rewards.extend(self.episode.as_ref().map(|episode| episode.reward));
        self.rewards = Some(rewards);
    }

    /// The answer, or all turns behind the prompt, to be shown.
    pub(super) fn shown(&self) -> String {
        let said = self.episode.iter().flat_map(|episode| &episode.said);
        let mut text = String::new();
        for Message { role, content, .. } in said {
            match role.as_str() {
                "assistant" => text += &format!("{content}\n"),
                _ => text += &format!("[{role}] {content}\n"),
            }
        }
        text + &self.text
    }

    /// Which of its tokens the policy drew: start and end of each run.
    pub(super) fn drawn(&self) -> Vec<[usize; 2]> {
        match &self.episode {
            Some(episode) => episode.drawn.clone(),
            None => vec![[0, self.tokens.len()]],
        }
    }
}

impl Rollouts {
    /// Says so where the program was not as deterministic as it had said.
    pub(super) fn tell_differing(&mut self, at: &mut Stand<'_>) -> Result<()> {
        let Some(stage) = &mut self.stage else { return Ok(()) };
        let places = stage.environment.take_differing();
        let Some(first) = places.first() else { return Ok(()) };
        let event = Event::Finding {
            step: Some(at.state.step),
            id: "environment-not-deterministic".into(),
            level: "warning".into(),
            count: places.len(),
            places: vec![first.clone()],
            hint: "episodes began anew: the program says that it is deterministic, and said something else when they were \
                played again; leave `deterministic` out, or let all that is random follow from `seed`"
                .into(),
        };
        (at.tell)(&event)
    }

    /// Says so where no episode of the first rollout came to an end.
    pub(super) fn tell_endless(&self, at: &mut Stand<'_>, groups: &[Answered]) -> Result<()> {
        let Some(bounds) = self.config.episode.filter(|_| at.state.rollout.number == 0) else {
            return Ok(());
        };
        let answers = || groups.iter().flat_map(|group| &group.answers);
        let is_endless = |answer: &Answer| {
            let episode = answer.episode.as_ref();
            episode.is_some_and(|own| !own.done && own.drawn.len() >= bounds.turns)
        };
        if answers().next().is_none() || !answers().all(is_endless) {
            return Ok(());
        }
        let event = Event::Finding {
            step: Some(at.state.step),
            id: "environment-never-done".into(),
            level: "warning".into(),
            count: answers().count(),
            places: Vec::new(),
            hint: format!(
                "every episode went on for {} turns and was not done; raise `environment.max_turns`, or look whether the program ever says `done`",
                bounds.turns
            ),
        };
        (at.tell)(&event)
    }
}

/// Figures of episodes: mean turns, and the share that the environment ended. None where answers have one turn.
pub(super) fn figures(answers: &[&Answer]) -> Vec<(String, f64)> {
    let episodes: Vec<&Episode> =
        answers.iter().filter_map(|answer| answer.episode.as_ref()).collect();
    if episodes.is_empty() {
        return Vec::new();
    }
    let count = episodes.len() as f64;
    let turns: usize = episodes.iter().map(|episode| episode.drawn.len()).sum();
    let done = episodes.iter().filter(|episode| episode.done).count();
    vec![
        ("environment/turns".to_owned(), turns as f64 / count),
        ("environment/done".to_owned(), done as f64 / count),
    ]
}
