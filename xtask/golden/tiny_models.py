"""Small random models of every architecture, with their logits, losses and the gradients of all their weights.

Run: python xtask/golden/tiny_models.py [CASE ...]
Makes crates/model/tests/golden/architectures/CASE/: a Hugging Face folder (config.json, generation_config.json,
model.safetensors in f32), config_old.json (the same config as transformers 4 spelled it), gradients.safetensors (of
loss, by the names in model.safetensors), adapter/ (PEFT on every linear of the decoder, non-zero lora_B),
lora_gradients.safetensors (of lora_loss, by the adapter file's names) and golden.json.

Every sequence runs alone, in f32 with eager attention. Windows are 8, shorter than every sequence.
"""

import json
import shutil
import sys
from copy import deepcopy

import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3ForConditionalGeneration

from store import ARCHITECTURES, next_token_logprobs, save_adapter, save_tensors, write_json
from tiny_llama import (
    CONTEXT,
    LINEARS,
    describe,
    draw_tokens,
    fill_adapter,
    fill_weights,
    gradients_by_file_name,
    greedy,
    read_positions,
    weighted_loss,
)

FUSED_LINEARS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
# The vision tower has modules of the same names.
DECODER_LINEARS = r".*language_model.*\.(" + "|".join(LINEARS) + ")"

SMALL = dict(
    vocab_size=96, hidden_size=32, intermediate_size=36, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False,
    bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
TIED = SMALL | dict(tie_word_embeddings=True)


def theta(value, **scaling):
    return dict(rope_parameters=dict(rope_type="default", rope_theta=value) | scaling)


def wide_heads(base):
    """Heads whose size is not hidden_size / num_attention_heads."""
    return base | dict(num_attention_heads=4, num_key_value_heads=1, head_dim=10)


MISTRAL = wide_heads(SMALL) | theta(10000.0) | dict(model_type="mistral", sliding_window=8)
QWEN2 = TIED | theta(1000000.0) | dict(model_type="qwen2")
GEMMA = wide_heads(TIED) | dict(
    rms_norm_eps=1e-6, sliding_window=8, query_pre_attn_scalar=5, hidden_activation="gelu_pytorch_tanh",
    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
)
GEMMA3 = GEMMA | dict(
    model_type="gemma3_text", layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    rope_parameters=dict(
        sliding_attention=dict(rope_type="default", rope_theta=100.0),
        full_attention=dict(rope_type="linear", rope_theta=10000.0, factor=2.0),
    ),
)
PHI3 = SMALL | theta(10000.0) | dict(model_type="phi3", intermediate_size=32)
LONGROPE = dict(rope_type="longrope", original_max_position_embeddings=24)

CASES = {
    "mistral": MISTRAL,
    "mistral_full": MISTRAL | dict(sliding_window=None, num_hidden_layers=2),
    "qwen2": QWEN2,
    "qwen2_window": QWEN2 | dict(
        use_sliding_window=True, max_window_layers=1, sliding_window=8, tie_word_embeddings=False, num_hidden_layers=2,
    ),
    # Sizes that no tile divides.
    "qwen3": wide_heads(SMALL) | theta(1000000.0) | dict(
        model_type="qwen3", vocab_size=101, hidden_size=36, intermediate_size=28, num_hidden_layers=2,
    ),
    "gemma2": GEMMA | theta(10000.0) | dict(
        model_type="gemma2", attn_logit_softcapping=5.0, final_logit_softcapping=1.0,
    ),
    "gemma3_text": GEMMA3,
    "gemma3": dict(
        model_type="gemma3", text_config=GEMMA3, mm_tokens_per_image=1, boi_token_index=93, eoi_token_index=94,
        image_token_index=95, tie_word_embeddings=True,
        vision_config=dict(
            model_type="siglip_vision_model", hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=1, image_size=4, patch_size=2,
        ),
    ),
    "phi3": PHI3 | dict(sliding_window=8),
    # Longest sequence with the long factors, the others with the short ones.
    "phi3_longrope": PHI3 | dict(
        num_key_value_heads=4, num_hidden_layers=2, max_position_embeddings=96, original_max_position_embeddings=24,
    ) | theta(10000.0, short_factor=[1.0, 1.1, 1.25, 1.5], long_factor=[1.0, 1.75, 3.0, 4.5], **LONGROPE),
    "phi4mini": PHI3 | dict(num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)
    | theta(10000.0, partial_rotary_factor=0.75),
    "phi4mini_longrope": PHI3 | dict(
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True, num_hidden_layers=2,
        max_position_embeddings=96, original_max_position_embeddings=24,
    ) | theta(
        10000.0, partial_rotary_factor=0.75, short_factor=[1.0, 1.0, 1.2, 1.4, 1.6, 2.0],
        long_factor=[1.0, 1.3, 2.0, 3.0, 4.0, 6.0], **LONGROPE,
    ),
    "smollm3": TIED | theta(2000000.0) | dict(model_type="smollm3", no_rope_layers=[1, 0, 1]),
    "olmo2": SMALL | theta(500000.0) | dict(model_type="olmo2", num_hidden_layers=2),
    # Sizes that no tile divides.
    "granite": SMALL | theta(10000.0) | dict(
        model_type="granite", vocab_size=103, hidden_size=40, intermediate_size=28, num_attention_heads=5,
        num_key_value_heads=1, num_hidden_layers=2, embedding_multiplier=3.0, residual_multiplier=0.6,
        attention_multiplier=0.5, logits_scaling=2.5,
    ),
    "llama_bias": SMALL | theta(10000.0) | dict(
        model_type="llama", attention_bias=True, mlp_bias=True, num_hidden_layers=2,
    ),
}


def build_config(keys):
    keys = deepcopy(keys)
    return AutoConfig.for_model(keys.pop("model_type"), **keys)


def build_model(config):
    model_class = Gemma3ForConditionalGeneration if config.model_type == "gemma3" else AutoModelForCausalLM
    create = model_class._from_config if config.model_type == "gemma3" else model_class.from_config
    return create(config, attn_implementation="eager").eval()


def old_spelling(config):
    """The config as transformers 4 wrote it: no rope_parameters, no layer_types, no keys at their class's default."""
    old = deepcopy(config)
    old.pop("dtype", None)
    old.pop("_sliding_window_pattern", None)
    rope = old.pop("rope_parameters")
    layer_types = old.pop("layer_types", None)
    if old["model_type"] == "gemma3_text":
        old["sliding_window_pattern"] = layer_types.index("full_attention") + 1
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
        assert rope["rope_type"] == "linear"
    old["rope_theta"] = rope.pop("rope_theta")
    partial = rope.pop("partial_rotary_factor", 1.0)
    if partial != 1.0:
        old["partial_rotary_factor"] = partial
    kind = rope.pop("rope_type")
    if kind == "longrope":
        del rope["original_max_position_embeddings"]
    old["rope_scaling"] = None if kind == "default" else {"type" if kind == "longrope" else "rope_type": kind} | rope
    if old["model_type"] in ("gemma2", "gemma3_text", "smollm3"):
        assert old.pop("tie_word_embeddings")
    if old["model_type"] == "gemma2":
        old["hidden_act"] = "gelu"  # Only `hidden_activation` counts.
    if old.get("use_sliding_window") is False and "max_window_layers" in old:
        old["sliding_window"] = 8  # Counts only with `use_sliding_window`.
    return old


def write_old_config(folder, model, tokens):
    """Writes the config as transformers 4 did and proves that the model computes the same with it."""
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] == "gemma3":
        old = config | dict(text_config=old_spelling(config["text_config"]))
        old.pop("dtype", None)
    else:
        old = old_spelling(config)
    old |= dict(torch_dtype="float32", transformers_version="4.46.0")
    (folder / "config_old.json").write_text(json.dumps(old, indent=2, sort_keys=True) + "\n")
    twin = build_model(type(model.config).from_json_file(folder / "config_old.json"))
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        for row in tokens:
            row = torch.tensor([row])
            assert torch.equal(twin(row).logits, model(row).logits)


