"""Causal attention with sinks, from queries and keys, one block at a time: nothing token × token is ever held.

Every number about attention comes through `attention_blocks`, so that there is one softmax, one mask and one
convention. Needs numpy only, as the trace does.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workbench.labelled import TraceError

__all__ = ["AttentionBlock", "AttentionInputs", "attention_blocks", "attention_rows"]

_MAX_ROWS = 128  # more would compute more of what the causal mask then hides
_HEAD_SCORES = 1 << 19  # of one head's rows, 2 MiB, so that the passes over them stay in the cache
_BLOCK_SCORES = 1 << 24  # of a group of heads, 64 MiB, whatever the length
_SUMMED = 4096
_LEAST, _MOST = 1e-28, 1e30  # sums of weights of which nothing that matters is lost in float32
_HIDDEN = np.float32(-1e30)  # exp gives 0, and 0 · hidden is 0, where −inf would give NaN

_Sums: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""[row], the sum of the row's weights; [row], the sink's weight, None in families without sinks"""


class AttentionInputs(NamedTuple):
    """What attention of one layer is computed from; the arguments of `attention_rows`, in order."""

    queries: NDArray[Any]
    """[head, token, d_head], after RoPE"""
    keys: NDArray[Any]
    """[kv_head, token, d_head], after RoPE"""
    sink_logits: NDArray[Any] | None
    """[head]; None in families without sinks"""
    scale: float
    window: int | None
    """tokens a row sees, itself included; None = all before it"""


class AttentionBlock(NamedTuple):
    """Some query rows of one head, before the division: attention is ``weights / total``. Keys outside are hidden.

    The arrays are overwritten by the next block.
    """

    head: int
    """the place among the queries' heads"""
    rows: slice
    """the places among the rows asked for"""
    keys: slice
    """the tokens that any of the rows sees"""
    scores: NDArray[np.float32]
    """[row, key], in a row perhaps all less some number; hugely negative where hidden"""
    weights: NDArray[np.float32]
    """[row, key], exp(scores), 0 where hidden"""
    seen: NDArray[np.float32]
    """[row], the sum of the row's weights"""
    sink: NDArray[np.float32] | None
    """[row], the sink's weight, which may be far larger; None in families without sinks"""

    @property
    def total(self) -> NDArray[np.float32]:
        """[row], the sum of the row's weights and the sink's."""
        return self.seen if self.sink is None else self.seen + self.sink


