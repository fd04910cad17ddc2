//! Generation: prompts in, tokens out, many at a time, with keys and values kept.
//!
//! Every step is an ordinary forward pass, so a token gets the same bits here as in
//! training, alone or among others.

mod demand;
mod lanes;

use compute::measure::Measure;
use compute::op::{Op, Sample};
use compute::{Backend, Buffer, DType};

use crate::{Adapter, Decoder, Error, Pass, Result};
pub use demand::{Counted, Demand};
use lanes::{Lanes, Work};

/// Tokens of prompts that one step takes in beside the tokens being generated.
const PREFILL_TOKENS: usize = 512;

/// A common beginning at least this long is computed once for all prompts.
const SHARED_TOKENS: usize = 16;

/// One text to be continued.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// Its tokens, at least one.
    pub tokens: Vec<u32>,
    /// At most this many are added.
    pub max_new_tokens: usize,
    /// Identity of the prompt (and of the completion, if it has several): the key of its draws.
    pub key: u64,
}

/// How tokens are chosen and when generation ends.
#[derive(Clone, Debug)]
pub struct GenerateConfig {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Only this many of the most likely tokens; 0 means all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability.
    pub top_p: f32,
    /// Seed of all draws.
    pub seed: u64,
    /// Tokens that end a completion; they are its last token.
    pub stop_tokens: Vec<u32>,
    /// Sequences that run at the same time.
    pub max_active: usize,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        GenerateConfig {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
            stop_tokens: Vec::new(),
            max_active: 32,
        }
    }
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token, or the caller said so.
    Stop,
    /// `max_new_tokens`.
    Length,
}

/// What was generated for one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The new tokens, the stop token included.
    pub tokens: Vec<u32>,
    /// Log-probability of each at the temperature of the draws (1 where that is 0).
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// What the caller of [`generate`] wants after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on with this prompt.
    Continue,
    /// End this completion.
    Stop,
}

/// Continues every prompt. `on_token` sees each new token as (prompt index, token).
pub fn generate(
    decoder: &Decoder,
    backend: &mut dyn Backend,
    adapter: Option<&Adapter>,
    prompts: &[Prompt],
    config: &GenerateConfig,
    on_token: &mut dyn FnMut(usize, u32) -> Flow,
) -> Result<Vec<Completion>> {
    let longest = prompts.iter().map(|p| p.tokens.len() + p.max_new_tokens).max().unwrap_or(0);
    if longest == 0 {
        return Ok(Vec::new());
    }
    decoder.check_length(longest)?;
    check_tokens(prompts, decoder.config.vocab_size)?;
    let mut lanes = Lanes::new(prompts, config.max_active, decoder.config.long_beyond());
    reserve(decoder, backend, adapter, &lanes)?;
    let cache = Cache::new(decoder, backend, lanes.slots())?;
    let result = run(decoder, backend, adapter, &mut lanes, &cache, config, on_token);
    cache.free(backend);
    result?;
    Ok(lanes.into_completions())
}

fn check_tokens(prompts: &[Prompt], vocab: usize) -> Result<()> {
    for (index, prompt) in prompts.iter().enumerate() {
        let strange = prompt.tokens.iter().find(|&&token| token as usize >= vocab);
        let message = match strange {
            Some(token) => {
                format!("prompt {index} has token {token}, but the vocabulary has {vocab}")
            }
            None if prompt.tokens.is_empty() => format!("prompt {index} has no tokens"),
            None => continue,
        };
        return Err(Error::Input { message, hint: None });
    }
    Ok(())
}

fn run(
    decoder: &Decoder,
    backend: &mut dyn Backend,
    adapter: Option<&Adapter>,
    lanes: &mut Lanes<'_>,
    cache: &Cache,
    config: &GenerateConfig,
    on_token: &mut dyn FnMut(usize, u32) -> Flow,
) -> Result<()> {
    while let Some(work) = lanes.next_work(PREFILL_TOKENS) {
        let (tokens, logprobs) = step(decoder, backend, adapter, &work, &cache.layers, config)?;
        for ((&lane, token), logprob) in work.lanes.iter().zip(tokens).zip(logprobs) {
            let prompt = lanes.push(lane, token, logprob);
            let flow = on_token(prompt, token);
            if config.stop_tokens.contains(&token) || flow == Flow::Stop {
                lanes.finish(lane, Finish::Stop);
            } else if lanes.is_full(lane) {
                lanes.finish(lane, Finish::Length);
            }
        }
    }
    Ok(())
}

