"""Writes crates/compute/tests/golden/gguf_blocks.json: GGUF blocks and the f32 numbers they stand for.

Needs the `gguf` package (0.19) and numpy; run as `python xtask/golden/gguf_blocks.py`.
Blocks are quantized normal numbers where the package can quantize, else random bytes with
scales of a sane size; every type also has blocks of random bytes. Numbers are f32 bit patterns.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize

OUT = Path(__file__).parents[2] / "crates/compute/tests/golden/gguf_blocks.json"

# Byte offsets of the f16 scales within a block of each type.
SCALES = {
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}


def random_blocks(rng, size, scales, count):
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in scales:
        values = rng.uniform(-0.05, 0.05, (count, 1)).astype(np.float16)
        blocks[:, at : at + 2] = values.view(np.uint8)
    return blocks


def blocks_of(rng, kind, name):
    length, size = GGML_QUANT_SIZES[kind]
    blocks = [random_blocks(rng, size, SCALES[name], 2)]
    try:
        values = rng.normal(0, 0.05, (2, length)).astype(np.float32)
        blocks.append(quantize(values, kind))
    except NotImplementedError:
        blocks.append(random_blocks(rng, size, SCALES[name], 1))
    return np.concatenate(blocks)


def main():
    rng = np.random.default_rng(1)
    rows = []
    for name in SCALES:
        kind = GGMLQuantizationType[name]
        blocks = blocks_of(rng, kind, name)
        numbers = dequantize(blocks, kind).astype(np.float32).ravel()
        rows.append({
            "storage": name,
            "bytes": blocks.tobytes().hex(),
            "bits": numbers.view(np.uint32).tolist(),
        })
    for name, kind in [("F16", np.float16), ("F32", np.float32)]:
        values = rng.normal(0, 1, 8).astype(kind)
        bits = values.astype(np.float32).view(np.uint32).tolist()
        rows.append({"storage": name, "bytes": values.tobytes().hex(), "bits": bits})
    values = rng.integers(0, 1 << 15, 8, dtype=np.uint16) & 0x3FFF
    bits = (values.astype(np.uint32) << 16).tolist()
    rows.append({"storage": "Bf16", "bytes": values.tobytes().hex(), "bits": bits})
    golden = {"gguf": version("gguf"), "numpy": np.__version__, "rows": rows}
    OUT.write_text(json.dumps(golden, separators=(",", ":")).replace("},{", "},\n{") + "\n")


main()
