"""Classifiers as PEFT 0.21 saves them: sequence classifiers with three labels over the tiny models `gqa` and `tied`.

Run: python xtask/golden/classifiers.py   (after tiny_llama.py)
Makes crates/model/tests/golden/classifier/CASE/: PEFT's files with values that are far from their start, and golden.json
with the logits at the last token. Also says whether PEFT's config keeps the number or the names of the labels.
"""

import json

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

from adapters import draw_tokens, lora, perturb
from reward_models import CASES
from store import REPOSITORY, TINY_LLAMA, save_adapter, write_json

FOLDER = REPOSITORY / "crates/model/tests/golden/classifier"
LABELS = ["calm", "glad", "sad"]


def load_classifier(folder, seed=0):
    """The base with a fresh score layer for three labels."""
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(LABELS), id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
        dtype=torch.float32, attn_implementation="eager",
    )


def logits_of(model, sequences):
    """The logits of every sequence at its last token, [sequences][labels]."""
    with torch.no_grad():
        return [model(torch.tensor([tokens])).logits[0].tolist() for tokens in sequences]


def make(case):
    base = TINY_LLAMA / case
    model = get_peft_model(load_classifier(base), lora(task_type="SEQ_CLS", **CASES[case])).eval()
    perturb(model, 37)
    sequences = [draw_tokens(seed)[:length] for seed, length in [(5, 24), (6, 17), (7, 1)]]
    logits = logits_of(model, sequences)
    save_adapter(model, FOLDER / case)
    # PEFT itself reads the folder over another fresh score layer.
    again = PeftModel.from_pretrained(load_classifier(base, seed=1), FOLDER / case).eval()
    assert logits_of(again, sequences) == logits
    config = json.loads((FOLDER / case / "adapter_config.json").read_text())
    kept = [key for key in ["num_labels", "id2label", "label2id"] if key in config]
    write_json(
        FOLDER / case / "golden.json",
        dict(base=f"tiny_llama/{case}", sequences=sequences, labels=LABELS, logits=logits, kept_by_peft=kept),
    )
    print(case, logits, kept)


if __name__ == "__main__":
    for case in CASES:
        make(case)
