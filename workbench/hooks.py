"""Hook points on a resident model: attach, check with one token, detach.

Hooks only keep references to what the model computed. They never return anything (a returned value would replace
the module's output), never synchronise with the device, and are removed when the context ends, however it ends.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from workbench.families import ModelError
from workbench.model import Model

__all__ = ["FINAL", "WHOLE", "Forward", "HookPlan", "Recorder", "attach", "not_finite", "rows_of"]

Key = tuple[str, int]
"""A hook point and its layer; points of the whole model have layer -1."""

WHOLE = -1

Forward = dict[Key, list[Tensor]]
"""What one forward showed at each hook point."""


@dataclass(frozen=True)
class HookPlan:
    """Which layers to read at which hook point."""

    router: Sequence[int] = ()
    attention: Sequence[int] = ()
    residual: Sequence[int] = ()
    """layers whose output, resid_post, is read"""

    def points(self) -> dict[str, tuple[int, ...]]:
        """Return hook point → the layers it is read in; `WHOLE` for points of the whole model."""
        rotary = (WHOLE,) if self.attention else ()
        found = {
            "final": (WHOLE,),
            "logits": (WHOLE,),
            **dict.fromkeys(("router_logits", "expert_indices", "expert_weights"), tuple(self.router)),
            **dict.fromkeys(("queries", "keys"), tuple(self.attention)),
            **dict.fromkeys(("rotary_cos", "rotary_sin"), rotary),
            "residual": tuple(self.residual),
        }
        return {point: layers for point, layers in found.items() if layers}

    def keys(self) -> set[Key]:
        """Return every hook point and layer that must fire once per forward."""
        return {(point, layer) for point, layers in self.points().items() for layer in layers}


@dataclass
class Recorder:
    """References to what the hook points saw, as the modules gave it: [row, width] or [batch, row, …].

    Each in a list, because the self-check counts.
    """

    seams: dict[str, str] = field(default_factory=dict)
    """hook point → where it was found, for the provenance"""
    forwards: dict[int, Forward] = field(default_factory=dict)
    """completed forwards that nobody has collected yet, numbered from 1 in the order they ran"""
    _seen: Forward = field(default_factory=dict)
    _number: int = 0
    _paused: bool = False

    def keep(self, point: str, layer: int, tensor: Tensor) -> None:
        """Keep a reference. This runs a hundred times in each step: whatever can wait is done in `rows_of`."""
        if self._paused:
            return
        self._seen.setdefault((point, layer), []).append(tensor)
        if point == "logits":  # the last to fire; an interrupted forward never gets here
            self._number += 1
            self.forwards[self._number] = self._seen
            self._seen = {}

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Keep nothing inside, where the model's modules are called for other ends."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before


def rows_of(seen: Forward, point: str, layer: int = WHOLE) -> Tensor:
    """Return what a forward showed at a hook point as [row, width]."""
    tensor = seen[(point, layer)][0]
    return tensor if tensor.ndim == 2 else tensor.flatten(0, 1).flatten(1)  # some have heads apart


@contextmanager
def attach(model: Model, plan: HookPlan) -> Iterator[Recorder]:
    """Attach the hooks of a plan, check them with one token, and detach them at the end.

    The router is read from the router module's own output. Where a forward bypasses that module (native MXFP4,
    MegaBlocks) its logits are recomputed from the input of the MLP with the router's weight and bias, which is
    bit-equal where both exist.

    Raises:
        ModelError: a hook point did not fire once per layer, a width is wrong, or a number is not finite; names the
            layer and the seam.
    """
    model.require_here("hooks on it")
    problems: list[str] = []
    for seam in _ROUTER_SEAMS:
        recorder = Recorder(seams={"router": seam.__name__.removeprefix("_router_from_")})
        handles: list[RemovableHandle] = []
        try:
            handles += _attach_common(model, plan, recorder)
            for layer in plan.router:
                handles.append(seam(model, layer, recorder))
            problem = _self_check(model, plan, recorder)
            if problem is None:
                yield recorder
                return
            problems.append(f"{recorder.seams['router']}: {problem}")
        finally:
            for handle in handles:
                handle.remove()
    raise ModelError(
        f"the hooks did not see {model.name} as expected. " + "; ".join(problems) + ". If the model was compiled or "
        "its kernels were replaced after loading, load it again and capture before that; if its attention heads are "
        "split over processes (tensor parallel), capture with attention=False."
    )


def _router_from_module(model: Model, layer: int, recorder: Recorder) -> RemovableHandle:
    """Read logits, weights and indices from the router module's output."""

    def hook(_module: Any, _args: Any, output: Any) -> None:
        logits, weights, indices = output
        _keep_router(recorder, layer, logits, indices, weights)

    return _router(model, layer).register_forward_hook(hook)


