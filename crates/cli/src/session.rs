//! A loaded model that answers.

mod stop;

use std::path::Path;
use std::time::Instant;

use clap::Args;
use compute::{Backend, Precision, Quantization};
use data::Supervisor;
use data::record::Prompt;
use model::adapter::{LoadedAdapter, PeftMetadata};
use model::generate::{self, Counted, Demand, Finish, Flow, GenerateConfig, generate};
use model::{Adapter, Base, Decoder};
use serde_json::{Map, Value};
use text::{DecodeStream, Message, Metadata};

use crate::context::Context;
use crate::error::{Failure, Result};
use crate::memory::{Needed, free_memory};
use crate::served::Served;
use hub::Resolved;
use stop::StopScanner;

/// How answers are sampled.
#[derive(Args, Clone, Debug)]
pub(crate) struct Sampling {
    /// Longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_new_tokens: u32,

    /// 0 always takes the most likely token
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = not_negative)]
    pub(crate) temperature: f32,

    /// Only so many of the most likely tokens; 0 means all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) top_k: usize,

    /// Only the most likely tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share)]
    pub(crate) top_p: f32,

    /// Text at which an answer ends, itself not part of it; may be given often
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,

    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,

    /// Prompts that are worked on at the same time
    #[arg(long, value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) batch: u16,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            max_new_tokens: 256,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            stop: Vec::new(),
            seed: 0,
            batch: 32,
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

/// What a model is asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Question {
    /// A dialogue, whose next turn is the answer.
    Dialogue {
        messages: Vec<Message>,
        /// Tools that are offered.
        tools: Option<Value>,
        /// Whether the user says what the system message is. Otherwise the recipe of the model's run does.
        own_system: bool,
    },
    /// A text to be continued as it is.
    Text(String),
    /// Ids that somebody else made of a text.
    Tokens(Vec<u32>),
}

impl Question {
    /// What to show of it: the last turn, or the text.
    pub(crate) fn last(&self) -> String {
        match self {
            Question::Dialogue { messages, .. } => {
                messages.last().map_or(String::new(), |last| last.content.clone())
            }
            Question::Text(text) => text.clone(),
            Question::Tokens(tokens) => format!("{} tokens", tokens.len()),
        }
    }
}

/// What a model said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// The text, stop string and special tokens left out.
    pub(crate) text: String,
    /// New tokens, the one that ended it included.
    pub(crate) tokens: usize,
    /// `stop` (end of turn, or a stop string), `length` or `interrupted`.
    pub(crate) finish: &'static str,
    /// Tokens of the question.
    pub(crate) prompt_tokens: usize,
}

/// Answers, and how fast they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answers {
    /// In the order of the questions.
    pub(crate) answers: Vec<Answer>,
    /// New tokens a second, over all.
    pub(crate) tokens_per_s: f64,
}

/// A base, perhaps with an adapter, that answers. Its weights are loaded once it is known what they are asked.
pub(crate) struct Session {
    base: Base,
    backend: Box<dyn Backend>,
    model: Model,
    /// The model on a device that only counts.
    counted: Counted,
    has_adapter: bool,
    metadata: Metadata,
    /// Renders dialogues as training does; none without a chat template.
    supervisor: Option<Supervisor>,
    /// System message of dialogues that bring none.
    system: Option<String>,
    /// How the user sets the number of prompts that are worked on at the same time.
    pub(crate) batch_flag: &'static str,
    /// `bf16`, `q4_1`, ...: how most weights of the base are stored.
    pub(crate) storage: String,
}

/// The weights of a session.
enum Model {
    /// Still in their files; the adapter's are on the host.
    Waiting(Option<LoadedAdapter>, Option<Quantization>),
    /// On the device.
    Loaded(Box<(Decoder, Option<Adapter>)>),
}

