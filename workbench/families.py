"""Where each model family keeps its router, attention and sinks, and how it turns router logits into weights.

One row per family. An unknown family is refused: a wrong weight convention sums to something plausible, so a guess
would be silent. Dense families are here too, because attention, lens and chain of thought need no router.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FAMILIES", "Family", "ModelError", "family_of", "known_families"]

Route = Callable[[Tensor, Any], tuple[Tensor, Tensor]]
"""router logits [token, expert], router module → expert_indices [token, top_k] in rank order, expert_weights alike"""


class ModelError(ValueError):
    """A model cannot be loaded, or cannot be read in the way that was asked for."""


def softmax_of_selected(router_logits: Tensor, router: Any) -> tuple[Tensor, Tensor]:
    """Choose the top-k logits, then softmax over those only (transformers `GptOssTopKRouter.forward`)."""
    values, indices = torch.topk(router_logits, router.top_k, dim=-1)
    return indices, torch.softmax(values, dim=-1, dtype=values.dtype)


def renormalised_softmax(router_logits: Tensor, router: Any) -> tuple[Tensor, Tensor]:
    """Softmax over all experts, choose the top-k, let them sum to 1 (transformers `MixtralTopKRouter.forward`)."""
    values, indices = torch.topk(torch.softmax(router_logits.float(), dim=-1), router.top_k, dim=-1)
    return indices, values / values.sum(dim=-1, keepdim=True)


def selected_softmax(router_logits: Tensor, router: Any) -> tuple[Tensor, Tensor]:
    """Softmax over all experts and choose the top-k; renormalised only where the checkpoint says ``norm_topk_prob``.

    Transformers `Qwen3MoeTopKRouter.forward` and `OlmoeTopKRouter.forward`.
    """
    values, indices = torch.topk(torch.softmax(router_logits, dim=-1, dtype=torch.float), router.top_k, dim=-1)
    if router.norm_topk_prob:
        values = values / values.sum(dim=-1, keepdim=True)
    return indices, values.to(router_logits.dtype)


def group_limited_sigmoid(router_logits: Tensor, router: Any) -> tuple[Tensor, Tensor]:
    """Sigmoid scores; a bias corrects the choice only, which is limited to the best groups of experts.

    Transformers `DeepseekV3TopkRouter.forward`, which leaves the chosen ones unordered; here they are in rank order.
    """
    scores = router_logits.sigmoid()
    grouped = (scores + router.e_score_correction_bias).unflatten(-1, (router.num_group, -1))
    best_groups = grouped.topk(2, dim=-1).values.sum(-1).topk(router.topk_group, dim=-1).indices
    closed = torch.ones(grouped.shape[:-1], dtype=torch.bool, device=scores.device).scatter(-1, best_groups, False)
    choice = grouped.masked_fill(closed[..., None], -torch.inf).flatten(-2)
    indices = choice.topk(router.top_k, dim=-1).indices
    values = scores.gather(-1, indices)
    values, order = values.sort(dim=-1, descending=True, stable=True)
    if router.norm_topk_prob:
        values = values / (values.sum(dim=-1, keepdim=True) + 1e-20)
    return indices.gather(-1, order), values * router.routed_scaling_factor


@dataclass(frozen=True)
class Family:
    """One family's module paths and conventions. Paths are relative to a decoder layer unless said otherwise."""

    name: str
    router: str | None = None
    """the router module, which returns (logits, weights, indices); None in dense families"""
    num_experts: str = "num_experts"
    """the config's name for the number of experts"""
    route: Route | None = None
    mlp: str = "mlp"
    attention: str = "self_attn"
    queries: str | None = "self_attn.q_proj"
    """the last module before RoPE; None where queries and keys are not made by one module each"""
    keys: str | None = "self_attn.k_proj"
    sinks: str | None = None
    """the parameter of learned sink logits, one per head"""
    layers: str = "model.layers"
    """from the root, like the next three"""
    rotary: str = "model.rotary_emb"
    norm: str = "model.norm"
    unembed: str = "lm_head"
    ranked: bool = True
    """whether the router module returns its choice in rank order"""


Q_NORM, K_NORM = "self_attn.q_norm", "self_attn.k_norm"

FAMILIES: dict[str, Family] = {
    "gpt_oss": Family("gpt-oss", "mlp.router", "num_local_experts", softmax_of_selected, sinks="self_attn.sinks"),
    "mixtral": Family("Mixtral", "mlp.gate", "num_local_experts", renormalised_softmax),
    "qwen3_moe": Family("Qwen3-MoE", "mlp.gate", "num_experts", selected_softmax, queries=Q_NORM, keys=K_NORM),
    "olmoe": Family("OLMoE", "mlp.gate", "num_experts", selected_softmax, queries=Q_NORM, keys=K_NORM),
    # Multi-head latent attention expands keys from a shared latent inside the attention module.
    "deepseek_v3": Family(
        "DeepSeek-V3",
        "mlp.gate",
        "num_local_experts",
        group_limited_sigmoid,
        queries=None,
        keys=None,
        ranked=False,
    ),
    "llama": Family("Llama (dense)"),
    "mistral": Family("Mistral (dense)"),
    "qwen2": Family("Qwen2 (dense)"),
    "qwen3": Family("Qwen3 (dense)", queries=Q_NORM, keys=K_NORM),
}
"""Transformers' ``config.model_type`` → family."""


def known_families(*, with_router: bool = False) -> str:
    """Name the families, for an error message."""
    return ", ".join(family.name for family in FAMILIES.values() if family.router or not with_router)


def family_of(config: Any) -> Family:
    """Return the family of a transformers config. Raises `ModelError` that lists the known ones."""
    model_type = getattr(config, "model_type", None)
    if model_type not in FAMILIES:
        raise ModelError(
            f"expected a model of a known family ({known_families()}), got model_type {model_type!r}. "
            "Where its router is and how it weighs experts is not known here and is never guessed."
        )
    return FAMILIES[model_type]


def has_router(family: Family, layer: nn.Module) -> bool:
    """Say whether a decoder layer is a mixture of experts: some families have dense layers among them."""
    if family.router is None:
        return False
    parent, _, name = family.router.rpartition(".")
    return hasattr(layer.get_submodule(parent), name)
