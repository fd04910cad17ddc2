"""Losses and advantages of the methods that sample their answers, and derivatives by the policy's log-prob of every token,
from TRL's own trainers.

Run: python xtask/golden/policy_gradient.py       (TRL 1.16: everything but PPO, which it copies from the file as it is)
     python xtask/golden/policy_gradient.py ppo   (TRL 1.9, the last with a PPO trainer: that part alone)
Makes crates/train/tests/golden/policy_gradient.json.

Which lines of TRL make which part: trl_online.py. `source` is `formula` where this file computes instead, for TRL lacks it:
CISPO of MiniMax-M1 (arXiv 2506.13585, eq. 4), DPPO (2602.04879, with verl's stop-gradient weight), the estimators k1 and
k2 in the loss, REINFORCE++ (2501.03262), and GAE over answers with observations (1506.02438, eq. 16).
"""

import json
import sys

import torch
import trl

import trl_online
from store import REPOSITORY, write_json

PATH = REPOSITORY / "crates/train/tests/golden/policy_gradient.json"
LENGTHS = [5, 1, 4, 3, 6, 2]
ADVANTAGES = [1.25, -0.75, 0.5, -1.5, -0.625, 0.0]


def draw_rows():
    """Log-probs in 64ths, so that f32 has them exactly. The policy is near the one before, which is near the one that
    sampled; some tokens have moved far both ways. Row 4 has two observation tokens inside; row 2 has not moved at all."""
    generator = torch.Generator().manual_seed(11)
    draw = lambda low, high: [
        (torch.randint(low, high, (length,), generator=generator) / 64).tolist() for length in LENGTHS
    ]
    moved = lambda rows, low, high: [
        [value + step for value, step in zip(row, steps)] for row, steps in zip(rows, draw(low, high))
    ]
    old = draw(-190, -40)
    policy = moved(old, -20, 21)
    policy[2] = list(old[2])
    for row, place, step in [(0, 1, 2.0), (3, 0, -2.0), (4, 5, 0.5)]:
        old[row][place] = -2.5
        policy[row][place] = old[row][place] + step
    rows = dict(
        policy=policy, old=old, sampled=moved(old, -12, 13), reference=moved(old, -40, 41), entropies=draw(5, 200),
        mask=[[1.0] * length for length in LENGTHS], advantages=ADVANTAGES,
        values=draw(-100, 100), returns=draw(-120, 120), token_advantages=draw(-100, 100),
    )
    rows["mask"][4][2] = rows["mask"][4][3] = 0.0
    rows["old_values"] = moved(rows["values"], -30, 31)
    return rows


ROWS = draw_rows()


def tensors(*trained):
    made = {name: [torch.tensor(row) for row in rows] for name, rows in ROWS.items() if name != "advantages"}
    made["advantages"] = ADVANTAGES
    for name in trained:
        for row in made[name]:
            row.requires_grad_()
    return made


def gradient_of(rows):
    return [torch.zeros_like(row) if row.grad is None else row.grad for row in rows]


def formula_loss(rows, settings):
    """What TRL lacks, a mean over all tokens."""
    total = sum(row.sum() for row in rows["mask"])
    loss = 0.0
    for policy, old, reference, mask, advantage in zip(
        rows["policy"], rows["old"], rows["reference"], rows["mask"], ADVANTAGES
    ):
        ratio, fixed = torch.exp(policy - old), torch.exp(policy - old).detach()
        low, high = settings["low"], settings["high"]
        if settings["loss"] == "cispo_minimax":
            token = -fixed.clamp(1 - low, 1 + high) * advantage * policy
        elif settings["loss"].startswith("dppo"):
            p, q = old.exp(), policy.detach().exp()
            if settings["loss"] == "dppo_tv":
                distance = (q - p).abs()
            else:
                distance = p * (old - policy.detach()) + (1 - p) * torch.log((1 - p + 1e-8) / (1 - q + 1e-8))
            away = (q > p) if advantage > 0 else (q < p)
            kept = ~(away & (distance > (high if advantage > 0 else low)))
            token = -kept.double() * fixed.clamp(max=settings["ratio_max"]) * advantage * policy
        else:
            token = -torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
        log_ratio = policy - reference
        kl = {"k1": log_ratio, "k2": log_ratio**2 / 2, "k3": torch.exp(-log_ratio) - 1 + log_ratio}[settings["kl"]]
        if settings["kl_ratio"]:
            kl = kl * (fixed if settings["kl"] == "k2" else ratio)
        loss = loss + ((token + settings["beta"] * kl) * mask).sum() / total
    return loss


