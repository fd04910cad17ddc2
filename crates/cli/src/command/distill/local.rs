//! A model on this machine as the teacher.

use hub::Resolved;
use session::{Finish, Flow, Prompt, Question, Sampling, Session};

use super::config::DistillConfig;
use super::{Answer, Ask, OnAnswer, for_teacher};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::signals::Signals;

/// Prompts that are worked on between two writes, for each that is answered at once.
const ROUND: usize = 4;

/// A loaded teacher.
pub(super) struct Local<'a> {
    session: Session,
    config: &'a DistillConfig,
}

impl<'a> Local<'a> {
    pub(super) fn open(
        model: &Resolved,
        config: &'a DistillConfig,
        context: &Context,
    ) -> Result<Self> {
        let session = config.served(context, model)?.session(context, model)?;
        Ok(Local { session, config })
    }

    /// Answers round by round until all is answered or a signal comes.
    pub(super) fn answer(
        &mut self,
        asks: &[&Ask<'_>],
        signals: &Signals,
        on_answer: &mut OnAnswer<'_>,
    ) -> Result<()> {
        // All of them, before any time is spent on the first.
        let prompts: Vec<Prompt> =
            asks.iter().map(|ask| self.prompt(ask)).collect::<Result<_>>()?;
        let sampling = Sampling {
            max_new_tokens: self.config.max_new_tokens as usize,
            temperature: self.config.temperature,
            top_p: self.config.top_p,
            seed: self.config.seed,
            batch: usize::from(self.config.concurrency),
            ..Sampling::default()
        };
        self.session.load(&prompts, &sampling).map_err(refusal)?;
        for (round, prompts) in prompts.chunks(sampling.batch * ROUND).enumerate() {
            let first = round * sampling.batch * ROUND;
            let answers =
                self.session.answer(prompts, &sampling, true, &mut |_| match signals.asked() {
                    Some(_) => Flow::Cancel,
                    None => Flow::Continue,
                });
            for (index, answer) in answers.map_err(refusal)?.into_iter().enumerate() {
                if answer.finish != Finish::Interrupted {
                    let (text, finish) = (answer.text.trim(), answer.finish.name());
                    let answer = Answer { text: text.to_owned(), finish: finish.to_owned() };
                    on_answer(first + index, answer)?;
                }
            }
            if signals.asked().is_some() {
                break;
            }
        }
        Ok(())
    }

    /// The tokens of an ask. Its draws depend on the ask alone, so that a resumed command gets the same answers.
    fn prompt(&self, ask: &Ask<'_>) -> Result<Prompt> {
        let question = Question::Dialogue {
            messages: for_teacher(self.config, ask.prompt),
            tools: ask.prompt.tools.clone(),
            own_system: true,
        };
        let tokens = self.session.encode(&question).map_err(|error| {
            let place = &ask.prompt.place;
            let failure = Failure::from(error);
            let message = format!("{place}: {}", failure.message);
            let failure = Failure { message, line: Some(place.line), ..failure.at(&place.file) };
            match failure.code {
                "chat_template" => failure.hint("a teacher has to be a model that converses"),
                "prompt_too_long" => failure.hint("shorten the long prompt or its examples"),
                _ => failure,
            }
        })?;
        Ok(Prompt { tokens, key: ask.seed(self.config.seed) })
    }
}

/// Too little memory is cured by a key of the recipe here.
fn refusal(error: session::Error) -> Failure {
    let fits = match &error {
        session::Error::Room { fits, .. } if *fits > 0 => Some(*fits),
        _ => None,
    };
    let failure = Failure::from(error);
    match fits {
        Some(fits) => failure.hint(format!("`distill.concurrency` {fits} fits")),
        None => failure,
    }
}
