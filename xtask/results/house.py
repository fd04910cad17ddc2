"""What the scripts of docs/results.md share: a folder of runs that are not made again, and intervals."""

import json
import random
import subprocess
import sys
from pathlib import Path

SEEDS = (1, 2, 3)


class House:
    """A release binary, a model, and the folder that takes data, runs and answers."""

    def __init__(self, tunesmith, model, folder):
        self.tunesmith, self.model, self.folder = Path(tunesmith).resolve(), model, Path(folder).resolve()

    def run(self, *words):
        made = subprocess.run([self.tunesmith, *words, "--offline"], cwd=self.folder, capture_output=True, text=True)
        if made.returncode:
            sys.exit(made.stderr)
        return made.stdout

    def train(self, name, recipe, *keys):
        """Trains unless that was done to the end; the run's events."""
        run = self.folder / "runs" / name
        report = run / "report.md"
        if not report.exists() or "| interrupted |" in report.read_text():
            path = self.folder / f"{name}.yaml"
            path.write_text(f"{recipe}\noutput: runs/{name}\n")
            self.run("train", path.name, "--overwrite", *keys)
        return rows(run / "events.jsonl")

    def answers(self, name, prompts, *words, model=None):
        """Answers to a file of prompts, made once."""
        file = self.folder / f"answers-{name}.jsonl"
        if not file.exists():
            file.write_text(self.run("generate", model or f"runs/{name}", "--prompts", prompts, *words))
        return rows(file)


def rows(path):
    """Rows of a file. Answers may hold other line breaks of Unicode than the one that ends a row."""
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def found(events):
    """Findings of the run itself: those of its data have rows, and no step."""
    return [f"{event['id']} ({event['step']})" for event in events if event["event"] == "finding" and event.get("step")]


def interval(values, rounds=10_000):
    """Mean, and a 95 % bootstrap interval over prompts."""
    draw = random.Random(1)
    means = sorted(sum(draw.choices(values, k=len(values))) / len(values) for _ in range(rounds))
    return sum(values) / len(values), means[round(0.025 * rounds)], means[round(0.975 * rounds)]


def shown(values, factor=100):
    return "{:.1f} ({:.1f} to {:.1f})".format(*(factor * x for x in interval(values)))
