"""What the scripts over TRL's trainers share: arguments, quiet, and an epoch that is timed.

TRL's defaults unless an option says otherwise. Timed are the steps of an epoch, from the beginning of the
first to the end of the last; an epoch over other rows has gone before. These come in as the training set,
and the timed ones as the evaluation set, which TRL prepares just the same way.
"""

import argparse
import logging
import time
from pathlib import Path

import peer


def parser(description: str) -> argparse.ArgumentParser:
    made = peer.parser(description)
    made.add_argument("--rows", type=Path, required=True)
    made.add_argument("--warm-up", type=Path, required=True, help="rows that are not timed")
    made.add_argument("--rank", type=int, default=16)
    made.add_argument("--alpha", type=int, default=32)
    made.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
    made.add_argument("--no-autocast", action="store_true", help="bf16 throughout")
    made.add_argument("--batch", type=int, default=8, help="rows, or packs, computed at a time")
    made.add_argument("--accumulate", type=int, default=1, help="of these in a step")
    made.add_argument("--group-by-length", action="store_true")
    made.add_argument("--no-checkpointing", action="store_true")
    return made


def settings(arguments: argparse.Namespace, folder: str) -> dict:
    """What a measurement has to say, and what differs from TRL's defaults."""
    made = {
        "output_dir": folder,
        "num_train_epochs": 1,
        "per_device_train_batch_size": arguments.batch,
        "gradient_accumulation_steps": arguments.accumulate,
        "learning_rate": 2e-4,
        "bf16": arguments.dtype == "bf16" and not arguments.no_autocast,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    if arguments.group_by_length:
        made |= {"train_sampling_strategy": "group_by_length"}
    if arguments.no_checkpointing:
        made |= {"gradient_checkpointing": False}
    return made


def quiet(threads: int) -> None:
    import datasets
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()


def time_epoch(trainer, arguments: argparse.Namespace):
    """Trains over the rows that warm up, then over the others: seconds, and TRL's result."""
    from transformers import TrainerCallback

    import model

    class Stopwatch(TrainerCallback):
        """From the first step's beginning to the last one's end."""

        begun = ended = None

        def on_step_begin(self, *_, **__):
            self.begun = self.begun or time.perf_counter()

        def on_step_end(self, *_, **__):
            self.ended = time.perf_counter()

    if arguments.no_autocast:
        trainer.model.to(model.DTYPES[arguments.dtype])
    trainer.train()
    trainer.train_dataset = trainer.eval_dataset
    stopwatch = Stopwatch()
    trainer.add_callback(stopwatch)
    result = trainer.train()
    return stopwatch.ended - stopwatch.begun, result


def report(rows: int, seconds: float, result, **more) -> None:
    peer.report(
        ["trl", "transformers", "peft", "torch"],
        rows=rows,
        rows_per_s=rows / seconds,
        seconds=seconds,
        steps=result.global_step,
        loss=result.training_loss,
        **more,
    )
