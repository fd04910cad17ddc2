"""Logits of what PEFT 0.21 makes of a base and an adapter with `merge_and_unload`.

Run: python xtask/golden/merged.py   (after tiny_llama.py and adapters.py)
Makes crates/model/tests/golden/merged.json: for every case its base, adapter, tokens, and the last row of logits,
before (`adapter_logits`) and after the merge (`logits`); whether its head is the embedding (`tied`).
"""

import json

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from adapters import ROWS, base_name
from store import REPOSITORY, write_json

GOLDEN = REPOSITORY / "crates/model/tests/golden"
CASES = {
    "gqa": ("tiny_llama/gqa", "tiny_llama/gqa/adapter"),
    "tied": ("tiny_llama/tied", "tiny_llama/tied/adapter"),
    **{
        name: (f"tiny_llama/{base_name(name)}", f"adapters/{name}")
        for name in [
            "dora", "dora_rs", "patterns", "rslora", "modules_to_save", "norms", "tokens", "tokens_tied", "pissa", "stack/cat",
            "tokens_tied_both", "embedding_tied", "embedding_untied", "head_untied", "both_untied", *ROWS,
        ]
    },
}


def tokens_of(adapter):
    folder = GOLDEN / adapter
    for golden in [folder / "golden.json", folder.parent / "golden.json"]:
        if golden.exists():
            content = json.loads(golden.read_text())
            return content["tokens"] if "tokens" in content else content["sequences"][0]["tokens"]
    raise FileNotFoundError(adapter)


def last_logits(model, tokens):
    with torch.no_grad():
        return model.eval()(torch.tensor([tokens])).logits[0, -1]


def make(name, base, adapter):
    model = AutoModelForCausalLM.from_pretrained(GOLDEN / base, dtype=torch.float32, attn_implementation="eager")
    if name in ROWS:
        model.resize_token_embeddings(ROWS[name], mean_resizing=False)
    model = PeftModel.from_pretrained(model, GOLDEN / adapter)
    tokens = tokens_of(adapter)
    before = last_logits(model, tokens)
    merged = model.merge_and_unload()
    after = last_logits(merged, tokens)
    tied = merged.get_input_embeddings().weight is merged.get_output_embeddings().weight
    assert tied == bool(merged.config.tie_word_embeddings)
    assert torch.allclose(before, after, atol=1e-4), (name, (before - after).abs().max())
    print(name, (before - after).abs().max().item())
    return dict(case=name, base=base, adapter=adapter, tokens=tokens, tied=tied, adapter_logits=before, logits=after)


if __name__ == "__main__":
    cases = [make(name, *folders) for name, folders in CASES.items()]
    write_json(GOLDEN / "merged.json", dict(cases=cases))
