//! Checkpoints: everything that a run needs to go on as if it had never stopped.
//!
//! A checkpoint of an adapter is a folder that PEFT can load, one of a whole model holds its tensors in
//! f32; the optimizer's state and the run's stand beside, with recipe and manifest as they are at that moment.
//! It is written under another name, synced, then renamed. Checksums of all files are compared before any of
//! them is believed.

mod sums;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use compute::{Backend, Buffer, DType, Shape};
use data::Cursor;
use eval::classification::Classified;
use model::adapter::{LoadedAdapter, PeftMetadata};
use model::checkpoint::{Announced, TensorWriter};
use model::tensor::HostTensor;
use model::{Config, ScalarHead, TrainedTensor};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use session::Serving;

use crate::doctor::History;
use crate::models::{Models, Part, PartName, PartSetup, TrainingSetup, same};
use crate::run::{MANIFEST, RECIPE, is_partial, pretty, remove_any, sync_folder};
use crate::trainer::{Lowest, Score};
use crate::{Error, Result};

const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const BEST: &str = "best";
const TRAINED: &str = "trained.safetensors";
const BELOW: &str = "below";
/// Files of this length are no cards or configs.
const LINKED_BYTES: u64 = 1 << 20;
const DAMAGED_HINT: &str =
    "the checkpoint is damaged: remove its folder and resume from the one before";

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    /// Where the data stands.
    pub cursor: Cursor,
    /// Which rollout the next step learns from.
    #[serde(default)]
    pub rollout: RolloutState,
    /// Whether the validation that is due after this step was broken off.
    #[serde(default)]
    pub owes_validation: bool,
    /// What the objective carries from step to step.
    #[serde(default)]
    pub carried: Vec<f64>,
    /// What was seen of the run, for findings about it.
    #[serde(default)]
    pub history: History,
    /// By how much the model preferred the better answer of every validation row before its first step, of the first
    /// [`MOST_MARGINS`] rows; empty where margins are measured against a reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub margins_begun: Vec<f64>,
    /// The validation whose adapter or model is kept.
    pub best: Option<Best>,
    /// The lowest validation, where later ones are kept that lie within its noise.
    #[serde(default)]
    pub lowest: Option<Lowest>,
    /// The last validation, by the figure by which steps are compared.
    pub validation_last: Option<f64>,
    /// Loss of the first step.
    pub loss_first: Option<f64>,
    /// Loss of the last step.
    pub loss_last: Option<f64>,
    /// Norm of the last gradient.
    pub grad_norm: Option<f64>,
    /// Rows so far.
    pub rows: u64,
    /// Tokens so far, as rendered.
    pub tokens: u64,
    /// Supervised tokens so far.
    pub tokens_supervised: u64,
    /// Computed tokens so far.
    pub tokens_computed: u64,
    /// Seconds spent so far in steps, and on log-probabilities of the reference that are kept for them.
    pub seconds: f64,
}

/// Where a run that samples its answers stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutState {
    /// Number of the rollout, counted from 0.
    pub number: u64,
    /// Optimizer steps that were made on its answers.
    pub steps: u64,
    /// Fingerprint of the policy that sampled them; empty before that.
    pub policy: String,
}

/// A validation whose adapter or model is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After this many steps.
    pub step: u64,
    /// How the model did.
    pub score: Score,
    /// By how much the better answer of every validation row had the higher reward, of the first
    /// [`MOST_MARGINS`] rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub margins: Vec<f64>,
    /// The class of every validation row and the one that the model gave it, of as many rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classified: Vec<Classified>,
}

/// More rows say no more about a model than these.
pub const MOST_MARGINS: usize = 20_000;