def _router_from_mlp_input(model: Model, layer: int, recorder: Recorder) -> RemovableHandle:
    """Recompute the router from what the MLP was given."""
    family = model.family
    router: Any = _router(model, layer)
    route, bias = family.route, getattr(router, "bias", None)
    assert route is not None  # a family with a router has a convention

    def hook(_module: Any, args: tuple[Any, ...]) -> None:
        rows = args[0].reshape(-1, args[0].shape[-1])
        logits = F.linear(rows, router.weight, bias)
        indices, weights = route(logits, router)
        _keep_router(recorder, layer, logits, indices, weights)

    return model.layers[layer].get_submodule(family.mlp).register_forward_pre_hook(hook)


def _router(model: Model, layer: int) -> nn.Module:
    return model.layers[layer].get_submodule(str(model.family.router))


_ROUTER_SEAMS = (_router_from_module, _router_from_mlp_input)


def _keep_router(recorder: Recorder, layer: int, logits: Tensor, indices: Tensor, weights: Tensor) -> None:
    recorder.keep("router_logits", layer, logits)
    recorder.keep("expert_indices", layer, indices)
    recorder.keep("expert_weights", layer, weights)


def _attach_common(model: Model, plan: HookPlan, recorder: Recorder) -> list[RemovableHandle]:
    """Attach everything but the router."""
    family = model.family

    def output_of(point: str, layer: int) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            recorder.keep(point, layer, output[0] if isinstance(output, tuple) else output)

        return hook

    def rotary(_module: Any, _args: Any, output: tuple[Tensor, Tensor]) -> None:
        recorder.keep("rotary_cos", WHOLE, output[0])
        recorder.keep("rotary_sin", WHOLE, output[1])

    hf = model.hf
    handles = [
        hf.get_submodule(family.norm).register_forward_hook(output_of("final", WHOLE)),
        hf.get_submodule(family.unembed).register_forward_hook(output_of("logits", WHOLE)),
    ]
    if plan.attention:
        handles.append(hf.get_submodule(family.rotary).register_forward_hook(rotary))
    for layer in plan.attention:
        for point, path in (("queries", family.queries), ("keys", family.keys)):
            module = model.layers[layer].get_submodule(str(path))
            handles.append(module.register_forward_hook(output_of(point, layer)))
    for layer in plan.residual:
        handles.append(model.layers[layer].register_forward_hook(output_of("residual", layer)))
    return handles


def _self_check(model: Model, plan: HookPlan, recorder: Recorder) -> str | None:
    """Forward one token and say what a hook point did wrong, or None."""
    token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    with torch.no_grad():
        model.hf(input_ids=token, use_cache=False)
    seen = recorder.forwards.popitem()[1] if recorder.forwards else {}
    expected_width = _widths(model)
    for point, layer in sorted(plan.keys()):
        where = point if layer == WHOLE else f"{point} of layer {layer}"
        tensors = seen.get((point, layer), [])
        if len(tensors) != 1:
            return f"{where} fired {len(tensors)} times for one token, expected once"
        rows = rows_of(seen, point, layer)
        width = expected_width.get(point, rows.shape[-1])
        if rows.shape != (1, width):
            return f"{where} has shape {tuple(rows.shape)}, expected (1, {width})"
        if point == "router_logits" and not bool(rows.any()):
            return f"{where} is all zero"
    _refuse_not_finite(model, seen)
    return None


def _refuse_not_finite(model: Model, seen: Forward) -> None:
    """Raise `ModelError` at the first layer whose router, or at the final norm, where a number is NaN or infinite."""
    router = sorted(key for key in seen if key[0] == "router_logits")
    for point, layer in [*router, ("final", WHOLE)]:
        if not bool(torch.isfinite(seen[(point, layer)][0]).all()):
            raise not_finite(model, FINAL if layer == WHOLE else f"{point} of layer {layer}")


FINAL = "the output of the final norm"


def not_finite(model: Model, where: str) -> ModelError:
    """Return the error for numbers that no healthy model makes."""
    return ModelError(
        f"{where} is not finite (NaN or infinity) in {model.name}: the weights are damaged or the dtype overflows. "
        "Download or copy the weights again, or load them with dtype=torch.float32."
    )


def _widths(model: Model) -> dict[str, int]:
    return {
        "router_logits": model.num_experts,
        "expert_indices": model.top_k,
        "expert_weights": model.top_k,
        "queries": model.num_heads * model.d_head,
        "keys": model.num_kv_heads * model.d_head,
        "residual": model.d_model,
    }
