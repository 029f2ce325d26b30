"""Attention from span to span, such as between sentences or channels, added up while it is computed."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from workbench.attending import AttentionInputs, attention_blocks
from workbench.labelled import Labelled, TraceError
from workbench.trace import Span, Trace

__all__ = ["SpanAttention", "Spans", "attention_to_spans"]

Spans: TypeAlias = Sequence[Span | Sequence[Span]]
"""Spans, or groups of spans that count as one, such as all messages of a channel"""

_LIMIT_BYTES = 2 << 30
_SPANS = 256  # at a time, for the counts of pairs
_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


class SpanAttention(NamedTuple):
    """Attention between spans of one layer."""

    mass: Labelled
    """[head, query_span, key_span] float32: the attention summed over the key span, mean over the query span's
    tokens. NaN where none of them sees any token of the key span."""
    cut_off: Labelled
    """[query_span, key_span] float32: of the pairs of a query token and a key token that is not after it, the share
    that the window hides. 0 in a full layer; 1 where the window hides all; NaN where the key span comes later."""
    sink_mass: Labelled | None
    """[head, query_span] float32, the mean over the query span's tokens; None in families without sinks"""


class Segments(NamedTuple):
    """The token axis cut wherever a span starts or stops, so that spans may touch, overlap or be in pieces."""

    edges: NDArray[np.int64]
    """[segment + 1], from 0 to the number of tokens"""
    queries: csc_array
    """[query_span, segment], 1 where the segment belongs to the span; sparse, as a segment is in few spans"""
    keys: csc_array
    """[key_span, segment]"""

    @property
    def rows(self) -> NDArray[np.int64]:
        """The tokens of all query spans, ascending."""
        inside = np.diff(self.queries.indptr) > 0
        return np.flatnonzero(np.repeat(inside, np.diff(self.edges)))

    def at(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the segment of each token."""
        return np.searchsorted(self.edges, tokens, side="right") - 1

    @property
    def lengths(self) -> NDArray[np.float64]:
        """[query_span], how many tokens each has."""
        lengths: NDArray[np.float64] = self.queries.astype(np.float64) @ np.diff(self.edges)
        return lengths


def attention_to_spans(
    trace: Trace, layer: int, spans: Spans, head: int | None = None, query_spans: Spans | None = None
) -> SpanAttention:
    """Return how much attention each span pays to each span, without ever holding the attention of all tokens.

    ``mass[h, a, b] = mean over i in a of Σ_{j in b} A_ij``. A query span's masses, its sink mass, and what it reads
    outside all spans add up to 1 where the spans do not overlap. Nothing is renormalised.

    Args:
        trace: with queries and keys of the layer.
        layer: a captured layer.
        spans: what is read: spans, such as ``trace.sentences``, or groups of spans that count as one, such as
            ``[[m for m in trace.messages if m.channel == c] for c in ("analysis", "final")]``.
        head: one head, or None for all.
        query_spans: what reads; None takes ``spans``.

    Returns:
        `SpanAttention`. Memory: a block of scores (see `attention_blocks`), and a few arrays as large as the result.

    Raises:
        TraceError: the layer was not captured, the head does not exist, no spans, a span without tokens or outside
            the trace, or a result over 2 GB.
    """
    inputs = trace.attention_inputs(layer, head)
    query_spans = spans if query_spans is None else query_spans
    segments = cut_at(len(trace), query_spans, spans)
    num_heads = len(inputs.queries)
    _check_size(num_heads, len(query_spans), len(spans), len(segments.edges))
    mass, sink = _stream(inputs, segments)
    cut_off = _cut_off(segments, inputs.window)
    mass[:, ~(cut_off < 1)] = np.nan
    heads = {"head": tuple(range(num_heads)) if head is None else (int(head),)}
    reach = "full layer" if inputs.window is None else f"window of {inputs.window}"
    source = (
        f"attention summed over each key span, mean over each query span, of layer {layer} ({reach}), "
        f"{len(segments.rows)} query tokens, from {trace.source('queries') or 'captured'} queries and keys, float32"
    )
    masses = Labelled(mass, ("head", "query_span", "key_span"), heads, source)
    hidden = Labelled(cut_off, ("query_span", "key_span"), {}, f"share of pairs hidden by the window, layer {layer}")
    if sink is None:
        return SpanAttention(masses, hidden, None)
    sink_source = f"sink mass, mean over each query span; {source.partition(' of ')[2]}"
    return SpanAttention(masses, hidden, Labelled(sink, ("head", "query_span"), heads, sink_source))


def cut_at(num_tokens: int, query_spans: Spans, key_spans: Spans) -> Segments:
    """Return the segments of some spans. Raises `TraceError` for none, empty ones, and ones outside the tokens."""
    queries, keys = _pieces(query_spans, num_tokens), _pieces(key_spans, num_tokens)
    borders = {border for group in (*queries, *keys) for span in group for border in (span.start, span.stop)}
    edges = np.array(sorted({0, num_tokens, *borders}), dtype=np.int64)
    return Segments(edges, _members(queries, edges), _members(keys, edges))


def _stream(inputs: AttentionInputs, segments: Segments) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return the means [head, query_span, key_span] and of the sink [head, query_span]."""
    rows = segments.rows
    shape = (len(inputs.queries), segments.queries.shape[0])
    lengths = segments.lengths
    summed = np.zeros((*shape, len(segments.edges) - 1), dtype=np.float32)
    sink = None if inputs.sink_logits is None else np.zeros(shape, dtype=np.float32)
    places: dict[int, _Place] = {}  # the same for every head
    for block in attention_blocks(*inputs, rows=rows):
        place = places.get(block.rows.start) or _place(segments, lengths, rows[block.rows], block.keys)
        places[block.rows.start] = place
        # The rows are averaged before the keys are summed, as that leaves far fewer numbers to sum.
        averaging = (place.shares / block.total).astype(np.float32)
        by_key = np.empty((len(averaging), block.weights.shape[1]), dtype=np.float32)
        for of_span, at, out in zip(averaging, place.rows, by_key, strict=True):
            np.matmul(of_span[at], block.weights[at], out=out)
        sums = np.add.reduceat(by_key, place.starts, axis=1)
        summed[block.head, place.spans, place.segments] += sums
        if sink is not None and block.sink is not None:
            sink[block.head, place.spans] += averaging @ block.sink
    mass = np.empty((*shape, segments.keys.shape[0]), dtype=np.float32)
    for of_head, out in zip(summed, mass, strict=True):
        out[:] = (segments.keys @ of_head.T).T
    return mass, sink


class _Place(NamedTuple):
    """Where a block of rows and keys lies among spans and segments."""

    spans: NDArray[np.int64]
    """query spans that any of the rows belongs to"""
    shares: NDArray[np.float64]
    """[span, row], 1 / length of the span where the row belongs to it"""
    rows: list[slice]
    """[span], its first row to its last"""
    segments: slice
    """that the keys lie in"""
    starts: NDArray[np.int64]
    """[segment], the place of its first key among the keys"""


def _place(segments: Segments, lengths: NDArray[np.float64], rows: NDArray[np.int64], keys: slice) -> _Place:
    of_row = segments.at(rows)
    here = segments.queries[:, of_row[0] : of_row[-1] + 1]
    spans = np.unique(here.indices)
    members = here[spans].toarray()[:, of_row - of_row[0]]
    inside = [np.flatnonzero(of_span) for of_span in members]
    between = [slice(int(at[0]), int(at[-1]) + 1) for at in inside]
    first, last = (int(at) for at in segments.at(np.array([keys.start, keys.stop - 1])))
    starts = np.maximum(segments.edges[first : last + 1] - keys.start, 0)
    return _Place(spans, members / lengths[spans, None], between, slice(first, last + 1), starts)


def _cut_off(segments: Segments, window: int | None) -> NDArray[np.float32]:
    """Return the share [query_span, key_span] of the pairs of a row and an earlier key or itself that are hidden.

    NaN where there are no such pairs. Exactly 1 only where all of them are hidden.
    """
    cut_off = np.empty((segments.queries.shape[0], segments.keys.shape[0]), dtype=np.float32)
    queries, keys = segments.queries.tocsr(), segments.keys.astype(np.float64)
    for start in range(0, len(cut_off), _SPANS):
        spans = queries[start : start + _SPANS]
        used = np.unique(spans.indices)
        members = spans[:, used].astype(np.float64)
        earlier = (keys @ (members @ _pairs(segments.edges, used, 0)).T).T
        hidden = 0 if window is None else (keys @ (members @ _pairs(segments.edges, used, window)).T).T
        with np.errstate(invalid="ignore"):
            share = hidden / earlier
        part = np.minimum(share, _BELOW_ONE).astype(np.float32)
        part[(earlier > 0) & (hidden == earlier)] = 1
        cut_off[start : start + _SPANS] = part
    return cut_off


def _pairs(edges: NDArray[np.int64], rows: NDArray[np.int64], back: int) -> NDArray[np.float64]:
    """Count the pairs [row segment, key segment] of a row and a key that is ``back`` or more before it.

    The first n rows and the first e keys have ``Σ_{y=1}^{n} min(y, e)`` pairs of a key that is not after its row.
    """
    keys = edges.astype(np.float64)

    def up_to(borders: NDArray[np.int64]) -> NDArray[np.float64]:
        n = np.maximum(borders - back, 0).astype(np.float64)[:, None]
        both = np.minimum(n, keys)
        pairs: NDArray[np.float64] = both * (both + 1) / 2 + (n - both) * keys
        return pairs

    return np.diff(up_to(edges[rows + 1]) - up_to(edges[rows]), axis=1)


def _pieces(spans: Spans, num_tokens: int) -> list[list[Span]]:
    groups = [[group] if isinstance(group, Span) else list(group) for group in spans]
    if not groups:
        raise TraceError("expected at least one span, got none")
    for at, group in enumerate(groups):
        strange = next((span for span in group if not isinstance(span, Span)), None)
        if strange is not None:
            raise TraceError(
                f"expected spans, such as trace.sentences, or groups of them, got {strange!r} in span {at}"
            )
        if not sum(len(span) for span in group):
            raise TraceError(f"expected spans with tokens, got none in span {at}")
        for span in group:
            if not 0 <= span.start <= span.stop <= num_tokens:
                raise TraceError(f"expected spans within {num_tokens} tokens, got {span.start} to {span.stop}")
    return groups


def _members(groups: list[list[Span]], edges: NDArray[np.int64]) -> csc_array:
    found: list[tuple[int, int]] = []
    for at, group in enumerate(groups):
        parts = {part for span in group for part in range(*np.searchsorted(edges, (span.start, span.stop)))}
        found += [(at, part) for part in parts]
    spans, parts_of = np.array(found).T
    ones = np.ones(len(found), dtype=np.float32)
    return csc_array((ones, (spans, parts_of)), shape=(len(groups), len(edges) - 1))


def _check_size(num_heads: int, queries: int, keys: int, edges: int) -> None:
    size = 4 * num_heads * queries * (keys + edges)
    if size > _LIMIT_BYTES:
        raise TraceError(
            f"attention of {num_heads} heads from {queries} to {keys} spans would take {size / 2**30:.1f} GB, over "
            f"the limit of {_LIMIT_BYTES / 2**30:.0f} GB; pass head= or fewer spans"
        )
