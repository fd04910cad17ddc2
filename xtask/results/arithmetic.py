"""The arithmetic of docs/results.md: GRPO on additions that the base solves now and then, beside rejection sampling.

Run: python xtask/results/arithmetic.py TUNESMITH MODEL FOLDER [RUN ...]

TUNESMITH is a release binary, MODEL SmolLM2-135M-Instruct, FOLDER takes data, runs and answers. A run that is there is not made again.
Runs: `grpo`, `rloo`, `rejection` (supervised fine-tuning on the right ones of as many sampled answers).

A question adds a number of two digits and one of one or two. The 500 test questions and the 64 of validation have operands that no
training question has. An answer is right if its last number is (a parser that forgives the format); it has the format if it ends
with a line `Answer: N`.
"""

import json
import random
import re
import sys

from house import SEEDS, House, found, shown, write

QUESTION = "Compute {a} + {b}. End with a line `Answer: <number>`."
STEPS, PROMPTS, GROUP = 60, 8, 8
ROLLOUT = f"{{group_size: {GROUP}, max_new_tokens: 48, temperature: 0.5}}"
REWARDS = "[{grader: number}, {grader: regex, options: {pattern: '(?m)^Answer: -?\\d+\\s*\\z'}, weight: 0.2, name: format}]"
DATA = "{train: data/train.jsonl, validation: {path: data/validation.jsonl}}"


def split(folder):
    draw = random.Random(1)
    pairs = [(a, b) for a in range(10, 100) for b in range(1, 100)]
    draw.shuffle(pairs)
    parts = {"test": pairs[:500], "validation": pairs[500:564], "train": pairs[564 : 564 + 2 * STEPS * PROMPTS]}
    for part, pairs in parts.items():
        write(folder / f"{part}.jsonl", [dict(prompt=QUESTION.format(a=a, b=b), answer=str(a + b)) for a, b in pairs])


def expected(house, part="test"):
    return [json.loads(line)["answer"] for line in (house.folder / f"data/{part}.jsonl").read_text().splitlines()]


def is_right(answer, right):
    numbers = re.findall(r"-?\d[\d,]*", answer["answer"])
    return bool(numbers) and numbers[-1].replace(",", "") == right


def has_format(answer):
    return bool(re.search(r"(?m)^Answer: -?\d+\s*\Z", answer["answer"]))


def marks(house, name, model=None):
    """Per test question: whether its greedy answer is right, and has the format."""
    answers = house.answers(name, "data/test.jsonl", "--max-new-tokens", "48", model=model)
    right = [float(is_right(answer, right)) for answer, right in zip(answers, expected(house), strict=True)]
    return right, [float(has_format(answer)) for answer in answers]


def row(name, seeds, base):
    mean = [[sum(seed[k][i] for seed in seeds) / len(seeds) for i in range(500)] for k in range(2)]
    gain = [a - b for a, b in zip(mean[0], base[0])]
    print(f"| {name} | {shown(mean[0])} | {shown(gain)} | {shown(mean[1])} |", flush=True)
    return mean[0]


def computed(events):
    """Tokens that training computed, prompts too: forward and backward."""
    return sum(event["tokens_computed"] for event in events if event["event"] == "step")


def online(house, method, base, rate):
    seeds = []
    for seed in SEEDS:
        run = f"{method}-{seed}"
        recipe = (
            f"model: {house.model}\nmethod: {method}\ndata: {DATA}\nrollout: {ROLLOUT}\nrewards: {REWARDS}\n"
            f"train: {{max_steps: {STEPS}, batch_size: {PROMPTS}, learning_rate: {rate}, evaluate_every: 20}}"
        )
        events = house.train(run, recipe, f"seed={seed}")
        seeds.append(marks(house, run))
        seconds = sum(event["seconds"] for event in events if event["event"] == "step")
        sampled = sum(event["tokens"] for event in events if event["event"] == "rollout")
        tokens = f"{sampled} tokens sampled, {computed(events)} trained on"
        print(run, f"{seconds:.0f} s", tokens, "; ".join(found(events)) or "no findings", flush=True)
    return row(method, seeds, base)


def rejection(house, base):
    """Answers of the base to as many prompts as GRPO takes, as many to each. The right ones are learned for three epochs, but from no
    more answers in all than GRPO learns from. Compute is equal or more than that of GRPO if the tokens that are printed are."""
    seeds = []
    for seed in SEEDS:
        rows = [json.loads(line) for line in (house.folder / "data/train.jsonl").read_text().splitlines()]
        chosen = random.Random(seed).sample(rows, STEPS * PROMPTS)
        prompts = f"data/rejection-{seed}-prompts.jsonl"
        write(house.folder / prompts, chosen)
        kept, sampled = [], 0
        for draw in range(GROUP):
            words = ["--max-new-tokens", "48", "--temperature", "0.5", "--seed", str(100 * seed + draw)]
            answers = house.answers(f"rejection-{seed}-{draw}", prompts, *words, model=house.model)
            sampled += sum(answer["tokens"] for answer in answers)
            kept += [
                dict(prompt=row["prompt"], completion=answer["answer"])
                for row, answer in zip(chosen, answers, strict=True)
                if is_right(answer, row["answer"])
            ]
        write(house.folder / f"data/rejection-{seed}.jsonl", kept)
        epochs = STEPS * PROMPTS * GROUP / len(kept)
        recipe = (
            f"model: {house.model}\nmethod: sft\ndata: {{train: data/rejection-{seed}.jsonl, validation: {{fraction: 0.05}}}}\n"
            f"train: {{epochs: {min(epochs, 3):.3f}, batch_size: 32}}"
        )
        events = house.train(f"rejection-{seed}", recipe, f"seed={seed}")
        seeds.append(marks(house, f"rejection-{seed}"))
        right = f"{len(kept)} right answers of {STEPS * PROMPTS * GROUP}"
        print(f"rejection-{seed}", f"{right}, {sampled} tokens sampled, {computed(events)} trained on", flush=True)
    return row("rejection sampling", seeds, base)


def main():
    tunesmith, model, folder, *chosen = sys.argv[1:]
    house = House(tunesmith, model, folder)
    if not (house.folder / "data").exists():
        split(house.folder / "data")
    base = marks(house, "base", model=model)
    row("base", [base], base)
    if not chosen or "grpo" in chosen:
        online(house, "grpo", base, "1e-4")
    if "rloo" in chosen:
        online(house, "rloo", base, "1e-4")
    if not chosen or "rejection" in chosen:
        learned = rejection(house, base)
        gain = [a - b for a, b in zip(online(house, "grpo", base, "1e-4"), learned)]
        print(f"grpo less rejection sampling: {shown(gain)}")


if __name__ == "__main__":
    main()
