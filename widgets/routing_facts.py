"""What views of routing send to the browser: facts as JSON, counts and orders per phase as bytes."""

from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from widgets.blocks import TraceBlocks
from widgets.selection import selection_key
from workbench.analysis.routing import coactivation, load_entropy
from workbench.analysis.token_set import Phase, TokenSet, Traces
from workbench.labelled import Labelled
from workbench.trace import Trace, TraceError

__all__ = ["PHASES", "PhaseRouting", "cluster_order", "key_of", "load_of", "routing_facts", "token_set_of"]

PHASES: tuple[Phase, ...] = get_args(Phase)


def token_set_of(
    traces: Trace | Traces | TokenSet, phase: Phase | None, channel: str | None = None, role: str | None = None
) -> TokenSet:
    """Return what a view is on: a `TokenSet` as it is, of traces the completion where no phase is named.

    Raises `TraceError` for what `TokenSet` refuses, and for a phase, channel or role beside a `TokenSet`.
    """
    if not isinstance(traces, TokenSet):
        return TokenSet(traces, phase=phase or "completion", channel=channel, role=role)
    given = {"phase": phase, "channel": channel, "role": role}
    if named := {name: value for name, value in given.items() if value is not None}:
        arguments = ", ".join(f"{name}={value!r}" for name, value in named.items())
        raise TraceError(f"a TokenSet has its {' and '.join(named)} already; leave {arguments} out")
    return traces


def _counts(token_set: TokenSet) -> dict[str, int]:
    """Return how much a selection may choose from: the tokens of one trace, of several none."""
    first = token_set.traces[0]
    counts = TraceBlocks(first).counts()
    return counts | {"expert": token_set.num_experts, "token": len(first) if token_set.num_traces == 1 else 0}


def routing_facts(*token_sets: TokenSet) -> dict[str, Any]:
    """Return title, model and shape of the traces of sets of one model, and where their routing comes from."""
    first = token_sets[0]
    traces = _distinct(token_sets)
    trace, count = first.traces[0], sum(map(len, traces))
    found = [_origin(t) for several in traces for t in several]
    sources, dtypes = (sorted(filter(None, set(names))) for names in zip(*found, strict=True))
    return {
        "title": str(trace.meta.get("question") or "Trace") if count == 1 else f"{count:,} traces",
        "model": first.model,
        "embedded": trace.is_embedded,
        "sources": sources,
        "dtypes": dtypes,
        "counts": _counts(first) | ({} if count == 1 else {"token": 0}),
        "layers": list(first.layers),
        "topK": first.top_k,
        "numTraces": count,
    }


def key_of(*token_sets: TokenSet) -> str:
    """Return the `selection_key` of the traces of sets, each counted once."""
    return selection_key(trace for traces in _distinct(token_sets) for trace in traces)


def _distinct(token_sets: tuple[TokenSet, ...]) -> list[Traces]:
    """Return the traces of sets without those that another set is on as well."""
    found: list[Traces] = []
    for token_set in token_sets:
        if not any(_same(token_set.traces, traces) for traces in found):
            found.append(token_set.traces)
    return found


def _same(a: Traces, b: Traces) -> bool:
    return a is b or (isinstance(a, tuple) and isinstance(b, tuple) and list(map(id, a)) == list(map(id, b)))


def _origin(trace: Trace) -> tuple[str, str]:
    """Return the source of a trace's ``expert_indices`` and the dtype that the model ran in."""
    return trace.source("expert_indices"), str(trace.provenance.get("dtype", "")).removeprefix("torch.")


@dataclass(frozen=True, eq=False)
class PhaseRouting:
    """The routing of the tokens of one phase."""

    num_tokens: int
    top_k: int
    counts: NDArray[np.int64]
    """[layer, expert], how often each expert was chosen"""
    pairs: NDArray[np.float64] | None
    """[layer, expert, partner], how often two experts were chosen together; None where a token chooses one expert"""

    @classmethod
    def of(cls, token_set: TokenSet) -> "PhaseRouting":
        """Count; twice through the traces, one of them open at a time."""
        counts = token_set.expert_counts()[0].sum(0)
        if token_set.top_k < 2:
            return cls(token_set.num_tokens, 1, counts, None)
        share = coactivation(token_set.rows("expert_indices"), token_set.num_experts).values
        return cls(token_set.num_tokens, token_set.top_k, counts, np.nan_to_num(share) * counts[:, :, None])

    def plus(self, other: "PhaseRouting") -> "PhaseRouting":
        """Return the routing of the tokens of both."""
        pairs = None if self.pairs is None or other.pairs is None else self.pairs + other.pairs
        return PhaseRouting(self.num_tokens + other.num_tokens, self.top_k, self.counts + other.counts, pairs)

    @property
    def entropy(self) -> NDArray[np.float64]:
        """[layer], H(f)/ln E of the load."""
        return load_entropy(load_of(self.counts, self.num_tokens, self.top_k)).values

    @property
    def order(self) -> NDArray[np.int32]:
        """[layer, place], experts of each layer beside those that they are chosen with; by index where none are."""
        if self.pairs is not None:
            return cluster_order(self.pairs, self.counts)
        return np.tile(np.arange(self.counts.shape[1], dtype=np.int32), (len(self.counts), 1))


def load_of(counts: NDArray[np.int64], num_tokens: int, top_k: int) -> Labelled:
    """Return ``f_e = n_e / (T·k)`` [layer, expert] from counts [layer, expert]."""
    return Labelled(
        counts / (num_tokens * top_k), ("layer", "expert"), {}, f"expert load per slot over {num_tokens} tokens"
    )


def cluster_order(pairs: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return an order of each layer's experts in which those that are chosen together stand together.

    Average linkage of ``1 − J``, with ``J_ij = N_ij / (N_i + N_j − N_ij)`` the Jaccard index of the tokens that chose
    i and those that chose j. Experts of two layers have nothing to do with each other, so each layer has its own.

    Args:
        pairs: [layer, expert, expert], ``N_ij``, tokens that chose both.
        counts: [layer, expert], ``N_i``.

    Returns:
        [layer, place] int32.
    """
    either = counts[:, :, None] + counts[:, None, :] - pairs
    distance = 1 - np.divide(pairs, either, out=np.zeros_like(pairs), where=either > 0)
    return np.stack([_leaves(layer) for layer in distance]).astype(np.int32)


def _leaves(distance: NDArray[np.float64]) -> NDArray[np.int32]:
    from scipy.cluster.hierarchy import leaves_list, linkage  # a third of a second, which only this needs
    from scipy.spatial.distance import squareform

    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=len(distance) <= 64)
    return cast("NDArray[np.int32]", leaves_list(tree))
