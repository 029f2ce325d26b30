"""Trace files: opening 100,000 tokens and reading one, beside a bare numpy.memmap; and what a crash-safe append costs.

    python benchmarks/trace_files.py [--rounds 30] [--tokens 100000] [--folder FOLDER]

The trace has the shape of gpt-oss-20b without attention and residual stream, which at this length would be 36 GB. The
file lies in the page cache: it was written and read just before. numpy.memmap is told what a file has to say itself:
names, dtypes, shapes, offsets, and nothing is checked; it maps the same arrays of the same file. One token is a row
of each of them, copied out: with `trace[token]`, and with numpy indexing. Spans are one sentence per 20 tokens.

The append is timed in the thread that generates, with the writer idle, which it is when a token takes longer than
writing one: taking a stretch of 64 tokens, copying it to host memory, and handing it over; for a capture of the
router, and one of everything but the residual stream. The thread that writes the shards is timed beside it.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before the libraries read them

import ml_dtypes
import numpy as np
import torch
from _rounds import environment, measure, quartiles, ratio, verdict, write
from numpy.typing import NDArray

import workbench as wb
from workbench.collect import Collector
from workbench.hooks import Recorder
from workbench.ring import STRETCH_ROWS, Ring, Stretch
from workbench.shards import ShardWriter
from workbench.trace import DIMS, Span
from workbench.trace_file import FORMAT, save_trace

LAYERS, EXPERTS, TOP_K, HEADS, KV_HEADS, D_HEAD = 24, 32, 4, 64, 8, 64  # of gpt-oss-20b
TOKENS_PER_SENTENCE = 20
READ = 200  # tokens a round
OPEN_TARGET, READ_TARGET, MEMMAP_TARGET, APPEND_TARGET = 200.0, 0.2, 1.5, 10.0  # ms, ms, ratio, µs
MEMMAP = "numpy.memmap"

Arrays = dict[str, NDArray[Any]]


def made_up(tokens: int) -> Arrays:
    """Arrays of one row per token, in the dtypes of a bfloat16 model."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int, dtype: Any) -> NDArray[Any]:
        return rng.standard_normal((tokens, *shape), dtype=np.float32).astype(dtype)

    return {
        "token_ids": rng.integers(0, 500, tokens, dtype=np.int32),
        "logprobs": numbers(dtype=np.float32),
        "entropy": numbers(dtype=np.float32),
        "top_token_ids": rng.integers(0, 500, (tokens, 5), dtype=np.int32),
        "top_logprobs": numbers(5, dtype=np.float16),
        "expert_indices": rng.integers(0, EXPERTS, (tokens, LAYERS, TOP_K), dtype=np.uint8),
        "expert_weights": numbers(LAYERS, TOP_K, dtype=ml_dtypes.bfloat16),
        "router_logits": numbers(LAYERS, EXPERTS, dtype=ml_dtypes.bfloat16),
        "lens_token_ids": rng.integers(0, 500, (tokens, LAYERS, 3), dtype=np.int32),
        "lens_logprobs": numbers(LAYERS, 3, dtype=np.float16),
    }


# --- opening and reading -----------------------------------------------------------------------------------------


def write_trace(path: Path, tokens: int) -> None:
    starts = range(0, tokens - TOKENS_PER_SENTENCE, TOKENS_PER_SENTENCE)
    spans = [Span(0, tokens, 0, "message", "assistant", "analysis")]
    spans += [Span(start, start + TOKENS_PER_SENTENCE, start, "sentence", "assistant") for start in starts]
    save_trace(wb.Trace(made_up(tokens), tuple(spans), {"num_prompt_tokens": 0}), path, durable=False)
    path.read_bytes()


