//! One forward pass of a batcher: the tokens it takes in, and what is asked at its reads.

use compute::op::{Op, Sample, SampleTop};
use compute::{Backend, Buffer, DType};
use text::Target;

use super::{MOST_TOP_LOGPROBS, Room, Sampling};
use crate::decoder::{CacheView, Inputs, Spans};
use crate::{Adapter, Decoder, HeadRequest, Pass, Result};

/// Keys and values of all layers, `[slots, KV * D]` each, on the stack.
pub(super) struct Cache(Vec<(Buffer, Buffer)>);

impl Cache {
    pub(super) fn new(decoder: &Decoder, backend: &mut dyn Backend, slots: usize) -> Result<Self> {
        let len = slots * decoder.config.num_key_value_heads * decoder.config.head_dim;
        let operand = backend.operand();
        let mut layers = Vec::with_capacity(decoder.config.num_hidden_layers);
        for _ in 0..decoder.config.num_hidden_layers {
            layers.push((backend.alloc(len, operand)?, backend.alloc(len, operand)?));
        }
        Ok(Cache(layers))
    }
}

/// Tokens of several rows that run together, and their reads.
#[derive(Default)]
pub(super) struct Work {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    reads: Vec<u32>,
    spans: Spans,
    read_spans: Spans,
    /// For every token, the length of its row so far.
    lengths: Vec<u32>,
}

impl Work {
    /// Adds tokens from `position` on of a row that has `length` tokens so far and whose keys, these
    /// included, lie in `runs`. The last `reads` of them are read.
    pub(super) fn push(
        &mut self,
        tokens: &[u32],
        (position, length): (usize, usize),
        slots: &[u32],
        runs: &[(u32, u32)],
        reads: usize,
    ) {
        let (first, count) = (self.tokens.len(), tokens.len());
        self.tokens.extend(tokens);
        self.positions.extend((position..position + count).map(|position| position as u32));
        self.slots.extend(slots);
        self.lengths.resize(first + count, length as u32);
        self.spans.begin_tree();
        self.spans.push(first, count, runs);
        if reads > 0 {
            self.read_spans.begin_tree();
            self.read_spans.push(self.reads.len(), reads, runs);
            let end = first + count;
            self.reads.extend((end - reads..end).map(|read| read as u32));
        }
    }

    /// Work at least as large as any in this room: a token of every row, and as many more as are taken in.
    fn largest(room: &Room, reads: Reads) -> Self {
        let mut work = Work::default();
        let end = room.row_tokens;
        let mut runs = vec![(0, 0); room.most_runs()];
        runs[0].1 = end as u32;
        for _ in 0..room.rows {
            work.push(&[0], (end - 1, end), &[0], &runs, 1);
        }
        let count = room.prefill_tokens;
        let all = if reads == Reads::OfScores { count } else { 0 };
        // Positions do not matter here, but that a query has a key.
        work.push(&vec![0; count], (0, end), &vec![0; count], &[(0, end.max(count) as u32)], all);
        work
    }

    fn inputs(mut self, cache: &Cache) -> Inputs {
        self.spans.begin_tree();
        self.read_spans.begin_tree();
        Inputs {
            groups: vec![0, self.tokens.len() as u32],
            read_groups: vec![0, self.reads.len() as u32],
            // Only dropout asks for identities, and nothing drops out here.
            row_keys: vec![0; 3 * self.tokens.len()],
            tokens: self.tokens,
            positions: self.positions,
            reads: self.reads,
            spans: self.spans,
            read_spans: self.read_spans,
            lengths: self.lengths,
            cache: Some(CacheView { slots: self.slots, layers: cache.0.clone() }),
        }
    }
}

/// Which tokens of a pass are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    OfDraws,
    OfScores,
}

/// What the draws at the reads go by, a row each.
#[derive(Default)]
pub(super) struct Draws {
    pub(super) settings: Vec<f32>,
    /// Bits of allowed and of seen tokens; empty where no row has any.
    pub(super) allowed: Vec<u32>,
    pub(super) seen: Vec<u32>,
    /// How many of the most likely tokens are wanted.
    pub(super) top: usize,
}

/// Draws, a row each.
#[derive(Default)]
pub(super) struct Results {
    pub(super) tokens: Vec<u32>,
    pub(super) logprobs: Vec<f32>,
    /// `[rows, top]`.
    pub(super) top_tokens: Vec<u32>,
    pub(super) top_logprobs: Vec<f32>,
}

