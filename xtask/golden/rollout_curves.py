"""Six AdamW steps of GRPO and PPO on three fixed rollouts over the tiny model `gqa` with its adapter, in f32.

Run: python xtask/golden/rollout_curves.py   (after tiny_llama.py)
Makes crates/train/tests/golden/rollout_curves.json.

Prompts, answers and the adapter are those of preference_curves.py: a group is the two answers to a prompt, with fixed rewards. Each rollout is
learned from twice; its old log-probabilities (and values) are those of the policy at its first update. The reference is a frozen copy of the
adapter. Log-probabilities are at temperature 0.7.

GRPO: advantages (r - mean) / (std + 1e-4) within the group, Bessel's deviation; the clipped loss, a mean over all tokens (DAPO, arXiv
2503.14476, eq. 8), and 0.04 times k3. PPO: the reward stands at the last token, -0.05 times log-ratio at each; GAE (arXiv 1506.02438,
eq. 16) with gamma 1 and lambda 0.95, advantages whitened over the rollout, value loss clipped at 0.2 and weighed with 0.1.
"""

import torch

from preference_curves import PAIRS, SETTINGS, SIDES
from objectives import load_policy
from store import REPOSITORY, write_json

PATH = REPOSITORY / "crates/train/tests/golden/rollout_curves.json"
TEMPERATURE = 0.7
ROLLOUTS = [[0, 1, 2], [3, 4, 5], [5, 0, 3]]
REWARDS = [[1.0, 0.0], [0.25, 0.75], [0.0, -1.0], [0.5, 0.5], [2.0, 1.0], [0.0, 1.0]]
UPDATES = 2


def outputs(model, prompt, answer, score=None):
    """Log-probability of every token of an answer, and the value before each."""
    inner = model.base_model.model
    hidden = inner.model(torch.tensor([prompt + answer])).last_hidden_state[0]
    states = hidden[len(prompt) - 1 : -1]
    logprobs = torch.log_softmax(inner.lm_head(states) / TEMPERATURE, -1)
    own = logprobs[torch.arange(len(answer)), torch.tensor(answer)]
    return own, None if score is None else states @ score[0]


def clipped(ratio, advantage, low, high):
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def whiten(values):
    return (values - values.mean()) * torch.rsqrt(values.var() + 1e-8)


class Grpo:
    score = None

    def __init__(self):
        self.policy, self.reference = load_policy(), load_policy()
        self.trained = [weight for weight in self.policy.parameters() if weight.requires_grad]

    def rollout(self, pairs):
        """Prompt, answer, old log-probs, old values, reference log-probs, reward and group of every answer."""
        with torch.no_grad():
            self.rows = []
            for pair in pairs:
                for side, name in enumerate(SIDES):
                    asked = PAIRS[pair]["prompt"], PAIRS[pair][name]
                    old, values = outputs(self.policy, *asked, self.score)
                    reference, _ = outputs(self.reference, *asked)
                    self.rows.append(dict(asked=asked, old=old, values=values, reference=reference, reward=REWARDS[pair][side]))
            self.estimate()

    def estimate(self):
        for first in range(0, len(self.rows), 2):
            group = self.rows[first : first + 2]
            rewards = torch.tensor([row["reward"] for row in group])
            for row, reward in zip(group, rewards):
                row["advantages"] = ((reward - rewards.mean()) / (rewards.std() + 1e-4)).expand(len(row["old"]))

    def loss(self):
        losses = []
        for row in self.rows:
            now, _ = outputs(self.policy, *row["asked"])
            policy = clipped((now - row["old"]).exp(), row["advantages"], 0.2, 0.28)
            away = row["reference"] - now
            losses.append(policy + 0.04 * (away.exp() - away - 1))
        return torch.cat(losses).mean()


class Ppo(Grpo):
    def __init__(self):
        super().__init__()
        score = 0.2 * torch.randn(1, 64, generator=torch.Generator().manual_seed(81))
        self.score = score.bfloat16().float().requires_grad_()
        self.trained.append(self.score)

    def estimate(self):
        for row in self.rows:
            rewards = -0.05 * (row["old"] - row["reference"])
            rewards[-1] += row["reward"]
            advantages, following, value_after = [], 0.0, 0.0
            for reward, value in zip(rewards.flip(0), row["values"].flip(0)):
                following = reward + value_after - value + 0.95 * following
                value_after = value
                advantages.insert(0, following)
            row["advantages"] = torch.stack(advantages)
            row["returns"] = row["advantages"] + row["values"]
        whitened = whiten(torch.cat([row["advantages"] for row in self.rows]))
        for row, own in zip(self.rows, whitened.split([len(row["old"]) for row in self.rows])):
            row["advantages"] = own

    def loss(self):
        policy, value = [], []
        for row in self.rows:
            now, values = outputs(self.policy, *row["asked"], self.score)
            policy.append(clipped((now - row["old"]).exp(), row["advantages"], 0.2, 0.2))
            near = row["values"] + (values - row["values"]).clamp(-0.2, 0.2)
            value.append(0.5 * torch.maximum((values - row["returns"]) ** 2, (near - row["returns"]) ** 2))
        return torch.cat(policy).mean() + 0.1 * torch.cat(value).mean()


def train(method):
    keys = {key: SETTINGS[key] for key in ["lr", "betas", "eps", "weight_decay"]}
    optimizer = torch.optim.AdamW(method.trained, **keys)
    losses, norms = [], []
    for pairs in ROLLOUTS:
        method.rollout(pairs)
        for _ in range(UPDATES):
            loss = method.loss()
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(method.trained, SETTINGS["max_grad_norm"]).item())
            losses.append(loss.item())
            optimizer.step()
            optimizer.zero_grad()
    print(type(method).__name__, [f"{loss:.4f}" for loss in losses], [f"{norm:.3f}" for norm in norms])
    return dict(losses=losses, grad_norms=norms)


if __name__ == "__main__":
    ppo = Ppo()
    score = ppo.score.detach().clone()
    write_json(PATH, SETTINGS | dict(
        temperature=TEMPERATURE, pairs=PAIRS, rollouts=ROLLOUTS, rewards=REWARDS, updates=UPDATES,
        grpo=train(Grpo()), ppo=dict(score_weight=score) | train(ppo),
    ))
