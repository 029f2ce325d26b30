"""What the router's logits say: entropy, margin, and the losses that keep routing even and logits small."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from workbench.analysis.counting import add_load
from workbench.analysis.routing.blocks import LOGITS, Blocks, Rows, layer_name
from workbench.labelled import Labelled, TraceError

__all__ = ["load_balance_loss", "router_entropy", "router_z_loss", "routing_margin"]


def router_entropy(router_logits: Blocks) -> Labelled:
    """Return the entropy of the softmax over all experts, in nats: 0 is certain, ln E is undecided (Shannon, 1948).

    A diagnostic: gpt-oss applies its softmax to the selected logits only, so this is not the distribution it uses.

    Args:
        router_logits: [token, layer, expert], before top-k, or blocks of them. An expert at −∞ has probability 0.

    Returns:
        [token, layer] float64; NaN where a logit is NaN.

    Raises:
        TraceError: no tokens, or other dims.
    """
    rows = Rows(router_logits, LOGITS, "router_logits")
    return _per_token(rows, router_logits, lambda z: _entropy(z.astype(np.float64)), "router entropy in nats")


def routing_margin(router_logits: Blocks, top_k: int) -> Labelled:
    """Return ``z_(k) − z_(k+1)``: how far the last chosen expert is above the first one that was not.

    Small margins are near-ties, which other kernels or dtypes may decide otherwise.

    Args:
        router_logits: [token, layer, expert], before top-k, or blocks of them.
        top_k: k, experts per token; below the number of experts, else nothing is left out and no margin exists.

    Returns:
        [token, layer] float32, in logits; NaN where a logit is NaN.

    Raises:
        TraceError: no tokens, other dims, or a top_k out of range.
    """
    rows = Rows(router_logits, LOGITS, "router_logits")
    _check_top_k(top_k, rows.sizes["expert"], rows.sizes["expert"] - 1)
    what = f"routing margin z({top_k}) − z({top_k + 1})"
    return _per_token(rows, router_logits, lambda z: _margin(z.astype(np.float32), top_k), what)


def load_balance_loss(
    router_logits: Blocks, top_k: int, convention: Literal["switch", "transformers"] = "switch"
) -> Labelled:
    """Return the auxiliary loss ``E · Σ_e f_e P_e`` that training adds to keep routing even, without its coefficient.

    ``P_e`` is the mean over tokens of the softmax over all experts. ``f_e`` is, in ``switch`` (Fedus et al., Switch
    Transformers, arXiv 2101.03961), the share of tokens whose top-1 is e: balanced is 1. In
    ``transformers`` it is the share of tokens with e in their top-k, which sums to k: balanced is k; this is
    ``load_balancing_loss_func`` of Hugging Face transformers (Mixtral, OLMoE, Qwen3-MoE) given one layer. Given
    several, that function pools all layers before it multiplies, which is not the mean of these values.

    Args:
        router_logits: [token, layer, expert], before top-k, or blocks of them; of one phase.
        top_k: k, experts per token; unused by ``switch``.
        convention: ``switch`` or ``transformers``.

    Returns:
        [layer] float64, no units, E at most (``switch``).

    Raises:
        TraceError: no tokens, other dims, logits that are not finite, a top_k out of range, an unknown convention.
    """
    if convention not in ("switch", "transformers"):
        raise TraceError(f"expected convention='switch' or 'transformers', got {convention!r}")
    rows = Rows(router_logits, LOGITS, "router_logits")
    num_experts = rows.sizes["expert"]
    _check_top_k(top_k, num_experts, num_experts)
    slots, balanced = (1, 1) if convention == "switch" else (top_k, top_k)
    counts = np.zeros((rows.sizes["layer"], num_experts), dtype=np.int64)
    mass = np.zeros(counts.shape)
    for logits in _finite(rows):
        mass += softmax(logits, axis=-1).sum(0)
        # Stable: on a tie the lower index, as the trace has it.
        add_load(np.argsort(-logits, axis=-1, kind="stable")[..., :slots], counts)
    loss = num_experts * (counts * mass).sum(-1) / rows.num_tokens**2
    source = f"load-balance loss ({convention}, balanced = {balanced}) over {rows.num_tokens} tokens{rows.origin}"
    return Labelled(loss, ("layer",), rows.coords, source)


def router_z_loss(router_logits: Blocks) -> Labelled:
    """Return ``mean_t (ln Σ_e exp z_e)²``, which keeps logits small (Zoph et al., ST-MoE, arXiv 2202.08906).

    Args:
        router_logits: [token, layer, expert], before top-k, or blocks of them; of one phase.

    Returns:
        [layer] float64, in squared nats.

    Raises:
        TraceError: no tokens, other dims, or logits that are not finite.
    """
    rows = Rows(router_logits, LOGITS, "router_logits")
    total = sum((logsumexp(logits, axis=-1) ** 2).sum(0) for logits in _finite(rows))
    source = f"router z-loss over {rows.num_tokens} tokens{rows.origin}"
    return Labelled(np.asarray(total / rows.num_tokens), ("layer",), rows.coords, source)


def _per_token(rows: Rows, given: Blocks, measure: Callable[[NDArray[Any]], NDArray[Any]], what: str) -> Labelled:
    """Return a measure [token, layer]; the tokens keep their labels where one array was given."""
    values = np.concatenate([measure(logits) for logits in rows])
    tokens = given.coords.get("token") if isinstance(given, Labelled) else None
    coords = rows.coords if tokens is None else {**rows.coords, "token": tokens}
    return Labelled(values, ("token", "layer"), coords, f"{what}{rows.origin}")


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
    ordered = np.partition(logits, (place - 1, place, -1), axis=-1)
    margin: NDArray[np.float32] = ordered[..., place] - ordered[..., place - 1]
    margin[np.isnan(ordered[..., -1])] = np.nan  # NaN sorts last, and would pass for the highest logit
    return margin


def _check_top_k(top_k: int, num_experts: int, highest: int) -> None:
    if not 0 < top_k <= highest:
        raise TraceError(f"expected top_k within 1–{highest} for {num_experts} experts, got {top_k}")


def _finite(rows: Rows) -> Iterator[NDArray[np.float64]]:
    """Give float64 logits whose softmax exists: single experts may be at −∞."""
    for piece in rows:
        logits = piece.astype(np.float64)
        bad = np.argwhere(~np.isfinite(logits.max(-1)))  # NaN, +∞, or −∞ for every expert
        if len(bad):
            token, layer = (int(at) for at in bad[0])
            raise TraceError(
                f"router_logits: expected finite logits, got {logits[token, layer].max()} in row "
                f"{rows.num_tokens - len(piece) + token}, {layer_name(rows.layers, layer)}"
            )
        yield logits
