"""Which experts are chosen together."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.counting import add_load, add_pairs
from workbench.analysis.routing.blocks import Blocks, Rows, choices
from workbench.labelled import Labelled, TraceError

__all__ = ["coactivation", "coactivation_lift"]

_DIMS = ("layer", "expert", "partner")


def coactivation(expert_indices: Blocks, num_experts: int, compat: Literal["olmoe"] | None = None) -> Labelled:
    """Return ``P(j|i) = N_ij / N_i``: of the tokens that chose expert i, the share that chose j as well.

    Over all pairs chosen together in a layer (Muennighoff et al., OLMoE, arXiv 2409.02060). Asymmetric:
    a rare expert may always come with a common one. A busy j is in every row; `coactivation_lift` corrects for that.

    Args:
        expert_indices: [token, layer, top_k], the chosen experts by rank, or blocks of them; of one phase.
        num_experts: E, of the model.
        compat: None counts all pairs. ``olmoe`` counts only experts of neighbouring rank, as the script of that paper
            does (allenai/OLMoE, scripts/run_moe_analysis.py).

    Returns:
        [layer, expert i, partner j] float64; a row sums to k − 1 (without ``compat``). NaN where it is undefined: for
        an expert with itself, and in the row of an expert that was never chosen.

    Raises:
        TraceError: no tokens, other dims, an index that is no expert, one expert per token, or one named twice.
    """
    if compat not in (None, "olmoe"):
        raise TraceError(f"expected compat=None or compat='olmoe', got {compat!r}")
    rows, pairs, chosen = _pairs(expert_indices, num_experts, neighbours=compat == "olmoe")
    share = np.full(pairs.shape, np.nan)
    np.divide(pairs, chosen[:, :, None], out=share, where=chosen[:, :, None] > 0)
    _itself(share)
    which = "pairs of neighbouring rank (as OLMoE's script)" if compat else "all pairs"
    source = f"co-activation P(partner | expert), {which}, over {rows.num_tokens} tokens{rows.origin}"
    return Labelled(share, _DIMS, rows.coords, source)


def coactivation_lift(expert_indices: Blocks, num_experts: int) -> Labelled:
    """Return ``N_ij · T / (N_i N_j)``: how much more often two experts are chosen together than if independent.

    As the experts of a token differ, uniform routing gives ``E (k − 1) / (k (E − 1))``, not 1; ``source`` says how
    much that is.

    Args:
        expert_indices: [token, layer, top_k], the chosen experts, or blocks of them; of one phase.
        num_experts: E, of the model.

    Returns:
        [layer, expert, partner] float64, symmetric. NaN for an expert with itself, or where either was never chosen.

    Raises:
        TraceError: no tokens, other dims, an index that is no expert, one expert per token, or one named twice.
    """
    rows, pairs, chosen = _pairs(expert_indices, num_experts)
    expected = chosen[:, :, None] * chosen[:, None, :] / rows.num_tokens
    lift = np.full(pairs.shape, np.nan)
    np.divide(pairs, expected, out=lift, where=expected > 0)
    _itself(lift)
    top_k = rows.sizes["top_k"]
    uniform = num_experts * (top_k - 1) / (top_k * (num_experts - 1))
    source = f"co-activation lift, uniform routing {uniform:.3g}, over {rows.num_tokens} tokens{rows.origin}"
    return Labelled(lift, _DIMS, rows.coords, source)


def _pairs(
    expert_indices: Blocks, num_experts: int, *, neighbours: bool = False
) -> tuple[Rows, NDArray[np.int64], NDArray[np.int64]]:
    """Return what was read, ``N_ij`` [layer, expert, partner] of all or of neighbouring ranks, and ``N_i``."""
    rows = choices(expert_indices, num_experts)
    top_k = rows.sizes["top_k"]
    if top_k < 2:
        raise TraceError("expected at least 2 experts per token, got 1: nothing is chosen together")
    pairs = np.zeros((rows.sizes["layer"], num_experts, num_experts), dtype=np.int64)
    chosen = np.zeros(pairs.shape[:2], dtype=np.int64)
    for indices in rows:
        if neighbours:
            add_load(indices, chosen)
            for rank in range(top_k - 1):
                add_pairs(indices[:, :, rank : rank + 2], pairs)
        else:
            add_pairs(indices, pairs)
    if not neighbours:
        chosen = np.diagonal(pairs, axis1=1, axis2=2).copy()
    return rows, pairs, chosen


def _itself(pairs: NDArray[np.float64]) -> None:
    """Leave out the pairs of an expert with itself."""
    experts = np.arange(pairs.shape[1])
    pairs[:, experts, experts] = np.nan
