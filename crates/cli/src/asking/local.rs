//! A model on this machine.

use session::{Finish, Flow, Prompt, Question, Sampling, Session};

use super::{Answer, Asking, OnAnswer, Request, Requests};
use crate::error::{Failure, Result};
use crate::signals::Signals;

/// Prompts that are worked on between two writes, for each that is answered at once.
const ROUND: usize = 4;

/// A loaded model.
pub(crate) struct Local<'a> {
    session: Session,
    asking: &'a Asking,
}

impl<'a> Local<'a> {
    pub(crate) fn new(session: Session, asking: &'a Asking) -> Self {
        Local { session, asking }
    }

    /// Answers round by round until all is answered or a signal comes.
    pub(crate) fn answer(
        &mut self,
        requests: Requests<'_>,
        signals: &Signals,
        on_answer: &mut OnAnswer<'_>,
    ) -> Result<()> {
        // All of them, before any time is spent on the first.
        let prompts: Vec<Prompt> =
            (0..requests.count).map(|i| self.prompt((requests.of)(i))).collect::<Result<_>>()?;
        let sampling = Sampling {
            max_new_tokens: self.asking.max_new_tokens as usize,
            temperature: self.asking.temperature,
            top_p: self.asking.top_p,
            seed: self.asking.seed,
            batch: usize::from(self.asking.concurrency),
            ..Sampling::default()
        };
        let refusal = |error| self.asking.refusal(error);
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

    /// The tokens of a request. Its draws depend on the request alone, so that a resumed command gets the same answers.
    fn prompt(&self, request: Request) -> Result<Prompt> {
        let Request { messages, tools, place, seed } = request;
        let question = Question::Dialogue { messages, tools, own_system: true };
        let tokens = self.session.encode(&question).map_err(|error| {
            let failure = Failure::from(error);
            let message = format!("{place}: {}", failure.message);
            let failure = Failure { message, line: Some(place.line), ..failure.at(&place.file) };
            match failure.code {
                "chat_template" => failure
                    .hint(format!("{} has to be a model that converses", self.asking.named.who)),
                "prompt_too_long" => failure.hint("shorten the long prompt or its examples"),
                _ => failure,
            }
        })?;
        Ok(Prompt { tokens, key: seed })
    }
}

impl Asking {
    /// Too little memory is cured by a key of the recipe here.
    fn refusal(&self, error: session::Error) -> Failure {
        let fits = match &error {
            session::Error::Room { fits, .. } if *fits > 0 => Some(*fits),
            _ => None,
        };
        let failure = Failure::from(error);
        match fits {
            Some(fits) => failure.hint(format!("`{}` {fits} fits", self.named.concurrency)),
            None => failure,
        }
    }
}
