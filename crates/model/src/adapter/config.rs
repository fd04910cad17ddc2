//! What an adapter covers, and how strongly.
//!
//! Over a base that ties its head to the embedding, PEFT's `ensure_weight_tying` decides. With it, an embedding that is
//! saved as a whole takes the head along, and both tensors are written, because PEFT looks for both. Without it the head
//! keeps the base's values from then on, in generation, training and the merged folder. What a file holds beyond
//! `modules_to_save` is embedding and head of a resized vocabulary: never trained, saved again.

use std::collections::BTreeMap;

use super::initial::PURPOSE_INIT;
use crate::architecture::{EMBEDDING, HEAD};
use crate::tensor::Role;
use crate::{Config, Module};

/// How `scaling` follows from rank and alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraKind {
    /// `alpha / rank`.
    Lora,
    /// `alpha / sqrt(rank)`, Kalajdzievski 2023.
    RsLora,
}

/// What an adapter covers and how strongly.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// How scaling is computed.
    pub kind: LoraKind,
    /// Rank where no pattern says otherwise.
    pub rank: usize,
    /// Alpha where no pattern says otherwise.
    pub alpha: f32,
    /// Dropout on the inputs while training.
    pub dropout: f32,
    /// Magnitudes of their own over the modules' rows: DoRA, Liu et al. 2024.
    pub dora: bool,
    /// Whether the base lacks the product that the matrices began with: PiSSA, Meng et al. 2024.
    pub pissa: bool,
    /// Rank and alpha of every adapted module of the file, by layer.
    pub modules: BTreeMap<(usize, Module), (usize, f32)>,
    /// Tokens whose rows of the embedding are trained, ascending.
    pub tokens: Vec<u32>,
    /// Whether their rows of the head are too, where it is apart from the embedding. Where it is not they are.
    pub tokens_in_head: bool,
    /// Modules of the base that are trained as a whole and saved with the adapter, `lm_head` say.
    pub modules_to_save: Vec<String>,
    /// Whether the head stays one with an embedding among them, where the base ties the two. Without it either
    /// has values of its own from then on, as in PEFT.
    pub ensure_weight_tying: bool,
}

impl LoraConfig {
    /// The same rank and alpha on `modules` of all layers.
    pub fn uniform(
        config: &Config,
        kind: LoraKind,
        rank: usize,
        alpha: f32,
        dropout: f32,
        modules: &[Module],
    ) -> Self {
        let covered = (0..config.num_hidden_layers)
            .flat_map(|layer| modules.iter().map(move |&module| ((layer, module), (rank, alpha))));
        LoraConfig {
            kind,
            rank,
            alpha,
            dropout,
            dora: false,
            pissa: false,
            modules: covered.collect(),
            tokens: Vec::new(),
            tokens_in_head: true,
            modules_to_save: Vec::new(),
            ensure_weight_tying: false,
        }
    }

    /// Whether a tensor of the base is one of a module that is saved as a whole: names match the ends of paths.
    pub fn saves(&self, tensor: &str) -> bool {
        let path = tensor.rsplit_once('.').map_or(tensor, |(path, _)| path);
        self.modules_to_save.iter().any(|module| path.ends_with(module.as_str()))
    }

    /// Ties or unties head and embedding as PEFT would: where both follow one of them, it is the embedding that
    /// is saved.
    pub(super) fn settle_tying(&mut self, base: &Config) {
        let saves_one = self.saves(EMBEDDING) || self.saves(HEAD);
        self.ensure_weight_tying &= base.tie_word_embeddings && saves_one;
        if !self.ensure_weight_tying {
            return;
        }
        self.modules_to_save.retain(|module| !"lm_head".ends_with(module.as_str()));
        if !self.saves(EMBEDDING) {
            self.modules_to_save.push("embed_tokens".into());
        }
    }

    /// Whether head and embedding part, which the base ties: one of them is saved as a whole, and the other
    /// does not follow.
    pub fn unties_head(&self, base: &Config) -> bool {
        let saves_one = self.saves(EMBEDDING) || self.saves(HEAD);
        base.tie_word_embeddings && saves_one && !self.ensure_weight_tying
    }

