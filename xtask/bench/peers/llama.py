"""llama.cpp through llama-cpp-python: decoding side by side, a long prompt, or a cold start.

Decoding takes one batch of one token per sequence through `llama_decode`, as llama.cpp's own
`batched-bench` does; each sequence goes on with its likeliest token. Timed is what comes after
the first new token, which the prompt's own pass gives.
"""

import ctypes
import os
import random
import time

import peer

arguments = peer.parser(__doc__)
work = arguments.add_mutually_exclusive_group(required=True)
work.add_argument("--sequences", type=int, help="decode so many at a time")
work.add_argument("--prompt", type=int, metavar="TOKENS", help="process a prompt of this length")
work.add_argument("--start", metavar="PROMPT", help="load, answer one token, and no more")
arguments.add_argument("--prompt-tokens", type=int, default=48)
arguments.add_argument("--new-tokens", type=int, default=64)
arguments = arguments.parse_args()

import llama_cpp  # noqa: E402
import numpy as np  # noqa: E402

IMPORTED = time.perf_counter()
PACKAGES = ["llama-cpp-python"]


class Session:
    """A model, a context for so many sequences of so many tokens, and a batch to fill."""

    def __init__(self, sequences: int, tokens: int):
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        path = os.fsencode(arguments.model)
        self.model = llama_cpp.llama_model_load_from_file(path, options)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {arguments.model}")
        options = llama_cpp.llama_context_default_params()
        options.n_seq_max = sequences
        # Contexts are sized in steps of 256 tokens a sequence.
        options.n_ctx = sequences * -(-tokens // 256) * 256
        options.n_batch = options.n_ctx
        options.n_threads = options.n_threads_batch = arguments.threads
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        if not self.context:
            raise SystemExit("llama.cpp makes no context")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.batch = llama_cpp.llama_batch_init(options.n_batch, 0, 1)

    def decode(self, tokens: list[tuple[int, int, int, bool]]) -> None:
        """Computes (id, position, sequence, whether its logits are wanted) in one batch."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for at, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[at], batch.pos[at] = token, position
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
            batch.logits[at] = wanted
        code = llama_cpp.llama_decode(self.context, batch)
        if code:
            raise SystemExit(f"llama_decode says {code}")

    def likeliest(self, at: int) -> int:
        """The likeliest token by the logits of the batch's entry."""
        logits = llama_cpp.llama_get_logits_ith(self.context, at)
        kind = ctypes.POINTER(ctypes.c_float * self.vocab_size)
        return int(np.frombuffer(ctypes.cast(logits, kind).contents, np.float32).argmax())

    def forget(self) -> None:
        memory = llama_cpp.llama_get_memory(self.context)
        llama_cpp.llama_memory_clear(memory, True)


def prompts(session: Session, sequences: int, length: int) -> list[list[int]]:
    draw = random.Random(1)
    return [[draw.randrange(session.vocab_size) for _ in range(length)] for _ in range(sequences)]


def decode(sequences: int) -> None:
    length = arguments.prompt_tokens
    session = Session(sequences, length + arguments.new_tokens)
    given = prompts(session, sequences, length)

    def generate(new_tokens: int) -> tuple[float, float]:
        """Seconds of the prompts' pass, and of all new tokens but the first."""
        session.forget()
        begun = time.perf_counter()
        session.decode(
            [
                (token, position, sequence, position == length - 1)
                for sequence, prompt in enumerate(given)
                for position, token in enumerate(prompt)
            ]
        )
        tokens = [session.likeliest((at + 1) * length - 1) for at in range(sequences)]
        between = time.perf_counter()
        for position in range(length, length + new_tokens - 1):
            session.decode([(token, position, at, True) for at, token in enumerate(tokens)])
            tokens = [session.likeliest(at) for at in range(sequences)]
        return between - begun, time.perf_counter() - between

    generate(4)
    prompt_seconds, seconds = generate(arguments.new_tokens)
    peer.report(
        PACKAGES,
        tokens_per_s=sequences * (arguments.new_tokens - 1) / seconds,
        seconds=seconds,
        tokens_per_s_with_prompt=sequences
        * arguments.new_tokens
        / (prompt_seconds + seconds),
    )


def prompt(length: int) -> None:
    session = Session(1, length)
    (given,) = prompts(session, 1, length)
    entries = [(token, at, 0, at == length - 1) for at, token in enumerate(given)]
    seconds = []
    for _ in range(4):
        session.forget()
        begun = time.perf_counter()
        session.decode(entries)
        session.likeliest(length - 1)
        seconds.append(time.perf_counter() - begun)
    # Without the first, which warms up.
    middle = sorted(seconds[1:])[1]
    peer.report(PACKAGES, tokens_per_s=length / middle, seconds=middle)


def start(text: str) -> None:
    model = llama_cpp.Llama(
        arguments.model, n_ctx=256, n_threads=arguments.threads, verbose=False
    )
    message = {"role": "user", "content": text}
    answer = model.create_chat_completion([message], max_tokens=1, temperature=0.0)
    seconds = time.perf_counter() - IMPORTED
    peer.report(PACKAGES, seconds=seconds, text=answer["choices"][0]["message"]["content"])


# Kept, for what C calls must not be collected.
silent = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(silent, ctypes.c_void_p())
if arguments.sequences:
    decode(arguments.sequences)
elif arguments.prompt:
    prompt(arguments.prompt)
else:
    start(arguments.start)