def make_loss(loss, source="trl", **given):
    settings = dict(
        loss=loss, level="token", low=0.2, high=0.2, delta=None, ratio_max=None, beta=0.0, kl="k3", kl_ratio=False,
        off_policy_threshold=None, top_entropy=1.0, entropy_coef=0.0, correction=None, stale_min=None, stale_max=None,
        max_new_tokens=8,
    )
    assert set(given) <= set(settings)
    settings |= given
    rows = tensors("policy", "entropies")
    metrics = {}
    if source == "formula":
        value = formula_loss(rows, settings)
    else:
        value, metrics = trl_online.grpo(rows, settings)
    value.backward()
    return dict(
        settings=settings, source=source, loss=value, gradient=gradient_of(rows["policy"]),
        entropy_gradient=gradient_of(rows["entropies"]) if settings["entropy_coef"] else None,
        metrics={name: metrics[name][-1] for name in metrics if name in SHOWN},
    )


SHOWN = ["entropy", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"]


def loss_cases():
    published = dict(cispo=dict(high=5.0), sapo={}, dapo=dict(high=0.28))
    cases = [make_loss(name, **published.get(name, {})) for name in ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo"]]
    every = ["k1", "k2", "k3"]
    return cases + [
        make_loss("cispo", high=1.1),
        make_loss("grpo", level="sequence", low=3e-4, high=4e-4),
        make_loss("grpo", level="sequence", low=0.2, high=0.3),
        make_loss("dapo", delta=1.5),
        make_loss("grpo", level="sequence", delta=1.5),
        *[make_loss(name, beta=0.04, kl_ratio=ratio) for name in ["grpo", "dapo", "sapo"] for ratio in [False, True]],
        *[make_loss("grpo", level="sequence", beta=0.04, kl_ratio=ratio) for ratio in [False, True]],
        make_loss("dapo", off_policy_threshold=0.05),
        make_loss("dapo", top_entropy=0.4),
        make_loss("grpo", top_entropy=0.4, beta=0.04),
        make_loss("dapo", entropy_coef=0.01),
        make_loss("grpo", entropy_coef=0.01, top_entropy=0.4),
        *[
            make_loss("dapo", correction=mode, stale_min=0.9, stale_max=1.1)
            for mode in ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
        ],
        make_loss("dapo", correction="sequence_mask", stale_max=3.0, off_policy_threshold=0.05),
        make_loss("cispo_minimax", source="formula", low=1.0, high=0.2),
        make_loss("cispo_minimax", source="formula", low=0.1, high=0.2),
        *[make_loss(name, source="formula", low=0.02, high=0.01, ratio_max=1.2) for name in ["dppo_tv", "dppo_kl"]],
        *[make_loss("dapo", source="formula", beta=0.04, kl=kl, kl_ratio=ratio) for kl in every for ratio in [False, True]],
    ]


def check_formula():
    """Where both can, TRL and the formula agree."""
    for ratio in [False, True]:
        ours, theirs = (make_loss("dapo", source=source, beta=0.04, kl_ratio=ratio) for source in ["formula", "trl"])
        torch.testing.assert_close(ours["loss"], theirs["loss"])
        torch.testing.assert_close(ours["gradient"], theirs["gradient"])


# ---- Advantages ----

REWARDS = [
    [1.0, 0.25], [0.0, 0.75], [1.0, None], [None, None], [0.0, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [2.0, -1.0],
    [None, -3.0], [0.0, 0.0], [-1.0, 1.5],
]
WEIGHTS, GROUP_SIZE = [1.0, 0.5], 4


def make_grpo_advantages(scale, aggregation):
    advantages, flat = trl_online.grpo_advantages(REWARDS, WEIGHTS, GROUP_SIZE, scale, aggregation)
    return dict(scale=scale, aggregation=aggregation, advantages=advantages, zero_std=flat)


def make_rloo_advantages(beta, normalize):
    rewards = [[1.0], [0.25], [None], [0.75], [-0.5], [2.0]]
    advantages = trl_online.rloo_advantages(tensors(), rewards, [1.0], 3, beta, normalize)
    return dict(rewards=rewards, group_size=3, beta=beta, normalize=normalize, advantages=advantages)


def make_rloo(low, high):
    rows = tensors("policy")
    loss, metrics = trl_online.rloo(rows, low, high)
    loss.backward()
    return dict(
        low=low, high=high, loss=loss, gradient=gradient_of(rows["policy"]),
        metrics={name: metrics[name][-1] for name in SHOWN if name in metrics},
    )


def whiten(values, mask):
    """verl's and TRL's: Bessel's variance plus 1e-8."""
    count = mask.sum()
    mean = (values * mask).sum() / count
    variance = (((values - mean) ** 2) * mask).sum() / (count - 1)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def token_rewards(rows, scores, beta):
    """k1 per token, the score at the last token."""
    rewards = [-beta * (old - reference) * mask for old, reference, mask in zip(rows["old"], rows["reference"], rows["mask"])]
    for row, score in zip(rewards, scores):
        row[-1] += score
    return rewards


def make_reinforce(beta, gamma, baseline):
    rows, scores = tensors(), torch.tensor([1.0, 0.25, -0.5, 0.75, -0.5, 2.0])
    if baseline == "group":
        scores = (scores.view(-1, 3) - scores.view(-1, 3).mean(1, keepdim=True)).view(-1)
    returns = []
    for rewards, mask in zip(token_rewards(rows, scores, beta), rows["mask"]):
        row, following = torch.zeros_like(rewards), 0.0
        for t in reversed(range(len(rewards))):
            if mask[t]:
                following = rewards[t] + gamma * following
                row[t] = following
        returns.append(row)
    flat = whiten(torch.cat(returns), torch.cat(rows["mask"]))
    return dict(
        rewards=[1.0, 0.25, -0.5, 0.75, -0.5, 2.0], group_size=3, beta=beta, gamma=gamma, baseline=baseline,
        advantages=list(flat.split(LENGTHS)),
    )


def make_gae(beta, gamma, lam):
    """Rows with observations: these are passed over."""
    rows, scores = tensors(), torch.tensor([1.0, 0.25, -0.5, 0.75, -0.5, 2.0])
    advantages, returns = [], []
    for rewards, values, mask in zip(token_rewards(rows, scores, beta), rows["old_values"], rows["mask"]):
        row, value, following = torch.zeros_like(rewards), 0.0, 0.0
        for t in reversed(range(len(rewards))):
            if mask[t]:
                following = rewards[t] + gamma * value - values[t] + gamma * lam * following
                value = values[t]
                row[t] = following
        advantages.append(row)
        returns.append(row + values)
    flat = whiten(torch.cat(advantages), torch.cat(rows["mask"]))
    return dict(
        rewards=scores, beta=beta, gamma=gamma, **{"lambda": lam}, advantages=list(flat.split(LENGTHS)), returns=returns
    )


def make_ppo_advantages(**settings):
    """Answers of one length, from TRL."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda low, high, *shape: torch.randint(low, high, shape or (3, 4), generator=generator) / 64
    logprobs, references, values, scores = draw(-190, -10), draw(-190, -10), draw(-90, 90), draw(-90, 90, 3)
    advantages, returns = trl_online.ppo_advantages(logprobs, references, values, scores.clone(), settings)
    return dict(
        settings=settings, logprobs=logprobs, references=references, values=values, scores=scores, advantages=advantages,
        returns=returns,
    )


def make_ppo_loss(**settings):
    rows = tensors("policy", "values")
    loss, policy, value, clipped = trl_online.ppo_loss(rows, settings)
    loss.backward()
    return dict(
        settings=settings, loss=loss, policy_loss=policy, value_loss=value, clipped_values=clipped,
        gradient=gradient_of(rows["policy"]), value_gradient=gradient_of(rows["values"]),
    )


def make_ppo():
    usual = dict(kl_coef=0.05, kl_estimator="k1", whiten_rewards=False, gamma=1.0, lam=0.95)
    changes = [{}, dict(kl_estimator="k3"), dict(whiten_rewards=True), dict(gamma=0.9, lam=0.8), dict(lam=1.0)]
    return dict(
        trl=trl.__version__,
        advantages=[make_ppo_advantages(**usual | change) for change in changes],
        losses=[
            make_ppo_loss(cliprange=0.2, cliprange_value=clip, vf_coef=weight) for clip, weight in [(0.2, 0.1), (0.4, 1.0)]
        ],
    )


def make_all():
    check_formula()
    return dict(
        rows=ROWS, losses=loss_cases(), rloo=[make_rloo(0.2, 0.2), make_rloo(0.05, 1.5)],
        rewards=dict(values=REWARDS, weights=WEIGHTS, group_size=GROUP_SIZE),
        grpo_advantages=[
            *[make_grpo_advantages(scale, "sum_then_normalize") for scale in ["group", "batch", "none"]],
            make_grpo_advantages("group", "normalize_then_sum"),
        ],
        rloo_advantages=[make_rloo_advantages(beta, normalize) for beta in [0.0, 0.05] for normalize in [False, True]],
        reinforce_pp=[
            make_reinforce(beta, gamma, baseline)
            for beta, gamma in [(0.0, 1.0), (0.05, 1.0), (0.05, 0.9)] for baseline in ["none", "group"]
        ],
        gae=[make_gae(beta, gamma, lam) for beta, gamma, lam in [(0.05, 1.0, 0.95), (0.0, 0.9, 0.8)]],
    )


if __name__ == "__main__":
    content = json.loads(PATH.read_text()) if PATH.exists() else {}
    version = content.pop("versions", {}).get("trl", trl.__version__)
    with trl_online.f64():
        if sys.argv[1:] == ["ppo"]:
            content["ppo"] = make_ppo()
        else:
            content, version = make_all() | {key: content[key] for key in ["ppo"] if key in content}, trl.__version__
    write_json(PATH, content, digits=17, trl=version)
    json.loads(PATH.read_text(), parse_constant=lambda name: sys.exit(f"{name} among the numbers"))
    for case in content.get("losses", []):
        print(case["settings"]["loss"], case["settings"]["level"], float(case["loss"]))
