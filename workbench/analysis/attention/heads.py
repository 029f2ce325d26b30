"""One number per head: how much it reads the token before, and what came after the last time (induction)."""

from collections.abc import Iterable

import numpy as np

from workbench.analysis.attention.pattern import Array, check_window, read_pattern
from workbench.labelled import Labelled, TraceError

__all__ = ["induction_score", "previous_token_score"]


def previous_token_score(pattern: Array, window: int | None = None, rows: Iterable[int] | None = None) -> Labelled:
    """Return each head's mean attention to the token before, ``A_{i, i−1}`` over rows from token 1 on.

    Args:
        pattern: [head, query, key], rows that sum to ``1 − sink mass``.
        window: of the layer, the token itself included; None sees all before it.
        rows: the token of each row, where the pattern has no labels and is of some rows only.

    Returns:
        [head] float64; NaN in a window of 1, which holds no token before.

    Raises:
        TraceError: what is no causal pattern, rows of which the token is not known, or none from token 1 on.
    """
    return _at_distance(pattern, 1, 1, window, rows, "previous-token score: mean A[i, i−1]")


def induction_score(
    pattern: Array, period: int, window: int | None = None, start: int = 0, rows: Iterable[int] | None = None
) -> Labelled:
    """Return each head's mean attention to what followed the same token one period ago, ``A_{i, i−P+1}``.

    On a repeated random sequence (Olsson et al., 2022, arXiv 2209.11895). Only rows that have seen the token before
    count: those from ``start + period`` on.

    Args:
        pattern: [head, query, key] over the repeated sequence, rows that sum to ``1 − sink mass``.
        period: P, tokens until the sequence repeats, at least 2.
        window: of the layer, the token itself included: it reaches ``window − 1`` tokens back, so no head can score
            where ``P − 1`` is more. None sees all.
        start: the token where the sequence first begins.
        rows: the token of each row, where the pattern has no labels and is of some rows only.

    Returns:
        [head] float64; NaN, and ``source`` says so, where the window cannot reach: structurally 0 is not a score.

    Raises:
        TraceError: a period below 2, what is no causal pattern, or no rows from the first repetition on.
    """
    if period < 2:
        raise TraceError(f"expected a period of at least 2 tokens, got {period}")
    name = f"induction score: mean A[i, i−{period}+1]"
    return _at_distance(pattern, period - 1, start + period, window, rows, name)


def _at_distance(
    pattern: Array, distance: int, first: int, window: int | None, rows: Iterable[int] | None, name: str
) -> Labelled:
    """Return the mean attention at a distance over the rows from token ``first`` on."""
    check_window(window)
    values, tokens, coords, came_from = read_pattern(pattern, rows)
    chosen = np.flatnonzero(tokens >= first)
    if not len(chosen):
        raise TraceError(f"expected rows from token {first} on, got none; the {name.partition(':')[0]} needs them")
    source = f"{name} over {len(chosen)} rows from token {first} on{came_from}"
    if window is not None and distance > window - 1:
        score = np.full(len(values), np.nan)
        source = f"undefined, structurally 0: a window of {window} does not reach {distance} tokens back; {source}"
    else:
        score = values[:, chosen, tokens[chosen] - distance].mean(axis=-1, dtype=np.float64)
    return Labelled(score, ("head",), {d: labels for d, labels in coords.items() if d == "head"}, source)
