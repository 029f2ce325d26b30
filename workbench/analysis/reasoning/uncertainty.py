"""How sure the model was: surprisal and entropy per token and sentence, and the tokens where it could have forked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.reasoning.channels import completion_content
from workbench.labelled import Labelled, TraceError
from workbench.trace import Span, Trace

__all__ = ["ForkingTokens", "SentenceStatistics", "entropy", "forking_tokens", "per_sentence", "surprisal"]

_UNITS = {math.e: "nats", 2: "bits"}


def surprisal(trace: Trace, base: float = math.e) -> Labelled:
    """Return ``−log p`` of each token under the full vocabulary at T = 1, whatever temperature drew it.

    Args:
        trace: with ``logprobs``.
        base: of the logarithm: e gives nats, 2 bits.

    Returns:
        [token] float64, at the token itself; NaN at token 0, which nothing predicts.

    Raises:
        TraceError: ``logprobs`` were not captured, or a base not above 1.
    """
    return _in_units(trace, "logprobs", "surprisal −log p", -1, base)


def entropy(trace: Trace, base: float = math.e) -> Labelled:
    """Return ``−Σ p log p`` of the distribution each token was drawn from, of the full vocabulary at T = 1.

    Args:
        trace: with ``entropy``.
        base: of the logarithm: e gives nats, 2 bits.

    Returns:
        [token] float64, at the token that was drawn; NaN at token 0, which nothing predicts.

    Raises:
        TraceError: ``entropy`` was not captured, or a base not above 1.
    """
    return _in_units(trace, "entropy", "entropy", 1, base)


@dataclass(frozen=True, eq=False)
class SentenceStatistics:
    """A measure per token, summarised per sentence."""

    sentences: tuple[Span, ...]
    mean: Labelled
    """[sentence] float64; NaN where no token of the sentence has a value"""
    max: Labelled
    """[sentence] float64; NaN likewise"""
    n: Labelled
    """[sentence] int64, the tokens that have a value"""


def per_sentence(values: Labelled, sentences: Sequence[Span]) -> SentenceStatistics:
    """Return mean, maximum and number of a measure's values in each sentence; NaN values count for nothing.

    Args:
        values: [token] of the whole trace, such as `surprisal` and `entropy` give.
        sentences: spans such as ``trace.sentences``.

    Raises:
        TraceError: other dims, or a sentence outside the tokens.
    """
    if values.dims != ("token",):
        raise TraceError(f"expected values [token], got {list(values.dims)}")
    outside = next((s for s in sentences if not 0 <= s.start <= s.stop <= len(values)), None)
    if outside is not None:
        raise TraceError(
            f"expected sentences within {len(values)} tokens, got {outside.start} to {outside.stop}; take those of "
            "the same trace"
        )
    mean, largest = np.full((2, len(sentences)), np.nan)
    n = np.zeros(len(sentences), dtype=np.int64)
    for at, sentence in enumerate(sentences):
        inside = values.values[sentence.start : sentence.stop].astype(np.float64)
        inside = inside[~np.isnan(inside)]
        n[at] = len(inside)
        if len(inside):
            mean[at], largest[at] = inside.mean(), inside.max()
    source = f"over the tokens of each sentence: {values.source}"
    return SentenceStatistics(
        tuple(sentences),
        Labelled(mean, ("sentence",), {}, f"mean {source}"),
        Labelled(largest, ("sentence",), {}, f"maximum {source}"),
        Labelled(n, ("sentence",), {}, f"tokens with a value {source}"),
    )


@dataclass(frozen=True, eq=False)
class ForkingTokens:
    """The tokens of a completion at which the model was least sure."""

    tokens: NDArray[np.int64]
    """positions on the trace's token axis, ascending"""
    threshold: float
    """the smallest entropy among them, in nats; NaN where there are none"""
    num_tokens: int
    """how many tokens were ranked: those in question that have an entropy"""
    share: float
    """of them that was asked for"""


def forking_tokens(trace: Trace, share: float = 0.2, channel: str | None = None) -> ForkingTokens:
    """Return the share of the completion's tokens with the highest entropy (Wang et al., 2025, arXiv 2506.01939).

    ``⌈share · n⌉`` of the n tokens that have an entropy; of equal ones the earlier. Fewer where the entropy of so
    many is not above 0: a token without an alternative is no fork.

    Args:
        trace: with ``entropy``.
        share: above 0, at most 1.
        channel: rank the content of this channel only; None ranks every token of the completion.

    Raises:
        TraceError: ``entropy`` was not captured, or a share out of range.
    """
    if not 0 < share <= 1:
        raise TraceError(f"expected a share above 0 and at most 1, got {share}")
    spans = [(trace.num_prompt_tokens, len(trace))]
    if channel is not None:
        spans = [(span.start, span.stop) for span in completion_content(trace, channel)]
    positions = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(*span) for span in spans)])
    values = trace.array("entropy").values[positions].astype(np.float64)
    ranked = np.flatnonzero(~np.isnan(values))
    order = ranked[np.argsort(-values[ranked], kind="stable")]
    chosen = order[: math.ceil(share * len(ranked) - 1e-9)]  # 0.2 · 15 is 3.0000000000000004
    chosen = chosen[values[chosen] > 0]
    threshold = float(values[chosen].min()) if len(chosen) else math.nan
    return ForkingTokens(np.sort(positions[chosen]), threshold, len(ranked), share)


def _in_units(trace: Trace, name: str, what: str, sign: int, base: float) -> Labelled:
    if not base > 1:
        raise TraceError(f"expected a base above 1, got {base}")
    given = trace.array(name)
    values = sign * given.values.astype(np.float64) / math.log(base)
    unit = _UNITS.get(base, f"base {base:g}")
    origin = f", {given.source}" if given.source else ""
    return Labelled(values, ("token",), {}, f"{what} in {unit}, full vocabulary at T = 1{origin}")
