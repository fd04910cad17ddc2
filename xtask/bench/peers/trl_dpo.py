"""TRL's DPOTrainer with PEFT's LoRA: one epoch over pairs of answers.

The reference is the model without its adapter: in every step, or with `--precompute` before the first one,
which is counted.
"""

import tempfile
import time
from pathlib import Path

import trl_trainer

arguments = trl_trainer.parser(__doc__)
arguments.add_argument("--precompute", type=int, metavar="PAIRS", help="reference first, so many at a time")
arguments.add_argument("--sorted", action="store_true", help="batches of pairs that are about as long")
arguments = arguments.parse_args()

import datasets  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from trl import DPOConfig, DPOTrainer  # noqa: E402

import model  # noqa: E402
import rows  # noqa: E402


class Timed(DPOTrainer):
    """Notes how long the reference takes of the rows that are timed, which come as the evaluation set."""

    precompute_seconds = 0.0

    def _precompute_ref_logps(self, dataset, name, batch_size):
        begun = time.perf_counter()
        made = super()._precompute_ref_logps(dataset, name, batch_size)
        if name != "train":
            Timed.precompute_seconds += time.perf_counter() - begun
        return made


def dataset(path: Path) -> datasets.Dataset:
    pairs = rows.pairs(path)
    if arguments.sorted:
        pairs.sort(key=length)
    return datasets.Dataset.from_list(pairs)


def length(pair: dict) -> int:
    return sum(len(message["content"]) for side in pair.values() for message in side)


def main() -> None:
    trl_trainer.quiet(arguments.threads)
    timed_rows = dataset(arguments.rows)
    options = {}
    if arguments.precompute:
        options |= {"precompute_ref_log_probs": True, "precompute_ref_batch_size": arguments.precompute}
    if arguments.sorted:
        # TRL's own grouping by length knows no pairs.
        options |= {"train_sampling_strategy": "sequential"}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Timed(
            model=model.load(arguments.model, arguments.dtype),
            processing_class=AutoTokenizer.from_pretrained(arguments.model),
            train_dataset=dataset(arguments.warm_up),
            eval_dataset=timed_rows,
            peft_config=model.lora(arguments.rank, arguments.alpha),
            args=DPOConfig(**trl_trainer.settings(arguments, folder), **options),
        )
        seconds, result = trl_trainer.time_epoch(trainer, arguments)
    before = Timed.precompute_seconds
    trl_trainer.report(len(timed_rows), seconds + before, result, reference_seconds=before)


main()
