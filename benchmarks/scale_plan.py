"""A million traces of 20,000 tokens: bytes, hours and costs, from the models' shapes and from measured rates.

    python benchmarks/scale_plan.py            # print the tables
    python benchmarks/scale_plan.py --write    # and put them into docs/scale.md

Bytes are `wb.estimate`'s, which tests hold equal to files. Rates with a file beside them were measured by the other
benchmarks, on a CPU. Prices, and the tokens a GPU generates in a second, are assumptions: no GPU was measured.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import workbench as wb
from workbench.experiments.efforts import LIGHT

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
RESULTS = Path(__file__).parent / "results"

TRACES, TOKENS, PER_FOLDER = 1_000_000, 20_000, 10_000
MODELS = ("openai/gpt-oss-20b", "openai/gpt-oss-120b")
BUT_RESIDUAL, ROUTER = wb.CaptureSpec(), LIGHT
CAPTURES = {
    "tokens and their statistics": wb.CaptureSpec(router=False, attention=False, lens=False),
    "and the router (a sweep's default)": ROUTER,
    "and the residual stream of one layer": wb.CaptureSpec(attention=False, lens=False, residual=[12]),
    "and the attention of two layers": wb.CaptureSpec(attention=[11, 12], lens=False),
    "all but the residual stream": BUT_RESIDUAL,
    "everything": wb.CaptureSpec(residual=True),
}

# Assumptions, not measured: change them to yours and run with --write.
GPU_MEMORY = 80e9
TOKENS_PER_GPU_SECOND = (100, 1_000, 10_000)
GPUS = 64
DOLLARS_PER_GPU_HOUR = 2.5
DOLLARS_PER_TB_MONTH = 23.0
NETWORK_BYTES_PER_SECOND = 125e6  # 1 Gbit/s

D_HEAD, BFLOAT16_BYTES = 64, 2  # of both models
HOUR, DAY = 3600, 86_400


def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def per_token(model: str, spec: wb.CaptureSpec) -> int:
    return sum(wb.estimate(model, 1, capture=spec).arrays.values())


def writing_seconds(spec_name: str) -> float:
    """Return the measured processor seconds of writing a token's rows to disk, at the median."""
    written = result("trace_files")["append_us_per_token"][spec_name]
    return float(written["writer thread: of that, processor time"][1] / 1e6)


def size(count: float) -> str:
    """Write bytes in decimal units with three digits: 37.3 TB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} PB"


def duration(seconds: float) -> str:
    if seconds < 2 * 60:
        return f"{seconds:.2g} s"
    if seconds < 2 * HOUR:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / HOUR:.0f} h" if seconds < 3 * DAY else f"{seconds / DAY:,.0f} days"


def table(*rows: tuple[str, ...]) -> str:
    first, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (first, ("---",) * len(first), *rest))


def bytes_of(model: str) -> str:
    """What is stored, and what one reader fetches."""
    rows = [("capture", "bytes per token", "one trace", "a folder", "all", "storage a month", "to fetch one trace")]
    for name, spec in CAPTURES.items():
        each = per_token(model, spec)
        trace = each * TOKENS
        dollars = f"${trace * TRACES / 1e12 * DOLLARS_PER_TB_MONTH:,.0f}"
        sizes = (size(trace), size(trace * PER_FOLDER), size(trace * TRACES))
        rows.append((name, f"{each:,}", *sizes, dollars, duration(trace / NETWORK_BYTES_PER_SECOND)))
    return table(*rows)


def device() -> str:
    """How many rollouts a GPU holds at once."""
    rows = [("model", "weights", "KV cache of a rollout", "capture in flight, router", "rollouts at once, at most")]
    for model in MODELS:
        plan = wb.estimate(model, TOKENS, capture=ROUTER)
        fit = (GPU_MEMORY - plan.weights) / (plan.kv_cache + plan.in_flight)
        rows.append((model, size(plan.weights), size(plan.kv_cache), size(plan.in_flight), f"{int(fit):,}"))
    return table(*rows)


def hours() -> str:
    """What generating takes, and what writing takes of it."""
    rows = [
        (
            "tokens/s of a GPU, assumed",
            "GPU hours",
            f"on {GPUS} GPUs",
            "cost",
            "a worker writes, router",
            "of generating",
            "all but the residual stream",
            "of generating",
        )
    ]
    for rate in TOKENS_PER_GPU_SECOND:
        seconds = TRACES * TOKENS / rate
        cells = [f"{rate:,}", f"{seconds / HOUR:,.0f}", duration(seconds / GPUS)]
        cells.append(f"${seconds / HOUR * DOLLARS_PER_GPU_HOUR:,.0f}")
        for name, spec in (("router", ROUTER), ("everything but the residual stream", BUT_RESIDUAL)):
            share = rate * writing_seconds(name)
            cells += [f"{size(rate * per_token(MODELS[0], spec))}/s", f"{share:.1%} of its time"]
        rows.append(tuple(cells))
    return table(*rows)


def reading() -> str:
    """What one pass over all routing takes, at what was measured on one core with the files in the page cache."""
    corpus, traces = result("corpus_routing"), result("trace_files")
    opening = corpus["streamed"]["opening alone"]["seconds"] / corpus["traces"]
    counting = corpus["streamed"]["coactivation"]["seconds"] - corpus["streamed"]["opening alone"]["seconds"]
    per_selection = counting / corpus["selections"]
    [indices] = [wb.estimate(MODELS[0], 1, capture=ROUTER).arrays["expert_indices"]]  # a byte for each selection
    selections = TRACES * TOKENS * indices
    head = TOKENS * D_HEAD * BFLOAT16_BYTES
    milliseconds = traces["files"]["open"]["wb.open_trace"]["ms"][1]
    return table(
        ("reading", "measured", "at a million traces, one core"),
        ("open every trace, for one measure", f"{1000 * opening:.2f} ms each", duration(TRACES * opening)),
        (
            "count co-activation",
            f"{1e9 * per_selection:.2f} ns per selection",
            f"{duration(selections * per_selection)} for {selections:.3g} selections",
        ),
        (
            "fetch what that reads, `expert_indices` alone",
            "not measured",
            f"{size(selections)}, {duration(selections / NETWORK_BYTES_PER_SECOND)} at the network's rate",
        ),
        (
            "open one trace to step through it",
            f"{milliseconds:.0f} ms at {traces['tokens']:,} tokens",
            "the same: no other trace is touched",
        ),
        ("one attention row: the keys of its head", "not measured", f"{size(head)} of one trace"),
    )


def tables() -> dict[str, str]:
    """Name → table, as docs/scale.md has them."""
    sizes = {f"bytes {model.rpartition('-')[2]}": bytes_of(model) for model in MODELS}
    return {**sizes, "device": device(), "hours": hours(), "reading": reading()}


def filled(page: str) -> str:
    """Return the page with each table between its two marks."""
    for name, text in tables().items():
        marks = re.compile(rf"(<!-- plan: {name} -->\n\n).*?(\n\n<!-- end -->)", re.S)
        page, count = marks.subn(lambda found, text=text: found[1] + text + found[2], page)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"expected one place for the table {name!r} in the page, found {count}")
    return page


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true", help="put the tables into docs/scale.md")
    given = options.parse_args()
    for name, text in tables().items():
        print(f"{name}\n{text}\n")
    if given.write:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
