"""Sequences on both sides of LongRoPE's limit, and answers that pass it.

Run: python xtask/golden/longrope.py
Reads crates/model/tests/golden/architectures/{phi3_longrope,phi4mini_longrope}, whose limit is 24 tokens.
Makes crates/model/tests/golden/longrope.json: `scored`, log-probs of whole sequences; `generated`, prompts with their
greedy answers and the log-prob of every new token.

transformers takes the long frequencies where the largest position of a forward pass is the limit or more. When a growing
answer passes the limit, Phi's `prepare_inputs_for_generation` drops the cache, so that all keys are rotated anew.
"""

import torch
from transformers import AutoModelForCausalLM

from store import ARCHITECTURES, REPOSITORY, next_token_logprobs, write_json
from tiny_llama import draw_tokens

CASES = ["phi3_longrope", "phi4mini_longrope"]
SCORED = [23, 24, 25, 26, 40]
# Prompts that stay short, that pass the limit early and late, and that are long from the start.
PROMPTS = [(6, 12), (9, 24), (22, 6), (23, 6), (24, 6), (25, 6), (30, 6)]


def answer(model, prompt, count):
    """Tokens, their log-probs, and the least distance of the best two logits."""
    out = model.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, output_logits=True, return_dict_in_generate=True,
        eos_token_id=None, pad_token_id=0,
    )
    tokens = out.sequences[0, len(prompt):]
    logits = torch.cat(out.logits).float()
    best = logits.topk(2).values
    logprobs = torch.log_softmax(logits, dim=-1).gather(1, tokens.unsqueeze(1)).squeeze(1)
    return tokens.tolist(), logprobs, (best[:, 0] - best[:, 1]).min().item()


def generated(model, length, count, vocab):
    seed = 7000 + length
    while True:
        prompt = draw_tokens(vocab, seed)[0][:length]
        tokens, logprobs, margin = answer(model, prompt, count)
        if len(prompt) == length and margin > 0.01 and len(set(tokens)) >= 4:
            return dict(prompt=prompt, tokens=tokens, logprobs=logprobs)
        seed += 100


def describe(case):
    model = AutoModelForCausalLM.from_pretrained(ARCHITECTURES / case, attn_implementation="eager").eval()
    vocab = model.config.vocab_size
    row = draw_tokens(vocab, 90)[0]
    with torch.no_grad():
        scored = [dict(tokens=row[:length], logprobs=next_token_logprobs(model, row[:length])) for length in SCORED]
        answers = [generated(model, length, count, vocab) for length, count in PROMPTS]
    limit = model.config.original_max_position_embeddings
    return dict(limit=limit, scored=scored, generated=answers)


if __name__ == "__main__":
    content = {case: describe(case) for case in CASES}
    write_json(REPOSITORY / "crates/model/tests/golden/longrope.json", content)
