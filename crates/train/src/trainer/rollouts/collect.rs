//! A rollout: prompts answered, answers rewarded, rewards made into advantages.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use compute::random::key;
use data::checksum::checksum;
use data::{Sequence, Unit};
use model::{HeadRequest, Want};
use text::{Message, Tokenizer};

use super::episodes::{self, Limits, Note};
use super::sampling::{Drawn, Policy, Wanted, sample};
use super::scoring::scores;
use super::{
    Answer, Collected, Group, Journal, Learner, PURPOSE_ANSWER, PURPOSE_EPISODE, Rollouts,
};
use crate::doctor::repetition;
use crate::events::Event;
use crate::models::PartName;
use crate::reward::{Asked, Completion};
use crate::rollout::Rollout;
use crate::step::{Sampled, StepPlan};
use crate::trainer::Control;
use crate::trainer::course::{Course as _, Next, Stand};
use crate::trainer::reference_cache::reference_logprobs;
use crate::{Error, Result};

/// Times that a step's prompts are replaced at most where their groups teach nothing.
const MOST_ROUNDS: usize = 3;

/// The answers to a prompt, rewarded.
pub(super) struct Answered {
    pub(super) prompt: Unit,
    pub(super) answers: Vec<Answer>,
}

impl Rollouts {
    /// The rollout that the run stands at; or what comes instead of its first step.
    pub(super) fn collect(
        &mut self,
        at: &mut Stand<'_>,
    ) -> Result<std::result::Result<Collected, Next>> {
        let state = &at.state.rollout;
        let policy = match state.steps {
            0 => fingerprint(at)?,
            _ => state.policy.clone(),
        };
        let (mut journal, mut known) = Journal::open(&self.folder, state.number, &policy)?;
        let begun = Instant::now();
        let (mut groups, mut next, mut prompts) = (Vec::new(), at.state.cursor, 0);
        let mut dull = Vec::new();
        let mut wanted = None;
        for _ in 0..=MOST_ROUNDS {
            let Some(step) = self.rows.order.step(next) else { break };
            let wanted = *wanted.get_or_insert(step.units.len());
            let units = self.rows.train.units_at(&step.units)?;
            next = step.next;
            let answered = self.answer(at, units, prompts, &mut journal, &mut known)?;
            let Some(answered) = answered else { return Ok(Err(Next::Stopped)) };
            prompts += answered.len();
            for group in answered {
                match self.is_dull(&group) {
                    true => dull.push(group),
                    false => groups.push(group),
                }
            }
            if groups.len() >= wanted || !self.config.replaces() {
                break;
            }
        }
        let Some(wanted) = wanted else { return Ok(Err(Next::End)) };
        let (resampled, unused) = (dull.len(), groups.len().saturating_sub(wanted));
        groups.truncate(wanted);
        if groups.is_empty() {
            // A step has prompts, if only such as teach nothing.
            groups = dull;
            groups.truncate(wanted);
        }
        let answers = groups.iter().flat_map(|group| &group.answers);
        let tokens = answers.clone().map(|answer| answer.logprobs.len()).sum();
        let event = Event::Rollout {
            step: at.state.step,
            number: state.number,
            prompts,
            answers: answers.count(),
            tokens,
            seconds: begun.elapsed().as_secs_f64(),
        };
        (at.tell)(&event)?;
        self.tell_endless(at, &groups)?;
        let mut collected = match self.learner {
            Learner::Advantages(_) => self.learnable(at, groups, policy, &mut journal)?,
            Learner::Pairs { missing_end } => self.pairs(at, groups, policy, missing_end)?,
            Learner::Teacher(_) => self.taught(at, groups, policy)?,
        };
        collected.next = next;
        if self.config.replaces() {
            collected.metrics.push(("rollout/resampled".into(), resampled as f64));
            collected.metrics.push(("rollout/unused".into(), unused as f64));
        }
        Ok(Ok(collected))
    }

