//! The start of a run: model on the device, folder and manifest written, the first events told.

use std::path::PathBuf;

use compute::{Backend, Quantization};
use data::prepare::FileSummary;
use data::{Division, Finding, Packing, Supervisor};
use keys::{Document, Settings as _};
use model::adapter::PeftMetadata;
use model::{Base, TrainedTensor};
use serde_json::{Value, json};
use text::{ChatTemplate, Date, Metadata};

use super::course::{Course, Rows, packing};
use super::plan::{self, Plan};
use super::reference_cache::{self, ReferenceCache};
use super::rollouts::{Learner, Rollouts, Stage, TeacherPrompts};
use super::setup::{Prepared, Purpose, decide};
use super::{Job, output};
use crate::checkpoint::{State, Store};
use crate::environment::{self, Environment, EnvironmentSettings, Speech};
use crate::events::Event;
use crate::method::{self, Method, Online};
use crate::models::{Models, PartName, TrainingSetup};
use crate::moved;
use crate::recipe::Recipe;
use crate::reward::{RewardSettings, RewardSource, Rewards};
use crate::run::{EventLog, Occupied, REFERENCE, RunFolder};
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
    /// Names of the classes, where the method has some.
    pub(super) classes: Vec<String>,
    pub(super) threads: usize,
    pub(super) setup: TrainingSetup,
    pub(super) models: Models,
    pub(super) method: &'static Method,
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

