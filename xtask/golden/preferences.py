"""Losses of the preference methods and their derivatives by the policy's log-prob of every token, from TRL's own trainers.

Run: python xtask/golden/preferences.py       (TRL 1.16: everything but BCO, which it copies from the file as it is)
     python xtask/golden/preferences.py bco   (TRL 1.9, the last with a BCO trainer: that part alone)
Makes crates/train/tests/golden/preferences.json.

Which method of TRL makes which part: trl_losses.py. `source` is `formula` where this file computes instead: conservative DPO
(TRL's `sigmoid` ignores label smoothing), the NLL term of Iterative RPO, Plackett-Luce and rewards of steps.
"""

import json
import sys

import torch
import torch.nn.functional as F
import trl

import trl_losses
from store import REPOSITORY, write_json

PATH = REPOSITORY / "crates/train/tests/golden/preferences.json"
SIDES = ["chosen", "rejected"]
# The loss of a pair depends on the batch: these have no `losses`.
COUPLED = {"aot", "aot_unpaired", "sft"}

REWARDS = [[1.25, -0.5], [0.0, 0.0], [-2.0, 3.5], [40.0, -60.0], [-90.0, 20.0], [0.75, 0.7]]
MARGINS = [0.5, 1.0, 0.0, 3.0, 2.5, -0.25]
# From the best to the worst.
RANKED = [[1.25, -0.5], [-0.75, 2.5], [0.5, 1.5, -2.0], [2.0, 2.0, -1.0], [3.0, 0.25, 0.75, -1.5, -40.0]]
STEPS = [([2.5, -0.75, 0.0, -12.0], [1.0, 0.0, 0.5, 1.0]), ([0.5], [0.5]), ([-3.0, 30.0], [0.0, 1.0])]
BCO_STEPS = [([0, 1], [0]), ([2], [1, 2, 3]), ([3, 4, 5], [4, 5]), ([0, 1, 2, 3], [])]


