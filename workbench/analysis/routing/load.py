"""Expert load, how unequal it is, and how far two loads are apart."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, rel_entr

from workbench.analysis.counting import add_load
from workbench.analysis.routing.blocks import Array, Blocks, choices, layer_name
from workbench.labelled import Labelled, TraceError

__all__ = ["expert_load", "load_cv", "load_divergence", "load_entropy", "load_gini"]

_ROUNDING = 1e-5  # of shares in float32 that sum to 1


def expert_load(expert_indices: Blocks, num_experts: int, per: Literal["slot", "token"] = "slot") -> Labelled:
    """Return how often each expert is chosen.

    Args:
        expert_indices: [token, layer, top_k], the chosen experts, or blocks of them; of one phase.
        num_experts: E, of the model; an expert never chosen has load 0.
        per: ``slot``: ``f_e = n_e / (T·k)``, sums to 1 over a layer, uniform is 1/E. ``token``: ``n_e / T``, the
            share of tokens that chose the expert, sums to k, uniform is k/E (domain specialization in the OLMoE
            paper, arXiv 2409.02060, when the tokens are one domain's).

    Returns:
        [layer, expert] float64.

    Raises:
        TraceError: no tokens, other dims, or an index that is no expert.
    """
    if per not in ("slot", "token"):
        raise TraceError(f"expected per='slot' or per='token', got {per!r}")
    rows = choices(expert_indices, num_experts)
    counts = np.zeros((rows.sizes["layer"], num_experts), dtype=np.int64)
    for indices in rows:
        add_load(indices, counts)
    load = counts / (rows.num_tokens * (rows.sizes["top_k"] if per == "slot" else 1))
    source = f"expert load per {per} over {rows.num_tokens} tokens{rows.origin}"
    return Labelled(load, ("layer", "expert"), rows.coords, source)


def load_entropy(load: Array) -> Labelled:
    """Return ``H(f) / ln E``: 1 is uniform, 0 is one expert for all (Shannon, 1948).

    Biased low where tokens are few, by about ``(E − 1) / (2·T·k·ln E)`` (Miller, 1955): compare loads over equal T.

    Args:
        load: [layer, expert] per slot, as `expert_load` gives it.

    Returns:
        [layer] float64, no units.

    Raises:
        TraceError: other dims, shares of a layer that do not sum to 1, or a single expert.
    """
    shares, coords, origin = _shares(load, "load")
    entropy = entr(shares).sum(-1) / math.log(shares.shape[1])
    return Labelled(entropy, ("layer",), coords, f"load entropy H/ln E, biased low for few tokens{origin}")


def load_gini(load: Array) -> Labelled:
    """Return the Gini coefficient ``Σ_i (2i − E − 1) f_(i) / (E Σ f)``, f ascending and i from 1 (Gini, 1912).

    0 is uniform, ``1 − 1/E`` is one expert for all. Biased high where tokens are few.

    Args:
        load: [layer, expert] per slot, as `expert_load` gives it.

    Returns:
        [layer] float64, no units.

    Raises:
        TraceError: other dims, shares of a layer that do not sum to 1, or a single expert.
    """
    shares, coords, origin = _shares(load, "load")
    num_experts = shares.shape[1]
    rank = 2 * np.arange(1, num_experts + 1) - num_experts - 1
    gini = (np.sort(shares, axis=-1) * rank).sum(-1) / (num_experts * shares.sum(-1))
    return Labelled(gini, ("layer",), coords, f"load Gini, biased high for few tokens{origin}")


def load_cv(load: Array) -> Labelled:
    """Return the coefficient of variation ``σ / μ`` over experts, σ of the population (Shazeer et al., 1701.06538).

    0 is uniform, ``√(E − 1)`` is one expert for all. Biased high where tokens are few. Shazeer et al. train on its
    square.

    Args:
        load: [layer, expert] per slot, as `expert_load` gives it.

    Returns:
        [layer] float64, no units.

    Raises:
        TraceError: other dims, shares of a layer that do not sum to 1, or a single expert.
    """
    shares, coords, origin = _shares(load, "load")
    cv = shares.std(-1) / shares.mean(-1)
    return Labelled(cv, ("layer",), coords, f"load CV σ/μ, biased high for few tokens{origin}")


def load_divergence(p: Array, q: Array, base: float = math.e) -> Labelled:
    """Return the Jensen–Shannon divergence of two loads, layer by layer; not its square root (Lin, 1991).

    ``½ KL(p ‖ m) + ½ KL(q ‖ m)`` with ``m = (p + q) / 2``: how far two runs that are not aligned route apart. Finite
    where experts are never chosen; 0 for equal loads, ``ln 2`` (1 in base 2) for loads without a common expert.

    Args:
        p: [layer, expert] per slot, as `expert_load` gives it.
        q: the same layers and experts of the other run.
        base: of the logarithm: e gives nats, 2 bits.

    Returns:
        [layer] float64, in units of ``base``.

    Raises:
        TraceError: other dims or layers, shares of a layer that do not sum to 1, or a base not above 1.
    """
    if not base > 1:
        raise TraceError(f"expected a base above 1, got {base}")
    left, coords, origin = _shares(p, "p")
    right, other_coords, other_origin = _shares(q, "q")
    if left.shape != right.shape or coords != other_coords:
        raise TraceError(
            f"p and q: expected the same layers and experts, got {left.shape} {coords} beside "
            f"{right.shape} {other_coords}"
        )
    middle = (left + right) / 2
    divergence = (rel_entr(left, middle) + rel_entr(right, middle)).sum(-1) / (2 * math.log(base))
    unit = {math.e: "nats", 2: "bits"}.get(base, f"base {base:g}")
    source = f"Jensen–Shannon divergence in {unit}{origin}{other_origin.replace(', of', ' and', 1)}"
    return Labelled(divergence, ("layer",), coords, source)


def _shares(load: Array, name: str) -> tuple[NDArray[np.float64], dict[str, tuple[int, ...]], str]:
    """Return loads that are distributions over experts, the labels of the layers, and what the loads are."""
    dims = ("layer", "expert")
    given = load.dims if isinstance(load, Labelled) else dims
    if given != dims or np.ndim(load) != 2:
        got = f"dims {list(given)}" if isinstance(load, Labelled) else f"shape {np.shape(load)}"
        raise TraceError(f"{name}: expected [layer, expert], got {got}")
    shares = np.asarray(load, dtype=np.float64)
    coords = {"layer": load.coords["layer"]} if isinstance(load, Labelled) and "layer" in load.coords else {}
    if shares.shape[0] == 0 or shares.shape[1] < 2:
        raise TraceError(f"{name}: expected at least one layer and two experts, got shape {shares.shape}")
    total = shares.sum(-1)
    bad = np.flatnonzero(~((np.abs(total - 1) <= _ROUNDING) & (shares >= 0).all(-1)))
    if len(bad):
        where = layer_name(coords.get("layer"), int(bad[0]))
        raise TraceError(
            f"{name}: expected shares of 0 or more that sum to 1 over the experts, got a sum of {total[bad[0]]:g} in "
            f"{where}; take expert_load(…, per='slot')"
        )
    return shares, coords, f", of {load.source}" if isinstance(load, Labelled) and load.source else ""
