"""What attention costs when it is looked at: one head's row, sentence × sentence of a layer, and its own memory.

    python benchmarks/attention_kernel.py [--rounds 9] [--tokens 8192] [--row-tokens 32768]

The shape of gpt-oss: 64 heads on 8 kv heads of 64 numbers, bfloat16, a full layer; one thread. Beside plain numpy, of
which a row reads the same captured arrays, and of which sentences take one head's whole token × token array, in half
the work of all that a mask would hide; it runs for one head, and its time is times the heads.

The floor of sentence × sentence is ``pairs · 64 / multiply-adds per second + pairs / exponentials per second``, with
pairs of a query and a key that is not after it, the causal half alone. The two rates are what numpy reaches on this
thread in the same round: a 1,024³ matrix product in float32, and exp of 65,536 float32 that stay in the cache. It
leaves out reading, masking, summing and dividing. Scores whose exponentials leave float32 are shifted by each row's
highest first, others need not be: both are measured (scores with a deviation of 1 and of 36), and the target is for
both.

Memory is measured in a process of its own, every 2 ms; the result itself is not counted.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before numpy reads them

import ml_dtypes
import numpy as np
from _rounds import Times, environment, measure, quartiles, ratio, verdict, write
from numpy.typing import NDArray

from workbench.analysis.attention import attention_to_spans
from workbench.trace import Span, Trace

HEADS, KV_HEADS, D_HEAD = 64, 8, 64
PRODUCT, EXPONENTIALS, REPEATS = 1024, 1 << 16, 400
ROWS = 10  # in a row's time, of which the mean is taken
AMPLITUDE = {"sentences": 1.0, "sentences, large scores": 6.0}
ROW_TARGET_MS, FLOOR_TARGET, MEMORY_TARGET_MB = 5.0, 1.5, 80.0


def made_up(tokens: int, heads: int, kv_heads: int, amplitude: float = 1.0) -> Trace:
    """One full layer, and sentences of 5 to 35 tokens that leave no token out."""
    rng = np.random.default_rng(2)

    def normal(*shape: int) -> NDArray[Any]:
        return (amplitude * rng.standard_normal(shape, dtype=np.float32)).astype(ml_dtypes.bfloat16)

    stops = np.cumsum(rng.integers(5, 36, tokens // 5))
    edges = [0, *(int(stop) for stop in stops[stops < tokens]), tokens]
    sentences = (Span(a, b, a, "sentence", "assistant", "analysis") for a, b in pairwise(edges))
    arrays = {
        "token_ids": np.zeros(tokens, np.int32),
        "queries": normal(1, heads, tokens, D_HEAD),
        "keys": normal(1, kv_heads, tokens, D_HEAD),
        "sink_logits": np.zeros((1, heads), np.float32),
    }
    meta = {"num_prompt_tokens": 0, "attention": {"scale": D_HEAD**-0.5, "windows": [None]}}
    return Trace(arrays, tuple(sentences), meta)


def sentences(trace: Trace) -> NDArray[Any]:
    """[head, sentence, sentence]"""
    return attention_to_spans(trace, 0, trace.sentences).mass.values


def plain_sentences(trace: Trace, head: int = 0) -> NDArray[Any]:
    """Return the same of one head from its whole array, as one writes it down."""
    queries, keys, sinks, scale, _ = trace.attention_inputs(0, head)
    scores = queries[0].astype(np.float32) @ keys[0].astype(np.float32).T * np.float32(scale)
    scores[np.triu_indices(len(scores), 1)] = -np.inf
    assert sinks is not None
    pattern = softmax_with_sink(scores, sinks[0])
    starts = [sentence.start for sentence in trace.sentences]
    lengths = np.array([len(sentence) for sentence in trace.sentences])
    by_key = np.add.reduceat(pattern, starts, axis=1)
    mass: NDArray[Any] = np.add.reduceat(by_key, starts, axis=0) / lengths[:, None]
    return mass


def softmax_with_sink(scores: NDArray[np.float32], sink: np.float32) -> NDArray[np.float32]:
    top = np.maximum(scores.max(-1, keepdims=True), sink)
    weights = np.exp(scores - top)
    pattern: NDArray[np.float32] = weights / (weights.sum(-1, keepdims=True) + np.exp(sink - top))
    return pattern


def rows(trace: Trace, head: int = 5) -> NDArray[Any]:
    """Return the last rows, one call each, as a step from token to token asks for them."""
    return np.stack([trace.attention(0, head, rows=[len(trace) - 1 - at]).pattern[0, 0] for at in range(ROWS)])


def plain_rows(trace: Trace, head: int = 5) -> NDArray[Any]:
    kv_head = head // (trace.arrays["queries"].shape[1] // trace.arrays["keys"].shape[1])
    found = np.zeros((ROWS, len(trace)), np.float32)
    for at in range(ROWS):
        row = len(trace) - 1 - at
        keys = trace.arrays["keys"][0, kv_head, : row + 1].astype(np.float32)
        scores = keys @ trace.arrays["queries"][0, head, row].astype(np.float32) * np.float32(D_HEAD**-0.5)
        found[at, : row + 1] = softmax_with_sink(scores, trace.arrays["sink_logits"][0, head])
    return found


def rates() -> dict[str, Callable[[], Any]]:
    """Return what the two rates are taken from."""
    square = np.random.default_rng(3).standard_normal((PRODUCT, PRODUCT), dtype=np.float32)
    scores = -np.abs(square.ravel()[:EXPONENTIALS]).copy()
    product, weights = np.empty_like(square), np.empty_like(scores)

    def exponentials() -> None:
        for _ in range(REPEATS):
            np.exp(scores, out=weights)

    return {
        "a million multiply-adds": partial(np.matmul, square, square, out=product),
        "a million exponentials": exponentials,
    }


# --- own memory, in a process of its own --------------------------------------------------------------------------


def anonymous_mb() -> float:
    """Return the memory that is this process's own."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1000


