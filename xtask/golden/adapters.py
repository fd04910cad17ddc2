"""Adapters beyond plain LoRA, as PEFT 0.21 trains and saves them, over the tiny models `gqa` and `tied`.

Run: python xtask/golden/adapters.py [CASE ...]   (after tiny_llama.py)

Over `tied` head and embedding are one matrix, and PEFT ties or parts them; over a resized vocabulary it saves both
without being asked.
Makes crates/model/tests/golden/adapters/CASE/: PEFT's files with values that are far from their start, golden.json,
gradients.safetensors (of the loss, by the names in adapter_model.safetensors); and adapters/loraplus.json.

`stack` holds `first/`, `second/` and their concatenation `cat/`; the gradients are the second's.
`pissa` also holds initial_product.safetensors, and `pissa_converted` is the same adapter as plain LoRA (no gradients).
"""

import shutil
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.optimizers import create_loraplus_optimizer
from transformers import AutoModelForCausalLM

from store import REPOSITORY, TINY_LLAMA, next_token_logprobs, save_adapter, save_tensors, tidy_adapter, write_json
from tiny_llama import LINEARS, fill_adapter, read_positions

FOLDER = REPOSITORY / "crates/model/tests/golden/adapters"
LENGTH, CONTEXT = 24, 4
# Keys overlap: the first that matches in the file's order counts.
PATTERNS = dict(
    target_modules=LINEARS,
    rank_pattern={r".*\.mlp\.(gate|up)_proj": 3, "layers.1.self_attn.q_proj": 6, "q_proj": 2},
    alpha_pattern={
        "^model.layers.0.mlp.up_proj": 5, r"layers\.\d+\.self_attn\.[kv]_proj": 16, r"self_attn\.(q|v)_proj": 2,
    },
)
CASES = {
    "dora": dict(target_modules=LINEARS, use_dora=True),
    "dora_rs": dict(target_modules=["q_proj", "v_proj"], use_dora=True, use_rslora=True),
    "patterns": PATTERNS,
    "rslora": dict(target_modules=["k_proj", "down_proj"], use_rslora=True),
    "modules_to_save": dict(target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head", "embed_tokens"]),
    "norms": dict(target_modules=["q_proj", "v_proj"], modules_to_save=["norm"]),
    "tokens": dict(target_modules=["q_proj", "v_proj"], trainable_token_indices={"embed_tokens": [3, 7, 90]}),
    "tokens_tied": dict(target_modules=["q_proj", "v_proj"], trainable_token_indices={"embed_tokens": [3, 7, 90]}),
    "tokens_tied_both": dict(
        target_modules=["q_proj", "v_proj"], trainable_token_indices={"embed_tokens": [3, 7, 90], "lm_head": [3, 7, 90]},
    ),
    "embedding_tied": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "embedding_untied": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "head_untied": dict(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "both_untied": dict(target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"]),
    "resized": dict(target_modules=["q_proj"]),
    "resized_tied": dict(target_modules=["q_proj"]),
    "resized_embedding_tied": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "resized_embedding_untied": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "resized_tokens": dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [3, 7, 130]}),
    "resized_tokens_tied": dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [3, 7, 130]}),
    "shrunk_tied": dict(target_modules=["q_proj"]),
}
# Rows of the vocabulary, where they are not the base's 128.
ROWS = {case: 100 if "shrunk" in case else 131 for case in CASES if "resized" in case or "shrunk" in case}


def base_name(case):
    """Of the tiny model that a case stands on."""
    return "tied" if "tied" in case else "gqa"


def load_base(case, seed=0):
    """With random rows where the vocabulary is larger, as by default."""
    model = AutoModelForCausalLM.from_pretrained(
        TINY_LLAMA / base_name(case), dtype=torch.float32, attn_implementation="eager",
    )
    if case in ROWS:
        torch.manual_seed(seed)
        model.resize_token_embeddings(ROWS[case], mean_resizing=False)
    return model


def lora(**keys):
    return LoraConfig(**dict(r=4, lora_alpha=8, task_type="CAUSAL_LM") | keys)


def draw_tokens(seed):
    """A sequence with the trained tokens 3, 7 and 90 in it, as input and as target."""
    tokens = torch.randint(3, 128, (LENGTH,), generator=torch.Generator().manual_seed(seed)).tolist()
    tokens[2], tokens[6], tokens[9], tokens[15] = 7, 3, 90, 7
    return tokens


