"""Interleaved rounds: every way once a round, so that a machine that slows down slows all of them.

A ratio is taken within a round; the median over the rounds is given with a bootstrap interval. One way runs twice a
round, and the ratio of its two times is the noise floor: a difference within the control's interval is none.
"""

import gc
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
RESAMPLES = 4000


@dataclass
class Times:
    """Seconds of each round, on the clock and of this process's processor time, its threads included."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Times]:
    """Run every way once uncounted, then once a round, each round beginning with another."""
    times = {name: Times() for name in ways}
    names = list(ways)
    for number in range(-1, rounds):
        start_at = number % len(names)
        for name in names[start_at:] + names[:start_at]:
            gc.collect()  # nobody pays for what another left
            wall, cpu = time.perf_counter(), time.process_time()
            result = ways[name]()
            if number >= 0:
                times[name].wall.append(time.perf_counter() - wall)
                times[name].cpu.append(time.process_time() - cpu)
            del result
    return times


def quartiles(values: Sequence[float]) -> list[float]:
    return [float(q) for q in np.quantile(values, (0.25, 0.5, 0.75))]


def ratio(values: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Return the median of the rounds' ratios, and the 95 % percentile bootstrap interval of that median."""
    ratios = np.divide(values, base)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (RESAMPLES, len(ratios))), axis=1)
    low, high = (float(q) for q in np.quantile(medians, (0.025, 0.975)))
    return {"median": float(np.median(ratios)), "interval": [low, high]}


def verdict(what: str, found: float, target: float, unit: str = "", *, at_least: bool = False) -> dict[str, Any]:
    """Print whether a target, an upper bound or the least that is wanted, is met; return that."""
    met = found >= target if at_least else found <= target
    sign = "≥" if at_least else "≤"
    print(f"{'met' if met else 'MISSED'}: {what} {found:.3g}{unit}, target {sign} {target:g}{unit}")
    return {"what": what, "found": found, "target": target, "met": met}


def environment(*packages: str) -> dict[str, Any]:
    """Return what a number depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "threads": 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def write(name: str, report: dict[str, Any], path: Path | None) -> None:
    """Write the report as JSON, by default beside the benchmarks."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {path}")
