"""Six AdamW steps of GRPO, GSPO and PPO on one fixed rollout over the tiny model `gqa` with its adapter, in f32.

Run: python xtask/golden/update_curves.py   (after tiny_llama.py)
Makes crates/train/tests/golden/update_curves.json.

Two prompts with three answers each. Log-probs, entropies and KL are at temperature 0.7. The rollout's log-probs and values are
those of the adapter as it begins; the reference is a frozen copy of it. GRPO: DAPO's mean over tokens (arXiv 2503.14476, eq. 8)
with the estimator k2 of the KL divergence, times the importance ratio without gradient. GSPO: 2507.18071, eq. 5 and 7. PPO:
1707.06347, eq. 7, with a clipped value loss and an entropy bonus; the value head is trained with the adapter.
"""

import torch

from objectives import load_policy
from preference_curves import SETTINGS, train
from store import REPOSITORY, write_json

PATH = REPOSITORY / "crates/train/tests/golden/update_curves.json"
TEMPERATURE, UPDATES = 0.7, 6
PROMPTS, ANSWERS = [9, 5], [[6, 1, 9], [4, 8, 3]]
ADVANTAGES = [[1.25, -0.5, 0.25], [-1.5, 0.75, 0.5]]


def draw_rollout():
    generator = torch.Generator().manual_seed(83)
    draw = lambda count: torch.randint(3, 128, (count,), generator=generator).tolist()
    rows = []
    for group, (prompt, answers) in enumerate(zip(PROMPTS, ANSWERS)):
        prompt = draw(prompt)
        for length, advantage in zip(answers, ADVANTAGES[group]):
            returns = (torch.randint(-64, 65, (length,), generator=generator) / 64).tolist()
            rows.append(dict(group=group, prompt=prompt, answer=draw(length), advantage=advantage, returns=returns))
    return rows


class Grpo:
    beta, low, high = 0.1, 0.2, 0.28

    def __init__(self):
        self.policy, self.reference, self.rows = load_policy(), load_policy(), draw_rollout()
        self.trained = [weight for weight in self.policy.parameters() if weight.requires_grad]
        with torch.no_grad():
            for row in self.rows:
                row["logprobs"], _ = self.see(self.policy, row)
                row["reference"], _ = self.see(self.reference, row)

    def see(self, model, row):
        """Log-prob of every token of the answer, and entropy of the distribution that it is drawn from."""
        logits = model(torch.tensor([row["prompt"] + row["answer"]])).logits[0].float() / TEMPERATURE
        logprobs = torch.log_softmax(logits[len(row["prompt"]) - 1 : -1], dim=-1)
        picked = logprobs.gather(1, torch.tensor(row["answer"]).unsqueeze(1)).squeeze(1)
        return picked, -(logprobs.exp() * logprobs).sum(-1)

    def clipped(self, ratio, advantage):
        return -torch.min(ratio * advantage, ratio.clamp(1 - self.low, 1 + self.high) * advantage)

    def tokens(self):
        return sum(len(row["answer"]) for row in self.rows)

    def loss(self, _):
        total = 0.0
        for row in self.rows:
            logprobs, _ = self.see(self.policy, row)
            ratio = torch.exp(logprobs - row["logprobs"])
            kl = ratio.detach() * (logprobs - row["reference"]) ** 2 / 2
            total = total + (self.clipped(ratio, row["advantage"]) + self.beta * kl).sum()
        return total / self.tokens()


class Gspo(Grpo):
    low, high = 0.2, 0.3

    def loss(self, _):
        losses = []
        for row in self.rows:
            logprobs, _ = self.see(self.policy, row)
            losses.append(self.clipped(torch.exp((logprobs - row["logprobs"]).mean()), row["advantage"]))
        return torch.stack(losses).mean()


class Ppo(Grpo):
    high, vf_coef, clip_value, entropy_coef = 0.2, 0.5, 0.05, 0.02

    def __init__(self):
        super().__init__()
        score = 0.2 * torch.randn(1, 64, generator=torch.Generator().manual_seed(84))
        self.score = score.bfloat16().float().requires_grad_()
        self.trained.append(self.score)
        self.begin = self.score.detach().clone()
        with torch.no_grad():
            for row in self.rows:
                row["values"] = self.values(row)

    def values(self, row):
        tokens = torch.tensor([row["prompt"] + row["answer"]])
        hidden = self.policy.base_model.model.model(tokens).last_hidden_state[0]
        return (hidden[len(row["prompt"]) - 1 : -1] @ self.score.T).squeeze(1)

    def loss(self, _):
        total = 0.0
        for row in self.rows:
            (logprobs, entropies), values = self.see(self.policy, row), self.values(row)
            ratio = torch.exp(logprobs - row["logprobs"])
            wanted, old = torch.tensor(row["returns"]), row["values"]
            bounded = old + (values - old).clamp(-self.clip_value, self.clip_value)
            value = 0.5 * torch.max((values - wanted) ** 2, (bounded - wanted) ** 2)
            token = self.clipped(ratio, row["advantage"]) + self.vf_coef * value - self.entropy_coef * entropies
            total = total + token.sum()
        return total / self.tokens()


def case(method, *names):
    settings = {name: getattr(method, name) for name in names}
    return settings | train(method, range(UPDATES))


if __name__ == "__main__":
    ppo = Ppo()
    rows = [{name: row[name] for name in row} for row in ppo.rows]
    write_json(PATH, SETTINGS | dict(
        temperature=TEMPERATURE, rows=rows, grpo=case(Grpo(), "beta", "low", "high"), gspo=case(Gspo(), "low", "high"),
        ppo=dict(score_weight=ppo.begin) | case(ppo, "low", "high", "vf_coef", "clip_value", "entropy_coef"),
    ))
