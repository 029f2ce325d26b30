"""A pattern as the measures read it: [head, query, key], and which token each of its rows is."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workbench.labelled import Labelled, TraceError

__all__ = ["DIMS", "Array", "Pattern", "check_window", "origin", "read_pattern", "read_values"]

Array: TypeAlias = NDArray[Any] | Labelled

DIMS = ("head", "query", "key")


class Pattern(NamedTuple):
    """Rows of causal attention, checked."""

    values: NDArray[Any]
    """[head, query, key]"""
    tokens: NDArray[np.int64]
    """[query], the token of each row"""
    coords: dict[str, tuple[int, ...]]
    """labels of head and query, where there are any"""
    origin: str
    """where the pattern came from, as the end of a ``source``"""


def read_values(array: Array, dims: tuple[str, ...], name: str) -> NDArray[Any]:
    """Return the values. Raises `TraceError` for other dims."""
    if isinstance(array, Labelled) and array.dims != dims:
        raise TraceError(f"{name}: expected [{', '.join(dims)}], got dims {list(array.dims)}")
    if not isinstance(array, np.ndarray | Labelled):
        raise TraceError(f"{name}: expected [{', '.join(dims)}], got {type(array).__name__}")
    if len(array.shape) != len(dims):
        raise TraceError(f"{name}: expected [{', '.join(dims)}], got shape {array.shape}")
    return np.asarray(array)


def read_pattern(pattern: Array, rows: Iterable[int] | None) -> Pattern:
    """Return a pattern with the token of each row: its own labels, ``rows``, or each token in turn.

    Raises:
        TraceError: other dims, rows without tokens or with other ones than the labels say, or attention to a later
            token, as a transposed pattern has.
    """
    values = read_values(pattern, DIMS, "pattern")
    coords = dict(pattern.coords) if isinstance(pattern, Labelled) else {}
    if coords.get("key", ()) not in ((), tuple(range(values.shape[2]))):
        raise TraceError("pattern: expected every key from token 0 on, got labels of some keys only")
    tokens = _tokens(values.shape, coords.get("query"), rows)
    later = np.arange(values.shape[2]) > tokens[:, None]
    wrong = np.argwhere(np.any(values, axis=0) & later)
    if len(wrong):
        row, key = wrong[0]
        raise TraceError(
            f"pattern: expected causal rows, got attention of token {tokens[row]} to token {key}. Is it "
            "[head, query, key], and are these the tokens of its rows?"
        )
    return Pattern(values, tokens, {d: coords[d] for d in ("head", "query") if d in coords}, origin(pattern))


def origin(array: Array) -> str:
    """Return where an array came from, as the end of a ``source``."""
    return f", {array.source}" if isinstance(array, Labelled) and array.source else ""


def check_window(window: int | None) -> None:
    """Raise `TraceError` for a window that does not even hold the token itself."""
    if window is not None and window < 1:
        raise TraceError(f"expected a window of at least 1, the token itself, got {window}")


def _tokens(shape: tuple[int, ...], labels: tuple[int, ...] | None, rows: Iterable[int] | None) -> NDArray[np.int64]:
    given = None if rows is None else tuple(int(row) for row in rows)
    if labels is not None and given is not None and labels != given:
        raise TraceError("pattern: its rows are labelled with other tokens than those given; leave rows out")
    known = labels if given is None else given
    if known is None:
        if shape[1] != shape[2]:
            raise TraceError(
                f"pattern: expected a row for each of {shape[2]} tokens, got {shape[1]} rows; say which tokens they "
                "are with rows=, or pass the labelled pattern of trace.attention"
            )
        return np.arange(shape[1])
    tokens = np.array(known, dtype=np.int64)
    if len(tokens) != shape[1] or (len(tokens) and not 0 <= tokens.min() <= tokens.max() < shape[2]):
        raise TraceError(f"rows: expected {shape[1]} tokens within 0–{shape[2] - 1}, got {list(known)[:8]}")
    return tokens
