//! A backend that counts the tokens it embeds, and fails when it is told to.

use compute::{Backend, Error, Op, Result, Wrapper};

pub(crate) struct Watched {
    pub(crate) inner: Box<dyn Backend>,
    /// Tokens embedded: all that were ever computed.
    pub(crate) tokens: usize,
    /// Operations until one fails; none does where there is no number.
    pub(crate) fails_after: Option<usize>,
}

impl Watched {
    pub(crate) fn new(inner: Box<dyn Backend>) -> Self {
        Watched { inner, tokens: 0, fails_after: None }
    }

    /// Tokens embedded since this was last asked.
    pub(crate) fn take_tokens(&mut self) -> usize {
        std::mem::take(&mut self.tokens)
    }
}

impl Wrapper for Watched {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Backend {
        &mut *self.inner
    }

    fn run_op(&mut self, op: Op<'_>) -> Result<()> {
        if let Op::Embed(embed) = &op {
            self.tokens += embed.tokens.len;
        }
        match &mut self.fails_after {
            Some(0) => Err(Error::Device { device: "watched", message: "it was told to".into() }),
            Some(left) => {
                *left -= 1;
                self.inner.run(op)
            }
            None => self.inner.run(op),
        }
    }
}
