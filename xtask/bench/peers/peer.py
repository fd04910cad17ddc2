"""What every peer of `cargo xtask bench-peers` needs: arguments, gauges, and the line that is read.

A peer is a process of its own. It warms up untimed, does the timed work once, and prints one JSON
object as its last line, with the names that Tunesmith gives the same figures.
"""

import argparse
import json
import os
import resource
import time
from importlib import metadata
from pathlib import Path

# Models come from folders only; a tokenizer's threads would fight with those that compute.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

BEGUN = time.perf_counter()


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that all peers take."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--model", required=True, help="a Hugging Face folder or a GGUF file")
    made.add_argument("--threads", type=int, default=os.cpu_count())
    return made


def peak_bytes() -> int:
    """The most memory that this process has held at a time, pages of mapped files included."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        (peak,) = (line for line in lines if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    except (OSError, ValueError):
        # Bytes on macOS, which has no /proc; kibibytes elsewhere.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def report(packages: list[str], **figures) -> None:
    """Prints what was measured, and with which versions."""
    versions = {name: metadata.version(name) for name in packages}
    print(json.dumps({**figures, "peak_host_bytes": peak_bytes(), "versions": versions}))
