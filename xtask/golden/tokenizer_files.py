"""Loads small tokenizers whose files disagree, and encodes texts with what transformers makes of them.

    python xtask/golden/tokenizer_files.py

Writes crates/text/tests/golden/tokenizer_files.json: for each case the files, and texts with their ids, alone and with
what the tokenizer puts around them; the special ids and the named special tokens.
"""

import copy
import json
import tempfile
from pathlib import Path

import tokenizers
import transformers

OUTPUT = Path(__file__).resolve().parents[2] / "crates/text/tests/golden/tokenizer_files.json"
VOCAB = ["<s>", "</s>", "<|user|>", "<|end|>", "a", "b", "c", "ab", "\u0120", "\u010a", "<|tool|>", "<pad>"]
TEXTS = ["a </s> \n</s>b <s> c", "<|user|>\nab <|end|>  \n c", "a <|user|> b", "a<|end|>b </s>\n<s>", "ab<|tool|> <|tool|>\nc", "abc"]


def token(content, **flags):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **flags}
    return {"content": content, **flags}


def tokenizer_json(added, **parts):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {text: index for index, text in enumerate(VOCAB)}, "merges": [["a", "b"]],
    }
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": VOCAB.index(t["content"]), **t} for t in added],
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level, "model": model,
        **parts,
    }


def decoder(*tokens):
    return {str(VOCAB.index(t["content"])): t for t in tokens}