def attention_rows(
    queries: NDArray[Any],
    keys: NDArray[Any],
    sink_logits: NDArray[Any] | None,
    scale: float,
    window: int | None = None,
    rows: NDArray[np.integer[Any]] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Compute rows of causal attention, the sink included, in float32.

    The softmax runs over ``[q·kᵀ·scale + mask, sink]``, then the sink's column is dropped (`sdpa` in openai/gpt-oss,
    `eager_attention_forward` in transformers).

    Args:
        queries: [head, token, d_head], after RoPE.
        keys: [kv_head, token, d_head]; heads share keys in consecutive groups (grouped-query attention).
        sink_logits: [head], or None in families without sinks.
        scale: usually ``d_head ** -0.5``.
        window: tokens a row sees, itself included; None sees all before it.
        rows: query tokens in any order; None = all.

    Returns:
        pattern [head, row, key] whose rows sum to ``1 - sink_mass``; sink_mass [head, row] or None.

    Raises:
        TraceError: shapes that disagree, a row that is no token, or a window below 1.
    """
    blocks = attention_blocks(queries, keys, sink_logits, scale, window, rows)
    num_heads, num_tokens, _ = queries.shape
    num_rows = num_tokens if rows is None else len(rows)
    pattern = np.zeros((num_heads, num_rows, num_tokens), dtype=np.float32)
    sink_mass = None if sink_logits is None else np.empty((num_heads, num_rows), dtype=np.float32)
    for block in blocks:
        total = block.total
        np.divide(block.weights, total[:, None], out=pattern[block.head, block.rows, block.keys])
        if sink_mass is not None and block.sink is not None:
            np.divide(block.sink, total, out=sink_mass[block.head, block.rows])
    return pattern, sink_mass


def attention_blocks(
    queries: NDArray[Any],
    keys: NDArray[Any],
    sink_logits: NDArray[Any] | None,
    scale: float,
    window: int | None = None,
    rows: NDArray[np.integer[Any]] | None = None,
) -> Iterator[AttentionBlock]:
    """Step through what `attention_rows` computes, with its arguments and errors, in blocks of up to 128 rows.

    Memory: 64 MiB of scores (one row of a group of heads where that alone is more) and one kv head's keys in
    float32. Keys before the window and after the rows are not computed. Heads come in order; each gives its rows in
    the order asked for, in the same slices for the heads of a group.
    """
    wanted = _checked(queries, keys, sink_logits, window, rows)
    window = None if window is None else min(window, queries.shape[1])
    return _blocks(AttentionInputs(queries, keys, sink_logits, scale, window), wanted)


def _blocks(inputs: AttentionInputs, rows: NDArray[np.int64]) -> Iterator[AttentionBlock]:
    queries, keys, sinks, scale, window = inputs
    num_heads, _, d_head = queries.shape
    group = num_heads // len(keys)
    parts = [(part, _visible(rows[part], window)) for part in _slices(rows, group, window)]
    if not parts:
        return
    seen = _visible(rows, window)
    size = max((part.stop - part.start) * (visible.stop - visible.start) for part, visible in parts)
    memory, head_memory = np.empty(group * size, np.float32), np.empty(size, np.float32)
    # A power of two, as of d_head 64, gives the same numbers before the product, where there are fewer to scale.
    early, late = (np.float32(scale), None) if math.frexp(scale)[0] == 0.5 else (np.float32(1), np.float32(scale))
    shifted = np.zeros(num_heads, dtype=bool)
    for kv_head in range(len(keys)):
        kv = keys[kv_head, seen].astype(np.float32).T
        kv = np.ascontiguousarray(kv) if len(parts) > 1 else kv  # as BLAS likes it best, if it is used often enough
        heads = range(kv_head * group, (kv_head + 1) * group)
        for part, visible in parts:
            shape = (group, part.stop - part.start, visible.stop - visible.start)
            grouped = queries[heads.start : heads.stop, rows[part]].astype(np.float32) * early
            scores = memory[: math.prod(shape)].reshape(shape)
            columns = kv[:, visible.start - seen.start : visible.stop - seen.start]
            np.matmul(grouped.reshape(group * shape[1], d_head), columns, out=scores.reshape(-1, shape[2]))
            if late is not None:
                scores *= late
            _hide(scores, rows[part], visible, window)
            for head, of_head in zip(heads, scores, strict=True):
                weights = head_memory[: of_head.size].reshape(of_head.shape)
                sink_logit = None if sinks is None else np.float32(sinks[head])
                sums = None if shifted[head] else _unshifted(of_head, weights, sink_logit)
                shifted[head] = sums is None  # and the head's next rows will need it, too
                yield AttentionBlock(
                    head, part, visible, of_head, weights, *(sums or _shift(of_head, weights, sink_logit))
                )


def _unshifted(scores: NDArray[np.float32], weights: NDArray[np.float32], sink: np.float32 | None) -> _Sums | None:
    """Write the weights as they are; return None where a row's are too large or too small together for float32.

    To find each row's highest score and subtract it takes as long as half of the exponentials, and is seldom needed.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        np.exp(scores, out=weights)
        seen, sink_weight = _sum(weights), None if sink is None else np.full(len(scores), np.exp(sink))
        most = seen if sink_weight is None else seen + sink_weight
        return (seen, sink_weight) if ((seen >= _LEAST) & (most <= _MOST)).all() else None


