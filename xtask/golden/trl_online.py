"""Runs the loss methods of TRL's online trainers on given log-probs, and pieces of methods that do more than that.

* GRPO: `GRPOTrainer._compute_loss`; `section` takes the lines of `_generate_and_score_completions` that make advantages and
  importance ratios.
* RLOO: `RLOOTrainer._compute_loss`, and the lines that make its advantages.
* PPO (TRL 1.9, the last with a PPO trainer): the lines of `PPOTrainer.train` that make rewards, advantages and the loss.

The lines run as they are, with the names that they read.
"""

import inspect
import math
import textwrap
from types import SimpleNamespace

import torch

import trl_losses
from trl_losses import padded, trainer


def section(function, first, behind):
    """The lines of a function from the one that has `first` up to the one that has `behind`."""
    lines = inspect.getsource(inspect.unwrap(function)).splitlines()
    start = next(i for i, line in enumerate(lines) if first in line)
    end = next(i for i, line in enumerate(lines) if i > start and behind in line)
    return textwrap.dedent("\n".join(lines[start:end]))


def run(code, **names):
    names |= dict(torch=torch, math=math)
    exec(code, names)
    return names


def with_devices(made):
    keep = lambda values, *_, **__: values
    made.accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=keep, reduce=keep, pad_across_processes=keep, num_processes=1,
        sync_gradients=True, process_index=0,
    )
    return made


def inputs(masks):
    """The parts of a batch that only shapes are read of."""
    ids = padded(torch.ones(len(mask), dtype=torch.long) for mask in masks)
    prompt = torch.ones(len(masks), 1, dtype=torch.long)
    return dict(prompt_ids=prompt, prompt_mask=prompt, completion_ids=ids, completion_mask=ids)


