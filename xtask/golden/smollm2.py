"""SmolLM2-135M-Instruct: log-probs, a greedy continuation, LoRA gradients and a loss curve, in f32 and bf16 autocast.

Run: python xtask/golden/smollm2.py MODEL_FOLDER [logprobs] [gradients] [curve]
Reads the model's folder (bf16, from the hub) and, for the curve, shared/data/rasbt-instruct (beside the repository).
Makes crates/model/tests/golden/smollm2.json, smollm2_gradients.json, smollm2_gradients.safetensors and
smollm2_curve.json. Adapters are those of hashed.py, so nothing but token ids has to be stored to repeat them.
"""

import contextlib
import json
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from hashed import LINEARS, fill_adapter, hashed
from store import REPOSITORY, next_token_logprobs, save_tensors, write_json

GOLDEN = REPOSITORY / "crates/model/tests/golden"
ROWS = REPOSITORY.parent / "shared/data/rasbt-instruct/instruction-data.json"

CONVERSATION = [
    {"role": "user", "content": "My order #48213 arrived with a cracked lid. I paid 39,90 € and want a replacement, "
     "not a refund. Can you sort the message into a ticket as JSON?"},
    {"role": "assistant", "content": '{"category": "damaged_item", "order_id": "48213", "priority": "normal",\n'
     ' "wanted": "replacement", "amount": 39.9}'},
    {"role": "user", "content": "Thanks! Now explain in two sentences why the sky is blue, and end with one line of "
     "Python that prints 2 ** 10."},
    {"role": "assistant", "content": "Air scatters short waves of sunlight far more than long ones, so blue light "
     "reaches us from every direction. Near sunset the path is longer and most of the blue is gone.\n\n"
     "```python\nprint(2 ** 10)  # 1024\n```"},
]
PROMPT = [{"role": "user", "content": "What is the capital of France, and what is it known for?"}]

RANK, ALPHA, BOUND_B = 8, 16, 0.02
STORED_LAYERS = [0, 14, 29]
ADAMW = dict(lr=5e-4, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0)
MAX_GRAD_NORM, STEPS, BATCH = 1.0, 20, 4


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def load_lora(folder, bound_b):
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LINEARS, task_type="CAUSAL_LM")
    model = get_peft_model(load(folder), config)
    fill_adapter(model, bound_b)
    return model.eval()


def precision(name):
    """`f32`, or `autocast`: bf16 linears and matmuls over f32 weights."""
    return torch.autocast("cpu", torch.bfloat16) if name == "autocast" else contextlib.nullcontext()


def encode(tokenizer, messages, generation_prompt=False):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
    return tokenizer(text, add_special_tokens=False).input_ids


def make_logprobs(folder):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load(folder)
    tokens = encode(tokenizer, CONVERSATION)
    logprobs = {}
    for name in ["f32", "autocast"]:
        with torch.no_grad(), precision(name):
            logprobs[name] = next_token_logprobs(model, tokens)
    prompt = encode(tokenizer, PROMPT, generation_prompt=True)
    continuation, margins = greedy(model, prompt, 40)
    write_json(GOLDEN / "smollm2.json", dict(
        model="SmolLM2-135M-Instruct", tokens=tokens,
        logprobs=logprobs["f32"], autocast_logprobs=logprobs["autocast"],
        prompt=prompt, greedy=continuation, greedy_margins=margins, greedy_text=tokenizer.decode(continuation),
    ))
    print(len(tokens), "tokens; mean log-prob", logprobs["f32"].mean().item(), tokenizer.decode(continuation))


def greedy(model, tokens, count):
    """The likeliest tokens one by one (no end of sequence, no cache), and how far each leads the second in logits."""
    tokens, margins = list(tokens), []
    with torch.no_grad():
        for _ in range(count):
            values, ids = model(torch.tensor([tokens])).logits[0, -1].topk(2)
            tokens.append(ids[0].item())
            margins.append((values[0] - values[1]).item())
    return tokens[-count:], margins


