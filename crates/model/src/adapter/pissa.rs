//! PiSSA, Meng et al. 2024: the matrices begin as the principal part of the weight, and the base keeps the rest.
//!
//! `W = U S V^T`; with the `rank` largest singular values `S_r`, `A = sqrt(S_r / scaling) V_r^T`,
//! `B = U_r sqrt(S_r / scaling)`, and the base is `W - scaling B A`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::config::{LoraConfig, LoraKind, MatrixInfo};
use super::coverage::module_path;
use super::principal::principal;
use crate::tensor::Role;
use crate::{Base, Config, Error, LowRank, Module, Result};

/// `lora_A` and `lora_B` of a module.
type Pair = (Vec<f32>, Vec<f32>);

impl LoraConfig {
    /// What the base lacks under an adapter of this kind: `scaling * B A` of its beginning, by module.
    /// Empty where it is no PiSSA.
    pub fn principal_products(&self, base: &Base) -> Result<BTreeMap<(usize, Module), LowRank>> {
        if !self.pissa {
            return Ok(BTreeMap::new());
        }
        let initial = self.pissa_values(base, 1)?;
        Ok(self.principal_products_from(&initial, &base.config))
    }

    /// As [`principal_products`](LoraConfig::principal_products), from the values that the adapter began with.
    pub fn principal_products_from(
        &self,
        initial: &[Vec<f32>],
        config: &Config,
    ) -> BTreeMap<(usize, Module), LowRank> {
        let infos = self.matrices(config);
        let of = |role| values_of(&infos, initial, role);
        let matrices = of(Role::LoraA).zip(of(Role::LoraB));
        let products = self.modules.iter().zip(matrices).map(|((&key, &(rank, alpha)), (a, b))| {
            let scaling = self.scaling(rank, alpha);
            let b = b.iter().map(|b| b * scaling).collect();
            (key, LowRank { rank, a: a.clone(), b })
        });
        products.collect()
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

    /// The plain adapter that computes over the base as it is what this one computes over the rest of it:
    /// `[A; A0]` and `[B, -B0]`, of twice the rank.
    pub fn without_pissa(
        &self,
        values: &[Vec<f32>],
        initial: &[Vec<f32>],
        config: &Config,
    ) -> (LoraConfig, Vec<Vec<f32>>) {
        let growth = match self.kind {
            LoraKind::Lora => 2.0,
            LoraKind::RsLora => std::f32::consts::SQRT_2,
        };
        let modules = self.modules.iter();
        let plain = LoraConfig {
            pissa: false,
            rank: 2 * self.rank,
            alpha: growth * self.alpha,
            modules: modules
                .map(|(&key, &(rank, alpha))| (key, (2 * rank, growth * alpha)))
                .collect(),
            ..self.clone()
        };
        let infos = self.matrices(config);
        let together =
            infos.iter().zip(values).zip(initial).map(|((info, now), before)| match info.role {
                Role::LoraA => [now.as_slice(), before].concat(),
                Role::LoraB => less(now, before, info.shape[1]),
                _ => now.clone(),
            });
        (plain, together.collect())
    }
}

/// `[B, -B0]`, row by row.
fn less(now: &[f32], before: &[f32], rank: usize) -> Vec<f32> {
    let rows = now.chunks_exact(rank).zip(before.chunks_exact(rank));
    rows.flat_map(|(now, before)| now.iter().copied().chain(before.iter().map(|b| -b))).collect()
}

/// The values of the matrices in a role, in order.
fn values_of<'a>(
    infos: &'a [MatrixInfo],
    values: &'a [Vec<f32>],
    role: Role,
) -> impl Iterator<Item = &'a Vec<f32>> {
    infos.iter().zip(values).filter(move |(info, _)| info.role == role).map(|(_, values)| values)
}
