"""Results of early answering, added mistakes and filler: how often the answer stays, along the chain of thought."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.faithfulness.statistics import answer_dependence
from workbench.analysis.statistics import bootstrap_interval, wilson_interval

__all__ = ["AnswerCurve", "Share"]


@dataclass(frozen=True)
class Share:
    """A share of answers, with a 95 % interval over chains."""

    value: float
    """NaN where there is none"""
    interval: tuple[float, float]
    n: int
    """chains"""

    def __str__(self) -> str:
        """Write 88 % [53, 98] (n = 8), or undefined."""
        if not self.n:
            return "undefined (n = 0)"
        low, high = self.interval
        return f"{self.value:.0%} [{100 * low:.0f}, {100 * high:.0f}] (n = {self.n})"

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Share":
        """Take one share per chain [chain], NaN left out: Wilson where all are 0 or 1, else bootstrap."""
        known = values[~np.isnan(values)]
        n = len(known)
        if not n:
            return cls(math.nan, (math.nan, math.nan), 0)
        mean = float(known.mean())
        if np.isin(known, (0.0, 1.0)).all():
            return cls(mean, wilson_interval(int(known.sum()), n), n)
        return cls(mean, bootstrap_interval(known) if n > 1 else (0.0, 1.0), n)


@dataclass(frozen=True, eq=False)
class AnswerCurve:
    """How often the answer is that of the full chain, by how much of the chain was left as it was."""

    test: str
    """early answering, adding a mistake, or filler"""
    fractions: tuple[float, ...]
    """of the chain's tokens: kept; before the mistake; or replaced by filler"""
    agreement: NDArray[np.float64]
    """[chain, fraction] share of rollouts with the full chain's answer; NaN where there was none"""
    right: NDArray[np.float64] | None
    """[chain, fraction] share with the right answer; None without references"""
    chain_tokens: tuple[int, ...]
    """[chain] length of each chain of thought"""
    asked: int
    """chains that were given, with those that had no chain of thought, were skipped or not reached"""
    without_chain: int
    """rollouts whose chain of thought is empty: there is nothing the answer could depend on"""
    skipped: tuple[str, ...] = ()
    """why rollouts could not be used"""
    interrupted: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)
    changed: NDArray[np.bool_] | None = None
    """[chain, fraction] whether the test changed anything there; None where that was not noted"""

    @property
    def whole(self) -> NDArray[np.bool_]:
        """[chain] whether every fraction of it was answered."""
        return np.array([np.isfinite(row).all() for row in self.agreement], dtype=np.bool_)

    @property
    def aoc(self) -> float:
        """1 − area under the curve, see `answer_dependence`; NaN where no chain was whole."""
        lengths = np.array(self.chain_tokens)[self.whole]
        rows = self.agreement[self.whole]
        groups = [rows[lengths == length] for length in np.unique(lengths)]
        return answer_dependence([(self.fractions, rows.mean(axis=0), len(rows)) for rows in groups])

    @property
    def aoc_interval(self) -> tuple[float, float]:
        """Bootstrap 95 % interval of AOC over chains; NaN of fewer than two."""
        each = [answer_dependence([(self.fractions, row, 1)]) for row in self.agreement[self.whole]]
        return bootstrap_interval(each) if len(each) > 1 else (math.nan, math.nan)

    @property
    def points(self) -> tuple[Share, ...]:
        """[fraction] share of answers that are the full chain's."""
        return tuple(Share.of(column) for column in self.agreement.T)

    @property
    def accuracy(self) -> tuple[Share, ...] | None:
        """[fraction] share of right answers; the first is the no-chain accuracy. None without references."""
        return None if self.right is None else tuple(Share.of(column) for column in self.right.T)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per fraction, such as ``pandas.DataFrame`` takes; ``changed`` of its ``n`` chains were."""
        accuracy = self.accuracy
        changed = None if self.changed is None else (self.changed & ~np.isnan(self.agreement)).sum(axis=0)
        return [
            {
                "test": self.test,
                "fraction": fraction,
                "agreement": _or_none(point.value),
                "low": _or_none(point.interval[0]),
                "high": _or_none(point.interval[1]),
                "n": point.n,
                "changed": None if changed is None else int(changed[at]),
                "accuracy": None if accuracy is None else _or_none(accuracy[at].value),
            }
            for at, (fraction, point) in enumerate(zip(self.fractions, self.points, strict=True))
        ]

    def __repr__(self) -> str:
        """Write AOC and the curve as plain lines."""
        low, high = self.aoc_interval
        n = int(self.whole.sum())
        aoc = f"{self.aoc:.2f} [{low:.2f}, {high:.2f}]" if n else "undefined"
        left_out = [f"{self.without_chain} without a chain"] * bool(self.without_chain)
        left_out += [f"{len(self.skipped)} skipped"] * bool(self.skipped)
        left_out += ["interrupted"] * self.interrupted
        lines = [f"{self.test}: AOC {aoc} (n = {n} of {self.asked} chains{''.join(f', {x}' for x in left_out)})"]
        accuracy = self.accuracy
        for at, (fraction, point) in enumerate(zip(self.fractions, self.points, strict=True)):
            right = f", right {accuracy[at]}" if accuracy is not None else ""
            lines.append(f"  {fraction:4.0%} of the chain: same answer {point}{right}")
        return "\n".join(lines)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
