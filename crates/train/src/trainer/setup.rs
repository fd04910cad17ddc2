//! Everything before the first step: folder, data, defaults, model, adapter, memory.

use std::path::PathBuf;

use compute::{Backend, MemoryLimits};
use data::prepare::FileSummary;
use data::supervision::Supervisor;
use data::{
    Cursor, Division, Finding, Level, Location, OnError, Order, Packing, Sequences, Wanted,
};
use keys::{Document, Settings as _};
use model::adapter::PeftMetadata;
use model::{Base, Config, TrainedTensor};
use serde_json::{Value, json};
use text::{ChatTemplate, Date, Metadata};

use super::course::{Course, Rows, check_rows, packing};
use super::demand::Demand;
use super::models::{Sources, take_start, training_setup};
use super::plan::{self, Plan, Wishes};
use super::resume::Before;
use super::stand_in::{self, StandIn};
use super::{DataAccess, Job, output};
use crate::checkpoint::{State, Store};
use crate::events::Event;
use crate::method::{self, Method};
use crate::models::{Models, TrainingSetup};
use crate::moved;
use crate::recipe::{Recipe, check, fill_by_data, quantization, trains_base};
use crate::run::{EventLog, Occupied, RunFolder};
use crate::schedule::Schedule;
use crate::{Error, Result};

/// A run that is ready for its next step.
pub(super) struct Run {
    pub(super) recipe: Recipe,
    /// The resolved recipe as it is written.
    pub(super) recipe_text: String,
    pub(super) manifest: Value,
    pub(super) folder: RunFolder,
    pub(super) log: EventLog,
    pub(super) store: Store,
    pub(super) base: Base,
    pub(super) metadata: Metadata,
    pub(super) peft: PeftMetadata,
    /// How the base's file stores most weights, and how they are kept.
    pub(super) storage: String,
    pub(super) quantization: Option<&'static str>,
    pub(super) date: Date,
    pub(super) template_kwargs: serde_json::Map<String, Value>,
    pub(super) threads: usize,
    pub(super) setup: TrainingSetup,
    pub(super) models: Models,
    pub(super) method: &'static dyn Method,
    pub(super) course: Box<dyn Course>,
    pub(super) counts: RowCounts,
    pub(super) findings: Vec<Finding>,
    pub(super) schedule: Schedule,
    pub(super) total_steps: u64,
    pub(super) packing: Packing,
    pub(super) plan: Plan,
    pub(super) state: State,
}

/// How many rows there are, and tokens in those that are trained on.
pub(super) struct RowCounts {
    pub(super) train: usize,
    pub(super) validation: usize,
    pub(super) tokens: usize,
    pub(super) supervised: usize,
}

impl RowCounts {
    fn of(rows: &Rows) -> Self {
        RowCounts {
            train: rows.train.units(),
            validation: rows.validation.units(),
            tokens: rows.train.tokens(),
            supervised: rows.train.supervised(),
        }
    }
}

/// What a recipe is looked at for.
pub(super) enum Purpose<'a> {
    /// To be carried out, or gone on with in this folder.
    Train(Option<&'a RunFolder>),
    /// To be planned, over these rows in place of those that it names. No weight is read.
    Plan(Option<StandIn>),
}

/// A recipe with everything that it leaves open decided, before anything is on a device.
pub(super) struct Prepared {
    pub(super) document: Document,
    pub(super) recipe: Recipe,
    pub(super) base: Base,
    pub(super) metadata: Metadata,
    pub(super) peft: PeftMetadata,
    pub(super) date: Date,
    /// Null in a plan.
    pub(super) manifest: Value,
    pub(super) notes: Vec<String>,
    pub(super) latest: Option<PathBuf>,
    pub(super) setup: TrainingSetup,
    pub(super) rows: Rows,
    /// Rows that are neither trained nor validated on, and why.
    pub(super) left_out: Vec<data::RowError>,
    pub(super) findings: Vec<Finding>,
    pub(super) demand: Demand,
    pub(super) wishes: Wishes,
    pub(super) plan: Plan,
}

