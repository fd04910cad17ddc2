//! A reward model or classifier with its device: it gives every answer a score, or every row the logits of its
//! classes.

use compute::{Backend, Quantization};
use data::record::{Conversation, Feedback, Record};
use data::{
    Findings, Micro, Packing, Reads, RowError, Sequence, SupervisionOptions, Supervisor, pack,
};
use model::adapter::LoadedAdapter;
use model::generate::{Counted, Demand};
use model::{Adapter, Base, Decoder, Pass, ScalarHead};

use crate::{Error, Opened, Result, Serving};

/// Sequences that are packed together. Prefixes are shared among these; scores do not depend on it.
const WINDOW: usize = 512;

/// A base with the adapter and the score head of a reward model or a classifier. Its weights are loaded once it is known
/// what they are to score.
///
/// A score is the head at the last token of prompt and answer, as `method: reward` trains it and
/// transformers' sequence classifiers read it. It has the same bits whatever is scored beside it, on any
/// number of threads.
pub struct Scorer {
    base: Base,
    backend: Box<dyn Backend>,
    model: Model,
    head: Vec<f32>,
    /// Names of the classes of a classifier, in the order of its outputs; none of a reward model.
    classes: Option<Vec<String>>,
    /// The model on a device that only counts.
    counted: Counted,
    supervisor: Supervisor,
    free_memory: fn() -> usize,
}

/// The weights of a scorer.
enum Model {
    /// Still in their files; the adapter's are on the host.
    Waiting(Option<LoadedAdapter>, Option<Quantization>),
    /// On the device.
    Loaded(Box<(Decoder, Adapter, ScalarHead)>),
}

impl Scorer {
    /// A scorer on a device; the model is one of [`Opened::read_scored`]. `options` say what becomes of system
    /// messages and of reasoning, and `free_memory` how many bytes may still be taken.
    pub fn new(
        opened: Opened,
        options: SupervisionOptions,
        backend: Box<dyn Backend>,
        free_memory: fn() -> usize,
    ) -> Result<Self> {
        let Opened { base, metadata, serving, adapter, head, .. } = opened;
        let (Some(adapter), Some(head)) = (adapter, head) else { return Err(Error::NoScoreHead) };
        let outputs = head.len() / base.config.hidden_size;
        let classes = (outputs > 1).then(|| class_names(&base, &serving, outputs)).transpose()?;
        // As it was trained, so it is served.
        let quantization = serving.quantization();
        let counted = Counted::new(&base, Some(&adapter), quantization, &*backend)?;
        let supervisor = match metadata.chat_template {
            Some(_) => Supervisor::from_metadata(&metadata, serving.template_kwargs),
            None => Ok(Supervisor::for_text(&metadata)),
        };
        let supervisor = supervisor.map_err(|error| {
            let hint = error.hint().map(str::to_owned);
            Error::Template { message: error.to_string(), hint }
        })?;
        let supervisor = supervisor.with(options);
        let model = Model::Waiting(Some(adapter), quantization);
        Ok(Scorer { base, backend, model, head, classes, counted, supervisor, free_memory })
    }

    /// Names of the classes of a classifier, in the order of its outputs: those of its training, else those of the
    /// base's `id2label`, else `LABEL_0`, `LABEL_1`, ... as transformers calls them. None of a reward model.
    pub fn classes(&self) -> Option<&[String]> {
        self.classes.as_deref()
    }

    /// The sequences of a row's answers, as training renders them, in the order in which the row has the answers.
    ///
    /// | record | scored |
    /// |---|---|
    /// | preference | the chosen answer, then the rejected one |
    /// | ranked | every answer |
    /// | feedback, conversation | the last assistant turn |
    /// | tokens | the row as it is |
    /// | labelled | the text, or the dialogue |
    ///
    /// `row` numbers the row. An answer that the model cannot take is an error, and so is any other record.
    pub fn sequences(
        &self,
        row: u64,
        record: &Record,
        findings: &mut Findings,
    ) -> std::result::Result<Vec<Sequence>, RowError> {
        let sequences = self.sequences_of_any_length(row, record, findings)?;
        for sequence in &sequences {
            self.check(sequence)?;
        }
        Ok(sequences)
    }

