"""Polite answers: the data of the preference runs in docs/results.md, and how often answers are polite.

Run: python xtask/results/style.py split FOLDER              (train, validation and test files of rasbt-instruct's preferences)
     python xtask/results/style.py share FOLDER ANSWERS ...  (share of polite answers in files that `tunesmith generate` wrote)

A word is a marker where training pairs have it in at least ten more chosen than rejected answers, and in three times as many. An
answer is polite where it has a marker that its question has not. Markers come from training pairs alone. Beside it stand the mean number
of words, and as a look at sanity the F1 of an answer's words with those of the right answer, markers left out.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "shared/data/rasbt-instruct/instruction-data-with-preference.json"
# As the book that the data belong to splits them.
PARTS = dict(train=slice(0, 935), test=slice(935, 1045), validation=slice(1045, 1100))


def words(text):
    return set(re.findall(r"[a-z']+", text.lower()))


def prompt(row):
    return row["instruction"] + ("\n" + row["input"] if row["input"] else "")


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def split(folder):
    folder.mkdir(parents=True, exist_ok=True)
    rows = json.loads(DATA.read_text())
    for part, of in PARTS.items():
        own = rows[of]
        write(folder / f"sft-{part}.jsonl", [dict(prompt=prompt(r), completion=r["output"]) for r in own])
        pairs = [dict(prompt=prompt(r), chosen=r["chosen"], rejected=r["rejected"]) for r in own]
        write(folder / f"pairs-{part}.jsonl", [pair for pair in pairs if pair["chosen"] != pair["rejected"]])
    print("markers:", ", ".join(sorted(markers(folder))))


def markers(folder):
    chosen, rejected = Counter(), Counter()
    for line in (folder / "pairs-train.jsonl").read_text().splitlines():
        pair = json.loads(line)
        chosen.update(words(pair["chosen"]))
        rejected.update(words(pair["rejected"]))
    return {word for word, n in chosen.items() if n - rejected[word] >= 10 and n >= 3 * rejected[word]}


def share(folder, files):
    known = markers(folder)
    for file in files:
        answers = [json.loads(line) for line in Path(file).read_text().splitlines()]
        polite = [is_polite(known, a) for a in answers]
        length = sum(len(a["answer"].split()) for a in answers) / len(answers)
        right = sum(rightness(known, a) for a in answers) / len(answers)
        print(
            f"{file}: {sum(polite)} of {len(polite)} polite ({sum(polite) / len(polite):.3f}), "
            f"{length:.1f} words on average, F1 with the right answer {right:.3f}"
        )


def is_polite(known, answer):
    return bool(known & (words(answer["answer"]) - words(answer["prompt"])))


def rightness(known, answer):
    ours, right = words(answer["answer"]) - known, words(answer["reference"]) - known
    both = len(ours & right)
    return 2 * both / (len(ours) + len(right)) if both else 0.0


if __name__ == "__main__":
    command, folder, *files = sys.argv[1:]
    split(Path(folder)) if command == "split" else share(Path(folder), files)
