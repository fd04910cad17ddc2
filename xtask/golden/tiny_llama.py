"""Small random Llamas with their logits, losses and LoRA gradients.

Run: python xtask/golden/tiny_llama.py [CASE ...]
Makes crates/model/tests/golden/tiny_llama/CASE/: a Hugging Face folder (config.json, generation_config.json,
model.safetensors in f32), config_rope_scaling.json (the same config in the spelling before transformers 5, with
top-level rope_theta and rope_scaling), adapter/ (PEFT, non-zero lora_B), gradients.safetensors (of lora_loss, by the
adapter file's names) and golden.json.

Weights are rounded to bf16 before they are stored as f32, so both precisions start from the same model.
"""

import json
import sys
from copy import deepcopy
from math import sqrt

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

from store import TINY_LLAMA, next_token_logprobs, save_adapter, save_tensors, write_json

LENGTHS = [40, 17, 9]
# Targets of each sequence that are context: the loss leaves them out.
CONTEXT = [3, 5, 2]
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

SMALL = dict(
    vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=64,
    rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
)
CASES = {
    "gqa": SMALL | dict(hidden_size=64, intermediate_size=96),
    "tied": SMALL | dict(
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True, rope_theta=500000.0, rms_norm_eps=1e-6,
    ),
    "llama3": SMALL | dict(
        max_position_embeddings=256, rope_theta=500000.0,
        rope_scaling=dict(
            rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    # Sizes that no tile divides.
    "linear": SMALL | dict(
        vocab_size=101, intermediate_size=72, max_position_embeddings=128,
        rope_scaling=dict(rope_type="linear", factor=2.0),
    ),
    # The longest sequence is over the limit, the others under it.
    "dynamic": SMALL | dict(max_position_embeddings=24, rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "yarn": SMALL | dict(
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    ),
}


def build_config(keys):
    """The config, by way of the old spelling that most checkpoints on the hub have."""
    return LlamaConfig(bos_token_id=1, eos_token_id=2, pad_token_id=None, attn_implementation="eager", **deepcopy(keys))


def build_model(keys, seed):
    """A Llama whose attention is far from uniform and whose norms are not 1."""
    model = LlamaForCausalLM(build_config(keys)).eval()
    fill_weights(model, seed)
    return model


def fill_weights(model, seed, norm_center=1.0, embedding_std=0.4):
    """Random values that bf16 represents: norms around `norm_center`, biases apart from zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        draws = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            values = norm_center + 0.2 * draws
        elif "embed_tokens" in name:
            values = embedding_std * draws
        elif name.endswith("bias"):
            values = 0.3 * draws
        else:
            values = 1.2 / sqrt(weight.shape[1]) * draws
        weight.data.copy_(values.bfloat16().float())


def draw_tokens(vocab_size, seed):
    """One random sequence per length, without the special tokens 0, 1 and 2."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, vocab_size, (length,), generator=generator).tolist() for length in LENGTHS]


def fill_adapter(model, seed):
    """Gives lora_A and lora_B normal values: with lora_B = 0 half of the gradients vanish."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            std = 1.0 / sqrt(weight.shape[1]) if "lora_A" in name else 0.1
            weight.data.copy_(std * torch.randn(weight.shape, generator=generator))


def gradients_by_file_name(model):
    """Gradients of the adapter, named as its safetensors file names the weights."""
    parameters = dict(model.named_parameters())
    short = {name.replace(".default", ""): weight.grad for name, weight in parameters.items() if weight.requires_grad}
    assert set(short) == set(get_peft_model_state_dict(model))
    return {name: gradient.contiguous() for name, gradient in sorted(short.items())}


def weighted_loss(logprobs, weights):
    """Mean negative log-probability over every supervised token of every sequence."""
    total = sum((-torch.tensor(w) * lp).sum() for lp, w in zip(logprobs, weights))
    return total / sum(map(sum, weights))


def describe(model, tokens, prefix=""):
    """Per sequence: log-probs of every next token, and logits at its first, middle and last position."""
    rows = []
    for row in tokens:
        with torch.no_grad():
            logits = model(torch.tensor([row])).logits[0]
        logprobs = next_token_logprobs(model, row)
        rows.append({prefix + "logprobs": logprobs, prefix + "logits": logits[read_positions(row)]})
    return rows


def read_positions(row):
    return [0, len(row) // 2, len(row) - 1]


def greedy(model, tokens, count):
    """The `count` likeliest tokens after `tokens`, one by one; no end of sequence, no cache."""
    tokens = list(tokens)
    with torch.no_grad():
        for _ in range(count):
            tokens.append(model(torch.tensor([tokens])).logits[0, -1].argmax().item())
    return tokens[-count:]


def write_old_config(folder, keys):
    """Writes the config as transformers 4 did and proves that it means the same."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config.pop("dtype", None)
    config |= dict(torch_dtype="float32", rope_theta=keys["rope_theta"], rope_scaling=keys.get("rope_scaling"))
    config["transformers_version"] = "4.46.0"
    (folder / "config_rope_scaling.json").write_text(json.dumps(config, indent=2) + "\n")
    back = LlamaConfig.from_json_file(folder / "config_rope_scaling.json").rope_parameters
    assert dict(back) == rope, (back, rope)


def make(case, seed):
    keys, folder = CASES[case], TINY_LLAMA / case
    model = build_model(keys, seed)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    write_old_config(folder, keys)

    tokens = draw_tokens(keys["vocab_size"], seed + 1)
    weights = [[0.0] * skip + [1.0] * (len(row) - 1 - skip) for row, skip in zip(tokens, CONTEXT)]
    inv_freq = {str(len(row)): rope_frequencies(model, row) for row in tokens}
    base = describe(model, tokens)
    loss = weighted_loss([row["logprobs"] for row in base], weights)
    continuation = greedy(model, tokens[-1], 12)

    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=LINEARS, task_type="CAUSAL_LM"))
    fill_adapter(model, seed + 2)
    model.eval()
    lora = describe(model, tokens, "lora_")
    lora_loss = weighted_loss([row["lora_logprobs"] for row in lora], weights)
    lora_loss.backward()
    save_adapter(model, folder / "adapter")
    save_tensors(gradients_by_file_name(model), folder / "gradients.safetensors")

    inputs = [dict(tokens=t, weights=w, positions=read_positions(t)) for t, w in zip(tokens, weights)]
    write_json(folder / "golden.json", dict(
        case=case, loss=loss.item(), lora_loss=lora_loss.item(),
        sequences=[i | b | l for i, b, l in zip(inputs, base, lora)],
        greedy_after_last_sequence=continuation,
        rope_attention_scaling=float(model.base_model.model.model.rotary_emb.attention_scaling),
        rope_inv_freq_by_length=inv_freq,
    ))
    print(case, f"loss {loss.item():.4f} lora_loss {lora_loss.item():.4f}")


def rope_frequencies(model, row):
    """Rotary frequencies in use for a sequence of this length, [head_dim / 2]."""
    with torch.no_grad():
        model(torch.tensor([row]))
    return model.model.rotary_emb.inv_freq.clone()


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        make(case, seed=100 + 10 * list(CASES).index(case))