def perturb(model, seed):
    """Normal values for LoRA; everything else that trains moves away from its start."""
    fill_adapter(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        uniform = 2 * torch.rand(weight.shape, generator=generator) - 1
        if "magnitude" in name:
            weight.data.mul_(1 + 0.1 * uniform)
        elif "lora_" not in name:
            weight.data.add_(0.3 * weight.data.std() * uniform)


def describe(model, tokens):
    """Log-probs, their weighted mean loss and three rows of logits; gradients stay in the model."""
    weights = [0.0] * CONTEXT + [1.0] * (len(tokens) - 1 - CONTEXT)
    model.zero_grad()
    logits = model(torch.tensor([tokens])).logits[0]
    logprobs = next_token_logprobs(model, tokens)
    loss = -(torch.tensor(weights) * logprobs).sum() / sum(weights)
    if loss.requires_grad:
        loss.backward()
    positions = read_positions(tokens)
    return dict(
        tokens=tokens, weights=weights, loss=loss.item(), logprobs=logprobs, positions=positions, logits=logits[positions]
    )


def gradients_by_file_name(model, adapter="default"):
    """PEFT's own renaming, applied to the gradients of everything that trains."""
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())
    renamed = get_peft_model_state_dict(model, {**model.state_dict(), **gradients}, adapter_name=adapter)
    values = {id(gradient) for gradient in gradients.values()}
    # A resized vocabulary stands there twice.
    renamed = {
        name: tensor for name, tensor in sorted(renamed.items()) if id(tensor) in values and "modules_to_save" not in name
    }
    assert len(renamed) == len(gradients), (set(renamed), set(gradients))
    return renamed


def write_case(folder, model, golden, adapter="default"):
    save_tensors(gradients_by_file_name(model, adapter), folder / "gradients.safetensors")
    write_json(folder / "golden.json", golden)
    print(folder.name, f"loss {golden['loss']:.4f}")


def start(case):
    folder = FOLDER / case
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def make(case, seed, tokens):
    """Any adapter that one configuration describes."""
    folder, base = start(case), load_base(case)
    if case in ROWS:
        # The last token of the vocabulary, as input and as target.
        tokens = [token % ROWS[case] for token in tokens[:-3]] + [ROWS[case] - 1, 5, ROWS[case] - 1]
    with torch.no_grad():
        base_logprobs = next_token_logprobs(base.eval(), tokens)
    model = get_peft_model(base, lora(**CASES[case])).eval()
    perturb(model, seed)
    save_adapter(model, folder)
    golden = dict(base="tiny_llama/" + base_name(case), base_logprobs=base_logprobs)
    golden |= describe(model, tokens)
    check_reload(folder, golden)
    write_case(folder, model, golden)


def check_reload(folder, golden):
    """What was saved says the same when PEFT loads it again."""
    model = PeftModel.from_pretrained(load_base(folder.name, seed=1), folder).eval()
    with torch.no_grad():
        again = next_token_logprobs(model, golden["tokens"])
    assert torch.allclose(again, golden["logprobs"], atol=1e-5), (folder.name, again - golden["logprobs"])


def make_pissa(seed, tokens):
    """W keeps its residual W - scaling B0 A0; A and B then move. Converted: [B, B0] [A; -A0] over the whole W."""
    folder, converted, base = start("pissa"), start("pissa_converted"), load_base("pissa")
    with torch.no_grad():
        base_logprobs = next_token_logprobs(base.eval(), tokens)
    model = get_peft_model(base, lora(target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights="pissa")).eval()
    with torch.no_grad():
        initial_logprobs = next_token_logprobs(model, tokens)
    assert torch.allclose(initial_logprobs, base_logprobs, atol=1e-5)

    products = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "layers.0" in name:
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            products[name.removeprefix("base_model.model.") + ".weight"] = module.scaling["default"] * b @ a
    save_tensors(products, folder / "initial_product.safetensors")

    with tempfile.TemporaryDirectory() as initial:
        model.save_pretrained(initial)
        generator = torch.Generator().manual_seed(seed)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data.add_(0.1 * torch.randn(weight.shape, generator=generator))
        save_adapter(model, folder)
        golden = dict(base="tiny_llama/gqa", base_logprobs=base_logprobs, initial_logprobs=initial_logprobs)
        golden |= describe(model, tokens)
        check_reload(folder, golden)
        write_case(folder, model, golden)
        model.save_pretrained(converted, path_initial_model_for_weight_conversion=initial)
    tidy_adapter(converted)
    check_reload(converted, golden)
    write_json(converted / "golden.json", golden)


