"""How a sweep's throughput grows with workers on Ray, and with rollouts generated at once; the embedded model.

**Workers.** The same rollouts, one at a time in each worker: the local engine in this process, one worker on Ray, two
workers, and two plain processes that share nothing and know nothing of Ray, each with half of the rollouts: what this
machine gives two processes at best. Everything is in the times that a sweep does from all workers ready on: giving
out, generating with capture, writing each trace into the store. Starting Ray and the workers, and loading the model,
are not. One torch thread in each process. After the first round the benchmark holds that all ways stored the same
bits. Beside the times stands the processor time of each side for every second of the clock: what does not run in a
worker while both run is serial.

**Batches.** `capture_batch` with 1, 2, 8 and 32 rollouts at a time in this process beside `capture` of each alone,
as a sweep does with ``batch_size=1``; the router and the statistics of every token are recorded, and kept in memory.

Every rollout is cut at the same number of new tokens, so that workers end together and a batch has no stragglers:
rollouts of very unequal length gain less from a batch, whose rows all wait for the longest.
"""

import argparse
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TQDM_DISABLE="1")  # before the libraries read them

import numpy as np
import psutil
import torch
from _rounds import Times, environment, measure, quartiles, ratio, verdict, write

import workbench as wb
from workbench.batched_capture import Prompt, capture_batch
from workbench.experiments.efforts import LIGHT, rollout_seed
from workbench.scale.local import LocalEngine
from workbench.scale.on_ray import RayEngine
from workbench.scale.rollouts import Engine, Job, job_of

BATCH_SIZES = (1, 2, 8, 32)
TARGET = 1.7
LOCAL, ONE, TWO, PLAIN = "local engine", "1 worker", "2 workers", "2 processes without Ray"

Way = Callable[[], Any]


def jobs(model: wb.Model, rollouts: int, tokens: int) -> list[Job]:
    """Return rollouts as a sweep would make them."""
    with LocalEngine(model, wb.TraceStore(".")) as engine:
        shared = {"temperature": 1.0, "max_new_tokens": tokens, "capture": asdict(LIGHT), **engine.identity}
    asked = [f"{11 + 7 * n}+{88 - 2 * n}=?" for n in range(rollouts)]
    facts = [{"question": q, "effort": "high", "seed": rollout_seed(0, q, "high", 0)} for q in asked]
    return [job_of({**each, **shared}) for each in facts]


def sweep_way(engine: Engine, store: wb.TraceStore, wanted: Sequence[Job]) -> Way:
    """Return what generates all of it again: the store is emptied first, which takes a millisecond."""

    def run() -> None:
        empty(store)
        engine.run([[job] for job in wanted], lambda stored: None)

    return run


def empty(store: wb.TraceStore) -> None:
    for name in store.names:
        (store.path / f"{name}.safetensors").unlink()


_model: wb.Model


def begin() -> None:
    """Load the model in a process of the pool."""
    global _model
    torch.set_num_threads(1)
    _model = wb.load("tiny", device="cpu")


def share(wanted: Sequence[Job], folder: str) -> float:
    """Generate some rollouts in a process of the pool; return its processor time."""
    started = time.process_time()
    LocalEngine(_model, wb.TraceStore(folder)).run([[job] for job in wanted], lambda stored: None)
    return time.process_time() - started


