"""Instruction rows, as TRL takes them and as token ids."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Row:
    """A prompt and its answer, templated and tokenised together."""

    ids: list[int]
    # Where the answer begins: what stands before it is not learned.
    learned_from: int


def conversations(path: Path) -> list[dict]:
    """Rows of an Alpaca file as prompt and completion, each a list of messages."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [
        {
            "prompt": [{"role": "user", "content": prompt_of(row)}],
            "completion": [{"role": "assistant", "content": row["output"]}],
        }
        for row in rows
    ]


def pairs(path: Path) -> list[dict]:
    """Rows with a chosen and a rejected answer, each a list of messages."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [
        {
            "prompt": [{"role": "user", "content": prompt_of(row)}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in rows
    ]


def prompt_of(row: dict) -> str:
    return "\n\n".join(part for part in (row["instruction"], row.get("input")) if part)


def tokenized(path: Path, tokenizer) -> list[Row]:
    """The same rows as token ids, shortest first."""

    def ids(messages: list[dict], **options) -> list[int]:
        return tokenizer.apply_chat_template(messages, return_dict=True, **options)["input_ids"]

    rows = []
    for row in conversations(path):
        prompt = ids(row["prompt"], add_generation_prompt=True)
        rows.append(Row(ids(row["prompt"] + row["completion"]), len(prompt)))
    return sorted(rows, key=lambda row: len(row.ids))
