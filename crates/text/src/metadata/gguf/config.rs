//! `config.json` from the metadata of a GGUF file.

use serde_json::{Map, Value, json};

use super::{Array, Metadata, Value as Entry};
use crate::Result;

/// The tensor in which a llama3 frequency scaling is carried, `[head_dim / 2]`.
const ROPE_FREQS: &str = "rope_freqs.weight";

/// The tensors in which LongRoPE's divisors are carried, `[rotary dims / 2]`.
const LONGROPE: (&str, &str) = ("rope_factors_short.weight", "rope_factors_long.weight");

/// Architectures of GGUF files that are translated, with the `model_type` and class of each.
const FAMILIES: &[(&str, &str, &str)] = &[
    ("llama", "llama", "LlamaForCausalLM"),
    ("qwen2", "qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "qwen3", "Qwen3ForCausalLM"),
    ("gemma2", "gemma2", "Gemma2ForCausalLM"),
    ("gemma3", "gemma3_text", "Gemma3ForCausalLM"),
    ("phi3", "phi3", "Phi3ForCausalLM"),
    ("smollm3", "smollm3", "SmolLM3ForCausalLM"),
    ("olmo2", "olmo2", "Olmo2ForCausalLM"),
    ("granite", "granite", "GraniteForCausalLM"),
];

impl Metadata {
    /// The name of the architecture.
    pub fn architecture(&self) -> Result<&str> {
        let key = "general.architecture";
        self.str(key)?.ok_or_else(|| self.missing(key))
    }

    /// The configuration under Hugging Face's keys.
    ///
    /// An architecture that is not translated gives its own name as `model_type`, so
    /// that whoever loads it can refuse it by name. Where the file carries factors for
    /// the rotary frequencies, `rope_scaling` is `{rope_type: freq_factors, tensor: NAME}`;
    /// with LongRoPE it names `short_tensor` and `long_tensor` in place of their lists.
    pub fn config(&self) -> Result<Value> {
        let architecture = self.architecture()?;
        let family = FAMILIES.iter().find(|(name, ..)| *name == architecture);
        let Some(&(_, model_type, class)) = family else {
            return Ok(json!({ "model_type": architecture }));
        };
        if let Some(other) = self.other_model()? {
            return Ok(json!({ "model_type": other }));
        }
        let mut config = Map::new();
        config.insert("architectures".into(), json!([class]));
        config.insert("model_type".into(), model_type.into());
        self.sizes(&mut config)?;
        self.rope(&mut config)?;
        self.family(&mut config)?;
        let has = |name: &str| self.tensor(name).is_some();
        let tied = !self.tensors.is_empty() && !has("output.weight");
        config.insert("tie_word_embeddings".into(), tied.into());
        for (key, name) in [
            ("bos_token_id", "bos_token_id"),
            ("eos_token_id", "eos_token_id"),
            ("pad_token_id", "padding_token_id"),
        ] {
            if let Some(id) = self.token_id(name)? {
                config.insert(key.into(), id.into());
            }
        }
        Ok(Value::Object(config))
    }

    /// The model that goes by the architecture of another, which computes something else.
    fn other_model(&self) -> Result<Option<&'static str>> {
        let is_mixture = self.number("expert_count")?.is_some_and(|count| count > 0);
        Ok(match self.architecture()? {
            _ if is_mixture => Some("mixtral"),
            "olmo2" if self.number("attention.sliding_window")?.is_some() => Some("olmo3"),
            _ => None,
        })
    }

    fn sizes(&self, config: &mut Map<String, Value>) -> Result<()> {
        let mut set = |key: &str, value: Value| config.insert(key.into(), value);
        let heads = self.needed("attention.head_count")?;
        set("hidden_size", self.needed("embedding_length")?.into());
        set("intermediate_size", self.needed("feed_forward_length")?.into());
        set("num_hidden_layers", self.needed("block_count")?.into());
        set("num_attention_heads", heads.into());
        let kv_heads = self.number("attention.head_count_kv")?.unwrap_or(heads);
        set("num_key_value_heads", kv_heads.into());
        set("head_dim", self.head_dim()?.into());
        set("max_position_embeddings", self.needed("context_length")?.into());
        set("vocab_size", self.vocab_size()?.into());
        set("rms_norm_eps", self.needed_float("attention.layer_norm_rms_epsilon")?.into());
        Ok(())
    }

    fn head_dim(&self) -> Result<u64> {
        if let Some(head_dim) = self.number("attention.key_length")? {
            return Ok(head_dim);
        }
        let hidden_size = self.needed("embedding_length")?;
        let heads = self.needed("attention.head_count")?;
        if heads == 0 || !hidden_size.is_multiple_of(heads) {
            let message =
                format!("is {heads}, which does not divide the hidden size {hidden_size}");
            return Err(self.wrong(&self.key("attention.head_count")?, &message));
        }
        Ok(hidden_size / heads)
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

    fn rope(&self, config: &mut Map<String, Value>) -> Result<()> {
        let theta = self.float("rope.freq_base")?.unwrap_or(10_000.0);
        config.insert("rope_theta".into(), theta.into());
        config.insert("rope_scaling".into(), self.rope_scaling()?);
        let head_dim = self.head_dim()?;
        let rotated = self.number("rope.dimension_count")?.unwrap_or(head_dim);
        if rotated != head_dim {
            let mut factor = rotated as f64 / head_dim as f64;
            if ((head_dim as f64 * factor) as u64) < rotated {
                // Who multiplies again and rounds down must get the same number.
                factor = factor.next_up();
            }
            config.insert("partial_rotary_factor".into(), factor.into());
        }
        Ok(())
    }

    fn rope_scaling(&self) -> Result<Value> {
        if self.tensor(ROPE_FREQS).is_some() {
            return Ok(json!({"rope_type": "freq_factors", "tensor": ROPE_FREQS}));
        }
        let (short, long) = LONGROPE;
        if self.tensor(short).is_some() || self.tensor(long).is_some() {
            let mut scaling =
                json!({"rope_type": "longrope", "short_tensor": short, "long_tensor": long});
            if let Some(factor) = self.float("rope.scaling.attn_factor")? {
                scaling["attention_factor"] = factor.into();
            }
            return Ok(scaling);
        }
        let kind = self.str(&self.key("rope.scaling.type")?)?;
        let factor = match self.float("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.float("rope.scale_linear")?,
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
        for (key, name) in [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")] {
            if let Some(value) = self.float(&format!("rope.scaling.{name}"))? {
                scaling.insert(key.into(), value.into());
            }
        }
        if let Some(own) = self.float("rope.scaling.attn_factor")? {
            // With YaRN it is multiplied with what follows from the factor.
            let inferred = 1.0 + 0.1 * factor.unwrap_or(1.0).max(1.0).ln();
            let whole = if kind == "yarn" { own * inferred } else { own };
            scaling.insert("attention_factor".into(), whole.into());
        }
        Ok(Value::Object(scaling))
    }

    /// What only some families have.
    fn family(&self, config: &mut Map<String, Value>) -> Result<()> {
        match self.architecture()? {
            "gemma2" | "gemma3" => return self.gemma(config),
            "phi3" => {
                let window = self.number("attention.sliding_window")?.filter(|&size| size > 0);
                config.insert("sliding_window".into(), json!(window));
                let length = self.number("rope.scaling.original_context_length")?;
                config.insert("original_max_position_embeddings".into(), json!(length));
            }
            "granite" => self.granite(config)?,
            "llama" => {
                // A Mistral: no other model of this architecture has a window.
                let window = self.number("attention.sliding_window")?;
                if let Some(window) = window.filter(|&size| size > 0) {
                    config.insert("architectures".into(), json!(["MistralForCausalLM"]));
                    config.insert("model_type".into(), "mistral".into());
                    config.insert("sliding_window".into(), window.into());
                }
            }
            _ => {}
        }
        config.insert("hidden_act".into(), "silu".into());
        self.biases(config);
        Ok(())
    }

    fn biases(&self, config: &mut Map<String, Value>) {
        let any = |names: &[&str]| {
            names.iter().any(|name| self.tensor(&format!("blk.0.{name}.bias")).is_some())
        };
        config.insert("attention_bias".into(), any(&["attn_q", "attn_qkv", "attn_output"]).into());
        config.insert("mlp_bias".into(), any(&["ffn_gate", "ffn_up", "ffn_down"]).into());
    }

    /// Gemma 2 and 3. Files do not hold `query_pre_attn_scalar`: it is the size of a head, but
    /// in the largest model of either family the hidden size over the number of heads.
    fn gemma(&self, config: &mut Map<String, Value>) -> Result<()> {
        let is_gemma3 = self.architecture()? == "gemma3";
        let mut set = |key: &str, value: Value| config.insert(key.into(), value);
        set("hidden_activation", "gelu_pytorch_tanh".into());
        let is_largest = self.needed("block_count")? == if is_gemma3 { 62 } else { 46 };
        let scalar = match self.float("attention.scale")?.filter(|&scale| scale > 0.0) {
            Some(scale) => scale.powi(-2),
            None if is_largest => {
                let heads = self.needed("attention.head_count")?;
                self.needed("embedding_length")? as f64 / heads as f64
            }
            None => self.head_dim()? as f64,
        };
        set("query_pre_attn_scalar", whole(scalar));
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(cap) = self.float(key)? {
                set(key, cap.into());
            }
        }
        let window = self.number("attention.sliding_window")?;
        if window.is_some() || is_gemma3 {
            set("sliding_window", json!(window));
        }
        if is_gemma3 {
            let theta = self.float("rope.freq_base_swa")?.unwrap_or(10_000.0);
            set("rope_local_base_freq", theta.into());
        }
        match self.get(&self.key("attention.sliding_window_pattern")?) {
            Some(Entry::Array(Array::Bool(sliding))) => {
                let kind = |&sliding| if sliding { "sliding_attention" } else { "full_attention" };
                set("layer_types", sliding.iter().map(kind).collect());
            }
            Some(Entry::Unsigned(period)) if is_gemma3 => {
                set("sliding_window_pattern", (*period).into());
            }
            _ => {}
        }
        Ok(())
    }

    fn granite(&self, config: &mut Map<String, Value>) -> Result<()> {
        let mut set = |key: &str, value: f64| config.insert(key.into(), value.into());
        set("attention_multiplier", self.needed_float("attention.scale")?);
        set("logits_scaling", self.needed_float("logit_scale")?);
        set("embedding_multiplier", self.float("embedding_scale")?.unwrap_or(1.0));
        set("residual_multiplier", self.float("residual_scale")?.unwrap_or(1.0));
        Ok(())
    }

    /// The full name of a key of this architecture.
    fn key(&self, name: &str) -> Result<String> {
        Ok(format!("{}.{name}", self.architecture()?))
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        self.u64(&self.key(name)?)
    }

    fn float(&self, name: &str) -> Result<Option<f64>> {
        self.f64(&self.key(name)?)
    }

    fn needed(&self, name: &str) -> Result<u64> {
        let key = self.key(name)?;
        self.u64(&key)?.ok_or_else(|| self.missing(&key))
    }

    fn needed_float(&self, name: &str) -> Result<f64> {
        let key = self.key(name)?;
        self.f64(&key)?.ok_or_else(|| self.missing(&key))
    }
}

/// A number as an integer where it is one but for the rounding of an f32: readers of `config.json` insist.
fn whole(number: f64) -> Value {
    let nearest = number.round();
    match (number - nearest).abs() <= 1e-6 * number.abs() {
        true => json!(nearest as i64),
        false => json!(number),
    }
}
