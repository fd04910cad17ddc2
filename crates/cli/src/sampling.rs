//! The flags that say how answers are sampled.

use clap::Args;

/// How answers are sampled.
#[derive(Args, Clone, Debug)]
pub(crate) struct Sampling {
    /// Maximum length of an answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,

    /// Temperature; 0 always takes the most likely token
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = not_negative)]
    temperature: f32,

    /// Sample from the K most likely tokens; 0 means all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,

    /// Sample from the most likely tokens whose probabilities add up to P
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share)]
    top_p: f32,

    /// End an answer before this text; repeat it for several
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Seed of sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Prompts that are answered at the same time
    #[arg(long, value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
}

impl Sampling {
    /// What the flags say.
    pub(crate) fn read(&self) -> session::Sampling {
        let Sampling { max_new_tokens, temperature, top_k, top_p, stop, seed, batch } = self;
        session::Sampling {
            max_new_tokens: *max_new_tokens as usize,
            temperature: *temperature,
            top_k: *top_k,
            top_p: *top_p,
            seed: *seed,
            stop: stop.clone(),
            is_complete: None,
            batch: usize::from(*batch),
        }
    }
}

fn not_negative(text: &str) -> std::result::Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "a number from 0 on is needed".to_owned())
}

fn share(text: &str) -> std::result::Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|number| *number > 0.0 && *number <= 1.0);
    number.ok_or_else(|| "a number above 0 and at most 1 is needed".to_owned())
}