def memory(tokens: int) -> dict[str, float]:
    """Return by how much own memory grew at most, the result's part of it, and what all at once would take, in MB."""
    sentences(made_up(min(tokens, 256), HEADS, KV_HEADS))  # what the libraries take once
    trace = made_up(tokens, HEADS, KV_HEADS)
    before, peak, done = anonymous_mb(), [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], anonymous_mb() - before)

    watcher = threading.Thread(target=look)
    watcher.start()
    result = sentences(trace)
    done.set()
    watcher.join()
    # The sums over segments, which are the sentences here, and the same by span.
    result_mb = 2 * result.nbytes / 1e6
    return {"grew": peak[0], "result": result_mb, "token_by_token": HEADS * tokens**2 * 4 / 1e6}


# --- the report --------------------------------------------------------------------------------------------------


def check(found: dict[str, Trace], row: Trace) -> None:
    """All ways must agree before they are timed."""
    for trace in found.values():
        expected = plain_sentences(trace)
        expected[np.triu_indices(len(expected), 1)] = np.nan
        np.testing.assert_allclose(sentences(trace)[0], expected, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(rows(row), plain_rows(row), atol=7e-7)


def run(tokens: int, row_tokens: int, rounds: int) -> dict[str, Any]:
    row = made_up(row_tokens, HEADS // KV_HEADS, 1)
    layers = {name: made_up(tokens, HEADS, KV_HEADS, amplitude) for name, amplitude in AMPLITUDE.items()}
    check(layers, row)
    ways: dict[str, Callable[[], Any]] = {
        **rates(),
        **{name: partial(sentences, trace) for name, trace in layers.items()},
        "plain numpy, one head": partial(plain_sentences, layers["sentences"]),
        "plain numpy, one head, again": partial(plain_sentences, layers["sentences"]),
        "rows": partial(rows, row),
        "plain numpy, rows": partial(plain_rows, row),
    }
    times = measure(ways, rounds)
    pairs = HEADS * tokens * (tokens + 1) / 2
    report = {
        "pairs": pairs,
        "sentences": len(layers["sentences"].sentences),
        **of_rates(times),
        "layer": of_layer(times, pairs),
        "row": of_row(times, row_tokens),
    }
    return report | {"memory_mb": of_memory(tokens)}


def of_rates(times: dict[str, Times]) -> dict[str, Any]:
    """Print and return the rates, per second and in 10⁹."""
    counts = {"a million multiply-adds": PRODUCT**3, "a million exponentials": REPEATS * EXPONENTIALS}
    found = {}
    for name, count in counts.items():
        what = name.removeprefix("a million ")
        found[what] = quartiles([count / seconds / 1e9 for seconds in times[name].wall])
        print(f"{what:16} {found[what][1]:7.2f} [{found[what][0]:.2f}–{found[what][2]:.2f}] thousand million a second")
    return {"rates_1e9": found}


def of_layer(times: dict[str, Times], pairs: float) -> dict[str, Any]:
    product, exponentials = (np.array(times[name].wall) for name in rates())
    floor = pairs * D_HEAD * product / PRODUCT**3 + pairs * exponentials / (REPEATS * EXPONENTIALS)
    plain = np.array(times["plain numpy, one head"].wall) * HEADS
    walls = {"floor": floor, **{name: np.array(times[name].wall) for name in AMPLITUDE}, "plain numpy": plain}
    found: dict[str, Any] = {}
    print(
        f"\nsentence × sentence of a layer, {HEADS} heads, {pairs / 1e6:,.0f} million pairs: seconds, times the floor"
    )
    for name, seconds in walls.items():
        found[name] = {"seconds": quartiles(seconds), "ratio": ratio(seconds, floor)}
        low, middle, high = found[name]["seconds"]
        print(f"  {name:28} {middle:8.3f} [{low:.3f}–{high:.3f}] {found[name]['ratio']['median']:7.2f}x")
    again = times["plain numpy, one head, again"].wall
    found["control"] = ratio(again, times["plain numpy, one head"].wall)
    middle, (low, high) = found["control"].values()
    print(f"  plain numpy, run twice: ratio {middle:.3f}, 95 % interval {low:.3f}–{high:.3f}")
    return found


def of_row(times: dict[str, Times], tokens: int) -> dict[str, Any]:
    found = {}
    print(f"\none head's row of {tokens:,} tokens: ms")
    for name in ("rows", "plain numpy, rows"):
        found[name] = quartiles([1000 * seconds / ROWS for seconds in times[name].wall])
        low, middle, high = found[name]
        print(f"  {name:28} {middle:8.3f} [{low:.3f}–{high:.3f}]")
    return found


def of_memory(tokens: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--watch", "--tokens", str(tokens)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found["beyond_result"] = found["grew"] - found["result"]
    print(
        f"\nown memory while it runs: {found['grew']:.1f} MB, of which the result {found['result']:.1f} MB; all heads "
        f"token × token would take {found['token_by_token']:,.0f} MB"
    )
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--tokens", type=int, default=8192)
    options.add_argument("--row-tokens", type=int, default=32_768)
    options.add_argument("--out", type=Path)
    options.add_argument("--watch", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.watch:
        print(json.dumps(memory(given.tokens)))
        return
    about = environment("moe-workbench", "numpy", "ml_dtypes")
    about["blas"] = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index, call-overload]
    sizes = {"tokens": given.tokens, "row_tokens": given.row_tokens, "rounds": given.rounds}
    print(f"one thread of {about['cpu']}, {sizes}; {about['versions']}, {about['blas']['name']}\n")
    report = run(given.tokens, given.row_tokens, given.rounds)
    print()
    targets = [
        *(
            verdict(f"{name}, times the floor", report["layer"][name]["ratio"]["median"], FLOOR_TARGET)
            for name in AMPLITUDE
        ),
        verdict("one head's row", report["row"]["rows"][1], ROW_TARGET_MS, " ms"),
        verdict("own memory beyond the result", report["memory_mb"]["beyond_result"], MEMORY_TARGET_MB, " MB"),
    ]
    write("attention_kernel", {**about, **sizes, **report, "targets": targets}, given.out)


if __name__ == "__main__":
    main()
