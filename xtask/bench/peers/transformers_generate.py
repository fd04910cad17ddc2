"""transformers' generate: so many new tokens after random prompts, or the first after a cold start.

Timed is what comes after the first new token, which the prompt's own pass gives; the figure with
the prompt stands beside it.
"""

import time

import peer

arguments = peer.parser(__doc__)
arguments.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
arguments.add_argument("--sequences", type=int, default=1)
arguments.add_argument("--prompt-tokens", type=int, default=48)
arguments.add_argument("--new-tokens", type=int, default=64)
arguments.add_argument("--start", metavar="PROMPT", help="load, answer one token, and no more")
arguments = arguments.parse_args()

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

IMPORTED = time.perf_counter()
PACKAGES = ["transformers", "torch"]


class Clock(StoppingCriteria):
    """Looks at the clock after every new token, and never stops."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores, **_):
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def load():
    dtype = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
    return AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).eval()


def start() -> None:
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": arguments.start}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    answer = load().generate(**prompt, max_new_tokens=1, do_sample=False)
    text = tokenizer.decode(answer[0, -1:])
    seconds = time.perf_counter() - IMPORTED
    peer.report(PACKAGES, seconds=seconds, text=text)


def decode() -> None:
    torch.manual_seed(1)
    loaded = load()
    shape = (arguments.sequences, arguments.prompt_tokens)
    prompts = torch.randint(0, loaded.config.vocab_size, shape)

    def generate(new_tokens: int, clock: Clock) -> None:
        loaded.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            do_sample=False,
            stopping_criteria=[clock],
        )

    generate(4, Clock())
    clock = Clock()
    begun = time.perf_counter()
    generate(arguments.new_tokens, clock)
    assert len(clock.times) == arguments.new_tokens
    seconds = clock.times[-1] - clock.times[0]
    new_tokens = arguments.sequences * (arguments.new_tokens - 1)
    peer.report(
        PACKAGES,
        tokens_per_s=new_tokens / seconds,
        seconds=seconds,
        tokens_per_s_with_prompt=arguments.sequences
        * arguments.new_tokens
        / (clock.times[-1] - begun),
    )


torch.set_num_threads(arguments.threads)
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
with torch.inference_mode():
    start() if arguments.start else decode()
