"""Where the answer reads in the chain of thought: an association, not what caused it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from workbench.analysis.attention.layers import layer_inputs
from workbench.analysis.attention.spans import attention_to_spans
from workbench.analysis.token_set import content_stop
from workbench.attending import AttentionBlock, AttentionInputs, attention_blocks
from workbench.labelled import Labelled, TraceError
from workbench.trace import Span, Trace

__all__ = ["AnswerAttention", "answer_attention"]

_DIMS = ("layer", "head", "sentence")


@dataclass(frozen=True)
class AnswerAttention:
    """Attention from the answer to each sentence of the analysis. It is attention, not causation."""

    sentences: tuple[Span, ...]
    """of the completion's analysis, in order"""
    num_queries: int
    """content tokens of the completion's final messages"""
    mass: Labelled
    """[layer, head, sentence]: the mean over the answer's tokens of their attention summed over the sentence"""
    per_token: Labelled
    """[layer, head, sentence]: mass divided by the sentence's tokens"""
    expected: Labelled
    """[layer, head, sentence]: the mass of a sentence as far back, by the head's mean attention at each distance"""
    distance_matched: Labelled
    """[layer, head, sentence]: mass / expected, 1 where the answer reads what its distance alone would have it read"""
    own_share: Labelled
    """[layer, sentence]: the share of the rows behind ``expected`` that are the answer's own; at 1 the answer is
    compared with itself, and the ratio says nothing"""


class _ByDistance(NamedTuple):
    """What rows of one layer give to the token δ before them, added up over the distances below each."""

    mass: NDArray[np.float64]
    """[head, δ], the mean attention at a distance below δ"""
    own: NDArray[np.float64]
    """[δ], the answer's share of the rows that have a token at that distance"""
    reach: int
    """tokens that a row sees, itself included"""


def answer_attention(trace: Trace, layers: Iterable[int] | None = None) -> AnswerAttention:
    """Return the attention from the completion's final messages to each sentence of its analysis.

    ``mass = mean over i of Σ_{j in sentence} A_ij``, i the content tokens of the final messages. Two corrections go
    with it, as long sentences and near ones get more whatever they say:

    - per token: ``mass / sentence length``.
    - distance-matched: ``mass / expected``, ``expected = mean over i of Σ_{j in sentence} D(i − j)``, where ``D(δ)``
      is the mean of ``A_{i, i−δ}`` over all rows of the completion that see a token δ back, head by head. The
      answer's own rows are among them; at distances that only they reach it is compared with itself, which
      ``own_share`` tells.

    Args:
        trace: with queries and keys, a final message, and sentences on the analysis channel.
        layers: captured layers; None = all.

    Returns:
        `AnswerAttention`, float64. NaN where a window hides all of a sentence from the answer.

    Raises:
        TraceError: no attention, a layer that was not captured, no final message, or no sentence of analysis.
    """
    inputs = layer_inputs(trace, layers)
    answer, sentences = _answer(trace), _sentences(trace)
    queries = np.concatenate([np.arange(span.start, span.stop) for span in answer])
    stacked: list[tuple[NDArray[np.float64], ...]] = []
    for layer in tqdm(inputs, desc="answer attention", unit="layer", delay=2, leave=False):
        between = attention_to_spans(trace, layer, sentences, query_spans=[answer])
        means = _by_distance(inputs[layer], trace.num_prompt_tokens, queries)
        stacked.append((between.mass.values[:, 0].astype(np.float64), *_expected(means, queries, sentences)))
    mass, expected, own = (np.stack(parts) for parts in zip(*stacked, strict=True))
    expected[np.isnan(mass)] = np.nan
    own[np.isnan(mass).all(axis=1)] = np.nan
    lengths = np.array([len(sentence) for sentence in sentences])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(expected > 0, mass / expected, np.nan)

    def labelled(values: NDArray[np.float64], what: str) -> Labelled:
        coords = {"layer": tuple(inputs), "head": tuple(range(mass.shape[1]))}
        dims = _DIMS if values.ndim == 3 else ("layer", "sentence")
        source = (
            f"attention, not causation: {what}, from {len(queries)} final tokens to {len(sentences)} sentences of the "
            f"analysis, {trace.source('queries') or 'captured'} queries and keys, float32"
        )
        return Labelled(values, dims, {dim: coords[dim] for dim in dims if dim in coords}, source)

    return AnswerAttention(
        sentences,
        len(queries),
        labelled(mass, "mean mass on each sentence"),
        labelled(mass / lengths, "mean mass per token of each sentence"),
        labelled(expected, "mass expected at the distance, by the completion's rows"),
        labelled(ratio, "mass over that expected at the distance, by the completion's rows"),
        labelled(own, "the answer's share of the rows behind the expected mass"),
    )