impl State {
    /// A number that no run can come to.
    fn impossible(&self) -> Option<String> {
        let State { step, seconds, tokens, tokens_supervised, .. } = *self;
        let best = self.best.as_ref();
        let numbers = [("seconds", Some(seconds)), ("best", best.map(|best| best.score.value))];
        let losses = [
            ("validation_last", self.validation_last),
            ("loss_first", self.loss_first),
            ("loss_last", self.loss_last),
            ("grad_norm", self.grad_norm),
        ];
        let mut all = numbers.into_iter().chain(losses);
        let strange = all.find(|(_, value)| value.is_some_and(|value| !value.is_finite()));
        if let Some((name, Some(value))) = strange {
            return Some(format!("`{name}` = {value}"));
        }
        let below_zero = [("seconds", Some(seconds)), ("grad_norm", self.grad_norm)];
        for (name, value) in below_zero {
            if let Some(value) = value.filter(|&value| value < 0.0) {
                return Some(format!("`{name}` = {value}"));
            }
        }
        match best {
            Some(best) if best.step > step => {
                Some(format!("a best step {} after step {step}", best.step))
            }
            _ if tokens_supervised > tokens => {
                Some(format!("{tokens_supervised} supervised tokens of {tokens}"))
            }
            _ => None,
        }
    }
}

/// What a checkpoint is made of.
pub struct Contents<'a> {
    /// The models on their device.
    pub models: &'a Models,
    /// What they were made of.
    pub setup: &'a TrainingSetup,
    /// What the adapter's file says beside its values.
    pub metadata: &'a PeftMetadata,
    /// How the adapter is to be served.
    pub serving: &'a Serving,
    /// The resolved recipe.
    pub recipe: &'a str,
    /// The manifest.
    pub manifest: &'a Value,
}

/// The checkpoints of a run.
pub struct Store {
    dir: PathBuf,
    keep: usize,
}

impl Store {
    /// Checkpoints in `dir`, of which the newest `keep` stay.
    pub fn new(dir: PathBuf, keep: usize) -> Self {
        Store { dir, keep: keep.max(1) }
    }

    /// The newest whole checkpoint.
    pub fn latest(&self) -> Option<PathBuf> {
        self.all().into_iter().next_back().map(|(_, path)| path)
    }

    /// The newest checkpoint, all of whose files are as they were written.
    pub fn latest_checked(&self) -> Result<Option<PathBuf>> {
        let mut newest = self.all().into_values().rev();
        let Some(path) = newest.next() else { return Ok(None) };
        let Some(damage) = sums::find_damage(&path)? else { return Ok(Some(path)) };
        let is_good = |path: &PathBuf| matches!(sums::find_damage(path), Ok(None));
        let hint = match newest.find(is_good) {
            Some(good) => format!(
                "remove {} and resume from the one before: {} is good",
                path.display(),
                good.display()
            ),
            None => "no older checkpoint is good: begin a new run with `--overwrite`".to_owned(),
        };
        Err(Error::refused(damage, hint))
    }

    /// Writes a checkpoint; older ones go only once it stands. `best` is the folder of the best
    /// adapter or model so far.
    pub fn save(
        &self,
        backend: &mut dyn Backend,
        run: &Contents<'_>,
        state: &State,
        best: Option<&Path>,
    ) -> Result<PathBuf> {
        let path = self.dir.join(format!("step-{:06}", state.step));
        let beside = self.dir.join(format!(".step-{:06}.partial", state.step));
        let written = self.remove_partials().and_then(|()| {
            write_checkpoint(&beside, backend, run, state)?;
            if let Some(best) = best {
                link_files(best, &beside.join(BEST))?;
            }
            sums::write(&beside)?;
            sync_folder(&beside)?;
            remove_any(&path)?;
            fs::rename(&beside, &path).map_err(Error::io(&path))?;
            sync_folder(&self.dir)
        });
        if let Err(error) = written {
            self.remove_partials().ok();
            return Err(self.unsaved(format!("checkpoint of step {}", state.step), error));
        }
        let all: Vec<PathBuf> = self.all().into_values().collect();
        for old in &all[..all.len().saturating_sub(self.keep)] {
            remove_any(old)?;
        }
        Ok(path)
    }

    /// An error of writing that names the checkpoint which is good.
    pub(crate) fn unsaved(&self, what: String, error: Error) -> Error {
        let kept = self.latest().map_or_else(
            || "there is no older checkpoint".to_owned(),
            |path| format!("{} is still good", path.display()),
        );
        let hint = format!("{kept}; make room, then go on with `--resume`");
        Error::Unsaved { what, source: Box::new(error), hint }
    }

