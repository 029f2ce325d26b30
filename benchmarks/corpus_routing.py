"""Counting the routing of a corpus: MoE Workbench beside numpy, DuckDB and Polars, one thread each, in one run.

    python benchmarks/corpus_routing.py [--selections 384_000_000] [--rounds 7] [--share 0.05]

A selection is one expert chosen for one token in one layer. Every way gives the same answer, which is checked, from
what suits it in memory: an array for numpy and the workbench, a table for DuckDB and Polars, which get a ``--share``
of the tokens, as they take minutes for all. numpy has one bincount for each layer and pair of ranks; *tuned*, it goes
in blocks that fit the cache. The times of the workbench include its checks. A numpy way runs twice: the control.

Then the public functions read the same corpus from a `TraceStore` in a process of their own, which watches its memory.
They open every file several times, and `token_specialization` has its null beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

# Before the libraries read them.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", POLARS_MAX_THREADS="1", NUMBA_NUM_THREADS="1")

import duckdb
import numpy as np
import polars as pl
from _rounds import environment, measure, quartiles, ratio, verdict, write
from numpy.typing import NDArray

import workbench as wb
from workbench.analysis.counting import add_pairs, add_tokens
from workbench.analysis.routing import coactivation, token_specialization
from workbench.analysis.token_set import TokenSet
from workbench.trace import Span
from workbench.trace_file import save_trace

LAYERS, EXPERTS, TOP_K = 24, 32, 4  # of gpt-oss-20b
TOKENS_PER_TRACE, TOKENS_PER_SENTENCE = 4000, 20
VOCABULARY, MIN_COUNT = 200_000, 10
PAIRS = tuple(combinations(range(TOP_K), 2))
BLOCK = 8192  # tokens: what tuned numpy is quickest with
TARGETS = {"co-activation": 5, "specialization": 2}  # times as fast as numpy
MEMORY_TARGET = 100  # MB
CONTROL = {"co-activation": "numpy, tuned", "specialization": "numpy"}
STREAMED = ("numba", "TokenSet", "opening alone", "coactivation", "token_specialization")
TABLES = ("DuckDB", "Polars")

Way = Callable[[], NDArray[Any]]


# --- the corpus --------------------------------------------------------------------------------------------------


def write_corpus(folder: Path, num_tokens: int) -> None:
    """Traces whose token ids follow Zipf's law and whose experts depend on layer and token id."""
    rng = np.random.default_rng(4)
    frequency = np.cumsum(1 / (np.arange(VOCABULARY) + 3.7))
    popular = rng.gamma(2, size=(LAYERS, EXPERTS)).astype(np.float32)
    for number, start in enumerate(range(0, num_tokens, TOKENS_PER_TRACE)):
        length = min(TOKENS_PER_TRACE, num_tokens - start)
        ids = np.searchsorted(frequency / frequency[-1], rng.random(length)).astype(np.int32)
        wait = rng.standard_exponential((length, LAYERS, EXPERTS), dtype=np.float32) / popular
        own = ((ids[:, None] * 7919 + np.arange(LAYERS) * 31) % EXPERTS)[..., None]
        np.put_along_axis(wait, own, np.take_along_axis(wait, own, -1) / 8, -1)
        chosen = np.argpartition(wait, TOP_K, -1)[..., :TOP_K]
        order = np.argsort(np.take_along_axis(wait, chosen, -1), -1)
        experts = np.take_along_axis(chosen, order, -1).astype(np.uint8)
        spans = [Span(0, length, 0, "message", "assistant", "analysis")]
        spans += [Span(s, s + TOKENS_PER_SENTENCE, s, "sentence", "assistant", "analysis")
                  for s in range(0, length - TOKENS_PER_SENTENCE, TOKENS_PER_SENTENCE)]  # fmt: skip
        meta = {"num_prompt_tokens": 0, "shape": {"num_experts": EXPERTS}, "provenance": {"model": "made up"}}
        trace = wb.Trace({"token_ids": ids, "expert_indices": experts}, tuple(spans), meta)
        save_trace(trace, folder / f"{number:06}.safetensors", durable=False)


def in_memory(store: wb.TraceStore) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    ids = [trace.arrays["token_ids"] for trace in store]
    return np.concatenate(ids), np.concatenate([trace.arrays["expert_indices"] for trace in store])


# --- co-activation: N_ij [layer, expert, expert] of all ordered pairs, N_ii = N_i ------------------------------------


