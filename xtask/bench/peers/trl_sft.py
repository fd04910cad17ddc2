"""TRL's SFTTrainer with PEFT's LoRA: one epoch over instruction rows, loss on answers only."""

import tempfile
from pathlib import Path

import trl_trainer

arguments = trl_trainer.parser(__doc__)
arguments.add_argument("--pack", type=int, metavar="TOKENS", help="packs of this length")
arguments.add_argument("--padding-free", action="store_true")
arguments = arguments.parse_args()

import datasets  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

import model  # noqa: E402
import rows  # noqa: E402


def options() -> dict:
    made = {}
    if arguments.pack:
        made |= {"packing": True, "max_length": arguments.pack}
    if arguments.padding_free:
        made |= {"padding_free": True, "max_length": None}
    return made


def dataset(path: Path) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows.conversations(path))


def main() -> None:
    trl_trainer.quiet(arguments.threads)
    timed_rows = dataset(arguments.rows)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model.load(arguments.model, arguments.dtype),
            processing_class=AutoTokenizer.from_pretrained(arguments.model),
            train_dataset=dataset(arguments.warm_up),
            eval_dataset=timed_rows,
            peft_config=model.lora(arguments.rank, arguments.alpha),
            args=SFTConfig(**trl_trainer.settings(arguments, folder), **options()),
        )
        tokens = sum(len(ids) for ids in trainer.eval_dataset["input_ids"])
        seconds, result = trl_trainer.time_epoch(trainer, arguments)
    trl_trainer.report(len(timed_rows), seconds, result, tokens=tokens, tokens_per_s=tokens / seconds)


main()