def make_gradients(folder):
    """Gradients of the mean negative log-prob of every next token of the conversation."""
    tokens = encode(AutoTokenizer.from_pretrained(folder), CONVERSATION)
    model = load_lora(folder, BOUND_B)
    losses, gradients = {}, {}
    for name in ["f32", "autocast"]:
        model.zero_grad()
        with precision(name):
            loss = -next_token_logprobs(model, tokens).mean()
        loss.backward()
        losses[name] = loss.item()
        gradients[name] = {
            parameter.replace(".default", ""): weight.grad.clone()
            for parameter, weight in model.named_parameters() if weight.requires_grad
        }
    matrices = {}
    for name, exact in gradients["f32"].items():
        rough = gradients["autocast"][name].double().flatten()
        cosine = torch.cosine_similarity(exact.double().flatten(), rough, dim=0)
        matrices[name] = [exact.double().norm().item(), 1.0 - cosine.item()]
    stored = {
        name: gradient for name, gradient in gradients["f32"].items()
        if any(f".layers.{layer}." in name for layer in STORED_LAYERS)
    }
    save_tensors(stored, GOLDEN / "smollm2_gradients.safetensors")
    write_json(GOLDEN / "smollm2_gradients.json", dict(
        rank=RANK, alpha=ALPHA, target_modules=LINEARS, bound_b=BOUND_B, tokens=tokens,
        first_values=first_values(), loss=losses["f32"], autocast_loss=losses["autocast"],
        columns=["norm", "autocast_one_minus_cosine"], matrices=matrices,
    ))
    worst = max(value[1] for value in matrices.values())
    print(losses, f"worst 1 - cosine {worst:.2e}, over 1e-3: {sum(v[1] > 1e-3 for v in matrices.values())}")


def first_values():
    """The first elements of layer 0's q_proj and layer 29's down_proj, to check a port of hashed.py."""
    return {
        "layers.0.self_attn.q_proj.lora_A": hashed(0, 0, (RANK, 576), 576**-0.5)[0, :4],
        "layers.0.self_attn.q_proj.lora_B": hashed(0, 1, (576, RANK), BOUND_B)[0, :4],
        "layers.29.mlp.down_proj.lora_A": hashed(209, 0, (RANK, 1536), 1536**-0.5)[0, :4],
        "layers.29.mlp.down_proj.lora_B": hashed(209, 1, (576, RANK), BOUND_B)[0, :4],
    }


def curve_batches(tokenizer):
    """The first rows of 48 to 64 tokens: prompt with generation prompt, then the answer and its end of turn."""
    rows = []
    for record in json.loads(ROWS.read_text()):
        content = "\n\n".join(filter(None, [record["instruction"], record["input"]]))
        prompt = encode(tokenizer, [{"role": "user", "content": content}], generation_prompt=True)
        completion = tokenizer(record["output"] + "<|im_end|>", add_special_tokens=False).input_ids
        if 48 <= len(prompt) + len(completion) <= 64:
            rows.append(dict(tokens=prompt + completion, supervised_from=len(prompt)))
    return [rows[step * BATCH : (step + 1) * BATCH] for step in range(STEPS)]


def train(folder, batches, name):
    """Losses (mean over a step's supervised tokens) and gradient norms (before clipping) of LoRA SFT."""
    model = load_lora(folder, bound_b=0.0)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, **ADAMW)
    losses, norms = [], []
    for batch in batches:
        supervised = sum(len(row["tokens"]) - row["supervised_from"] for row in batch)
        losses.append(0.0)
        for row in batch:
            with precision(name):
                logprobs = next_token_logprobs(model, row["tokens"])[row["supervised_from"] - 1 :]
            loss = -logprobs.sum() / supervised
            loss.backward()
            losses[-1] += loss.item()
        norms.append(torch.nn.utils.clip_grad_norm_(weights, MAX_GRAD_NORM).item())
        optimizer.step()
        optimizer.zero_grad()
    return losses, norms


def make_curve(folder):
    batches = curve_batches(AutoTokenizer.from_pretrained(folder))
    curves = {name: train(folder, batches, name) for name in ["f32", "autocast"]}
    write_json(GOLDEN / "smollm2_curve.json", dict(
        rank=RANK, alpha=ALPHA, target_modules=LINEARS, bound_b=0.0, adamw=ADAMW, max_grad_norm=MAX_GRAD_NORM,
        losses=curves["f32"][0], grad_norms=curves["f32"][1],
        autocast_losses=curves["autocast"][0], autocast_grad_norms=curves["autocast"][1], batches=batches,
    ))
    print(curves)


if __name__ == "__main__":
    parts = {"logprobs": make_logprobs, "gradients": make_gradients, "curve": make_curve}
    for part in sys.argv[2:] or parts:
        parts[part](sys.argv[1])
