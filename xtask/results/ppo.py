"""PPO of docs/results.md: a reward model of polite answers, and what a second one says of the answers that PPO learned from the first.

Run: python xtask/results/ppo.py TUNESMITH MODEL FOLDER [RUN ...]

TUNESMITH is a release binary, MODEL SmolLM2-135M-Instruct, FOLDER takes data, runs and answers. A run that is there is not made again.
Runs: `ppo` (three seeds, or those named as `ppo-1`), `hacked` (the same without a reference and with five times the rate).

Every second training pair teaches reward model A, the others B, with another seed, and C, for three epochs. The policy begins as the
`sft` adapter of preferences.py and is rewarded by A. The 110 test questions are in none of this; the steps that are kept are chosen on
55 others.
"""

import json
import math
import sys
from pathlib import Path

import style
from house import SEEDS, House, found, interval, rows, shown, write

ANSWER = 48
RATE = 3e-4
STEPS, PROMPTS = 80, 32
# Reward models: half of the pairs, seed, and what else. C was added once B was seen to be a weak judge.
JUDGES = {"a": ("a", 1, ""), "b": ("b", 2, ""), "c": ("b", 3, ", epochs: 3")}


def split(data):
    style.split(data)
    pairs = rows(data / "pairs-train.jsonl")
    write(data / "pairs-a.jsonl", pairs[0::2])
    write(data / "pairs-b.jsonl", pairs[1::2])
    for part in ("train", "validation"):
        prompts = [dict(prompt=row["prompt"], answer=row["completion"]) for row in rows(data / f"sft-{part}.jsonl")]
        write(data / f"prompts-{part}.jsonl", prompts)


def start(house):
    """The adapter that PPO begins with, as in preferences.py, and the reward models with their accuracy on the test pairs."""
    data = "{train: data/sft-train.jsonl, validation: {path: data/sft-validation.jsonl}}"
    house.train("sft", f"model: {house.model}\nmethod: sft\ndata: {data}\ntrain: {{epochs: 2, evaluate_every: 30}}")
    for name, (half, seed, more) in JUDGES.items():
        data = f"{{train: data/pairs-{half}.jsonl, validation: {{path: data/pairs-validation.jsonl}}}}"
        recipe = f"model: {house.model}\nmethod: reward\ndata: {data}\ntrain: {{evaluate_every: 26{more}}}"
        house.train(f"reward-{name}", recipe, f"seed={seed}")
        pairs = scored(house, name, "pairs", "data/pairs-test.jsonl")
        won = [pair["chosen_wins"] for pair in pairs]
        chosen, rejected = zip(*(pair["scores"] for pair in pairs))
        print(f"reward-{name}: accuracy {shown(won)}, chosen {shown(chosen, 1)}, rejected {shown(rejected, 1)}", flush=True)


def scored(house, judge, name, data):
    """What a reward model says of a file, asked once."""
    file = house.folder / f"scores-{name}-{judge}.jsonl"
    if not file.exists():
        house.run("score", f"runs/reward-{judge}", "--data", data, "--output", file.name)
    return rows(file)


def repeated(text):
    """Share of the four-word runs that stand in the text before."""
    words = text.split()
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def perplexity(house, name):
    """Of the answers under the base: validation of a run whose only step has next to no rate."""
    data = f"{{train: data/sft-validation.jsonl, validation: {{path: data/answers-{name}.jsonl}}}}"
    train = "{max_steps: 1, batch_size: 1, learning_rate: 1e-12, evaluate_every: 1}"
    events = house.train(f"perplexity-{name}", f"model: {house.model}\nmethod: sft\ndata: {data}\ntrain: {train}")
    return math.exp(next(event["validation_loss"] for event in events if event["event"] == "evaluated"))


