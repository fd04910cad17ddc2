//! Good headers are read, bad ones are refused with a word on why, and no
//! bytes whatever make the parser panic or allocate without bound.

use std::path::Path;

use super::*;

/// A header under construction.
#[derive(Clone, Default)]
pub(crate) struct Header {
    values: Vec<u8>,
    value_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Header {
    fn value(mut self, key: &str, type_id: u32, bytes: &[u8]) -> Self {
        self.values.extend([&text(key)[..], &type_id.to_le_bytes(), bytes].concat());
        self.value_count += 1;
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.value(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Self {
        self.value(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn bool(self, key: &str, value: bool) -> Self {
        self.value(key, 7, &[value.into()])
    }

    pub(crate) fn str(self, key: &str, value: &str) -> Self {
        self.value(key, 8, &text(value))
    }

    fn array(self, key: &str, type_id: u32, count: usize, bytes: &[u8]) -> Self {
        let head = [&type_id.to_le_bytes()[..], &(count as u64).to_le_bytes()].concat();
        self.value(key, 9, &[&head[..], bytes].concat())
    }

    pub(crate) fn strings(self, key: &str, values: &[&str]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| text(value)).collect();
        self.array(key, 8, values.len(), &bytes)
    }

    pub(crate) fn i32s(self, key: &str, values: &[i32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 5, values.len(), &bytes)
    }

    pub(crate) fn f32s(self, key: &str, values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 6, values.len(), &bytes)
    }

    pub(crate) fn tensor(mut self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Self {
        self.tensors.extend(text(name));
        self.tensors.extend((dims.len() as u32).to_le_bytes());
        self.tensors.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        self.tensors.extend([&type_id.to_le_bytes()[..], &offset.to_le_bytes()].concat());
        self.tensor_count += 1;
        self
    }

    /// The file, with `data` bytes after the header.
    fn file(&self, data: usize) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend([self.tensor_count.to_le_bytes(), self.value_count.to_le_bytes()].concat());
        file.extend([&self.values[..], &self.tensors].concat());
        file.resize(file.len().next_multiple_of(32) + data, 0);
        file
    }

    pub(crate) fn parse(&self, data: usize) -> Result<Metadata> {
        parse(&self.file(data))
    }
}

fn parse(bytes: &[u8]) -> Result<Metadata> {
    Metadata::parse(Path::new("m.gguf"), bytes, bytes.len() as u64)
}

/// A small Llama: metadata of every kind and two tensors in 160 bytes of data.
pub(crate) fn llama() -> Header {
    Header::default()
        .str("general.architecture", "llama")
        .u32("llama.embedding_length", 8)
        .u32("llama.feed_forward_length", 16)
        .u32("llama.block_count", 2)
        .u32("llama.context_length", 64)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .f32("llama.attention.layer_norm_rms_epsilon", 0.5)
        .f32("llama.rope.freq_base", 500_000.0)
        .bool("tokenizer.ggml.add_bos_token", true)
        .strings("tokenizer.ggml.tokens", &["<s>", "</s>", "a"])
        .i32s("tokenizer.ggml.token_type", &[3, 3, 1])
        .f32s("tokenizer.ggml.scores", &[0.0, 0.0, -1.5])
        .u32("tokenizer.ggml.bos_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 1)
        .tensor("token_embd.weight", &[8, 3], 0, 0)
        .tensor("blk.0.attn_q.weight", &[32, 1], 3, 96)
}

#[test]
fn a_header_is_read() {
    let header = llama().parse(160).unwrap();
    assert_eq!(header.version, 3);
    assert_eq!(header.architecture().unwrap(), "llama");
    assert_eq!(header.floats("tokenizer.ggml.scores").unwrap(), Some(&[0.0, 0.0, -1.5][..]));
    assert_eq!(header.integers("tokenizer.ggml.token_type").unwrap(), Some(vec![3, 3, 1]));
    assert_eq!(header.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    assert_eq!(header.u64("nothing").unwrap(), None);

    let embedding = header.tensor("token_embd.weight").unwrap();
    assert_eq!((embedding.tensor_type, embedding.bytes), (TensorType::F32, 96));
    assert_eq!((&embedding.dims[..], embedding.elements()), (&[8, 3][..], 24));
    let query = header.tensor("blk.0.attn_q.weight").unwrap();
    assert_eq!((query.tensor_type, query.bytes), (TensorType::Q4_1, 20));
    assert_eq!(query.offset, embedding.offset + 96);
    assert_eq!(embedding.offset % 32, 0);
}

#[test]
fn every_type_of_value_is_read() {
    let header = Header::default()
        .value("u8", 0, &[200])
        .value("i8", 1, &[200])
        .value("u16", 2, &[1, 1])
        .value("i16", 3, &[255, 255])
        .value("i32", 5, &(-7_i32).to_le_bytes())
        .value("u64", 10, &u64::MAX.to_le_bytes())
        .value("i64", 11, &i64::MIN.to_le_bytes())
        .value("f64", 12, &0.1_f64.to_le_bytes())
        .array("bools", 7, 3, &[1, 0, 2])
        .array("u16s", 2, 2, &[1, 0, 0, 1])
        .array("lists", 9, 1, &[&0_u32.to_le_bytes()[..], &2_u64.to_le_bytes(), &[5, 6]].concat())
        .parse(0)
        .unwrap();
    for (key, expected) in [
        ("u8", Value::Unsigned(200)),
        ("i8", Value::Signed(-56)),
        ("u16", Value::Unsigned(257)),
        ("i16", Value::Signed(-1)),
        ("i32", Value::Signed(-7)),
        ("u64", Value::Unsigned(u64::MAX)),
        ("i64", Value::Signed(i64::MIN)),
        ("f64", Value::Float(0.1)),
        ("bools", Value::Array(Array::Bool(vec![true, false, true]))),
        ("u16s", Value::Array(Array::Unsigned(vec![1, 256]))),
        ("lists", Value::Array(Array::Array(vec![Array::Unsigned(vec![5, 6])]))),
    ] {
        assert_eq!(header.get(key), Some(&expected), "{key}");
    }
}

#[track_caller]
fn refused(result: Result<Metadata>, expected: &str) {
    let message = result.expect_err("the header should be refused").to_string();
    assert!(message.starts_with("m.gguf: ") && message.contains(expected), "{message}");
}

#[test]
fn bad_headers_are_refused() {
    let with = |at: usize, bytes: &[u8]| {
        let mut file = llama().file(160);
        file[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&file)
    };
    refused(parse(b""), "ends at byte 0");
    refused(parse(b"GG"), "ends at byte 2");
    refused(with(0, b"PK"), "is no GGUF file");
    refused(with(4, &[1]), "has GGUF version 1; 2 and 3 are supported");
    refused(with(4, &[0, 0, 0, 3]), "is a big-endian GGUF file");
    refused(with(8, &u64::MAX.to_le_bytes()), "claims 18446744073709551615 tensors");
    refused(with(16, &[0, 0, 0, 0, 1]), "claims 4294967296 metadata entries");
    refused(with(24, &u64::MAX.to_le_bytes()), "where a metadata key should be");
    refused(with(32, &[0xff]), "a metadata key is not UTF-8");
    let huge = u64::MAX.to_le_bytes();
    let list = [&4_u32.to_le_bytes()[..], &huge].concat();
    refused(Header::default().value("k", 9, &list).parse(0), "elements of `k`");
    refused(Header::default().value("k", 13, &[0; 8]).parse(0), "unknown value type 13");
    refused(Header::default().u32("k", 1).u32("k", 2).parse(0), "metadata key `k` appears twice");
    let nested: Vec<u8> = [9_u32.to_le_bytes().to_vec(), 1_u64.to_le_bytes().to_vec()].concat();
    refused(Header::default().value("k", 9, &nested.repeat(9)).parse(0), "nests lists deeper");
    refused(Header::default().u32("general.alignment", 33).parse(0), "no power of two");
}

#[test]
fn bad_tensors_are_refused() {
    let one = |dims: &[u64], type_id: u32, offset: u64| {
        Header::default().tensor("w", dims, type_id, offset).parse(96)
    };
    assert!(one(&[8, 3], 0, 0).is_ok());
    refused(one(&[8, 3], 99, 0), "tensor `w` has the unknown type 99");
    refused(one(&[8, 3], 4, 0), "tensor `w` has the unknown type 4");
    refused(one(&[], 0, 0), "tensor `w` has 0 dimensions");
    refused(one(&[1; 5], 0, 0), "tensor `w` has 5 dimensions");
    refused(one(&[33], 2, 0), "tensor `w` of shape [33] cannot be Q4_0");
    refused(one(&[u64::MAX, 2], 0, 0), "cannot be F32");
    refused(one(&[u64::MAX / 2], 0, 0), "cannot be F32");
    refused(one(&[8, 3], 0, 8), "tensor `w`: its offset 8 is not a multiple of 32");
    refused(one(&[8, 3], 0, 32), "tensor `w`: its 96 bytes from 96 + 32 on reach past the end");
    refused(one(&[8, 3], 0, u64::MAX - 31), "reach past the end of the file at 192");
    let twice = Header::default().tensor("w", &[8], 0, 0).tensor("w", &[8], 0, 32);
    refused(twice.parse(96), "tensor `w` appears twice");
}

#[test]
fn a_value_of_the_wrong_type_is_refused() {
    let header = llama().u32("llama.rope.scaling.type", 1).parse(160).unwrap();
    let message = header.config().unwrap_err().to_string();
    assert_eq!(message, "m.gguf: `llama.rope.scaling.type` is a whole number, not a string");
    let header = llama().u32("tokenizer.ggml.padding_token_id", 3).parse(160).unwrap();
    let message = header.token_id("padding_token_id").unwrap_err().to_string();
    assert!(message.ends_with("padding_token_id` is 3, but there are 3 tokens"), "{message}");
}

/// Every prefix of a file, and the file with any one byte changed, is either
/// read or refused.
#[test]
fn no_bytes_make_it_panic() {
    let file = llama().file(116);
    let header_len = file.len() - 116;
    for len in 0..file.len() {
        assert!(parse(&file[..len]).is_err(), "cut to {len} bytes");
    }
    let mut refused = 0;
    for at in 0..header_len {
        for byte in [0, 1, 9, 0x7f, 0x80, 0xff, file[at] ^ 1, file[at] ^ 0x20] {
            let mut damaged = file.clone();
            damaged[at] = byte;
            match parse(&damaged) {
                // What is made of a header must not panic either.
                Ok(header) => {
                    let _ = (header.config(), crate::Tokenizer::from_gguf(&header));
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > header_len, "{refused} of {} damaged headers", header_len * 8);
}

#[track_caller]
fn check_config(header: Header, expected: &[(&str, serde_json::Value)]) {
    let config = header.parse(160).unwrap().config().unwrap();
    for (key, value) in expected {
        assert_eq!(config.get(key), Some(value), "{key}");
    }
}

#[test]
fn the_configuration_has_hugging_face_keys() {
    use serde_json::json;
    check_config(
        llama(),
        &[
            ("model_type", json!("llama")),
            ("hidden_size", json!(8)),
            ("intermediate_size", json!(16)),
            ("num_hidden_layers", json!(2)),
            ("num_attention_heads", json!(4)),
            ("num_key_value_heads", json!(2)),
            ("head_dim", json!(2)),
            ("max_position_embeddings", json!(64)),
            ("vocab_size", json!(3)),
            ("rms_norm_eps", json!(0.5)),
            ("rope_theta", json!(500_000.0)),
            ("rope_scaling", json!(null)),
            ("tie_word_embeddings", json!(true)),
            ("bos_token_id", json!(0)),
            ("eos_token_id", json!(1)),
        ],
    );
    check_config(
        llama().tensor("output.weight", &[8], 0, 128).u32("llama.attention.key_length", 4),
        &[("tie_word_embeddings", json!(false)), ("head_dim", json!(4))],
    );
    check_config(
        llama().str("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4.0),
        &[("rope_scaling", json!({"rope_type": "linear", "factor": 4.0}))],
    );
    check_config(
        llama().tensor("rope_freqs.weight", &[1], 0, 128),
        &[("rope_scaling", json!({"rope_type": "freq_factors", "tensor": "rope_freqs.weight"}))],
    );
    check_config(
        llama().u32("llama.attention.sliding_window", 16),
        &[("model_type", json!("mistral")), ("sliding_window", json!(16))],
    );
}

/// The sizes of `llama()` under another architecture's name.
fn sized(architecture: &str) -> Header {
    let name = |key: &str| format!("{architecture}.{key}");
    Header::default()
        .str("general.architecture", architecture)
        .u32(&name("embedding_length"), 8)
        .u32(&name("feed_forward_length"), 16)
        .u32(&name("block_count"), 2)
        .u32(&name("context_length"), 64)
        .u32(&name("attention.head_count"), 2)
        .f32(&name("attention.layer_norm_rms_epsilon"), 0.5)
        .strings("tokenizer.ggml.tokens", &["<s>", "</s>", "a"])
}

#[test]
fn other_families_have_their_own_keys() {
    use serde_json::json;
    check_config(
        sized("qwen2").tensor("blk.0.attn_q.bias", &[8], 0, 0),
        &[("model_type", json!("qwen2")), ("attention_bias", json!(true)), ("head_dim", json!(4))],
    );
    check_config(
        sized("qwen3").u32("qwen3.attention.key_length", 16),
        &[("model_type", json!("qwen3")), ("head_dim", json!(16))],
    );
    check_config(
        sized("qwen3")
            .str("qwen3.rope.scaling.type", "yarn")
            .f32("qwen3.rope.scaling.factor", 4.0)
            .f32("qwen3.rope.scaling.yarn_beta_fast", 16.0)
            .f32("qwen3.rope.scaling.attn_factor", 0.5)
            .u32("qwen3.rope.scaling.original_context_length", 32),
        &[(
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
                   "beta_fast": 16.0, "attention_factor": 0.5 * (1.0 + 0.1 * 4_f64.ln())}),
        )],
    );
    check_config(
        sized("gemma2")
            .f32("gemma2.attn_logit_softcapping", 50.0)
            .u32("gemma2.attention.sliding_window", 16),
        &[
            ("hidden_activation", json!("gelu_pytorch_tanh")),
            ("attn_logit_softcapping", json!(50.0)),
            ("query_pre_attn_scalar", json!(4)),
            ("sliding_window", json!(16)),
        ],
    );
    check_config(
        sized("gemma3").f32("gemma3.rope.freq_base", 1e6).f32("gemma3.attention.scale", 0.25),
        &[
            ("model_type", json!("gemma3_text")),
            ("query_pre_attn_scalar", json!(16)),
            ("sliding_window", json!(null)),
            ("rope_theta", json!(1e6)),
            ("rope_local_base_freq", json!(1e4)),
        ],
    );
    check_config(
        sized("phi3")
            .u32("phi3.attention.sliding_window", 0)
            .u32("phi3.rope.dimension_count", 3)
            .u32("phi3.rope.scaling.original_context_length", 32)
            .f32("phi3.rope.scaling.attn_factor", 1.25)
            .tensor("rope_factors_short.weight", &[1], 0, 0)
            .tensor("rope_factors_long.weight", &[1], 0, 32),
        &[
            ("sliding_window", json!(null)),
            ("partial_rotary_factor", json!(0.75)),
            ("original_max_position_embeddings", json!(32)),
            (
                "rope_scaling",
                json!({"rope_type": "longrope", "short_tensor": "rope_factors_short.weight",
                       "long_tensor": "rope_factors_long.weight", "attention_factor": 1.25}),
            ),
        ],
    );
    check_config(
        sized("granite").f32("granite.attention.scale", 0.5).f32("granite.logit_scale", 8.0),
        &[
            ("attention_multiplier", json!(0.5)),
            ("logits_scaling", json!(8.0)),
            ("embedding_multiplier", json!(1.0)),
        ],
    );
}

/// The largest Gemmas scale scores by the hidden size over the number of heads.
#[test]
fn the_largest_gemma_has_its_own_scale() {
    let header = Header::default()
        .str("general.architecture", "gemma2")
        .u32("gemma2.embedding_length", 4608)
        .u32("gemma2.feed_forward_length", 16)
        .u32("gemma2.block_count", 46)
        .u32("gemma2.context_length", 64)
        .u32("gemma2.attention.head_count", 32)
        .u32("gemma2.attention.key_length", 128)
        .f32("gemma2.attention.layer_norm_rms_epsilon", 0.5)
        .u32("gemma2.vocab_size", 3);
    check_config(header, &[("query_pre_attn_scalar", serde_json::json!(144))]);
}

#[test]
fn what_is_not_translated_keeps_its_name() {
    use serde_json::json;
    check_config(llama().u32("llama.expert_count", 8), &[("model_type", json!("mixtral"))]);
    let other = Header::default().str("general.architecture", "mamba");
    check_config(other, &[("model_type", json!("mamba"))]);
    let olmo3 = sized("olmo2").u32("olmo2.attention.sliding_window", 8);
    check_config(olmo3, &[("model_type", json!("olmo3"))]);
    let error = sized("granite").parse(160).unwrap().config().unwrap_err().to_string();
    assert_eq!(error, "m.gguf: has no `granite.attention.scale`");
}