    /// Puts what a checkpoint holds in the place of a setup's values.
    pub fn restore(path: &Path, setup: &mut TrainingSetup, model: &Config) -> Result<()> {
        setup.is_restored = true;
        for name in PartName::OTHERS {
            let dir = path.join(name.to_string());
            if dir.is_dir() {
                let mut part = PartSetup::of_base(name);
                read_part(&dir, &mut part, model)?;
                setup.parts.push(part);
            }
        }
        if PeftMetadata::is_adapter(path) {
            read_part(path, setup.policy_mut(), model)?;
        } else {
            let path = path.join(TRAINED);
            setup.replaced = read_tensors(&path)?;
            for (name, (_, values)) in &setup.replaced {
                check_numbers(&path, name, values)?;
            }
            let head = setup.replaced.remove(ScalarHead::TENSOR);
            setup.policy_mut().head = head.map(|(_, values)| values);
        }
        Ok(())
    }

    /// Reads where the run stood, and puts the optimizer's state back onto the device.
    pub fn resume(path: &Path, backend: &mut dyn Backend, models: &Models) -> Result<State> {
        let state_path = path.join(STATE);
        let text = fs::read_to_string(&state_path).map_err(Error::io(&state_path))?;
        let state: State =
            serde_json::from_str(&text).map_err(|error| damaged(&state_path, error))?;
        if let Some(what) = state.impossible() {
            return Err(damaged(&state_path, format!("{what} is impossible")));
        }
        read_optimizer(&path.join(OPTIMIZER), backend, &models.trained())?;
        Ok(state)
    }

    /// The folder of the best adapter or model up to a checkpoint, where one was chosen by validation.
    pub fn best(path: &Path) -> Option<PathBuf> {
        let dir = path.join(BEST);
        dir.is_dir().then_some(dir)
    }

    /// Removes what a kill or a full disk left half-written.
    fn remove_partials(&self) -> Result<()> {
        fs::create_dir_all(&self.dir).map_err(Error::io(&self.dir))?;
        for entry in fs::read_dir(&self.dir).map_err(Error::io(&self.dir))? {
            let entry = entry.map_err(Error::io(&self.dir))?;
            if is_partial(&entry.file_name()) {
                remove_any(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Whole checkpoints by step.
    fn all(&self) -> BTreeMap<u64, PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let whole = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let step = name.strip_prefix("step-")?.parse().ok()?;
            entry.path().join(STATE).is_file().then(|| (step, entry.path()))
        });
        whole.collect()
    }
}

fn write_checkpoint(
    dir: &Path,
    backend: &mut dyn Backend,
    run: &Contents<'_>,
    state: &State,
) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let Contents { models, setup, recipe, manifest, .. } = run;
    for (part, host) in models.parts.iter().zip(&setup.parts) {
        write_part(dir, backend, run, part, host)?;
    }
    write_optimizer(&dir.join(OPTIMIZER), backend, &models.trained())?;
    let state = serde_json::to_value(state).expect("the state is JSON");
    for (name, text) in
        [(RECIPE, (*recipe).to_owned()), (MANIFEST, pretty(manifest)), (STATE, pretty(&state))]
    {
        let path = dir.join(name);
        fs::write(&path, text).map_err(Error::io(&path))?;
    }
    sync_files(dir)
}

