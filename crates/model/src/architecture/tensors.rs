//! The tensors of a decoder by name and shape.

use crate::config::{Norms, QkNorm};
use crate::{Config, Module};

/// The embedding's tensor.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// The head's tensor.
pub const HEAD: &str = "lm_head.weight";

/// What a tensor of a decoder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TensorKind {
    /// A linear layer.
    Linear(usize, Module),
    /// The embedding or the head, by its name.
    Vocabulary(&'static str),
    /// A norm or a bias.
    Vector,
}

/// Names and shapes of a decoder's tensors, fused as its files have them; a tied head is none of them.
pub fn shapes(config: &Config) -> impl Iterator<Item = (String, Vec<usize>)> {
    tensors(config).into_iter().map(|(name, shape, _)| (name, shape))
}

/// As [`shapes`], with what each of them is.
pub(crate) fn tensors(config: &Config) -> Vec<(String, Vec<usize>, TensorKind)> {
    let size = config.hidden_size;
    let vocabulary = |name: &'static str| {
        (name.to_owned(), vec![config.vocab_size, size], TensorKind::Vocabulary(name))
    };
    let vector = |name: String, len: usize| (name, vec![len], TensorKind::Vector);

    let mut tensors = vec![vocabulary(EMBEDDING)];
    for layer in 0..config.num_hidden_layers {
        let path = format!("model.layers.{layer}");
        for &module in config.modules() {
            let (rows, cols) = config.shape(module);
            let name = format!("{path}.{}.weight", module.path());
            tensors.push((name, vec![rows, cols], TensorKind::Linear(layer, module)));
            if config.has_bias(module.parts()[0]) {
                tensors.push(vector(format!("{path}.{}.bias", module.path()), rows));
            }
        }
        let norms = norms(config).into_iter();
        tensors.extend(norms.map(|(name, len)| vector(format!("{path}.{name}.weight"), len)));
    }
    tensors.push(vector("model.norm.weight".into(), size));
    if !config.tie_word_embeddings {
        tensors.push(vocabulary(HEAD));
    }
    tensors
}

/// The norms of a layer and their sizes.
fn norms(config: &Config) -> Vec<(&'static str, usize)> {
    let size = config.hidden_size;
    let mut norms: Vec<(&str, usize)> = match config.norms {
        Norms::Before => vec![("input_layernorm", size), ("post_attention_layernorm", size)],
        Norms::After => {
            vec![("post_attention_layernorm", size), ("post_feedforward_layernorm", size)]
        }
        Norms::Around => vec![
            ("input_layernorm", size),
            ("post_attention_layernorm", size),
            ("pre_feedforward_layernorm", size),
            ("post_feedforward_layernorm", size),
        ],
    };
    let (q, k) = match config.qk_norm {
        None => return norms,
        Some(QkNorm::Head) => (config.head_dim, config.head_dim),
        Some(QkNorm::Projection) => (config.shape(Module::Q).0, config.shape(Module::K).0),
    };
    norms.extend([("self_attn.q_norm", q), ("self_attn.k_norm", k)]);
    norms
}