    /// Factor on `B A x` for a module of this rank and alpha.
    pub fn scaling(&self, rank: usize, alpha: f32) -> f32 {
        match self.kind {
            LoraKind::Lora => alpha / rank as f32,
            LoraKind::RsLora => alpha / (rank as f32).sqrt(),
        }
    }

    /// Numbers in all matrices.
    pub fn parameter_count(&self, config: &Config) -> usize {
        self.matrices(config).iter().map(|matrix| matrix.shape.iter().product::<usize>()).sum()
    }

    /// Every matrix in the order that files, optimizer and gradients keep.
    pub fn matrices(&self, config: &Config) -> Vec<MatrixInfo> {
        let mut matrices = Vec::with_capacity(3 * self.modules.len());
        for (&(layer, module), &(rank, _)) in &self.modules {
            let (rows, cols) = config.shape(module);
            let path = format!("base_model.model.model.layers.{layer}.{}", module.path());
            let mut push = |part: &str, shape: Vec<usize>, role| {
                matrices.push(MatrixInfo { name: format!("{path}.{part}"), shape, role });
            };
            push("lora_A.weight", vec![rank, cols], Role::LoraA);
            push("lora_B.weight", vec![rows, rank], Role::LoraB);
            if self.dora {
                push("lora_magnitude_vector", vec![rows], Role::Magnitude);
            }
        }
        if !self.tokens.is_empty() {
            for module in self.token_modules(config) {
                matrices.push(MatrixInfo {
                    name: format!("base_model.model.{module}.{TOKEN_ROWS}"),
                    shape: vec![self.tokens.len(), config.hidden_size],
                    role: Role::Tokens,
                });
            }
        }
        matrices
    }

    /// The modules of which rows are trained, where any are.
    pub(super) fn token_modules(&self, config: &Config) -> &'static [&'static str] {
        let with_head = self.tokens_in_head && !config.tie_word_embeddings;
        if with_head { TOKEN_MODULES } else { &TOKEN_MODULES[..1] }
    }

    /// Zeros in the place of values, in the order of [`matrices`](LoraConfig::matrices): for a device that
    /// only counts.
    pub fn no_values(&self, config: &Config) -> Vec<Vec<f32>> {
        let values = self.matrices(config).into_iter().map(|matrix| match matrix.role {
            Role::LoraA | Role::LoraB => vec![0.0; matrix.shape[0] * matrix.shape[1]],
            _ => Vec::new(),
        });
        values.collect()
    }

    /// Initial values, matrix by matrix: A uniform in `±1 / sqrt(cols)` as PEFT draws it, B zero. What follows
    /// from the base (magnitudes, rows of tokens) is left empty: [`crate::Adapter::new`] fills it in.
    pub fn initial_values(&self, config: &Config, seed: u64) -> Vec<Vec<f32>> {
        let mut pairs = 0;
        let values = self.matrices(config).into_iter().map(|matrix| match matrix.role {
            Role::LoraA => {
                let key = compute::random::key(&[seed, PURPOSE_INIT, 2 * pairs]);
                pairs += 1;
                let bound = 1.0 / (matrix.shape[1] as f32).sqrt();
                let draw = |i| compute::random::uniform(compute::random::mix(key ^ i));
                let len = (matrix.shape[0] * matrix.shape[1]) as u64;
                (0..len).map(|i| (2.0 * draw(i) - 1.0) * bound).collect()
            }
            Role::LoraB => vec![0.0; matrix.shape[0] * matrix.shape[1]],
            _ => Vec::new(),
        });
        values.collect()
    }
}

/// The modules of which rows can be trained.
pub(super) const TOKEN_MODULES: &[&str] = &["model.embed_tokens", "lm_head"];

/// What follows their path in the name of the trained rows.
pub(super) const TOKEN_ROWS: &str = "token_adapter.trainable_tokens_delta";

/// One matrix of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixInfo {
    /// PEFT's name for it.
    pub name: String,
    /// Outputs and inputs; of magnitudes the outputs alone.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
}
