"""Maps of one head's attention over a whole trace, pooled to what a screen can show: stretches of tokens, and bins.

Both stream over blocks of rows, so that memory is bounded by a block whatever the length.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.trace import Trace

__all__ = ["HeadAttention", "Overview", "Stretches", "encode_overview"]

BLOCK_PAIRS = 1 << 22
"""Pairs of tokens computed at once: 16 MB of scores."""
STRIPE_PAIRS = 1 << 24
"""Pairs per answer: a fraction of a second, so that what is asked meanwhile waits no longer."""
MOST_STRETCHES, MOST_BINS = 384, 512
TOKENS_PER_STRETCH = 16
UNDEFINED = 255
"""The code of a bin without a key in sight; 0–254 are the roots of shares of the scale."""


@dataclass(frozen=True)
class HeadAttention:
    """Attention of one head, computed block by block.

    Args:
        queries: [token, d_head], after RoPE.
        keys: [token, d_head] of the head's kv group, float32.
        sink_logit: a number, or None in families without sinks.
        logsumexp: [token] float32 of each row's scores, its sink included; None when it was not captured.
        scale: of the scores.
        window: tokens a row sees, itself included; None sees all before it.
    """

    queries: NDArray[Any]
    keys: NDArray[np.float32]
    sink_logit: Any
    logsumexp: NDArray[Any] | None
    scale: float
    window: int | None

    def first_key(self, row: int) -> int:
        """Return the first token that a row sees."""
        return 0 if self.window is None else max(0, row - self.window + 1)

    def blocks(self, start: int, stop: int, step: int = 1) -> Iterator["RowBlock"]:
        """Yield the rows ``[start, stop)`` in blocks of a multiple of ``step``, each of some `BLOCK_PAIRS` at most."""
        offset = self.first_key(start)
        keys = self.keys[offset:stop].T
        rows = max(1, self._rows_per_block(stop) // step) * step
        for at in range(start, stop, rows):
            until, first = min(stop, at + rows), self.first_key(at)
            yield self._block(at, until, first, keys[:, first - offset : until - offset])

    def _rows_per_block(self, stop: int) -> int:
        if self.window is None:
            return BLOCK_PAIRS // stop
        rows = max(256, self.window)  # more would mostly be pairs out of sight
        return min(rows, BLOCK_PAIRS // (self.window + rows))

    def _block(self, start: int, stop: int, first: int, keys: NDArray[np.float32]) -> "RowBlock":
        scores = self.queries[start:stop].astype(np.float32) @ keys
        scores *= np.float32(self.scale)
        self._hide(scores, start, first)
        if self.logsumexp is None:
            sink = -np.inf if self.sink_logit is None else np.float32(self.sink_logit)
            top = np.maximum(scores.max(axis=1), sink)
            lse = top + np.log(np.exp(scores - top[:, None]).sum(axis=1) + np.exp(sink - top))
        else:
            lse = self.logsumexp[start:stop].astype(np.float32)
        scores -= lse[:, None]
        sink_mass = np.zeros_like(lse) if self.sink_logit is None else np.exp(np.float32(self.sink_logit) - lse)
        return RowBlock(start, stop, first, np.exp(scores, out=scores), sink_mass)

    def _hide(self, scores: NDArray[np.float32], start: int, first: int) -> None:
        """Put -inf where a row does not see: later tokens, and those before its window."""
        rows = np.arange(len(scores))[:, None]
        scores[:, start - first :][rows < np.arange(scores.shape[1] - start + first)] = -np.inf
        if self.window is not None:
            gone = max(0, start + len(scores) - self.window - first)  # of the last row
            scores[:, :gone][rows + start - self.window + 1 - first > np.arange(gone)] = -np.inf

    def to_stretches(self, spans: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return how much each stretch reads of each, and of what is none.

        Args:
            spans: [stretch, 2], start and stop, ascending, apart from one another and without token 0.

        Returns:
            [stretch, stretch + 2]: the mean over the rows of a stretch of the weight summed over the keys of another,
            NaN where no row sees a key; then its mean sink mass (0 in families without), and its mean weight on
            token 0 (NaN where it is out of sight). What is missing to 1 went to tokens in no stretch.
        """
        count = len(spans)
        sums, seen = np.zeros((count, count + 2)), np.zeros((count, count + 2), dtype=bool)
        edges = np.concatenate([[0, 1], spans.ravel()])  # token 0 alone, then stretches and what lies between
        for at, (start, stop) in enumerate(spans):
            for block in self.blocks(int(start), int(stop)):
                within = np.clip(edges, block.first, block.stop) - block.first
                total = np.concatenate([[0.0], np.cumsum(block.weights.sum(axis=0, dtype=np.float64))])
                parts = total[within[1:]] - total[within[:-1]]
                visible = within[1:] > within[:-1]
                sums[at, :count] += parts[2::2]
                sums[at, count] += block.sink_mass.sum(dtype=np.float64)
                sums[at, count + 1] += parts[0]
                seen[at, :count] |= visible[2::2]
                seen[at, count] = True
                seen[at, count + 1] |= visible[0]
        sums /= np.diff(spans, axis=1)
        return np.where(seen, sums, np.nan).astype(np.float32)


@dataclass(frozen=True)
class RowBlock:
    """Rows ``[start, stop)`` over keys ``[first, stop)``: weights [row, key], 0 out of sight, and sink mass [row]."""

    start: int
    stop: int
    first: int
    weights: NDArray[np.float32]
    sink_mass: NDArray[np.float32]