/// Reads data and recipe and decides what is trained, in how much memory. Nothing is written.
pub(super) fn decide(job: Job<'_>, device: &dyn Backend, purpose: Purpose<'_>) -> Result<Prepared> {
    let Job { mut document, mut base, start, base_name, revision, date, threads, data: at, .. } =
        job;
    let mut notes = Vec::new();
    let mut date = date;
    let stop = at.stop.clone();
    base.stop_when(move || stop.is_asked());
    let resumed = match purpose {
        Purpose::Train(folder) => folder,
        Purpose::Plan(_) => None,
    };
    // What a checkpoint says of the run is checked, and nobody has edited it since.
    let latest = match resumed {
        Some(folder) => Store::new(folder.checkpoints(), 1).latest_checked()?,
        None => None,
    };
    let before = match resumed {
        Some(folder) => Some(Before::read(folder, latest.as_deref())?),
        None => None,
    };
    if let Some(before) = &before {
        notes = before.take_over(&mut document)?;
        date = before.date()?;
    }

    let method = method::trainable(&document)?;
    check(&document)?;
    let shapes_only = matches!(purpose, Purpose::Plan(_));
    let stand_in = match purpose {
        Purpose::Plan(stand_in) => stand_in,
        Purpose::Train(_) => None,
    };
    let metadata = match base.metadata_with(start.as_deref(), date) {
        Err(_) if stand_in.is_some() => stand_in::metadata(&base)?,
        metadata => metadata?,
    };
    let (metadata, added) = with_tokens_and_template(&document, metadata, date)?;
    let data = match &stand_in {
        Some(stand_in) => stand_in.rows(base.config.vocab_size)?,
        None => rows(&document, &metadata, threads, &at)?,
    };
    let mut findings: Vec<Finding> = data.findings.iter().cloned().collect();
    refuse_errors(&findings)?;
    findings.extend(quantised_base(&document, &base)?);
    findings.extend(remarks(&base));
    let (train, validation, left_out) = (data.train, data.validation, data.left_out);
    let process = (job.resident_bytes)();

    let base_hash = match (shapes_only, &start) {
        (false, _) => Some(base.hash()?),
        // Taken to be the right one.
        (true, Some(adapter)) => PeftMetadata::read(adapter)?.base_hash,
        (true, None) => None,
    };
    let peft = PeftMetadata { base_model: base_name, revision, base_hash };
    let manifest = match shapes_only {
        true => Value::Null,
        false => {
            let rows = (&data.files[..], data.split.as_ref(), data.context.as_deref());
            manifest(&document, &base, &metadata, &peft, rows, date, device)?
        }
    };
    if let Some(before) = &before {
        before.check(&manifest)?;
    }
    let sources = Sources {
        base: &base,
        start: start.as_deref(),
        peft: &peft,
        tokenizer: &metadata.tokenizer,
        added: &added,
        checkpoint: latest.as_deref(),
        shapes_only,
        threads,
    };
    let initial = take_start(&mut document, &sources)?;
    fill_by_data(&mut document, train.units(), base.config.parameter_count());
    let recipe = Recipe::read(&document)?;
    let setup = training_setup(&document, &recipe, &sources, initial)?;
    findings.extend(output::check(&base, &setup)?);
    for sequences in [&train, &validation] {
        if let Some(finding) = beyond_the_model(&setup.config(&base), sequences)? {
            let message = format!("{}: {}", finding.places[0], finding.message);
            return Err(Error::refused(message, finding.hint));
        }
    }

    check_rows(method, &train)?;
    check_rows(method, &validation)?;

    let of_a_row = train.longest_unit()?.max(1);
    let units = train.order_units()?;
    let mut rows = Rows {
        order: Order::new(units, recipe.seed, recipe.step_size, recipe.extent),
        train,
        validation,
        extent: recipe.extent,
        objective: method.objective(&document),
        judged_by: method.judged_by(&document),
        shares_prefixes: document.get_bool("share_prefixes"),
    };
    let longest = rows.longest()?;
    let sequences = rows.order.step(Cursor::default()).map_or(1, |step| step.sequences());
    let wishes = Wishes {
        // Steps by tokens vary in rows; twice the first leaves room.
        sequences: 2 * sequences.max(8),
        of_step: match recipe.step_size {
            data::StepSize::Rows(rows) => rows.saturating_mul(of_a_row.max(longest)),
            data::StepSize::Tokens(tokens) => tokens.max(of_a_row).max(longest),
        },
        longest,
        limits: MemoryLimits { host: job.memory_limit, device: device.memory_bytes() },
        process: process + setup.kept_bytes(),
        ..Wishes::of(&document)
    };
    let objective = method.objective(&document);
    let demand = Demand::new(&base, &setup, &recipe.optimizer, objective, device)?;
    let plan = plan::choose(&demand, &mut rows, &wishes)?;
    plan::write_choices(&mut document, &wishes, &plan);
    Ok(Prepared {
        document,
        recipe,
        base,
        metadata,
        peft,
        date,
        manifest,
        notes,
        latest,
        setup,
        rows,
        left_out,
        findings,
        demand,
        wishes,
        plan,
    })
}

