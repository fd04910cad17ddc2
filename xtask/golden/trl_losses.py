"""Runs the loss methods of TRL's trainers on given log-probs: trainers made without `__init__`, models that are stubs.

* DPO: `DPOTrainer._compute_loss`; the stub hands out log-probs as TRL's fused head does.
* KTO: `KTOTrainer._compute_loss`, with `_compute_kl_logps`; the same.
* ORPO and CPO (with SimPO): `ORPOTrainer.get_batch_loss_metrics`, `CPOTrainer.get_batch_loss_metrics`, which call
  `concatenated_forward`, `get_batch_logps`, `odds_ratio_loss` and `cpo_loss`. They read logits: the vocabulary has two
  tokens with the logits log(1 - p) and log p, so that the log-softmax of the second, and its derivative, are those of log p.
* BCO (TRL 1.9): `BCOTrainer.get_batch_loss_metrics` with `bco_loss` and `RunningMoments`.
* Reward: `RewardTrainer.compute_loss`.

TRL casts to f32 in places (`odds_ratio_loss`, `RunningMoments.update`), EXO's constants have the default type, and the
alpha-divergence looks its type up in a table without f64: inside `f64()` all of it runs in f64.
"""

import contextlib
import os
from collections import defaultdict
from types import SimpleNamespace
from unittest import mock

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from torch.nn.utils.rnn import pad_sequence
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_trainer import RewardTrainer

PAD, TOKEN, MISMATCHED = 0, 1, 2


@contextlib.contextmanager
def f64():
    """Everything in f64: literals, what TRL would cast to f32, and what it calls `torch.float32`."""
    torch.set_default_dtype(torch.float64)
    keep = lambda tensor: tensor if tensor.is_floating_point() else tensor.double()
    with mock.patch.object(torch.Tensor, "float", keep), mock.patch.object(torch, "float32", torch.float64):
        yield
    torch.set_default_dtype(torch.float32)


def trainer(of, **attributes):
    """A trainer on one device of which only the given attributes exist."""
    keep = lambda values: values
    made = object.__new__(of)
    made.accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=keep, gather_for_metrics=keep, use_distributed=False
    )
    made.model = torch.nn.Identity()
    made.model.is_gradient_checkpointing = False
    made.aux_loss_enabled = made.is_encoder_decoder = made.precompute_ref_logps = False
    made._metrics, made._total_train_tokens, made._tp_size = defaultdict(lambda: defaultdict(list)), 0, 1
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def padded(rows, value=0.0):
    return pad_sequence(list(rows), batch_first=True, padding_value=value)


def one_token_prompts(rows):
    """Inputs of a prompt of one token before each row: every log-prob of a row is of a completion token."""
    lengths = [1 + len(row) for row in rows]
    ids = padded(torch.full((length,), TOKEN) for length in lengths)
    attention = padded(torch.ones(length, dtype=torch.long) for length in lengths)
    completion = attention.clone()
    completion[:, 0] = 0
    return dict(input_ids=ids, attention_mask=attention, completion_mask=completion)


def fused(rows, square_sums=None, mismatched=None):
    """A model with TRL's fused head, which says the rows; for mismatched pairs it says their sums as one token."""

    def outputs(input_ids, **_):
        values = mismatched[:, None] if input_ids[0, 0] == MISMATCHED else padded(rows)
        zeros = torch.zeros_like(values)
        sums = None if square_sums is None else padded(square_sums)
        return SimpleNamespace(
            log_probs=values, log_sum_sq_probs=sums, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
        )

    return outputs


def dpo(chosen, rejected, ref_chosen, ref_rejected, sq_chosen, sq_rejected, settings):
    """The loss of a device batch; every argument but the last is a list of tensors, one a pair."""
    made = trainer(
        DPOTrainer,
        beta=settings["beta"],
        label_smoothing=settings["label_smoothing"],
        loss_types=[name for name, _ in settings["loss"]],
        loss_weights=[weight for _, weight in settings["loss"]],
        ld_alpha=settings["ld_alpha"],
        f_divergence_type=settings["divergence"],
        f_alpha_divergence_coef=settings["alpha_coefficient"],
        use_weighting=settings["wpo"],
        ref_model=fused(ref_chosen + ref_rejected),
        args=SimpleNamespace(discopop_tau=settings["discopop_tau"], gradient_checkpointing_kwargs=None),
    )
    rows = chosen + rejected
    return made._compute_loss(fused(rows, sq_chosen + sq_rejected), one_token_prompts(rows), False)


