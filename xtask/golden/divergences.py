"""Divergences of a student from a teacher at single tokens, and their derivatives by the student's logits, in f64.

Run: python xtask/golden/divergences.py    (TRL 1.16: `generalized_jsd_loss` of its GKD trainer)
"""

import json
from pathlib import Path

import torch
import trl
from trl.experimental.gkd.gkd_trainer import GKDTrainer

OUT = Path(__file__).parents[2] / "crates/compute/tests/golden/divergences.json"
READS, VOCAB = 4, 9

torch.manual_seed(1)
student = (3 * torch.randn(READS, VOCAB, dtype=torch.float64)).round(decimals=4).requires_grad_()
teacher = (3 * torch.randn(READS, VOCAB, dtype=torch.float64)).round(decimals=4)
cases = []
for mix in (0.0, 0.1, 0.5, 0.9, 1.0):
    for temperature in (1.0, 0.7):
        divergences, gradients = [], []
        for read in range(READS):
            rows = [logits[None, read : read + 1] for logits in (student, teacher)]
            loss = GKDTrainer.generalized_jsd_loss(*rows, beta=mix, temperature=temperature, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, student)
            divergences.append(loss.item())
            gradients.append(gradient[read].tolist())
        cases.append(dict(mix=mix, temperature=temperature, divergences=divergences, gradients=gradients))
made = dict(versions=dict(torch=torch.__version__, trl=trl.__version__), reads=READS, vocab=VOCAB)
made |= dict(student=student.tolist(), teacher=teacher.tolist(), cases=cases)
OUT.write_text(json.dumps(made) + "\n")
