"""Where the parameters of a mixture of experts are, and how many of them one token uses."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from workbench.families import ModelError, family_of
from workbench.loading import published_config

__all__ = ["PUBLISHED", "ParameterCounts", "Published", "count_parameters"]


class Published(NamedTuple):
    """What the makers say."""

    total: float
    active: float


PUBLISHED = {
    "openai/gpt-oss-20b": Published(20.91e9, 3.61e9),
    "openai/gpt-oss-120b": Published(116.83e9, 5.13e9),
}
"""OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card" (2025), table 1."""


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model by what they are for, all layers together, biases included."""

    embedding: int
    unembedding: int
    attention: int
    """with the learned sink logits"""
    router: int
    experts: int
    """all of them, chosen or not"""
    norms: int
    active_share: float
    """of the experts that one token uses: experts per token / experts"""

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.unembedding + self.attention + self.router + self.experts + self.norms

    @property
    def active(self) -> int:
        """Parameters that one token uses, counted as the gpt-oss model card does: without the embedding, a look-up."""
        return self.total - self.embedding - self.experts + round(self.experts * self.active_share)


def count_parameters(model: Any) -> ParameterCounts:
    """Build a gpt-oss without memory for its weights, and count them.

    Args:
        model: a name that `wb.estimate` takes, or a transformers config.

    Raises:
        ModelError: the model is no gpt-oss, or its name is unknown.
    """
    from transformers import AutoModelForCausalLM

    config: Any = published_config(model) if isinstance(model, str) else model
    if family_of(config).name != "gpt-oss":
        raise ModelError(f"expected a gpt-oss, whose parameters this lesson counts, got {config.model_type}")
    with torch.device("meta"):
        hf: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    counts = dict.fromkeys(("embedding", "unembedding", "attention", "router", "experts", "norms"), 0)
    for name, parameter in hf.named_parameters():
        counts[_part(name)] += parameter.numel()
    return ParameterCounts(**counts, active_share=config.num_experts_per_tok / config.num_local_experts)


PARTS = {
    "embed_tokens.": "embedding",
    "lm_head.": "unembedding",
    "self_attn.": "attention",
    "mlp.router.": "router",
    "mlp.experts.": "experts",
    "norm.": "norms",
}


def _part(name: str) -> str:
    found = [part for piece, part in PARTS.items() if piece in name]
    if len(found) != 1:
        raise ModelError(f"expected a parameter of one known part of gpt-oss, got {name}")
    return found[0]
