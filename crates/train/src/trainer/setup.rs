//! Everything that is decided before the first step: data, defaults, models, memory.

use std::path::PathBuf;

use compute::{Backend, MemoryLimits};
use data::{Cursor, Finding, Level, Order};
use keys::{Document, Settings as _};
use model::Base;
use model::adapter::PeftMetadata;
use serde_json::{Map, Value};
use text::{Date, Metadata};

use super::course::{Rows, check_rows};
use super::memory_estimate::MemoryEstimate;
use super::models::{Sources, take_start, training_setup};
use super::open::{quantised_base, remarks, with_tokens_and_template};
use super::plan::{self, MemoryRequest, Plan};
use super::reference_cache;
use super::resume::Before;
use super::rollouts::TeacherPrompts;
use super::rows::{beyond_the_model, refuse_errors, rows};
use super::start::manifest;
use super::synthetic_rows::{self, SyntheticRows};
use super::{Job, TeacherModel, output, rollouts};
use crate::checkpoint::Store;
use crate::environment;
use crate::method::{self, Online};
use crate::models::{PartName, TrainingSetup};
use crate::recipe::{Recipe, RolloutConfig, check, fill_by_data};
use crate::reward;
use crate::run::RunFolder;
use crate::{Error, Result};

/// What a recipe is looked at for.
pub(super) enum Purpose<'a> {
    /// To be carried out, or gone on with in this folder.
    Train(Option<&'a RunFolder>),
    /// To be planned, over these rows in place of those that it names. No weight is read.
    Plan(Option<SyntheticRows>),
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
    pub(super) estimate: MemoryEstimate,
    pub(super) request: MemoryRequest,
    pub(super) plan: Plan,
    /// Whether the log-probabilities of the reference are computed once.
    pub(super) caches_reference: bool,
    /// Folder that keeps what later runs can use.
    pub(super) cache: Option<PathBuf>,
}