impl Session {
    /// Opens a model, with the template, its variables and the date that its adapter was
    /// trained with.
    pub(crate) fn open(context: &Context, model: &Resolved, served: &Served) -> Result<Self> {
        let own = Trained::read(model.adapter.as_deref().unwrap_or(&model.path))?;
        let date = own.date.as_deref().and_then(|date| date.parse().ok());
        let date = date.unwrap_or_else(|| context.today());
        let base = Base::open(&model.path)?;
        for remark in &base.remarks {
            context.terminal.note(&format!("{}; {}", remark.message, remark.hint));
        }
        let mut metadata = base.metadata_with(model.adapter.as_deref(), date)?;
        let backend = context.device(Precision::Bf16)?;
        let folder = model.adapter.as_ref();
        let adapter = folder.map(|folder| read_adapter(context, &base, folder)).transpose()?;
        // As it was trained, so it is served.
        let quantization = own.quantization.filter(|_| adapter.is_some());
        let counted = Counted::new(&base, adapter.as_ref(), quantization, &*backend)?;

        let mut kwargs = own.template_kwargs;
        if let Some(recipe) = &served.recipe {
            train::trainer::use_template(recipe, &mut metadata, date)?;
            kwargs = train::trainer::template_kwargs(recipe);
        }
        let supervisor = metadata
            .chat_template
            .is_some()
            .then(|| Supervisor::for_prompts(&metadata, kwargs).with(served.options.clone()));
        let (system, storage) = (served.system().map(str::to_owned), base.storage_name()?);
        Ok(Session {
            base,
            backend,
            has_adapter: adapter.is_some(),
            model: Model::Waiting(adapter, quantization),
            counted,
            metadata,
            supervisor,
            system,
            batch_flag: "--batch",
            storage,
        })
    }

    /// Whether there is an adapter over the base.
    pub(crate) fn has_adapter(&self) -> bool {
        self.has_adapter
    }

    /// Loads the weights, unless answering these prompts would not fit into memory.
    pub(crate) fn load(&mut self, prompts: &[Vec<u32>], sampling: &Sampling) -> Result<()> {
        let asked = self.asked(prompts, sampling);
        self.require_room(&asked, usize::from(sampling.batch))?;
        let Model::Waiting(adapter, quantization) = &mut self.model else { return Ok(()) };
        let quantization = *quantization;
        let (decoder, adapter) = match adapter.take() {
            Some(adapter) => {
                let (decoder, adapter) =
                    adapter.load(&self.base, &mut *self.backend, quantization, None)?;
                (decoder, Some(adapter))
            }
            None => (Decoder::load(&self.base, &mut *self.backend)?, None),
        };
        self.model = Model::Loaded(Box::new((decoder, adapter)));
        Ok(())
    }

    /// Refuses prompts that memory is too small for, with what to change.
    fn require_room(&self, asked: &[generate::Prompt], batch: usize) -> Result<()> {
        let is_loaded = matches!(self.model, Model::Loaded(..));
        let needed = |batch: usize| -> Result<Demand> {
            let demand = self.counted.demand(asked, batch)?;
            Ok(match is_loaded {
                true => Demand {
                    weights: 0,
                    activations: demand.activations.saturating_sub(self.backend.reserved()),
                    ..demand
                },
                false => demand,
            })
        };
        let active = asked.len().min(batch);
        let (demand, limit) = (needed(active)?, free_memory());
        if demand.total() <= limit {
            return Ok(());
        }
        let mut fewer = active / 2;
        while fewer > 0 && needed(fewer)?.total() > limit {
            fewer /= 2;
        }
        let longest = asked.iter().map(|prompt| prompt.tokens.len() + prompt.max_new_tokens).max();
        let what = format!(
            "answering {active} prompt{} at a time, of up to {} tokens with the answer,",
            if active == 1 { "" } else { "s" },
            longest.unwrap_or(0)
        );
        let kinds = demand.kinds();
        Needed { what, kinds: &kinds }.require(limit, || match fewer {
            0 if demand.weights > demand.cache => {
                "a smaller model fits, or one stored in fewer bits: a GGUF or bitsandbytes file"
                    .into()
            }
            0 => "lower `--max-new-tokens`, or shorten the prompt".into(),
            fewer => format!("`{}` {fewer} fits", self.batch_flag),
        })
    }

