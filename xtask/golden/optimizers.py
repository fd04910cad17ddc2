"""Lion, SGD, Adafactor, Muon and 8-bit AdamW: five steps over tensors whose gradients are given.

Run: python xtask/golden/optimizers.py   (needs bitsandbytes and lion-pytorch; CPU)
Makes crates/compute/tests/golden/optimizers.json.

The cases of `adamw8bit` also hold a tensor of 8192 + 100 elements that the JSON only names: `hashed(10, 0, ..)` scaled
by 1 is the weight, `hashed(10, 1 + step, ..)` the gradient, element i times GRADIENT_SIZES[i // 256 % 4]. Its blocks
differ in size so, and the last one is short.
"""

from unittest.mock import patch

import bitsandbytes
import lion_pytorch
import torch
from bitsandbytes.backends.cpu import ops as cpu_ops
from bitsandbytes.functional import create_dynamic_map
from transformers.optimization import Adafactor

from hashed import hashed
from store import REPOSITORY, write_json

SHAPES = [[6, 10], [7]]
STEPS = 5
LARGE = 8192 + 100
# Per block of 256, in turn.
GRADIENT_SIZES = [1.0, 1e-2, 1e-4, 10.0]

CASES = [
    ("lion", dict(lr=1e-2, betas=[0.9, 0.99], weight_decay=0.0)),
    ("lion", dict(lr=3e-3, betas=[0.9, 0.99], weight_decay=0.1)),
    ("sgd", dict(lr=1e-2, momentum=0.0, nesterov=False, weight_decay=0.0)),
    ("sgd", dict(lr=1e-2, momentum=0.9, nesterov=False, weight_decay=0.0)),
    ("sgd", dict(lr=1e-2, momentum=0.9, nesterov=True, weight_decay=0.1)),
    ("adafactor", dict(lr=1e-2, eps=[1e-30, 1e-3], clip_threshold=1.0, decay_rate=-0.8, beta1=None, weight_decay=0.0)),
    ("adafactor", dict(lr=3e-2, eps=[1e-30, 1e-3], clip_threshold=1.0, decay_rate=-0.8, beta1=None, weight_decay=0.1)),
    ("muon", dict(lr=1e-2, momentum=0.95, nesterov=True, ns_steps=5, weight_decay=0.1, adjust_lr_fn="original")),
    ("muon", dict(lr=1e-2, momentum=0.95, nesterov=True, ns_steps=5, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")),
    ("muon", dict(lr=1e-2, momentum=0.9, nesterov=False, ns_steps=5, weight_decay=0.0, adjust_lr_fn="original")),
    ("adamw8bit", dict(lr=1e-2, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0)),
    ("adamw8bit", dict(lr=1e-2, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1)),
]
MAKERS = {
    "lion": lion_pytorch.Lion,
    "sgd": torch.optim.SGD,
    "adafactor": lambda weights, **keys: Adafactor(weights, relative_step=False, scale_parameter=False, **keys),
    "muon": torch.optim.Muon,
    "adamw8bit": bitsandbytes.optim.AdamW8bit,
}
# Muon takes matrices only: a wide one, a tall one (which it transposes) and a square one.
MUON_SHAPES = [[6, 10], [12, 4], [8, 8]]


def run(optimizer, settings, seed):
    """Weights after each step and the state after the last."""
    shapes = MUON_SHAPES if optimizer == "muon" else SHAPES
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    gradients = [draw_gradients(shape, generator) for shape in shapes]
    tensors = step_through(optimizer, settings, weights, gradients)
    if optimizer == "muon":
        # The same in f32 throughout: how far the reference's own bf16 arithmetic strays.
        with patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor.clone()):
            exact = step_through(optimizer, settings, weights, gradients)
        for tensor, other in zip(tensors, exact):
            tensor["after_f32"] = other["after"]
    case = dict(optimizer=optimizer, settings=settings, tensors=tensors)
    return case | (dict(large=run_large(settings)) if optimizer == "adamw8bit" else {})


def draw_gradients(shape, generator):
    """Sizes from a hundredth to a hundred, and a last element that is always zero."""
    gradients = []
    for step in range(STEPS):
        gradient = 10.0 ** (step - 2) * torch.randn(shape, generator=generator)
        gradient.view(-1)[-1] = 0.0
        gradients.append(gradient)
    return gradients


def step_through(optimizer, settings, initial, gradients):
    weights = [weight.detach().clone().requires_grad_() for weight in initial]
    made = MAKERS[optimizer](weights, **settings)
    tensors = [
        dict(shape=list(weight.shape), initial=weight.flatten(), gradients=[g.flatten() for g in rows], after=[])
        for weight, rows in zip(initial, gradients)
    ]
    for step in range(STEPS):
        for weight, tensor, rows in zip(weights, tensors, gradients):
            weight.grad = rows[step].clone()
        made.step()
        for weight, tensor in zip(weights, tensors):
            tensor["after"].append(weight.detach().flatten().tolist())
    for weight, tensor in zip(weights, tensors):
        state = made.state[weight]
        tensor["state"] = {
            key: value.flatten()
            for key, value in state.items()
            if isinstance(value, torch.Tensor) and value.numel() > 1
        }
    return tensors


def large_gradient(step):
    sizes = torch.tensor(GRADIENT_SIZES).repeat_interleave(256).repeat(LARGE // 1024 + 1)[:LARGE]
    gradient = hashed(10, 1 + step, (LARGE,), 1.0) * sizes
    # One block without any gradient: its states stay zero.
    gradient[512:768] = 0.0
    return gradient


def run_large(settings):
    """A tensor in 8 bits, its states rounded to the nearest code."""
    weight = hashed(10, 0, (LARGE,), 1.0).requires_grad_()
    optimizer = bitsandbytes.optim.AdamW8bit([weight], **settings)
    shown = [*range(8), *range(252, 260), *range(LARGE - 104, LARGE - 96), *range(LARGE - 4, LARGE)]
    rows = []
    with patch.object(cpu_ops, "_quant_blockwise_fp32_direct", quantize_nearest):
        for step in range(STEPS):
            weight.grad = large_gradient(step)
            optimizer.step()
            state = optimizer.state[weight]
            rows.append(dict(
                weights=weight.detach()[shown], weight_sum=weight.detach().double().sum(),
                code_sums=[state["state1"].sum(), state["state2"].sum()],
                absmax1=state["absmax1"].clone(), absmax2=state["absmax2"].clone(),
            ))
    return dict(
        count=LARGE, blocksize=256, gradient_sizes=GRADIENT_SIZES, zero_gradient=[512, 768], shown=shown,
        first_weights=hashed(10, 0, (LARGE,), 1.0)[:4], first_gradients=large_gradient(0)[:4], steps=rows,
        state1=hexed(state["state1"]), state2=hexed(state["state2"]), weight=hexed(weight.detach()),
    )


def quantize_nearest(values, code, absmax, out, blocksize):
    """The nearest level, as GPUs choose; the package's CPU kernel first rounds its input to a grid of about 3e-5."""
    middle = (code[:-1] + code[1:]) / 2
    for block, part in enumerate(values.split(blocksize)):
        absmax[block] = part.abs().max()
        scaled = part / absmax[block] if absmax[block] > 0 else torch.full_like(part, -1.0)
        out[block * blocksize : block * blocksize + len(part)] = torch.bucketize(scaled, middle).to(torch.uint8)


def hexed(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().tobytes().hex()


if __name__ == "__main__":
    cases = [run(*case, seed) for seed, case in enumerate(CASES)]
    maps = dict(signed=create_dynamic_map(True), unsigned=create_dynamic_map(False))
    path = REPOSITORY / "crates/compute/tests/golden/optimizers.json"
    more = dict(bitsandbytes=bitsandbytes.__version__, lion_pytorch="0.2.5")
    write_json(path, dict(steps=STEPS, cases=cases, dynamic_maps=maps), **more)
    print(path.stat().st_size, [case["tensors"][0]["state"].keys() for case in cases])