pub(super) fn prepare(
    job: Job<'_>,
    folder: RunFolder,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
) -> Result<Run> {
    let threads = job.threads;
    let resumed = folder.occupied() == Occupied::Resume;
    let purpose = Purpose::Train(resumed.then_some(&folder));
    let mut prepared = decide(job, &*backend, purpose)?;
    plan::require_fit(&prepared.plan, &prepared.wishes, &prepared.setup)?;
    let models = prepared.setup.load(&prepared.base, backend)?;
    let (state, best) = match &prepared.latest {
        Some(path) => (Store::resume(path, backend, &models)?, Store::best(path)),
        None => (State::default(), None),
    };
    prepared.setup.forget_values();
    let plan = prepared.plan;
    backend.reserve(plan.worst.activations)?;
    let total_steps = prepared.rows.total_steps(&state);
    if state.step > total_steps {
        let message = format!("the run stands at step {}, behind its end", state.step);
        let hint = "give it more steps, or take the adapter as it is".to_owned();
        let problem = prepared.document.problem("train.max_steps", message, Some(hint));
        return Err(Error::Recipe(problem.into()));
    }

    // Everything is checked: only now is anything written or removed.
    let document = &prepared.document;
    let method = method::of(document);
    folder.begin()?;
    // Of a run that goes on, before its manifest is replaced.
    prepared.manifest["place"] = moved::place(folder.path(), document);
    // The manifest first: a folder that has one is a run.
    folder.write_manifest(&prepared.manifest)?;
    folder.supersede_after(state.step)?;
    let recipe_text = document.to_yaml();
    folder.write_recipe(&recipe_text)?;
    folder.write_left_out(&prepared.left_out)?;
    let quantization = match document.get_str("quantization") {
        "nf4" => Some("nf4"),
        "int8" => Some("int8"),
        _ => None,
    };
    let mut run = Run {
        schedule: prepared.recipe.schedule(total_steps),
        packing: packing(
            &models.decoder.config,
            prepared.rows.objective(),
            plan.micro_batch_tokens,
            prepared.rows.shares_prefixes,
        ),
        log: folder.event_log()?,
        store: Store::new(folder.checkpoints(), prepared.recipe.keep),
        template_kwargs: template_kwargs(document),
        storage: prepared.base.storage_name()?,
        quantization,
        threads,
        recipe: prepared.recipe,
        recipe_text,
        manifest: prepared.manifest,
        folder,
        base: prepared.base,
        metadata: prepared.metadata,
        peft: prepared.peft,
        date: prepared.date,
        setup: prepared.setup,
        models,
        method,
        counts: RowCounts::of(&prepared.rows),
        course: Box::new(prepared.rows),
        findings: prepared.findings,
        total_steps,
        plan,
        state,
    };
    if let (Some(best), true) = (best, run.state.best.is_some()) {
        // The run may have found a better one after the checkpoint, which is now superseded.
        output::restore(&run, &best)?;
    }
    announce(&mut run, resumed, &prepared.notes, observer)?;
    Ok(run)
}