/// One forward pass and a draw at each of its reads.
fn step(
    decoder: &Decoder,
    backend: &mut dyn Backend,
    adapter: Option<&Adapter>,
    work: &Work,
    cache: &[(Buffer, Buffer)],
    config: &GenerateConfig,
) -> Result<(Vec<u32>, Vec<f32>)> {
    let inputs = work.inputs(cache);
    let pass = Pass { adapter, ..Pass::default() };
    let hidden = decoder.forward_inputs(backend, &inputs, &pass)?;
    let rows = hidden.reads();
    let mut tokens = vec![0; rows];
    let mut logprobs = vec![0.0; rows];
    if rows > 0 {
        let logits = decoder.logits(backend, &hidden)?;
        let settings = backend.alloc(Sample::SETTINGS * rows, DType::F32)?;
        backend.upload(&settings_of(work, config), settings)?;
        let drawn = backend.alloc(rows, DType::U32)?;
        let drawn_logprobs = backend.alloc(rows, DType::F32)?;
        backend.run(Op::Sample(Sample {
            vocab: decoder.config.vocab_size,
            logits,
            softcap: decoder.config.logit_softcap,
            settings,
            allowed: None,
            seen: None,
            tokens: drawn,
            logprobs: drawn_logprobs,
            top: None,
        }))?;
        backend.read_u32(drawn, &mut tokens)?;
        backend.read(drawn_logprobs, &mut logprobs)?;
    }
    hidden.release(backend);
    Ok((tokens, logprobs))
}

/// Keeps draws apart from every other use of the seed.
const PURPOSE_SAMPLE: u64 = 0x7361_6d70;

fn settings_of(work: &Work, config: &GenerateConfig) -> Vec<f32> {
    let draws = work.draws.iter().map(|&(key, position)| {
        compute::random::uniform(compute::random::key(&[
            config.seed,
            PURPOSE_SAMPLE,
            key,
            position,
        ]))
    });
    let GenerateConfig { temperature, top_k, top_p, .. } = *config;
    draws.flat_map(|draw| [temperature, top_k as f32, top_p, 0.0, 1.0, draw]).collect()
}

/// Makes the stack as large as the largest step needs.
fn reserve(
    decoder: &Decoder,
    backend: &mut dyn Backend,
    adapter: Option<&Adapter>,
    lanes: &Lanes<'_>,
) -> Result<()> {
    let mut measure = Measure::new(backend.operand());
    let layers: Vec<(Buffer, Buffer)> = Cache::new(decoder, &mut measure, lanes.slots())?.layers;
    let work = lanes.largest_work(PREFILL_TOKENS);
    step(decoder, &mut measure, adapter, &work, &layers, &GenerateConfig::default())?;
    let needed = measure.report().stack_peak_bytes;
    if backend.reserved() < needed {
        backend.reserve(needed)?;
    }
    Ok(())
}

/// Keys and values of all layers, `[slots, KV * D]` each.
struct Cache {
    layers: Vec<(Buffer, Buffer)>,
}

impl Cache {
    fn new(decoder: &Decoder, backend: &mut dyn Backend, slots: usize) -> Result<Self> {
        let row = decoder.config.num_key_value_heads * decoder.config.head_dim;
        let operand = backend.operand();
        let mut layers = Vec::with_capacity(decoder.config.num_hidden_layers);
        for _ in 0..decoder.config.num_hidden_layers {
            let keys = backend.alloc_static(slots * row, operand)?;
            layers.push((keys, backend.alloc_static(slots * row, operand)?));
        }
        Ok(Cache { layers })
    }

    fn free(self, backend: &mut dyn Backend) {
        for (keys, values) in self.layers {
            backend.free_static(keys);
            backend.free_static(values);
        }
    }
}
