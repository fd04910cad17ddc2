"""Sums as an environment: a wrong answer may be corrected twice, and `calc: 17 + 25` is answered with the result.

The reward of a right answer is 1 in the first turn, 1/2 in the second and 1/3 in the third. Standard library only.
"""

import json
import re
import sys

TURNS = 3
CALL = re.compile(r"calc:\s*(\d{1,9})\s*\+\s*(\d{1,9})")
NUMBER = re.compile(r"-?\d+")

references = {}


def start(event):
    references[event["id"]] = str(event["reference"])
    # What follows depends on the answers alone.
    return {"deterministic": True}


def step(event):
    turn, answer = event["turn"], event["answer"]
    call = CALL.search(answer)
    if call and turn < TURNS:
        return {"observation": {"role": "tool", "content": str(int(call[1]) + int(call[2]))}}
    numbers = NUMBER.findall(answer)
    if numbers and numbers[-1] == references[event["id"]]:
        return {"reward": 1 / turn, "done": True}
    if turn == TURNS:
        return {"done": True}
    return {"observation": "That is wrong. Compute again, and end with the right number."}


for line in sys.stdin:
    event = json.loads(line)
    if event["event"] == "close":
        references.pop(event["id"], None)
        continue
    reply = start(event) if event["event"] == "start" else step(event)
    print(json.dumps({"id": event["id"], **reply}), flush=True)
