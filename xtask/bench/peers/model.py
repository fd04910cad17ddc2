"""A causal model from a folder, and LoRA on every linear layer of it."""

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PreTrainedModel

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


def load(folder: str, dtype: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype])


def lora(rank: int, alpha: int) -> LoraConfig:
    return LoraConfig(
        r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
