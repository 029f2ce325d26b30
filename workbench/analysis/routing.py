"""How a mixture of experts routes: load, entropy, margin. Arrays in, labelled arrays out; definitions in METHODS A.

Every result says in its ``source`` what it is and on how many tokens. Keep prompt and completion apart: pass the rows
of one phase, as in ``expert_load(trace[trace.num_prompt_tokens:].expert_indices, 32)``.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workbench.labelled import Labelled, TraceError

__all__ = ["expert_load", "router_entropy", "routing_margin"]

_BLOCK = 4096  # tokens at a time, so that a float64 copy of all router logits never exists


def expert_load(
    expert_indices: NDArray[Any] | Labelled, num_experts: int, per: Literal["slot", "token"] = "slot"
) -> Labelled:
    """Return how often each expert is chosen.

    Args:
        expert_indices: [token, layer, top_k], the chosen experts.
        num_experts: E, of the model; an expert never chosen has load 0.
        per: ``slot``: ``f_e = n_e / (T·k)``, sums to 1 over a layer, uniform is 1/E. ``token``: ``n_e / T``, the
            share of tokens that chose the expert, sums to k, uniform is k/E (domain specialization in the OLMoE
            paper, arXiv 2409.02060, when the tokens are one domain's).

    Returns:
        [layer, expert] float64.

    Raises:
        TraceError: no tokens, other dims, or an index that is no expert.
    """
    indices, coords, origin = _values(expert_indices, ("token", "layer", "top_k"), "expert_indices")
    if per not in ("slot", "token"):
        raise TraceError(f"expected per='slot' or per='token', got {per!r}")
    if indices.dtype.kind not in "iu":
        raise TraceError(f"expected integers as expert_indices, got {indices.dtype}")
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= num_experts:
        raise TraceError(f"expected expert_indices within 0–{num_experts - 1}, got {low if low < 0 else high}")
    num_tokens, num_layers, top_k = indices.shape
    counts = [np.bincount(indices[:, layer].ravel(), minlength=num_experts) for layer in range(num_layers)]
    load = np.stack(counts) / (num_tokens * (top_k if per == "slot" else 1))
    return Labelled(load, ("layer", "expert"), coords, f"expert load per {per} over {num_tokens} tokens{origin}")


def router_entropy(router_logits: NDArray[Any] | Labelled) -> Labelled:
    """Return the entropy of the softmax over all experts, in nats: 0 is certain, ln E is undecided.

    A diagnostic: gpt-oss applies its softmax to the selected logits only, so this is not the distribution it uses.

    Args:
        router_logits: [token, layer, expert], before top-k. An expert at −∞ has probability 0.

    Returns:
        [token, layer] float64; NaN where a logit is NaN.

    Raises:
        TraceError: no tokens, or other dims.
    """
    logits, coords, origin = _values(router_logits, ("token", "layer", "expert"), "router_logits")
    blocks = (logits[at : at + _BLOCK].astype(np.float64) for at in range(0, len(logits), _BLOCK))
    entropy = np.concatenate([_entropy(block) for block in blocks])
    return Labelled(entropy, ("token", "layer"), coords, f"router entropy in nats{origin}")


def routing_margin(router_logits: NDArray[Any] | Labelled, top_k: int) -> Labelled:
    """Return ``z_(k) − z_(k+1)``: how far the last chosen expert is above the first one that was not.

    Small margins are near-ties, which other kernels or dtypes may decide otherwise.

    Args:
        router_logits: [token, layer, expert], before top-k.
        top_k: k, experts per token; below the number of experts, else nothing is left out and no margin exists.

    Returns:
        [token, layer] float32, in logits.

    Raises:
        TraceError: no tokens, other dims, or a top_k out of range.
    """
    logits, coords, origin = _values(router_logits, ("token", "layer", "expert"), "router_logits")
    num_experts = logits.shape[-1]
    if not 0 < top_k < num_experts:
        raise TraceError(f"expected top_k within 1–{num_experts - 1} for {num_experts} experts, got {top_k}")
    blocks = (logits[at : at + _BLOCK].astype(np.float32) for at in range(0, len(logits), _BLOCK))
    margin = np.concatenate([_margin(block, top_k) for block in blocks])
    return Labelled(margin, ("token", "layer"), coords, f"routing margin z({top_k}) − z({top_k + 1}){origin}")


def _entropy(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``logsumexp(z) − Σ p z`` over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(-1)
    # 0 · −∞ is NaN in floating point and 0 in the entropy.
    weighted = np.multiply(weights, shifted, where=weights != 0, out=np.zeros_like(weights)).sum(-1)
    entropy: NDArray[np.float64] = np.log(total) - weighted / total
    return entropy


def _margin(logits: NDArray[np.float32], top_k: int) -> NDArray[np.float32]:
    place = logits.shape[-1] - top_k
    ordered = np.partition(logits, (place - 1, place), axis=-1)
    margin: NDArray[np.float32] = ordered[..., place] - ordered[..., place - 1]
    return margin


def _values(
    array: NDArray[Any] | Labelled, dims: tuple[str, ...], name: str
) -> tuple[NDArray[Any], dict[str, tuple[int, ...]], str]:
    """Return the values, the labels that stay, and where the values come from, once the dims are checked."""
    given = array.dims if isinstance(array, Labelled) else dims
    if given != dims or np.ndim(array) != len(dims):
        got = f"dims {list(given)}" if isinstance(array, Labelled) else f"shape {np.shape(array)}"
        raise TraceError(f"{name}: expected [{', '.join(dims)}], got {got}")
    values = np.asarray(array)
    if 0 in values.shape:
        raise TraceError(f"{name}: expected at least one of each of {', '.join(dims)}, got shape {values.shape}")
    if not isinstance(array, Labelled):
        return values, {}, ""
    coords = {dim: labels for dim, labels in array.coords.items() if dim in ("token", "layer")}
    return values, coords, f", from {array.source}" if array.source else ""
