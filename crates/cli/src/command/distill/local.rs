//! A model on this machine as the teacher.

use model::generate::Flow;

use super::order::Order;
use super::{Answer, Ask, OnAnswer, for_teacher};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::session::{Question, Sampling, Session};
use crate::signals::Signals;
use hub::Resolved;

/// Prompts that are worked on between two writes, for each that is answered at once.
const ROUND: usize = 4;

/// A loaded teacher.
pub(super) struct Local<'a> {
    session: Session,
    order: &'a Order,
}

impl<'a> Local<'a> {
    pub(super) fn open(model: &Resolved, order: &'a Order, context: &Context) -> Result<Self> {
        let mut session = Session::open(context, model, &order.served(context, model)?)?;
        session.batch_flag = "distill.concurrency";
        Ok(Local { session, order })
    }

    /// Answers round by round until all is answered or a signal comes.
    pub(super) fn answer(
        &mut self,
        asks: &[&Ask<'_>],
        signals: &Signals,
        on_answer: &mut OnAnswer<'_>,
    ) -> Result<()> {
        let encode = |ask: &&Ask<'_>| self.encode(ask);
        // All of them, before any time is spent on the first.
        let prompts: Vec<Vec<u32>> = asks.iter().map(encode).collect::<Result<_>>()?;
        if let Some(first) = asks.first() {
            let sampling = self.sampling(first);
            self.session.load(&prompts, &sampling)?;
        }
        let size = usize::from(self.order.concurrency) * ROUND;
        for (round, prompts) in prompts.chunks(size).enumerate() {
            let first = round * size;
            let sampling = self.sampling(asks[first]);
            let mut on_text = |_: usize, _: &str| match signals.asked() {
                Some(_) => Flow::Stop,
                None => Flow::Continue,
            };
            let answers = self.session.answer(prompts, &sampling, true, &mut on_text)?;
            for (index, answer) in answers.answers.into_iter().enumerate() {
                if answer.finish != "interrupted" {
                    let text = answer.text.trim().to_owned();
                    on_answer(first + index, Answer { text, finish: answer.finish.to_owned() })?;
                }
            }
            if signals.asked().is_some() {
                break;
            }
        }
        Ok(())
    }

    fn encode(&self, ask: &Ask<'_>) -> Result<Vec<u32>> {
        let question = Question::Dialogue {
            messages: for_teacher(self.order, ask.prompt),
            tools: ask.prompt.tools.clone(),
            own_system: true,
        };
        self.session.encode(&question).map_err(|failure| {
            let place = &ask.prompt.place;
            let message = format!("{place}: {}", failure.message);
            let failure = Failure { message, line: Some(place.line), ..failure.at(&place.file) };
            match failure.code {
                "chat_template" => failure.hint("a teacher has to be a model that converses"),
                "prompt_too_long" => failure.hint("shorten the long prompt or its examples"),
                _ => failure,
            }
        })
    }

    fn sampling(&self, first: &Ask<'_>) -> Sampling {
        Sampling {
            max_new_tokens: self.order.max_new_tokens,
            temperature: self.order.temperature,
            top_p: self.order.top_p,
            seed: first.seed(self.order.seed),
            batch: self.order.concurrency,
            ..Sampling::default()
        }
    }
}
