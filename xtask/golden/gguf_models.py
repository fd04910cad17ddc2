"""GGUF files of the tiny models of every family, as llama.cpp's converter lays them out.

Run: python xtask/golden/gguf_models.py
Makes crates/model/tests/golden/gguf/CASE.gguf from crates/model/tests/golden/architectures/CASE; no tokenizer in it.
Names of tensors and keys are the gguf package's. Where transformers can load the architecture from GGUF, its logits
are compared with those of the folder.
"""

import json
import math

import gguf
import numpy as np
import torch
from gguf import MODEL_ARCH, MODEL_TENSOR, TENSOR_NAMES
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from store import ARCHITECTURES, REPOSITORY

FOLDER = REPOSITORY / "crates/model/tests/golden/gguf"

CASES = {
    "llama_bias": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
    "gemma2": MODEL_ARCH.GEMMA2,
    "gemma3_text": MODEL_ARCH.GEMMA3,
    "phi3": MODEL_ARCH.PHI3,
    "phi4mini_longrope": MODEL_ARCH.PHI3,
    "smollm3": MODEL_ARCH.SMOLLM3,
    "olmo2": MODEL_ARCH.OLMO2,
    "granite": MODEL_ARCH.GRANITE,
}
INTERLEAVED = (MODEL_ARCH.LLAMA, MODEL_ARCH.SMOLLM3, MODEL_ARCH.GRANITE)
GEMMA = (MODEL_ARCH.GEMMA2, MODEL_ARCH.GEMMA3)
LOADED_BY_TRANSFORMERS = ("qwen2", "qwen3", "gemma2", "phi3")


def add_sizes(writer, config):
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    return config.get("head_dim", config["hidden_size"] // heads)


def add_rope(writer, config, head_dim):
    rope = config["rope_parameters"]
    if "full_attention" in rope:
        writer.add_float32("gemma3.rope.freq_base_swa", rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if config["model_type"] == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
    if rope["rope_type"] == "longrope":
        original = rope["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
        for key, name in ("short_factor", MODEL_TENSOR.ROPE_FACTORS_SHORT), ("long_factor", MODEL_TENSOR.ROPE_FACTORS_LONG):
            writer.add_tensor(TENSOR_NAMES[name] + ".weight", np.array(rope[key], dtype=np.float32))


def add_family(writer, config):
    if config["model_type"].startswith("gemma"):
        writer.add_attention_scale(config["query_pre_attn_scalar"] ** -0.5)
        for key, add in (
            ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
            ("final_logit_softcapping", writer.add_final_logit_softcapping),
        ):
            if config[key] is not None:
                add(config[key])
    if config["model_type"] == "granite":
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if config["model_type"] == "phi3":
        writer.add_sliding_window(config["sliding_window"] or 0)
    elif config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    if config["model_type"] == "gemma3_text":
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])


def interleaved(weight, heads):
    """Row i of the first half of a head, then row i of the second, for every i."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def add_weights(writer, config, arch, tensors):
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for name, weight in sorted(tensors.items()):
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert gguf_name, name
        if arch in INTERLEAVED and ".q_proj." in name:
            weight = interleaved(weight, config["num_attention_heads"])
        if arch in INTERLEAVED and ".k_proj." in name:
            weight = interleaved(weight, config["num_key_value_heads"])
        if arch in GEMMA and name.endswith("norm.weight"):
            weight = weight + 1
        if weight.dim() == 1:
            writer.add_tensor(gguf_name, weight.numpy())
            continue
        assert torch.equal(weight.bfloat16().float(), weight), name
        bits = weight.bfloat16().contiguous().view(torch.int16).numpy().view(np.uint8)
        writer.add_tensor(gguf_name, bits, raw_dtype=gguf.GGMLQuantizationType.BF16)


def make(case, arch):
    source = ARCHITECTURES / case
    config = json.loads((source / "config.json").read_text())
    path = FOLDER / f"{case}.gguf"
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    head_dim = add_sizes(writer, config)
    add_rope(writer, config, head_dim)
    add_family(writer, config)
    add_weights(writer, config, arch, load_file(source / "model.safetensors"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if case in LOADED_BY_TRANSFORMERS:
        compare(source, path)


def compare(source, path):
    tokens = torch.tensor([[5, 17, 33, 8, 54, 21, 9, 70, 3, 44, 12, 65]])
    expected = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    loaded = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, config=expected.config, dtype=torch.float32, attn_implementation="eager",
    )
    with torch.no_grad():
        difference = (expected(tokens).logits - loaded(tokens).logits).abs().max().item()
    print(path.name, f"transformers: logits differ by {difference:.2g}")
    assert difference < 1e-5


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for case, arch in CASES.items():
        make(case, arch)