    /// As [`sequences`](Scorer::sequences), with none in the place of an answer that is longer than the model takes.
    pub fn sequences_that_fit(
        &self,
        row: u64,
        record: &Record,
        findings: &mut Findings,
    ) -> std::result::Result<Vec<Option<Sequence>>, RowError> {
        let longest = self.counted.config().max_position_embeddings;
        let fitting = |sequence: Sequence| match sequence.len() > longest {
            true => Ok(None),
            false => self.check(&sequence).map(|()| Some(sequence)),
        };
        let sequences = self.sequences_of_any_length(row, record, findings)?;
        sequences.into_iter().map(fitting).collect()
    }

    fn sequences_of_any_length(
        &self,
        row: u64,
        record: &Record,
        findings: &mut Findings,
    ) -> std::result::Result<Vec<Sequence>, RowError> {
        let place = record.place();
        let mut sequences = match record {
            Record::Conversation(conversation) => {
                let feedback = Record::Feedback(last_turn(conversation)?);
                self.supervisor.sequences(row, &feedback, findings)?
            }
            Record::Preference(_)
            | Record::Feedback(_)
            | Record::Ranked(_)
            | Record::Tokens(_)
            | Record::Labelled(_) => self.supervisor.sequences(row, record, findings)?,
            Record::Stepwise(_) | Record::Text(_) | Record::Prompt(_) => {
                return Err(RowError::new(place, "the row has no whole answer to score")
                    .with_hint("give pairs, ranked answers, judged answers or conversations"));
            }
        };
        if let Record::Ranked(ranked) = record {
            sequences.sort_by_key(|sequence| ranked.answers[usize::from(sequence.role)].index);
        }
        Ok(sequences)
    }

    /// Refuses a sequence that the model cannot take.
    fn check(&self, sequence: &Sequence) -> std::result::Result<(), RowError> {
        let config = self.counted.config();
        let (vocab_size, longest) = (config.vocab_size, config.max_position_embeddings);
        let beyond = sequence.tokens.iter().find(|&&token| token as usize >= vocab_size);
        let (error, hint) = match beyond {
            Some(&token) => (
                Error::Vocabulary { token, vocab_size },
                "the tokenizer does not belong to this model",
            ),
            None if sequence.len() > longest => (
                Error::RowTooLong { tokens: sequence.len(), longest },
                "shorten the row or leave it out: a score is read at the last token, so none can be cut",
            ),
            None => return Ok(()),
        };
        Err(RowError::new(&sequence.place, error.to_string()).with_hint(hint))
    }

    /// Numbers per sequence: 1 of a reward model, a logit a class of a classifier.
    pub fn outputs(&self) -> usize {
        self.head.len() / self.base.config.hidden_size
    }

    /// The scores of every sequence, `[sequences, N]`, computed about `batch_tokens` tokens at a time. The weights are
    /// loaded first, unless the work does not fit into memory.
    ///
    /// # Panics
    /// If the weights could not be loaded in an earlier call.
    pub fn score(&mut self, sequences: &[Sequence], batch_tokens: usize) -> Result<Vec<f32>> {
        let packing = Packing {
            reads: Reads::Last,
            apart_beyond: self.counted.config().long_beyond(),
            ..Packing::new(batch_tokens)
        };
        let windows: Vec<Vec<Micro>> =
            sequences.chunks(WINDOW).map(|window| pack(window, &packing)).collect();
        let outputs = self.outputs();
        let Some(activations) = self.require_room(&windows)? else { return Ok(Vec::new()) };
        let (backend, decoder, adapter, head) = self.loaded()?;
        if backend.reserved() < activations {
            backend.reserve(activations).map_err(model::Error::from)?;
        }
        let pass = Pass { adapter: Some(adapter), ..Pass::default() };
        let mut scores = vec![0.0; sequences.len() * outputs];
        for (window, scores) in windows.iter().zip(scores.chunks_mut(WINDOW * outputs)) {
            for Micro { batch, .. } in window {
                let values = decoder.scores(backend, batch, head, &pass)?;
                for last in &batch.last_reads {
                    let [to, from] =
                        [last.sequence, last.read].map(|index| index as usize * outputs);
                    scores[to..to + outputs].copy_from_slice(&values[from..from + outputs]);
                }
            }
        }
        Ok(scores)
    }

