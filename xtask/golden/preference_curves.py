"""Ten AdamW steps of DPO, KTO, ORPO and a reward model over the tiny model `gqa` with its adapter, in f32.

Run: python xtask/golden/preference_curves.py   (after tiny_llama.py)
Makes crates/train/tests/golden/preference_curves.json.

The adapter goes on from crates/model/tests/golden/tiny_llama/gqa/adapter.
The reference of DPO and KTO is a frozen copy of it.
The mismatched pairs of KTO: the prompt of row i with the answer of row i + 1 (of the last with that of the first), in the
order of the step. `kto` has both answers of each pair, and its z0 is clamped to 0 throughout; `kto_uneven` has the rejected
answer of the first pair alone. ORPO's terms are means over the tokens of a pair and then over pairs.
"""

import torch
import torch.nn.functional as F

from objectives import load_base, load_policy, reward_losses
from store import REPOSITORY, next_token_logprobs, write_json

PATH = REPOSITORY / "crates/train/tests/golden/preference_curves.json"
SIDES = ["chosen", "rejected"]
SETTINGS = dict(lr=1e-3, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0, max_grad_norm=1.0)
# Prompt, chosen, rejected.
SIZES = [(20, 12, 9), (7, 6, 15), (11, 4, 4), (5, 18, 7), (14, 9, 13), (9, 1, 10)]
# Five epochs of two steps.
STEPS = [
    [0, 1, 2], [3, 4, 5], [5, 0, 3], [1, 4, 2], [2, 5, 4], [0, 3, 1], [4, 2, 0], [1, 5, 3], [3, 1, 5], [2, 0, 4],
]
BETA = 0.1


def draw_pairs():
    generator = torch.Generator().manual_seed(79)
    draw = lambda count: torch.randint(3, 128, (count,), generator=generator).tolist()
    return [dict(zip(["prompt", *SIDES], map(draw, sizes))) for sizes in SIZES]


PAIRS = draw_pairs()


def answer_logprobs(model, prompt, answer):
    """Of every token of the answer."""
    return next_token_logprobs(model, prompt + answer)[len(prompt) - 1 :]


def log_ratio(policy, reference, prompt, answer):
    with torch.no_grad():
        fixed = answer_logprobs(reference, prompt, answer).sum()
    return answer_logprobs(policy, prompt, answer).sum() - fixed


class Dpo:
    """TRL's `sigmoid`."""

    def __init__(self):
        self.policy, self.reference = load_policy(), load_policy()
        self.trained = [weight for weight in self.policy.parameters() if weight.requires_grad]

    def loss(self, step):
        return torch.stack([self.pair_loss(PAIRS[index]) for index in step]).mean()

    def pair_loss(self, pair):
        chosen, rejected = (log_ratio(self.policy, self.reference, pair["prompt"], pair[side]) for side in SIDES)
        return -F.logsigmoid(BETA * (chosen - rejected))


class Kto(Dpo):
    """arXiv 2402.01306, eq. 7, and the mean over rows. A row is 2 times its pair, and 1 more for the rejected answer."""

    def __init__(self, weights):
        super().__init__()
        self.weights, self.z0 = torch.tensor(weights), []

    def loss(self, step):
        rows = [(PAIRS[row // 2]["prompt"], PAIRS[row // 2][SIDES[row % 2]]) for row in step]
        with torch.no_grad():
            mismatched = [(rows[i][0], rows[(i + 1) % len(rows)][1]) for i in range(len(rows))]
            z0 = torch.stack([self.ratio(row) for row in mismatched]).mean().clamp(min=0)
        self.z0.append(z0.item())
        ratios = torch.stack([self.ratio(row) for row in rows]) - z0
        side = torch.tensor(step) % 2
        return (self.weights[side] * (1 - torch.sigmoid(BETA * (1 - 2 * side) * ratios))).mean()

    def ratio(self, row):
        return log_ratio(self.policy, self.reference, *row)


class Orpo(Dpo):
    """arXiv 2403.07691, eq. 4 to 7; the likelihood is of prompt and answer."""

    def pair_loss(self, pair):
        whole = next_token_logprobs(self.policy, pair["prompt"] + pair["chosen"])
        means = torch.stack([answer_logprobs(self.policy, pair["prompt"], pair[side]).mean() for side in SIDES])
        log_odds = means - torch.log(-torch.expm1(means))
        return -whole.mean() - BETA * F.logsigmoid(log_odds[0] - log_odds[1])


class Reward(Dpo):
    """A scalar head on the final hidden state of the last token, trained with the adapter."""

    def __init__(self):
        super().__init__()
        score = 0.2 * torch.randn(1, 64, generator=torch.Generator().manual_seed(80))
        self.score = score.bfloat16().float().requires_grad_()
        self.trained.append(self.score)

    def loss(self, step):
        pairs = [PAIRS[index] for index in step]
        rewards = [torch.cat([self.reward(pair["prompt"] + pair[side]) for side in SIDES]) for pair in pairs]
        return reward_losses(torch.stack(rewards)).mean()

    def reward(self, tokens):
        return self.score @ self.policy.base_model.model.model(torch.tensor([tokens])).last_hidden_state[0, -1]


def train(method, steps=STEPS):
    """Losses before every step, and norms of the gradient before clipping."""
    keys = {key: SETTINGS[key] for key in ["lr", "betas", "eps", "weight_decay"]}
    optimizer = torch.optim.AdamW(method.trained, **keys)
    losses, norms = [], []
    for step in steps:
        loss = method.loss(step)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(method.trained, SETTINGS["max_grad_norm"]).item())
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    print(type(method).__name__, [f"{loss:.4f}" for loss in losses], [f"{norm:.3f}" for norm in norms])
    return dict(losses=losses, grad_norms=norms)


def train_kto(rows_of, weights):
    rows, method = [rows_of(step) for step in STEPS], Kto(weights)
    trained = train(method, rows)
    keys = dict(zip(["desirable_weight", "undesirable_weight"], weights))
    return dict(beta=BETA) | keys | dict(rows=rows) | trained | dict(z0=method.z0)


def train_reward():
    method = Reward()
    score = method.score.detach().clone()
    return dict(score_weight=score) | train(method)


if __name__ == "__main__":
    both = lambda step: [2 * pair + side for pair in step for side in [0, 1]]
    mostly_desirable = lambda step: [2 * pair for pair in step] + [2 * step[0] + 1]
    write_json(PATH, SETTINGS | dict(
        pairs=PAIRS, steps=STEPS,
        dpo=dict(beta=BETA) | train(Dpo()),
        kto=train_kto(both, [1.0, 1.0]),
        kto_uneven=train_kto(mostly_desirable, [1.33, 1.0]),
        orpo=dict(beta=BETA) | train(Orpo()),
        reward=train_reward(),
    ))
