"""Frequencies of every kind of rotary scaling, as transformers computes them.

Run: python xtask/golden/ropes.py
Makes crates/model/tests/golden/ropes.json: for every case a config.json, its frequencies, their scale, and the
frequencies of longer sequences.
"""

import json

import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from store import REPOSITORY, write_json

SIZES = dict(
    hidden_size=64, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
    vocab_size=8, max_position_embeddings=512,
)
LLAMA = SIZES | dict(model_type="llama", rope_theta=500000.0)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128)
SHORT = [1.0 + i / 16 for i in range(16)]
LONG = [2.0 + i / 4 for i in range(16)]

CASES = {
    "linear": LLAMA | dict(rope_scaling=dict(type="linear", factor=4.0)),
    "dynamic": LLAMA | dict(rope_scaling=dict(type="dynamic", factor=2.0)),
    "llama3": LLAMA | dict(rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64,
    )),
    "theta_inside": LLAMA | dict(rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=100.0)),
    "scaling_wins": LLAMA | dict(
        rope_scaling=dict(rope_type="linear", factor=3.0), rope_parameters=dict(rope_type="linear", factor=5.0),
    ),
    "yarn": LLAMA | dict(rope_scaling=YARN),
    "yarn_outer_length": LLAMA | dict(rope_scaling=YARN, original_max_position_embeddings=64),
    "yarn_betas": LLAMA | dict(rope_scaling=YARN | dict(beta_fast=16.0, beta_slow=2.0, truncate=False)),
    "yarn_attention": LLAMA | dict(rope_scaling=YARN | dict(attention_factor=1.5)),
    "yarn_mscale": LLAMA | dict(rope_scaling=YARN | dict(mscale=0.7, mscale_all_dim=1.1)),
    "longrope": LLAMA | dict(rope_scaling=dict(
        rope_type="longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=128,
    )),
    "longrope_factor": LLAMA | dict(rope_scaling=dict(
        rope_type="longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=128, factor=8.0,
    )),
    "phi3_su": SIZES | dict(
        model_type="phi3", rope_theta=10000.0, original_max_position_embeddings=128, partial_rotary_factor=0.75,
        rope_scaling=dict(
            type="su", short_factor=SHORT[:12], long_factor=LONG[:12], original_max_position_embeddings=128,
        ),
    ),
    "phi3_class_length": SIZES | dict(
        model_type="phi3", rope_theta=10000.0,
        rope_scaling=dict(
            type="longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=128,
        ),
    ),
    "smollm3_default": SIZES | dict(model_type="smollm3"),
}


def describe(keys):
    keys = json.loads(json.dumps(keys))
    config = AutoConfig.for_model(keys.pop("model_type"), **keys)
    config.standardize_rope_params()
    rope = config.rope_parameters
    if rope["rope_type"] == "default":
        dim = config.hidden_size // config.num_attention_heads
        return dict(inv_freq=(1.0 / rope["rope_theta"] ** (torch.arange(0, dim, 2).float() / dim)).tolist())
    compute = ROPE_INIT_FUNCTIONS[rope["rope_type"]]
    frequencies, scale = compute(config, "cpu")
    out = dict(inv_freq=frequencies.tolist(), attention_scale=scale)
    if rope["rope_type"] == "longrope":
        length = rope["original_max_position_embeddings"]
        out |= dict(original=length, long=compute(config, "cpu", seq_len=length + 1)[0].tolist())
    return out


if __name__ == "__main__":
    cases = {name: dict(config=keys) | describe(keys) for name, keys in CASES.items()}
    write_json(REPOSITORY / "crates/model/tests/golden/ropes.json", dict(cases=cases))
