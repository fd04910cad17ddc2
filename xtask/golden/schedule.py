"""Learning-rate factors of transformers' schedules: factors[i] multiplies the rate of step i (the first is 0).

Run: python xtask/golden/schedule.py
Makes crates/train/tests/golden/schedule.json.
"""

import torch
from transformers import get_scheduler

from store import REPOSITORY, write_json

SIZES = [(0, 1), (0, 10), (3, 10), (1, 2), (5, 5), (20, 12), (7, 40)]
KINDS = [
    ("constant", {}), ("constant_with_warmup", {}), ("linear", {}), ("cosine", {}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
]


def factors(kind, options, warmup_steps, total_steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = get_scheduler(kind, optimizer, warmup_steps, total_steps, scheduler_specific_kwargs=options)
    result = []
    for _ in range(total_steps):
        result.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return result


if __name__ == "__main__":
    cases = [
        dict(kind=kind, warmup_steps=warmup, total_steps=total)
        | options | dict(factors=factors(kind, options, warmup, total))
        for kind, options in KINDS for warmup, total in SIZES
    ]
    write_json(REPOSITORY / "crates/train/tests/golden/schedule.json", dict(cases=cases))
    print(len(cases), "schedules")