def looks(house, name):
    """Per test question: scores of A, B and C, the style rule, words, repetition, F1. Last, the perplexity of all."""
    known = style.markers(house.folder / "data")
    answers = house.answers(name, "data/sft-test.jsonl", "--max-new-tokens", str(ANSWER))
    write(house.folder / f"data/answers-{name}.jsonl", [dict(prompt=a["prompt"], completion=a["answer"]) for a in answers])
    scores = [[row["scores"][0] for row in scored(house, judge, name, f"data/answers-{name}.jsonl")] for judge in JUDGES]
    return scores + [
        [float(style.is_polite(known, a)) for a in answers],
        [len(a["answer"].split()) for a in answers],
        [repeated(a["answer"]) for a in answers],
        [style.rightness(known, a) for a in answers],
    ], perplexity(house, name)


FACTORS = (("score of A", 1), ("score of B", 1), ("score of C", 1), ("polite, %", 100), ("words", 1), ("repeated, %", 100), ("F1, %", 100))


def table(name, seeds, base):
    """Means over seeds, and the gain over the start by a bootstrap over questions."""
    for k, (label, factor) in enumerate(FACTORS):
        mean = [sum(seed[0][k][i] for seed in seeds) / len(seeds) for i in range(len(base[0][k]))]
        gain = [a - b for a, b in zip(mean, base[0][k])]
        digits = "{:.2f} ({:.2f} to {:.2f})" if factor == 1 else "{:.1f} ({:.1f} to {:.1f})"
        cells = (digits.format(*(factor * x for x in interval(values))) for values in (base[0][k], mean, gain))
        print(f"| {label} | {' | '.join(cells)} |")
    print(f"| perplexity under the base | {base[1]:.1f} | {', '.join(f'{seed[1]:.1f}' for seed in seeds)} | |", f"({name})", flush=True)


def ppo(house, run, seed, rate, objective, steps=STEPS):
    recipe = (
        "model: runs/sft\nmethod: ppo\n"
        "data: {train: data/prompts-train.jsonl, validation: {path: data/prompts-validation.jsonl}}\n"
        f"rollout: {{max_new_tokens: {ANSWER}}}\nrewards: [{{model: runs/reward-a, name: a}}]\n"
        f"objective: {objective}\n"
        f"train: {{max_steps: {steps}, batch_size: {PROMPTS}, learning_rate: {rate}, evaluate_every: 20}}"
    )
    events = house.train(run, recipe, f"seed={seed}")
    made = [event for event in events if event["event"] == "step"]
    # Without a reference there is no divergence.
    keys = [key for key in ("kl", "objective/kl", "reward", "entropy") if key in made[0]["metrics"]]
    last = {key: sum(event["metrics"][key] for event in made[-10:]) / 10 for key in keys}
    first = sum(event["metrics"]["reward"] for event in made[:10]) / 10
    seconds = sum(event["seconds"] for event in made)
    print(run, f"{seconds:.0f} s; reward of the first ten steps {first:.2f}; last ten", {key: round(x, 3) for key, x in last.items()},
          "kept", [event["step"] for event in events if event["event"] == "evaluated" and event.get("best")][-1:],
          "; ".join(found(events)) or "no findings", flush=True)
    return looks(house, run)


def main():
    tunesmith, model, folder, *chosen = sys.argv[1:]
    house = House(tunesmith, model, Path(folder).resolve())
    if not (house.folder / "data").exists():
        split(house.folder / "data")
    start(house)
    base = looks(house, "sft")
    held = "{clip_value: 2, missing_end_penalty: 1}"
    seeds = [seed for seed in SEEDS if not chosen or "ppo" in chosen or f"ppo-{seed}" in chosen]
    if seeds:
        table("ppo", [ppo(house, f"ppo-{seed}", seed, RATE, held) for seed in seeds], base)
    if not chosen or "hacked" in chosen:
        table("hacked", [ppo(house, "hacked", 1, 5 * RATE, "{clip_value: 2, missing_end_penalty: 1, beta: 0}")], base)


if __name__ == "__main__":
    main()
