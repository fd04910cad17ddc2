//! Which tensors a merged model has, and where each comes from.

use safetensors::Dtype;

use super::MergedType;
use crate::adapter::{EMBEDDING, HEAD};
use crate::checkpoint::FileTensor;
use crate::config::{Norms, QkNorm};
use crate::decoder::LoadOptions;
use crate::{Base, Config, Error, Module, Result};

/// A tensor to be written.
pub(super) struct Output<'a> {
    /// Its name in the files of the base.
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) content: Content<'a>,
}

/// What is written.
pub(super) enum Content<'a> {
    /// A linear layer.
    Linear(usize, Module),
    /// The embedding or the head, by its name in a plain decoder.
    Vocabulary(&'static str),
    /// A norm or a bias, by its name in a plain decoder.
    Vector(String),
    /// What is no part of the decoder: as it is.
    Foreign(&'a [u8]),
}

impl Output<'_> {
    pub(super) fn bytes(&self) -> u64 {
        match &self.content {
            Content::Foreign(bytes) => bytes.len() as u64,
            _ => (self.shape.iter().product::<usize>() * size_of_type(self.dtype)) as u64,
        }
    }
}

/// Bytes of a number.
pub(super) fn size_of_type(dtype: Dtype) -> usize {
    if dtype == Dtype::F32 { 4 } else { 2 }
}

/// All tensors of the merged model, in the order of the decoder; then what else the base has.
pub(super) fn outputs<'a>(
    base: &'a Base,
    config: &Config,
    options: &LoadOptions,
    dtype: MergedType,
    main: Dtype,
) -> Result<Vec<Output<'a>>> {
    let mut outputs = Vec::new();
    let mut known = Vec::new();
    for (name, shape, content) in decoder_tensors(config) {
        let in_base = match &content {
            Content::Vocabulary(_) => vec![base.config.vocab_size, config.hidden_size],
            _ => shape.clone(),
        };
        let own = match options.replaced.get(&name) {
            Some((replaced, _)) if *replaced != shape => {
                let message = format!(
                    "`{name}` of the adapter has shape {replaced:?}, the model's {shape:?}"
                );
                return Err(Error::file(&base.path, message)
                    .with_hint("the adapter belongs to another base"));
            }
            Some(_) => None,
            None => base.tensor(stored_as(base, &name), &in_base)?.float_type(),
        };
        let keeps_own = dtype == MergedType::Auto && base.format != "gguf";
        let dtype = own.filter(|_| keeps_own).unwrap_or(main);
        outputs.push(Output { name: base.stored_name(&name), dtype, shape, content });
        known.push(name);
    }
    // The copy of a tied head would contradict an embedding that was changed.
    known.push(HEAD.into());
    let foreign = base.file_tensors().into_iter().filter(|stored| !belongs_to(stored, &known));
    outputs.extend(foreign.map(|stored| Output {
        name: stored.name.to_owned(),
        dtype: stored.dtype,
        shape: stored.shape.to_vec(),
        content: Content::Foreign(stored.bytes),
    }));
    Ok(outputs)
}

/// The tensor of the base that one of the decoder begins as: of a head that the base ties, the embedding.
pub(super) fn stored_as<'a>(base: &Base, name: &'a str) -> &'a str {
    if name == HEAD && base.config.tie_word_embeddings { EMBEDDING } else { name }
}

/// Whether a tensor of the file is one of the decoder's or says how one of them is quantised.
fn belongs_to(stored: &FileTensor<'_>, known: &[String]) -> bool {
    let plain = crate::checkpoint::plain_name(stored.name);
    let weight = match plain.find(".weight.") {
        Some(end) => &plain[..end + ".weight".len()],
        None => &plain,
    };
    let scales = plain.strip_suffix(".SCB").or(plain.strip_suffix(".weight_format"));
    let scaled = scales.map(|path| format!("{path}.weight"));
    known.iter().any(|name| name == weight || Some(name) == scaled.as_ref())
}

/// Names and shapes of a decoder's tensors, fused as its files have them; a tied head is none of them.
pub fn shapes(config: &Config) -> impl Iterator<Item = (String, Vec<usize>)> {
    decoder_tensors(config).into_iter().map(|(name, shape, _)| (name, shape))
}

/// Names and shapes of a decoder's tensors, fused as its files have them.
fn decoder_tensors<'a>(config: &Config) -> Vec<(String, Vec<usize>, Content<'a>)> {
    let size = config.hidden_size;
    let vocabulary = |name: &'static str| {
        (name.to_owned(), vec![config.vocab_size, size], Content::Vocabulary(name))
    };
    let vector = |name: String, len: usize| (name.clone(), vec![len], Content::Vector(name));
    let mut tensors = vec![vocabulary(EMBEDDING)];
    for layer in 0..config.num_hidden_layers {
        let path = format!("model.layers.{layer}");
        for &module in config.modules() {
            let (rows, cols) = config.shape(module);
            let name = format!("{path}.{}.weight", module.path());
            tensors.push((name, vec![rows, cols], Content::Linear(layer, module)));
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