def _expected(
    means: _ByDistance, queries: NDArray[np.int64], sentences: tuple[Span, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the expected mass [head, sentence], and the answer's share [sentence] of the rows behind it."""
    starts, stops = np.array([(span.start, span.stop) for span in sentences]).T
    # The distances from each query to the tokens of each sentence are those from ``near`` up to but without ``far``.
    near, far = (np.clip(queries[:, None] - edge + 1, 0, means.reach) for edge in (stops, starts))
    expected = np.array([(of_head[far] - of_head[near]).mean(axis=0) for of_head in means.mass])
    with np.errstate(invalid="ignore"):
        own = (means.own[far] - means.own[near]).sum(axis=0) / (far - near).sum(axis=0)
    return expected, own


def _by_distance(inputs: AttentionInputs, first_row: int, queries: NDArray[np.int64]) -> _ByDistance:
    """Return the mean attention at each distance over the rows from ``first_row`` on."""
    num_heads, num_tokens, _ = inputs.queries.shape
    rows = np.arange(first_row, num_tokens)
    summed = np.zeros((num_heads, num_tokens))
    for block in attention_blocks(*inputs, rows=rows):
        sums = _along_diagonals(block, int(rows[block.rows.start]))
        summed[block.head, : len(sums)] += sums
    distances = np.arange(num_tokens)
    seeing = num_tokens - np.maximum(first_row, distances)
    own = len(queries) - np.searchsorted(queries, distances)
    reach = num_tokens if inputs.window is None else min(inputs.window, num_tokens)
    return _ByDistance(_below(summed / seeing), _below(own / seeing), reach)


def _along_diagonals(block: AttentionBlock, first_row: int) -> NDArray[np.float32]:
    """Return the sums over consecutive rows of the attention at each distance, [distance].

    In memory where each row has as many zeros before it as there are other rows, a step of one row and one number
    more stays at the same distance, so that the diagonals are columns and one product sums them.
    """
    num_rows, num_keys = block.weights.shape
    width = num_rows - 1 + num_keys
    padded = np.zeros(num_rows * width + num_rows - 1, dtype=np.float32)
    padded[: num_rows * width].reshape(num_rows, width)[:, num_rows - 1 :] = block.weights
    step = padded.itemsize
    diagonals = np.lib.stride_tricks.as_strided(padded, (num_rows, width), (step * (width + 1), step), writeable=False)
    sums: NDArray[np.float32] = (1 / block.total) @ diagonals
    farthest = first_row - block.keys.start + num_rows - 1
    return sums[: farthest + 1][::-1]


def _below(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of all values before each place, and of all, along the last axis."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums


def _answer(trace: Trace) -> list[Span]:
    """Return the content of the completion's final messages."""
    spans = list(_contents(trace))
    if not spans:
        raise TraceError(
            "expected a final message with content in the completion, got none; the channels of the completion are "
            f"{', '.join(sorted({str(m.channel) for m in _completed(trace)})) or 'none'}"
        )
    return spans


def _contents(trace: Trace) -> Iterator[Span]:
    for message in _completed(trace):
        start = max(message.content_start, trace.num_prompt_tokens)
        stop = content_stop(trace, start, message.stop)
        if message.channel == "final" and stop > start:
            yield Span(start, stop, start, "message", message.role, message.channel)


def _completed(trace: Trace) -> list[Span]:
    return [message for message in trace.messages if message.stop > trace.num_prompt_tokens]


def _sentences(trace: Trace) -> tuple[Span, ...]:
    found = tuple(s for s in trace.sentences if s.channel == "analysis" and s.start >= trace.num_prompt_tokens)
    if not any(len(sentence) for sentence in found):
        raise TraceError("expected sentences of analysis in the completion, got none; was there a chain of thought?")
    return tuple(sentence for sentence in found if len(sentence))
