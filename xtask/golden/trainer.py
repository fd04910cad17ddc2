"""What transformers' Trainer decides about single tensors: which of them decay, and which bitsandbytes keeps in 32 bits.

Run: python xtask/golden/trainer.py   (needs bitsandbytes; CPU)
Reads crates/model/tests/golden/tiny_llama/gqa and architectures/llama_bias. Makes crates/train/tests/golden/trainer.json:
`decay`, names of trained tensors with true where they decay; `eight_bit`, the bytes of a moment of every tensor of `gqa`;
`embedding`, rows of the embedding after every step, where row i's gradient is `hashed(20, step, ..)` times SIZES[i % 8].
"""

import tempfile

import bitsandbytes
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from hashed import hashed
from store import ARCHITECTURES, REPOSITORY, TINY_LLAMA, write_json

STEPS = 3
SIZES = [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 0.0]
SETTINGS = dict(learning_rate=1e-2, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, weight_decay=0.1)
SHOWN = [0, 5, 6, 7, 127]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def trainer(model, **settings):
    arguments = TrainingArguments(output_dir=tempfile.mkdtemp(), use_cpu=True, report_to=[], **settings)
    return Trainer(model=model, args=arguments)


def decay(model):
    decayed = set(trainer(model).get_decay_parameter_names(model))
    return {name: name in decayed for name, weight in model.named_parameters() if weight.requires_grad}


def adapted():
    """DoRA over a linear layer, whole norms and head, trained rows of the embedding, biases."""
    keys = LoraConfig(
        r=2, use_dora=True, target_modules=["q_proj"], modules_to_save=["norm", "lm_head"], bias="lora_only",
        trainable_token_indices={"embed_tokens": [3, 5]},
    )
    return get_peft_model(load(ARCHITECTURES / "llama_bias"), keys)


def gradient(step, weight):
    rows = torch.tensor(SIZES).repeat(weight.shape[0] // len(SIZES))
    return hashed(20, step, tuple(weight.shape), 1.0) * rows.unsqueeze(1)


def eight_bit():
    model = load(TINY_LLAMA / "gqa")
    made = trainer(model, optim="adamw_bnb_8bit", **SETTINGS)
    optimizer = made.create_optimizer()
    embedding = model.get_input_embeddings().weight
    rows = []
    for step in range(STEPS):
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        embedding.grad = gradient(step, embedding)
        optimizer.step()
        rows.append(embedding.detach()[SHOWN].flatten())
    sizes = {name: optimizer.state[weight]["state1"].element_size() for name, weight in model.named_parameters()}
    return sizes, rows


if __name__ == "__main__":
    sizes, rows = eight_bit()
    content = dict(
        decay=dict(full=decay(load(ARCHITECTURES / "llama_bias")), adapter=decay(adapted())), eight_bit=sizes,
        embedding=dict(settings=SETTINGS, sizes=SIZES, shown=SHOWN, rows=rows),
    )
    path = REPOSITORY / "crates/train/tests/golden/trainer.json"
    write_json(path, content, bitsandbytes=bitsandbytes.__version__)
    print(path.stat().st_size, content["decay"], sizes)
