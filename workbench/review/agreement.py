"""How far reviewers agree: with each other, in verdicts and in the words they mark, and with signals.

Coefficients come from statsmodels and krippendorff. Each stands beside its prevalence: where nearly all say the same,
a coefficient can be low while nearly all agree (Feinstein and Cicchetti, 1990).
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from krippendorff import alpha
from numpy.typing import ArrayLike, NDArray
from statsmodels.stats import inter_rater

from workbench.analysis.statistics import wilson_interval
from workbench.review.reading import Given
from workbench.review.rubric import Rubric
from workbench.review.verdict import Evidence

__all__ = [
    "LEVELS",
    "ItemAgreement",
    "SignalQuality",
    "SpanAgreement",
    "cohen_kappa",
    "fleiss_kappa",
    "item_agreement",
    "krippendorff_alpha",
    "percent_agreement",
    "signal_quality",
    "span_agreement",
]

LEVELS = ("nominal", "ordinal", "interval", "ratio")
IOU = 0.5  # two marks are the same from this intersection over union on
_RESAMPLES = 1_000


def cohen_kappa(table: ArrayLike) -> float:
    """Cohen's κ (1960) of two raters, by statsmodels.

    Args:
        table: contingency table [category of one, category of the other], counts.

    Returns:
        κ; NaN where both always gave the same single category, which leaves nothing to expect by chance.

    Raises:
        ValueError: no square table of counts, or an empty one.
    """
    counts = _counts(table, "a table [category, category]")
    if counts.shape[0] != counts.shape[1]:
        raise ValueError(f"expected as many rows as columns, got a table {list(counts.shape)}")
    shares = counts / counts.sum()
    if math.isclose(float(shares.sum(0) @ shares.sum(1)), 1.0):
        return math.nan
    return float(inter_rater.cohens_kappa(counts, return_results=False))


def fleiss_kappa(counts: ArrayLike) -> float:
    """Fleiss' κ (1971) of any number of raters, the same for each unit, by statsmodels.

    Args:
        counts: [unit, category], how many raters gave the unit the category.

    Returns:
        κ; NaN where all ratings are of one category.

    Raises:
        ValueError: no counts, units with different numbers of raters, or fewer than two raters.
    """
    given = _counts(counts, "counts [unit, category]")
    raters = given.sum(1)
    if len(set(raters.tolist())) > 1 or raters[0] < 2:
        low, high = int(raters.min()), int(raters.max())
        raise ValueError(
            f"expected the same number of raters, two or more, for every unit; got {low} to {high}. "
            "With missing ratings, take krippendorff_alpha."
        )
    if np.count_nonzero(given.sum(0)) == 1:
        return math.nan
    return float(inter_rater.fleiss_kappa(given, method="fleiss"))


def krippendorff_alpha(ratings: ArrayLike, level: str) -> float:
    """Krippendorff's α (2011), by the package krippendorff.

    Args:
        ratings: [rater, unit] float, NaN where a rater did not rate a unit.
        level: nominal, ordinal, interval or ratio.

    Returns:
        α; NaN where no unit was rated twice, or all pairable ratings are one value.

    Raises:
        ValueError: other dims, an infinite rating, or an unknown level.
    """
    given = np.asarray(ratings, dtype=np.float64)
    if level not in LEVELS:
        raise ValueError(f"expected a level of {', '.join(LEVELS)}, got {level!r}")
    if given.ndim != 2 or np.isinf(given).any():
        raise ValueError(f"expected finite ratings [rater, unit], NaN where missing; got shape {given.shape}")
    pairable = given[:, (~np.isnan(given)).sum(0) > 1]
    if len(np.unique(pairable[~np.isnan(pairable)])) < 2:
        return math.nan
    known: Any = level
    return float(alpha(reliability_data=pairable, level_of_measurement=known))


def percent_agreement(ratings: ArrayLike) -> float:
    """Return the share of pairs of ratings of the same unit that are equal; NaN where no unit was rated twice.

    Args:
        ratings: [rater, unit] float, NaN where missing.
    """
    agree, pairs = _pairs(np.asarray(ratings, dtype=np.float64))
    return agree / pairs if pairs else math.nan


@dataclass(frozen=True)
class ItemAgreement:
    """How far reviewers agree on one behaviour, or on all of them, or on severity."""

    item: str
    level: str
    """of measurement"""
    units: int
    """traces with two verdicts or more"""
    raters: int
    prevalence: float
    """share of the verdicts on them that say so; NaN for severity, which has no yes"""
    percent: float
    """of pairs of verdicts"""
    alpha: float
    """Krippendorff's, NaN where undefined"""
    interval: tuple[float, float]
    """95 % of α, resampling traces 1,000 times; NaN where undefined"""
    fleiss: float
    """NaN where traces have different numbers of verdicts"""
    cohen: float
    """NaN unless two people gave all the verdicts"""


