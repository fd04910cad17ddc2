//! Checkpoints: everything that a run needs to go on as if it had never stopped.
//!
//! A checkpoint is a folder that PEFT can load, with the optimizer's moments and the run's
//! state beside. It is written under another name, synced, then renamed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use compute::Backend;
use data::Cursor;
use model::adapter::PeftMetadata;
use model::{Adapter, Config, LoraConfig};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::run::{is_partial, pretty, remove_any, sync_folder};
use crate::{Error, Result};

const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const BEST: &str = "best";
const DAMAGED_HINT: &str =
    "the checkpoint is damaged: remove its folder and resume from the one before";

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    /// Where the data stands.
    pub cursor: Cursor,
    /// Step and loss of the best validation so far.
    pub best: Option<(u64, f64)>,
    /// The last validation loss.
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
    /// Seconds spent in steps so far.
    pub seconds: f64,
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

    /// Writes a checkpoint; older ones go only once it stands. `best` is the folder of the best
    /// adapter so far.
    pub fn save(
        &self,
        backend: &mut dyn Backend,
        adapter: &Adapter,
        model: &Config,
        metadata: &PeftMetadata,
        state: &State,
        best: Option<&Path>,
    ) -> Result<PathBuf> {
        let path = self.dir.join(format!("step-{:06}", state.step));
        let beside = self.dir.join(format!(".step-{:06}.partial", state.step));
        let written = self.remove_partials().and_then(|()| {
            write_checkpoint(&beside, backend, adapter, model, metadata, state)?;
            if let Some(best) = best {
                link_adapter(best, &beside.join(BEST))?;
            }
            sync_folder(&beside)?;
            remove_any(&path)?;
            fs::rename(&beside, &path).map_err(Error::io(&path))?;
            sync_folder(&self.dir)
        });
        if let Err(error) = written {
            self.remove_partials().ok();
            let kept = self.latest().map_or_else(
                || "there is no older checkpoint".to_owned(),
                |path| format!("{} is still good", path.display()),
            );
            return Err(Error::refused(
                format!("checkpoint of step {}: {error}", state.step),
                format!("{kept}; make room, then go on with `--resume`"),
            ));
        }
        let all: Vec<PathBuf> = self.all().into_values().collect();
        for old in &all[..all.len().saturating_sub(self.keep)] {
            remove_any(old)?;
        }
        Ok(path)
    }

    /// A checkpoint's adapter: its shape, and the values of its matrices.
    pub fn load_adapter(path: &Path, model: &Config) -> Result<(LoraConfig, Vec<Vec<f32>>)> {
        LoraConfig::load(path, model)
            .map_err(|error| Error::refused(error.to_string(), DAMAGED_HINT))
    }

    /// The best adapter up to a checkpoint, in the order of [`LoraConfig::matrices`], where one was
    /// chosen by validation.
    pub fn best(path: &Path, model: &Config) -> Result<Option<Vec<Vec<f32>>>> {
        let dir = path.join(BEST);
        if !dir.is_dir() {
            return Ok(None);
        }
        Ok(Some(Self::load_adapter(&dir, model)?.1))
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

    /// Puts a checkpoint's adapter and moments back onto the device.
    pub fn load(
        path: &Path,
        backend: &mut dyn Backend,
        model: &Config,
        dropout: f32,
    ) -> Result<(Adapter, State)> {
        let state_path = path.join(STATE);
        let text = fs::read_to_string(&state_path).map_err(Error::io(&state_path))?;
        let state: State =
            serde_json::from_str(&text).map_err(|error| damaged(&state_path, error))?;
        let (mut config, values) = Self::load_adapter(path, model)?;
        config.dropout = dropout;
        let names: Vec<String> = config.matrices(model).into_iter().map(|m| m.name).collect();
        let adapter = Adapter::new(backend, model, config, &values, true)?;
        let optimizer_path = path.join(OPTIMIZER);
        let bytes = fs::read(&optimizer_path).map_err(Error::io(&optimizer_path))?;
        let tensors =
            SafeTensors::deserialize(&bytes).map_err(|error| damaged(&optimizer_path, error))?;
        for (name, parameter) in names.iter().zip(adapter.parameters()) {
            let moments = [("first", parameter.first_moment), ("second", parameter.second_moment)];
            for (moment, buffer) in moments {
                let view = tensors
                    .tensor(&format!("{name}.{moment}_moment"))
                    .map_err(|error| damaged(&optimizer_path, error))?;
                let values: Vec<f32> = view
                    .data()
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                    .collect();
                if values.len() != buffer.len {
                    return Err(damaged(&optimizer_path, format!("`{name}` has another shape")));
                }
                backend.upload(&values, buffer)?;
            }
        }
        Ok((adapter, state))
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
    adapter: &Adapter,
    model: &Config,
    metadata: &PeftMetadata,
    state: &State,
) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    adapter.config().save(dir, model, &adapter.values(backend)?, metadata)?;
    write_moments(&dir.join(OPTIMIZER), backend, adapter, model)?;
    let path = dir.join(STATE);
    let json = serde_json::to_value(state).expect("the state is JSON");
    fs::write(&path, pretty(&json)).map_err(Error::io(&path))?;
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// Puts an adapter's files into another folder, as links where the file system has them: files
/// of an adapter are replaced, never changed.
fn link_adapter(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::io(to))?;
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let (from, to) = (from.join(name), to.join(name));
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).map_err(Error::io(&to))?;
            File::open(&to).and_then(|file| file.sync_all()).map_err(Error::io(&to))?;
        }
    }
    sync_folder(to)
}

fn write_moments(
    path: &Path,
    backend: &mut dyn Backend,
    adapter: &Adapter,
    model: &Config,
) -> Result<()> {
    let infos = adapter.config().matrices(model);
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::with_capacity(2 * infos.len());
    for (info, parameter) in infos.iter().zip(adapter.parameters()) {
        let moments = [("first", parameter.first_moment), ("second", parameter.second_moment)];
        for (moment, buffer) in moments {
            let mut values = vec![0.0; buffer.len];
            backend.read(buffer, &mut values)?;
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let name = format!("{}.{moment}_moment", info.name);
            tensors.push((name, vec![info.rows, info.cols], bytes));
        }
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.clone(), view.expect("as many bytes as the shape asks for"))
    });
    let bytes = safetensors::serialize(views, None).map_err(|error| damaged(path, error))?;
    fs::write(path, bytes).map_err(Error::io(path))
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::refused(format!("{}: {why}", path.display()), DAMAGED_HINT)
}
