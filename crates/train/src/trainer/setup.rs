//! Everything before the first step: folder, data, defaults, model, adapter, memory.

use std::path::{Path, PathBuf};

use compute::Backend;
use data::supervision::Supervisor;
use data::{Cursor, Extent, Finding, Level, Order, Packing, Sequence};
use keys::{Document, Settings as _};
use model::adapter::PeftMetadata;
use model::{Adapter, Base, Decoder};
use serde_json::{Value, json};
use text::{ChatTemplate, Date, Metadata};

use super::plan::{self, Plan, Wishes};
use super::{Job, brought, report, resume};
use crate::checkpoint::{State, Store};
use crate::events::Event;
use crate::recipe::{Recipe, fill_by_data};
use crate::run::{EventLog, Occupied, RunFolder};
use crate::schedule::Schedule;
use crate::{Error, Result};

/// A run that is ready for its next step.
pub(super) struct Run {
    pub(super) recipe: Recipe,
    pub(super) folder: RunFolder,
    pub(super) log: EventLog,
    pub(super) store: Store,
    pub(super) metadata: Metadata,
    pub(super) peft: PeftMetadata,
    pub(super) date: Date,
    pub(super) template_kwargs: serde_json::Map<String, Value>,
    pub(super) decoder: Decoder,
    pub(super) adapter: Adapter,
    pub(super) train: Vec<Sequence>,
    pub(super) validation: Vec<Sequence>,
    pub(super) findings: Vec<Finding>,
    pub(super) order: Order,
    pub(super) schedule: Schedule,
    pub(super) total_steps: u64,
    pub(super) packing: Packing,
    pub(super) plan: Plan,
    pub(super) state: State,
}

pub(super) fn prepare(
    job: Job,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
) -> Result<Run> {
    let Job { mut document, base, start, base_name, output, occupied, memory_limit, date, threads } =
        job;
    let folder = RunFolder::open(&output, occupied)?;
    let resumed = occupied == Occupied::Resume;
    let mut notes = Vec::new();
    let mut date = date;
    let manifest_before = if resumed { Some(folder.read_manifest()?) } else { None };
    if let Some(manifest) = &manifest_before {
        notes = resume::take_over(&mut document, &folder)?;
        let text = manifest["date"].as_str().unwrap_or_default();
        date = text.parse().unwrap_or(date);
    }

    let (metadata, supervisor) = supervisor(&document, &base, start.as_deref(), date)?;
    let seed = document.get_i64("seed") as u64;
    let config = data::recipe::config(&document, seed, threads)
        .map_err(|problem| Error::Recipe(problem.into()))?;
    let prepared = data::prepare(&config, &supervisor)?;
    let findings: Vec<Finding> = prepared.findings.iter().cloned().collect();
    refuse_errors(&findings)?;
    let (train, validation) = (prepared.train, prepared.validation);

    let peft = PeftMetadata { base_model: base_name, base_hash: Some(base.hash()?) };
    let manifest = manifest(&base, &metadata, &peft, &prepared.files, seed, date, backend)?;
    if let Some(before) = &manifest_before {
        resume::check_manifest(folder.path(), before, &manifest)?;
    }
    check_tokens(&base, &train, &validation)?;

    let latest = resumed.then(|| Store::new(folder.checkpoints(), 1).latest()).flatten();
    let brought = match (&start, &latest) {
        (Some(dir), None) => Some(brought::load(&mut document, dir, &base, &peft)?),
        _ => None,
    };
    fill_by_data(&mut document, train.len());
    let recipe = Recipe::read(&document)?;
    let (mut lora, values) = match (&latest, brought) {
        (Some(path), _) => Store::load_adapter(path, &base.config)?,
        (None, Some(brought)) => brought,
        (None, None) => {
            let lora = recipe.lora(&base.config);
            let values = lora.initial_values(&base.config, recipe.seed);
            (lora, values)
        }
    };
    lora.dropout = recipe.dropout;

    let mut order = Order::new(&train, recipe.seed, recipe.step_size, recipe.extent);
    let longest = train.iter().chain(&validation).map(Sequence::len).max().unwrap_or(1);
    let sequences = order.step(Cursor::default()).map_or(1, |step| step.rows.len());
    let wishes = Wishes {
        micro_batch_tokens: document.opt_usize("micro_batch_tokens"),
        checkpoint: match document.get_str("activation_checkpointing") {
            "none" => Some(false),
            "block" => Some(true),
            _ => None,
        },
        longest,
        // Steps by tokens vary in rows; twice the first leaves room.
        sequences: 2 * sequences.max(8),
        limit: memory_limit,
    };
    let plan = plan::choose(&base, &lora, backend.operand(), &wishes)?;
    if wishes.micro_batch_tokens.is_none() {
        let tokens = plan.micro_batch_tokens;
        document.choose("micro_batch_tokens", tokens, "fits in memory");
    }
    if wishes.checkpoint.is_none() {
        let word = if plan.checkpoint { "block" } else { "none" };
        document.choose("activation_checkpointing", word, "fits in memory");
    }

    let decoder = Decoder::load(&base, backend)?;
    let (adapter, state, best) = match &latest {
        Some(path) => {
            let (adapter, state) = Store::load(path, backend, &decoder.config, recipe.dropout)?;
            (adapter, state, Store::best(path, &decoder.config)?)
        }
        None => {
            let adapter = Adapter::new(backend, &decoder.config, lora, &values, true)?;
            (adapter, State::default(), None)
        }
    };
    backend.reserve(plan.stack_bytes)?;
    let total_steps = total_steps(&mut order, recipe.extent, &state);

    // Everything is checked: only now is anything written or removed.
    folder.begin(occupied)?;
    // The manifest first: a folder that has one is a run.
    folder.write_manifest(&manifest)?;
    folder.supersede_after(state.step)?;
    folder.write_recipe(&document.to_yaml())?;
    let mut run = Run {
        schedule: recipe.schedule(total_steps),
        packing: Packing { drop_unread: true, ..Packing::new(plan.micro_batch_tokens) },
        log: folder.event_log()?,
        store: Store::new(folder.checkpoints(), recipe.keep),
        template_kwargs: template_kwargs(&document),
        recipe,
        folder,
        metadata,
        peft,
        date,
        decoder,
        adapter,
        train,
        validation,
        findings,
        order,
        total_steps,
        plan,
        state,
    };
    if let (Some(values), Some((step, _))) = (best, run.state.best) {
        // The run may have found a better one after the checkpoint, which is now superseded.
        report::write_values(&run, &values, step)?;
    }
    announce(&mut run, resumed, &notes, observer)?;
    Ok(run)
}

