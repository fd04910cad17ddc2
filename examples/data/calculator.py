"""A calculator as an environment: `calc: 17 + 25` is answered with the result, anything else ends the episode.

The reward is 1 where the last number of the final answer is the row's reference. Standard library only.
"""

import json
import re
import sys

CALL = re.compile(r"calc:\s*(-?\d{1,9})\s*([-+*])\s*(-?\d{1,9})")
NUMBER = re.compile(r"-?\d+")

references = {}


def say(answer):
    print(json.dumps(answer), flush=True)


def start(event):
    references[event["id"]] = event["reference"]
    # Nothing here depends on anything but the answers.
    say({"id": event["id"], "deterministic": True})


def step(event):
    call = CALL.search(event["answer"])
    if call:
        left, sign, right = int(call[1]), call[2], int(call[3])
        result = {"+": left + right, "-": left - right, "*": left * right}[sign]
        say({"id": event["id"], "observation": f"{result}", "done": False})
        return
    numbers = NUMBER.findall(event["answer"])
    right = bool(numbers) and numbers[-1] == str(references[event["id"]])
    say({"id": event["id"], "reward": float(right), "done": True})


for line in sys.stdin:
    event = json.loads(line)
    if event["event"] == "start":
        start(event)
    elif event["event"] == "step":
        step(event)
    else:
        references.pop(event["id"], None)
