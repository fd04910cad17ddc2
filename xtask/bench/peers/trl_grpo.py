"""TRL's GRPOTrainer with PEFT's LoRA: groups of answers of a forced length, steps timed whole.

Sampling, rewards, reference, forward, backward and update all count. The first step warms up. The reward is the length in
characters, so that it costs nothing; every answer has exactly `--completion` tokens.
"""

import tempfile
import time
from pathlib import Path

import trl_trainer

arguments = trl_trainer.parser(__doc__)
arguments.add_argument("--prompts", type=int, default=2)
arguments.add_argument("--group", type=int, default=8)
arguments.add_argument("--completion", type=int, default=64, help="tokens of every answer")
arguments.add_argument("--steps", type=int, default=3, help="steps that are timed")
arguments.add_argument("--beta", type=float, default=0.0)
arguments = arguments.parse_args()

import datasets  # noqa: E402
from transformers import AutoTokenizer, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

import model  # noqa: E402
import peer  # noqa: E402
import rows  # noqa: E402


class Stopwatch(TrainerCallback):
    """When each step ended: sampling comes before the step that TRL tells of."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())


def reward(completions, **_):
    return [float(len(completion[0]["content"])) for completion in completions]


def main() -> None:
    trl_trainer.quiet(arguments.threads)
    prompts = [{"prompt": pair["prompt"]} for pair in rows.pairs(arguments.rows)]
    watch = Stopwatch()
    answers = arguments.prompts * arguments.group
    with tempfile.TemporaryDirectory() as folder:
        options = trl_trainer.settings(arguments, folder) | {
            "per_device_train_batch_size": arguments.batch,
            "gradient_accumulation_steps": answers // arguments.batch,
            "num_generations": arguments.group,
            "max_completion_length": arguments.completion,
            "generation_kwargs": {"min_new_tokens": arguments.completion},
            "max_steps": arguments.steps + 1,
            "beta": arguments.beta,
            "learning_rate": 1e-5,
            "logging_steps": 1,
        }
        trainer = GRPOTrainer(
            model=model.load(arguments.model, arguments.dtype),
            processing_class=AutoTokenizer.from_pretrained(arguments.model),
            reward_funcs=reward,
            train_dataset=datasets.Dataset.from_list(prompts[: 64 * arguments.prompts]),
            peft_config=model.lora(arguments.rank, arguments.alpha),
            callbacks=[watch],
            args=GRPOConfig(**options),
        )
        trainer.train()
    seconds = (watch.ends[-1] - watch.ends[0]) / arguments.steps
    lengths = [entry["completions/mean_length"] for entry in trainer.state.log_history if "completions/mean_length" in entry]
    packages = ["torch", "transformers", "trl", "peft"]
    figures = {"step_seconds": seconds, "answers": answers, "tokens": answers * arguments.completion}
    peer.report(packages, **figures, mean_length=sum(lengths) / len(lengths))


main()