/// Writes a part: the policy into the folder itself, any other one into a folder of its name.
fn write_part(
    dir: &Path,
    backend: &mut dyn Backend,
    run: &Contents<'_>,
    part: &Part,
    host: &PartSetup,
) -> Result<()> {
    let Contents { models, setup, metadata, serving, .. } = run;
    let (decoder, model) = (&models.decoder, &models.decoder.config);
    let Some(adapter) = &part.adapter else {
        // The base itself: what is trained of it is the policy.
        if part.name != PartName::Policy {
            return Ok(());
        }
        let head = part.trained();
        let trained: Vec<_> = decoder.trained().iter().chain(&head).collect();
        return write_trained(&dir.join(TRAINED), backend, trained);
    };
    let own = dir.join(part.name.to_string());
    let (dir, values, tensors) = match (part.name, host.own()) {
        (PartName::Policy, _) => {
            let mut values = models.values(backend)?;
            let tensors = setup.whole_tensors(std::mem::take(&mut values.tensors));
            (dir, values, tensors)
        }
        (_, Some(loaded)) => (&*own, part.values(backend, decoder)?, loaded.replaced.clone()),
        // What the policy stands on is in the folder of the policy.
        _ if host.head.is_none() && is_below(&host.adapters, setup.policy()) => return Ok(()),
        _ => return write_stack(&own, model, &host.adapters, host.head.as_deref(), metadata),
    };
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let head = values.head.as_deref();
    adapter.config().save_scored(dir, model, &values.adapter, &tensors, head, metadata)?;
    write_stack(&dir.join(BELOW), model, host.frozen(), None, metadata)?;
    if part.name == PartName::Policy {
        let path = dir.join(Serving::FILE);
        fs::write(&path, serving.to_json()).map_err(Error::io(&path))?;
    }
    sync_files(dir)
}

/// Whether these are the adapters, or the lowest of those, that the policy stands on.
fn is_below(adapters: &[Arc<LoadedAdapter>], policy: &PartSetup) -> bool {
    policy.frozen().get(..adapters.len()).is_some_and(|lowest| same(lowest, adapters))
}

/// Writes frozen adapters: the one on top into the folder, those below it into folders within.
fn write_stack(
    dir: &Path,
    model: &Config,
    adapters: &[Arc<LoadedAdapter>],
    head: Option<&[f32]>,
    metadata: &PeftMetadata,
) -> Result<()> {
    let Some((top, below)) = adapters.split_last() else { return Ok(()) };
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    top.config.save_scored(dir, model, &top.values, &top.replaced, head, metadata)?;
    write_stack(&dir.join(BELOW), model, below, None, metadata)?;
    sync_files(dir)
}

/// Reads the adapters and the head of a part.
fn read_part(dir: &Path, part: &mut PartSetup, model: &Config) -> Result<()> {
    let below = dir.join(BELOW);
    if below.is_dir() {
        read_part(&below, part, model)?;
    }
    let (adapter, head) = read_adapter(dir, model)?;
    part.adapters.push(adapter.into());
    part.head = head;
    Ok(())
}

fn read_adapter(dir: &Path, model: &Config) -> Result<(LoadedAdapter, Option<Vec<f32>>)> {
    let (adapter, head) = LoadedAdapter::read_scored(dir, model)
        .map_err(|error| Error::refused(error.to_string(), DAMAGED_HINT))?;
    if adapter.config.pissa {
        let message = format!("{}: a PiSSA adapter of an earlier version", dir.display());
        return Err(Error::refused(message, "begin a new run with `--overwrite`"));
    }
    let replaced = adapter.replaced.values().map(|(_, values)| values);
    for values in adapter.values.iter().chain(replaced).chain(&head) {
        check_numbers(dir, "a value of the adapter", values)?;
    }
    Ok((adapter, head))
}

