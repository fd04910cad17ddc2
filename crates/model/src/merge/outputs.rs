//! Which tensors a merged model has, and where each comes from.

use safetensors::Dtype;

use super::MergedType;
use crate::architecture::{EMBEDDING, HEAD, TensorKind, tensors};
use crate::checkpoint::FileTensor;
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
    for (name, shape, kind) in tensors(config) {
        let in_base = match kind {
            TensorKind::Vocabulary(_) => vec![base.config.vocab_size, config.hidden_size],
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
        let content = match kind {
            TensorKind::Linear(layer, module) => Content::Linear(layer, module),
            TensorKind::Vocabulary(name) => Content::Vocabulary(name),
            TensorKind::Vector => Content::Vector(name.clone()),
        };
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
