"""Writes many natural training rows for benchmarks of preparation.

    python xtask/bench/make_rows.py --data DATA_FOLDER --output rows.jsonl --rows 100000
    python xtask/bench/make_rows.py --data DATA_FOLDER --output rows.jsonl --bytes 5e9

The first rows are those of GSM8K, OLMo's basic skills and LLaMA-Factory's alpaca demo as
they are; the others put sentences of two of them together, so that no text is made up, lengths
are as people write them, and no two rows are equal. The same seed gives the same file.
"""

import argparse
import gzip
import json
import random
import re
from pathlib import Path


def gsm8k(folder: Path):
    for line in (folder / "gsm8k/train.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        yield row["question"], row["answer"]


def basic_skills(folder: Path):
    for path in sorted((folder / "olmo-basic-skills").glob("basic_skills_*.jsonl.gz")):
        for line in gzip.open(path, "rt", encoding="utf-8"):
            row = json.loads(line)
            yield row["question"].removesuffix("\nAnswer:"), row["choices"][row["gold"]]


def alpaca(folder: Path):
    rows = json.loads((folder / "llamafactory-demo/alpaca_en_demo.json").read_text(encoding="utf-8"))
    for row in rows:
        prompt = "\n\n".join(filter(None, [row["instruction"], row["input"]]))
        yield prompt, row["output"]


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\s+", text) if part]


def recombined(pairs: list[tuple[str, str]], draw: random.Random, number: int):
    """A prompt with some sentences of another row's before it, and the answer with more after it."""
    (prompt, answer), (other_prompt, other_answer) = draw.choice(pairs), draw.choice(pairs)
    before, after = sentences(other_prompt), sentences(other_answer)
    before = before[: draw.randint(1, len(before))]
    after = after[: draw.randint(0, len(after))]
    return " ".join(before) + f"\n\n{number}. {prompt}", " ".join([answer, *after])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the three data sets")
    parser.add_argument("--output", type=Path, required=True)
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--rows", type=lambda text: int(float(text)))
    size.add_argument("--bytes", type=lambda text: int(float(text)))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    pairs = [pair for read in (gsm8k, basic_skills, alpaca) for pair in read(arguments.data)]
    draw = random.Random(arguments.seed)
    order = draw.sample(pairs, len(pairs))
    rows = written = 0
    with arguments.output.open("w", encoding="utf-8", newline="\n") as output:
        while (arguments.rows and rows < arguments.rows) or (
            arguments.bytes and written < arguments.bytes
        ):
            pair = order[rows] if rows < len(order) else recombined(pairs, draw, rows)
            line = json.dumps({"prompt": pair[0], "completion": pair[1]}, ensure_ascii=False) + "\n"
            output.write(line)
            rows += 1
            written += len(line.encode())
    print(json.dumps({"rows": rows, "bytes": written, "of_sources": min(rows, len(order))}))


if __name__ == "__main__":
    main()