/// Makes sure that the files of a folder are on disk.
fn sync_files(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        if path.is_file() {
            File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Puts the files of a folder into another one, large ones as links where the file system has them: they are
/// replaced as whole files, never changed. Cards and configs, which people edit in place, are copied.
pub(crate) fn link_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::io(to))?;
    for entry in fs::read_dir(from).map_err(Error::io(from))? {
        let entry = entry.map_err(Error::io(from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            link_files(&from, &to)?;
            continue;
        }
        let beside = to.with_file_name(format!(".{}.partial", entry.file_name().display()));
        remove_any(&beside)?;
        let is_large = fs::metadata(&from).is_ok_and(|found| found.len() >= LINKED_BYTES)
            || from.extension().is_some_and(|extension| extension == "safetensors");
        if !is_large || fs::hard_link(&from, &beside).is_err() {
            let copied = fs::copy(&from, &beside)
                .and_then(|_| File::open(&beside).and_then(|file| file.sync_all()));
            copied.map_err(Error::io(&to))?;
        }
        // Of two links to the same file, renaming removes neither.
        remove_any(&to)?;
        fs::rename(&beside, &to).map_err(Error::io(&to))?;
    }
    sync_folder(to)
}

/// Writes the values of trained tensors, one at a time.
fn write_trained(
    path: &Path,
    backend: &mut dyn Backend,
    mut tensors: Vec<&TrainedTensor>,
) -> Result<()> {
    tensors.sort_by_key(|tensor| &tensor.name);
    let announced = tensors.iter().map(|tensor| {
        let shape = match tensor.parameter.shape {
            Shape::Matrix(rows, cols) => vec![rows, cols],
            Shape::Vector(len) => vec![len],
        };
        Announced { name: tensor.name.clone(), dtype: Dtype::F32, shape }
    });
    let mut writer = TensorWriter::create(path, &announced.collect::<Vec<_>>())?;
    for tensor in tensors {
        let mut values = vec![0.0; tensor.len()];
        backend.read(tensor.parameter.master, &mut values)?;
        writer.write_f32(&values)?;
    }
    Ok(writer.finish()?)
}

fn read_tensors(path: &Path) -> Result<BTreeMap<String, HostTensor>> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(path, error))?;
    let read = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.shape().to_vec(), floats(view.data()))));
    Ok(read.collect())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Everything that the optimizer keeps, named as [`compute::OptimizerKind::states`] names it.
fn write_optimizer(
    path: &Path,
    backend: &mut dyn Backend,
    trained: &[TrainedTensor],
) -> Result<()> {
    let mut states: Vec<(String, Buffer)> = Vec::new();
    for tensor in trained {
        let key = &tensor.name;
        states.extend(
            tensor.parameter.states().map(|(name, buffer)| (format!("{key}.{name}"), buffer)),
        );
    }
    // Floats first, so that all are aligned.
    states.sort_by_key(|(_, buffer)| buffer.dtype == DType::U8);
    let announced: Vec<Announced> = states
        .iter()
        .map(|(name, buffer)| Announced {
            name: name.clone(),
            dtype: if buffer.dtype == DType::U8 { Dtype::U8 } else { Dtype::F32 },
            shape: vec![buffer.len],
        })
        .collect();
    let mut writer = TensorWriter::create(path, &announced)?;
    for (_, buffer) in states {
        if buffer.dtype == DType::U8 {
            let mut bytes = vec![0; buffer.len];
            backend.read_u8(buffer, &mut bytes)?;
            writer.write(&bytes)?;
        } else {
            let mut values = vec![0.0; buffer.len];
            backend.read(buffer, &mut values)?;
            writer.write_f32(&values)?;
        }
    }
    Ok(writer.finish()?)
}

fn read_optimizer(path: &Path, backend: &mut dyn Backend, trained: &[TrainedTensor]) -> Result<()> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(path, error))?;
    for tensor in trained {
        for (name, buffer) in tensor.parameter.states() {
            let name = format!("{}.{name}", tensor.name);
            let view = tensors.tensor(&name).map_err(|error| damaged(path, error))?;
            if view.shape() != [buffer.len] {
                return Err(damaged(path, format!("`{name}` has another shape")));
            }
            match (buffer.dtype, view.dtype()) {
                (DType::U8, Dtype::U8) => backend.upload_u8(view.data(), buffer)?,
                (DType::F32, Dtype::F32) => {
                    let values = floats(view.data());
                    check_numbers(path, &name, &values)?;
                    let is_square = ["second_moment", "row_moment", "column_moment", "absmax"];
                    let is_square = is_square.iter().any(|end| name.ends_with(end));
                    if let Some(value) = values.iter().find(|&&value| is_square && value < 0.0) {
                        return Err(damaged(path, format!("`{name}` holds {value}")));
                    }
                    backend.upload(&values, buffer)?;
                }
                _ => return Err(damaged(path, format!("`{name}` has another type"))),
            }
        }
    }
    Ok(())
}

/// Refuses what is no number: it would spread over all that is trained.
fn check_numbers(path: &Path, name: &str, values: &[f32]) -> Result<()> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(damaged(path, format!("`{name}` holds {value}"))),
        None => Ok(()),
    }
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::refused(format!("{}: {why}", path.display()), DAMAGED_HINT)
}
