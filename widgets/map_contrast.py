"""The contrasts that RouterMap shows: two selections of tokens in each phase, and the test that goes with them."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.routing import PermutationTest
from workbench.analysis.token_set import Phase, TokenSet, Traces
from workbench.trace import TraceError

__all__ = ["Contrast", "Given", "Side", "contrasts_of", "tested_phases"]

Given: TypeAlias = tuple[str, str] | tuple[TokenSet, TokenSet] | Mapping[str, TokenSet]


class Side(NamedTuple):
    """How often the tokens of one selection choose each expert."""

    counts: NDArray[np.int64]
    """[layer, expert]"""
    num_tokens: int
    num_traces: int
    """those that have such tokens"""

    @classmethod
    def of(cls, token_set: TokenSet) -> "Side":
        """Count; once through the traces."""
        counts, tokens = token_set.expert_counts()
        return cls(counts.sum(0), token_set.num_tokens, int((tokens > 0).sum()))

    @property
    def rates(self) -> NDArray[np.float64]:
        """[layer, expert], share of the tokens that choose each expert."""
        return self.counts / self.num_tokens


class Contrast(NamedTuple):
    """By how much side a chooses each expert more often than side b; an association, see `expert_contrast`."""

    names: tuple[str, str]
    a: Side
    b: Side

    @property
    def delta(self) -> NDArray[np.float64]:
        """[layer, expert], ``a₁/N₁ − a₂/N₂``."""
        difference: NDArray[np.float64] = self.a.rates - self.b.rates
        return difference

    def facts(self) -> dict[str, Any]:
        """Return names and numbers of tokens as JSON."""
        return {"a": self.names[0], "b": self.names[1], "aTokens": self.a.num_tokens, "bTokens": self.b.num_tokens}


def contrasts_of(shown: TokenSet, given: Given) -> dict[Phase, Contrast | str]:
    """Return the contrast of each phase, or why there is none. Two sets of tokens are what they are in every phase.

    Raises `TraceError` for what is no contrast, or one of other models or layers than those of ``shown``.
    """
    pairs = tuple(given.items()) if isinstance(given, Mapping) else tuple(zip("ab", given, strict=False))
    values = [value for _, value in pairs]
    kinds = {type(value) for value in values}
    if len(values) != 2 or kinds not in ({str}, {TokenSet}):
        raise TraceError(f"expected a contrast of two channels or of two TokenSets, got {given!r}")
    if kinds == {str}:
        return _channels(shown.traces, (str(values[0]), str(values[1])))
    names, (a, b) = (str(pairs[0][0]), str(pairs[1][0])), cast("list[TokenSet]", values)
    for name, chosen in zip(names, (a, b), strict=True):
        if (chosen.model, chosen.num_experts, chosen.layers) != (shown.model, shown.num_experts, shown.layers):
            raise TraceError(f"expected a contrast within the model and layers of {shown}; {name} is {chosen}")
    contrast = Contrast(names, Side.of(a), Side.of(b))
    return {"completion": contrast, "prompt": contrast, "all": contrast}


def _channels(traces: Traces, channels: tuple[str, str]) -> dict[Phase, Contrast | str]:
    completion = [_side(traces, "completion", channel) for channel in channels]
    prompt = [_side(traces, "prompt", channel) for channel in channels]
    both = [_sum(parts) for parts in zip(completion, prompt, strict=True)]
    return {
        "completion": _contrast(channels, completion),
        "prompt": _contrast(channels, prompt),
        "all": _contrast(channels, both),
    }


def _side(traces: Traces, phase: Phase, channel: str) -> Side | str:
    try:
        return Side.of(TokenSet(traces, phase=phase, channel=channel))
    except TraceError as error:  # the traces were accepted: the channel has no token here
        return str(error)


def _sum(parts: tuple[Side | str, Side | str]) -> Side | str:
    """Return both phases of a channel together, or why it has no token in either."""
    a, b = parts
    if isinstance(a, str):
        return b
    if isinstance(b, str):
        return a
    return Side(a.counts + b.counts, a.num_tokens + b.num_tokens, max(a.num_traces, b.num_traces))


def _contrast(names: tuple[str, str], sides: list[Side | str]) -> Contrast | str:
    a, b = sides
    if isinstance(a, str):
        return a
    return b if isinstance(b, str) else Contrast(names, a, b)


def tested_phases(contrasts: Mapping[Phase, Contrast | str], test: PermutationTest) -> list[Phase]:
    """Return the phases whose contrast a test is of.

    Within topics Δ is another than that of all tokens; then only the numbers of traces are compared, and only of two
    sets of tokens. Raises `TraceError` when the test is of no contrast.
    """
    known = {phase: c for phase, c in contrasts.items() if isinstance(c, Contrast)}
    within_topics = "within topics" in test.delta.source and len(set(map(id, known.values()))) == 1
    traces = (test.num_traces_a, test.num_traces_b)
    found = [
        phase
        for phase, c in known.items()
        if c.delta.shape == test.delta.shape
        and (np.allclose(c.delta, test.delta.values) or (within_topics and (c.a.num_traces, c.b.num_traces) == traces))
    ]
    if not found:
        raise TraceError(
            "The test is of other tokens than the contrast: their differences disagree. Give permutation_test the "
            "expert_counts() of the two TokenSets of the contrast; with topics, give the TokenSets as contrast=, too."
        )
    return found