pub(super) fn prepare(
    mut job: Job<'_>,
    folder: RunFolder,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
) -> Result<Run> {
    let threads = job.threads;
    let mut reward_sources = std::mem::replace(&mut job.reward_sources, Box::new(no_source));
    let resumed = folder.occupied() == Occupied::Resume;
    let purpose = Purpose::Train(resumed.then_some(&folder));
    let mut prepared = decide(job, &*backend, purpose)?;
    plan::require_fit(&prepared.plan, &prepared.request, &prepared.setup)?;
    let models = prepared.setup.load(&prepared.base, backend)?;
    let (state, best) = match &prepared.latest {
        Some(path) => (Store::resume(path, backend, &models)?, Store::best(path)),
        None => {
            let carried = prepared.rows.objective().initially_carried();
            (State { carried, ..State::default() }, None)
        }
    };
    let refresh = prepared.recipe.refresh;
    if refresh.is_some() && prepared.latest.is_none() {
        models.complete_reference(backend, &mut prepared.setup)?;
    }
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

    // Programs that give rewards are started before anything is written: they may be missing.
    let rewards = match prepared.recipe.rollout {
        Some(_) => {
            let settings = RewardSettings::read(&prepared.document)?;
            Some(Rewards::open(&settings, &mut reward_sources)?)
        }
        None => None,
    };
    let stage = stage(&prepared)?;
    // Everything is checked: only now is anything written or removed.
    let document = &prepared.document;
    let method = method::of(document);
    folder.begin()?;
    // Of a run that goes on, before its manifest is replaced.
    prepared.manifest["place"] = moved::place(folder.path(), document);
    // The manifest first: a folder that has one is a run.
    folder.write_manifest(&prepared.manifest)?;
    folder.supersede_after(state.step)?;
    if prepared.caches_reference {
        let has_moved = refresh.is_some_and(|refresh| state.step >= refresh.steps);
        prepared.rows.reference = Some(match has_moved {
            true => ReferenceCache::default(),
            false => ReferenceCache::open(reference_path(&prepared, &folder)),
        });
    }
    let recipe_text = document.to_yaml();
    folder.write_recipe(&recipe_text)?;
    folder.write_left_out(&prepared.left_out)?;
    let quantization = match prepared.recipe.quantization {
        Some(Quantization::Nf4) => Some("nf4"),
        Some(Quantization::Int8) => Some("int8"),
        None => None,
    };
    let counts = RowCounts::of(&prepared.rows);
    let packing = packing(
        &models.decoder.config,
        prepared.rows.objective(),
        plan.micro_batch_tokens,
        prepared.rows.shares_prefixes,
    );
    let course: Box<dyn Course> = match (prepared.recipe.rollout, method.online, rewards) {
        (Some(config), Some(online), Some(rewards)) => Box::new(Rollouts {
            rows: prepared.rows,
            config,
            learner: match online {
                Online::Advantages(estimator) => Learner::Advantages(estimator(&prepared.document)),
                Online::Pairs => Learner::Pairs {
                    missing_end: document.get_f64("objective.missing_end_penalty"),
                },
                Online::Teacher => {
                    let kwargs = prepared.recipe.template_kwargs.clone();
                    let prompts = TeacherPrompts::read(document, &prepared.metadata, kwargs)?;
                    Learner::Teacher(Box::new(prompts))
                }
            },
            names: rewards
                .settings()
                .map(|settings| settings.name.clone())
                .chain(stage.iter().map(|_| environment::REWARD.to_owned()))
                .collect(),
            weights: rewards
                .settings()
                .map(|settings| settings.weight)
                .chain(stage.iter().map(|stage| stage.environment.settings().weight))
                .collect(),
            stage,
            supervisor: reward_supervisor(&rewards, &prepared.metadata, &prepared.recipe)?,
            rewards,
            folder: folder.rollouts(),
            seed: prepared.recipe.seed,
            current: None,
        }),
        _ => Box::new(prepared.rows),
    };
    let mut run = Run {
        schedule: prepared.recipe.schedule(total_steps),
        packing,
        log: folder.event_log()?,
        store: Store::new(folder.checkpoints(), prepared.recipe.keep),
        template_kwargs: prepared.recipe.template_kwargs.clone(),
        classes: method::classes(&prepared.document),
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
        counts,
        course,
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

/// The environment of a run, started; none without one. The template can write what it says.
fn stage(prepared: &Prepared) -> Result<Option<Stage>> {
    let Some(settings) = EnvironmentSettings::read(&prepared.document)? else { return Ok(None) };
    let speech = Speech::new(&prepared.metadata, prepared.recipe.template_kwargs.clone())?;
    let first = prepared.rows.train.unit(0..1)?;
    speech.check(&first)?;
    Ok(Some(Stage { environment: Environment::open(settings)?, speech }))
}

/// How a reward model of the run sees answers; none without one.
fn reward_supervisor(
    rewards: &Rewards,
    metadata: &Metadata,
    recipe: &Recipe,
) -> Result<Option<Supervisor>> {
    if !rewards.settings().any(|settings| settings.is_model()) {
        return Ok(None);
    }
    let supervisor = Supervisor::from_metadata(metadata, recipe.template_kwargs.clone())?;
    // System messages of prompts are as the recipe has them already.
    Ok(Some(supervisor.with_own_system()))
}

/// Rewards that need a network are the caller's.
pub(super) fn no_source(settings: &RewardSettings) -> Result<Box<dyn RewardSource>> {
    let message = format!("`{}`: nobody gives this reward here", settings.key);
    Err(Error::refused(message, "use a grader, a program or a reward model"))
}

/// Where the log-probabilities of the reference are kept: with what later runs can use, or in the run folder.
fn reference_path(prepared: &Prepared, folder: &RunFolder) -> PathBuf {
    let Prepared { manifest, setup, .. } = prepared;
    let (Some(cache), Some(base)) = (&prepared.cache, manifest["model_hash"].as_str()) else {
        return folder.path().join(REFERENCE);
    };
    let reference = setup.parts.iter().find(|part| part.name == PartName::Reference);
    let adapters = reference.map_or(&[][..], |part| &part.adapters);
    let mut identity = vec![
        manifest["version"].to_string().into_bytes(),
        manifest["machine"].to_string().into_bytes(),
        base.as_bytes().to_vec(),
        format!("{:?} {:?}", prepared.recipe.quantization, setup.vocab_size).into_bytes(),
    ];
    for adapter in adapters {
        identity.push(format!("{:?}", adapter.config).into_bytes());
        let values = adapter.values.iter().flatten();
        identity.push(values.flat_map(|value| value.to_le_bytes()).collect());
    }
    // Whole tensors that the policy brings untrained stand in the base: the embedding of a larger vocabulary say.
    for (name, (shape, values)) in setup.policy().own().iter().flat_map(|own| &own.replaced) {
        identity.push(format!("{name} {shape:?}").into_bytes());
        identity.push(values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    let identity: Vec<&[u8]> = identity.iter().map(Vec::as_slice).collect();
    reference_cache::path_for(&cache.join("reference"), &identity)
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
        method: run.method.name.into(),
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
            step: None,
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
            step: None,
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

#[allow(clippy::too_many_arguments, reason = "everything that makes a run what it is")]
pub(super) fn manifest(
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