fn announce(
    run: &mut Run,
    resumed: bool,
    notes: &[String],
    observer: &mut dyn FnMut(&Event),
) -> Result<()> {
    let parameters_trained = run.adapter.config().parameter_count(&run.decoder.config);
    let parameters = run.decoder.config.parameter_count();
    let started = Event::Started {
        run: run.folder.path().display().to_string(),
        method: "sft".into(),
        steps: run.total_steps,
        resumed_from: resumed.then_some(run.state.step),
        rows_train: run.train.len(),
        rows_validation: run.validation.len(),
        tokens_train: run.train.iter().map(Sequence::len).sum(),
        tokens_supervised: run.train.iter().map(Sequence::supervised).sum(),
        parameters,
        parameters_trained,
        micro_batch_tokens: run.packing.budget_tokens,
        planned_bytes: run.plan.resident_bytes + run.plan.stack_bytes,
    };
    run.tell(&started, observer)?;
    for finding in run.findings.clone() {
        let places = finding.places.iter().map(ToString::to_string).collect();
        let level = json!(finding.level).as_str().unwrap_or_default().to_owned();
        let hint = format!("{}; {}", finding.message, finding.hint);
        let event =
            Event::Finding { id: finding.id.into(), level, count: finding.count, places, hint };
        run.tell(&event, observer)?;
    }
    for note in notes {
        let event = Event::Finding {
            id: "changed-on-resume".into(),
            level: "note".into(),
            count: 1,
            places: Vec::new(),
            hint: note.clone(),
        };
        run.tell(&event, observer)?;
    }
    Ok(())
}

impl Run {
    /// Writes an event to the folder and shows it to the observer.
    pub(super) fn tell(&mut self, event: &Event, observer: &mut dyn FnMut(&Event)) -> Result<()> {
        self.log.write(event)?;
        observer(event);
        Ok(())
    }
}