/// Reads data and recipe and decides what is trained, in how much memory. Nothing is written.
pub(super) fn decide(job: Job<'_>, device: &dyn Backend, purpose: Purpose<'_>) -> Result<Prepared> {
    let Job {
        mut document,
        mut base,
        start,
        base_name,
        revision,
        date,
        threads,
        data: at,
        teacher,
        ..
    } = job;
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

    let method = method::of(&document);
    environment::fill(&mut document);
    check(&document)?;
    if method.learns_from_rewards() {
        reward::check(&document)?;
    }
    let shapes_only = matches!(purpose, Purpose::Plan(_));
    let stand_in = match purpose {
        Purpose::Plan(stand_in) => stand_in,
        Purpose::Train(_) => None,
    };
    let metadata = match base.metadata_with(start.as_deref(), date) {
        Err(_) if stand_in.is_some() => synthetic_rows::metadata(&base)?,
        metadata => metadata?,
    };
    let (metadata, added) = with_tokens_and_template(&document, metadata, date)?;
    let has_rows = stand_in.is_none();
    let data = match &stand_in {
        Some(stand_in) => stand_in.rows(base.config.vocab_size, method.fewest_sequences)?,
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
    let mut manifest = match shapes_only {
        true => Value::Null,
        false => {
            let rows = (&data.files[..], data.split.as_ref(), data.context.as_deref());
            manifest(&document, &base, &metadata, &peft, rows, date, device)?
        }
    };
    if !shapes_only && matches!(method.online, Some(Online::Teacher)) {
        let kwargs = Map::new();
        let seen = TeacherPrompts::read(&document, &metadata, kwargs)?.fingerprint();
        let other = match &teacher {
            Some(TeacherModel::Other(other)) => other.hash()?,
            _ => String::new(),
        };
        manifest["teacher_hash"] = format!("{seen} {other}").trim_end().into();
    }
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
        teacher: teacher.as_ref(),
    };
    let initial = take_start(&mut document, &sources)?;
    if has_rows {
        (method.fill)(&mut document, &train)?;
        (method.check_rows)(&document, &train, &validation)?;
        if method.learns_from_rewards() {
            reward::check_rows(&document, &train, &validation)?;
        }
    }
    fill_by_data(&mut document, train.units(), (&base.config).into());
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

    let of_a_row = train.longest_unit().1.max(1);
    let units = train.order_units()?;
    let mut rows = Rows {
        order: Order::new(units, recipe.seed, recipe.step_size, recipe.extent),
        train,
        validation,
        extent: recipe.extent,
        objective: (method.objective)(&document),
        value_objective: (method.value_objective)(&document),
        judged_by: (method.judged_by)(&document),
        shares_prefixes: recipe.shares_prefixes,
        reference: None,
        rollout: recipe.rollout,
        learns_from_pairs: matches!(method.online, Some(Online::Pairs)),
        teacher_longer_by: 0,
    };
    let is_taught = rows.objective.divergence().is_some();
    if is_taught && has_rows {
        let kwargs = recipe.template_kwargs.clone();
        let prompts = TeacherPrompts::read(&document, &metadata, kwargs)?;
        rows.teacher_longer_by = prompts.longer_by([&rows.train, &rows.validation])?;
    }
    let findings_of_rollout = recipe.rollout.and_then(|rollout| sampling_finding(&rollout));
    findings.extend(findings_of_rollout);
    findings.extend(method::kl_warning(&document).map(kl_finding));
    let caches_reference = has_rows && caches_reference(&mut document, &mut rows);
    let cached_bytes = match caches_reference {
        true => reference_cache::bytes(&rows.train) + reference_cache::bytes(&rows.validation),
        false => 0,
    };
    let longest = rows.longest();
    if let Some(rollout) = recipe.rollout {
        check_pass_rate(&document, &rollout)?;
        check_prompts(&document, &rollout, &rows, &setup, &base)?;
    }
    let answers = recipe.rollout.map_or(1, |rollout| rollout.group_size);
    let sequences = rows.order.step(Cursor::default()).map_or(1, |step| step.sequences() * answers);
    // The teacher's states at every token of a rollout's answers.
    let taught_bytes = match recipe.rollout {
        Some(rollout) if is_taught => {
            let teacher = setup.parts.iter().find(|part| part.name == PartName::Teacher);
            let other = teacher.and_then(|part| part.base.as_ref());
            let width = other.map_or(base.config.hidden_size, |other| other.config.hidden_size);
            4 * width * rows.most_answers(&rollout) * rollout.longest_answer()
        }
        _ => 0,
    };
    let request = MemoryRequest {
        // Steps by tokens vary in rows; twice the first leaves room.
        sequences: 2 * sequences.max(8),
        of_step: match recipe.step_size {
            data::StepSize::Rows(rows) => {
                let answers = recipe.rollout.map_or(1, |rollout| rollout.group_size);
                rows.saturating_mul(answers).saturating_mul(of_a_row.max(longest))
            }
            data::StepSize::Tokens(tokens) => tokens.max(of_a_row).max(longest),
        },
        longest,
        room: recipe.rollout.map(|rollout| {
            let answers = rows.most_answers(&rollout);
            let concurrency = rollout.concurrency.min(answers);
            rollouts::room(
                concurrency,
                longest - rollout.longest_answer(),
                rollout.longest_answer(),
            )
        }),
        limits: MemoryLimits { host: job.memory_limit, device: device.memory_bytes() },
        process: process + setup.kept_bytes() + cached_bytes + taught_bytes,
        ..MemoryRequest::of(&recipe)
    };
    let objective = (method.objective)(&document);
    let estimate = MemoryEstimate::new(&base, &setup, &recipe.optimizer, objective, device)?;
    let plan = plan::choose(&estimate, &mut rows, &request)?;
    plan::write_choices(&mut document, &request, &plan);
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
        estimate,
        request,
        plan,
        caches_reference,
        cache: at.cache,
    })
}