PLAIN = [token("<s>"), token("</s>"), token("<|user|>"), token("<|end|>")]
STRIPPED = [token("<s>"), token("</s>"), token("<|user|>", rstrip=True), token("<|end|>", lstrip=True, rstrip=True)]
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
AROUND = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
}
CASES = {
    "equal": [tokenizer_json(STRIPPED), {**NAMES, "added_tokens_decoder": decoder(*STRIPPED)}],
    "flags_in_config": [tokenizer_json(PLAIN), {**NAMES, "added_tokens_decoder": decoder(*STRIPPED)}],
    "flags_in_tokenizer": [tokenizer_json(STRIPPED), {**NAMES, "added_tokens_decoder": decoder(*PLAIN)}],
    "no_decoder": [tokenizer_json(STRIPPED), NAMES],
    "empty_decoder": [tokenizer_json(STRIPPED), {**NAMES, "added_tokens_decoder": {}}],
    "only_in_tokenizer": [tokenizer_json([*STRIPPED, token("<|tool|>", rstrip=True)]),
                          {**NAMES, "added_tokens_decoder": decoder(*STRIPPED)}],
    "only_in_config": [tokenizer_json(PLAIN),
                       {**NAMES, "added_tokens_decoder": decoder(*PLAIN, token("<|tool|>", lstrip=True, special=False))}],
    "special_in_config": [tokenizer_json([*PLAIN, token("<|tool|>", special=False)]),
                          {**NAMES, "added_tokens_decoder": decoder(*PLAIN, token("<|tool|>"))}],
    "special_in_tokenizer": [tokenizer_json([*PLAIN, token("<|tool|>")]),
                             {**NAMES, "added_tokens_decoder": decoder(*PLAIN, token("<|tool|>", special=False))}],
    "named_is_special": [tokenizer_json([token("<s>"), token("</s>", special=False), token("<|end|>")]), NAMES],
    "named_is_special_in_config": [tokenizer_json(PLAIN),
                                   {**NAMES, "added_tokens_decoder": decoder(token("</s>", special=False))}],
    "named_in_vocabulary": [tokenizer_json([token("<|user|>")]), {**NAMES, "pad_token": "<pad>"}],
    "named_with_flags": [tokenizer_json([token("<|user|>")]),
                         {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", **token("</s>", rstrip=True)}}],
    "named_with_flags_in_config": [
        tokenizer_json(PLAIN), {**NAMES, "added_tokens_decoder": decoder(token("</s>", lstrip=True, rstrip=True))}],
    "named_with_flags_in_tokenizer": [
        tokenizer_json([token("<s>", lstrip=True), token("</s>", rstrip=True, normalized=True)]), NAMES],
    "extra_with_flags_in_config": [
        tokenizer_json(PLAIN), {**NAMES, "additional_special_tokens": ["<|end|>"],
                                "added_tokens_decoder": decoder(*STRIPPED)}],
    "extra_with_flags_in_tokenizer": [tokenizer_json(STRIPPED), {**NAMES, "extra_special_tokens": ["<|end|>"]}],
    "extra_not_special": [tokenizer_json([*PLAIN[:3], token("<|end|>", special=False, rstrip=True)]),
                          {**NAMES, "extra_special_tokens": ["<|end|>"]}],
    "model_specific": [tokenizer_json(STRIPPED), {**NAMES, "turn_token": "<|end|>"}],
    "single_word": [tokenizer_json(PLAIN),
                    {**NAMES, "added_tokens_decoder": decoder(token("<|tool|>", single_word=True))}],
    "extra_special": [tokenizer_json(PLAIN), {**NAMES, "additional_special_tokens": ["<|tool|>"]}],
    "extra_special_with_decoder": [tokenizer_json(PLAIN), {**NAMES, "extra_special_tokens": ["<|tool|>"],
                                                           "added_tokens_decoder": decoder(*PLAIN)}],
    "extra_special_named": [tokenizer_json(PLAIN), {**NAMES, "extra_special_tokens": {"tool_token": "<|tool|>"}}],
    "map_alone": [tokenizer_json(PLAIN), {}, {"bos_token": "<s>", "eos_token": token("</s>", rstrip=True)}],
    "map_before_config": [tokenizer_json(PLAIN), NAMES, {"bos_token": "<s>", "eos_token": "<|end|>"}],
    "map_behind_decoder": [tokenizer_json(PLAIN), {**NAMES, "added_tokens_decoder": decoder(*PLAIN)},
                           {"bos_token": "<s>", "eos_token": "<|end|>", "pad_token": "<pad>"}],
    "older_list": [tokenizer_json(PLAIN), NAMES, {}, {"<|tool|>": 10}],
    "add_bos": [tokenizer_json(PLAIN), {**NAMES, "add_bos_token": True}],
    "add_both": [tokenizer_json(PLAIN, post_processor=AROUND), {**NAMES, "add_bos_token": True, "add_eos_token": True}],
    "add_eos_alone": [tokenizer_json(PLAIN, post_processor=AROUND), {**NAMES, "add_eos_token": True}],
    "add_none": [tokenizer_json(PLAIN, post_processor=AROUND), {**NAMES, "add_bos_token": False}],
    "add_as_processed": [tokenizer_json(PLAIN, post_processor=AROUND), NAMES],
    "truncated_and_padded": [
        tokenizer_json(
            PLAIN,
            truncation={"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
            padding={"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 11,
                     "pad_type_id": 0, "pad_token": "<pad>"},
        ),
        {**NAMES, "model_max_length": 2},
    ],
    "clean_up": [tokenizer_json(PLAIN), {**NAMES, "clean_up_tokenization_spaces": True}],
}
FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]


def load(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_text(json.dumps(content))
        return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def main():
    cases = {}
    for name, contents in CASES.items():
        files = {file: content for file, content in zip(FILES, copy.deepcopy(contents)) if content or file in FILES[:2]}
        tokenizer = load(files)
        special = tokenizer.backend_tokenizer.get_added_tokens_decoder()
        cases[name] = {
            "files": files,
            "texts": [
                {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False), "around": tokenizer.encode(text)}
                for text in TEXTS
            ],
            "special_ids": sorted(id for id, token in special.items() if token.special),
            "special": {key: value for key, value in sorted(tokenizer.special_tokens_map.items()) if isinstance(value, str)},
            "decoded": tokenizer.decode([4, 5, 8, 3, 10, 1], skip_special_tokens=True),
        }
    golden = {"versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}, "cases": cases}
    OUTPUT.write_text(json.dumps(golden, ensure_ascii=True) + "\n")
    print(f"{OUTPUT}: {len(cases)} cases")


if __name__ == "__main__":
    main()
