"""Whether two aligned runs choose the same experts, token by token."""

import math
from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.routing.blocks import INDICES, Blocks, Rows, aligned
from workbench.labelled import Labelled, TraceError

__all__ = ["routing_jaccard", "routing_overlap", "shared_experts"]


def routing_overlap(a: Blocks, b: Blocks, num_experts: int | None = None) -> Labelled:
    """Return ``mean_t |top-k(a_t) ∩ top-k(b_t)| / k`` of two aligned runs.

    1: the same experts for every token, in whatever order. Between checkpoints of one training it is the *router
    saturation* of OLMoE (arXiv 2409.02060). Runs that are not aligned: `load_divergence`.

    Args:
        a: [token, layer, top_k], the chosen experts, or blocks of them; of one phase.
        b: the same tokens and layers of the other run, in the same blocks.
        num_experts: E; where given, the ``source`` says the chance level k/E of uniform routing. Uneven loads raise
            it.

    Returns:
        [layer] float64, 0 to 1.

    Raises:
        TraceError: no tokens, other dims, or tokens, layers or k that differ; a token with one expert twice.
    """
    return _agreement(a, b, lambda shared, top_k: shared / top_k, "overlap", num_experts)


def routing_jaccard(a: Blocks, b: Blocks, num_experts: int | None = None) -> Labelled:
    """Return ``mean_t |top-k(a_t) ∩ top-k(b_t)| / |top-k(a_t) ∪ top-k(b_t)|`` of two aligned runs (Jaccard, 1912).

    Args:
        a: [token, layer, top_k], the chosen experts, or blocks of them; of one phase.
        b: the same tokens and layers of the other run, in the same blocks.
        num_experts: E; where given, the ``source`` says the chance level of uniform routing.

    Returns:
        [layer] float64, 0 to 1.

    Raises:
        TraceError: no tokens, other dims, or tokens, layers or k that differ; a token with one expert twice.
    """
    return _agreement(a, b, lambda shared, top_k: shared / (2 * top_k - shared), "Jaccard index", num_experts)


def _agreement(
    a: Blocks,
    b: Blocks,
    measure: Callable[[NDArray[Any], int], NDArray[np.float64]],
    what: str,
    num_experts: int | None,
) -> Labelled:
    """Average a measure of ``|∩|`` and k over tokens."""
    left, right = Rows(a, INDICES, "a"), Rows(b, INDICES, "b")
    if left.sizes["layer"] != right.sizes["layer"] or left.layers != right.layers:
        raise TraceError(
            f"a and b: expected the same layers, got {left.layers or left.sizes['layer']} beside "
            f"{right.layers or right.sizes['layer']}"
        )
    top_k = left.sizes["top_k"]
    if top_k != right.sizes["top_k"]:
        raise TraceError(f"a and b: expected as many experts per token, got {top_k} beside {right.sizes['top_k']}")
    chance = "" if num_experts is None else f", chance {_chance(measure, top_k, num_experts):.3g}"
    # How many tokens share 0, 1, … k experts, of which any such mean follows.
    tokens = np.zeros((left.sizes["layer"], top_k + 1), dtype=np.int64)
    for mine, theirs in aligned(left, right):
        shared = shared_experts(mine, theirs)
        for number in range(top_k + 1):
            tokens[:, number] += (shared == number).sum(0)
    value = tokens @ measure(np.arange(top_k + 1), top_k) / left.num_tokens
    origin = f"{left.origin}{right.origin.replace(', from', ' and', 1) if left.origin else right.origin}"
    return Labelled(
        value, ("layer",), left.coords, f"routing {what} over {left.num_tokens} aligned tokens{chance}{origin}"
    )


def shared_experts(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """Return ``|∩|`` [token, layer], once each side names no expert twice."""
    ranks = range(a.shape[-1])
    for name, side in (("a", a), ("b", b)):
        if side.dtype.kind not in "iu":
            raise TraceError(f"expected integers as {name}, got {side.dtype}")
        if any((side[..., i] == side[..., j]).any() for i, j in combinations(ranks, 2)):
            raise TraceError(f"{name}: expected {len(ranks)} different experts per token, got one of them twice")
    shared = np.zeros(a.shape[:-1], dtype=np.int64)
    for i, j in product(ranks, ranks):  # many times as fast as one comparison with an axis for each rank
        shared += a[..., i] == b[..., j]
    return shared


def _chance(measure: Callable[[NDArray[Any], int], NDArray[np.float64]], top_k: int, num_experts: int) -> float:
    """Return the measure's mean where both sides draw k of E experts uniformly: ``|∩|`` is hypergeometric."""
    if num_experts < top_k:
        raise TraceError(f"expected num_experts of at least k = {top_k}, got {num_experts}")
    shared = np.arange(top_k + 1)
    ways = [math.comb(top_k, x) * math.comb(num_experts - top_k, top_k - x) for x in shared.tolist()]
    return float(np.array(ways) / math.comb(num_experts, top_k) @ measure(shared, top_k))
