//! `tunesmith bench`: how fast this machine trains and answers, beside what it could at best.

mod clock;
mod generation;
mod kernels;
mod machine;
mod made_up;
mod passes;
mod row;
mod subject;
mod training;

use clap::{Args, ValueEnum};
use compute::Precision;
use serde_json::json;
use train::method::{METHODS, Method};

use crate::context::Context;
use crate::error::{Failure, Result};
use crate::terminal::style::{bytes, count};
use machine::Machine;
use row::{Row, tell};
use subject::{Kept, SHAPES, Subject};

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith bench
  tunesmith bench HuggingFaceTB/SmolLM2-135M-Instruct --only train,decode
  tunesmith bench --shape llama-3.1-8b --quantization nf4 --rank 64 --optimizer adamw8bit \\
      --only train --sequences 1 --tokens 512
  tunesmith bench --only train --profile
  tunesmith bench --only train --method dpo --tokens 512 --shared 256 --profile
  tunesmith bench --only train --method grpo --sequences 2 --tokens 128 --shared 64 --profile

A method that learns from pairs is measured over made-up pairs, whose answers share `--shared` tokens
of a prompt; one that learns from judged answers over as many answers. One that samples its answers
draws `--group` of them to each prompt, and trains on as many. The share of the peak is useful floating point operations (what backward computes again is not
counted) over what the machine's own kernel reaches in its first-level cache; decoding is
compared with the bandwidth at which the machine reads memory. Close other programs first.";

/// What `bench` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A Hugging Face folder, .gguf file or hub id [default: the shape of SmolLM2-135M]
    #[arg(value_name = "MODEL", conflicts_with = "shape")]
    model: Option<String>,

    /// A known shape with made-up weights in place of a model
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(SHAPES.map(|(name, _)| name)))]
    shape: Option<String>,

    /// Only these parts
    #[arg(long, value_name = "PART,...", value_delimiter = ',')]
    only: Vec<Part>,

    /// How linear layers are kept; the GGUF types for `--shape` only
    #[arg(long, value_name = "TYPE", default_value = "none")]
    quantization: Kept,

    /// The method of training
    #[arg(long, value_name = "METHOD", default_value = "sft", value_parser = method())]
    method: String,

    /// What is trained: an adapter over the model, or with none the model itself
    #[arg(long, value_name = "TYPE", default_value = "lora")]
    adapter: Adapter,

    /// Rank of the adapter, on all linear layers
    #[arg(long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    rank: u16,

    /// The optimizer of training
    #[arg(long, value_name = "NAME", default_value = "adamw")]
    optimizer: OptimizerName,

    /// Tokens of a row or of an answer with its prompt in training, and of the prompt that is answered
    /// [default: 256 and 512]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    tokens: Option<u32>,

    /// Rows or pairs of a step, prompts answered at a time; several are measured one after another
    /// [default: 8 for training, 1,16 for answering]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    sequences: Vec<u16>,

    /// How many tokens all rows of a step (they are not learned) and all prompts begin with; of pairs and
    /// judged answers, tokens of each prompt [default: 0, of pairs and judged answers half of `--tokens`]
    #[arg(long, value_name = "N")]
    shared: Option<u32>,

    /// Answers to each prompt, of a method that samples its answers
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    group: u16,

    /// Compute a shared beginning for every row
    #[arg(long)]
    unshared: bool,

    /// Most tokens computed at a time in training
    #[arg(long, value_name = "N", default_value_t = 1024)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    micro_batch_tokens: u32,

    /// Keep only what stands between layers, and compute the rest again
    #[arg(long)]
    checkpointing: bool,

    /// Tokens of every prompt that is answered
    #[arg(long, value_name = "N", default_value_t = 48)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    prompt_tokens: u32,

    /// Tokens of every answer
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    new_tokens: u32,

    /// How long each training step or answer is measured, at least; kernels a quarter of it
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = positive)]
    seconds: f64,

    /// Say where the time of training and answering goes, operation by operation
    #[arg(long)]
    profile: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Matrix products of a layer, forward and input gradient.
    Gemm,
    /// Attention, forward and backward.
    Attention,
    /// Loss and gradient of the output layer.
    Head,
    /// A training step.
    Train,
    /// The time to an answer's first token.
    Prompt,
    /// Tokens of answers.
    Decode,
}

impl Part {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Adapter {
    /// LoRA on all linear layers.
    Lora,
    /// The whole model.
    None,
}

/// Methods that can be measured; `pretrain` is `sft` over rows of which all is learned.
fn method() -> clap::builder::PossibleValuesParser {
    // A step of `pretrain` is one of `sft`, and rows with labels are not made up.
    let measured = |method: &&&Method| !["pretrain", "classify"].contains(&method.name);
    let names = METHODS.iter().filter(measured).map(|method| method.name);
    clap::builder::PossibleValuesParser::new(names.collect::<Vec<_>>())
}

/// Optimizers whose cost differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OptimizerName {
    /// Moments in 32 bits.
    Adamw,
    /// Moments in 8 bits.
    Adamw8bit,
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "a number above 0 is needed".to_owned())
}

