"""Fused matrices (Phi's `qkv_proj` and `gate_up_proj`) as the packages treat them: each as one tensor.

Run: python xtask/golden/fused.py   (needs bitsandbytes; CPU)
Reads crates/model/tests/golden/architectures/{phi3,phi4mini}. Makes
crates/model/tests/golden/fused_nf4.json: log-probs of the models with every linear layer in NF4, as bitsandbytes quantises it;
crates/train/tests/golden/fused_optimizers.json: five steps of Muon and of Adafactor, over all weights and over LoRA.

Muon is torch's with Newton-Schulz in f32, for linear layers and LoRA; torch's AdamW takes the rest, as the package asks.
"""

from unittest.mock import patch

import bitsandbytes
import torch
from bitsandbytes import functional
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers.optimization import Adafactor

from full_curve import draw_batches, step_loss
from store import ARCHITECTURES, REPOSITORY, next_token_logprobs, write_json
from tiny_llama import draw_tokens
from tiny_models import file_name

STEPS = 5
ADAMW = dict(betas=[0.9, 0.999], eps=1e-8)
OPTIMIZERS = {
    "muon": dict(lr=2e-3, momentum=0.95, nesterov=True, weight_decay=0.1),
    "adafactor": dict(lr=2e-3, eps=[1e-30, 1e-3], clip_threshold=1.0, decay_rate=-0.8, weight_decay=0.1),
}


def load(case):
    folder = ARCHITECTURES / case
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def nf4(weight):
    """What the package makes of a matrix, with magnitudes that are quantised again."""
    packed, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    return _dequantize_4bit_compute(packed.flatten(), absmax, state.code, state.blocksize, weight.shape, torch.float32)


def quantized(case):
    model = load(case)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.weight.data = nf4(module.weight.data)
    tokens = draw_tokens(model.config.vocab_size, 41)[0]
    with torch.no_grad():
        return dict(case=case, tokens=tokens, logprobs=next_token_logprobs(model, tokens))


def is_linear(name):
    return "_proj" in name


def made(optimizer, parameters):
    """Optimizers over named parameters: matrices of linear layers, and the rest. Norms do not decay."""
    settings = OPTIMIZERS[optimizer]
    linear = [weight for name, weight in parameters if is_linear(name)]
    other = [weight for name, weight in parameters if not is_linear(name) and weight.ndim > 1]
    norms = [weight for name, weight in parameters if weight.ndim == 1]
    if optimizer == "adafactor":
        groups = [dict(params=linear + other), dict(params=norms, weight_decay=0.0)]
        return [Adafactor(groups, relative_step=False, scale_parameter=False, beta1=None, **settings)]
    made = [torch.optim.Muon(linear, adjust_lr_fn="match_rms_adamw", ns_steps=5, **settings)]
    groups = [dict(params=other), dict(params=norms, weight_decay=0.0)]
    if other or norms:
        made.append(torch.optim.AdamW(groups, lr=settings["lr"], weight_decay=settings["weight_decay"], **ADAMW))
    return made


def train(optimizer, adapter, batches):
    model = load("phi3")
    if adapter:
        model = PeftModel.from_pretrained(model, ARCHITECTURES / "phi3/adapter", is_trainable=True)
    parameters = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    optimizers = made(optimizer, parameters)
    losses = []
    with patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor.clone()):
        for sequences in batches:
            loss = step_loss(model, sequences)
            loss.backward()
            losses.append(loss.item())
            for each in optimizers:
                each.step()
                each.zero_grad()
    shown = {}
    for name, weight in parameters:
        name = name.replace(".default", "") if adapter else name
        weight = weight.detach().double()
        shown[name] = dict(sum=weight.sum().item(), squares=weight.square().sum().item(), last=weight.flatten()[-4:])
    print(optimizer, adapter, [f"{loss:.4f}" for loss in losses])
    return dict(optimizer=optimizer, adapter=adapter, losses=losses, weights=shown)


if __name__ == "__main__":
    golden = REPOSITORY / "crates"
    versions = dict(bitsandbytes=bitsandbytes.__version__)
    cases = [quantized(case) for case in ["phi3", "phi4mini"]]
    write_json(golden / "model/tests/golden/fused_nf4.json", dict(cases=cases), **versions)
    batches = draw_batches(load("phi3").config.vocab_size, 5)[:STEPS]
    runs = [train(optimizer, adapter, batches) for optimizer in OPTIMIZERS for adapter in [False, True]]
    content = dict(settings=OPTIMIZERS, adamw=ADAMW, batches=batches, runs=runs)
    write_json(golden / "train/tests/golden/fused_optimizers.json", content)
