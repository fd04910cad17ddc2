//! `config.json` from the metadata of a GGUF file.

use serde_json::{Map, Value, json};

use super::Metadata;
use crate::Result;

/// The tensor in which a llama3 frequency scaling is carried, `[head_dim / 2]`.
const ROPE_FREQS: &str = "rope_freqs.weight";

impl Metadata {
    /// The name of the architecture.
    pub fn architecture(&self) -> Result<&str> {
        let key = "general.architecture";
        self.str(key)?.ok_or_else(|| self.missing(key))
    }

    /// The configuration under Hugging Face's keys.
    ///
    /// Only Llamas are translated in full; any other architecture gives its own
    /// name as `model_type`, so that whoever loads it can refuse it by name.
    /// Where the file carries factors for the rotary frequencies, `rope_scaling`
    /// is `{rope_type: freq_factors, tensor: NAME}`.
    pub fn config(&self) -> Result<Value> {
        let architecture = self.architecture()?;
        let is_mixture = self.number("expert_count")?.is_some_and(|count| count > 0);
        if architecture != "llama" || is_mixture {
            let model_type = if is_mixture { "mixtral" } else { architecture };
            return Ok(json!({ "model_type": model_type }));
        }
        let mut config = Map::new();
        let mut set = |key: &str, value: Value| config.insert(key.into(), value);
        set("architectures", json!(["LlamaForCausalLM"]));
        set("model_type", "llama".into());

        let hidden_size = self.needed("embedding_length")?;
        let heads = self.needed("attention.head_count")?;
        if heads == 0 || !hidden_size.is_multiple_of(heads) {
            let message =
                format!("is {heads}, which does not divide the hidden size {hidden_size}");
            return Err(self.wrong("llama.attention.head_count", &message));
        }
        let head_dim = self.number("attention.key_length")?.unwrap_or(hidden_size / heads);
        set("hidden_size", hidden_size.into());
        set("intermediate_size", self.needed("feed_forward_length")?.into());
        set("num_hidden_layers", self.needed("block_count")?.into());
        set("num_attention_heads", heads.into());
        let kv_heads = self.number("attention.head_count_kv")?.unwrap_or(heads);
        set("num_key_value_heads", kv_heads.into());
        set("head_dim", head_dim.into());
        set("hidden_act", "silu".into());
        set("max_position_embeddings", self.needed("context_length")?.into());
        set("vocab_size", self.vocab_size()?.into());
        let eps = "llama.attention.layer_norm_rms_epsilon";
        set("rms_norm_eps", self.f64(eps)?.ok_or_else(|| self.missing(eps))?.into());
        set("rope_theta", self.f64("llama.rope.freq_base")?.unwrap_or(10_000.0).into());
        set("rope_scaling", self.rope_scaling()?);
        if let Some(rotated) = self.number("rope.dimension_count")?.filter(|dims| *dims != head_dim)
        {
            set("partial_rotary_factor", (rotated as f64 / head_dim as f64).into());
        }
        let has = |name: &str| self.tensor(name).is_some();
        set("tie_word_embeddings", (!self.tensors.is_empty() && !has("output.weight")).into());
        set("attention_bias", (has("blk.0.attn_q.bias") || has("blk.0.attn_output.bias")).into());
        set("mlp_bias", (has("blk.0.ffn_up.bias") || has("blk.0.ffn_down.bias")).into());
        for (key, name) in [
            ("bos_token_id", "bos_token_id"),
            ("eos_token_id", "eos_token_id"),
            ("pad_token_id", "padding_token_id"),
        ] {
            if let Some(id) = self.token_id(name)? {
                set(key, id.into());
            }
        }
        Ok(Value::Object(config))
    }

    /// The rows of the embedding, or what else tells the size of the vocabulary.
    fn vocab_size(&self) -> Result<u64> {
        if let Some(rows) = self.tensor("token_embd.weight").and_then(|tensor| tensor.dims.get(1)) {
            return Ok(*rows);
        }
        if let Some(size) = self.number("vocab_size")? {
            return Ok(size);
        }
        let tokens = self.strings("tokenizer.ggml.tokens")?;
        Ok(tokens.ok_or_else(|| self.missing("tokenizer.ggml.tokens"))?.len() as u64)
    }

    fn rope_scaling(&self) -> Result<Value> {
        if self.tensor(ROPE_FREQS).is_some() {
            return Ok(json!({"rope_type": "freq_factors", "tensor": ROPE_FREQS}));
        }
        let kind = self.str("llama.rope.scaling.type")?;
        let factor = match self.f64("llama.rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.f64("llama.rope.scale_linear")?,
        };
        // A factor without a type means linear scaling.
        let kind = kind.unwrap_or(if factor.is_some() { "linear" } else { "none" });
        if kind == "none" || (kind == "linear" && factor.is_none_or(|factor| factor == 1.0)) {
            return Ok(Value::Null);
        }
        let mut scaling = Map::new();
        scaling.insert("rope_type".into(), kind.into());
        scaling.insert("factor".into(), json!(factor));
        if let Some(length) = self.number("rope.scaling.original_context_length")? {
            scaling.insert("original_max_position_embeddings".into(), length.into());
        }
        if let Some(factor) = self.f64("llama.rope.scaling.attn_factor")? {
            scaling.insert("attention_factor".into(), factor.into());
        }
        Ok(Value::Object(scaling))
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        self.u64(&format!("{}.{name}", self.architecture()?))
    }

    fn needed(&self, name: &str) -> Result<u64> {
        let key = format!("{}.{name}", self.architecture()?);
        self.u64(&key)?.ok_or_else(|| self.missing(&key))
    }
}
