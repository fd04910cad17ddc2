"""Losses and their derivatives: of log-probs and rewards alone, and through the tiny model `gqa` with its adapter.

Run: python xtask/golden/objectives.py   (after tiny_llama.py)
Makes crates/train/tests/golden/objectives.json, and in crates/model/tests/golden/tiny_llama/gqa/ dpo.json,
dpo_gradients.safetensors, reward.json and reward_gradients.safetensors.
"""

import torch
import torch.nn.functional as F
import trl
from peft import PeftModel
from transformers import AutoModelForCausalLM

from store import REPOSITORY, TINY_LLAMA, next_token_logprobs, save_tensors, write_json
from tiny_llama import gradients_by_file_name

OBJECTIVES = REPOSITORY / "crates/train/tests/golden/objectives.json"
GQA = TINY_LLAMA / "gqa"

# policy chosen, policy rejected, reference chosen, reference rejected: summed log-probs, in nats.
PAIRS = [
    [-12.5, -14.25, -12.5, -14.25],
    [-30.0, -22.0, -28.5, -25.25],
    [-3.75, -80.5, -9.0, -41.0],
    [-55.0, -8.0, -20.0, -19.5],
    [-0.001, -1000.0, -2.0, -3.0],
    [-1500.0, -0.5, -4.0, -5.0],
]
REWARDS = [[1.25, -0.5], [0.0, 0.0], [-2.0, 3.5], [40.0, -60.0], [-90.0, 20.0], [0.75, 0.7]]
LOGPROBS = [-0.01, -2.5, -0.75, -11.0, -4.125, -0.3, -6.5]
WEIGHTS = [[1.0] * 7, [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0], [0.5, 2.0, 0.0, 1.0, 0.25, 1.0, 3.0]]


def dpo_losses(pairs, beta, label_smoothing=0.0):
    """TRL's `sigmoid` loss of each pair [pairs, 4]; smoothing is conservative DPO: a label is wrong with that chance."""
    delta = (pairs[:, 0] - pairs[:, 1]) - (pairs[:, 2] - pairs[:, 3])
    wanted, flipped = -F.logsigmoid(beta * delta), -F.logsigmoid(-beta * delta)
    return wanted * (1 - label_smoothing) + flipped * label_smoothing


def reward_losses(rewards, center=0.0):
    """TRL's reward loss of each pair [pairs, 2]; `center` draws the pair's sum to zero."""
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]) + center * rewards.sum(1) ** 2


def differentiated(function, values):
    """Losses, their mean, and the mean's derivative for each value, in f64."""
    values = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    losses = function(values)
    losses.mean().backward()
    return dict(losses=losses, loss=losses.mean().item(), gradient=values.grad)


def make_formulas():
    dpo = [
        dict(beta=beta, label_smoothing=smoothing)
        | differentiated(lambda pairs: dpo_losses(pairs, beta, smoothing), PAIRS)
        for beta, smoothing in [(0.1, 0.0), (0.5, 0.0), (0.1, 0.1)]
    ]
    reward = [
        dict(center=center) | differentiated(lambda rewards: reward_losses(rewards, center), REWARDS)
        for center in [0.0, 0.01]
    ]
    sft = []
    for weights in WEIGHTS:
        logprobs = torch.tensor(LOGPROBS, dtype=torch.float64, requires_grad=True)
        loss = -(torch.tensor(weights) * logprobs).sum() / sum(weights)
        loss.backward()
        sft.append(dict(weights=weights, loss=loss.item(), gradient=logprobs.grad))
    content = dict(
        dpo_columns=["policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected"],
        dpo_pairs=PAIRS, dpo=dpo, reward_columns=["chosen", "rejected"], reward_pairs=REWARDS, reward=reward,
        sft_logprobs=LOGPROBS, sft=sft,
    )
    write_json(OBJECTIVES, content, trl=trl.__version__)
    print("dpo", [case["loss"] for case in dpo], "reward", [case["loss"] for case in reward])


def draw_pairs():
    """Two prompts, one long enough to be shared as a prefix, each with two completions."""
    generator = torch.Generator().manual_seed(77)
    draw = lambda count: torch.randint(3, 128, (count,), generator=generator).tolist()
    sizes = [(20, 12, 9), (7, 6, 15)]
    return [dict(prompt=draw(p), chosen=draw(c), rejected=draw(r)) for p, c, r in sizes]


def load_base():
    return AutoModelForCausalLM.from_pretrained(GQA, dtype=torch.float32, attn_implementation="eager").eval()


def load_policy():
    return PeftModel.from_pretrained(load_base(), GQA / "adapter", is_trainable=True).eval()


def completion_logprob(model, prompt, completion):
    """Summed log-prob of the completion after the prompt."""
    return next_token_logprobs(model, prompt + completion)[len(prompt) - 1 :].sum()


def make_dpo(pairs, beta=0.1):
    """The policy is the base with the adapter, the reference the base alone."""
    policy, base = load_policy(), load_base()
    rows = []
    for pair in pairs:
        row = [completion_logprob(policy, pair["prompt"], pair[side]) for side in ["chosen", "rejected"]]
        with torch.no_grad():
            row += [completion_logprob(base, pair["prompt"], pair[side]) for side in ["chosen", "rejected"]]
        rows.append(torch.stack(row))
    rows = torch.stack(rows)
    losses = dpo_losses(rows, beta)
    losses.mean().backward()
    save_tensors(gradients_by_file_name(policy), GQA / "dpo_gradients.safetensors")
    columns = ["policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected"]
    write_json(GQA / "dpo.json", dict(
        beta=beta, loss=losses.mean().item(), losses=losses, columns=columns, logprobs=rows, pairs=pairs,
    ), trl=trl.__version__)
    print("gqa dpo", losses.tolist())


def make_reward(pairs):
    """A scalar head on the adapter's final hidden state at each sequence's last token."""
    model = load_policy()
    score = 0.2 * torch.randn(1, 64, generator=torch.Generator().manual_seed(78))
    score = score.bfloat16().float().requires_grad_()
    read = lambda tokens: model.base_model.model.model(torch.tensor([tokens])).last_hidden_state[0, -1]
    rewards = torch.stack([
        torch.cat([score @ read(pair["prompt"] + pair[side]) for side in ["chosen", "rejected"]]) for pair in pairs
    ])
    losses = reward_losses(rewards)
    losses.mean().backward()
    gradients = gradients_by_file_name(model) | {"score.weight": score.grad}
    save_tensors(gradients, GQA / "reward_gradients.safetensors")
    write_json(GQA / "reward.json", dict(
        loss=losses.mean().item(), losses=losses, columns=["chosen", "rejected"], rewards=rewards,
        score_weight=score, pairs=pairs,
    ), trl=trl.__version__)
    print("gqa rewards", rewards.tolist())


if __name__ == "__main__":
    make_formulas()
    pairs = draw_pairs()
    make_dpo(pairs)
    make_reward(pairs)
