"""Where goldens lie and how they are written: compact JSON, floats by default with the nine digits that fix an f32."""

import json
import sys
import warnings
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import save_file

REPOSITORY = Path(__file__).resolve().parents[2]
TINY_LLAMA = REPOSITORY / "crates/model/tests/golden/tiny_llama"
ARCHITECTURES = REPOSITORY / "crates/model/tests/golden/architectures"

VERSIONS = {
    "python": ".".join(map(str, sys.version_info[:3])),
    "torch": torch.__version__.split("+")[0],
    "transformers": transformers.__version__,
    "peft": peft.__version__,
}

torch.set_num_threads(2)
torch.use_deterministic_algorithms(True)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
warnings.simplefilter("ignore")


def rounded(value, digits=9):
    """Turns tensors into nested lists and cuts floats to that many significant digits."""
    if isinstance(value, torch.Tensor):
        value = value.detach().tolist()
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, (list, tuple)):
        return [rounded(item, digits) for item in value]
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    return value


def render(value, indent=""):
    """JSON with one line per key; lists of numbers stay on their line."""
    if isinstance(value, dict) and value:
        inner = indent + " "
        lines = [f"{inner}{json.dumps(key)}: {render(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        inner = indent + " "
        lines = [inner + render(item, inner) for item in value]
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    return json.dumps(value, separators=(",", ":"))


def write_json(path, content, digits=9, **more_versions):
    """Writes `content` under the versions that made it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"versions": VERSIONS | more_versions, **rounded(content, digits)}
    path.write_text(render(content) + "\n")


def save_tensors(tensors, path):
    """Writes a safetensors file that others may read."""
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)


def save_adapter(model, folder):
    """PEFT's own files, without its model card, and with sets in a fixed order."""
    model.save_pretrained(folder)
    tidy_adapter(folder)


def tidy_adapter(folder):
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    base = config["base_model_name_or_path"]
    if base:
        # No path of the machine that made it.
        config["base_model_name_or_path"] = "/".join(Path(base).parts[-2:])
    for key in ["target_modules", "modules_to_save"]:
        if isinstance(config.get(key), list):
            config[key].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def next_token_logprobs(model, tokens):
    """Log-probabilities of tokens[1:], f32, [T - 1]."""
    logits = model(torch.tensor([tokens])).logits[0].float()
    picked = torch.tensor(tokens[1:]).unsqueeze(1)
    return torch.log_softmax(logits[:-1], dim=-1).gather(1, picked).squeeze(1)