impl Arguments {
    fn measures(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn sequences_or(&self, default: &[usize]) -> Vec<usize> {
        match self.sequences.as_slice() {
            [] => default.to_vec(),
            given => given.iter().map(|&n| usize::from(n)).collect(),
        }
    }

    fn tokens_or(&self, default: usize) -> usize {
        self.tokens.map_or(default, |tokens| tokens as usize)
    }

    fn method(&self) -> &'static Method {
        train::method::named(&self.method).expect("only known names are parsed")
    }

    /// Tokens that the rows of a step, or the answers to a prompt, begin with.
    fn shared_in_training(&self) -> usize {
        let method = self.method();
        let answers = method.records.compares_answers() || method.online.is_some();
        let usual = if answers { self.tokens_or(256) / 2 } else { 0 };
        self.shared.map_or(usual, |shared| shared as usize)
    }

    /// Tokens that the prompts to be answered begin with.
    fn shared_in_prompts(&self) -> usize {
        self.shared.map_or(0, |shared| shared as usize)
    }

    fn check(&self) -> Result<()> {
        let wrong = |message: &str, hint: &str| {
            Err(Failure::wrong("arguments", message.to_owned()).hint(hint))
        };
        if self.adapter == Adapter::None && self.quantization != Kept::None {
            let hint = "leave `--quantization` out, or train an adapter: `--adapter lora`";
            return wrong("a quantised model cannot be trained itself", hint);
        }
        let method = self.method();
        let has_head = method.has_scalar_head || method.has_value_head;
        let needs_adapter = has_head || train::models::has_reference(method);
        if self.adapter == Adapter::None && needs_adapter {
            let message = format!("method `{}` trains an adapter only", method.name);
            return wrong(&message, "leave `--adapter` out");
        }
        if self.measures(Part::Train) && self.shared_in_training() >= self.tokens_or(256) {
            let hint = "`--tokens` counts a row with its shared beginning";
            return wrong("`--shared` leaves nothing of a row", hint);
        }
        let shared = self.shared_in_prompts();
        if self.measures(Part::Decode) && shared > 0 && shared >= self.prompt_tokens as usize {
            let hint = "`--prompt-tokens` counts a prompt with its shared beginning";
            return wrong("`--shared` leaves nothing of a prompt", hint);
        }
        Ok(())
    }
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    arguments.check()?;
    let subject = Subject::find(arguments, context)?;
    let mut machine = Machine::measure(context)?;
    let terminal = &context.terminal;
    terminal.note(&format!(
        "{}, {} threads: {:.0} GFLOP/s at best, {:.1} GB/s read, {:.1} GB/s copied",
        machine.device.isa,
        machine.device.threads,
        machine.peak_flops * 1e-9,
        machine.read_bytes_per_s * 1e-9,
        machine.copy_bytes_per_s * 1e-9
    ));
    terminal.note(&format!(
        "{}: {} parameters, {}",
        subject.name,
        count(subject.base.config.parameter_count() as u64),
        subject.kept
    ));
    let mut rows: Vec<Row> = Vec::new();
    for part in Part::value_variants().iter().filter(|&&part| arguments.measures(part)) {
        let measured = match part {
            Part::Gemm => kernels::products(arguments, &subject, context)?,
            Part::Attention => vec![kernels::attention(arguments, &subject, context)?],
            Part::Head => vec![kernels::head(arguments, &subject, context)?],
            Part::Train => training::steps(arguments, &subject, context)?,
            Part::Prompt => vec![generation::prompt(arguments, &subject, context)?],
            Part::Decode => generation::answers(arguments, &subject, context)?,
        };
        machine.look_again(context)?;
        let named = measured.into_iter().map(|row| Row { part: part.name(), ..row });
        rows.extend(named);
    }
    tell(&rows, &machine, terminal);
    let peak = crate::environment::peak_memory().map(|peak| bytes(peak as u64));
    peak.iter().for_each(|peak| terminal.note(&format!("peak memory of the last part: {peak}")));
    let rows: Vec<_> = rows.iter().map(|row| row.to_json(&machine)).collect();
    let model = json!({
        "name": subject.name, "parameters": subject.base.config.parameter_count(),
        "storage": subject.kept,
    });
    terminal.result(json!({"machine": machine.to_json(), "model": model, "rows": rows}));
    Ok(0)
}

/// The precision that is measured where nobody says.
const PRECISION: Precision = Precision::Bf16;
