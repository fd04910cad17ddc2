//! A model with its device: it is loaded once it is known what it is asked.

use compute::{Backend, Device, Quantization};
use data::record;
use data::{SupervisionOptions, Supervisor};
use model::adapter::LoadedAdapter;
use model::generate::{Counted, Demand, Flow};
use model::{Adapter, Base, Decoder};
use serde_json::Value;
use text::{Message, Metadata};

use crate::answer::{Answer, Prompt, Sampling, Speaker, Token, asked};
use crate::{Error, Opened, Question, Result};

/// How dialogues are shown to the model.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// What becomes of system messages and of reasoning.
    pub options: SupervisionOptions,
    /// System message of dialogues that bring none.
    pub system: Option<String>,
}

/// A base, perhaps with an adapter, that answers. Its weights are loaded once it is known what they are asked.
pub struct Session {
    base: Base,
    backend: Box<dyn Backend>,
    model: Model,
    /// The model on a device that only counts.
    counted: Counted,
    has_adapter: bool,
    /// Whether the adapter brings whole tensors, which take the place of the base's.
    replaces_base: bool,
    metadata: Metadata,
    /// Renders dialogues as training does; none without a chat template.
    supervisor: Option<Supervisor>,
    system: Option<String>,
    free_memory: fn() -> usize,
    storage: String,
}

/// The weights of a session.
enum Model {
    /// Still in their files; the adapter's are on the host.
    Waiting(Option<LoadedAdapter>, Option<Quantization>),
    /// On the device.
    Loaded(Box<(Decoder, Option<Adapter>)>),
}

impl Session {
    /// A session on a device. `free_memory` says how many bytes may still be taken.
    pub fn new(
        opened: Opened,
        manner: Manner,
        backend: Box<dyn Backend>,
        free_memory: fn() -> usize,
    ) -> Result<Self> {
        let Opened { base, metadata, serving, adapter, .. } = opened;
        // As it was trained, so it is served.
        let quantization = serving.quantization().filter(|_| adapter.is_some());
        let counted = Counted::new(&base, adapter.as_ref(), quantization, &*backend)?;
        let supervisor = metadata.chat_template.is_some().then(|| {
            Supervisor::for_prompts(&metadata, serving.template_kwargs).with(manner.options)
        });
        let storage = base.storage_name()?;
        Ok(Session {
            base,
            backend,
            has_adapter: adapter.is_some(),
            replaces_base: adapter.as_ref().is_some_and(|own| !own.replaced.is_empty()),
            model: Model::Waiting(adapter, quantization),
            counted,
            metadata,
            supervisor,
            system: manner.system,
            free_memory,
            storage,
        })
    }

    /// Whether there is an adapter over the base.
    pub fn has_adapter(&self) -> bool {
        self.has_adapter
    }

    /// Refuses to have the base answer without its adapter where its own tensors are not loaded.
    pub fn require_base(&self) -> Result<()> {
        if self.replaces_base { Err(Error::BaseReplaced) } else { Ok(()) }
    }

    /// How most weights of the base are stored: `bf16`, `q4_1`, ...
    pub fn storage(&self) -> &str {
        &self.storage
    }