    /// Bytes of activations that the largest batch takes, unless the work does not fit; none without a batch.
    fn require_room(&self, windows: &[Vec<Micro>]) -> Result<Option<usize>> {
        let size = |micro: &&Micro| micro.batch.tokens.len();
        let micros = || windows.iter().flatten();
        let most_reads = micros().max_by_key(|micro| micro.batch.reads.len());
        let mut largest = Demand::default();
        let Some(longest) = micros().max_by_key(size) else { return Ok(None) };
        for micro in [Some(longest), most_reads].into_iter().flatten() {
            let demand = self.counted.demand_of_scores(&micro.batch, &self.head)?;
            largest.weights = demand.weights;
            largest.activations = largest.activations.max(demand.activations);
            largest.workspace = largest.workspace.max(demand.workspace);
        }
        let needed = match &self.model {
            Model::Waiting(..) => largest,
            Model::Loaded(_) => largest.beyond(self.backend.reserved()),
        };
        let limit = (self.free_memory)();
        if needed.total() > limit {
            let tokens = longest.batch.tokens.len();
            return Err(Error::ScoreRoom { tokens, demand: needed, limit });
        }
        Ok(Some(largest.activations))
    }

    fn loaded(&mut self) -> Result<(&mut dyn Backend, &Decoder, &Adapter, &ScalarHead)> {
        if let Model::Waiting(adapter, quantization) = &mut self.model {
            let backend = &mut *self.backend;
            let adapter = adapter.take().expect("it is loaded once");
            let (decoder, adapter) = adapter.load(&self.base, backend, *quantization, None)?;
            let outputs = self.head.len() / self.base.config.hidden_size;
            let head = ScalarHead::with_outputs(backend, &self.head, outputs, None)?;
            self.model = Model::Loaded(Box::new((decoder, adapter, head)));
        }
        let Model::Loaded(loaded) = &self.model else { unreachable!("it was loaded above") };
        let (decoder, adapter, head) = &**loaded;
        Ok((&mut *self.backend, decoder, adapter, head))
    }
}

fn class_names(base: &Base, serving: &Serving, outputs: usize) -> Result<Vec<String>> {
    if serving.classes.len() == outputs {
        return Ok(serving.classes.clone());
    }
    let config = base.config_json()?;
    let of_base = (0..outputs).map(|id| config["id2label"][id.to_string()].as_str());
    let is_whole = config["id2label"].as_object().is_some_and(|labels| labels.len() == outputs);
    let of_base: Option<Vec<String>> = of_base.map(|name| name.map(str::to_owned)).collect();
    let numbered = || (0..outputs).map(|id| format!("LABEL_{id}")).collect();
    Ok(of_base.filter(|_| is_whole).unwrap_or_else(numbered))
}

/// A dialogue of which the last assistant turn counts.
fn last_turn(conversation: &Conversation) -> std::result::Result<Feedback, RowError> {
    let mut conversation = conversation.clone();
    let last = conversation.messages.iter().rposition(|message| message.role == "assistant");
    let Some(last) = last else {
        let message = "the dialogue has no assistant turn to score";
        return Err(RowError::new(&conversation.place, message));
    };
    for index in 0..conversation.messages.len() {
        conversation.supervised[index] = index == last;
        conversation.weights[index] = f32::from(index == last);
    }
    Ok(Feedback { conversation, desirable: true })
}