@dataclass(frozen=True)
class Stretches:
    """What the rows and columns of the map are: sentences, or several where there are many; else runs of tokens.

    Attributes:
        spans: [stretch, 2], start and stop; never token 0, whose share is shown apart.
        sentences: [stretch, 2], first sentence and one past the last; empty where there are none.
    """

    spans: NDArray[np.int64]
    sentences: NDArray[np.int64]

    @classmethod
    def of(cls, trace: Trace) -> "Stretches":
        """Return the stretches of a trace, at most `MOST_STRETCHES`."""
        bounds = np.array([(max(1, s.start), s.stop) for s in trace.sentences if s.stop > 1], dtype=np.int64)
        skipped = len(trace.sentences) - len(bounds)
        bounds = bounds.reshape(-1, 2)
        bounds = bounds[bounds[:, 1] > bounds[:, 0]]
        if not len(bounds):
            size = max(TOKENS_PER_STRETCH, -(-len(trace) // MOST_STRETCHES))
            starts = np.arange(1, len(trace), size)
            return cls(np.stack([starts, np.minimum(starts + size, len(trace))], axis=1), np.empty((0, 2), np.int64))
        group = -(-len(bounds) // MOST_STRETCHES)
        first = np.arange(0, len(bounds), group)
        last = np.minimum(first + group, len(bounds))
        spans = np.stack([bounds[first, 0], bounds[last - 1, 1]], axis=1)
        return cls(spans, np.stack([first, last], axis=1) + skipped)


@dataclass(frozen=True)
class Overview:
    """Rows × keys of a whole trace, ``factor`` tokens to a bin on both axes, computed stripe by stripe.

    Attributes:
        num_tokens: of the trace.
        factor: tokens per bin; at least 2, so that no token × token array is sent however short the trace is.
        stripe: rows of bins per stripe.
    """

    num_tokens: int
    factor: int
    stripe: int

    @classmethod
    def of(cls, num_tokens: int) -> "Overview":
        """Return the overview of a trace of so many tokens."""
        factor = max(2, -(-num_tokens // MOST_BINS))
        return cls(num_tokens, factor, max(1, STRIPE_PAIRS // (factor * max(1, num_tokens))))

    @property
    def num_bins(self) -> int:
        """Bins on each axis."""
        return -(-self.num_tokens // self.factor)

    @property
    def num_stripes(self) -> int:
        """How many stripes there are."""
        return -(-self.num_bins // self.stripe)

    def of_stripe(self, attention: HeadAttention, stripe: int) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
        """Return the first bin of keys, and the largest and the mean weight [row bin, key bin] of the pairs in sight.

        NaN where no row of the bin sees a key of the other. Raises `IndexError` for a stripe that is not there.
        """
        if not 0 <= stripe < self.num_stripes:
            raise IndexError(stripe)
        first_row = stripe * self.stripe * self.factor
        stop = min(self.num_tokens, first_row + self.stripe * self.factor)
        first = attention.first_key(first_row) // self.factor
        shape = (-(-(stop - first_row) // self.factor), -(-stop // self.factor) - first)
        top, mean = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        for block in attention.blocks(first_row, stop, self.factor):
            rows = slice((block.start - first_row) // self.factor, None)
            keys = slice(block.first // self.factor - first, -(-block.stop // self.factor) - first)
            pooled = self._pool(block, attention.window)
            height = len(pooled[0])
            top[rows, keys][:height], mean[rows, keys][:height] = pooled
        return first, top, mean

    def _pool(self, block: RowBlock, window: int | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows = np.arange(block.start, block.stop)[:, None]
        bins = np.arange(block.first // self.factor, -(-block.stop // self.factor)) * self.factor
        row_edges, key_edges = np.arange(0, len(rows), self.factor), np.maximum(bins - block.first, 0)

        def pool(how: np.ufunc, values: NDArray[np.float32]) -> NDArray[np.float32]:
            pooled: NDArray[np.float32] = how.reduceat(how.reduceat(values, key_edges, axis=1), row_edges, axis=0)
            return pooled

        first_seen = np.zeros_like(rows) if window is None else rows - window + 1
        seen = np.minimum(bins + self.factor, rows + 1) - np.maximum(bins, first_seen)
        pairs = np.add.reduceat(np.maximum(seen, 0), row_edges, axis=0)
        in_sight: NDArray[np.float32] = np.where(pairs > 0, pairs, np.nan).astype(np.float32)
        top = np.where(pairs > 0, pool(np.maximum, block.weights), np.float32(np.nan))
        return top, pool(np.add, block.weights) / in_sight


def encode_overview(first: int, top: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pack a stripe: first bin (uint32), scale of either (float32), then codes [row, key] of either.

    A value is ``scale · (code / 254)²``: roots, so that small weights keep their differences.
    """
    scales = [np.float32(np.nanmax(values)) for values in (top, mean)]
    codes = []
    for values, scale in zip((top, mean), scales, strict=True):
        share = values / scale if scale > 0 else values
        codes.append(np.where(np.isnan(values), UNDEFINED, np.round(np.sqrt(share) * 254)).astype(np.uint8).ravel())
    head = np.concatenate([np.array([first], "<u4").view(np.uint8), np.array(scales, "<f4").view(np.uint8)])
    return np.concatenate([head, *codes])
