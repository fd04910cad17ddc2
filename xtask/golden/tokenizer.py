"""Encodes varied texts with SmolLM2's tokenizer.

    python xtask/golden/tokenizer.py MODEL_FOLDER

Writes crates/text/tests/golden/tokenizer.json: texts and their ids, without
special tokens added. The tokenizer of the model's GGUF file must give the same.

A folder that transformers itself made from a GGUF file has lost the step that
splits digits, so the pre-tokenizer of the model's own tokenizer.json is set here.
"""

import json
import sys
from pathlib import Path

import tokenizers
import transformers
from tokenizers import pre_tokenizers

OUTPUT = Path(__file__).resolve().parents[2] / "crates/text/tests/golden/tokenizer.json"

TEXTS = [
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n",
    "\t\tindented\r\nby tabs\r\n",
    "Hello, world!",
    " Hello,  world !  ",
    "hello" * 20,
    "It's what they're sure we'll've had, I'd say.",
    "DON'T SHOUT. MixedCase camelCaseWords snake_case_words kebab-case-words",
    "1 12 123 1234 12345 3.14159 1,000,000 -7 +8 1e-5 0xFF",
    "2026-03-01T12:34:56Z, 03/07/2025, (555) 123-4567",
    "A-12345 order #98765: 2x 19.99€ = 39.98 €",
    "def f(x: int) -> int:\n    \"\"\"Doc.\"\"\"\n    return x ** 2  # square\n",
    "fn main() {\n\tlet v: Vec<u8> = vec![0; 1 << 10];\n\tprintln!(\"{v:?}\");\n}\n",
    "<div class=\"a\">&nbsp;<br/></div>",
    '{"category": "refund", "order_id": null, "ok": true, "n": [1, 2.5]}',
    "SELECT * FROM t WHERE a <> 'b' -- comment",
    "https://example.org/path?x=1&y=%20#frag user@example.org",
    "naïve café Zürich Ångström façade œuvre ß",
    "e\u0301 decomposed, \u00e9 composed, \ufb01 ligature",
    "Привет, мир! Как дела?",
    "日本語のテキスト、漢字とかな。",
    "中文文本,没有空格。",
    "한국어 문장입니다.",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "🙂 😀😃 👩‍👩‍👧‍👦 🇨🇭 👍🏽",
    "zero\u200bwidth nbsp\u00a0thin\u2009space ideographic\u3000space",
    "… — – “quotes” ‘single’ «guillemets» ½ ² № ™",
    "∀x∈ℝ: x² ≥ 0, ∑ᵢ αᵢ ≠ ∫ f dx",
    "\u0000 \u0007 \u001b[0m \ufeff \ufffd",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "a<|im_end|>b <|im_end|> c<|endoftext|><|im_start|",
    "<repo_name>x<file_sep><filename> <gh_stars>12 <jupyter_code>",
    "<| im_start |> <|unknown|> <s> </s> [INST]",
    "trailing spaces   ",
    "   leading spaces",
    "a\n\n  b\n   \n c \n",
    "!!! ??? ... ,,, ;;; ((())) [[]] {{}} ////// ===== -----",
    "word" + " " * 50 + "word" + "\n" * 30 + "end",
]


def main():
    tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    rows = []
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        rows.append({"text": text, "ids": ids, "decoded": decoded})
    golden = {
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "vocab_size": len(tokenizer),
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "rows": rows,
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(golden, ensure_ascii=True) + "\n")
    print(f"{OUTPUT}: {len(rows)} texts")


if __name__ == "__main__":
    main()