def grpo(rows, settings):
    """The loss of a batch. `rows` has lists of tensors by name, one tensor an answer."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    logprobs, entropies = padded(rows["policy"]), padded(rows["entropies"])
    mask = padded(rows["mask"])
    batch = inputs(rows["mask"]) | dict(
        tool_mask=mask,
        advantages=torch.tensor(rows["advantages"]),
        old_per_token_logps=padded(rows["old"]),
        ref_per_token_logps=padded(rows["reference"]),
        num_items_in_batch=mask.sum(),
    )
    if settings["correction"] is not None:
        batch["importance_sampling_ratio"] = stale_ratio(rows, mask, settings)
        batch["sampling_per_token_logps"] = padded(rows["sampled"])
    made = with_devices(trainer(
        GRPOTrainer,
        top_entropy_quantile=settings["top_entropy"],
        off_policy_mask_threshold=settings["off_policy_threshold"],
        importance_sampling_level=settings["level"],
        beta=settings["beta"],
        loss_type=settings["loss"],
        epsilon_low=settings["low"],
        epsilon_high=settings["high"],
        use_vllm=settings["correction"] is not None,
        vllm_importance_sampling_correction=True,
        current_gradient_accumulation_steps=1,
        max_completion_length=settings["max_new_tokens"],
        _entropy_bonus_enabled=settings["entropy_coef"] != 0.0,
        use_adaptive_entropy=False,
        entropy_coef=settings["entropy_coef"],
        args=SimpleNamespace(
            use_bias_correction_kl=settings["kl_ratio"],
            delta=settings["delta"],
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
            steps_per_generation=1,
        ),
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, entropies, None),
    ))
    return made._compute_loss(made.model, batch), made._metrics["train"]


def stale_ratio(rows, mask, settings):
    from trl.trainer.grpo_trainer import GRPOTrainer

    code = section(
        GRPOTrainer._generate_and_score_completions, "per_token_logps_diff = (old_per_token_logps - sampling",
        "# Compute the per-token log probabilities for the reference model",
    )
    made = SimpleNamespace(
        vllm_importance_sampling_mode=settings["correction"],
        vllm_importance_sampling_clip_min=settings["stale_min"],
        vllm_importance_sampling_clip_max=settings["stale_max"],
    )
    names = dict(old_per_token_logps=padded(rows["old"]), sampling_per_token_logps=padded(rows["sampled"]), mask=mask)
    return run(code, self=made, **names)["vllm_importance_sampling_ratio"]


def nan_rewards(rewards):
    return torch.tensor([[math.nan if value is None else value for value in row] for row in rewards])


def grpo_advantages(rewards, weights, group_size, scale, aggregation):
    from trl.trainer.grpo_trainer import GRPOTrainer, nanstd

    code = section(
        GRPOTrainer._generate_and_score_completions, "unscorable_mask = torch.isnan(rewards_per_func)",
        "# Slice to keep only the local part",
    )
    made = SimpleNamespace(
        multi_objective_aggregation=aggregation, reward_weights=torch.tensor(weights), scale_rewards=scale,
        reward_funcs=weights,
    )
    names = run(
        code, self=made, rewards_per_func=nan_rewards(rewards), device="cpu", num_generations=group_size, nanstd=nanstd
    )
    return names["advantages"], names["is_std_zero"].float().mean()


def rloo_advantages(rows, rewards, weights, group_size, beta, normalize):
    from trl.trainer.rloo_trainer import RLOOTrainer, nanstd

    code = section(
        RLOOTrainer._generate_and_score_completions, "unscorable_mask = torch.isnan(rewards_per_func)",
        "# Slice to keep only the local part",
    )
    made = SimpleNamespace(
        reward_weights=torch.tensor(weights), reward_clip_range=None, beta=beta, normalize_advantages=normalize
    )
    names = run(
        code, self=made, rewards_per_func=nan_rewards(rewards), device="cpu", num_generations=group_size, nanstd=nanstd,
        gather=lambda values: values, old_per_token_logps=padded(rows["old"]),
        ref_per_token_logps=padded(rows["reference"]), completion_mask=padded(rows["mask"]),
    )
    return names["advantages"]


def rloo(rows, low, high):
    from trl.trainer.rloo_trainer import RLOOTrainer

    logprobs, entropies, mask = padded(rows["policy"]), padded(rows["entropies"]), padded(rows["mask"])
    batch = inputs(rows["mask"]) | dict(
        completion_mask=mask, advantages=torch.tensor(rows["advantages"]), old_logps=(padded(rows["old"]) * mask).sum(1)
    )
    made = with_devices(trainer(
        RLOOTrainer, epsilon_low=low, epsilon_high=high,
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, entropies, None),
    ))
    return made._compute_loss(made.model, batch), made._metrics["train"]


def ppo_advantages(logprobs, references, values, scores, settings):
    """Advantages and returns of answers of one length: nothing is padded, and the score stands at the last token."""
    from trl.experimental.ppo import ppo_trainer

    code = section(ppo_trainer.PPOTrainer.train, "# 4. compute rewards", "empty_cache()")
    count, length = logprobs.shape
    nothing = torch.zeros(count, length, dtype=torch.bool)
    names = run(
        code, args=SimpleNamespace(**settings), logprobs=logprobs, ref_logprobs=references, values=values, scores=scores,
        responses=logprobs, sequence_lengths_p1=torch.full((count,), length),
        sequence_lengths=torch.full((count,), length - 1), padding_mask=nothing, padding_mask_p1=nothing,
        masked_whiten=ppo_trainer.masked_whiten,
    )
    return names["advantages"], names["returns"]


def ppo_loss(rows, settings):
    """Loss, policy loss, value loss and clipped values of answers."""
    from trl.experimental.ppo import ppo_trainer

    code = section(ppo_trainer.PPOTrainer.train, "vpred = torch.masked_fill(vpred", "accelerator.backward(loss)")
    padding = padded(rows["mask"]) == 0
    names = run(
        code, args=SimpleNamespace(**settings), vpred=padded(rows["values"]), padding_mask=padding,
        padding_mask_p1=padding, micro_batch_inds=slice(None), mb_values=padded(rows["old_values"]),
        mb_return=padded(rows["returns"]), new_logprobs=padded(rows["policy"]), mb_logprobs=padded(rows["old"]),
        mb_advantage=padded(rows["token_advantages"]), masked_mean=ppo_trainer.masked_mean,
    )
    return names["loss"], names["pg_loss"], names["vf_loss"], names["vf_clipfrac"]


f64 = trl_losses.f64
