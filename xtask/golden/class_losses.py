"""Cross-entropy of classes: PyTorch's loss and gradient, plain and with class weights.

Run: python xtask/golden/class_losses.py
Makes crates/train/tests/golden/class_losses.json. The loss is divided by the number of rows, with weights too.
"""

import torch

from store import REPOSITORY, write_json

FILE = REPOSITORY / "crates/train/tests/golden/class_losses.json"


def case(name, logits, labels, weights):
    logits = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), weight=weight, reduction="sum") / len(labels)
    loss.backward()
    return dict(
        name=name, logits=logits.detach().tolist(), labels=labels, weights=weights or [],
        loss=loss.item(), gradient=logits.grad.tolist(),
    )


torch.manual_seed(11)
drawn = torch.randn(5, 3).to(torch.float32).double().tolist()
CASES = [
    case("three classes", drawn, [0, 2, 1, 1, 0], None),
    case("weighted", drawn, [0, 2, 1, 1, 0], [0.5, 1.25, 3.0]),
    case("far apart", [[500.0, -500.0], [-500.0, 500.0], [0.0, 0.0]], [0, 0, 1], None),
]

if __name__ == "__main__":
    write_json(FILE, dict(cases=CASES))
