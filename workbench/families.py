"""Where each mixture-of-experts family keeps its router, attention and sinks, and how it turns logits into weights.

One row per family. An unknown family is refused: a wrong weight convention sums to something plausible, so a guess
would be silent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["FAMILIES", "Family", "ModelError", "family_of"]


class ModelError(ValueError):
    """A model cannot be loaded, or cannot be read in the way that was asked for."""


def softmax_of_selected(router_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Choose the top-k logits, then softmax over those only (gpt-oss; `GptOssTopKRouter.forward` in transformers).

    Args:
        router_logits: [token, expert], before top-k.
        top_k: experts per token.

    Returns:
        expert_indices [token, top_k] in rank order and expert_weights [token, top_k], in the logits' dtype.
    """
    values, indices = torch.topk(router_logits, top_k, dim=-1)
    return indices, torch.softmax(values, dim=-1, dtype=values.dtype)


@dataclass(frozen=True)
class Family:
    """One family's module paths and conventions. Paths in a layer are relative to ``layers[i]``."""

    name: str
    num_experts: str
    """the config's name for the number of experts"""
    top_k: str
    """the config's name for the number of experts per token"""
    route: Callable[[Tensor, int], tuple[Tensor, Tensor]]
    """router logits [token, expert], k → expert indices and weights [token, k]"""
    layers: str = "model.layers"
    mlp: str = "mlp"
    router: str = "mlp.router"
    q_proj: str = "self_attn.q_proj"
    k_proj: str = "self_attn.k_proj"
    sinks: str | None = None
    """the parameter of learned sink logits, one per head"""
    rotary: str = "model.rotary_emb"
    norm: str = "model.norm"
    unembed: str = "lm_head"


FAMILIES: dict[str, Family] = {
    "gpt_oss": Family(
        name="gpt-oss",
        num_experts="num_local_experts",
        top_k="num_experts_per_tok",
        route=softmax_of_selected,
        sinks="self_attn.sinks",
    ),
}
"""Transformers' ``config.model_type`` → family."""


def family_of(config: Any) -> Family:
    """Return the family of a transformers config. Raises `ModelError` that lists the known ones."""
    model_type = getattr(config, "model_type", None)
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(
            f"expected a model of a known mixture-of-experts family ({known}), got model_type {model_type!r}. "
            "Its router and weight convention are not known here and are never guessed."
        )
    return FAMILIES[model_type]