/// A decoder under one part, on a device.
pub(super) struct Runner<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) backend: &'a mut dyn Backend,
    pub(super) adapter: Option<&'a Adapter>,
    pub(super) cache: &'a Cache,
}

impl Runner<'_> {
    /// A forward pass and a draw at each of its reads. The stack is as before, also after an error.
    pub(super) fn draw(&mut self, work: Work, draws: &Draws) -> Result<Results> {
        let mark = self.backend.mark();
        let results = self.forward_and_draw(work, draws);
        self.backend.release(mark);
        results
    }

    fn forward_and_draw(&mut self, work: Work, draws: &Draws) -> Result<Results> {
        let Runner { decoder, backend, adapter, cache } = self;
        let pass = Pass { adapter: *adapter, ..Pass::default() };
        let hidden = decoder.forward_inputs(*backend, &work.inputs(cache), &pass)?;
        let rows = hidden.reads();
        if rows == 0 {
            return Ok(Results::default());
        }
        let logits = decoder.logits(*backend, &hidden)?;
        let settings = backend.alloc(draws.settings.len(), DType::F32)?;
        backend.upload(&draws.settings, settings)?;
        let mut bits = |bits: &[u32]| -> Result<Option<Buffer>> {
            if bits.is_empty() {
                return Ok(None);
            }
            let buffer = backend.alloc(bits.len(), DType::U32)?;
            backend.upload_u32(bits, buffer)?;
            Ok(Some(buffer))
        };
        let (allowed, seen) = (bits(&draws.allowed)?, bits(&draws.seen)?);
        let tokens = backend.alloc(rows, DType::U32)?;
        let logprobs = backend.alloc(rows, DType::F32)?;
        let top = match draws.top * rows {
            0 => None,
            len => Some(SampleTop {
                tokens: backend.alloc(len, DType::U32)?,
                logprobs: backend.alloc(len, DType::F32)?,
            }),
        };
        let (vocab, softcap) = (decoder.config.vocab_size, decoder.config.logit_softcap);
        let op = Sample { vocab, logits, softcap, settings, allowed, seen, tokens, logprobs, top };
        backend.run(Op::Sample(op))?;

        let mut results = Results {
            tokens: vec![0; rows],
            logprobs: vec![0.0; rows],
            top_tokens: vec![0; draws.top * rows],
            top_logprobs: vec![0.0; draws.top * rows],
        };
        backend.read_u32(tokens, &mut results.tokens)?;
        backend.read(logprobs, &mut results.logprobs)?;
        if let Some(top) = top {
            backend.read_u32(top.tokens, &mut results.top_tokens)?;
            backend.read(top.logprobs, &mut results.top_logprobs)?;
        }
        Ok(results)
    }

    /// A forward pass and the log-probabilities of tokens, one at each read. The stack is as before, also
    /// after an error.
    pub(super) fn score(
        &mut self,
        work: Work,
        tokens: &[u32],
        temperature: f32,
    ) -> Result<Vec<f32>> {
        let Runner { decoder, backend, adapter, cache } = self;
        let pass = Pass { adapter: *adapter, ..Pass::default() };
        let target = |(read, &token): (usize, &u32)| Target {
            read: read as u32,
            token,
            sequence: 0,
            place: read as u32,
            role: 0,
            weight: 1.0,
        };
        let targets: Vec<Target> = tokens.iter().enumerate().map(target).collect();
        let request = HeadRequest { temperature, ..HeadRequest::logprobs() };
        let mark = backend.mark();
        let outputs =
            decoder.forward_inputs(*backend, &work.inputs(cache), &pass).and_then(|mut hidden| {
                decoder.head(*backend, &mut hidden, &targets, &request, None, None, &pass)
            });
        backend.release(mark);
        Ok(outputs?.logprob)
    }

    /// Runs the largest passes that a room allows.
    pub(super) fn run_largest(&mut self, room: &Room) -> Result<()> {
        let words = room.rows * self.decoder.config.vocab_size.div_ceil(32);
        let draws = Draws {
            settings: Sampling::default().settings(0).repeat(room.rows),
            allowed: vec![u32::MAX; words],
            seen: vec![0; words],
            top: MOST_TOP_LOGPROBS.min(self.decoder.config.vocab_size),
        };
        self.draw(Work::largest(room, Reads::OfDraws), &draws)?;
        if room.scores {
            let tokens = vec![0; room.rows + room.prefill_tokens];
            self.score(Work::largest(room, Reads::OfScores), &tokens, 1.0)?;
        }
        Ok(())
    }
}
