"""A bare PyTorch loop with PEFT's LoRA: the fastest that a careful user of PyTorch gets.

Over instruction rows (`--rows`), sorted into batches by length, or over random ids of one length
(`--random 8x256`), of which every one is learned. Padding stands on the right, where causal
attention never looks, so that no mask is needed; `--head learned` computes logits only where
there is something to learn.
"""

import time
from pathlib import Path

import peer

arguments = peer.parser(__doc__)
source = arguments.add_mutually_exclusive_group(required=True)
source.add_argument("--rows", type=Path)
source.add_argument("--random", metavar="SEQUENCESxTOKENS")
arguments.add_argument("--warm-up", type=Path, help="with --rows: rows that are not timed")
arguments.add_argument("--steps", type=int, default=3, help="with --random: timed steps")
arguments.add_argument("--batch", type=int, default=8, help="with --rows: rows in a step")
arguments.add_argument("--rank", type=int, default=16)
arguments.add_argument("--alpha", type=int, default=32)
arguments.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
arguments.add_argument("--head", choices=["all", "learned"], default="all")
arguments.add_argument("--compile", action="store_true")
arguments = arguments.parse_args()

import torch  # noqa: E402
from peft import get_peft_model  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

import model  # noqa: E402
import rows  # noqa: E402

IGNORED = -100


class Batch:
    """Ids [B, T], and the ids to learn at the flat places [N] that they are read from."""

    def __init__(self, ids: torch.Tensor, labels: torch.Tensor, real_tokens: int):
        # What stands at t is learned from t - 1; the last place reads nothing.
        shifted = torch.full_like(labels, IGNORED)
        shifted[:, :-1] = labels[:, 1:]
        shifted = shifted.flatten()
        self.ids, self.real_tokens = ids, real_tokens
        if arguments.head == "learned":
            self.places = (shifted != IGNORED).nonzero().squeeze(1)
            self.targets = shifted[self.places]
        else:
            self.places, self.targets = None, shifted


def batches_of(path: Path, tokenizer) -> list[Batch]:
    every = rows.tokenized(path, tokenizer)
    groups = [every[i : i + arguments.batch] for i in range(0, len(every), arguments.batch)]
    return [padded(group) for group in groups]


def padded(group: list[rows.Row]) -> Batch:
    length = max(len(row.ids) for row in group)
    ids = torch.zeros(len(group), length, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for at, row in enumerate(group):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        labels[at, row.learned_from : len(row.ids)] = torch.tensor(row.ids[row.learned_from :])
    return Batch(ids, labels, sum(len(row.ids) for row in group))


def random_batch(vocab_size: int) -> Batch:
    sequences, tokens = map(int, arguments.random.split("x"))
    ids = torch.randint(0, vocab_size, (sequences, tokens))
    return Batch(ids, ids, ids.numel())


def loss_of(decoder, batch_ids, places, targets):
    """Mean loss of the learned tokens, over a causal model with adapters in it."""
    hidden = decoder.model(input_ids=batch_ids, use_cache=False).last_hidden_state.flatten(0, 1)
    if places is not None:
        hidden = hidden[places]
    return cross_entropy(decoder.lm_head(hidden).float(), targets, ignore_index=IGNORED)


def graphs() -> int:
    """How many graphs have been compiled so far."""
    if not arguments.compile:
        return 0
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def main() -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    base = model.load(arguments.model, arguments.dtype)
    adapted = get_peft_model(base, model.lora(arguments.rank, arguments.alpha))
    # PEFT keeps adapters of a bf16 model in f32, which costs a conversion at every layer.
    adapted.to(model.DTYPES[arguments.dtype]).train()
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0, fused=True)
    decoder = adapted.get_base_model()
    # One shape needs no dynamic dimensions, and without them the code is faster.
    dynamic = arguments.rows is not None
    compute_loss = torch.compile(loss_of, dynamic=dynamic) if arguments.compile else loss_of

    def train(batches: list[Batch]) -> list[float]:
        """Trains a step on every batch; returns the seconds that each took."""
        seconds = []
        for batch in batches:
            begun = time.perf_counter()
            loss = compute_loss(decoder, batch.ids, batch.places, batch.targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - begun)
        losses.append(loss.item())
        return seconds

    losses: list[float] = []
    if arguments.rows:
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        timed = batches_of(arguments.rows, tokenizer)
        # Shortest and longest: what is compiled for both does for what lies between.
        train(batches_of(arguments.warm_up, tokenizer) + [timed[0], timed[-1]])
    else:
        timed = [random_batch(base.config.vocab_size)] * arguments.steps
        train(timed[:1] * 2)
    known = graphs()
    seconds = train(timed)
    if graphs() != known:
        # Something was compiled after all: what is measured is the epoch after it.
        seconds = train(timed)
    done = sum(seconds) if arguments.rows else sorted(seconds)[len(seconds) // 2] * len(seconds)
    tokens = sum(batch.real_tokens for batch in timed)
    row_count = sum(len(batch.ids) for batch in timed)
    peer.report(
        ["torch", "transformers", "peft"],
        rows=row_count,
        rows_per_s=row_count / done,
        tokens=tokens,
        tokens_per_s=tokens / done,
        seconds=done,
        steps=len(timed),
        loss=losses[-1],
    )


main()