def both_orders(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fill in the other order and the diagonal: an expert is in top_k − 1 pairs each time it is chosen."""
    pairs = pairs + pairs.swapaxes(1, 2)
    experts = np.arange(EXPERTS)
    pairs[:, experts, experts] = pairs.sum(-1) // (TOP_K - 1)
    return pairs


def workbench_pairs(indices: NDArray[np.uint8]) -> NDArray[np.int64]:
    counts = np.zeros((LAYERS, EXPERTS, EXPERTS), np.int64)
    add_pairs(indices, counts)
    return counts


def numpy_pairs(indices: NDArray[np.uint8]) -> NDArray[np.int64]:
    """One bincount for each layer and pair of ranks."""
    pairs = np.zeros((LAYERS, EXPERTS, EXPERTS), np.int64)
    for layer in range(LAYERS):
        ranks = indices[:, layer].T.astype(np.int64, order="C")
        for a, b in PAIRS:
            found = np.bincount(ranks[a] * EXPERTS + ranks[b], minlength=EXPERTS**2)
            pairs[layer] += found.reshape(EXPERTS, EXPERTS)
    return both_orders(pairs)


def tuned_numpy_pairs(indices: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The same in blocks that fit the cache, all pairs of a block in one bincount: the quickest of those tried."""
    pairs = np.zeros((LAYERS, EXPERTS, EXPERTS), np.int64)
    for start in range(0, len(indices), BLOCK):
        for layer in range(LAYERS):
            ranks = indices[start : start + BLOCK, layer].T.astype(np.int32, order="C")
            cells = np.empty((len(PAIRS), ranks.shape[1]), np.int64)  # what bincount counts without a copy
            for pair, (a, b) in enumerate(PAIRS):
                cells[pair] = ranks[a] * EXPERTS + ranks[b]
            pairs[layer] += np.bincount(cells.ravel(), minlength=EXPERTS**2).reshape(EXPERTS, EXPERTS)
    return both_orders(pairs)


def duckdb_pairs(database: duckdb.DuckDBPyConnection) -> NDArray[np.int64]:
    one = "SELECT layer, expert_{} AS i, expert_{} AS j, count(*) AS n FROM choices GROUP BY ALL"
    rows = database.execute(" UNION ALL ".join(one.format(a, b) for a, b in PAIRS)).fetchnumpy()
    return from_rows(rows["layer"], rows["i"], rows["j"], rows["n"])


def polars_pairs(choices: pl.DataFrame) -> NDArray[np.int64]:
    keys = [("layer", pl.col(f"expert_{a}").alias("i"), pl.col(f"expert_{b}").alias("j")) for a, b in PAIRS]
    counts = [choices.lazy().group_by(*key).agg(n=pl.len()) for key in keys]
    rows = pl.concat(counts).collect()
    return from_rows(*(rows[name].to_numpy() for name in ("layer", "i", "j", "n")))


def from_rows(layer: NDArray[Any], i: NDArray[Any], j: NDArray[Any], n: NDArray[Any]) -> NDArray[np.int64]:
    pairs = np.zeros((LAYERS, EXPERTS, EXPERTS), np.int64)
    np.add.at(pairs, (layer, i, j), n)
    return both_orders(pairs)


# --- specialization: max_e P(top-1 = e | token id) [token id, layer] of ids seen 10 times or more --------------------


def rows_of_ids(ids: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each token's row, −1 for a rare id, and how often the id of each row was seen."""
    seen = np.bincount(ids)
    kept = np.flatnonzero(seen >= MIN_COUNT)
    rows = np.full(len(seen), -1)
    rows[kept] = np.arange(len(kept))
    return rows[ids], seen[kept]


def workbench_specialization(ids: NDArray[np.int32], indices: NDArray[np.uint8]) -> NDArray[np.float64]:
    """As `token_specialization` counts: rare ids in 8 bits; without its null."""
    rows, seen = rows_of_ids(ids)
    rare = seen <= 255
    place = np.append(
        np.where(rare, np.cumsum(rare) - 1 + (~rare).sum(), np.cumsum(~rare) - 1), -1
    )  # −1 finds the last
    counts = np.zeros((LAYERS, (~rare).sum(), EXPERTS), np.uint32)
    few = np.zeros((LAYERS, rare.sum(), EXPERTS), np.uint8)
    add_tokens(place[rows], indices, counts, few)
    most = np.concatenate([counts.max(-1), few.max(-1)], axis=1)
    return most[:, place[:-1]].T / seen[:, None]


def numpy_specialization(ids: NDArray[np.int32], top: NDArray[np.uint8]) -> NDArray[np.float64]:
    """One bincount for each layer, of ``top`` [layer, token]."""
    rows, seen = rows_of_ids(ids)
    often = rows >= 0
    cells = rows[often] * EXPERTS
    size = len(seen) * EXPERTS
    most = [np.bincount(cells + layer[often], minlength=size).reshape(-1, EXPERTS).max(-1) for layer in top]
    share: NDArray[np.float64] = np.stack(most, -1) / seen[:, None]
    return share


def duckdb_specialization(database: duckdb.DuckDBPyConnection) -> NDArray[np.float64]:
    counts = "SELECT token_id, layer, expert_0, count(*) AS n FROM choices GROUP BY ALL"
    query = f"""SELECT max(n) / sum(n) AS share FROM ({counts}) GROUP BY token_id, layer
                HAVING sum(n) >= {MIN_COUNT} ORDER BY token_id, layer"""
    share: NDArray[np.float64] = database.execute(query).fetchnumpy()["share"].reshape(-1, LAYERS)
    return share


def polars_specialization(choices: pl.DataFrame) -> NDArray[np.float64]:
    counts = choices.lazy().group_by("token_id", "layer", "expert_0").agg(n=pl.len())
    most = counts.group_by("token_id", "layer").agg(most=pl.col("n").max(), seen=pl.col("n").sum())
    often = most.filter(pl.col("seen") >= MIN_COUNT).sort("token_id", "layer")
    share = often.select(pl.col("most") / pl.col("seen")).collect()
    return share.to_numpy().reshape(-1, LAYERS)


# --- measuring ---------------------------------------------------------------------------------------------------


def ways(ids: NDArray[np.int32], indices: NDArray[np.uint8], some: int) -> dict[str, dict[str, Way]]:
    """Measure → way → what to run; DuckDB and Polars on the first ``some`` tokens."""
    corpus = {
        "token_id": np.repeat(ids[:some], LAYERS),
        "layer": np.tile(np.arange(LAYERS, dtype=np.uint8), some),
        **{f"expert_{rank}": indices[:some, :, rank].ravel() for rank in range(TOP_K)},
    }
    database = duckdb.connect(config={"threads": 1})
    database.execute("CREATE TABLE choices AS SELECT * FROM corpus")
    choices = pl.DataFrame(corpus)
    top = np.ascontiguousarray(indices[..., 0].T)
    return {
        "co-activation": {
            "workbench": partial(workbench_pairs, indices),
            "numpy": partial(numpy_pairs, indices),
            "numpy, tuned": partial(tuned_numpy_pairs, indices),
            "numpy, tuned, again": partial(tuned_numpy_pairs, indices),
            "DuckDB": partial(duckdb_pairs, database),
            "Polars": partial(polars_pairs, choices),
        },
        "specialization": {
            "workbench": partial(workbench_specialization, ids, indices),
            "numpy": partial(numpy_specialization, ids, top),
            "numpy, again": partial(numpy_specialization, ids, top),
            "DuckDB": partial(duckdb_specialization, database),
            "Polars": partial(polars_specialization, choices),
        },
    }


def check(found: dict[str, dict[str, Way]], ids: NDArray[np.int32], indices: NDArray[np.uint8], some: int) -> None:
    """Run every way once, uncounted: all must agree with the workbench on the same tokens, exactly."""
    expected: dict[str, Way] = {
        "co-activation": partial(workbench_pairs, indices[:some]),
        "specialization": partial(workbench_specialization, ids[:some], indices[:some]),
    }
    for measured, by_name in found.items():
        whole, part = by_name["workbench"](), expected[measured]()
        for name, way in by_name.items():
            np.testing.assert_array_equal(way(), part if name in TABLES else whole, f"{measured}: {name}")


# --- streaming, in a process of its own --------------------------------------------------------------------------


def anonymous_mb() -> float:
    """Return the memory that is this process's own; pages of files are the system's, which takes them back."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1000


@contextmanager
def watched(result: dict[str, float]) -> Iterator[None]:
    """Note the seconds, and by how much own memory grew at most, looked at every 2 ms."""
    before, peak, done = anonymous_mb(), [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], anonymous_mb() - before)

    watcher = threading.Thread(target=look)
    watcher.start()
    start = time.perf_counter()
    try:
        yield
    finally:
        result["seconds"] = time.perf_counter() - start
        done.set()
        watcher.join()
        result["extra_mb"] = peak[0]


def stream(folder: Path) -> dict[str, dict[str, float]]:
    """Run the public functions over a store."""
    store = wb.TraceStore(folder)
    before = anonymous_mb()
    for traces in ([store[0]], store):  # the first loads the compiler and what it compiled
        results: dict[str, dict[str, float]] = {name: {} for name in STREAMED}
        results["numba"] = {"extra_mb": anonymous_mb() - before}
        with watched(results["TokenSet"]):
            tokens = TokenSet(traces)
        with watched(results["opening alone"]):
            for _ in tokens.rows("expert_indices"):
                pass
        with watched(results["coactivation"]):
            coactivation(tokens.rows("expert_indices"), EXPERTS)
        with watched(results["token_specialization"]):
            token_specialization(tokens.rows("expert_indices"), tokens.rows("token_ids"), EXPERTS, MIN_COUNT)
    return results


# --- the report --------------------------------------------------------------------------------------------------


def compare(
    name: str, ways: dict[str, Way], tokens: dict[str, int], per_token: int, rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Print one table; return what it shows, and whether the target is met."""
    times = measure(ways, rounds)
    millions = {way: tokens[way] * LAYERS * per_token / 1e6 for way in ways}
    each = {way: [1000 * seconds / millions[way] for seconds in times[way].wall] for way in ways}
    found: dict[str, Any] = {}
    print(f"\n{name}: ms per million selections, median [quartiles] of {rounds} rounds; times the workbench's")
    for way, values in each.items():
        slower = ratio(values, each["workbench"])
        found[way] = {"ms_per_million": quartiles(values), "ratio": slower, "millions": millions[way]}
        low, middle, high = found[way]["ms_per_million"]
        print(
            f"  {way:20} {middle:8.2f} [{low:.2f}–{high:.2f}] {slower['median']:6.1f}x of {millions[way]:,.1f} million"
        )
    control = CONTROL[name]
    found["control"] = ratio(each[f"{control}, again"], each[control])
    middle, (low, high) = found["control"].values()
    print(f"  {control}, run twice: ratio {middle:.3f}, 95 % interval {low:.3f}–{high:.3f}")
    share = ratio(each["workbench"], each["numpy"])["median"]
    return found, verdict(f"{name}, share of numpy's time", share, 1 / TARGETS[name])


def run(folder: Path, num_tokens: int, rounds: int, share: float) -> dict[str, Any]:
    write_corpus(folder, num_tokens)
    store = wb.TraceStore(folder)
    ids, indices = in_memory(store)
    some = min(num_tokens, max(TOKENS_PER_TRACE, int(num_tokens * share)))
    print(
        f"{indices.size / 1e6:,.0f} million selections: {num_tokens:,} tokens x {LAYERS} layers x {TOP_K} of {EXPERTS}"
    )
    found = ways(ids, indices, some)
    check(found, ids, indices, some)
    compared, targets = {}, []
    for name, per_token in (("co-activation", TOP_K), ("specialization", 1)):
        tokens = {way: some if way in TABLES else num_tokens for way in found[name]}
        compared[name], target = compare(name, found[name], tokens, per_token, rounds)
        targets.append(target)
    del found, ids, indices
    command = [sys.executable, __file__, "--stream", str(folder)]
    streamed = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    print(f"\nthe public functions over a TraceStore of {len(store):,} traces, whose files are in the page cache")
    for name, values in streamed.items():
        seconds = f"{values['seconds']:8.2f} s" if "seconds" in values else " " * 10
        print(f"  {name:20} {seconds} {values['extra_mb']:8.1f} MB of own memory at most")
    for name in ("coactivation", "token_specialization"):
        targets.append(verdict(f"{name} over the store", streamed[name]["extra_mb"], MEMORY_TARGET, " MB"))
    size = {"selections": num_tokens * LAYERS * TOP_K, "traces": len(store), "rounds": rounds}
    return {**size, "compared": compared, "streamed": streamed, "targets": targets}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--selections", type=int, default=384_000_000, help="tokens x 24 layers x 4 experts")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--share", type=float, default=0.05, help="of the tokens, for DuckDB and Polars")
    options.add_argument("--folder", type=Path, help="where to write the corpus; default a temporary folder")
    options.add_argument("--out", type=Path)
    options.add_argument("--stream", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.stream:
        print(json.dumps(stream(given.stream)))
        return
    about = environment("moe-workbench", "numba", "numpy", "duckdb", "polars")
    print(f"one thread of {about['cpu']}, {given.rounds} rounds; {about['versions']}")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        report = run(Path(folder), given.selections // (LAYERS * TOP_K), given.rounds, given.share)
    write("corpus_routing", {**about, **report}, given.out)


if __name__ == "__main__":
    main()