    /// The tokens of a question.
    pub(crate) fn encode(&self, question: &Question) -> Result<Vec<u32>> {
        let tokenizer = &self.metadata.tokenizer;
        let tokens = match question {
            Question::Text(text) => tokenizer.encode_with_special(text)?,
            Question::Tokens(tokens) => tokens.clone(),
            Question::Dialogue { messages, tools, own_system } => {
                self.prompt(messages, tools.as_ref(), *own_system)?
            }
        };
        let config = self.counted.config();
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
            let message = format!("token {token} is beyond the model's {}", config.vocab_size);
            return Err(Failure::new("tokenizer", message)
                .hint("the tokenizer does not belong to this model"));
        }
        let longest = config.max_position_embeddings;
        match tokens.len() {
            0 => Err(Failure::wrong("empty_prompt", "the prompt is empty")),
            n if n >= longest => Err(Failure::wrong(
                "prompt_too_long",
                format!("the prompt has {n} tokens, and the model takes {longest} with the answer"),
            )),
            _ => Ok(tokens),
        }
    }

    /// The tokens of a dialogue, from the code that makes the rows of training.
    fn prompt(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        own_system: bool,
    ) -> Result<Vec<u32>> {
        let supervisor = self.supervisor.as_ref().ok_or_else(|| {
            Failure::wrong("chat_template", "the model has no chat template")
                .hint("`--raw` continues the text as it is")
        })?;
        let mut prompt = Prompt::of_messages(messages.to_vec(), tools.cloned());
        let tokens = match own_system {
            true => supervisor.clone().with_own_system().prompt_tokens(&prompt),
            false => {
                prompt.add_system(self.system.as_deref());
                supervisor.prompt_tokens(&prompt)
            }
        };
        tokens.map_err(|error| Failure::new("chat_template", error.message).or_hint(error.hint))
    }

    fn asked(&self, prompts: &[Vec<u32>], sampling: &Sampling) -> Vec<generate::Prompt> {
        let longest = self.counted.config().max_position_embeddings;
        let prompt = |(index, tokens): (usize, &Vec<u32>)| generate::Prompt {
            tokens: tokens.clone(),
            max_new_tokens: (sampling.max_new_tokens as usize).min(longest - tokens.len()),
            key: index as u64,
        };
        prompts.iter().enumerate().map(prompt).collect()
    }

    /// Answers all prompts; `on_text` sees every piece of text as (prompt, piece) and may end
    /// the answer. `with_adapter` without an adapter is the base.
    pub(crate) fn answer(
        &mut self,
        prompts: &[Vec<u32>],
        sampling: &Sampling,
        with_adapter: bool,
        on_text: &mut dyn FnMut(usize, &str) -> Flow,
    ) -> Result<Answers> {
        self.load(prompts, sampling)?;
        let begun = Instant::now();
        let asked = self.asked(prompts, sampling);
        let config = GenerateConfig {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            seed: sampling.seed,
            stop_tokens: self.metadata.eos_token_ids.clone(),
            max_active: usize::from(sampling.batch),
        };
        let tokenizer = &self.metadata.tokenizer;
        let voice = || Voice::new(tokenizer.decode_stream(true), &sampling.stop);
        let mut voices: Vec<Voice<'_>> = prompts.iter().map(|_| voice()).collect();
        let mut failed = None;
        let mut on_token = |prompt: usize, token: u32| {
            if config.stop_tokens.contains(&token) {
                return Flow::Continue;
            }
            let mut say = |text: &str| on_text(prompt, text);
            voices[prompt].push(token, &mut say).unwrap_or_else(|error| {
                failed = Some(error);
                Flow::Stop
            })
        };
        let Model::Loaded(loaded) = &self.model else {
            unreachable!("the weights were loaded above");
        };
        let (decoder, adapter) = &**loaded;
        let adapter = adapter.as_ref().filter(|_| with_adapter);
        let backend = &mut *self.backend;
        let completions = generate(decoder, backend, adapter, &asked, &config, &mut on_token)?;
        if let Some(error) = failed {
            return Err(error);
        }
        let mut answers = Vec::with_capacity(prompts.len());
        for (index, (completion, mut voice)) in completions.iter().zip(voices).enumerate() {
            voice.flush(&mut |text| on_text(index, text))?;
            let finish = match completion.finish {
                _ if voice.is_interrupted => "interrupted",
                Finish::Stop => "stop",
                Finish::Length => "length",
            };
            let tokens = completion.tokens.len();
            let prompt_tokens = prompts[index].len();
            answers.push(Answer { text: voice.text, tokens, finish, prompt_tokens });
        }
        let tokens: usize = answers.iter().map(|answer| answer.tokens).sum();
        let tokens_per_s = tokens as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        Ok(Answers { answers, tokens_per_s })
    }
}

