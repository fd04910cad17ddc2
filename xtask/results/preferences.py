"""The runs of docs/results.md: methods on one set of preferences, three seeds each, and what their answers are like.

Run: python xtask/results/preferences.py TUNESMITH MODEL FOLDER [RUN ...]

TUNESMITH is a release binary, MODEL SmolLM2-135M-Instruct, FOLDER takes data, runs and answers. A run that is there is not made again.
Without names of runs (`dpo`, `orpo`, `kto`, `reward`, `rate-x50`, `longer`, `hh`) all are made.
"""

import gzip
import json
import random
import sys
from pathlib import Path

import style
from house import SEEDS, House, found, shown

# Same rows, same epochs, same batches for every method, and all else by default.
BUDGET = "train: {evaluate_every: 26}"
METHODS = ("dpo", "orpo", "kto")
HH = Path(__file__).resolve().parents[3] / "shared/data/hh-rlhf/harmless-base-test.jsonl.gz"


def train(house, name, method, data, *keys, model=None, budget=BUDGET):
    recipe = f"model: {model or 'runs/sft'}\nmethod: {method}\ndata: {data}\n{budget}"
    return house.train(name, recipe, *keys)


def answers(house, name):
    return house.answers(name, "data/sft-test.jsonl", "--max-new-tokens", "64")


def looks(house, answers):
    known = style.markers(house.folder / "data")
    polite = [float(style.is_polite(known, answer)) for answer in answers]
    words = [len(answer["answer"].split()) for answer in answers]
    right = [style.rightness(known, answer) for answer in answers]
    return polite, words, right


def pairs(name):
    return f"{{train: data/{name}-train.jsonl, validation: {{path: data/{name}-test.jsonl}}}}"


def preferences(house, name):
    """A method over three seeds, its answers beside those of the adapter that it started from."""
    base = looks(house, answers(house, "sft"))
    seeds = []
    for seed in SEEDS:
        run = f"{name}-{seed}"
        events = train(house, run, name, pairs("pairs"), f"seed={seed}")
        report = next(event for event in reversed(events) if event["event"] == "evaluated")
        seeds.append(looks(house, answers(house, run)))
        print(run, report.get("metrics", {}), "; ".join(found(events)) or "no findings")
    by_prompt = [[sum(seed[k][i] for seed in seeds) / len(seeds) for i in range(len(base[k]))] for k in range(3)]
    print(f"| {name} | {shown(by_prompt[0])} | {shown([a - b for a, b in zip(by_prompt[0], base[0])])} | "
          f"{shown(by_prompt[1], 1)} | {shown(by_prompt[2])} |")


def sft(house):
    data = "{train: data/sft-train.jsonl, validation: {path: data/sft-validation.jsonl}}"
    train(house, "sft", "sft", data, model=house.model, budget="train: {epochs: 2, evaluate_every: 30}")
    polite, words, right = looks(house, answers(house, "sft"))
    print(f"| sft | {shown(polite)} | | {shown(words, 1)} | {shown(right)} |")


def reward(house, name, data):
    for seed in SEEDS:
        events = train(house, f"{name}-{seed}", "reward", data, f"seed={seed}", model=house.model)
        print(f"{name}-{seed}", *found(events))
        print((house.folder / "runs" / f"{name}-{seed}" / "report.md").read_text())


def longer(house):
    """Pairs of which the longer answer is chosen, whatever it says: a model of them is a length meter."""
    for part in ("train", "test"):
        rows = [json.loads(line) for line in (house.folder / f"data/pairs-{part}.jsonl").read_text().splitlines()]
        for row in rows:
            row["chosen"], row["rejected"] = sorted((row["chosen"], row["rejected"]), key=lambda text: -len(text))
        # One pair in eight the other way round, so that the report has something to compare with.
        for row in rows[::8]:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        style.write(house.folder / f"data/longer-{part}.jsonl", rows)


def main():
    tunesmith, model, folder, *chosen = sys.argv[1:]
    house = House(tunesmith, model, Path(folder).resolve())
    if not (house.folder / "data").exists():
        style.split(house.folder / "data")

    def wanted(name):
        return not chosen or name in chosen

    sft(house)
    for name in METHODS:
        if wanted(name):
            preferences(house, name)
    if wanted("reward"):
        reward(house, "reward", pairs("pairs"))
    if wanted("rate-x50"):
        events = train(house, "rate-x50", "dpo", pairs("pairs"), "train.learning_rate=1.3e-2")
        print("rate-x50", *found(events))
    if wanted("longer"):
        longer(house)
        reward(house, "longer", pairs("longer"))
    if wanted("hh"):
        lines = gzip.decompress(HH.read_bytes()).decode().splitlines()
        # Rows with an empty answer are an error to `train`.
        lines = [line for line in lines if all(text.strip()[-10:] != "Assistant:" for text in json.loads(line).values())]
        for part, rows in (("train", lines[:400]), ("test", lines[400:700])):
            (house.folder / f"data/hh-{part}.jsonl").write_text("\n".join(rows) + "\n")
        reward(house, "hh", pairs("hh"))


main()