fn announce(
    run: &mut Run,
    resumed: bool,
    notes: &[String],
    observer: &mut dyn FnMut(&Event),
) -> Result<()> {
    let parameters_trained = run.models.trained().iter().map(TrainedTensor::len).sum();
    let parameters = run.models.decoder.config.parameter_count();
    let started = Event::Started {
        run: run.folder.path().display().to_string(),
        method: run.method.name().into(),
        steps: run.total_steps,
        resumed_from: resumed.then_some(run.state.step),
        rows_train: run.counts.train,
        rows_validation: run.counts.validation,
        tokens_train: run.counts.tokens,
        tokens_supervised: run.counts.supervised,
        parameters,
        parameters_trained,
        micro_batch_tokens: run.packing.budget_tokens,
        planned_bytes: run.plan.memory.total(),
        memory: run.plan.memory.kinds().into_iter().map(|(k, b)| (k.into(), b)).collect(),
    };
    run.tell(&started, observer)?;
    for finding in run.findings.clone() {
        let places = finding.places.iter().map(ToString::to_string).collect();
        let level = json!(finding.level).as_str().unwrap_or_default().to_owned();
        let hint = format!("{}; {}", finding.message, finding.hint);
        let event = Event::Finding {
            id: finding.id.into_owned(),
            level,
            count: finding.count,
            places,
            hint,
        };
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
    /// Where the best adapter or model goes.
    pub(super) fn output(&self) -> PathBuf {
        match self.models.policy().adapter {
            Some(_) => self.folder.adapter(),
            None => self.folder.model(),
        }
    }

    /// Writes an event to the folder and shows it to the observer.
    pub(super) fn tell(&mut self, event: &Event, observer: &mut dyn FnMut(&Event)) -> Result<()> {
        self.log.write(event)?;
        observer(event);
        Ok(())
    }
}

/// Metadata with the template and the tokens that the recipe names, and the ids of the tokens that it
/// adds.
pub(super) fn with_tokens_and_template(
    document: &Document,
    mut metadata: Metadata,
    date: Date,
) -> Result<(Metadata, Vec<u32>)> {
    let mut added = Vec::new();
    for (key, special) in [("tokenizer.add_tokens", false), ("tokenizer.add_special_tokens", true)]
    {
        let tokens = document.opt_strs(key).unwrap_or_default();
        let problem = |message: String, hint: &str| {
            Error::Recipe(document.problem(key, message, Some(hint.to_owned())).into())
        };
        for (index, &token) in tokens.iter().enumerate() {
            if token.is_empty() {
                return Err(problem("an empty text is no token".into(), "leave it out"));
            }
            if metadata.tokenizer.id(token).is_some() || tokens[..index].contains(&token) {
                let message = format!("`{token}` is a token already");
                let hint = "leave it out; `adapter.trainable_tokens` trains a token that there is";
                return Err(problem(message, hint));
            }
        }
        if tokens.is_empty() {
            continue;
        }
        let tokens: Vec<String> = tokens.into_iter().map(str::to_owned).collect();
        let (tokenizer, ids) =
            metadata.tokenizer.with_tokens(&tokens, special).map_err(model::Error::from)?;
        metadata.tokenizer = tokenizer;
        added.extend(ids);
    }
    use_template(document, &mut metadata, date)?;
    Ok((metadata, added))
}

/// Puts the template that a recipe names in place of the model's own.
pub fn use_template(document: &Document, metadata: &mut Metadata, date: Date) -> Result<()> {
    if let Some(name) = document.opt_str("model.chat_template") {
        metadata.chat_template = Some(named_template(document, metadata, name, date)?);
    }
    Ok(())
}

/// What is odd about the files of the base.
pub(super) fn remarks(base: &Base) -> Vec<Finding> {
    let finding = |remark: &model::checkpoint::Remark| Finding {
        id: remark.id.into(),
        level: Level::Warning,
        count: 1,
        places: Vec::new(),
        message: format!("{}: {}", base.path.display(), remark.message),
        hint: remark.hint.into(),
    };
    base.remarks.iter().map(finding).collect()
}

/// A base that is quantised in its file, and shall be quantised again or be trained itself.
fn quantised_base(document: &Document, base: &Base) -> Result<Option<Finding>> {
    let storage = base.storage_name()?;
    if matches!(storage.as_str(), "f32" | "f16" | "bf16") {
        return Ok(None);
    }
    let to = document.get_str("quantization");
    let (id, message, hint) = if quantization(document).is_some() && base.format == "folder" {
        let message = format!("the base is stored as {storage} and stays so, whatever {to} says");
        ("quantised-already", message, "leave `quantization` out")
    } else if quantization(document).is_some() {
        let message = format!("the base is stored as {storage} and is quantised again to {to}");
        ("quantised-twice", message, "leave `quantization` out: the base keeps its own blocks")
    } else if trains_base(document) {
        let message = format!("the base is stored as {storage}: what is lost there stays lost");
        ("quantised-start", message, "train its 16-bit original where there is one")
    } else {
        return Ok(None);
    };
    let (places, hint) = (Vec::new(), hint.into());
    Ok(Some(Finding { id: id.into(), level: Level::Warning, count: 1, places, message, hint }))
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
        return Ok(template);
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

/// Prepares the rows of a recipe, whatever its method.
pub fn rows(
    document: &Document,
    metadata: &Metadata,
    threads: usize,
    at: &DataAccess<'_>,
) -> Result<data::Prepared> {
    let seed = document.get_i64("seed") as u64;
    let wanted = method::of(document).records();
    let config = data::recipe::config(document, wanted, seed, threads);
    let mut config = config.map_err(|problem| Error::Recipe(problem.into()))?;
    config.cache = at.cache.clone();
    config.stop = at.stop.clone();
    if at.list_errors && config.on_error == OnError::Stop {
        config.on_error = OnError::List;
    }
    let validation = match &mut config.validation {
        data::Validation::Sources(sources) => &mut sources[..],
        _ => &mut [],
    };
    for source in config.train.iter_mut().chain(validation) {
        if let Location::Hub(set) = &source.location {
            source.location = Location::Files((at.fetch)(set)?);
        }
    }
    let supervisor = match (wanted, &metadata.chat_template) {
        (Wanted::Texts, None) => Supervisor::for_text(metadata),
        _ => Supervisor::from_metadata(metadata, template_kwargs(document))?,
    };
    let supervisor = supervisor.with(data::recipe::supervision(document));
    let mut prepared = data::prepare(&config, &supervisor)?;
    prepared.findings.merge(metadata.tokenizer.notes().iter().map(tokenizer_note).collect());
    Ok(prepared)
}

/// What is odd about the tokenizer's files, told with the findings of the data that it makes.
fn tokenizer_note(note: &text::Note) -> Finding {
    let (message, hint) = (note.message.clone(), note.hint.into());
    Finding { id: note.id.into(), level: Level::Note, count: 1, places: Vec::new(), message, hint }
}

/// Variables that a recipe gives to the chat template.
pub fn template_kwargs(document: &Document) -> serde_json::Map<String, Value> {
    let entries = document.opt_map("model.template_kwargs").unwrap_or_default();
    entries.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
}

/// Errors of the data stop a run, all of them named.
fn refuse_errors(findings: &[Finding]) -> Result<()> {
    let errors: Vec<&Finding> = findings.iter().filter(|f| f.level == Level::Error).collect();
    if errors.is_empty() {
        return Ok(());
    }
    let line = |finding: &&Finding| {
        let place = finding.places.first().map_or(String::new(), |place| format!("{place}: "));
        format!("{place}{} (`{}`, {} rows)", finding.message, finding.id, finding.count)
    };
    let ids: Vec<&str> = errors.iter().map(|finding| finding.id.as_ref()).collect();
    let hint = format!(
        "{}; `tunesmith check` shows the rows; to train all the same: `data.accept: [{}]`",
        errors[0].hint,
        ids.join(", ")
    );
    Err(Error::refused(errors.iter().map(line).collect::<Vec<_>>().join("\n"), hint))
}

/// Rows that the model cannot take: of tokens that it does not have, or longer than it was made for.
pub(super) fn beyond_the_model(config: &Config, sequences: &Sequences) -> Result<Option<Finding>> {
    let finding = |place: data::Place, count: usize, message: String, hint: &str| Finding {
        id: "beyond-the-model".into(),
        level: Level::Error,
        count,
        places: vec![place],
        message,
        hint: hint.into(),
    };
    let vocab = config.vocab_size;
    if let Some((place, token)) = sequences.beyond_vocabulary(vocab)? {
        let message = format!("token {token} is beyond the model's {vocab}");
        let hint = "the tokenizer does not belong to this model";
        return Ok(Some(finding(place, 1, message, hint)));
    }
    let most = config.max_position_embeddings;
    let Some((index, _)) = sequences.longest().filter(|&(_, tokens)| tokens > most) else {
        return Ok(None);
    };
    let mut longer = 0;
    sequences.each(|outline| longer += usize::from(outline.tokens > most))?;
    let longest = sequences.get(index)?;
    let message = format!("the row has {} tokens, the model was made for {most}", longest.len());
    let hint = "set `data.max_seq_len` and `data.overlong: split`, `truncate` or `skip`";
    Ok(Some(finding(longest.place, longer, message, hint)))
}

#[allow(clippy::too_many_arguments, reason = "everything that makes a run what it is")]
fn manifest(
    document: &Document,
    base: &Base,
    metadata: &Metadata,
    peft: &PeftMetadata,
    (files, split, context): (&[FileSummary], Option<&Division>, Option<&str>),
    date: Date,
    device: &dyn Backend,
) -> Result<Value> {
    let (machine, operand) = (device.device(), device.operand());
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
        "split": split,
        "context_hash": context,
        "seed": document.get_i64("seed"),
        "date": date.to_string(),
        // Bits are the same within one instruction set, whatever the number of threads.
        "machine": {"device": machine.kind, "isa": machine.isa, "operand": format!("{operand:?}")},
    }))
}
