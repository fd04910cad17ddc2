"""Prepares rows for SFT as TRL does, and says how fast.

    pip install datasets transformers tokenizers jinja2
    python xtask/bench/prepare_peer.py --data rows.jsonl --tokenizer FOLDER

The steps of TRL's SFTTrainer on conversational prompt-completion rows (`_prepare_dataset` of
trl 0.24), each a `Dataset.map` with `num_proc=2`: the chat template over prompt and over prompt
and completion, the completion mask from the first one's length, then the cut at `max_length`.
Rows are `prompt` and `completion` texts, or `messages`, whose last turn is the completion.

Prints one JSON object. The cache is a temporary folder, so that nothing is read from it; its
time counts, since whoever runs TRL waits for it. Loading the libraries is not counted.
"""

import argparse
import json
import os
import resource
import tempfile
import time

# SmolLM2's template, without the system message that it puts in front of others' conversations.
CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def conversation(row: dict) -> tuple[list[dict], list[dict]]:
    if row.get("messages"):
        return row["messages"][:-1], row["messages"][-1:]
    prompt = [{"role": "user", "content": row["prompt"]}]
    return prompt, [{"role": "assistant", "content": row["completion"]}]


def ids(tokenizer, messages: list[dict], **options) -> list[int]:
    return tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, **options
    )["input_ids"]


def tokenize(row: dict, tokenizer) -> dict:
    prompt, completion = conversation(row)
    prompt_ids = ids(tokenizer, prompt, add_generation_prompt=True)
    all_ids = ids(tokenizer, prompt + completion)
    mask = [0] * len(prompt_ids) + [1] * (len(all_ids) - len(prompt_ids))
    is_prefix = all_ids[: len(prompt_ids)] == prompt_ids
    return {"input_ids": all_ids, "completion_mask": mask, "is_prefix": is_prefix}


def truncate(rows: dict, max_length: int) -> dict:
    return {name: [value[:max_length] for value in rows[name]] for name in rows}


def peak_bytes(who: int) -> int:
    return resource.getrusage(who).ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True, help="folder with tokenizer.json")
    parser.add_argument("--num-proc", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=1024, help="SFTConfig's default")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as cache:
        os.environ["HF_DATASETS_CACHE"] = cache
        # Both read their variables when they are imported.
        import datasets
        import transformers

        datasets.disable_progress_bars()
        tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.tokenizer)
        tokenizer.chat_template = CHATML
        begun = time.perf_counter()
        rows = datasets.load_dataset("json", data_files=arguments.data, split="train")
        loaded = time.perf_counter()
        rows = rows.map(
            tokenize,
            fn_kwargs={"tokenizer": tokenizer},
            remove_columns=rows.column_names,
            num_proc=arguments.num_proc,
        )
        tokenized = time.perf_counter()
        unstable = len(rows) - sum(rows["is_prefix"])
        checked = time.perf_counter()
        rows = rows.select_columns(["input_ids", "completion_mask"]).map(
            truncate,
            batched=True,
            fn_kwargs={"max_length": arguments.max_length},
            num_proc=arguments.num_proc,
        )
        # Without the look at the prefixes, for which TRL only warns row by row.
        done = time.perf_counter() - (checked - tokenized)
        tokens = sum(len(row) for batch in rows.iter(1000) for row in batch["input_ids"])
        print(
            json.dumps(
                {
                    "rows": len(rows),
                    "rows_per_s": round(len(rows) / (done - begun), 1),
                    "rows_per_s_tokenize_only": round(len(rows) / (tokenized - loaded), 1),
                    "seconds": round(done - begun, 2),
                    "tokens": tokens,
                    "rows_not_prefix_exact": unstable,
                    # Of the main process, and of the largest worker; workers run at once.
                    "peak_memory_bytes": peak_bytes(resource.RUSAGE_SELF),
                    "peak_memory_worker_bytes": peak_bytes(resource.RUSAGE_CHILDREN),
                    "num_proc": arguments.num_proc,
                    "versions": {
                        "datasets": datasets.__version__,
                        "transformers": transformers.__version__,
                    },
                }
            )
        )


if __name__ == "__main__":
    main()