def kto(rows, references, labels, kl_policy, kl_reference, settings):
    """The loss of a device batch of rows, and z0."""
    made = trainer(
        KTOTrainer,
        beta=settings["beta"],
        desirable_weight=settings["desirable_weight"],
        undesirable_weight=settings["undesirable_weight"],
        loss_type=settings["loss"],
        calculate_KL=settings["loss"] == "kto",
        ref_model=fused(references, mismatched=kl_reference),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
    )
    pairs = torch.full((len(kl_policy), 2), MISMATCHED)
    inputs = one_token_prompts(rows) | dict(
        label=torch.tensor(labels),
        KL_input_ids=pairs,
        KL_attention_mask=torch.ones_like(pairs),
        KL_completion_mask=torch.tensor([[0, 1]] * len(kl_policy)),
    )
    loss = made._compute_loss(fused(rows, mismatched=kl_policy), inputs, False)
    return loss, made._metrics["train"]["kl"][-1]


def two_token_logits(logprobs):
    """Logits of tokens 0 and TOKEN whose second log-softmax is the given log-prob; the last row predicts nothing."""
    logits = torch.stack([torch.log(-torch.expm1(logprobs)), logprobs], dim=-1)
    return torch.cat([logits, torch.zeros(1, 2)])


def without_reference(of, prompts, chosen, rejected, **attributes):
    """The loss of a device batch under ORPO or CPO. A token that nothing predicts stands before each prompt."""
    batch, logits = {}, []
    for side, answers in [("chosen", chosen), ("rejected", rejected)]:
        rows = [torch.cat([prompt, answer]) for prompt, answer in zip(prompts, answers)]
        ids = [torch.full((1 + len(row),), TOKEN) for row in rows]
        labels = [row.masked_fill(torch.arange(len(row)) <= len(prompt), -100) for row, prompt in zip(ids, prompts)]
        batch[f"{side}_input_ids"] = padded(ids, PAD)
        batch[f"{side}_attention_mask"] = padded(torch.ones_like(row) for row in ids)
        batch[f"{side}_labels"] = padded(labels, -100)
        logits += [two_token_logits(row) for row in rows]
    made = trainer(of, padding_value=PAD, pad_token_id=PAD, **attributes)
    return made.get_batch_loss_metrics(lambda *_, **__: SimpleNamespace(logits=padded(logits)), batch)[0]


def orpo(prompts, chosen, rejected, beta):
    return without_reference(ORPOTrainer, prompts, chosen, rejected, beta=beta)


def cpo(prompts, chosen, rejected, **settings):
    """Settings: `loss_type`, `beta`, `label_smoothing`, `cpo_alpha` (of the NLL), `simpo_gamma`."""
    return without_reference(CPOTrainer, prompts, chosen, rejected, alpha=0.0, **settings)


def bco_trainer(beta):
    """Keeps the running mean from call to call."""
    from trl.experimental.bco.bco_trainer import BCOTrainer, RunningMoments

    made = trainer(BCOTrainer, beta=beta, embedding_func=None, embedding_tokenizer=None)
    made.running = RunningMoments(made.accelerator)
    return made


def bco(made, chosen, rejected, ref_chosen, ref_rejected):
    """Summed log-probs [rows] of each kind; the loss, the losses (chosen first) and the running mean after the update."""
    seen, loss_method = [], made.bco_loss
    made.bco_loss = lambda *given, **named: seen.append(loss_method(*given, **named)) or seen[-1]
    nothing = torch.zeros(1)
    made.forward = lambda *_: (chosen, rejected, nothing, nothing)
    labels = [True] * len(chosen) + [False] * len(rejected)
    batch = dict(label=labels, reference_logps=torch.cat([ref_chosen, ref_rejected]))
    loss, _ = made.get_batch_loss_metrics(None, batch)
    made.bco_loss = loss_method
    return loss, seen[0][0], made.running.mean


def reward(rewards, margins, center):
    """The loss of a device batch of pairs [pairs, 2]; margins [pairs] or None, center a number or None."""
    made = trainer(RewardTrainer, args=SimpleNamespace(center_rewards_coefficient=center))
    inputs = dict(attention_mask=torch.ones(rewards.numel(), 1))
    if margins is not None:
        inputs["margin"] = margins
    return made.compute_loss(lambda **_: SimpleNamespace(logits=rewards.T.reshape(-1, 1)), inputs)