def make_stack(seed, tokens):
    """Two adapters at once, the first frozen; then both as one adapter of the ranks' sum."""
    folder = start("stack")
    # PEFT zeroes the unused rows of `cat` by a product with random numbers: their signs of zero follow the seed.
    torch.manual_seed(seed)
    model = get_peft_model(load_base("stack"), lora(target_modules=["q_proj", "v_proj", "up_proj"]), "first")
    model.add_adapter("second", lora(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"]))
    model.base_model.set_adapter(["first", "second"])
    fill_adapter(model.eval(), seed)
    for name, weight in model.named_parameters():
        weight.requires_grad_(".second." in name)
    golden = dict(base="tiny_llama/gqa") | describe(model, tokens)
    write_case(folder, model, golden, "second")

    model.add_weighted_adapter(["first", "second"], [1.0, 1.0], "cat", combination_type="cat")
    model.set_adapter("cat")
    with torch.no_grad():
        assert torch.allclose(next_token_logprobs(model, tokens), golden["logprobs"], atol=1e-5)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    for name in ["first", "second", "cat"]:
        tidy_adapter(folder / name)
    loaded = PeftModel.from_pretrained(load_base("stack"), folder / "cat").eval()
    with torch.no_grad():
        assert torch.allclose(next_token_logprobs(loaded, tokens), golden["logprobs"], atol=1e-5)


class Pair(torch.nn.Module):
    """DoRA on an embedding and a linear, and two whole modules: every group of LoRA+."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(5, 4)
        self.linear = torch.nn.Linear(4, 3)
        self.norm = torch.nn.LayerNorm(3)
        self.head = torch.nn.Linear(3, 5, bias=False)

    def forward(self, tokens):
        return self.head(self.norm(self.linear(self.embed(tokens))))


def make_loraplus(seed, lr=1e-2, ratio=16.0, steps=4):
    """AdamW under PEFT's grouping: which rate each tensor gets, and four steps over given gradients."""
    torch.manual_seed(seed)
    keys = dict(target_modules=["linear", "embed"], modules_to_save=["norm", "head"], use_dora=True)
    model = get_peft_model(Pair(), LoraConfig(r=2, lora_alpha=4, **keys))
    generator = torch.Generator().manual_seed(seed)
    fill_adapter(model, seed)
    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=lr, loraplus_lr_ratio=ratio)
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    assert all(group["weight_decay"] == 0.0 for group in optimizer.param_groups)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    rows = {
        name: dict(
            name=name, shape=list(weight.shape), lr=rates[id(weight)], initial=weight.detach().clone().flatten(),
            gradients=[], after=[],
        )
        for name, weight in trained.items()
    }
    for _ in range(steps):
        for name, weight in trained.items():
            weight.grad = torch.randn(weight.shape, generator=generator)
            rows[name]["gradients"].append(weight.grad.flatten().tolist())
        optimizer.step()
        for name, weight in trained.items():
            rows[name]["after"].append(weight.detach().flatten().tolist())
    golden = dict(optimizer="AdamW", lr=lr, loraplus_lr_ratio=ratio, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0)
    write_json(FOLDER / "loraplus.json", golden | dict(steps=steps, tensors=list(rows.values())))
    print("loraplus", {name: row["lr"] for name, row in rows.items()})


if __name__ == "__main__":
    tokens = draw_tokens(seed=11)
    wanted = sys.argv[1:] or [*CASES, "pissa", "stack", "loraplus"]
    for seed, case in enumerate(CASES):
        if case in wanted:
            make(case, 900 + 10 * seed, tokens)
    if "pissa" in wanted:
        make_pissa(880, tokens)
    if "stack" in wanted:
        make_stack(890, tokens)
    if "loraplus" in wanted:
        make_loraplus(870)