def item_agreement(given: Iterable[Given], rubric: Rubric, *, seed: int = 0) -> list[ItemAgreement]:
    """Return the agreement on every behaviour someone named, on the behaviour as a whole, and on severity.

    Args:
        given: verdicts, such as `Desk.verdicts` gives; adjudications are left out. Leave out calibration traces.
        rubric: whose behaviours they name.
        seed: of the resampling.
    """
    verdicts = [each for each in given if not each.adjudicates]
    ids = list(rubric.by_id)
    named = [name for name in ids if any(each.verdict.behaviour == name for each in verdicts)]
    codes = {name: float(place) for place, name in enumerate(ids)}
    rows = [_agreed("behaviour", "nominal", _ratings(verdicts, lambda g: codes[g.verdict.behaviour]), seed)]
    rows.append(_agreed("severity", "ordinal", _ratings(verdicts, lambda g: float(g.verdict.severity)), seed))
    for name in named:
        says = _ratings(verdicts, lambda g, name=name: float(g.verdict.behaviour == name))  # type: ignore[misc]
        rows.append(_agreed(name, "nominal", says, seed))
    return rows


def _ratings(verdicts: Sequence[Given], value: Callable[[Given], float]) -> NDArray[np.float64]:
    """Return [rater, unit] of the traces with two verdicts or more."""
    by_trace: dict[str, dict[str, float]] = {}
    for each in verdicts:
        by_trace.setdefault(each.trace, {})[each.reviewer] = value(each)
    raters = sorted({each.reviewer for each in verdicts})
    units = [ratings for ratings in by_trace.values() if len(ratings) > 1]
    return np.array([[unit.get(rater, math.nan) for unit in units] for rater in raters]).reshape(
        len(raters), len(units)
    )


def _agreed(item: str, level: str, ratings: NDArray[np.float64], seed: int) -> ItemAgreement:
    values = ratings[~np.isnan(ratings)]
    is_binary = item not in ("behaviour", "severity")
    return ItemAgreement(
        item,
        level,
        ratings.shape[1],
        int((~np.isnan(ratings)).any(1).sum()) if ratings.size else 0,
        float(values.mean()) if is_binary and len(values) else math.nan,
        percent_agreement(ratings),
        krippendorff_alpha(ratings, level),
        _alpha_interval(ratings, level, seed),
        _fleiss_of(ratings),
        _cohen_of(ratings),
    )


