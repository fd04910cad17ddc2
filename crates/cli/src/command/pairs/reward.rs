//! A reward model chooses: it scores every answer, and the best stands against the worst.

use compute::measure::Measure;
use compute::{Backend, Precision};
use data::forest::{Packing, Reads, pack};
use data::record::{self, Record};
use data::{Findings, Sequence, Supervisor};
use hub::Resolved;
use model::adapter::{LoadedAdapter, PeftMetadata};
use model::{Base, Decoder, HeadRequest, LoadOptions, Pass, ScalarHead, Want};
use session::Serving;
use text::{Batch, Message};

use super::pair::Group;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::memory::{Needed, free_memory};
use crate::signals::Signals;

/// Tokens that run together, unless the answers to one prompt have more.
const BATCH_TOKENS: usize = 1024;

/// The scores of all answers to all prompts, by a reward model: an adapter folder with a score head, as `method:
/// reward` writes it. Prompts and answers are rendered by the code of training and read at their last token.
/// None where a signal came.
pub(super) fn score_answers(
    model: &Resolved,
    groups: &[Group<'_>],
    signals: &Signals,
    context: &Context,
) -> Result<Option<Vec<Vec<f32>>>> {
    let folder = model.adapter.as_ref().ok_or_else(|| no_reward_model(model, context))?;
    let serving = Serving::read(folder)?;
    let base = Base::open(&model.path)?;
    let (adapter, head) = LoadedAdapter::read_scored(folder, &base.config)?;
    let head = head.ok_or_else(|| no_reward_model(model, context))?;
    let trained_over = PeftMetadata::read(folder)?.base_hash;
    if trained_over.is_some_and(|hash| base.hash().is_ok_and(|own| own != hash)) {
        context.terminal.warn(&format!(
            "{} was trained over other weights than {}: its scores will differ",
            context.environment.show(folder),
            context.environment.show(&base.path)
        ));
    }
    let date = serving.date.as_deref().and_then(|date| date.parse().ok());
    let metadata = base.metadata_with(Some(folder), date.unwrap_or(context.today()))?;
    let quantization = serving.quantization();
    let supervisor = Supervisor::from_metadata(&metadata, serving.template_kwargs)?;
    let longest = base.config.max_position_embeddings;
    let rows: Vec<Vec<Sequence>> =
        groups.iter().map(|group| sequences(group, &supervisor, longest)).collect::<Result<_>>()?;

    let mut backend = context.device(Precision::Bf16)?;
    let packing = Packing {
        reads: Reads::Last,
        drop_unread: true,
        keep_units: true,
        apart_beyond: base.config.long_beyond(),
        ..Packing::new(BATCH_TOKENS)
    };
    let batches = |row: &Vec<Sequence>| {
        pack(row, &packing).into_iter().map(|micro| micro.batch).collect::<Vec<_>>()
    };
    let batches: Vec<Vec<Batch>> = rows.iter().map(batches).collect();
    let largest = batches.iter().flatten().max_by_key(|batch| batch.tokens.len());
    let Some(largest) = largest else { return Ok(Some(Vec::new())) };
    let options = LoadOptions { quantization, ..LoadOptions::default() };
    require_room(&base, &options, largest, &*backend)?;
    let (decoder, adapter) = adapter.load(&base, &mut *backend, quantization, None)?;
    let head = ScalarHead::new(&mut *backend, &head, None)?;
    let pass = Pass { adapter: Some(&adapter), ..Pass::default() };
    let mut measure = Measure::new(backend.operand());
    values(&decoder, &mut measure, &head, largest, &pass)?;
    let needed = measure.report().stack_peak_bytes;
    if backend.reserved() < needed {
        backend.reserve(needed)?;
    }
    let mut all = Vec::with_capacity(rows.len());
    for (row, batches) in rows.iter().zip(&batches) {
        if signals.asked().is_some() {
            return Ok(None);
        }
        let mut scores = vec![f32::NAN; row.len()];
        for batch in batches {
            let values = values(&decoder, &mut *backend, &head, batch, &pass)?;
            for last in &batch.last_reads {
                scores[last.sequence as usize] = values[last.read as usize];
            }
        }
        if scores.iter().any(|score| !score.is_finite()) {
            let place = &row[0].place;
            let message = format!("{place}: the reward model's score is no number");
            return Err(Failure::new("not_finite", message).at(&place.file));
        }
        all.push(scores);
    }
    Ok(Some(all))
}

/// The score head at every read of a batch.
fn values(
    decoder: &Decoder,
    backend: &mut dyn Backend,
    head: &ScalarHead,
    batch: &Batch,
    pass: &Pass<'_>,
) -> Result<Vec<f32>> {
    let want = Want { value: true, ..Want::default() };
    let request = HeadRequest { want, ..HeadRequest::logprobs() };
    let mut hidden = decoder.forward(backend, batch, pass)?;
    let outputs = decoder.head(backend, &mut hidden, &[], &request, Some(head), None, pass)?;
    hidden.release(backend);
    Ok(outputs.value)
}

/// The tokens of a prompt with each of its answers, as a row of training has them.
fn sequences(group: &Group<'_>, supervisor: &Supervisor, longest: usize) -> Result<Vec<Sequence>> {
    let place = &group.prompt.place;
    let answer = |text: &str| record::Answer {
        messages: vec![Message::new("assistant", text)],
        score: None,
        standing: 0,
    };
    let ranked = Record::Ranked(record::Ranked {
        place: place.clone(),
        prompt: group.prompt.turns(),
        answers: group.candidates.iter().map(|candidate| answer(&candidate.text)).collect(),
        tools: group.prompt.tools.clone(),
    });
    let sequences = supervisor.sequences(0, &ranked, &mut Findings::default());
    let sequences =
        sequences.map_err(|error| data::Error::Rows { rows: vec![error], hint: None })?;
    if let Some(long) = sequences.iter().map(Sequence::len).find(|&len| len > longest) {
        let message = format!(
            "{place}: prompt and answer have {long} tokens, and the reward model takes {longest}"
        );
        let failure = Failure::new("data_rows", message).at(&place.file);
        return Err(Failure { line: Some(place.line), ..failure }
            .hint("remove the row, or lower `pairs.candidates.max_new_tokens`"));
    }
    Ok(sequences)
}

/// Refuses what does not fit into memory, before weights are loaded.
fn require_room(
    base: &Base,
    options: &LoadOptions,
    largest: &Batch,
    backend: &dyn Backend,
) -> Result<()> {
    let mut measure = Measure::of(backend);
    let decoder = Decoder::load_with(base, &mut measure, options)?;
    decoder.forward(&mut measure, largest, &Pass::default())?.release(&mut measure);
    let report = measure.report();
    let kinds = [
        ("weights", report.weight_bytes + report.static_bytes),
        ("activations", report.stack_peak_bytes),
        ("workspace", report.workspace_bytes),
    ];
    Needed { what: "scoring the answers".into(), kinds: &kinds }
        .require(free_memory(), || "a smaller reward model fits, or shorter answers".into())
}

fn no_reward_model(model: &Resolved, context: &Context) -> Failure {
    let path = model.adapter.as_ref().unwrap_or(&model.path);
    let message = format!("{}: is no reward model", context.environment.show(path));
    Failure::wrong("refused", message)
        .at(path)
        .hint("`pairs.reward` is an adapter with a score head, as `method: reward` trains it")
}