    /// Whether the recipe wants another group in place of this one: its answers all have the same reward, or their mean
    /// is out of bounds.
    fn is_dull(&self, group: &Answered) -> bool {
        if !self.config.replaces() {
            return false;
        }
        let rewards: Vec<Vec<Option<f64>>> = group.answers.iter().map(rewards).collect();
        let rollout = Rollout::of_rewards(&rewards, &self.weights);
        let known: Vec<f64> =
            (0..rewards.len()).filter_map(|index| rollout.reward(index)).collect();
        let is_flat = known.windows(2).all(|two| two[0] == two[1]);
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        let is_out = |[low, high]: [f64; 2]| known.is_empty() || mean < low || mean > high;
        self.config.resamples && is_flat || self.config.pass_rate.is_some_and(is_out)
    }

    /// Answers prompts, the first of which has the number `first`, and has the answers rewarded. None where the run is
    /// to end.
    fn answer(
        &mut self,
        at: &mut Stand<'_>,
        prompts: Vec<Unit>,
        first: usize,
        journal: &mut Journal,
        known: &mut super::journal::Known,
    ) -> Result<Option<Vec<Answered>>> {
        let is_under_way = at.state.rollout.steps > 0;
        let number_of_rollout = at.state.rollout.number;
        let tokenizer = &at.metadata.tokenizer;
        let asked: Vec<Arc<Asked>> =
            prompts.iter().map(|prompt| asked(prompt, tokenizer)).collect::<Result<_>>()?;
        // In the order of prompts and of answers to each: those of a prompt stand next to each other.
        let size = self.config.group_size;
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(prompts.len() * size);
        let (mut wanted, mut places) = (Vec::new(), Vec::new());
        for (index, prompt) in prompts.iter().enumerate() {
            for number in 0..size {
                let answer = known.take(first + index, number);
                if answer.is_none() {
                    let draw = [self.seed, PURPOSE_ANSWER, number_of_rollout];
                    let draw =
                        key(&[draw[0], draw[1], draw[2], (first + index) as u64, number as u64]);
                    let sampling = self.config.sampling(draw);
                    let prompt = prompt.sequences[0].tokens.clone();
                    wanted.push(Wanted { prompt, sampling });
                    places.push(answers.len());
                }
                answers.push(answer);
            }
        }
        if is_under_way && !wanted.is_empty() {
            let message = format!(
                "the run stands in the midst of rollout {number_of_rollout}, and {} of its answers are not in {}",
                wanted.len(),
                self.folder.display()
            );
            let hint = "the folder `rollouts` belongs to the run: bring it back, or begin a new run from the checkpoint's adapter";
            return Err(Error::refused(message, hint));
        }
        for (index, answer) in answers.iter().enumerate() {
            if let Some(answer) = answer.as_ref().filter(|answer| answer.rewards.is_none()) {
                self.rewards.submit(index as u64, completion(&asked[index / size], answer))?;
            }
        }

        at.models.activate(at.backend, PartName::Policy)?;
        let policy = Policy::of(at.models, at.metadata, self.config.max_new_tokens);
        let rewards = &mut self.rewards;
        // Those of a reward model are computed when all answers are there.
        let scored_later = self.supervisor.is_some();
        let mut rewarded = |place: usize, answer: Answer, journal: &mut Journal| {
            rewards.submit(place as u64, completion(&asked[place / size], &answer))?;
            answers[place] = Some(answer);
            if scored_later {
                return Ok(());
            }
            // What the world outside says is kept as soon as it is there: it may not say it twice.
            for (place, given) in rewards.finished()? {
                let answer = answers[place as usize].as_mut().expect("it was submitted");
                answer.reward(given);
                journal.rewards(answer)?;
            }
            Ok(())
        };
        let are_there = match &mut self.stage {
            None => {
                let mut on_answer = |index: usize, drawn: Drawn| {
                    let place = places[index];
                    let answer = named(drawn, first + place / size, place % size, tokenizer)?;
                    journal.answer(&answer)?;
                    rewarded(place, answer, journal)
                };
                let concurrency = self.config.concurrency;
                sample(policy, at.backend, &wanted, concurrency, at.listen, &mut on_answer)?
            }
            Some(stage) => {
                let wanted = wanted.iter().zip(&places).map(|(wanted, place)| {
                    let (prompt, number) = (first + place / size, place % size);
                    let seed = [self.seed, PURPOSE_EPISODE, number_of_rollout, prompt as u64];
                    episodes::Wanted {
                        row: &prompts[place / size],
                        asked: &asked[place / size],
                        place: (prompt, number),
                        sampling: wanted.sampling,
                        seed: key(&seed),
                        known: known.take_episode(prompt, number),
                    }
                });
                let wanted: Vec<episodes::Wanted<'_>> = wanted.collect();
                let mut note = |index: usize, note: Note<'_>| {
                    journal.note(wanted[index].place, &note)?;
                    match note {
                        Note::Over(answer) => rewarded(places[index], *answer, journal),
                        _ => Ok(()),
                    }
                };
                let limits = Limits::of(&self.config);
                stage.play(policy, at.backend, tokenizer, &wanted, limits, at.listen, &mut note)?
            }
        };
        if !are_there {
            return Ok(None);
        }
        let mut go_on = || (at.listen)() != Control::Stop;
        let given = self.rewards.wait(&mut go_on)?;
        let mut answers: Vec<Answer> = answers.into_iter().flatten().collect();
        self.tell_skipped(at)?;
        let asked: Vec<(&Unit, &Answer)> = given
            .iter()
            .map(|(index, _)| (&prompts[*index as usize / size], &answers[*index as usize]))
            .collect();
        let given = self.with_scores(at, given, &asked)?;
        for (index, rewards) in given {
            let answer = &mut answers[index as usize];
            answer.reward(rewards);
            journal.rewards(answer)?;
        }
        if answers.iter().any(|answer| answer.rewards.is_none()) {
            return Ok(None);
        }
        let mut answers = answers.into_iter();
        let group = |prompt| Answered { prompt, answers: answers.by_ref().take(size).collect() };
        Ok(Some(prompts.into_iter().map(group).collect()))
    }

    /// Rewards with those of the reward model in their place, where there is one. `asked` are prompts and answers, in the
    /// same order.
    pub(super) fn with_scores(
        &self,
        at: &mut Stand<'_>,
        mut given: Vec<(u64, Vec<Option<f64>>)>,
        asked: &[(&Unit, &Answer)],
    ) -> Result<Vec<(u64, Vec<Option<f64>>)>> {
        let mut settings = self.rewards.settings().enumerate();
        let model = settings.find(|(_, settings)| settings.is_model());
        let (Some((place, settings)), Some(supervisor)) = (model, &self.supervisor) else {
            return Ok(given);
        };
        let scores = scores(at, supervisor, asked)?;
        for (((_, rewards), score), (prompt, _)) in given.iter_mut().zip(scores).zip(asked) {
            let checked = settings.checked(score).map_err(|error| {
                let place = &prompt.sequences[0].place;
                let message = format!("{place}: `{}`: {}", settings.name, error.message);
                Error::refused(message, error.hint.unwrap_or_default())
            });
            rewards[place] = Some(checked?);
        }
        Ok(given)
    }

    /// Tells of answers that were left without a reward, as the recipe wants it.
    pub(super) fn tell_skipped(&mut self, at: &mut Stand<'_>) -> Result<()> {
        self.tell_differing(at)?;
        let mut skipped = self.rewards.take_skipped();
        if let Some(stage) = &mut self.stage {
            skipped.extend(stage.environment.take_skipped());
        }
        let Some(first) = skipped.first() else { return Ok(()) };
        let hint = first.error.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
        let event = Event::Finding {
            step: Some(at.state.step),
            id: "reward-failed".into(),
            level: "warning".into(),
            count: skipped.len(),
            places: vec![first.place.clone()],
            hint: format!("`{}`: {}{hint}", first.reward, first.error.message),
        };
        (at.tell)(&event)
    }

    /// What is learned from groups of answers.
    fn learnable(
        &mut self,
        at: &mut Stand<'_>,
        mut groups: Vec<Answered>,
        policy: String,
        journal: &mut Journal,
    ) -> Result<Collected> {
        let mask = self.config.mask_truncated;
        let units: Vec<Unit> = groups.iter().map(|group| unit(group, mask)).collect();
        let whole: Vec<Unit> = groups.iter().map(|group| unit(group, false)).collect();
        let plan = StepPlan::new(&whole, at.packing);
        let request = self.rows.objective().request();
        let has_reference = at.models.parts.iter().any(|part| part.name == PartName::Reference);
        let reference = match has_reference {
            true => Some(reference_logprobs(&plan, &mut at.engine(), request.temperature)?),
            false => None,
        };
        if request.want.value || self.value_objective().is_some() {
            self.add_values(at, &plan, &mut groups, journal)?;
        }

        let answers: Vec<&Answer> = groups.iter().flat_map(|group| &group.answers).collect();
        let rewards: Vec<Vec<Option<f64>>> = answers.iter().map(|answer| rewards(answer)).collect();
        let ended: Vec<bool> = answers.iter().map(|answer| answer.ended).collect();
        let logprobs: Vec<Arc<[f32]>> =
            answers.iter().map(|answer| answer.logprobs.as_slice().into()).collect();
        let values = answers.iter().map(|answer| Some(Arc::from(answer.values.as_deref()?)));
        let values: Option<Vec<Arc<[f32]>>> = values.collect();
        let mut end = 0;
        let range = |group: &Answered| {
            let start = end;
            end += group.answers.len();
            start..end
        };
        let ranges: Vec<Range<usize>> = groups.iter().map(range).collect();
        let rollout = Rollout {
            groups: &ranges,
            rewards: &rewards,
            weights: &self.weights,
            ended: &ended,
            logprobs: &logprobs,
            reference: reference.as_deref(),
            values: values.as_deref(),
            drawn: None,
            carried: &at.state.carried,
        };
        let Learner::Advantages(estimator) = &self.learner else {
            unreachable!("the method has an estimator")
        };
        let estimates = estimator.estimate(&rollout);
        let last = |advantages: &Arc<[f64]>| advantages.last().copied().unwrap_or(0.0);
        let advantages: Vec<f64> = estimates.advantages.iter().map(last).collect();
        self.show(at, &groups, &rollout, &advantages)?;
        let mut metrics = self.metrics(&answers, &rollout);
        let own = estimates.metrics.iter();
        metrics.extend(own.map(|(name, value)| ((*name).to_owned(), *value)));

        let nothing_f64: Arc<[f64]> = Arc::from([]);
        let nothing_f32: Arc<[f32]> = Arc::from([]);
        let is_masked = |index: usize| mask && !ended[index];
        let sampled = |index: usize| match is_masked(index) {
            true => Sampled::default(),
            false => Sampled {
                logprobs: logprobs[index].clone(),
                proximal: nothing_f32.clone(),
                advantages: estimates.advantages[index].clone(),
                values: values.as_ref().map_or(nothing_f32.clone(), |v| v[index].clone()),
                returns: estimates.returns.get(index).unwrap_or(&nothing_f64).clone(),
            },
        };
        let learned = |(unit, range): (Unit, &Range<usize>)| Group {
            sampled: range.clone().map(sampled).collect(),
            reference: reference.as_ref().map(|reference| {
                let of = |index| match is_masked(index) {
                    true => nothing_f32.clone(),
                    false => reference[index].clone(),
                };
                range.clone().map(of).collect()
            }),
            ..Group::of(unit)
        };
        let groups = units.into_iter().zip(&ranges).map(learned).collect();
        let number = at.state.rollout.number;
        Ok(Collected { number, policy, groups, next: at.state.cursor, metrics })
    }

    /// What the value head gives before each token; of answers from a journal, what it gave.
    fn add_values(
        &self,
        at: &mut Stand<'_>,
        plan: &StepPlan,
        groups: &mut [Answered],
        journal: &mut Journal,
    ) -> Result<()> {
        let mut answers = groups.iter_mut().flat_map(|group| &mut group.answers);
        if answers.all(|answer| answer.values.is_some()) {
            return Ok(());
        }
        let want = Want { value: true, ..Want::default() };
        let request = HeadRequest { want, ..HeadRequest::logprobs() };
        let part = match self.value_objective() {
            Some(_) => PartName::Value,
            None => PartName::Policy,
        };
        let outputs = at.engine().outputs_under_part(plan, part, &request)?;
        let values =
            plan.by_sequence(&outputs, |outputs, _, target| outputs.value[target.read as usize]);
        let answers = groups.iter_mut().flat_map(|group| &mut group.answers);
        for (answer, values) in answers.zip(values) {
            answer.values = Some(values.to_vec());
            journal.values(answer)?;
        }
        Ok(())
    }

    /// Tells some answers with their rewards and advantages.
    pub(super) fn show(
        &self,
        at: &mut Stand<'_>,
        groups: &[Answered],
        rollout: &Rollout<'_>,
        advantages: &[f64],
    ) -> Result<()> {
        let answers = groups.iter();
        let answers =
            answers.flat_map(|group| group.answers.iter().map(move |answer| (group, answer)));
        for (index, (group, answer)) in answers.enumerate().take(self.config.show) {
            let names = self.names.iter().cloned();
            let rewards = names.zip(rollout.rewards[index].iter().copied());
            let event = Event::Answered {
                step: at.state.step,
                prompt: last_turn(&group.prompt, &at.metadata.tokenizer)?,
                answer: answer.shown(),
                ended: answer.ended,
                reward: rollout.reward(index),
                rewards: rewards.collect(),
                advantage: advantages[index],
            };
            (at.tell)(&event)?;
        }
        Ok(())
    }

    /// Figures of a rollout, by TRL's names.
    pub(super) fn metrics(&self, answers: &[&Answer], rollout: &Rollout<'_>) -> Vec<(String, f64)> {
        let count = answers.len().max(1) as f64;
        let lengths = answers.iter().map(|answer| answer.logprobs.len() as f64);
        let cut = answers.iter().filter(|answer| !answer.ended).count() as f64;
        let mut metrics = vec![
            ("completions/mean_length".to_owned(), lengths.clone().sum::<f64>() / count),
            ("completions/min_length".to_owned(), lengths.clone().fold(f64::INFINITY, f64::min)),
            ("completions/max_length".to_owned(), lengths.fold(0.0, f64::max)),
            ("completions/clipped_ratio".to_owned(), cut / count),
        ];
        let repetition = answers.iter().map(|answer| repetition(&answer.text)).sum::<f64>() / count;
        metrics.push(("completions/repetition".to_owned(), repetition));
        metrics.extend(episodes::figures(answers));
        for (function, name) in self.names.iter().enumerate() {
            let given = rollout.rewards.iter().filter_map(|rewards| rewards[function]);
            let given: Vec<f64> = given.collect();
            if !given.is_empty() {
                let mean = given.iter().sum::<f64>() / given.len() as f64;
                metrics.push((format!("rewards/{name}/mean"), mean));
                if rollout.weights.len() > 1 {
                    let weighted = rollout.weights[function] * mean;
                    metrics.push((format!("rewards/{name}/weighted"), weighted));
                }
            }
            if given.len() < answers.len() {
                let missing = (answers.len() - given.len()) as f64;
                metrics.push((format!("rewards/{name}/missing"), missing));
            }
        }
        metrics
    }
}

