"""Where each model family keeps its router, attention and sinks, and how it turns router logits into weights.

One row per family. An unknown family is refused: a wrong weight convention sums to something plausible, so a guess
would be silent. Dense families are here too, because attention, lens and chain of thought need no router.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FAMILIES", "Family", "ModelError", "choose", "family_of", "known_families"]


class ModelError(ValueError):
    """A model cannot be loaded, or cannot be read in the way that was asked for."""


Weigh = Callable[[Tensor, Tensor, Any], Tensor]


@dataclass(frozen=True)
class Route:
    """How a family gets from router logits to experts and weights, in the two steps that an intervention parts."""

    score: Callable[[Tensor, Any], Tensor]
    """router logits [token, expert], router module → what top-k chooses by, alike"""
    weigh: Weigh
    """router logits, chosen experts [token, top_k], router module → expert_weights [token, top_k]"""

    def __call__(self, router_logits: Tensor, router: Any) -> tuple[Tensor, Tensor]:
        """Return expert_indices [token, top_k] in rank order, and expert_weights alike."""
        return self.choose(self.score(router_logits, router), router_logits, router)

    def choose(self, scores: Tensor, router_logits: Tensor, router: Any) -> tuple[Tensor, Tensor]:
        """Return the experts of the highest scores, which may be changed ones, and their weights, in rank order."""
        return choose(scores, router_logits, router, self.weigh)


def choose(scores: Tensor, router_logits: Tensor, router: Any, weigh: Weigh) -> tuple[Tensor, Tensor]:
    """Choose as `Route.choose`; a function, since it goes along to where a model is resident."""
    indices = torch.topk(scores, router.top_k, dim=-1).indices
    weights, order = weigh(router_logits, indices, router).sort(dim=-1, descending=True, stable=True)
    return indices.gather(-1, order), weights


def _probabilities(router_logits: Tensor, _router: Any) -> Tensor:
    return torch.softmax(router_logits, dim=-1, dtype=torch.float)


def _softmax_of_selected(router_logits: Tensor, indices: Tensor, _router: Any) -> Tensor:
    values = router_logits.gather(-1, indices)
    return torch.softmax(values, dim=-1, dtype=values.dtype)


def _renormalised_softmax(router_logits: Tensor, indices: Tensor, router: Any) -> Tensor:
    values = _probabilities(router_logits, router).gather(-1, indices)
    weights: Tensor = values / values.sum(dim=-1, keepdim=True)
    return weights


def _selected_softmax(router_logits: Tensor, indices: Tensor, router: Any) -> Tensor:
    values = _probabilities(router_logits, router).gather(-1, indices)
    if router.norm_topk_prob:
        values = values / values.sum(dim=-1, keepdim=True)
    return values.to(router_logits.dtype)


def _group_limited(router_logits: Tensor, router: Any) -> Tensor:
    grouped = (router_logits.sigmoid() + router.e_score_correction_bias).unflatten(-1, (router.num_group, -1))
    best_groups = grouped.topk(2, dim=-1).values.sum(-1).topk(router.topk_group, dim=-1).indices
    closed = torch.ones(grouped.shape[:-1], dtype=torch.bool, device=grouped.device)
    scores: Tensor = grouped.masked_fill(closed.scatter(-1, best_groups, False)[..., None], -torch.inf).flatten(-2)
    return scores


def _scaled_sigmoid(router_logits: Tensor, indices: Tensor, router: Any) -> Tensor:
    values = router_logits.sigmoid().gather(-1, indices)
    if router.norm_topk_prob:
        values = values / (values.sum(dim=-1, keepdim=True) + 1e-20)
    weights: Tensor = values * router.routed_scaling_factor
    return weights


softmax_of_selected = Route(lambda router_logits, _: router_logits, _softmax_of_selected)
"""Choose the top-k logits, then softmax over those only (transformers `GptOssTopKRouter.forward`)."""

renormalised_softmax = Route(_probabilities, _renormalised_softmax)
"""Softmax over all experts, choose the top-k, let them sum to 1 (transformers `MixtralTopKRouter.forward`)."""

selected_softmax = Route(_probabilities, _selected_softmax)
"""Softmax over all experts and choose the top-k; renormalised only where the checkpoint says ``norm_topk_prob``.

Transformers `Qwen3MoeTopKRouter.forward` and `OlmoeTopKRouter.forward`.
"""

group_limited_sigmoid = Route(_group_limited, _scaled_sigmoid)
"""Sigmoid scores; a bias corrects the choice only, which is limited to the best groups of experts.

Transformers `DeepseekV3TopkRouter.forward`, which leaves the chosen ones unordered; here they are in rank order.
"""


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
    experts: str = "mlp.experts"
    """the module of all routed experts, called with (rows, expert_indices, expert_weights)"""
    attention: str = "self_attn"
    queries: str | None = "self_attn.q_proj"
    """the last module before RoPE; None where queries and keys are not made by one module each"""
    keys: str | None = "self_attn.k_proj"
    attended: str = "self_attn.o_proj"
    """the module that is given what all heads read, side by side"""
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
