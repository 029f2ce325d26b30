"""A baseline's own tokens read twice, unchanged and changed: how far the predictions part, and who is routed where."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench import remote
from workbench.analysis.routing import routing_overlap
from workbench.experiments.intervening import Reading
from workbench.families import ModelError
from workbench.hooks import HookPlan, Recorder, attach, rows_of
from workbench.labelled import Labelled
from workbench.model import Model
from workbench.trace import Trace

__all__ = ["Aligned", "Unchanged", "aligned"]

PIECE = 128
"""Tokens read at a time; the logits of so many are held twice."""

KEPT_BYTES = 1 << 30
"""Log-probabilities of a baseline that are kept for the next comparison; more are computed again each time."""

KL = (
    "KL(baseline ‖ changed) in nats, full vocabulary at T = 1, both teacher-forced on the baseline's tokens; at token "
    "i of the distributions that it was drawn from"
)


class _Piece(NamedTuple):
    """What one forward over consecutive tokens gave."""

    logprobs: Tensor
    """[row, vocabulary] float32"""
    indices: NDArray[Any] | None
    """[row, layer, top_k], the experts used; None in a dense model"""


class Unchanged:
    """A baseline, to be read unchanged as often as something is put beside it."""

    def __init__(self, model: Model, trace: Trace) -> None:
        """Take the tokens. Raises `ModelError` for a trace of a changed model, or of another vocabulary."""
        if "intervention" in trace.meta:
            done = ", ".join(one["variant"] for one in trace.meta["intervention"])
            raise ModelError(f"the baseline was itself made under an intervention ({done}); capture one without")
        size = int(model.config.vocab_size)
        if int(trace.arrays["token_ids"].max()) >= size:
            raise ModelError(f"the baseline has token ids above the {size} of {model.name}; it is of another model")
        self.model, self.trace = model, trace
        self.token_ids = [int(i) for i in trace.arrays["token_ids"]]
        self._kept: list[_Piece] = []
        self._keeps = 4 * len(self.token_ids) * size <= KEPT_BYTES

    def pieces(self, recorder: Recorder, reading: Reading | None) -> Iterator[_Piece]:
        """Read piece after piece, with what is put there left out."""
        if self._kept and sum(len(piece.logprobs) for piece in self._kept) == len(self.token_ids):
            yield from self._kept
            return
        self._kept, cache = [], None
        for start in range(0, len(self.token_ids), PIECE):
            if reading is None:
                piece, cache = _read(self.model, recorder, self.token_ids[start : start + PIECE], cache)
            else:
                with reading.off():
                    piece, cache = _read(self.model, recorder, self.token_ids[start : start + PIECE], cache)
            if self._keeps:
                self._kept.append(piece)
            yield piece

    def expert_indices(self) -> NDArray[Any]:
        """Return the experts that the unchanged model uses [token, layer, top_k], over `Model.router_layers`."""
        if self.model.remote:
            return remote.comparison(self.model, self.token_ids)["before"]
        with torch.no_grad(), attach(self.model, HookPlan(router=self.model.router_layers)) as recorder:
            found = [piece.indices for piece in self.pieces(recorder, None)]
        return np.concatenate([indices for indices in found if indices is not None])


@dataclass(frozen=True, eq=False)
class Aligned:
    """What a change does to the reading of a baseline."""

    kl: Labelled
    """[token] float64, nats, NaN at 0: `KL`"""
    routing_overlap: Labelled | None
    """[layer] float64: share of experts in common, over the tokens from the first changed one on; None in a dense
    model. At the layers that are changed it counts the change itself"""
    first_token: int
    """the first whose forward was changed; the predictions of tokens after it can differ"""
    num_changed: int
    """tokens whose forward was changed"""

    @property
    def mean_kl(self) -> float:
        """Mean of `kl` over the tokens after the first changed one; NaN where there is none."""
        after = self.kl.values[self.first_token + 1 :]
        return float(after.mean()) if len(after) else float("nan")


def aligned(unchanged: Unchanged, reading: Reading) -> Aligned:
    """Read a baseline changed, inside `intervene`, and put it beside itself unchanged.

    Raises:
        ModelError: no token of the baseline is one of those to be changed.
    """
    model, layers = unchanged.model, unchanged.model.router_layers
    if model.remote:
        found = remote.comparison(model, unchanged.token_ids)
        return _aligned(model, reading, found["kl"], found.get("before"), found.get("after"))
    kl: list[Tensor] = []
    before: list[NDArray[Any]] = []
    after: list[NDArray[Any]] = []
    with torch.no_grad(), attach(model, HookPlan(router=layers)) as recorder:
        cache, at = None, 0
        for piece in unchanged.pieces(recorder, reading):
            ids = unchanged.token_ids[at : at + len(piece.logprobs)]
            changed, cache = _read(model, recorder, ids, cache)
            at += len(ids)
            kl.append((piece.logprobs.exp() * (piece.logprobs - changed.logprobs)).sum(-1, dtype=torch.float64))
            if piece.indices is not None and changed.indices is not None:
                before.append(piece.indices)
                after.append(changed.indices)
    used = [np.concatenate(found) if found else None for found in (before, after)]
    return _aligned(model, reading, torch.cat(kl).cpu().numpy(), *used)


def _aligned(
    model: Model,
    reading: Reading,
    kl: NDArray[np.float64],
    before: NDArray[Any] | None,
    after: NDArray[Any] | None,
) -> Aligned:
    """Put together what two readings gave: ``kl`` [row] and the experts used [row, layer, top_k]."""
    reading.require_touched("the baseline")
    touched = np.flatnonzero(reading.touched())
    first = int(touched[0])
    values = kl.clip(min=0)[:-1]
    overlap = None if before is None or after is None else _overlap(before[first:], after[first:], model)
    return Aligned(Labelled(np.concatenate([[np.nan], values]), ("token",), source=KL), overlap, first, len(touched))


def _read(model: Model, recorder: Recorder, ids: list[int], cache: Any) -> tuple[_Piece, Any]:
    given = torch.tensor([ids], device=model.device)
    cache = model.hf(input_ids=given, past_key_values=cache, use_cache=True).past_key_values
    seen = recorder.forwards.popitem()[1]
    logprobs = torch.log_softmax(rows_of(seen, "logits").float(), dim=-1)
    chosen = [rows_of(seen, "expert_indices", layer).cpu().numpy() for layer in model.router_layers]
    return _Piece(logprobs, np.stack(chosen, axis=1) if chosen else None), cache


def _overlap(before: NDArray[Any], after: NDArray[Any], model: Model) -> Labelled:
    dims, layers = ("token", "layer", "top_k"), {"layer": model.router_layers}
    a, b = (Labelled(indices, dims, layers, "experts used, teacher-forced") for indices in (before, after))
    return routing_overlap(a, b, model.num_experts)