/// A drawn answer with its number and text.
pub(super) fn named(
    drawn: Drawn,
    prompt: usize,
    number: usize,
    tokenizer: &Tokenizer,
) -> Result<Answer> {
    let Drawn { tokens, logprobs, ended } = drawn;
    let said = if ended { &tokens[..tokens.len() - 1] } else { &tokens[..] };
    let text = tokenizer.decode(said, true).map_err(model::Error::from)?;
    Ok(Answer {
        prompt,
        number,
        tokens,
        logprobs,
        text,
        ended,
        rewards: None,
        values: None,
        episode: None,
    })
}

/// A prompt as reward functions see it.
pub(super) fn asked(prompt: &Unit, tokenizer: &Tokenizer) -> Result<Arc<Asked>> {
    let sequence = &prompt.sequences[0];
    let text = tokenizer.decode(&sequence.tokens, false).map_err(model::Error::from)?;
    Ok(Arc::new(Asked::of_row(text, &prompt.side, &sequence.place)))
}

/// An answer as reward functions see it: the last one of an episode, with the turns before it as its prompt's.
pub(super) fn completion(asked: &Arc<Asked>, answer: &Answer) -> Completion {
    let asked = match &answer.episode {
        Some(episode) if !episode.said.is_empty() => {
            let said = episode.said.iter().map(Message::to_value);
            let messages = asked.messages.iter().cloned().chain(said).collect();
            Arc::new(Asked { messages, ..Asked::clone(asked) })
        }
        _ => asked.clone(),
    };
    Completion {
        asked,
        answer: answer.text.clone(),
        tokens: answer.logprobs.len(),
        ended: answer.ended,
    }
}