def memmaps(path: Path) -> Callable[[], Arrays]:
    """Return what maps the arrays of a trace file with numpy alone, knowing where they are."""
    trace = wb.open_trace(path)
    begin = int.from_bytes(path.read_bytes()[:8], "little") + 8
    wide_first = sorted(trace.arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))  # docs/trace-format.md
    offsets = begin + np.cumsum([0, *(array.nbytes for _, array in wide_first)])
    known = [(n, a.dtype, a.shape, int(o)) for (n, a), o in zip(wide_first, offsets, strict=False)]

    def open_all() -> Arrays:
        return {n: np.memmap(path, dtype, "r", offset, shape) for n, dtype, shape, offset in known}

    for name, array in open_all().items():
        assert array[-1].tobytes() == trace.arrays[name][-1].tobytes(), name
    return open_all


def time_files(folder: Path, tokens: int, rounds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = folder / "long.safetensors"
    write_trace(path, tokens)
    trace, open_memmaps = wb.open_trace(path), memmaps(path)
    maps, names = open_memmaps(), list(trace.captured)
    some = [int(token) for token in np.random.default_rng(1).integers(0, tokens, READ)]

    def open_with_header() -> Any:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return open_memmaps(), json.loads(header["__metadata__"][FORMAT])

    def read_views() -> None:
        for token in some:
            row = trace[token]
            for name in names:
                np.array(row.array(name).values)

    def read(arrays: Arrays) -> None:
        for token in some:
            for name in names:
                np.array(arrays[name][token])

    print(f"\n{tokens:,} tokens, {len(trace.spans):,} spans, {path.stat().st_size / 1e6:.0f} MB")
    bare_open, bare_read = open_memmaps, partial(read, maps)
    opening = time_ways(
        "open",
        {
            "wb.open_trace": lambda: wb.open_trace(path),
            MEMMAP: bare_open,
            f"{MEMMAP}, again": bare_open,
            f"{MEMMAP}, and json of the header": open_with_header,
        },
        1,
        rounds,
    )
    reading = time_ways(
        "read one token",
        {
            "trace[token]": read_views,
            "trace.arrays": partial(read, dict(trace.arrays)),
            MEMMAP: bare_read,
            f"{MEMMAP}, again": bare_read,
        },
        READ,
        rounds,
    )
    targets = [
        verdict("open", opening["wb.open_trace"]["ms"][1], OPEN_TARGET, " ms"),
        verdict("read one token, trace[token]", reading["trace[token]"]["ms"][1], READ_TARGET, " ms"),
    ]
    for what, found in (("open", opening), ("read one token", reading)):
        targets += [
            verdict(f"{what}, {name} / {MEMMAP}", values["ratio"]["median"], MEMMAP_TARGET, "x")
            for name, values in found.items()
            if MEMMAP not in name
        ]
    return {"open": opening, "read": reading}, targets


def time_ways(what: str, ways: dict[str, Callable[[], Any]], times: int, rounds: int) -> dict[str, Any]:
    """Time ways that do something so many times, and print milliseconds for one."""
    taken = measure(ways, rounds)
    found = {}
    for name, seconds in taken.items():
        low, middle, high = quartiles([1000 * s / times for s in seconds.wall])
        beside = ratio(seconds.wall, taken[MEMMAP].wall)
        interval = "{:.2f}–{:.2f}".format(*beside["interval"])
        print(f"{what:15} {name:36} {middle:9.4f} ms [{low:.4f}–{high:.4f}] {beside['median']:7.2f}x [{interval}]")
        found[name] = {"ms": [low, middle, high], "ratio": beside}
    return found


# --- appending ---------------------------------------------------------------------------------------------------


def time_append(folder: Path, rounds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    model = wb.load("tiny", device="cpu")  # for its tokenizer
    rows = made_up(STRETCH_ROWS)
    rng = np.random.default_rng(0)
    attention = {
        "queries": rng.standard_normal((LAYERS, HEADS, STRETCH_ROWS, D_HEAD), dtype=np.float32).astype(
            ml_dtypes.bfloat16
        ),
        "keys": rng.standard_normal((LAYERS, KV_HEADS, STRETCH_ROWS, D_HEAD), dtype=np.float32).astype(
            ml_dtypes.bfloat16
        ),
        "attention_logsumexp": rng.standard_normal((STRETCH_ROWS, LAYERS, HEADS), dtype=np.float32),
    }
    router = {name: array for name, array in rows.items() if not name.startswith("lens")}
    found: dict[str, Any] = {}
    targets = []
    for name, arrays in (("router", router), ("everything but the residual stream", rows | attention)):
        found[name] = append(model, folder / f"{len(found)}.safetensors", arrays, rounds)
        for part, values in found[name].items():
            low, middle, high = values
            print(f"{name:36} {part:46} {middle:9.2f} µs/token [{low:.2f}–{high:.2f}]")
        total = sum(values[1] for part, values in found[name].items() if part.startswith("generating"))
        targets.append(verdict(f"append, generating thread, {name}", total, APPEND_TARGET, " µs/token"))
    return found, targets


def append(model: wb.Model, path: Path, arrays: Arrays, rounds: int) -> dict[str, list[float]]:
    """Return quartiles of µs per token of each part of handing stretches to the writer thread."""
    spec = wb.CaptureSpec(router=False, attention=False, lens=False)  # whose arrays come from elsewhere
    collector = Collector(model, spec, Recorder())
    writer = ShardWriter(path, collector, {"num_prompt_tokens": 0, "attention": {}, "layers": {}})
    row_dim = {name: DIMS[name].index("token") for name in arrays}
    tensors = {name: as_tensor(array).movedim(row_dim[name], 0) for name, array in arrays.items()}
    parts: dict[str, list[float]] = {
        "generating thread: take and hand over": [],
        "generating thread: copy to host memory": [],
        "writer thread: write the shard": [],
        "writer thread: of that, processor time": [],
    }
    handing, copying, writing, busy = parts.values()
    written = threading.Event()

    def receive(stretch: Stretch) -> None:
        start, cpu = time.perf_counter(), time.thread_time()
        received = {name: as_array(tensor, arrays[name].dtype) for name, tensor in stretch.receive().items()}
        writer.write({name: np.moveaxis(array, 0, row_dim[name]) for name, array in received.items()})
        writing.append(time.perf_counter() - start)
        busy.append(time.thread_time() - cpu)
        written.set()

    ring = Ring(torch.device("cpu"), receive)
    ring.start()
    with writer:
        for number in range(rounds + 3):
            written.clear()
            times = [time.perf_counter()]
            stretch = ring.take()
            times.append(time.perf_counter())
            stretch.start = number
            stretch.send(tensors)
            times.append(time.perf_counter())
            ring.give(stretch)
            times.append(time.perf_counter())
            handing.append(times[1] - times[0] + times[3] - times[2])
            copying.append(times[2] - times[1])
            if not written.wait(60):
                break  # the writer failed, and closing says how
        ring.close()
    # The first stretches allocate their buffers.
    return {part: quartiles([1e6 * s / STRETCH_ROWS for s in values[3:]]) for part, values in parts.items()}


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_array(tensor: torch.Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    return tensor.view(torch.int16).numpy().view(dtype) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--tokens", type=int, default=100_000)
    options.add_argument("--folder", type=Path, help="where the files are written; default a temporary folder")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    about = environment("moe-workbench", "numpy", "torch")
    print(f"one thread of {about['cpu']}, {given.rounds} rounds; {about['versions']}")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        files, targets = time_files(Path(folder), given.tokens, given.rounds)
        print()
        appended, more = time_append(Path(folder), given.rounds)
    report = {**about, "rounds": given.rounds, "tokens": given.tokens, "files": files}
    report |= {"append_us_per_token": appended, "targets": targets + more}
    write("trace_files", report, given.out)


if __name__ == "__main__":
    main()
