"""What views of routing send to the browser: facts as JSON, counts and orders per phase as bytes."""

from typing import Any, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from widgets.blocks import TraceBlocks
from workbench.analysis.routing import coactivation, load_entropy
from workbench.analysis.token_set import Phase, TokenSet, Traces
from workbench.labelled import Labelled
from workbench.trace import Trace, TraceError

__all__ = ["PHASES", "PhaseRouting", "cluster_order", "load_of", "phase_sets", "routing_facts", "selection_counts"]

PHASES: tuple[Phase, ...] = get_args(Phase)


def selection_counts(token_set: TokenSet) -> dict[str, int]:
    """Return how much a selection may choose from: the tokens of one trace, of several none."""
    first = token_set.traces[0]
    counts = TraceBlocks(first).counts()
    return counts | {"expert": token_set.num_experts, "token": len(first) if token_set.num_traces == 1 else 0}


def routing_facts(token_set: TokenSet) -> dict[str, Any]:
    """Return title, model and shape of the traces of a set, and where their routing comes from."""
    first = token_set.traces[0]
    one = token_set.num_traces == 1
    sources, dtypes = _origins(token_set.traces)
    return {
        "title": str(first.meta.get("question") or "Trace") if one else f"{token_set.num_traces:,} traces",
        "model": token_set.model,
        "embedded": bool(first.provenance.get("embedded", token_set.model == "tiny")),
        "sources": sources,
        "dtypes": dtypes,
        "counts": selection_counts(token_set),
        "layers": list(token_set.layers),
        "topK": token_set.top_k,
        "numTraces": token_set.num_traces,
    }


def _origins(traces: Traces) -> tuple[list[str], list[str]]:
    """Return the sources of ``expert_indices`` and the dtypes that the model ran in."""
    found = [(t.source("expert_indices"), str(t.provenance.get("dtype", "")).removeprefix("torch.")) for t in traces]
    sources, dtypes = (sorted(filter(None, set(names))) for names in zip(*found, strict=True))
    return sources, dtypes


def phase_sets(traces: Trace | Traces, phase: Phase, **kind: str | None) -> dict[str, TokenSet | str]:
    """Return the `TokenSet` of each phase, or why there is none; that of ``phase`` must be there.

    Raises `TraceError` as `TokenSet` does.
    """
    wanted = TokenSet(traces, phase=phase, **kind)
    return {name: wanted if name == phase else _set_or_reason(wanted.traces, name, **kind) for name in PHASES}


def _set_or_reason(traces: Traces, phase: Phase, **kind: str | None) -> TokenSet | str:
    try:
        return TokenSet(traces, phase=phase, **kind)
    except TraceError as error:  # the traces were accepted: there is no such token
        return str(error)


class PhaseRouting(NamedTuple):
    """The routing of the tokens of one phase."""

    counts: NDArray[np.int64]
    """[layer, expert], how often each expert was chosen"""
    entropy: NDArray[np.float64]
    """[layer], H(f)/ln E of the load"""
    order: NDArray[np.int32]
    """[layer, place], experts of each layer beside those that they are chosen with"""

    @classmethod
    def of(cls, token_set: TokenSet) -> "PhaseRouting":
        """Count; twice through the traces, one of them open at a time."""
        counts = token_set.expert_counts()[0].sum(0)
        return cls(counts, load_entropy(load_of(token_set, counts)).values, _clustered(token_set))


def _clustered(token_set: TokenSet) -> NDArray[np.int32]:
    if token_set.top_k < 2:  # none are chosen together
        return np.tile(np.arange(token_set.num_experts, dtype=np.int32), (len(token_set.layers), 1))
    return cluster_order(coactivation(token_set.rows("expert_indices"), token_set.num_experts).values)


def load_of(token_set: TokenSet, counts: NDArray[np.int64]) -> Labelled:
    """Return ``f_e = n_e / (T·k)`` [layer, expert] from counts [layer, expert]."""
    source = f"expert load per slot over {token_set.num_tokens} tokens, from {token_set}"
    return Labelled(
        counts / (token_set.num_tokens * token_set.top_k), ("layer", "expert"), {"layer": token_set.layers}, source
    )


def cluster_order(together: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return an order of each layer's experts in which those that are chosen together stand together.

    Average linkage of ``1 − J``, with ``J_ij = N_ij / (N_i + N_j − N_ij)`` the Jaccard index of the tokens that chose
    i and those that chose j. Experts of two layers have nothing to do with each other, so each layer has its own.

    Args:
        together: [layer, expert, expert], ``P(j | i) = N_ij / N_i``; NaN in the row of an expert never chosen.

    Returns:
        [layer, place] int32.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        jaccard = 1 / (1 / together + 1 / together.transpose(0, 2, 1) - 1)
    distance = 1 - np.nan_to_num(jaccard, posinf=0.0)
    return np.stack([_leaves(layer) for layer in distance]).astype(np.int32)


def _leaves(distance: NDArray[np.float64]) -> NDArray[np.int32]:
    from scipy.cluster.hierarchy import leaves_list, linkage  # a third of a second, which only this needs
    from scipy.spatial.distance import squareform

    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=len(distance) <= 64)
    return cast("NDArray[np.int32]", leaves_list(tree))