/// The last message of a prompt, or all of a prompt without messages.
fn last_turn(prompt: &Unit, tokenizer: &Tokenizer) -> Result<String> {
    let last = prompt.side.get("messages").and_then(|messages| messages.as_array()?.last());
    let content = last.and_then(|message| message["content"].as_str());
    match content {
        Some(content) => Ok(content.to_owned()),
        None => {
            Ok(tokenizer.decode(&prompt.sequences[0].tokens, true).map_err(model::Error::from)?)
        }
    }
}

pub(super) fn rewards(answer: &Answer) -> Vec<Option<f64>> {
    answer.rewards.clone().expect("an answer that was rewarded")
}

/// A sequence for each answer, of which the answer's tokens are learned. Where `mask` says so, an answer that was cut is
/// not learned from.
pub(super) fn unit(group: &Answered, mask: bool) -> Unit {
    let prompt = &group.prompt.sequences[0];
    let sequence = |answer: &Answer| {
        let mut sequence: Sequence = prompt.clone();
        if let Some(prompt) = answer.episode.as_ref().and_then(|own| own.prompt.as_ref()) {
            sequence.tokens.clone_from(prompt);
            sequence.weights = vec![0.0; prompt.len()];
        }
        let start = sequence.tokens.len();
        sequence.tokens.extend(&answer.tokens);
        // Nothing is learned from what an environment said.
        sequence.weights.resize(sequence.tokens.len(), 0.0);
        let weight = if mask && !answer.ended { 0.0 } else { 1.0 };
        for [from, to] in answer.drawn() {
            sequence.weights[start + from..start + to].fill(weight);
        }
        sequence
    };
    Unit { sequences: group.answers.iter().map(sequence).collect(), ..group.prompt.clone() }
}

/// Names a policy by what is trained of it. A step alone would not do: a run may go on from it at another rate.
fn fingerprint(at: &mut Stand<'_>) -> Result<String> {
    let values = at.models.values(at.backend)?;
    let tensors = values.tensors.values().map(|(_, values)| values);
    let own = values.adapter.iter().chain(values.head.iter());
    let sums = own.chain(tensors).flat_map(|numbers| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        checksum(&bytes).to_le_bytes()
    });
    Ok(format!("{:08x}", checksum(&sums.collect::<Vec<u8>>())))
}
