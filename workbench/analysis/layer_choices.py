"""What one layer chose at all tokens of a selection, gathered once for questions about single experts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from workbench.analysis.token_set import TokenSet, content_stop
from workbench.labelled import TraceError, ranges
from workbench.trace import Span, Trace

__all__ = ["FORMAT", "Groups", "LayerChoices"]

FORMAT = "format tokens"
"""Group of the tokens that are no message's content: headers, closing tokens, and what stands outside messages."""
NO_CHANNEL = "no channel"
BINS, TOKENS_PER_BIN = 48, 4


@dataclass(frozen=True, eq=False)
class Groups:
    """Which of some named groups each token belongs to."""

    names: tuple[str, ...]
    """`FORMAT` first, then in the order in which they come"""
    codes: NDArray[np.uint16]
    """[token], places in ``names``"""


@dataclass(frozen=True, eq=False)
class LayerChoices:
    """The choices of one layer at the tokens of a `TokenSet`, trace after trace.

    It grows with the tokens, by some 15 bytes for each: what single experts are asked needs every choice.

    Attributes:
        token_set: which tokens of which traces.
        layer: the layer.
        indices: [token, top_k], the chosen experts.
        ids: [row], the token ids that occur, ascending.
        rows: [token], the place in ``ids``.
        edges: [trace + 1], where each trace's tokens start and the last one's stop.
        channels: groups by channel; None where a trace lacks token texts, which tell content from closing tokens.
        roles: groups by the role of the message; None likewise.
        bins: [token], the stretch of its trace's phase a token lies in, of ``num_bins`` equal ones.
        num_bins: 48, or fewer so that a stretch holds four tokens on average.
        weight_sums: [expert], the weights where chosen, summed; None where they were not captured.
    """

    token_set: TokenSet
    layer: int
    indices: NDArray[Any]
    ids: NDArray[Any]
    rows: NDArray[np.int32]
    edges: NDArray[np.int64]
    channels: Groups | None
    roles: Groups | None
    bins: NDArray[np.uint8]
    num_bins: int
    weight_sums: NDArray[np.float64] | None

    @classmethod
    def gather(cls, token_set: TokenSet, layer: int) -> "LayerChoices":
        """Read the choices of one layer from all traces.

        Raises:
            TraceError: the layer was not captured, an index is no expert, or a store has changed.
        """
        if layer not in token_set.layers:
            raise TraceError(
                f"the router of layer {layer} is not in these traces. Expected one of {ranges(token_set.layers)}."
            )
        channels, roles = _Grouping(lambda m: m.channel or NO_CHANNEL), _Grouping(lambda m: m.role)
        ids, indices, offsets, extents, sums = [], [], [], [], []
        for trace in tqdm(token_set.traces, desc=f"layer {layer}", unit="trace", delay=2, leave=False):
            positions = token_set.positions(trace)
            start, stop = _extent(trace, token_set.phase)
            ids.append(np.asarray(trace.arrays["token_ids"][positions]))
            indices.append(_choices(trace, layer, positions, token_set.num_experts))
            offsets.append(positions - start)
            extents.append(stop - start)
            sums.append(_weight_sums(trace, layer, positions, token_set.num_experts))
            channels.add(trace, positions)
            roles.add(trace, positions)
        lengths = [len(part) for part in ids]
        if sum(lengths) != token_set.num_tokens:
            raise TraceError(
                f"There were {token_set.num_tokens} tokens, now there are {sum(lengths)}. Make a new TokenSet of the "
                "traces."
            )
        num_bins = max(1, min(BINS, sum(lengths) // TOKENS_PER_BIN))
        found, rows = np.unique(np.concatenate(ids), return_inverse=True)
        known = [weights for weights in sums if weights is not None]
        return cls(
            token_set=token_set,
            layer=layer,
            indices=np.concatenate(indices),
            ids=found,
            rows=rows.astype(np.int32),
            edges=np.cumsum([0, *lengths]),
            channels=channels.result(),
            roles=roles.result(),
            bins=(np.concatenate(offsets) * num_bins // np.repeat(extents, lengths)).astype(np.uint8),
            num_bins=num_bins,
            weight_sums=np.sum(known, axis=0) if len(known) == len(sums) else None,
        )

    def trace_of(self, token: int) -> tuple[int, Trace, int]:
        """Return the number of the trace that holds a token of the selection, the trace, and the position in it."""
        number = int(np.searchsorted(self.edges, token, side="right")) - 1
        trace = self.token_set.traces[number]
        return number, trace, int(self.token_set.positions(trace)[token - self.edges[number]])


class _Grouping:
    """Groups tokens by what their message is called, trace by trace."""

    def __init__(self, name_of: Callable[[Span], str]) -> None:
        self.name_of = name_of
        self.names: list[str] = [FORMAT]
        self.parts: list[NDArray[np.uint16]] | None = []

    def add(self, trace: Trace, positions: NDArray[np.int64]) -> None:
        """Group the tokens of a trace; all but the content of messages is `FORMAT`."""
        if "vocab_special" not in trace.arrays:
            self.parts = None
        if self.parts is None:
            return
        codes = np.zeros(len(trace), dtype=np.uint16)
        for message in trace.messages:
            name = self.name_of(message)
            if name not in self.names:
                self.names.append(name)
            stop = content_stop(trace, message.content_start, message.stop)
            codes[message.content_start : stop] = self.names.index(name)
        self.parts.append(codes[positions])

    def result(self) -> Groups | None:
        return None if self.parts is None else Groups(tuple(self.names), np.concatenate(self.parts))


def _extent(trace: Trace, phase: str) -> tuple[int, int]:
    """Return where a phase starts and stops in a trace."""
    start = trace.num_prompt_tokens if phase == "completion" else 0
    return start, trace.num_prompt_tokens if phase == "prompt" else len(trace)


def _of_layer(trace: Trace, name: str, layer: int, positions: NDArray[np.int64]) -> NDArray[Any]:
    """Return an array's values of one layer [token, …]."""
    return np.asarray(trace.arrays[name][positions, trace.layers(name).index(layer)])


def _choices(trace: Trace, layer: int, positions: NDArray[np.int64], num_experts: int) -> NDArray[Any]:
    chosen = _of_layer(trace, "expert_indices", layer, positions)
    highest = int(chosen.max(initial=0))
    if highest >= num_experts:
        raise TraceError(f"expected expert_indices within 0–{num_experts - 1}, got {highest}")
    return chosen


def _weight_sums(
    trace: Trace, layer: int, positions: NDArray[np.int64], num_experts: int
) -> NDArray[np.float64] | None:
    """Sum each expert's weights over the tokens that chose it; None where they were not captured."""
    if not trace.has("expert_weights", layer):
        return None
    chosen = _of_layer(trace, "expert_indices", layer, positions).ravel()
    weights = _of_layer(trace, "expert_weights", layer, positions).ravel().astype(np.float64)
    # Adding to zeros: bincount gives integers where there are no tokens.
    return np.zeros(num_experts) + np.bincount(chosen, weights=weights, minlength=num_experts)
