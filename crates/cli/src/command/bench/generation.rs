//! Prompts read and answers written, with made-up prompts and lengths that are forced.

use std::time::Instant;

use compute::{Backend, random};
use model::Decoder;
use model::generate::{Counted, Flow, GenerateConfig, Prompt, generate};

use super::clock::{middle, profile};
use super::row::Row;
use super::subject::Subject;
use super::{Arguments, PRECISION};
use crate::context::Context;
use crate::environment::{peak_memory, reset_peak_memory};
use crate::error::Result;
use crate::memory::{Needed, free_memory};

/// Times that an answer is measured at least.
const LEAST: usize = 3;

/// The time from a prompt to the first token of its answer.
pub(super) fn prompt(arguments: &Arguments, subject: &Subject, context: &Context) -> Result<Row> {
    let tokens = arguments.tokens_or(512);
    let lengths = Lengths { shared: 0, prompt: tokens, new: 1 };
    let mut model = Loaded::new(arguments, subject, context, (&[1], lengths))?;
    let times = model.measure(arguments.seconds, 1, lengths)?;
    let seconds = middle(times.iter().map(|time| time.first).collect());
    Ok(Row {
        name: format!("prompt of {tokens} tokens"),
        seconds,
        tokens: Some(tokens as f64),
        peak_host_bytes: peak_memory(),
        more: vec![("sequences", 1.into()), ("tokens", tokens.into())],
        ..Row::default()
    })
}

/// Answers to one prompt and to several at a time.
pub(super) fn answers(
    arguments: &Arguments,
    subject: &Subject,
    context: &Context,
) -> Result<Vec<Row>> {
    let (prompt, new) = (arguments.prompt_tokens as usize, arguments.new_tokens as usize);
    let lengths = Lengths { shared: arguments.shared_in_prompts(), prompt, new };
    let all = arguments.sequences_or(&[1, 16]);
    let mut model = Loaded::new(arguments, subject, context, (&all, lengths))?;
    let config = &subject.base.config;
    let mut rows = Vec::new();
    for sequences in all {
        let times = model.measure(arguments.seconds, sequences, lengths)?;
        let total = middle(times.iter().map(|time| time.total).collect());
        let decoding = middle(times.iter().map(|time| time.total - time.first).collect());
        // The first token of each answer comes out of the prompt.
        let steps = (new - 1) as f64;
        let cached = prompt as f64 + 0.5 * steps;
        let row_bytes = 4 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers;
        // A shared beginning lies in the cache once.
        let own = cached - lengths.shared as f64;
        let cached = lengths.shared as f64 + sequences as f64 * own;
        let cache_bytes = cached * row_bytes as f64;
        let generated = (sequences * new) as f64;
        rows.push(Row {
            name: match lengths.shared {
                0 => format!("decode {sequences} x {new} tokens after {prompt}"),
                shared => {
                    format!("decode {sequences} x {new} tokens after {prompt}, {shared} shared")
                }
            },
            seconds: decoding,
            tokens: Some(sequences as f64 * steps),
            bytes: Some(steps * (model.weight_bytes as f64 + cache_bytes)),
            peak_host_bytes: peak_memory(),
            more: vec![
                ("sequences", sequences.into()),
                ("tokens", new.into()),
                ("prompt_tokens", prompt.into()),
                ("shared", lengths.shared.into()),
                ("seconds_with_prompt", total.into()),
                ("tokens_per_s_with_prompt", (generated / total).into()),
            ],
            ..Row::default()
        });
        if arguments.profile {
            let Loaded { backend, decoder, .. } = &mut model;
            let (prompts, asked) = prompts(decoder.config.vocab_size, sequences, lengths);
            rows.extend(profile(&mut **backend, |backend| {
                let mut go_on = |_, _| Flow::Continue;
                generate(decoder, backend, None, &prompts, &asked, &mut go_on)?;
                Ok(())
            })?);
        }
    }
    Ok(rows)
}

/// Tokens of prompts and answers.
#[derive(Clone, Copy)]
struct Lengths {
    /// That all prompts begin with.
    shared: usize,
    /// Of a prompt, these among them.
    prompt: usize,
    /// Of an answer.
    new: usize,
}

/// A model that answers.
struct Loaded {
    backend: Box<dyn Backend>,
    decoder: Decoder,
    /// Bytes of the weights that every step reads.
    weight_bytes: usize,
}

/// Seconds to the first token of the last answer that begins, and to the end.
struct Times {
    first: f64,
    total: f64,
}

impl Loaded {
    /// Loads the model, unless answering would not fit into memory.
    fn new(
        arguments: &Arguments,
        subject: &Subject,
        context: &Context,
        (sequences, lengths): (&[usize], Lengths),
    ) -> Result<Self> {
        reset_peak_memory();
        let mut backend = context.device(PRECISION)?;
        let options = model::LoadOptions {
            quantization: arguments.quantization.quantization(),
            ..model::LoadOptions::default()
        };
        let counted = Counted::new(&subject.base, None, options.quantization, &*backend)?;
        let mut weight_bytes = 0;
        for &sequences in sequences {
            let (prompts, config) = prompts(counted.config().vocab_size, sequences, lengths);
            let demand = counted.demand(&prompts, config.max_active)?;
            weight_bytes = demand.weights;
            let Lengths { prompt, new, .. } = lengths;
            let what = format!("answering {sequences} prompts of {prompt} tokens with {new}");
            let cures = || {
                "give fewer `--sequences`, shorter `--prompt-tokens` or `--new-tokens`, or a smaller model"
                    .into()
            };
            Needed { what, kinds: &demand.kinds() }.require(free_memory(), cures)?;
        }
        let decoder = Decoder::load_with(&subject.base, &mut *backend, &options)?;
        subject.base.release();
        Ok(Loaded { backend, decoder, weight_bytes })
    }

    fn measure(&mut self, seconds: f64, sequences: usize, lengths: Lengths) -> Result<Vec<Times>> {
        let (prompts, config) = prompts(self.decoder.config.vocab_size, sequences, lengths);
        self.once(&prompts, &config)?;
        let begun = Instant::now();
        let mut times = Vec::new();
        while times.len() < LEAST || begun.elapsed().as_secs_f64() < seconds {
            times.push(self.once(&prompts, &config)?);
        }
        Ok(times)
    }

    fn once(&mut self, prompts: &[Prompt], config: &GenerateConfig) -> Result<Times> {
        let begun = Instant::now();
        let mut waiting = vec![true; prompts.len()];
        let mut first = 0.0;
        let mut on_token = |prompt: usize, _: u32| {
            if std::mem::take(&mut waiting[prompt]) {
                first = begun.elapsed().as_secs_f64();
            }
            Flow::Continue
        };
        generate(&self.decoder, &mut *self.backend, None, prompts, config, &mut on_token)?;
        Ok(Times { first, total: begun.elapsed().as_secs_f64() })
    }
}

/// Made-up prompts, and how they are to be answered.
fn prompts(vocab: usize, sequences: usize, lengths: Lengths) -> (Vec<Prompt>, GenerateConfig) {
    let Lengths { shared, prompt: len, new } = lengths;
    let token = |key, position| {
        let key = if position < shared as u64 { 0 } else { key + 1 };
        (random::key(&[key, position]) % vocab as u64) as u32
    };
    let prompt = |key: u64| Prompt {
        tokens: (0..len as u64).map(|position| token(key, position)).collect(),
        max_new_tokens: new,
        key,
    };
    let config = GenerateConfig { max_active: sequences, ..GenerateConfig::default() };
    ((0..sequences as u64).map(prompt).collect(), config)
}
