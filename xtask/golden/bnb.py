"""Checkpoints as transformers and bitsandbytes save them, over the tiny Llama `gqa`, and LoRA on top of each.

Run: python xtask/golden/bnb.py [CASE ...]   (after tiny_llama.py; needs bitsandbytes; CPU)
Makes crates/model/tests/golden/bnb/CASE/: config.json with `quantization_config`, model.safetensors with packed weights,
gradients.safetensors (of lora_loss) and golden.json; and bnb/adapter/ (PEFT, non-zero lora_B), the same for every case.

The numbers are those of a plain f32 Llama that holds the dequantised weights. For the 4-bit cases the saved folder, loaded
again with `Linear4bit` and the same adapter, is shown to give them too: in f32, with the package's portable routine for
dequantising (its AVX-512 one takes wrong scales where rows are not whole blocks, as in `down_proj` here, and its inference
path rounds scales to bf16). For int8 they are weight-only; `llm_int8_logprobs` are the package's, which rounds activations to
8 bits as well.
"""

import os

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import shutil
import sys

import bitsandbytes
import torch
from bitsandbytes import functional
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from adapters import LENGTH, describe, draw_tokens, gradients_by_file_name
from store import REPOSITORY, TINY_LLAMA, next_token_logprobs, save_adapter, save_tensors, write_json
from tiny_llama import LINEARS, fill_adapter

FOLDER = REPOSITORY / "crates/model/tests/golden/bnb"


def four_bits(kind, double):
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.float32,
    )


# Configuration, and the storage of everything that is not quantised.
CASES = {
    "nf4": (four_bits("nf4", True), torch.bfloat16),
    "nf4_plain": (four_bits("nf4", False), torch.float32),
    "fp4": (four_bits("fp4", True), torch.bfloat16),
    "int8": (BitsAndBytesConfig(load_in_8bit=True), torch.bfloat16),
}


def dequantize_portably():
    """Makes every 4-bit product of the package on this CPU use its portable routine."""

    def dequantize(packed, absmax, blocksize, quant_type, shape, dtype):
        code = functional.get_4bit_type(quant_type, device="cpu")
        return _dequantize_4bit_compute(packed.reshape(-1), absmax, code, blocksize, shape, dtype)

    library = torch.library.Library("bitsandbytes", "IMPL")
    library.impl("dequantize_4bit", dequantize, "CPU", allow_override=True)
    return library


def load(folder, dtype, **more):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager", **more)


def linears(model):
    """Quantised modules by their name in the checkpoint."""
    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def dequantized(module):
    """The f32 matrix that a quantised module stands for."""
    weight = module.weight
    if isinstance(module, bitsandbytes.nn.Linear8bitLt):
        scale = module.state.SCB if weight.SCB is None else weight.SCB
        return functional.int8_vectorwise_dequant(weight.data, scale)
    state = weight.quant_state
    absmax = state.absmax
    if state.nested:
        absmax = functional.dequantize_blockwise(absmax, state.state2) + state.offset
    return _dequantize_4bit_compute(
        weight.data.flatten(), absmax, state.code, state.blocksize, state.shape, torch.float32
    )


def plain_model(weights):
    model = load(TINY_LLAMA / "gqa", torch.float32).eval()
    for name, weight in weights.items():
        model.get_submodule(name).weight.data.copy_(weight)
    return model


def make(case, tokens):
    config, dtype = CASES[case]
    folder = FOLDER / case
    shutil.rmtree(folder, ignore_errors=True)
    load(TINY_LLAMA / "gqa", dtype, quantization_config=config, device_map="cpu").save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)

    stored = load(folder, torch.float32, device_map="cpu")
    for weight in stored.parameters():
        # A quantised folder keeps its own storage, whatever `dtype` asks for.
        weight.data = weight.data.float() if weight.is_floating_point() else weight.data
    weights = {name: dequantized(module) for name, module in linears(stored).items()}
    assert len(weights) == 2 * len(LINEARS), weights.keys()
    exact = load(TINY_LLAMA / "gqa", torch.float32)
    errors = {name: relative_error(weight, exact.get_submodule(name).weight) for name, weight in weights.items()}

    with torch.no_grad():
        golden = dict(base="tiny_llama/gqa", quantization_errors=errors)
        golden |= {key: value for key, value in describe(plain_model(weights), tokens).items() if key != "logits"}
        rounded = plain_model({name: weight.bfloat16().float() for name, weight in weights.items()})
        golden["bf16_weights_logprobs"] = next_token_logprobs(rounded, tokens)
        golden["unquantized_logprobs"] = next_token_logprobs(exact.eval(), tokens)

    keys = LoraConfig(r=4, lora_alpha=8, target_modules=LINEARS, task_type="CAUSAL_LM")
    model = get_peft_model(plain_model(weights), keys).eval()
    fill_adapter(model, seed=700)
    save_adapter(model, FOLDER / "adapter")
    lora = describe(model, tokens)
    gradients = gradients_by_file_name(model)
    save_tensors(gradients, folder / "gradients.safetensors")
    golden |= dict(lora_loss=lora["loss"], lora_logprobs=lora["logprobs"], lora_logits=lora["logits"])
    if case == "int8":
        with torch.no_grad():
            golden["llm_int8_logprobs"] = next_token_logprobs(stored.eval(), tokens)
    else:
        check_package(stored, golden, gradients)
    write_json(folder / "golden.json", golden, bitsandbytes=bitsandbytes.__version__)
    print(case, f"loss {golden['loss']:.4f} lora_loss {golden['lora_loss']:.4f}", f"error {max(errors.values()):.3f}")


def relative_error(values, exact):
    return (torch.linalg.norm(values - exact) / torch.linalg.norm(exact)).item()


def check_package(stored, golden, gradients):
    """`Linear4bit` over the saved folder gives the plain model's numbers, with the adapter and without."""
    for module in linears(stored).values():
        module.support_avx512bf16_for_cpu = False
        # A file written in bf16 would round the weights of the backward pass, and only those.
        module.weight.quant_state.dtype = torch.float32
    with torch.no_grad():
        logprobs = next_token_logprobs(stored.eval(), golden["tokens"])
    assert torch.allclose(logprobs, golden["logprobs"], atol=2e-5), (logprobs - golden["logprobs"]).abs().max()
    model = PeftModel.from_pretrained(stored, FOLDER / "adapter", is_trainable=True).eval()
    again = describe(model, golden["tokens"])
    assert torch.allclose(again["logprobs"], golden["lora_logprobs"], atol=2e-5)
    for name, gradient in gradients_by_file_name(model).items():
        assert relative_error(gradient, gradients[name]) < 1e-5, name


if __name__ == "__main__":
    override = dequantize_portably()
    tokens = draw_tokens(seed=12)
    assert len(tokens) == LENGTH
    for case in sys.argv[1:] or CASES:
        make(case, tokens)