/// The model's metadata with the template that the recipe names, and what supervises with it.
fn supervisor(
    document: &Document,
    base: &Base,
    start: Option<&Path>,
    date: Date,
) -> Result<(Metadata, Supervisor)> {
    let mut metadata = base.metadata_with(start, date)?;
    if let Some(name) = document.opt_str("model.chat_template") {
        metadata.chat_template = Some(named_template(document, &metadata, name, date)?);
    }
    let supervisor = Supervisor::from_metadata(&metadata, template_kwargs(document))?;
    Ok((metadata, supervisor))
}

/// ChatML: the simplest of the common forms, for base models whose tokenizer has its tokens.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
    message['content'] + '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn named_template(
    document: &Document,
    metadata: &Metadata,
    name: &str,
    date: Date,
) -> Result<ChatTemplate> {
    if let Some(template) = metadata.template(name) {
        return Ok(template.clone());
    }
    let problem = |message: String, hint: String| {
        Error::Recipe(document.problem("model.chat_template", message, Some(hint)).into())
    };
    let source = match name {
        "chatml" => CHATML.to_owned(),
        path => std::fs::read_to_string(path).map_err(|error| {
            let mut names: Vec<&str> =
                metadata.named_templates.iter().map(|(name, _)| name.as_str()).collect();
            names.push("chatml");
            let hint = format!("give a jinja file or one of: {}", names.join(", "));
            problem(format!("no template `{path}`: {error}"), hint)
        })?,
    };
    ChatTemplate::new(&source, &metadata.special, date)
        .map_err(|error| problem(format!("`{name}`: {error}"), "mend the template".into()))
}

fn template_kwargs(document: &Document) -> serde_json::Map<String, Value> {
    let entries = document.opt_map("model.template_kwargs").unwrap_or_default();
    entries.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
}

fn refuse_errors(findings: &[Finding]) -> Result<()> {
    let Some(finding) = findings.iter().find(|finding| finding.level == Level::Error) else {
        return Ok(());
    };
    let place = finding.places.first().map_or(String::new(), |place| format!("{place}: "));
    let message = format!("{place}{} ({} rows)", finding.message, finding.count);
    Err(Error::refused(message, finding.hint.clone()))
}

/// Optimizer steps of the whole run, those that are done included.
///
/// Counted from where the run stands: a run that is made longer goes on behind the last step of the
/// shorter one, which may have been short.
fn total_steps(order: &mut Order, extent: Extent, state: &State) -> u64 {
    if let Extent::Steps(steps) = extent {
        return steps;
    }
    let (mut cursor, mut steps) = (state.cursor, state.step);
    while let Some(step) = order.step(cursor) {
        cursor = step.next;
        steps += 1;
    }
    steps
}

/// Every token must be one of the model's.
fn check_tokens(base: &Base, train: &[Sequence], validation: &[Sequence]) -> Result<()> {
    let vocab = base.config.vocab_size;
    for sequence in train.iter().chain(validation) {
        if let Some(token) = sequence.tokens.iter().find(|&&token| token as usize >= vocab) {
            return Err(Error::refused(
                format!("{}: token {token} is beyond the model's {vocab}", sequence.place),
                "the tokenizer does not belong to this model",
            ));
        }
        let longest = base.config.max_position_embeddings;
        if sequence.len() > longest {
            return Err(Error::refused(
                format!(
                    "{}: the row has {} tokens, the model was made for {longest}",
                    sequence.place,
                    sequence.len()
                ),
                "set `data.max_seq_len` and `data.overlong: truncate` or `skip`",
            ));
        }
    }
    Ok(())
}

fn manifest(
    base: &Base,
    metadata: &Metadata,
    peft: &PeftMetadata,
    files: &[data::prepare::FileSummary],
    seed: u64,
    date: Date,
    backend: &dyn Backend,
) -> Result<Value> {
    let device = backend.device();
    let template = metadata.chat_template.as_ref().map(ChatTemplate::hash);
    let path = std::path::absolute(&base.path).unwrap_or_else(|_| PathBuf::from(&base.path));
    Ok(json!({
        "schema": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "model": path,
        "model_name": peft.base_model,
        "model_storage": base.storage_name()?,
        "model_hash": peft.base_hash,
        "tokenizer_hash": metadata.tokenizer.hash(),
        "template_hash": template,
        "data": files,
        "seed": seed,
        "date": date.to_string(),
        // Bits are the same within one instruction set, whatever the number of threads.
        "machine": {"device": device.kind, "isa": device.isa, "operand": format!("{:?}", backend.operand())},
    }))
}