def _alpha_interval(ratings: NDArray[np.float64], level: str, seed: int) -> tuple[float, float]:
    units = ratings.shape[1]
    if units < 2 or math.isnan(krippendorff_alpha(ratings, level)):
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a sample of one value has no α, and is left out
        drawn = [krippendorff_alpha(ratings[:, rng.integers(0, units, units)], level) for _ in range(_RESAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _fleiss_of(ratings: NDArray[np.float64]) -> float:
    counts = (~np.isnan(ratings)).sum(0)
    if not ratings.size or len(set(counts.tolist())) > 1:
        return math.nan
    categories = np.unique(ratings[~np.isnan(ratings)])
    return fleiss_kappa((ratings[:, :, None] == categories).sum(0))


def _cohen_of(ratings: NDArray[np.float64]) -> float:
    if len(ratings) != 2 or not ratings.size or np.isnan(ratings).any():
        return math.nan
    categories = np.unique(ratings)
    one, other = (each[:, None] == categories for each in ratings)
    return cohen_kappa(one.T.astype(float) @ other)


def _pairs(ratings: NDArray[np.float64]) -> tuple[int, int]:
    agree = pairs = 0
    for a, b in combinations(ratings, 2):
        both = ~np.isnan(a) & ~np.isnan(b)
        pairs += int(both.sum())
        agree += int((a[both] == b[both]).sum())
    return agree, pairs


@dataclass(frozen=True)
class SpanAgreement:
    """How far two reviewers mark the same words."""

    matched: int
    """pairs of marks that are the same, each mark in one pair at most"""
    first: int
    """marks of the first"""
    second: int
    f1: float
    """2 · matched / (first + second), which does not depend on who is first; NaN where neither marked anything"""
    iou: float
    """from which intersection over union on two marks are the same"""


def span_agreement(first: Sequence[Evidence], second: Sequence[Evidence], *, iou: float = IOU) -> SpanAgreement:
    """Compare the marks of two reviewers on one trace, tolerant of where they begin and end.

    Two marks are the same where their tokens have an intersection over union of at least ``iou``; the closest are
    paired first. Marks on different channels never meet, since tokens belong to one.

    Raises ValueError unless 0 < iou ≤ 1.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"expected an intersection over union above 0 and at most 1, got {iou}")
    near = [(_iou(a, b), i, j) for i, a in enumerate(first) for j, b in enumerate(second)]
    used: tuple[set[int], set[int]] = (set(), set())
    for share, i, j in sorted(near, key=lambda each: (-each[0], each[1], each[2])):
        if share >= iou and i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
    marks = len(first) + len(second)
    matched = len(used[0])
    return SpanAgreement(matched, len(first), len(second), 2 * matched / marks if marks else math.nan, iou)


def _iou(a: Evidence, b: Evidence) -> float:
    shared = min(a.stop, b.stop) - max(a.start, b.start)
    return max(0, shared) / (max(a.stop, b.stop) - min(a.start, b.start))


@dataclass(frozen=True)
class SignalQuality:
    """How a signal compares with what reviewers found, or with what is known."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def n(self) -> int:
        """How many traces it was compared on."""
        return self.true_positives + self.false_positives + self.false_negatives + self.true_negatives

    @property
    def precision(self) -> float:
        """Share of the flagged traces that are right; NaN where none was flagged."""
        return _share(self.true_positives, self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the right traces that were flagged (TPR); NaN where none is right."""
        return _share(self.true_positives, self.false_negatives)

    @property
    def specificity(self) -> float:
        """Share of the others that were not flagged (TNR); NaN where there are no others."""
        return _share(self.true_negatives, self.false_positives)

    @property
    def f1(self) -> float:
        """2 · TP / (2 · TP + FP + FN); NaN where nothing is right and nothing was flagged."""
        return _share(2 * self.true_positives, self.false_positives + self.false_negatives)

    @property
    def g_mean2(self) -> float:
        """TPR · TNR, which a signal that always or never fires does not raise; NaN where either is undefined."""
        return self.recall * self.specificity

    @property
    def precision_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the precision; NaN where it is undefined."""
        return _interval(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the recall; NaN where it is undefined."""
        return _interval(self.true_positives, self.true_positives + self.false_negatives)


def signal_quality(flagged: Mapping[str, bool], found: Mapping[str, bool]) -> SignalQuality:
    """Compare a signal with what was found.

    Args:
        flagged: trace → whether the signal fired.
        found: trace → whether the behaviour is there, by reviewers or because it is known. Traces that are not in both
            are left out.
    """
    both = [(flagged[trace], found[trace]) for trace in flagged.keys() & found.keys()]
    return SignalQuality(*(both.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))))


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else math.nan


def _interval(successes: int, n: int) -> tuple[float, float]:
    return wilson_interval(successes, n) if n else (math.nan, math.nan)


def _counts(given: ArrayLike, what: str) -> NDArray[Any]:
    counts = np.asarray(given, dtype=np.float64)
    if counts.ndim != 2 or not counts.size or not np.isfinite(counts).all() or (counts < 0).any() or not counts.sum():
        raise ValueError(f"expected {what} of counts that are not negative and not all 0, got shape {counts.shape}")
    return counts