    /// The base.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.backend.device()
    }

    /// Tokenizer and template.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Loads the weights, unless answering these prompts would not fit into memory.
    pub fn load(&mut self, prompts: &[Prompt], sampling: &Sampling) -> Result<()> {
        self.require_room(prompts, sampling)?;
        self.loaded().map(|_| ())
    }

    /// The device, and the model on it, whose weights are loaded if they are not yet.
    pub fn loaded(&mut self) -> Result<(&mut dyn Backend, Speaker<'_>)> {
        if let Model::Waiting(adapter, quantization) = &mut self.model {
            let (quantization, backend) = (*quantization, &mut *self.backend);
            let (decoder, adapter) = match adapter.take() {
                Some(adapter) => {
                    let (decoder, adapter) =
                        adapter.load(&self.base, backend, quantization, None)?;
                    (decoder, Some(adapter))
                }
                None => (Decoder::load(&self.base, backend)?, None),
            };
            self.model = Model::Loaded(Box::new((decoder, adapter)));
        }
        let Model::Loaded(loaded) = &self.model else { unreachable!("it was loaded above") };
        let (decoder, adapter) = &**loaded;
        let speaker = Speaker { decoder, adapter: adapter.as_ref(), metadata: &self.metadata };
        Ok((&mut *self.backend, speaker))
    }

    /// The tokens of a question.
    pub fn encode(&self, question: &Question) -> Result<Vec<u32>> {
        let tokenizer = &self.metadata.tokenizer;
        let tokens = match question {
            Question::Text(text) => tokenizer.encode_with_special(text)?,
            Question::Tokens(tokens) => tokens.clone(),
            Question::Dialogue { messages, tools, own_system } => {
                self.dialogue(messages, tools.as_ref(), *own_system)?
            }
        };
        let config = self.counted.config();
        let (vocab_size, longest) = (config.vocab_size, config.max_position_embeddings);
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(Error::Vocabulary { token, vocab_size });
        }
        match tokens.len() {
            0 => Err(Error::Empty),
            n if n >= longest => Err(Error::TooLong { tokens: n, longest }),
            _ => Ok(tokens),
        }
    }

    /// The tokens of a dialogue, from the code that makes the rows of training.
    fn dialogue(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        own_system: bool,
    ) -> Result<Vec<u32>> {
        let supervisor = self.supervisor.as_ref().ok_or(Error::NoTemplate)?;
        let mut prompt = record::Prompt::of_messages(messages.to_vec(), tools.cloned());
        let tokens = match own_system {
            true => supervisor.clone().with_own_system().prompt_tokens(&prompt),
            false => {
                prompt.add_system(self.system.as_deref());
                supervisor.prompt_tokens(&prompt)
            }
        };
        tokens.map_err(|error| Error::Template { message: error.message, hint: error.hint })
    }

    /// Refuses prompts that memory is too small for, before a weight is loaded.
    pub fn require_room(&self, prompts: &[Prompt], sampling: &Sampling) -> Result<()> {
        let asked = asked(prompts, sampling, self.counted.config().max_position_embeddings);
        let active = asked.len().min(sampling.batch);
        let needed = |batch: usize| -> Result<Demand> {
            let demand = self.counted.demand(&asked, batch)?;
            Ok(match &self.model {
                Model::Waiting(..) => demand,
                Model::Loaded(_) => demand.beyond(self.backend.reserved()),
            })
        };
        let (demand, limit) = (needed(active)?, (self.free_memory)());
        if demand.total() <= limit {
            return Ok(());
        }
        let mut fits = active / 2;
        while fits > 0 && needed(fits)?.total() > limit {
            fits /= 2;
        }
        let longest = asked.iter().map(|prompt| prompt.tokens.len() + prompt.max_new_tokens).max();
        Err(Error::Room { active, longest: longest.unwrap_or(0), demand, limit, fits })
    }

    /// Answers all prompts; `on_token` hears of every token, and may end its answer. Without `with_adapter` the
    /// base answers.
    pub fn answer(
        &mut self,
        prompts: &[Prompt],
        sampling: &Sampling,
        with_adapter: bool,
        on_token: &mut dyn FnMut(Token<'_>) -> Flow,
    ) -> Result<Vec<Answer>> {
        if !with_adapter {
            self.require_base()?;
        }
        self.require_room(prompts, sampling)?;
        let (backend, speaker) = self.loaded()?;
        let Some(adapter) = speaker.adapter.filter(|_| !with_adapter) else {
            return speaker.answer(backend, prompts, sampling, on_token);
        };
        // Rows of tokens that the adapter has stand in the base while it is active.
        adapter.deactivate(backend, speaker.decoder)?;
        let alone = Speaker { adapter: None, ..speaker };
        let answers = alone.answer(backend, prompts, sampling, on_token);
        adapter.activate(backend, speaker.decoder)?;
        answers
    }
}