def _shift(scores: NDArray[np.float32], weights: NDArray[np.float32], sink: np.float32 | None) -> _Sums:
    """Subtract each row's highest score, the sink's included, in place, and write the weights."""
    top = np.maximum(scores.max(axis=-1), -np.inf if sink is None else sink)
    scores -= top[:, None]
    np.exp(scores, out=weights)
    return _sum(weights), None if sink is None else np.exp(sink - top)


def _sum(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum each row by BLAS, twice as fast as numpy, in pieces short enough to stay as exact."""
    ones = np.ones(_SUMMED, dtype=np.float32)
    total = np.zeros(len(weights), dtype=np.float32)
    for start in range(0, weights.shape[1], _SUMMED):
        piece = weights[:, start : start + _SUMMED]
        total += piece @ ones[: piece.shape[1]]
    return total


def _hide(scores: NDArray[np.float32], rows: NDArray[np.int64], keys: slice, window: int | None) -> None:
    """Hide what a row does not see in scores [head, row, key]; only columns that some row does not see are touched."""
    at = rows[:, None]
    after = int(rows.min()) + 1
    np.copyto(scores[..., after - keys.start :], _HIDDEN, where=np.arange(after, keys.stop) > at)
    if window is not None:
        before = max(keys.start, int(rows.max()) - window + 1)
        hidden = np.arange(keys.start, before) <= at - window
        np.copyto(scores[..., : before - keys.start], _HIDDEN, where=hidden)


def _visible(rows: NDArray[np.int64], window: int | None) -> slice:
    """Return the tokens that any of the rows sees, and perhaps some between."""
    start = 0 if window is None else max(0, int(rows.min()) - window + 1)
    return slice(start, int(rows.max()) + 1)


def _slices(rows: NDArray[np.int64], group: int, window: int | None) -> Iterator[slice]:
    """Cut the rows into blocks that fit the limits at the top of this file."""
    start = 0
    while start < len(rows):
        ahead = rows[start : start + _MAX_ROWS]
        jumps = np.flatnonzero(np.abs(np.diff(ahead)) > _MAX_ROWS)  # rows far apart share few keys
        ahead = ahead[: jumps[0] + 1] if len(jumps) else ahead
        seen = _visible(ahead, window)
        num_keys = seen.stop - seen.start
        size = min(len(ahead), max(16, _HEAD_SCORES // num_keys), max(1, _BLOCK_SCORES // (group * num_keys)))
        yield slice(start, start + size)
        start += size


def _checked(
    queries: NDArray[Any],
    keys: NDArray[Any],
    sink_logits: NDArray[Any] | None,
    window: int | None,
    rows: NDArray[np.integer[Any]] | None,
) -> NDArray[np.int64]:
    """Return the rows as int64. Raises `TraceError` where the arrays do not belong together."""
    if queries.ndim != 3 or keys.ndim != 3 or queries.shape[1:] != keys.shape[1:]:
        raise TraceError(
            "expected queries [head, token, d_head] and keys [kv_head, token, d_head] of the same tokens, got shapes "
            f"{queries.shape} and {keys.shape}"
        )
    num_heads, num_tokens, _ = queries.shape
    if len(keys) == 0 or num_heads % len(keys):
        raise TraceError(f"keys: expected a number of kv heads that divides {num_heads} heads, got {len(keys)}")
    if sink_logits is not None and sink_logits.shape != (num_heads,):
        raise TraceError(f"sink_logits: expected one for each of {num_heads} heads, got shape {sink_logits.shape}")
    if window is not None and window < 1:
        raise TraceError(f"expected a window of at least 1, the token itself, got {window}")
    wanted = np.arange(num_tokens) if rows is None else np.asarray(rows)
    if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
        raise TraceError(f"expected rows as a list of tokens, got {wanted.dtype} of shape {wanted.shape}")
    outside = wanted[(wanted < 0) | (wanted >= num_tokens)]
    if outside.size:
        raise TraceError(f"expected rows within 0–{num_tokens - 1}, got {int(outside[0])}")
    return wanted.astype(np.int64)