def file_name(name):
    """The checkpoint's name of a weight: only the model that also sees images has other names in memory."""
    return name.replace("model.language_model.", "language_model.model.")


def gradients_of_weights(model, folder):
    """Gradients of the decoder's weights by the names in model.safetensors; a tied weight once."""
    gradients = {
        file_name(name): weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = {name for name in file.keys() if not name.startswith(("vision_tower", "multi_modal_projector"))}
    assert set(gradients) == names, set(gradients) ^ names
    return dict(sorted(gradients.items()))


def linears(model_type):
    return {"phi3": FUSED_LINEARS, "gemma3": DECODER_LINEARS}.get(model_type, LINEARS)


def random_model(config, seed):
    """The model, its sequences and the answer to the last one."""
    model = build_model(config)
    # A tied head with long embeddings only repeats its input.
    fill_weights(
        model, seed, norm_center=0.0 if config.model_type.startswith("gemma") else 1.0,
        embedding_std=0.15 if config.tie_word_embeddings else 0.4,
    )
    # Images take the last three tokens of the model that sees them.
    tokens = draw_tokens(config.get_text_config().vocab_size - 3, seed + 1)
    return model, tokens, greedy(model, tokens[-1], 12)


def is_clear(model, tokens, answer):
    """Whether no step of the answer is a near tie, an end of sequence or a mere repetition."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens + answer])).logits[0, len(tokens) - 1 : -1]
    best = logits.topk(2).values
    return (best[:, 0] - best[:, 1]).min() > 0.01 and 2 not in answer and len(set(answer)) >= 4


def make(case, seed):
    folder = ARCHITECTURES / case
    shutil.rmtree(folder, ignore_errors=True)
    config = build_config(CASES[case])
    model, tokens, continuation = random_model(config, seed)
    while not is_clear(model, tokens[-1], continuation):
        seed += 1000
        model, tokens, continuation = random_model(config, seed)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)

    weights = [[0.0] * skip + [1.0] * (len(row) - 1 - skip) for row, skip in zip(tokens, CONTEXT)]
    if config.model_type != "llama":
        write_old_config(folder, model, tokens)

    base = describe(model, tokens)
    loss = weighted_loss([row["logprobs"] for row in base], weights)
    loss.backward()
    gradients = gradients_of_weights(model, folder)
    save_tensors(gradients, folder / "gradients.safetensors")

    lora = LoraConfig(r=4, lora_alpha=8, target_modules=linears(config.model_type), task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    fill_adapter(model, seed + 2)
    model.eval()
    lora_logprobs = [next_token_logprobs(model, row) for row in tokens]
    lora_loss = weighted_loss(lora_logprobs, weights)
    lora_loss.backward()
    save_adapter(model, folder / "adapter")
    save_tensors(gradients_by_file_name(model), folder / "lora_gradients.safetensors")

    inputs = [dict(tokens=t, weights=w, positions=read_positions(t)) for t, w in zip(tokens, weights)]
    write_json(folder / "golden.json", dict(
        case=case, loss=loss.item(), lora_loss=lora_loss.item(), parameters=list(gradients),
        sequences=[i | b | dict(lora_logprobs=l) for i, b, l in zip(inputs, base, lora_logprobs)],
        greedy_after_last_sequence=continuation,
    ), digits=7)
    print(case, f"loss {loss.item():.4f} lora_loss {lora_loss.item():.4f}")


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        make(case, seed=1000 + 10 * list(CASES).index(case))