/// Refuses bounds that no group is within.
fn check_pass_rate(document: &Document, rollout: &RolloutConfig) -> Result<()> {
    match rollout.pass_rate {
        Some([low, high]) if low > high => {
            let message = "`rollout.pass_rate` ends before it begins".to_owned();
            let hint = "write the lowest mean reward first: [0.1, 0.9]".to_owned();
            let problem = document.problem("rollout.pass_rate", message, Some(hint));
            Err(Error::Recipe(problem.into()))
        }
        _ => Ok(()),
    }
}

/// Refuses prompts behind which the model has no room for an answer, and adapters that drop out.
fn check_prompts(
    document: &Document,
    rollout: &RolloutConfig,
    rows: &Rows,
    setup: &TrainingSetup,
    base: &Base,
) -> Result<()> {
    let config = setup.config(base);
    // A teacher of its own may have been made for less.
    let others = setup.parts.iter().filter_map(|part| part.base.as_ref());
    let others = others.map(|other| other.config.max_position_embeddings);
    let most = others.fold(config.max_position_embeddings, usize::min);
    if document.opt_f64("adapter.dropout").is_some_and(|dropout| dropout > 0.0) {
        let message = "an adapter with dropout is another policy in training than in sampling";
        let hint = "leave it out: `adapter.dropout: 0`".to_owned();
        let problem = document.problem("adapter.dropout", message.to_owned(), Some(hint));
        return Err(Error::Recipe(problem.into()));
    }
    for prompts in [&rows.train, &rows.validation] {
        let Some((index, tokens)) = prompts.longest() else { continue };
        let (place, new) = (prompts.get(index)?.place, rollout.longest_answer());
        let (key, answer) = match rollout.episode {
            Some(_) => ("environment.max_tokens", "episode"),
            None => ("rollout.max_new_tokens", "answer"),
        };
        if tokens + new > most {
            let message = format!(
                "{place}: the prompt has {tokens} tokens, and with `{key}` = {new} an {answer} goes beyond the {most} that the model was made for"
            );
            let hint = format!(
                "lower `{key}`, or leave long prompts out: `data: {{max_seq_len: ..., overlong: skip}}`"
            );
            return Err(Error::refused(message, hint));
        }
        let longer = rows.teacher_longer_by;
        if longer > 0 && tokens + longer + new > most {
            let message = format!(
                "{place}: the teacher's prompt may have {} tokens, and with `rollout.max_new_tokens` = {new} an answer goes beyond the {most} that the model was made for",
                tokens + longer
            );
            let hint = "shorten `distill.system`, or lower `rollout.max_new_tokens`";
            return Err(Error::refused(message, hint));
        }
    }
    Ok(())
}

/// Says so where the divergence from the reference has another gradient than it should.
fn kl_finding(message: String) -> Finding {
    Finding {
        id: "biased-kl".into(),
        level: Level::Warning,
        count: 1,
        places: Vec::new(),
        message,
        hint: "see docs/methods/kl.md".into(),
    }
}

/// Says so where answers are not drawn from the distribution that is trained.
fn sampling_finding(rollout: &RolloutConfig) -> Option<Finding> {
    rollout.is_truncated().then(|| Finding {
        id: "sampling-off-policy".into(),
        level: Level::Warning,
        count: 1,
        places: Vec::new(),
        message: "answers are drawn from a part of the vocabulary (top_p, top_k or min_p), and log-probabilities are of all of it: what is learned from is not what the policy would say".into(),
        hint: "leave `rollout.top_p`, `rollout.top_k` and `rollout.min_p` out".into(),
    })
}

/// Whether the log-probabilities of the reference are computed once; writes the choice into the recipe.
fn caches_reference(document: &mut Document, rows: &mut Rows) -> bool {
    let key = "reference.logprobs";
    if document.opt_str(key) == Some("auto") {
        let passes = rows.passes();
        let (choice, why) = match passes > 1.0 {
            true => ("cached", format!("the rows are passed over {passes:.1} times")),
            false => ("live", "no row is seen twice".to_owned()),
        };
        document.choose(key, choice, &why);
    }
    document.opt_str(key) == Some("cached")
}
