//! Two adapters as one.

use std::collections::BTreeMap;

use super::config::{LoraConfig, LoraKind};
use crate::tensor::Role;
use crate::{Config, Error, Module, Result};

/// A module's matrices on the host.
#[derive(Clone)]
struct Pair {
    rank: usize,
    scaling: f32,
    /// `[rank, K]`.
    a: Vec<f32>,
    /// `[N, rank]`.
    b: Vec<f32>,
}

impl LoraConfig {
    /// Refuses to put this adapter over `below` where the two could not be saved as one.
    ///
    /// # Errors
    /// DoRA's magnitudes depend on what they stand on and cannot be put together.
    pub fn check_over(&self, below: &LoraConfig) -> Result<()> {
        if self.dora || below.dora || !below.tokens.is_empty() || !below.modules_to_save.is_empty()
        {
            return Err(Error::Input {
                message:
                    "adapters with DoRA, trained tokens or whole modules cannot be put together"
                        .into(),
                hint: Some("merge the lower one into the base first: `tunesmith merge`".into()),
            });
        }
        Ok(())
    }

    /// The one adapter that computes what `below` and `self` over it compute together: matrices side by
    /// side, so that ranks add up.
    ///
    /// # Errors
    /// Those of [`check_over`](LoraConfig::check_over).
    pub fn merged_with(
        &self,
        values: &[Vec<f32>],
        below: &LoraConfig,
        below_values: &[Vec<f32>],
        config: &Config,
    ) -> Result<(LoraConfig, Vec<Vec<f32>>)> {
        self.check_over(below)?;
        let mut pairs = below.pairs(below_values, config);
        for (key, own) in self.pairs(values, config) {
            let whole = match pairs.get(&key) {
                Some(below) => beside(below, &own, config.shape(key.1).0),
                None => own,
            };
            pairs.insert(key, whole);
        }
        let rank = self.rank + below.rank;
        let mut merged = LoraConfig {
            rank,
            alpha: self.alpha_for(rank, self.scaling(self.rank, self.alpha)),
            modules: BTreeMap::new(),
            pissa: false,
            ..self.clone()
        };
        let mut all = Vec::with_capacity(2 * pairs.len());
        for (key, pair) in pairs {
            merged.modules.insert(key, (pair.rank, self.alpha_for(pair.rank, pair.scaling)));
            all.extend([pair.a, pair.b]);
        }
        all.extend_from_slice(&values[2 * self.modules.len()..]);
        Ok((merged, all))
    }

    /// The alpha that gives this scaling at a rank.
    fn alpha_for(&self, rank: usize, scaling: f32) -> f32 {
        match self.kind {
            LoraKind::Lora => scaling * rank as f32,
            LoraKind::RsLora => scaling * (rank as f32).sqrt(),
        }
    }

    /// Every module's matrices.
    fn pairs(&self, values: &[Vec<f32>], config: &Config) -> BTreeMap<(usize, Module), Pair> {
        let infos = self.matrices(config);
        let mut matrices = infos
            .iter()
            .zip(values)
            .filter(|(info, _)| matches!(info.role, Role::LoraA | Role::LoraB))
            .map(|(_, values)| values);
        let mut next = || matrices.next().expect("two matrices a module");
        let pairs = self.modules.iter().map(|(&key, &(rank, alpha))| {
            let scaling = self.scaling(rank, alpha);
            let (a, b) = (next().clone(), next().clone());
            (key, Pair { rank, scaling, a, b })
        });
        pairs.collect()
    }
}

/// `[A1; A2]` and `[B1, B2]`, with the scaling of the second: B1 takes up the ratio of the two.
fn beside(first: &Pair, second: &Pair, rows: usize) -> Pair {
    let ratio = first.scaling / second.scaling;
    let mut a = first.a.clone();
    a.extend(&second.a);
    let mut b = Vec::with_capacity(first.b.len() + second.b.len());
    for row in 0..rows {
        b.extend(first.b[row * first.rank..][..first.rank].iter().map(|b| b * ratio));
        b.extend(&second.b[row * second.rank..][..second.rank]);
    }
    Pair { rank: first.rank + second.rank, scaling: second.scaling, a, b }
}
