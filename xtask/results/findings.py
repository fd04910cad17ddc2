"""Broken runs of docs/results.md: each is made to raise one finding of those about methods that sample their answers.

Run: python xtask/results/findings.py TUNESMITH MODEL FOLDER [FINDING ...]

TUNESMITH is a release binary, MODEL SmolLM2-135M-Instruct, FOLDER takes data and runs. A run that is there is not made again. It ends at
the finding that it is for (`stop_on`); what it raised before that is printed as well. Two have no run here: the run `hacked` of ppo.py
raises `value-explains-nothing`, and on one device `sampling-mismatch` would be an error of the program.
"""

import sys

import arithmetic
from house import House, found

GRPO = "{group_size: 4, max_new_tokens: 48}"
LONG = "{grader: length, options: {min: 60, margin: 60}, name: long}"
SHORT = "{grader: length, options: {max: 3, margin: 20}, name: short}"
NUMBER = "{grader: number}"

# Finding: method, what is wrong in words, rewards, rollout, objective, rate, steps.
RUNS = {
    "answers-do-not-end": ("grpo", "at most four tokens", f"[{NUMBER}]", "{group_size: 4, max_new_tokens: 4}", "{}", "1e-4", 10),
    "groups-without-variance": ("grpo", "a reward that is always 1", "[{grader: length, options: {min: 0}}]", GRPO, "{}", "1e-4", 10),
    "reward-saturated": ("grpo", "a reward for at most three words", f"[{SHORT}]", GRPO, "{}", "1e-3", 40),
    "kl-runs-away": ("grpo", "rate 1e-2, beta 0.001", f"[{SHORT}]", GRPO, "{beta: 0.001}", "1e-2", 40),
    "entropy-collapses": ("grpo", "rate 1e-3 and temperature 0.5", f"[{SHORT}]",
                          "{group_size: 4, max_new_tokens: 48, temperature: 0.5}", "{}", "1e-3", 60),
    "entropy-explodes": ("grpo", "an entropy bonus of 1", f"[{NUMBER}]", GRPO, "{entropy_coef: 1}", "1e-3", 40),
    "most-ratios-clipped": (
        "ppo", "16 updates a rollout, ratios bounded at 1 % from 1", f"[{SHORT}]", "{group_size: 4, max_new_tokens: 48, updates: 16}",
        "{clip_low: 0.01, clip_high: 0.01}", "3e-4", 32,
    ),
    "one-reward-does-all": (
        "grpo", "rewards for long answers and, with weight 0.3, for short ones", f"[{LONG}, {SHORT[:-1]}, weight: 0.3}}]",
        "{group_size: 4, max_new_tokens: 96}", "{}", "1e-3", 60,
    ),
    "answers-repeat": (
        "ppo", "rate 1e-2, a loss of values of weight 10 without a bound", f"[{SHORT}]", "{group_size: 4, max_new_tokens: 48}",
        "{vf_coef: 10, clip_value: none}", "1e-2", 40,
    ),
    "length-grows-reward-flat": (
        "grpo", "an entropy bonus of 1 beside a reward for at most three words", f"[{SHORT}]", "{group_size: 4, max_new_tokens: 96}",
        "{entropy_coef: 1}", "3e-4", 40,
    ),
}


def main():
    tunesmith, model, folder, *chosen = sys.argv[1:]
    house = House(tunesmith, model, folder)
    if not (house.folder / "data").exists():
        arithmetic.split(house.folder / "data")
    for name, (method, wrong, rewards, rollout, objective, rate, steps) in RUNS.items():
        if chosen and name not in chosen:
            continue
        recipe = (
            f"model: {house.model}\nmethod: {method}\ndata: {{train: data/train.jsonl, validation: {{fraction: 0}}}}\n"
            f"rollout: {rollout}\nrewards: {rewards}\nobjective: {objective}\nstop_on: [{name}]\n"
            f"train: {{max_steps: {steps}, batch_size: 4, learning_rate: {rate}, schedule: constant}}"
        )
        events = house.train(name, recipe)
        seen = found(events)
        print(f"| `{name}` | {wrong} | {'; '.join(seen) or 'none'} |", flush=True)


if __name__ == "__main__":
    main()
