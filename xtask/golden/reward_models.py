"""Reward models as PEFT 0.21 saves them: sequence classifiers with one label over the tiny models `gqa` and `tied`.

Run: python xtask/golden/reward_models.py   (after tiny_llama.py)
Makes crates/model/tests/golden/reward/CASE/: PEFT's files with values that are far from their start, and golden.json.
"""

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

from adapters import draw_tokens, lora, perturb
from store import REPOSITORY, TINY_LLAMA, save_adapter, write_json
from tiny_llama import LINEARS

FOLDER = REPOSITORY / "crates/model/tests/golden/reward"
CASES = {
    "gqa": dict(target_modules=LINEARS),
    "tied": dict(target_modules=["q_proj", "v_proj"], trainable_token_indices={"embed_tokens": [3, 7, 90]}),
}


def load_classifier(folder, seed=0):
    """The base with a fresh score layer."""
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, attn_implementation="eager",
    )


def scores_of(model, sequences):
    """The score of every sequence at its last token."""
    with torch.no_grad():
        return [model(torch.tensor([tokens])).logits.item() for tokens in sequences]


def make(case):
    base = TINY_LLAMA / case
    model = get_peft_model(load_classifier(base), lora(task_type="SEQ_CLS", **CASES[case])).eval()
    perturb(model, 31)
    sequences = [draw_tokens(seed)[:length] for seed, length in [(5, 24), (6, 17), (7, 1)]]
    scores = scores_of(model, sequences)
    save_adapter(model, FOLDER / case)
    # PEFT itself reads the folder over another fresh score layer.
    again = PeftModel.from_pretrained(load_classifier(base, seed=1), FOLDER / case).eval()
    assert scores_of(again, sequences) == scores
    write_json(FOLDER / case / "golden.json", dict(base=f"tiny_llama/{case}", sequences=sequences, scores=scores))
    print(case, scores)


if __name__ == "__main__":
    for case in CASES:
        make(case)
