"""Intervals for what is counted."""

from scipy.stats import binomtest


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
