"""Renders every template of shared/data/chat-templates with transformers.

    python xtask/golden/chat_templates.py

Writes crates/text/tests/golden/chat_templates.json: the conversations, and for
each template what they become: a text, or the message of the exception that the
template raises, or null where rendering fails in any other way.
"""

import json
from datetime import datetime
from pathlib import Path

import jinja2
import transformers
from transformers.utils import chat_template_utils

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT.parent / "shared/data/chat-templates"
DATE = "2026-03-01"
OUTPUT = ROOT / "crates/text/tests/golden/chat_templates.json"
# Variables that some of the templates need beyond the usual ones.
KWARGS = {"functions": "[]", "datetime": DATE}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def message(role, content, **extra):
    return {"role": role, "content": content, **extra}


def call(name, arguments, call_id="abc123XYZ"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Looks up the weather in a \"city\".",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city, e.g. Zürich"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": None, "description": "Unit."},
                "days": {"type": "integer", "minimum": 1, "description": ""},
                "detail": {"type": "number", "default": 0.5, "multipleOf": 1e-5, "description": "From 0 to 1."},
            },
            "required": ["city"],
        },
        "return": {"type": "string", "description": "The weather."},
    },
}
DIALOGUE = [
    message("system", "Be brief.\n"),
    message("user", " What is 2 + 2?"),
    message("assistant", "4 "),
    message("user", "And 3 + 3?"),
]
TOOL_USE = [
    message("user", "Weather in Zürich?"),
    message("assistant", None, tool_calls=[call("get_weather", {"city": "Zürich", "days": 2})]),
    message("tool", '{"sky": "clear", "celsius": 21.5}', name="get_weather", tool_call_id="abc123XYZ"),
]

CASES = {
    "single": dict(messages=[message("user", "Hi")]),
    "single_prompt": dict(messages=[message("user", "Hi")], add_generation_prompt=True),
    "answered": dict(messages=[message("user", "Hi"), message("assistant", "Hello!")]),
    "dialogue": dict(messages=DIALOGUE, add_generation_prompt=True),
    "dialogue_answered": dict(messages=[*DIALOGUE, message("assistant", "6")]),
    "characters": dict(
        messages=[
            message("user", "  <b>\"quotes\" & 'more'</b>\n\n\tnaïve 日本語 🙂 \\n {{ x }} \u00a0"),
            message("assistant", "```py\nprint('hi')\n```\n"),
        ]
    ),
    "reasoning": dict(
        messages=[
            message("user", "2+2?"),
            message("assistant", "<think>\nadd\n</think>\n\n4"),
            message("user", "3+3?"),
            message("assistant", "6", reasoning_content="add again"),
        ],
        add_generation_prompt=True,
    ),
    "two_users": dict(messages=[message("user", "a"), message("user", "b")]),
    "assistant_first": dict(messages=[message("assistant", "a"), message("user", "b")]),
    "unknown_role": dict(messages=[message("user", "a"), message("critic", "b")]),
    "tools_offered": dict(messages=DIALOGUE, tools=[WEATHER], add_generation_prompt=True),
    "tool_use": dict(messages=TOOL_USE, tools=[WEATHER], add_generation_prompt=True),
    "tool_use_answered": dict(messages=[*TOOL_USE, message("assistant", "Clear.")], tools=[WEATHER]),
    "no_tools": dict(messages=DIALOGUE, tools=[], add_generation_prompt=True),
    "characters_no_tools": dict(
        messages=[message("user", " a\n\"b\" 'c' <d> & é🙂\n"), message("assistant", "\ne ")], tools=[]
    ),
    "tool_use_as_text": dict(
        messages=[
            message("system", "You may use tools."),
            message("user", "Weather in Bern and Zürich?"),
            message(
                "assistant",
                "Let me see.",
                tool_calls=[
                    call("get_weather", '{"city": "Bern"}', "callBern1"),
                    call("get_weather", '{"city": "Zürich"}', "callZuri2"),
                ],
            ),
            message("tool", "rain", name="get_weather", tool_call_id="callBern1"),
            message("tool", "sun", name="get_weather", tool_call_id="callZuri2"),
            message("assistant", "Rain in Bern, sun in Zürich."),
            message("user", "Thanks."),
        ],
        tools=[WEATHER],
        add_generation_prompt=True,
    ),
    "tool_call_as_text": dict(
        messages=[
            message("user", "Weather?"),
            message("assistant", "", tool_calls=[call("get_weather", '{"city": "Bern"}')]),
        ],
        tools=[WEATHER],
    ),
}


class FrozenDatetime(datetime):
    """`datetime` whose `now` is midnight of the frozen date."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(DATE)


def render(template, case):
    try:
        case = json.loads(json.dumps(case))
        # As `apply_chat_template` does before it renders.
        messages = [{k: v for k, v in m.items() if v is not None} for m in case.pop("messages")]
        rendered, _ = chat_template_utils.render_jinja_template(
            [messages], chat_template=template, **case, **SPECIAL, **KWARGS
        )
        return rendered[0]
    except (jinja2.exceptions.UndefinedError, jinja2.exceptions.SecurityError):
        return None
    except jinja2.exceptions.TemplateError as error:
        return {"raises": str(error)}
    except Exception:
        return None


def main():
    chat_template_utils.datetime = FrozenDatetime
    outputs = {}
    for path in sorted(TEMPLATES.glob("*.jinja")):
        template = path.read_text()
        outputs[path.name] = {name: render(template, case) for name, case in CASES.items()}
    golden = {
        "versions": {"transformers": transformers.__version__, "jinja2": jinja2.__version__},
        "date": DATE,
        "special": SPECIAL,
        "kwargs": KWARGS,
        "cases": CASES,
        "outputs": outputs,
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
    texts = [text for cases in outputs.values() for text in cases.values()]
    print(f"{OUTPUT}: {len(outputs)} templates, {len(texts)} results, "
          f"{sum(isinstance(t, dict) for t in texts)} raised, {sum(t is None for t in texts)} failed")


if __name__ == "__main__":
    main()
