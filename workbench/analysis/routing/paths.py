"""Where tokens go from one layer to the next."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.counting import add_tokens
from workbench.analysis.routing.blocks import Array, Blocks, choices
from workbench.analysis.routing.information import Information, mutual_information
from workbench.labelled import Labelled, TraceError, ranges

__all__ = ["path_information", "routing_paths"]

_DIMS = ("layer", "from_expert", "to_expert")


def routing_paths(expert_indices: Blocks, num_experts: int, layers: Sequence[int] | None = None) -> Labelled:
    """Count ``(top-1 expert at a layer, top-1 expert at the next)`` over tokens.

    Top-1 only: each token is counted once per pair of layers, where an outer product of the top-k would count it k²
    times. Conditional on the first it is the expert affinity of Yao et al. (ExFlow, arXiv 2401.08383).

    Args:
        expert_indices: [token, layer, top_k], the chosen experts by rank, or blocks of them; of one phase.
        num_experts: E, of the model.
        layers: two or more captured layers, ascending; tokens are followed from each to the next one named. None
            takes all.

    Returns:
        [layer, from_expert, to_expert] int64; ``layer`` is labelled with the layer a pair starts from, and each pair
        sums to T.

    Raises:
        TraceError: no tokens, other dims, an index that is no expert, or layers that are not two or more of those
            captured.
    """
    rows = choices(expert_indices, num_experts)
    captured = rows.layers or tuple(range(rows.sizes["layer"]))
    wanted = captured if layers is None else tuple(layers)
    if len(wanted) < 2 or list(wanted) != sorted(set(wanted)) or not set(wanted) <= set(captured):
        raise TraceError(f"expected two or more layers, ascending, of {ranges(captured)}, got {list(wanted)}")
    places = [captured.index(layer) for layer in wanted]
    counts = np.zeros((len(places) - 1, num_experts, num_experts), dtype=np.int64)
    for indices in rows:
        top = indices[:, places, 0]
        low, high = int(top.min()), int(top.max())
        if low < 0 or high >= num_experts:
            raise TraceError(f"expected expert_indices within 0–{num_experts - 1}, got {low if low < 0 else high}")
        for pair in range(len(counts)):
            add_tokens(top[:, pair], top[:, pair + 1 : pair + 2], counts[pair][None])
    route = " → ".join(map(str, wanted))
    source = f"top-1 paths through layers {route} over {rows.num_tokens} tokens{rows.origin}"
    return Labelled(counts, _DIMS, {"layer": wanted[:-1]}, source)


def path_information(paths: Array, *, num_shuffles: int = 20, seed: int = 0) -> Information:
    """Return how much the top-1 expert of one layer tells of the next one's: mutual information, in nats.

    Biased upward by about ``(E − 1)² / 2T`` where tokens are few (Miller, 1955). So it comes with a null: the mean
    where the next layer's choices are shuffled among the tokens, loads as they are (Patefield, 1981, as
    ``scipy.stats.random_table``). The null does not respect that tokens of one trace depend on one another.

    Args:
        paths: [layer, from_expert, to_expert] counts, as `routing_paths` gives them.
        num_shuffles: over how many shuffles the null is a mean.
        seed: of the shuffles.

    Returns:
        `Information`, value and null [layer] float64, from 0 to ln E.

    Raises:
        TraceError: other dims, what are not counts, a pair of layers without tokens, or no shuffles.
    """
    counts, coords, origin = _counts(paths)
    if num_shuffles < 1:
        raise TraceError(f"expected at least 1 shuffle, got {num_shuffles}")
    rng = np.random.default_rng(seed)
    null = np.array([mutual_information(_shuffled(pair, num_shuffles, rng)).mean() for pair in counts])
    what = "path information in nats"
    return Information(
        Labelled(mutual_information(counts), ("layer",), coords, f"{what}, biased high for few tokens{origin}"),
        Labelled(null, ("layer",), coords, f"{what}, mean of {num_shuffles} shuffles, seed {seed}{origin}"),
    )


def _shuffled(counts: NDArray[Any], num_shuffles: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return tables with the same margins whose rows and columns are independent, [shuffle, from, to]."""
    from scipy.stats import random_table  # half a second, which only the null needs

    shuffled: NDArray[Any] = random_table.rvs(counts.sum(1), counts.sum(0), size=num_shuffles, random_state=rng)
    return shuffled


def _counts(paths: Array) -> tuple[NDArray[Any], dict[str, tuple[int, ...]], str]:
    values = np.asarray(paths)
    given = paths.dims if isinstance(paths, Labelled) else _DIMS
    if given != _DIMS or values.ndim != 3 or 0 in values.shape:
        got = f"dims {list(given)}" if given != _DIMS else f"shape {values.shape}"
        raise TraceError(f"paths: expected [layer, from_expert, to_expert], got {got}")
    if values.dtype.kind not in "iu" or values.min() < 0:
        raise TraceError(f"paths: expected counts of 0 or more, got {values.dtype} from {values.min()}")
    if not values.sum((1, 2)).all():
        raise TraceError("paths: expected tokens in every pair of layers, got none in one")
    coords = dict(paths.coords) if isinstance(paths, Labelled) else {}
    return values, coords, f", of {paths.source}" if isinstance(paths, Labelled) and paths.source else ""
