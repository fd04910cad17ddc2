"""Adapters as PEFT writes them, in every spelling that a reader meets, over the tiny model `gqa`.

Run: python xtask/golden/peft_files.py   (after tiny_llama.py)
Makes crates/model/tests/golden/peft/CASE/ (adapter_config.json, adapter_model.safetensors) and peft/golden.json.
A case's `expect` is `load`, `refuse` (adding it as plain LoRA would be wrong) or `load_or_refuse` (LoRA on the
embedding or the head: right or not at all).
"""

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from store import REPOSITORY, TINY_LLAMA, next_token_logprobs, save_adapter, write_json
from tiny_llama import LINEARS, draw_tokens, fill_adapter

FOLDER = REPOSITORY / "crates/model/tests/golden/peft"
CASES = {
    "rank_and_alpha_pattern": ("load", dict(
        target_modules=LINEARS, rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 6},
        alpha_pattern={"q_proj": 16, "^model.layers.0.mlp.up_proj": 3},
    )),
    "layers_to_transform": ("load", dict(target_modules=["q_proj", "down_proj"], layers_to_transform=[1])),
    "rslora": ("load", dict(target_modules=["k_proj", "o_proj"], use_rslora=True)),
    "subset": ("load", dict(target_modules=["q_proj", "v_proj"])),
    "regex": ("load", dict(target_modules=r".*\.layers\.0\..*\.(q_proj|down_proj)")),
    "full_names": ("load", dict(target_modules=["model.layers.1.self_attn.v_proj", "layers.0.mlp.gate_proj"])),
    "exclude_modules": ("load", dict(
        target_modules=["q_proj", "v_proj"], exclude_modules=["layers.0.self_attn.q_proj"],
    )),
    "all_linear": ("load", dict(target_modules="all-linear", r=2)),
    "bf16": ("load", dict(target_modules=["q_proj", "up_proj"])),
    "lm_head": ("load_or_refuse", dict(target_modules=["q_proj", "lm_head"])),
    "embedding": ("load_or_refuse", dict(target_modules=["q_proj", "embed_tokens"])),
    "modules_to_save": ("load", dict(target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "dora": ("load", dict(target_modules=["q_proj", "v_proj"], use_dora=True)),
    "bias_all": ("refuse", dict(target_modules=["q_proj"], bias="all")),
    "lora_bias": ("refuse", dict(target_modules=["q_proj"], lora_bias=True)),
}


def make(case, seed, tokens):
    """Writes one adapter folder and returns what the model says with it."""
    expect, keys = CASES[case]
    base = AutoModelForCausalLM.from_pretrained(TINY_LLAMA / "gqa", dtype=torch.float32, attn_implementation="eager")
    model = get_peft_model(base, LoraConfig(**dict(r=4, lora_alpha=8, task_type="CAUSAL_LM") | keys)).eval()
    fill_adapter(model, seed)
    if case == "bf16":
        for name, weight in model.named_parameters():
            weight.data = weight.data.bfloat16() if "lora_" in name else weight.data
    save_adapter(model, FOLDER / case)
    model = model.float()
    if case == "modules_to_save":
        # So that a reader that forgets the saved head gets other numbers.
        model.base_model.model.lm_head.modules_to_save["default"].weight.data.mul_(1.5)
        save_adapter(model, FOLDER / case)
    with torch.no_grad():
        logprobs = next_token_logprobs(model, tokens)
        logits = model(torch.tensor([tokens])).logits[0, -1]
    return dict(case=case, expect=expect, logprobs=logprobs, last_logits=logits)


if __name__ == "__main__":
    tokens = draw_tokens(128, seed=7)[1]
    cases = [make(case, 500 + index, tokens) for index, case in enumerate(CASES)]
    write_json(FOLDER / "golden.json", dict(base="tiny_llama/gqa", tokens=tokens, cases=cases))
    for case in cases:
        print(case["case"], case["expect"], case["logprobs"].mean().item())
