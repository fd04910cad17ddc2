"""NF4, FP4 and int8 as bitsandbytes stores them: codes, scales, and the numbers they stand for.

Run: python xtask/golden/nf4.py   (needs bitsandbytes; CPU)
Makes crates/compute/tests/golden/nf4.json. Numbers that must be exact are hex strings of little-endian bytes.

Two inputs exist for the edges: `thresholds` is one block of scale 1 that holds every NF4 threshold, its two f32
neighbours and every code's own value; `zeros` has an all-zero block between two others.

Values come from the package's portable routine. Its AVX-512 routine (0.50.2) takes wrong scales where blocks cross rows,
so that a matrix of 96 columns comes back wrong by tens of per cent; `check_formula` proves which one is right.
"""

import os

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import bitsandbytes
import torch
from bitsandbytes import functional
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

from store import REPOSITORY, write_json

NF4 = functional.get_4bit_type("nf4", device="cpu")
# Name: shape, size of the numbers from the first row to the last, storage of the input.
INPUTS = {
    "one_block_a_row": ([5, 64], (0.02, 2.0), torch.float32),
    "blocks_cross_rows": ([16, 96], (0.05, 0.05), torch.float32),
    "short_last_block": ([40, 130], (1e-3, 10.0), torch.float32),
    "bf16": ([24, 80], (0.02, 0.2), torch.bfloat16),
    "odd_count": ([3, 43], (1.0, 1.0), torch.float32),
}
# Input, type, double quantisation.
CASES = [(name, "nf4", True) for name in [*INPUTS, "zeros", "many_blocks"]]
CASES += [(name, "nf4", False) for name in ["one_block_a_row", "short_last_block", "bf16", "thresholds", "zeros"]]
CASES += [(name, "fp4", True) for name in ["blocks_cross_rows", "bf16"]]
CASES += [("one_block_a_row", "fp4", False), ("zeros", "fp4", False)]


def draw_inputs():
    generator = torch.Generator().manual_seed(4)
    inputs = {}
    for name, (shape, (first, last), dtype) in INPUTS.items():
        sizes = torch.logspace(torch.tensor(first).log10(), torch.tensor(last).log10(), shape[0]).unsqueeze(1)
        inputs[name] = (sizes * torch.randn(shape, generator=generator)).to(dtype)
    inputs["thresholds"] = thresholds()
    zeros = torch.randn([3, 64], generator=generator)
    zeros[1] = 0.0
    inputs["zeros"] = zeros
    # More than 256 scales, so that the scales themselves fill more than one block.
    inputs["many_blocks"] = (0.1 * torch.rand([300, 1], generator=generator) + 0.01) * torch.sign(
        torch.randn([300, 64], generator=generator)
    )
    inputs["many_blocks"] = inputs["many_blocks"].bfloat16()
    return inputs


def thresholds():
    middle = (NF4[:-1] + NF4[1:]) / 2
    below, above = (torch.nextafter(middle, torch.tensor(end)) for end in (-2.0, 2.0))
    values = torch.cat([middle, below, above, NF4, torch.tensor([-0.0, 1e-40, -1e-40])])
    assert values.numel() == 64
    return values.reshape(1, 64)


def hexed(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().tobytes().hex()


def nearest(values, code, block=256):
    """Codes by the exact rule that GPUs follow; the CPU kernel first rounds its input to a grid of about 3e-5."""
    parts = [part / part.abs().max() for part in values.split(block)]
    return torch.bucketize(torch.cat(parts), (code[:-1] + code[1:]) / 2).to(torch.uint8)


def quantize(inputs, name, kind, double):
    x = inputs[name]
    packed, state = functional.quantize_4bit(x, blocksize=64, compress_statistics=double, quant_type=kind)
    case = dict(
        input=name, quant_type=kind, double_quant=double, blocksize=64, count=x.numel(), packed=hexed(packed)
    )
    if double:
        scales = functional.quantize_4bit(x, blocksize=64, compress_statistics=False, quant_type=kind)[1].absmax
        assert torch.equal(nearest(scales - state.offset, state.state2.code), state.absmax), name
        restored = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
        case |= dict(
            absmax_codes=hexed(state.absmax), nested_blocksize=state.state2.blocksize,
            nested_absmax=hexed(state.state2.absmax), nested_offset=hexed(state.offset.reshape(1)),
            unquantized_absmax=hexed(scales),
        )
        case |= dict(absmax=hexed(restored))
    else:
        restored = state.absmax
        case |= dict(absmax=hexed(state.absmax))
    if name == "many_blocks":
        # The scales are the subject here.
        del case["packed"]
        return case
    values = dequantize(packed, restored, state, torch.float32)
    check_formula(packed, restored, state.code, values)
    case |= dict(dequantized_f32=hexed(values))
    if x.dtype == torch.bfloat16:
        half = dequantize(packed, restored, state, torch.bfloat16)
        assert torch.equal(half, values.bfloat16())
        case |= dict(dequantized_bf16=hexed(half))
    return case


def dequantize(packed, absmax, state, dtype):
    return _dequantize_4bit_compute(packed.flatten(), absmax, state.code, state.blocksize, state.shape, dtype)


def check_formula(packed, absmax, code, values):
    """A value is its code's level times its block's scale, one f32 product; the high nibble comes first."""
    nibbles = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).flatten()[: values.numel()]
    scales = absmax.repeat_interleave(64)[: values.numel()]
    assert torch.equal(code[nibbles.long()] * scales, values.flatten())


def int8_case(generator):
    """Rows by their absmax, from f16 as `Int8Params` casts them; row 3 is zero, row 4 holds halves."""
    x = torch.randn([6, 40], generator=generator) * torch.logspace(-2, 1, 6).unsqueeze(1)
    x[3] = 0.0
    x[4] = (torch.arange(40) - 20) / 2
    x[4, 0] = 127.0
    codes, absmax, _ = functional.int8_vectorwise_quant(x.half())
    exact = x.half().float() * (127.0 / absmax.unsqueeze(1))
    assert torch.equal(codes, torch.nan_to_num(exact.round()).to(torch.int8))
    values = functional.int8_vectorwise_dequant(codes, absmax)
    return dict(
        shape=[6, 40], input_f32=hexed(x), input_f16=hexed(x.half()), CB=hexed(codes), SCB=hexed(absmax),
        dequantized_f32=hexed(values),
    )


if __name__ == "__main__":
    inputs = draw_inputs()
    cases = [quantize(inputs, *case) for case in CASES]
    listed = {
        name: dict(shape=list(x.shape), dtype=str(x.dtype).removeprefix("torch."), values=hexed(x))
        for name, x in inputs.items()
    }
    maps = dict(
        nf4=hexed(NF4), fp4=hexed(functional.get_4bit_type("fp4", device="cpu")),
        nested=hexed(functional.create_dynamic_map()),
    )
    golden = dict(maps=maps, inputs=listed, cases=cases, int8=int8_case(torch.Generator().manual_seed(5)))
    path = REPOSITORY / "crates/compute/tests/golden/nf4.json"
    write_json(path, golden, bitsandbytes=bitsandbytes.__version__)
    print(len(cases), "cases,", path.stat().st_size, "bytes")
