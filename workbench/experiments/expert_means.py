"""What an expert gives on average, over the tokens that take it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.families import ModelError
from workbench.model import Model
from workbench.rollout import READ_CHUNK
from workbench.trace import Trace

__all__ = ["mean_outputs"]


def mean_outputs(model: Model, reference: Trace, layer: int, experts: Sequence[int]) -> dict[int, Tensor]:
    """Return the mean output of a layer's experts over the tokens of a reference for which the router chooses them.

    Args:
        model: to read the reference with.
        reference: whose tokens are read, prompt and completion.
        layer: with a router.
        experts: of that layer.

    Returns:
        expert → [d_model] float32, before the expert's weight.

    Raises:
        ModelError: an expert that no token of the reference takes.
    """
    model.require_here("mean outputs of experts")
    outputs: dict[int, list[Tensor]] = {expert: [] for expert in experts}

    def collect(module: Any, args: tuple[Tensor, Tensor, Tensor]) -> None:
        hidden, indices, weights = args
        for expert in experts:
            rows = hidden[(indices == expert).any(-1)]
            only = torch.full((len(rows), 1), expert, dtype=indices.dtype, device=indices.device)
            if len(rows):
                outputs[expert].append(module.forward(rows, only, torch.ones_like(only, dtype=weights.dtype)).float())

    handle = model.layers[layer].get_submodule(model.family.experts).register_forward_pre_hook(collect)
    try:
        _read(model, reference)
    finally:
        handle.remove()
    never = next((expert for expert, found in outputs.items() if not found), None)
    if never is not None:
        raise ModelError(
            f"mean output: no token of the reference takes expert {never} of layer {layer}, so its mean is "
            "undefined. Pass reference= a trace in which it is chosen."
        )
    return {expert: torch.cat(found).mean(0) for expert, found in outputs.items()}


def _read(model: Model, trace: Trace) -> None:
    ids = torch.from_numpy(trace.arrays["token_ids"].astype("int64"))[None].to(model.device)
    cache = None
    with torch.no_grad():
        for start in range(0, ids.shape[1], READ_CHUNK):
            piece = ids[:, start : start + READ_CHUNK]
            cache = model.hf(input_ids=piece, past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
