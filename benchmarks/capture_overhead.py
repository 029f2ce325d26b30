"""What capture costs: seconds of plain generation beside router-only and full capture, interleaved in one process.

    python benchmarks/capture_overhead.py [repeats]

The same prompt, greedy, the same number of tokens, one thread. Each round runs every way once, in turn, so that a
machine that slows down slows all of them; a ratio is taken within a round and the median over the rounds is printed.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
import transformers
from transformers import GenerationConfig

import workbench as wb
from workbench.harmony import render

QUESTION = "91 + 40 + 98 + 66 = ?"
TOKENS = 128
PLAIN = "transformers generate"


def ways(model: wb.Model) -> dict[str, Callable[[], int]]:
    prompt = torch.tensor([render(model.tokenizer, QUESTION, "high")])
    config = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=model.end_token_ids, pad_token_id=0)

    def plain() -> int:
        with torch.no_grad():
            ids = model.hf.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
        return ids.shape[1] - prompt.shape[1]

    def captured(spec: wb.CaptureSpec) -> Callable[[], int]:
        def run() -> int:
            trace = wb.capture(model, QUESTION, effort="high", temperature=0, max_new_tokens=TOKENS, capture=spec)
            return len(trace) - trace.num_prompt_tokens

        return run

    return {
        PLAIN: plain,
        "capture: router": captured(wb.CaptureSpec(attention=False, lens=False)),
        "capture: default": captured(wb.CaptureSpec()),
        "capture: all": captured(wb.CaptureSpec(residual=True)),
    }


def measure(ways: dict[str, Callable[[], int]], repeats: int) -> tuple[dict[str, list[float]], int]:
    tokens = {name: run() for name, run in ways.items()}  # once without counting
    assert len(set(tokens.values())) == 1, f"the ways generated different numbers of tokens: {tokens}"
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds, tokens[PLAIN]


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    torch.set_num_threads(1)
    model = wb.load("tiny", device="cpu")
    seconds, tokens = measure(ways(model), repeats)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{model}; {tokens} new tokens, {repeats} rounds, one thread; {versions}")
    print(f"{'':24} {'ms/token':>9} {'ratio':>7} {'lowest':>7} {'highest':>8}")
    for name, values in seconds.items():
        ratios = [value / plain for value, plain in zip(values, seconds[PLAIN], strict=True)]
        per_token = 1000 * median(values) / tokens
        print(f"{name:24} {per_token:9.2f} {median(ratios):7.2f} {min(ratios):7.2f} {max(ratios):8.2f}")


if __name__ == "__main__":
    main()