def draw_pairs():
    """Log-probs in 64ths: two ordinary pairs, answers of one token, equal answers, logratios of about 30 both ways."""
    generator = torch.Generator().manual_seed(2)
    draw = lambda count, low=4, high=190: (-torch.randint(low, high, (count,), generator=generator) / 64).tolist()
    pairs = []
    for chosen, rejected in [(4, 3), (1, 1), (3, 3), (2, 7), (3, 4), (5, 2)]:
        pair = dict(prompt=draw(3 + len(pairs) % 3))
        for side, length in zip(SIDES, (chosen, rejected)):
            pair |= {side: draw(length), f"ref_{side}": draw(length), f"sq_{side}": draw(length)}
        pairs.append(pair)
    equal, wrong, right = pairs[2], pairs[4], pairs[5]
    for name in ["", "ref_", "sq_"]:
        equal[f"{name}rejected"] = equal[f"{name}chosen"]
    unlikely = lambda length: draw(length, 64 * 30 // length, 64 * 33 // length)
    for pair, keys in [(wrong, ["chosen", "ref_rejected"]), (right, ["ref_chosen", "rejected"])]:
        pair |= {key: unlikely(len(pair[key])) for key in keys}
    return pairs


PAIRS = draw_pairs()
EVERYONE = range(len(PAIRS))


def leaves(name, which=EVERYONE, trained=True):
    """One tensor a pair; trained ones gather derivatives."""
    return [torch.tensor(PAIRS[i][name], requires_grad=trained) for i in which]


def fixed(name, which=EVERYONE):
    return leaves(name, which, trained=False)


def gradient_of(rows):
    return [torch.zeros_like(row) if row.grad is None else row.grad for row in rows]


def sums(rows):
    return torch.stack([row.sum() for row in rows])


def means(rows):
    return torch.stack([row.mean() for row in rows])


# ---- DPO ----


def dpo_batch(policy, which, settings):
    others = [fixed(name, which) for name in ["ref_chosen", "ref_rejected", "sq_chosen", "sq_rejected"]]
    return trl_losses.dpo(*policy, *others, settings)


def dpo_formula(policy, settings):
    """Losses [pairs] of `sigmoid` with label smoothing (conservative DPO, eq. 3 of its note) and with RPO's NLL per token
    (arXiv 2404.19733, eq. 2)."""
    chosen, rejected = policy
    logratios = (sums(chosen) - sums(fixed("ref_chosen"))) - (sums(rejected) - sums(fixed("ref_rejected")))
    wanted, flipped = (-F.logsigmoid(sign * settings["beta"] * logratios) for sign in [1, -1])
    smoothing = settings["label_smoothing"]
    return wanted * (1 - smoothing) + flipped * smoothing - settings["rpo_alpha"] * means(chosen)


def make_dpo(loss, source="trl", **given):
    """One case. `loss` is a name or pairs of name and weight."""
    settings = dict(
        loss=[[loss, 1.0]] if isinstance(loss, str) else loss, beta=0.1, label_smoothing=0.0, ld_alpha=None,
        divergence="reverse_kl", alpha_coefficient=None, wpo=False, discopop_tau=0.05, rpo_alpha=0.0,
    )
    assert set(given) <= set(settings)
    settings |= given
    policy = [leaves(side) for side in SIDES]
    losses = None
    if source == "formula":
        losses = dpo_formula(policy, settings)
        mean = losses.mean()
    else:
        mean = dpo_batch(policy, EVERYONE, settings)
        if not COUPLED & {name for name, _ in settings["loss"]}:
            alone = [[[rows[i]] for rows in policy] for i in EVERYONE]
            losses = torch.stack([dpo_batch(alone[i], [i], settings) for i in EVERYONE])
            torch.testing.assert_close(losses.mean(), mean)
    mean.backward()
    gradient = {side: gradient_of(rows) for side, rows in zip(SIDES, policy)}
    return dict(settings=settings, source=source, loss=mean, losses=losses, gradient=gradient)


def dpo_cases():
    every = [
        "sigmoid", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
        "apo_zero", "apo_down", "discopop", "sigmoid_norm",
    ]
    smoothing = dict(robust=0.1, exo_pair=0.1)
    cases = [make_dpo(name, beta=beta, label_smoothing=smoothing.get(name, 0.0)) for name in every for beta in [0.1, 0.5]]
    cases += [
        make_dpo("sft"),
        make_dpo("sigmoid", source="formula", label_smoothing=0.1),
        make_dpo("robust", label_smoothing=0.3),
        make_dpo("exo_pair", label_smoothing=0.001),
        make_dpo("aot", label_smoothing=0.1),
        make_dpo("aot_unpaired", label_smoothing=0.1),
        make_dpo("discopop", discopop_tau=0.5),
        *[make_dpo(name, ld_alpha=0.5) for name in ["sigmoid", "ipo", "sigmoid_norm"]],
        make_dpo("sigmoid", divergence="forward_kl"),
        make_dpo("sigmoid", divergence="js_divergence"),
        make_dpo("sigmoid", divergence="alpha_divergence", alpha_coefficient=0.3),
        make_dpo("sigmoid", wpo=True),
        make_dpo([["sigmoid", 0.8], ["bco_pair", 0.2], ["sft", 1.0]]),
        make_dpo("sigmoid", source="formula", rpo_alpha=0.5),
    ]
    plain, smoothed = make_dpo("sigmoid"), make_dpo("sigmoid", label_smoothing=0.1)
    assert plain["loss"] == smoothed["loss"], "TRL's sigmoid now smooths labels: take its numbers"
    return cases


# ---- Methods without a reference ----


def make_paired(settings, loss_of):
    """A device batch is one pair, and the loss the mean over pairs; `batch_loss` is TRL's loss of all pairs in one batch."""
    names = ["prompt", *SIDES]
    rows = {name: leaves(name) for name in names}
    losses = torch.stack([loss_of(*([rows[name][i]] for name in names)) for i in EVERYONE])
    losses.mean().backward()
    gradient = {name: gradient_of(rows[name]) for name in names}
    if not any(row.any() for row in gradient["prompt"]):
        del gradient["prompt"]
    return dict(settings=settings, loss=losses.mean(), losses=losses, batch_loss=loss_of(*rows.values()), gradient=gradient)


def make_cpo(loss_type, gamma=0.0, **settings):
    """Only CPO's `simpo` has a gamma."""
    given = dict(label_smoothing=0.0) | settings
    loss_of = lambda *rows: trl_losses.cpo(
        *rows, loss_type=loss_type, beta=given["beta"], label_smoothing=given["label_smoothing"],
        cpo_alpha=given["alpha"], simpo_gamma=gamma,
    )
    shown = dict(gamma=gamma) if loss_type == "simpo" else dict(loss=loss_type)
    return make_paired(shown | given, loss_of)


# ---- Rows with a label ----


def make_kto(kl, loss="kto", beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    """Rows: the chosen answers, which are desirable, then the rejected ones."""
    settings = dict(loss=loss, beta=beta, desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)
    policy, references = [leaves(side) for side in SIDES], fixed("ref_chosen") + fixed("ref_rejected")
    rows, labels = policy[0] + policy[1], [True] * len(PAIRS) + [False] * len(PAIRS)
    kls = [torch.tensor(values) for values in kl]
    loss_of = lambda at: trl_losses.kto(
        [rows[i] for i in at], [references[i] for i in at], [labels[i] for i in at], *kls, settings
    )
    loss, z0 = loss_of(range(len(rows)))
    losses = torch.stack([loss_of([i])[0] for i in range(len(rows))])
    torch.testing.assert_close(losses.mean(), loss)
    loss.backward()
    gradient = {side: gradient_of(rows) for side, rows in zip(SIDES, policy)}
    return dict(
        settings=settings, kl_policy=kls[0], kl_reference=kls[1], z0=z0, loss=loss, losses=losses, gradient=gradient
    )


def kto_cases():
    generator = torch.Generator().manual_seed(17)
    reference = (-torch.randint(200, 2000, (2 * len(PAIRS),), generator=generator) / 64).tolist()
    change = torch.randint(-80, 240, (2 * len(PAIRS),), generator=generator) / 64
    above = [value + step for value, step in zip(reference, change.tolist())], reference
    below = reference, above[0]
    return [
        make_kto(above), make_kto(above, beta=0.5),
        make_kto(above, desirable_weight=1.33, undesirable_weight=0.75), make_kto(below),
        make_kto(above, loss="apo_zero_unpaired"),
        make_kto(above, loss="apo_zero_unpaired", beta=0.5, desirable_weight=1.33, undesirable_weight=0.75),
    ]


def make_bco(beta):
    """Several steps of one trainer."""
    made, steps = trl_losses.bco_trainer(beta), []
    for which in BCO_STEPS:
        policy = [leaves(side, at) for side, at in zip(SIDES, which)]
        references = [fixed(f"ref_{side}", at) for side, at in zip(SIDES, which)]
        summed = [sums(rows) if rows else torch.zeros(0) for rows in policy + references]
        loss, losses, delta = trl_losses.bco(made, *summed)
        loss.backward()
        gradient = {side: gradient_of(rows) for side, rows in zip(SIDES, policy)}
        steps.append(dict(zip(SIDES, which)) | dict(delta=delta, loss=loss, losses=losses, gradient=gradient))
    return dict(beta=beta, steps=steps)


# ---- Rewards ----


def make_reward(margins, center):
    rewards = torch.tensor(REWARDS, requires_grad=True)
    loss_of = lambda at: trl_losses.reward(rewards[at], torch.tensor(MARGINS)[at] if margins else None, center)
    loss = loss_of(slice(None))
    losses = torch.stack([loss_of(slice(i, i + 1)) for i in range(len(REWARDS))])
    loss.backward()
    return dict(margins=margins, center=center or 0.0, loss=loss, losses=losses, gradient=rewards.grad)


def make_plackett_luce(ranked):
    """Minus the log of the chance of that order: softmax of what is left at each place (arXiv 2305.18290, A.3)."""
    rewards = torch.tensor(ranked, requires_grad=True)
    loss = -sum(F.log_softmax(rewards[place:], dim=0)[0] for place in range(len(ranked)))
    if len(ranked) == 2:
        torch.testing.assert_close(loss, -F.logsigmoid(rewards[0] - rewards[1]))
    loss.backward()
    return dict(rewards=ranked, loss=loss, gradient=rewards.grad)


def make_stepwise(rewards, labels):
    """Cross-entropy of each step's chance of being right."""
    rewards = torch.tensor(rewards, requires_grad=True)
    losses = F.binary_cross_entropy_with_logits(rewards, torch.tensor(labels), reduction="none")
    losses.mean().backward()
    return dict(rewards=rewards, labels=labels, loss=losses.mean(), losses=losses, gradient=rewards.grad)


def make_all():
    orpo = [make_paired(dict(beta=beta), lambda *rows: trl_losses.orpo(*rows, beta)) for beta in [0.1, 0.5]]
    cpo = [make_cpo("sigmoid", beta=beta, alpha=1.0, label_smoothing=smoothing)
           for beta, smoothing in [(0.1, 0.0), (0.1, 0.1), (0.5, 0.0)]]
    cpo += [make_cpo(name, beta=0.1, alpha=1.0) for name in ["hinge", "ipo"]]
    cpo += [make_cpo("sigmoid", beta=0.1, alpha=0.0)]
    simpo = [make_cpo("simpo", beta=2.0, gamma=1.0, alpha=alpha) for alpha in [0.0, 1.0]]
    return dict(
        pairs=PAIRS, dpo=dpo_cases(), orpo=orpo, cpo=cpo, simpo=simpo, kto=kto_cases(),
        reward=dict(
            pairs=REWARDS, margins=MARGINS,
            cases=[make_reward(margins, center) for margins in [False, True] for center in [None, 0.01]],
        ),
        plackett_luce=[make_plackett_luce(ranked) for ranked in RANKED],
        stepwise=[make_stepwise(*step) for step in STEPS],
    )


if __name__ == "__main__":
    content = json.loads(PATH.read_text()) if PATH.exists() else {}
    version = content.pop("versions", {}).get("trl", trl.__version__)
    with trl_losses.f64():
        if sys.argv[1:] == ["bco"]:
            content["bco"] = dict(trl=trl.__version__, cases=[make_bco(beta) for beta in [0.1, 0.5]])
        else:
            content, version = make_all() | {key: content[key] for key in ["bco"] if key in content}, trl.__version__
    write_json(PATH, content, trl=version)
    json.loads(PATH.read_text(), parse_constant=lambda name: sys.exit(f"{name} among the numbers"))
    for case in content.get("dpo", []):
        print(case["settings"]["loss"], case["settings"]["beta"], float(case["loss"]))
