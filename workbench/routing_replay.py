"""Replay and routing: force recorded choices on a model, and say where a replay chose otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from workbench.families import ModelError
from workbench.model import Model
from workbench.trace import Trace

__all__ = ["forced_routing", "routing_agreement"]

CHOOSING = ("route around", "force", "scale")
"""Interventions on what a router gives; others, such as on attention, go together with forced routing."""


@contextmanager
def forced_routing(model: Model, trace: Trace) -> Iterator[None]:
    """Make every router give the experts and weights that a trace recorded, token after token.

    The router's own logits are left as they are, so a capture inside shows what the model would have chosen.
    Forwards inside must read the trace's tokens from the first on.

    Raises:
        ModelError: the trace lacks the routing of a layer, a forward bypasses the router module, or an intervention
            changes what routers choose.
    """
    chosen = [one["variant"] for one in model.interventions if one["variant"] in CHOOSING]
    if chosen:
        raise ModelError(
            f"forced routing would undo the intervention ({chosen[0]}): both say which experts are used, with what "
            "weight. Leave one out."
        )
    if not trace.has("expert_indices") or trace.layers("expert_indices") != model.router_layers:
        have = trace.layers("expert_indices") if trace.has("expert_indices") else ()
        raise ModelError(
            f"forced routing needs the experts of every layer with a router {model.router_layers}; "
            f"the trace has those of {have or 'none'}"
        )
    indices = torch.from_numpy(trace.expert_indices[:].astype(np.int64)).to(model.device)
    weights = torch.from_numpy(trace.expert_weights[:].astype(np.float32)).to(model.device)
    handles: list[RemovableHandle] = []
    forced = _Forced(indices, weights)
    try:
        for at, layer in enumerate(model.router_layers):
            router = model.layers[layer].get_submodule(str(model.family.router))
            handles.append(router.register_forward_hook(forced.hook(at)))
        yield
    finally:
        for handle in handles:
            handle.remove()
    if any(read != len(trace) for read in forced.rows_read.values()) or not forced.rows_read:
        raise ModelError(
            f"forced routing reached {forced.rows_read or 'none'} of {len(trace)} tokens in each layer: this forward "
            "bypasses the router module (native MXFP4 or MegaBlocks kernels). Load with dequantised experts."
        )


class _Forced:
    """Recorded indices and weights [token, layer, top_k], and how far each layer has read them."""

    def __init__(self, indices: Tensor, weights: Tensor) -> None:
        self.indices, self.weights = indices, weights
        self.rows_read: dict[int, int] = {}

    def hook(self, at: int) -> Any:
        """Return the forward hook of the router at a place in the recorded layers."""

        def replace(_module: Any, _args: Any, output: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            logits, own_weights, own_indices = output
            start = self.rows_read.get(at, 0)
            rows = slice(start, start + len(own_indices))
            if rows.stop > len(self.indices):
                return output
            self.rows_read[at] = rows.stop
            return logits, self.weights[rows, at].to(own_weights.dtype), self.indices[rows, at].to(own_indices.dtype)

        return replace


def routing_agreement(recorded: Trace, replayed: Trace) -> dict[str, Any] | None:
    """Compare the expert sets of two traces of the same tokens, over the layers both have.

    Returns:
        JSON-able numbers: ``sets`` compared (tokens x layers), ``differ``, ``tokens`` with at least one that differs,
        and the recorded routing margin in logits, ``median_margin`` overall and ``median_margin_where_differ`` (None
        where no set differs or no logits were recorded). None when there is nothing to compare.
    """
    shared = _shared_layers(recorded, replayed)
    if not shared:
        return None
    a, b = (_layer_rows(trace, "expert_indices", shared) for trace in (recorded, replayed))
    differ = (np.sort(a, axis=-1) != np.sort(b, axis=-1)).any(axis=-1)
    margins = _margins(recorded, shared, a.shape[-1])
    return {
        "sets": int(differ.size),
        "differ": int(differ.sum()),
        "tokens": int(differ.any(axis=1).sum()),
        "median_margin": _median(margins),
        "median_margin_where_differ": _median(None if margins is None else margins[differ]),
    }


def _shared_layers(a: Trace, b: Trace) -> list[int]:
    if not (a.has("expert_indices") and b.has("expert_indices")):
        return []
    return [layer for layer in a.layers("expert_indices") if layer in b.layers("expert_indices")]


def _layer_rows(trace: Trace, name: str, layers: list[int]) -> NDArray[Any]:
    at = [trace.layers(name).index(layer) for layer in layers]
    rows: NDArray[Any] = trace.array(name)[:, at]
    return rows


def _margins(trace: Trace, layers: list[int], top_k: int) -> NDArray[Any] | None:
    """Return the logit of the last chosen expert minus that of the first left out [token, layer]."""
    if not trace.has("router_logits") or trace.array("router_logits").shape[-1] <= top_k:
        return None
    ordered = np.sort(_layer_rows(trace, "router_logits", layers).astype(np.float32), axis=-1)
    margins: NDArray[Any] = ordered[..., -top_k] - ordered[..., -top_k - 1]
    return margins


def _median(values: NDArray[Any] | None) -> float | None:
    return None if values is None or not values.size else float(np.median(values))
