"""OpenAI's original layout of a gpt-oss checkpoint (``block.N…``) → the layout that transformers loads.

The names, shapes and settings are those of openai/gpt-oss (``gpt_oss/torch/model.py`` and ``weights.py``). Queries,
keys and values are one matrix there; experts in MXFP4 have the same blocks and scales in both, so they stay packed.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from workbench.families import ModelError

__all__ = ["is_original", "original_config", "original_weights"]

_SETTINGS = {
    "num_hidden_layers": "num_hidden_layers",
    "num_experts": "num_local_experts",
    "experts_per_token": "num_experts_per_tok",
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "swiglu_limit": "swiglu_limit",
    "head_dim": "head_dim",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "sliding_window": "sliding_window",
}
"""OpenAI's name of a setting → transformers'."""

_HARMONY_ENDS = [200002, 199999, 200012]  # <|return|>, <|endoftext|>, <|call|>
_SPECIAL_IDS = {"bos_token_id": 199998, "pad_token_id": 199999, "eos_token_id": _HARMONY_ENDS}
"""Of harmony's vocabulary, which the settings do not name; for another they are the tokenizer's."""

_ROPE = ("initial_context_length", "rope_theta", "rope_scaling_factor", "rope_ntk_alpha", "rope_ntk_beta")

_OUTER = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.scale": "model.norm.weight",
    "unembedding.weight": "lm_head.weight",
}
_INNER = {
    "attn.sinks": "self_attn.sinks",
    "attn.norm.scale": "input_layernorm.weight",
    "attn.out.weight": "self_attn.o_proj.weight",
    "attn.out.bias": "self_attn.o_proj.bias",
    "mlp.norm.scale": "post_attention_layernorm.weight",
    "mlp.gate.weight": "mlp.router.weight",
    "mlp.gate.bias": "mlp.router.bias",
    "mlp.mlp1_weight.blocks": "mlp.experts.gate_up_proj_blocks",
    "mlp.mlp1_weight.scales": "mlp.experts.gate_up_proj_scales",
    "mlp.mlp1_bias": "mlp.experts.gate_up_proj_bias",
    "mlp.mlp2_weight.blocks": "mlp.experts.down_proj_blocks",
    "mlp.mlp2_weight.scales": "mlp.experts.down_proj_scales",
    "mlp.mlp2_bias": "mlp.experts.down_proj_bias",
}
"""OpenAI's name of a tensor of a block → transformers', of a layer."""

_DENSE = {"mlp.mlp1_weight": "mlp.experts.gate_up_proj", "mlp.mlp2_weight": "mlp.experts.down_proj"}
"""Experts that were unpacked: [expert, out, in] there, [expert, in, out] in transformers."""


def is_original(folder: Path) -> bool:
    """Say whether a folder's config.json is OpenAI's, which names no model type but its own settings."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and "model_type" not in settings and "experts_per_token" in settings


def original_config(folder: Path) -> Any:
    """Return the transformers config of OpenAI's settings. Raises `ModelError` where one is missing."""
    from transformers import GptOssConfig

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    missing = sorted({*_SETTINGS, *_ROPE} - settings.keys())
    if missing:
        raise ModelError(
            f"expected the settings of OpenAI's layout in {folder / 'config.json'}, {missing[0]} is missing"
        )
    length, factor = int(settings["initial_context_length"]), float(settings["rope_scaling_factor"])
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": settings["rope_theta"]}
    if factor > 1:
        rope |= {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": length,
            "beta_fast": settings["rope_ntk_beta"],
            "beta_slow": settings["rope_ntk_alpha"],
            "truncate": False,
        }
    kinds = ["sliding_attention", "full_attention"]
    sizes = {theirs: settings[name] for name, theirs in _SETTINGS.items()}
    more: dict[str, Any] = dict.fromkeys(_SPECIAL_IDS)
    if sizes["vocab_size"] > max(_HARMONY_ENDS):
        more |= _SPECIAL_IDS
    if _packed(folder):
        more["quantization_config"] = {"quant_method": "mxfp4", **_UNPACKED}
    return GptOssConfig(
        **sizes,
        rope_parameters=rope,
        max_position_embeddings=int(length * factor),
        layer_types=[kinds[layer % 2] for layer in range(sizes["num_hidden_layers"])],
        dtype="bfloat16",
        **more,
    )


_UNPACKED = {
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ]
}


def _packed(folder: Path) -> bool:
    return any(name.endswith(".blocks") for name, _ in _tensors(folder, names_only=True))


def original_weights(folder: Path, config: Any) -> dict[str, Tensor]:
    """Return all tensors under transformers' names, on the CPU, experts as packed as they are.

    Raises:
        ModelError: a tensor that the layout does not know.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in _tensors(folder):
        found |= _renamed(name, tensor, config)
    return found


def _tensors(folder: Path, names_only: bool = False) -> Iterator[tuple[str, Tensor]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - it is no dict
                yield name, torch.empty(0) if names_only else stored.get_tensor(name)


def _renamed(name: str, tensor: Tensor, config: Any) -> dict[str, Tensor]:
    if name in _OUTER:
        return {_OUTER[name]: tensor}
    match = re.fullmatch(r"block\.(\d+)\.(.+)", name)
    if match is None:
        raise ModelError(f"expected the tensors of OpenAI's layout, such as block.0.attn.qkv.weight, got {name!r}")
    layer, inner = f"model.layers.{match[1]}", match[2]
    if inner in _INNER:
        return {f"{layer}.{_INNER[inner]}": tensor}
    if inner in _DENSE:
        return {f"{layer}.{_DENSE[inner]}": tensor.transpose(1, 2).contiguous()}
    if inner in ("attn.qkv.weight", "attn.qkv.bias"):
        kind = inner.rpartition(".")[2]
        heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        parts = torch.split(tensor, [n * config.head_dim for n in heads])
        return {f"{layer}.self_attn.{p}_proj.{kind}": t.contiguous() for p, t in zip("qkv", parts, strict=True)}
    raise ModelError(f"the tensor {name!r} is of no part of OpenAI's layout that is known here")
