//! Held-out prompts, answered and rewarded.

use compute::random::key;
use data::Unit;
use model::generate::Sampling;

use super::collect::{Answered, asked, completion, named};
use super::episodes::{self, Limits, Note, Transcript};
use super::sampling::{Policy, Wanted, sample};
use super::{Answer, Learner, PURPOSE_EPISODE, PURPOSE_VALIDATION, Rollouts};
use crate::Result;
use crate::method::Figure;
use crate::models::PartName;
use crate::rollout::Rollout;
use crate::trainer::Control;
use crate::trainer::course::{Judged, Score, Stand, VALIDATION_CHUNK};

/// The figure by which steps are compared.
const REWARD: Figure = Figure { name: "reward", higher_is_better: true };

impl Rollouts {
    /// Rewards of the answers to the held-out prompts; none where there are no such prompts, or where the run is to end.
    pub(super) fn validate(&mut self, at: &mut Stand<'_>) -> Result<Option<Judged>> {
        if self.rows.validation.is_empty() {
            return Ok(None);
        }
        at.models.activate(at.backend, PartName::Policy)?;
        let samples = self.config.validation_samples;
        let mut all: Vec<Answer> = Vec::new();
        let mut groups: Vec<Answered> = Vec::new();
        let chunks = self.rows.validation.units().div_ceil(VALIDATION_CHUNK);
        for chunk in 0..chunks {
            let chunk = self.rows.validation.chunks(VALIDATION_CHUNK).nth(chunk);
            let (prompts, first) = (chunk.expect("they were counted")?, all.len());
            let tokenizer = &at.metadata.tokenizer;
            let asked: Vec<_> =
                prompts.iter().map(|prompt| asked(prompt, tokenizer)).collect::<Result<_>>()?;
            let wanted = (0..prompts.len() * samples).map(|index| {
                let number = (first + index) as u64;
                let key = key(&[self.seed, PURPOSE_VALIDATION, number]);
                let sampling: Sampling = self.config.validation_sampling(key);
                Wanted { prompt: prompts[index / samples].sequences[0].tokens.clone(), sampling }
            });
            let wanted: Vec<Wanted> = wanted.collect();
            let policy = Policy::of(at.models, at.metadata, self.config.max_new_tokens);
            let mut answers: Vec<Option<Answer>> = vec![None; wanted.len()];
            let rewards = &mut self.rewards;
            let number = |index: usize| (first / samples + index / samples, index % samples);
            let mut over = |index: usize, answer: Answer| {
                rewards.submit(index as u64, completion(&asked[index / samples], &answer))?;
                answers[index] = Some(answer);
                Ok(())
            };
            let are_there = match &mut self.stage {
                None => {
                    let mut on_answer = |index: usize, drawn| {
                        let (prompt, number) = number(index);
                        over(index, named(drawn, prompt, number, tokenizer)?)
                    };
                    let concurrency = self.config.concurrency;
                    sample(policy, at.backend, &wanted, concurrency, at.listen, &mut on_answer)?
                }
                Some(stage) => {
                    let wanted = wanted.iter().enumerate().map(|(index, wanted)| {
                        let place = number(index);
                        episodes::Wanted {
                            row: &prompts[index / samples],
                            asked: &asked[index / samples],
                            place,
                            sampling: wanted.sampling,
                            seed: key(&[
                                self.seed,
                                PURPOSE_VALIDATION,
                                place.0 as u64,
                                PURPOSE_EPISODE,
                            ]),
                            known: Transcript::default(),
                        }
                    });
                    let wanted: Vec<episodes::Wanted<'_>> = wanted.collect();
                    let mut note = |index: usize, note: Note<'_>| match note {
                        Note::Over(answer) => over(index, *answer),
                        _ => Ok(()),
                    };
                    let limits = Limits::of(&self.config);
                    stage.play(
                        policy, at.backend, tokenizer, &wanted, limits, at.listen, &mut note,
                    )?
                }
            };
            if !are_there {
                return Ok(None);
            }
            let mut go_on = || (at.listen)() != Control::Stop;
            let given = self.rewards.wait(&mut go_on)?;
            if given.len() < answers.len() {
                return Ok(None);
            }
            self.tell_skipped(at)?;
            let mut answers: Vec<Answer> = answers.into_iter().flatten().collect();
            let asked: Vec<(&Unit, &Answer)> = given
                .iter()
                .map(|(index, _)| (&prompts[*index as usize / samples], &answers[*index as usize]))
                .collect();
            let given = self.with_scores(at, given, &asked)?;
            for (index, rewards) in given {
                answers[index as usize].reward(rewards);
            }
            if let Learner::Teacher(_) = self.learner {
                let mut own = answers.iter().cloned();
                groups.extend(prompts.into_iter().map(|prompt| {
                    let answers = own.by_ref().take(samples).collect();
                    Answered { prompt, answers }
                }));
            }
            all.extend(answers);
        }
        match self.learner {
            Learner::Teacher(_) => Ok(Some(self.judged_by_teacher(at, &groups)?)),
            _ => Ok(Some(self.judged(&all))),
        }
    }

    fn judged(&self, answers: &[Answer]) -> Judged {
        let rewards: Vec<Vec<Option<f64>>> =
            answers.iter().map(|answer| answer.rewards.clone().unwrap_or_default()).collect();
        let rollout = Rollout::of_rewards(&rewards, &self.weights);
        let samples = self.config.validation_samples;
        // An answer without a reward is left out of the mean; how many there are is a figure of its own.
        let known: Vec<f64> =
            (0..answers.len()).filter_map(|index| rollout.reward(index)).collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        let answers: Vec<&Answer> = answers.iter().collect();
        let mut metrics = vec![(REWARD.name.to_owned(), mean)];
        metrics.extend(self.metrics(&answers, &rollout));
        if samples > 1 {
            let prompts = answers.len() / samples;
            let best = (0..prompts).filter_map(|prompt| {
                let rewards = (prompt * samples..(prompt + 1) * samples)
                    .filter_map(|index| rollout.reward(index));
                rewards.reduce(f64::max)
            });
            let best: Vec<f64> = best.collect();
            let mean = best.iter().sum::<f64>() / best.len().max(1) as f64;
            metrics.push((format!("reward_best_of_{samples}"), mean));
        }
        Judged {
            loss: None,
            metrics,
            score: Score::new(REWARD, mean),
            shares: Vec::new(),
            margins: Vec::new(),
            classified: Vec::new(),
        }
    }
}
