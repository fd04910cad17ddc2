"""AdamW and gradient clipping: five steps over two small tensors whose gradients are given.

Run: python xtask/golden/adamw.py
Makes crates/compute/tests/golden/adamw.json.
"""

import torch

from store import REPOSITORY, write_json

SHAPES = [[2, 3], [5]]
STEPS = 5
CASES = [
    dict(lr=1e-2, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0, max_grad_norm=None),
    dict(lr=1e-2, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1, max_grad_norm=None),
    dict(lr=3e-3, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01, max_grad_norm=1.0),
    dict(lr=5e-2, betas=[0.8, 0.99], eps=1e-3, weight_decay=0.0, max_grad_norm=100.0),
]


def run(case, seed):
    """Weights after each step and the last moments; the norm is over both tensors, before clipping."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(shape, generator=generator, requires_grad=True) for shape in SHAPES]
    tensors = [dict(shape=shape, initial=w.flatten(), gradients=[], after=[]) for shape, w in zip(SHAPES, weights)]
    tensors = [tensor | {"initial": tensor["initial"].tolist()} for tensor in tensors]
    settings = {key: value for key, value in case.items() if key != "max_grad_norm"}
    optimizer = torch.optim.AdamW(weights, **settings, foreach=False)
    norms = []
    for step in range(STEPS):
        for weight, tensor in zip(weights, tensors):
            # Sizes from a tenth to thousands, so that clipping sometimes acts, and a zero whose moments stay zero.
            weight.grad = 10.0 ** (step - 2) * torch.randn(weight.shape, generator=generator)
            weight.grad.view(-1)[-1] = 0.0
            tensor["gradients"].append(weight.grad.flatten().tolist())
        limit = case["max_grad_norm"] or float("inf")
        norms.append(torch.nn.utils.clip_grad_norm_(weights, limit).item())
        optimizer.step()
        for weight, tensor in zip(weights, tensors):
            tensor["after"].append(weight.detach().flatten().tolist())
    for weight, tensor in zip(weights, tensors):
        state = optimizer.state[weight]
        tensor |= dict(exp_avg=state["exp_avg"].flatten(), exp_avg_sq=state["exp_avg_sq"].flatten())
    return case | dict(grad_norms=norms, tensors=tensors)


if __name__ == "__main__":
    cases = [run(case, seed) for seed, case in enumerate(CASES)]
    write_json(REPOSITORY / "crates/compute/tests/golden/adamw.json", dict(steps=STEPS, cases=cases))
    print([case["grad_norms"] for case in cases])
