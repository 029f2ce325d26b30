"""Maps of attention over a whole trace, pooled to what a screen can show: stretches of tokens, and bins.

Both are computed stripe by stripe, so that memory is bounded by a block whatever the length, and no answer takes long.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.attention import attention_to_spans
from workbench.attending import AttentionInputs, attention_blocks
from workbench.trace import Span, Trace

__all__ = ["Overview", "Stretches", "encode_overview"]

STRIPE_PAIRS = 1 << 25
"""Pairs of tokens per answer: a fraction of a second, so that what is asked meanwhile waits no longer."""
MOST_STRETCHES, MOST_BINS = 384, 512
MOST_ROWS = 128
"""Bins of rows per stripe: of a sliding layer, whose stripes are a band, more would mostly be out of sight."""
TOKENS_PER_STRETCH = 16
UNDEFINED = 255
"""The code of a bin without a key in sight; 0–254 are the roots of shares of the scale."""


@dataclass(frozen=True)
class Stretches:
    """What the rows and columns of the map are: sentences, or several where there are many; else runs of tokens.

    Attributes:
        spans: stretches, ascending; never token 0, whose share is shown apart.
        sentences: [stretch, 2], first sentence and one past the last; empty where there are none.
    """

    spans: tuple[Span, ...]
    sentences: NDArray[np.int64]

    @classmethod
    def of(cls, trace: Trace) -> "Stretches":
        """Return the stretches of a trace, at most `MOST_STRETCHES`."""
        said = trace.sentences
        kept = [i for i, s in enumerate(said) if s.stop > max(1, s.start)]
        if not kept:
            size = max(TOKENS_PER_STRETCH, -(-len(trace) // MOST_STRETCHES))
            starts = range(1, len(trace), size)
            return cls(tuple(_span(at, min(at + size, len(trace))) for at in starts), np.empty((0, 2), np.int64))
        group = -(-len(kept) // MOST_STRETCHES)
        parts = [kept[i : i + group] for i in range(0, len(kept), group)]
        spans = (_span(max(1, said[p[0]].start), said[p[-1]].stop) for p in parts)
        return cls(tuple(spans), np.array([(part[0], part[-1] + 1) for part in parts]))

    def per_stripe(self, num_tokens: int, window: int | None, num_heads: int) -> int:
        """Return how many rows of stretches are computed at once, of so many heads of a layer."""
        seen = min(num_tokens, window or num_tokens)
        return max(1, STRIPE_PAIRS * len(self.spans) // max(1, num_heads * num_tokens * seen))

    def attention(self, trace: Trace, layer: int, head: int | None, stripe: int) -> NDArray[np.float32]:
        """Return how much the stretches of a stripe read of every stretch, and of what is none.

        Args:
            trace: with attention of the layer.
            layer: a captured layer.
            head: one head; None for the mean over all.
            stripe: rows ``[stripe · per_stripe, (stripe + 1) · per_stripe)``.

        Returns:
            [row, stretch + 2]: the mean over the rows of a stretch of the weight summed over the keys of another, NaN
            where no row sees a key; then its mean weight on token 0 (NaN where it is out of sight) and its mean sink
            mass (0 in families without). What is missing to 1 went to tokens in no stretch.

        Raises:
            IndexError: a stripe that is not there.
            TraceError: see `attention_to_spans`.
        """
        inputs = trace.attention_inputs(layer, head)
        size = self.per_stripe(len(trace), inputs.window, len(inputs.queries))
        rows = self.spans[stripe * size : (stripe + 1) * size] if stripe >= 0 else ()
        if not rows:
            raise IndexError(stripe)
        found = attention_to_spans(trace, layer, (*self.spans, _span(0, 1)), head, query_spans=rows)
        mass = found.mass.values.mean(axis=0)
        sink = np.zeros(len(rows)) if found.sink_mass is None else found.sink_mass.values.mean(axis=0)
        return np.concatenate([mass, sink[:, None]], axis=1, dtype=np.float32)


def _span(start: int, stop: int) -> Span:
    return Span(start, stop, start, "stretch", "")


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
    def of(cls, num_tokens: int, window: int | None) -> "Overview":
        """Return the overview of a layer of a trace."""
        factor = max(2, -(-num_tokens // MOST_BINS))
        seen = max(1, min(num_tokens, window or num_tokens))
        return cls(num_tokens, factor, min(MOST_ROWS, max(1, STRIPE_PAIRS // (factor * seen))))

    @property
    def num_bins(self) -> int:
        """Bins on each axis."""
        return -(-self.num_tokens // self.factor)

    @property
    def num_stripes(self) -> int:
        """How many stripes there are."""
        return -(-self.num_bins // self.stripe)

    def of_stripe(self, inputs: AttentionInputs, stripe: int) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
        """Return the first bin of keys, and the largest and the mean weight [row bin, key bin] of the pairs in sight.

        Args:
            inputs: of one head.
            stripe: counted from 0.

        Raises:
            IndexError: a stripe that is not there.
        """
        if not 0 <= stripe < self.num_stripes:
            raise IndexError(stripe)
        first_row = stripe * self.stripe
        rows = np.arange(first_row * self.factor, min(self.num_tokens, (first_row + self.stripe) * self.factor))
        window = self.num_tokens if inputs.window is None else inputs.window
        first = max(0, int(rows[0]) - window + 1) // self.factor
        pairs = self._pairs(rows, first, window)
        top, summed = np.zeros((2, *pairs.shape), dtype=np.float32)
        for block in attention_blocks(*inputs, rows=rows):
            tokens, starts, bins = rows[block.rows], *self._edges(block.keys)
            row_starts = np.unique(tokens // self.factor, return_index=True)[1]
            at = np.ix_(tokens[row_starts] // self.factor - first_row, bins - first)
            weights = block.weights / block.total[:, None]
            top[at] = np.maximum(top[at], np.maximum.reduceat(_reduced(np.maximum, weights, starts), row_starts))
            summed[at] += np.add.reduceat(_reduced(np.add, weights, starts), row_starts)
        in_sight = np.where(pairs > 0, pairs, np.nan).astype(np.float32)
        return first, np.where(pairs > 0, top, np.float32(np.nan)), summed / in_sight

    def _edges(self, keys: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the bins of some keys start among them, and which bins they are."""
        bins = np.arange(keys.start // self.factor, -(-keys.stop // self.factor))
        return np.maximum(bins * self.factor - keys.start, 0), bins

    def _pairs(self, rows: NDArray[np.int64], first: int, window: int) -> NDArray[np.int64]:
        """Count the pairs in sight of each row bin and key bin."""
        bins = np.arange(first, rows[-1] // self.factor + 1) * self.factor
        opened = np.maximum(bins, rows[:, None] - window + 1)
        reached = np.minimum(bins + self.factor, rows[:, None] + 1)
        pairs: NDArray[np.int64] = np.add.reduceat(
            np.maximum(reached - opened, 0), np.arange(0, len(rows), self.factor), axis=0
        )
        return pairs


def _reduced(how: np.ufunc, weights: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    reduced: NDArray[np.float32] = how.reduceat(weights, starts, axis=1)
    return reduced


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