@contextmanager
def processes(store: wb.TraceStore, wanted: Sequence[Job]) -> Iterator[Way]:
    """Two processes that are loaded, and what gives each its half."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), begin) as pool:

        def run() -> None:
            empty(store)
            list(pool.map(share, (wanted[::2], wanted[1::2]), [str(store.path)] * 2))

        yield run


@contextmanager
def workers_ways(model: wb.Model, wanted: Sequence[Job], folder: Path) -> Iterator[dict[str, Way]]:
    """One cluster with three workers: one by itself, and two; those that are not asked only wait."""
    stores = {name: wb.TraceStore(folder / name, create=True) for name in (LOCAL, ONE, f"{ONE}, again", TWO, PLAIN)}
    one, two = RayEngine(model, stores[ONE], 1), RayEngine(model, stores[TWO], 2)
    import ray  # after the engines, so that it stays private

    ray.init(
        address="local",
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=80_000_000,
    )
    with ExitStack() as stack:
        stack.callback(ray.shutdown)
        plain = stack.enter_context(processes(stores[PLAIN], wanted))
        for engine in (one, two):
            stack.enter_context(engine)
            engine.start()
        yield {
            LOCAL: sweep_way(LocalEngine(model, stores[LOCAL]), stores[LOCAL], wanted),
            ONE: sweep_way(one, stores[ONE], wanted),
            f"{ONE}, again": sweep_way(one, stores[ONE], wanted),
            TWO: sweep_way(two, stores[TWO], wanted),
            PLAIN: plain,
        }


def check(folder: Path, wanted: Sequence[Job]) -> int:
    """Hold that all stores have the same bits, and every rollout was cut; return the completion tokens."""
    stores = [wb.TraceStore(folder / name) for name in (LOCAL, ONE, TWO, PLAIN)]
    tokens = 0
    for job in wanted:
        first, *others = [store[job.name] for store in stores]
        tokens += len(first) - first.num_prompt_tokens
        assert first.meta["truncated"], f"{job.facts['question']} ended by itself; lower --tokens"
        for other in others:
            for name, array in first.arrays.items():
                assert array.tobytes() == other.arrays[name].tobytes(), name
    return tokens


def busy(way: Way) -> dict[str, float]:
    """Run once more; return the processor seconds of each side for every second on the clock."""

    def sides() -> dict[str, float]:
        found = {"this process": 0.0, "workers": 0.0, "Ray's own processes": 0.0}
        here = psutil.Process()
        for process in [here, *here.children(recursive=True)]:
            name, times = " ".join(process.cmdline()), process.cpu_times()
            is_worker = name.startswith("ray::") or "spawn_main" in name
            side = "this process" if process == here else "workers" if is_worker else "Ray's own processes"
            found[side] += times.user + times.system
        return found

    before, started = sides(), time.perf_counter()
    way()
    seconds, after = time.perf_counter() - started, sides()
    return {side: (after[side] - before[side]) / seconds for side in after}


def batch_ways(model: wb.Model, wanted: Sequence[Job], tokens: int) -> dict[str, Way]:
    prompts = [Prompt(job.facts["question"], job.facts["effort"], job.facts["seed"]) for job in wanted]

    def single() -> list[wb.Trace]:
        return [
            wb.capture(model, p.conversation, effort=p.effort, seed=p.seed, max_new_tokens=tokens, capture=LIGHT)
            for p in prompts
        ]

    def batches(size: int) -> list[wb.Trace]:
        return [
            trace
            for start in range(0, len(prompts), size)
            for trace in capture_batch(model, prompts[start : start + size], max_new_tokens=tokens, capture=LIGHT)
        ]

    return {
        "single": single,
        "single, again": single,
        **{f"batches of {size}": partial(batches, size) for size in BATCH_SIZES},
    }


def check_batches(ways: dict[str, Way]) -> None:
    """Hold that every way draws the same tokens and sees the same experts."""
    expected = ways["single"]()
    for name in (f"batches of {size}" for size in BATCH_SIZES):
        for ours, theirs in zip(ways[name](), expected, strict=True):
            np.testing.assert_array_equal(ours.arrays["token_ids"], theirs.arrays["token_ids"], name)
            experts = [np.sort(trace.arrays["expert_indices"]) for trace in (ours, theirs)]
            np.testing.assert_array_equal(*experts, name)


def table(times: dict[str, Times], base: str, tokens: int) -> dict[str, Any]:
    """Print completion tokens a second and the speed-up over the base; return what is printed."""
    print(f"{'':26} {'tokens/s [quartiles]':>22} {'speed-up [95 %]':>24}")
    found = {}
    for name, taken in times.items():
        low, middle, high = quartiles([tokens / seconds for seconds in taken.wall])
        faster = ratio(times[base].wall, taken.wall)
        interval = "{:.2f}–{:.2f}".format(*faster["interval"])
        print(f"{name:26} {f'{middle:,.0f} [{low:,.0f}–{high:,.0f}]':>22} {faster['median']:>12.2f} [{interval}]")
        found[name] = {"tokens_per_second": [low, middle, high], "speed_up": faster, "seconds": taken.wall}
    return found


def measure_workers(model: wb.Model, wanted: Sequence[Job], rounds: int) -> tuple[dict[str, Any], int]:
    with tempfile.TemporaryDirectory() as folder, workers_ways(model, wanted, Path(folder)) as ways:
        times = measure(ways, rounds)
        tokens = check(Path(folder), wanted)
        print(f"{len(wanted)} rollouts, {tokens:,} new tokens, each alone in its worker")
        found = table(times, ONE, tokens)
        print("\nprocessor seconds for every second on the clock")
        for name in (LOCAL, ONE, TWO, PLAIN):
            found[name]["processor"] = busy(ways[name])
            print(f"{name:26} " + ", ".join(f"{side} {n:.2f}" for side, n in found[name]["processor"].items()))
    return found, tokens


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--rollouts", type=int, default=32, help="of each way in each round")
    options.add_argument("--tokens", type=int, default=32, help="new tokens of each rollout")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    model = wb.load("tiny", device="cpu")
    wanted = jobs(model, given.rollouts, given.tokens)
    about = environment("moe-workbench", "torch", "transformers", "ray")
    print(f"{model}; one thread a process on {about['cpu']}, {given.rounds} rounds; {about['versions']}\n")

    workers, tokens = measure_workers(model, wanted, given.rounds)
    print("\nbatches in this process, with capture, in memory")
    ways = batch_ways(model, wanted, given.tokens)
    check_batches(ways)
    batches = table(measure(ways, given.rounds), "single", tokens)

    print()
    measured = workers[TWO]["speed_up"]["median"]
    targets = [verdict("throughput of 2 workers, of 1 worker's", measured, TARGET, at_least=True)]
    report = {**about, "rounds": given.rounds, "rollouts": len(wanted), "new_tokens": tokens}
    write("scale", {**report, "workers": workers, "batches": batches, "targets": targets}, given.out)


if __name__ == "__main__":
    main()
