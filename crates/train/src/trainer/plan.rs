//! How much memory a step takes, found by running it on a device that only counts.

use compute::{Backend, DType, Measure};
use model::{Adapter, Base, Decoder, HeadGradients, HeadRequest, LoraConfig, Pass};
use text::{Batch, Segment, Target};

use crate::{Error, Result};

/// Micro-batches that are tried, largest first, where the recipe leaves the size open.
///
/// Beyond the first of them matrix products get no faster, and memory only grows.
const CANDIDATES: [usize; 6] = [1024, 768, 512, 384, 256, 128];

/// A micro-batch size that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) micro_batch_tokens: usize,
    pub(super) checkpoint: bool,
    pub(super) stack_bytes: usize,
    /// Weights, adapter and optimizer.
    pub(super) resident_bytes: usize,
}

/// What the recipe says about memory, and what the data needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    /// None: choose.
    pub(super) micro_batch_tokens: Option<usize>,
    /// None: choose.
    pub(super) checkpoint: Option<bool>,
    /// Tokens of the longest row.
    pub(super) longest: usize,
    /// Most sequences of a step.
    pub(super) sequences: usize,
    /// Bytes that the run may take.
    pub(super) limit: usize,
}

/// Chooses the largest micro-batch that fits, activations kept before recomputed.
pub(super) fn choose(
    base: &Base,
    lora: &LoraConfig,
    operand: DType,
    wishes: &Wishes,
) -> Result<Plan> {
    let mut measure = Measure::new(operand);
    let decoder = Decoder::load(base, &mut measure)?;
    // Only shapes count here.
    let values = vec![Vec::new(); lora.matrices(&base.config).len()];
    let adapter = Adapter::new(&mut measure, &base.config, lora.clone(), &values, true)?;
    let resident = measure.report().static_bytes + measure.report().weight_bytes;
    let sizes: Vec<usize> = match wishes.micro_batch_tokens {
        Some(tokens) => vec![tokens.max(wishes.longest)],
        None => CANDIDATES.iter().map(|&tokens| tokens.max(wishes.longest)).collect(),
    };
    let modes: &[bool] = match wishes.checkpoint {
        Some(true) => &[true],
        Some(false) => &[false],
        None => &[false, true],
    };
    let mut least = usize::MAX;
    for &checkpoint in modes {
        for &tokens in &sizes {
            let sequences = wishes.sequences;
            let stack = stack_bytes(&decoder, &adapter, operand, tokens, sequences, checkpoint)?;
            if resident + stack <= wishes.limit {
                return Ok(Plan {
                    micro_batch_tokens: tokens,
                    checkpoint,
                    stack_bytes: stack,
                    resident_bytes: resident,
                });
            }
            least = least.min(stack);
        }
    }
    Err(Error::refused(
        format!(
            "the run does not fit: weights, adapter and optimizer take {} MB and a step over rows \
             of {} tokens {} MB, of {} MB",
            resident.div_ceil(1 << 20),
            wishes.longest,
            least.div_ceil(1 << 20),
            wishes.limit >> 20
        ),
        "set `data.max_seq_len` lower, lower `micro_batch_tokens`, or set \
         `activation_checkpointing: block`",
    ))
}

/// The height that the stack reaches in a step over micro-batches of so many tokens.
///
/// Counted for the worst case: every token read, every sequence for itself.
fn stack_bytes(
    decoder: &Decoder,
    adapter: &Adapter,
    operand: DType,
    tokens: usize,
    sequences: usize,
    checkpoint: bool,
) -> Result<usize> {
    let batch = worst_batch(tokens, sequences);
    let mut measure = Measure::new(operand);
    let pass = Pass { adapter: Some(adapter), keep: true, checkpoint, dropout_key: Some(0) };
    let backend: &mut dyn Backend = &mut measure;
    let weights = vec![0.0; batch.targets.len()];
    let request = HeadRequest::logprobs();
    let mut hidden = decoder.forward(backend, &batch, &pass)?;
    decoder.head(backend, &mut hidden, &batch.targets, &request, None, Some(&weights))?;
    decoder.backward(backend, hidden, &HeadGradients::default(), None, &pass)?;
    Ok(measure.report().stack_peak_bytes)
}

/// A batch in which nothing is shared and everything is read.
fn worst_batch(tokens: usize, sequences: usize) -> Batch {
    // A tree has at most twice as many segments as sequences.
    let count = (2 * sequences).clamp(1, tokens);
    let mut segments = Vec::with_capacity(count);
    for index in 0..count {
        let (start, end) = (tokens * index / count, tokens * (index + 1) / count);
        segments.push(Segment { start, len: end - start, parent: None, row: 0 });
    }
    let reads: Vec<u32> = (0..tokens as u32).collect();
    let target = |read| Target { read, token: 0, sequence: 0, role: 0, weight: 1.0 };
    let mut targets: Vec<Target> = reads.iter().map(|&read| target(read)).collect();
    // A shared last token predicts the first token of every child.
    targets.extend((0..sequences).map(|_| target(tokens as u32 - 1)));
    Batch { tokens: vec![0; tokens], segments, reads, targets }
}
