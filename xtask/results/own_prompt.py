"""A long prompt distilled into the model: docs/results.md, "A prompt that the model no longer needs".

Run: python xtask/results/own_prompt.py TUNESMITH MODEL FOLDER

TUNESMITH is a release binary, MODEL SmolLM2-135M-Instruct, FOLDER takes data, runs and answers. A run that is there is not made again.

The sums of arithmetic.py, without their answers. The teacher is the model itself behind PROMPT: what to write, and six examples. The student sees the
question alone. For comparison `sft` learns from the teacher's answers to the same questions, written by `tunesmith distill`.
"""

import sys

from arithmetic import marks, row, split
from house import SEEDS, House

PROMPT = """You are a careful calculator. You are given one addition of two whole numbers. You answer in exactly two lines and say nothing else.
The first line repeats the addition and its result. The second line is `Answer: ` and the result, and nothing behind it.

Here are examples of how you answer.
""" + "".join(
    f"\nQuestion: Compute {a} + {b}. End with a line `Answer: <number>`.\n{a} + {b} = {a + b}\nAnswer: {a + b}\n"
    for a, b in [(23, 45), (61, 7), (58, 36), (17, 80), (92, 9), (35, 28)]
)
BATCH, ROUNDS = 16, 30
DATA = "{train: data/train.jsonl, validation: {path: data/validation.jsonl}}"
TEACHER = "distill: {system_file: prompt.txt}"


def distilled(house, seed):
    house.train(
        f"own-{seed}",
        f"model: {house.model}\nmethod: distill\ndata: {DATA}\n{TEACHER}\nrollout: {{max_new_tokens: 32}}\n"
        f"train: {{max_steps: {ROUNDS}, batch_size: {BATCH}, learning_rate: 5e-4}}\nseed: {seed}",
    )
    return marks(house, f"own-{seed}")


def imitated(house, seed):
    rows = house.folder / f"data/taught-{seed}.jsonl"
    if not rows.exists():
        recipe = house.folder / f"taught-{seed}.yaml"
        recipe.write_text(
            f"model: {house.model}\nmethod: sft\ndata: {{train: data/train.jsonl}}\nseed: {seed}\n"
            f"distill: {{system_file: prompt.txt, temperature: 1, max_new_tokens: 32, output: data/taught-{seed}.jsonl}}\n"
        )
        house.run("distill", recipe.name)
    house.train(
        f"sft-{seed}",
        f"model: {house.model}\nmethod: sft\ndata: {{train: data/taught-{seed}.jsonl, validation: {{fraction: 0.1}}}}\n"
        f"train: {{max_steps: {ROUNDS}, batch_size: {BATCH}}}\nseed: {seed}",
    )
    return marks(house, f"sft-{seed}")


def prompt_tokens(house, name):
    answers = house.answers(name, "data/test.jsonl")
    return sum(answer["prompt_tokens"] for answer in answers) / len(answers)


def main():
    house = House(*sys.argv[1:4])
    split(house.folder / "data")
    (house.folder / "prompt.txt").write_text(PROMPT)
    base = marks(house, "base", model=house.model)
    house.answers("prompted", "data/test.jsonl", "--max-new-tokens", "48", "--system", PROMPT, model=house.model)
    prompted = marks(house, "prompted", model=house.model)
    print("| | right, % | more than base | has the format, % |\n|---|---|---|---|")
    row("base", [base], base)
    row("base behind the prompt", [prompted], base)
    row("distill", [distilled(house, seed) for seed in SEEDS], base)
    row("sft on the teacher's answers", [imitated(house, seed) for seed in SEEDS], base)
    print("prompt tokens:", *(f"{name} {prompt_tokens(house, name):.0f}" for name in ("base", "prompted", "own-1")))


if __name__ == "__main__":
    main()
