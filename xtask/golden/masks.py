"""Renders, tokenises and masks dialogues with transformers, and with TRL's templates where it has one.

    python xtask/golden/masks.py

Writes crates/data/tests/golden/masks/: `trl.json`, masks of `{% generation %}` in TRL's training templates, and
`shared.json`, masks of every template of shared/data/chat-templates by the offsets of its answers.

The tokenizer is Qwen3's (shared/data/tokenizers) with the special tokens of each template added.
"""

import gzip
import json
import re
from datetime import datetime
from importlib.resources import files
from importlib.metadata import version
from pathlib import Path

import jinja2
import tokenizers
import transformers
from transformers.utils import chat_template_utils

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared/data"
OUTPUT = ROOT / "crates/data/tests/golden/masks"
DATE = "2026-03-01"
KWARGS = {"functions": "[]", "datetime": DATE}

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Its name."}}, "required": ["city"]},
    },
}


def message(role, content, **extra):
    return {"role": role, "content": content, **extra}


CALL = {"id": "abc123XYZ", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Bern"}}}
TWO = [
    message("user", "What is 2 + 2?"),
    message("assistant", "It is **4**.\n\nNaïve 日本 🙂!"),
    message("user", "And 3 + 3?"),
    message("assistant", "6"),
]
CASES = {
    "dialogue": {"messages": TWO},
    "system": {"messages": [message("system", "Be brief."), *TWO]},
    "tools": {
        "messages": [
            message("user", "Weather in Bern?"),
            message("assistant", None, tool_calls=[CALL]),
            message("tool", "rain", name="get_weather", tool_call_id="abc123XYZ"),
            message("assistant", "It rains."),
        ],
        "tools": [TOOL],
    },
    "tools_as_text": {
        "messages": [
            message("user", "Weather in Bern?"),
            message("assistant", "", tool_calls=[{**CALL, "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'}}]),
            message("tool", "rain", name="get_weather", tool_call_id="abc123XYZ"),
            message("assistant", "It rains."),
        ],
        "tools": [TOOL],
    },
    "reasoning": {
        "messages": [
            message("user", "2 + 2?"),
            message("assistant", "<think>\nadd them\n</think>\n\n4"),
            message("user", "3 + 3?"),
            message("assistant", "<think>\nonce more\n</think>\n\n6"),
        ],
    },
}

CHATML = ("<|im_start|>", "<|endoftext|>", "<|im_end|>")
LLAMA = ("<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>")
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
PHI = ("<s>", "<|endoftext|>", "<|end|>")
COHERE = ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>")
GEMMA = ("<bos>", "<eos>", "<end_of_turn>")
MISTRAL = ("<s>", "</s>", "</s>")
# Beginning of sequence, end of sequence, end of turn; further special tokens that no `<|...|>` shows.
SHARED_TEMPLATES = {
    "CohereForAI-c4ai-command-r-plus-tool_use": (COHERE, []),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": (COHERE, []),
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": (("<|begin_of_text|>", "<|im_end|>", "<|im_end|>"), []),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": (("<|begin_of_text|>", "<|im_end|>", "<|im_end|>"), []),
    "Qwen-Qwen2.5-7B-Instruct": (CHATML, []),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": (DEEPSEEK, []),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": (DEEPSEEK, []),
    "fireworks-ai-llama-3-firefunction-v2": (LLAMA, []),
    "google-gemma-2-2b-it": (GEMMA, ["<start_of_turn>"]),
    "llama-cpp-deepseek-r1": (DEEPSEEK, []),
    "meetkai-functionary-medium-v3.1": (LLAMA, ["<|eom_id|>"]),
    "meetkai-functionary-medium-v3.2": (LLAMA, ["<|eom_id|>"]),
    "meta-llama-Llama-3.1-8B-Instruct": (LLAMA, ["<|eom_id|>"]),
    "meta-llama-Llama-3.2-3B-Instruct": (LLAMA, ["<|eom_id|>"]),
    "meta-llama-Llama-3.3-70B-Instruct": (LLAMA, ["<|eom_id|>"]),
    "microsoft-Phi-3.5-mini-instruct": (PHI, []),
    "mistralai-Mistral-Nemo-Instruct-2407": (
        MISTRAL,
        ["[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"],
    ),
}
# TRL's training template; the template of shared/ that it patches, or none where it is taken from TRL itself.
TRL_TEMPLATES = {
    "qwen3": (CHATML, None),
    "qwen3_instruct_2507": (CHATML, None),
    "phi3": (PHI, None),
    "deepseekv3": (DEEPSEEK, None),
    "qwen2_5": (CHATML, "Qwen-Qwen2.5-7B-Instruct"),
    "phi3_5": (PHI, "microsoft-Phi-3.5-mini-instruct"),
    "gemma": (GEMMA, "google-gemma-2-2b-it"),
    "deepseek_r1_distill": (DEEPSEEK, None),
}


class FrozenDatetime(datetime):
    """`datetime` whose `now` is midnight of the frozen date."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(DATE)


class Model:
    """A tokenizer with the special tokens of a template."""

    def __init__(self, base, template, names, more):
        self.template, (self.bos, self.eos, self.end) = template, names
        found = re.findall(r"<\|[\w.:/-]+\|>|<｜[\w▁.:/-]+｜>", template)
        self.special = list(dict.fromkeys([*names, *more, *found]))
        backend = tokenizers.Tokenizer.from_str(base)
        backend.add_special_tokens(self.special)
        self.tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token=self.bos, eos_token=self.eos
        )

    def render(self, messages, tools, prompt=False):
        return self.tokenizer.apply_chat_template(
            json.loads(json.dumps(messages)), tools=tools, chat_template=self.template,
            add_generation_prompt=prompt, tokenize=False, **KWARGS,
        )

    def encode(self, text):
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoding["input_ids"], encoding["offset_mapping"]

    def row(self, text, spans):
        """A text with the tokens that lie within the spans."""
        ids, offsets = self.encode(text)
        mask = [any(start <= a and b <= end and a < b for start, end in spans) for a, b in offsets]
        return {"text": text, "ids": ids, "learned": runs(mask)}


def runs(mask):
    """Where ones begin and end."""
    edges = [0, *(int(bit) for bit in mask), 0]
    changes = [i for i in range(len(edges) - 1) if edges[i] != edges[i + 1]]
    return [list(pair) for pair in zip(changes[::2], changes[1::2])]


def end_of_answer(model, text, start, content):
    """Where the end-of-turn token after the content ends, or the text where it has none."""
    at = text.find(content or "", start)
    found = text.find(model.end, max(at, start) + len(content or ""))
    return found + len(model.end) if found >= 0 else len(text)


def by_offset(model, messages, tools=None):
    """One row of all turns where no later turn changes an earlier one, else a row a turn."""
    turns = []
    for index, turn in enumerate(messages):
        if turn["role"] == "assistant":
            prompt = model.render(messages[:index], tools, prompt=True)
            turns.append((turn, prompt, model.render(messages[: index + 1], tools)))
    whole = turns[-1][2]
    if all(full.startswith(prompt) and whole.startswith(full) for _, prompt, full in turns):
        spans = [(len(p), end_of_answer(model, f, len(p), turn["content"])) for turn, p, f in turns]
        return [model.row(whole, spans)]
    rows = []
    for turn, prompt, full in turns:
        content = turn["content"]
        if full.startswith(prompt):
            end = end_of_answer(model, full, len(prompt), content)
            rows.append(model.row(full, [(len(prompt), end)]))
        elif not content:
            return None  # A call that serving's prompt does not lead to: nothing to compare with.
        else:
            opened = prompt.endswith("<think>\n")
            content = content.removeprefix("<think>\n") if opened else content
            text = prompt + content + model.end
            rows.append(model.row(text, [(len(prompt), len(text))]))
    return rows


def by_generation(model, messages, tools=None):
    """One row with the mask of `{% generation %}`."""
    text = model.render(messages, tools)
    out = model.tokenizer.apply_chat_template(
        json.loads(json.dumps(messages)), tools=tools, chat_template=model.template,
        return_dict=True, return_assistant_tokens_mask=True, **KWARGS,
    )
    return [{"text": text, "ids": out["input_ids"], "learned": runs(out["assistant_masks"])}]


def writes_calls(model, messages, tools=None):
    """Whether the template shows the calls of every turn."""
    for index, turn in enumerate(messages):
        for call in turn.get("tool_calls", []):
            before, after = (model.render(messages[:end], tools) for end in (index, index + 1))
            name = call["function"]["name"]
            if before.count(name) == after.count(name):
                return False
    return True


def attempt(function, model, case):
    try:
        case = json.loads(json.dumps(case))
        rows = function(model, **case) if writes_calls(model, **case) else "raises"
        # Adding to a safe string escapes it as HTML, which no chat template means.
        return None if "&#34;" in str(rows) else rows
    except jinja2.exceptions.UndefinedError:
        return None
    except jinja2.exceptions.TemplateError:
        return "raises"
    except (TypeError, KeyError):
        return None  # Python cannot run the template on this; a `for` over `None`, for one.


def write(name, templates):
    golden = {
        "versions": {
            "transformers": transformers.__version__, "tokenizers": tokenizers.__version__,
            "jinja2": jinja2.__version__, "trl": version("trl"),
        },
        "date": DATE, "kwargs": KWARGS, "cases": CASES, "templates": templates,
    }
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    text = text.replace('{"text":', '\n{"text":').replace('{"name":', '\n{"name":')
    (OUTPUT / f"{name}.json").write_text(text + "\n")
    cases = [rows for template in templates for rows in template["rows"].values()]
    print(f"{name}.json: {len(text)} bytes, {len(templates)} templates, {len(cases)} cases, "
          f"{cases.count(None)} without, {cases.count('raises')} raise")


def entry(name, model, function, **more):
    rows = {case: attempt(function, model, given) for case, given in CASES.items()}
    if rows["dialogue"] is None:
        # Some templates cannot do without a list of tools.
        more["tools"] = []
        rows = {case: attempt(function, model, {**more, **given}) for case, given in CASES.items()}
    return {"name": name, **more, "special": model.special, "bos": model.bos, "eos": model.eos, "end": model.end, "rows": rows}


def main():
    chat_template_utils.datetime = FrozenDatetime
    OUTPUT.mkdir(parents=True, exist_ok=True)
    base = gzip.decompress((SHARED / "tokenizers/qwen3-tokenizer.json.gz").read_bytes()).decode()
    templates = []
    for name, (names, more) in SHARED_TEMPLATES.items():
        source = (SHARED / f"chat-templates/{name}.jinja").read_text()
        templates.append(entry(name, Model(base, source, names, more), by_offset))
    write("shared", templates)
    templates = []
    for name, (names, shared) in TRL_TEMPLATES.items():
        source = files("trl").joinpath(f"chat_templates/{name}_training.jinja").read_text()
        own = {"shared": shared} if shared else {"source": source}
        more = ["<start_of_turn>"] if name == "gemma" else []
        templates.append(entry(name, Model(base, source, names, more), by_generation, **own))
    write("trl", templates)


if __name__ == "__main__":
    main()
