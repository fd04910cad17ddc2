"""Ten AdamW steps of full fine-tuning over small random Llamas in f32: losses and norms of the gradient.

Run: python xtask/golden/full_curve.py
Reads crates/model/tests/golden/tiny_llama/{gqa,tied}. Makes crates/train/tests/golden/full_curve.json.

Every weight is trained; decay is on matrices, the embedding and the head, not on norms.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from store import REPOSITORY, TINY_LLAMA, write_json

LENGTHS = [[23, 9], [31], [12, 17, 5], [40], [8, 8, 8], [27], [19, 30], [6], [33, 11], [21, 14]]
SETTINGS = dict(lr=2e-3, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.1, max_grad_norm=1.0)


def draw_batches(vocab_size, seed):
    """Per step its sequences: tokens, and from which token on they are supervised."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda length: torch.randint(3, vocab_size, (length,), generator=generator).tolist()
    return [[dict(tokens=draw(length), supervised_from=length // 3) for length in step] for step in LENGTHS]


def step_loss(model, sequences):
    """Mean over every supervised token of the step."""
    total, count = 0.0, 0
    for sequence in sequences:
        tokens, start = torch.tensor(sequence["tokens"]), sequence["supervised_from"]
        logprobs = torch.log_softmax(model(tokens[None]).logits[0, :-1].float(), dim=-1)
        picked = logprobs.gather(1, tokens[1:, None])[start - 1 :, 0]
        total, count = total - picked.sum(), count + len(picked)
    return total / count


def train(case, batches):
    """Losses before every step, and norms of the gradient before clipping."""
    model = AutoModelForCausalLM.from_pretrained(TINY_LLAMA / case, dtype=torch.float32, attn_implementation="eager")
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [dict(params=decayed), dict(params=others, weight_decay=0.0)]
    keys = {key: SETTINGS[key] for key in ["lr", "betas", "eps", "weight_decay"]}
    optimizer = torch.optim.AdamW(groups, **keys)
    losses, norms = [], []
    for sequences in batches:
        loss = step_loss(model, sequences)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS["max_grad_norm"]).item())
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    sums = {name: weight.detach().double().sum().item() for name, weight in model.named_parameters()}
    print(case, [f"{loss:.4f}" for loss in losses])
    return dict(case=case, losses=losses, grad_norms=norms, batches=batches, weight_sums=sums)


if __name__ == "__main__":
    path = Path(REPOSITORY) / "crates/train/tests/golden/full_curve.json"
    cases = [train(case, draw_batches(128, seed)) for seed, case in enumerate(["gqa", "tied"])]
    write_json(path, SETTINGS | dict(cases=cases))