/// One answer as it comes into being.
struct Voice<'a> {
    stream: DecodeStream<'a>,
    scanner: StopScanner<'a>,
    text: String,
    is_interrupted: bool,
}

impl<'a> Voice<'a> {
    fn new(stream: DecodeStream<'a>, stops: &'a [String]) -> Self {
        let scanner = StopScanner::new(stops);
        Voice { stream, scanner, text: String::new(), is_interrupted: false }
    }

    fn push(&mut self, token: u32, say: &mut dyn FnMut(&str) -> Flow) -> Result<Flow> {
        let Some(piece) = self.stream.push(token)? else { return Ok(Flow::Continue) };
        Ok(self.hear(&piece, say))
    }

    /// Gives out what was held back for the sake of a character or a stop string.
    fn flush(&mut self, say: &mut dyn FnMut(&str) -> Flow) -> Result<()> {
        if self.scanner.is_over() {
            return Ok(());
        }
        if let Some(piece) = self.stream.flush()? {
            self.hear(&piece, say);
        }
        let rest = self.scanner.finish();
        self.give(&rest, say);
        Ok(())
    }

    fn hear(&mut self, piece: &str, say: &mut dyn FnMut(&str) -> Flow) -> Flow {
        let certain = self.scanner.push(piece);
        let flow = self.give(&certain, say);
        if self.scanner.is_over() { Flow::Stop } else { flow }
    }

    fn give(&mut self, text: &str, say: &mut dyn FnMut(&str) -> Flow) -> Flow {
        if text.is_empty() {
            return Flow::Continue;
        }
        self.text.push_str(text);
        let flow = say(text);
        self.is_interrupted |= flow == Flow::Stop;
        flow
    }
}

/// What an adapter folder of Tunesmith's says about how it was trained.
#[derive(Default)]
struct Trained {
    date: Option<String>,
    template_kwargs: Map<String, Value>,
    /// How the base was kept.
    quantization: Option<Quantization>,
}

impl Trained {
    fn read(adapter: &Path) -> Result<Self> {
        let read = |path: &Path| -> Result<Option<Value>> {
            let Ok(bytes) = std::fs::read(path) else { return Ok(None) };
            let json = serde_json::from_slice(&bytes).map_err(|error| {
                Failure::new("model_file", format!("{}: not JSON: {error}", path.display()))
                    .at(path)
            })?;
            Ok(Some(json))
        };
        let own = read(&adapter.join("tunesmith.json"))?.unwrap_or_default();
        let date = own["date"].as_str().map(str::to_owned);
        let template_kwargs = own["template_kwargs"].as_object().cloned().unwrap_or_default();
        let quantization = match own["quantization"].as_str() {
            Some("nf4") => Some(Quantization::Nf4),
            Some("int8") => Some(Quantization::Int8),
            _ => None,
        };
        Ok(Trained { date, template_kwargs, quantization })
    }
}

/// The adapter of a folder, with a warning where it was trained over another base.
fn read_adapter(context: &Context, base: &Base, folder: &Path) -> Result<LoadedAdapter> {
    let loaded = LoadedAdapter::read(folder, &base.config)?;
    let trained_over = PeftMetadata::read(folder)?.base_hash;
    if trained_over.is_some_and(|hash| base.hash().is_ok_and(|own| own != hash)) {
        context.terminal.warn(&format!(
            "{} was trained over other weights than {}: its answers will differ",
            folder.display(),
            base.path.display()
        ));
    }
    Ok(loaded)
}
