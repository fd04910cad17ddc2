"""What PEFT computes with an adapter that Tunesmith wrote.

Run: python xtask/golden/check_adapter.py MODEL_FOLDER ADAPTER_FOLDER TOKENS_JSON
TOKENS_JSON is a file with a list of token ids, or a list of such lists. Prints one JSON object:
{"versions", "base_logprobs": [per sequence, T - 1], "logprobs": the same with the adapter,
"last_logits": [per sequence, V]}; for a reward model {"versions", "scores": [per sequence]}.
Fails when PEFT finds a tensor of the file missing, unknown or of another shape.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from store import VERSIONS, next_token_logprobs, rounded


def load_checked(base, folder):
    """Loads the adapter and compares every tensor with the file's."""
    model = PeftModel.from_pretrained(base, folder).eval()
    loaded = get_peft_model_state_dict(model)
    with safe_open(Path(folder) / "adapter_model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}
    if set(loaded) != set(stored):
        sys.exit(f"tensors that only one side has: {sorted(set(loaded) ^ set(stored))}")
    for name, tensor in stored.items():
        if not torch.equal(tensor.float(), loaded[name].float()):
            sys.exit(f"{name}: loaded otherwise than stored")
    return model


def scores_of(model_folder, adapter_folder, sequences):
    base = AutoModelForSequenceClassification.from_pretrained(
        model_folder, num_labels=1, dtype=torch.float32, attn_implementation="eager",
    )
    model = load_checked(base, adapter_folder)
    with torch.no_grad():
        return [model(torch.tensor([tokens])).logits.item() for tokens in sequences]


def main(model_folder, adapter_folder, tokens_file):
    sequences = json.loads(Path(tokens_file).read_text())
    sequences = sequences if isinstance(sequences[0], list) else [sequences]
    if PeftConfig.from_pretrained(adapter_folder).task_type == "SEQ_CLS":
        scores = scores_of(model_folder, adapter_folder, sequences)
        return print(json.dumps(rounded(dict(versions=VERSIONS, scores=scores))))
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        base_logprobs = [next_token_logprobs(base, tokens) for tokens in sequences]
        model = load_checked(base, adapter_folder)
        logprobs = [next_token_logprobs(model, tokens) for tokens in sequences]
        last = [model(torch.tensor([tokens])).logits[0, -1] for tokens in sequences]
    report = dict(versions=VERSIONS, base_logprobs=base_logprobs, logprobs=logprobs, last_logits=last)
    print(json.dumps(rounded(report)))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
