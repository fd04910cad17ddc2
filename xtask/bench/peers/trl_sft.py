"""TRL's SFTTrainer with PEFT's LoRA: one epoch over instruction rows, loss on answers only.

Its defaults unless an option says otherwise. Timed are the steps of the epoch, from the beginning
of the first to the end of the last; an epoch over other rows has gone before. For these TRL's
evaluation set is borrowed, which it prepares just as it prepares what it trains on.
"""

import logging
import tempfile
import time
from pathlib import Path

import peer

arguments = peer.parser(__doc__)
arguments.add_argument("--rows", type=Path, required=True)
arguments.add_argument("--warm-up", type=Path, required=True, help="rows that are not timed")
arguments.add_argument("--rank", type=int, default=16)
arguments.add_argument("--alpha", type=int, default=32)
arguments.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
arguments.add_argument("--no-autocast", action="store_true", help="bf16 throughout")
arguments.add_argument("--batch", type=int, default=8, help="rows, or packs, computed at a time")
arguments.add_argument("--accumulate", type=int, default=1, help="of these in a step")
arguments.add_argument("--pack", type=int, metavar="TOKENS", help="packs of this length")
arguments.add_argument("--padding-free", action="store_true")
arguments.add_argument("--group-by-length", action="store_true")
arguments.add_argument("--no-checkpointing", action="store_true")
arguments = arguments.parse_args()

import datasets  # noqa: E402
import torch  # noqa: E402
from transformers import AutoTokenizer, TrainerCallback  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

import model  # noqa: E402
import rows  # noqa: E402


class Stopwatch(TrainerCallback):
    """From the first step's beginning to the last one's end."""

    begun = ended = None

    def on_step_begin(self, *_, **__):
        self.begun = self.begun or time.perf_counter()

    def on_step_end(self, *_, **__):
        self.ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


def options() -> dict:
    """What differs from TRL's defaults, apart from what a measurement has to say anyway."""
    made = {}
    if arguments.pack:
        made |= {"packing": True, "max_length": arguments.pack}
    if arguments.padding_free:
        made |= {"padding_free": True, "max_length": None}
    if arguments.group_by_length:
        made |= {"train_sampling_strategy": "group_by_length"}
    if arguments.no_checkpointing:
        made |= {"gradient_checkpointing": False}
    return made


def dataset(path: Path) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows.conversations(path))


def main() -> None:
    torch.set_num_threads(arguments.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    timed_rows = dataset(arguments.rows)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model.load(arguments.model, arguments.dtype),
            processing_class=AutoTokenizer.from_pretrained(arguments.model),
            train_dataset=timed_rows,
            eval_dataset=dataset(arguments.warm_up),
            peft_config=model.lora(arguments.rank, arguments.alpha),
            args=SFTConfig(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=arguments.batch,
                gradient_accumulation_steps=arguments.accumulate,
                learning_rate=2e-4,
                bf16=arguments.dtype == "bf16" and not arguments.no_autocast,
                use_cpu=True,
                dataloader_pin_memory=False,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                **options(),
            ),
        )
        if arguments.no_autocast:
            trainer.model.to(model.DTYPES[arguments.dtype])
        timed = trainer.train_dataset
        trainer.train_dataset = trainer.eval_dataset
        trainer.train()
        trainer.train_dataset = timed
        stopwatch = Stopwatch()
        trainer.add_callback(stopwatch)
        result = trainer.train()
    tokens = sum(len(ids) for ids in timed["input_ids"])
    peer.report(
        ["trl", "transformers", "peft", "torch"],
        rows=len(timed_rows),
        rows_per_s=len(timed_rows) / stopwatch.seconds,
        tokens=tokens,
        tokens_per_s=tokens / stopwatch.seconds,
        seconds=stopwatch.seconds,
        steps=result.global_step,
        loss=result.training_loss,
    )


main()
