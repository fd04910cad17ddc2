//! PiSSA, Meng et al. 2024: the matrices begin as the principal part of the weight.
//!
//! `W = U S V^T`; with the `rank` largest singular values `S_r`, `A = sqrt(S_r / scaling) V_r^T` and
//! `B = U_r sqrt(S_r / scaling)`. The paper trains them over `W - scaling B A`. Here the base stays as it is, and
//! a frozen adapter `(A, -B)` below takes the beginning off: the two are one stack, merged like any other.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::LoadedAdapter;
use super::config::{LoraConfig, MatrixInfo};
use super::coverage::module_path;
use super::principal::principal;
use crate::tensor::Role;
use crate::{Base, Config, Error, Module, Result};

/// `lora_A` and `lora_B` of a module.
type Pair = (Vec<f32>, Vec<f32>);

impl LoraConfig {
    /// The frozen adapter that takes off what an adapter of this shape and these values adds: `(A, -B)`. Trained
    /// tokens and whole modules are no part of it.
    pub fn counterweight(&self, values: &[Vec<f32>], model: &Config) -> LoadedAdapter {
        let config = LoraConfig {
            pissa: false,
            dropout: 0.0,
            tokens: Vec::new(),
            modules_to_save: Vec::new(),
            ..self.clone()
        };
        let taken_off = |(info, values): (MatrixInfo, &Vec<f32>)| match info.role {
            Role::LoraB => values.iter().map(|b| -b).collect(),
            _ => values.clone(),
        };
        let values = config.matrices(model).into_iter().zip(values).map(taken_off).collect();
        LoadedAdapter { config, values, replaced: BTreeMap::new() }
    }

    /// The values that a PiSSA adapter begins with; those that follow from the base are left empty, as by
    /// [`initial_values`](LoraConfig::initial_values). They do not depend on the number of threads.
    ///
    /// # Errors
    /// A module with fewer rows or columns than its rank has not so many singular values.
    pub fn pissa_values(&self, base: &Base, threads: usize) -> Result<Vec<Vec<f32>>> {
        let keys: Vec<(usize, Module)> = self.modules.keys().copied().collect();
        let next = AtomicUsize::new(0);
        let made: Mutex<BTreeMap<usize, Result<Pair>>> = Mutex::new(BTreeMap::new());
        let work = || {
            while let index = next.fetch_add(1, Ordering::Relaxed)
                && let Some(&key) = keys.get(index)
            {
                let pair = self.principal_pair(base, key);
                if pair.is_err() {
                    // The others need not begin what is thrown away.
                    next.store(keys.len(), Ordering::Relaxed);
                }
                made.lock().expect("no thread panicked").insert(index, pair);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(keys.len()) {
                scope.spawn(work);
            }
            work();
        });
        let made = made.into_inner().expect("no thread panicked");
        let mut pairs = made.into_values().collect::<Result<Vec<Pair>>>()?.into_iter();
        let (mut values, mut b) = (Vec::new(), Vec::new());
        for info in self.matrices(&base.config) {
            values.push(match info.role {
                Role::LoraA => {
                    let pair = pairs.next().expect("a pair for every module");
                    b = pair.1;
                    pair.0
                }
                Role::LoraB => std::mem::take(&mut b),
                _ => Vec::new(),
            });
        }
        Ok(values)
    }

    fn principal_pair(&self, base: &Base, key: (usize, Module)) -> Result<Pair> {
        let (rank, alpha) = self.modules[&key];
        let (rows, cols) = base.config.shape(key.1);
        let path = module_path(key);
        if rank > rows.min(cols) {
            return Err(Error::Input {
                message: format!("PiSSA of rank {rank}: `{path}` is {rows} x {cols}"),
                hint: Some(format!("its rank can be {} at most", rows.min(cols))),
            });
        }
        let tensor = base.tensor(&format!("{path}.weight"), &[rows, cols])?;
        let weight = tensor.values(0..rows)?;
        tensor.release();
        let parts = principal(&weight, rows, cols, rank);
        let scaling = f64::from(self.scaling(rank, alpha));
        let (mut a, mut b) = (Vec::with_capacity(rank * cols), vec![0.0; rows * rank]);
        for (index, part) in parts.iter().enumerate() {
            let root = (part.value / scaling).sqrt();
            a.extend(part.right.iter().map(|x| (root * x) as f32));
            for (row, x) in part.left.iter().enumerate() {
                b[row * rank + index] = (root * x) as f32;
            }
        }
        Ok((a, b))
    }
}

impl LoadedAdapter {
    /// What a PiSSA adapter, as PEFT saves it, stands on over the base as it is. None where it is no PiSSA.
    ///
    /// Its folder does not hold the values that it began with; they are found anew.
    pub(super) fn beginning(&self, base: &Base) -> Result<Option<LoadedAdapter>> {
        if !self.config.pissa {
            return Ok(None);
        }
        if self.config.dora {
            let message = "PiSSA with DoRA is not supported".into();
            return Err(Error::Input { message, hint: Some("merge it with PEFT".into()) });
        }
        let values = self.config.pissa_values(base, 1)?;
        Ok(Some(self.config.counterweight(&values, &base.config)))
    }

    /// The same as a plain adapter over the base as it is, whatever it stands on.
    pub(crate) fn made_plain(&mut self, base: &Base) -> Result<()> {
        let Some(below) = self.beginning(base)? else { return Ok(()) };
        let (own, config) = (&self.config, &base.config);
        (self.config, self.values) =
            own.merged_with(&self.values, &below.config, &below.values, config)?;
        Ok(())
    }
}
