"""LoRA matrices made of hashes, the same in Python and in Rust (crates/compute/src/random.rs).

Module m = 7 * layer + the linear's place in LINEARS; matrix j = 0 for lora_A [rank, in], 1 for lora_B [out, rank].
Element i of the matrix, counted row by row, is (uniform(mix(key([m, j]) ^ i)) - 0.5) * 2 * bound, in f32.
"""

import re

import numpy
import torch

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MASK = 2**64 - 1


def mix(z):
    """SplitMix64 of a Python integer or of a uint64 array."""
    if isinstance(z, int):
        z = (z + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)
    word = numpy.uint64
    z = z + word(0x9E3779B97F4A7C15)
    z = (z ^ (z >> word(30))) * word(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> word(27))) * word(0x94D049BB133111EB)
    return z ^ (z >> word(31))


def key(words):
    state = 0x9E3779B97F4A7C15
    for word in words:
        state = mix(state ^ word)
    return state


def hashed(module, matrix, shape, bound):
    """The matrix that the module's docstring defines, f32."""
    index = numpy.arange(int(numpy.prod(shape)), dtype=numpy.uint64)
    hashes = mix(numpy.uint64(key([module, matrix])) ^ index)
    uniform = (hashes >> numpy.uint64(40)).astype(numpy.float32) * numpy.float32(2**-24)
    values = (uniform - numpy.float32(0.5)) * numpy.float32(2) * numpy.float32(bound)
    return torch.from_numpy(values.reshape(shape))


def module_index(name):
    """Module number of a parameter called `...layers.L....LINEAR.lora_A...`."""
    layer = int(re.search(r"layers\.(\d+)\.", name).group(1))
    return 7 * layer + next(i for i, linear in enumerate(LINEARS) if linear in name)


def fill_adapter(model, bound_b):
    """lora_A within 1 / sqrt(in_features), lora_B within `bound_b`."""
    for name, weight in model.named_parameters():
        if "lora_A" in name:
            weight.data.copy_(hashed(module_index(name), 0, tuple(weight.shape), weight.shape[1] ** -0.5))
        elif "lora_B" in name:
            weight.data.copy_(hashed(module_index(name), 1, tuple(weight.shape), bound_b))
