"""Intervals and tests for what is counted and what is averaged."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, bootstrap
from scipy.stats import permutation_test as permute

from workbench.analysis.routing.permutation import MIN_PAIRS, MIN_TRACES

__all__ = ["MeanDifference", "bootstrap_interval", "mean_difference", "proportion_difference", "wilson_interval"]

_BLOCK = 1 << 22  # resampled numbers at a time


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval (1927) of a proportion, without continuity correction.

    Raises ValueError unless 0 ≤ successes ≤ n and n ≥ 1: no interval speaks for nothing counted.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(
            f"expected 0 <= successes <= n and n >= 1, but got {successes} of {n}; "
            "leave out a proportion of nothing instead of drawing it"
        )
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def proportion_difference(
    successes_a: int, n_a: int, successes_b: int, n_b: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return the difference a − b of two independent proportions, and the ends of its interval.

    Newcombe's hybrid score interval (1998, method 10), of two Wilson intervals. Proportions on the same questions are
    not independent; take `mean_difference` of the questions' own proportions, paired.

    Raises ValueError as `wilson_interval` does.
    """
    p_a, p_b = successes_a / max(n_a, 1), successes_b / max(n_b, 1)
    low_a, high_a = wilson_interval(successes_a, n_a, confidence)
    low_b, high_b = wilson_interval(successes_b, n_b, confidence)
    difference = p_a - p_b
    return (
        difference,
        difference - math.hypot(p_a - low_a, high_b - p_b),
        difference + math.hypot(high_a - p_a, p_b - low_b),
    )


def bootstrap_interval(
    values: ArrayLike, *, confidence: float = 0.95, num_resamples: int = 9_999, seed: int = 0
) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap interval of a mean (Efron, 1987; `scipy.stats.bootstrap`).

    Too narrow for few values. Where all values are equal it is that value: resampling cannot tell what was not seen.

    Args:
        values: one number per independent rollout, not per token.
        confidence: between 0 and 1.
        num_resamples: how often to draw as many values again.
        seed: of the drawing.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    sample = _sample(values, "values", 2)
    if (sample == sample[0]).all():
        return float(sample[0]), float(sample[0])
    rng = np.random.default_rng(seed)
    found = bootstrap(
        (sample,),
        np.mean,
        confidence_level=confidence,
        n_resamples=num_resamples,
        batch=max(1, _BLOCK // len(sample)),
        rng=rng,
    )
    interval = found.confidence_interval
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class MeanDifference:
    """What `mean_difference` found."""

    difference: float
    """mean of a − mean of b"""
    p_value: float
    """two-sided"""
    n_a: int
    n_b: int
    num_permutations: int
    method: str
    """what was permuted, and whether all ways were gone through"""


def mean_difference(
    a: ArrayLike, b: ArrayLike, *, paired: bool = False, num_permutations: int = 9_999, seed: int = 0
) -> MeanDifference:
    """Test the difference of two means by permutation (`scipy.stats.permutation_test`).

    Labels are permuted, or those of each pair swapped; all ways where there are at most ``num_permutations``, of
    random ones ``p = (1 + #) / (1 + n)``. Two-sided: twice the smaller tail. Presumes that under the null hypothesis
    both sides have the same distribution, not the same mean alone.

    Args:
        a: one number per independent rollout or question.
        b: the same of the other side.
        paired: number i of a and number i of b belong together.
        num_permutations: at least 99.
        seed: of random permutations.

    Raises:
        ValueError: fewer than 6 numbers a side or 8 pairs, pairs of unequal numbers, a number that is not finite, or
            fewer than 99 permutations.
    """
    if num_permutations < 99:
        raise ValueError(f"expected at least 99 permutations, got {num_permutations}")
    least = MIN_PAIRS if paired else MIN_TRACES
    samples = (_sample(a, "a", least), _sample(b, "b", least))
    n_a, n_b = len(samples[0]), len(samples[1])
    if paired and n_a != n_b:
        raise ValueError(f"expected pairs, got {n_a} numbers of a and {n_b} of b")
    ways = 2**n_a if paired else math.comb(n_a + n_b, n_a)
    found = permute(
        samples,
        _difference,
        permutation_type="samples" if paired else "independent",
        vectorized=True,
        n_resamples=num_permutations,
        rng=np.random.default_rng(seed),
    )
    every = ways <= num_permutations
    what = "the two of each pair change sides" if paired else "labels permuted"
    method = f"{what}, {'all' if every else 'random'} {min(ways, num_permutations):,} ways, two-sided"
    return MeanDifference(float(found.statistic), float(found.pvalue), n_a, n_b, min(ways, num_permutations), method)


def _difference(a: NDArray[Any], b: NDArray[Any], axis: int = -1) -> NDArray[Any]:
    result: NDArray[Any] = np.mean(a, axis=axis) - np.mean(b, axis=axis)
    return result


def _sample(values: ArrayLike, name: str, least: int) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < least:
        raise ValueError(f"{name}: expected at least {least} numbers, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        at = int(np.flatnonzero(~np.isfinite(sample))[0])
        raise ValueError(f"{name}: expected finite numbers, got {sample[at]} in place {at}; leave undefined ones out")
    return sample
